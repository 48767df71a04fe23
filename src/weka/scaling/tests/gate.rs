//! What closes the gate.

use super::super::{Observation, ReadError, Rule, is_whole};
use super::fixture::{
    assert_quiet, client, cluster, container, containers, down, drain, instance, now, out, reads,
    resize, safe,
};
use crate::weka::types::{Containers, Count, Mode, Override, UpgradeInfo};
use jiff::SignedDuration;

/// A cluster in which there is something to do of every kind.
fn busy() -> Observation {
    let mut observation = cluster(10);
    down(&mut observation, 3, 200);
    drain(&mut observation, 4);
    out(&mut observation, 5);
    instance(&mut observation, 6).ec2 = super::super::Ec2State::Absent;
    instance(&mut observation, 6).healthy = false;
    assert_eq!(safe(&observation).gate, None);
    assert!(!safe(&observation).calls.is_empty());
    observation
}

#[track_caller]
fn assert_closed(observation: &Observation, rule: Rule, text: &str) {
    let decision = safe(observation);
    let gate = decision.gate.expect("the gate is open");
    assert_eq!(gate.rule, rule);
    assert!(gate.text.contains(text), "{}", gate.text);
    assert_eq!(decision.calls, []);
    assert_eq!(decision.terminate, []);
    assert_eq!(decision.detach, [""; 0]);
    assert_eq!(decision.protect, [""; 0]);
    let [error] = decision.errors.as_slice() else {
        panic!("{:?}", decision.errors);
    };
    assert_eq!(error.text, gate.text);
}

#[test]
fn a_healthy_cluster_of_the_right_size_is_left_alone() {
    let decision = safe(&cluster(7));
    assert_quiet(&decision);
    assert_eq!(decision.machines.len(), 7);
    assert_eq!(decision.protect.len(), 7);
}

#[test]
fn no_answer_closes_it() {
    let mut observation = busy();
    let text = "no usable backend".to_owned();
    observation.weka = Err(ReadError { text });
    assert_closed(&observation, Rule::S2, "no usable backend");
}

#[test]
fn a_target_of_zero_closes_it() {
    let mut observation = busy();
    resize(&mut observation, 0);
    assert_closed(&observation, Rule::U, "capacity is 0");
}

#[test]
fn a_time_for_leftovers_of_zero_closes_it() {
    let settings = super::super::Settings {
        leftover_after: SignedDuration::ZERO,
        ..Default::default()
    };
    let decision = super::super::decide(&busy(), &settings);
    assert_eq!(decision.gate.map(|gate| gate.rule), Some(Rule::U));
}

#[test]
fn io_that_is_not_started_closes_it() {
    let mut observation = busy();
    reads(&mut observation).status.io_status = "STOPPING".into();
    assert_closed(&observation, Rule::S2, "STOPPING");
}

#[test]
fn s2_an_upgrade_closes_it_in_the_words_of_either_version() {
    let mut observation = busy();
    reads(&mut observation).status.upgrade = Some("rolling".into());
    assert_closed(&observation, Rule::S2, "upgraded");

    let mut observation = busy();
    reads(&mut observation).status.upgrade = None;
    reads(&mut observation).status.upgrade_info = Some(UpgradeInfo {
        upgrade_phase: Some("COMPUTE_ROLLING".into()),
    });
    assert_closed(&observation, Rule::S2, "upgraded");
}

#[test]
fn s2_an_idle_newer_version_leaves_it_open() {
    let mut observation = cluster(7);
    let status = &mut reads(&mut observation).status;
    status.upgrade = None;
    status.upgrade_info = Some(UpgradeInfo {
        upgrade_phase: Some(String::new()),
    });
    status.containers = status.hosts.take();
    assert_quiet(&safe(&observation));
}

#[test]
fn s2_another_cluster_closes_it() {
    let mut observation = busy();
    reads(&mut observation).status.guid = "other".into();
    assert_closed(&observation, Rule::S2, "another cluster");

    reads(&mut observation).status.guid = String::new();
    observation.pinned_guid = None;
    assert_closed(&observation, Rule::S2, "which one");
}

#[test]
fn s2_the_first_cluster_seen_is_the_one() {
    let mut observation = cluster(7);
    observation.pinned_guid = None;
    assert_quiet(&safe(&observation));
}

#[test]
fn s2_an_empty_list_closes_it() {
    let mut observation = busy();
    reads(&mut observation).containers.clear();
    assert_closed(&observation, Rule::S2, "no containers");
    let mut observation = busy();
    reads(&mut observation).drives.clear();
    assert_closed(&observation, Rule::S2, "no drives");
    let mut observation = busy();
    reads(&mut observation).processes.clear();
    assert_closed(&observation, Rule::S2, "no processes");
}

