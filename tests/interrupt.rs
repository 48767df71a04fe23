//! Ctrl-C, SIGTERM and an unreliable network leave nothing half-done that the same command, run again, does not finish.

use std::cell::Cell;

use serde_json::{Value, json};

use crate::support::background::Background;
use crate::support::{PASSWORD, REGION, Run, Sandbox, mutations};

/// The calls that a step begins with. Those that are not here are made only by a step that has begun already;
/// so is `PublishLayerVersion`, before which its step makes the zip.
const FIRST_OF_A_STEP: &[&str] = &[
    "AttachInstances",
    "ConfigureHealthCheck",
    "CreateApiKey",
    "CreateAutoScalingGroup",
    "CreateFunction",
    "CreateKey",
    "CreateLaunchTemplate",
    "CreateListener",
    "CreateLoadBalancer",
    "CreateLogGroup",
    "CreateRestApi",
    "CreateRole",
    "CreateStateMachine",
    "CreateTable",
    "CreateTargetGroup",
    "CreateUsagePlan",
    "DeleteAutoScalingGroup",
    "DeleteFunction",
    "DeleteLaunchTemplate",
    "DeleteLoadBalancer",
    "DeleteLogGroup",
    "DeleteRestApi",
    "DeleteStateMachine",
    "DeleteTable",
    "ModifyInstanceAttribute",
    "PutItem",
    "PutRule",
    "ScheduleKeyDeletion",
    "TerminateInstances",
];

fn import(sandbox: &Sandbox) -> Background {
    let code = sandbox.small_code();
    let line = [
        "cluster",
        "import",
        "--name",
        "prod",
        "--username",
        "admin",
        "--lambda-binary",
        &code,
    ];
    Background::start(sandbox.command(&line).env("WEKACTL_PASSWORD", PASSWORD))
}

fn destroy(sandbox: &Sandbox) -> Background {
    Background::start(&mut sandbox.command(&["cluster", "destroy", "--name", "prod"]))
}

/// Runs a command to the point where it waits for nothing but the calls with these operations, which are held up,
/// and interrupts it there. When it says that it stops, the calls go on.
///
/// Fails unless it ends in good order: no call left alone, nothing begun, and said how to go on.
#[track_caller]
fn interrupt(
    sandbox: &Sandbox,
    command: fn(&Sandbox) -> Background,
    signal: &str,
    operations: &str,
) -> Run {
    sandbox.take_calls();
    sandbox.fault(&[json!({"operation": operations, "action": "hold", "count": 0})]);
    let running = command(sandbox);
    let (quiet, before) = (Cell::new(0), Cell::new(0));
    sandbox.wait_for_calls(&format!("only {operations} goes on"), |calls| {
        let mut unanswered = calls.iter().filter(|call| call["end"].is_null());
        let waits =
            unanswered.clone().count() > 0 && unanswered.all(|call| call["fault"] == "hold");
        // Between two calls of a step nothing goes on either, for a moment.
        let still = waits && before.replace(calls.len()) == calls.len();
        quiet.set(if still { quiet.get() + 1 } else { 0 });
        quiet.get() > 50
    });
    running.signal(signal);
    let at_once = match signal {
        "INT" => "press Ctrl-C again to stop at once",
        _ => "SIGINT stops at once",
    };
    running.wait_for(&format!(
        "warning: finishing the steps under way; {at_once}"
    ));
    let mark = mark(sandbox);
    sandbox.fault(&[]);
    let run = running.end();
    // Read at once: a call that the program did not wait for would have no end yet.
    let calls = sandbox.take_calls();
    assert!(calls.iter().any(|call| call["fault"] == "hold"));
    for call in &calls {
        assert!(!call["end"].is_null(), "not waited for: {call}");
        let answered = call["status"].as_u64().is_some_and(|status| status < 300);
        assert!(answered || call["read"] == true, "{call}");
        let operation = call["operation"].as_str().expect("a name");
        let begun = call["n"].as_u64() > Some(mark) && FIRST_OF_A_STEP.contains(&operation);
        assert!(!begun, "begun after {signal}: {operation}");
    }
    let run = run.fails(
        130,
        &["error: interrupted\nhint: run the same command again to go on"],
    );
    assert_eq!(run.stdout, "");
    run
}

/// How many calls there have been so far, of whomever: a mark in the journal.
fn mark(sandbox: &Sandbox) -> u64 {
    sandbox.aws("sts", "get_caller_identity", &json!({}));
    let calls = sandbox.get("journal?caller=^app:test$");
    let last = calls
        .as_array()
        .and_then(|calls| calls.last())
        .expect("a call");
    last["n"].as_u64().expect("a number")
}

