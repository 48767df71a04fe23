//! What holds of every decision.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::{
    Action, CallKind, Class, Decision, Ec2State, Instance, Observation, Purpose, Rule, RuleSet,
    Settings, Verdict, decide,
};
use super::fixture::{
    ago, client, cluster, container, containers, deactivated, down, drain, drive, drop_port,
    each_container, fail, forget, gateway, gateways, instance, join, leave_group, nfs, out, reads,
    recount, safe, unprotect, unused_drive,
};
use crate::weka::ids::{ContainerId, ProcessId};
use crate::weka::types::{ContainerStatus, DriveStatus, Mode, Port, State};

/// Machines that may be harmed; a small cluster has fewer members, the others are strangers.
const MACHINES: u32 = 9;

/// One thing that happened to a machine.
type Event = (u8, u32, i64);

fn event() -> impl Strategy<Value = Event> {
    (
        0..27_u8,
        1..=MACHINES,
        prop_oneof![0..20_i64, 100..140_i64, 170..190_i64, 4000..6000_i64],
    )
}

/// Gateways that may be harmed.
const GATEWAYS: u32 = 4;

/// A group of gateways: how many, its targets, and what happened to them.
fn with_gateways() -> impl Strategy<Value = Observation> {
    let desired = prop_oneof![3 => Just(None), 2 => (0..=GATEWAYS).prop_map(Some)];
    let event = (
        0..14_u8,
        (1..=GATEWAYS).prop_map(gateway),
        prop_oneof![0..20_i64, 50..70_i64, 100..140_i64, 170..190_i64],
    );
    (
        backends(),
        1..=GATEWAYS,
        desired.clone(),
        desired,
        vec(event, 0..6),
    )
        .prop_map(|(mut observation, count, desired, previous, events)| {
            gateways(&mut observation, count);
            if let Some(desired) = desired {
                nfs(&mut observation).group.desired = desired;
                nfs(&mut observation).previous_desired = previous;
            }
            for event in events {
                apply_to_gateway(&mut observation, event);
            }
            observation
        })
}

fn apply_to_gateway(observation: &mut Observation, (kind, machine, minutes): Event) {
    let id = containers(machine)[2];
    let is_member = nfs(observation)
        .group
        .instances
        .iter()
        .any(|each| each.id == super::fixture::id(machine));
    match kind {
        0 if is_member => instance(observation, machine).launched = Some(ago(minutes)),
        1 if is_member => {
            let instance = instance(observation, machine);
            instance.ec2 =
                [Ec2State::Stopped, Ec2State::Terminated, Ec2State::Absent][minutes as usize % 3];
            instance.healthy = minutes % 2 == 0;
        }
        2 if is_member => instance(observation, machine).lifecycle = "Standby".into(),
        3 => leave_group(observation, machine),
        _ => {}
    }
    if !observation.reads().unwrap().containers.contains_key(&id) {
        return;
    }
    match kind {
        4 | 5 => down(observation, machine, minutes),
        6 => drain(observation, machine),
        7 => out(observation, machine),
        8 => {
            fail(observation, id, minutes);
            container(observation, id).status = ContainerStatus::Degraded;
        }
        9 | 10 => drop_port(observation, machine),
        11 => {
            let address = super::fixture::address(machine);
            nfs(observation).interface_group_ips.remove(&address);
        }
        12 => forget(observation, machine),
        13 => {
            let port = format!("ens{}", minutes % 9);
            let port = Port {
                container: id,
                port,
            };
            reads(observation).interface_groups[0].ports.push(port);
        }
        _ => {}
    }
}

fn observation() -> impl Strategy<Value = Observation> {
    prop_oneof![2 => backends(), 1 => with_gateways()]
}

fn backends() -> impl Strategy<Value = Observation> {
    let desired = prop_oneof![3 => Just(None), 2 => (0..12_u32).prop_map(Some)];
    (5..=MACHINES, desired.clone(), desired, vec(event(), 0..8)).prop_map(
        |(machines, desired, previous, events)| {
            let mut observation = cluster(machines);
            if let Some(desired) = desired {
                observation.group.desired = desired;
                observation.previous_desired = Some(desired);
            }
            if let Some(previous) = previous {
                observation.previous_desired = Some(previous);
            }
            for event in events {
                apply(&mut observation, event);
            }
            observation
        },
    )
}

