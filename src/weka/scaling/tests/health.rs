//! What is not well, and when it goes (S8, S10, S12).

use super::super::{Action, CallKind, Class, Purpose, Rule};
use super::fixture::{
    action, ago, assert_quiet, cluster, container, containers, deactivated, down, drain, drive,
    each_container, each_drive, fail, join, keys, leave_group, management, reads, safe, unprotect,
    unused_drive, verdict,
};
use crate::weka::types::{ContainerStatus, DriveStatus, InterfaceGroup, Port, State};
use serde_json::json;

const NEW: [Purpose; 3] = [Purpose::Health, Purpose::Leftover, Purpose::Size];

#[test]
fn a_machine_is_not_well_after_two_hours_down_and_not_before() {
    let mut observation = cluster(7);
    down(&mut observation, 3, 119);
    assert_quiet(&safe(&observation));
    assert_eq!(verdict(&safe(&observation), 3).class, Class::Healthy);
    down(&mut observation, 3, 121);
    let decision = safe(&observation);
    assert_eq!(verdict(&decision, 3).class, Class::Unhealthy);
    assert_eq!(deactivated(&decision, &NEW), keys(&[3]));
}

#[test]
fn s9_one_call_for_its_drives_then_the_event_then_one_for_its_containers() {
    let mut observation = cluster(7);
    down(&mut observation, 3, 200);
    let calls = safe(&observation).calls;
    let kinds: Vec<CallKind> = calls.iter().map(|call| call.kind).collect();
    assert_eq!(
        kinds,
        [
            CallKind::DeactivateDrives,
            CallKind::Event,
            CallKind::DeactivateContainers
        ]
    );
    assert_eq!(
        calls[0].params,
        json!({"drive_uuids": ["drive-6", "drive-7"]})
    );
    assert_eq!(
        calls[2].params,
        json!({"host_ids": ["HostId<9>", "HostId<10>", "HostId<11>"], "skip_resource_validation": false})
    );
    let methods: Vec<&str> = calls.iter().map(|call| call.method.as_str()).collect();
    assert_eq!(
        methods,
        [
            "cluster_deactivate_drives",
            "events_trigger_custom",
            "cluster_deactivate_hosts"
        ]
    );
}

#[test]
fn s10_time_counts_from_the_latest_thing_known() {
    let changes: [fn(&mut crate::weka::types::Process); 2] = [
        |process| process.last_fencing_time = Some(ago(5)),
        |process| process.up_since = Some(ago(5)),
    ];
    for change in changes {
        let mut observation = cluster(7);
        down(&mut observation, 3, 200);
        for id in containers(3) {
            change(management(&mut observation, id));
        }
        assert_quiet(&safe(&observation));
    }
    // An old fencing does not make a fresh failure old.
    let mut observation = cluster(7);
    down(&mut observation, 3, 5);
    for id in containers(3) {
        management(&mut observation, id).last_fencing_time = Some(ago(5000));
    }
    assert_quiet(&safe(&observation));
}

#[test]
fn s10_without_any_time_nothing_is_too_long() {
    let mut observation = cluster(7);
    down(&mut observation, 3, 5000);
    for id in containers(3) {
        container(&mut observation, id).state_changed_time = None;
        management(&mut observation, id).up_since = None;
    }
    assert_quiet(&safe(&observation));
}

#[test]
fn s10_the_clusters_clock_counts() {
    let mut observation = cluster(7);
    down(&mut observation, 3, 120);
    assert_quiet(&safe(&observation));
    reads(&mut observation).status.time.cluster_time =
        Some(ago(0) + jiff::SignedDuration::from_secs(30));
    assert_eq!(action(&safe(&observation), 3), Action::Deactivate);
}

#[test]
fn a_container_whose_management_is_up_is_not_down() {
    let mut observation = cluster(7);
    down(&mut observation, 3, 200);
    for id in containers(3) {
        management(&mut observation, id).status = "UP".into();
    }
    assert_quiet(&safe(&observation));
}

#[test]
fn a_failed_drive_alone_is_the_clusters_own_business() {
    let mut observation = cluster(7);
    drive(&mut observation, 6).status = DriveStatus::Failed;
    assert_quiet(&safe(&observation));
}

#[test]
fn an_unused_drive_is_not_well_once_its_container_has_settled() {
    let mut observation = cluster(7);
    unused_drive(&mut observation, 3);
    each_container(&mut observation, 3, |container| {
        container.added_time = Some(ago(4));
    });
    assert_quiet(&safe(&observation));
    each_container(&mut observation, 3, |container| container.added_time = None);
    assert_quiet(&safe(&observation));
    each_container(&mut observation, 3, |container| {
        container.added_time = Some(ago(6));
    });
    assert_eq!(deactivated(&safe(&observation), &NEW), keys(&[3]));
}

