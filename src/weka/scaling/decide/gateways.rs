//! Gateways that serve NFS: members of a group of their own, without drives.

use super::{Action, Plan, Purpose, Rule, script};

impl Plan<'_> {
    pub(super) fn deactivate_gateways(&mut self, chosen: &[usize]) {
        let chosen = self.sorted(chosen);
        for index in chosen.draining {
            self.go_on(index);
        }
        for index in chosen.down {
            self.heal_down(index);
        }
        for index in chosen.up {
            self.heal_up(index);
        }
        for index in chosen.healthy {
            self.shrink(index);
        }
        self.deactivate_outside();
    }

    /// Judges gateways that are in no interface group. The vendor's rule: one that was in one goes at once, as its port
    /// is the first thing that it loses, and any other once it is down for an hour.
    fn deactivate_outside(&mut self) {
        let Some(nfs) = &self.observation.nfs else {
            return;
        };
        // A list that names no gateway at all is empty for another reason: nothing is inferred from that (S4).
        let names_gateways = self
            .gateways
            .iter()
            .any(|index| self.is_in_interface_group(*index));
        let is_down = |index: &usize| {
            let after = self.settings.outside_after;
            self.machine(*index).is_lost(self.survey.clock, after)
        };
        let (down, up): (Vec<usize>, Vec<usize>) =
            self.outside.iter().partition(|each| is_down(each));
        let down = down.into_iter().map(|index| (index, true));
        let up = up.into_iter().map(|index| (index, false));
        for (index, is_down) in down.chain(up) {
            let machine = self.machine(index);
            let instance = machine.instance;
            let address = instance.and_then(|instance| instance.private_ip.as_deref());
            let why = if is_down {
                "in no interface group, and down for too long"
            } else if address.is_some_and(|ip| nfs.interface_group_ips.contains(ip)) {
                "in no interface group any more"
            } else {
                let text = "waits to be put into an interface group";
                self.judge(index, Action::Leave, Rule::U, text);
                continue;
            };
            if !names_gateways {
                let text = format!("{why}; but Weka lists no gateway in any, and it stays");
                self.report(Rule::S4, &machine.key, text.clone());
                self.judge(index, Action::Leave, Rule::S4, text);
            } else if self.take_allowance(index) {
                self.ask_to_leave(index, Purpose::Health);
                self.judge(index, Action::Deactivate, Rule::S8, why);
            } else {
                let text = format!("{why}, and waits: others are on their way out");
                self.judge(index, Action::Leave, Rule::S8, text);
            }
        }
    }

    fn is_in_interface_group(&self, index: usize) -> bool {
        script::serves(self.machine(index), &self.survey.reads.interface_groups)
    }

    /// Whether others serve without it, though it is up (S8). No data is on it.
    pub(super) fn is_replaceable(&self, index: usize) -> Result<(), String> {
        let others = self.staying(index);
        if others.iter().any(|each| self.machine(*each).is_up()) {
            Ok(())
        } else {
            Err("no other gateway is up".to_owned())
        }
    }
}
