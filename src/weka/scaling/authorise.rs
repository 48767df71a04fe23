//! The last check of all: against the group as it is at the very moment (S15).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::decision::{Finding, Kill, Reason, Rule};
use super::observation::{Ec2State, Group, Instance, Settings};

/// How many members' protection from termination one run looks at (S13). Source: AWS's rate for those calls, some
/// five a second.
const PROTECTION_BATCH: usize = 20;

/// What scale asks terminate for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What may be terminated.
    pub terminate: Vec<Kill>,
    /// What is gone and leaves the group.
    pub detach: Vec<String>,
    /// Members that are active backends, and get the mark of one.
    pub active: Vec<String>,
}

/// What is asked of AWS, in the order of the fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwsCalls {
    /// Members that stay and that Auto Scaling could choose to end.
    pub protect: Vec<String>,
    /// Members that stay, whose protection from termination is looked at, and set where it lacks.
    pub check_termination_protection: Vec<String>,
    /// Members that get the mark of an active backend.
    pub mark_joined: Vec<String>,
    /// What is terminated: first both its protections are lifted.
    pub release: Vec<String>,
    /// What leaves the group, which keeps its target.
    pub detach: Vec<String>,
    /// What was asked for and is not done.
    pub errors: Vec<Finding>,
}

/// What of the order still holds for one group as it is now. What is of another group waits until that one is asked
/// about.
pub fn authorise(order: &Order, fresh: &Group, now: Timestamp, settings: &Settings) -> AwsCalls {
    let members: BTreeMap<&str, &Instance> = fresh
        .instances
        .iter()
        .map(|instance| (instance.id.as_str(), instance))
        .collect();
    let mut calls = AwsCalls::default();
    let kills = order.terminate.iter();
    let kills = kills.filter(|kill| kill.group == fresh.name).collect();
    release(kills, &members, now, settings, &mut calls);
    let leaves: BTreeSet<&str> = calls.release.iter().map(String::as_str).collect();
    let staying = || {
        members
            .values()
            .filter(|instance| instance.is_member() && !leaves.contains(instance.id.as_str()))
    };
    calls.protect = staying()
        .filter(|instance| !instance.protected)
        .map(|instance| instance.id.clone())
        .collect();
    calls.check_termination_protection = in_rotation(
        &staying().map(|instance| &instance.id).collect::<Vec<_>>(),
        now,
    );
    calls.mark_joined = staying()
        .filter(|instance| !instance.joined && order.active.contains(&instance.id))
        .map(|instance| instance.id.clone())
        .collect();
    calls.detach = order
        .detach
        .iter()
        .filter(|id| members.get(id.as_str()).is_some_and(|each| is_gone(each)))
        .cloned()
        .collect();
    calls
}

fn release(
    mut kills: Vec<&Kill>,
    members: &BTreeMap<&str, &Instance>,
    now: Timestamp,
    settings: &Settings,
    calls: &mut AwsCalls,
) {
    // Those that Weka has released come before those that it only does not know.
    kills.sort_by_key(|kill| (kill.reason == Reason::Absent, *kill));
    let mut seen = BTreeSet::new();
    let mut absent = 0;
    for kill in kills {
        if !seen.insert(&kill.id) {
            continue;
        }
        let instance = members.get(kill.id.as_str()).copied();
        if instance.is_some_and(|instance| !instance.is_alive()) {
            continue;
        }
        if let Some(text) = objection(kill, instance, now, settings) {
            calls.errors.push(Finding {
                rule: Rule::S15,
                subject: kill.id.clone(),
                text: format!("it is not terminated: {text}"),
            });
            continue;
        }
        let over = kill.reason == Reason::Absent && absent == settings.absent_limit;
        if over || calls.release.len() == settings.terminate_limit {
            continue;
        }
        absent += usize::from(kill.reason == Reason::Absent);
        calls.release.push(kill.id.clone());
    }
}

fn objection(
    kill: &Kill,
    instance: Option<&Instance>,
    now: Timestamp,
    settings: &Settings,
) -> Option<String> {
    let Some(instance) = instance else {
        return Some("it is no member of the group any more".to_owned());
    };
    if !instance.is_in_service() {
        return Some(format!("its state in the group is {}", instance.lifecycle));
    }
    let Some(launched) = instance.launched else {
        return Some("EC2 does not say when it was launched".to_owned());
    };
    if kill.launched != Some(launched) || kill.private_ip != instance.private_ip {
        return Some("it is not the one that was decided on: address or launch differ".to_owned());
    }
    let age = now.duration_since(launched);
    match kill.reason {
        Reason::Stopped if instance.ec2 != Ec2State::Stopped => {
            Some("it is not stopped any more".to_owned())
        }
        Reason::Absent if age < settings.grace => Some("it is young".to_owned()),
        Reason::Removed | Reason::Stopped | Reason::Absent => None,
    }
}

/// Gone for EC2, and the group has noticed (S14).
fn is_gone(instance: &Instance) -> bool {
    instance.is_in_service()
        && !instance.healthy
        && matches!(instance.ec2, Ec2State::Terminated | Ec2State::Absent)
}

/// So many of them as one run looks at, others each minute.
fn in_rotation(ids: &[&String], now: Timestamp) -> Vec<String> {
    let minute = usize::try_from(now.as_second() / 60).unwrap_or_default();
    let start = (minute * PROTECTION_BATCH)
        .checked_rem(ids.len())
        .unwrap_or_default();
    let ids = ids.iter().cycle().skip(start);
    let count = PROTECTION_BATCH;
    ids.take(count)
        .map(|id| (*id).clone())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}
