//! AWS has a bad day, is slow to believe itself, or somebody does the same at the same time: no person has to do
//! anything about it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::again::{Names, drifts};
use crate::as_before::assert_as_before;
use crate::complete::make_zone;
use crate::support::account::{kind, one, unlike, without_dying_keys};
use crate::support::background::Background;
use crate::support::cluster::{CLUSTER, Cluster, GROUP};
use crate::support::{APP, PASSWORD, Run, Sandbox, executable, mutations};

/// Always the same addresses, so that two accounts can be compared: nothing answers at them.
fn stack(sandbox: &Sandbox) -> Value {
    sandbox.stack(&json!({
        "name": "prod", "backends": 5, "clients": 1, "classic_lb": true, "network": "127.77",
    }))
}

/// Changes by hand, in as many rounds as keep apart those that do not meet in one account.
const DRIFTS: usize = 3;

fn drift(sandbox: &Sandbox, stack: &Value, zone: &str, round: usize) {
    let names = Names::of(&sandbox.inventory(), stack, zone);
    let drifts = drifts(&names).into_iter().skip(round).step_by(DRIFTS);
    for drift in drifts.filter(|drift| drift.what != "the credentials gone") {
        let (service, operation, params) = drift.call;
        sandbox.aws(service, operation, &params);
    }
}

/// Waits until Lambda has set up every function: an import does not, and a change by hand has to.
fn wait_for_functions(sandbox: &Sandbox) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let inventory = sandbox.inventory();
        let mut functions = kind(&inventory, "functions").values();
        if functions.all(|function| function["State"] == "Active") {
            return;
        }
        assert!(Instant::now() < until, "they never become active");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Import, update and destroy in an account that is `troubled` from then on. What there is after each is as if it had
/// not been.
fn a_life(sandbox: &Sandbox, good: Option<&Value>, troubled: impl Fn(&Sandbox)) -> Value {
    let stack = stack(sandbox);
    let zone = make_zone(sandbox);
    let before = sandbox.inventory();
    let flags = ["-t", "team=storage", "-l", "weka.example.com", "-z", &zone];
    let quiet = |run: Run| {
        let run = run.ok();
        assert!(!run.stderr.contains("failed"), "{}", run.stderr);
    };
    troubled(sandbox);
    quiet(sandbox.import_small("prod", &flags));
    let imported = sandbox.inventory();
    let as_good = |now: &Value| {
        let mut unlike = good.map_or_else(Vec::new, |good| unlike(good, now));
        // A function takes its time to be ready, and nobody waits for it.
        unlike.retain(|line| !(line.contains(" / functions / ") && line.contains(" / State")));
        assert!(unlike.is_empty(), "{unlike:#?}");
    };
    as_good(&imported);
    for round in 0..DRIFTS {
        wait_for_functions(sandbox);
        sandbox.fault(&[]);
        drift(sandbox, &stack, &zone, round);
        troubled(sandbox);
        quiet(sandbox.update_small("prod", &[]));
        as_good(&sandbox.inventory());
    }
    troubled(sandbox);
    quiet(sandbox.update_small("prod", &["--rotate-keys"]));
    as_good(&sandbox.inventory());
    troubled(sandbox);
    quiet(sandbox.destroy("prod", &[]));
    let after = sandbox.inventory();
    let (_, keys) = without_dying_keys(&after);
    assert_as_before(&before, &after, &stack, false, keys.len());
    imported
}

#[test]
fn a_third_of_all_calls_throttled_and_others_lost_or_failed() {
    let sandbox = Sandbox::start();
    let good = a_life(&sandbox, None, |_| {});
    sandbox.post("reset", &json!({}));
    a_life(&sandbox, Some(&good), |sandbox| {
        let rule = |action: &str, probability: f64| {
            json!({
                "caller": format!("^app:{APP}$"), "count": 0, "action": action, "probability": probability,
                "message": "Rate exceeded",
            })
        };
        let mut throttled = rule("error", 0.3);
        (throttled["code"], throttled["status"]) = (json!("ThrottlingException"), json!(400));
        let mut failed = rule("error", 0.05);
        (failed["code"], failed["status"]) = (json!("InternalFailure"), json!(500));
        let mut unavailable = rule("error", 0.05);
        (unavailable["code"], unavailable["status"]) = (json!("ServiceUnavailable"), json!(503));
        sandbox.fault(&[
            throttled,
            failed,
            unavailable,
            rule("drop", 0.03),
            rule("apply_drop", 0.03),
        ]);
    });
}

