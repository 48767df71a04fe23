//! What there is, for whoever asks: nothing here changes anything.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use aws_sdk_autoscaling::types::Filter;
use aws_sdk_resourcegroupstagging::types::TagFilter;
use jiff::Timestamp;

use super::names::{CLUSTER_TAG, Cluster, DESTROYING_TAG, MANAGED_TAG, STACK_TAG};
use super::settings;
use super::stack::{self, WekaStack};
use crate::aws::{Answer, Aws};
use crate::resource::{Resource as _, Tags, owned};
use crate::resources::auto_scaling_group::{self, AutoScalingGroup, Member};
use crate::resources::instances::{self, Instance};
use crate::resources::load_balancer::LoadBalancer;

/// A cluster, managed or one that could be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name, which is its stack's.
    pub name: String,
    /// When its stack was made.
    pub created: Option<Timestamp>,
    /// Whether this tool, or the earlier one, manages it.
    pub managed: bool,
    /// Whether its group is there as well, and no destroy has begun to take that apart.
    pub has_group: bool,
    /// Its stack, if that is in a usable state.
    pub stack: Option<WekaStack>,
}

/// A managed cluster as AWS's lists show it.
struct Managed {
    /// The stack it came from, or [`NO_STACK`](super::names::NO_STACK). `None`: not known, as where only its group was
    /// seen, or where the tag of its table is blank, which a dry run of the earlier tool leaves behind.
    stack_id: Option<String>,
    has_group: bool,
}

impl Managed {
    fn of_table(tags: &Tags) -> Self {
        let stack_id = tags.get(STACK_TAG).filter(|id| !id.trim().is_empty());
        Self {
            stack_id: stack_id.cloned(),
            has_group: false,
        }
    }
}

/// Every Weka stack in a usable state, and every managed cluster, by name. Three lists, each to its last page, whatever
/// else is in the account.
///
/// # Errors
/// AWS's failures.
pub async fn clusters(aws: &Aws) -> Result<Vec<Listed>> {
    let (_, stacks, tables, groups) = tokio::try_join!(
        aws.identity(),
        stack::usable_weka_stacks(aws),
        tables(aws),
        groups(aws)
    )?;
    let mut managed = tables;
    for (name, is_whole) in groups {
        let unknown = Managed {
            stack_id: None,
            has_group: false,
        };
        managed.entry(name).or_insert(unknown).has_group = is_whole;
    }
    Ok(listed(stacks, managed))
}

fn listed(stacks: Vec<WekaStack>, mut managed: BTreeMap<String, Managed>) -> Vec<Listed> {
    let mut listed: Vec<Listed> = stacks
        .into_iter()
        .map(|stack| {
            let is_its = |each: &Managed| each.stack_id.as_ref().is_none_or(|id| *id == stack.id);
            let its = match managed.get(&stack.name).is_some_and(is_its) {
                true => managed.remove(&stack.name),
                false => None,
            };
            Listed {
                name: stack.name.clone(),
                created: stack.created,
                managed: its.is_some(),
                has_group: its.is_some_and(|its| its.has_group),
                stack: Some(stack),
            }
        })
        .collect();
    listed.extend(managed.into_iter().map(|(name, each)| Listed {
        name,
        created: None,
        managed: true,
        has_group: each.has_group,
        stack: None,
    }));
    listed.sort_by(|one, other| one.name.cmp(&other.name));
    listed
}

/// The tables of managed clusters, by cluster: the first thing that import makes, and the last that destroy removes.
async fn tables(aws: &Aws) -> Result<BTreeMap<String, Managed>> {
    let ours = TagFilter::builder().key(MANAGED_TAG).values("true").build();
    let mut pages = aws
        .tagging()
        .get_resources()
        .tag_filters(ours)
        .resource_type_filters("dynamodb:table")
        .into_paginator()
        .send();
    let mut found = BTreeMap::new();
    while let Some(page) = pages.next().await {
        let page = page.answer().context("listing tables by tag")?;
        for table in page.resource_tag_mapping_list() {
            let tags: Tags = table
                .tags()
                .iter()
                .map(|tag| (tag.key().to_owned(), tag.value().to_owned()))
                .collect();
            let Some(cluster) = cluster_of(&tags) else {
                continue;
            };
            let arn = table.resource_arn().unwrap_or_default();
            if arn.ends_with(&format!(":table/{}", cluster.base())) {
                found.insert(cluster.name, Managed::of_table(&tags));
            }
        }
    }
    Ok(found)
}

/// The clusters whose groups there are, and whether no destroy has begun to take the group apart. The tagging service lags behind; Auto Scaling does not.
async fn groups(aws: &Aws) -> Result<Vec<(String, bool)>> {
    let ours = Filter::builder()
        .name(format!("tag:{MANAGED_TAG}"))
        .values("true")
        .build();
    let mut pages = aws
        .autoscaling()
        .describe_auto_scaling_groups()
        .filters(ours)
        .into_paginator()
        .send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page
            .answer()
            .context("listing Auto Scaling groups by tag")?;
        for group in page.auto_scaling_groups() {
            let tags = group.tags().iter();
            let tags: Tags = tags
                .filter_map(|tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned())))
                .collect();
            let cluster = cluster_of(&tags);
            found.extend(
                cluster
                    .filter(|cluster| group.auto_scaling_group_name() == Some(&cluster.backends()))
                    .map(|cluster| (cluster.name, !tags.contains_key(DESTROYING_TAG))),
            );
        }
    }
    Ok(found)
}