fn knows(observation: &Observation, machine: u32) -> bool {
    let reads = observation.reads().unwrap();
    containers(machine)
        .iter()
        .all(|id| reads.containers.contains_key(id))
        && reads
            .drives
            .values()
            .filter(|drive| drive.container == containers(machine)[0])
            .count()
            == 2
}

/// Events that make no sense of a machine are none.
fn apply(observation: &mut Observation, (kind, machine, minutes): Event) {
    let is_member = observation
        .group
        .instances
        .iter()
        .any(|each| each.id == super::fixture::id(machine));
    match kind {
        0..=2 if is_member => {
            let instance = instance(observation, machine);
            match kind {
                0 => instance.lifecycle = ["Standby", "Terminating"][minutes as usize % 2].into(),
                1 => instance.launched = Some(ago(minutes)),
                _ => {
                    instance.ec2 = [
                        Ec2State::Pending,
                        Ec2State::Stopped,
                        Ec2State::ShuttingDown,
                        Ec2State::Terminated,
                        Ec2State::Absent,
                    ][minutes as usize % 5];
                    instance.healthy = minutes % 3 == 0;
                }
            }
            return;
        }
        3 => return leave_group(observation, machine),
        4 => {
            client(
                observation,
                900 + machine,
                &super::fixture::address(machine),
            );
            return;
        }
        5 => return unprotect(observation),
        6 => {
            join(observation, 20 + machine);
            return each_container(observation, 20 + machine, |container| {
                container.host_ip = Some(super::fixture::address(machine));
            });
        }
        _ => {}
    }
    if !knows(observation, machine) {
        return;
    }
    let part = containers(machine)[minutes as usize % 3];
    match kind {
        7..=9 => down(observation, machine, minutes),
        10 => fail(observation, part, minutes),
        11 | 12 => drain(observation, machine),
        13 | 14 => out(observation, machine),
        15 | 16 => unused_drive(observation, machine),
        17 => drive(observation, machine * 2).should_be_active = false,
        18 => drive(observation, machine * 2 + 1).status = DriveStatus::Failed,
        19 => container(observation, part).state = State::Deactivating,
        20 => container(observation, part).status = ContainerStatus::Degraded,
        21 => container(observation, part).state = State::Other("JOINING".into()),
        22 => container(observation, part).member_of_leadership = true,
        23 => each_container(observation, machine, |container| {
            container.added_time = Some(ago(minutes));
        }),
        24 => each_container(observation, machine, |container| {
            container.aws.instance_id = None;
        }),
        25 => each_container(observation, machine, |container| {
            container.state = State::Removing;
        }),
        26 => forget(observation, machine),
        _ => {}
    }
}

