//! The AWS of one cluster, in memory: an Auto Scaling group, its instances, and the items of the cluster's table.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::{SignedDuration, Timestamp};
use wekactl::cluster::settings::Credentials;
use wekactl::cluster::spec::Cores;
use wekactl::functions::lease::{Hold, Learned, Lease};
use wekactl::functions::ports::{Backend, Cloud, CloudError};
use wekactl::weka::scaling::{Ec2State, Group, Instance};

use super::trouble::{Death, Trouble};
use super::world::World;

/// The group's processes that are suspended in a cluster that is as it was made.
pub(crate) const SUSPENDED: [&str; 4] = [
    "AZRebalance",
    "InstanceRefresh",
    "ReplaceUnhealthy",
    "Terminate",
];

/// An instance, in the group or not.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) private_ip: String,
    pub(crate) launched: Timestamp,
    pub(crate) state: Ec2State,
    pub(crate) is_protected: bool,
    pub(crate) is_joined: bool,
    /// As a member; `None`: it is none.
    pub(crate) member: Option<Member>,
}

/// What the group says of a member.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) lifecycle: &'static str,
    pub(crate) is_healthy: bool,
    pub(crate) is_protected: bool,
    pub(crate) is_attached: bool,
}

/// The account.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) desired: u32,
    pub(crate) suspended: Vec<String>,
    pub(crate) machines: BTreeMap<String, Machine>,
    pub(crate) password: String,
    lease: Option<(Hold, Lease)>,
    launched: u32,
    /// Addresses that a new instance may get again.
    pub(crate) free_addresses: Vec<String>,
    pub(crate) reuses_addresses: bool,
}

impl Account {
    /// A group of instances that were attached to it a month ago.
    pub(crate) fn new(size: u32, now: Timestamp) -> Self {
        let mut account = Self {
            desired: size,
            suspended: SUSPENDED.map(ToOwned::to_owned).into(),
            machines: BTreeMap::new(),
            password: PASSWORD.to_owned(),
            lease: None,
            launched: 0,
            free_addresses: Vec::new(),
            reuses_addresses: false,
        };
        for _ in 0..size {
            let id = account.launch(now - SignedDuration::from_hours(24 * 30));
            let machine = account.machine_mut(&id);
            machine.state = Ec2State::Running;
            machine.is_joined = true;
            let member = machine.member.as_mut().expect("it was just launched");
            member.lifecycle = "InService";
            member.is_attached = true;
        }
        account
    }

    /// A new instance of the group, by its launch template: protected in both ways.
    pub(crate) fn launch(&mut self, now: Timestamp) -> String {
        let number = self.launched;
        self.launched += 1;
        let fresh = format!("10.0.{}.{}", number / 200, 10 + number % 200);
        let reused = self.reuses_addresses.then(|| self.free_addresses.pop());
        let id = format!("i-{number:017x}");
        self.machines.insert(
            id.clone(),
            Machine {
                private_ip: reused.flatten().unwrap_or(fresh),
                launched: now,
                state: Ec2State::Pending,
                is_protected: true,
                is_joined: false,
                member: Some(Member {
                    lifecycle: "Pending",
                    is_healthy: true,
                    is_protected: true,
                    is_attached: false,
                }),
            },
        );
        id
    }

    #[track_caller]
    pub(crate) fn machine_mut(&mut self, id: &str) -> &mut Machine {
        self.machines
            .get_mut(id)
            .expect("the instance was there once")
    }

    /// Ids of members, in order.
    pub(crate) fn members(&self) -> Vec<String> {
        let machines = self.machines.iter();
        machines
            .filter(|(_, machine)| machine.member.is_some())
            .map(|(id, _)| id.clone())
            .collect()
    }

    pub(crate) fn is_suspended(&self, process: &str) -> bool {
        self.suspended.iter().any(|each| each == process)
    }

    /// The end of an instance, by whoever's hand.
    pub(crate) fn end(&mut self, id: &str) {
        let machine = self.machine_mut(id);
        if matches!(machine.state, Ec2State::Terminated | Ec2State::Absent) {
            return;
        }
        machine.state = Ec2State::Terminated;
        let address = machine.private_ip.clone();
        self.free_addresses.push(address);
    }

