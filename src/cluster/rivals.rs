//! Two first imports of one cluster at once. Of what has no unique name each makes one of its own, and what has one
//! they make in turns: each looks, when it has made its own, for what the other has.
//!
//! Whoever looks later has made its own later than the other looked, or sees the other's: one of two always notices.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use futures::future::try_join_all;

use super::names::Cluster;
use crate::aws::Aws;
use crate::resource::{Failures, Resource as _};
use crate::resources::api_key::ApiKey;
use crate::resources::function::Function;
use crate::resources::{kms_key, rest_api, role, table, usage_plan};
use crate::run::Kind;

/// Another import of the cluster has been at work since this one looked.
#[derive(Debug, thiserror::Error)]
#[error(
    "another import of cluster {cluster} is under way or has just ended ({what}): run this again when it has ended"
)]
pub(super) struct Rival {
    cluster: String,
    what: String,
}

/// Whether another import was noticed, whatever else went wrong: that may have come of it.
pub(super) fn is_noticed(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<Failures>() {
        Some(Failures(errors)) => errors.iter().any(anyhow::Error::is::<Rival>),
        None => error.is::<Rival>(),
    }
}

/// Names and ids of what this import has, of the kinds of which AWS takes several.
pub(super) struct Ours {
    pub(super) roles: BTreeSet<String>,
    pub(super) rest_api: String,
    pub(super) api_key: String,
    pub(super) usage_plan: String,
}

/// That there is nothing else of these kinds.
///
/// # Errors
/// [`Rival`]; AWS's failures.
pub(super) async fn check_nothing_twice(aws: &Aws, cluster: &Cluster, ours: &Ours) -> Result<()> {
    let name = cluster.backends();
    let api_keys = async {
        let found = ApiKey::find(aws, cluster, &name).await?;
        anyhow::Ok(found.into_iter().map(|key| key.id).collect::<Vec<_>>())
    };
    let (roles, apis, keys, plans) = tokio::try_join!(
        role::others(aws, cluster, &ours.roles),
        rest_api::ids(aws, cluster, &name),
        api_keys,
        usage_plan::ids(aws, cluster, &name),
    )
    .context("looking for another import")?;
    let others = |kind: Kind, found: Vec<String>, own: &str| {
        let others = found.into_iter().filter(|id| id != own);
        others.map(|id| (kind, id)).collect::<Vec<_>>()
    };
    let other = (roles.into_iter().map(|name| (Kind::Role, name)))
        .chain(others(Kind::RestApi, apis, &ours.rest_api))
        .chain(others(Kind::ApiKey, keys, &ours.api_key))
        .chain(others(Kind::UsagePlan, plans, &ours.usage_plan))
        .next();
    match other {
        Some((kind, name)) => Err(rival(cluster, format!("{kind} {name} is not this one's"))),
        None => Ok(()),
    }
}

/// That alias, table and functions have the key, and the functions all else, that this import has given them.
///
/// # Errors
/// [`Rival`]; AWS's failures.
pub(super) async fn check_as_made(
    aws: &Aws,
    cluster: &Cluster,
    key_arn: &str,
    functions: &[Function],
) -> Result<()> {
    let (alias, table) = (cluster.kms_alias(), cluster.base());
    let keys = async {
        let (of_alias, of_table) =
            tokio::try_join!(kms_key::arn_of(aws, &alias), table::key_arn_of(aws, &table))?;
        let is_other = |key: Option<String>| key.as_deref() != Some(key_arn);
        let other = match (is_other(of_alias), is_other(of_table)) {
            (true, _) => Some(format!("{} {alias} is another one", Kind::KmsKey)),
            (_, true) => Some(format!("{} {table} has another key", Kind::Table)),
            (false, false) => None,
        };
        anyhow::Ok(other)
    };
    let functions = try_join_all(functions.iter().map(async |function| {
        let found = Function::find(aws, cluster, &function.name).await?;
        let is_ours = (found.first()).is_some_and(|found| function.changes(found).is_empty());
        let name = &function.name;
        anyhow::Ok((!is_ours).then(|| format!("{} {name} has been changed", Kind::Function)))
    }));
    let (keys, functions) =
        tokio::try_join!(keys, functions).context("looking for another import")?;
    let other = [keys].into_iter().chain(functions).flatten().next();
    other.map_or(Ok(()), |what| Err(rival(cluster, what)))
}

fn rival(cluster: &Cluster, what: String) -> anyhow::Error {
    let cluster = cluster.name.clone();
    Rival { cluster, what }.into()
}
