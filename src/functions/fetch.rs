//! `fetch`: takes the lease, and reads what the group wants and has. The first state of a run.

use super::lease::{Hold, Lease};
use super::payload::{Fetched, RunInfo, Secrets, Start, transient};
use super::ports::{Clock, Cloud};
use super::seal::Direction;
use super::{Invocation, lease};
use crate::cluster::settings::Credentials;
use crate::weka::scaling::{Ec2State, Group};

/// Takes the lease and reads the group and the credentials. Without the lease it reads nothing.
///
/// # Errors
/// AWS's failures: nothing has begun, and the lease is free again for the next run.
pub async fn fetch<C: Cloud, K: Clock>(
    invocation: &Invocation<'_, C, K>,
    start: &Start,
) -> anyhow::Result<Fetched> {
    let cloud = invocation.cloud;
    let now = invocation.clock.now();
    let hold = Hold::from(&start.execution, now);
    let run = RunInfo {
        cluster: invocation.setup.cluster.clone(),
        execution: hold.execution.clone(),
        lease_expires: hold.expires,
        ..RunInfo::default()
    };
    let Some(lease) = cloud.take_lease(&hold, now).await? else {
        tracing::info!("another run has the lease");
        return Ok(Fetched::new(RunInfo {
            lease_lost: true,
            ..run
        }));
    };
    let fetched = async {
        let (group, credentials) = tokio::try_join!(cloud.group(), cloud.credentials())?;
        fetched(invocation, run, lease, group, credentials)
    }
    .await;
    if fetched.is_err()
        && let Err(error) = cloud.release_lease(&hold).await
    {
        tracing::warn!(%error, "the lease is not released, and expires by itself");
    }
    fetched
}

fn fetched<C: Cloud, K: Clock>(
    invocation: &Invocation<'_, C, K>,
    run: RunInfo,
    lease: Lease,
    group: Group,
    credentials: Option<Credentials>,
) -> anyhow::Result<Fetched> {
    let setup = invocation.setup;
    let mut fetched = Fetched::new(RunInfo {
        desired_capacity: group.desired,
        ..run
    });
    match usable(credentials, &lease, invocation.clock.now()) {
        Ok(_) if setup.use_dynamodb_endpoint => {}
        Ok(credentials) => {
            let secrets = Secrets::of(&credentials);
            let execution = &fetched.run.execution;
            let sealed = invocation.seal(Direction::FetchToScale, execution, &secrets)?;
            fetched.sealed = Some(sealed);
        }
        Err(why) => {
            fetched.run.transient_errors = transient([why.clone()]);
            fetched.run.gate = Some(why);
        }
    }
    fetched.guid = lease.guid;
    fetched.previous_desired = lease.previous_desired;
    fetched.suspended = group.suspended;
    fetched.backend_ips = group
        .instances
        .iter()
        .filter(|instance| instance.ec2 == Ec2State::Running)
        .filter_map(|instance| instance.private_ip.clone())
        .collect();
    fetched.instances = group.instances;
    tracing::info!(
        desired = fetched.run.desired_capacity,
        members = fetched.instances.len(),
        running = fetched.backend_ips.len(),
        gate = fetched.run.gate,
        "fetched"
    );
    Ok(fetched)
}