/// Containers whose every word is any word.
fn nonsense() -> impl Strategy<Value = Observation> {
    let word = |words: &'static [&'static str]| prop::sample::select(words);
    let address = word(&["", "10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    let container = (
        (
            0..30_u32,
            word(&["backend", "backend", "backend", "client"]),
        ),
        prop::option::of(address),
        prop::option::of(word(&["i-0001", "i-0002", ""])),
        word(&["ACTIVE", "INACTIVE", "DEACTIVATING", "REMOVING", "NEW"]),
        word(&["UP", "DOWN", "INACTIVE", "DEGRADED", "NEW"]),
        prop::option::of(word(&["one", "two"])),
        prop::option::of(word(&["drives0", "compute0"])),
    );
    let drive = (
        prop::option::of(0..30_u32),
        word(&["ACTIVE", "INACTIVE", "PHASING_OUT", "NEW"]),
        any::<bool>(),
    );
    let instance = (0..4_u32, 0..4_u32, any::<bool>());
    (
        vec(container, 0..8),
        vec(drive, 0..4),
        vec(instance, 0..4),
        0..6_u32,
    )
        .prop_map(|(containers, drives, instances, desired)| {
            let mut observation = cluster(1);
            let pattern = reads(&mut observation).clone();
            let (_, first) = pattern.containers.first_key_value().unwrap();
            let (_, first_drive) = pattern.drives.first_key_value().unwrap();
            observation.group.desired = desired;
            let member = observation.group.instances.pop().unwrap();
            for (number, address, is_alive) in instances {
                let mut member = member.clone();
                member.id = super::fixture::id(number);
                member.private_ip = Some(super::fixture::address(address));
                member.ec2 = if is_alive {
                    Ec2State::Running
                } else {
                    Ec2State::Absent
                };
                observation.group.instances.push(member);
            }
            let reads = reads(&mut observation);
            reads.containers.clear();
            for ((number, mode), address, instance, state, status, identifier, name) in containers {
                let mut container = first.clone();
                container.mode = Some(Mode::from(mode.to_owned()));
                container.host_ip = address.map(Into::into);
                container.ips.clear();
                container.aws.instance_id = instance.map(Into::into);
                container.state = State::from(state.to_owned());
                container.status = ContainerStatus::from(status.to_owned());
                container.machine_identifier = identifier.map(Into::into);
                container.container_name = name.map(Into::into);
                reads.containers.insert(ContainerId::new(number), container);
            }
            for (number, (host, status, should_be_active)) in (100..).zip(drives) {
                let mut drive = first_drive.clone();
                drive.container = host.map_or(ContainerId::INVALID, ContainerId::new);
                drive.status = DriveStatus::from(status.to_owned());
                drive.should_be_active = should_be_active;
                reads
                    .drives
                    .insert(crate::weka::ids::DriveId::new(number), drive);
            }
            recount(&mut observation);
            observation
        })
}

/// What is not left alone, for a message.
fn acted(decision: &Decision) -> Vec<(&String, Class, Action, Rule)> {
    let verdicts = decision.machines.iter();
    verdicts
        .filter(|verdict| verdict.action != Action::Leave)
        .map(|verdict| (&verdict.key, verdict.class, verdict.action, verdict.rule))
        .collect()
}

fn count(decision: &Decision, actions: &[Action]) -> usize {
    let verdicts = decision.machines.iter();
    verdicts
        .filter(|verdict| actions.contains(&verdict.action))
        .count()
}

/// What a decision may never be.
fn check(observation: &Observation, decision: &Decision) -> Result<(), TestCaseError> {
    let keys: Vec<&String> = decision
        .machines
        .iter()
        .map(|verdict| &verdict.key)
        .collect();
    prop_assert!(keys.is_sorted_by(|one, other| one < other), "{:?}", keys);
    for instance in observation.instances() {
        let verdicts = decision.machines.iter();
        let of = verdicts.filter(|verdict| verdict.instance.as_ref() == Some(&instance.id));
        prop_assert_eq!(of.count(), 1, "{}", &instance.id);
    }
    if decision.gate.is_some() {
        prop_assert!(decision.calls.is_empty() && decision.terminate.is_empty());
        prop_assert!(decision.detach.is_empty() && decision.protect.is_empty());
        prop_assert_eq!(decision.errors.len(), 1);
        return Ok(());
    }
    let reads = observation.reads().unwrap();
    let seen: Vec<ContainerId> = decision
        .machines
        .iter()
        .flat_map(|each| each.containers.clone())
        .collect();
    let backends: BTreeSet<ContainerId> = reads
        .containers
        .iter()
        .filter(|(_, container)| container.mode == Some(Mode::Backend))
        .map(|(id, _)| *id)
        .collect();
    prop_assert_eq!(seen.len(), backends.len());
    prop_assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), backends);

    let killed: BTreeSet<&String> = decision.terminate.iter().map(|kill| &kill.id).collect();
    prop_assert_eq!(killed.len(), decision.terminate.len());
    for kill in &decision.terminate {
        let groups = observation.groups();
        let mut members = groups
            .filter(|group| group.name == kill.group)
            .flat_map(|group| &group.instances);
        let member = members.find(|each| each.id == kill.id);
        prop_assert!(member.is_some_and(Instance::is_member), "{}", &kill.id);
        prop_assert!(!decision.protect.contains(&kill.id) && !decision.detach.contains(&kill.id));
        prop_assert!(
            kill.needs
                .iter()
                .all(|index| decision.calls[*index].kind == CallKind::RemoveContainer)
        );
    }
    for call in &decision.calls {
        if let Some(machine) = &call.machine {
            prop_assert!(keys.contains(&machine));
        }
        for (id, container) in &reads.containers {
            let is_client = container.mode == Some(Mode::Client);
            let params = call.params.to_string();
            let (word, number) = (
                format!("\"{id}\""),
                format!("\"host_id\":{},", id.number().unwrap()),
            );
            let names_it = params.contains(&word) || params.contains(&number);
            prop_assert!(!is_client || !names_it, "{}", params);
        }
    }
    check_deactivations(observation, decision)
}