/// How much a dry run would make.
fn planned(sandbox: &Sandbox) -> usize {
    let run = sandbox
        .import_small("prod", &["--dry-run", "-o", "json"])
        .ok();
    let plan: Value = serde_json::from_str(&run.stdout).expect("one JSON document");
    let created = plan["summary"]["created"].as_u64().expect("a number");
    usize::try_from(created).expect("few")
}

/// All that is cluster `prod`'s, by where it is in the inventory.
fn left_of_prod(sandbox: &Sandbox) -> Vec<String> {
    fn collect(value: &Value, path: &str, found: &mut Vec<String>) {
        let children: Vec<(String, &Value)> = match value {
            Value::Object(fields) => fields
                .iter()
                .map(|(key, value)| (key.clone(), value))
                .collect(),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .map(|(n, item)| (n.to_string(), item))
                .collect(),
            _ => Vec::new(),
        };
        for (key, child) in children {
            let path = format!("{path}/{key}");
            if key.contains("wekactl-prod")
                || child
                    .as_str()
                    .is_some_and(|text| text.contains("wekactl-prod"))
            {
                found.push(path.clone());
            }
            collect(child, &path, found);
        }
    }
    let mut found = Vec::new();
    collect(&sandbox.inventory(), "", &mut found);
    found
}

#[test]
fn ctrl_c_in_an_import_finishes_what_has_begun_and_begins_nothing() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": "prod", "classic_lb": true}));
    let planned = planned(&sandbox);
    let mut made = 0;
    // Later and later, until there is nothing left to interrupt. What was under way is finished, what would have
    // come next is not begun.
    for (signal, operations, finished, next) in [
        (
            "INT",
            "CreateKey|CreateRole|CreateRestApi",
            &["created KMS key ", "created IAM role ", "created REST API "][..],
            "DynamoDB table",
        ),
        (
            "TERM",
            "CreateTable|CreateLaunchTemplate",
            &["created DynamoDB table ", "created launch template "],
            "Auto Scaling group",
        ),
        (
            "INT",
            "AttachInstances",
            &["updated group members "],
            "event rule",
        ),
    ] {
        let run = interrupt(&sandbox, import, signal, operations);
        let (before, after) = run
            .stderr
            .split_once("warning: finishing")
            .expect("a warning");
        assert!(
            !before.contains(next) && !after.contains(next),
            "{}",
            run.stderr
        );
        for line in finished {
            assert!(after.contains(line), "{line}: {}", run.stderr);
        }
        // What is said to be made is made, and not made a second time.
        let created = run
            .stderr
            .lines()
            .filter(|line| line.starts_with("created "))
            .count();
        assert!(
            run.stderr.contains(&format!("made {created}, ")),
            "{}",
            run.stderr
        );
        made += created;
    }
    let run = sandbox.import_small("prod", &["-o", "json"]).ok();
    let done: Value = serde_json::from_str(&run.stdout).expect("one JSON document");
    let created = done["summary"]["created"].as_u64().expect("a number");
    assert!(created > 0, "{done}");
    made += usize::try_from(created).expect("few");
    assert_eq!(made, planned);
    // Complete, and equal to what is wanted, field by field.
    sandbox.take_calls();
    sandbox.import_small("prod", &[]).ok();
    assert_eq!(mutations(&sandbox.take_calls()), [""; 0]);
}

#[test]
fn ctrl_c_in_a_destroy_and_a_destroy_that_goes_on() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": "prod", "classic_lb": true}));
    sandbox.import_small("prod", &[]).ok();
    for operations in [
        "DeleteRule",
        "TerminateInstances",
        "DeleteFunction|DeleteLoadBalancer|DeleteRestApi",
        "DeleteTable",
    ] {
        interrupt(&sandbox, destroy, "INT", operations);
    }
    let run = sandbox.destroy("prod", &[]).ok();
    assert!(
        run.stderr.contains("cluster prod is no longer managed"),
        "{}",
        run.stderr
    );
    let left = left_of_prod(&sandbox);
    let pending = |path: &String| path.contains("/kms_keys/") || path.contains("/instances/");
    assert!(left.iter().all(pending), "{left:?}");
    let said = format!("no cluster named prod in {REGION}");
    sandbox.destroy("prod", &[]).fails(1, &[&said]);
}

