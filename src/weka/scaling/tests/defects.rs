//! The vendor's defects: each is there by the vendor's rules, and not by ours.

use super::super::{
    Action, CallKind, Ec2State, Observation, Outcome, Purpose, Reread, Rule, confirm,
};
use super::fixture::{
    address, cluster, containers, deactivated, down, drop_port, each_container, fail, gateway,
    gateways, id, instance, join, key, killed, leave_group, management, out, reads, resize, safe,
    upstream,
};
use crate::weka::types::{ContainerStatus, UpgradeInfo};

const ANY: [Purpose; 5] = [
    Purpose::Remove,
    Purpose::Continue,
    Purpose::Health,
    Purpose::Leftover,
    Purpose::Size,
];

/// How many machines are deactivated, by the vendor's rules and by ours.
fn deactivations(observation: &Observation) -> (usize, usize) {
    let count = |decision| deactivated(&decision, &ANY).len();
    (count(upstream(observation)), count(safe(observation)))
}

#[test]
fn a_management_address_that_is_not_the_primary_one_condemns_every_instance() {
    let mut observation = cluster(8);
    for machine in 1..=8 {
        each_container(&mut observation, machine, |container| {
            container.host_ip = Some(format!("10.1.0.{machine}"));
        });
        down(&mut observation, machine, 1);
    }
    assert_eq!(killed(&upstream(&observation)).len(), 8);
    assert_eq!(killed(&safe(&observation)), [""; 0]);
}

#[test]
fn no_time_of_a_change_means_unhealthy_at_once() {
    let mut observation = cluster(8);
    down(&mut observation, 3, 1);
    each_container(&mut observation, 3, |container| {
        container.state_changed_time = None;
    });
    assert_eq!(deactivations(&observation), (1, 0));
}

#[test]
fn an_old_fencing_means_unhealthy_at_once() {
    let mut observation = cluster(8);
    down(&mut observation, 3, 1);
    for container in containers(3) {
        management(&mut observation, container).last_fencing_time = Some(super::fixture::ago(9000));
    }
    assert_eq!(deactivations(&observation), (1, 0));
}

#[test]
fn leftovers_that_are_down_are_deactivated_without_limit() {
    let mut observation = cluster(12);
    for machine in 8..=12 {
        leave_group(&mut observation, machine);
        down(&mut observation, machine, 300);
    }
    resize(&mut observation, 7);
    assert_eq!(deactivations(&observation), (5, 2));
}

#[test]
fn a_gateway_in_no_interface_group_is_asked_to_leave_twice_and_ends_every_run() {
    let mut observation = cluster(8);
    gateways(&mut observation, 3);
    drop_port(&mut observation, gateway(2));
    down(&mut observation, gateway(2), 300);
    out(&mut observation, 4);
    let asked = |decision: &super::super::Decision| {
        let calls = decision.calls.iter();
        calls
            .filter(|call| call.kind == CallKind::DeactivateContainers)
            .count()
    };
    let decision = upstream(&observation);
    assert_eq!(asked(&decision), 2);
    assert_eq!(killed(&decision), [""; 0]);
    assert_eq!(decision.errors.len(), 1);
    let decision = safe(&observation);
    assert_eq!(asked(&decision), 1);
    assert_eq!(killed(&decision), [id(4)]);
    assert_eq!(decision.errors, []);
}

#[test]
fn a_reused_address_ends_every_run() {
    let mut observation = cluster(8);
    join(&mut observation, 20);
    each_container(&mut observation, 20, |container| {
        container.host_ip = Some(address(7));
    });
    down(&mut observation, 20, 300);
    assert!(upstream(&observation).gate.is_some());
    let decision = safe(&observation);
    assert_eq!(decision.gate, None);
    assert_eq!(deactivated(&decision, &ANY).len(), 1);
}

#[test]
fn healthy_machines_are_drained_while_another_is_down() {
    let mut observation = cluster(9);
    resize(&mut observation, 6);
    down(&mut observation, 8, 200);
    super::fixture::unprotect(&mut observation);
    assert_eq!(deactivations(&observation), (3, 1));
    assert_eq!(deactivated(&safe(&observation), &ANY), [key(8)].into());
}

