//! Again: an import that is run again makes no mutating call where all is well, repairs exactly what is not, and ends
//! the same wherever the one before it has died.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::as_before::{Death, die};
use crate::complete::{Wanted, assert_complete, base64, make_zone};
use crate::support::account::{assert_same, kind, one, unlike};
use crate::support::{Sandbox, mutations};

/// Takes away the target group of the cluster prod, with all that would keep it.
pub(crate) fn remove_target_group(sandbox: &Sandbox, inventory: &Value) {
    let listeners = &kind(inventory, "load_balancers")["wekactl-prod"]["Listeners"];
    for listener in listeners.as_object().expect("listeners").keys() {
        let listener = json!({"ListenerArn": listener});
        sandbox.aws("elbv2", "delete_listener", &listener);
    }
    let arn = &kind(inventory, "target_groups")["wekactl-prod-api"]["TargetGroupArn"];
    let attached =
        json!({"AutoScalingGroupName": "wekactl-prod-Backends", "TargetGroupARNs": [arn]});
    sandbox.aws(
        "autoscaling",
        "detach_load_balancer_target_groups",
        &attached,
    );
    let target_group = json!({"TargetGroupArn": arn});
    sandbox.aws("elbv2", "delete_target_group", &target_group);
}

#[track_caller]
pub(crate) fn assert_no_mutations(sandbox: &Sandbox, what: &str) {
    let mutations = mutations(&sandbox.take_calls());
    assert!(mutations.is_empty(), "{what}: {mutations:?}");
}

#[test]
fn a_second_import_changes_nothing_with_the_same_flags_or_without() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": "prod", "clients": 1, "classic_lb": true}));
    let zone = make_zone(&sandbox);
    let flags = ["-t", "team=storage", "-l", "weka.example.com", "-z", &zone];

    let before = sandbox.inventory();
    let planned = sandbox
        .import_small("prod", &[&flags[..], &["--dry-run", "-o", "json"]].concat())
        .ok();
    assert_no_mutations(&sandbox, "a dry run");
    assert_same(&before, &sandbox.inventory(), "after a dry run");

    sandbox.import_small("prod", &flags).ok();
    let made = mutations(&sandbox.take_calls());
    assert!(made.len() > 50, "{made:?}");
    // What the dry run has told is what was then made.
    let told: Value = serde_json::from_str(&planned.stdout).expect("JSON");
    let told = told["changes"].as_array().expect("changes").iter();
    let told = told.filter(|change| change["kind"] == "role" && change["action"] == "create");
    assert_eq!(
        told.count(),
        made.iter().filter(|call| *call == "iam.CreateRole").count()
    );

    let managed = sandbox.inventory();
    // The flags may be given again, or left out.
    for flags in [&flags[..], &[]] {
        let run = sandbox.import_small("prod", flags).ok();
        assert_no_mutations(&sandbox, "a second import");
        assert!(run.stderr.contains("made 0, changed 0"), "{}", run.stderr);
        assert!(run.stdout.starts_with("#!/bin/bash\n"), "{}", run.stdout);
    }
    sandbox.import_small("prod", &["--dry-run"]).ok();
    assert_no_mutations(&sandbox, "a dry run of a second import");
    sandbox.destroy("prod", &["--dry-run"]).ok();
    sandbox
        .destroy("prod", &["--dry-run", "--keep-instances"])
        .ok();
    assert_no_mutations(&sandbox, "a dry run of destroy");
    assert_same(&managed, &sandbox.inventory(), "after what changes nothing");

    // The operator's: sizes, a rule that is disabled, what others have tagged or stored.
    let name = "wekactl-prod-Backends";
    sandbox.aws(
        "autoscaling",
        "update_auto_scaling_group",
        &json!({"AutoScalingGroupName": name, "MinSize": 5, "MaxSize": 9}),
    );
    sandbox.aws("events", "disable_rule", &json!({"Name": name}));
    let table = &kind(&managed, "tables")["wekactl-prod"];
    sandbox.aws(
        "dynamodb",
        "tag_resource",
        &json!({"ResourceArn": table["TableArn"], "Tags": [{"Key": "auditor", "Value": "somebody"}]}),
    );
    sandbox.aws(
        "dynamodb",
        "update_item",
        &json!({
            "TableName": "wekactl-prod", "Key": {"Key": {"S": "cluster-settings"}},
            "UpdateExpression": "SET SomethingLater = :v", "ExpressionAttributeValues": {":v": {"S": "kept"}},
        }),
    );
    let operated = sandbox.inventory();
    let run = sandbox.import_small("prod", &[]).ok();
    assert!(run.stderr.contains("disabled"), "{}", run.stderr);
    assert_no_mutations(&sandbox, "an import after an operator's changes");
    assert_same(&operated, &sandbox.inventory(), "the operator's changes");

    // Other credentials are stored, and nothing else.
    for (user, password) in [("admin", "An0ther-Pa55word"), ("root", "An0ther-Pa55word")] {
        let code = sandbox.small_code();
        sandbox
            .wekactl(&[
                "cluster",
                "import",
                "-n",
                "prod",
                "-u",
                user,
                "-p",
                password,
                "--lambda-binary",
                &code,
            ])
            .ok();
        let calls = sandbox.take_calls();
        // They are tried first: an invocation, by which nothing is changed.
        assert_eq!(mutations(&calls), ["lambda.Invoke", "dynamodb.PutItem"]);
        let request = calls.iter().find(|call| call["operation"] == "PutItem");
        let request = request.expect("a call")["request"].as_str().expect("text");
        for text in ["cluster-creds", &base64(user), &base64(password)] {
            assert!(request.contains(text), "{text}: {request}");
        }
    }
}