#[test]
fn a_second_ctrl_c_and_a_wait_end_at_once() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": "prod", "backends": 5}));

    // A call that is never answered: the first Ctrl-C waits for it, SIGTERM does not hurry, the second Ctrl-C does.
    sandbox.fault(&[json!({"service": "dynamodb", "operation": "CreateTable", "action": "hang"})]);
    let mut running = import(&sandbox);
    let hangs = |calls: &[Value]| {
        let is = |call: &Value| call["fault"] == "hang" && call["end"].is_null();
        calls.iter().any(is)
    };
    sandbox.wait_for_calls("CreateTable hangs", hangs);
    running.signal("INT");
    running.wait_for("warning: finishing the steps under way; press Ctrl-C again to stop at once");
    running.signal("TERM");
    sandbox.aws("sts", "get_caller_identity", &json!({}));
    assert!(running.is_running());
    running.signal("INT");
    let run = running.end();
    assert!(hangs(&sandbox.calls()), "nobody has answered");
    let run = run.fails(
        130,
        &["warning: stopped at once: run the same command again to go on"],
    );
    assert_eq!(run.stdout, "");
    sandbox.fault(&[]);

    // A wait for AWS: the table is made, and not active for longer than this test takes.
    sandbox.set(&json!({"strict": true, "table_seconds": 600}));
    sandbox.take_calls();
    let running = import(&sandbox);
    let looks = |calls: &[Value], after: u64| {
        let later = calls
            .iter()
            .filter(|call| call["n"].as_u64() >= Some(after));
        let table = later.skip_while(|call| after == 0 && call["operation"] != "CreateTable");
        table
            .filter(|call| call["operation"] == "DescribeTable")
            .count()
    };
    sandbox.wait_for_calls("the table is waited for", |calls| looks(calls, 0) >= 2);
    running.signal("INT");
    running.wait_for("warning: finishing the steps under way");
    let mark = mark(&sandbox);
    let run = running.end();
    assert!(calls_ended(&sandbox), "a call was left alone");
    assert!(looks(&sandbox.calls(), mark) <= 1, "it was waited for");
    // What was stopped has not failed, and is said to be stopped.
    let run = run.fails(
        130,
        &[
            "stopped creating DynamoDB table wekactl-prod (",
            "stopped ",
            "error: interrupted",
        ],
    );
    assert!(!run.stderr.contains("failed"), "{}", run.stderr);

    // And it goes on.
    sandbox.set(&json!({"strict": false}));
    sandbox.import_small("prod", &[]).ok();
    sandbox.take_calls();
    sandbox.import_small("prod", &[]).ok();
    assert_eq!(mutations(&sandbox.take_calls()), [""; 0]);
}

/// As long as everything only reads there is nothing to finish, however long AWS would be asked again.
#[test]
fn reading_ends_at_once() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": "prod", "backends": 5}));
    for (command, signal) in [
        (import as fn(&Sandbox) -> Background, "INT"),
        (destroy, "TERM"),
    ] {
        for fault in [
            json!({"operation": "DescribeAutoScalingGroups", "status": 500, "count": 0}),
            json!({"operation": "DescribeAutoScalingGroups", "action": "hang", "count": 0}),
        ] {
            sandbox.fault(&[fault]);
            sandbox.take_calls();
            let running = command(&sandbox);
            sandbox.wait_for_calls("it is refused", |calls| {
                calls
                    .iter()
                    .any(|call| call["operation"] == "DescribeAutoScalingGroups")
            });
            running.signal(signal);
            let run = running.end();
            assert_eq!(
                (run.code, run.stderr.as_str()),
                (130, "error: interrupted: nothing was changed\n")
            );
            assert_eq!(mutations(&sandbox.take_calls()), [""; 0]);
        }
    }
}

/// Who waits is told what for, and what AWS said last.
#[test]
fn calls_that_are_made_again_and_again_are_told_of() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": "prod", "backends": 5}));
    sandbox.fault(&[json!({"operation": "DescribeAutoScalingGroups", "status": 500, "code": "InternalFailure", "count": 0})]);
    let running = import(&sandbox);
    running.wait_for(
        "waiting: AWS to answer: Auto Scaling.DescribeAutoScalingGroups is called again after InternalFailure (after ",
    );
    running.signal("INT");
    running
        .end()
        .fails(130, &["error: interrupted: nothing was changed"]);
}

fn calls_ended(sandbox: &Sandbox) -> bool {
    sandbox.calls().iter().all(|call| !call["end"].is_null())
}

