//! Which containers are one machine, and which member of the group a machine is.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::decision::{Gate, Rule};
use super::observation::{Instance, Observation};
use crate::weka::ids::ContainerId;
use crate::weka::types::{
    Container, ContainerStatus, Drive, DriveStatus, Mode, Process, Reads, State,
};

/// A machine has a container each for drives, compute and frontend. Source: Weka's multi-container layout.
pub(super) const MAX_CONTAINERS: usize = 3;

/// A machine with backend containers in the cluster.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    /// Address and instance, as in a verdict.
    pub(super) key: String,
    /// The management address of its containers.
    pub(super) address: Option<&'a str>,
    /// What its containers say it is.
    pub(super) instance_id: Option<&'a str>,
    /// The living member of a group that it is.
    pub(super) instance: Option<&'a Instance>,
    /// Whether that group is the gateways'.
    pub(super) is_gateway: bool,
    /// At least one, by id.
    pub(super) parts: Vec<Part<'a>>,
}

/// A backend container with what is its own.
#[derive(Debug)]
pub(super) struct Part<'a> {
    pub(super) id: ContainerId,
    pub(super) container: &'a Container,
    /// By drive id.
    pub(super) drives: Vec<&'a Drive>,
    /// Its management process.
    management: Option<&'a Process>,
}

/// Where containers are: their address, and the instance they name or inherit.
type Place<'a> = (Option<&'a str>, Option<&'a str>);

/// Every machine of the cluster, by key.
///
/// # Errors
/// What can not be told apart closes the gate (S1).
pub(super) fn machines<'a>(
    reads: &'a Reads,
    observation: &'a Observation,
) -> Result<Vec<Machine<'a>>, Gate> {
    let mut places: BTreeMap<Place<'a>, Vec<Part<'a>>> = BTreeMap::new();
    let parts = parts(reads)?;
    let named = named_at(&parts);
    for part in parts {
        let place = place(&part, &named)?;
        places.entry(place).or_default().push(part);
    }
    let mut machines = Vec::with_capacity(places.len());
    for ((address, instance_id), parts) in places {
        machines.push(Machine {
            key: key(address, instance_id),
            address,
            instance_id,
            instance: None,
            is_gateway: false,
            parts,
        });
    }
    for machine in &machines {
        machine.check()?;
    }
    find_instances(&mut machines, observation)?;
    machines.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(machines)
}

/// Whether it is a client that went and will be forgotten: its address may be another's by now. One that names its
/// instance is not taken for another's anyway.
pub(super) fn is_bygone_client(container: &Container) -> bool {
    container.mode == Some(Mode::Client)
        && container.status == ContainerStatus::Down
        && container.auto_remove_timeout.is_some_and(|time| time > 0)
        && named_instance(container).is_none()
}

/// Whether the container runs on the instance: if it names an instance, by that alone; otherwise by address (S1).
pub(super) fn belongs(container: &Container, id: &str, private_ip: Option<&str>) -> bool {
    match named_instance(container) {
        Some(named) => named == id,
        None => private_ip.is_some_and(|address| {
            container.host_ip.as_deref() == Some(address)
                || container.ips.iter().any(|each| each == address)
        }),
    }
}

fn named_instance(container: &Container) -> Option<&str> {
    let named = container.aws.instance_id.as_deref();
    named.filter(|id| !id.is_empty())
}

fn host_ip(container: &Container) -> Option<&str> {
    container.host_ip.as_deref().filter(|ip| !ip.is_empty())
}

/// Never an instance's id alone: that is the key of an instance without a machine.
fn key(address: Option<&str>, instance_id: Option<&str>) -> String {
    let address = address.unwrap_or("?");
    instance_id.map_or_else(|| address.to_owned(), |id| format!("{address} {id}"))
}

/// The backends' containers, each with its drives and its management process.
pub(super) fn parts(reads: &Reads) -> Result<Vec<Part<'_>>, Gate> {
    let mut drives: BTreeMap<ContainerId, Vec<&Drive>> = BTreeMap::new();
    for drive in reads.drives.values() {
        drives.entry(drive.container).or_default().push(drive);
    }
    let management: BTreeMap<ContainerId, &Process> = reads
        .processes
        .iter()
        .filter(|(id, _)| id.is_management())
        .map(|(_, process)| (process.container, process))
        .collect();
    let mut parts = Vec::with_capacity(reads.containers.len());
    for (id, container) in &reads.containers {
        match &container.mode {
            Some(Mode::Client) => {}
            Some(Mode::Backend) => parts.push(Part {
                id: *id,
                container,
                drives: drives.remove(id).unwrap_or_default(),
                management: management.get(id).copied(),
            }),
            Some(Mode::Other(word)) => {
                return Err(closed(format!(
                    "container {id} has the unknown mode {word:?}"
                )));
            }
            None => return Err(closed(format!("container {id} does not say its mode"))),
        }
    }
    Ok(parts)
}