#[test]
fn a_typo_in_the_target_drains_the_cluster() {
    let mut observation = cluster(20);
    observation.group.desired = 8;
    assert_eq!(deactivations(&observation), (12, 0));
    // And one below what the data needs.
    resize(&mut observation, 2);
    assert_eq!(deactivations(&observation), (18, 0));
    assert_eq!(
        safe(&observation).gate.map(|gate| gate.rule),
        Some(Rule::S6)
    );
}

#[test]
fn a_machine_that_weka_has_not_released_is_terminated_as_absent() {
    let mut observation = cluster(8);
    resize(&mut observation, 7);
    out(&mut observation, 3);
    each_container(&mut observation, 3, |container| {
        container.status = ContainerStatus::Down;
    });
    assert_eq!(killed(&upstream(&observation)), [id(3)]);
    assert_eq!(killed(&safe(&observation)), [""; 0]);
}

#[test]
fn one_accepted_removal_of_three_is_enough() {
    let mut observation = cluster(8);
    resize(&mut observation, 7);
    out(&mut observation, 3);
    let reread = Reread {
        status: reads(&mut observation).status.clone(),
        containers: reads(&mut observation).containers.clone(),
    };
    let after = |decision: super::super::Decision| {
        let refused = *decision.terminate[0].needs.first().unwrap() + 1;
        let mut outcomes = vec![Outcome::Accepted; decision.calls.len()];
        outcomes[refused] = Outcome::Refused;
        confirm(&observation, &decision, &outcomes, Ok(&reread))
            .terminate
            .len()
    };
    assert_eq!(after(upstream(&observation)), 1);
    assert_eq!(after(safe(&observation)), 0);
}

#[test]
fn a_leftover_that_is_up_ends_the_run_after_its_calls_were_made() {
    let mut observation = cluster(9);
    leave_group(&mut observation, 9);
    resize(&mut observation, 8);
    down(&mut observation, 3, 200);
    out(&mut observation, 4);
    let decision = upstream(&observation);
    assert!(!decision.calls.is_empty() && !decision.errors.is_empty());
    assert_eq!(killed(&decision), [""; 0]);
    let decision = safe(&observation);
    assert_eq!(killed(&decision), [id(4)]);
    assert_eq!(decision.errors, []);
}

#[test]
fn an_upgrade_of_a_newer_version_goes_unnoticed() {
    let mut observation = cluster(8);
    down(&mut observation, 3, 200);
    reads(&mut observation).status.upgrade = None;
    reads(&mut observation).status.upgrade_info = Some(UpgradeInfo {
        upgrade_phase: Some("DRIVES_ROLLING".into()),
    });
    assert_eq!(deactivations(&observation), (1, 0));
}

#[test]
fn a_machine_that_restarts_among_others_is_drained_by_its_containers_sort() {
    // One container that is down for long, on a machine whose drives are well, while data is not fully protected.
    let mut observation = cluster(8);
    fail(&mut observation, containers(3)[2], 200);
    super::fixture::unprotect(&mut observation);
    assert_eq!(deactivations(&observation), (1, 0));
}

#[test]
fn an_instance_that_was_purged_wedges_nothing() {
    let mut observation = cluster(8);
    let purged = instance(&mut observation, 3);
    purged.ec2 = Ec2State::Absent;
    purged.private_ip = None;
    purged.launched = None;
    purged.healthy = false;
    each_container(&mut observation, 3, |container| {
        container.status = ContainerStatus::Down;
    });
    down(&mut observation, 3, 300);
    let decision = safe(&observation);
    assert_eq!(decision.detach, [id(3)]);
    let machine = decision.machines.iter().find(|each| each.key == key(3));
    assert_eq!(machine.unwrap().action, Action::Deactivate);
}

#[test]
fn a_stripe_of_absent_members_is_terminated_at_once() {
    let mut observation = cluster(8);
    for machine in 1..=6 {
        super::fixture::forget(&mut observation, machine);
    }
    assert_eq!(killed(&upstream(&observation)).len(), 6);
    assert_eq!(killed(&safe(&observation)), [""; 0]);
    // Of a cluster that is large enough two go, and the others wait.
    let mut observation = cluster(12);
    for machine in 1..=6 {
        super::fixture::forget(&mut observation, machine);
    }
    assert_eq!(killed(&upstream(&observation)).len(), 6);
    assert_eq!(killed(&safe(&observation)).len(), 2);
}
