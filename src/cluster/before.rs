//! What the things were like that import changes and does not own, so that destroy can give it back.
//! Kept in the settings item, and in short on the things themselves, for the day the table is gone.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::discovery::Backend;
use super::names::{BEFORE_TAG, Cluster};
use super::settings::Settings;
use crate::aws::Aws;
use crate::resource::Tags;
use crate::resources::classic_load_balancer;
use crate::resources::instances::{self, Instance};

const NAME_TAG: &str = "Name";

/// The things' former state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Before {
    /// By instance id: whether termination through the API was disabled.
    #[serde(default)]
    pub termination_protection: BTreeMap<String, bool>,
    /// By instance id: its `Name` tag.
    #[serde(default)]
    pub names: BTreeMap<String, String>,
    /// The classic load balancer's health check and members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classic_load_balancer: Option<classic_load_balancer::Before>,
}

impl Before {
    /// What was stored at an earlier import, and what newcomers and the classic load balancer are like now.
    /// A tag that an import left which died before it stored anything is believed before what is there now.
    pub fn of(
        cluster: &Cluster,
        stored: Option<&Settings>,
        backends: &[Backend],
        classic: Option<&classic_load_balancer::Observed>,
    ) -> Self {
        let mut before = stored
            .and_then(|settings| settings.before.clone())
            .unwrap_or_default();
        for backend in backends.iter().filter(|backend| !backend.member) {
            let id = &backend.instance.id;
            let was =
                protection_in_tag(cluster, &backend.instance.tags).unwrap_or(backend.protected);
            before
                .termination_protection
                .entry(id.clone())
                .or_insert(was);
            if let Some(name) = backend.instance.tags.get(NAME_TAG) {
                before
                    .names
                    .entry(id.clone())
                    .or_insert_with(|| name.clone());
            }
        }
        if before.classic_load_balancer.is_none()
            && let Some(classic) = classic
        {
            let now = classic.now();
            let health_check = classic.remembered().unwrap_or(now.health_check);
            before.classic_load_balancer = Some(classic_load_balancer::Before {
                health_check,
                ..now
            });
        }
        before
    }

    /// Nothing was changed that is not ours.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether an instance was protected from termination before import, by the settings or else by its tag.
pub fn was_protected(
    cluster: &Cluster,
    before: Option<&Before>,
    instance: &Instance,
) -> Option<bool> {
    let stored = before.and_then(|before| before.termination_protection.get(&instance.id).copied());
    stored.or_else(|| protection_in_tag(cluster, &instance.tags))
}

/// The tag of an instance that was, or was not, protected from termination before this cluster's import.
pub fn tag_value(cluster: &Cluster, was_protected: bool) -> String {
    let protection = if was_protected { "on" } else { "off" };
    format!(
        "cluster={} termination-protection={protection}",
        cluster.name
    )
}

/// The instances that an import of this cluster has begun to change.
///
/// # Errors
/// AWS's failures.
pub async fn instances_with_tag(aws: &Aws, cluster: &Cluster) -> Result<Vec<Instance>> {
    let values = [tag_value(cluster, true), tag_value(cluster, false)];
    instances::describe_by_tag_values(aws, BEFORE_TAG, &values)
        .await
        .context("reading the instances that an import has begun to change")
}

fn protection_in_tag(cluster: &Cluster, tags: &Tags) -> Option<bool> {
    let value = tags.get(BEFORE_TAG)?;
    [true, false]
        .into_iter()
        .find(|was| *value == tag_value(cluster, *was))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(id: &str, protected: bool, tags: Tags) -> Backend {
        Backend {
            instance: Instance {
                id: id.to_owned(),
                tags,
                ..Instance::default()
            },
            member: false,
            protected,
        }
    }

    #[test]
    fn the_first_import_decides_what_was_before() {
        let cluster: Cluster = "prod".parse().unwrap();
        // Died after the tag and the protection, before the settings were stored.
        let tags = Tags::from([(BEFORE_TAG.to_owned(), tag_value(&cluster, false))]);
        let before = Before::of(
            &cluster,
            None,
            &[
                backend("i-1", true, tags),
                backend("i-2", true, Tags::new()),
            ],
            None,
        );
        assert_eq!(
            before.termination_protection,
            BTreeMap::from([("i-1".into(), false), ("i-2".into(), true)])
        );
    }

    #[test]
    fn another_clusters_tag_tells_nothing() {
        let (one, other): (Cluster, Cluster) = ("prod".parse().unwrap(), "prod2".parse().unwrap());
        let tags = Tags::from([(BEFORE_TAG.to_owned(), tag_value(&other, true))]);
        assert_eq!(protection_in_tag(&one, &tags), None);
        assert_eq!(protection_in_tag(&other, &tags), Some(true));
    }

    #[test]
    fn the_tag_fits_a_tag() {
        let longest: Cluster = "a".repeat(128).parse().unwrap();
        assert!(tag_value(&longest, false).len() <= 256);
    }
}