/// Instances that containers name, by address, each with the machine identifier beside it.
type Named<'a> = BTreeMap<&'a str, BTreeSet<(&'a str, Option<&'a str>)>>;

fn named_at<'a>(parts: &[Part<'a>]) -> Named<'a> {
    let mut named = Named::new();
    for part in parts {
        if let Some((address, id)) = host_ip(part.container).zip(named_instance(part.container)) {
            let identifier = part.container.machine_identifier.as_deref();
            named.entry(address).or_default().insert((id, identifier));
        }
    }
    named
}

/// A container that names no instance is of the machine that shares its address, if only one does, or else its
/// machine identifier.
fn place<'a>(part: &Part<'a>, named: &Named<'a>) -> Result<Place<'a>, Gate> {
    let address = host_ip(part.container);
    if let Some(id) = named_instance(part.container) {
        return Ok((address, Some(id)));
    }
    let Some(at) = address else {
        let text = format!("container {} names neither address nor instance", part.id);
        return Err(closed(text));
    };
    let there = named.get(at);
    let instances = |same: &dyn Fn(Option<&str>) -> bool| -> BTreeSet<&'a str> {
        let there = there.into_iter().flatten();
        let there = there.filter(|(_, identifier)| same(*identifier));
        there.map(|(id, _)| *id).collect()
    };
    let mut candidates = instances(&|_| true);
    if candidates.len() > 1 {
        let own = part.container.machine_identifier.as_deref();
        candidates = instances(&|identifier| own.is_some() && identifier == own);
        if candidates.len() != 1 {
            let text = format!(
                "container {} names no instance, and several have its address {at}",
                part.id
            );
            return Err(closed(text));
        }
    }
    Ok((address, candidates.pop_first()))
}

/// Tells each machine which living member of which group it is.
fn find_instances<'a>(
    machines: &mut [Machine<'a>],
    observation: &'a Observation,
) -> Result<(), Gate> {
    let mut by_id: BTreeMap<&str, &Instance> = BTreeMap::new();
    for instance in observation.instances() {
        if by_id.insert(&instance.id, instance).is_some() {
            return Err(closed(format!("{} is listed twice", instance.id)));
        }
    }
    let gateways = observation.nfs.iter().flat_map(|nfs| &nfs.group.instances);
    let gateways: BTreeSet<&str> = gateways.map(|instance| instance.id.as_str()).collect();
    by_id.retain(|_, instance| instance.is_alive());
    let mut by_address: BTreeMap<&str, Vec<&Instance>> = BTreeMap::new();
    for instance in by_id.values().copied() {
        if let Some(address) = instance.private_ip.as_deref() {
            by_address.entry(address).or_default().push(instance);
        }
    }
    let mut taken = BTreeMap::new();
    for machine in machines {
        let found: BTreeMap<&str, &'a Instance> = match machine.instance_id {
            Some(id) => by_id.get(id).map(|each| (id, *each)).into_iter().collect(),
            None => machine
                .addresses()
                .filter_map(|address| by_address.get(address))
                .flatten()
                .map(|each| (each.id.as_str(), *each))
                .collect(),
        };
        if found.len() > 1 {
            let text = format!("several instances have an address of {}", machine.key);
            return Err(closed(text));
        }
        let Some((id, instance)) = found.into_iter().next() else {
            continue;
        };
        if let Some(other) = taken.insert(id, machine.key.clone()) {
            return Err(closed(format!("{other} and {} are both {id}", machine.key)));
        }
        machine.instance = Some(instance);
        machine.is_gateway = gateways.contains(id);
        if machine.is_gateway && machine.drives().next().is_some() {
            let text = format!("{} is of the gateways' group, and has drives", machine.key);
            return Err(closed(text));
        }
    }
    Ok(())
}

fn closed(text: String) -> Gate {
    Gate {
        rule: Rule::S1,
        text,
    }
}

