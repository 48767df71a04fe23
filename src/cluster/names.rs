//! Every name, tag key, IAM path and length limit of a cluster's resources.
//!
//! Clusters made by the earlier Go tool keep working with these: names, cuts and hashes are its own.

use std::fmt::Write as _;

use crate::resource::Tags;

/// `true` on everything that this tool made.
pub const MANAGED_TAG: &str = "wekactl.io/managed";
/// The layout of names and tags: `v1`.
pub const API_VERSION_TAG: &str = "wekactl.io/api_version";
/// The program version that last made or changed the resource. Written, never compared.
pub const VERSION_TAG: &str = "wekactl.io/version";
/// Which cluster it belongs to: the only proof of ownership there is.
pub const CLUSTER_TAG: &str = "wekactl.io/cluster_name";
/// `Backends`.
pub const HOSTGROUP_NAME_TAG: &str = "wekactl.io/hostgroup_name";
/// `backend`.
pub const HOSTGROUP_TYPE_TAG: &str = "wekactl.io/hostgroup_type";
/// On the table: the stack the cluster came from.
pub const STACK_TAG: &str = "wekactl.io/stack_id";
/// The value of [`STACK_TAG`] where a cluster came from no stack.
pub const NO_STACK: &str = "none";
/// On the listener: `api`.
pub const LISTENER_TAG: &str = "wekactl.io/listener_type";
/// On roles: IAM is global, one name may be a cluster in two regions.
pub const REGION_TAG: &str = "wekactl.io/region";
/// On things that import changed and does not own: what they were like before.
pub const BEFORE_TAG: &str = "wekactl.io/before";
/// On the load balancer: the name that a DNS record gives it, for the day the table is gone.
pub const DNS_ALIAS_TAG: &str = "wekactl.io/dns_alias";
/// On the load balancer: the hosted zone of that name.
pub const DNS_ZONE_TAG: &str = "wekactl.io/dns_zone_id";
/// On the group: destroy has begun with it.
pub const DESTROYING_TAG: &str = "wekactl.io/destroying";
/// Its value where destroy keeps the instances: a later one that would terminate those that are left is refused.
pub const DESTROYING_KEEPING: &str = "keep-instances";
/// What every tag of ours begins with.
pub const TAG_PREFIX: &str = "wekactl.io/";

/// The version that is written into tags and settings.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// `CloudFormation`'s limit for stack names, which cluster names are.
pub const MAX_CLUSTER_NAME: usize = 128;

// Limits of the services' name fields. Source: the services' API references.
const MAX_LOAD_BALANCER: usize = 32;
const MAX_FUNCTION: usize = 64;
const MAX_ROLE: usize = 64;
const MAX_RULE: usize = 64;
const MAX_LAYER: usize = 64;
const MAX_STATE_MACHINE: usize = 80;
const MAX_LAUNCH_TEMPLATE: usize = 128;

/// The five functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FunctionKind {
    /// Hands a booting instance its script and credentials.
    Join,
    /// Reads group and table.
    Fetch,
    /// Talks to Weka and decides.
    Scale,
    /// Terminates what scale released.
    Terminate,
    /// Makes a run with transient errors fail visibly.
    Transient,
}

impl FunctionKind {
    /// All five, in the order in which a minute's run meets them, join first.
    pub const ALL: [Self; 5] = [
        Self::Join,
        Self::Fetch,
        Self::Scale,
        Self::Terminate,
        Self::Transient,
    ];

    /// The word in names and in the variable `LAMBDA`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Fetch => "fetch",
            Self::Scale => "scale",
            Self::Terminate => "terminate",
            Self::Transient => "transient",
        }
    }

    /// The function of that word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// Whom a role is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RolePurpose {
    /// A function.
    Function(FunctionKind),
    /// The state machine, to invoke the functions.
    StateMachine,
    /// The event rule, to start the state machine.
    EventRule,
}

impl RolePurpose {
    /// All seven.
    pub fn all() -> impl Iterator<Item = Self> {
        FunctionKind::ALL
            .into_iter()
            .map(Self::Function)
            .chain([Self::StateMachine, Self::EventRule])
    }

    /// The word in names; the last two are the Go tool's.
    pub fn word(self) -> &'static str {
        match self {
            Self::Function(kind) => kind.word(),
            Self::StateMachine => "sm",
            Self::EventRule => "cw",
        }
    }
}

/// A cluster by its name, and with it every name it has in AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The stack's name, or the one given with `--instance-ids`.
    pub name: String,
}

