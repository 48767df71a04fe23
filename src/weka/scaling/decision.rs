//! What is decided: a verdict with its rule for every machine and instance, and the calls that follow from it.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A rule of the table in the module's documentation, or `U` for one of the vendor's that no other replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the module's table says what each is")]
pub enum Rule {
    U,
    S1,
    S2,
    S4,
    S5,
    S6,
    S7,
    S8,
    S9,
    S10,
    S11,
    S12,
    S13,
    S14,
    S15,
    S17,
    S19,
    S20,
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// The whole decision of one run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Why nothing at all is done; everything below but `machines` and `errors` is then empty.
    pub gate: Option<Gate>,
    /// Exactly one for every machine and every instance without one, by key.
    pub machines: Vec<Verdict>,
    /// What Weka is asked for, in this order.
    pub calls: Vec<Call>,
    /// What may be terminated once [`confirm`](super::confirm) agrees.
    pub terminate: Vec<Kill>,
    /// Instances that are gone and leave the group; it launches others if it lacks some.
    pub detach: Vec<String>,
    /// Members of all groups that stay, and are protected again.
    pub protect: Vec<String>,
    /// What a person should know of this run.
    pub errors: Vec<Finding>,
}

/// A closed gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// What closed it.
    pub rule: Rule,
    /// Why, for a person.
    pub text: String,
}

/// What is thought of one machine, or of an instance without one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Verdict {
    /// Names it: address and instance of a machine, the instance's id alone where Weka knows no machine.
    pub key: String,
    /// The member of the group that it is.
    pub instance: Option<String>,
    /// Its backend containers.
    pub containers: Vec<crate::weka::ids::ContainerId>,
    /// How it does.
    pub class: Class,
    /// What happens to it.
    pub action: Action,
    /// Which rule says so.
    pub rule: Rule,
    /// Why, for a person.
    pub detail: String,
}

/// How a machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    /// On its way out: its drives or containers are being deactivated.
    Deactivating,
    /// Down for too long, or with drives that are not in use.
    Unhealthy,
    /// Neither.
    Healthy,
    /// All its containers are out of the cluster.
    Inactive,
    /// In the cluster, and no member of the group.
    Leftover,
    /// A member of the group that Weka does not know.
    Absent,
    /// On its way into the group or out of it, or in standby.
    Held,
}

/// What happens to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Nothing.
    Leave,
    /// Its drives, then its containers are deactivated.
    Deactivate,
    /// Its containers are removed; then its instance goes, if it has one.
    Remove,
    /// Its instance goes.
    Terminate,
    /// Its instance is gone, and leaves the group.
    Detach,
}

/// One call to Weka.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Whose key; `None`: it concerns no machine. A call that fails ends the calls of its machine.
    pub machine: Option<String>,
    /// What it does.
    pub kind: CallKind,
    /// What it is for.
    pub purpose: Purpose,
    /// The API's method.
    pub method: String,
    /// Its parameters.
    pub params: Value,
}

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CallKind {
    /// Forgets drives that are out of use.
    RemoveDrives,
    /// Forgets a container that is out of the cluster.
    RemoveContainer,
    /// Begins to empty drives.
    DeactivateDrives,
    /// Takes a gateway's interface out of its group.
    DeletePort,
    /// Tells the cluster's event log; a failure skips nothing.
    Event,
    /// Begins to take containers out of the cluster.
    DeactivateContainers,
}

/// What a call is for. The executor knows by it what a refusal ends (S9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Purpose {
    /// Forgetting what is out already.
    Remove,
    /// Going on with what drains already.
    Continue,
    /// A machine that is not well.
    Health,
    /// A machine that is no member.
    Leftover,
    /// A machine too many.
    Size,
}

/// An instance that may be terminated.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Kill {
    /// `i-…`
    pub id: String,
    /// Its group, by which [`authorise`](super::authorise) tells whether it is asked about it.
    pub group: String,
    /// Its address.
    pub private_ip: Option<String>,
    /// When it was launched: an id and an address may come back, with the launch time they do not.
    pub launched: Option<Timestamp>,
    /// Why.
    pub reason: Reason,
    /// Indexes of the calls that Weka must have accepted.
    pub needs: Vec<usize>,
}

/// Why an instance may be terminated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// Weka has released it.
    Removed,
    /// Weka does not know it.
    Absent,
    /// It is stopped, and nothing of it is in use.
    Stopped,
}

/// Something that a person should know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// Which rule found it.
    pub rule: Rule,
    /// What it is about: a machine's key, an instance, the group.
    pub subject: String,
    /// What is the matter.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {} ({})", self.subject, self.text, self.rule)
    }
}

impl Decision {
    /// A decision to do nothing at all, with what is thought of each machine.
    pub(super) fn closed(gate: Gate, machines: Vec<Verdict>, subject: &str) -> Self {
        Self {
            errors: vec![Finding {
                rule: gate.rule,
                subject: subject.to_owned(),
                text: gate.text.clone(),
            }],
            gate: Some(gate),
            machines,
            ..Self::default()
        }
    }
}
