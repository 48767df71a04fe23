//! An AWS, a Weka and a clock in memory, for the tests of single functions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::lease::{Hold, Learned, Lease};
use super::payload::{Fetched, Scaled};
use super::ports::{Backend, Clock, Cloud, CloudError};
use super::seal::SealKeys;
use super::{Invocation, Setup};
use crate::cluster::settings::Credentials;
use crate::cluster::spec::Cores;
use crate::weka::client::{Reply, Request, Transport, TransportError};
use crate::weka::scaling::{Ec2State, Group, Instance, Settings};

pub(super) const PASSWORD: &str = "pass-word-1";
pub(super) const EXECUTION: &str = "arn:aws:states:x:1:execution:y:z";
const START: &str = "2026-01-01T00:00:00Z";

pub(super) fn start() -> Timestamp {
    START.parse().unwrap()
}

fn before(minutes: i64) -> Timestamp {
    start() - SignedDuration::from_mins(minutes)
}

/// A clock that stands still until it is set.
#[derive(Clone)]
pub(super) struct FakeClock(Arc<Mutex<Timestamp>>);

impl FakeClock {
    pub(super) fn set(&self, now: Timestamp) {
        *self.0.lock().unwrap() = now;
    }

    pub(super) fn advance(&self, seconds: i64) {
        *self.0.lock().unwrap() += SignedDuration::from_secs(seconds);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

/// AWS: what it has, what was asked of it, and what it refuses.
pub(super) struct FakeCloud {
    pub(super) group: Mutex<Group>,
    pub(super) credentials: Option<Credentials>,
    pub(super) lease: Mutex<Option<(Hold, Lease)>>,
    pub(super) backends: Vec<Backend>,
    pub(super) cores: Option<Cores>,
    /// Members without protection from termination.
    pub(super) unprotected: BTreeSet<String>,
    /// `call` or `call id`: refused.
    pub(super) refused: BTreeSet<String>,
    /// The same: fails without an answer.
    pub(super) unanswered: BTreeSet<String>,
    calls: Mutex<Vec<String>>,
}

impl FakeCloud {
    /// The changes asked for: `call id,id`.
    pub(super) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn group(&self) -> MutexGuard<'_, Group> {
        self.group.lock().unwrap()
    }

    fn call(&self, name: &str, ids: &[String]) -> Result<(), CloudError> {
        let call = format!("{name} {}", ids.join(","));
        self.calls.lock().unwrap().push(call);
        let is_in = |list: &BTreeSet<String>| {
            let mut ids = ids.iter();
            list.contains(name) || ids.any(|id| list.contains(&format!("{name} {id}")))
        };
        if is_in(&self.refused) || is_in(&self.unanswered) {
            return Err(CloudError {
                text: "AWS will not".to_owned(),
                refused: is_in(&self.refused),
            });
        }
        Ok(())
    }

    fn holds(&self, hold: &Hold) -> bool {
        let lease = self.lease.lock().unwrap();
        lease.as_ref().is_some_and(|(held, _)| held == hold)
    }
}

impl Cloud for FakeCloud {
    async fn group(&self) -> Result<Group, CloudError> {
        if self.refused.contains("group") {
            return Err(CloudError {
                text: "reading the group: AWS will not".to_owned(),
                refused: true,
            });
        }
        Ok(self.group().clone())
    }

    async fn credentials(&self) -> Result<Option<Credentials>, CloudError> {
        Ok(self.credentials.clone())
    }

    async fn take_lease(&self, hold: &Hold, now: Timestamp) -> Result<Option<Lease>, CloudError> {
        let mut lease = self.lease.lock().unwrap();
        let (held, left) = lease
            .take()
            .unwrap_or_else(|| (hold.clone(), Lease::default()));
        if held.execution != hold.execution && held.expires > now {
            *lease = Some((held, left));
            return Ok(None);
        }
        *lease = Some((hold.clone(), left.clone()));
        Ok(Some(left))
    }

