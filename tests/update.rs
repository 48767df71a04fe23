//! `cluster update`: what has drifted is shown, repaired, and then as wanted; keys are rotated under a running
//! automation; and what is no managed cluster, or only half of one, is told from one.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::again::{
    Drift, Names, assert_no_mutations, assert_template_repaired, drifts, edit_template, is_tagging,
    remove_target_group,
};
use crate::complete::make_zone;
use crate::support::account::{assert_same, decoded, kind, unlike};
use crate::support::cluster::{CLUSTER, Cluster};
use crate::support::{Run, Sandbox, mutations};

/// The document that a run with `-o json` printed.
fn document(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).expect("JSON")
}

/// The changes in it, without what a dry run can not know.
fn changes(run: &Run) -> Vec<Value> {
    let mut document = document(run);
    let mut rows = document["changes"].as_array_mut().expect("rows").clone();
    for row in &mut rows {
        for change in row["changes"].as_array_mut().into_iter().flatten() {
            change.as_object_mut().expect("a change").remove("to");
        }
    }
    rows
}

#[test]
fn what_has_drifted_is_shown_and_repaired_and_nothing_else() {
    /// As many updates. What is next to each other in the list does not meet in one.
    const ROUNDS: usize = 6;
    let sandbox = Sandbox::start();
    let stack = sandbox.stack(&json!({"name": "prod", "clients": 1, "classic_lb": true}));
    let zone = make_zone(&sandbox);
    let flags = ["-t", "team=storage", "-l", "weka.example.com", "-z", &zone];
    sandbox.import_small("prod", &flags).ok();
    let good = sandbox.inventory();

    sandbox.take_calls();
    for flags in [&["--dry-run", "--exit-code"][..], &[]] {
        let run = sandbox.update_small("prod", flags).ok();
        assert!(run.stderr.contains("is as wanted"), "{}", run.stderr);
        assert_no_mutations(&sandbox, "an update of a cluster as wanted");
    }

    let mut now = good.clone();
    for round in 0..ROUNDS {
        let all = drifts(&Names::of(&now, &stack, &zone)).into_iter();
        // The credentials are what update leaves alone.
        let all = all.filter(|drift| drift.what != "the credentials gone");
        let (mut whats, mut expected) = (Vec::new(), Vec::new());
        for Drift {
            what,
            call: (service, operation, params),
            repair,
        } in all.skip(round).step_by(ROUNDS)
        {
            sandbox.aws(service, operation, &params);
            whats.push(what);
            expected.extend(repair.iter().map(|call| (*call).to_owned()));
        }
        sandbox.take_calls();
        let plan = ["--dry-run", "--exit-code", "-o", "json"];
        let planned = sandbox.update_small("prod", &plan).fails(3, &[]);
        assert_no_mutations(&sandbox, "a dry run");
        let table = sandbox.update_small("prod", &["-d"]).ok();
        assert!(!table.stdout.is_empty(), "{whats:#?}");
        assert_no_mutations(&sandbox, "a dry run");

        let run = sandbox.update_small("prod", &["-o", "json"]).ok();
        let mut repair = mutations(&sandbox.take_calls());
        repair.retain(|call| !is_tagging(call));
        repair.sort();
        expected.sort();
        now = sandbox.inventory();
        assert_eq!(repair, expected, "{whats:#?}\n{}", run.stderr);
        let left = unlike(&good, &now);
        assert!(left.is_empty(), "{whats:#?}\n{left:#?}");
        // What was shown is what was done.
        assert_eq!(changes(&planned), changes(&run), "{whats:#?}");
    }
    sandbox.take_calls();

    edit_template(&sandbox);
    let planned = sandbox.update_small("prod", &["--dry-run", "--exit-code", "-o", "json"]);
    let planned = planned.fails(3, &[]);
    assert_no_mutations(&sandbox, "a dry run");
    let run = sandbox.update_small("prod", &["-o", "json"]).ok();
    assert_template_repaired(&sandbox, &good);
    assert_eq!(changes(&planned), changes(&run));
    sandbox
        .update_small("prod", &["--dry-run", "--exit-code"])
        .ok();
}

