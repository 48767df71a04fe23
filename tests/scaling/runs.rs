//! One run at a time, whatever becomes of its functions; and what a run costs and shows.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::cluster::Cluster;

fn fault(cluster: &Cluster, rule: &Value) {
    cluster.sandbox.fault(std::slice::from_ref(rule));
}

#[test]
fn a_function_that_dies_anywhere_costs_a_minute_and_no_more() {
    let cluster = Cluster::start(8);
    cluster.minute();
    cluster.minute();
    cluster.resize(6);
    // Each of terminate's calls once is the last thing that it does, before or after it took effect.
    for (operation, action) in [
        ("UpdateItem", "kill"),
        ("UpdateItem", "apply_kill"),
        ("ModifyInstanceAttribute", "kill"),
        ("SetInstanceProtection", "apply_kill"),
        ("TerminateInstances", "kill"),
        ("TerminateInstances", "apply_kill"),
        ("DetachInstances", "kill"),
        ("DetachInstances", "apply_kill"),
    ] {
        let caller = "^lambda:.*-terminate-";
        fault(
            &cluster,
            &json!({"operation": operation, "caller": caller, "action": action}),
        );
        let fired = || cluster.sandbox.get("faults")[0]["fired"] == 1;
        for _ in 0..20 {
            cluster.minute();
            // What the dead one held expires by itself.
            cluster.expire_lease();
            if fired() {
                break;
            }
        }
        assert!(fired(), "terminate never calls {operation} ({action})");
        cluster.sandbox.fault(&[]);
    }
    cluster.until("six", 60, |cluster, minute| {
        minute.status == "SUCCEEDED" && cluster.is_at_rest(6)
    });
    let health = cluster.weka.with(|weka| weka.health());
    assert_eq!(health.unreadable, 0);
    for member in cluster.group()["Instances"].as_array().expect("a list") {
        assert_eq!(member["ProtectedFromScaleIn"], true, "{member}");
    }
}

#[test]
fn a_second_run_does_nothing_while_the_first_goes_on() {
    let cluster = Cluster::start(7);
    cluster.minute();
    cluster.resize(6);
    cluster.minute();
    cluster.weka.with(|weka| weka.behaviour.drain_rate = 1_000);
    cluster.until("one is drained", 20, |cluster, minute| {
        minute.status == "SUCCEEDED" && cluster.draining().len() == 1
    });
    // The first run's terminate is about to end it, and the second begins.
    cluster.pass(1);
    fault(
        &cluster,
        &json!({"operation": "DescribeAutoScalingGroups", "caller": "^lambda:.*-terminate-", "action": "hold"}),
    );
    let first = cluster.sandbox.post("tick", &json!({"wait": false}));
    let first = json!({"executionArn": first[0]["execution"]});
    wait_for("terminate", || {
        cluster.sandbox.get("faults")[0]["fired"] == 1
    });
    cluster.forget_calls();
    let second = cluster.run();
    assert_eq!(second.status, "SUCCEEDED", "{second:?}");
    assert_eq!(second.output["LeaseLost"], true, "{second:?}");
    assert_eq!(second.output["TransientErrors"], Value::Null);
    assert_eq!(cluster.changes(), [""; 0]);
    assert_eq!(cluster.members().len(), 7);
    cluster.sandbox.fault(&[]);
    wait_for("the first run's end", || {
        let found = cluster
            .sandbox
            .aws("stepfunctions", "describe_execution", &first);
        found["status"] == "SUCCEEDED"
    });
    let changes = cluster.changes();
    let ended = changes
        .iter()
        .filter(|call| call.contains("TerminateInstances"));
    assert_eq!(ended.count(), 1, "{changes:?}");
    cluster.until("six", 5, |cluster, minute| {
        minute.status == "SUCCEEDED" && minute.output["LeaseLost"] == false && cluster.is_at_rest(6)
    });
}

#[track_caller]
fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_idle_run_asks_weka_little_and_changes_nothing() {
    let cluster = Cluster::start(6);
    cluster.minute();
    cluster.minute();
    cluster.forget_calls();
    cluster.weka.with(|weka| weka.api.counts.clear());
    let minute = cluster.minute();
    assert_eq!(minute.status, "SUCCEEDED", "{minute:?}");
    assert_eq!(cluster.changes(), [""; 0]);
    let requests: usize = cluster.weka.with(|weka| weka.api.counts.values().sum());
    assert!(requests <= 20, "{requests}");

    // What a person sees in the console: what was decided, and that it is fine.
    assert_eq!(minute.output["DesiredCapacity"], 6);
    assert_eq!(minute.output["Classes"], json!({"Healthy": 6}));
    let seen: BTreeSet<&str> = minute
        .output
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    assert!(
        seen.contains("TransientErrors") && seen.contains("Verdicts"),
        "{seen:?}"
    );

    // One backend that is dead costs a look elsewhere, and no more.
    let dead = cluster.backends()[0].clone();
    cluster.weka.with(|weka| weka.kill(&dead));
    for _ in 0..3 {
        let minute = cluster.minute();
        assert_eq!(minute.status, "SUCCEEDED", "{minute:?}");
    }
    assert_eq!(cluster.changes(), [""; 0]);
}

#[test]
fn with_an_endpoint_scale_reads_the_credentials_itself_and_none_travel() {
    let cluster = Cluster::start_with(6, &["--use-dynamodb-endpoint"]);
    let minute = cluster.minute();
    assert_eq!(minute.status, "SUCCEEDED", "{minute:?}");
    let invocations = cluster.sandbox.get("invocations");
    let invocations = invocations.as_array().expect("a list").iter();
    let fetched: Vec<Value> = invocations
        .filter(|run| run["function"] == "wekactl-prod-fetch-Backends")
        .filter_map(|run| serde_json::from_str(run["payload"].as_str()?).ok())
        .collect();
    assert!(!fetched.is_empty());
    for payload in fetched {
        assert_eq!(payload["Sealed"], Value::Null, "{payload}");
    }
}
