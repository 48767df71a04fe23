//! AWS, Weka and the time of one history, and everything that must never happen in it.
//!
//! What is checked here is checked against the truth that the model of the cluster knows, not against what the
//! functions could read. The numbers are those of the invariants in `tests/histories/mod.rs`.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::time::Instant;
use wekactl::weka::scaling::Ec2State;

use super::account::{Account, Machine};
use super::trouble::Trouble;
use crate::support::weka::{CallOutcome, JoinStep, Layout, State, Weka};

/// When every history begins.
pub(crate) const BEGINNING: &str = "2026-01-01T00:00:00Z";
/// A mutation of Weka rests on a list that is no older (S3).
const READS_LAST: SignedDuration = SignedDuration::from_secs(20);
/// Nothing younger is removed or terminated (S5).
const YOUNGEST: SignedDuration = SignedDuration::from_mins(10);
/// Nothing that Weka does not know is terminated before (S4).
const GRACE: SignedDuration = SignedDuration::from_mins(30);

/// A new instance on its way into the cluster.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    pub(crate) due: Timestamp,
    pub(crate) fails_at: Option<JoinStep>,
    /// Whether a failed one takes its containers away again.
    pub(crate) undoes: bool,
}

/// Why one of ours is leaving the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Size,
    Health,
    Other,
}

/// One run of the state machine.
#[derive(Debug, Default)]
pub(crate) struct Execution {
    /// The target that it read.
    pub(crate) desired: u32,
    /// Since when its list of containers is out of date.
    hosts_read: Option<Timestamp>,
    status_read: Option<Timestamp>,
    made: BTreeSet<String>,
    explicit: usize,
    absent: usize,
    /// What its latest event said.
    why: Option<Why>,
}

/// See the module.
pub(crate) struct World {
    start: Instant,
    beginning: Timestamp,
    pub(crate) account: Account,
    pub(crate) weka: Weka,
    pub(crate) joins: BTreeMap<String, Join>,
    pub(crate) next_join: Option<Join>,
    /// Trouble with AWS, by the number of calls until then.
    pub(crate) troubles: BTreeMap<usize, Trouble>,
    pub(crate) executions: BTreeMap<String, Execution>,
    /// Who changed something, in order, without repetition.
    changers: Vec<String>,
    /// Since when the cluster must not be touched.
    pub(crate) gate_since: Option<Timestamp>,
    leaving: BTreeMap<String, (Why, bool)>,
    pub(crate) violations: Vec<String>,
    aws_calls: usize,
    checked: usize,
}

impl World {
    /// A healthy cluster of that size, whose group has always been there.
    pub(crate) fn new(size: u32, layout: Layout) -> Self {
        let beginning: Timestamp = BEGINNING.parse().expect("a time");
        let account = Account::new(size, beginning);
        let machines: Vec<_> = account
            .machines
            .iter()
            .map(|(id, machine)| crate::support::weka::Machine::new(id, &machine.private_ip))
            .collect();
        Self {
            start: Instant::now(),
            beginning,
            account,
            weka: Weka::form(&machines, layout, beginning.into()),
            joins: BTreeMap::new(),
            next_join: None,
            troubles: BTreeMap::new(),
            executions: BTreeMap::new(),
            changers: Vec::new(),
            gate_since: None,
            leaving: BTreeMap::new(),
            violations: Vec::new(),
            aws_calls: 0,
            checked: 0,
        }
    }