fn check_deactivations(
    observation: &Observation,
    decision: &Decision,
) -> Result<(), TestCaseError> {
    let reads = observation.reads().unwrap();
    for of_gateways in [false, true] {
        let begun = decision.machines.iter().filter(|verdict| {
            verdict.action == Action::Deactivate
                && matches!(verdict.rule, Rule::S8)
                && is_gateway(observation, verdict) == of_gateways
        });
        prop_assert!(begun.count() <= 2, "{:?}", decision.machines);
    }
    let backends = || {
        let verdicts = decision.machines.iter();
        verdicts.filter(|verdict| !is_gateway(observation, verdict))
    };
    let draining = backends().filter(|verdict| {
        verdict.class == Class::Deactivating
            || verdict.containers.iter().any(|id| {
                matches!(
                    reads.containers[id].state,
                    State::Deactivating | State::Removing | State::Inactive
                )
            })
    });
    let by_size: Vec<_> = backends()
        .filter(|verdict| verdict.action == Action::Deactivate && verdict.rule == Rule::S7)
        .collect();
    if by_size.is_empty() {
        return Ok(());
    }
    prop_assert!(draining.count() <= 2);
    let is_up = |id: &ContainerId| reads.containers[id].status == ContainerStatus::Up;
    let staying = decision.machines.iter().filter(|verdict| {
        let instance = observation
            .group
            .instances
            .iter()
            .find(|each| Some(&each.id) == verdict.instance.as_ref());
        verdict.action == Action::Leave
            && matches!(verdict.class, Class::Healthy | Class::Unhealthy)
            && instance.is_some_and(Instance::is_member)
            && verdict.containers.iter().all(is_up)
    });
    let staying = staying.count();
    prop_assert!(staying >= 6, "{staying} stay up");
    prop_assert!(staying >= observation.group.desired as usize);
    prop_assert!(reads.status.is_fully_protected());
    Ok(())
}

fn is_gateway(observation: &Observation, verdict: &Verdict) -> bool {
    let gateways = observation.nfs.iter().flat_map(|nfs| &nfs.group.instances);
    gateways
        .map(|each| &each.id)
        .any(|id| Some(id) == verdict.instance.as_ref())
}

/// What the vendor's rules may never be, either: silent about anybody.
fn check_upstream(observation: &Observation) -> Result<(), TestCaseError> {
    let decision = super::fixture::upstream(observation);
    let keys = decision.machines.iter().map(|verdict| &verdict.key);
    prop_assert!(keys.is_sorted_by(|one, other| one < other));
    for instance in observation.instances() {
        let verdicts = decision.machines.iter();
        let of = verdicts.filter(|verdict| verdict.instance.as_ref() == Some(&instance.id));
        prop_assert_eq!(of.count(), 1, "{}: {:?}", &instance.id, decision);
    }
    if decision.gate.is_some() {
        prop_assert!(decision.calls.is_empty() && decision.terminate.is_empty());
        prop_assert!(decision.detach.is_empty());
        return Ok(());
    }
    let mut seen: Vec<ContainerId> = decision
        .machines
        .iter()
        .flat_map(|each| each.containers.clone())
        .collect();
    seen.sort();
    let backends = observation.reads().unwrap().containers.iter();
    let backends = backends.filter(|(_, container)| container.mode == Some(Mode::Backend));
    prop_assert_eq!(seen, backends.map(|(id, _)| *id).collect::<Vec<_>>());
    Ok(())
}

