//! The vendor's rules, for comparison only: what their own cloud tools would do with the same observation. They are
//! kept with their faults, which is what makes the comparison worth something.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::class;
use super::decide::{of_instance, of_machine};
use super::decision::{
    Action, Class, Decision, Finding, Gate, Kill, Purpose, Reason, Rule, Verdict,
};
use super::gate;
use super::machines::{MAX_CONTAINERS, Machine, Part, parts};
use super::observation::{Ec2State, Gateways, Group, Instance, Observation, Settings};
use super::script::{self, Script};
use crate::weka::types::{ContainerStatus, InterfaceGroup, Mode, Reads, State};

pub(super) fn decide(observation: &Observation, settings: &Settings) -> Decision {
    match plan(observation, settings) {
        Ok(decision) => decision,
        Err(text) => {
            let gate = Gate {
                rule: Rule::U,
                text,
            };
            let verdicts = super::decide::unread(observation, Rule::U);
            super::decide::closed(observation, gate, verdicts)
        }
    }
}

fn plan(observation: &Observation, settings: &Settings) -> Result<Decision, String> {
    if observation.group.desired == 0 {
        return Err("the desired capacity is 0".to_owned());
    }
    let reads = match &observation.weka {
        Ok(reads) => reads,
        Err(error) => return Err(error.text.clone()),
    };
    may_scale(reads)?;
    let mut plan = Plan {
        observation,
        settings,
        script: Script::default(),
        verdicts: BTreeMap::new(),
        reported: BTreeSet::new(),
        decision: Decision::default(),
    };
    plan.script.remove_orphans(&reads.drives);
    let Machines {
        backends,
        gateways,
        leftovers,
    } = plan.machines(reads)?;
    let ports = &reads.interface_groups;
    plan.members(&backends, observation.group.desired, &[]);
    let (serving, outside): (Vec<_>, Vec<_>) = gateways
        .into_iter()
        .partition(|machine| script::serves(machine, ports));
    if let Some(nfs) = &observation.nfs {
        plan.members(&serving, nfs.group.desired, ports);
        plan.outside(&outside, nfs, ports);
    }
    let ended = plan.leftovers(&leftovers, ports).and_then(|()| {
        plan.absent();
        plan.last_guard(reads)
    });
    match ended {
        Ok(()) => plan.unhealthy(),
        Err(text) => plan.ends(text),
    }
    plan.decision.calls = plan.script.calls;
    plan.decision.machines = plan.verdicts.into_values().collect();
    Ok(plan.decision)
}

fn may_scale(reads: &Reads) -> Result<(), String> {
    if reads.status.io_status != "STARTED" {
        return Err(format!("io status {}", reads.status.io_status));
    }
    // Newer versions say it elsewhere, where the vendor does not look.
    if reads
        .status
        .upgrade
        .as_deref()
        .is_some_and(|upgrade| !upgrade.is_empty())
    {
        return Err("an upgrade is running".to_owned());
    }
    let overridden = reads
        .overrides
        .values()
        .any(|each| each.key == "skip_scale_down" && each.is_on());
    if overridden {
        return Err("the override skip_scale_down is set".to_owned());
    }
    gate::has_containers_for_drives(reads).map_err(|gate| gate.text)
}

struct Plan<'a> {
    observation: &'a Observation,
    settings: &'a Settings,
    script: Script,
    verdicts: BTreeMap<String, Verdict>,
    /// Addresses that scale hands on as those of the cluster: terminate takes every other one for released.
    reported: BTreeSet<&'a str>,
    decision: Decision,
}

/// By whose they are.
#[derive(Default)]
struct Machines<'a> {
    backends: Vec<Machine<'a>>,
    gateways: Vec<Machine<'a>>,
    leftovers: Vec<Machine<'a>>,
}

