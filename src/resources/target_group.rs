//! The backends as the load balancer sees them. The Auto Scaling group registers its members here.

use std::time::Duration;

use anyhow::{Context, Result};
use aws_sdk_elasticloadbalancingv2::types::{
    Matcher, ProtocolEnum, TargetGroup as Group, TargetTypeEnum,
};

use super::fixed;
use super::load_balancer::{add_tags, sdk_tags, tags_of};
use crate::aws::retry::retry_while;
use crate::aws::{Answer, Aws};
use crate::cluster::names::Cluster;
use crate::resource::{Diff, Resource, Tags, touches};
use crate::run::{Change, Kind};

/// Weka's API.
pub const PORT: i32 = 14000;

const GONE: &[&str] = &["TargetGroupNotFound"];
/// How long a listener that is being removed may hold it.
const RELEASE: Duration = Duration::from_secs(120);

/// What Weka answers without a login.
const HEALTH_PATH: &str = "/api/v2/healthcheck/";
// AWS's own defaults, which the Go tool left as they are. Sent all the same, so that they can be compared.
const HEALTH_PORT: &str = "traffic-port";
const HEALTH_INTERVAL: i32 = 30;
const HEALTH_TIMEOUT: i32 = 5;
const HEALTHY: i32 = 5;
const UNHEALTHY: i32 = 2;
const HEALTH_CODE: &str = "200";
const PROTOCOL_VERSION: &str = "HTTP1";

/// `wekactl-C-api`.
#[derive(Debug, Clone)]
pub struct TargetGroup {
    /// Its name.
    pub name: String,
    /// The backends' VPC.
    pub vpc_id: String,
    /// Its tags.
    pub tags: Tags,
}

/// A target group in AWS.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Its ARN.
    pub arn: String,
    protocol: String,
    protocol_version: String,
    port: i32,
    vpc_id: String,
    target_type: String,
    health: HealthCheck,
    tags: Tags,
}

#[derive(Debug, Clone)]
struct HealthCheck {
    enabled: bool,
    protocol: String,
    port: String,
    path: String,
    interval: i32,
    timeout: i32,
    healthy: i32,
    unhealthy: i32,
    code: String,
}

impl Resource for TargetGroup {
    const KIND: Kind = Kind::TargetGroup;
    type Observed = Observed;

    fn name(&self) -> &str {
        &self.name
    }

    async fn find(aws: &Aws, _cluster: &Cluster, name: &str) -> Result<Vec<Observed>> {
        let answer = aws
            .elbv2()
            .describe_target_groups()
            .names(name)
            .send()
            .await
            .if_found(GONE)?;
        let groups = answer
            .and_then(|answer| answer.target_groups)
            .unwrap_or_default();
        let Some(group) = groups.first() else {
            return Ok(Vec::new());
        };
        let arn = group.target_group_arn().unwrap_or_default();
        let tags = tags_of(aws, &[arn], GONE).await?;
        Ok(tags.into_iter().map(|tags| observed(group, tags)).collect())
    }

    fn tags(found: &Observed) -> Option<&Tags> {
        Some(&found.tags)
    }

    fn changes(&self, found: &Observed) -> Vec<Change> {
        let http = ProtocolEnum::Http.as_str();
        let health = &found.health;
        Diff::new()
            .field("protocol", &found.protocol.as_str(), &http)
            .field(
                "protocolVersion",
                &found.protocol_version.as_str(),
                &PROTOCOL_VERSION,
            )
            .field("port", &found.port, &PORT)
            .field("vpcId", &found.vpc_id, &self.vpc_id)
            .field(
                "targetType",
                &found.target_type.as_str(),
                &TargetTypeEnum::Instance.as_str(),
            )
            .field("healthCheck.enabled", &health.enabled, &true)
            .field("healthCheck.protocol", &health.protocol.as_str(), &http)
            .field("healthCheck.port", &health.port.as_str(), &HEALTH_PORT)
            .field("healthCheck.path", &health.path.as_str(), &HEALTH_PATH)
            .field(
                "healthCheck.intervalSeconds",
                &health.interval,
                &HEALTH_INTERVAL,
            )
            .field(
                "healthCheck.timeoutSeconds",
                &health.timeout,
                &HEALTH_TIMEOUT,
            )
            .field("healthCheck.healthyThreshold", &health.healthy, &HEALTHY)
            .field(
                "healthCheck.unhealthyThreshold",
                &health.unhealthy,
                &UNHEALTHY,
            )
            .field("healthCheck.matcher", &health.code.as_str(), &HEALTH_CODE)
            .tags(&found.tags, &self.tags)
            .done()
    }

    async fn create(&self, aws: &Aws) -> Result<Observed> {
        let made = aws
            .elbv2()
            .create_target_group()
            .name(&self.name)
            .protocol(ProtocolEnum::Http)
            .protocol_version(PROTOCOL_VERSION)
            .port(PORT)
            .vpc_id(&self.vpc_id)
            .target_type(TargetTypeEnum::Instance)
            .health_check_enabled(true)
            .health_check_protocol(ProtocolEnum::Http)
            .health_check_port(HEALTH_PORT)
            .health_check_path(HEALTH_PATH)
            .health_check_interval_seconds(HEALTH_INTERVAL)
            .health_check_timeout_seconds(HEALTH_TIMEOUT)
            .healthy_threshold_count(HEALTHY)
            .unhealthy_threshold_count(UNHEALTHY)
            .matcher(Matcher::builder().http_code(HEALTH_CODE).build())
            .set_tags(Some(sdk_tags(&self.tags)))
            .send()
            .await
            .answer()?;
        let group = made
            .target_groups()
            .first()
            .context("AWS made it and did not say what")?;
        Ok(observed(group, self.tags.clone()))
    }

