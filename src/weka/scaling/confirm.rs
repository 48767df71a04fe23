//! The last look before instances are handed over to be terminated.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::decision::{Decision, Finding, Kill, Reason, Rule};
use super::gate;
use super::machines::{belongs, is_bygone_client};
use super::observation::{Observation, ReadError};
use crate::weka::ids::ContainerId;
use crate::weka::types::{Container, State, Status};

/// How a call of the decision ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Weka has taken it.
    Accepted,
    /// Weka has refused it.
    Refused,
    /// It was sent, and nobody knows what became of it.
    Unknown,
    /// It was not sent.
    Skipped,
}

/// A second look at the cluster, after the calls, at another backend where there is one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reread {
    /// `status`.
    pub status: Status,
    /// `hosts_list`.
    pub containers: BTreeMap<ContainerId, Container>,
}

/// What may be terminated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Those that nothing speaks against.
    pub terminate: Vec<Kill>,
    /// What speaks against the others.
    pub errors: Vec<Finding>,
}

/// What is left of the decision's list after its calls were made and the cluster was looked at again: `outcomes` has
/// one entry for each call. A second look that failed, is not whole or is of another cluster leaves nothing (S19).
pub fn confirm(
    observation: &Observation,
    decision: &Decision,
    outcomes: &[Outcome],
    reread: Result<&Reread, &ReadError>,
) -> Confirmed {
    let mut confirmed = Confirmed::default();
    if decision.terminate.is_empty() {
        return confirmed;
    }
    let containers = match agrees(observation, reread) {
        Ok(containers) => containers,
        Err(text) => {
            confirmed.errors.push(Finding {
                rule: Rule::S19,
                subject: observation.group.name.clone(),
                text: format!("nothing is terminated: the second look at the cluster: {text}"),
            });
            return confirmed;
        }
    };
    for kill in &decision.terminate {
        match objection(kill, decision, outcomes, containers) {
            None => confirmed.terminate.push(kill.clone()),
            Some((rule, text)) => confirmed.errors.push(Finding {
                rule,
                subject: kill.id.clone(),
                text: format!("it is not terminated: {text}"),
            }),
        }
    }
    confirmed
}

fn agrees<'a>(
    observation: &Observation,
    reread: Result<&'a Reread, &ReadError>,
) -> Result<&'a BTreeMap<ContainerId, Container>, String> {
    let reread = reread.map_err(|error| error.text.clone())?;
    let first = observation.reads().map(|reads| reads.status.guid.as_str());
    if first != Some(reread.status.guid.as_str()) {
        return Err("another cluster answers".to_owned());
    }
    if reread.containers.is_empty() {
        return Err("it lists no containers".to_owned());
    }
    gate::is_whole(&reread.status, &reread.containers)?;
    let first = observation.reads().map(|reads| &reads.containers);
    let is_the_same = |(id, container): (&ContainerId, &Container)| {
        let before = first.and_then(|containers| containers.get(id));
        before.is_some_and(|before| {
            before.host_ip == container.host_ip && before.aws == container.aws
        })
    };
    if !reread.containers.iter().any(is_the_same) {
        return Err("it lists none of the containers that the first one did".to_owned());
    }
    Ok(&reread.containers)
}

fn objection(
    kill: &Kill,
    decision: &Decision,
    outcomes: &[Outcome],
    containers: &BTreeMap<ContainerId, Container>,
) -> Option<(Rule, String)> {
    let missing = kill
        .needs
        .iter()
        .find(|index| outcomes.get(**index) != Some(&Outcome::Accepted));
    if let Some(index) = missing {
        let method = decision.calls.get(*index).map_or("", |call| &call.method);
        return Some((Rule::S5, format!("{method} was not accepted")));
    }
    // What was its own at the first look is so at the second, whatever name or address it has by then.
    let own: BTreeSet<&ContainerId> = decision
        .machines
        .iter()
        .filter(|verdict| verdict.instance.as_ref() == Some(&kill.id))
        .flat_map(|verdict| &verdict.containers)
        .collect();
    containers
        .iter()
        .filter(|(id, container)| {
            own.contains(id) || belongs(container, &kill.id, kill.private_ip.as_deref())
        })
        .filter(|(_, container)| !is_bygone_client(container))
        .find(|(_, container)| {
            let is_out = matches!(container.state, State::Inactive | State::Removing);
            kill.reason == Reason::Absent || !is_out
        })
        .map(|(id, container)| {
            let text = format!("container {id} of it is {}", container.state.word());
            (Rule::S19, text)
        })
}
