//! What there is, for whoever asks: nothing here changes anything.

use anyhow::{Context, Result, bail};

use super::names::Cluster;
use crate::aws::Aws;
use crate::resource::owned;
use crate::resources::auto_scaling_group::{self, AutoScalingGroup};

/// The group of a managed cluster.
///
/// # Errors
/// There is none, or it is not this cluster's; AWS's failures.
pub async fn group(aws: &Aws, cluster: &Cluster) -> Result<auto_scaling_group::Observed> {
    let name = cluster.backends();
    let found = auto_scaling_group::describe(aws, &name)
        .await
        .with_context(|| format!("reading Auto Scaling group {name}"))?;
    let Some(found) = found else {
        bail!(
            "no cluster named {} in {}: there is no Auto Scaling group {name}",
            cluster.name,
            aws.region()
        );
    };
    owned::<AutoScalingGroup>(cluster, &name, &found)?;
    Ok(found)
}