    /// What Auto Scaling does by itself in a minute: the instances it has ended, and those it has launched.
    pub(crate) fn minute(&mut self, now: Timestamp) -> (Vec<String>, Vec<String>) {
        for machine in self.machines.values_mut() {
            let Some(member) = &mut machine.member else {
                continue;
            };
            if machine.state == Ec2State::Pending {
                machine.state = Ec2State::Running;
            }
            if member.lifecycle == "Pending" {
                member.lifecycle = "InService";
            }
            let runs = matches!(machine.state, Ec2State::Pending | Ec2State::Running);
            member.is_healthy &= runs || member.lifecycle != "InService";
        }
        let mut ended = Vec::new();
        if !self.is_suspended("ReplaceUnhealthy") && !self.is_suspended("Terminate") {
            ended.extend(self.members().into_iter().filter(|id| {
                let member = self.machines[id].member.as_ref();
                member.is_some_and(|member| !member.is_healthy)
            }));
        }
        let counted = |account: &Self| {
            let members = account
                .machines
                .values()
                .filter_map(|each| each.member.as_ref());
            members
                .filter(|member| member.lifecycle != "Standby")
                .count() as u32
        };
        if !self.is_suspended("Terminate") {
            let excess = counted(self).saturating_sub(self.desired) as usize;
            let unprotected = self.members().into_iter().filter(|id| {
                let member = self.machines[id].member.as_ref();
                member.is_some_and(|member| !member.is_protected && member.lifecycle == "InService")
            });
            ended.extend(unprotected.take(excess));
        }
        ended.sort();
        ended.dedup();
        for id in &ended {
            self.end(id);
            self.machine_mut(id).member = None;
        }
        let mut launched = Vec::new();
        while !self.is_suspended("Launch") && counted(self) < self.desired {
            launched.push(self.launch(now));
        }
        (ended, launched)
    }

    fn group(&self) -> Group {
        let instances = self.machines.iter().filter_map(|(id, machine)| {
            let member = machine.member.as_ref()?;
            let is_known = machine.state != Ec2State::Absent;
            let has_address = is_known && machine.state != Ec2State::Terminated;
            Some(Instance {
                id: id.clone(),
                private_ip: has_address.then(|| machine.private_ip.clone()),
                launched: is_known.then_some(machine.launched),
                ec2: machine.state,
                lifecycle: member.lifecycle.to_owned(),
                healthy: member.is_healthy,
                protected: member.is_protected,
                attached: member.is_attached,
                joined: is_known && machine.is_joined,
            })
        });
        Group {
            name: GROUP.to_owned(),
            desired: self.desired,
            suspended: self.suspended.clone(),
            instances: instances.collect(),
        }
    }
}

/// Name of the group.
pub(crate) const GROUP: &str = "wekactl-prod-Backends";
/// The stored password, until it is changed.
pub(crate) const PASSWORD: &str = "first password";
/// The stored user.
pub(crate) const USER: &str = "admin";

/// The account as one function of one execution sees it.
pub(crate) struct Session {
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) execution: String,
    pub(crate) death: Death,
}

impl Session {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no call panics")
    }

    /// One call: it may fail, hang or be the last thing that its function does.
    async fn call<T>(
        &self,
        name: &str,
        changes: bool,
        act: impl FnOnce(&mut World) -> Result<T, CloudError> + Send,
    ) -> Result<T, CloudError> {
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        self.death.before().await;
        let trouble = self.world().trouble();
        if let Some(Trouble::Refused) = trouble {
            return Err(failure(name, true));
        }
        let result = {
            let mut world = self.world();
            world.synchronise();
            if changes {
                world.changes(&self.execution, name);
            }
            let result = act(&mut world);
            world.check(name);
            result
        };
        if let Some(Trouble::Slow(time)) = trouble {
            tokio::time::sleep(time).await;
        }
        self.death.after().await;
        match trouble {
            Some(Trouble::Unanswered) => Err(failure(name, false)),
            _ => result,
        }
    }
}

fn failure(name: &str, refused: bool) -> CloudError {
    CloudError {
        text: format!("{name}: the account had trouble"),
        refused,
    }
}

impl Cloud for Session {
    async fn group(&self) -> Result<Group, CloudError> {
        self.call("group", false, |world| Ok(world.account.group()))
            .await
    }

    async fn credentials(&self) -> Result<Option<Credentials>, CloudError> {
        self.call("credentials", false, |world| {
            Ok(Some(Credentials {
                username: USER.into(),
                password: world.account.password.clone().into(),
            }))
        })
        .await
    }

