//! A healthy cluster with its group, and ways to harm it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::super::{
    Action, CallKind, Decision, Ec2State, Gateways, Group, Instance, Observation, Purpose, RuleSet,
    Settings, Verdict, decide,
};
use crate::weka::ids::{ContainerId, DriveId, ProcessId};
use crate::weka::types::{
    Aws, Capacity, Clock, Container, ContainerStatus, Containers, Count, Drive, DriveStatus,
    InterfaceGroup, Mode, Port, Process, ProtectionState, Reads, Rebuild, State, Status,
};

/// Bytes of each machine.
const BYTES: u64 = 1000;

pub(super) fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

pub(super) fn ago(minutes: i64) -> Timestamp {
    now() - SignedDuration::from_mins(minutes)
}

pub(super) fn id(machine: u32) -> String {
    format!("i-{machine:04}")
}

pub(super) fn address(machine: u32) -> String {
    format!("10.0.0.{machine}")
}

pub(super) fn key(machine: u32) -> String {
    format!("{} {}", address(machine), id(machine))
}

/// Of drives, compute and frontend.
pub(super) fn containers(machine: u32) -> [ContainerId; 3] {
    [0, 1, 2].map(|part| ContainerId::new(machine * 3 + part))
}

/// Machines 1 to `machines`, the first the oldest; stripes of 3+2 with a hot spare, so that the floor is 6; a third of
/// the capacity is given to file systems.
pub(super) fn cluster(machines: u32) -> Observation {
    let mut observation = Observation {
        now: now(),
        pinned_guid: Some("guid".into()),
        previous_desired: Some(machines),
        group: Group {
            name: "backends".into(),
            desired: machines,
            suspended: [
                "AZRebalance",
                "InstanceRefresh",
                "ReplaceUnhealthy",
                "Terminate",
            ]
            .map(Into::into)
            .into(),
            instances: (1..=machines).map(member).collect(),
        },
        nfs: None,
        weka: Ok(Reads {
            status: status(machines),
            containers: BTreeMap::new(),
            drives: BTreeMap::new(),
            processes: BTreeMap::new(),
            interface_groups: Vec::new(),
            overrides: BTreeMap::new(),
        }),
    };
    for machine in 1..=machines {
        join(&mut observation, machine);
    }
    observation
}

fn status(machines: u32) -> Status {
    Status {
        guid: "guid".into(),
        io_status: "STARTED".into(),
        upgrade: Some(String::new()),
        upgrade_info: None,
        hot_spare: 1,
        stripe_data_drives: 3,
        stripe_protection_drives: 2,
        time: Clock {
            cluster_time: Some(now()),
        },
        hosts: None,
        containers: None,
        capacity: Some(Capacity {
            total_bytes: u64::from(machines) * BYTES,
            unprovisioned_bytes: u64::from(machines) * BYTES * 2 / 3,
        }),
        rebuild: Some(Rebuild {
            enough_active_f_ds: true,
            protection_state: vec![ProtectionState {
                num_failures: 0,
                percent: 100.0,
            }],
            unavailable_percent: 0.0,
            unavailable_mib: 0.0,
        }),
    }
}

fn member(machine: u32) -> Instance {
    Instance {
        id: id(machine),
        private_ip: Some(address(machine)),
        launched: Some(ago(20_000 - i64::from(machine))),
        ec2: Ec2State::Running,
        lifecycle: "InService".into(),
        healthy: true,
        protected: true,
        attached: false,
        joined: true,
    }
}

/// Puts a machine's containers, drives and processes into the cluster.
pub(super) fn join(observation: &mut Observation, machine: u32) {
    let reads = reads(observation);
    for (container, name) in
        containers(machine)
            .into_iter()
            .zip(["drives0", "compute0", "frontend0"])
    {
        reads.containers.insert(
            container,
            Container {
                mode: Some(Mode::Backend),
                container_name: Some(name.into()),
                machine_identifier: Some(format!("machine-{machine}")),
                host_ip: Some(address(machine)),
                ips: vec![address(machine)],
                state: State::Active,
                status: ContainerStatus::Up,
                added_time: Some(ago(19_000 - i64::from(machine))),
                state_changed_time: Some(ago(18_000)),
                aws: Aws {
                    instance_id: Some(id(machine)),
                },
                member_of_leadership: false,
                auto_remove_timeout: None,
            },
        );
        let number = container.number().unwrap();
        for slot in 0..2 {
            let process = Process {
                container,
                status: "UP".into(),
                up_since: Some(ago(18_000)),
                last_fencing_time: None,
            };
            let id = ProcessId::new(number * 20 + slot);
            reads.processes.insert(id, process);
        }
    }
    for drive in 0..2 {
        let number = machine * 2 + drive;
        reads.drives.insert(
            DriveId::new(number),
            Drive {
                uuid: format!("drive-{number}"),
                container: containers(machine)[0],
                status: DriveStatus::Active,
                should_be_active: true,
            },
        );
    }
    recount(observation);
}

