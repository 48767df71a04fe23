//! The cluster itself: what there is, what Weka does with it by itself as time passes, and what it refuses.
//!
//! The time is [`Weka::now`]: nothing here reads a clock, and nothing is random, so that a history can be replayed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::cli::Command;
use super::data::{Blocks, MOST_TOGETHER, Place, Places};
use super::rpc::{Api, Call};

/// Node ids of a container begin at its host id times this, with the management process.
pub(crate) const SLOTS: u32 = 20;
/// Of a drive's bytes, what data may take; in percent.
const USABLE: u64 = 90;
const MINUTE: Duration = Duration::from_secs(60);

/// What Weka says when it does not do a thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) String);

pub(crate) type Outcome<T> = Result<T, Refusal>;

fn refuse<T>(text: impl Into<String>) -> Outcome<T> {
    Err(Refusal(text.into()))
}

/// Which fields the replies have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// 4.2: `upgrade` and `hosts`.
    Old,
    /// 4.4: `upgrade_info`, `containers` and `servers`.
    New,
}

/// The stripe, fixed at formation, and the machines kept for a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) data: usize,
    pub(crate) protection: usize,
    pub(crate) hot_spare: usize,
    /// Stripes that are full of data.
    pub(crate) stripes: usize,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            data: 3,
            protection: 2,
            hot_spare: 1,
            stripes: 500,
        }
    }
}

impl Layout {
    pub(crate) fn width(&self) -> usize {
        self.data + self.protection
    }

    /// Machines without which lost blocks are not rebuilt.
    pub(crate) fn required(&self) -> usize {
        self.width().div_ceil(MOST_TOGETHER)
    }
}

/// What becomes of `cluster_deactivate_hosts` for a container that is down. Which one Weka does was never seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DownContainers {
    Refused,
    GoOnToInactive,
    /// Accepted, and a minute later it is active again.
    GoBackToActive,
}

/// How this cluster behaves.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour {
    pub(crate) down_containers: DownContainers,
    /// Drives of machines that are up may only go while D+P+S machines stay, not just D+P.
    pub(crate) keeps_hot_spare: bool,
    /// Blocks a minute.
    pub(crate) drain_rate: usize,
    /// Blocks a minute.
    pub(crate) rebuild_rate: usize,
    /// Blocks a minute that new drives take over.
    pub(crate) balance_rate: usize,
    /// Nothing is rebuilt.
    pub(crate) rebuild_stuck: bool,
    /// Minutes from an accepted removal of a container to its end.
    pub(crate) removal: u64,
    /// Removals end where they began, with an inactive container.
    pub(crate) removals_fail: bool,
    /// A new container gets the lowest host id that is free, not one that never was.
    pub(crate) reuses_host_ids: bool,
    /// The containers know the instance they run on.
    pub(crate) knows_instances: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            down_containers: DownContainers::GoOnToInactive,
            keeps_hot_spare: false,
            drain_rate: 150,
            rebuild_rate: 150,
            balance_rate: 60,
            rebuild_stuck: false,
            removal: 1,
            removals_fail: false,
            reuses_host_ids: false,
            knows_instances: true,
        }
    }
}

/// Whether an instance runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    Up,
    /// Dead or unreachable; the data on its drives is still there.
    Down,
    /// Down, and up again at this time.
    Rebooting(SystemTime),
    /// Its instance store is lost, but it may start again.
    Stopped,
    /// Terminated.
    Gone,
}

/// An instance with its local disks.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) instance_id: String,
    /// Primary private address.
    pub(crate) address: String,
    /// All its addresses.
    pub(crate) ips: Vec<String>,
    pub(crate) instance_type: String,
    pub(crate) zone: String,
    /// Local disks.
    pub(crate) disks: u32,
    pub(crate) disk_bytes: u64,
    pub(crate) power: Power,
    /// Weka runs on it: port 14000 answers, in a cluster or not.
    pub(crate) installed: bool,
    /// Device paths of the disks that are prepared for Weka, and whether they are drives already.
    pub(crate) signed: BTreeMap<String, bool>,
    /// Tells machines apart that had the same instance id or address one after the other.
    pub(crate) number: u32,
}

