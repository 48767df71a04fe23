//! What befalls a cluster from outside, and the truth about it afterwards. Everything else that may be odd is a public
//! field: `container_mut(host).mode = None`.

use std::time::{Duration, SystemTime};

use super::data::{Health, MOST_TOGETHER};
use super::model::{
    Container, Drive, DriveStatus, InterfaceGroup, Loss, Machine, Outcome, Override, Power,
    Process, Role, State, Weka,
};

/// How long a machine takes to boot again.
const REBOOT: Duration = Duration::from_secs(180);

impl Weka {
    // ---- Machines

    /// The machine is dead or can not be reached. Its disks keep their data.
    pub(crate) fn kill(&mut self, instance: &str) {
        self.power_off(instance, Power::Down);
    }

    /// The same, and it has been so since then: what the processes say of it.
    pub(crate) fn kill_since(&mut self, instance: &str, since: SystemTime) {
        self.kill(instance);
        for host in self.own_containers(instance) {
            for process in &mut self.container_mut(host).processes {
                process.last_fencing_time = Some(since);
            }
        }
    }

    /// The instance is stopped: its local disks are empty when it starts again.
    pub(crate) fn stop(&mut self, instance: &str) {
        self.power_off(instance, Power::Stopped);
        self.lose_disks(instance);
    }

    /// Down for three minutes.
    pub(crate) fn reboot(&mut self, instance: &str) {
        let until = self.now + REBOOT;
        self.power_off(instance, Power::Rebooting(until));
    }

    /// The instance is terminated. Weka is not asked: its containers stay, and are down.
    pub(crate) fn vanish(&mut self, instance: &str) {
        self.power_off(instance, Power::Gone);
        self.lose_disks(instance);
    }

    /// A machine that was dead or stopped runs again.
    pub(crate) fn come_back(&mut self, instance: &str) {
        let now = self.now;
        let machine = self.machine_mut(instance);
        if machine.is_up() || machine.power == Power::Gone {
            return;
        }
        machine.power = Power::Up;
        for host in self.own_containers(instance) {
            let container = self.container_mut(host);
            container.start_time = now;
            for process in &mut container.processes {
                process.up = true;
                process.up_since = Some(now);
            }
        }
        self.elect();
    }

    fn power_off(&mut self, instance: &str, power: Power) {
        let machine = self.machine_mut(instance);
        if machine.power == Power::Gone {
            return;
        }
        let number = machine.number;
        if std::mem::replace(&mut machine.power, power) == Power::Up {
            self.stop_containers(instance);
        }
        self.has_failed(number);
        self.elect();
    }

    fn lose_disks(&mut self, instance: &str) {
        let live_blocks = self.live_blocks(instance);
        self.losses.push(Loss {
            instance_id: instance.to_owned(),
            at: self.now,
            live_blocks,
        });
        let machine = self.machine_mut(instance);
        machine.signed.clear();
        let number = machine.number;
        let disks = self.disks_in(number);
        for disk in disks {
            self.blocks.lose(disk);
            let drive = self.drive_mut(disk);
            if drive.status != DriveStatus::Inactive {
                drive.status = DriveStatus::Failed;
            }
        }
    }

    fn disks_in(&self, machine: u32) -> Vec<u32> {
        let drives = self.drives.iter();
        drives
            .filter(|(_, drive)| drive.machine == machine)
            .map(|(disk, _)| *disk)
            .collect()
    }

    /// `weka local stop`: the containers are down, the machine is not.
    pub(crate) fn stop_containers(&mut self, instance: &str) {
        let now = self.now;
        for host in self.own_containers(instance) {
            for process in &mut self.container_mut(host).processes {
                process.up = false;
                process.last_fencing_time = Some(now);
            }
        }
        self.elect();
    }

    // ---- Containers, processes and drives

    /// The management process of a container is down since then; its data path goes on.
    pub(crate) fn management_down(&mut self, host: u32, since: SystemTime) {
        let process = &mut self.container_mut(host).processes[0];
        process.up = false;
        process.last_fencing_time = Some(since);
        self.elect();
    }

    /// The management process of a container is up again, since now.
    pub(crate) fn management_up(&mut self, host: u32) {
        let now = self.now;
        let process = &mut self.container_mut(host).processes[0];
        process.up = true;
        process.up_since = Some(now);
        self.elect();
    }

