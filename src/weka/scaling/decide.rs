//! The decision itself, by this project's rules.

mod gateways;

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::class;
use super::decision::{
    Action, Class, Decision, Finding, Gate, Kill, Purpose, Reason, Rule, Verdict,
};
use super::gate::{self, Survey};
use super::machines::{Machine, Part, belongs, is_bygone_client, machines};
use super::observation::{Ec2State, Instance, Observation, RuleSet, Settings};
use super::script::{self, Script};
use super::upstream;
use crate::weka::ids::ContainerId;
use crate::weka::types::{ContainerStatus, DriveStatus, InterfaceGroup, State, Status};

/// No machine younger than this is forgotten: a join may still be under way on it (S5).
const YOUNGEST_REMOVED: SignedDuration = SignedDuration::from_mins(10);
/// Processes of Auto Scaling that would end members by themselves; the group is made with all of them suspended.
const SUSPENDED: [&str; 4] = [
    "AZRebalance",
    "InstanceRefresh",
    "ReplaceUnhealthy",
    "Terminate",
];

/// Said of everything where nothing is done.
const BEHIND_A_GATE: &str = "the gate is closed";

/// What is to be done about the cluster and its group, and why. Total: every observation has a decision; the order of
/// lists in it makes no difference.
pub fn decide(observation: &Observation, settings: &Settings) -> Decision {
    if settings.rules == RuleSet::Upstream {
        return upstream::decide(observation, settings);
    }
    let survey = match gate::survey(observation, settings) {
        Ok(survey) => survey,
        Err(gate) => {
            let verdicts = unread(observation, gate.rule);
            return closed(observation, gate, verdicts);
        }
    };
    let mut plan = Plan::new(observation, settings, &survey);
    if let Err(gate) = gate::target(observation, &survey, settings) {
        let verdicts = plan.verdicts_behind(&gate);
        return closed(observation, gate, verdicts);
    }
    plan.remove();
    plan.deactivate();
    plan.instances();
    plan.done()
}

/// Members that have a container at work: those that have been backends from then on.
pub fn active_members(observation: &Observation) -> Vec<String> {
    let machines = known_machines(observation);
    let is_active = |machine: &&Machine<'_>| {
        let mut parts = machine.parts.iter();
        parts.any(|part| part.container.state == State::Active)
    };
    let active: BTreeSet<String> = machines
        .iter()
        .filter(is_active)
        .filter_map(|machine| machine.instance)
        .filter(|instance| instance.is_member())
        .map(|instance| instance.id.clone())
        .collect();
    active.into_iter().collect()
}

pub(super) fn closed(
    observation: &Observation,
    gate: Gate,
    mut verdicts: Vec<Verdict>,
) -> Decision {
    verdicts.sort();
    verdicts.dedup_by(|one, other| one.key == other.key);
    Decision::closed(gate, verdicts, &observation.group.name)
}

/// Every machine that can be told apart, and every instance without one, where nothing more is known of them.
pub(super) fn unread(observation: &Observation, rule: Rule) -> Vec<Verdict> {
    let machines = known_machines(observation);
    let mut verdicts: Vec<Verdict> = machines
        .iter()
        .map(|machine| {
            let class = machine.instance.map_or(Class::Leftover, |_| Class::Held);
            of_machine(machine, class, Action::Leave, rule, BEHIND_A_GATE)
        })
        .collect();
    let known: BTreeSet<String> = verdicts
        .iter()
        .filter_map(|verdict| verdict.instance.clone())
        .collect();
    let instances = observation.instances();
    let unknown = instances.filter(|instance| !known.contains(&instance.id));
    verdicts.extend(unknown.map(|instance| held(instance, rule)));
    verdicts
}

/// The machines, as far as they can be told apart.
fn known_machines(observation: &Observation) -> Vec<Machine<'_>> {
    let machines = observation
        .reads()
        .map(|reads| machines(reads, observation));
    machines.and_then(Result::ok).unwrap_or_default()
}

fn held(instance: &Instance, rule: Rule) -> Verdict {
    of_instance(instance, Class::Held, Action::Leave, rule, BEHIND_A_GATE)
}