/// Whatever changes something does so, and its first answer never comes.
#[test]
fn every_answer_of_a_changing_call_lost_once() {
    let sandbox = Sandbox::start();
    let good = a_life(&sandbox, None, |_| {});
    sandbox.post("reset", &json!({}));
    a_life(&sandbox, Some(&good), |sandbox| {
        sandbox.fault(&[json!({
            "caller": format!("^app:{APP}$"), "mutating": true, "each": true, "action": "apply_drop",
        })]);
    });
    let lost = sandbox.get("faults")[0]["fired"].as_u64();
    assert!(lost > Some(20), "{lost:?} in destroy");
}

#[test]
fn an_aws_that_is_slow_to_believe_itself() {
    let sandbox = Sandbox::start();
    let good = a_life(&sandbox, None, |_| {});
    sandbox.post("reset", &json!({}));
    a_life(&sandbox, Some(&good), |sandbox| {
        sandbox.set(&json!({"strict": true, "table_seconds": 2}));
    });
}

#[test]
fn two_imports_of_one_cluster_at_once_end_in_one_cluster() {
    let sandbox = Sandbox::start();
    let code = sandbox.small_code();
    let mut command = sandbox.command(&[
        "cluster",
        "import",
        "-n",
        "prod",
        "-u",
        "admin",
        "--no-verify",
        "--lambda-binary",
        &code,
    ]);
    command.env("WEKACTL_PASSWORD", PASSWORD);
    let all = std::env::var("WEKACTL_CONVERGENCE").is_ok_and(|which| which == "all");
    let (begun, delays): (Vec<usize>, &[u64]) = if all {
        ((0..120).step_by(5).collect(), &[0, 20, 60])
    } else {
        (vec![0, 40, 80], &[20])
    };
    let begun = begun.into_iter();
    let mut noticed = 0;
    for (begun, delay) in begun.flat_map(|begun| delays.iter().map(move |delay| (begun, *delay))) {
        let case = format!("the second after {begun} calls of the first, {delay} ms a call");
        sandbox.post("reset", &json!({}));
        let stack = stack(&sandbox);
        let before = sandbox.inventory();
        sandbox.set(&json!({"delay_ms": delay}));
        sandbox.take_calls();
        let first = Background::start(&mut command);
        sandbox.wait_for_calls("the first has begun", |calls| calls.len() >= begun);
        let second = Background::start(&mut command);
        let both = [first, second].map(Background::end);
        sandbox.set(&json!({"delay_ms": 0}));
        for run in &both {
            assert_eq!(run.code, 0, "{case}: {}", run.stderr);
            noticed += run
                .stderr
                .matches("another import of it is under way")
                .count();
        }
        // At once, without another import.
        sandbox
            .update_small("prod", &["--dry-run", "--exit-code"])
            .ok();
        let inventory = sandbox.inventory();
        for of_kind in [
            "rest_apis",
            "api_keys",
            "usage_plans",
            "auto_scaling_groups",
            "rules",
        ] {
            assert_eq!(kind(&inventory, of_kind).len(), 1, "{of_kind}");
        }
        sandbox.destroy("prod", &[]).ok();
        let after = sandbox.inventory();
        let (_, keys) = without_dying_keys(&after);
        assert_as_before(&before, &after, &stack, false, keys.len());
    }
    assert!(noticed > 0, "they have never met");
}

/// Changes by hand that an import repairs, and with which the runs go on.
fn drift_harmlessly(sandbox: &Sandbox) {
    for word in ["fetch", "scale", "terminate"] {
        let more = json!({"FunctionName": format!("wekactl-{CLUSTER}-{word}-Backends"), "MemorySize": 512});
        sandbox.aws("lambda", "update_function_configuration", &more);
    }
    let inventory = sandbox.inventory();
    let machine = &one(&inventory, "state_machines", |_| true)["stateMachineArn"];
    let machine = json!({"stateMachineArn": machine});
    let described = sandbox.aws("stepfunctions", "describe_state_machine", &machine);
    let definition = described["definition"].as_str().expect("text");
    let mut definition: Value = serde_json::from_str(definition).expect("JSON");
    definition["Comment"] = json!("by hand");
    let changed = json!({"stateMachineArn": machine["stateMachineArn"], "definition": definition.to_string()});
    sandbox.aws("stepfunctions", "update_state_machine", &changed);
    let roles = inventory["global"]["roles"].as_object().expect("roles");
    let prefix = format!("wekactl-{CLUSTER}-Backends-terminate-");
    let role = roles.keys().find(|name| name.starts_with(&prefix));
    let policy = json!({
        "RoleName": role.expect("a role"), "PolicyName": format!("wekactl-{CLUSTER}-terminate-Backends"),
        "PolicyDocument": r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}"#,
    });
    sandbox.aws("iam", "put_role_policy", &policy);
    let group = json!({"AutoScalingGroupName": GROUP, "NewInstancesProtectedFromScaleIn": false});
    sandbox.aws("autoscaling", "update_auto_scaling_group", &group);
}