    /// The drive is broken: the cluster phases it out by itself.
    pub(crate) fn drive_failed(&mut self, disk: u32) {
        self.drive_breaks(disk, DriveStatus::Failed);
    }

    /// The drive is out, without anyone having deactivated it, and what was on it is lost.
    pub(crate) fn drive_inactive(&mut self, disk: u32) {
        self.drive_breaks(disk, DriveStatus::Inactive);
    }

    fn drive_breaks(&mut self, disk: u32, status: DriveStatus) {
        self.has_failed(self.drives[&disk].machine);
        self.blocks.lose(disk);
        self.drive_mut(disk).status = status;
    }

    /// The drive is told to phase out, and never ends it.
    pub(crate) fn drive_stuck(&mut self, disk: u32) -> Outcome<()> {
        self.deactivate_drives(&[disk])?;
        self.drive_mut(disk).stuck = true;
        Ok(())
    }

    /// Someone else's machine mounts the file systems. Its host id.
    pub(crate) fn add_client(&mut self, instance: &str, address: &str) -> u32 {
        if !self.machines.contains_key(instance) {
            self.boot(Machine::new(instance, address));
        }
        let host = self
            .setup_container(instance, "client", 14000, Role::Frontend, 1)
            .expect("the client runs");
        let container = self.container_mut(host);
        container.mode = Some("client".to_owned());
        container.host_ip = address.to_owned();
        container.ips = vec![address.to_owned()];
        container.auto_remove_timeout = Some(86_400);
        host
    }

    /// The instance's machine joins an NFS group instead: one frontend container with a port.
    pub(crate) fn add_gateway(&mut self, instance: &str, group: &str) -> Outcome<u32> {
        let host = self.setup_container(instance, "frontend0", 14000, Role::Frontend, 1)?;
        let port = (host, "ens5".to_owned());
        let mut groups = self.interface_groups.iter_mut();
        match groups.find(|candidate| candidate.name == group) {
            Some(group) => group.ports.push(port),
            None => self.interface_groups.push(InterfaceGroup {
                name: group.to_owned(),
                kind: "NFS".to_owned(),
                ips: vec!["10.0.1.90".to_owned()],
                ports: vec![port],
            }),
        }
        Ok(host)
    }

    /// Another container on the instance, made by hand.
    pub(crate) fn add_container(&mut self, instance: &str, name: &str, port: u16) -> Outcome<u32> {
        self.setup_container(instance, name, port, Role::Compute, 1)
    }

    // ---- The cluster

    /// So much of the capacity is in use and provisioned: 0.4 is 40 %.
    pub(crate) fn fill(&mut self, fraction: f64) {
        let net = self.net_bytes(self.layout.hot_spare, |_| true) as f64;
        let blocks = (self.blocks.stripes() * self.layout.data) as f64;
        self.block_bytes = ((net * fraction / blocks) as u64).max(1);
    }

    /// The next member of the leadership leads.
    pub(crate) fn move_leader(&mut self) {
        if !self.leadership.is_empty() {
            self.leadership.rotate_left(1);
        }
    }

    pub(crate) fn set_override(&mut self, key: &str, enabled: bool) {
        let created = self.now;
        self.clear_override(key);
        let number = self.overrides.keys().last().map_or(0, |last| last + 1);
        self.overrides.insert(
            number,
            Override {
                key: key.to_owned(),
                enabled,
                created,
            },
        );
    }

    pub(crate) fn clear_override(&mut self, key: &str) {
        self.overrides.retain(|_, entry| entry.key != key);
    }

    // ---- Truth

    /// Blocks that are on the instance's drives and nowhere else. Draining is not out: until the last one has moved,
    /// there are some.
    pub(crate) fn live_blocks(&self, instance: &str) -> usize {
        let Some(machine) = self.machines.get(instance) else {
            return 0;
        };
        let places = self.places();
        let disks = self.disks_in(machine.number);
        disks.iter().map(|disk| places[*disk as usize].held).sum()
    }

    /// The same of one drive.
    pub(crate) fn live_blocks_on(&self, disk: u32) -> usize {
        let places = self.places();
        places.get(disk as usize).map_or(0, |place| place.held)
    }

    pub(crate) fn health(&self) -> Health {
        self.blocks.health(&self.places(), self.layout.protection)
    }