impl Machine<'_> {
    fn check(&self) -> Result<(), Gate> {
        if self.parts.len() > MAX_CONTAINERS {
            return Err(closed(format!(
                "{} has {} backend containers, where a machine has at most {MAX_CONTAINERS}",
                self.key,
                self.parts.len()
            )));
        }
        let identifiers: BTreeSet<&str> = self
            .parts
            .iter()
            .filter_map(|part| part.container.machine_identifier.as_deref())
            .collect();
        if identifiers.len() > 1 {
            return Err(closed(format!(
                "the containers of {} have {} machine identifiers",
                self.key,
                identifiers.len()
            )));
        }
        Ok(())
    }

    /// Every address of every container.
    fn addresses(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().flat_map(|part| {
            let all = part.container.ips.iter().map(String::as_str);
            host_ip(part.container).into_iter().chain(all)
        })
    }

    /// Its containers' ids, in order.
    pub(super) fn ids(&self) -> Vec<ContainerId> {
        self.parts.iter().map(|part| part.id).collect()
    }

    /// All its drives.
    pub(super) fn drives(&self) -> impl Iterator<Item = &Drive> {
        self.parts
            .iter()
            .flat_map(|part| part.drives.iter().copied())
    }

    /// Every container in the cluster and well.
    pub(super) fn is_up(&self) -> bool {
        self.parts.iter().all(|part| {
            part.container.state == State::Active && part.container.status == ContainerStatus::Up
        })
    }

    /// Every container that may hold data is in the cluster and well, and there is one.
    pub(super) fn serves_data(&self) -> bool {
        let mut parts = self.parts.iter().filter(|part| part.may_hold_data());
        let is_up = |part: &Part<'_>| {
            part.container.state == State::Active && part.container.status == ContainerStatus::Up
        };
        parts.next().is_some_and(is_up) && parts.all(is_up)
    }

    /// A container is down for too long, and so is every one that may hold data: nothing more is lost with it. One
    /// that was down a moment ago, or whose drives can be reached still, is not that (S8).
    pub(super) fn is_lost(&self, clock: Timestamp, after: SignedDuration) -> bool {
        let is_lost = |part: &Part<'_>| {
            part.container.status == ContainerStatus::Down
                && part.down_for(clock).is_some_and(|time| time > after)
        };
        self.parts.iter().any(is_lost)
            && self
                .parts
                .iter()
                .filter(|part| part.may_hold_data())
                .all(is_lost)
    }

    /// Whether it has drives that nobody has begun to empty, in a container that stays.
    pub(super) fn is_in_use(&self) -> bool {
        self.parts.iter().any(|part| {
            !part.is_leaving() && part.drives.iter().any(|drive| drive.should_be_active)
        })
    }

    /// Whether it is one of the few that lead the cluster.
    pub(super) fn leads(&self) -> bool {
        self.parts
            .iter()
            .any(|part| part.container.member_of_leadership)
    }

    /// How many drives are out of use.
    pub(super) fn inactive_drives(&self) -> usize {
        self.parts.iter().map(Part::inactive_drives).sum()
    }

    /// When its first container joined; the end of time where nothing says so.
    pub(super) fn added(&self) -> Timestamp {
        let times = self
            .parts
            .iter()
            .filter_map(|part| part.container.added_time);
        times.min().unwrap_or(Timestamp::MAX)
    }

    /// Whether it is out of the cluster, or on the last step out.
    pub(super) fn is_inactive(&self) -> bool {
        self.parts
            .iter()
            .all(|part| matches!(part.container.state, State::Inactive | State::Removing))
    }
}

impl Part<'_> {
    /// How many of its drives are out of use.
    pub(super) fn inactive_drives(&self) -> usize {
        let inactive = |drive: &&&Drive| drive.status == DriveStatus::Inactive;
        self.drives.iter().filter(inactive).count()
    }

    /// Whether it is on its way out of the cluster, or out.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(
            self.container.state,
            State::Deactivating | State::Removing | State::Inactive
        )
    }

    /// Whether there may be data on drives of it.
    fn may_hold_data(&self) -> bool {
        self.is_for_drives() || self.inactive_drives() < self.drives.len()
    }

    /// Whether it holds the machine's drives.
    pub(super) fn is_for_drives(&self) -> bool {
        let name = self.container.container_name.as_deref();
        name.is_some_and(|name| name.contains("drive"))
    }

    /// How long its management process has been down, from the latest thing that is known (S10); `None`: it is not
    /// down, or when it went is unknown. That it came up later than all that is known says that it went down after
    /// that, and not when: a failure of this minute must not pass for one of the day it came up.
    pub(super) fn down_for(&self, clock: Timestamp) -> Option<SignedDuration> {
        let management = self.management.filter(|process| process.status == "DOWN")?;
        let known = [
            management.last_fencing_time,
            self.container.state_changed_time,
        ];
        let since = known.into_iter().flatten().max()?;
        let is_known = management.up_since.is_none_or(|up| up <= since);
        is_known.then(|| clock.duration_since(since))
    }

    /// How long it has been in the cluster.
    pub(super) fn age(&self, clock: Timestamp) -> Option<SignedDuration> {
        let added = self.container.added_time?;
        Some(clock.duration_since(added))
    }

    /// Upstream's clock: from the last fencing if there ever was one, else from the last change.
    pub(super) fn upstream_down_for(&self, now: Timestamp) -> Option<SignedDuration> {
        let management = self.management.filter(|process| process.status == "DOWN")?;
        let since = management
            .last_fencing_time
            .or(self.container.state_changed_time)
            .unwrap_or(Timestamp::UNIX_EPOCH);
        Some(now.duration_since(since))
    }
}
