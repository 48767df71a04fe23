//! Functions that die or outlive their run while Weka works: whatever they left behind, no other run works beside
//! them, nothing is done twice, and the next runs go on from there.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::cluster::{CLUSTER, Cluster};
use crate::support::weka::{Action, CallOutcome, Fault};

/// What a call takes during which something happens to its function.
const SLOW: Duration = Duration::from_secs(3);

/// A cluster of which the next run drains one machine.
fn about_to_shrink(size: u32) -> Cluster {
    let cluster = Cluster::start(size);
    cluster.minute();
    cluster.resize(size - 1);
    cluster.minute();
    assert_eq!(cluster.draining(), [""; 0]);
    cluster
}

#[track_caller]
fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn asked(cluster: &Cluster, method: &str) -> usize {
    let counts = |weka: &mut crate::support::weka::Weka| weka.api.counts.get(method).copied();
    cluster.weka.with(counts).unwrap_or(0)
}

/// Starts a run, and returns when Weka has been asked this, and has done it, and has not answered yet.
fn start_until(cluster: &Cluster, method: &str) -> String {
    let before = asked(cluster, method);
    let slow = Fault::of(method, Action::Slow(SLOW)).times(1);
    cluster.weka.with(|weka| weka.api.fault(slow));
    let fired = cluster.sandbox.post("tick", &json!({"wait": false}));
    wait_for(method, || asked(cluster, method) > before);
    fired[0]["execution"].as_str().expect("it began").to_owned()
}

/// The runs of a function that have ended.
fn ended(cluster: &Cluster, kind: &str) -> usize {
    let runs = cluster.sandbox.get("invocations");
    let runs = runs.as_array().expect("a list").iter();
    let name = format!("wekactl-{CLUSTER}-{kind}-Backends");
    runs.filter(|run| run["function"] == name).count()
}

/// Lets the state machine wait for scale no longer than so many seconds.
fn give_up_states_after(cluster: &Cluster, seconds: u32) {
    let sandbox = &cluster.sandbox;
    let machines = sandbox.aws("stepfunctions", "list_state_machines", &json!({}));
    let arn = &machines["stateMachines"][0]["stateMachineArn"];
    let machine = json!({"stateMachineArn": arn});
    let found = sandbox.aws("stepfunctions", "describe_state_machine", &machine);
    let definition = found["definition"].as_str().expect("text");
    let mut definition: Value = serde_json::from_str(definition).expect("JSON");
    definition["States"]["Scale"]["TimeoutSeconds"] = json!(seconds);
    let update = json!({"stateMachineArn": arn, "definition": definition.to_string()});
    sandbox.aws("stepfunctions", "update_state_machine", &update);
}

fn status(cluster: &Cluster, execution: &str) -> String {
    let execution = json!({"executionArn": execution});
    let found = cluster
        .sandbox
        .aws("stepfunctions", "describe_execution", &execution);
    found["status"].as_str().expect("it has one").to_owned()
}

/// What Weka has accepted of a method.
fn accepted(cluster: &Cluster, method: &str) -> usize {
    cluster.weka.with(|weka| {
        let calls = weka.calls.iter();
        calls
            .filter(|call| call.method == method && call.outcome == CallOutcome::Applied)
            .count()
    })
}

#[test]
fn a_function_that_outlives_its_run_works_alone() {
    let cluster = about_to_shrink(7);
    cluster.weka.with(|weka| weka.behaviour.drain_rate = 0);
    give_up_states_after(&cluster, 1);
    let scales = ended(&cluster, "scale");
    let first = start_until(&cluster, "hosts_list");
    // Its state is given up, and scale goes on: it has read everything, and acts now.
    wait_for("the state's end", || status(&cluster, &first) == "FAILED");
    assert_eq!(ended(&cluster, "scale"), scales);
    let second = cluster.run();
    assert_eq!(second.status, "SUCCEEDED", "{second:?}");
    assert_eq!(second.output["LeaseLost"], true, "{second:?}");
    assert_eq!(second.output["Done"]["Protected"], json!([]));
    wait_for("the first scale's end", || {
        ended(&cluster, "scale") >= scales + 2
    });
    assert_eq!(accepted(&cluster, "cluster_deactivate_hosts"), 1);
    assert_eq!(cluster.draining().len(), 1);

    // Its lease runs out, and the next run knows what was done.
    assert_eq!(cluster.run().output["LeaseLost"], true);
    cluster.expire_lease();
    give_up_states_after(&cluster, 37);
    cluster.weka.with(|weka| weka.behaviour.drain_rate = 500);
    cluster.until("six", 20, |cluster, minute| {
        minute.status == "SUCCEEDED" && cluster.is_at_rest(6)
    });
    assert_eq!(accepted(&cluster, "cluster_deactivate_drives"), 1);
    assert_eq!(accepted(&cluster, "cluster_deactivate_hosts"), 1);
}

#[test]
fn scale_may_die_after_any_call_to_weka() {
    let cluster = about_to_shrink(8);
    cluster.weka.with(|weka| weka.behaviour.drain_rate = 500);
    for method in [
        "user_login",
        "hosts_list",
        "cluster_deactivate_drives",
        "events_trigger_custom",
        "cluster_deactivate_hosts",
        "cluster_remove_host",
        "cluster_remove_drives",
    ] {
        dies_after(&cluster, method);
    }
    cluster.until("seven", 60, |cluster, minute| {
        minute.status == "SUCCEEDED" && cluster.is_at_rest(7)
    });
    // Drives that were left over when their container went are gone, too.
    let drives = cluster.weka.with(|weka| weka.drives.len());
    assert_eq!(drives, 14);
    assert_eq!(accepted(&cluster, "cluster_deactivate_drives"), 1);
    assert_eq!(accepted(&cluster, "cluster_deactivate_hosts"), 1);
    let terminated = terminations(&cluster);
    assert_eq!(terminated.len(), 1, "{terminated:?}");
    assert!(cluster.weka.with(|weka| weka.is_whole()));
}

/// In one of the next minutes scale asks Weka this, and dies before it hears the answer.
#[track_caller]
fn dies_after(cluster: &Cluster, method: &str) {
    let before = asked(cluster, method);
    let slow = Fault::of(method, Action::Slow(SLOW)).times(1);
    cluster.weka.with(|weka| weka.api.fault(slow));
    for _ in 0..30 {
        cluster.pass(1);
        let fired = cluster.sandbox.post("tick", &json!({"wait": false}));
        let execution = fired[0]["execution"].as_str().expect("it began");
        wait_for("a call, or the end", || {
            asked(cluster, method) > before || status(cluster, execution) != "RUNNING"
        });
        if asked(cluster, method) == before {
            continue;
        }
        let killed = json!({"name": "-scale-"});
        let killed = cluster.sandbox.post("functions/kill", &killed);
        assert_eq!(
            killed["killed"].as_array().map(Vec::len),
            Some(1),
            "{method}"
        );
        wait_for("the end", || status(cluster, execution) == "FAILED");
        cluster.weka.with(|weka| weka.api.end_faults());
        // Nobody released the lease: another run at once does nothing.
        let minute = cluster.run();
        assert_eq!(minute.output["LeaseLost"], true, "{method} {minute:?}");
        cluster.expire_lease();
        return;
    }
    panic!("{method} is never asked");
}

/// What the functions have asked EC2 to terminate.
fn terminations(cluster: &Cluster) -> Vec<Value> {
    let calls = cluster.sandbox.get("journal?caller=^lambda:");
    let calls = calls.as_array().expect("a list").iter();
    calls
        .filter(|call| call["operation"] == "TerminateInstances")
        .cloned()
        .collect()
}