/// Why a cluster can not have this name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{name:?} is no cluster name: it begins with a letter, goes on with letters, digits and hyphens, and has at most {MAX_CLUSTER_NAME} characters, as a CloudFormation stack's"
)]
pub struct BadClusterName {
    name: String,
}

impl std::str::FromStr for Cluster {
    type Err = BadClusterName;

    fn from_str(name: &str) -> Result<Self, BadClusterName> {
        let fits = name.len() <= MAX_CLUSTER_NAME
            && name.starts_with(|first: char| first.is_ascii_alphabetic())
            && name
                .chars()
                .all(|each| each.is_ascii_alphanumeric() || each == '-');
        if fits {
            Ok(Self {
                name: name.to_owned(),
            })
        } else {
            Err(BadClusterName {
                name: name.chars().take(200).collect(),
            })
        }
    }
}

impl Cluster {
    /// `wekactl-C`: cluster-wide resources (table, KMS alias without its prefix).
    pub fn base(&self) -> String {
        format!("wekactl-{}", self.name)
    }

    /// `wekactl-C-Backends`: host-group resources without a limit that matters (group, API, usage plan, API key, path).
    pub fn backends(&self) -> String {
        format!("wekactl-{}-Backends", self.name)
    }

    /// `alias/wekactl-C`.
    pub fn kms_alias(&self) -> String {
        format!("alias/{}", self.base())
    }

    /// `wekactl-C-<type>-Backends`.
    pub fn function(&self, kind: FunctionKind) -> String {
        cut(
            &format!("wekactl-{}-{}-Backends", self.name, kind.word()),
            MAX_FUNCTION,
            At::Limit,
        )
    }

    /// `/aws/lambda/<function>`, where Lambda writes its logs.
    pub fn log_group(&self, kind: FunctionKind) -> String {
        format!("/aws/lambda/{}", self.function(kind))
    }

    /// `/wekactl/C/`.
    pub fn role_path(&self) -> String {
        format!("/wekactl/{}/", self.name)
    }

    /// `wekactl-C-Backends-<purpose>-<random>`, of which only the first part is ever cut: the purpose can be read
    /// from every name. Random, because a role made again under its old name is another one to who trusts it by id.
    pub fn role(&self, purpose: RolePurpose, random: &str) -> String {
        let tail = format!("-{}-{random}", purpose.word());
        cut(&self.backends(), MAX_ROLE - tail.len(), At::Limit) + &tail
    }

    /// The name of the one inline policy of a role.
    pub fn role_policy(&self, purpose: RolePurpose) -> String {
        format!(
            "wekactl-{}-{}-Backends",
            cut(&self.name, 80, At::OverLimit),
            purpose.word()
        )
    }

    /// `wekactl-C`, for load balancers.
    pub fn load_balancer(&self) -> String {
        cut(&self.base(), MAX_LOAD_BALANCER, At::Limit)
    }

    /// `wekactl-C-api`.
    pub fn target_group(&self) -> String {
        cut(
            &format!("wekactl-{}-api", self.name),
            MAX_LOAD_BALANCER,
            At::Limit,
        )
    }

    /// `wekactl-C`, for layers.
    pub fn layer(&self) -> String {
        cut(&self.base(), MAX_LAYER, At::OverLimit)
    }

    /// `wekactl-C-Backends`, for launch templates.
    pub fn launch_template(&self) -> String {
        cut(&self.backends(), MAX_LAUNCH_TEMPLATE, At::OverLimit)
    }

    /// `wekactl-C-Backends`, for state machines.
    pub fn state_machine(&self) -> String {
        cut(&self.backends(), MAX_STATE_MACHINE, At::OverLimit)
    }

    /// `wekactl-C-Backends`, for event rules.
    pub fn event_rule(&self) -> String {
        cut(&self.backends(), MAX_RULE, At::OverLimit)
    }

    /// The `Name` tag of the group and its instances.
    pub fn instance_name(&self) -> String {
        format!("{}-Backends", self.name)
    }

    /// What everything carries: ours, and the user's.
    pub fn tags(&self, user: &Tags) -> Tags {
        let mut tags = user.clone();
        for (key, value) in [
            (MANAGED_TAG, "true"),
            (API_VERSION_TAG, "v1"),
            (VERSION_TAG, VERSION),
            (CLUSTER_TAG, &self.name),
        ] {
            tags.insert(key.to_owned(), value.to_owned());
        }
        tags
    }

    /// What everything of the host group carries.
    pub fn hostgroup_tags(&self, user: &Tags) -> Tags {
        let mut tags = self.tags(user);
        tags.insert(HOSTGROUP_NAME_TAG.to_owned(), "Backends".to_owned());
        tags.insert(HOSTGROUP_TYPE_TAG.to_owned(), "backend".to_owned());
        tags
    }
}