    async fn write_lease(&self, hold: &Hold, learned: &Learned) -> Result<bool, CloudError> {
        if !self.holds(hold) {
            return Ok(false);
        }
        if let Some((_, lease)) = self.lease.lock().unwrap().as_mut() {
            lease.guid = lease.guid.clone().or(learned.guid.clone());
            lease.previous_desired = learned.previous_desired.or(lease.previous_desired);
            if learned.refused_login.is_some() {
                lease.refused_login.clone_from(&learned.refused_login);
            }
        }
        Ok(true)
    }

    async fn release_lease(&self, hold: &Hold) -> Result<(), CloudError> {
        if self.holds(hold)
            && let Some((held, _)) = self.lease.lock().unwrap().as_mut()
        {
            held.expires = Timestamp::UNIX_EPOCH;
        }
        Ok(())
    }

    async fn set_scale_in_protection(
        &self,
        ids: &[String],
        is_protected: bool,
    ) -> Result<(), CloudError> {
        let name = if is_protected { "protect" } else { "unprotect" };
        self.call(name, ids)
    }

    async fn termination_protection(&self, id: &str) -> Result<bool, CloudError> {
        Ok(!self.unprotected.contains(id))
    }

    async fn set_termination_protection(
        &self,
        id: &str,
        is_protected: bool,
    ) -> Result<(), CloudError> {
        let name = if is_protected { "lock" } else { "unlock" };
        self.call(name, &[id.to_owned()])
    }

    async fn terminate(&self, ids: &[String]) -> Result<(), CloudError> {
        self.call("terminate", ids)
    }

    async fn detach(&self, ids: &[String]) -> Result<(), CloudError> {
        self.call("detach", ids)
    }

    async fn mark_joined(&self, ids: &[String]) -> Result<(), CloudError> {
        self.call("mark", ids)
    }

    async fn running_backends(&self) -> Result<Vec<Backend>, CloudError> {
        Ok(self.backends.clone())
    }

    async fn cores(&self) -> Result<Option<Cores>, CloudError> {
        Ok(self.cores)
    }
}

/// How Weka answers a method.
#[derive(Clone)]
pub(super) enum Answer {
    Result(Value),
    Error(i64, &'static str),
    Status(u16),
    Silence,
}

/// Weka: an answer for each method, and what was asked of it.
#[derive(Clone)]
pub(super) struct FakeWeka {
    clock: FakeClock,
    state: Arc<Mutex<WekaState>>,
}

#[derive(Default)]
struct WekaState {
    answers: BTreeMap<String, Vec<Answer>>,
    /// Seconds that an answer takes.
    delays: BTreeMap<String, i64>,
    asked: Vec<(String, String, Value)>,
}

impl FakeWeka {
    /// How it answers a method from now on; with several answers, one after the other, the last for ever.
    pub(super) fn answers(&self, method: &str, answers: &[Answer]) {
        let mut answers = answers.to_vec();
        answers.reverse();
        let mut state = self.state.lock().unwrap();
        state.answers.insert(method.to_owned(), answers);
    }

    pub(super) fn takes(&self, method: &str, seconds: i64) {
        let mut state = self.state.lock().unwrap();
        state.delays.insert(method.to_owned(), seconds);
    }

    pub(super) fn change(&self, method: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.state.lock().unwrap();
        if let Some([Answer::Result(value)]) = state.answers.get_mut(method).map(Vec::as_mut_slice)
        {
            change(value);
        }
    }

    /// What was asked, and of whom.
    pub(super) fn asked(&self, method: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let asked = state.asked.iter().filter(|(asked, ..)| asked == method);
        asked.map(|(_, address, _)| address.clone()).collect()
    }

    /// What was asked for that changes something, in order: method and parameters.
    pub(super) fn mutations(&self) -> Vec<(String, Value)> {
        let state = self.state.lock().unwrap();
        let asked = state
            .asked
            .iter()
            .filter(|(method, ..)| method.starts_with("cluster_") || method.starts_with("events_"));
        asked
            .map(|(method, _, params)| (method.clone(), params.clone()))
            .collect()
    }

    pub(super) fn methods(&self) -> Vec<String> {
        self.mutations()
            .into_iter()
            .map(|(method, _)| method)
            .collect()
    }
}

impl Transport for FakeWeka {
    async fn connect(&self, _address: &str, _limit: Duration) -> Result<(), TransportError> {
        Ok(())
    }

