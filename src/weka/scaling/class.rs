//! How containers and machines do.

use jiff::{SignedDuration, Timestamp};

use super::decision::Class;
use super::machines::{Machine, Part};
use super::observation::Settings;
use crate::weka::types::{ContainerStatus, DriveStatus, State};

/// A container so young may have drives that are not in use yet. Source: the vendor's rule.
const DRIVES_SETTLE: SignedDuration = SignedDuration::from_mins(5);

/// The class of a machine by its containers alone: whether it is a member is another matter.
pub(super) fn of_machine(machine: &Machine<'_>, clock: Timestamp, settings: &Settings) -> Class {
    if machine.is_inactive() {
        return Class::Inactive;
    }
    match worst(of_parts(machine, clock, settings)) {
        // Somebody has begun to deactivate it by hand, and not where its data is. To go on with that is as grave as
        // for a machine that is not well, and it must not keep one that is lost from its turn.
        Class::Deactivating if machine.is_in_use() => Class::Unhealthy,
        class => class,
    }
}

/// Whether it is on its way out though a container of it is not well: a part of it leaves, and no drive of it waits to
/// be emptied.
pub(super) fn is_emptying(machine: &Machine<'_>, clock: Timestamp, settings: &Settings) -> bool {
    !machine.is_inactive()
        && !machine.is_in_use()
        && of_parts(machine, clock, settings).any(|class| class == Class::Deactivating)
}

fn of_parts(
    machine: &Machine<'_>,
    clock: Timestamp,
    settings: &Settings,
) -> impl Iterator<Item = Class> {
    machine.parts.iter().map(move |part| {
        if is_unknown(part) {
            // S12
            return Class::Healthy;
        }
        of_part(part, clock, settings, part.down_for(clock))
    })
}

/// Any unhealthy container makes an unhealthy machine, else any deactivating one a deactivating one.
pub(super) fn worst(classes: impl Iterator<Item = Class>) -> Class {
    let classes: Vec<Class> = classes.collect();
    if classes.contains(&Class::Unhealthy) {
        Class::Unhealthy
    } else if classes.contains(&Class::Deactivating) {
        Class::Deactivating
    } else {
        Class::Healthy
    }
}

/// The vendor's classes, with the time that its management process is down given.
pub(super) fn of_part(
    part: &Part<'_>,
    clock: Timestamp,
    settings: &Settings,
    down_for: Option<SignedDuration>,
) -> Class {
    let leaving = |drive: &&crate::weka::types::Drive| !drive.should_be_active;
    let emptied = !part.drives.is_empty() && part.drives.iter().all(leaving);
    if part.is_for_drives() && emptied {
        return Class::Deactivating;
    }
    if part.is_leaving() {
        return Class::Deactivating;
    }
    let is_ill = matches!(
        part.container.status,
        ContainerStatus::Down | ContainerStatus::Degraded
    );
    if is_ill && down_for.is_some_and(|time| time > settings.unhealthy_after) {
        return Class::Unhealthy;
    }
    let settled = part.age(clock).is_some_and(|age| age > DRIVES_SETTLE);
    let unused = part
        .drives
        .iter()
        .any(|drive| drive.status == DriveStatus::Inactive);
    if (unused && settled) || part.drives.iter().any(leaving) {
        return Class::Unhealthy;
    }
    Class::Healthy
}

/// Whether Weka says something of it in words that are new to us.
pub(super) fn is_unknown(part: &Part<'_>) -> bool {
    matches!(part.container.state, State::Other(_))
        || matches!(part.container.status, ContainerStatus::Other(_))
        || part
            .drives
            .iter()
            .any(|drive| matches!(drive.status, DriveStatus::Other(_)))
}
