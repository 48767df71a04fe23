//! What has to be true before anything is done at all.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::decision::{Gate, Rule};
use super::machines::{Machine, machines};
use super::observation::{Instance, Observation, Settings};
use crate::weka::ids::ContainerId;
use crate::weka::types::{Container, Mode, Reads, Status};

/// More than this between the cluster's clock and ours, and no time of either can be trusted (S10).
const MAX_SKEW: SignedDuration = SignedDuration::from_secs(60);
/// The key of the override by which an admin stops scaling.
const SKIP_SCALE_DOWN: &str = "skip_scale_down";

/// The cluster, read wholly and put together.
pub(super) struct Survey<'a> {
    pub(super) reads: &'a Reads,
    /// The cluster's time.
    pub(super) clock: Timestamp,
    pub(super) machines: Vec<Machine<'a>>,
}

/// Puts together what was read.
///
/// # Errors
/// The first gate that is closed, floor excepted: that one needs the machines.
pub(super) fn survey<'a>(
    observation: &'a Observation,
    settings: &Settings,
) -> Result<Survey<'a>, Gate> {
    if observation.group.desired == 0 {
        return Err(closed(Rule::U, "the group's desired capacity is 0"));
    }
    if let Some(nfs) = &observation.nfs
        && nfs.group.desired == 0
        && !nfs.group.instances.is_empty()
    {
        let text = format!(
            "the desired capacity of {} is 0, and it has gateways: nothing is done until it is 1 or more",
            nfs.group.name
        );
        return Err(closed(Rule::S20, &text));
    }
    if settings.leftover_after <= SignedDuration::ZERO {
        return Err(closed(Rule::U, "the time for leftovers is not above 0"));
    }
    let reads = match &observation.weka {
        Ok(reads) => reads,
        Err(error) => return Err(closed(Rule::S2, &error.text)),
    };
    let status = &reads.status;
    may_change(status)?;
    is_the_same(status, observation.pinned_guid.as_deref())?;
    is_complete(reads)?;
    if reads
        .overrides
        .values()
        .any(|each| each.key == SKIP_SCALE_DOWN && each.is_on())
    {
        let text = format!("the manual override {SKIP_SCALE_DOWN} is set in the cluster");
        return Err(closed(Rule::U, &text));
    }
    has_containers_for_drives(reads)?;
    let clock = clock(status, observation.now)?;
    let machines = machines(reads, observation)?;
    knows_the_group(observation, &machines)?;
    Ok(Survey {
        reads,
        clock,
        machines,
    })
}

/// The smallest number of members that the cluster may have (S6).
pub(super) fn floor(status: &Status, settings: &Settings) -> u32 {
    let stripe = status
        .stripe_data_drives
        .saturating_add(status.stripe_protection_drives)
        .saturating_add(status.hot_spare);
    stripe.max(settings.min_floor)
}

/// Whether the target is one that the cluster can be brought to (S6).
pub(super) fn target(
    observation: &Observation,
    survey: &Survey<'_>,
    settings: &Settings,
) -> Result<(), Gate> {
    let desired = observation.group.desired;
    let floor = floor(&survey.reads.status, settings);
    let members = observation.group.instances.iter();
    let members = members.filter(|instance| instance.is_member()).count();
    if u64::from(desired) < u64::from(floor).min(members as u64) {
        let text = format!(
            "the desired capacity is {desired}, and this cluster has {members} members and needs at least {floor}: \
             set the group's desired capacity to {floor} or more"
        );
        return Err(closed(Rule::S6, &text));
    }
    Ok(())
}

fn may_change(status: &Status) -> Result<(), Gate> {
    if status.io_status != "STARTED" {
        let text = format!("the cluster's IO is {:?}, not STARTED", status.io_status);
        return Err(closed(Rule::S2, &text));
    }
    if status.is_upgrading() {
        return Err(closed(Rule::S2, "the cluster is being upgraded"));
    }
    Ok(())
}