/// A few of the ways in which calls fail. None of them is a person's business.
#[test]
fn a_bad_network_and_a_busy_aws_are_survived() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": "prod", "classic_lb": true}));
    let fault = |service: &str, operation: &str, action: &str| json!({"service": service, "operation": operation, "action": action, "caller": "^app:wekactl"});
    let answer = |service: &str, operation: &str, status: u16, code: &str| {
        json!({"service": service, "operation": operation, "status": status, "code": code, "message": "not now",
            "caller": "^app:wekactl"})
    };
    sandbox.fault(&[
        // No answer, without effect and with it; among them the calls that would make a second one.
        fault("sts", "GetCallerIdentity", "drop"),
        fault("cloudformation", "DescribeStacks", "drop"),
        fault("kms", "CreateKey", "apply_drop"),
        fault("apigateway", "CreateRestApi", "apply_drop"),
        fault("apigateway", "CreateApiKey", "apply_drop"),
        fault("apigateway", "CreateUsagePlan", "drop"),
        fault("lambda", "PublishLayerVersion", "apply_drop"),
        fault("dynamodb", "CreateTable", "apply_drop"),
        fault("autoscaling", "AttachInstances", "apply_drop"),
        fault("iam", "CreateRole", "apply_drop"),
        // AWS's own trouble.
        answer("ec2", "DescribeInstances", 503, "Unavailable"),
        answer("elbv2", "CreateLoadBalancer", 500, "InternalFailure"),
        answer(
            "stepfunctions",
            "CreateStateMachine",
            500,
            "InternalServerError",
        ),
        answer("events", "PutRule", 500, "InternalException"),
        // Too much at once.
        answer("ec2", "CreateLaunchTemplate", 503, "RequestLimitExceeded"),
        answer("iam", "PutRolePolicy", 400, "Throttling"),
        answer("lambda", "CreateFunction", 429, "TooManyRequestsException"),
        answer("logs", "CreateLogGroup", 400, "ThrottlingException"),
    ]);
    let run = sandbox.import_small("prod", &[]).ok();
    assert!(
        !run.stderr.contains("failed") && !run.stderr.contains("error"),
        "{}",
        run.stderr
    );
    assert!(run.stdout.starts_with("#!/bin/bash\n"), "{}", run.stdout);
    let rules = sandbox.get("faults");
    for rule in rules.as_array().expect("a list") {
        assert_eq!(rule["fired"], 1, "{rule}");
    }
    // Complete, and nothing twice.
    sandbox.take_calls();
    sandbox.import_small("prod", &[]).ok();
    assert_eq!(mutations(&sandbox.take_calls()), [""; 0]);
    let count = |service: &str, operation: &str, list: &str| {
        sandbox.aws(service, operation, &json!({}))[list]
            .as_array()
            .map(Vec::len)
    };
    assert_eq!(count("apigateway", "get_rest_apis", "items"), Some(1));
    assert_eq!(count("apigateway", "get_api_keys", "items"), Some(1));
    assert_eq!(count("apigateway", "get_usage_plans", "items"), Some(1));
    let ours = json!({"TagFilters": [{"Key": "wekactl.io/cluster_name", "Values": ["prod"]}], "ResourceTypeFilters": ["kms"]});
    let keys = sandbox.aws("resourcegroupstaggingapi", "get_resources", &ours);
    assert_eq!(
        keys["ResourceTagMappingList"].as_array().map(Vec::len),
        Some(1)
    );
    let layers = sandbox.aws(
        "lambda",
        "list_layer_versions",
        &json!({"LayerName": "wekactl-prod"}),
    );
    assert_eq!(layers["LayerVersions"].as_array().map(Vec::len), Some(1));
    let roles = sandbox.aws(
        "iam",
        "list_roles",
        &json!({"PathPrefix": "/wekactl/prod/"}),
    );
    assert_eq!(roles["Roles"].as_array().map(Vec::len), Some(7));

    sandbox.fault(&[
        fault("autoscaling", "DescribeAutoScalingGroups", "drop"),
        fault("ec2", "TerminateInstances", "apply_drop"),
        fault("dynamodb", "DeleteTable", "apply_drop"),
        fault("apigateway", "DeleteRestApi", "apply_drop"),
        fault("iam", "DeleteRole", "apply_drop"),
        fault("kms", "ScheduleKeyDeletion", "apply_drop"),
        answer("elbv2", "DeleteLoadBalancer", 503, "ServiceUnavailable"),
        answer("lambda", "DeleteFunction", 429, "TooManyRequestsException"),
        answer("events", "DeleteRule", 400, "ThrottlingException"),
    ]);
    let run = sandbox.destroy("prod", &[]).ok();
    assert!(
        !run.stderr.contains("failed") && !run.stderr.contains("error"),
        "{}",
        run.stderr
    );
    for rule in sandbox.get("faults").as_array().expect("a list") {
        assert_eq!(rule["fired"], 1, "{rule}");
    }
    sandbox
        .destroy("prod", &[])
        .fails(1, &["no cluster named prod"]);
}
