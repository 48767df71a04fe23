//! What is out of the cluster is forgotten, and its instance goes (S5).

use super::super::{Action, CallKind, Decision, Observation, Reason, Rule, Settings, decide};
use super::fixture::{
    action, ago, assert_quiet, cluster, container, containers, drive, each_container, forget, id,
    instance, killed, leave_group, out, reads, resize, safe, verdict,
};
use crate::weka::ids::ContainerId;
use crate::weka::types::{ContainerStatus, DriveStatus, State};
use serde_json::json;

fn one_out() -> Observation {
    let mut observation = cluster(8);
    resize(&mut observation, 7);
    out(&mut observation, 3);
    observation
}

#[track_caller]
fn assert_stays(decision: &Decision, why: &str) {
    assert_quiet(decision);
    let verdict = verdict(decision, 3);
    assert_eq!((verdict.action, verdict.rule), (Action::Leave, Rule::S5));
    assert!(verdict.detail.contains(why), "{}", verdict.detail);
}

#[test]
fn s5_containers_go_one_by_one_then_the_drives_and_the_instance_needs_every_container() {
    let decision = safe(&one_out());
    let kinds: Vec<CallKind> = decision.calls.iter().map(|call| call.kind).collect();
    assert_eq!(
        kinds,
        [
            CallKind::Event,
            CallKind::RemoveContainer,
            CallKind::RemoveContainer,
            CallKind::RemoveContainer,
            CallKind::RemoveDrives
        ]
    );
    assert_eq!(decision.calls[1].method, "cluster_remove_host");
    assert_eq!(
        decision.calls[1].params,
        json!({"host_id": 9, "no_wait": true})
    );
    assert_eq!(
        decision.calls[4].params,
        json!({"drive_uuids": ["drive-6", "drive-7"]})
    );
    let [kill] = decision.terminate.as_slice() else {
        panic!("{:?}", decision.terminate);
    };
    assert_eq!((kill.id.clone(), kill.reason), (id(3), Reason::Removed));
    assert_eq!(kill.needs, [1, 2, 3]);
    assert_eq!(kill.launched, Some(ago(19_997)));
    assert_eq!(action(&decision, 3), Action::Remove);
    assert!(!decision.protect.contains(&id(3)));
    assert_eq!(decision.protect.len(), 7);
}

#[test]
fn s5_a_container_that_is_inactive_in_state_alone_keeps_it() {
    let mut observation = one_out();
    container(&mut observation, containers(3)[1]).status = ContainerStatus::Down;
    assert_stays(&safe(&observation), "status DOWN");
}

#[test]
fn s5_a_drive_that_is_not_empty_keeps_it() {
    for status in [
        DriveStatus::Active,
        DriveStatus::PhasingOut,
        DriveStatus::PhasingIn,
        DriveStatus::Failed,
        DriveStatus::Other("NEW".into()),
    ] {
        let mut observation = one_out();
        drive(&mut observation, 7).status = status.clone();
        assert_stays(&safe(&observation), status.word());
    }
}

#[test]
fn s5_a_young_container_keeps_it() {
    let mut observation = one_out();
    container(&mut observation, containers(3)[2]).added_time = Some(ago(9));
    assert_stays(&safe(&observation), "young");
    container(&mut observation, containers(3)[2]).added_time = None;
    assert_stays(&safe(&observation), "unknown");
    container(&mut observation, containers(3)[2]).added_time = Some(ago(10));
    assert_eq!(killed(&safe(&observation)), [id(3)]);
}

#[test]
fn s5_a_container_that_is_active_still_keeps_it() {
    let mut observation = one_out();
    container(&mut observation, containers(3)[2]).state = State::Active;
    container(&mut observation, containers(3)[2]).status = ContainerStatus::Up;
    let decision = safe(&observation);
    assert_eq!(decision.terminate, []);
    assert!(
        decision
            .calls
            .iter()
            .all(|call| call.kind != CallKind::RemoveContainer)
    );
}

#[test]
fn s5_one_that_is_being_forgotten_gets_no_call_twice_and_its_instance_goes() {
    let mut observation = one_out();
    each_container(&mut observation, 3, |container| {
        container.state = State::Removing;
    });
    let decision = safe(&observation);
    assert_eq!(decision.calls, []);
    assert_eq!(killed(&decision), [id(3)]);
}

#[test]
fn s5_a_leftover_is_forgotten_and_no_instance_goes() {
    let mut observation = one_out();
    leave_group(&mut observation, 3);
    let decision = safe(&observation);
    assert_eq!(decision.calls.len(), 5);
    assert_eq!(decision.terminate, []);
    assert_eq!(action(&decision, 3), Action::Remove);
}

#[test]
fn s11_one_in_standby_is_not_forgotten() {
    let mut observation = one_out();
    instance(&mut observation, 3).lifecycle = "Standby".into();
    let decision = safe(&observation);
    assert_quiet(&decision);
    assert_eq!(verdict(&decision, 3).rule, Rule::S11);
}

#[test]
fn s15_a_run_forgets_no_more_than_its_limit() {
    let mut observation = cluster(12);
    resize(&mut observation, 9);
    for machine in [2, 3, 4] {
        out(&mut observation, machine);
    }
    let settings = Settings {
        terminate_limit: 2,
        ..Settings::default()
    };
    let decision = decide(&observation, &settings);
    assert_eq!(killed(&decision), [id(2), id(3)]);
    assert_eq!(action(&decision, 4), Action::Leave);
}

#[test]
fn drives_of_nobody_are_forgotten_first_if_they_are_empty() {
    let mut observation = one_out();
    for number in [4, 5] {
        drive(&mut observation, number).container = ContainerId::INVALID;
    }
    drive(&mut observation, 4).status = DriveStatus::Inactive;
    drive(&mut observation, 5).status = DriveStatus::PhasingOut;
    let first = &safe(&observation).calls[0];
    assert_eq!(
        (first.kind, &first.machine),
        (CallKind::RemoveDrives, &None)
    );
    assert_eq!(first.params, json!({"drive_uuids": ["drive-4"]}));
    assert_eq!(first.method, "cluster_remove_drives");
}

#[test]
fn a_machine_that_was_removed_leaves_no_trace() {
    let mut observation = one_out();
    forget(&mut observation, 3);
    leave_group(&mut observation, 3);
    assert_quiet(&safe(&observation));
    assert_eq!(reads(&mut observation).containers.len(), 21);
}
