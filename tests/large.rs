//! Large clusters: what AWS takes in batches goes in batches, its rates are kept, one bad machine does not keep the
//! others, and the memory stays small.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::large::{CLUSTER, Machines, command, throttled, with_peak};
use crate::support::{Run, Sandbox, mutations};

/// MB that a run may have in memory.
const MOST_MEMORY: f64 = 100.0;
/// What AWS takes in one call: the operation, what the ids' parameters begin with, how many there may be.
const LIMITS: &[(&str, &str, usize)] = &[
    ("AttachInstances", "InstanceIds.member.", 20),
    ("DetachInstances", "InstanceIds.member.", 20),
    ("SetInstanceProtection", "InstanceIds.member.", 50),
    ("DescribeAutoScalingInstances", "InstanceIds.member.", 50),
    ("TerminateInstances", "InstanceId.", 1000),
    ("CreateTags", "ResourceId.", 1000),
    ("DescribeInstances", "Filter.1.Value.", 200),
    ("DescribeNetworkInterfaces", "Filter.1.Value.", 200),
];

/// How many machines are given by their ids.
fn many() -> usize {
    match std::env::var("WEKACTL_LARGE") {
        Ok(number) => number.parse().expect("WEKACTL_LARGE is a number"),
        Err(_) => 300,
    }
}

/// Runs a command on the large cluster. Returns its calls.
fn run(sandbox: &Sandbox, verb: &str, more: &[&str], rates: Option<&str>) -> (Run, Vec<Value>) {
    sandbox.take_calls();
    let mut command = command(sandbox, verb, more);
    command.envs(rates.map(|rates| ("WEKACTL_EC2_RATES", rates)));
    let (run, peak) = with_peak(sandbox, &command);
    assert!(peak < MOST_MEMORY, "{verb} had {peak:.0} MB in memory");
    let calls = sandbox.take_calls();
    for call in &calls {
        let operation = call["operation"].as_str().expect("a name");
        let request = call["request"].as_str().unwrap_or_default();
        for (limited, parameter, most) in LIMITS {
            let count = request.matches(&format!("&{parameter}")).count();
            assert!(
                operation != *limited || count <= *most,
                "{operation} for {count}"
            );
        }
    }
    (run, calls)
}

fn count(calls: &[Value], operation: &str) -> usize {
    calls
        .iter()
        .filter(|call| call["operation"] == operation)
        .count()
}

/// Imports, imports again, updates what has drifted, and destroys.
fn live_and_die(sandbox: &Sandbox, ids: &[String], flags: &[&str], rates: Option<&str>) {
    let (imported, calls) = run(sandbox, "import", flags, rates);
    imported.ok();
    assert_eq!(throttled(&calls), [""; 0]);
    assert_eq!(count(&calls, "AttachInstances"), ids.len().div_ceil(20));
    assert_eq!(members(sandbox), ids.iter().cloned().collect());

    let (again, calls) = run(sandbox, "import", flags, rates);
    again.ok();
    assert_eq!(mutations(&calls), [""; 0]);
    assert_eq!(throttled(&calls), [""; 0]);

    let drifted = &ids[ids.len() - 3..];
    for id in drifted {
        let lift = json!({"InstanceId": id, "DisableApiTermination": {"Value": false}});
        sandbox.aws("ec2", "modify_instance_attribute", &lift);
    }
    let (updated, calls) = run(sandbox, "update", &[], rates);
    updated.ok();
    assert_eq!(
        mutations(&calls),
        vec!["ec2.ModifyInstanceAttribute"; drifted.len()]
    );
    assert_eq!(throttled(&calls), [""; 0]);

    let (destroyed, calls) = run(sandbox, "destroy", &[], rates);
    destroyed.ok();
    assert_eq!(throttled(&calls), [""; 0]);
    let alive: BTreeSet<String> = alive(sandbox).into_iter().collect();
    assert!(ids.iter().all(|id| !alive.contains(id)));
}

/// The group's members.
fn members(sandbox: &Sandbox) -> BTreeSet<String> {
    let group = json!({"AutoScalingGroupNames": [format!("wekactl-{CLUSTER}-Backends")]});
    let groups = sandbox.aws("autoscaling", "describe_auto_scaling_groups", &group);
    let members = groups["AutoScalingGroups"][0]["Instances"].as_array();
    let members = members.expect("a list").iter();
    members
        .map(|each| each["InstanceId"].as_str().expect("an id").to_owned())
        .collect()
}

/// The instances that run.
fn alive(sandbox: &Sandbox) -> Vec<String> {
    let running =
        json!({"Filters": [{"Name": "instance-state-name", "Values": ["running", "pending"]}]});
    let found = sandbox.aws("ec2", "describe_instances", &running);
    let reservations = found["Reservations"].as_array().expect("a list").iter();
    reservations
        .flat_map(|each| each["Instances"].as_array().expect("a list"))
        .map(|each| each["InstanceId"].as_str().expect("an id").to_owned())
        .collect()
}

