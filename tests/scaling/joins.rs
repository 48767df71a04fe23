//! New machines: their real user data and join script, and what is left when these fail.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::{PASSWORD, REGION};

fn boots(cluster: &Cluster) -> Vec<Value> {
    let boots = cluster.sandbox.get("boots");
    boots.as_array().expect("a list").clone()
}

/// Ids of network interfaces that are attached to nothing, or to nothing that exists.
fn loose_interfaces(cluster: &Cluster) -> BTreeSet<String> {
    let found = cluster
        .sandbox
        .aws("ec2", "describe_network_interfaces", &json!({}));
    let found = found["NetworkInterfaces"]
        .as_array()
        .expect("a list")
        .iter();
    let loose = found.filter(|each| {
        let description = each["Description"].as_str().unwrap_or_default();
        description.starts_with("wekactl") && each["Attachment"]["InstanceId"].is_null()
    });
    loose
        .map(|each| {
            each["NetworkInterfaceId"]
                .as_str()
                .expect("an id")
                .to_owned()
        })
        .collect()
}

#[test]
fn a_join_that_fails_is_replaced_and_leaves_nothing() {
    let cluster = Cluster::start(6);
    cluster.minute();
    // Before anything is set up, and after all containers are: the second takes them away again.
    for fails in ["version prepare", "cluster drive scan"] {
        cluster.weka.with(|weka| weka.api.fail_command(fails));
        let size = cluster.members().len() + 1;
        cluster.resize(u32::try_from(size).expect("small"));
        cluster.minute();
        let failed: Vec<Value> = boots(&cluster)
            .into_iter()
            .filter(|boot| boot["exit"] != 0)
            .collect();
        assert!(!failed.is_empty(), "{fails}: {:?}", boots(&cluster));
        cluster.weka.with(|weka| weka.api.end_faults());
        cluster.until("another in its place", 40, |cluster, minute| {
            minute.status == "SUCCEEDED" && cluster.is_at_rest(size)
        });
        let members = cluster.members();
        let failed = failed
            .iter()
            .filter_map(|boot| boot["instance_id"].as_str());
        assert!(failed.clone().count() > 0);
        for id in failed {
            assert!(!members.iter().any(|member| member == id), "{fails}");
        }
        let drives = cluster.weka.with(|weka| {
            let orphans = weka.drives.values().filter(|drive| drive.host.is_none());
            (weka.drives.len(), orphans.count())
        });
        assert_eq!(drives, (2 * size, 0), "{fails}");
        assert_eq!(loose_interfaces(&cluster), BTreeSet::new(), "{fails}");
    }
    for boot in boots(&cluster) {
        let text = boot.to_string();
        assert!(!text.contains(PASSWORD), "{text}");
    }
}

#[test]
fn only_a_new_member_gets_script_and_credentials() {
    let cluster = Cluster::start(6);
    cluster.minute();
    let sandbox = &cluster.sandbox;
    let api = sandbox.aws("apigateway", "get_rest_apis", &json!({}))["items"][0]["id"].clone();
    let keys = sandbox.aws(
        "apigateway",
        "get_api_keys",
        &json!({"includeValues": true}),
    );
    let key = keys["items"][0]["value"]
        .as_str()
        .expect("a key")
        .to_owned();
    let url = format!(
        "{}/execute-api/{}/{REGION}/default/wekactl-prod-Backends",
        sandbox.url,
        api.as_str().expect("an id"),
    );
    let ask = |query: &str| {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into();
        let request = agent
            .get(format!("{url}?{query}"))
            .header("x-api-key", &key);
        let mut answer = request.call().expect("an answer");
        let body = answer.body_mut().read_to_string().expect("text");
        (answer.status().as_u16(), body)
    };
    let refused = (403, String::new());

    // Neither strangers nor who has long been in the cluster.
    let old = cluster.members()[0].clone();
    for id in ["i-0123456789abcdef0", "", "../x", &old] {
        for step in ["", "&step=credentials"] {
            assert_eq!(
                ask(&format!("instance_id={id}{step}")),
                refused,
                "{id}{step}"
            );
        }
    }

    // A new member, which Weka does not know: its machine does not boot here.
    sandbox.set(&json!({"boot_machines": false}));
    cluster.resize(7);
    cluster.minute();
    let members = cluster.members();
    let new = members.iter().find(|id| !cluster.backends().contains(id));
    let new = new.expect("one was launched").clone();
    let (status, script) = ask(&format!("instance_id={new}"));
    assert_eq!(status, 200);
    assert!(
        script.starts_with("#!/bin/bash") && !script.contains(PASSWORD),
        "{script}"
    );
    let (status, credentials) = ask(&format!("instance_id={new}&step=credentials"));
    let credentials: Value = serde_json::from_str(&credentials).expect("JSON");
    assert_eq!(status, 200);
    assert_eq!(
        credentials,
        json!({"username": "admin", "password": PASSWORD})
    );

    // After an hour it is too late for it; the rules take it for lost before, and there is another.
    cluster.sandbox.post("age", &json!({"seconds": 3_700}));
    assert_eq!(ask(&format!("instance_id={new}")), refused);
}

#[test]
fn many_join_at_once() {
    let most = 60;
    let cluster = Cluster::start(6);
    cluster.minute();
    let maximum = json!({"AutoScalingGroupName": "wekactl-prod-Backends", "MaxSize": 100});
    cluster
        .sandbox
        .aws("autoscaling", "update_auto_scaling_group", &maximum);
    cluster.resize(most);
    cluster.until("all of them", 6, |cluster, minute| {
        minute.status == "SUCCEEDED" && cluster.is_at_rest(most as usize)
    });
    cluster.weka.with(|weka| weka.behaviour.drain_rate = 1_000);
    cluster.resize(6);
    cluster.until("six again", 400, |cluster, minute| {
        minute.status == "SUCCEEDED" && cluster.is_at_rest(6)
    });
    let health = cluster.weka.with(|weka| weka.health());
    assert_eq!(health.unreadable, 0);
}