fn is_the_same(status: &Status, pinned: Option<&str>) -> Result<(), Gate> {
    if status.guid.is_empty() {
        return Err(closed(Rule::S2, "the cluster does not say which one it is"));
    }
    match pinned {
        Some(pinned) if pinned != status.guid => {
            let text = format!(
                "another cluster answers: {:?}, where this group's is {pinned:?}",
                status.guid
            );
            Err(closed(Rule::S2, &text))
        }
        _ => Ok(()),
    }
}

fn is_complete(reads: &Reads) -> Result<(), Gate> {
    let lists = [
        (reads.containers.is_empty(), "containers"),
        (reads.drives.is_empty(), "drives"),
        (reads.processes.is_empty(), "processes"),
    ];
    for (is_empty, of) in lists {
        if is_empty {
            return Err(closed(Rule::S2, &format!("the cluster lists no {of}")));
        }
    }
    is_whole(&reads.status, &reads.containers).map_err(|text| closed(Rule::S2, &text))?;
    let mut of_containers = reads
        .drives
        .values()
        .map(|drive| drive.container)
        .chain(reads.processes.values().map(|process| process.container));
    // A list that is short by as many as have just left agrees with the count; the other lists know better.
    let unlisted =
        of_containers.find(|id| *id != ContainerId::INVALID && !reads.containers.contains_key(id));
    match unlisted {
        None => Ok(()),
        Some(id) => Err(closed(
            Rule::S2,
            &format!("the cluster has drives or processes of container {id}, and does not list it"),
        )),
    }
}

/// Whether as many backend containers are listed as the cluster counts (S2).
///
/// # Errors
/// How many are listed and counted, in words.
pub fn is_whole(
    status: &Status,
    containers: &BTreeMap<ContainerId, Container>,
) -> Result<(), String> {
    let listed = containers
        .values()
        .filter(|container| container.mode != Some(Mode::Client))
        .count();
    match status.backend_containers() {
        Some(counted) if counted == listed as u64 => Ok(()),
        Some(counted) => Err(format!(
            "the cluster lists {listed} backend containers and counts {counted}"
        )),
        None => Err("the cluster does not count its backend containers".to_owned()),
    }
}

/// A list without a single member of the group is another cluster's, whatever `status` says: its numbers would be
/// taken for those of our containers.
fn knows_the_group(observation: &Observation, machines: &[Machine<'_>]) -> Result<(), Gate> {
    let has_members = observation.group.instances.iter().any(Instance::is_member);
    let is_backend = |machine: &Machine<'_>| machine.instance.is_some() && !machine.is_gateway;
    if has_members && !machines.iter().any(is_backend) {
        let text = "no member of the group is among the containers that the cluster lists";
        return Err(closed(Rule::S2, text));
    }
    Ok(())
}

/// Whether the cluster is one with several containers a machine.
pub(super) fn has_containers_for_drives(reads: &Reads) -> Result<(), Gate> {
    let for_drives = reads.containers.values().any(|container| {
        let name = container.container_name.as_deref();
        container.mode == Some(Mode::Backend) && name.is_some_and(|name| name.contains("drive"))
    });
    if for_drives {
        return Ok(());
    }
    Err(closed(
        Rule::U,
        "no container is for drives alone: only clusters with several containers a machine are scaled",
    ))
}

fn clock(status: &Status, now: Timestamp) -> Result<Timestamp, Gate> {
    let Some(clock) = status.time.cluster_time else {
        return Ok(now);
    };
    let skew = clock.duration_since(now).abs();
    if skew > MAX_SKEW {
        let text = format!("the cluster's clock is {} s off", skew.as_secs());
        return Err(closed(Rule::S10, &text));
    }
    Ok(clock)
}

fn closed(rule: Rule, text: &str) -> Gate {
    Gate {
        rule,
        text: text.to_owned(),
    }
}
