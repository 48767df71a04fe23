//! What goes because the group shrinks (S7).

use super::super::{Action, Class, Observation, Purpose, Rule};
use super::fixture::{
    action, ago, assert_quiet, cluster, container, containers, deactivated, down, drain,
    each_drive, fail, instance, join, keys, leave_group, reads, rebuild, resize, safe, unprotect,
    unused_drive, verdict,
};
use crate::weka::types::State;

/// One machine more than wanted.
fn one_too_many() -> Observation {
    let mut observation = cluster(8);
    resize(&mut observation, 7);
    observation
}

/// Nothing is drained for size, and a person is told if it does not pass by itself.
#[track_caller]
fn assert_waits(observation: &Observation, rule: Rule, is_reported: bool) {
    let decision = safe(observation);
    assert_eq!(decision.gate, None);
    assert_eq!(deactivated(&decision, &[Purpose::Size]), keys(&[]));
    assert_eq!(
        !decision.errors.is_empty(),
        is_reported,
        "{:?}",
        decision.errors
    );
    let waits =
        |verdict: &&super::super::Verdict| verdict.detail.contains("one too many, and waits");
    let waiting = decision.machines.iter().find(waits).unwrap();
    assert_eq!((waiting.action, waiting.rule), (Action::Leave, rule));
}

#[test]
fn s7_the_oldest_goes_first() {
    let decision = safe(&one_too_many());
    assert_eq!(deactivated(&decision, &[Purpose::Size]), keys(&[1]));
    assert_eq!(verdict(&decision, 1).rule, Rule::S7);
    assert_eq!(action(&decision, 1), Action::Deactivate);
    // It stays protected until Weka has released it.
    assert_eq!(decision.protect.len(), 8);
    assert_eq!(decision.terminate, []);
}

#[test]
fn s7_a_machine_is_as_old_as_its_oldest_container() {
    let mut observation = one_too_many();
    container(&mut observation, containers(5)[2]).added_time = Some(ago(30_000));
    assert_eq!(
        deactivated(&safe(&observation), &[Purpose::Size]),
        keys(&[5])
    );
}

#[test]
fn s7_of_the_same_age_the_lower_number_goes_as_a_number() {
    let mut observation = one_too_many();
    for container in reads(&mut observation).containers.values_mut() {
        container.added_time = Some(ago(10_000));
    }
    // HostId<3> is before HostId<12>, and after it as text.
    assert_eq!(
        deactivated(&safe(&observation), &[Purpose::Size]),
        keys(&[1])
    );
}

#[test]
fn s7_a_lower_target_counts_from_the_second_run_on() {
    let mut observation = cluster(8);
    observation.group.desired = 7;
    assert_quiet(&safe(&observation));
    observation.previous_desired = None;
    assert_quiet(&safe(&observation));
    observation.previous_desired = Some(7);
    assert_eq!(
        deactivated(&safe(&observation), &[Purpose::Size]),
        keys(&[1])
    );
}

#[test]
fn s7_a_target_that_was_lower_before_does_not_count_either() {
    let mut observation = cluster(8);
    observation.previous_desired = Some(6);
    assert_quiet(&safe(&observation));
}

#[test]
fn s7_waits_for_full_protection() {
    let mut observation = one_too_many();
    unprotect(&mut observation);
    assert_waits(&observation, Rule::S7, false);
    rebuild(&mut observation).protection_state.clear();
    assert_waits(&observation, Rule::S7, false);
    reads(&mut observation).status.rebuild = None;
    assert_waits(&observation, Rule::S7, false);
}

#[test]
fn s7_waits_for_unavailable_data() {
    let mut observation = one_too_many();
    rebuild(&mut observation).unavailable_mib = 1.0;
    assert_waits(&observation, Rule::S7, false);
}

#[test]
fn s7_waits_for_enough_failure_domains() {
    let mut observation = one_too_many();
    rebuild(&mut observation).enough_active_f_ds = false;
    assert_waits(&observation, Rule::S7, false);
}

#[test]
fn s7_waits_until_all_that_stay_are_up() {
    let mut observation = one_too_many();
    fail(&mut observation, containers(5)[2], 1);
    assert_waits(&observation, Rule::S7, true);
    // The one that goes need not be.
    let mut observation = one_too_many();
    fail(&mut observation, containers(1)[2], 1);
    assert_eq!(
        deactivated(&safe(&observation), &[Purpose::Size]),
        keys(&[1])
    );
}

#[test]
fn s7_two_drain_at_once_or_a_tenth() {
    let mut observation = cluster(12);
    resize(&mut observation, 7);
    assert_eq!(
        deactivated(&safe(&observation), &[Purpose::Size]),
        keys(&[1, 2])
    );
    drain(&mut observation, 1);
    assert_eq!(
        deactivated(&safe(&observation), &[Purpose::Size]),
        keys(&[2])
    );
    drain(&mut observation, 2);
    assert_eq!(
        deactivated(&safe(&observation), &[Purpose::Size]),
        keys(&[])
    );

    let mut observation = cluster(30);
    resize(&mut observation, 20);
    assert_eq!(
        deactivated(&safe(&observation), &[Purpose::Size]),
        keys(&[1, 2, 3])
    );
}