impl Machine {
    pub(crate) fn new(instance_id: &str, address: &str) -> Self {
        Self {
            instance_id: instance_id.to_owned(),
            address: address.to_owned(),
            ips: vec![address.to_owned()],
            instance_type: "i3en.2xlarge".to_owned(),
            zone: "eu-central-1a".to_owned(),
            disks: 2,
            disk_bytes: 2_500_000_000_000,
            power: Power::Up,
            installed: false,
            signed: BTreeMap::new(),
            number: 0,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.power == Power::Up
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Active,
    Deactivating,
    Inactive,
    /// Since then.
    Removing(SystemTime),
}

/// What a container is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Drives,
    Compute,
    Frontend,
}

/// A host, in the words of the API. What it says of itself may be changed freely; `None` is null or absent.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) role: Role,
    /// `backend`, `client`.
    pub(crate) mode: Option<String>,
    pub(crate) uid: String,
    pub(crate) machine_identifier: String,
    /// The instance it is on: a key of [`Weka::machines`].
    pub(crate) instance_id: String,
    pub(crate) host_ip: String,
    pub(crate) ips: Vec<String>,
    pub(crate) failure_domain: String,
    pub(crate) state: State,
    /// Instead of the state, a word that nobody knows.
    pub(crate) odd_state: Option<String>,
    /// Instead of the status, one that nobody knows.
    pub(crate) odd_status: Option<String>,
    pub(crate) added_time: SystemTime,
    pub(crate) state_changed_time: Option<SystemTime>,
    pub(crate) start_time: SystemTime,
    /// Seconds after which Weka itself removes a client.
    pub(crate) auto_remove_timeout: Option<u64>,
    /// Slot 0 is the management process.
    pub(crate) processes: Vec<Process>,
}

