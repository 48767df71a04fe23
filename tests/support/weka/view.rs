//! The replies' shapes.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde_json::{Map, Value, json};

use super::model::{
    Container, Drive, DriveStatus, Machine, Process, Role, SLOTS, Shape, State, Weka,
};

const MIB: u64 = 1 << 20;

pub(crate) fn host_id(host: u32) -> String {
    format!("HostId<{host}>")
}

/// Counts of those that are active and of all.
#[derive(Clone, Copy)]
struct Count {
    active: usize,
    total: usize,
}

impl Count {
    fn plus(self, other: Self) -> Self {
        Self {
            active: self.active + other.active,
            total: self.total + other.total,
        }
    }

    fn json(self) -> Value {
        json!({"active": self.active, "total": self.total})
    }
}

impl Weka {
    /// A time by the cluster's clock.
    pub(crate) fn time(&self, at: SystemTime) -> String {
        let skew = Duration::from_secs(self.skew.unsigned_abs());
        let at = if self.skew < 0 { at - skew } else { at + skew };
        DateTime::from(at)
            .fmt(Format::DateTime)
            .expect("the time can be written")
    }

    fn time_or_null(&self, at: Option<SystemTime>) -> Value {
        at.map_or(Value::Null, |at| self.time(at).into())
    }

    /// `status`.
    pub(crate) fn status_json(&self) -> Value {
        let rebuild = self.rebuild_json();
        let net = self.net_bytes(self.layout.hot_spare, |_| true);
        let raw_net = self.net_bytes(0, |_| true);
        let mut status = json!({
            "io_status": self.io_status, "io_status_changed_time": self.time(self.formed()),
            "status": self.status_word(), "name": self.name, "guid": self.guid, "is_cluster": true,
            "release": self.release, "release_hash": "0ab1c2d3", "init_stage": "INITIALIZED",
            "hot_spare": self.layout.hot_spare, "stripe_data_drives": self.layout.data,
            "stripe_protection_drives": self.layout.protection, "active_alerts_count": 2, "time": {},
            "drives": self.count_drives().json(),
            "buckets": {"active": 105, "total": 105, "shutting_down": 0},
            "capacity": {
                "total_bytes": net, "hot_spare_bytes": raw_net - net,
                "unprovisioned_bytes": net.saturating_sub(self.provisioned_bytes()),
            },
            "rebuild": rebuild,
            "activity": {
                "num_ops": 0, "num_reads": 0, "num_writes": 0, "sum_bytes_read": 0, "sum_bytes_written": 0,
                "obs_download_bytes_per_second": 0, "obs_upload_bytes_per_second": 0,
            },
            "cloud": {"enabled": true, "healthy": true, "proxy": "", "url": "https://api.home.weka.io"},
            "licensing": {
                "io_start_eligibility": true, "mode": "Classic",
                "usage": {"drive_capacity_gb": 30000, "usable_capacity_gb": 9000, "obs_capacity_gb": 0},
            },
        });
        if self.tells_time {
            status["time"]["cluster_time"] = self.time(self.now).into();
        }
        let phase = self.upgrade.clone().unwrap_or_default();
        let (backends, clients) = (self.count_containers(true), self.count_containers(false));
        let all = backends.plus(clients);
        let processes: usize = self
            .containers
            .values()
            .map(|container| container.processes.len())
            .sum();
        match self.shape {
            Shape::Old => {
                status["upgrade"] = phase.into();
                status["hosts"] = json!({
                    "active_count": all.active, "total_count": all.total,
                    "backends": backends.json(), "clients": clients.json(),
                });
                let io_nodes = processes - self.containers.len();
                status["io_nodes"] = json!({"active": io_nodes, "total": io_nodes});
                status["nodes"] = json!({"black_listed": 0, "total": processes});
            }
            // Without what 4.2 has under another name, though a real one may have both.
            Shape::New => {
                status["upgrade_info"] = json!({
                    "upgrade_phase": phase, "upgrade_type": "agent-driven", "upgrade_paused": false,
                });
                status["containers"] = json!({
                    "active": all.active, "total": all.total,
                    "backends": backends.json(), "clients": clients.json(),
                    "computes": self.count_role(Role::Compute).json(),
                    "drives": self.count_role(Role::Drives).json(),
                });
                let servers = self.count_servers();
                status["servers"] = json!({
                    "active": servers.active, "degraded": 0, "total": servers.total,
                    "backends": servers.json(), "clients": clients.json(),
                });
                status["processes"] = json!({"active": processes, "total": processes});
                status["capacity"]["unavailable_bytes"] = 0.into();
                status["rebuild"]["movingData"] = false.into();
                status["rebuild"]["numProtectionDisks"] = self.layout.protection.into();
                status["response_from_host_id"] = self
                    .leadership
                    .first()
                    .map_or(Value::Null, |host| host_id(*host).into());
            }
        }
        status
    }