impl<'a> Plan<'a> {
    /// Machines by address alone.
    fn machines(&self, reads: &'a Reads) -> Result<Machines<'a>, String> {
        let mut places: BTreeMap<&str, Vec<Part<'a>>> = BTreeMap::new();
        for part in parts(reads).map_err(|gate| gate.text)? {
            let address = part.container.host_ip.as_deref().unwrap_or_default();
            places.entry(address).or_default().push(part);
        }
        let mut machines = Machines::default();
        for (address, parts) in places {
            if parts.len() > MAX_CONTAINERS {
                return Err(format!(
                    "more than {MAX_CONTAINERS} containers at {address}"
                ));
            }
            let identifiers: BTreeSet<_> = parts
                .iter()
                .map(|part| part.container.machine_identifier.as_deref())
                .collect();
            if identifiers.len() > 1 {
                return Err(format!("several machine identifiers at {address}"));
            }
            let backend = instance(&self.observation.group, address);
            let mut gateways = self.observation.nfs.iter();
            let gateway = gateways.find_map(|nfs| instance(&nfs.group, address));
            let machine = Machine {
                key: address.to_owned(),
                address: Some(address),
                instance_id: None,
                instance: backend.or(gateway),
                is_gateway: backend.is_none() && gateway.is_some(),
                parts,
            };
            let list = match machine.instance {
                Some(_) if machine.is_gateway => &mut machines.gateways,
                Some(_) => &mut machines.backends,
                None => &mut machines.leftovers,
            };
            list.push(machine);
        }
        Ok(machines)
    }

    fn class(&self, part: &Part<'_>) -> Class {
        let down_for = part.upstream_down_for(self.observation.now);
        class::of_part(part, self.observation.now, self.settings, down_for)
    }

    fn judge(&mut self, machine: &Machine<'_>, class: Class, action: Action, detail: &str) {
        let verdict = of_machine(machine, class, action, Rule::U, detail);
        self.verdicts.insert(verdict.key.clone(), verdict);
    }

    /// Of an instance: beside what is thought of its machine, if it has one.
    fn judge_instance(&mut self, instance: &Instance, action: Action, detail: &str) {
        let mut verdicts = self.verdicts.values_mut();
        match verdicts.find(|verdict| verdict.instance.as_ref() == Some(&instance.id)) {
            Some(verdict) if verdict.action == Action::Leave => {
                verdict.action = action;
                detail.clone_into(&mut verdict.detail);
            }
            Some(_) => {}
            None => {
                let verdict = of_instance(instance, Class::Absent, action, Rule::U, detail);
                self.verdicts.insert(verdict.key.clone(), verdict);
            }
        }
    }

    fn members(&mut self, machines: &[Machine<'a>], desired: u32, ports: &[InterfaceGroup]) {
        let (inactive, active): (Vec<_>, Vec<_>) =
            machines.iter().partition(|machine| all_inactive(machine));
        for machine in inactive {
            self.remove(machine);
        }
        self.reported
            .extend(active.iter().filter_map(|machine| machine.address));
        let order = self.order(&active);
        let classes: Vec<Class> = active
            .iter()
            .map(|machine| class::worst(machine.parts.iter().map(|part| self.class(part))))
            .collect();
        let count = |class| classes.iter().filter(|each| **each == class).count();
        let (draining, unhealthy) = (count(Class::Deactivating), count(Class::Unhealthy));
        let excess = active.len().saturating_sub(desired as usize);
        let chosen = draining
            .max(excess)
            .max(2_usize.saturating_sub(draining).min(unhealthy));
        for (place, index) in order.into_iter().enumerate() {
            let (machine, class) = (active[index], classes[index]);
            if place < chosen {
                self.script.deactivate(machine, Purpose::Size, ports);
                self.judge(machine, class, Action::Deactivate, "among the first to go");
            } else {
                self.judge(machine, class, Action::Leave, "wanted");
            }
        }
    }

    /// Indexes in the order in which machines go: each at the place of its first container.
    fn order(&self, machines: &[&Machine<'a>]) -> Vec<usize> {
        let mut containers: Vec<_> = machines
            .iter()
            .enumerate()
            .flat_map(|(index, machine)| machine.parts.iter().map(move |part| (index, part)))
            .map(|(index, part)| {
                let unused = part.inactive_drives();
                let key = (
                    self.class(part),
                    std::cmp::Reverse(unused),
                    part.container.added_time,
                    part.id,
                );
                (key, index)
            })
            .collect();
        containers.sort();
        let mut seen = BTreeSet::new();
        let indexes = containers.into_iter().map(|(_, index)| index);
        indexes.filter(|index| seen.insert(*index)).collect()
    }

    fn remove(&mut self, machine: &Machine<'a>) {
        let needs = self.script.remove_machine(machine);
        if let Some(instance) = machine.instance.filter(|_| !needs.is_empty()) {
            // One accepted call is enough for the vendor.
            self.kill(
                instance,
                Reason::Removed,
                needs.into_iter().take(1).collect(),
            );
        }
        self.judge(machine, Class::Inactive, Action::Remove, "inactive");
    }

    fn kill(&mut self, instance: &Instance, reason: Reason, needs: Vec<usize>) {
        self.decision.terminate.push(Kill {
            id: instance.id.clone(),
            group: self.observation.group_of(instance).name.clone(),
            private_ip: instance.private_ip.clone(),
            launched: instance.launched,
            reason,
            needs,
        });
    }

    /// Gateways in no interface group: by a rule of their own, and then as leftovers besides.
    fn outside(&mut self, machines: &[Machine<'a>], nfs: &Gateways, ports: &[InterfaceGroup]) {
        for machine in machines {
            if all_inactive(machine) {
                self.remove(machine);
                continue;
            }
            let was_inside = machine
                .address
                .is_some_and(|address| nfs.interface_group_ips.contains(address));
            let times = [self.settings.outside_after, self.settings.leftover_after];
            let [is_down, is_leftover] = times.map(|after| self.is_down(machine, after));
            for _ in [was_inside || is_down, is_leftover]
                .into_iter()
                .filter(|is| *is)
            {
                self.script.deactivate(machine, Purpose::Leftover, ports);
            }
            if is_leftover {
                // It is not reported, and the last guard finds it in the cluster.
                let text = "in no interface group, and down: asked for twice";
                self.judge(machine, Class::Unhealthy, Action::Deactivate, text);
                continue;
            }
            self.reported.extend(machine.address);
            if was_inside || is_down {
                let text = "in no interface group";
                self.judge(machine, Class::Unhealthy, Action::Deactivate, text);
            } else {
                let text = "waits to be put into an interface group";
                self.judge(machine, Class::Healthy, Action::Leave, text);
            }
        }
    }

    /// Whether its management has been down for longer, somewhere on it.
    fn is_down(&self, machine: &Machine<'_>, after: SignedDuration) -> bool {
        let active = machine.parts.iter();
        let mut active = active.filter(|part| part.container.state != State::Inactive);
        active.any(|part| {
            let down_for = part.upstream_down_for(self.observation.now);
            down_for.is_some_and(|time| time > after)
        })
    }

    fn leftovers(
        &mut self,
        machines: &[Machine<'a>],
        ports: &[InterfaceGroup],
    ) -> Result<(), String> {
        let mut ended = Ok(());
        for machine in machines {
            if ended.is_err() {
                let text = "no member, and the run has ended before";
                self.judge(machine, Class::Leftover, Action::Leave, text);
                continue;
            }
            if all_inactive(machine) {
                self.remove(machine);
                continue;
            }
            let mut active = machine.parts.iter();
            let up = active.find(|part| {
                part.container.state != State::Inactive
                    && part.container.status != ContainerStatus::Down
            });
            if let Some(up) = up {
                ended = Err(format!("container {} is no member's and not down", up.id));
                self.judge(machine, Class::Leftover, Action::Leave, "ends the run");
            } else if self.is_down(machine, self.settings.leftover_after) {
                self.script.deactivate(machine, Purpose::Leftover, ports);
                let text = "down for too long";
                self.judge(machine, Class::Leftover, Action::Deactivate, text);
            } else {
                self.judge(machine, Class::Leftover, Action::Leave, "down");
            }
        }
        ended
    }

    /// The calls before were made; the run dies, and nothing of AWS's is touched.
    fn ends(&mut self, text: String) {
        self.decision.terminate.clear();
        let observation = self.observation;
        for instance in observation.instances() {
            let text = "nothing happens to it: the run has ended before";
            self.judge_instance(instance, Action::Leave, text);
        }
        for verdict in self.verdicts.values_mut() {
            if verdict.action == Action::Terminate {
                verdict.action = Action::Leave;
            }
        }
        self.decision.errors.push(Finding {
            rule: Rule::U,
            subject: observation.group.name.clone(),
            text,
        });
    }

    /// Instances whose address is not reported: the vendor's terminate function takes them for released.
    fn absent(&mut self) {
        let killed = self.decision.terminate.iter().map(|kill| kill.id.clone());
        let killed: BTreeSet<String> = killed.collect();
        for instance in self.instances() {
            let address = instance.private_ip.as_deref();
            if address.is_some_and(|address| self.reported.contains(address))
                || killed.contains(&instance.id)
                || is_gone(instance)
            {
                continue;
            }
            let old = instance.launched.is_some_and(|launched| {
                self.observation.now.duration_since(launched) > self.settings.grace
            });
            if old && self.decision.terminate.len() < self.settings.terminate_limit {
                self.kill(instance, Reason::Absent, Vec::new());
                self.judge_instance(instance, Action::Terminate, "unknown to Weka");
            } else {
                let text = if old {
                    "unknown to Weka, and enough for one run"
                } else {
                    "unknown to Weka, and too young"
                };
                self.judge_instance(instance, Action::Leave, text);
                self.decision.errors.push(Finding {
                    rule: Rule::U,
                    subject: instance.id.clone(),
                    text: text.to_owned(),
                });
            }
        }
    }

    /// The vendor looks at the containers again and dies if one is at work at an address that is not reported or is to
    /// go. Here as if the second look were the first.
    fn last_guard(&self, reads: &Reads) -> Result<(), String> {
        let killed = self.decision.terminate.iter();
        let killed: BTreeSet<&str> = killed
            .filter_map(|kill| kill.private_ip.as_deref())
            .collect();
        let addresses = self.observation.instances();
        let delta: BTreeSet<&str> = addresses
            .filter_map(|instance| instance.private_ip.as_deref())
            .filter(|address| !self.reported.contains(address) || killed.contains(address))
            .collect();
        let at_work = reads.containers.iter().find(|(_, container)| {
            let is_out = matches!(container.state, State::Inactive | State::Removing);
            let is_bygone = container.mode == Some(Mode::Client)
                && container.status == ContainerStatus::Down
                && container.auto_remove_timeout.is_some_and(|time| time > 0);
            let address = container.host_ip.as_deref();
            !is_out && !is_bygone && address.is_some_and(|address| delta.contains(address))
        });
        match at_work {
            None => Ok(()),
            Some((id, _)) => Err(format!(
                "container {id} is at work where an instance is to go"
            )),
        }
    }

    /// Members that Auto Scaling takes for unhealthy.
    fn unhealthy(&mut self) {
        for instance in self.instances() {
            if is_gone(instance) {
                self.decision.detach.push(instance.id.clone());
                self.judge_instance(instance, Action::Detach, "gone");
            } else if !instance.healthy && instance.ec2 == Ec2State::Stopped {
                let mut kills = self.decision.terminate.iter();
                if kills.all(|kill| kill.id != instance.id) {
                    self.kill(instance, Reason::Stopped, Vec::new());
                }
                self.decision.detach.push(instance.id.clone());
                self.judge_instance(instance, Action::Terminate, "stopped");
            }
        }
    }

    fn instances(&self) -> Vec<&'a Instance> {
        let mut instances: Vec<&Instance> = self.observation.instances().collect();
        instances.sort_by(|one, other| one.id.cmp(&other.id));
        instances
    }
}

fn instance<'a>(group: &'a Group, address: &str) -> Option<&'a Instance> {
    let instances = group.instances.iter();
    instances
        .filter(|instance| instance.private_ip.as_deref() == Some(address))
        .min_by(|one, other| one.id.cmp(&other.id))
}

/// Gone for EC2, and the group has noticed.
fn is_gone(instance: &Instance) -> bool {
    !instance.healthy && matches!(instance.ec2, Ec2State::Terminated | Ec2State::Absent)
}

fn all_inactive(machine: &Machine<'_>) -> bool {
    machine
        .parts
        .iter()
        .all(|part| part.container.state == State::Inactive)
}