fn ids_of(stack: &Value) -> Vec<String> {
    let backends = stack["backends"].as_array().expect("a list").iter();
    backends
        .map(|each| each["id"].as_str().expect("an id").to_owned())
        .collect()
}

#[test]
fn a_stack_of_a_hundred_backends_lives_and_dies_without_being_throttled() {
    let sandbox = Sandbox::start();
    let stack = sandbox.stack(&json!({"name": CLUSTER, "backends": 100, "classic_lb": true}));
    sandbox.set(&json!({"rates": 1}));
    live_and_die(&sandbox, &ids_of(&stack), &[], None);
}

#[test]
fn hundreds_of_machines_given_in_a_file_live_and_die() {
    let sandbox = Sandbox::start();
    let machines = Machines::make(&sandbox, many());
    let flags = ["--instance-ids", &machines.argument];
    // With AWS's default rates it would take minutes.
    sandbox.set(&json!({"rates": 4}));
    live_and_die(&sandbox, &machines.ids, &flags, Some("4"));
}

/// Whoever does not keep the rates is throttled: else nothing that is said of them here would mean anything.
#[test]
fn the_rates_here_are_those_of_aws() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": CLUSTER, "backends": 30}));
    sandbox.set(&json!({"rates": 0.2}));
    let (imported, calls) = run(&sandbox, "import", &[], Some("1000"));
    imported.ok();
    assert!(throttled(&calls).contains(&"ModifyInstanceAttribute"));
}

#[test]
fn one_bad_machine_does_not_keep_the_others() {
    let sandbox = Sandbox::start();
    let stack = sandbox.stack(&json!({"name": CLUSTER, "backends": 25}));
    let ids = ids_of(&stack);
    let bad = ids[7].as_str();
    let others: BTreeSet<String> = ids.iter().filter(|id| *id != bad).cloned().collect();
    let refuse = |service: &str, operation: &str, code: &str| {
        sandbox.fault(&[
            json!({"service": service, "operation": operation, "match": bad, "count": 0,
            "code": code, "message": "not this one", "status": 400}),
        ]);
    };
    let tagged = |key: &str| {
        let filter = json!({"Filters": [{"Name": "key", "Values": [key]},
            {"Name": "resource-type", "Values": ["instance"]}]});
        let tags = sandbox.aws("ec2", "describe_tags", &filter);
        let tags = tags["Tags"].as_array().expect("a list").iter();
        let ids = tags.map(|tag| tag["ResourceId"].as_str().expect("an id").to_owned());
        ids.collect::<BTreeSet<String>>()
    };
    let fails = |verb: &str, flags: &[&str], doing: &str| {
        let (run, _) = run(&sandbox, verb, flags, None);
        run.fails(1, &[&format!("{doing} {bad}: not this one")]);
        sandbox.fault(&[]);
    };

    refuse("ec2", "CreateTags", "TagLimitExceeded");
    fails("import", &[], "tagging");
    assert_eq!(tagged("wekactl.io/before"), others);
    refuse("autoscaling", "AttachInstances", "ValidationError");
    fails("import", &[], "attaching");
    assert_eq!(members(&sandbox), others);
    let (imported, _) = run(&sandbox, "import", &[], None);
    imported.ok();
    assert_eq!(members(&sandbox), ids.iter().cloned().collect());

    let group = format!("wekactl-{CLUSTER}-Backends");
    for some in ids.chunks(20) {
        let lift = json!({"AutoScalingGroupName": group, "InstanceIds": some, "ProtectedFromScaleIn": false});
        sandbox.aws("autoscaling", "set_instance_protection", &lift);
    }
    refuse("autoscaling", "SetInstanceProtection", "ValidationError");
    fails("update", &[], "protecting");
    let (updated, calls) = run(&sandbox, "update", &[], None);
    updated.ok();
    assert_eq!(mutations(&calls), ["autoscaling.SetInstanceProtection"]);

    refuse("autoscaling", "DetachInstances", "ValidationError");
    fails("destroy", &["--keep-instances"], "detaching");
    assert_eq!(members(&sandbox), BTreeSet::from([bad.to_owned()]));
    let (imported, _) = run(&sandbox, "import", &[], None);
    imported.ok();

    // EC2 itself refuses to terminate one that is protected, and all others of its zone with it.
    refuse("ec2", "ModifyInstanceAttribute", "OperationNotPermitted");
    let (destroyed, _) = run(&sandbox, "destroy", &[], None);
    destroyed.fails(1, &[&format!("terminating instance {bad}: ")]);
    sandbox.fault(&[]);
    assert_eq!(alive(&sandbox), [bad]);
    let (destroyed, _) = run(&sandbox, "destroy", &[], None);
    destroyed.ok();
    assert_eq!(alive(&sandbox), [""; 0]);
}
