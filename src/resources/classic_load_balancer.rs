//! The stack's classic load balancer. It is the stack's and not ours: import changes its health check, tells
//! in a tag what it was, and destroy puts it back. The group's resource attaches it to the group.

use anyhow::{Context, Result};
use aws_sdk_elasticloadbalancing::types::{HealthCheck as Check, Instance, Tag, TagKeyOnly};
use serde::{Deserialize, Serialize};

use crate::aws::{Answer, Aws};
use crate::cluster::names::BEFORE_TAG;
use crate::resource::{Diff, Tags};
use crate::run::Change;

const GONE: &[&str] = &["LoadBalancerNotFound"];
/// It takes ten tags.
const FULL: &[&str] = &["TooManyTags"];
/// AWS's limit for the value of a tag.
const MAX_TAG_VALUE: usize = 256;

/// How it asks its members how they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// Such as `HTTP:80/index.html` or `TCP:22`.
    pub target: String,
    /// Seconds between two checks.
    pub interval: i32,
    /// Seconds until no answer is a failure.
    pub timeout: i32,
    /// Failures until a member is out.
    pub unhealthy: i32,
    /// Successes until it is in.
    pub healthy: i32,
}

/// What import found, for destroy. The settings item keeps all of it, the tag the health check: for
/// the members a tag is too short, and the instances that are kept are members before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// The health check.
    pub health_check: HealthCheck,
    /// Ids of the instances registered.
    pub members: Vec<String>,
}

/// A classic load balancer in AWS.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Its name.
    pub name: String,
    /// The health check as it is now.
    pub health_check: HealthCheck,
    /// Ids of the instances registered now.
    pub members: Vec<String>,
    /// Its tags.
    pub tags: Tags,
}

impl HealthCheck {
    /// What a managed cluster's has: Weka's web interface.
    pub fn wanted() -> Self {
        Self {
            target: "HTTP:14000/ui".to_owned(),
            interval: 30,
            timeout: 5,
            unhealthy: 5,
            healthy: 3,
        }
    }

    /// In the characters that a tag may have; `None` where it is too long.
    pub fn to_tag(&self) -> Option<String> {
        let Self {
            target,
            interval,
            timeout,
            unhealthy,
            healthy,
        } = self;
        let value = format!(
            "interval={interval} timeout={timeout} unhealthy={unhealthy} healthy={healthy} target={}",
            quote(target)
        );
        (value.len() <= MAX_TAG_VALUE).then_some(value)
    }

    fn from_tag(value: &str) -> Option<Self> {
        let field = |name: &str| {
            value
                .split(' ')
                .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
        };
        let number = |name| field(name)?.parse().ok();
        Some(Self {
            target: unquote(field("target")?)?,
            interval: number("interval")?,
            timeout: number("timeout")?,
            unhealthy: number("unhealthy")?,
            healthy: number("healthy")?,
        })
    }
}

impl Observed {
    /// What there is now, before import changes it.
    pub fn now(&self) -> Before {
        Before {
            health_check: self.health_check.clone(),
            members: self.members.clone(),
        }
    }

    /// The health check that the tag tells of; `None` without a tag that can be read.
    pub fn remembered(&self) -> Option<HealthCheck> {
        HealthCheck::from_tag(self.tags.get(BEFORE_TAG)?)
    }

    /// What differs from what a managed cluster's has. Pure; empty: as wanted.
    pub fn changes(&self) -> Vec<Change> {
        self.changes_to(&HealthCheck::wanted())
    }

    /// What differs from a health check.
    pub fn changes_to(&self, wanted: &HealthCheck) -> Vec<Change> {
        let found = &self.health_check;
        Diff::new()
            .field("healthCheck.target", &found.target, &wanted.target)
            .field("healthCheck.interval", &found.interval, &wanted.interval)
            .field("healthCheck.timeout", &found.timeout, &wanted.timeout)
            .field(
                "healthCheck.unhealthyThreshold",
                &found.unhealthy,
                &wanted.unhealthy,
            )
            .field(
                "healthCheck.healthyThreshold",
                &found.healthy,
                &wanted.healthy,
            )
            .done()
    }
}

/// The load balancer of that name; `None`: there is none.
///
/// # Errors
/// AWS's failures.
pub async fn describe(aws: &Aws, name: &str) -> Result<Option<Observed>> {
    let (balancers, tags) = tokio::join!(
        aws.elb()
            .describe_load_balancers()
            .load_balancer_names(name)
            .send(),
        aws.elb().describe_tags().load_balancer_names(name).send(),
    );
    let Some(balancer) = balancers
        .if_found(GONE)?
        .and_then(|answer| answer.load_balancer_descriptions)
        .and_then(|balancers| balancers.into_iter().next())
    else {
        return Ok(None);
    };
    let tags = tags
        .if_found(GONE)?
        .and_then(|answer| answer.tag_descriptions)
        .unwrap_or_default()
        .into_iter()
        .flat_map(|description| description.tags.unwrap_or_default())
        .map(|tag| (tag.key, tag.value.unwrap_or_default()))
        .collect();
    let check = balancer
        .health_check()
        .context("AWS tells no health check of the classic load balancer")?;
    let mut members: Vec<String> = balancer
        .instances()
        .iter()
        .filter_map(|instance| instance.instance_id().map(ToOwned::to_owned))
        .collect();
    members.sort();
    Ok(Some(Observed {
        name: name.to_owned(),
        health_check: HealthCheck {
            target: check.target().to_owned(),
            interval: check.interval(),
            timeout: check.timeout(),
            unhealthy: check.unhealthy_threshold(),
            healthy: check.healthy_threshold(),
        },
        members,
        tags,
    }))
}