/// The credentials, if there are any that may be tried; else why not.
fn usable(
    credentials: Option<Credentials>,
    lease: &Lease,
    now: jiff::Timestamp,
) -> Result<Credentials, String> {
    let credentials = credentials
        .filter(lease::are_complete)
        .ok_or("no credentials of a Weka user are stored: run `wekactl cluster import` again")?;
    match &lease.refused_login {
        Some(refused) if refused.speaks_against(&credentials, now) => Err(format!(
            "Weka refused the stored credentials at {}: they are tried again a quarter of an hour later, or once \
             they are changed (S17)",
            refused.time
        )),
        _ => Ok(credentials),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fakes::{EXECUTION, PASSWORD, World, start};
    use super::super::lease::{RefusedLogin, fingerprint};
    use super::*;
    use crate::weka::scaling::Instance;

    #[tokio::test]
    async fn hands_over_the_group_and_no_secret() {
        let world = World::of(6);
        {
            let mut group = world.cloud.group.lock().unwrap();
            group.instances[1].ec2 = Ec2State::Stopped;
            group.instances[2].private_ip = None;
        }
        let fetched = world.fetch().await.unwrap();
        let group: Vec<Instance> = world.cloud.group.lock().unwrap().instances.clone();
        assert_eq!(fetched.instances, group);
        assert_eq!(fetched.run.desired_capacity, 6);
        assert_eq!(fetched.backend_ips.len(), 4);
        assert_eq!(fetched.run.transient_errors, None);
        assert_eq!(fetched.run.gate, None);
        let text = serde_json::to_string(&fetched).unwrap();
        for secret in [PASSWORD, "admin", "password"] {
            assert!(!text.contains(secret), "{secret}");
        }
    }

    #[tokio::test]
    async fn with_another_run_under_way_it_reads_nothing() {
        let mut world = World::of(6);
        world.cloud.refused.insert("group".into());
        let other = Hold::from("arn:other", start());
        let held = Some((other, Lease::default()));
        *world.cloud.lease.lock().unwrap() = held.clone();
        let fetched = world.fetch().await.unwrap();
        assert!(fetched.run.lease_lost);
        assert_eq!(fetched.run.transient_errors, None);
        assert_eq!(*world.cloud.lease.lock().unwrap(), held);

        world.clock.advance(75);
        world.cloud.refused.clear();
        let fetched = world.fetch().await.unwrap();
        assert!(!fetched.run.lease_lost);
        assert_eq!(fetched.run.execution, EXECUTION);
    }

    #[tokio::test]
    async fn a_run_that_does_not_begin_leaves_the_lease_to_the_next() {
        let mut world = World::of(6);
        world.cloud.refused.insert("group".into());
        let error = world.fetch().await.unwrap_err();
        assert_eq!(error.to_string(), "reading the group: AWS will not");
        let lease = world.cloud.lease.lock().unwrap().clone().unwrap();
        assert_eq!(lease.0.expires, jiff::Timestamp::UNIX_EPOCH);
    }

    #[tokio::test]
    async fn credentials_that_were_refused_are_not_handed_over() {
        let world = World::of(6);
        let credentials = world.cloud.credentials.clone().unwrap();
        let refused = RefusedLogin {
            time: start(),
            fingerprint: fingerprint(&credentials),
        };
        let lease = Lease {
            refused_login: Some(refused),
            ..Lease::default()
        };
        let released = Hold {
            execution: "arn:other".into(),
            expires: jiff::Timestamp::UNIX_EPOCH,
        };
        *world.cloud.lease.lock().unwrap() = Some((released, lease));
        let fetched = world.fetch().await.unwrap();
        assert_eq!(fetched.sealed, None);
        let errors = fetched.run.transient_errors.unwrap();
        assert!(errors[0].contains("S17"), "{errors:?}");
        assert_eq!(fetched.run.gate.as_ref(), Some(&errors[0]));

        world.clock.advance(15 * 60);
        let fetched = world.fetch().await.unwrap();
        assert!(fetched.sealed.is_some() && fetched.run.gate.is_none());
    }

    #[tokio::test]
    async fn without_credentials_the_gate_is_closed() {
        for credentials in [None, Some(("admin", "")), Some(("", "secret"))] {
            let mut world = World::of(6);
            world.cloud.credentials = credentials.map(|(username, password)| Credentials {
                username: username.into(),
                password: password.into(),
            });
            let fetched = world.fetch().await.unwrap();
            assert_eq!(fetched.sealed, None);
            assert!(fetched.run.gate.is_some() && fetched.run.transient_errors.is_some());
        }
    }

    #[tokio::test]
    async fn where_scale_reads_the_credentials_they_do_not_travel() {
        let mut world = World::of(6);
        world.setup.use_dynamodb_endpoint = true;
        let fetched = world.fetch().await.unwrap();
        assert_eq!((fetched.sealed, fetched.run.gate), (None, None));
    }
}