#[test]
fn a_dry_run_changes_nothing_whatever_there_is_to_do() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": "prod", "backends": 5}));
    sandbox.import_small("prod", &[]).ok();
    let good = sandbox.inventory();
    let target_group = &kind(&good, "target_groups")["wekactl-prod-api"]["TargetGroupArn"];
    let attached =
        json!({"AutoScalingGroupName": "wekactl-prod-Backends", "TargetGroupARNs": [target_group]});
    sandbox.aws(
        "autoscaling",
        "detach_load_balancer_target_groups",
        &attached,
    );
    let table = &kind(&good, "tables")["wekactl-prod"]["TableArn"];
    let stack_id = json!({"ResourceArn": table, "TagKeys": ["wekactl.io/stack_id"]});
    sandbox.aws("dynamodb", "untag_resource", &stack_id);
    sandbox.aws(
        "dynamodb",
        "update_item",
        &json!({
            "TableName": "wekactl-prod", "Key": {"Key": {"S": "cluster-settings"}},
            "UpdateExpression": "REMOVE VpcId",
        }),
    );
    // There is no key for it any more.
    let alias = json!({"AliasName": "alias/wekactl-prod"});
    sandbox.aws("kms", "delete_alias", &alias);
    let key = kind(&good, "kms_keys").keys().next().expect("a key");
    let key = json!({"KeyId": key, "PendingWindowInDays": 7});
    sandbox.aws("kms", "schedule_key_deletion", &key);
    let drifted = sandbox.inventory();
    sandbox.take_calls();
    let plan = ["--dry-run", "--exit-code"];
    let run = sandbox.update_small("prod", &plan).fails(3, &[]);
    assert_no_mutations(&sandbox, "a dry run");
    assert_same(&drifted, &sandbox.inventory(), "after a dry run");
    for to_do in ["stack_id", "KMS key", "VpcId", "targetGroups"] {
        assert!(run.stdout.contains(to_do), "{to_do}: {}", run.stdout);
    }
}

#[test]
fn what_update_makes_is_as_import_made_it() {
    const GROUP: &str = "wekactl-prod-Backends";
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({
        "name": "prod", "backends": 5, "placement_group": true, "http_tokens": "required",
    }));
    let zone = make_zone(&sandbox);
    let flags = ["-t", "team=storage", "-l", "weka.example.com", "-z", &zone];
    sandbox.import_small("prod", &flags).ok();
    let good = sandbox.inventory();

    for word in ["join", "fetch", "scale"] {
        let name = json!({"FunctionName": format!("wekactl-prod-{word}-Backends")});
        sandbox.aws("lambda", "delete_function", &name);
    }
    let balancer = &kind(&good, "load_balancers")["wekactl-prod"];
    remove_target_group(&sandbox, &good);
    let untagged = json!({"ResourceArns": [balancer["LoadBalancerArn"]], "TagKeys": ["team"]});
    sandbox.aws("elbv2", "remove_tags", &untagged);
    sandbox.aws(
        "ec2",
        "create_launch_template_version",
        &json!({"LaunchTemplateName": GROUP, "LaunchTemplateData": {"InstanceType": "t3.micro"}}),
    );
    let by_hand = json!({"LaunchTemplateName": GROUP, "Version": "2"});
    sandbox.aws(
        "autoscaling",
        "update_auto_scaling_group",
        &json!({"AutoScalingGroupName": GROUP, "LaunchTemplate": by_hand}),
    );
    sandbox.update_small("prod", &[]).ok();

    let now = sandbox.inventory();
    let functions = kind(&now, "functions");
    assert_eq!(functions.len(), 5);
    for (name, function) in functions {
        let variables = &function["Environment"]["Variables"];
        assert_eq!(variables["TABLE_NAME"], "wekactl-prod", "{name}");
    }
    let balancer = &kind(&now, "load_balancers")["wekactl-prod"];
    let listeners = balancer["Listeners"].as_object().expect("listeners");
    let target_group = &kind(&now, "target_groups")["wekactl-prod-api"];
    for thing in listeners.values().chain([balancer, target_group]) {
        assert_eq!(thing["Tags"]["team"], "storage", "{thing}");
    }
    let used = |inventory: &Value| {
        let group = &kind(inventory, "auto_scaling_groups")[GROUP];
        let used = group["LaunchTemplate"]["Version"].as_str().expect("text");
        kind(inventory, "launch_templates")[GROUP]["Versions"][used]["LaunchTemplateData"].clone()
    };
    assert_eq!(used(&good)["MetadataOptions"]["HttpTokens"], "required");
    assert!(used(&good)["Placement"]["GroupName"].is_string());
    assert_same(&used(&good), &used(&now), "the launch template");
    // All the rest, but for the numbers of versions.
    let mut unlike = unlike(&good, &now);
    unlike.retain(|line| {
        !line.contains(" / launch_templates / ") && !line.contains(" / LaunchTemplate / Version")
    });
    assert_eq!(unlike, [""; 0]);
}