#[test]
fn a_degraded_machine_counts_after_the_same_time() {
    let mut observation = cluster(8);
    fail(&mut observation, containers(3)[0], 200);
    container(&mut observation, containers(3)[0]).status = ContainerStatus::Degraded;
    assert_eq!(deactivated(&safe(&observation), &NEW), keys(&[3]));
    unprotect(&mut observation);
    assert_eq!(safe(&observation).calls, []);
}

#[test]
fn s8_no_more_than_two_go_at_once() {
    let mut observation = cluster(9);
    for machine in [2, 4, 6] {
        down(&mut observation, machine, 200);
    }
    let decision = safe(&observation);
    assert_eq!(deactivated(&decision, &NEW), keys(&[2, 4]));
    assert_eq!(verdict(&decision, 6).class, Class::Unhealthy);
    assert_eq!(action(&decision, 6), Action::Leave);

    drain(&mut observation, 2);
    assert_eq!(deactivated(&safe(&observation), &NEW), keys(&[]));
}

#[test]
fn s8_leftovers_share_the_allowance_and_come_after_members_that_are_down() {
    let mut observation = cluster(12);
    for machine in [9, 10, 11, 12] {
        leave_group(&mut observation, machine);
        down(&mut observation, machine, 200);
    }
    super::fixture::resize(&mut observation, 8);
    let decision = safe(&observation);
    assert_eq!(deactivated(&decision, &NEW), keys(&[10, 11]));

    down(&mut observation, 3, 200);
    let decision = safe(&observation);
    assert_eq!(deactivated(&decision, &[Purpose::Health]), keys(&[3]));
    assert_eq!(deactivated(&decision, &[Purpose::Leftover]).len(), 1);
    // The leftover's calls are the last.
    assert_eq!(decision.calls.last().unwrap().purpose, Purpose::Leftover);

    // A leftover that is on its way out holds a part of it.
    drain(&mut observation, 12);
    let decision = safe(&observation);
    assert_eq!(deactivated(&decision, &[Purpose::Health]), keys(&[3]));
    assert_eq!(deactivated(&decision, &[Purpose::Leftover]), keys(&[]));
}

#[test]
fn s8_what_is_down_goes_before_what_is_up() {
    // Two that are up have more unused drives, and wait for full protection; the one that is down must have its turn.
    let mut observation = cluster(8);
    for machine in [2, 3] {
        unused_drive(&mut observation, machine);
    }
    down(&mut observation, 7, 200);
    unprotect(&mut observation);
    assert_eq!(deactivated(&safe(&observation), &NEW), keys(&[7]));
}

#[test]
fn s8_an_up_one_goes_only_when_all_is_protected() {
    let mut observation = cluster(8);
    unused_drive(&mut observation, 3);
    unprotect(&mut observation);
    let decision = safe(&observation);
    assert_eq!(decision.calls, []);
    assert_eq!(verdict(&decision, 3).rule, Rule::S8);
    assert!(verdict(&decision, 3).detail.contains("protected"));
    super::fixture::rebuild(&mut observation).protection_state[0].percent = 100.0;
    super::fixture::rebuild(&mut observation).unavailable_percent = 0.1;
    assert_eq!(safe(&observation).calls, []);
}

#[test]
fn s8_an_up_one_goes_only_when_a_stripes_width_of_others_is_up() {
    let mut observation = cluster(6);
    unused_drive(&mut observation, 3);
    assert_eq!(deactivated(&safe(&observation), &NEW), keys(&[3]));
    down(&mut observation, 4, 5);
    let decision = safe(&observation);
    assert_eq!(decision.calls, []);
    assert!(
        verdict(&decision, 3)
            .detail
            .contains("4 other members are up")
    );
}

#[test]
fn s8_what_others_wait_for_has_its_turn_before_them() {
    // Two have an unused drive, and five others have to be up for them; the drives of the third are not well.
    let mut observation = cluster(6);
    for machine in [1, 2] {
        unused_drive(&mut observation, machine);
    }
    fail(&mut observation, containers(3)[0], 200);
    container(&mut observation, containers(3)[0]).status = ContainerStatus::Degraded;
    assert_eq!(deactivated(&safe(&observation), &NEW), keys(&[3]));
}

#[test]
fn s8_what_holds_no_data_is_not_waited_for() {
    // Two of six machines have lost the container for compute: neither waits for the other's for ever.
    let mut observation = cluster(6);
    for machine in [1, 2] {
        fail(&mut observation, containers(machine)[1], 200);
    }
    assert_eq!(deactivated(&safe(&observation), &NEW), keys(&[1]));
}