#[test]
fn s2_a_list_that_is_not_whole_closes_it() {
    let mut observation = busy();
    let gone = containers(7)[1];
    reads(&mut observation).containers.remove(&gone);
    assert_closed(
        &observation,
        Rule::S2,
        "lists 29 backend containers and counts 30",
    );

    let mut observation = busy();
    reads(&mut observation).status.hosts = None;
    assert_closed(&observation, Rule::S2, "does not count");
}

#[test]
fn s2_clients_are_not_counted() {
    let mut observation = cluster(7);
    client(&mut observation, 900, "10.9.9.9");
    assert_quiet(&safe(&observation));
}

#[test]
fn s2_the_newer_count_is_the_one_that_is_believed() {
    let mut observation = cluster(7);
    let count = |total| {
        Some(Containers {
            backends: Some(Count { total }),
        })
    };
    let reads = reads(&mut observation);
    reads.status.hosts = count(7);
    reads.status.containers = count(21);
    assert_eq!(is_whole(&reads.status, &reads.containers), Ok(()));
}

#[test]
fn s1_a_container_without_a_mode_closes_it() {
    for mode in [None, Some(Mode::Other("gateway".into()))] {
        let mut observation = busy();
        container(&mut observation, containers(7)[2]).mode = mode;
        assert_closed(&observation, Rule::S1, "mode");
    }
}

#[test]
fn an_override_closes_it_unless_it_is_off() {
    let mut observation = cluster(7);
    let skip = |enabled| {
        let key = "skip_scale_down".to_owned();
        [("ManualOverrideId<0>".to_owned(), Override { key, enabled })].into()
    };
    reads(&mut observation).overrides = skip(Some(false));
    assert_quiet(&safe(&observation));
    for enabled in [None, Some(true)] {
        reads(&mut observation).overrides = skip(enabled);
        assert_closed(&observation, Rule::U, "skip_scale_down");
    }
}

#[test]
fn a_cluster_of_single_containers_closes_it() {
    let mut observation = cluster(7);
    for container in reads(&mut observation).containers.values_mut() {
        container.container_name = Some("default".into());
    }
    assert_closed(&observation, Rule::U, "several containers a machine");
}

#[test]
fn s10_a_clock_that_is_off_closes_it() {
    for (seconds, is_closed) in [(61, true), (-61, true), (60, false), (-60, false)] {
        let mut observation = cluster(7);
        reads(&mut observation).status.time.cluster_time =
            Some(now() + SignedDuration::from_secs(seconds));
        if is_closed {
            assert_closed(&observation, Rule::S10, "61 s");
        } else {
            assert_quiet(&safe(&observation));
        }
    }
}

#[test]
fn s6_a_target_below_the_floor_closes_it() {
    let mut observation = busy();
    resize(&mut observation, 5);
    assert_closed(&observation, Rule::S6, "at least 6");
    // At once, whatever the run before read.
    observation.previous_desired = Some(10);
    assert_closed(&observation, Rule::S6, "at least 6");
}

#[test]
fn s6_the_floor_is_never_below_five() {
    let mut observation = cluster(7);
    reads(&mut observation).status.hot_spare = 0;
    reads(&mut observation).status.stripe_data_drives = 2;
    resize(&mut observation, 4);
    assert_closed(&observation, Rule::S6, "at least 5");
    resize(&mut observation, 5);
    assert_eq!(safe(&observation).gate, None);
}

#[test]
fn s6_a_group_that_is_as_small_already_is_healed() {
    let mut observation = cluster(5);
    down(&mut observation, 2, 200);
    let decision = safe(&observation);
    assert_eq!(decision.gate, None);
    assert_eq!(
        super::fixture::action(&decision, 2),
        super::super::Action::Deactivate
    );
}

#[test]
fn s13_processes_that_end_members_are_reported() {
    let mut observation = cluster(7);
    observation
        .group
        .suspended
        .retain(|each| each != "AZRebalance");
    let decision = safe(&observation);
    assert_eq!(decision.gate, None);
    let [error] = decision.errors.as_slice() else {
        panic!("{:?}", decision.errors);
    };
    assert_eq!(error.rule, Rule::S13);
    assert!(
        error.text.contains("AZRebalance should be"),
        "{}",
        error.text
    );
}

#[test]
fn s2_containers_of_nobody_in_the_group_close_it() {
    let mut observation = busy();
    for container in reads(&mut observation).containers.values_mut() {
        container.aws.instance_id = container
            .aws
            .instance_id
            .take()
            .map(|id| format!("{id}-other"));
    }
    assert_closed(&observation, Rule::S2, "no member of the group is among");
}

#[test]
fn s2_a_drive_or_process_of_a_container_that_is_not_listed_closes_it() {
    // The count agrees, since as many have just left.
    let mut observation = busy();
    reads(&mut observation).containers.remove(&containers(7)[0]);
    super::fixture::recount(&mut observation);
    assert_closed(&observation, Rule::S2, "does not list it");
    reads(&mut observation)
        .drives
        .retain(|_, drive| drive.container != containers(7)[0]);
    assert_closed(&observation, Rule::S2, "does not list it");
}