fn cluster_of(tags: &Tags) -> Option<Cluster> {
    tags.get(CLUSTER_TAG)?.parse().ok()
}

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
            "no cluster named {} in {}: there is no Auto Scaling group {name}; `wekactl cluster list` shows what there is",
            cluster.name,
            aws.region()
        );
    };
    owned::<AutoScalingGroup>(cluster, &name, &found)?;
    Ok(found)
}

/// The backends of a managed cluster.
pub struct HostGroup {
    /// Their group.
    pub group: auto_scaling_group::Observed,
    /// Its members, and what EC2 says of each, if it knows it still; by id.
    pub members: Vec<(Member, Option<Instance>)>,
}

/// Reads the group and its members: two calls, and one more for every 200 members.
///
/// # Errors
/// As [`group`].
pub async fn host_group(aws: &Aws, cluster: &Cluster) -> Result<HostGroup> {
    let group = group(aws, cluster).await?;
    let ids: Vec<String> = group.member_ids().collect();
    let found = instances::describe(aws, &ids)
        .await
        .context("reading the group's members")?;
    let mut found: BTreeMap<String, Instance> = found
        .into_iter()
        .map(|instance| (instance.id.clone(), instance))
        .collect();
    let mut members = group.instances.clone();
    members.sort_by(|one, other| one.id.cmp(&other.id));
    let members = members
        .into_iter()
        .map(|member| {
            let instance = found.remove(&member.id);
            (member, instance)
        })
        .collect();
    Ok(HostGroup { group, members })
}

impl HostGroup {
    /// Private addresses of the members that run.
    pub fn addresses(&self) -> Vec<String> {
        let instances = self
            .members
            .iter()
            .filter_map(|(_, instance)| instance.as_ref());
        let running = instances.filter(|instance| instance.is_running());
        running
            .filter_map(|instance| instance.private_ip.clone())
            .collect()
    }
}

/// The name under which clients reach a managed cluster: the alias given at import, else the load balancer's own.
///
/// # Errors
/// As [`group`]; there is no load balancer.
pub async fn client_host(aws: &Aws, cluster: &Cluster) -> Result<String> {
    let name = cluster.load_balancer();
    let (_, settings, found) = tokio::try_join!(
        group(aws, cluster),
        settings::read_settings(aws, cluster),
        async {
            LoadBalancer::find(aws, cluster, &name)
                .await
                .with_context(|| format!("reading load balancer {name}"))
        }
    )?;
    if let Some(dns) = settings.and_then(|settings| settings.dns()) {
        return Ok(dns.alias);
    }
    let Some(found) = found.into_iter().next() else {
        bail!(
            "cluster {} has no load balancer {name}: run `wekactl cluster import` again",
            cluster.name
        );
    };
    owned::<LoadBalancer>(cluster, &name, &found)?;
    Ok(found.dns_name)
}

#[cfg(test)]
mod tests {
    use super::super::names::NO_STACK;
    use super::*;

    #[test]
    fn a_stack_is_managed_by_the_cluster_that_came_from_it() {
        let stack = |name: &str| WekaStack {
            name: name.to_owned(),
            id: format!("arn:{name}"),
            status: "CREATE_COMPLETE".to_owned(),
            created: None,
        };
        let managed = [
            ("from-stack", Some("arn:from-stack")),
            ("from-another", Some("arn:that-is-gone")),
            ("from-ids", Some(NO_STACK)),
            ("blanked", Some(" ")),
            ("blanked-without-stack", Some("")),
            ("untagged", None),
        ];
        let managed = managed.map(|(name, stack_id)| {
            let tag = stack_id.map(|id| (STACK_TAG.to_owned(), id.to_owned()));
            let tags = tag.into_iter().collect();
            let has_group = name != "blanked";
            (
                name.to_owned(),
                Managed {
                    has_group,
                    ..Managed::of_table(&tags)
                },
            )
        });
        let stacks = [
            "blanked",
            "free",
            "from-another",
            "from-ids",
            "from-stack",
            "untagged",
        ];
        let stacks = stacks.map(stack);
        let listed = listed(stacks.into(), managed.into());
        let shown: Vec<_> = listed
            .iter()
            .map(|each| {
                let Listed {
                    managed, has_group, ..
                } = *each;
                (each.name.as_str(), managed, has_group, each.stack.is_some())
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("blanked", true, false, true),
                ("blanked-without-stack", true, true, false),
                ("free", false, false, true),
                ("from-another", false, false, true),
                ("from-another", true, true, false),
                ("from-ids", false, false, true),
                ("from-ids", true, true, false),
                ("from-stack", true, true, true),
                ("untagged", true, true, true),
            ]
        );
    }
}
