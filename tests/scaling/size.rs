//! The desired capacity is the only knob.

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
