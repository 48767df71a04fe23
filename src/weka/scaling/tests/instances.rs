//! Members that Weka does not know (S4, S11, S14).

use super::super::{Action, Class, Ec2State, Observation, Reason, Rule, Settings, decide};
use super::fixture::{
    action, address, ago, assert_quiet, client, cluster, container, down, forget, id, instance,
    killed, resize, safe, verdict,
};
use crate::weka::types::ContainerStatus;

/// One member is unknown to Weka, and old enough.
fn one_unknown() -> Observation {
    let mut observation = cluster(8);
    forget(&mut observation, 3);
    observation
}

#[test]
fn s4_a_lost_backend_goes() {
    let decision = safe(&one_unknown());
    let [kill] = decision.terminate.as_slice() else {
        panic!("{:?}", decision.terminate);
    };
    assert_eq!((kill.id.clone(), kill.reason), (id(3), Reason::Absent));
    assert!(kill.needs.is_empty());
    assert_eq!(action(&decision, 3), Action::Terminate);
    assert_eq!(verdict(&decision, 3).class, Class::Absent);
    assert_eq!(decision.calls, []);
    assert!(!decision.protect.contains(&id(3)));
}

#[test]
fn s4_a_young_one_may_be_joining() {
    let mut observation = one_unknown();
    instance(&mut observation, 3).launched = Some(ago(29));
    assert_quiet(&safe(&observation));
    assert!(safe(&observation).protect.contains(&id(3)));
    instance(&mut observation, 3).launched = Some(ago(30));
    assert_eq!(killed(&safe(&observation)), [id(3)]);
    instance(&mut observation, 3).launched = None;
    let decision = safe(&observation);
    assert_eq!(killed(&decision), [""; 0]);
    assert_eq!(decision.errors.len(), 1);
}

#[test]
fn s4_an_attached_one_that_never_was_a_backend_stays_and_is_reported() {
    let mut observation = one_unknown();
    instance(&mut observation, 3).attached = true;
    assert_eq!(killed(&safe(&observation)), [id(3)]);
    instance(&mut observation, 3).joined = false;
    let decision = safe(&observation);
    assert_eq!(killed(&decision), [""; 0]);
    assert_eq!(
        (decision.errors[0].rule, &decision.errors[0].subject),
        (Rule::S4, &id(3))
    );
    // Launched by the group, it needs no mark: a join that failed.
    instance(&mut observation, 3).attached = false;
    assert_eq!(killed(&safe(&observation)), [id(3)]);
}

#[test]
fn s4_nothing_is_inferred_when_too_few_are_known() {
    let mut observation = cluster(6);
    resize(&mut observation, 6);
    forget(&mut observation, 3);
    assert_eq!(killed(&safe(&observation)), [id(3)]);
    forget(&mut observation, 4);
    let decision = safe(&observation);
    assert_eq!(killed(&decision), [""; 0]);
    assert_eq!(decision.errors.len(), 2);
}

#[test]
fn s4_two_a_run() {
    let mut observation = cluster(12);
    for machine in [3, 4, 5] {
        forget(&mut observation, machine);
    }
    let decision = safe(&observation);
    assert_eq!(killed(&decision), [id(3), id(4)]);
    assert_eq!(action(&decision, 5), Action::Leave);
    assert_eq!(decision.errors[0].subject, id(5));
}

#[test]
fn s4_one_that_weka_knows_as_a_client_stays() {
    let mut observation = one_unknown();
    let number = client(&mut observation, 900, &address(3));
    assert_quiet(&safe(&observation));
    assert_eq!(verdict(&safe(&observation), 3).rule, Rule::S4);
    // A client that went, and had its address before it, does not speak for it.
    let bygone = container(&mut observation, number);
    bygone.status = ContainerStatus::Down;
    assert_quiet(&safe(&observation));
    container(&mut observation, number).auto_remove_timeout = Some(86_400);
    assert_eq!(killed(&safe(&observation)), [id(3)]);
    container(&mut observation, number).aws.instance_id = Some(id(3));
    assert_quiet(&safe(&observation));
}