/// The number of a gateway, from 1.
pub(super) fn gateway(number: u32) -> u32 {
    40 + number
}

/// So many gateways, each a single container with a port in the interface group.
pub(super) fn gateways(observation: &mut Observation, count: u32) {
    let machines = || (1..=count).map(gateway);
    for machine in machines() {
        join(observation, machine);
        let [_, _, frontend] = containers(machine);
        let reads = reads(observation);
        let others = [containers(machine)[0], containers(machine)[1]];
        reads.containers.retain(|id, _| !others.contains(id));
        reads
            .drives
            .retain(|_, drive| !others.contains(&drive.container));
        reads
            .processes
            .retain(|_, process| !others.contains(&process.container));
        if reads.interface_groups.is_empty() {
            reads.interface_groups.push(InterfaceGroup {
                name: "exports".into(),
                kind: "NFS".into(),
                ports: Vec::new(),
            });
        }
        reads.interface_groups[0].ports.push(Port {
            container: frontend,
            port: "ens6".into(),
        });
    }
    recount(observation);
    observation.nfs = Some(Gateways {
        group: Group {
            name: "gateways".into(),
            desired: count,
            suspended: observation.group.suspended.clone(),
            instances: machines().map(member).collect(),
        },
        previous_desired: Some(count),
        interface_group_ips: machines().map(address).collect(),
    });
}

pub(super) fn nfs(observation: &mut Observation) -> &mut Gateways {
    observation.nfs.as_mut().unwrap()
}

/// It serves no more.
pub(super) fn drop_port(observation: &mut Observation, machine: u32) {
    for group in &mut reads(observation).interface_groups {
        let ids = containers(machine);
        group.ports.retain(|port| !ids.contains(&port.container));
    }
}

/// Makes the cluster's own count right.
pub(super) fn recount(observation: &mut Observation) {
    let reads = reads(observation);
    let backends = reads.containers.values();
    let total = backends
        .filter(|container| container.mode != Some(Mode::Client))
        .count() as u64;
    reads.status.hosts = Some(Containers {
        backends: Some(Count { total }),
    });
}

pub(super) fn reads(observation: &mut Observation) -> &mut Reads {
    observation.weka.as_mut().unwrap()
}

pub(super) fn rebuild(observation: &mut Observation) -> &mut Rebuild {
    reads(observation).status.rebuild.as_mut().unwrap()
}

/// Not all data has all its copies.
pub(super) fn unprotect(observation: &mut Observation) {
    rebuild(observation).protection_state[0].percent = 96.0;
}

pub(super) fn instance(observation: &mut Observation, machine: u32) -> &mut Instance {
    let gateways = observation.nfs.iter_mut();
    let gateways = gateways.flat_map(|nfs| &mut nfs.group.instances);
    let mut instances = observation.group.instances.iter_mut().chain(gateways);
    let id = id(machine);
    instances.find(|each| each.id == id).unwrap()
}

pub(super) fn container(observation: &mut Observation, id: ContainerId) -> &mut Container {
    reads(observation).containers.get_mut(&id).unwrap()
}

/// Changes each container of a machine.
pub(super) fn each_container(
    observation: &mut Observation,
    machine: u32,
    change: impl Fn(&mut Container),
) {
    for id in containers_there(observation, machine) {
        change(container(observation, id));
    }
}

/// Those of its containers that are in the cluster.
fn containers_there(observation: &mut Observation, machine: u32) -> Vec<ContainerId> {
    let known = &reads(observation).containers;
    let ids = containers(machine).into_iter();
    ids.filter(|id| known.contains_key(id)).collect()
}

pub(super) fn each_drive(observation: &mut Observation, machine: u32, change: impl Fn(&mut Drive)) {
    for number in [machine * 2, machine * 2 + 1] {
        let drives = &mut reads(observation).drives;
        drives
            .get_mut(&DriveId::new(number))
            .into_iter()
            .for_each(&change);
    }
}

pub(super) fn drive(observation: &mut Observation, number: u32) -> &mut Drive {
    let drives = &mut reads(observation).drives;
    drives.get_mut(&DriveId::new(number)).unwrap()
}

/// The management process of a container.
pub(super) fn management(observation: &mut Observation, container: ContainerId) -> &mut Process {
    let id = ProcessId::new(container.number().unwrap() * 20);
    reads(observation).processes.get_mut(&id).unwrap()
}

/// One container goes down.
pub(super) fn fail(observation: &mut Observation, id: ContainerId, minutes: i64) {
    let failed = container(observation, id);
    failed.status = ContainerStatus::Down;
    failed.state_changed_time = Some(ago(minutes));
    management(observation, id).status = "DOWN".into();
}