impl Container {
    pub(crate) fn is_backend(&self) -> bool {
        self.mode.as_deref() != Some("client")
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) up: bool,
    pub(crate) up_since: Option<SystemTime>,
    pub(crate) last_fencing_time: Option<SystemTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DriveStatus {
    PhasingIn,
    Active,
    PhasingOut,
    Inactive,
    Failed,
}

#[derive(Clone, Debug)]
pub(crate) struct Drive {
    pub(crate) uuid: String,
    /// `None`: its container was removed.
    pub(crate) host: Option<u32>,
    /// The machine it is in: its failure domain.
    pub(crate) machine: u32,
    pub(crate) device_path: String,
    pub(crate) status: DriveStatus,
    pub(crate) should_be_active: bool,
    pub(crate) size_bytes: u64,
    pub(crate) added_time: SystemTime,
    /// It never ends phasing out.
    pub(crate) stuck: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct InterfaceGroup {
    pub(crate) name: String,
    /// `NFS`, `SMB`.
    pub(crate) kind: String,
    pub(crate) ips: Vec<String>,
    /// Host id and network interface.
    pub(crate) ports: Vec<(u32, String)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Override {
    pub(crate) key: String,
    pub(crate) enabled: bool,
    pub(crate) created: SystemTime,
}

/// What a machine took with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) instance_id: String,
    pub(crate) at: SystemTime,
    /// Blocks that were on its drives and nowhere else.
    pub(crate) live_blocks: usize,
}

/// A Weka cluster.
#[derive(Clone, Debug)]
pub(crate) struct Weka {
    pub(crate) now: SystemTime,
    pub(crate) guid: String,
    pub(crate) name: String,
    pub(crate) release: String,
    pub(crate) shape: Shape,
    pub(crate) layout: Layout,
    pub(crate) behaviour: Behaviour,
    pub(crate) io_status: String,
    /// The phase of the upgrade that is running.
    pub(crate) upgrade: Option<String>,
    /// Seconds by which the cluster's clock is ahead.
    pub(crate) skew: i64,
    /// `status` has `cluster_time`.
    pub(crate) tells_time: bool,
    /// By instance id. An instance that is gone stays.
    pub(crate) machines: BTreeMap<String, Machine>,
    /// By host id.
    pub(crate) containers: BTreeMap<u32, Container>,
    /// By disk id.
    pub(crate) drives: BTreeMap<u32, Drive>,
    pub(crate) interface_groups: Vec<InterfaceGroup>,
    pub(crate) overrides: BTreeMap<u32, Override>,
    /// Host ids, the leader first.
    pub(crate) leadership: Vec<u32>,
    /// What instances that were stopped or terminated took with them.
    pub(crate) losses: Vec<Loss>,
    /// Every mutating call of the API, in order.
    pub(crate) calls: Vec<Call>,
    /// Every call of an instance's `weka` command, in order.
    pub(crate) commands: Vec<Command>,
    /// Who may call, and how calls go wrong.
    pub(crate) api: Api,
    pub(crate) blocks: Blocks,
    /// Bytes of each block: all of them grow as the cluster fills.
    pub(crate) block_bytes: u64,
    /// Machines that failed since all stripes were whole.
    pub(crate) failed: BTreeSet<u32>,
    pub(crate) tolerable: bool,
    next_host: u32,
    next_drive: u32,
    next_machine: u32,
    next_uuid: u64,
}

impl Weka {
    /// A cluster of these machines that has run for a month, 40 % full.
    pub(crate) fn form(machines: &[Machine], layout: Layout, now: SystemTime) -> Self {
        assert!(
            layout.width() <= machines.len(),
            "fewer machines than a stripe has blocks"
        );
        let mut weka = Self {
            now: now - 30 * 24 * 60 * MINUTE,
            guid: "a1d2c3b4-0000-4000-8000-000000000001".to_owned(),
            name: "prod".to_owned(),
            release: "4.2.7".to_owned(),
            shape: Shape::Old,
            layout,
            behaviour: Behaviour::default(),
            io_status: "STARTED".to_owned(),
            upgrade: None,
            skew: 0,
            tells_time: true,
            machines: BTreeMap::new(),
            containers: BTreeMap::new(),
            drives: BTreeMap::new(),
            interface_groups: Vec::new(),
            overrides: BTreeMap::new(),
            leadership: Vec::new(),
            losses: Vec::new(),
            calls: Vec::new(),
            commands: Vec::new(),
            api: Api::default(),
            blocks: Blocks::none(),
            block_bytes: 1,
            failed: BTreeSet::new(),
            tolerable: true,
            next_host: 0,
            next_drive: 0,
            next_machine: 0,
            next_uuid: 0,
        };
        for machine in machines {
            weka.boot(machine.clone());
            weka.add_backend(&machine.instance_id);
        }
        for drive in weka.drives.values_mut() {
            drive.status = DriveStatus::Active;
        }
        let mut places = weka.places();
        weka.blocks =
            Blocks::spread_over(&mut places, layout.stripes, layout.data, layout.protection);
        weka.fill(0.4);
        weka.now = now;
        weka.elect();
        weka
    }

    // ---- Time

    /// Lets time pass, in which nothing moves.
    pub(crate) fn advance(&mut self, time: Duration) {
        self.now += time;
    }

    /// Moves every recorded time back, as if so much had passed since. The record of calls stays as it is.
    pub(crate) fn age(&mut self, time: Duration) {
        let back = |at: &mut SystemTime| *at -= time;
        for container in self.containers.values_mut() {
            back(&mut container.added_time);
            back(&mut container.start_time);
            container.state_changed_time.as_mut().map(back);
            if let State::Removing(since) = &mut container.state {
                back(since);
            }
            for process in &mut container.processes {
                process.up_since.as_mut().map(back);
                process.last_fencing_time.as_mut().map(back);
            }
        }
        for machine in self.machines.values_mut() {
            if let Power::Rebooting(until) = &mut machine.power {
                back(until);
            }
        }
        self.drives
            .values_mut()
            .for_each(|drive| back(&mut drive.added_time));
        self.overrides
            .values_mut()
            .for_each(|entry| back(&mut entry.created));
        self.losses.iter_mut().for_each(|loss| back(&mut loss.at));
        self.api.age(time);
    }

