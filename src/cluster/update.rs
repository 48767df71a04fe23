//! A managed cluster is brought to what this version wants, from its own settings.

use std::path::PathBuf;

use anyhow::Result;

use super::apply::{Goal, apply};
use super::discovery::{Discovered, discover};
use super::names::Cluster;
use super::request::ImportRequest;
use crate::aws::Aws;

/// `cluster update` and its flags.
#[derive(Debug, Clone)]
pub struct UpdateRequest {
    /// `--name`.
    pub cluster: Cluster,
    /// `--lambda-binary`.
    pub lambda_binary: Option<PathBuf>,
    /// `--rotate-keys`.
    pub rotate_keys: bool,
}

/// Whether anything runs the cluster's automation, by its event rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Automation {
    /// It runs every minute.
    Runs,
    /// An operator has disabled it, and that is the operator's to do.
    Disabled,
    /// There is no rule: an import did not end, or somebody removed it.
    Missing,
}

/// Finds what the cluster is and what it shall be. Nothing is changed.
///
/// # Errors
/// A cluster that is not managed, or half destroyed; all that [`discover`] minds.
pub async fn look(aws: &Aws, request: &UpdateRequest) -> Result<Discovered> {
    let cluster = request.cluster.clone();
    let request = ImportRequest::of_managed(cluster, request.lambda_binary.clone());
    discover(aws, &request).await
}

/// Repairs what has drifted, and brings what an earlier version made to this one. The automation goes on meanwhile;
/// where an import has not come to its end it is not begun. Returns what has become of it.
///
/// # Errors
/// Every failed step; the command can be run again.
pub async fn update(aws: &Aws, request: &UpdateRequest, found: Discovered) -> Result<Automation> {
    let automation = match found.inventory.event_rules.first() {
        None => Automation::Missing,
        Some(rule) if rule.is_enabled() => Automation::Runs,
        Some(_) => Automation::Disabled,
    };
    let goal = Goal {
        credentials: None,
        to_try: None,
        starts_automation: false,
        has_rivals: false,
        rotates_keys: request.rotate_keys,
    };
    apply(aws, found, &goal).await?;
    Ok(automation)
}
