//! The last check (S13, S14, S15).

use std::collections::BTreeSet;

use super::super::{AwsCalls, Ec2State, Group, Kill, Order, Reason, Rule, Settings, authorise};
use super::fixture::{ago, cluster, id, instance, now};
use jiff::SignedDuration;

fn kill(group: &Group, machine: u32, reason: Reason) -> Kill {
    let mut instances = group.instances.iter();
    let instance = instances.find(|each| each.id == id(machine)).unwrap();
    Kill {
        id: instance.id.clone(),
        group: group.name.clone(),
        private_ip: instance.private_ip.clone(),
        launched: instance.launched,
        reason,
        needs: Vec::new(),
    }
}

fn order(group: &Group, kills: &[(u32, Reason)]) -> Order {
    let kills = kills.iter();
    Order {
        terminate: kills
            .map(|(machine, reason)| kill(group, *machine, *reason))
            .collect(),
        ..Order::default()
    }
}

fn run(order: &Order, fresh: &Group) -> AwsCalls {
    authorise(order, fresh, now(), &Settings::default())
}

#[test]
fn what_is_as_it_was_goes_and_everything_else_is_protected() {
    let mut observation = cluster(8);
    let order = order(&observation.group, &[(3, Reason::Removed)]);
    for machine in [3, 4] {
        instance(&mut observation, machine).protected = false;
    }
    let calls = run(&order, &observation.group);
    assert_eq!(calls.release, [id(3)]);
    assert_eq!(calls.protect, [id(4)]);
    assert_eq!(calls.check_termination_protection.len(), 7);
    assert!(!calls.check_termination_protection.contains(&id(3)));
    assert_eq!(calls.errors, []);
}

#[test]
fn s15_another_address_or_launch_time_or_group_keeps_it() {
    let observation = cluster(8);
    let order = order(&observation.group, &[(3, Reason::Removed)]);
    let changes: [fn(&mut super::super::Instance); 6] = [
        |instance| instance.private_ip = Some("10.9.9.9".into()),
        |instance| instance.private_ip = None,
        |instance| instance.launched = Some(ago(5)),
        |instance| instance.launched = None,
        |instance| instance.lifecycle = "Standby".into(),
        |instance| instance.id = "i-other".into(),
    ];
    for change in changes {
        let mut fresh = observation.clone();
        change(instance(&mut fresh, 3));
        let calls = run(&order, &fresh.group);
        assert_eq!(calls.release, [""; 0]);
        let [error] = calls.errors.as_slice() else {
            panic!("{:?}", calls.errors);
        };
        assert_eq!((error.rule, &error.subject), (Rule::S15, &id(3)));
    }
}

#[test]
fn s15_a_launch_time_that_nobody_knew_matches_nothing() {
    let mut observation = cluster(8);
    instance(&mut observation, 3).launched = None;
    let order = order(&observation.group, &[(3, Reason::Removed)]);
    assert_eq!(run(&order, &observation.group).release, [""; 0]);
}

#[test]
fn s15_fifty_at_most_and_those_that_weka_released_first() {
    let observation = cluster(70);
    let mut kills = vec![(1, Reason::Absent), (2, Reason::Absent)];
    kills.extend((3..=50).map(|machine| (machine, Reason::Removed)));
    kills.extend((51..=53).map(|machine| (machine, Reason::Stopped)));
    let mut observation = observation;
    for machine in 51..=53 {
        instance(&mut observation, machine).ec2 = Ec2State::Stopped;
    }
    let calls = run(&order(&observation.group, &kills), &observation.group);
    assert_eq!(calls.release.len(), 50);
    assert!(!calls.release.contains(&id(1)) && !calls.release.contains(&id(2)));
    assert_eq!(calls.errors, []);
}

