//! What one run sees: everything that the decision rests on, as one plain value.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::weka::types::Reads;

/// All that a run knows when it decides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Our time when Weka had answered.
    pub now: Timestamp,
    /// The cluster this group has always been, if it was ever seen.
    pub pinned_guid: Option<String>,
    /// The target that the run before this one read; `None` where nobody remembers.
    pub previous_desired: Option<u32>,
    /// The Auto Scaling group.
    pub group: Group,
    /// The gateways that serve NFS, where they have a group of their own. No cluster of this product has one, so that
    /// its functions leave this out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nfs: Option<Gateways>,
    /// Weka's answers, or why there are none.
    pub weka: Result<Reads, ReadError>,
}

/// The Auto Scaling group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// How many members it shall have.
    pub desired: u32,
    /// Processes of Auto Scaling that are suspended, such as `Terminate`.
    pub suspended: Vec<String>,
    /// Its members.
    pub instances: Vec<Instance>,
}

/// The group of the gateways that serve NFS: machines of the cluster without drives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gateways {
    /// The Auto Scaling group.
    pub group: Group,
    /// As for the backends.
    #[serde(default)]
    pub previous_desired: Option<u32>,
    /// Addresses of those that have once been put into an interface group. One that is in none any more is on its way
    /// out; any other is on its way in.
    #[serde(default)]
    pub interface_group_ips: BTreeSet<String>,
}

/// One member of the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// `i-…`
    pub id: String,
    /// Its primary private address; EC2 takes it away when the instance is terminated.
    pub private_ip: Option<String>,
    /// When it was launched; unknown where EC2 does not know it.
    pub launched: Option<Timestamp>,
    /// What EC2 says of it.
    pub ec2: Ec2State,
    /// What Auto Scaling says of it, such as `InService`.
    pub lifecycle: String,
    /// Whether Auto Scaling takes it for healthy.
    pub healthy: bool,
    /// Whether Auto Scaling may not choose it when the group shrinks.
    pub protected: bool,
    /// Whether it was attached to the group rather than launched by it: its entry names no launch template, or it is
    /// older than the group.
    pub attached: bool,
    /// Whether it carries the mark of one that was an active backend.
    pub joined: bool,
}

/// An instance's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ec2State {
    /// Being launched.
    Pending,
    /// Runs.
    Running,
    /// Being stopped.
    Stopping,
    /// Stopped: what was on its instance store is lost.
    Stopped,
    /// Being terminated.
    ShuttingDown,
    /// Terminated.
    Terminated,
    /// EC2 does not know it.
    Absent,
}

/// Why there is no whole picture of Weka.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadError {
    /// In words for a person, without secrets.
    pub text: String,
}

/// Which rules decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuleSet {
    /// Those of the vendor's own cloud tools, for comparison only: they lose data where this project's do not.
    Upstream,
    /// This project's.
    Safe,
}

/// The numbers in the rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Which rules decide.
    pub rules: RuleSet,
    /// How long a container's management process is down until its machine counts as unhealthy. Upstream: 120 min.
    pub unhealthy_after: SignedDuration,
    /// The same for a machine that is no member of the group, until it is deactivated. Upstream: 3 h.
    pub leftover_after: SignedDuration,
    /// The same for a gateway that is in no interface group. Upstream: 1 h.
    pub outside_after: SignedDuration,
    /// How long after its launch an instance may be unknown to Weka. Upstream: 30 min.
    pub grace: SignedDuration,
    /// How many machines may be on their way out for their health, leftovers included (S8). Upstream: 2.
    pub max_unhealthy: u32,
    /// How many may drain at once in a cluster of twenty machines or fewer (S7).
    pub drain_limit: u32,
    /// How many instances one run may terminate. Upstream: 50.
    pub terminate_limit: usize,
    /// How many of those because Weka does not know them (S4).
    pub absent_limit: usize,
    /// The smallest cluster there may be (S6).
    pub min_floor: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rules: RuleSet::Safe,
            unhealthy_after: SignedDuration::from_mins(120),
            leftover_after: SignedDuration::from_hours(3),
            outside_after: SignedDuration::from_hours(1),
            grace: SignedDuration::from_mins(30),
            max_unhealthy: 2,
            drain_limit: 2,
            terminate_limit: 50,
            absent_limit: 2,
            min_floor: 5,
        }
    }
}

impl Observation {
    /// Weka's answers, if there are any.
    pub fn reads(&self) -> Option<&Reads> {
        self.weka.as_ref().ok()
    }

    /// The groups that there are, the backends' first.
    pub(super) fn groups(&self) -> impl Iterator<Item = &Group> {
        let gateways = self.nfs.iter().map(|nfs| &nfs.group);
        std::iter::once(&self.group).chain(gateways)
    }

    /// The members of all groups.
    pub(super) fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.groups().flat_map(|group| &group.instances)
    }

    /// The group of one of these.
    pub(super) fn group_of(&self, instance: &Instance) -> &Group {
        let is_of = |group: &&Group| group.instances.iter().any(|each| each.id == instance.id);
        self.groups().find(is_of).unwrap_or(&self.group)
    }
}

impl Instance {
    /// Whether it takes part in the group: neither on its way in or out nor in standby (S11).
    pub fn is_in_service(&self) -> bool {
        self.lifecycle == "InService"
    }

    /// Whether it exists for EC2 and is not on its way to the end.
    pub fn is_alive(&self) -> bool {
        matches!(
            self.ec2,
            Ec2State::Pending | Ec2State::Running | Ec2State::Stopping | Ec2State::Stopped
        )
    }

    /// Whether the group counts on it.
    pub fn is_member(&self) -> bool {
        self.is_in_service() && self.is_alive()
    }
}
