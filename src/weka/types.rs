//! What Weka says of itself, as far as scaling reads it: lenient with what it does not need (unknown fields, missing
//! ones, times that can not be read), strict with what it decides on.
//!
//! Field names are the API's of versions 3.14 to 4.4; they are kept when an observation is saved, so that a saved one
//! looks like what Weka answered.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::ids::{ContainerId, DriveId, ProcessId};

/// The answer to `status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Which cluster this is, for ever.
    pub guid: String,
    /// `STARTED` is the only one in which anything may be changed.
    pub io_status: String,
    /// Not empty: an upgrade is running. Versions before 4.4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<String>,
    /// The same, from 4.4 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade_info: Option<UpgradeInfo>,
    /// Machines' worth of capacity kept free.
    pub hot_spare: u32,
    /// D: data blocks of a stripe.
    pub stripe_data_drives: u32,
    /// P: protection blocks of a stripe.
    pub stripe_protection_drives: u32,
    /// The cluster's own clock.
    #[serde(default, deserialize_with = "or_default")]
    pub time: Clock,
    /// Containers, counted. Versions before 4.4, and 4.4 under both names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Containers>,
    /// Containers, counted, from 4.4 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containers: Option<Containers>,
    /// How much fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// How well the data is protected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuild: Option<Rebuild>,
}

/// An upgrade's progress.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeInfo {
    /// Empty: none runs. The type beside it says nothing: an idle cluster has one.
    #[serde(default)]
    pub upgrade_phase: Option<String>,
}

/// The cluster's clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// Its time when it answered.
    #[serde(default, deserialize_with = "time")]
    pub cluster_time: Option<Timestamp>,
}

/// How many containers there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Containers {
    /// Those of backends.
    #[serde(default)]
    pub backends: Option<Count>,
}

/// A number of things.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// All of them.
    pub total: u64,
}

/// Capacity in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// All that can be provisioned.
    pub total_bytes: u64,
    /// What no file system has been given of it.
    pub unprovisioned_bytes: u64,
}

/// How well the data is protected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rebuild {
    /// Whether enough failure domains are up to rebuild.
    pub enough_active_f_ds: bool,
    /// The share of data with so many failures, none first.
    pub protection_state: Vec<ProtectionState>,
    /// The share of data that can not be read: all of it where Weka does not say.
    #[serde(default = "all")]
    pub unavailable_percent: f64,
    /// The same in MiB; the share decides where Weka does not say.
    #[serde(default, rename = "unavailableMiB")]
    pub unavailable_mib: f64,
}

/// The share of data with so many failures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProtectionState {
    /// Blocks of a stripe that are missing.
    pub num_failures: u32,
    /// 0 to 100.
    pub percent: f64,
}

/// One container, of a backend or a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// Whose it is. Old versions do not say; then nothing is decided.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// Such as `drives0`.
    #[serde(default)]
    pub container_name: Option<String>,
    /// Of the machine it runs on.
    #[serde(default)]
    pub machine_identifier: Option<String>,
    /// Its management address.
    #[serde(default)]
    pub host_ip: Option<String>,
    /// All its addresses.
    #[serde(default, deserialize_with = "or_default")]
    pub ips: Vec<String>,
    /// Where it is in its life.
    pub state: State,
    /// How it does.
    pub status: ContainerStatus,
    /// When it joined.
    #[serde(default, deserialize_with = "time")]
    pub added_time: Option<Timestamp>,
    /// When its status changed last.
    #[serde(default, deserialize_with = "time")]
    pub state_changed_time: Option<Timestamp>,
    /// What Weka knows of its instance.
    #[serde(default, deserialize_with = "or_default")]
    pub aws: Aws,
    /// Whether it is one of the few that lead the cluster.
    #[serde(default, deserialize_with = "or_default")]
    pub member_of_leadership: bool,
    /// Seconds after which a client that is down is forgotten.
    #[serde(default)]
    pub auto_remove_timeout: Option<i64>,
}

/// What Weka knows of a container's instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aws {
    /// `i-…`
    #[serde(default)]
    pub instance_id: Option<String>,
}