#[test]
fn a_cluster_whose_machines_have_all_been_replaced_needs_nothing() {
    let sandbox = Sandbox::start();
    let stack = sandbox.stack(&json!({"name": "prod", "clients": 1, "classic_lb": true}));
    sandbox.import_small("prod", &["-t", "team=storage"]).ok();
    let group = "wekactl-prod-Backends";
    sandbox.aws(
        "autoscaling",
        "set_desired_capacity",
        &json!({"AutoScalingGroupName": group, "DesiredCapacity": 12}),
    );
    let first = stack["backends"].as_array().expect("machines").iter();
    for machine in first {
        sandbox.aws(
            "ec2",
            "modify_instance_attribute",
            &json!({"InstanceId": machine["id"], "DisableApiTermination": {"Value": false}}),
        );
        sandbox.aws(
            "autoscaling",
            "detach_instances",
            &json!({
                "AutoScalingGroupName": group, "InstanceIds": [machine["id"]],
                "ShouldDecrementDesiredCapacity": true,
            }),
        );
        sandbox.aws(
            "ec2",
            "terminate_instances",
            &json!({"InstanceIds": [machine["id"]]}),
        );
    }
    let replaced = sandbox.inventory();
    let members = kind(&replaced, "auto_scaling_groups")[group]["Instances"].as_object();
    let members = members.expect("members");
    assert_eq!(members.len(), 6);
    for machine in stack["backends"].as_array().expect("machines") {
        assert!(!members.contains_key(machine["id"].as_str().expect("an id")));
    }
    sandbox.take_calls();
    sandbox.import_small("prod", &[]).ok();
    assert_no_mutations(&sandbox, "an import after every machine was replaced");

    // Destroy takes those that there are now.
    let run = sandbox.destroy("prod", &[]).ok();
    assert!(run.stderr.contains("no longer managed"), "{}", run.stderr);
    let after = sandbox.inventory();
    for id in members.keys() {
        assert_eq!(
            kind(&after, "instances")[id]["State"]["Name"],
            "terminated",
            "{id}"
        );
    }
}

/// One change by hand: what it is, the call that makes it, and the calls that repair it; besides those that write
/// tags, which come with every change.
pub(crate) struct Drift {
    pub(crate) what: &'static str,
    pub(crate) call: (&'static str, &'static str, Value),
    pub(crate) repair: &'static [&'static str],
}

/// Writing tags is all that is needed.
const TAGGED: &[&str] = &[];

/// What the calls need of the account.
pub(crate) struct Names {
    api: String,
    resource: String,
    plan: String,
    api_key: String,
    key: String,
    listener: String,
    target_group: String,
    balancer: String,
    table: String,
    machine: String,
    classic: String,
    backend: String,
    record: Value,
    zone: String,
    roles: BTreeMap<String, String>,
}

