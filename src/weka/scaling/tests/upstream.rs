//! The vendor's rules, as far as their faults do not show them.

use super::super::{Action, CallKind, Class, Ec2State, Observation, Reason, Rule};
use super::fixture::{
    address, ago, client, cluster, container, down, drop_port, forget, gateway, gateways, id,
    instance, killed, leave_group, nfs, out, reads, resize, upstream, verdict,
};
use crate::weka::types::ContainerStatus;

/// By its address, as the vendor knows machines, or by its instance.
fn at(decision: &super::super::Decision, machine: u32) -> (Class, Action, Rule) {
    let (address, id) = (address(machine), id(machine));
    let mut verdicts = decision.machines.iter();
    let found = verdicts.find(|verdict| verdict.key == address || verdict.key == id);
    let found = found.unwrap_or_else(|| panic!("{machine}: {:?}", decision.machines));
    (found.class, found.action, found.rule)
}

fn one_unknown() -> Observation {
    let mut observation = cluster(8);
    forget(&mut observation, 3);
    observation
}

#[test]
fn one_that_weka_does_not_know_goes_after_half_an_hour() {
    let mut observation = one_unknown();
    let decision = upstream(&observation);
    assert_eq!(killed(&decision), [id(3)]);
    assert_eq!(
        at(&decision, 3),
        (Class::Absent, Action::Terminate, Rule::U)
    );
    instance(&mut observation, 3).launched = Some(ago(29));
    let decision = upstream(&observation);
    assert_eq!(killed(&decision), [""; 0]);
    assert_eq!(at(&decision, 3), (Class::Absent, Action::Leave, Rule::U));
    assert_eq!(decision.errors.len(), 1);
}

#[test]
fn what_is_gone_is_detached_and_what_is_stopped_goes_besides_once_the_group_has_noticed() {
    for (ec2, is_gone) in [
        (Ec2State::Terminated, true),
        (Ec2State::Absent, true),
        (Ec2State::Stopped, false),
    ] {
        let mut observation = one_unknown();
        let noticed = instance(&mut observation, 3);
        noticed.launched = Some(ago(5));
        noticed.ec2 = ec2;
        assert_eq!(upstream(&observation).detach, [""; 0]);
        instance(&mut observation, 3).healthy = false;
        let decision = upstream(&observation);
        assert_eq!(decision.detach, [id(3)]);
        let verdict = verdict(&decision, 3);
        if is_gone {
            assert_eq!(killed(&decision), [""; 0]);
            assert_eq!(verdict.action, Action::Detach);
        } else {
            assert_eq!(killed(&decision), [id(3)]);
            assert_eq!(decision.terminate[0].reason, Reason::Stopped);
            assert_eq!(verdict.action, Action::Terminate);
        }
    }
    let mut observation = one_unknown();
    instance(&mut observation, 4).healthy = false;
    assert_eq!(upstream(&observation).detach, [""; 0]);
}

#[test]
fn a_stopped_one_goes_though_the_cluster_still_counts_on_it() {
    let mut observation = cluster(8);
    instance(&mut observation, 3).ec2 = Ec2State::Stopped;
    instance(&mut observation, 3).healthy = false;
    down(&mut observation, 3, 5);
    let decision = upstream(&observation);
    assert_eq!(killed(&decision), [id(3)]);
    assert_eq!(at(&decision, 3).1, Action::Terminate);
}

#[test]
fn the_last_guard_ends_the_run_for_a_container_at_work_where_an_instance_is_to_go() {
    let mut observation = cluster(8);
    resize(&mut observation, 7);
    out(&mut observation, 4);
    instance(&mut observation, 5).ec2 = Ec2State::Absent;
    instance(&mut observation, 5).private_ip = None;
    instance(&mut observation, 5).healthy = false;
    forget(&mut observation, 5);
    assert_eq!(killed(&upstream(&observation)), [id(4)]);
    assert_eq!(upstream(&observation).detach, [id(5)]);

    let other = client(&mut observation, 900, &address(4));
    let decision = upstream(&observation);
    assert_eq!(killed(&decision), [""; 0]);
    assert_eq!(decision.detach, [""; 0]);
    assert_eq!(decision.errors.len(), 1);
    assert!(!decision.calls.is_empty(), "the calls were made before");
    // A client that went is no obstacle.
    let bygone = container(&mut observation, other);
    bygone.status = ContainerStatus::Down;
    bygone.auto_remove_timeout = Some(60);
    assert_eq!(killed(&upstream(&observation)), [id(4)]);
}

#[test]
fn everybody_is_spoken_of_where_a_run_ends_early_or_does_not_begin() {
    let mut observation = cluster(9);
    forget(&mut observation, 3);
    leave_group(&mut observation, 8);
    leave_group(&mut observation, 9);
    let decision = upstream(&observation);
    assert_eq!(killed(&decision), [""; 0]);
    for machine in [3, 8, 9] {
        assert_eq!(at(&decision, machine).1, Action::Leave);
    }
    assert_eq!(decision.machines.len(), 9);

    reads(&mut observation).status.io_status = "STOPPED".into();
    let decision = upstream(&observation);
    assert!(decision.gate.is_some());
    assert_eq!(decision.machines.len(), 9);
}

#[test]
fn gateways_have_the_formula_of_their_group_and_lose_their_ports_first() {
    let mut observation = cluster(7);
    gateways(&mut observation, 3);
    nfs(&mut observation).group.desired = 2;
    let decision = upstream(&observation);
    let kinds: Vec<CallKind> = decision.calls.iter().map(|call| call.kind).collect();
    assert_eq!(
        kinds,
        [
            CallKind::DeletePort,
            CallKind::Event,
            CallKind::DeactivateContainers
        ]
    );
    assert_eq!(at(&decision, gateway(1)).1, Action::Deactivate);
    assert_eq!(decision.machines.len(), 10);
}

#[test]
fn a_gateway_in_no_interface_group_goes_at_once_or_after_an_hour() {
    let mut observation = cluster(7);
    gateways(&mut observation, 3);
    drop_port(&mut observation, gateway(2));
    assert_eq!(
        at(&upstream(&observation), gateway(2)).1,
        Action::Deactivate
    );
    nfs(&mut observation).interface_group_ips.clear();
    assert_eq!(at(&upstream(&observation), gateway(2)).1, Action::Leave);
    down(&mut observation, gateway(2), 61);
    assert_eq!(
        at(&upstream(&observation), gateway(2)).1,
        Action::Deactivate
    );
    assert_eq!(upstream(&observation).errors, []);
}