    /// So many minutes pass, with what Weka does in them.
    pub(crate) fn tick(&mut self, minutes: u32) {
        for _ in 0..minutes {
            self.advance(MINUTE);
            self.progress();
        }
    }

    /// What Weka does by itself in a minute, without the minute.
    pub(crate) fn progress(&mut self) {
        self.reboot_ended();
        self.move_blocks();
        self.settle();
        self.forget_failures();
    }

    /// Drives and containers become what nothing keeps them from.
    pub(crate) fn settle(&mut self) {
        self.settle_drives();
        self.settle_containers();
        self.elect();
    }

    fn reboot_ended(&mut self) {
        let now = self.now;
        let ended: Vec<String> = self
            .machines
            .values()
            .filter(|machine| matches!(machine.power, Power::Rebooting(until) if until <= now))
            .map(|machine| machine.instance_id.clone())
            .collect();
        for instance in ended {
            self.come_back(&instance);
        }
    }

    fn move_blocks(&mut self) {
        if !self.has_quorum() {
            return;
        }
        let mut places = self.places();
        let enough = self.active_domains() >= self.layout.required();
        if enough && !self.behaviour.rebuild_stuck {
            self.blocks
                .rebuild(&mut places, self.behaviour.rebuild_rate);
        }
        self.blocks.drain(&mut places, self.behaviour.drain_rate);
        self.blocks
            .balance(&mut places, self.behaviour.balance_rate);
    }

    /// Whether anything is up that could do something.
    fn has_quorum(&self) -> bool {
        let hosts: Vec<u32> = self.containers.keys().copied().collect();
        hosts.into_iter().any(|host| self.is_up(host))
    }

    fn settle_drives(&mut self) {
        let places = self.places();
        for (number, drive) in &mut self.drives {
            let empty = places[*number as usize].held == 0;
            drive.status = match drive.status {
                DriveStatus::PhasingIn => DriveStatus::Active,
                DriveStatus::PhasingOut | DriveStatus::Failed if empty && !drive.stuck => {
                    DriveStatus::Inactive
                }
                as_before => as_before,
            };
        }
    }

    fn settle_containers(&mut self) {
        let now = self.now;
        let hosts: Vec<u32> = self.containers.keys().copied().collect();
        for host in hosts {
            match self.containers[&host].state {
                State::Deactivating if self.goes_back(host) => self.set_state(host, State::Active),
                State::Deactivating if self.is_drained(host) => {
                    self.set_state(host, State::Inactive);
                }
                State::Removing(since) if now >= since + MINUTE * self.removal_minutes() => {
                    if self.behaviour.removals_fail {
                        self.set_state(host, State::Inactive);
                    } else {
                        self.forget(host);
                    }
                }
                _ => {}
            }
        }
    }

    fn removal_minutes(&self) -> u32 {
        u32::try_from(self.behaviour.removal).unwrap_or(u32::MAX)
    }

    fn goes_back(&self, host: u32) -> bool {
        self.behaviour.down_containers == DownContainers::GoBackToActive && !self.is_up(host)
    }

    /// All drives of the container are out.
    pub(crate) fn is_drained(&self, host: u32) -> bool {
        self.drives_of(host)
            .all(|(_, drive)| drive.status == DriveStatus::Inactive)
    }

    fn forget(&mut self, host: u32) {
        self.containers.remove(&host);
        for drive in self.drives.values_mut() {
            if drive.host == Some(host) {
                drive.host = None;
            }
        }
        for group in &mut self.interface_groups {
            group.ports.retain(|(owner, _)| *owner != host);
        }
    }

    pub(crate) fn set_state(&mut self, host: u32, state: State) {
        let now = self.now;
        if let Some(container) = self.containers.get_mut(&host) {
            container.state = state;
            container.state_changed_time = Some(now);
        }
    }

