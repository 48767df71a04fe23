//! Gateways that serve NFS, in a group of their own.

use super::super::{
    Action, Call, CallKind, Class, Decision, Ec2State, Observation, Purpose, Reason, Rule,
};
use super::fixture::{
    action, address, ago, assert_quiet, cluster, container, containers, deactivated, down, drain,
    drop_port, fail, forget, gateway, gateways, id, instance, join, key, killed, nfs, out, reads,
    resize, safe, unprotect, verdict,
};
use crate::weka::types::ContainerStatus;
use serde_json::json;

const NEW: [Purpose; 3] = [Purpose::Health, Purpose::Leftover, Purpose::Size];

/// Seven backends, and three gateways: the floor of the backends is six.
fn three() -> Observation {
    let mut observation = cluster(7);
    gateways(&mut observation, 3);
    observation
}

fn resize_gateways(observation: &mut Observation, desired: u32) {
    nfs(observation).group.desired = desired;
    nfs(observation).previous_desired = Some(desired);
}

/// What is asked of one machine, in order.
fn calls(decision: &Decision, machine: u32) -> Vec<&Call> {
    let key = key(machine);
    let calls = decision.calls.iter();
    calls
        .filter(|call| call.machine.as_ref() == Some(&key))
        .collect()
}

fn leaving(decision: &Decision) -> Vec<u32> {
    let keys = deactivated(decision, &NEW);
    let machines = (1..=4).map(gateway);
    machines
        .filter(|machine| keys.contains(&key(*machine)))
        .collect()
}

#[test]
fn gateways_that_serve_are_members_of_their_group_and_not_leftovers() {
    let observation = three();
    let decision = safe(&observation);
    assert_quiet(&decision);
    assert_eq!(decision.machines.len(), 10);
    assert_eq!(decision.protect.len(), 10);
    let gateway = verdict(&decision, gateway(1));
    assert_eq!(gateway.class, Class::Healthy);
    assert_eq!(gateway.instance, Some(id(41)));
}

#[test]
fn s20_a_target_of_zero_closes_the_gate_while_there_are_gateways() {
    let mut observation = three();
    resize_gateways(&mut observation, 0);
    down(&mut observation, 3, 200);
    let decision = safe(&observation);
    let gate = decision.gate.as_ref().unwrap();
    assert_eq!(gate.rule, Rule::S20);
    assert!(gate.text.contains("gateways is 0"), "{}", gate.text);
    assert_eq!(decision.calls, []);
    assert_eq!(decision.machines.len(), 10);

    let mut none = cluster(7);
    gateways(&mut none, 0);
    assert_quiet(&safe(&none));
}

#[test]
fn one_gateway_too_many_loses_its_port_before_it_leaves() {
    let mut observation = three();
    resize_gateways(&mut observation, 2);
    let decision = safe(&observation);
    assert_eq!(leaving(&decision), [gateway(1)]);
    let asked = calls(&decision, gateway(1));
    let kinds: Vec<CallKind> = asked.iter().map(|call| call.kind).collect();
    assert_eq!(
        kinds,
        [
            CallKind::DeletePort,
            CallKind::Event,
            CallKind::DeactivateContainers
        ]
    );
    assert_eq!(
        asked[0].params,
        json!({"name": "exports", "host_id": "HostId<125>", "port": "ens6"})
    );
    assert!(asked.iter().all(|call| call.purpose == Purpose::Size));
    let verdict = verdict(&decision, gateway(1));
    assert_eq!(
        (verdict.action, verdict.rule),
        (Action::Deactivate, Rule::S7)
    );
    assert_eq!(decision.calls.len(), 3);
}

#[test]
fn s7_a_target_of_one_run_drains_no_gateway() {
    let mut observation = three();
    nfs(&mut observation).group.desired = 2;
    assert_quiet(&safe(&observation));
    nfs(&mut observation).previous_desired = None;
    assert_quiet(&safe(&observation));
}

#[test]
fn s7_what_concerns_data_does_not_concern_gateways() {
    let mut observation = three();
    resize_gateways(&mut observation, 2);
    unprotect(&mut observation);
    reads(&mut observation).status.capacity = None;
    assert_eq!(leaving(&safe(&observation)), [gateway(1)]);
    // Nor do they hold any of it.
    let mut observation = three();
    resize(&mut observation, 6);
    let capacity = reads(&mut observation).status.capacity.as_mut().unwrap();
    capacity.unprovisioned_bytes = capacity.total_bytes / 6 + 1;
    assert_eq!(action(&safe(&observation), 1), Action::Deactivate);
}