/// What takes half a minute without an answer is asked again; what changes something and may have done so is looked for
/// first; what takes its time by nature is waited for.
#[test]
fn a_connection_that_goes_silent_is_given_up() {
    let silent = |operation: &str, action: &str| json!({"caller": format!("^app:{APP}$"), "operation": operation, "action": action});
    let slow = |operation: &str| json!({"caller": format!("^app:{APP}$"), "operation": operation, "action": "delay", "seconds": 33});
    let calls = |sandbox: &Sandbox, operation: &str| {
        let calls = sandbox.take_calls();
        let calls = calls.iter();
        calls.filter(|call| call["operation"] == operation).count()
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let sandbox = Sandbox::start();
            stack(&sandbox);
            sandbox.fault(&[silent("DescribeInstances", "hang")]);
            let begin = Instant::now();
            sandbox.import_small("prod", &["--dry-run"]).ok();
            assert!(begin.elapsed() < Duration::from_secs(90));
            assert!(calls(&sandbox, "DescribeInstances") > 1);
        });
        scope.spawn(|| {
            let sandbox = Sandbox::start();
            stack(&sandbox);
            sandbox.fault(&[
                silent("CreateKey", "apply_hang"),
                slow("PublishLayerVersion"),
            ]);
            sandbox.import_small("prod", &[]).ok();
            assert_eq!(calls(&sandbox, "PublishLayerVersion"), 1);
            assert_eq!(kind(&sandbox.inventory(), "kms_keys").len(), 1);
        });
        scope.spawn(|| {
            let sandbox = Sandbox::start();
            stack(&sandbox);
            sandbox.import_small("prod", &[]).ok();
            sandbox.take_calls();
            sandbox.fault(&[slow("Invoke")]);
            let code = sandbox.small_code();
            sandbox
                .import("prod", &["--lambda-binary", &code, "-p", "An0ther"])
                .ok();
            assert_eq!(calls(&sandbox, "Invoke"), 1);
        });
    });
}

/// New code, other settings of every function, other keys: the runs go on meanwhile, and every one is green.
#[test]
fn an_update_under_a_running_automation_stops_no_run() {
    let cluster = Cluster::start(6);
    let sandbox = &cluster.sandbox;
    assert_eq!(cluster.minute().status, "SUCCEEDED");
    let mut code = std::fs::read(executable()).expect("it is there");
    code.push(0);
    let path = sandbox.home().join("wekactl-next");
    std::fs::write(&path, code).expect("the directory is ours");
    let path = path.to_str().expect("text");
    let update = [
        "cluster",
        "update",
        "-n",
        CLUSTER,
        "--rotate-keys",
        "--lambda-binary",
        path,
    ];
    let mut update = Background::start(&mut sandbox.command(&update));
    let import = [
        "cluster",
        "import",
        "-n",
        CLUSTER,
        "-u",
        "admin",
        "--no-verify",
    ];
    let mut import = sandbox.command(&import);
    import.env("WEKACTL_PASSWORD", PASSWORD);
    let mut runs = Vec::new();
    while update.is_running() {
        runs.push(cluster.minute());
    }
    update.end().ok();
    assert!(runs.len() >= 2, "{runs:?}");

    // An import repairs in the same order. Nothing of this by itself is in the way of a run.
    drift_harmlessly(sandbox);
    sandbox.take_calls();
    let mut import = Background::start(&mut import);
    let before = runs.len();
    while import.is_running() {
        runs.push(cluster.minute());
    }
    assert!(runs.len() > before, "none while it was under way");
    import.end().ok();
    let changed = mutations(&sandbox.take_calls());
    for call in [
        "autoscaling.UpdateAutoScalingGroup",
        "iam.PutRolePolicy",
        "lambda.PublishLayerVersion",
        "lambda.UpdateFunctionConfiguration",
        "stepfunctions.UpdateStateMachine",
    ] {
        assert!(
            changed.iter().any(|each| each == call),
            "{call}: {changed:?}"
        );
    }
    runs.push(cluster.minute());
    for run in &runs {
        assert_eq!(run.status, "SUCCEEDED", "{run:?}");
    }
    assert!(cluster.is_at_rest(6));
}