    /// Members that left or died are replaced; the others stay.
    pub(crate) fn elect(&mut self) {
        let able = |host: &u32| {
            let container = &self.containers[host];
            let runs = matches!(container.state, State::Active | State::Deactivating);
            container.is_backend() && container.role == Role::Drives && runs && self.is_up(*host)
        };
        let mut members = self.leadership.clone();
        members.retain(|host| self.containers.contains_key(host) && able(host));
        let active = |host: &&u32| self.containers[*host].state == State::Active;
        for host in self.containers.keys().filter(active) {
            if members.len() < 2 * self.layout.protection + 1
                && !members.contains(host)
                && able(host)
            {
                members.push(*host);
            }
        }
        self.leadership = members;
    }

    // ---- Joining

    /// An instance runs; nothing of Weka is on it.
    pub(crate) fn boot(&mut self, machine: Machine) {
        let number = self.next_machine;
        self.next_machine += 1;
        self.machines
            .insert(machine.instance_id.clone(), Machine { number, ..machine });
    }

    /// `weka local setup container`: the container is in the cluster, under this host id.
    pub(crate) fn setup_container(
        &mut self,
        instance: &str,
        name: &str,
        port: u16,
        role: Role,
        cores: usize,
    ) -> Outcome<u32> {
        let machine = self.running(instance)?;
        let (address, ips, number) = (machine.address.clone(), machine.ips.clone(), machine.number);
        if self
            .own_containers(instance)
            .iter()
            .any(|host| self.containers[host].port == port)
        {
            return refuse(format!("Port {port} is in use by another container"));
        }
        let host = self.new_host_id();
        let process = Process {
            up: true,
            up_since: Some(self.now),
            last_fencing_time: None,
        };
        let container = Container {
            name: name.to_owned(),
            port,
            role,
            mode: Some("backend".to_owned()),
            uid: self.new_uuid(),
            machine_identifier: format!("9c6fe1b0-0000-4000-8000-{number:012x}"),
            instance_id: instance.to_owned(),
            failure_domain: format!("DOM-{address}"),
            host_ip: address,
            ips,
            state: State::Active,
            odd_state: None,
            odd_status: None,
            added_time: self.now,
            state_changed_time: Some(self.now),
            start_time: self.now,
            auto_remove_timeout: None,
            processes: vec![process; cores + 1],
        };
        self.containers.insert(host, container);
        if let Some(machine) = self.machines.get_mut(instance) {
            machine.installed = true;
        }
        self.elect();
        Ok(host)
    }

    /// A disk of the machine is prepared for Weka.
    pub(crate) fn sign_drive(&mut self, instance: &str, device_path: &str) -> Outcome<()> {
        self.running(instance)?;
        let machine = self.machines.get_mut(instance).expect("it runs");
        machine.signed.entry(device_path.to_owned()).or_default();
        Ok(())
    }

    /// `weka cluster drive scan`: signed disks of the container's machine become drives. Their disk ids.
    pub(crate) fn scan_drives(&mut self, host: u32) -> Outcome<Vec<u32>> {
        let Some(container) = self.containers.get(&host) else {
            return refuse(format!("HostId<{host}> does not exist"));
        };
        let instance = container.instance_id.clone();
        self.running(&instance)?;
        let machine = self.machines.get_mut(&instance).expect("it runs");
        let (number, size_bytes) = (machine.number, machine.disk_bytes);
        let fresh: Vec<String> = machine
            .signed
            .iter_mut()
            .filter_map(|(path, used)| (!std::mem::replace(used, true)).then(|| path.clone()))
            .collect();
        let drives = fresh.into_iter().map(|device_path| {
            let disk = self.next_drive;
            self.next_drive += 1;
            let drive = Drive {
                uuid: self.new_uuid(),
                host: Some(host),
                machine: number,
                device_path,
                status: DriveStatus::PhasingIn,
                should_be_active: true,
                size_bytes,
                added_time: self.now,
                stuck: false,
            };
            self.drives.insert(disk, drive);
            disk
        });
        Ok(drives.collect())
    }