    /// All blocks of all stripes can be read, and no two of a stripe are on one machine.
    pub(crate) fn is_whole(&self) -> bool {
        self.health().failures[0] == self.blocks.stripes()
    }

    /// The drives that take data, and can be reached, have room for all blocks.
    pub(crate) fn data_fits(&self) -> bool {
        self.room(MOST_TOGETHER, |_| true) >= self.blocks.count()
    }

    /// At no time more than two machines had failed, by what came from outside, and were not yet rebuilt. If data is
    /// lost all the same, it is the tool's doing.
    pub(crate) fn is_tolerable(&self) -> bool {
        self.tolerable
    }

    /// Counts a machine, while its blocks are still on it.
    fn has_failed(&mut self, machine: u32) {
        let held = self.drives.values().any(|drive| drive.machine == machine);
        let active = self.machines.values().any(|candidate| {
            candidate.number == machine && !self.own_containers(&candidate.instance_id).is_empty()
        });
        if held && active && !self.is_emptied(machine) {
            self.failed.insert(machine);
        }
        self.tolerable &= self.failed.len() <= 2;
    }

    /// The machine was drained before it failed.
    fn is_emptied(&self, machine: u32) -> bool {
        let places = self.places();
        let out =
            |disk: &u32| !self.drives[disk].should_be_active && places[*disk as usize].held == 0;
        self.disks_in(machine).iter().all(out)
    }

    /// Failures that are made good count no longer: all stripes are whole, and can stay so.
    pub(crate) fn forget_failures(&mut self) {
        if !self.failed.is_empty()
            && self.room(1, |_| true) >= self.blocks.count()
            && self.is_whole()
        {
            self.failed.clear();
        }
    }

    /// Instances whose backend containers are all active and up.
    pub(crate) fn up_machines(&self) -> Vec<String> {
        let up = |host: &u32| self.containers[host].state == State::Active && self.is_up(*host);
        self.instances_where(|hosts| hosts.iter().all(up))
    }

    /// Instances with a container that is leaving or out.
    pub(crate) fn draining_machines(&self) -> Vec<String> {
        let leaves = |host: &u32| self.containers[host].state != State::Active;
        self.instances_where(|hosts| hosts.iter().any(leaves))
    }

    fn instances_where(&self, is: impl Fn(&[u32]) -> bool) -> Vec<String> {
        let instances = self.machines.keys().cloned();
        instances
            .filter(|instance| {
                let hosts = self.own_containers(instance);
                !hosts.is_empty() && is(&hosts)
            })
            .collect()
    }

    /// Members of the leadership that are leaving.
    pub(crate) fn draining_leaders(&self) -> usize {
        let leaves = |host: &&u32| self.containers[*host].state != State::Active;
        self.leadership.iter().filter(leaves).count()
    }

    /// Whether terminating the instance harms nobody: nothing of it is in the cluster but what is out.
    pub(crate) fn is_out(&self, instance: &str) -> bool {
        let out = |host: &u32| {
            matches!(
                self.containers[host].state,
                State::Inactive | State::Removing(_)
            )
        };
        self.live_blocks(instance) == 0 && self.own_containers(instance).iter().all(out)
    }

    // ---- Handles

    #[track_caller]
    pub(crate) fn machine_mut(&mut self, instance: &str) -> &mut Machine {
        let machine = self.machines.get_mut(instance);
        machine.unwrap_or_else(|| panic!("there is no instance {instance}"))
    }

    #[track_caller]
    pub(crate) fn container_mut(&mut self, host: u32) -> &mut Container {
        let container = self.containers.get_mut(&host);
        container.unwrap_or_else(|| panic!("there is no HostId<{host}>"))
    }

    #[track_caller]
    pub(crate) fn drive_mut(&mut self, disk: u32) -> &mut Drive {
        let drive = self.drives.get_mut(&disk);
        drive.unwrap_or_else(|| panic!("there is no DiskId<{disk}>"))
    }

    #[track_caller]
    pub(crate) fn management_mut(&mut self, host: u32) -> &mut Process {
        &mut self.container_mut(host).processes[0]
    }

    /// The drives of an instance that are in the cluster.
    pub(crate) fn disks_of(&self, instance: &str) -> Vec<u32> {
        let machine = self.machines.get(instance);
        machine.map_or_else(Vec::new, |machine| self.disks_in(machine.number))
    }
}
