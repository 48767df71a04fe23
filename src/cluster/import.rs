//! A cluster that is not managed yet, or not wholly, is made one.

use anyhow::Result;

use super::apply::{Goal, apply};
use super::credentials::try_login;
use super::discovery::{Discovered, discover};
use super::names::Cluster;
pub use super::request::{GivenCredentials, ImportRequest};
use super::rivals;
use crate::aws::Aws;

/// Finds all that an import has to know, and every reason not to begin.
///
/// # Errors
/// Everything that [`discover`] minds.
pub async fn look(aws: &Aws, request: &ImportRequest) -> Result<Discovered> {
    discover(aws, request).await
}

/// Makes the cluster as wanted: creates, repairs, or does nothing. Returns the name under which clients reach it,
/// the alias or the load balancer's own; `None` in a dry run that does not know it yet.
///
/// Credentials that differ from those the automation works with are tried first. Where it does not work yet, those given
/// are tried before it begins.
///
/// # Errors
/// Weka refuses the login; every failed step. The command can be run again.
pub async fn import(
    aws: &Aws,
    request: &ImportRequest,
    found: Discovered,
    credentials: &GivenCredentials,
) -> Result<Option<String>> {
    let is_first = found.stored.settings.is_none();
    // In a dry run there may be no password, and nothing is asked of the cluster.
    let mut to_try = credentials
        .both()
        .filter(|_| request.verify && !aws.run.is_plan());
    let is_running = !found.inventory.event_rules.is_empty();
    if let (Some(stored), true) = (&found.stored.credentials, is_running) {
        let addresses = found.addresses();
        if let Some(login) = to_try.take().filter(|_| !credentials.are(stored)) {
            try_login(aws, &request.cluster, &login, addresses).await?;
        }
    }
    let goal = Goal {
        credentials: Some(credentials),
        to_try: to_try.as_ref(),
        starts_automation: true,
        has_rivals: !is_running && !aws.run.is_plan(),
        rotates_keys: false,
    };
    let mut name = apply(aws, found, &goal).await;
    for round in 0.. {
        let failure = name.as_ref().err().filter(|_| goal.has_rivals);
        let again = failure.and_then(rivals::again);
        let Some(again) = again.filter(|again| round < again.rounds()) else {
            break;
        };
        aws.run.notice(format!(
            "cluster {}: {}: looking again",
            request.cluster.name,
            again.why()
        ));
        name = async { apply(aws, discover(aws, request).await?, &goal).await }.await;
    }
    let name = name?;
    if is_first && request.instance_ids.is_none() {
        warn_of_the_stack(aws, &request.cluster);
    }
    Ok(name)
}

/// What stays dangerous, and whose remedy is the stack's owner's.
fn warn_of_the_stack(aws: &Aws, cluster: &Cluster) {
    let deny =
        r#"{"Statement":[{"Effect":"Deny","Action":"Update:*","Principal":"*","Resource":"*"}]}"#;
    aws.run.warning(format!(
        "an update of stack {name} may replace backends, and the stack can not be deleted before \
         `wekactl cluster destroy`; to forbid updates: aws cloudformation set-stack-policy \
         --stack-name {name} --stack-policy-body '{deny}'",
        name = cluster.name
    ));
}