    async fn take_lease(&self, hold: &Hold, now: Timestamp) -> Result<Option<Lease>, CloudError> {
        self.call("take_lease", false, |world| {
            let (held, lease) = world.account.lease.clone().unzip();
            let is_free =
                held.is_none_or(|held| held.expires <= now || held.execution == hold.execution);
            let lease = lease.unwrap_or_default();
            if is_free {
                world.account.lease = Some((hold.clone(), lease.clone()));
            }
            Ok(is_free.then_some(lease))
        })
        .await
    }

    async fn write_lease(&self, hold: &Hold, learned: &Learned) -> Result<bool, CloudError> {
        self.call("write_lease", false, |world| {
            let Some((held, lease)) = &mut world.account.lease else {
                return Ok(false);
            };
            if held.execution != hold.execution || held.expires != hold.expires {
                return Ok(false);
            }
            let Learned {
                guid,
                previous_desired,
                refused_login,
            } = learned.clone();
            if lease.guid.is_none() {
                lease.guid = guid;
            }
            lease.previous_desired = previous_desired.or(lease.previous_desired);
            if refused_login.is_some() {
                lease.refused_login = refused_login;
            }
            Ok(true)
        })
        .await
    }

    async fn release_lease(&self, hold: &Hold) -> Result<(), CloudError> {
        self.call("release_lease", false, |world| {
            if let Some((held, _)) = &mut world.account.lease
                && held.execution == hold.execution
            {
                held.expires = Timestamp::UNIX_EPOCH;
            }
            Ok(())
        })
        .await
    }

    async fn set_scale_in_protection(
        &self,
        ids: &[String],
        is_protected: bool,
    ) -> Result<(), CloudError> {
        assert!(ids.len() <= 50, "SetInstanceProtection takes 50");
        self.call("set_scale_in_protection", true, |world| {
            let members = ids.iter().map(|id| {
                world
                    .account
                    .machines
                    .get(id)
                    .and_then(|each| each.member.as_ref())
            });
            if members.clone().any(|member| {
                member.is_none_or(|member| !matches!(member.lifecycle, "InService" | "Standby"))
            }) {
                return Err(failure("set_scale_in_protection", true));
            }
            for id in ids {
                if let Some(member) = &mut world.account.machine_mut(id).member {
                    member.is_protected = is_protected;
                }
            }
            Ok(())
        })
        .await
    }

    async fn termination_protection(&self, id: &str) -> Result<bool, CloudError> {
        self.call("termination_protection", false, |world| {
            Ok(world.account.machines[id].is_protected)
        })
        .await
    }

    async fn set_termination_protection(
        &self,
        id: &str,
        is_protected: bool,
    ) -> Result<(), CloudError> {
        self.call("set_termination_protection", true, |world| {
            let machine = world.account.machine_mut(id);
            if matches!(machine.state, Ec2State::Terminated | Ec2State::Absent) {
                return Err(failure("set_termination_protection", true));
            }
            machine.is_protected = is_protected;
            Ok(())
        })
        .await
    }

    async fn terminate(&self, ids: &[String]) -> Result<(), CloudError> {
        self.call("terminate", true, |world| {
            let protected = |id: &String| world.account.machines[id].is_protected;
            if ids.iter().any(protected) {
                return Err(failure("terminate", true));
            }
            for id in ids {
                world.terminate(&self.execution, id);
            }
            Ok(())
        })
        .await
    }

    async fn detach(&self, ids: &[String]) -> Result<(), CloudError> {
        assert!(ids.len() <= 20, "DetachInstances takes 20");
        self.call("detach", true, |world| {
            for id in ids {
                world.detach(id);
            }
            Ok(())
        })
        .await
    }

    async fn mark_joined(&self, ids: &[String]) -> Result<(), CloudError> {
        self.call("mark_joined", true, |world| {
            for id in ids {
                world.account.machine_mut(id).is_joined = true;
            }
            Ok(())
        })
        .await
    }

    async fn running_backends(&self) -> Result<Vec<Backend>, CloudError> {
        self.call("running_backends", false, |world| {
            let running = world
                .account
                .machines
                .values()
                .filter(|each| each.state == Ec2State::Running);
            Ok(running
                .map(|each| Backend {
                    private_ip: each.private_ip.clone(),
                    launched: Some(each.launched),
                })
                .collect())
        })
        .await
    }

    async fn cores(&self) -> Result<Option<Cores>, CloudError> {
        Ok(None)
    }
}