/// A process of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Whose.
    #[serde(rename = "host_id")]
    pub container: ContainerId,
    /// `UP`, `DOWN`.
    pub status: String,
    /// Since when it is up, or was when it last was.
    #[serde(default, deserialize_with = "time")]
    pub up_since: Option<Timestamp>,
    /// When the cluster last shut it out.
    #[serde(default, deserialize_with = "time")]
    pub last_fencing_time: Option<Timestamp>,
}

/// A drive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drive {
    /// What calls name it by.
    pub uuid: String,
    /// Whose; invalid once its container was removed.
    #[serde(rename = "host_id")]
    pub container: ContainerId,
    /// Where it is in its life.
    pub status: DriveStatus,
    /// `false`: somebody has deactivated it.
    pub should_be_active: bool,
}

/// A group of addresses that are served to NFS or SMB clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceGroup {
    /// Its name.
    pub name: String,
    /// `NFS`, `SMB`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Which container serves on which interface.
    #[serde(default, deserialize_with = "or_default")]
    pub ports: Vec<Port>,
}

/// One interface of an interface group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Whose.
    #[serde(rename = "host_id")]
    pub container: ContainerId,
    /// Such as `ens5`.
    pub port: String,
}

/// A setting that overrides what the cluster does by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// Such as `skip_scale_down`.
    pub key: String,
    /// Off counts as absent.
    #[serde(default)]
    pub enabled: Option<bool>,
}

/// An enumeration of Weka's words, with a place for words that are new to us: they are kept, and never taken for one
/// of the others.
macro_rules! words {
    ($(#[$documentation:meta])* $name:ident { $($(#[$line:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$documentation])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub enum $name {
            $($(#[$line])* $variant,)+
            /// A word of another version.
            Other(String),
        }

        impl $name {
            /// Weka's word.
            pub fn word(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Other(word) => word,
                }
            }
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                match word.as_str() {
                    $($word => Self::$variant,)+
                    _ => Self::Other(word),
                }
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> Self {
                word.word().to_owned()
            }
        }
    };
}

words!(
    /// Whose a container is.
    Mode {
        /// A backend's.
        Backend = "backend",
        /// A client's: never counted, never touched.
        Client = "client",
    }
);
words!(
    /// Where a container is in its life.
    State {
        /// Part of the cluster.
        Active = "ACTIVE",
        /// On its way out; its drives hold data still.
        Deactivating = "DEACTIVATING",
        /// Out, and known still.
        Inactive = "INACTIVE",
        /// Being forgotten.
        Removing = "REMOVING",
    }
);
words!(
    /// How a container does.
    ContainerStatus {
        /// Well.
        Up = "UP",
        /// Not to be reached.
        Down = "DOWN",
        /// Some of its processes are not.
        Degraded = "DEGRADED",
        /// Out of the cluster.
        Inactive = "INACTIVE",
        /// Being emptied.
        Draining = "DRAINING",
        /// Empty.
        Drained = "DRAINED",
    }
);
words!(
    /// Where a drive is in its life.
    DriveStatus {
        /// Being filled.
        PhasingIn = "PHASING_IN",
        /// In use.
        Active = "ACTIVE",
        /// Being emptied, and readable.
        PhasingOut = "PHASING_OUT",
        /// Empty.
        Inactive = "INACTIVE",
        /// Broken; the cluster empties it by itself.
        Failed = "FAILED",
    }
);

/// Everything that one run reads of Weka.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reads {
    /// `status`.
    pub status: Status,
    /// `hosts_list`.
    pub containers: BTreeMap<ContainerId, Container>,
    /// `disks_list`.
    pub drives: BTreeMap<DriveId, Drive>,
    /// `nodes_list`.
    pub processes: BTreeMap<ProcessId, Process>,
    /// `interface_group_list`; empty where the version has none.
    #[serde(default)]
    pub interface_groups: Vec<InterfaceGroup>,
    /// `manual_override_list`; empty where the version has none.
    #[serde(default)]
    pub overrides: BTreeMap<String, Override>,
}

impl Status {
    /// Whether an upgrade runs, in the words of either version.
    pub fn is_upgrading(&self) -> bool {
        let phase = self
            .upgrade_info
            .as_ref()
            .and_then(|info| info.upgrade_phase.as_deref());
        [self.upgrade.as_deref(), phase]
            .into_iter()
            .flatten()
            .any(|text| !text.is_empty())
    }