/// The whole machine goes down.
pub(super) fn down(observation: &mut Observation, machine: u32, minutes: i64) {
    for id in containers_there(observation, machine) {
        fail(observation, id, minutes);
    }
}

/// A drive of it is out of use, so that it is not well, and up.
pub(super) fn unused_drive(observation: &mut Observation, machine: u32) {
    drive(observation, machine * 2).status = DriveStatus::Inactive;
}

/// It is being emptied.
pub(super) fn drain(observation: &mut Observation, machine: u32) {
    each_container(observation, machine, |container| {
        container.state = State::Deactivating;
        container.status = ContainerStatus::Draining;
    });
    each_drive(observation, machine, |drive| {
        drive.status = DriveStatus::PhasingOut;
        drive.should_be_active = false;
    });
}

/// It is empty, and out of the cluster.
pub(super) fn out(observation: &mut Observation, machine: u32) {
    each_container(observation, machine, |container| {
        container.state = State::Inactive;
        container.status = ContainerStatus::Inactive;
    });
    each_drive(observation, machine, |drive| {
        drive.status = DriveStatus::Inactive;
        drive.should_be_active = false;
    });
}

/// Weka does not know it any more.
pub(super) fn forget(observation: &mut Observation, machine: u32) {
    let ids = containers(machine);
    let reads = reads(observation);
    reads.containers.retain(|id, _| !ids.contains(id));
    reads
        .drives
        .retain(|_, drive| !ids.contains(&drive.container));
    let processes = &mut reads.processes;
    processes.retain(|_, process| !ids.contains(&process.container));
    recount(observation);
}

/// The group does not have it any more.
pub(super) fn leave_group(observation: &mut Observation, machine: u32) {
    let gateways = observation.nfs.iter_mut().map(|nfs| &mut nfs.group);
    for group in std::iter::once(&mut observation.group).chain(gateways) {
        group.instances.retain(|each| each.id != id(machine));
    }
}

/// A client's container, which names no instance.
pub(super) fn client(observation: &mut Observation, number: u32, address: &str) -> ContainerId {
    let mut client = container(&mut cluster(1), containers(1)[2]).clone();
    client.mode = Some(Mode::Client);
    client.container_name = Some("client".into());
    client.machine_identifier = Some("client".into());
    client.host_ip = Some(address.into());
    client.ips = vec![address.into()];
    client.aws.instance_id = None;
    let id = ContainerId::new(number);
    reads(observation).containers.insert(id, client);
    id
}

/// The target, for long enough to count.
pub(super) fn resize(observation: &mut Observation, desired: u32) {
    observation.group.desired = desired;
    observation.previous_desired = Some(desired);
}

pub(super) fn safe(observation: &Observation) -> Decision {
    decide(observation, &Settings::default())
}

pub(super) fn upstream(observation: &Observation) -> Decision {
    let settings = Settings {
        rules: RuleSet::Upstream,
        ..Settings::default()
    };
    decide(observation, &settings)
}

/// The machine of this number, by its address.
pub(super) fn verdict(decision: &Decision, machine: u32) -> &Verdict {
    let (id, key) = (id(machine), key(machine));
    let mut verdicts = decision.machines.iter();
    let found = verdicts.find(|verdict| verdict.key == key || verdict.key == id);
    found.unwrap_or_else(|| panic!("no verdict on {machine}: {:?}", decision.machines))
}

pub(super) fn action(decision: &Decision, machine: u32) -> Action {
    verdict(decision, machine).action
}

/// Keys of machines that drives or containers are deactivated of, for any of these purposes.
pub(super) fn deactivated(decision: &Decision, purposes: &[Purpose]) -> BTreeSet<String> {
    let kinds = [CallKind::DeactivateDrives, CallKind::DeactivateContainers];
    let calls = decision.calls.iter();
    calls
        .filter(|call| kinds.contains(&call.kind) && purposes.contains(&call.purpose))
        .filter_map(|call| call.machine.clone())
        .collect()
}

pub(super) fn keys(machines: &[u32]) -> BTreeSet<String> {
    machines.iter().map(|machine| key(*machine)).collect()
}

/// Ids that would be terminated, in order.
pub(super) fn killed(decision: &Decision) -> Vec<&str> {
    let kills = decision.terminate.iter();
    kills.map(|kill| kill.id.as_str()).collect()
}

/// Nothing is asked of Weka or of AWS, and nobody is bothered.
pub(super) fn assert_quiet(decision: &Decision) {
    assert_eq!(decision.gate, None);
    assert_eq!(decision.calls, []);
    assert_eq!(decision.terminate, []);
    assert_eq!(decision.detach, [""; 0]);
    assert_eq!(decision.errors, []);
}