    fn formed(&self) -> SystemTime {
        let times = self.containers.values();
        times
            .map(|container| container.added_time)
            .min()
            .unwrap_or(self.now)
    }

    fn status_word(&self) -> &'static str {
        let health = self.health();
        if self.io_status != "STARTED" {
            "UNINITIALIZED"
        } else if health.unreadable > 0 {
            "DEGRADED"
        } else if health.failures[self.layout.protection] > 0 {
            "UNPROTECTED"
        } else if health.failures[0] < self.blocks.stripes() {
            "REBUILDING"
        } else if self
            .drives
            .values()
            .any(|drive| drive.status == DriveStatus::PhasingOut)
        {
            "REDISTRIBUTING"
        } else {
            "OK"
        }
    }

    fn count_containers(&self, backends: bool) -> Count {
        self.count(|container| container.is_backend() == backends)
    }

    fn count_role(&self, role: Role) -> Count {
        self.count(|container| container.is_backend() && container.role == role)
    }

    fn count(&self, counts: impl Fn(&Container) -> bool) -> Count {
        let all = self.containers.iter();
        let counted: Vec<u32> = all
            .filter(|(_, container)| counts(container))
            .map(|(host, _)| *host)
            .collect();
        let active =
            |host: &&u32| self.is_up(**host) && self.containers[*host].state == State::Active;
        Count {
            active: counted.iter().filter(active).count(),
            total: counted.len(),
        }
    }

    fn count_servers(&self) -> Count {
        let backends = self.containers.values();
        let servers: BTreeSet<&str> = backends
            .filter(|container| container.is_backend())
            .map(|container| container.instance_id.as_str())
            .collect();
        Count {
            active: self.up_machines().len(),
            total: servers.len(),
        }
    }

    fn count_drives(&self) -> Count {
        let drives = self.drives.values();
        Count {
            active: drives
                .filter(|drive| drive.status == DriveStatus::Active)
                .count(),
            total: self.drives.len(),
        }
    }

    /// `system_get_rebuild_status`.
    pub(crate) fn rebuild_json(&self) -> Value {
        let health = self.health();
        let stripes = self.blocks.stripes();
        // Down, so that nothing but all is 100.
        let percent = |part: usize| part * 100 / stripes.max(1);
        let stripe_bytes = self.block_bytes * self.layout.width() as u64;
        let mib = |part: usize| part as u64 * stripe_bytes / MIB;
        let protection: Vec<Value> = (0..).zip(&health.failures).map(|(failures, part): (usize, &usize)| {
            json!({"numFailures": failures, "percent": percent(*part), "MiB": mib(*part)})
        }).collect();
        let missing = self.blocks.count() - health.readable;
        let copies = missing as u64 * self.block_bytes / MIB;
        let domains = self.active_domains();
        json!({
            "isInited": true, "enoughActiveFDs": domains >= self.layout.required(), "numActiveFDs": domains,
            "requiredFDsForRebuild": self.layout.required(), "stripeDisks": self.layout.width(),
            "progressPercent": 0, "protectionState": protection,
            "totalCopiesMiB": copies, "totalCopiesDoneMiB": 0,
            "unavailableMiB": mib(health.unreadable),
            // Up, so that nothing but none is 0.
            "unavailablePercent": (health.unreadable * 100).div_ceil(stripes.max(1)),
        })
    }

    /// `hosts_list`.
    pub(crate) fn hosts_json(&self) -> Value {
        let all = self.containers.iter();
        all.map(|(host, container)| (host_id(*host), self.host_json(*host, container)))
            .collect::<Map<String, Value>>()
            .into()
    }

    fn host_json(&self, host: u32, container: &Container) -> Value {
        let cores = container.processes.len() - 1;
        let cores_of = |role| if container.role == role { cores } else { 0 };
        let mut json = json!({
            "uid": container.uid, "container_name": container.name,
            "machine_identifier": container.machine_identifier, "hostname": hostname(&container.host_ip),
            "host_ip": container.host_ip, "ips": container.ips,
            "state": state_word(container), "status": self.container_status(host),
            "added_time": self.time(container.added_time),
            "state_changed_time": self.time_or_null(container.state_changed_time),
            "start_time": self.time(container.start_time), "failure_domain": container.failure_domain,
            "failure_domain_id": format!("FailureDomainId<{}>", self.machine_number(container)),
            "failure_domain_type": "USER", "sw_version": self.release, "mgmt_port": container.port,
            "cores": cores, "cores_ids": (1..=cores).collect::<Vec<_>>(),
            "drives_dedicated_cores": cores_of(Role::Drives),
            "frontend_dedicated_cores": cores_of(Role::Frontend), "io_nodes": cores,
            "memory": 1_491_075_072, "bandwidth": 6497, "leadership_role": self.leadership_role(host),
            "member_of_leadership": self.leadership.contains(&host), "last_failure": "",
            "last_failure_code": null, "last_failure_time": null, "is_dedicated": true,
            "auto_remove_timeout": container.auto_remove_timeout,
        });
        if let Some(mode) = &container.mode {
            json["mode"] = mode.as_str().into();
        }
        let machine = self.machines.get(&container.instance_id);
        if let Some(machine) = machine.filter(|_| self.behaviour.knows_instances) {
            json["aws"] = json!({
                "instance_id": machine.instance_id, "instance_type": machine.instance_type,
                "availability_zone": machine.zone,
            });
        }
        json
    }

    fn machine_number(&self, container: &Container) -> u32 {
        let machine: Option<&Machine> = self.machines.get(&container.instance_id);
        machine.map_or(0, |machine| machine.number)
    }

    fn leadership_role(&self, host: u32) -> Value {
        match self.leadership.iter().position(|member| *member == host) {
            Some(0) => "LEADER".into(),
            Some(_) => "MEMBER".into(),
            None => Value::Null,
        }
    }

    fn container_status(&self, host: u32) -> String {
        let container = &self.containers[&host];
        if let Some(odd) = &container.odd_status {
            return odd.clone();
        }
        let degraded = container.processes.iter().any(|process| !process.up);
        let word = match container.state {
            State::Inactive | State::Removing(_) => "INACTIVE",
            _ if !self.is_up(host) => "DOWN",
            State::Deactivating if self.is_drained(host) => "DRAINED",
            State::Deactivating => "DRAINING",
            State::Active if degraded => "DEGRADED",
            State::Active => "UP",
        };
        word.to_owned()
    }

    /// `disks_list`.
    pub(crate) fn drives_json(&self) -> Value {
        let all = self.drives.iter();
        all.map(|(disk, drive)| (format!("DiskId<{disk}>"), self.drive_json(drive)))
            .collect::<Map<String, Value>>()
            .into()
    }

    fn drive_json(&self, drive: &Drive) -> Value {
        let owner = drive.host.and_then(|host| self.containers.get(&host));
        let host = drive.host.map_or("HostId<INVALID>".to_owned(), host_id);
        let node = drive.host.map_or("NodeId<INVALID>".to_owned(), |host| {
            format!("NodeId<{}>", host * SLOTS + 1)
        });
        json!({
            "uuid": drive.uuid, "host_id": host, "node_id": node,
            "hostname": owner.map(|container| hostname(&container.host_ip)),
            "status": drive_word(drive.status), "should_be_active": drive.should_be_active, "attachment": "OK",
            "size_bytes": drive.size_bytes, "block_size": 512, "vendor": "AMAZON",
            "model": "Amazon EC2 NVMe Instance Storage", "serial_number": format!("AWS{}", &drive.uuid[24..]),
            "firmware": "0", "device_path": drive.device_path,
            "failure_domain": format!("FailureDomainId<{}>", drive.machine),
            "failure_domain_name": owner.map(|container| container.failure_domain.as_str()),
            "percentage_used": 0, "spares_remaining": 100, "spares_threshold": 0,
            "added_time": self.time(drive.added_time), "removed_time": null,
        })
    }

    /// `nodes_list`.
    pub(crate) fn processes_json(&self) -> Value {
        let mut nodes = Map::new();
        for (host, container) in &self.containers {
            for (slot, process) in (0_u32..).zip(&container.processes) {
                nodes.insert(
                    format!("NodeId<{}>", host * SLOTS + slot),
                    self.process_json(*host, container, slot, process),
                );
            }
        }
        nodes.into()
    }

    fn process_json(
        &self,
        host: u32,
        container: &Container,
        slot: u32,
        process: &Process,
    ) -> Value {
        let role = match (slot, container.role) {
            (0, _) => "MANAGEMENT",
            (_, Role::Drives) => "DRIVES",
            (_, Role::Compute) => "COMPUTE",
            (_, Role::Frontend) => "FRONTEND",
        };
        let up = process.up && self.machine_runs(container);
        let fenced = process.last_fencing_time;
        json!({
            "host_id": host_id(host), "status": if up { "UP" } else { "DOWN" }, "mode": container.mode,
            "roles": [role], "slot": slot, "hostname": hostname(&container.host_ip), "ips": [container.host_ip],
            "mgmt_port": container.port, "network_mode": "UDP", "up_since": self.time_or_null(process.up_since),
            "last_fencing_time": self.time_or_null(fenced),
            "last_fencing_reason": fenced.map(|_| "Node was unreachable"), "is_blacklisted": false,
            "uid": container.uid, "leadership_role": self.leadership_role(host),
        })
    }

    /// `interface_group_list`.
    pub(crate) fn interface_groups_json(&self) -> Value {
        let groups = self.interface_groups.iter().map(|group| {
            let ports = group.ports.iter().map(|(host, port)| {
                let uid = self.containers.get(host).map(|owner| owner.uid.as_str());
                json!({"host_uid": uid, "host_id": host_id(*host), "port": port, "status": "OK"})
            });
            json!({
                "name": group.name, "uid": group.name, "type": group.kind, "status": "OK", "gateway": "10.0.1.1",
                "subnet_mask": "255.255.255.0", "ips": group.ips, "allow_manage_gids": true,
                "ports": ports.collect::<Vec<_>>(),
            })
        });
        groups.collect::<Vec<_>>().into()
    }

    /// `manual_override_list`.
    pub(crate) fn overrides_json(&self) -> Value {
        let all = self.overrides.iter().map(|(number, entry)| {
            let id = format!("ManualOverrideId<{number}>");
            let created = self.time(entry.created);
            let json = json!({
                "override_id": id, "key": entry.key, "value": true, "enabled": entry.enabled, "forced": false,
                "bucket_id": "BucketId<INVALID>", "bucket_string": "", "negate_bucket": false,
                "comment": "maintenance", "time_created": created, "time_enabled": created,
            });
            (id, json)
        });
        all.collect::<Map<String, Value>>().into()
    }
}

fn hostname(address: &str) -> String {
    format!("ip-{}", address.replace('.', "-"))
}

fn state_word(container: &Container) -> &str {
    match (&container.odd_state, container.state) {
        (Some(odd), _) => odd,
        (None, State::Active) => "ACTIVE",
        (None, State::Deactivating) => "DEACTIVATING",
        (None, State::Inactive) => "INACTIVE",
        (None, State::Removing(_)) => "REMOVING",
    }
}

fn drive_word(status: DriveStatus) -> &'static str {
    match status {
        DriveStatus::PhasingIn => "PHASING_IN",
        DriveStatus::Active => "ACTIVE",
        DriveStatus::PhasingOut => "PHASING_OUT",
        DriveStatus::Inactive => "INACTIVE",
        DriveStatus::Failed => "FAILED",
    }
}