pub(super) fn of_machine(
    machine: &Machine<'_>,
    class: Class,
    action: Action,
    rule: Rule,
    detail: impl Into<String>,
) -> Verdict {
    Verdict {
        key: machine.key.clone(),
        instance: machine.instance.map(|instance| instance.id.clone()),
        containers: machine.ids(),
        class,
        action,
        rule,
        detail: detail.into(),
    }
}

pub(super) fn of_instance(
    instance: &Instance,
    class: Class,
    action: Action,
    rule: Rule,
    detail: impl Into<String>,
) -> Verdict {
    Verdict {
        key: instance.id.clone(),
        instance: Some(instance.id.clone()),
        containers: Vec::new(),
        class,
        action,
        rule,
        detail: detail.into(),
    }
}

/// The decision in the making.
struct Plan<'a> {
    observation: &'a Observation,
    settings: &'a Settings,
    survey: &'a Survey<'a>,
    /// By their containers alone, in the machines' order.
    classes: Vec<Class>,
    /// Indexes of machines that are members of the backends' group and not out of the cluster, in the order in which
    /// they would go.
    members: Vec<usize>,
    /// The same of the gateways' group, those that are in an interface group or on their way out.
    gateways: Vec<usize>,
    /// The same, those that are in no interface group.
    outside: Vec<usize>,
    /// Indexes of machines that are on their way out, whoever's they are, and of those chosen so far.
    leaving: BTreeSet<usize>,
    /// How many more may go for their health, gateways excepted (S8).
    allowance: u32,
    /// How many more gateways may.
    gateway_allowance: u32,
    /// A container of which Weka says something that is new to us (S12).
    unknown: Option<ContainerId>,
    script: Script,
    verdicts: BTreeMap<String, Verdict>,
    terminate: Vec<Kill>,
    detach: BTreeSet<String>,
    errors: BTreeSet<Finding>,
}

impl<'a> Plan<'a> {
    fn new(observation: &'a Observation, settings: &'a Settings, survey: &'a Survey<'a>) -> Self {
        let machines = &survey.machines;
        let classes: Vec<Class> = machines
            .iter()
            .map(|machine| class::of_machine(machine, survey.clock, settings))
            .collect();
        let is_member = |machine: &Machine<'_>| machine.instance.is_some_and(Instance::is_member);
        let mut in_order: Vec<usize> = (0..machines.len())
            .filter(|index| classes[*index] != Class::Inactive && is_member(&machines[*index]))
            .collect();
        let leaving: BTreeSet<usize> = (0..machines.len())
            .filter(|index| {
                classes[*index] == Class::Deactivating
                    || class::is_emptying(&machines[*index], survey.clock, settings)
            })
            .collect();
        in_order.sort_by_key(|index| {
            let machine = &machines[*index];
            (
                classes[*index],
                !leaving.contains(index),
                // S8: without these two, those that wait for one that is lost would keep it from its turn.
                !machine.is_lost(survey.clock, settings.unhealthy_after),
                classes[*index] != Class::Unhealthy || machine.serves_data(),
                std::cmp::Reverse(machine.inactive_drives()),
                machine.added(),
                machine.parts[0].id,
            )
        });
        let (gateways, members): (Vec<usize>, Vec<usize>) = in_order
            .into_iter()
            .partition(|index| machines[*index].is_gateway);
        let (gateways, outside) = gateways.into_iter().partition(|index| {
            let groups = &survey.reads.interface_groups;
            leaving.contains(index) || script::serves(&machines[*index], groups)
        });
        let allowance = |of_gateways| {
            let leaving = leaving.iter();
            let of_kind = leaving.filter(|index| machines[**index].is_gateway == of_gateways);
            let draining = u32::try_from(of_kind.count()).unwrap_or(u32::MAX);
            settings.max_unhealthy.saturating_sub(draining)
        };
        Self {
            observation,
            settings,
            survey,
            allowance: allowance(false),
            gateway_allowance: allowance(true),
            unknown: machines
                .iter()
                .flat_map(|machine| &machine.parts)
                .find(|part| class::is_unknown(part))
                .map(|part| part.id),
            classes,
            members,
            gateways,
            outside,
            leaving,
            script: Script::default(),
            verdicts: BTreeMap::new(),
            terminate: Vec::new(),
            detach: BTreeSet::new(),
            errors: BTreeSet::new(),
        }
    }