    /// The world's time.
    pub(crate) fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.start.elapsed()).expect("a history is short");
        self.beginning + passed
    }

    /// Brings the cluster's own time to the world's.
    pub(crate) fn synchronise(&mut self) {
        let now = std::time::SystemTime::from(self.now());
        if let Ok(passed) = now.duration_since(self.weka.now) {
            self.weka.advance(passed);
        }
    }

    pub(crate) fn violates(&mut self, invariant: u32, text: impl std::fmt::Display) {
        let now = self.now();
        self.violations
            .push(format!("invariant {invariant} at {now}: {text}"));
    }

    /// The trouble that this call to AWS has.
    pub(crate) fn trouble(&mut self) -> Option<Trouble> {
        self.aws_calls += 1;
        self.troubles.remove(&self.aws_calls)
    }

    /// Schedules trouble for a call to AWS from now on.
    pub(crate) fn trouble_ahead(&mut self, calls: usize, trouble: Trouble) {
        self.troubles.insert(self.aws_calls + calls, trouble);
    }

    /// What a minute does without anybody's doing.
    pub(crate) fn minute(&mut self) {
        self.synchronise();
        let now = self.now();
        let (ended, launched) = self.account.minute(now);
        for id in ended {
            // 9
            if self.weka.live_blocks(&id) > 0 && self.weka.is_tolerable() {
                self.violates(9, format!("Auto Scaling ended {id}, which holds data"));
            }
            self.weka.vanish(&id);
        }
        for id in launched {
            self.boots(&id);
        }
        self.join_those_due();
        self.weka.progress();
        self.check("a minute");
    }

    fn boots(&mut self, id: &str) {
        let address = self.account.machines[id].private_ip.clone();
        self.weka
            .boot(crate::support::weka::Machine::new(id, &address));
        let join = self.next_join.take().unwrap_or(Join {
            due: Timestamp::UNIX_EPOCH,
            fails_at: None,
            undoes: true,
        });
        let due = join.due.max(self.now() + SignedDuration::from_mins(3));
        self.joins.insert(id.to_owned(), Join { due, ..join });
    }

    fn join_those_due(&mut self) {
        let now = self.now();
        let due: Vec<(String, Join)> = self
            .joins
            .extract_if(.., |_, join| join.due <= now)
            .collect();
        for (id, join) in due {
            if self.account.machines[&id].state != Ec2State::Running {
                continue;
            }
            if self.weka.join(&id, join.fails_at).is_err() {
                if join.undoes {
                    self.undo(&id);
                }
                // A machine that can not join shuts itself down.
                self.stop(&id);
            }
        }
    }

    /// What the join script takes back.
    fn undo(&mut self, id: &str) {
        let hosts = self.weka.own_containers(id);
        let disks = self.weka.disks_of(id);
        // Whatever the cluster refuses stays, as it does then.
        let _drives = self.weka.deactivate_drives(&disks);
        let _hosts = self.weka.deactivate_hosts(&hosts);
    }

    pub(crate) fn stop(&mut self, id: &str) {
        self.weka.stop(id);
        self.account.machine_mut(id).state = Ec2State::Stopped;
    }

    /// Whatever it was that kept it from running ends.
    pub(crate) fn start(&mut self, id: &str) {
        self.weka.come_back(id);
        let machine = self.account.machine_mut(id);
        if machine.state == Ec2State::Stopped {
            machine.state = Ec2State::Running;
        }
    }

    /// From outside: the instance is gone.
    pub(crate) fn end(&mut self, id: &str) {
        self.account.end(id);
        self.weka.vanish(id);
        self.joins.remove(id);
    }

    // ---- What the functions do

    /// A change is about to be made: 8.
    pub(crate) fn changes(&mut self, execution: &str, what: &str) {
        let is_new = self.changers.last().is_none_or(|last| last != execution);
        if is_new && self.changers.iter().any(|each| each == execution) {
            self.violates(
                8,
                format!("{execution} changes something after another did: {what}"),
            );
        }
        if is_new {
            self.changers.push(execution.to_owned());
        }
        // 6
        let read = self
            .executions
            .get(execution)
            .and_then(|each| each.status_read);
        if let Some((since, read)) = self.gate_since.zip(read)
            && since < read
        {
            self.violates(
                6,
                format!("{execution} changes something behind a closed gate: {what}"),
            );
        }
    }

    /// A request to Weka is about to be sent.
    pub(crate) fn before_request(&mut self, execution: &str, method: &str, params: &Value) {
        let now = self.now();
        let run = self.executions.entry(execution.to_owned()).or_default();
        match method {
            "status" => run.status_read = Some(now),
            "hosts_list" => run.hosts_read = Some(now),
            "events_trigger_custom" => {
                let text = params["message"].as_str().unwrap_or_default();
                run.why = Some(why(text));
            }
            _ => {}
        }
        if !is_mutation(method) {
            return;
        }
        let is_old = run
            .hosts_read
            .is_none_or(|read| now.duration_since(read) > READS_LAST);
        if is_old {
            self.violates(7, format!("{method} rests on old reads"));
        }
        if let Some(host) = self.names_a_client(params) {
            self.violates(10, format!("{method} names the client HostId<{host}>"));
        }
        self.changes(execution, method);
        if method == "cluster_remove_host" {
            self.check_age(params);
        }
    }

    fn names_a_client(&self, params: &Value) -> Option<u32> {
        let text = params.to_string();
        let clients = self
            .weka
            .containers
            .iter()
            .filter(|(_, each)| !each.is_backend());
        clients
            .map(|(host, _)| *host)
            .find(|host| text.contains(&format!("HostId<{host}>")) || params["host_id"] == *host)
    }

    /// 13
    fn check_age(&mut self, params: &Value) {
        let host = params["host_id"]
            .as_u64()
            .and_then(|host| u32::try_from(host).ok());
        let container = host.and_then(|host| self.weka.containers.get(&host));
        let Some(instance) = container.map(|each| each.instance_id.clone()) else {
            return;
        };
        if self.is_young(&instance) {
            self.violates(13, format!("{instance} is removed, and is young"));
        }
    }

    fn is_young(&self, instance: &str) -> bool {
        let hosts = self.weka.own_containers(instance);
        hosts.iter().any(|host| {
            let added: Timestamp = self.weka.containers[host]
                .added_time
                .try_into()
                .expect("a time");
            self.now().duration_since(added) < YOUNGEST
        })
    }

    /// A request to Weka was received, whether it was answered or not: what it has done to the cluster.
    pub(crate) fn after_request(&mut self, execution: &str, method: &str, params: &Value) {
        let run = self.executions.entry(execution.to_owned()).or_default();
        if is_mutation(method) && !run.made.insert(format!("{method} {params}")) {
            self.violates(7, format!("{method} {params} is made twice"));
        }
        let fresh: Vec<_> = self.weka.calls[self.checked..].to_vec();
        self.checked = self.weka.calls.len();
        for call in fresh {
            // 1 and 2
            if call.live > 0 && call.outcome == CallOutcome::Applied {
                self.violates(
                    1,
                    format!(
                        "{} {} takes {} blocks away",
                        call.method, call.params, call.live
                    ),
                );
            }
            if call.after.readable < call.before.readable {
                self.violates(2, format!("{} makes data unreadable", call.method));
            }
            if call.method == "cluster_deactivate_hosts" && call.outcome == CallOutcome::Applied {
                self.deactivated(execution, &call.params);
            }
        }
        self.check(execution);
    }

    /// 4, 5 and 14
    fn deactivated(&mut self, execution: &str, params: &Value) {
        let run = self.executions.entry(execution.to_owned()).or_default();
        let (why, desired) = (run.why.take().unwrap_or(Why::Other), run.desired);
        let hosts = params["host_ids"].as_array().into_iter().flatten();
        let hosts: Vec<u32> = hosts
            .filter_map(|id| {
                id.as_str()?
                    .strip_prefix("HostId<")?
                    .strip_suffix('>')?
                    .parse()
                    .ok()
            })
            .collect();
        let leads = hosts.iter().any(|host| self.weka.leadership.contains(host));
        let instance = hosts
            .first()
            .map(|host| self.weka.containers[host].instance_id.clone());
        self.leaving
            .insert(instance.unwrap_or_default(), (why, leads));
        let drains = |weka: &Weka, instance: &String| {
            let hosts = weka.own_containers(instance);
            hosts
                .iter()
                .any(|host| weka.containers[host].state == State::Deactivating)
        };
        let leaving = std::mem::take(&mut self.leaving);
        self.leaving = leaving
            .into_iter()
            .filter(|(instance, _)| drains(&self.weka, instance))
            .collect();
        let for_health = self
            .leaving
            .values()
            .filter(|(why, _)| *why == Why::Health)
            .count();
        if why == Why::Health && for_health > 2 {
            self.violates(4, format!("{for_health} machines leave for their health"));
        }
        if why != Why::Size {
            return;
        }
        let leaders = self
            .leaving
            .values()
            .filter(|(why, leads)| *why == Why::Size && *leads);
        if leaders.count() > 1 {
            self.violates(14, "two leaders drain for size");
        }
        let members = self.account.members();
        let staying = |id: &&String| {
            let hosts = self.weka.own_containers(id);
            !hosts.is_empty()
                && hosts
                    .iter()
                    .all(|host| self.weka.containers[host].state == State::Active)
        };
        let up = self.weka.up_machines();
        let staying: Vec<&String> = members.iter().filter(staying).collect();
        let staying_up = staying.iter().filter(|id| up.contains(id)).count();
        let floor = (self.weka.layout.width() + self.weka.layout.hot_spare).max(5);
        let (count, desired) = (staying.len(), desired as usize);
        if staying_up < floor {
            self.violates(
                5,
                format!("{staying_up} members stay and are up, the floor is {floor}"),
            );
        }
        if count < desired {
            self.violates(5, format!("{count} members stay, the target is {desired}"));
        }
    }

    /// The end of an instance by our hand: 1, 2, 3, 11 and 13.
    pub(crate) fn terminate(&mut self, execution: &str, id: &str) {
        let machine = self.account.machines[id].clone();
        let Machine {
            state,
            launched,
            is_joined,
            member,
            ..
        } = machine;
        let Some(member) = member else {
            self.violates(3, format!("{id} is no member, and is terminated"));
            return;
        };
        if member.lifecycle != "InService" {
            self.violates(
                3,
                format!("{id} is {}, and is terminated", member.lifecycle),
            );
        }
        if self.weka.live_blocks(id) > 0 {
            self.violates(1, format!("{id} holds data, and is terminated"));
        }
        let is_known = !self.weka.own_containers(id).is_empty();
        let run = self.executions.entry(execution.to_owned()).or_default();
        let is_explicit = is_known || state == Ec2State::Stopped;
        if is_explicit {
            run.explicit += 1;
        } else {
            run.absent += 1;
        }
        let (explicit, absent) = (run.explicit, run.absent);
        if explicit > 50 || absent > 2 {
            self.violates(
                11,
                format!("{explicit} and {absent} instances are terminated in one run"),
            );
        }
        if is_known && !self.weka.is_out(id) {
            self.violates(3, format!("{id} is in the cluster, and is terminated"));
        }
        if is_known && self.is_young(id) {
            self.violates(13, format!("{id} is young, and is terminated"));
        }
        if !is_explicit {
            let age = self.now().duration_since(launched);
            // A removal of an earlier run may have been accepted and have ended since: then it is known by its mark.
            if age < GRACE || (member.is_attached && !is_joined) {
                self.violates(
                    3,
                    format!("{id} is terminated only because Weka does not know it"),
                );
            }
        }
        let before = self.weka.health();
        self.end(id);
        if self.weka.health().readable < before.readable {
            self.violates(2, format!("the end of {id} makes data unreadable"));
        }
    }

    /// S14: only what is gone leaves the group.
    pub(crate) fn detach(&mut self, id: &str) {
        let machine = self.account.machine_mut(id);
        let is_gone = matches!(machine.state, Ec2State::Terminated | Ec2State::Absent);
        machine.member = None;
        if !is_gone {
            self.violates(3, format!("{id} runs, and is detached"));
        }
    }

    /// 2: what has to be true at every moment.
    pub(crate) fn check(&mut self, after: &str) {
        if !self.weka.is_tolerable() {
            return;
        }
        let unreadable = self.weka.health().unreadable;
        if unreadable > 0 {
            self.violates(
                2,
                format!("{unreadable} stripes can not be read after {after}"),
            );
        }
    }

    /// 9: what has to be true when a run has ended well.
    pub(crate) fn check_protection(&mut self) {
        let unprotected: Vec<String> = self
            .account
            .machines
            .iter()
            .filter(|(_, machine)| matches!(machine.state, Ec2State::Running))
            .filter(|(_, machine)| {
                let member = machine.member.as_ref();
                member.is_some_and(|member| member.lifecycle == "InService" && !member.is_protected)
            })
            .map(|(id, _)| id.clone())
            .collect();
        if !unprotected.is_empty() {
            self.violates(
                9,
                format!("{unprotected:?} are not protected after a good run"),
            );
        }
    }
}

fn why(event: &str) -> Why {
    if event.contains("as the group shrinks") {
        Why::Size
    } else if event.contains("as it is not well") || event.contains("as it is no member") {
        Why::Health
    } else {
        Why::Other
    }
}

fn is_mutation(method: &str) -> bool {
    method.starts_with("cluster_") || method == "interface_group_delete_port"
}
