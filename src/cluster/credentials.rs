//! The login with which the automation works: tried on the cluster, and replaced.

use anyhow::{Result, bail};
use secrecy::SecretString;

use super::names::Cluster;
use super::settings::{self, Credentials, GivenCredentials, Stored};
use crate::aws::Aws;
use crate::functions::probe::{Answer, Question, ask_scale};
use crate::resource::{Resource as _, owned};
use crate::resources::auto_scaling_group::{self, AutoScalingGroup};
use crate::resources::instances;
use crate::resources::table::Table;
use crate::run::Interrupted;

/// Weka takes no such login. What it said is not repeated: it may have the user's name in it.
#[derive(Debug, thiserror::Error)]
#[error("Weka refuses this user name and password")]
pub struct LoginRefused;

/// A managed cluster whose credentials are to be replaced.
pub struct Managed {
    stored: Stored,
    /// Addresses of its backends.
    addresses: Vec<String>,
}

/// What Weka says to a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// It takes it, and answers this user.
    Works,
    /// It takes it, and refuses this user what every run reads.
    MayNotRead,
    /// It could not be asked, or was not to be.
    Untried,
}

/// Whether the login works, as far as that can be found out: asked of `scale`, which runs where the backends are. Where
/// it can not be asked, can not reach Weka, or is refused an answer, a warning says so, and what to do.
///
/// # Errors
/// [`LoginRefused`]; [`Interrupted`].
pub(super) async fn try_login(
    aws: &Aws,
    cluster: &Cluster,
    credentials: &Credentials,
    addresses: Vec<String>,
) -> Result<Login> {
    let question = Question::login(credentials.clone(), addresses);
    let why = match ask_scale(aws, cluster, &question).await {
        Ok(Answer::Result { .. }) => return Ok(Login::Works),
        Ok(Answer::LoginRefused { .. }) => bail!(LoginRefused),
        Ok(Answer::Refused { why }) => {
            aws.run.warning(format!(
                "Weka takes user name and password, but this user may not read its status: {why}; the automation does \
                 nothing as such a user: give it a Weka administrator with wekactl cluster change-credentials --name {} \
                 --username USER",
                cluster.name
            ));
            return Ok(Login::MayNotRead);
        }
        Ok(Answer::Unreachable { why }) => why,
        Err(error) if error.is::<Interrupted>() => return Err(error),
        Err(error) => format!("{error:#}"),
    };
    aws.run.warning(format!(
        "user name and password have not been tried on the cluster: {why}; each run of the state machine {} says whether \
         they work, and wekactl cluster change-credentials --name {} --username USER tries them again",
        cluster.state_machine(),
        cluster.name
    ));
    Ok(Login::Untried)
}

/// Finds the cluster, and that it is managed. Nothing is changed.
///
/// # Errors
/// A cluster that is not managed; AWS's failures.
pub async fn look(aws: &Aws, cluster: &Cluster) -> Result<Managed> {
    let (base, group) = (cluster.base(), cluster.backends());
    let (tables, stored, groups) = tokio::try_join!(
        Table::find(aws, cluster, &base),
        settings::read(aws, cluster),
        AutoScalingGroup::find(aws, cluster, &group),
    )?;
    for table in &tables {
        owned::<Table>(cluster, &base, table)?;
    }
    if tables.is_empty() || stored.settings.is_none() {
        bail!(
            "no managed cluster named {name} in {}: import it first, with its credentials: wekactl cluster import --name \
             {name} --username USER",
            aws.region(),
            name = cluster.name
        );
    }
    let members: Vec<String> = groups
        .iter()
        .flat_map(auto_scaling_group::Observed::member_ids)
        .collect();
    let machines = instances::describe(aws, &members).await?;
    Ok(Managed {
        stored,
        addresses: machines
            .into_iter()
            .filter_map(|each| each.private_ip)
            .collect(),
    })
}

/// Stores other credentials, once Weka has taken them or can not be asked. The runs forget what they have learned with
/// the old ones: a refused login, and which cluster it was.
///
/// # Errors
/// [`LoginRefused`], and the old ones stay; AWS's failures.
pub async fn replace(
    aws: &Aws,
    cluster: &Cluster,
    found: &Managed,
    username: SecretString,
    password: SecretString,
    verify: bool,
) -> Result<Login> {
    let credentials = Credentials { username, password };
    let login = match verify {
        true => try_login(aws, cluster, &credentials, found.addresses.clone()).await?,
        false => Login::Untried,
    };
    let given = GivenCredentials::of(credentials);
    settings::ensure_credentials(aws, cluster, &found.stored, &given).await?;
    settings::forget_learned(aws, cluster).await?;
    Ok(login)
}