impl Names {
    pub(crate) fn of(inventory: &Value, stack: &Value, zone: &str) -> Self {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let any = |of_kind: &str, field: &str| text(&one(inventory, of_kind, |_| true)[field]);
        let zones = &inventory["global"]["hosted_zones"];
        let roles = inventory["global"]["roles"]
            .as_object()
            .expect("roles")
            .keys();
        let roles = roles.filter_map(|name| {
            let purpose = name
                .strip_prefix("wekactl-prod-Backends-")?
                .split('-')
                .next()?;
            Some((purpose.to_owned(), name.clone()))
        });
        let balancer = one(inventory, "load_balancers", |_| true);
        let resources = one(inventory, "rest_apis", |_| true)["resources"].as_array();
        let resource = resources
            .into_iter()
            .flatten()
            .find(|each| !each["resourceMethods"].is_null());
        let listeners = balancer["Listeners"].as_object().expect("listeners");
        Self {
            api: any("rest_apis", "id"),
            resource: text(&resource.expect("a resource")["id"]),
            plan: any("usage_plans", "id"),
            api_key: any("api_keys", "id"),
            key: text(&one(inventory, "kms_keys", |key| key["KeyState"] == "Enabled")["KeyId"]),
            listener: listeners.keys().next().expect("a listener").clone(),
            target_group: any("target_groups", "TargetGroupArn"),
            balancer: text(&balancer["LoadBalancerArn"]),
            table: any("tables", "TableArn"),
            machine: any("state_machines", "stateMachineArn"),
            classic: text(&stack["classic_lb"]),
            backend: text(&stack["backends"][1]["id"]),
            record: zones[format!("/hostedzone/{zone}")]["Records"]["weka.example.com. A"].clone(),
            zone: zone.to_owned(),
            roles: roles.collect(),
        }
    }
}

const GROUP: &str = "wekactl-prod-Backends";