#[test]
fn an_api_made_again_is_followed_by_the_launch_template_with_url_and_key() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": "prod", "backends": 5}));
    sandbox.import_small("prod", &[]).ok();
    let good = sandbox.inventory();
    let api = kind(&good, "rest_apis").keys().next().expect("an API");
    sandbox.aws("apigateway", "delete_rest_api", &json!({"restApiId": api}));
    let key = kind(&good, "api_keys").keys().next().expect("a key");
    sandbox.aws("apigateway", "delete_api_key", &json!({"apiKey": key}));
    let planned = sandbox
        .update_small("prod", &["--dry-run", "--exit-code"])
        .fails(3, &[]);
    assert!(
        planned.stdout.contains("(known after apply)"),
        "{}",
        planned.stdout
    );
    sandbox.update_small("prod", &[]).ok();
    let now = sandbox.inventory();
    let made = kind(&now, "rest_apis").keys().next().expect("an API");
    assert_ne!(made, api);
    let group = &kind(&now, "auto_scaling_groups")["wekactl-prod-Backends"];
    let used = group["LaunchTemplate"]["Version"].as_str().expect("text");
    let version = &kind(&now, "launch_templates")["wekactl-prod-Backends"]["Versions"][used];
    let data = version["LaunchTemplateData"]["UserData"].as_str();
    let data = decoded(data.expect("text"));
    assert!(
        data.contains(&format!("https://{made}.execute-api")),
        "{data}"
    );
    let new = kind(&now, "api_keys").values().next().expect("a key");
    assert_ne!(new["id"], *key);
    let new = new["value"].as_str().expect("text");
    assert!(data.contains(&format!("API_KEY='{new}'")), "{data}");
    sandbox
        .update_small("prod", &["--dry-run", "--exit-code"])
        .ok();
}

#[test]
fn other_code_reaches_every_function_and_replaces_the_layer() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": "prod", "backends": 5}));
    sandbox.import_small("prod", &[]).ok();
    let other = sandbox.other_code();
    let update = ["cluster", "update", "-n", "prod", "--lambda-binary", &other];
    let layers = |inventory: &Value| -> Vec<Value> {
        let functions = kind(inventory, "functions").values();
        functions
            .map(|function| function["Layers"].clone())
            .collect()
    };
    let before = layers(&sandbox.inventory());
    sandbox.take_calls();
    sandbox.wekactl(&update).ok();
    let now = sandbox.inventory();
    let after = layers(&now);
    assert_eq!(after.len(), 5);
    assert!(after.iter().all(|layer| *layer == after[0]));
    assert_ne!(before[0], after[0]);
    let calls = mutations(&sandbox.take_calls());
    let place = |call: &str| calls.iter().position(|each| each == call);
    assert!(place("lambda.PublishLayerVersion") < place("lambda.UpdateFunctionConfiguration"));
    assert!(
        place("lambda.UpdateFunctionConfiguration") < place("lambda.DeleteLayerVersion"),
        "{calls:?}"
    );
    sandbox.wekactl(&update).ok();
    assert_no_mutations(&sandbox, "an update with the same code");
}