#[test]
fn s8_a_container_of_a_new_state_is_not_up() {
    let mut observation = cluster(6);
    unused_drive(&mut observation, 3);
    container(&mut observation, containers(4)[0]).state = State::Other("JOINING".into());
    assert_eq!(safe(&observation).calls, []);
}

#[test]
fn s8_leftovers_that_somebody_began_to_deactivate_by_hand_have_no_free_pass() {
    let mut observation = cluster(12);
    for machine in [10, 11, 12] {
        leave_group(&mut observation, machine);
        down(&mut observation, machine, 300);
        container(&mut observation, containers(machine)[1]).state = State::Inactive;
    }
    super::fixture::resize(&mut observation, 9);
    assert_eq!(deactivated(&safe(&observation), &NEW).len(), 2);
}

#[test]
fn s8_a_sick_one_without_a_part_of_the_allowance_is_shown_as_that() {
    let mut observation = cluster(12);
    for machine in [11, 12] {
        leave_group(&mut observation, machine);
        down(&mut observation, machine, 300);
    }
    super::fixture::resize(&mut observation, 10);
    unused_drive(&mut observation, 3);
    let decision = safe(&observation);
    assert_eq!(deactivated(&decision, &NEW), keys(&[11, 12]));
    assert_eq!(verdict(&decision, 3).rule, Rule::S8);
    assert!(
        verdict(&decision, 3)
            .detail
            .starts_with("not well, and waits")
    );
}

#[test]
fn only_a_container_for_drives_is_on_its_way_out_by_its_drives() {
    let mut observation = cluster(8);
    each_drive(&mut observation, 3, |drive| drive.should_be_active = false);
    assert_eq!(verdict(&safe(&observation), 3).class, Class::Deactivating);
    container(&mut observation, containers(3)[0]).container_name = Some("other".into());
    assert_eq!(verdict(&safe(&observation), 3).class, Class::Unhealthy);
}

#[test]
fn s8_a_machine_whose_drives_can_be_reached_is_up() {
    // One of its containers is down for long, and its drives hold data.
    let mut observation = cluster(8);
    fail(&mut observation, containers(3)[1], 200);
    assert_eq!(deactivated(&safe(&observation), &NEW), keys(&[3]));
    unprotect(&mut observation);
    assert_eq!(safe(&observation).calls, []);
}

#[test]
fn s8_a_machine_that_went_down_a_moment_ago_is_not_lost() {
    // It is not well for another reason, and restarts.
    let mut observation = cluster(8);
    unused_drive(&mut observation, 3);
    down(&mut observation, 3, 1);
    unprotect(&mut observation);
    assert_eq!(safe(&observation).calls, []);
}

#[test]
fn s8_with_a_draining_machine_no_second_one_starts_when_the_size_is_right() {
    let mut observation = cluster(8);
    drain(&mut observation, 2);
    down(&mut observation, 3, 200);
    assert_eq!(deactivated(&safe(&observation), &NEW), keys(&[]));
}

#[test]
fn s8_a_refused_deactivation_keeps_its_part_of_the_allowance() {
    // The drives of two were accepted, their containers refused: they are not well still, and on their way out.
    let mut observation = cluster(9);
    for machine in [5, 6] {
        down(&mut observation, machine, 200);
        each_drive(&mut observation, machine, |drive| {
            drive.should_be_active = false;
        });
    }
    down(&mut observation, 2, 200);
    unused_drive(&mut observation, 2);
    let decision = safe(&observation);
    assert_eq!(deactivated(&decision, &NEW), keys(&[5, 6]));
}

#[test]
fn s9_a_draining_machine_gets_only_what_is_missing() {
    let mut observation = cluster(8);
    drain(&mut observation, 2);
    assert_quiet(&safe(&observation));
    container(&mut observation, containers(2)[2]).state = State::Active;
    let calls = safe(&observation).calls;
    let kinds: Vec<CallKind> = calls.iter().map(|call| call.kind).collect();
    assert_eq!(kinds, [CallKind::Event, CallKind::DeactivateContainers]);
    assert_eq!(calls[1].params["host_ids"], json!(["HostId<8>"]));
}

#[test]
fn s9_a_higher_target_does_not_stop_a_drain() {
    let mut observation = cluster(8);
    drain(&mut observation, 2);
    super::fixture::resize(&mut observation, 20);
    let decision = safe(&observation);
    assert_quiet(&decision);
    assert_eq!(verdict(&decision, 2).class, Class::Deactivating);
}