#[test]
fn s7_what_leaves_for_its_health_counts_among_those_that_drain() {
    let mut observation = cluster(12);
    resize(&mut observation, 8);
    join(&mut observation, 20);
    down(&mut observation, 20, 300);
    drain(&mut observation, 5);
    let decision = safe(&observation);
    assert_eq!(deactivated(&decision, &[Purpose::Leftover]), keys(&[20]));
    assert_eq!(deactivated(&decision, &[Purpose::Size]), keys(&[]));
}

#[test]
fn s7_no_more_go_than_are_too_many() {
    let mut observation = one_too_many();
    drain(&mut observation, 5);
    assert_quiet(&safe(&observation));
}

#[test]
fn s7_one_leader_drains_at_a_time() {
    let mut observation = cluster(12);
    resize(&mut observation, 8);
    for machine in [1, 2] {
        container(&mut observation, containers(machine)[0]).member_of_leadership = true;
    }
    let decision = safe(&observation);
    assert_eq!(deactivated(&decision, &[Purpose::Size]), keys(&[1, 3]));
    // It is skipped; the fifth is not taken in its place.
    drain(&mut observation, 1);
    resize(&mut observation, 10);
    assert_eq!(
        deactivated(&safe(&observation), &[Purpose::Size]),
        keys(&[])
    );
}

#[test]
fn s7_what_is_stored_has_to_fit() {
    // (7 - 1) of (8 - 1) parts of 8000 bytes: 6857.
    for (used, fits) in [(6857, true), (6858, false)] {
        let mut observation = one_too_many();
        let capacity = reads(&mut observation).status.capacity.as_mut().unwrap();
        capacity.unprovisioned_bytes = capacity.total_bytes - used;
        if fits {
            assert_eq!(
                deactivated(&safe(&observation), &[Purpose::Size]),
                keys(&[1])
            );
        } else {
            assert_waits(&observation, Rule::S7, true);
        }
    }
    let mut observation = one_too_many();
    reads(&mut observation).status.capacity = None;
    assert_waits(&observation, Rule::S7, true);
}

#[test]
fn s7_a_leftovers_part_of_the_capacity_is_not_counted_on() {
    let mut observation = one_too_many();
    join(&mut observation, 20);
    let capacity = reads(&mut observation).status.capacity.as_mut().unwrap();
    // 6 of 8 parts: 6000.
    capacity.unprovisioned_bytes = capacity.total_bytes - 6001;
    assert_waits(&observation, Rule::S7, true);
}

#[test]
fn s12_a_new_word_anywhere_stops_it() {
    let mut observation = one_too_many();
    container(&mut observation, containers(1)[1]).state = State::Other("JOINING".into());
    assert_waits(&observation, Rule::S12, true);
    let mut observation = one_too_many();
    each_drive(&mut observation, 1, |drive| {
        drive.status = crate::weka::types::DriveStatus::Other("NEW".into());
    });
    assert_waits(&observation, Rule::S12, true);
}

#[test]
fn s7_the_sick_one_goes_instead_of_a_healthy_one() {
    let mut observation = one_too_many();
    unused_drive(&mut observation, 5);
    let decision = safe(&observation);
    assert_eq!(deactivated(&decision, &[Purpose::Health]), keys(&[5]));
    assert_eq!(deactivated(&decision, &[Purpose::Size]), keys(&[]));
}

#[test]
fn s7_a_sick_one_beyond_the_allowance_goes_for_size_if_it_is_too_many() {
    let mut observation = cluster(30);
    resize(&mut observation, 27);
    for machine in [11, 12, 13] {
        unused_drive(&mut observation, machine);
    }
    let decision = safe(&observation);
    assert_eq!(deactivated(&decision, &[Purpose::Health]), keys(&[11, 12]));
    assert_eq!(deactivated(&decision, &[Purpose::Size]), keys(&[13]));
    // And if it is not, it waits for its health's sake.
    resize(&mut observation, 30);
    let decision = safe(&observation);
    assert_eq!(deactivated(&decision, &[Purpose::Size]), keys(&[]));
    assert_eq!(verdict(&decision, 13).rule, Rule::S8);
    assert_eq!(verdict(&decision, 13).class, Class::Unhealthy);
}

#[test]
fn s11_members_that_are_not_in_service_are_not_counted() {
    let mut observation = one_too_many();
    instance(&mut observation, 8).lifecycle = "Standby".into();
    assert_quiet(&safe(&observation));
    instance(&mut observation, 8).lifecycle = "InService".into();
    leave_group(&mut observation, 8);
    assert_quiet(&safe(&observation));
}
