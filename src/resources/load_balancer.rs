//! The load balancer in front of Weka's API: internal, in the cluster's two subnets.

use std::time::Duration;

use anyhow::{Context, Result};
use aws_sdk_elasticloadbalancingv2::types::{
    IpAddressType, LoadBalancer as Balancer, LoadBalancerSchemeEnum, LoadBalancerTypeEnum, Tag,
};

use super::fixed;
use crate::aws::{Answer, Aws, Probe, wait_until};
use crate::cluster::names::Cluster;
use crate::resource::{Diff, Resource, Tags, touches};
use crate::run::{Change, Kind};

const GONE: &[&str] = &["LoadBalancerNotFound"];
/// AWS takes seconds; what hangs on it, target group and interfaces, is free only then.
const DELETION: Duration = Duration::from_secs(300);
/// How many resources one `DescribeTags` takes.
const TAGS_AT_ONCE: usize = 20;

/// `wekactl-C`.
#[derive(Debug, Clone)]
pub struct LoadBalancer {
    /// Its name.
    pub name: String,
    /// Two, in two zones.
    pub subnets: Vec<String>,
    /// The backends' own.
    pub security_groups: Vec<String>,
    /// Its tags.
    pub tags: Tags,
}

/// A load balancer in AWS.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Its ARN.
    pub arn: String,
    /// Where it answers.
    pub dns_name: String,
    /// The zone of that name, for an alias.
    pub zone_id: String,
    /// The VPC it is in.
    pub vpc_id: String,
    scheme: String,
    kind: String,
    /// Its subnets, sorted.
    pub subnets: Vec<String>,
    /// Its tags.
    pub tags: Tags,
    ip_address_type: String,
    security_groups: Vec<String>,
}

impl Resource for LoadBalancer {
    const KIND: Kind = Kind::LoadBalancer;
    type Observed = Observed;

    fn name(&self) -> &str {
        &self.name
    }

    async fn find(aws: &Aws, _cluster: &Cluster, name: &str) -> Result<Vec<Observed>> {
        find_with(aws, name, async |_| Ok(()))
            .await
            .map(|(found, ())| found)
    }

    fn tags(found: &Observed) -> Option<&Tags> {
        Some(&found.tags)
    }

    fn changes(&self, found: &Observed) -> Vec<Change> {
        Diff::new()
            .field(
                "scheme",
                &found.scheme.as_str(),
                &LoadBalancerSchemeEnum::Internal.as_str(),
            )
            .field(
                "type",
                &found.kind.as_str(),
                &LoadBalancerTypeEnum::Application.as_str(),
            )
            .field(
                "ipAddressType",
                &found.ip_address_type.as_str(),
                &IpAddressType::Ipv4.as_str(),
            )
            .field("subnets", &found.subnets, &sorted(&self.subnets))
            .field(
                "securityGroups",
                &found.security_groups,
                &sorted(&self.security_groups),
            )
            .tags(&found.tags, &self.tags)
            .done()
    }

    async fn create(&self, aws: &Aws) -> Result<Observed> {
        let made = aws
            .elbv2()
            .create_load_balancer()
            .name(&self.name)
            .r#type(LoadBalancerTypeEnum::Application)
            .scheme(LoadBalancerSchemeEnum::Internal)
            .ip_address_type(IpAddressType::Ipv4)
            .set_subnets(Some(self.subnets.clone()))
            .set_security_groups(Some(self.security_groups.clone()))
            .set_tags(Some(sdk_tags(&self.tags)))
            .send()
            .await
            .answer()?;
        let balancer = made
            .load_balancers()
            .first()
            .context("AWS made it and did not say what")?;
        Ok(observed(balancer, self.tags.clone()))
    }

    async fn update(&self, aws: &Aws, mut found: Observed, changes: &[Change]) -> Result<Observed> {
        fixed(changes, &["scheme", "type"])?;
        add_tags(aws, &found.arn, &self.tags).await?;
        if touches(changes, "ipAddressType") {
            aws.elbv2()
                .set_ip_address_type()
                .load_balancer_arn(&found.arn)
                .ip_address_type(IpAddressType::Ipv4)
                .send()
                .await
                .answer()?;
            IpAddressType::Ipv4
                .as_str()
                .clone_into(&mut found.ip_address_type);
        }
        if touches(changes, "subnets") {
            aws.elbv2()
                .set_subnets()
                .load_balancer_arn(&found.arn)
                .set_subnets(Some(self.subnets.clone()))
                .send()
                .await
                .answer()?;
            found.subnets = sorted(&self.subnets);
        }
        if touches(changes, "securityGroups") {
            aws.elbv2()
                .set_security_groups()
                .load_balancer_arn(&found.arn)
                .set_security_groups(Some(self.security_groups.clone()))
                .send()
                .await
                .answer()?;
            found.security_groups = sorted(&self.security_groups);
        }
        found.tags.extend(self.tags.clone());
        Ok(found)
    }

    /// Its listeners go with it. Returns when it is gone.
    async fn delete(aws: &Aws, found: Observed) -> Result<()> {
        aws.elbv2()
            .delete_load_balancer()
            .load_balancer_arn(&found.arn)
            .send()
            .await
            .if_found(GONE)?;
        let what = format!("deletion of load balancer {}", found.arn);
        wait_until(&aws.run, &what, DELETION, || async {
            let left = aws
                .elbv2()
                .describe_load_balancers()
                .load_balancer_arns(&found.arn)
                .send()
                .await
                .if_found(GONE)?;
            let state = left
                .as_ref()
                .and_then(|answer| answer.load_balancers().first())
                .map(|balancer| {
                    let code = balancer.state().and_then(|state| state.code());
                    code.map_or("still there", |code| code.as_str()).to_owned()
                });
            Ok(state.map_or(Probe::Ready(()), Probe::Pending))
        })
        .await
    }
}