    /// Backend containers on the instance, in the order they were added; also those of an instance that is gone.
    pub(crate) fn own_containers(&self, instance: &str) -> Vec<u32> {
        let all = self.containers.iter();
        all.filter(|(_, container)| container.is_backend() && container.instance_id == instance)
            .map(|(host, _)| *host)
            .collect()
    }

    /// All that the join script does, or what is left when it fails just before a step.
    pub(crate) fn join(&mut self, instance: &str, fails_at: Option<JoinStep>) -> Outcome<Vec<u32>> {
        let check = |step: JoinStep| match fails_at {
            Some(at) if at == step => refuse(format!("the join failed at {step:?}")),
            _ => Ok(()),
        };
        check(JoinStep::Drives)?;
        let drives = self.setup_container(instance, "drives0", 14000, Role::Drives, 1)?;
        check(JoinStep::Compute)?;
        let compute = self.setup_container(instance, "compute0", 15000, Role::Compute, 1)?;
        check(JoinStep::Frontend)?;
        let frontend = self.setup_container(instance, "frontend0", 16000, Role::Frontend, 1)?;
        check(JoinStep::Sign)?;
        for disk in 0..self.machines[instance].disks {
            self.sign_drive(instance, &format!("/dev/nvme{}n1", disk + 1))?;
        }
        check(JoinStep::Scan)?;
        self.scan_drives(drives)?;
        Ok(vec![drives, compute, frontend])
    }

    fn add_backend(&mut self, instance: &str) {
        self.join(instance, None).expect("the instance runs");
    }

    fn running(&self, instance: &str) -> Outcome<&Machine> {
        match self.machines.get(instance) {
            Some(machine) if machine.is_up() => Ok(machine),
            _ => refuse(format!("{instance} does not run")),
        }
    }

    fn new_host_id(&mut self) -> u32 {
        if self.behaviour.reuses_host_ids {
            let free = (0..self.next_host).find(|host| !self.containers.contains_key(host));
            if let Some(host) = free {
                return host;
            }
        }
        self.next_host += 1;
        self.next_host - 1
    }

    pub(crate) fn new_uuid(&mut self) -> String {
        self.next_uuid += 1;
        format!("5c6f3c8e-9c14-4d06-8000-{:012x}", self.next_uuid)
    }

    // ---- What Weka is asked to do

    /// Drives begin to phase out. All or none.
    pub(crate) fn deactivate_drives(&mut self, drives: &[u32]) -> Outcome<()> {
        if let Some(unknown) = drives.iter().find(|disk| !self.drives.contains_key(disk)) {
            return refuse(format!("DiskId<{unknown}> does not exist"));
        }
        let leaving: Vec<u32> = drives
            .iter()
            .copied()
            .filter(|disk| {
                let drive = &self.drives[disk];
                drive.should_be_active && drive.status != DriveStatus::Inactive
            })
            .collect();
        if !leaving.is_empty() {
            self.check_domains(&leaving)?;
            self.check_capacity(&leaving)?;
        }
        for disk in drives {
            let drive = self.drives.get_mut(disk).expect("checked");
            drive.should_be_active = false;
            if matches!(drive.status, DriveStatus::PhasingIn | DriveStatus::Active) {
                drive.status = DriveStatus::PhasingOut;
            }
        }
        Ok(())
    }

    fn check_domains(&self, leaving: &[u32]) -> Outcome<()> {
        let before = self.active_domains();
        let after = self.active_domains_without(leaving);
        let spare = if self.behaviour.keeps_hot_spare {
            self.layout.hot_spare
        } else {
            0
        };
        // The drives of a dead machine may go although nothing replaces it: its blocks are rebuilt all the same.
        let needed = if after < before {
            self.layout.width() + spare
        } else {
            self.layout.required()
        };
        if after < needed {
            return refuse(format!(
                "Deactivating these drives would leave {after} active failure domains, at least {needed} are required"
            ));
        }
        Ok(())
    }

