//! The load balancer's listener for Weka's API. It has no name of its own: it is found on its load balancer.

use anyhow::{Context, Result};
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, Listener as Found, ProtocolEnum,
};

use super::load_balancer::{add_tags, arn_of, sdk_tags, tags_of};
use super::target_group::PORT;
use crate::aws::{Answer, Aws};
use crate::cluster::names::{CLUSTER_TAG, Cluster, LISTENER_TAG};
use crate::resource::{Diff, Known, Resource, Tags, touches};
use crate::run::{Change, Kind};

const GONE: &[&str] = &["LoadBalancerNotFound", "ListenerNotFound"];

/// HTTP 14000, forward.
#[derive(Debug, Clone)]
pub struct Listener {
    name: String,
    load_balancer_arn: Known<String>,
    target_group_arn: Known<String>,
    tags: Tags,
}

/// A listener in AWS.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Its ARN.
    pub arn: String,
    port: i32,
    protocol: String,
    /// Whereto, if all it does is to forward to one target group.
    forwards_to: Option<String>,
    tags: Tags,
}

impl Listener {
    /// The cluster's listener. To the tags of the cluster it adds its own.
    pub fn new(
        cluster: &Cluster,
        load_balancer_arn: Known<String>,
        target_group_arn: Known<String>,
        mut tags: Tags,
    ) -> Self {
        tags.insert(LISTENER_TAG.to_owned(), "api".to_owned());
        Self {
            name: Self::name_of(cluster),
            load_balancer_arn,
            target_group_arn,
            tags,
        }
    }

    /// What it is called here: the load balancer's name and the port.
    pub fn name_of(cluster: &Cluster) -> String {
        format!("{}:{PORT}", cluster.load_balancer())
    }

    /// The cluster's listeners on a load balancer; where there is none, whoever has our port.
    /// Listeners that somebody added are not touched.
    ///
    /// # Errors
    /// AWS's failures.
    pub async fn find_on(
        aws: &Aws,
        cluster: &Cluster,
        load_balancer_arn: &str,
    ) -> Result<Vec<Observed>> {
        let listeners = aws
            .elbv2()
            .describe_listeners()
            .load_balancer_arn(load_balancer_arn)
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .if_found(GONE)?
            .unwrap_or_default();
        let arns: Vec<&str> = listeners.iter().filter_map(Found::listener_arn).collect();
        let tags = tags_of(aws, &arns, GONE).await?;
        let all = listeners
            .iter()
            .zip(tags)
            .map(|(listener, tags)| observed(listener, tags));
        let (mut ours, others): (Vec<Observed>, Vec<Observed>) = all.partition(|listener| {
            listener.tags.get(CLUSTER_TAG) == Some(&cluster.name)
                && listener.tags.contains_key(LISTENER_TAG)
        });
        ours.sort_by_key(|listener| listener.port != PORT);
        if ours.iter().any(|listener| listener.port == PORT) {
            return Ok(ours);
        }
        ours.extend(others.into_iter().filter(|other| other.port == PORT));
        Ok(ours)
    }

    fn action(&self) -> Result<Action> {
        Ok(Action::builder()
            .r#type(ActionTypeEnum::Forward)
            .target_group_arn(self.target_group_arn.get()?)
            .build())
    }
}

impl Resource for Listener {
    const KIND: Kind = Kind::Listener;
    type Observed = Observed;

    fn name(&self) -> &str {
        &self.name
    }

    async fn find(aws: &Aws, cluster: &Cluster, _name: &str) -> Result<Vec<Observed>> {
        match arn_of(aws, &cluster.load_balancer()).await? {
            Some(arn) => Self::find_on(aws, cluster, &arn).await,
            None => Ok(Vec::new()),
        }
    }

    fn tags(found: &Observed) -> Option<&Tags> {
        Some(&found.tags)
    }

    fn changes(&self, found: &Observed) -> Vec<Change> {
        Diff::new()
            .field("port", &found.port, &PORT)
            .field(
                "protocol",
                &found.protocol.as_str(),
                &ProtocolEnum::Http.as_str(),
            )
            .known(
                "defaultActions",
                &found.forwards_to,
                &self.target_group_arn.map(|arn| Some(arn.clone())),
            )
            .tags(&found.tags, &self.tags)
            .done()
    }

    async fn create(&self, aws: &Aws) -> Result<Observed> {
        let made = aws
            .elbv2()
            .create_listener()
            .load_balancer_arn(self.load_balancer_arn.get()?)
            .port(PORT)
            .protocol(ProtocolEnum::Http)
            .default_actions(self.action()?)
            .set_tags(Some(sdk_tags(&self.tags)))
            .send()
            .await
            .answer()?;
        let listener = made
            .listeners()
            .first()
            .context("AWS made it and did not say what")?;
        Ok(observed(listener, self.tags.clone()))
    }