#[test]
fn s7_a_gateway_goes_only_if_all_that_stay_are_up_and_no_other_leader_drains() {
    let mut observation = three();
    resize_gateways(&mut observation, 2);
    fail(&mut observation, containers(gateway(3))[2], 5);
    let decision = safe(&observation);
    assert_eq!(leaving(&decision), [0; 0]);
    assert_eq!(decision.errors[0].subject, "gateways");

    let mut observation = three();
    resize_gateways(&mut observation, 2);
    for leader in [containers(gateway(1))[2], containers(3)[1]] {
        container(&mut observation, leader).member_of_leadership = true;
    }
    assert_eq!(leaving(&safe(&observation)), [gateway(1)]);
    drain(&mut observation, 3);
    assert_eq!(leaving(&safe(&observation)), [0; 0]);
}

#[test]
fn s8_a_gateway_that_is_down_goes_and_waits_for_no_backend() {
    let mut observation = cluster(9);
    gateways(&mut observation, 4);
    for machine in [2, 4, gateway(1), gateway(2), gateway(3)] {
        down(&mut observation, machine, 119);
    }
    assert_quiet(&safe(&observation));
    for machine in [2, 4, gateway(1), gateway(2), gateway(3)] {
        down(&mut observation, machine, 121);
    }
    let decision = safe(&observation);
    assert_eq!(leaving(&decision), [gateway(1), gateway(2)]);
    assert_eq!(deactivated(&decision, &NEW).len(), 4);
    assert_eq!(calls(&decision, gateway(1))[0].kind, CallKind::DeletePort);
    let waits = verdict(&decision, gateway(3));
    assert_eq!((waits.action, waits.rule), (Action::Leave, Rule::S8));
    drain(&mut observation, 6);
    assert_eq!(leaving(&safe(&observation)), [gateway(1), gateway(2)]);
    // While one drains no other begins, in a group of its size.
    drain(&mut observation, gateway(4));
    assert_eq!(leaving(&safe(&observation)), [0; 0]);
}

#[test]
fn s8_a_gateway_that_is_up_goes_only_if_another_serves() {
    let mut observation = cluster(7);
    gateways(&mut observation, 2);
    let ill = containers(gateway(1))[2];
    fail(&mut observation, ill, 200);
    container(&mut observation, ill).status = ContainerStatus::Degraded;
    assert_eq!(leaving(&safe(&observation)), [gateway(1)]);
    fail(&mut observation, containers(gateway(2))[2], 5);
    let decision = safe(&observation);
    assert_eq!(leaving(&decision), [0; 0]);
    assert!(
        verdict(&decision, gateway(1))
            .detail
            .contains("no other gateway")
    );
}

#[test]
fn a_gateway_that_lost_its_port_leaves_at_once_and_a_new_one_is_waited_for() {
    let mut observation = three();
    drop_port(&mut observation, gateway(2));
    let decision = safe(&observation);
    let kinds: Vec<CallKind> = decision.calls.iter().map(|call| call.kind).collect();
    assert_eq!(kinds, [CallKind::Event, CallKind::DeactivateContainers]);
    let gone = verdict(&decision, gateway(2));
    assert_eq!((gone.action, gone.rule), (Action::Deactivate, Rule::S8));

    nfs(&mut observation)
        .interface_group_ips
        .remove(&address(gateway(2)));
    let decision = safe(&observation);
    assert_quiet(&decision);
    assert_eq!(verdict(&decision, gateway(2)).rule, Rule::U);
    down(&mut observation, gateway(2), 59);
    assert_quiet(&safe(&observation));
    down(&mut observation, gateway(2), 61);
    assert_eq!(leaving(&safe(&observation)), [gateway(2)]);
}

#[test]
fn s8_no_more_than_two_that_lost_their_ports_leave_at_once_those_that_are_down_first() {
    let mut observation = cluster(7);
    gateways(&mut observation, 4);
    for number in 1..=3 {
        drop_port(&mut observation, gateway(number));
    }
    down(&mut observation, gateway(3), 61);
    let decision = safe(&observation);
    assert_eq!(leaving(&decision), [gateway(1), gateway(3)]);
    assert_eq!(verdict(&decision, gateway(2)).rule, Rule::S8);
    drain(&mut observation, gateway(4));
    assert_eq!(leaving(&safe(&observation)), [gateway(3)]);
}

#[test]
fn s4_a_list_that_names_no_gateway_condemns_none() {
    let mut observation = three();
    reads(&mut observation).interface_groups.clear();
    down(&mut observation, gateway(2), 300);
    let decision = safe(&observation);
    assert_eq!(decision.calls, []);
    assert_eq!(decision.errors.len(), 3);
    for number in 1..=3 {
        assert_eq!(verdict(&decision, gateway(number)).rule, Rule::S4);
    }
}