pub(crate) fn drifts(names: &Names) -> Vec<Drift> {
    let mut all = Vec::new();
    let mut add = |what, service, operation, params, repair| {
        all.push(Drift {
            what,
            call: (service, operation, params),
            repair,
        });
    };
    let role = |purpose: &str| &names.roles[purpose];
    let group = |field: &str, value: Value| json!({"AutoScalingGroupName": GROUP, field: value});
    let function = |word: &str| format!("wekactl-prod-{word}-Backends");

    add(
        "a role's policy deleted",
        "iam",
        "delete_role_policy",
        json!({"RoleName": role("fetch"), "PolicyName": "wekactl-prod-fetch-Backends"}),
        &["iam.PutRolePolicy"],
    );
    add(
        "a role's policy widened",
        "iam",
        "put_role_policy",
        json!({
            "RoleName": role("terminate"), "PolicyName": "wekactl-prod-terminate-Backends",
            "PolicyDocument": r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}"#,
        }),
        &["iam.PutRolePolicy"],
    );
    add(
        "a role's trust changed",
        "iam",
        "update_assume_role_policy",
        json!({
            "RoleName": role("sm"),
            "PolicyDocument": r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"Service":"ec2.amazonaws.com"}}]}"#,
        }),
        &["iam.UpdateAssumeRolePolicy"],
    );
    add(
        "a role's tag removed",
        "iam",
        "untag_role",
        json!({"RoleName": role("cw"), "TagKeys": ["team"]}),
        TAGGED,
    );
    add(
        "a function's environment changed",
        "lambda",
        "update_function_configuration",
        json!({"FunctionName": function("transient"), "Environment": {"Variables": {"LAMBDA": "join"}}}),
        &["lambda.UpdateFunctionConfiguration"],
    );
    add(
        "a function's time and memory changed",
        "lambda",
        "update_function_configuration",
        json!({"FunctionName": function("fetch"), "Timeout": 3, "MemorySize": 128}),
        &["lambda.UpdateFunctionConfiguration"],
    );
    add(
        "a function without its layer",
        "lambda",
        "update_function_configuration",
        json!({"FunctionName": function("scale"), "Layers": []}),
        &["lambda.UpdateFunctionConfiguration"],
    );
    add(
        "a function deleted",
        "lambda",
        "delete_function",
        json!({"FunctionName": function("terminate")}),
        &["lambda.CreateFunction"],
    );
    add(
        "the function that the API calls deleted",
        "lambda",
        "delete_function",
        json!({"FunctionName": function("join")}),
        &["lambda.AddPermission", "lambda.CreateFunction"],
    );
    add(
        "the API's permission removed",
        "lambda",
        "remove_permission",
        json!({"FunctionName": function("join"), "StatementId": format!("wekactl-api-{}", names.api)}),
        &["lambda.AddPermission"],
    );
    add(
        "a function's tag changed",
        "lambda",
        "tag_resource",
        json!({
            "Resource": format!("arn:aws:lambda:eu-central-1:123456789012:function:{}", function("scale")),
            "Tags": {"team": "another"},
        }),
        TAGGED,
    );
    add(
        "a log group deleted",
        "logs",
        "delete_log_group",
        json!({"logGroupName": format!("/aws/lambda/{}", function("scale"))}),
        &["logs.CreateLogGroup", "logs.PutRetentionPolicy"],
    );
    add(
        "a log group that keeps less",
        "logs",
        "put_retention_policy",
        json!({"logGroupName": format!("/aws/lambda/{}", function("join")), "retentionInDays": 1}),
        &["logs.PutRetentionPolicy"],
    );
    add(
        "the API's stage deleted",
        "apigateway",
        "delete_stage",
        json!({"restApiId": names.api, "stageName": "default"}),
        &["apigateway.CreateStage"],
    );
    add(
        "the API's method deleted",
        "apigateway",
        "delete_method",
        json!({"restApiId": names.api, "resourceId": names.resource, "httpMethod": "GET"}),
        &["apigateway.PutRestApi"],
    );
    add(
        "the API key disabled",
        "apigateway",
        "update_api_key",
        json!({
            "apiKey": names.api_key,
            "patchOperations": [{"op": "replace", "path": "/enabled", "value": "false"}],
        }),
        &["apigateway.UpdateApiKey"],
    );
    add(
        "the usage plan without its key",
        "apigateway",
        "delete_usage_plan_key",
        json!({"usagePlanId": names.plan, "keyId": names.api_key}),
        &["apigateway.CreateUsagePlanKey"],
    );
    add(
        "the usage plan without its stage",
        "apigateway",
        "update_usage_plan",
        json!({
            "usagePlanId": names.plan,
            "patchOperations": [
                {"op": "remove", "path": "/apiStages", "value": format!("{}:default", names.api)},
            ],
        }),
        &["apigateway.UpdateUsagePlan"],
    );
    add(
        "the listener deleted",
        "elbv2",
        "delete_listener",
        json!({"ListenerArn": names.listener}),
        &["elbv2.CreateListener"],
    );
    add(
        "another health check",
        "elbv2",
        "modify_target_group",
        json!({"TargetGroupArn": names.target_group, "HealthCheckPath": "/"}),
        &["elbv2.ModifyTargetGroup"],
    );
    add(
        "the load balancer's tag removed",
        "elbv2",
        "remove_tags",
        json!({"ResourceArns": [names.balancer], "TagKeys": ["team"]}),
        TAGGED,
    );
    add(
        "the DNS record deleted",
        "route53",
        "change_resource_record_sets",
        json!({
            "HostedZoneId": names.zone,
            "ChangeBatch": {"Changes": [{"Action": "DELETE", "ResourceRecordSet": names.record}]},
        }),
        &["route53.ChangeResourceRecordSets"],
    );
    add(
        "the classic load balancer's health check back",
        "elb",
        "configure_health_check",
        json!({
            "LoadBalancerName": names.classic,
            "HealthCheck": {
                "Target": "TCP:22", "Interval": 10, "Timeout": 3, "UnhealthyThreshold": 2, "HealthyThreshold": 2,
            },
        }),
        &["elb.ConfigureHealthCheck"],
    );
    add(
        "the group's processes resumed",
        "autoscaling",
        "resume_processes",
        group("ScalingProcesses", json!(["ReplaceUnhealthy"])),
        &["autoscaling.SuspendProcesses"],
    );
    add(
        "the group does not protect new members",
        "autoscaling",
        "update_auto_scaling_group",
        group("NewInstancesProtectedFromScaleIn", json!(false)),
        &["autoscaling.UpdateAutoScalingGroup"],
    );
    add(
        "the group without its target group",
        "autoscaling",
        "detach_load_balancer_target_groups",
        group("TargetGroupARNs", json!([names.target_group])),
        &["autoscaling.AttachLoadBalancerTargetGroups"],
    );
    add(
        "the group without the classic load balancer",
        "autoscaling",
        "detach_load_balancers",
        group("LoadBalancerNames", json!([names.classic])),
        &["autoscaling.AttachLoadBalancers"],
    );
    add(
        "the group's tag removed",
        "autoscaling",
        "delete_tags",
        json!({"Tags": [{"ResourceId": GROUP, "ResourceType": "auto-scaling-group", "Key": "team"}]}),
        TAGGED,
    );
    add(
        "a backend that can be terminated",
        "ec2",
        "modify_instance_attribute",
        json!({"InstanceId": names.backend, "DisableApiTermination": {"Value": false}}),
        &["ec2.ModifyInstanceAttribute"],
    );
    add(
        "a backend without tags",
        "ec2",
        "delete_tags",
        json!({"Resources": [names.backend], "Tags": [{"Key": "wekactl.io/hostgroup_name"}, {"Key": "team"}]}),
        TAGGED,
    );
    add(
        "the alias of the key deleted",
        "kms",
        "delete_alias",
        json!({"AliasName": "alias/wekactl-prod"}),
        &["kms.CreateAlias"],
    );
    add(
        "the key not rotated",
        "kms",
        "disable_key_rotation",
        json!({"KeyId": names.key}),
        &["kms.EnableKeyRotation"],
    );
    add(
        "the table's tag removed",
        "dynamodb",
        "untag_resource",
        json!({"ResourceArn": names.table, "TagKeys": ["wekactl.io/managed"]}),
        TAGGED,
    );
    add(
        "the credentials gone",
        "dynamodb",
        "delete_item",
        json!({"TableName": "wekactl-prod", "Key": {"Key": {"S": "cluster-creds"}}}),
        &["dynamodb.PutItem"],
    );
    add(
        "another state machine",
        "stepfunctions",
        "update_state_machine",
        json!({
            "stateMachineArn": names.machine,
            "definition": r#"{"StartAt":"Done","States":{"Done":{"Type":"Succeed"}}}"#,
        }),
        &["stepfunctions.UpdateStateMachine"],
    );
    add(
        "the rule's target removed",
        "events",
        "remove_targets",
        json!({"Rule": GROUP, "Ids": ["wekactl"]}),
        &["events.PutTargets"],
    );
    add(
        "another schedule",
        "events",
        "put_rule",
        json!({"Name": GROUP, "ScheduleExpression": "rate(1 hour)", "State": "ENABLED"}),
        &["events.PutRule"],
    );
    add(
        "a second target of the rule",
        "events",
        "put_targets",
        json!({
            "Rule": GROUP,
            "Targets": [{
                "Id": "by-hand",
                "Arn": format!("arn:aws:lambda:eu-central-1:123456789012:function:{}", function("scale")),
            }],
        }),
        &["events.PutTargets", "events.RemoveTargets"],
    );
    all
}