    fn is_lost(&self, index: usize) -> bool {
        let after = self.settings.unhealthy_after;
        self.machine(index).is_lost(self.survey.clock, after)
    }

    fn machine(&self, index: usize) -> &'a Machine<'a> {
        &self.survey.machines[index]
    }

    /// What is shown of a machine: a leftover and one that is held are that before anything else.
    fn shown_class(&self, index: usize) -> Class {
        match self.machine(index).instance {
            None => Class::Leftover,
            Some(instance) if !instance.is_in_service() => Class::Held,
            Some(_) => self.classes[index],
        }
    }

    fn judge(&mut self, index: usize, action: Action, rule: Rule, detail: impl Into<String>) {
        let class = self.shown_class(index);
        let verdict = of_machine(self.machine(index), class, action, rule, detail);
        self.verdicts.insert(verdict.key.clone(), verdict);
    }

    fn judge_instance(
        &mut self,
        instance: &Instance,
        class: Class,
        action: Action,
        rule: Rule,
        detail: impl Into<String>,
    ) {
        let verdict = of_instance(instance, class, action, rule, detail);
        self.verdicts.insert(verdict.key.clone(), verdict);
    }

    fn report(&mut self, rule: Rule, subject: &str, text: impl Into<String>) {
        self.errors.insert(Finding {
            rule,
            subject: subject.to_owned(),
            text: text.into(),
        });
    }

    fn verdicts_behind(&mut self, gate: &Gate) -> Vec<Verdict> {
        for index in 0..self.survey.machines.len() {
            self.judge(index, Action::Leave, gate.rule, BEHIND_A_GATE);
        }
        for instance in self.unknown_instances() {
            self.judge_instance(
                instance,
                Class::Held,
                Action::Leave,
                gate.rule,
                BEHIND_A_GATE,
            );
        }
        self.verdicts.values().cloned().collect()
    }

    // Removal: drives of nobody, then machines that are out of the cluster.

    fn remove(&mut self) {
        self.script.remove_orphans(&self.survey.reads.drives);
        let mut removed = 0;
        for index in 0..self.survey.machines.len() {
            if self.classes[index] != Class::Inactive {
                continue;
            }
            if self.shown_class(index) == Class::Held {
                self.judge(index, Action::Leave, Rule::S11, "not in service");
            } else if let Some(why_not) = self.why_not_removed(self.machine(index)) {
                self.judge(index, Action::Leave, Rule::S5, why_not);
            } else if removed == self.settings.terminate_limit {
                self.judge(index, Action::Leave, Rule::S15, "waits: enough for one run");
            } else {
                removed += 1;
                self.remove_machine(index);
            }
        }
    }

    /// What keeps a machine that is out of the cluster from being forgotten (S5).
    fn why_not_removed(&self, machine: &Machine<'_>) -> Option<String> {
        for part in &machine.parts {
            let is_out = part.container.state == State::Removing
                || part.container.status == ContainerStatus::Inactive;
            if !is_out {
                let status = part.container.status.word();
                return Some(format!("container {} has the status {status}", part.id));
            }
            match part.age(self.survey.clock) {
                Some(age) if age >= YOUNGEST_REMOVED => {}
                Some(_) => return Some(format!("container {} is young", part.id)),
                None => return Some(format!("the age of container {} is unknown", part.id)),
            }
        }
        machine
            .drives()
            .find(|drive| drive.status != DriveStatus::Inactive)
            .map(|drive| format!("drive {} is {}", drive.uuid, drive.status.word()))
    }

    fn remove_machine(&mut self, index: usize) {
        let machine = self.machine(index);
        let needs = self.script.remove_machine(machine);
        if let Some(instance) = machine.instance {
            self.kill(instance, Reason::Removed, needs);
        }
        self.judge(
            index,
            Action::Remove,
            Rule::S5,
            "empty and out of the cluster",
        );
    }