    async fn update(&self, aws: &Aws, mut found: Observed, changes: &[Change]) -> Result<Observed> {
        fixed(
            changes,
            &["protocol", "protocolVersion", "port", "vpcId", "targetType"],
        )?;
        add_tags(aws, &found.arn, &self.tags).await?;
        if touches(changes, "healthCheck") {
            let modified = aws
                .elbv2()
                .modify_target_group()
                .target_group_arn(&found.arn)
                .health_check_enabled(true)
                .health_check_protocol(ProtocolEnum::Http)
                .health_check_port(HEALTH_PORT)
                .health_check_path(HEALTH_PATH)
                .health_check_interval_seconds(HEALTH_INTERVAL)
                .health_check_timeout_seconds(HEALTH_TIMEOUT)
                .healthy_threshold_count(HEALTHY)
                .unhealthy_threshold_count(UNHEALTHY)
                .matcher(Matcher::builder().http_code(HEALTH_CODE).build())
                .send()
                .await
                .answer()?;
            if let Some(group) = modified.target_groups().first() {
                found.health = health(group);
            }
        }
        found.tags.extend(self.tags.clone());
        Ok(found)
    }

    /// AWS says for a while that it is in use after its listener has gone.
    async fn delete(aws: &Aws, found: Observed) -> Result<()> {
        retry_while(
            &aws.run,
            RELEASE,
            |error| error.is(&["ResourceInUse"]),
            || async {
                aws.elbv2()
                    .delete_target_group()
                    .target_group_arn(&found.arn)
                    .send()
                    .await
                    .if_found(GONE)
            },
        )
        .await?;
        Ok(())
    }
}

fn observed(group: &Group, tags: Tags) -> Observed {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    Observed {
        arn: text(group.target_group_arn()),
        protocol: text(group.protocol().map(ProtocolEnum::as_str)),
        protocol_version: text(group.protocol_version()),
        port: group.port().unwrap_or_default(),
        vpc_id: text(group.vpc_id()),
        target_type: text(group.target_type().map(TargetTypeEnum::as_str)),
        health: health(group),
        tags,
    }
}

fn health(group: &Group) -> HealthCheck {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    HealthCheck {
        enabled: group.health_check_enabled().unwrap_or_default(),
        protocol: text(group.health_check_protocol().map(ProtocolEnum::as_str)),
        port: text(group.health_check_port()),
        path: text(group.health_check_path()),
        interval: group.health_check_interval_seconds().unwrap_or_default(),
        timeout: group.health_check_timeout_seconds().unwrap_or_default(),
        healthy: group.healthy_threshold_count().unwrap_or_default(),
        unhealthy: group.unhealthy_threshold_count().unwrap_or_default(),
        code: text(group.matcher().and_then(Matcher::http_code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drift_is_seen() {
        type Drift = fn(&mut Observed);
        let cases: &[(&str, Drift)] = &[
            ("protocol", |found| found.protocol = "HTTPS".into()),
            ("protocolVersion", |found| {
                found.protocol_version = "HTTP2".into();
            }),
            ("port", |found| found.port = 80),
            ("vpcId", |found| found.vpc_id = "vpc-2".into()),
            ("targetType", |found| found.target_type = "ip".into()),
            ("healthCheck.enabled", |found| found.health.enabled = false),
            ("healthCheck.protocol", |found| {
                found.health.protocol = "HTTPS".into();
            }),
            ("healthCheck.port", |found| found.health.port = "80".into()),
            ("healthCheck.path", |found| found.health.path = "/".into()),
            ("healthCheck.intervalSeconds", |found| {
                found.health.interval = 10;
            }),
            ("healthCheck.timeoutSeconds", |found| {
                found.health.timeout = 6;
            }),
            ("healthCheck.healthyThreshold", |found| {
                found.health.healthy = 2;
            }),
            ("healthCheck.unhealthyThreshold", |found| {
                found.health.unhealthy = 3;
            }),
            ("healthCheck.matcher", |found| {
                found.health.code = "200-299".into();
            }),
            ("tags.wekactl.io/cluster_name", |found| found.tags.clear()),
        ];
        let wanted = TargetGroup {
            name: "wekactl-prod-api".into(),
            vpc_id: "vpc-1".into(),
            tags: Tags::from([("wekactl.io/cluster_name".into(), "prod".into())]),
        };
        // The Go tool's group, as it is found in the field.
        let go = Observed {
            arn: "arn".into(),
            protocol: "HTTP".into(),
            protocol_version: "HTTP1".into(),
            port: 14000,
            vpc_id: "vpc-1".into(),
            target_type: "instance".into(),
            health: HealthCheck {
                enabled: true,
                protocol: "HTTP".into(),
                port: "traffic-port".into(),
                path: "/api/v2/healthcheck/".into(),
                interval: 30,
                timeout: 5,
                healthy: 5,
                unhealthy: 2,
                code: "200".into(),
            },
            tags: wanted.tags.clone(),
        };
        assert_eq!(wanted.changes(&go), []);
        for (field, drift) in cases {
            let mut found = go.clone();
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