#[test]
fn s9_drives_that_nobody_has_begun_to_empty_need_the_safety_of_s8() {
    for status in [ContainerStatus::Up, ContainerStatus::Inactive] {
        let mut observation = cluster(8);
        let by_hand = container(&mut observation, containers(2)[1]);
        by_hand.state = State::Deactivating;
        by_hand.status = status;
        assert_eq!(
            deactivated(&safe(&observation), &[Purpose::Health]),
            keys(&[2])
        );
        unprotect(&mut observation);
        let decision = safe(&observation);
        assert_eq!(decision.calls, []);
        assert_eq!(verdict(&decision, 2).rule, Rule::S8);
    }
}

#[test]
fn s12_a_new_word_is_healthy() {
    let changes: [fn(&mut crate::weka::types::Container); 2] = [
        |container| container.state = State::Other("JOINING".into()),
        |container| container.status = ContainerStatus::Other("RESTING".into()),
    ];
    for change in changes {
        let mut observation = cluster(8);
        down(&mut observation, 3, 5000);
        each_container(&mut observation, 3, change);
        let decision = safe(&observation);
        assert_quiet(&decision);
        assert_eq!(verdict(&decision, 3).class, Class::Healthy);
    }
    let mut observation = cluster(8);
    down(&mut observation, 3, 5000);
    each_drive(&mut observation, 3, |drive| {
        drive.status = DriveStatus::Other("NEW".into());
    });
    fail(&mut observation, containers(3)[0], 5000);
    each_container(&mut observation, 3, |container| {
        container.status = ContainerStatus::Up;
    });
    assert_quiet(&safe(&observation));
}

#[test]
fn s11_what_is_not_in_service_is_not_chosen() {
    for lifecycle in ["Standby", "Pending", "Detaching", "Terminating"] {
        let mut observation = cluster(8);
        down(&mut observation, 3, 500);
        super::fixture::instance(&mut observation, 3).lifecycle = lifecycle.into();
        let decision = safe(&observation);
        assert_quiet(&decision);
        assert_eq!(verdict(&decision, 3).class, Class::Held);
        assert_eq!(verdict(&decision, 3).rule, Rule::S11);
        assert!(!decision.protect.contains(&super::fixture::id(3)));
    }
}

#[test]
fn a_leftover_waits_three_hours() {
    let mut observation = cluster(8);
    leave_group(&mut observation, 8);
    super::fixture::resize(&mut observation, 7);
    down(&mut observation, 8, 179);
    assert_quiet(&safe(&observation));
    down(&mut observation, 8, 181);
    assert_eq!(deactivated(&safe(&observation), &NEW), keys(&[8]));
}

#[test]
fn a_leftover_that_is_up_stays() {
    let mut observation = cluster(8);
    leave_group(&mut observation, 8);
    super::fixture::resize(&mut observation, 7);
    unused_drive(&mut observation, 8);
    let decision = safe(&observation);
    assert_quiet(&decision);
    assert_eq!(verdict(&decision, 8).class, Class::Leftover);
}

#[test]
fn a_leftover_that_is_down_in_part_is_reported_and_stays() {
    let mut observation = cluster(8);
    leave_group(&mut observation, 8);
    fail(&mut observation, containers(8)[0], 300);
    fail(&mut observation, containers(8)[1], 300);
    let decision = safe(&observation);
    assert_eq!(decision.gate, None);
    assert_eq!(decision.calls, []);
    assert_eq!(decision.errors.len(), 2);
}

#[test]
fn a_leftover_gateway_gives_its_interface_back_first_and_a_member_keeps_it() {
    let mut observation = cluster(8);
    join(&mut observation, 20);
    for machine in [3, 20] {
        down(&mut observation, machine, 300);
        let port = Port {
            container: containers(machine)[2],
            port: "ens5".into(),
        };
        for kind in ["NFS", "SMB"] {
            reads(&mut observation)
                .interface_groups
                .push(InterfaceGroup {
                    name: format!("{kind}-{machine}"),
                    kind: kind.into(),
                    ports: vec![port.clone()],
                });
        }
    }
    let decision = safe(&observation);
    assert_eq!(deactivated(&decision, &NEW), keys(&[3, 20]));
    let ports: Vec<_> = decision
        .calls
        .iter()
        .filter(|call| call.kind == CallKind::DeletePort)
        .collect();
    assert_eq!(ports.len(), 1);
    assert_eq!(
        ports[0].params,
        json!({"name": "NFS-20", "host_id": "HostId<62>", "port": "ens5"})
    );
    assert_eq!(ports[0].method, "interface_group_delete_port");
}