    fn kill(&mut self, instance: &Instance, reason: Reason, needs: Vec<usize>) {
        self.terminate.push(Kill {
            id: instance.id.clone(),
            group: self.observation.group_of(instance).name.clone(),
            private_ip: instance.private_ip.clone(),
            launched: instance.launched,
            reason,
            needs,
        });
    }

    // Deactivation: what drains already, what is not well, what is too many.

    fn deactivate(&mut self) {
        let backends = self.first_to_go(false);
        let gateways = self.first_to_go(true);
        self.leave_the_rest(&[backends.as_slice(), &gateways].concat());
        let chosen = self.sorted(&backends);
        for index in chosen.draining {
            self.go_on(index);
        }
        for index in chosen.down {
            self.heal_down(index);
        }
        let leftovers = self.leftovers();
        for index in chosen.up {
            self.heal_up(index);
        }
        for index in chosen.healthy {
            self.shrink(index);
        }
        self.deactivate_gateways(&gateways);
        // Leftovers come last in the order of calls, whatever their turn at the allowance was.
        for index in leftovers {
            self.ask_to_leave(index, Purpose::Leftover);
        }
    }

    /// Members of a group by the vendor's formula: everything that drains, and either all that are too many or a few
    /// that are not well.
    fn first_to_go(&self, of_gateways: bool) -> Vec<usize> {
        let members = self.members_of(of_gateways);
        let count = |class| {
            let of_class = members
                .iter()
                .filter(|index| self.classes[**index] == class);
            of_class.count()
        };
        let (draining, unhealthy) = (count(Class::Deactivating), count(Class::Unhealthy));
        let for_health = (self.settings.max_unhealthy as usize)
            .saturating_sub(draining)
            .min(unhealthy);
        // Those that drain already included.
        let too_many = self
            .target(of_gateways)
            .map_or(0, |target| members.len().saturating_sub(target));
        let count = draining.max(too_many).max(for_health);
        members.iter().take(count).copied().collect()
    }

    fn sorted(&self, chosen: &[usize]) -> Chosen {
        let of = |class| -> Vec<usize> {
            let chosen = chosen.iter().copied();
            chosen
                .filter(|index| self.classes[*index] == class)
                .collect()
        };
        let (down, up) = of(Class::Unhealthy)
            .into_iter()
            .partition(|index| self.is_lost(*index));
        Chosen {
            draining: of(Class::Deactivating),
            down,
            up,
            healthy: of(Class::Healthy),
        }
    }

    fn members_of(&self, gateways: bool) -> &[usize] {
        if gateways {
            &self.gateways
        } else {
            &self.members
        }
    }

    /// A group's target for size: the higher of this run's and the one before's; without one before, none (S7).
    fn target(&self, of_gateways: bool) -> Option<usize> {
        let (group, previous) = match &self.observation.nfs {
            Some(nfs) if of_gateways => (&nfs.group, nfs.previous_desired),
            _ => (&self.observation.group, self.observation.previous_desired),
        };
        usize::try_from(group.desired.max(previous?)).ok()
    }

    /// Members of its group that are neither leaving nor the one in question.
    fn staying(&self, without: usize) -> Vec<usize> {
        let members = self.members_of(self.machine(without).is_gateway);
        let members = members.iter().copied();
        members
            .filter(|index| *index != without && !self.leaving.contains(index))
            .collect()
    }

    /// Whether enough members stay without it and without those that leave.
    fn is_too_many(&self, index: usize) -> bool {
        let staying = self.staying(index).len();
        self.target(self.machine(index).is_gateway)
            .is_some_and(|target| staying >= target)
    }

    /// Asks for what is missing for it to leave; whether anything was. A backend keeps the port that it may have.
    fn ask_to_leave(&mut self, index: usize, purpose: Purpose) -> bool {
        let machine = self.machine(index);
        let is_backend = machine.instance.is_some() && !machine.is_gateway;
        let ports: &[InterfaceGroup] = if is_backend {
            &[]
        } else {
            &self.survey.reads.interface_groups
        };
        self.script.deactivate(machine, purpose, ports)
    }

