//! Machines that die, stop, vanish or fall ill are replaced, one after the other, and no data is lost.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::weka::State;

/// A cluster at rest of so many machines.
fn resting(size: u32) -> Cluster {
    let cluster = Cluster::start(size);
    cluster.until("a green run", 2, |_, minute| minute.status == "SUCCEEDED");
    cluster
}

fn machines(cluster: &Cluster, what: &str, ids: &[&String]) {
    let ids = json!({"instance_ids": ids});
    cluster.sandbox.post(&format!("machines/{what}"), &ids);
}

/// How many machines are on their way out, and not out.
fn leaving(cluster: &Cluster) -> usize {
    cluster.weka.with(|weka| {
        let containers = weka.containers.values();
        let leaving = containers.filter(|each| each.state == State::Deactivating);
        let instances: BTreeSet<&String> = leaving.map(|each| &each.instance_id).collect();
        instances.len()
    })
}

/// The cluster is whole again, without those that were there before.
#[track_caller]
fn replaced(cluster: &Cluster, size: usize, gone: &[&String], most: u32) {
    cluster.until("replaced", most, |cluster, minute| {
        minute.status == "SUCCEEDED"
            && cluster.is_at_rest(size)
            && gone.iter().all(|id| !cluster.members().contains(id))
    });
    let health = cluster.weka.with(|weka| weka.health());
    assert_eq!(health.unreadable, 0);
}

#[test]
fn what_is_killed_or_purged_is_replaced_and_its_machine_leaves_the_cluster() {
    let cluster = resting(8);
    let members = cluster.members();
    machines(&cluster, "kill", &[&members[0]]);
    machines(&cluster, "purge", &[&members[1]]);
    // Others take their places at once; the dead machines stay in the cluster, as they may come back.
    cluster.until("eight that run", 6, |cluster, _| {
        cluster.backends().len() == 8 && cluster.members().len() == 8
    });
    assert_eq!(cluster.draining(), [""; 0]);
    cluster.pass(170);
    cluster.minute();
    assert_eq!(cluster.draining(), [""; 0], "not before three hours");
    cluster.pass(15);
    replaced(&cluster, 8, &[&members[0], &members[1]], 40);
}

#[test]
fn what_is_stopped_counts_as_down_and_goes_after_two_hours() {
    let cluster = resting(7);
    let stopped = &cluster.members()[0];
    machines(&cluster, "stop", &[stopped]);
    for _ in 0..3 {
        cluster.minute();
    }
    assert!(
        cluster.members().contains(stopped),
        "it may be started again"
    );
    cluster.pass(122);
    replaced(&cluster, 7, &[stopped], 60);
}

#[test]
fn three_that_can_not_be_reached_go_two_at_a_time_and_only_after_two_hours() {
    let cluster = resting(9);
    // Neighbours: some stripes have blocks on all three of them.
    let mut machines: Vec<(u32, String)> = cluster.weka.with(|weka| {
        let machines = weka.machines.values();
        machines
            .map(|each| (each.number, each.instance_id.clone()))
            .collect()
    });
    machines.sort();
    let ill: Vec<String> = machines.into_iter().take(3).map(|(_, id)| id).collect();
    cluster.weka.with(|weka| {
        weka.behaviour.drain_rate = 5;
        ill.iter().for_each(|id| weka.kill(id));
    });
    cluster.pass(60);
    cluster.minute();
    cluster.pass(57);
    cluster.minute();
    assert_eq!(cluster.draining(), [""; 0], "119 minutes");
    cluster.pass(1);
    let mut most = 0;
    for _ in 0..5 {
        cluster.minute();
        most = most.max(leaving(&cluster));
    }
    assert_eq!(most, 2);
    // With three of them gone at once not all can be made good elsewhere, and nothing is terminated.
    assert!(cluster.weka.with(|weka| weka.health().unreadable) > 0);
    assert!(ill.iter().all(|id| cluster.members().contains(id)));

    // They come back with their data: those on their way out go on, the third one stays.
    cluster.weka.with(|weka| {
        weka.behaviour.drain_rate = 500;
        ill.iter().for_each(|id| weka.come_back(id));
    });
    cluster.until("at rest", 60, |cluster, minute| {
        minute.status == "SUCCEEDED" && cluster.is_at_rest(9)
    });
    let members = cluster.members();
    assert_eq!(ill.iter().filter(|id| members.contains(id)).count(), 1);
    assert_eq!(cluster.weka.with(|weka| weka.health().unreadable), 0);
}

#[test]
fn what_flaps_stays_and_what_is_drained_by_hand_or_has_dead_drives_goes() {
    let cluster = resting(8);
    let members = cluster.members();
    let flapping = &members[0];
    for _ in 0..3 {
        cluster.weka.with(|weka| weka.kill(flapping));
        cluster.pass(118);
        cluster.minute();
        cluster.weka.with(|weka| weka.come_back(flapping));
        cluster.minute();
    }
    assert_eq!(cluster.draining(), [""; 0]);
    assert!(cluster.is_at_rest(8));

    let (by_hand, ill) = (&members[1], &members[2]);
    cluster.weka.with(|weka| {
        let (hosts, disks) = (weka.own_containers(by_hand), weka.disks_of(by_hand));
        weka.deactivate_drives(&disks).expect("it fits");
        weka.deactivate_hosts(&hosts).expect("enough stay");
        let dead = weka.disks_of(ill)[0];
        weka.drive_inactive(dead);
    });
    replaced(&cluster, 8, &[by_hand, ill], 60);
}

#[test]
fn addresses_shared_by_a_client_or_used_again_condemn_nobody() {
    let cluster = resting(7);
    let members = cluster.members();
    let address =
        |cluster: &Cluster, id: &str| cluster.weka.with(|weka| weka.machines[id].address.clone());
    let shared = address(&cluster, &members[0]);
    cluster.weka.with(|weka| {
        weka.add_client("i-0c11e27000000000", &shared);
    });
    cluster.forget_calls();
    for _ in 0..3 {
        assert_eq!(cluster.minute().status, "SUCCEEDED");
    }
    assert_eq!(cluster.changes(), [""; 0]);

    // Another instance once had the address of a member, and its machine is still known, and down.
    let again = address(&cluster, &members[1]);
    cluster.weka.with(|weka| {
        let mut machine = crate::support::weka::Machine::new("i-0dead000000000000", "127.254.0.1");
        machine.address.clone_from(&again);
        weka.boot(machine);
        weka.join("i-0dead000000000000", None).expect("it joins");
        weka.vanish("i-0dead000000000000");
    });
    for _ in 0..3 {
        assert_eq!(cluster.minute().status, "SUCCEEDED");
    }
    assert_eq!(cluster.changes(), [""; 0]);
    // It is a leftover: after three hours it goes, and the member stays.
    cluster.pass(181);
    replaced(&cluster, 7, &[], 40);
    assert_eq!(cluster.members().len(), 7);
    assert!(members.iter().all(|id| cluster.members().contains(id)));
}