/// Makes a version of the launch template by hand, and the group launch from it.
pub(crate) fn edit_template(sandbox: &Sandbox) {
    let version = json!({
        "LaunchTemplateName": GROUP, "SourceVersion": "1",
        "LaunchTemplateData": {"InstanceType": "t3.micro", "DisableApiTermination": false},
    });
    sandbox.aws("ec2", "create_launch_template_version", &version);
    let by_hand = json!({"LaunchTemplateName": GROUP, "Version": "2"});
    let group = json!({"AutoScalingGroupName": GROUP, "LaunchTemplate": by_hand});
    sandbox.aws("autoscaling", "update_auto_scaling_group", &group);
}

/// A version by hand is followed by one that is right, as the first was, and the group by that.
#[track_caller]
pub(crate) fn assert_template_repaired(sandbox: &Sandbox, good: &Value) {
    let mut repair = mutations(&sandbox.take_calls());
    repair.retain(|call| !is_tagging(call));
    assert_eq!(
        repair,
        [
            "ec2.CreateLaunchTemplateVersion",
            "ec2.ModifyLaunchTemplate",
            "autoscaling.UpdateAutoScalingGroup"
        ]
    );
    let version = |number: &str, inventory: &Value| {
        kind(inventory, "launch_templates")[GROUP]["Versions"][number]["LaunchTemplateData"].clone()
    };
    let repaired = sandbox.inventory();
    let group = &kind(&repaired, "auto_scaling_groups")[GROUP];
    let used = group["LaunchTemplate"]["Version"].as_str();
    assert_eq!(used, Some("3"));
    assert_same(
        &version("1", good),
        &version("3", &repaired),
        "the launch template",
    );
}

/// Whether a call only writes tags.
pub(crate) fn is_tagging(call: &str) -> bool {
    let (_, operation) = call.split_once('.').expect("service.Operation");
    matches!(
        operation,
        "TagResource" | "TagRole" | "AddTags" | "CreateTags" | "CreateOrUpdateTags"
    )
}

