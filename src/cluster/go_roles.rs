//! The roles of the Go tool. IAM is global and they carry no region's tag: whose they are is told by who refers to them.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use futures::future::try_join_all;

use super::names::{Cluster, FunctionKind};
use crate::aws::{Answer, Aws, CHANGES_AT_ONCE, join_some};
use crate::resource::{Resource as _, Settle as _};
use crate::resources::event_rule::{self, EventRule};
use crate::resources::function::Function;
use crate::resources::role;
use crate::resources::state_machine::StateMachine;

/// Lets those of the Go tool's roles count as this region's to which nothing of the cluster's names in another region of
/// the account refers. Where that can not be found out they stay everybody's, with a notice.
///
/// # Errors
/// The regions of the account can not be read.
pub(super) async fn claim(aws: &Aws, cluster: &Cluster, roles: &mut role::Roles) -> Result<()> {
    let mut roles: Vec<&mut role::Observed> = roles
        .by_purpose
        .values_mut()
        .flatten()
        .chain(&mut roles.unknown)
        .filter(|role| role.go)
        .collect();
    if roles.is_empty() {
        return Ok(());
    }
    // Those that are not enabled are not told, and have nothing.
    let regions = aws
        .ec2()
        .describe_regions()
        .send()
        .await
        .answer()
        .context("reading the regions of the account")?;
    let names = regions
        .regions()
        .iter()
        .filter_map(|each| each.region_name());
    let others = names.filter(|name| *name != aws.region());
    let looks = others.map(|name| async move {
        let region = aws.in_region(name).await?;
        referred_in(&region, cluster)
            .await
            .with_context(|| format!("looking in {name} for who uses the cluster's IAM roles"))
    });
    match join_some(CHANGES_AT_ONCE, looks).await.settle() {
        Ok(referred) => {
            let referred: BTreeSet<String> = referred.into_iter().flatten().collect();
            for role in &mut roles {
                role.go = referred.contains(&role.arn);
            }
        }
        Err(error) => aws.run.notice(format!("{error:#}")),
    }
    Ok(())
}

/// ARNs of the roles that functions, state machine and rule of the cluster's names refer to in a region.
async fn referred_in(aws: &Aws, cluster: &Cluster) -> Result<Vec<String>> {
    let functions = FunctionKind::ALL.map(|kind| async move {
        let name = cluster.function(kind);
        Function::find(aws, cluster, &name).await
    });
    let (machine, rule) = (cluster.state_machine(), cluster.event_rule());
    let (functions, machines, rules) = tokio::try_join!(
        try_join_all(functions),
        StateMachine::find(aws, cluster, &machine),
        EventRule::find(aws, cluster, &rule),
    )?;
    let functions = functions.into_iter().flatten();
    let functions = functions.map(|function| function.role_arn);
    let machines = machines.into_iter().map(|machine| machine.role_arn);
    Ok(functions
        .chain(machines)
        .chain(rules.iter().flat_map(event_rule::Observed::role_arns))
        .collect())
}