#[test]
fn s14_a_terminated_or_unknown_one_is_detached_once_the_group_has_noticed() {
    for gone in [Ec2State::Terminated, Ec2State::Absent] {
        let mut observation = one_unknown();
        instance(&mut observation, 3).ec2 = gone;
        instance(&mut observation, 3).private_ip = None;
        assert_quiet(&safe(&observation));
        instance(&mut observation, 3).healthy = false;
        let decision = safe(&observation);
        assert_eq!(decision.detach, [id(3)]);
        assert_eq!(decision.terminate, []);
        assert_eq!(action(&decision, 3), Action::Detach);
        assert!(!decision.protect.contains(&id(3)));
    }
}

#[test]
fn s14_a_running_one_is_never_detached() {
    for ec2 in [
        Ec2State::Running,
        Ec2State::Pending,
        Ec2State::Stopping,
        Ec2State::ShuttingDown,
    ] {
        let mut observation = cluster(8);
        instance(&mut observation, 3).ec2 = ec2;
        instance(&mut observation, 3).healthy = false;
        assert_quiet(&safe(&observation));
        forget(&mut observation, 3);
        assert_eq!(safe(&observation).detach, [""; 0]);
    }
}

#[test]
fn s14_a_stopped_one_is_terminated_once_the_group_has_noticed() {
    let mut observation = one_unknown();
    instance(&mut observation, 3).ec2 = Ec2State::Stopped;
    instance(&mut observation, 3).launched = Some(ago(1));
    assert_quiet(&safe(&observation));
    instance(&mut observation, 3).healthy = false;
    let decision = safe(&observation);
    assert_eq!(killed(&decision), [id(3)]);
    assert_eq!(decision.terminate[0].reason, Reason::Stopped);
    assert_eq!(decision.detach, [""; 0]);
}

#[test]
fn s14_a_stopped_one_that_the_cluster_still_counts_on_stays_until_it_has_been_drained() {
    let mut observation = cluster(8);
    instance(&mut observation, 3).ec2 = Ec2State::Stopped;
    instance(&mut observation, 3).healthy = false;
    down(&mut observation, 3, 30);
    assert_quiet(&safe(&observation));
    down(&mut observation, 3, 130);
    let decision = safe(&observation);
    assert_eq!(action(&decision, 3), Action::Deactivate);
    assert_eq!(decision.terminate, []);
}

#[test]
fn s11_one_on_its_way_in_or_out_is_left_alone() {
    for lifecycle in [
        "Pending",
        "Standby",
        "Detaching",
        "Terminating",
        "Terminating:Wait",
    ] {
        for ec2 in [Ec2State::Running, Ec2State::Stopped, Ec2State::Absent] {
            let mut observation = one_unknown();
            let held = instance(&mut observation, 3);
            held.lifecycle = lifecycle.into();
            held.ec2 = ec2;
            held.healthy = false;
            let decision = safe(&observation);
            assert_quiet(&decision);
            assert_eq!(verdict(&decision, 3).class, Class::Held);
        }
    }
}

#[test]
fn s15_those_that_weka_released_come_first_within_the_limit() {
    let mut observation = cluster(12);
    resize(&mut observation, 11);
    super::fixture::out(&mut observation, 9);
    forget(&mut observation, 3);
    forget(&mut observation, 4);
    let settings = Settings {
        terminate_limit: 2,
        ..Settings::default()
    };
    assert_eq!(killed(&decide(&observation, &settings)), [id(9), id(3)]);
}

#[test]
fn s13_every_member_that_stays_is_protected_whatever_it_is_now() {
    let mut observation = cluster(8);
    instance(&mut observation, 3).protected = false;
    instance(&mut observation, 4).ec2 = Ec2State::Stopped;
    assert_eq!(safe(&observation).protect.len(), 8);
}

#[test]
fn s4_those_that_go_are_the_same_in_any_order() {
    let mut observation = cluster(12);
    for machine in [3, 4, 5] {
        forget(&mut observation, machine);
    }
    let decision = safe(&observation);
    observation.group.instances.reverse();
    assert_eq!(safe(&observation), decision);
}
