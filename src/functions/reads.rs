//! What one run reads of Weka.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::ports::Clock;
use crate::weka::client::{CallError, Client, Transport};
use crate::weka::scaling::{Reread, is_whole};
use crate::weka::types::{InterfaceGroup, Override, Reads};

/// Why there is no whole picture of Weka. The text holds no secrets.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// A call brought nothing.
    #[error(transparent)]
    Call(#[from] CallError),
    /// An answer is not what it has to be.
    #[error("Weka's answer to {method} can not be read: {why}")]
    Answer {
        /// The method called.
        method: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

/// All of it, and since when it may be out of date: from before the first question. The containers come last, so that
/// what joins meanwhile is among them. Where they are not as many as the cluster counts, both are read once more (S2 of
/// the scaling rules).
///
/// # Errors
/// Every [`Unread`]; the two lists that old versions lack are empty then.
pub async fn read<T: Transport>(
    client: &Client<T>,
    clock: &impl Clock,
) -> Result<(Reads, Timestamp), Unread> {
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
pub(super) async fn read_again<T: Transport>(client: &Client<T>) -> Result<Reread, Unread> {
    // Only the first has to leave the backend that answered last: the other goes where it went.
    let status = parse("status", client.read_elsewhere("status", json!({})).await?)?;
    Ok(Reread {
        status,
        containers: get(client, "hosts_list").await?,
    })
}

async fn get<T: Transport, V: DeserializeOwned>(
    client: &Client<T>,
    method: &'static str,
) -> Result<V, Unread> {
    parse(method, client.read(method, json!({})).await?)
}

async fn get_if_known<T: Transport, V: DeserializeOwned + Default>(
    client: &Client<T>,
    method: &'static str,
) -> Result<V, Unread> {
    match get(client, method).await {
        Err(Unread::Call(CallError::MethodNotFound { .. })) => Ok(V::default()),
        answer => answer,
    }
}

fn parse<V: DeserializeOwned>(method: &'static str, answer: Value) -> Result<V, Unread> {
    serde_json::from_value(answer).map_err(|error| Unread::Answer {
        method,
        why: error.to_string(),
    })
}