    fn check_capacity(&self, leaving: &[u32]) -> Outcome<()> {
        // What is dead may take the hot spare's space.
        let dead = leaving.iter().all(|disk| !self.is_drive_up(*disk));
        let spare = if dead { 0 } else { self.layout.hot_spare };
        let stays = |disk: u32| self.is_drive_up(disk) && !leaving.contains(&disk);
        let (needed, left) = (self.provisioned_bytes(), self.net_bytes(spare, stays));
        if left < needed {
            return refuse(format!(
                "Not enough capacity: {needed} bytes are provisioned, {left} would be left"
            ));
        }
        let together = if dead { MOST_TOGETHER } else { 1 };
        if self.room(together, stays) < self.blocks.count() {
            return refuse("Not enough capacity: the failure domains left are too uneven");
        }
        Ok(())
    }

    /// Containers begin to leave, and with them drives that were not told to before. All or none.
    pub(crate) fn deactivate_hosts(&mut self, hosts: &[u32]) -> Outcome<()> {
        for host in hosts {
            if !self.containers.contains_key(host) {
                return refuse(format!("HostId<{host}> does not exist"));
            }
            let refuses = self.behaviour.down_containers == DownContainers::Refused;
            if refuses && self.containers[host].state == State::Active && !self.is_up(*host) {
                return refuse(format!(
                    "HostId<{host}> is unavailable, deactivating it has to be allowed explicitly"
                ));
            }
        }
        let drives: Vec<u32> = hosts
            .iter()
            .flat_map(|host| self.drives_of(*host))
            .filter(|(_, drive)| drive.should_be_active)
            .map(|(disk, _)| disk)
            .collect();
        self.deactivate_drives(&drives)?;
        for host in hosts {
            if self.containers[host].state == State::Active {
                self.set_state(*host, State::Deactivating);
            }
        }
        Ok(())
    }

    /// An inactive container begins to go.
    pub(crate) fn remove_host(&mut self, host: u32) -> Outcome<()> {
        match self.containers.get(&host).map(|container| container.state) {
            None => refuse(format!("HostId<{host}> does not exist")),
            Some(State::Inactive) => {
                self.set_state(host, State::Removing(self.now));
                Ok(())
            }
            Some(_) => refuse(format!("HostId<{host}> is not INACTIVE")),
        }
    }

    /// Inactive drives are gone.
    pub(crate) fn remove_drives(&mut self, drives: &[u32]) -> Outcome<()> {
        for disk in drives {
            match self.drives.get(disk).map(|drive| drive.status) {
                Some(DriveStatus::Inactive) => {}
                Some(_) => return refuse(format!("DiskId<{disk}> is not INACTIVE")),
                None => return refuse(format!("DiskId<{disk}> does not exist")),
            }
        }
        for disk in drives {
            self.drives.remove(disk);
        }
        Ok(())
    }

    /// A port leaves its interface group.
    pub(crate) fn delete_port(&mut self, group: &str, host: u32, port: &str) -> Outcome<()> {
        let ports = self
            .interface_groups
            .iter_mut()
            .find(|candidate| candidate.name == group)
            .map(|group| &mut group.ports);
        let Some(ports) = ports else {
            return refuse(format!("Interface group {group} does not exist"));
        };
        let before = ports.len();
        ports.retain(|(owner, name)| (*owner, name.as_str()) != (host, port));
        if ports.len() == before {
            return refuse(format!("HostId<{host}> has no port {port} in {group}"));
        }
        Ok(())
    }

    // ---- What is true

    pub(crate) fn drives_of(&self, host: u32) -> impl Iterator<Item = (u32, &Drive)> {
        let all = self.drives.iter().map(|(disk, drive)| (*disk, drive));
        all.filter(move |(_, drive)| drive.host == Some(host))
    }

    /// The container's machine runs, or for a client: it was not told that it does not; and so does its management.
    pub(crate) fn is_up(&self, host: u32) -> bool {
        let container = &self.containers[&host];
        self.machine_runs(container) && container.processes[0].up
    }

    pub(crate) fn machine_runs(&self, container: &Container) -> bool {
        let machine = self.machines.get(&container.instance_id);
        machine.is_none_or(Machine::is_up)
    }

