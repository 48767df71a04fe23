//! One run at a time, whatever becomes of its functions; and nothing secret in what it leaves.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::PASSWORD;
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
        for _ in 0..4 {
            cluster.minute();
            // What the dead one held expires by itself.
            expire_lease(&cluster);
        }
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

/// Lets a lease that nobody releases run out: the table's own times do not move with the others.
fn expire_lease(cluster: &Cluster) {
    cluster.sandbox.aws(
        "dynamodb",
        "update_item",
        &json!({
            "TableName": "wekactl-prod",
            "Key": {"Key": {"S": "cluster-lease"}},
            "UpdateExpression": "SET Expires = :past",
            "ExpressionAttributeValues": {":past": {"N": "1"}},
        }),
    );
}

#[test]
fn a_second_run_does_nothing_while_the_first_goes_on() {
    let cluster = Cluster::start(7);
    cluster.minute();
    cluster.minute();
    // The first one's terminate waits, and the second begins.
    fault(
        &cluster,
        &json!({"operation": "DescribeAutoScalingGroups", "caller": "^lambda:.*-terminate-", "action": "hold"}),
    );
    cluster.sandbox.post("tick", &json!({"wait": false}));
    cluster.until_invoked("terminate", 1);
    let second = cluster
        .sandbox
        .post("tick", &json!({"wait": true, "timeout": 30}));
    let output = &second[0]["output"];
    assert_eq!(output["LeaseLost"], true, "{second}");
    assert_eq!(output["TransientErrors"], Value::Null);
    cluster.sandbox.fault(&[]);
    cluster.until("a green run", 3, |_, minute| {
        minute.status == "SUCCEEDED" && minute.output["LeaseLost"] == false
    });
}

#[test]
fn no_secret_is_in_what_a_run_leaves() {
    let cluster = Cluster::start(6);
    cluster.minute();
    cluster.resize(7);
    cluster.until("seven", 5, |cluster, _| cluster.is_at_rest(7));

    let function = json!({"FunctionName": "wekactl-prod-fetch-Backends"});
    let configuration = cluster
        .sandbox
        .aws("lambda", "get_function_configuration", &function);
    let seal = configuration["Environment"]["Variables"]["SEAL_KEY"]
        .as_str()
        .expect("a key");
    let secrets = [PASSWORD, seal.split_once(':').expect("an id and a key").1];
    let mut texts: Vec<String> = Vec::new();
    let invocations = cluster.sandbox.get("invocations");
    for run in invocations.as_array().expect("a list") {
        // Join's answer to the new machine is how the credentials get there, and goes to nobody else.
        let is_join = run["function"]
            .as_str()
            .is_some_and(|name| name.contains("-join-"));
        let parts: &[&str] = if is_join {
            &["log"]
        } else {
            &["event", "payload", "log"]
        };
        texts.extend(parts.iter().map(|part| run[*part].to_string()));
    }
    texts.extend(
        cluster
            .sandbox
            .get("boots")
            .as_array()
            .expect("a list")
            .iter()
            .map(Value::to_string),
    );
    let minute = cluster.minute();
    assert_eq!(minute.status, "SUCCEEDED", "{minute:?}");
    let history = json!({"executionArn": minute.execution, "includeExecutionData": true});
    texts.push(
        cluster
            .sandbox
            .aws("stepfunctions", "get_execution_history", &history)
            .to_string(),
    );
    assert!(texts.len() > 10);
    for text in texts {
        for secret in secrets {
            assert!(!text.contains(secret), "{text}");
        }
    }

    // What a person sees in the console: what was decided, and that it is fine.
    assert_eq!(minute.output["DesiredCapacity"], 7);
    assert_eq!(minute.output["Classes"], json!({"Healthy": 7}));
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
