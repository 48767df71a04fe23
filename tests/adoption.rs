//! A cluster that the earlier Go tool has made, or half made, is this tool's from the first command on: updated, scaled,
//! given other credentials, listed and destroyed, and nothing of it is left over.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::again::assert_no_mutations;
use crate::as_before::assert_as_before;
use crate::support::account::{
    assert_same, decoded, kind, one, without_dying_keys, without_instances,
};
use crate::support::cluster::{CLUSTER, Cluster};
use crate::support::go_cluster::{ALL_STEPS, GoCluster};
use crate::support::go_inventory::in_form;
use crate::support::{PASSWORD, REGION, Run, Sandbox};

fn stack(sandbox: &Sandbox) -> Value {
    sandbox.stack(&json!({"name": CLUSTER, "backends": 6, "clients": 1, "classic_lb": true}))
}

fn ids(machines: &Value) -> Vec<String> {
    let machines = machines.as_array().expect("a list").iter();
    machines
        .map(|machine| machine["id"].as_str().expect("text").to_owned())
        .collect()
}

fn is_protected(sandbox: &Sandbox, id: &str) -> bool {
    let attribute = json!({"InstanceId": id, "Attribute": "disableApiTermination"});
    let answer = sandbox.aws("ec2", "describe_instance_attribute", &attribute);
    answer["DisableApiTermination"]["Value"] == true
}

fn change_credentials(sandbox: &Sandbox) -> Run {
    let line = [
        "cluster",
        "change-credentials",
        "-n",
        CLUSTER,
        "-u",
        "admin",
    ];
    let mut command = sandbox.command(&line);
    let output = command.env("WEKACTL_PASSWORD", PASSWORD).output();
    Run::of(&output.expect("the executable runs"))
}

/// What the other tests take over is what the inventory of the earlier tool's cluster says, and nothing else.
#[test]
fn a_cluster_of_the_earlier_tool_is_made_here_as_it_was() {
    let sandbox = Sandbox::start();
    // As the inventory's: without a client and without a classic load balancer.
    let stack = sandbox.stack(&json!({"name": CLUSTER, "backends": 6}));
    let before = sandbox.inventory();
    let go = GoCluster::make(&sandbox, &stack, ALL_STEPS, false);
    let mut expected = before.clone();
    for (place, kinds) in in_form(&go).as_object().expect("places") {
        for (kind, things) in kinds.as_object().expect("kinds") {
            let things = things.as_object().expect("things").clone();
            let all = &mut expected[place][kind];
            if all.is_null() {
                *all = json!({});
            }
            all.as_object_mut().expect("things").extend(things);
        }
    }
    let mut found = sandbox.inventory();
    // Lambda's, for `scale`: the inventory has no network interfaces.
    let interfaces = found[REGION]["network_interfaces"].as_object_mut();
    interfaces
        .expect("interfaces")
        .retain(|_, interface| interface["InterfaceType"] != "lambda");
    for instance in found[REGION]["instances"]
        .as_object_mut()
        .expect("instances")
        .values_mut()
    {
        *instance = json!({
            "InstanceId": instance["InstanceId"], "State": instance["State"]["Name"], "Tags": instance["Tags"],
            "DisableApiTermination": instance["DisableApiTermination"],
        });
    }
    assert_same(&expected, &found, "the earlier tool's cluster");
}

/// Kinds that differ, how many of them, and in which fields, as an update of the earlier tool's cluster tells it.
const CHANGES: [&str; 12] = [
    "1 create layer-version: ",
    "5 create log-group: ",
    "1 update auto-scaling-group: deletionProtection launchTemplate suspendedProcesses tags",
    "1 update event-rule: targets",
    "6 update function: architectures codeSha256 environment layers policy runtime timeout",
    "1 update kms-key: description keyRotationEnabled",
    "1 update launch-template: metadataOptions userData volumeTags",
    "1 update rest-api: stage",
    "7 update role: assumeRolePolicyDocument policies tags",
    "1 update settings: Backends Before ClassicLoadBalancer Cores StackId",
    "1 update state-machine: definition",
    "1 update usage-plan: tags",
];

fn changes(run: &Run) -> Vec<String> {
    let document: Value = serde_json::from_str(&run.stdout).expect("JSON");
    let mut kinds: BTreeMap<String, (usize, BTreeSet<String>)> = BTreeMap::new();
    for row in document["changes"].as_array().expect("rows") {
        let text = |field: &str| row[field].as_str().expect("text");
        let kind = format!("{} {}", text("action"), text("kind"));
        let (count, fields) = kinds.entry(kind).or_default();
        *count += 1;
        for change in row["changes"].as_array().into_iter().flatten() {
            let field = change["field"].as_str().expect("text");
            // One of many, by its name.
            fields.insert(field.split('.').next().unwrap_or(field).to_owned());
        }
    }
    let line = |(kind, (count, fields)): (String, (usize, BTreeSet<String>))| {
        let fields = Vec::from_iter(fields).join(" ");
        format!("{count} {kind}: {fields}")
    };
    kinds.into_iter().map(line).collect()
}