    async fn post(&self, request: Request<'_>) -> Result<Reply, TransportError> {
        let body: Value = serde_json::from_str(request.body.expose_secret()).unwrap();
        let method = body["method"].as_str().unwrap().to_owned();
        let mut state = self.state.lock().unwrap();
        let address = request.address.to_owned();
        state
            .asked
            .push((method.clone(), address, body["params"].clone()));
        self.clock
            .advance(state.delays.get(&method).copied().unwrap_or_default());
        let answer = match state.answers.get_mut(&method) {
            Some(answers) if answers.len() > 1 => answers.pop(),
            Some(answers) => answers.first().cloned(),
            None => None,
        };
        let (status, content) = match answer.unwrap_or(Answer::Result(Value::Null)) {
            Answer::Result(result) => (200, json!({"jsonrpc": "2.0", "id": "1", "result": result})),
            Answer::Error(code, message) => (
                200,
                json!({"jsonrpc": "2.0", "id": "1", "error": {"code": code, "message": message}}),
            ),
            Answer::Status(status) => (status, Value::Null),
            Answer::Silence => return Err(TransportError::Unknown("no answer".to_owned())),
        };
        Ok(Reply {
            status,
            body: content.to_string(),
            location: None,
        })
    }
}

/// A cluster of so many backends, its group, and the functions around them.
pub(super) struct World {
    pub(super) setup: Setup,
    pub(super) cloud: FakeCloud,
    pub(super) weka: FakeWeka,
    pub(super) clock: FakeClock,
}

impl World {
    pub(super) fn of(machines: u32) -> Self {
        let clock = FakeClock(Arc::new(Mutex::new(start())));
        let weka = FakeWeka {
            clock: clock.clone(),
            state: Arc::default(),
        };
        for (method, answer) in [
            (
                "user_login",
                json!({"access_token": "token", "expires_in": 300}),
            ),
            ("status", status(machines)),
            ("hosts_list", containers(machines)),
            ("disks_list", drives(machines)),
            ("nodes_list", processes(machines)),
            ("interface_group_list", json!([])),
            ("manual_override_list", json!({})),
        ] {
            weka.answers(method, &[Answer::Result(answer)]);
        }
        Self {
            setup: Setup {
                cluster: "prod".into(),
                group: "wekactl-prod-Backends".into(),
                keys: SealKeys::read(&"one:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".into())
                    .unwrap(),
                use_dynamodb_endpoint: false,
                settings: Settings::default(),
            },
            cloud: FakeCloud {
                group: Mutex::new(Group {
                    name: "wekactl-prod-Backends".into(),
                    desired: machines,
                    suspended: [
                        "AZRebalance",
                        "InstanceRefresh",
                        "ReplaceUnhealthy",
                        "Terminate",
                    ]
                    .map(Into::into)
                    .into(),
                    instances: (0..machines).map(instance).collect(),
                }),
                credentials: Some(Credentials {
                    username: "admin".into(),
                    password: PASSWORD.into(),
                }),
                lease: Mutex::default(),
                backends: Vec::new(),
                cores: Some(Cores {
                    compute: 1,
                    drive: 1,
                    frontend: 1,
                    memory: 1 << 30,
                }),
                unprotected: BTreeSet::new(),
                refused: BTreeSet::new(),
                unanswered: BTreeSet::new(),
                calls: Mutex::default(),
            },
            weka,
            clock,
        }
    }

    /// A target that was the same in the run before.
    pub(super) fn desire(&self, machines: u32) {
        self.cloud.group().desired = machines;
        let released = Hold {
            execution: "arn:before".into(),
            expires: Timestamp::UNIX_EPOCH,
        };
        let lease = Lease {
            previous_desired: Some(machines),
            ..Lease::default()
        };
        *self.cloud.lease.lock().unwrap() = Some((released, lease));
    }

    pub(super) fn invocation(&self, seconds: i64) -> Invocation<'_, FakeCloud, FakeClock> {
        Invocation {
            setup: &self.setup,
            cloud: &self.cloud,
            clock: &self.clock,
            deadline: self.clock.now() + SignedDuration::from_secs(seconds),
        }
    }