    fn leave_the_rest(&mut self, chosen: &[usize]) {
        let rest = (0..self.survey.machines.len())
            .filter(|index| self.classes[*index] != Class::Inactive && !chosen.contains(index));
        for index in rest.collect::<Vec<_>>() {
            match self.shown_class(index) {
                Class::Held => self.judge(index, Action::Leave, Rule::S11, "not in service"),
                Class::Unhealthy => self.judge(
                    index,
                    Action::Leave,
                    Rule::S8,
                    "waits: others are on their way out",
                ),
                // The leftovers' own turn comes.
                Class::Leftover => {}
                _ => self.judge(index, Action::Leave, Rule::U, "wanted"),
            }
        }
    }

    /// A machine on its way out gets the calls that are missing (S9).
    fn go_on(&mut self, index: usize) {
        let detail = if self.ask_to_leave(index, Purpose::Continue) {
            "drains: what is missing is asked for"
        } else {
            "drains"
        };
        self.judge(index, Action::Deactivate, Rule::S9, detail);
    }

    fn heal_down(&mut self, index: usize) {
        if self.take_allowance(index) {
            self.ask_to_leave(index, Purpose::Health);
            self.judge(index, Action::Deactivate, Rule::S8, "down for too long");
        } else {
            self.judge(
                index,
                Action::Leave,
                Rule::S8,
                "down for too long, and waits: others are on their way out",
            );
        }
    }

    fn heal_up(&mut self, index: usize) {
        let safe = self.is_safe_to_lose(index);
        if let Err(why) = &safe {
            self.judge(
                index,
                Action::Leave,
                Rule::S8,
                format!("not well, and waits: {why}"),
            );
        } else if self.take_allowance(index) {
            self.ask_to_leave(index, Purpose::Health);
            self.judge(
                index,
                Action::Deactivate,
                Rule::S8,
                "not well: drives are out of use or being emptied, or it is degraded",
            );
        } else {
            self.judge(
                index,
                Action::Leave,
                Rule::S8,
                "not well, and waits: others are on their way out",
            );
            if self.is_too_many(index) {
                self.shrink(index);
            }
        }
    }

    /// Whether it may leave for its health: what leaves already was counted at the start.
    fn take_allowance(&mut self, index: usize) -> bool {
        if self.leaving.contains(&index) {
            return true;
        }
        let allowance = if self.machine(index).is_gateway {
            &mut self.gateway_allowance
        } else {
            &mut self.allowance
        };
        if *allowance == 0 {
            return false;
        }
        *allowance -= 1;
        self.leaving.insert(index);
        true
    }

    /// Whether the cluster stands it that this one begins to leave though it is up (S8).
    fn is_safe_to_lose(&self, index: usize) -> Result<(), String> {
        if self.machine(index).is_gateway {
            return self.is_replaceable(index);
        }
        let status = &self.survey.reads.status;
        if !status.is_fully_protected() {
            return Err("not all data is fully protected".to_owned());
        }
        let stripe = stripe(status);
        let up = self.staying(index).into_iter();
        let up = up.filter(|each| self.machine(*each).serves_data()).count();
        if up < stripe {
            return Err(format!(
                "{up} other members are up, a stripe needs {stripe}"
            ));
        }
        Ok(())
    }

    fn shrink(&mut self, index: usize) {
        match self.why_not_shrunk(index) {
            Ok(()) => {
                self.leaving.insert(index);
                self.ask_to_leave(index, Purpose::Size);
                self.judge(index, Action::Deactivate, Rule::S7, "one too many");
            }
            Err(Wait::ItsTurn(rule, why)) => {
                self.judge(
                    index,
                    Action::Leave,
                    rule,
                    format!("one too many, and waits: {why}"),
                );
            }
            Err(Wait::Person(rule, why)) => {
                self.judge(
                    index,
                    Action::Leave,
                    rule,
                    format!("one too many, and waits: {why}"),
                );
                let instance = self.machine(index).instance;
                let group = instance.map_or(&self.observation.group, |instance| {
                    self.observation.group_of(instance)
                });
                self.report(
                    rule,
                    &group.name,
                    format!("the group can not shrink: {why}"),
                );
            }
        }
    }

