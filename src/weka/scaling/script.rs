//! The calls to Weka, in the order in which they are made.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::decision::{Call, CallKind, Purpose};
use super::machines::Machine;
use crate::weka::ids::{ContainerId, DriveId};
use crate::weka::types::{ContainerStatus, Drive, DriveStatus, InterfaceGroup, State};

/// Interface groups of this type are served by gateways.
const NFS: &str = "NFS";

/// Calls in the making.
#[derive(Default)]
pub(super) struct Script {
    pub(super) calls: Vec<Call>,
}

impl Script {
    fn call(
        &mut self,
        machine: Option<&Machine<'_>>,
        kind: CallKind,
        purpose: Purpose,
        params: Value,
    ) -> usize {
        self.calls.push(Call {
            machine: machine.map(|machine| machine.key.clone()),
            kind,
            purpose,
            method: method(kind).to_owned(),
            params,
        });
        self.calls.len() - 1
    }

    fn event(&mut self, machine: &Machine<'_>, purpose: Purpose, text: &str) {
        let message = format!("wekactl: {text} {}", machine.key);
        self.call(
            Some(machine),
            CallKind::Event,
            purpose,
            json!({"message": message}),
        );
    }

    fn remove_drives(&mut self, machine: Option<&Machine<'_>>, uuids: &[&str]) {
        if !uuids.is_empty() {
            let params = json!({"drive_uuids": uuids});
            self.call(machine, CallKind::RemoveDrives, Purpose::Remove, params);
        }
    }

    /// Drives whose container was removed.
    pub(super) fn remove_orphans(&mut self, drives: &BTreeMap<DriveId, Drive>) {
        let orphans: Vec<&str> = drives
            .values()
            .filter(|drive| {
                drive.container == ContainerId::INVALID && drive.status == DriveStatus::Inactive
            })
            .map(|drive| drive.uuid.as_str())
            .collect();
        self.remove_drives(None, &orphans);
    }

    /// Forgets a machine. The indexes of the calls by which Weka releases it.
    pub(super) fn remove_machine(&mut self, machine: &Machine<'_>) -> Vec<usize> {
        let parts = machine.parts.iter();
        let inactive: Vec<ContainerId> = parts
            .filter(|part| {
                part.container.state == State::Inactive
                    && part.container.status == ContainerStatus::Inactive
            })
            .map(|part| part.id)
            .collect();
        if inactive.is_empty() {
            // Every container is being forgotten already.
            return Vec::new();
        }
        self.event(machine, Purpose::Remove, "removing machine");
        let needs = inactive
            .iter()
            .map(|id| {
                let params = json!({"host_id": id.number(), "no_wait": true});
                self.call(
                    Some(machine),
                    CallKind::RemoveContainer,
                    Purpose::Remove,
                    params,
                )
            })
            .collect();
        let drives: Vec<&str> = machine.drives().map(|drive| drive.uuid.as_str()).collect();
        self.remove_drives(Some(machine), &drives);
        needs
    }

    /// Asks for what is missing for a machine to leave the cluster; whether anything was. The interfaces by which it
    /// serves in these groups go first.
    pub(super) fn deactivate(
        &mut self,
        machine: &Machine<'_>,
        purpose: Purpose,
        interface_groups: &[InterfaceGroup],
    ) -> bool {
        let drives: Vec<&str> = machine
            .drives()
            .filter(|drive| drive.should_be_active)
            .map(|drive| drive.uuid.as_str())
            .collect();
        let parts = machine.parts.iter();
        let containers: Vec<ContainerId> = parts
            .filter(|part| !part.is_leaving())
            .map(|part| part.id)
            .collect();
        if !drives.is_empty() {
            let params = json!({"drive_uuids": drives});
            self.call(Some(machine), CallKind::DeactivateDrives, purpose, params);
        }
        let ports = ports(machine, interface_groups);
        let serves = !ports.is_empty();
        for params in ports {
            self.call(Some(machine), CallKind::DeletePort, purpose, params);
        }
        if !containers.is_empty() {
            self.event(machine, purpose, why(purpose));
            let params = json!({"host_ids": containers, "skip_resource_validation": false});
            self.call(
                Some(machine),
                CallKind::DeactivateContainers,
                purpose,
                params,
            );
        }
        serves || !drives.is_empty() || !containers.is_empty()
    }
}

/// Whether an interface of it is in one of these groups.
pub(super) fn serves(machine: &Machine<'_>, interface_groups: &[InterfaceGroup]) -> bool {
    !ports(machine, interface_groups).is_empty()
}

/// The parameters that take a machine's interfaces out of their groups, in a fixed order.
fn ports(machine: &Machine<'_>, groups: &[InterfaceGroup]) -> Vec<Value> {
    let ids = machine.ids();
    let mut found: Vec<_> = groups
        .iter()
        .filter(|group| group.kind == NFS)
        .flat_map(|group| group.ports.iter().map(move |port| (group, port)))
        .filter(|(_, port)| ids.contains(&port.container))
        .map(|(group, port)| (&group.name, port.container, &port.port))
        .collect();
    found.sort();
    found
        .into_iter()
        .map(|(name, id, port)| json!({"name": name, "host_id": id, "port": port}))
        .collect()
}

fn why(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Remove => "removing machine",
        Purpose::Continue => "going on to deactivate machine",
        Purpose::Health => "deactivating, as it is not well, machine",
        Purpose::Leftover => "deactivating, as it is no member of the group, machine",
        Purpose::Size => "deactivating, as the group shrinks, machine",
    }
}

const fn method(kind: CallKind) -> &'static str {
    match kind {
        CallKind::RemoveDrives => "cluster_remove_drives",
        CallKind::RemoveContainer => "cluster_remove_host",
        CallKind::DeactivateDrives => "cluster_deactivate_drives",
        CallKind::DeletePort => "interface_group_delete_port",
        CallKind::Event => "events_trigger_custom",
        CallKind::DeactivateContainers => "cluster_deactivate_hosts",
    }
}