/// When a name is too long: the Go tool cut some at the limit already, and those names are in the field.
#[derive(Clone, Copy)]
enum At {
    Limit,
    OverLimit,
}

/// The name, or its beginning and the hash of the whole, exactly `limit` long.
fn cut(name: &str, limit: usize, at: At) -> String {
    let fits = match at {
        At::Limit => name.len() < limit,
        At::OverLimit => name.len() <= limit,
    };
    if fits {
        return name.to_owned();
    }
    let mut tail = String::new();
    // Writing to a string can not fail.
    let _ = write!(tail, "-{}", elf_hash(name));
    // Names are ASCII: a cluster's name is checked, the rest is ours.
    format!("{}{tail}", &name[..limit - tail.len()])
}

/// The hash of the System V ABI's object files, which the Go tool's names in the field end with.
fn elf_hash(text: &str) -> u32 {
    text.bytes().fold(0, |hash: u32, byte| {
        let hash = (hash << 4).wrapping_add(u32::from(byte));
        let high = hash & 0xf000_0000;
        (hash ^ (high >> 24)) & 0x0fff_ffff
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(name: &str) -> Cluster {
        name.parse().expect("a good name")
    }

    /// The name of a role found in the field: cut at 64 with the hash of the whole.
    #[test]
    fn cuts_as_the_go_tool_did() {
        let whole = "wekactl-prod-Backends-fetch-31a75e76-eeba-4609-aa57-d5";
        let found = "wekactl-prod-Backends-fetch-31a75e76-eeba-4609-aa57-d5-185326777";
        assert!(found.starts_with(whole));
        assert_eq!(found.len(), MAX_ROLE);
        // The published test vector of the algorithm.
        assert_eq!(elf_hash("printf"), 0x077905a6);
    }

    #[test]
    fn short_names_are_plain() {
        let prod = cluster("prod");
        assert_eq!(
            prod.function(FunctionKind::Join),
            "wekactl-prod-join-Backends"
        );
        assert_eq!(prod.load_balancer(), "wekactl-prod");
        assert_eq!(prod.target_group(), "wekactl-prod-api");
        assert_eq!(
            prod.role(RolePurpose::StateMachine, "1a2b3c4d"),
            "wekactl-prod-Backends-sm-1a2b3c4d"
        );
        assert_eq!(prod.kms_alias(), "alias/wekactl-prod");
    }

    #[test]
    fn names_keep_every_limit_and_stay_apart() {
        for length in 1..=MAX_CLUSTER_NAME {
            let one = cluster(&"a".repeat(length));
            let other = cluster(&format!("{}b", "a".repeat(length - 1)));
            for name in [one.load_balancer(), one.target_group()] {
                assert!(name.len() <= 32 && !name.ends_with('-'), "{name}");
            }
            for kind in FunctionKind::ALL {
                assert!(one.function(kind).len() <= 64);
                assert_ne!(one.function(kind), other.function(kind));
            }
            for purpose in RolePurpose::all() {
                let name = one.role(purpose, "1a2b3c4d");
                assert!(name.len() <= 64, "{name}");
                assert!(
                    name.ends_with(&format!("-{}-1a2b3c4d", purpose.word())),
                    "{name}"
                );
                assert!(one.role_policy(purpose).len() <= 128);
            }
            assert!(one.event_rule().len() <= 64 && one.layer().len() <= 64);
            assert!(one.state_machine().len() <= 80 && one.launch_template().len() <= 128);
            assert_ne!(one.load_balancer(), other.load_balancer());
        }
    }

    #[test]
    fn a_name_at_the_limit_is_cut_only_where_go_cut_it() {
        let exactly_32 = cluster(&"a".repeat(32 - "wekactl-".len()));
        assert_eq!(exactly_32.base().len(), 32);
        assert_ne!(exactly_32.load_balancer(), exactly_32.base());
        assert_eq!(exactly_32.load_balancer().len(), 32);
        let rule_64 = cluster(&"a".repeat(64 - "wekactl--Backends".len()));
        assert_eq!(rule_64.event_rule(), rule_64.backends());
    }

    #[test]
    fn forbidden_names_are_refused() {
        for name in [
            "",
            "1a",
            "-a",
            "a_b",
            "a b",
            "a/b",
            "ä",
            "a;rm",
            &"a".repeat(129),
        ] {
            assert!(name.parse::<Cluster>().is_err(), "{name}");
        }
    }
}