    /// Everything that has to be true for a machine to go for size (S7, S12).
    fn why_not_shrunk(&self, index: usize) -> Result<(), Wait> {
        if !self.is_too_many(index) {
            return Err(Wait::turn("enough are on their way out"));
        }
        let staying = self.staying(index);
        if let Some(id) = self.unknown {
            let text = format!("Weka says something of container {id} that is new to this version");
            return Err(Wait::Person(Rule::S12, text));
        }
        if let Some(down) = staying.iter().find(|each| !self.machine(**each).is_up()) {
            let text = format!("{} is not up", self.machine(*down).key);
            return Err(Wait::Person(Rule::S7, text));
        }
        let is_gateway = self.machine(index).is_gateway;
        if !is_gateway {
            self.can_rebuild(staying.len())?;
        }
        let limit = self.members_of(is_gateway).len() / 10;
        let limit = limit.max(self.settings.drain_limit as usize);
        let leaving = self.leaving.iter();
        let leaving = leaving.filter(|each| self.machine(**each).is_gateway == is_gateway);
        if leaving.count() >= limit {
            return Err(Wait::turn(format!("{limit} may drain at once")));
        }
        let leads = |each: &usize| self.machine(*each).leads();
        if leads(&index) && self.leaving.iter().any(leads) {
            return Err(Wait::turn(
                "it leads the cluster, and another that does is draining",
            ));
        }
        if is_gateway {
            return Ok(());
        }
        self.fits(staying.len())
    }

    /// Whether the cluster could stand the loss of yet another machine when so many stay (S7).
    fn can_rebuild(&self, staying: usize) -> Result<(), Wait> {
        let status = &self.survey.reads.status;
        let floor = gate::floor(status, self.settings) as usize;
        if staying < floor {
            let text = format!("{staying} members would stay, the cluster needs {floor}");
            return Err(Wait::Person(Rule::S7, text));
        }
        if !status.is_fully_protected() {
            return Err(Wait::turn("not all data is fully protected"));
        }
        if !status
            .rebuild
            .as_ref()
            .is_some_and(|rebuild| rebuild.enough_active_f_ds)
        {
            return Err(Wait::turn(
                "the cluster has not enough failure domains to rebuild",
            ));
        }
        Ok(())
    }

    /// Whether what is stored fits on the machines that stay (S7).
    fn fits(&self, staying: usize) -> Result<(), Wait> {
        let status = &self.survey.reads.status;
        let Some(capacity) = &status.capacity else {
            let text = "the cluster does not say its capacity".to_owned();
            return Err(Wait::Person(Rule::S7, text));
        };
        // Leftovers hold some of the capacity, too, and gateways none.
        let machines = self.survey.machines.iter().zip(&self.classes);
        let in_use = machines
            .filter(|(machine, class)| **class != Class::Inactive && !machine.is_gateway)
            .count();
        let spare = status.hot_spare as usize;
        let (before, after) = (in_use.saturating_sub(spare), staying.saturating_sub(spare));
        let used = capacity
            .total_bytes
            .saturating_sub(capacity.unprovisioned_bytes);
        if u128::from(capacity.total_bytes) * after as u128 >= u128::from(used) * before as u128 {
            return Ok(());
        }
        Err(Wait::Person(
            Rule::S7,
            format!("{used} bytes are provisioned, and do not fit on {staying} machines"),
        ))
    }