/// The same in another order, wherever there is one.
fn permuted(observation: &Observation, turn: usize, is_reversed: bool) -> Observation {
    fn permute<T>(list: &mut [T], turn: usize, is_reversed: bool) {
        if is_reversed {
            list.reverse();
        }
        if !list.is_empty() {
            list.rotate_left(turn % list.len());
        }
    }
    let mut other = observation.clone();
    permute(&mut other.group.instances, turn, is_reversed);
    permute(&mut other.group.suspended, turn, is_reversed);
    if let Some(nfs) = &mut other.nfs {
        permute(&mut nfs.group.instances, turn, is_reversed);
        permute(&mut nfs.group.suspended, turn, is_reversed);
    }
    let reads = reads(&mut other);
    permute(&mut reads.interface_groups, turn, is_reversed);
    for group in &mut reads.interface_groups {
        permute(&mut group.ports, turn, is_reversed);
    }
    for container in reads.containers.values_mut() {
        permute(&mut container.ips, turn, is_reversed);
    }
    other
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_decision_is_whole_and_within_bounds(observation in observation()) {
        check(&observation, &safe(&observation))?;
    }

    #[test]
    fn the_vendors_rules_speak_of_everybody(observation in observation()) {
        check_upstream(&observation)?;
    }

    #[test]
    fn with_gateways_no_more_is_done_about_backends(observation in with_gateways()) {
        let mut without = observation.clone();
        without.nfs = None;
        for number in 1..=GATEWAYS {
            forget(&mut without, gateway(number));
        }
        let (with, without) = (safe(&observation), safe(&without));
        let is_gateways = |machine: &Option<String>| {
            machine.as_ref().is_some_and(|key| (1..=GATEWAYS).any(|number| *key == super::fixture::key(gateway(number))))
        };
        for call in with.calls.iter().filter(|call| !is_gateways(&call.machine)) {
            prop_assert!(without.calls.contains(call), "{:?}", call);
        }
        for kill in with.terminate.iter().filter(|kill| kill.group == observation.group.name) {
            prop_assert!(without.terminate.iter().any(|each| each.id == kill.id), "{:?}", kill);
        }
    }

    #[test]
    fn what_is_missing_of_the_gateways_adds_no_call(observation in with_gateways()) {
        let all = safe(&observation);
        let without: [fn(&mut Observation); 3] = [
            |observation| reads(observation).interface_groups.clear(),
            |observation| nfs(observation).previous_desired = None,
            |observation| nfs(observation).interface_group_ips.clear(),
        ];
        for take in without {
            let mut less = observation.clone();
            take(&mut less);
            let fewer = safe(&less);
            prop_assert!(fewer.calls.iter().all(|call| all.calls.contains(call)), "{:?}, but {:?}", acted(&all), acted(&fewer));
            prop_assert!(fewer.terminate.iter().all(|kill| all.terminate.contains(kill)));
        }
    }

    #[test]
    fn order_makes_no_difference(observation in observation(), turn in 0..9_usize, reversed: bool) {
        for rules in [RuleSet::Safe, RuleSet::Upstream] {
            let settings = Settings { rules, ..Settings::default() };
            let other = permuted(&observation, turn, reversed);
            prop_assert_eq!(decide(&observation, &settings), decide(&other, &settings));
        }
    }

    #[test]
    fn a_list_that_is_missing_stops_everything(observation in observation()) {
        let without: [fn(&mut crate::weka::types::Reads); 4] = [
            |reads| reads.containers.clear(),
            |reads| reads.drives.clear(),
            |reads| reads.processes.clear(),
            |reads| (reads.status.hosts, reads.status.containers) = (None, None),
        ];
        for take in without {
            let mut less = observation.clone();
            take(reads(&mut less));
            prop_assert!(safe(&less).gate.is_some());
        }
    }

    #[test]
    fn a_backend_that_is_missing_stops_everything(observation in observation(), at: prop::sample::Index) {
        let mut less = observation;
        let backends = reads(&mut less).containers.iter();
        let ids: Vec<_> = backends
            .filter(|(_, container)| container.mode == Some(Mode::Backend))
            .map(|(id, _)| *id)
            .collect();
        if ids.is_empty() {
            return Ok(());
        }
        reads(&mut less).containers.remove(at.get(&ids));
        prop_assert!(safe(&less).gate.is_some());
    }

    #[test]
    fn what_is_missing_of_the_status_adds_no_call(observation in observation()) {
        let all = safe(&observation);
        let without: [fn(&mut Observation); 4] = [
            |observation| observation.previous_desired = None,
            |observation| reads(observation).status.rebuild = None,
            |observation| reads(observation).status.capacity = None,
            |observation| super::fixture::rebuild(observation).protection_state.clear(),
        ];
        for take in without {
            let mut less = observation.clone();
            take(&mut less);
            let fewer = safe(&less);
            prop_assert!(fewer.calls.iter().all(|call| all.calls.contains(call)));
            prop_assert!(fewer.terminate.iter().all(|kill| all.terminate.contains(kill)));
        }
    }

    #[test]
    fn a_process_or_a_time_that_is_missing_lets_no_more_go(
        observation in observation(),
        machine in prop_oneof![3 => 1..=MACHINES, 1 => (1..=GATEWAYS).prop_map(gateway)],
        part in 0..3_usize,
        what in 0..3,
    ) {
        let mut less = observation.clone();
        let id = containers(machine)[part];
        if !reads(&mut less).containers.contains_key(&id) {
            return Ok(());
        }
        match what {
            0 => {
                let process = ProcessId::new(id.number().unwrap() * 20);
                reads(&mut less).processes.remove(&process);
            }
            1 => container(&mut less, id).added_time = None,
            _ => {
                container(&mut less, id).state_changed_time = None;
                let process = super::fixture::management(&mut less, id);
                process.up_since = None;
                process.last_fencing_time = None;
            }
        }
        let (all, fewer) = (safe(&observation), safe(&less));
        prop_assert_eq!(&all.gate, &fewer.gate);
        for actions in [[Action::Deactivate, Action::Deactivate], [Action::Remove, Action::Terminate]] {
            prop_assert!(count(&fewer, &actions) <= count(&all, &actions), "{:?}, but {:?}", acted(&all), acted(&fewer));
        }
        let kills = fewer.terminate.iter().all(|kill| all.terminate.iter().any(|each| each.id == kill.id));
        prop_assert!(kills, "{:?}, but {:?}", acted(&all), acted(&fewer));
        // One that is well without that time may go for size in place of for its health, and no other.
        let of = |decision, purpose| deactivated(decision, &[purpose]);
        let not_ill = of(&fewer, Purpose::Size).difference(&of(&all, Purpose::Health)).count();
        prop_assert!(not_ill <= of(&all, Purpose::Size).len(), "{:?}, but {:?}", acted(&all), acted(&fewer));
    }

    #[test]
    fn nonsense_is_decided_on_too(observation in nonsense(), turn in 0..9_usize, reversed: bool) {
        let settings = Settings { min_floor: 0, ..Settings::default() };
        let instances = observation.group.instances.iter().map(|each| &each.id);
        let is_unique = instances.collect::<BTreeSet<_>>().len() == observation.group.instances.len();
        let decision = decide(&observation, &settings);
        if is_unique {
            check(&observation, &decision)?;
        } else {
            prop_assert!(decision.gate.is_some());
        }
        prop_assert_eq!(decide(&permuted(&observation, turn, reversed), &settings), decision);
    }
}