    /// How many containers backends have by the cluster's own count, in the words of either version.
    pub fn backend_containers(&self) -> Option<u64> {
        [&self.containers, &self.hosts]
            .into_iter()
            .flatten()
            .find_map(|containers| containers.backends)
            .map(|count| count.total)
    }

    /// Whether every block of every stripe is there: all of the data without a failure, none of it unavailable.
    pub fn is_fully_protected(&self) -> bool {
        self.rebuild.as_ref().is_some_and(|rebuild| {
            let whole = rebuild
                .protection_state
                .iter()
                .find(|state| state.num_failures == 0)
                .is_some_and(|state| state.percent >= 100.0);
            whole && rebuild.unavailable_percent <= 0.0 && rebuild.unavailable_mib <= 0.0
        })
    }
}

impl Override {
    /// Whether it counts: one that is switched off does not.
    pub fn is_on(&self) -> bool {
        self.enabled != Some(false)
    }
}

/// A time in RFC 3339; absent where Weka says null, nothing, or something that is no time: no rule may take a time
/// that can not be read for an early one.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(value.as_str().and_then(|text| text.parse().ok()))
}

/// What is not said must not pass for none.
const fn all() -> f64 {
    100.0
}

/// The default for null.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn status(change: impl FnOnce(&mut Value)) -> Result<Status, serde_json::Error> {
        let mut status = json!({
            "io_status": "STARTED", "io_status_changed_time": "2024-02-20T16:21:04Z", "status": "OK", "upgrade": "",
            "name": "prod", "guid": "a1d2", "is_cluster": true, "release": "4.2.7", "init_stage": "INITIALIZED",
            "hot_spare": 1, "stripe_data_drives": 3, "stripe_protection_drives": 2, "active_alerts_count": 2,
            "time": {"cluster_time": "2024-02-20T16:30:00.25Z"},
            "hosts": {
                "active_count": 18, "total_count": 18, "backends": {"active": 17, "total": 18},
                "clients": {"active": 0, "total": 3},
            },
            "capacity": {
                "total_bytes": 30_000_000_000_000_u64, "hot_spare_bytes": 5_000_000_000_000_u64,
                "unprovisioned_bytes": 15_000_000_000_000_u64,
            },
            "rebuild": {
                "enoughActiveFDs": true, "numActiveFDs": 6, "requiredFDsForRebuild": 3, "progressPercent": 0,
                "stripeDisks": 5, "protectionState": [
                    {"numFailures": 0, "percent": 100, "MiB": 1000}, {"numFailures": 1, "percent": 0, "MiB": 0},
                    {"numFailures": 2, "percent": 0, "MiB": 0},
                ],
                "totalCopiesMiB": 0, "totalCopiesDoneMiB": 0, "unavailableMiB": 0, "unavailablePercent": 0,
            },
        });
        change(&mut status);
        serde_json::from_value(status)
    }

    fn container(change: impl FnOnce(&mut Value)) -> Result<Container, serde_json::Error> {
        let mut container = json!({
            "uid": "5c6f3c8e", "mode": "backend", "container_name": "drives0", "machine_identifier": "9c6fe1b0",
            "hostname": "ip-10-0-1-245", "host_ip": "10.0.1.245", "ips": ["10.0.1.245", "10.0.1.12"],
            "state": "ACTIVE", "status": "UP", "added_time": "2024-02-20T09:28:53.407011Z",
            "state_changed_time": "2024-02-20T09:28:53.4Z", "start_time": "2024-02-20T09:28:40Z",
            "failure_domain": "DOM-009", "aws": {
                "instance_id": "i-0abc", "instance_type": "i3en.2xlarge", "availability_zone": "eu-west-1a",
            },
            "sw_version": "4.2.7", "mgmt_port": 14000, "cores_ids": [1], "leadership_role": null,
            "member_of_leadership": true, "last_failure_time": null, "auto_remove_timeout": 86400,
        });
        change(&mut container);
        serde_json::from_value(container)
    }

    #[test]
    fn a_status_of_an_older_version_is_read() {
        let status = status(|_| {}).unwrap();
        assert!(!status.is_upgrading());
        assert!(status.is_fully_protected());
        assert_eq!(status.backend_containers(), Some(18));
        assert_eq!(
            status.capacity.unwrap().unprovisioned_bytes,
            15_000_000_000_000
        );
        let time = status.time.cluster_time.unwrap();
        assert_eq!(time.to_string(), "2024-02-20T16:30:00.25Z");
    }

    #[test]
    fn a_status_of_a_newer_version_is_read() {
        let newer = |phase: &str| {
            status(|status| {
                let fields = status.as_object_mut().unwrap();
                fields.remove("upgrade");
                fields.remove("hosts");
                status["upgrade_info"] =
                    json!({"upgrade_phase": phase, "upgrade_type": "agent-driven", "upgrade_paused": false});
                status["containers"] =
                    json!({"active": 18, "total": 21, "backends": {"active": 18, "total": 18}, "drives": {"total": 6}});
                status["rebuild"]["movingData"] = false.into();
            })
            .unwrap()
        };
        assert!(!newer("").is_upgrading());
        assert!(newer("DRIVES_ROLLING").is_upgrading());
        assert_eq!(newer("").backend_containers(), Some(18));
    }

    #[test]
    fn an_upgrade_is_seen_in_either_place() {
        let upgrade = |value: Value| status(|status| status["upgrade"] = value).unwrap();
        assert!(upgrade("rolling".into()).is_upgrading());
        assert!(!upgrade(Value::Null).is_upgrading());
    }

    #[test]
    fn what_a_decision_rests_on_has_to_be_there() {
        for field in [
            "guid",
            "io_status",
            "hot_spare",
            "stripe_data_drives",
            "stripe_protection_drives",
        ] {
            let without = status(|status| {
                status.as_object_mut().unwrap().remove(field);
            });
            assert!(without.is_err(), "{field}");
        }
        for field in ["state", "status"] {
            let without = container(|container| {
                container.as_object_mut().unwrap().remove(field);
            });
            assert!(without.is_err(), "{field}");
        }
    }

    #[test]
    fn a_clock_that_can_not_be_read_is_none() {
        for clock in [
            Value::Null,
            json!({}),
            json!({"cluster_time": "soon"}),
            json!({"cluster_time": 7}),
        ] {
            let status = status(|status| status["time"] = clock).unwrap();
            assert_eq!(status.time.cluster_time, None);
        }
    }

    #[test]
    fn all_is_protected_only_if_that_is_said() {
        let protected = |field: &'static str, value: Option<Value>| {
            let status = status(|status| {
                let rebuild = status["rebuild"].as_object_mut().unwrap();
                rebuild.remove(field);
                rebuild.extend(value.map(|value| (field.to_owned(), value)));
            });
            status.unwrap().is_fully_protected()
        };
        let state = |percent: f64| Some(json!([{"numFailures": 0, "percent": percent}]));
        assert!(protected("protectionState", state(100.0)));
        assert!(!protected("protectionState", state(99.99)));
        assert!(!protected(
            "protectionState",
            Some(json!([{"numFailures": 1, "percent": 100}]))
        ));
        assert!(!protected("unavailablePercent", Some(json!(0.01))));
        assert!(!protected("unavailablePercent", None));
        assert!(!protected("unavailableMiB", Some(json!(1))));
        let unsaid = status(|status| status["rebuild"] = Value::Null).unwrap();
        assert!(!unsaid.is_fully_protected());
    }

    #[test]
    fn a_container_is_read() {
        let container = container(|_| {}).unwrap();
        assert_eq!(container.mode, Some(Mode::Backend));
        assert_eq!(
            (container.state, container.status),
            (State::Active, ContainerStatus::Up)
        );
        assert_eq!(container.aws.instance_id.as_deref(), Some("i-0abc"));
        assert_eq!(container.ips.len(), 2);
        assert!(container.member_of_leadership);
        assert_eq!(container.auto_remove_timeout, Some(86_400));
        assert_eq!(
            container.added_time.unwrap().to_string(),
            "2024-02-20T09:28:53.407011Z"
        );
    }

    #[test]
    fn a_container_may_lack_everything_that_is_not_decided_on() {
        let bare = json!({"state": "ACTIVE", "status": "UP"});
        let bare: Container = serde_json::from_value(bare).unwrap();
        let nulls = container(|container| {
            for (field, value) in container.as_object_mut().unwrap() {
                if field != "state" && field != "status" {
                    *value = Value::Null;
                }
            }
        });
        assert_eq!(nulls.unwrap(), bare);
        assert_eq!((bare.mode, bare.added_time), (None, None));
    }

    #[test]
    fn a_time_that_can_not_be_read_is_none() {
        for time in [
            json!("yesterday"),
            json!(""),
            json!(1_708_421_333),
            json!({}),
        ] {
            let container = container(|container| container["state_changed_time"] = time).unwrap();
            assert_eq!(container.state_changed_time, None);
        }
    }

    #[test]
    fn a_new_word_is_kept() {
        let container = container(|container| {
            container["state"] = "JOINING".into();
            container["status"] = "RESTING".into();
            container["mode"] = "gateway".into();
        })
        .unwrap();
        assert_eq!(container.state, State::Other("JOINING".into()));
        assert_eq!(container.mode, Some(Mode::Other("gateway".into())));
        let written = serde_json::to_value(&container).unwrap();
        assert_eq!(written["status"], "RESTING");
    }

    #[test]
    fn every_word_is_written_as_it_is_read() {
        for word in [
            "PHASING_IN",
            "ACTIVE",
            "PHASING_OUT",
            "INACTIVE",
            "FAILED",
            "NEW",
        ] {
            let status = DriveStatus::from(word.to_owned());
            assert_eq!(matches!(status, DriveStatus::Other(_)), word == "NEW");
            assert_eq!(String::from(status), word);
        }
    }

    #[test]
    fn drives_are_read_without_a_container_too() {
        let drives: BTreeMap<DriveId, Drive> = serde_json::from_value(json!({
            "DiskId<8>": {
                "uuid": "d5c36ee4", "host_id": "HostId<9>", "node_id": "NodeId<181>", "status": "ACTIVE",
                "should_be_active": true, "attachment": "OK", "size_bytes": 2_500_000_000_000_u64, "removed_time": null,
            },
            "DiskId<9>": {
                "uuid": "d5c36ee5", "host_id": "HostId<INVALID>", "status": "INACTIVE", "should_be_active": false,
            },
        }))
        .unwrap();
        assert_eq!(drives[&DriveId::new(8)].container, ContainerId::new(9));
        assert_eq!(drives[&DriveId::new(9)].container, ContainerId::INVALID);
    }

    #[test]
    fn processes_are_read() {
        let processes: BTreeMap<ProcessId, Process> = serde_json::from_value(json!({
            "NodeId<180>": {
                "host_id": "HostId<9>", "status": "UP", "mode": "backend", "roles": ["MANAGEMENT"], "slot": 0,
                "up_since": "2024-02-20T09:29:10Z", "last_fencing_time": null, "last_fencing_reason": null,
            },
            "NodeId<181>": {"host_id": "HostId<9>", "status": "DOWN", "last_fencing_time": "2024-02-21T00:00:00Z"},
        }))
        .unwrap();
        let (first, second) = (
            &processes[&ProcessId::new(180)],
            &processes[&ProcessId::new(181)],
        );
        assert!(first.up_since.is_some() && first.last_fencing_time.is_none());
        assert!(second.up_since.is_none() && second.last_fencing_time.is_some());
    }

    #[test]
    fn interface_groups_and_overrides_are_read() {
        let groups: Vec<InterfaceGroup> = serde_json::from_value(json!([
            {"name": "weka-ig", "uid": "u", "type": "NFS", "status": "OK", "ips": ["10.0.1.90"],
             "ports": [{"host_uid": "u", "host_id": "HostId<21>", "port": "ens5", "status": "OK"}]},
            {"name": "empty", "ports": null},
        ]))
        .unwrap();
        assert_eq!(groups[0].ports[0].container, ContainerId::new(21));
        assert_eq!(
            (groups[0].kind.as_str(), groups[1].kind.as_str()),
            ("NFS", "")
        );

        let read = |value: Value| -> Override { serde_json::from_value(value).unwrap() };
        let on = json!({"override_id": "ManualOverrideId<0>", "key": "skip_scale_down", "value": true, "enabled": true});
        assert!(read(on).is_on());
        assert!(read(json!({"key": "skip_scale_down"})).is_on());
        assert!(!read(json!({"key": "skip_scale_down", "enabled": false})).is_on());
    }
}
