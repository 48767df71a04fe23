//! The desired capacity is the only knob.

use serde_json::json;

use crate::support::cluster::Cluster;

#[test]
fn the_cluster_grows_and_shrinks_with_the_desired_capacity() {
    let cluster = Cluster::start(6);
    let minute = cluster.minute();
    assert_eq!(minute.status, "SUCCEEDED", "{minute:?}");

    cluster.resize(8);
    cluster.until("eight machines", 5, |cluster, minute| {
        minute.status == "SUCCEEDED" && cluster.is_at_rest(8)
    });

    cluster.resize(6);
    cluster.until("six machines", 40, |cluster, minute| {
        minute.status == "SUCCEEDED" && cluster.is_at_rest(6)
    });
    assert_eq!(cluster.weka.with(|weka| weka.health().unreadable), 0);
}

#[test]
fn what_grows_while_it_shrinks_and_loses_a_machine_comes_to_rest() {
    let cluster = Cluster::start(8);
    cluster.minute();
    cluster.resize(6);
    cluster.until("one drains", 3, |cluster, _| !cluster.draining().is_empty());
    let leaving = cluster.draining();

    // Out and in at once: what has begun to drain is not called back, another one comes in its place.
    cluster.resize(9);
    cluster.minute();
    let dead = cluster.backends()[0].clone();
    let dead = json!({"instance_ids": [dead]});
    cluster.sandbox.post("machines/kill", &dead);
    cluster.resize(7);
    cluster.until("seven members at work", 40, |cluster, _| {
        cluster.members().len() == 7 && cluster.backends().len() == 7
    });
    // The dead machine is no member any more; it goes by the rule for those, after three hours.
    cluster.pass(181);
    cluster.until("seven machines", 40, |cluster, minute| {
        minute.status == "SUCCEEDED" && cluster.is_at_rest(7)
    });
    let members = cluster.members();
    for id in leaving {
        assert!(!members.contains(&id), "{id} was called back");
    }
    assert!(cluster.weka.with(|weka| weka.is_whole()));
}
