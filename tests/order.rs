//! In order, and at once: what needs something waits for that, and for nothing else.

use serde_json::{Value, json};

use crate::support::account::kind;
use crate::support::{Run, Sandbox};

fn operation(call: &Value) -> &str {
    call["operation"].as_str().expect("a name")
}

/// Seconds: when a call began, or when it ended.
fn time(call: &Value, edge: &str) -> f64 {
    call[edge].as_f64().expect("a time")
}

/// The end of the last of these calls.
#[track_caller]
fn end_of(calls: &[Value], of: &str) -> f64 {
    let these = calls.iter().filter(|call| operation(call) == of);
    these
        .map(|call| time(call, "end"))
        .max_by(f64::total_cmp)
        .unwrap_or_else(|| panic!("{of} is not called"))
}

/// Wherever it is stopped, there is no half that goes on by itself, nor one that nothing takes care of.
#[test]
fn destroy_takes_the_rule_first_then_the_backends_in_any_state_and_the_key_last() {
    let sandbox = Sandbox::start();
    let stack = sandbox.stack(&json!({"name": "prod", "backends": 6, "classic_lb": true}));
    sandbox.import_small("prod", &[]).ok();
    let stopped = &stack["backends"][1]["id"];
    sandbox.aws("ec2", "stop_instances", &json!({"InstanceIds": [stopped]}));
    let state = |id: &Value| {
        let inventory = sandbox.inventory();
        let instance = &kind(&inventory, "instances")[id.as_str().expect("an id")];
        instance["State"]["Name"].clone()
    };
    assert_eq!(state(stopped), "stopped");
    sandbox.set(&json!({"delay_ms": 10}));
    sandbox.take_calls();
    sandbox.destroy("prod", &[]).ok();

    let calls = sandbox.take_calls();
    let ended = |of: &str| end_of(&calls, of);
    for call in calls.iter().filter(|call| call["read"] == false) {
        let (name, start) = (operation(call), time(call, "start"));
        if !matches!(name, "RemoveTargets" | "DeleteRule") {
            assert!(
                start >= ended("DeleteRule"),
                "{name} before the rule is gone"
            );
            let removes = name.starts_with("Delete") || name == "ScheduleKeyDeletion";
            assert!(
                !removes || start >= ended("TerminateInstances"),
                "{name} before the backends are terminated"
            );
        }
        // The role of scale may have to wait for long.
        let is_last = matches!(name, "DeleteTable" | "DeleteAlias" | "ScheduleKeyDeletion");
        let is_role = matches!(name, "DeleteRole" | "DeleteRolePolicy");
        assert!(
            is_last || is_role || time(call, "end") <= start_of(&calls, "DeleteTable"),
            "{name} after the table is gone"
        );
    }
    assert!(ended("DeleteTable") <= start_of(&calls, "ScheduleKeyDeletion"));
    let terminated: Vec<&str> = calls
        .iter()
        .filter(|call| operation(call) == "TerminateInstances")
        .filter_map(|call| call["request"].as_str())
        .collect();
    for backend in stack["backends"].as_array().expect("machines") {
        // Not by the group's end alone: that may not come.
        let id = backend["id"].as_str().expect("an id");
        let is_named = terminated.iter().any(|request| request.contains(id));
        assert!(
            is_named,
            "{id} is not terminated before the rest is removed"
        );
        assert_eq!(state(&backend["id"]), "terminated", "{backend}");
    }
}

/// The start of the first of these calls.
#[track_caller]
fn start_of(calls: &[Value], of: &str) -> f64 {
    let these = calls.iter().filter(|call| operation(call) == of);
    these
        .map(|call| time(call, "start"))
        .min_by(f64::total_cmp)
        .unwrap_or_else(|| panic!("{of} is not called"))
}

#[test]
fn calls_that_do_not_need_each_other_are_made_at_once() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": "prod", "backends": 6, "classic_lb": true}));
    sandbox.set(&json!({"delay_ms": 100}));
    let import = || sandbox.import_small("prod", &[]);
    let destroy = || sandbox.destroy("prod", &[]);
    let commands: [&dyn Fn() -> Run; 3] = [&import, &import, &destroy];
    for command in commands {
        sandbox.take_calls();
        command().ok();
        let calls = sandbox.take_calls();
        let in_flight = calls.iter().filter_map(|call| call["in_flight"].as_u64());
        let most = in_flight.max().expect("calls");
        assert!(most >= 10, "{most} calls at most are under way at once");
    }
}