/// Writes the health check as it was into a tag. Before [`configure`], and only where there is no such tag yet.
/// One that fits into no tag, or whose tag the load balancer has no room for, is in the settings item alone.
///
/// # Errors
/// AWS's failures.
pub async fn remember(aws: &Aws, name: &str, before: &Before) -> Result<()> {
    let Some(value) = before.health_check.to_tag() else {
        return Ok(());
    };
    let tag = Tag::builder().key(BEFORE_TAG).value(value).build()?;
    let tagged = aws
        .elb()
        .add_tags()
        .load_balancer_names(name)
        .tags(tag)
        .send()
        .await
        .if_found(FULL)?;
    if tagged.is_none() {
        aws.run.notice(format!(
            "classic load balancer {name} has as many tags as it can: only the settings tell what its health check was"
        ));
    }
    Ok(())
}

/// Gives it the health check of a managed cluster.
///
/// # Errors
/// AWS's failures.
pub async fn configure(aws: &Aws, name: &str) -> Result<()> {
    check(aws, name, &HealthCheck::wanted()).await?;
    Ok(())
}

/// Puts back the health check, and those of the members of then that are in `kept`: one id that EC2 does not
/// know fails the whole call. A load balancer that is gone is a success.
///
/// # Errors
/// AWS's failures.
pub async fn restore(aws: &Aws, name: &str, before: &Before, kept: &[String]) -> Result<()> {
    if check(aws, name, &before.health_check).await?.is_none() {
        return Ok(());
    }
    let members: Vec<Instance> = before
        .members
        .iter()
        .filter(|id| kept.contains(id))
        .map(|id| Instance::builder().instance_id(id).build())
        .collect();
    if !members.is_empty() {
        aws.elb()
            .register_instances_with_load_balancer()
            .load_balancer_name(name)
            .set_instances(Some(members))
            .send()
            .await
            .if_found(GONE)
            .context("registering the members it had")?;
    }
    Ok(())
}

/// Removes the tag. After [`restore`].
///
/// # Errors
/// AWS's failures.
pub async fn forget(aws: &Aws, name: &str) -> Result<()> {
    aws.elb()
        .remove_tags()
        .load_balancer_names(name)
        .tags(TagKeyOnly::builder().key(BEFORE_TAG).build())
        .send()
        .await
        .if_found(GONE)?;
    Ok(())
}

async fn check(aws: &Aws, name: &str, check: &HealthCheck) -> Result<Option<()>> {
    let check = Check::builder()
        .target(&check.target)
        .interval(check.interval)
        .timeout(check.timeout)
        .unhealthy_threshold(check.unhealthy)
        .healthy_threshold(check.healthy)
        .build()?;
    let configured = aws
        .elb()
        .configure_health_check()
        .load_balancer_name(name)
        .health_check(check)
        .send()
        .await
        .if_found(GONE)?;
    Ok(configured.map(|_| ()))
}

/// What a tag's value can not have becomes `=3F`; so does the space, which parts the fields.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"+-._:/@".contains(&byte) {
            quoted.push(char::from(byte));
        } else {
            quoted.push_str(&format!("={byte:02X}"));
        }
    }
    quoted
}

fn unquote(text: &str) -> Option<String> {
    let mut parts = text.split('=');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other() -> HealthCheck {
        HealthCheck {
            target: "HTTP:80/a b?c=d&e=%41ü".into(),
            interval: 10,
            timeout: 4,
            unhealthy: 2,
            healthy: 10,
        }
    }

    fn found(health_check: HealthCheck) -> Observed {
        Observed {
            name: "stack-elb".into(),
            health_check,
            members: vec!["i-1".into()],
            tags: Tags::new(),
        }
    }

    #[test]
    fn every_drift_is_seen() {
        assert_eq!(found(HealthCheck::wanted()).changes(), []);
        let fields: Vec<String> = found(other())
            .changes()
            .into_iter()
            .map(|change| change.field)
            .collect();
        assert_eq!(
            fields,
            [
                "healthCheck.target",
                "healthCheck.interval",
                "healthCheck.timeout",
                "healthCheck.unhealthyThreshold",
                "healthCheck.healthyThreshold",
            ]
        );
    }

    #[test]
    fn the_tag_keeps_any_health_check_in_the_characters_it_may_have() {
        for check in [other(), HealthCheck::wanted()] {
            let value = check.to_tag().expect("short enough");
            assert!(
                value
                    .chars()
                    .all(|each| each.is_ascii_alphanumeric() || " +-=._:/@".contains(each)),
                "{value}"
            );
            let mut balancer = found(HealthCheck::wanted());
            balancer.tags.insert(BEFORE_TAG.into(), value);
            assert_eq!(balancer.remembered(), Some(check));
        }
    }

    #[test]
    fn a_tag_that_can_not_be_written_or_read_is_none() {
        let long = HealthCheck {
            target: format!("HTTP:80/{}", "a".repeat(250)),
            ..other()
        };
        assert_eq!(long.to_tag(), None);
        for value in [
            "",
            "interval=1",
            "interval=x timeout=1 unhealthy=1 healthy=1 target=TCP:1",
            "interval=1 timeout=1 unhealthy=1 healthy=1 target=TCP=4",
            "interval=1 timeout=1 unhealthy=1 healthy=1 target=TCP=FF",
        ] {
            assert_eq!(HealthCheck::from_tag(value), None, "{value}");
        }
    }
}