    /// The drive can be read if anything is on it. Only its machine matters, not the management process.
    fn is_drive_up(&self, disk: u32) -> bool {
        let drive = &self.drives[&disk];
        let works = !matches!(drive.status, DriveStatus::Failed | DriveStatus::Inactive);
        let mut machines = self.machines.values();
        works && machines.any(|machine| machine.number == drive.machine && machine.is_up())
    }

    /// The drives as the data sees them, by disk id.
    pub(crate) fn places(&self) -> Places {
        let mut runs = vec![false; self.next_machine as usize];
        for machine in self.machines.values() {
            runs[machine.number as usize] = machine.is_up();
        }
        let mut places = vec![Place::default(); self.next_drive as usize];
        for (disk, drive) in &self.drives {
            let works = !matches!(drive.status, DriveStatus::Failed | DriveStatus::Inactive);
            places[*disk as usize] = Place {
                machine: drive.machine,
                readable: works && runs[drive.machine as usize],
                takes: drive.status == DriveStatus::Active && drive.should_be_active,
                leaves: drive.status == DriveStatus::PhasingOut && !drive.stuck,
                room: self.room_on(drive),
                held: 0,
            };
        }
        self.blocks.count_into(&mut places);
        places
    }

    /// Failure domains with a drive that takes data and can be reached.
    pub(crate) fn active_domains(&self) -> usize {
        self.active_domains_without(&[])
    }

    fn active_domains_without(&self, leaving: &[u32]) -> usize {
        let counts = |(disk, drive): &(&u32, &Drive)| {
            drive.should_be_active && !leaving.contains(disk) && self.is_drive_up(**disk)
        };
        let domains = self.drives.iter().filter(counts);
        domains
            .map(|(_, drive)| drive.machine)
            .collect::<BTreeSet<u32>>()
            .len()
    }

    /// Blocks that find room on drives that take data, can be reached and `count`, with so many of a stripe together.
    pub(crate) fn room(&self, together: usize, counts: impl Fn(u32) -> bool) -> usize {
        let mut by_machine: BTreeMap<u32, usize> = BTreeMap::new();
        for (disk, drive) in &self.drives {
            if drive.should_be_active && self.is_drive_up(*disk) && counts(*disk) {
                *by_machine.entry(drive.machine).or_default() += self.room_on(drive);
            }
        }
        let most = together * self.blocks.stripes();
        by_machine.values().map(|room| most.min(*room)).sum()
    }

    fn room_on(&self, drive: &Drive) -> usize {
        usize::try_from(drive.size_bytes * USABLE / 100 / self.block_bytes)
            .expect("a drive holds fewer blocks than there are numbers")
    }

    /// Bytes that file systems may have on the drives for which `counts`, in whole stripes and with the spare kept.
    pub(crate) fn net_bytes(&self, spare: usize, counts: impl Fn(u32) -> bool) -> u64 {
        let drives = self.drives.iter();
        let counted: Vec<&Drive> = drives
            .filter(|(disk, drive)| {
                drive.should_be_active && drive.status != DriveStatus::Inactive && counts(**disk)
            })
            .map(|(_, drive)| drive)
            .collect();
        let raw: u64 = counted.iter().map(|drive| drive.size_bytes).sum();
        let domains: BTreeSet<u32> = counted.iter().map(|drive| drive.machine).collect();
        let domains = domains.len() as u64;
        if domains <= spare as u64 {
            return 0;
        }
        let layout = &self.layout;
        let usable = raw / 100 * USABLE / domains * (domains - spare as u64);
        usable / layout.width() as u64 * layout.data as u64
    }

    /// Bytes that file systems have; all of them are full.
    pub(crate) fn provisioned_bytes(&self) -> u64 {
        (self.blocks.stripes() * self.layout.data) as u64 * self.block_bytes
    }
}

/// Before which step of joining it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JoinStep {
    Drives,
    Compute,
    Frontend,
    Sign,
    Scan,
}
