//! What one run reads of Weka.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::ports::Clock;
use crate::weka::client::{CallError, Client, Transport};
use crate::weka::scaling::{Reread, is_whole};
use crate::weka::types::{InterfaceGroup, Override, Reads};

/// All of it, and since when it may be out of date: from before the first question. The containers come last, so that
/// what joins meanwhile is among them. Where they are not as many as the cluster counts, both are read once more (S2 of
/// the scaling rules).
///
/// # Errors
/// Every [`CallError`] of a read; the two lists that old versions lack are empty then.
pub async fn read<T: Transport>(
    client: &Client<T>,
    clock: &impl Clock,
) -> Result<(Reads, Timestamp), CallError> {
    let since = clock.now();
    let mut status = get(client, "status").await?;
    let drives = get(client, "disks_list").await?;
    let processes = get(client, "nodes_list").await?;
    let interface_groups: Vec<InterfaceGroup> =
        get_if_known(client, "interface_group_list").await?;
    let overrides: BTreeMap<String, Override> =
        get_if_known(client, "manual_override_list").await?;
    let mut containers = get(client, "hosts_list").await?;
    if is_whole(&status, &containers).is_err() {
        status = get(client, "status").await?;
        containers = get(client, "hosts_list").await?;
    }
    let reads = Reads {
        status,
        containers,
        drives,
        processes,
        interface_groups,
        overrides,
    };
    Ok((reads, since))
}

/// The second look, at another backend where there is one (S4 and S19 of the scaling rules).
pub(super) async fn read_again<T: Transport>(client: &Client<T>) -> Result<Reread, CallError> {
    // Only the first has to leave the backend that answered last: the other goes where it went.
    let status = client.read_elsewhere("status", json!({})).await?;
    Ok(Reread {
        status,
        containers: get(client, "hosts_list").await?,
    })
}

async fn get<T: Transport, V: DeserializeOwned + Send>(
    client: &Client<T>,
    method: &str,
) -> Result<V, CallError> {
    client.read(method, json!({})).await
}

async fn get_if_known<T: Transport, V: DeserializeOwned + Default + Send>(
    client: &Client<T>,
    method: &str,
) -> Result<V, CallError> {
    match get(client, method).await {
        Err(CallError::MethodNotFound { .. }) => Ok(V::default()),
        answer => answer,
    }
}