#[test]
fn a_cluster_whose_automation_nothing_runs_is_not_as_wanted() {
    const RULE: &str = "wekactl-prod-Backends";
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": "prod", "backends": 5}));
    sandbox.import_small("prod", &[]).ok();
    let plan = ["--dry-run", "--exit-code"];
    let told = |code: i32| {
        let run = sandbox.update_small("prod", &[&plan[..], &["-o", "json"]].concat());
        let run = run.fails(code, &[]);
        assert_eq!(changes(&run), [Value::Null; 0]);
        document(&run)["automation"].clone()
    };
    assert_eq!(told(0), true);

    // Disabled by whoever wanted that: no difference.
    sandbox.aws("events", "disable_rule", &json!({"Name": RULE}));
    assert_eq!(told(0), false);

    let target = json!({"Rule": RULE, "Ids": ["wekactl"]});
    sandbox.aws("events", "remove_targets", &target);
    sandbox.aws("events", "delete_rule", &json!({"Name": RULE}));
    assert_eq!(told(3), false);
    for (flags, code) in [(&plan[..], 3), (&["--dry-run"], 0), (&[], 0)] {
        let run = sandbox.update_small("prod", flags);
        let run = run.fails(code, &["nothing runs its automation", "cluster import"]);
        assert!(!run.stderr.contains("as wanted"), "{}", run.stderr);
    }
    sandbox.import_small("prod", &[]).ok();
    assert_eq!(told(0), true);
}

