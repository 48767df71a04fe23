//! Two first imports of one cluster at once. Of what has no unique name each makes one of its own, and what has one
//! they make in turns: each looks, when it has made its own, for what the other has.
//!
//! Whoever looks later has made its own later than the other looked, or sees the other's: one of two always notices.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use futures::future::try_join_all;

use super::discovery::Moving;
use super::names::Cluster;
use crate::aws::{Aws, AwsError};
use crate::resource::{Failures, Resource as _};
use crate::resources::api_key::ApiKey;
use crate::resources::function::Function;
use crate::resources::launch_template::LaunchTemplate;
use crate::resources::{kms_key, rest_api, role, table, usage_plan};
use crate::run::{Interrupted, Kind};

/// Another import of the cluster has been at work since this one looked.
#[derive(Debug, thiserror::Error)]
#[error(
    "another import of cluster {cluster} is under way or has just ended ({what}): run this again when it has ended"
)]
pub(super) struct Rival {
    cluster: String,
    what: String,
}

/// Parts of the codes with which AWS refuses what starts from a state that is no more.
const STALE: &[&str] = &[
    "AlreadyExists",
    "Concurrent",
    "Conflict",
    "Duplicate",
    "InUse",
    "NoSuch",
    "NotFound",
    "OperationAborted",
];

/// Why an import that failed looks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// Another one was noticed, whatever else went wrong: that may have come of it.
    Rival,
    /// All that failed may have come of what another one has changed.
    Changed,
}

impl Again {
    /// So often an import begins anew with what both have made. What can not be another import's doing for ever is not
    /// waited for as long.
    pub(super) fn rounds(self) -> usize {
        match self {
            Self::Rival => 5,
            Self::Changed => 2,
        }
    }

    /// In words.
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Rival => "another import of it is under way",
            Self::Changed => "it has changed meanwhile",
        }
    }
}

/// Whether an import that failed so is to look again.
pub(super) fn again(error: &anyhow::Error) -> Option<Again> {
    let errors = match error.downcast_ref::<Failures>() {
        Some(Failures(errors)) => errors.iter().collect(),
        None => vec![error],
    };
    let is_stale = |error: &&anyhow::Error| {
        let code = AwsError::of(error).and_then(|cause| cause.code.as_deref());
        error.is::<Moving>()
            || code.is_some_and(|code| STALE.iter().any(|part| code.contains(part)))
    };
    if errors.iter().any(|error| error.is::<Interrupted>()) {
        None
    } else if errors.iter().any(|error| error.is::<Rival>()) {
        Some(Again::Rival)
    } else if errors.iter().all(is_stale) {
        Some(Again::Changed)
    } else {
        None
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

/// That alias, table and functions have the key, and the functions all else, that this import has given them, and that the
/// launch template has no later version than its own.
///
/// # Errors
/// [`Rival`]; AWS's failures.
pub(super) async fn check_as_made(
    aws: &Aws,
    cluster: &Cluster,
    key_arn: &str,
    template_version: i64,
    functions: &[Function],
) -> Result<()> {
    let (alias, table) = (cluster.kms_alias(), cluster.base());
    let template = async {
        let name = cluster.launch_template();
        let found = LaunchTemplate::find(aws, cluster, &name).await?;
        let is_ours = (found.first()).is_none_or(|found| found.version <= template_version);
        anyhow::Ok((!is_ours).then(|| format!("{} {name} has been changed", Kind::LaunchTemplate)))
    };
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
    let (keys, template, functions) =
        tokio::try_join!(keys, template, functions).context("looking for another import")?;
    let other = [keys, template]
        .into_iter()
        .chain(functions)
        .flatten()
        .next();
    other.map_or(Ok(()), |what| Err(rival(cluster, what)))
}

fn rival(cluster: &Cluster, what: String) -> anyhow::Error {
    let cluster = cluster.name.clone();
    Rival { cluster, what }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::error::Effect;

    fn refused(code: &str) -> anyhow::Error {
        let cause = AwsError {
            code: Some(code.to_owned()),
            message: "no".to_owned(),
            request_id: None,
            effect: Effect::None,
        };
        anyhow::Error::from(cause).context("making it")
    }

    fn noticed() -> anyhow::Error {
        let (cluster, what) = ("prod".to_owned(), "IAM role a".to_owned());
        Rival { cluster, what }.into()
    }

    #[test]
    fn what_another_import_may_have_caused_is_looked_at_again_and_nothing_else() {
        let several = |errors: Vec<anyhow::Error>| anyhow::Error::from(Failures(errors));
        for error in [
            noticed(),
            several(vec![refused("AccessDenied"), noticed()]),
            refused("ConflictException"),
            several(vec![refused("NoSuchEntity"), refused("AlreadyExists")]),
        ] {
            assert!(again(&error).is_some(), "{error:#}");
        }
        for end in [
            refused("AccessDenied"),
            anyhow::anyhow!("no password"),
            several(vec![refused("ConflictException"), refused("AccessDenied")]),
            several(vec![noticed(), Interrupted.into()]),
        ] {
            assert_eq!(again(&end), None, "{end:#}");
        }
    }
}