/// What the earlier tool has overwritten there nobody knows any more.
pub(crate) fn forget_health_check(before: &mut Value, after: &Value) {
    for (name, balancer) in kind(after, "classic_load_balancers") {
        before[REGION]["classic_load_balancers"][name]["HealthCheck"] =
            balancer["HealthCheck"].clone();
    }
}

#[test]
fn a_cluster_of_the_earlier_tool_is_taken_over_and_scales() {
    let sandbox = Sandbox::start();
    let stack = stack(&sandbox);
    let before = sandbox.inventory();
    GoCluster::make(&sandbox, &stack, ALL_STEPS, false);
    let cluster = Cluster::of_stack(sandbox, &stack);
    let sandbox = &cluster.sandbox;
    let go = sandbox.inventory();

    // It is seen as it is.
    let listed = sandbox.wekactl(&["cluster", "list", "-o", "json"]).ok();
    assert!(listed.stdout.contains("\"prod\""), "{}", listed.stdout);
    sandbox.take_calls();
    let update = ["cluster", "update", "-n", CLUSTER];
    let plan = [&update[..], &["--dry-run", "--exit-code"]].concat();
    let said = sandbox.wekactl(&[&plan[..], &["-o", "json"]].concat());
    let said = changes(&said.fails(3, &[]));
    assert_eq!(said, CHANGES, "{said:#?}");
    assert_no_mutations(sandbox, "a dry run");

    // The earlier tool's function can not be asked: the credentials are stored, and that is said.
    let run = change_credentials(sandbox).ok();
    assert!(run.stderr.contains("have not been tried"), "{}", run.stderr);

    sandbox.wekactl(&update).ok();
    sandbox.wekactl(&plan).ok();
    sandbox.take_calls();
    sandbox.wekactl(&update).ok();
    assert_no_mutations(sandbox, "a second update");
    let now = sandbox.inventory();
    let function = &kind(&now, "functions")["wekactl-prod-scale-Backends"];
    assert_eq!(function["Runtime"], "provided.al2023");
    assert_eq!(function["Architectures"], json!(["x86_64"]));
    let table = one(&now, "tables", |_| true);
    let settings = table["Items"].as_array().expect("items").iter();
    let mut settings = settings.filter(|item| item["Key"]["S"] == "cluster-settings");
    let settings = settings.next().expect("the settings");
    assert_eq!(settings["StackId"]["S"], stack["stack_id"], "{settings}");
    // The API stays, and with it the address that machines have in their launch template.
    let api = |inventory: &Value| kind(inventory, "rest_apis").keys().next().cloned();
    assert_eq!(api(&go), api(&now));
    let rule = one(&now, "rules", |_| true);
    assert_eq!(rule["Targets"].as_array().map(Vec::len), Some(1), "{rule}");

    // The runs of this tool, with Weka: out, and in.
    sandbox.post("age", &json!({"seconds": 86_400}));
    let minute = cluster.minute();
    assert_eq!(minute.status, "SUCCEEDED", "{minute:?}");
    cluster.resize(7);
    cluster.until("seven", 40, |cluster, minute| {
        minute.status == "SUCCEEDED" && cluster.is_at_rest(7)
    });
    cluster.resize(6);
    cluster.until("six", 60, |cluster, minute| {
        minute.status == "SUCCEEDED" && cluster.is_at_rest(6)
    });
    let run = change_credentials(sandbox).ok();
    assert!(run.stderr.contains("Weka takes them"), "{}", run.stderr);

    let members = cluster.members();
    sandbox.destroy(CLUSTER, &[]).ok();
    let after = sandbox.inventory();
    for id in &members {
        let state = &kind(&after, "instances")[id]["State"]["Name"];
        assert_eq!(state, "terminated", "{id}");
    }
    let clients = ids(&stack["clients"]);
    let all = kind(&after, "instances").keys();
    let backends: Vec<String> = all.filter(|id| !clients.contains(id)).cloned().collect();
    let (after, dying) = without_dying_keys(&without_instances(&after, &backends));
    assert_eq!(dying.len(), 1, "{dying:#?}");
    let mut before = without_instances(&before, &backends);
    forget_health_check(&mut before, &after);
    assert_same(&before, &after, "the account after destroy");
    // The earlier tool had protected the clients, too.
    for id in &clients {
        assert!(!is_protected(sandbox, id), "client {id}");
    }
}