#[test]
fn groups_of_another_kind_are_not_nfs() {
    let mut observation = three();
    let mut other = reads(&mut observation).interface_groups[0].clone();
    other.kind = "SMB".into();
    drop_port(&mut observation, gateway(2));
    reads(&mut observation).interface_groups.push(other);
    assert_eq!(leaving(&safe(&observation)), [gateway(2)]);
    assert_eq!(calls(&safe(&observation), gateway(2)).len(), 2);
}

#[test]
fn s9_a_gateway_that_drains_gets_what_is_missing() {
    let mut observation = three();
    drain(&mut observation, gateway(1));
    let decision = safe(&observation);
    let [call] = decision.calls.as_slice() else {
        panic!("{:?}", decision.calls);
    };
    assert_eq!(
        (call.kind, call.purpose),
        (CallKind::DeletePort, Purpose::Continue)
    );
    drop_port(&mut observation, gateway(1));
    let decision = safe(&observation);
    assert_quiet(&decision);
    assert_eq!(verdict(&decision, gateway(1)).rule, Rule::S9);
    // It counts as one of those that go.
    resize_gateways(&mut observation, 2);
    assert_quiet(&safe(&observation));
}

#[test]
fn s5_a_gateway_that_is_out_is_forgotten_and_its_instance_goes_from_its_own_group() {
    let mut observation = three();
    drop_port(&mut observation, gateway(1));
    out(&mut observation, gateway(1));
    let decision = safe(&observation);
    assert_eq!(action(&decision, gateway(1)), Action::Remove);
    let [kill] = decision.terminate.as_slice() else {
        panic!("{:?}", decision.terminate);
    };
    assert_eq!((kill.id.clone(), kill.group.as_str()), (id(41), "gateways"));
    assert_eq!((kill.reason, kill.needs.len()), (Reason::Removed, 1));
    assert!(!decision.protect.contains(&id(41)));
}

#[test]
fn s4_s14_a_gateway_that_weka_does_not_know_goes_by_the_rules_of_any_instance() {
    let mut observation = three();
    forget(&mut observation, gateway(1));
    assert_eq!(killed(&safe(&observation)), [id(41)]);
    instance(&mut observation, gateway(1)).launched = Some(ago(29));
    assert_quiet(&safe(&observation));
    instance(&mut observation, gateway(1)).ec2 = Ec2State::Terminated;
    instance(&mut observation, gateway(1)).healthy = false;
    assert_eq!(safe(&observation).detach, [id(41)]);
}

#[test]
fn s11_a_gateway_in_standby_is_left_alone() {
    let mut observation = three();
    resize_gateways(&mut observation, 1);
    instance(&mut observation, gateway(1)).lifecycle = "Standby".into();
    down(&mut observation, gateway(1), 300);
    let decision = safe(&observation);
    assert_eq!(leaving(&decision), [gateway(2)]);
    assert_eq!(verdict(&decision, gateway(1)).rule, Rule::S11);
}

#[test]
fn s13_processes_that_end_gateways_are_reported() {
    let mut observation = three();
    nfs(&mut observation).group.suspended.clear();
    let decision = safe(&observation);
    let [error] = decision.errors.as_slice() else {
        panic!("{:?}", decision.errors);
    };
    assert_eq!(
        (error.rule, error.subject.as_str()),
        (Rule::S13, "gateways")
    );
}

#[test]
fn s1_a_gateway_with_drives_or_of_two_groups_closes_the_gate() {
    let mut observation = three();
    join(&mut observation, gateway(2));
    let gate = safe(&observation).gate.unwrap();
    assert_eq!(gate.rule, Rule::S1);
    assert!(gate.text.contains("has drives"), "{}", gate.text);

    let mut observation = three();
    let twin = instance(&mut observation, gateway(2)).clone();
    observation.group.instances.push(twin);
    assert_eq!(safe(&observation).gate.unwrap().rule, Rule::S1);
}

#[test]
fn s2_gateways_alone_are_not_the_cluster() {
    let mut observation = three();
    for machine in 1..=7 {
        for id in containers(machine) {
            container(&mut observation, id).aws.instance_id = Some("i-other".into());
            container(&mut observation, id).host_ip = Some(format!("10.9.9.{machine}"));
        }
    }
    assert_eq!(safe(&observation).gate.unwrap().rule, Rule::S2);
}

#[test]
fn backends_keep_their_ports() {
    let mut observation = three();
    down(&mut observation, 3, 200);
    let port = crate::weka::types::Port {
        container: containers(3)[2],
        port: "ens6".into(),
    };
    reads(&mut observation).interface_groups[0].ports.push(port);
    let decision = safe(&observation);
    assert_eq!(action(&decision, 3), Action::Deactivate);
    let kinds = decision.calls.iter().map(|call| call.kind);
    assert!(!kinds.collect::<Vec<_>>().contains(&CallKind::DeletePort));
}