#[test]
fn s4_two_absent_ones_at_most_and_none_that_is_young() {
    let mut observation = cluster(9);
    let kills = [3, 4, 5, 6].map(|machine| (machine, Reason::Absent));
    instance(&mut observation, 3).launched = Some(ago(29));
    let calls = run(&order(&observation.group, &kills), &observation.group);
    assert_eq!(calls.release, [id(4), id(5)]);
}

#[test]
fn what_is_of_another_group_waits_for_its_own_turn() {
    let mut observation = cluster(8);
    super::fixture::gateways(&mut observation, 3);
    let gateways = super::fixture::nfs(&mut observation).group.clone();
    let mut both = order(&observation.group, &[(3, Reason::Removed)]);
    let gateway = super::fixture::gateway(2);
    both.terminate
        .push(kill(&gateways, gateway, Reason::Removed));
    for (group, machine) in [(&observation.group, 3), (&gateways, gateway)] {
        let calls = run(&both, group);
        assert_eq!(calls.release, [id(machine)]);
        assert_eq!(calls.errors, []);
    }
}

#[test]
fn an_instance_that_is_listed_twice_goes_once() {
    let observation = cluster(9);
    let kills = [
        (3, Reason::Absent),
        (4, Reason::Removed),
        (3, Reason::Removed),
    ];
    let calls = run(&order(&observation.group, &kills), &observation.group);
    assert_eq!(calls.release, [id(3), id(4)]);
}

#[test]
fn one_that_runs_again_is_not_terminated_as_stopped() {
    let observation = cluster(8);
    let order = order(&observation.group, &[(3, Reason::Stopped)]);
    assert_eq!(run(&order, &observation.group).release, [""; 0]);
}

#[test]
fn one_that_is_gone_already_is_no_error() {
    let mut observation = cluster(8);
    let order = order(&observation.group, &[(3, Reason::Removed)]);
    instance(&mut observation, 3).ec2 = Ec2State::ShuttingDown;
    let calls = run(&order, &observation.group);
    assert_eq!((calls.release, calls.errors), (Vec::new(), Vec::new()));
}

#[test]
fn s14_only_what_is_gone_still_is_detached() {
    let mut observation = cluster(8);
    let order = Order {
        detach: [3, 4, 5, 6, 77].map(id).into(),
        ..Order::default()
    };
    let states = [
        Ec2State::Terminated,
        Ec2State::Absent,
        Ec2State::Running,
        Ec2State::Stopped,
    ];
    for (machine, ec2) in (3..).zip(states) {
        instance(&mut observation, machine).ec2 = ec2;
        instance(&mut observation, machine).healthy = false;
    }
    assert_eq!(run(&order, &observation.group).detach, [id(3), id(4)]);
    instance(&mut observation, 3).healthy = true;
    instance(&mut observation, 4).lifecycle = "Standby".into();
    assert_eq!(run(&order, &observation.group).detach, [""; 0]);
}

#[test]
fn s4_active_members_get_the_mark_once() {
    let mut observation = cluster(8);
    instance(&mut observation, 3).joined = false;
    instance(&mut observation, 4).joined = false;
    let order = Order {
        active: [1, 3, 77].map(id).into(),
        ..Order::default()
    };
    assert_eq!(run(&order, &observation.group).mark_joined, [id(3)]);
}

#[test]
fn s13_twenty_a_run_and_all_of_them_in_turn() {
    let observation = cluster(53);
    let mut seen = BTreeSet::new();
    for minute in 0..53 {
        let now = now() + SignedDuration::from_mins(minute);
        let calls = authorise(
            &Order::default(),
            &observation.group,
            now,
            &Settings::default(),
        );
        assert_eq!(calls.check_termination_protection.len(), 20);
        seen.extend(calls.check_termination_protection);
        if minute == 2 {
            assert_eq!(seen.len(), 53);
        }
    }
    assert_eq!(seen.len(), 53);
    let none = authorise(
        &Order::default(),
        &cluster(0).group,
        now(),
        &Settings::default(),
    );
    assert_eq!(none, AwsCalls::default());
}