#[test]
fn import_repairs_exactly_what_was_changed() {
    /// As many imports. What is next to each other in the list does not meet in one.
    const ROUNDS: usize = 6;
    let sandbox = Sandbox::start();
    let stack = sandbox.stack(&json!({"name": "prod", "clients": 1, "classic_lb": true}));
    let zone = make_zone(&sandbox);
    let flags = ["-t", "team=storage", "-l", "weka.example.com", "-z", &zone];
    sandbox.import_small("prod", &flags).ok();
    let good = sandbox.inventory();
    let mut now = good.clone();
    for round in 0..ROUNDS {
        let all = drifts(&Names::of(&now, &stack, &zone));
        let drifts = all.into_iter().skip(round).step_by(ROUNDS);
        let (mut whats, mut expected) = (Vec::new(), Vec::new());
        for Drift {
            what,
            call: (service, operation, params),
            repair,
        } in drifts
        {
            sandbox.aws(service, operation, &params);
            whats.push(what);
            expected.extend(repair.iter().map(|call| (*call).to_owned()));
        }
        let drifted = sandbox.inventory();
        assert!(
            !unlike(&good, &drifted).is_empty(),
            "nothing has changed: {whats:?}"
        );
        sandbox.take_calls();
        let run = sandbox.import_small("prod", &flags).ok();
        let (tagging, mut repair): (Vec<_>, Vec<_>) = mutations(&sandbox.take_calls())
            .into_iter()
            .partition(|call| is_tagging(call));
        repair.sort();
        expected.sort();
        now = sandbox.inventory();
        assert_eq!(repair, expected, "{whats:#?}\n{}", run.stderr);
        assert!(tagging.len() <= whats.len(), "{whats:#?}\n{tagging:?}");
        let left = unlike(&good, &now);
        assert!(left.is_empty(), "{whats:#?}\n{left:#?}");
    }
    sandbox.take_calls();

    edit_template(&sandbox);
    sandbox.import_small("prod", &flags).ok();
    assert_template_repaired(&sandbox, &good);

    sandbox.import_small("prod", &flags).ok();
    assert_no_mutations(&sandbox, "an import after all was repaired");
}

#[test]
#[expect(clippy::print_stdout, reason = "shown only when the test fails")]
fn an_import_that_died_ends_when_it_is_run_again() {
    let deaths = [
        // Those that have no name of their own: a second one would be made.
        (
            Death::KilledAfter,
            json!({"service": "kms", "operation": "CreateKey"}),
        ),
        (
            Death::KilledAfter,
            json!({"service": "apigateway", "operation": "CreateRestApi"}),
        ),
        (
            Death::KilledAfter,
            json!({"service": "apigateway", "operation": "CreateUsagePlan"}),
        ),
        (
            Death::KilledAfter,
            json!({"service": "iam", "operation": "CreateRole", "nth": 4}),
        ),
        // Those after which the earlier tool never ended.
        (
            Death::Refused,
            json!({"service": "iam", "operation": "PutRolePolicy", "count": 0}),
        ),
        (
            Death::KilledBefore,
            json!({"service": "dynamodb", "operation": "PutItem"}),
        ),
        (
            Death::Refused,
            json!({"service": "autoscaling", "operation": "SuspendProcesses"}),
        ),
        (
            Death::Refused,
            json!({"service": "kms", "operation": "CreateAlias"}),
        ),
        (
            Death::KilledBefore,
            json!({"service": "events", "operation": "PutTargets"}),
        ),
        // In the middle of what is the stack's.
        (
            Death::KilledAfter,
            json!({"service": "ec2", "operation": "ModifyInstanceAttribute", "nth": 3}),
        ),
        (
            Death::KilledAfter,
            json!({"service": "elb", "operation": "ConfigureHealthCheck"}),
        ),
        (
            Death::KilledAfter,
            json!({"service": "autoscaling", "operation": "AttachInstances"}),
        ),
    ];
    let deaths = &deaths;
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || {
                let sandbox = Sandbox::start();
                let code = sandbox.small_code();
                for (death, call) in deaths.iter().skip(half).step_by(2) {
                    println!("{death:?} at {call}");
                    sandbox.post("reset", &json!({}));
                    let stack =
                        sandbox.stack(&json!({"name": "prod", "clients": 1, "classic_lb": true}));
                    let before = sandbox.inventory();
                    let arguments = [
                        "cluster",
                        "import",
                        "-n",
                        "prod",
                        "-u",
                        "admin",
                        "--lambda-binary",
                        &code,
                    ];
                    die(&sandbox, &arguments, call, *death);
                    sandbox.import_small("prod", &[]).ok();
                    let wanted = Wanted {
                        stack,
                        before,
                        code: code.clone().into(),
                        user_tags: json!({}),
                        private: false,
                        dns: None,
                    };
                    assert_complete(&sandbox.inventory(), &wanted);
                }
            });
        }
    });
}