/// The load balancer of a name, and what `more` reads of it, given its ARN, while its tags are read.
///
/// # Errors
/// AWS's failures, and those of `more`.
pub async fn find_with<T: Default>(
    aws: &Aws,
    name: &str,
    more: impl AsyncFnOnce(&str) -> Result<T>,
) -> Result<(Vec<Observed>, T)> {
    let Some(balancer) = describe(aws, name).await? else {
        return Ok(Default::default());
    };
    let arn = balancer.load_balancer_arn().unwrap_or_default();
    let arns = [arn];
    let tags = async { tags_of(aws, &arns, GONE).await };
    let (tags, more) = tokio::try_join!(tags, more(arn))?;
    let found = tags.into_iter().map(|tags| observed(&balancer, tags));
    Ok((found.collect(), more))
}

async fn describe(aws: &Aws, name: &str) -> Result<Option<Balancer>> {
    let answer = aws
        .elbv2()
        .describe_load_balancers()
        .names(name)
        .send()
        .await
        .if_found(GONE)?;
    Ok(answer
        .and_then(|answer| answer.load_balancers)
        .and_then(|balancers| balancers.into_iter().next()))
}

/// The ARN of the load balancer of that name.
pub(super) async fn arn_of(aws: &Aws, name: &str) -> Result<Option<String>> {
    Ok(describe(aws, name)
        .await?
        .and_then(|balancer| balancer.load_balancer_arn))
}

fn observed(balancer: &Balancer, tags: Tags) -> Observed {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let subnets: Vec<String> = balancer
        .availability_zones()
        .iter()
        .filter_map(|zone| zone.subnet_id().map(ToOwned::to_owned))
        .collect();
    Observed {
        arn: text(balancer.load_balancer_arn()),
        dns_name: text(balancer.dns_name()),
        zone_id: text(balancer.canonical_hosted_zone_id()),
        vpc_id: text(balancer.vpc_id()),
        scheme: text(balancer.scheme().map(LoadBalancerSchemeEnum::as_str)),
        kind: text(balancer.r#type().map(LoadBalancerTypeEnum::as_str)),
        ip_address_type: text(balancer.ip_address_type().map(IpAddressType::as_str)),
        subnets: sorted(&subnets),
        security_groups: sorted(balancer.security_groups()),
        tags,
    }
}

fn sorted(list: &[String]) -> Vec<String> {
    let mut list = list.to_vec();
    list.sort();
    list
}

/// The tags of each of the ARNs, in their order; those that one of the codes says to be gone are left out.
pub(super) async fn tags_of(aws: &Aws, arns: &[&str], gone: &[&str]) -> Result<Vec<Tags>> {
    let answers = futures::future::try_join_all(arns.chunks(TAGS_AT_ONCE).map(|arns| async move {
        let arns = arns.iter().map(ToString::to_string).collect();
        let call = aws.elbv2().describe_tags().set_resource_arns(Some(arns));
        call.send().await.if_found(gone)
    }))
    .await?;
    let described: Vec<_> = answers
        .into_iter()
        .flatten()
        .flat_map(|answer| answer.tag_descriptions.unwrap_or_default())
        .collect();
    Ok(arns
        .iter()
        .filter_map(|arn| {
            described
                .iter()
                .find(|description| description.resource_arn() == Some(arn))
        })
        .map(|description| {
            description
                .tags()
                .iter()
                .map(|tag| {
                    (
                        tag.key().unwrap_or_default().to_owned(),
                        tag.value().unwrap_or_default().to_owned(),
                    )
                })
                .collect()
        })
        .collect())
}

pub(super) async fn add_tags(aws: &Aws, arn: &str, tags: &Tags) -> Result<()> {
    aws.elbv2()
        .add_tags()
        .resource_arns(arn)
        .set_tags(Some(sdk_tags(tags)))
        .send()
        .await
        .answer()?;
    Ok(())
}

pub(super) fn sdk_tags(tags: &Tags) -> Vec<Tag> {
    tags.iter()
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drift_is_seen() {
        type Drift = fn(&mut Observed);
        let cases: &[(&str, Drift)] = &[
            ("scheme", |found| found.scheme = "internet-facing".into()),
            ("type", |found| found.kind = "network".into()),
            ("ipAddressType", |found| {
                found.ip_address_type = "dualstack".into();
            }),
            ("subnets", |found| found.subnets.truncate(1)),
            ("securityGroups", |found| {
                found.security_groups.push("sg-9".into());
            }),
            ("tags.wekactl.io/cluster_name", |found| found.tags.clear()),
        ];
        let wanted = LoadBalancer {
            name: "wekactl-prod".into(),
            subnets: vec!["subnet-b".into(), "subnet-a".into()],
            security_groups: vec!["sg-1".into()],
            tags: Tags::from([("wekactl.io/cluster_name".into(), "prod".into())]),
        };
        let made = Observed {
            arn: "arn".into(),
            dns_name: "x.elb".into(),
            zone_id: "Z1".into(),
            vpc_id: "vpc-1".into(),
            scheme: "internal".into(),
            kind: "application".into(),
            ip_address_type: "ipv4".into(),
            subnets: vec!["subnet-a".into(), "subnet-b".into()],
            security_groups: vec!["sg-1".into()],
            tags: wanted.tags.clone(),
        };
        assert_eq!(wanted.changes(&made), []);
        for (field, drift) in cases {
            let mut found = made.clone();
            drift(&mut found);
            let fields: Vec<String> = wanted
                .changes(&found)
                .into_iter()
                .map(|change| change.field)
                .collect();
            assert_eq!(fields, [*field]);
        }
    }
}