/// What a first change asks for and a managed cluster can do without: its machines go on, and it is looked after.
#[test]
fn a_cluster_that_can_launch_nothing_is_looked_after() {
    const GROUP: &str = "wekactl-prod-Backends";
    let sandbox = Sandbox::start();
    let key = sandbox.aws("kms", "create_key", &json!({}));
    let key = &key["KeyMetadata"]["Arn"];
    let allow = |principal: &str| {
        let policy = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kms:*",
            "Resource": "*", "Principal": {"AWS": format!("arn:aws:iam::123456789012:{principal}")}}]});
        let policy = json!({"KeyId": key, "PolicyName": "default", "Policy": policy.to_string()});
        sandbox.aws("kms", "put_key_policy", &policy);
    };
    let disk = json!({"VolumeSize": 16, "VolumeType": "gp3", "Encrypted": true, "KmsKeyId": key});
    let disks = json!([{"DeviceName": "/dev/xvda", "Ebs": disk}]);
    let stack = sandbox.stack(&json!({"name": "prod", "backends": 5, "volumes": disks}));
    let no_key = "which Auto Scaling may not use to launch instances: add to the key's policy";
    allow("root");
    sandbox.import_small("prod", &[]).fails(1, &[no_key]);
    allow("role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling");
    sandbox.import_small("prod", &[]).ok();
    // Its backends are still to be taken in.
    sandbox.stack(&json!({"name": "half", "backends": 5}));
    sandbox.fault(&[
        json!({"service": "autoscaling", "operation": "AttachInstances", "count": 0,
        "code": "ValidationError", "message": "not today", "status": 400}),
    ]);
    sandbox.import_small("half", &[]).fails(1, &["not today"]);
    sandbox.fault(&[]);
    let launched_from = |inventory: &Value| {
        let version = &kind(inventory, "auto_scaling_groups")[GROUP]["LaunchTemplate"]["Version"];
        let version = version.as_str().expect("a number").to_owned();
        let versions = &kind(inventory, "launch_templates")[GROUP]["Versions"];
        let image = versions[&version]["LaunchTemplateData"]["ImageId"].clone();
        (version, image)
    };
    let good = sandbox.inventory();

    allow("root");
    sandbox.aws(
        "ec2",
        "deregister_image",
        &json!({"ImageId": stack["image"]}),
    );
    let gone = format!("the backends' image {} is gone", stack["image"]).replace('"', "");
    let error = format!("error: {gone}");
    sandbox.import_small("half", &[]).fails(1, &[&error]);
    sandbox.take_calls();
    for flags in [&["--dry-run", "--exit-code"][..], &[]] {
        let run = sandbox.update_small("prod", flags);
        run.fails(0, &[&gone, no_key, "is as wanted"]);
    }
    sandbox.import_small("prod", &[]).fails(0, &[&gone, no_key]);
    assert_no_mutations(&sandbox, "what launches nothing changes nothing");

    // Another API would be another script of the first boot, and the group is repaired with its template as it is.
    let api = kind(&good, "rest_apis").iter();
    let api = api
        .filter(|(_, api)| api["name"] == GROUP)
        .map(|(id, _)| id);
    for id in api {
        sandbox.aws("apigateway", "delete_rest_api", &json!({"restApiId": id}));
    }
    sandbox.aws(
        "autoscaling",
        "update_auto_scaling_group",
        &json!({"AutoScalingGroupName": GROUP, "NewInstancesProtectedFromScaleIn": false}),
    );
    let target = json!({"Rule": GROUP, "Ids": ["wekactl"]});
    sandbox.aws("events", "remove_targets", &target);
    sandbox.aws("events", "delete_rule", &json!({"Name": GROUP}));
    let (other, before) = (sandbox.other_code(), keys(&sandbox));
    let update = ["cluster", "update", "-n", "prod", "--lambda-binary", &other];
    sandbox
        .wekactl(&[&update[..], &["--rotate-keys"]].concat())
        .fails(0, &[&gone]);
    let import = ["--lambda-binary", &other, "--no-verify"];
    sandbox.import("prod", &import).fails(0, &[&gone]);
    let now = sandbox.inventory();
    assert_ne!(keys(&sandbox), before);
    assert_eq!(launched_from(&now), launched_from(&good));
    let group = &kind(&now, "auto_scaling_groups")[GROUP];
    assert_eq!(group["NewInstancesProtectedFromScaleIn"], true);
    assert!(!kind(&now, "rules")[GROUP].is_null());
    assert_ne!(
        kind(&now, "functions")["wekactl-prod-fetch-Backends"]["Layers"],
        kind(&good, "functions")["wekactl-prod-fetch-Backends"]["Layers"]
    );
    sandbox
        .wekactl(&[&update[..], &["--dry-run", "--exit-code"]].concat())
        .ok();

    // Another image, as the warning says.
    let images = json!({"Filters": [{"Name": "architecture", "Values": ["x86_64"]}]});
    let images = sandbox.aws("ec2", "describe_images", &images);
    let image = &images["Images"][0]["ImageId"];
    sandbox.aws(
        "dynamodb",
        "update_item",
        &json!({
            "TableName": "wekactl-prod", "Key": {"Key": {"S": "cluster-settings"}},
            "UpdateExpression": "SET Backends.ImageID = :i", "ExpressionAttributeValues": {":i": {"S": image}},
        }),
    );
    let run = sandbox.wekactl(&update).ok();
    assert!(!run.stderr.contains("is gone"), "{}", run.stderr);
    let (_, launched) = launched_from(&sandbox.inventory());
    assert_eq!(launched, *image);
    sandbox
        .wekactl(&[&update[..], &["--dry-run", "--exit-code"]].concat())
        .ok();
}

/// The keys of the functions that seal, in the order of a run.
pub(crate) fn keys(sandbox: &Sandbox) -> Vec<String> {
    let inventory = sandbox.inventory();
    let functions = kind(&inventory, "functions");
    let key = |word: &&str| {
        let function = &functions[&format!("wekactl-prod-{word}-Backends")];
        let key = &function["Environment"]["Variables"]["SEAL_KEY"];
        key.as_str().expect("a key").to_owned()
    };
    ["fetch", "scale", "terminate"].iter().map(key).collect()
}

/// That all seal with the same key, and know no other.
pub(crate) fn is_one(keys: &[String]) -> bool {
    keys.iter().all(|key| *key == keys[0] && !key.contains(','))
}

