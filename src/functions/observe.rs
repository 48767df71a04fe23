//! What a run would see now, for a person who asks what it would do.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use secrecy::ExposeSecret as _;
use tokio::time::Instant;

use super::aws::{AwsCloud, SystemClock};
use super::ports::Cloud as _;
use super::{join, reads};
use crate::aws::Aws;
use crate::cluster::names::Cluster;
use crate::weka::client::{self, CallError, Client, Deadlines, MANAGEMENT_PORT};
use crate::weka::http::{HttpTransport, Trust};
use crate::weka::scaling::{Ec2State, Observation, ReadError};

/// As long as `scale` has, see the timeouts of the functions.
const TIME: Duration = Duration::from_secs(35);

/// No backend can be reached from where this runs, which does not tell what a run would see.
#[derive(Debug, thiserror::Error)]
#[error("Weka's addresses can not be reached from this machine: {0}")]
pub struct OutOfReach(CallError);

fn cloud(aws: Aws, cluster: Cluster) -> AwsCloud {
    AwsCloud {
        group: cluster.backends(),
        table: cluster.base(),
        cluster,
        aws,
    }
}

/// The script that the next new machine would get to join with. It holds no secrets.
///
/// # Errors
/// AWS's failures; nobody to join through.
pub async fn next_join_script(aws: Aws, cluster: Cluster) -> Result<String> {
    let cloud = cloud(aws, cluster);
    join::script_for(&cloud, &cloud.cluster.name, None).await
}

/// Reads the group, and Weka directly: at these addresses, or else at those of the members that run. Nothing is
/// changed, and the lease is not taken.
///
/// # Errors
/// AWS's failures; no credentials are stored; [`OutOfReach`]. What a backend that was reached says instead of an answer
/// is part of the observation, and so is that none runs.
pub async fn observe(
    aws: Aws,
    cluster: Cluster,
    mut addresses: Vec<String>,
) -> Result<Observation> {
    let cloud = cloud(aws, cluster);
    let (group, credentials, lease) =
        tokio::try_join!(cloud.group(), cloud.credentials(), cloud.remembered())?;
    let credentials = credentials.context("no credentials of a Weka user are stored")?;
    if addresses.is_empty() {
        let running = group
            .instances
            .iter()
            .filter(|instance| instance.ec2 == Ec2State::Running);
        addresses.extend(running.filter_map(|instance| instance.private_ip.clone()));
    }
    let is_any_known = !addresses.is_empty();
    let client = Client::new(
        HttpTransport::new(MANAGEMENT_PORT, &Trust::Any)?,
        addresses,
        client::Credentials {
            user: credentials.username.expose_secret().to_owned(),
            password: credentials.password,
        },
        Deadlines::until(Instant::now() + TIME),
        &mut StdRng::from_os_rng(),
    );
    let read = reads::read(&client, &SystemClock).await;
    if let Err(error) = &read
        && is_any_known
        && client.calls() == 0
    {
        bail!(OutOfReach(error.clone()));
    }
    Ok(Observation {
        now: Timestamp::now(),
        pinned_guid: lease.guid,
        previous_desired: lease.previous_desired,
        group,
        nfs: None,
        weka: read.map(|(reads, _)| reads).map_err(|error| ReadError {
            text: error.to_string(),
        }),
    })
}
