//! A cluster that the earlier Go tool has made, or half made, is this tool's from the first command on: updated, scaled,
//! given other credentials, listed and destroyed, and nothing of it is left over.

use serde_json::{Value, json};

use crate::again::assert_no_mutations;
use crate::as_before::assert_as_before;
use crate::support::account::{decoded, kind, one};
use crate::support::cluster::{CLUSTER, Cluster};
use crate::support::go_cluster::{ALL_STEPS, GoCluster};
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
    let plan = [
        "cluster",
        "update",
        "-n",
        CLUSTER,
        "--dry-run",
        "--exit-code",
    ];
    sandbox.wekactl(&plan).fails(3, &[]);
    assert_no_mutations(sandbox, "a dry run");

    // The earlier tool's function can not be asked: the credentials are stored, and that is said.
    let run = change_credentials(sandbox).ok();
    assert!(run.stderr.contains("have not been tried"), "{}", run.stderr);

    sandbox.wekactl(&["cluster", "update", "-n", CLUSTER]).ok();
    sandbox.wekactl(&plan).ok();
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
    for of_kind in [
        "functions",
        "tables",
        "rest_apis",
        "api_keys",
        "usage_plans",
        "rules",
        "load_balancers",
    ] {
        let (left, there_were) = (kind(&after, of_kind).len(), kind(&before, of_kind).len());
        assert_eq!(left, there_were, "{of_kind}");
    }
    let roles = after["global"]["roles"].as_object().expect("roles");
    assert!(
        roles.keys().all(|name| !name.starts_with("wekactl-")),
        "{roles:#?}"
    );
    // The earlier tool had protected the clients, too.
    for id in ids(&stack["clients"]) {
        assert!(!is_protected(sandbox, &id), "client {id}");
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

/// Wherever the earlier tool died: import ends what it began, and destroy, straight or after that, leaves nothing.
#[test]
fn what_the_earlier_tool_has_half_made_is_ended_or_removed() {
    let sandbox = Sandbox::start();
    for (number, steps) in [2, 4, 9, 20, 38, 45, 54, ALL_STEPS].into_iter().enumerate() {
        sandbox.post("reset", &json!({}));
        let stack = stack(&sandbox);
        let before = sandbox.inventory();
        GoCluster::make(&sandbox, &stack, steps, false);
        let keep = number % 2 == 0;
        if number % 3 != 0 {
            sandbox
                .import_small(CLUSTER, &["-t", "env=test", "-t", "owner=me"])
                .ok();
            sandbox.take_calls();
            sandbox.import_small(CLUSTER, &[]).ok();
            assert_no_mutations(&sandbox, "a second import");
            let inventory = sandbox.inventory();
            let data = kind(&inventory, "launch_templates")["wekactl-prod-Backends"].to_string();
            assert!(!data.contains(&decoded("c3VkbyBiYXNo")), "{data}");
        }
        let flags: &[&str] = if keep { &["--keep-instances"] } else { &[] };
        sandbox
            .destroy(CLUSTER, &[flags, &["--if-exists"]].concat())
            .ok();
        let after = sandbox.inventory();
        let (_, dying) = crate::support::account::without_dying_keys(&after);
        // Machines that were never made ours stay as they are.
        let first = &kind(&after, "instances")[&ids(&stack["backends"])[0]];
        let kept = keep || first["State"]["Name"] == "running";
        // What it has overwritten there nobody knows any more.
        let mut before = before;
        for (name, balancer) in kind(&after, "classic_load_balancers") {
            before[REGION]["classic_load_balancers"][name]["HealthCheck"] =
                balancer["HealthCheck"].clone();
        }
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