#[test]
fn settings_of_an_early_version_are_filled_in() {
    let sandbox = Sandbox::start();
    let stack = stack(&sandbox);
    GoCluster::make(&sandbox, &stack, ALL_STEPS, true);
    sandbox.update_small(CLUSTER, &[]).ok();
    let inventory = sandbox.inventory();
    let items = one(&inventory, "tables", |_| true)["Items"].as_array();
    let mut settings = items.expect("items").iter();
    let settings = settings
        .find(|item| item["Key"]["S"] == "cluster-settings")
        .expect("the settings");
    assert_eq!(settings["VpcId"]["S"], stack["vpc"]);
    let volumes = &settings["Backends"]["M"]["VolumesInfo"]["L"];
    assert_eq!(volumes.as_array().map(Vec::len), Some(2), "{settings}");
    sandbox
        .update_small(CLUSTER, &["--dry-run", "--exit-code"])
        .ok();
}

/// What is done with what the earlier tool has made, before destroy.
#[derive(Clone, Copy)]
enum First {
    Nothing,
    Import,
    Update,
}

/// Wherever the earlier tool died: import ends what it began, and destroy, straight or after that, leaves nothing.
#[test]
fn what_the_earlier_tool_has_half_made_is_ended_or_removed() {
    assert_nothing_is_left(&[
        // A key without a table; settings without credentials; some backends protected.
        (2, First::Nothing, true),
        (4, First::Import, false),
        (9, First::Import, true),
        // An API without a method; three of the functions; a rule without a target.
        (20, First::Nothing, false),
        (33, First::Import, true),
        (44, First::Nothing, true),
        // A group that replaces what it holds for unhealthy; members that do not have the tags yet.
        (47, First::Import, false),
        (52, First::Import, true),
    ]);
}

#[test]
fn what_the_earlier_tool_has_made_is_removed_or_leaves_the_backends_free() {
    assert_nothing_is_left(&[
        (ALL_STEPS, First::Nothing, false),
        (ALL_STEPS, First::Nothing, true),
        (ALL_STEPS, First::Import, true),
        (ALL_STEPS, First::Update, true),
    ]);
}

/// Of so many of the earlier tool's steps, whatever is done first, and whether or not the backends are kept.
fn assert_nothing_is_left(cases: &[(usize, First, bool)]) {
    let sandbox = Sandbox::start();
    for &(steps, first, keep) in cases {
        sandbox.post("reset", &json!({}));
        let stack = stack(&sandbox);
        let mut before = sandbox.inventory();
        GoCluster::make(&sandbox, &stack, steps, false);
        let tags = ["-t", "env=test", "-t", "owner=me"];
        let again = match first {
            First::Nothing => None,
            First::Import => {
                sandbox.import_small(CLUSTER, &tags).ok();
                sandbox.take_calls();
                Some(sandbox.import_small(CLUSTER, &[]))
            }
            First::Update => {
                sandbox.update_small(CLUSTER, &[]).ok();
                sandbox.take_calls();
                Some(sandbox.update_small(CLUSTER, &[]))
            }
        };
        if let Some(again) = again {
            again.ok();
            assert_no_mutations(&sandbox, "the same again");
            assert_boots_by_our_script(&sandbox.inventory());
        }
        let flags: &[&str] = if keep { &["--keep-instances"] } else { &[] };
        sandbox
            .destroy(CLUSTER, &[flags, &["--if-exists"]].concat())
            .ok();
        let after = sandbox.inventory();
        let (_, dying) = without_dying_keys(&after);
        // Machines that were never made ours stay as they are.
        let one = &kind(&after, "instances")[&ids(&stack["backends"])[0]];
        let kept = keep || one["State"]["Name"] == "running";
        forget_health_check(&mut before, &after);
        // Nor what it has overwritten among their tags.
        for id in ids(&stack["backends"]).iter().filter(|_| kept) {
            for tag in ["Name", "env", "owner"] {
                before[REGION]["instances"][id]["Tags"][tag] =
                    after[REGION]["instances"][id]["Tags"][tag].clone();
            }
            let tags = before[REGION]["instances"][id]["Tags"].as_object_mut();
            tags.expect("tags").retain(|_, value| !value.is_null());
        }
        assert_as_before(&before, &after, &stack, kept, dying.len());
    }
}

/// What the group launches from now on does not run whatever the API answers, as the earlier tool's machines did.
#[track_caller]
fn assert_boots_by_our_script(inventory: &Value) {
    let group = one(inventory, "auto_scaling_groups", |_| true);
    let version = group["LaunchTemplate"]["Version"].as_str().expect("text");
    let template = one(inventory, "launch_templates", |_| true);
    let script = &template["Versions"][version]["LaunchTemplateData"]["UserData"];
    let script = decoded(script.as_str().expect("text"));
    assert!(!script.contains("| sudo bash"), "{script}");
    assert!(script.contains("http_code"), "{script}");
}