    async fn update(&self, aws: &Aws, mut found: Observed, changes: &[Change]) -> Result<Observed> {
        add_tags(aws, &found.arn, &self.tags).await?;
        if ["port", "protocol", "defaultActions"]
            .iter()
            .any(|field| touches(changes, field))
        {
            aws.elbv2()
                .modify_listener()
                .listener_arn(&found.arn)
                .port(PORT)
                .protocol(ProtocolEnum::Http)
                .default_actions(self.action()?)
                .send()
                .await
                .answer()?;
            found.port = PORT;
            ProtocolEnum::Http.as_str().clone_into(&mut found.protocol);
            found.forwards_to = Some(self.target_group_arn.get()?.clone());
        }
        found.tags.extend(self.tags.clone());
        Ok(found)
    }

    async fn delete(aws: &Aws, found: Observed) -> Result<()> {
        aws.elbv2()
            .delete_listener()
            .listener_arn(&found.arn)
            .send()
            .await
            .if_found(GONE)?;
        Ok(())
    }
}

fn observed(listener: &Found, tags: Tags) -> Observed {
    Observed {
        arn: listener.listener_arn().unwrap_or_default().to_owned(),
        port: listener.port().unwrap_or_default(),
        protocol: listener
            .protocol()
            .map_or_else(String::new, |protocol| protocol.as_str().to_owned()),
        forwards_to: match listener.default_actions() {
            [action] => forwards_to(action),
            _ => None,
        },
        tags,
    }
}

/// AWS gives a forward to one target group in the short form, the long form, or both.
fn forwards_to(action: &Action) -> Option<String> {
    if action.r#type() != Some(&ActionTypeEnum::Forward) {
        return None;
    }
    let groups = action
        .forward_config()
        .map_or(&[][..], |config| config.target_groups());
    match groups {
        [] => action.target_group_arn().map(ToOwned::to_owned),
        [group] => group.target_group_arn().map(ToOwned::to_owned),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_elasticloadbalancingv2::types::{ForwardActionConfig, TargetGroupTuple};

    use super::*;

    fn wanted() -> Listener {
        Listener::new(
            &"prod".parse().expect("a good name"),
            Known::Value("lb".into()),
            Known::Value("tg".into()),
            Tags::from([(CLUSTER_TAG.into(), "prod".into())]),
        )
    }

    #[test]
    fn every_drift_is_seen() {
        type Drift = fn(&mut Observed);
        let cases: &[(&[&str], Drift)] = &[
            (&["port"], |found| found.port = 80),
            (&["protocol"], |found| found.protocol = "HTTPS".into()),
            (&["defaultActions"], |found| found.forwards_to = None),
            (
                &[
                    "tags.wekactl.io/cluster_name",
                    "tags.wekactl.io/listener_type",
                ],
                |found| found.tags.clear(),
            ),
        ];
        let made = Observed {
            arn: "arn".into(),
            port: 14000,
            protocol: "HTTP".into(),
            forwards_to: Some("tg".into()),
            tags: wanted().tags,
        };
        assert_eq!(wanted().changes(&made), []);
        for (expected, drift) in cases {
            let mut found = made.clone();
            drift(&mut found);
            let fields: Vec<String> = wanted()
                .changes(&found)
                .into_iter()
                .map(|change| change.field)
                .collect();
            assert_eq!(&fields, expected);
        }
        let unknown = Listener {
            target_group_arn: Known::AfterApply,
            ..wanted()
        };
        assert_eq!(unknown.changes(&made)[0].field, "defaultActions");
    }

    #[test]
    fn a_forward_is_read_in_every_form() {
        let tuple = |arn: &str| TargetGroupTuple::builder().target_group_arn(arn).build();
        let long = |arns: &[&str]| {
            let groups = arns.iter().map(|arn| tuple(arn)).collect();
            ForwardActionConfig::builder()
                .set_target_groups(Some(groups))
                .build()
        };
        let forward = Action::builder().r#type(ActionTypeEnum::Forward);
        let short = forward.clone().target_group_arn("tg");
        for action in [
            short.clone(),
            forward.clone().forward_config(long(&["tg"])),
            short.clone().forward_config(long(&["tg"])),
        ] {
            assert_eq!(forwards_to(&action.build()).as_deref(), Some("tg"));
        }
        let two = short.forward_config(long(&["tg", "other"])).build();
        let redirect = Action::builder().r#type(ActionTypeEnum::Redirect).build();
        assert_eq!(forwards_to(&two), None);
        assert_eq!(forwards_to(&redirect), None);
    }
}