    /// Judges machines that are no members, and says which are deactivated.
    fn leftovers(&mut self) -> Vec<usize> {
        let mut deactivated = Vec::new();
        for index in 0..self.survey.machines.len() {
            if self.shown_class(index) != Class::Leftover || self.classes[index] == Class::Inactive
            {
                continue;
            }
            let machine = self.machine(index);
            let down = self.down_too_long(machine);
            if down.is_empty() {
                self.judge(
                    index,
                    Action::Leave,
                    Rule::U,
                    "no member of the group, and not down for long",
                );
                continue;
            }
            let is_out = |part: &&Part<'_>| {
                part.container.status == ContainerStatus::Down
                    || matches!(part.container.state, State::Inactive | State::Removing)
            };
            if machine.parts.iter().filter(is_out).count() < machine.parts.len() {
                for id in down {
                    self.report(
                        Rule::U,
                        &machine.key,
                        format!("container {id} is down and others there are not"),
                    );
                }
                self.judge(
                    index,
                    Action::Leave,
                    Rule::U,
                    "no member of the group, and down in part",
                );
            } else if self.take_allowance(index) {
                deactivated.push(index);
                self.judge(
                    index,
                    Action::Deactivate,
                    Rule::S8,
                    "no member of the group, and down for too long",
                );
            } else {
                self.judge(
                    index,
                    Action::Leave,
                    Rule::S8,
                    "no member of the group, and waits: others are on their way out",
                );
            }
        }
        deactivated
    }

    fn down_too_long(&self, machine: &Machine<'_>) -> Vec<ContainerId> {
        let too_long = |part: &&Part<'_>| {
            part.container.status == ContainerStatus::Down
                && part
                    .down_for(self.survey.clock)
                    .is_some_and(|time| time > self.settings.leftover_after)
        };
        machine
            .parts
            .iter()
            .filter(too_long)
            .map(|part| part.id)
            .collect()
    }

    // Instances that Weka knows no machine of.

    fn unknown_instances(&self) -> Vec<&'a Instance> {
        let known: BTreeSet<&str> = self
            .survey
            .machines
            .iter()
            .filter_map(|machine| machine.instance)
            .map(|instance| instance.id.as_str())
            .collect();
        let mut unknown: Vec<&Instance> = self
            .observation
            .instances()
            .filter(|instance| !known.contains(instance.id.as_str()))
            .collect();
        unknown.sort_by(|one, other| one.id.cmp(&other.id));
        unknown
    }

    fn instances(&mut self) {
        let mut absent = Vec::new();
        for instance in self.unknown_instances() {
            if !instance.is_in_service() {
                self.judge_instance(
                    instance,
                    Class::Held,
                    Action::Leave,
                    Rule::S11,
                    "not in service",
                );
                continue;
            }
            match instance.ec2 {
                Ec2State::Terminated | Ec2State::Absent if instance.healthy => {
                    let text = "gone, and waits for the group to notice";
                    self.judge_instance(instance, Class::Absent, Action::Leave, Rule::S14, text);
                }
                Ec2State::Terminated | Ec2State::Absent => {
                    self.detach.insert(instance.id.clone());
                    self.judge_instance(instance, Class::Absent, Action::Detach, Rule::S14, "gone");
                }
                Ec2State::Stopped | Ec2State::Running if self.is_client(instance) => {
                    let text = "Weka knows it as a client";
                    self.judge_instance(instance, Class::Absent, Action::Leave, Rule::S4, text);
                }
                Ec2State::Stopped if instance.healthy => {
                    let text = "stopped, and waits for the group to notice";
                    self.judge_instance(instance, Class::Absent, Action::Leave, Rule::S14, text);
                }
                Ec2State::Stopped if self.terminate.len() == self.settings.terminate_limit => {
                    let text = "stopped, and waits: enough for one run";
                    self.judge_instance(instance, Class::Absent, Action::Leave, Rule::S15, text);
                }
                Ec2State::Stopped => {
                    self.kill(instance, Reason::Stopped, Vec::new());
                    let text = "stopped, and nothing of it is in the cluster";
                    self.judge_instance(
                        instance,
                        Class::Absent,
                        Action::Terminate,
                        Rule::S14,
                        text,
                    );
                }
                Ec2State::Running => match self.why_not_absent(instance) {
                    Ok(()) => absent.push(instance),
                    Err(verdict) => self.leave_absent(instance, verdict),
                },
                Ec2State::Pending | Ec2State::Stopping | Ec2State::ShuttingDown => {
                    let text = "on its way to another state";
                    self.judge_instance(instance, Class::Absent, Action::Leave, Rule::S14, text);
                }
            }
        }
        self.terminate_absent(&absent);
    }

    fn is_client(&self, instance: &Instance) -> bool {
        let mut containers = self.survey.reads.containers.values();
        containers.any(|container| {
            belongs(container, &instance.id, instance.private_ip.as_deref())
                && !is_bygone_client(container)
        })
    }

    /// What keeps a running member that Weka does not know from being taken for lost (S4).
    fn why_not_absent(&self, instance: &Instance) -> Result<(), Unknown> {
        let Some(launched) = instance.launched else {
            return Err(Unknown::Person(
                "EC2 does not say when it was launched".to_owned(),
            ));
        };
        let age = self.observation.now.duration_since(launched);
        if age < self.settings.grace {
            return Err(Unknown::Joining);
        }
        if !instance.joined && instance.attached {
            return Err(Unknown::Person(
                "it was attached to the group and has never been seen in the cluster: it is not taken for lost".to_owned(),
            ));
        }
        let stripe = stripe(&self.survey.reads.status);
        if self.members.len() < stripe {
            return Err(Unknown::Person(format!(
                "only {} members are known to the cluster, a stripe needs {stripe}: nothing is inferred from that",
                self.members.len()
            )));
        }
        Ok(())
    }

    fn leave_absent(&mut self, instance: &Instance, why: Unknown) {
        match why {
            Unknown::Joining => {
                self.judge_instance(
                    instance,
                    Class::Absent,
                    Action::Leave,
                    Rule::S4,
                    "young: it may be joining",
                );
            }
            Unknown::Person(text) => {
                self.report(
                    Rule::S4,
                    &instance.id,
                    format!("Weka does not know it, and {text}"),
                );
                self.judge_instance(instance, Class::Absent, Action::Leave, Rule::S4, text);
            }
        }
    }

    fn terminate_absent(&mut self, absent: &[&'a Instance]) {
        let room = self
            .settings
            .terminate_limit
            .saturating_sub(self.terminate.len());
        let (now, later) = absent.split_at(absent.len().min(self.settings.absent_limit).min(room));
        for instance in now {
            self.kill(instance, Reason::Absent, Vec::new());
            let text = "Weka does not know it, after the time that a join may take";
            self.judge_instance(instance, Class::Absent, Action::Terminate, Rule::S4, text);
        }
        for instance in later {
            let text = "Weka does not know it, and it waits: enough for one run";
            self.report(Rule::S4, &instance.id, text);
            self.judge_instance(instance, Class::Absent, Action::Leave, Rule::S4, text);
        }
    }

    fn done(mut self) -> Decision {
        for group in self.observation.groups() {
            let lacking: Vec<&str> = SUSPENDED
                .into_iter()
                .filter(|process| !group.suspended.iter().any(|each| each == process))
                .collect();
            if !lacking.is_empty() {
                let text = format!(
                    "Auto Scaling may end members by itself: {} should be suspended; `wekactl cluster import` repairs that",
                    lacking.join(", ")
                );
                self.report(Rule::S13, &group.name, text);
            }
        }
        let killed: BTreeSet<&String> = self.terminate.iter().map(|kill| &kill.id).collect();
        let protect: BTreeSet<String> = self
            .observation
            .instances()
            .filter(|instance| instance.is_member() && !killed.contains(&instance.id))
            .map(|instance| instance.id.clone())
            .collect();
        Decision {
            gate: None,
            machines: self.verdicts.into_values().collect(),
            calls: self.script.calls,
            terminate: self.terminate,
            detach: self.detach.into_iter().collect(),
            protect: protect.into_iter().collect(),
            errors: self.errors.into_iter().collect(),
        }
    }
}

/// Members of a group that may leave, in the order of their turns.
struct Chosen {
    draining: Vec<usize>,
    down: Vec<usize>,
    up: Vec<usize>,
    healthy: Vec<usize>,
}

/// Why a machine that is too many stays for now.
enum Wait {
    /// It passes by itself.
    ItsTurn(Rule, String),
    /// Somebody has to do something, or should know.
    Person(Rule, String),
}

impl Wait {
    fn turn(why: impl Into<String>) -> Self {
        Self::ItsTurn(Rule::S7, why.into())
    }
}

/// Why a member that Weka does not know is not taken for lost.
enum Unknown {
    Joining,
    Person(String),
}

/// Machines that a stripe needs.
fn stripe(status: &Status) -> usize {
    status
        .stripe_data_drives
        .saturating_add(status.stripe_protection_drives) as usize
}