    pub(super) async fn fetch(&self) -> anyhow::Result<Fetched> {
        let start = serde_json::from_value(json!({"execution": EXECUTION})).unwrap();
        super::fetch::fetch(&self.invocation(8), &start).await
    }

    pub(super) async fn scale(&self, fetched: Fetched) -> Scaled {
        self.scale_within(35, fetched).await
    }

    pub(super) async fn scale_within(&self, seconds: i64, fetched: Fetched) -> Scaled {
        let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(1);
        let weka = self.weka.clone();
        super::scale::scale(&self.invocation(seconds), weka, &mut rng, fetched)
            .await
            .unwrap()
    }

    /// Both, one after the other.
    pub(super) async fn run(&self) -> Scaled {
        self.scale(self.fetch().await.unwrap()).await
    }
}

pub(super) fn id(number: u32) -> String {
    format!("i-{number:017x}")
}

pub(super) fn address(number: u32) -> String {
    format!("10.0.{}.{}", number / 200, number % 200 + 1)
}

pub(super) fn instance(number: u32) -> Instance {
    Instance {
        id: id(number),
        private_ip: Some(address(number)),
        launched: Some(before(600)),
        ec2: Ec2State::Running,
        lifecycle: "InService".into(),
        healthy: true,
        protected: true,
        attached: true,
        joined: true,
    }
}

fn status(machines: u32) -> Value {
    json!({
        "guid": "guid-1", "io_status": "STARTED", "upgrade": "", "hot_spare": 0, "stripe_data_drives": 3,
        "stripe_protection_drives": 2, "time": {"cluster_time": START},
        "hosts": {"backends": {"active": machines * 3, "total": machines * 3}},
        "capacity": {"total_bytes": 1_000_000_u64, "unprovisioned_bytes": 900_000_u64},
        "rebuild": {
            "enoughActiveFDs": true, "unavailablePercent": 0, "unavailableMiB": 0,
            "protectionState": [{"numFailures": 0, "percent": 100.0}],
        },
    })
}

/// Three of each machine: numbers 3 n, 3 n + 1 and 3 n + 2.
fn containers(machines: u32) -> Value {
    let all = (0..machines * 3).map(|number| {
        let machine = number / 3;
        let name = ["drives0", "compute0", "frontend0"][number as usize % 3];
        let container = json!({
            "mode": "backend", "container_name": name, "machine_identifier": format!("machine-{machine}"),
            "host_ip": address(machine), "ips": [address(machine)], "state": "ACTIVE", "status": "UP",
            "added_time": before(600 - i64::from(machine)).to_string(),
            "state_changed_time": before(500).to_string(), "aws": {"instance_id": id(machine)},
            "member_of_leadership": false,
        });
        (format!("HostId<{number}>"), container)
    });
    Value::Object(all.collect())
}

fn drives(machines: u32) -> Value {
    let all = (0..machines).map(|machine| {
        let drive = json!({
            "uuid": format!("drive-{machine}"), "host_id": format!("HostId<{}>", machine * 3),
            "status": "ACTIVE", "should_be_active": true,
        });
        (format!("DiskId<{machine}>"), drive)
    });
    Value::Object(all.collect())
}

fn processes(machines: u32) -> Value {
    let all = (0..machines * 3).map(|container| {
        let process = json!({
            "host_id": format!("HostId<{container}>"), "status": "UP", "up_since": before(500).to_string(),
            "last_fencing_time": null,
        });
        (format!("NodeId<{}>", container * 20), process)
    });
    Value::Object(all.collect())
}

/// Takes a machine out of the cluster, as a drain does that has ended.
pub(super) fn drained(weka: &FakeWeka, machine: u32) {
    weka.change("hosts_list", |containers| {
        for number in machine * 3..machine * 3 + 3 {
            let container = &mut containers[format!("HostId<{number}>")];
            container["state"] = "INACTIVE".into();
            container["status"] = "INACTIVE".into();
        }
    });
    weka.change("disks_list", |drives| {
        let drive = &mut drives[format!("DiskId<{machine}>")];
        drive["status"] = "INACTIVE".into();
        drive["should_be_active"] = false.into();
    });
}