#[test]
fn keys_are_rotated_while_runs_go_on() {
    let cluster = Cluster::start(6);
    let sandbox = &cluster.sandbox;
    assert_eq!(cluster.minute().status, "SUCCEEDED");
    let old = keys(sandbox);
    let update = ["cluster", "update", "-n", CLUSTER];
    let rotate = [&update[..], &["--rotate-keys"]].concat();

    let planned = [&rotate[..], &["-d", "--exit-code"]].concat();
    let planned = sandbox.wekactl(&planned).fails(3, &[]);
    assert!(planned.stdout.contains("SEAL_KEY"), "{}", planned.stdout);
    for key in &old {
        let (_, secret) = key.split_once(':').expect("an id");
        assert!(!planned.stdout.contains(secret), "{}", planned.stdout);
    }
    assert_eq!(keys(sandbox), old);

    // It dies in each phase, and in the middle of one; no run minds, and the next update ends it.
    for nth in [2, 4, 8] {
        let before = keys(sandbox);
        sandbox.fault(&[
            json!({"service": "lambda", "operation": "UpdateFunctionConfiguration", "caller": "^app:", "nth": nth,
                "count": 100, "code": "ServiceException", "message": "not today", "status": 400}),
        ]);
        sandbox.wekactl(&rotate).fails(1, &["not today"]);
        sandbox.fault(&[]);
        assert_ne!(keys(sandbox), before, "nothing was begun");
        assert_eq!(cluster.minute().status, "SUCCEEDED", "{nth}");
        sandbox.wekactl(&update).ok();
        let now = keys(sandbox);
        assert!(is_one(&now), "{nth}");
        assert_eq!(cluster.minute().status, "SUCCEEDED", "{nth}");
    }
    let before = keys(sandbox);
    sandbox.wekactl(&rotate).ok();
    let now = keys(sandbox);
    assert!(is_one(&now));
    assert!(before.iter().chain(&old).all(|key| *key != now[0]));
    assert_eq!(cluster.minute().status, "SUCCEEDED");
}

#[test]
fn what_is_not_managed_is_no_cluster_to_update() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": "prod", "backends": 5}));
    let run = sandbox.update_small("prod", &[]);
    run.fails(1, &["no managed cluster named prod", "cluster import"]);
    assert_no_mutations(&sandbox, "an update of nothing");
    sandbox
        .update_small("prod", &["--exit-code"])
        .fails(2, &["--dry-run"]);
}

#[test]
fn a_half_made_cluster_is_repaired_and_not_set_going() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": "prod", "backends": 5}));
    let mut ends = BTreeMap::new();
    for (service, operation) in [("events", "PutRule"), ("autoscaling", "AttachInstances")] {
        sandbox.fault(&[json!({"service": service, "operation": operation, "count": 0, "code": "ValidationException",
            "message": "not today", "status": 400})]);
        sandbox.import_small("prod", &[]).fails(1, &["not today"]);
        sandbox.fault(&[]);
        let run = sandbox.update_small("prod", &[]);
        assert!(
            run.stderr.contains("cluster import --name prod"),
            "{}",
            run.stderr
        );
        assert_eq!(kind(&sandbox.inventory(), "rules").len(), 0);
        assert!(!run.stderr.contains("as wanted"), "{}", run.stderr);
        ends.insert(operation, run.code);
        sandbox.destroy("prod", &["--keep-instances"]).ok();
    }
    // Without a member there is nothing to update by.
    assert_eq!(
        ends,
        BTreeMap::from([("PutRule", 0), ("AttachInstances", 1)])
    );

    // What destroy has begun, it ends.
    sandbox.import_small("prod", &[]).ok();
    sandbox.fault(&[
        json!({"service": "autoscaling", "operation": "DetachInstances", "count": 0,
        "code": "ValidationException", "message": "not today", "status": 400}),
    ]);
    sandbox
        .destroy("prod", &["--keep-instances"])
        .fails(1, &["not today"]);
    sandbox.fault(&[]);
    sandbox.take_calls();
    sandbox.update_small("prod", &[]).fails(
        1,
        &[
            "a destroy of cluster prod with --keep-instances has begun",
            "destroy --name prod --keep-instances, which sets the backends free",
        ],
    );
    // Nor does whoever forgets the flag terminate what was to be kept.
    for flags in [&["--yes"][..], &["--dry-run"]] {
        let run = sandbox.destroy("prod", flags);
        run.fails(1, &["would terminate the backends", "--keep-instances"]);
    }
    assert_no_mutations(&sandbox, "what meets a destroy that has begun");
    sandbox.destroy("prod", &["--keep-instances"]).ok();
}
