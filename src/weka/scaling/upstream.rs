//! The vendor's rules, for comparison only: what their own cloud tools would do with the same observation. They are
//! kept with their faults, which is what makes the comparison worth something.

use std::collections::{BTreeMap, BTreeSet};

use super::class;
use super::decision::{
    Action, Class, Decision, Finding, Gate, Kill, Purpose, Reason, Rule, Verdict,
};
use super::gate;
use super::machines::{MAX_CONTAINERS, Machine, Part, parts};
use super::observation::{Instance, Observation, Settings};
use super::script::Script;
use crate::weka::types::{ContainerStatus, Reads, State};

pub(super) fn decide(observation: &Observation, settings: &Settings) -> Decision {
    match plan(observation, settings) {
        Ok(decision) => decision,
        Err(text) => {
            let gate = Gate {
                rule: Rule::U,
                text,
            };
            Decision::closed(gate, Vec::new(), &observation.group.name)
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
        decision: Decision::default(),
    };
    plan.script.remove_orphans(&reads.drives);
    let (members, leftovers) = plan.machines(reads)?;
    plan.members(&members);
    if let Err(text) = plan.leftovers(&leftovers, reads) {
        // The calls before were made; the run dies, and terminates nothing.
        plan.decision.terminate.clear();
        plan.decision.errors.push(Finding {
            rule: Rule::U,
            subject: observation.group.name.clone(),
            text,
        });
    } else {
        plan.absent(&members);
    }
    plan.decision.calls = plan.script.calls;
    plan.decision.machines.sort();
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
    decision: Decision,
}

impl<'a> Plan<'a> {
    /// Machines by address alone: members of the group, and the others.
    fn machines(&self, reads: &'a Reads) -> Result<(Vec<Machine<'a>>, Vec<Machine<'a>>), String> {
        let mut places: BTreeMap<&str, Vec<Part<'a>>> = BTreeMap::new();
        for part in parts(reads).map_err(|gate| gate.text)? {
            let address = part.container.host_ip.as_deref().unwrap_or_default();
            places.entry(address).or_default().push(part);
        }
        let mut machines = (Vec::new(), Vec::new());
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
            let instance = self.instance(address);
            let machine = Machine {
                key: address.to_owned(),
                address: Some(address),
                instance_id: None,
                instance,
                parts,
            };
            if instance.is_some() {
                machines.0.push(machine);
            } else {
                machines.1.push(machine);
            }
        }
        Ok(machines)
    }

    fn instance(&self, address: &str) -> Option<&'a Instance> {
        let mut instances = self.observation.group.instances.iter();
        instances.find(|instance| instance.private_ip.as_deref() == Some(address))
    }

    fn class(&self, part: &Part<'_>) -> Class {
        let down_for = part.upstream_down_for(self.observation.now);
        class::of_part(part, self.observation.now, self.settings, down_for)
    }

    fn judge(&mut self, machine: &Machine<'_>, class: Class, action: Action, detail: &str) {
        self.decision.machines.push(Verdict {
            key: machine.key.clone(),
            instance: machine.instance.map(|instance| instance.id.clone()),
            containers: machine.ids(),
            class,
            action,
            rule: Rule::U,
            detail: detail.to_owned(),
        });
    }

    fn members(&mut self, machines: &[Machine<'a>]) {
        let (inactive, active): (Vec<_>, Vec<_>) =
            machines.iter().partition(|machine| all_inactive(machine));
        for machine in inactive {
            self.remove(machine);
        }
        let order = self.order(&active);
        let classes: Vec<Class> = active
            .iter()
            .map(|machine| class::worst(machine.parts.iter().map(|part| self.class(part))))
            .collect();
        let count = |class| classes.iter().filter(|each| **each == class).count();
        let (draining, unhealthy) = (count(Class::Deactivating), count(Class::Unhealthy));
        let excess = active
            .len()
            .saturating_sub(self.observation.group.desired as usize);
        let chosen = draining
            .max(excess)
            .max(2_usize.saturating_sub(draining).min(unhealthy));
        for (place, index) in order.into_iter().enumerate() {
            let (machine, class) = (active[index], classes[index]);
            if place < chosen {
                self.script.deactivate(machine, Purpose::Size);
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
            private_ip: instance.private_ip.clone(),
            launched: instance.launched,
            reason,
            needs,
        });
    }

    fn leftovers(&mut self, machines: &[Machine<'a>], reads: &Reads) -> Result<(), String> {
        for machine in machines {
            if all_inactive(machine) {
                self.remove(machine);
                continue;
            }
            let down: Vec<&Part<'_>> = machine
                .parts
                .iter()
                .filter(|part| part.container.state != State::Inactive)
                .collect();
            if let Some(up) = down
                .iter()
                .find(|part| part.container.status != ContainerStatus::Down)
            {
                return Err(format!("container {} is no member's and not down", up.id));
            }
            let too_long = down.iter().any(|part| {
                part.upstream_down_for(self.observation.now)
                    .is_some_and(|time| time > self.settings.leftover_after)
            });
            if too_long {
                self.script.deactivate_leftover(machine, reads);
                self.judge(
                    machine,
                    Class::Leftover,
                    Action::Deactivate,
                    "down for too long",
                );
            } else {
                self.judge(machine, Class::Leftover, Action::Leave, "down");
            }
        }
        Ok(())
    }

    /// Instances whose address no container reports: the vendor's terminate function takes them for released.
    fn absent(&mut self, members: &[Machine<'a>]) {
        let reported: BTreeSet<Option<&str>> = members
            .iter()
            .filter(|machine| !all_inactive(machine))
            .map(|machine| machine.address)
            .collect();
        let listed: BTreeSet<String> = self
            .decision
            .terminate
            .iter()
            .map(|kill| kill.id.clone())
            .collect();
        let mut instances: Vec<&Instance> = self.observation.group.instances.iter().collect();
        instances.sort_by(|one, other| one.id.cmp(&other.id));
        for instance in instances {
            if reported.contains(&instance.private_ip.as_deref()) || listed.contains(&instance.id) {
                continue;
            }
            let old = instance.launched.is_some_and(|launched| {
                self.observation.now.duration_since(launched) > self.settings.grace
            });
            if old && self.decision.terminate.len() < self.settings.terminate_limit {
                self.kill(instance, Reason::Absent, Vec::new());
            } else {
                self.decision.errors.push(Finding {
                    rule: Rule::U,
                    subject: instance.id.clone(),
                    text: "unknown to Weka, and too young".to_owned(),
                });
            }
        }
    }
}

fn all_inactive(machine: &Machine<'_>) -> bool {
    machine
        .parts
        .iter()
        .all(|part| part.container.state == State::Inactive)
}
