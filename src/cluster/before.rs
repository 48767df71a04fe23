//! What the things were like that import changes and does not own, so that destroy can give it back.
//! Kept in the settings item, and in short on the things themselves, for the day the table is gone.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::discovery::Backend;
use super::names::{BEFORE_TAG, CLUSTER_TAG, Cluster};
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
    /// By instance id: of the tags that the user wants on everything, those it had, as they were.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub user_tags: BTreeMap<String, Tags>,
    /// Ids of the stack's instances that the Go tool has protected from termination and that are no backends of the
    /// cluster: its clients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub go_protected: Vec<String>,
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
        user_tags: &Tags,
        classic: Option<&classic_load_balancer::Observed>,
    ) -> Self {
        let mut before = stored
            .and_then(|settings| settings.before.clone())
            .unwrap_or_default();
        let is_go = stored.is_some_and(|settings| !settings.are_ours());
        for backend in backends {
            let (id, tags) = (&backend.instance.id, &backend.instance.tags);
            let was = InstanceBefore::in_tag(cluster, tags).map(|was| was.protected);
            // What there is now may be our own doing, or the Go tool's: it tells of before only where neither the
            // settings nor a tag do, and no import has come as far as the cluster's own tags.
            let is_told = before.termination_protection.contains_key(id)
                || was.is_none() && tags.contains_key(CLUSTER_TAG);
            if backend.launched || is_told {
                continue;
            }
            // The Go tool protected every instance of the stack before it did anything else with it.
            let is_its_own = backend.protected && !is_go;
            before
                .termination_protection
                .insert(id.clone(), was.unwrap_or(is_its_own));
            if tags.contains_key(CLUSTER_TAG) {
                // Only its own tag tells of it: the settings are lost, and the other tags are ours by now.
                continue;
            }
            if let Some(name) = tags.get(NAME_TAG) {
                before.names.insert(id.clone(), name.clone());
            }
            let had: Tags = tags
                .iter()
                .filter(|(key, _)| user_tags.contains_key(*key))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            if !had.is_empty() {
                before.user_tags.insert(id.clone(), had);
            }
        }
        if before.classic_load_balancer.is_none()
            && let Some(classic) = classic
        {
            let now = classic.now();
            let health_check = classic.remembered().unwrap_or(now.health_check);
            let members = now.members.into_iter().chain(members_in_tags(
                cluster,
                backends.iter().map(|backend| &backend.instance),
            ));
            let members: BTreeSet<String> = members.collect();
            before.classic_load_balancer = Some(classic_load_balancer::Before {
                health_check,
                members: members.into_iter().collect(),
            });
        }
        before
    }

    /// Whether the instance had a state before: not one that the group has launched.
    pub fn knows(&self, id: &str) -> bool {
        self.termination_protection.contains_key(id)
    }

    /// What a tag on the instance keeps of this.
    pub fn of_instance(&self, id: &str) -> InstanceBefore {
        let classic = self.classic_load_balancer.as_ref();
        InstanceBefore {
            protected: self.termination_protection.get(id) == Some(&true),
            balanced: classic.is_some_and(|classic| classic.members.iter().any(|each| each == id)),
        }
    }

    /// The tags of an instance that has the cluster's, as they were: what to write, and what to remove. Nothing
    /// where nothing was stored, as of an instance that the group has launched.
    pub fn tags_of(&self, instance: &Instance, ours: &Tags) -> (Tags, Vec<String>) {
        let id = &instance.id;
        if !self.termination_protection.contains_key(id) {
            return (Tags::new(), Vec::new());
        }
        let mut had = self.user_tags.get(id).cloned().unwrap_or_default();
        had.extend(
            self.names
                .get(id)
                .map(|name| (NAME_TAG.to_owned(), name.clone())),
        );
        // What somebody has changed since is theirs.
        let written = ours
            .iter()
            .filter(|(key, value)| instance.tags.get(*key) == Some(value));
        let (back, away): (Vec<_>, Vec<_>) = written
            .map(|(key, _)| (key.clone(), had.get(key).cloned()))
            .partition(|(_, had)| had.is_some());
        let back = back
            .into_iter()
            .filter_map(|(key, had)| Some((key, had?)))
            .filter(|(key, had)| ours.get(key) != Some(had));
        (
            back.collect(),
            away.into_iter().map(|(key, _)| key).collect(),
        )
    }

    /// Nothing was changed that is not ours.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What an instance was like before import, as far as a tag on itself keeps it. Few values for many instances: one
/// call tags all that were alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstanceBefore {
    /// Whether it was protected from termination.
    pub protected: bool,
    /// Whether it was a member of the classic load balancer.
    pub balanced: bool,
}

impl InstanceBefore {
    fn all() -> impl Iterator<Item = Self> {
        [(true, true), (true, false), (false, true), (false, false)]
            .into_iter()
            .map(|(protected, balanced)| Self {
                protected,
                balanced,
            })
    }

    /// The tag's value.
    pub fn tag_value(self, cluster: &Cluster) -> String {
        let protection = if self.protected { "on" } else { "off" };
        let member = if self.balanced {
            " classic-load-balancer=member"
        } else {
            ""
        };
        format!(
            "cluster={} termination-protection={protection}{member}",
            cluster.name
        )
    }

    fn in_tag(cluster: &Cluster, tags: &Tags) -> Option<Self> {
        let value = tags.get(BEFORE_TAG)?;
        Self::all().find(|was| *value == was.tag_value(cluster))
    }
}

/// The cluster whose import has begun to change an instance, by its tag.
pub fn cluster_in_tag(tags: &Tags) -> Option<&str> {
    let value = tags.get(BEFORE_TAG)?.strip_prefix("cluster=")?;
    value.split(' ').next()
}

/// Whether an instance was protected from termination before import, by the settings or else by its tag.
pub fn was_protected(
    cluster: &Cluster,
    before: Option<&Before>,
    instance: &Instance,
) -> Option<bool> {
    let stored = before.and_then(|before| before.termination_protection.get(&instance.id).copied());
    stored.or_else(|| Some(InstanceBefore::in_tag(cluster, &instance.tags)?.protected))
}

/// Ids of a stack's instances that the Go tool has protected from termination: those that are, but for the cluster's own
/// and for another cluster's. It protected all of them, clients too, and left no other trace on those.
///
/// # Errors
/// AWS's failures.
pub async fn go_protected(
    aws: &Aws,
    ids: &[String],
    own: &BTreeSet<String>,
) -> Result<Vec<String>> {
    let ids: Vec<String> = ids
        .iter()
        .filter(|id| !own.contains(*id))
        .cloned()
        .collect();
    let found = instances::describe(aws, &ids)
        .await
        .context("reading the stack's instances")?;
    let ids: Vec<String> = found
        .into_iter()
        .filter(|each| !each.is_terminated() && !each.tags.contains_key(CLUSTER_TAG))
        .map(|each| each.id)
        .collect();
    let protected = instances::termination_protected(aws, &ids)
        .await
        .context("reading the protection of the stack's instances")?;
    Ok(protected
        .into_iter()
        .filter_map(|(id, is_protected)| is_protected.then_some(id))
        .collect())
}

/// Ids of the instances whose tags say that they were members of the classic load balancer.
pub fn members_in_tags<'a>(
    cluster: &'a Cluster,
    instances: impl IntoIterator<Item = &'a Instance>,
) -> impl Iterator<Item = String> {
    let members = instances.into_iter().filter(|instance| {
        InstanceBefore::in_tag(cluster, &instance.tags).is_some_and(|was| was.balanced)
    });
    members.map(|instance| instance.id.clone())
}

/// The instances that an import of this cluster has begun to change.
///
/// # Errors
/// AWS's failures.
pub async fn instances_with_tag(aws: &Aws, cluster: &Cluster) -> Result<Vec<Instance>> {
    let values: Vec<String> = InstanceBefore::all()
        .map(|was| was.tag_value(cluster))
        .collect();
    instances::describe_by_tag_values(aws, BEFORE_TAG, &values)
        .await
        .context("reading the instances that an import has begun to change")
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNPROTECTED: InstanceBefore = InstanceBefore {
        protected: false,
        balanced: false,
    };

    fn backend(id: &str, protected: bool, tags: Tags) -> Backend {
        Backend {
            instance: Instance {
                id: id.to_owned(),
                tags,
                ..Instance::default()
            },
            launched: false,
            protected,
        }
    }

    #[test]
    fn the_first_import_decides_what_was_before() {
        let cluster: Cluster = "prod".parse().unwrap();
        // Died after the tag and the protection, before the settings were stored.
        let tags = Tags::from([(BEFORE_TAG.to_owned(), UNPROTECTED.tag_value(&cluster))]);
        let before = Before::of(
            &cluster,
            None,
            &[
                backend("i-1", true, tags),
                backend("i-2", true, Tags::new()),
            ],
            &Tags::new(),
            None,
        );
        assert_eq!(
            before.termination_protection,
            BTreeMap::from([("i-1".into(), false), ("i-2".into(), true)])
        );
    }

    #[test]
    fn only_what_was_not_ours_yet_is_remembered() {
        let cluster: Cluster = "prod".parse().unwrap();
        let tag = |key: &str, value: &str| Tags::from([(key.to_owned(), value.to_owned())]);
        let value = UNPROTECTED.tag_value(&cluster);
        let launched = Backend {
            launched: true,
            ..backend("i-1", true, Tags::new())
        };
        let backends = [
            launched,
            // The Go tool's, or of a table that is lost.
            backend("i-2", true, tag(CLUSTER_TAG, "prod")),
            backend("i-3", true, tag(BEFORE_TAG, &value)),
            // Put into the group by hand.
            backend("i-4", true, Tags::new()),
        ];
        let before = Before::of(&cluster, None, &backends, &Tags::new(), None);
        assert_eq!(
            before.termination_protection,
            BTreeMap::from([("i-3".into(), false), ("i-4".into(), true)])
        );
        let knows = |id| before.knows(id);
        assert!(!knows("i-1") && !knows("i-2") && knows("i-3") && knows("i-4"));
    }

    #[test]
    fn another_clusters_tag_tells_nothing() {
        let (one, other): (Cluster, Cluster) = ("prod".parse().unwrap(), "prod2".parse().unwrap());
        for was in InstanceBefore::all() {
            let tags = Tags::from([(BEFORE_TAG.to_owned(), was.tag_value(&other))]);
            assert_eq!(cluster_in_tag(&tags), Some("prod2"));
            assert_eq!(InstanceBefore::in_tag(&one, &tags), None);
            assert_eq!(InstanceBefore::in_tag(&other, &tags), Some(was));
        }
    }

    #[test]
    fn the_tag_fits_a_tag() {
        let longest: Cluster = "a".repeat(128).parse().unwrap();
        for was in InstanceBefore::all() {
            assert!(was.tag_value(&longest).len() <= 256);
        }
    }

    #[test]
    fn tags_go_back_to_what_they_were_unless_somebody_has_changed_them_since() {
        let cluster: Cluster = "prod".parse().unwrap();
        let tags = |pairs: &[(&str, &str)]| -> Tags {
            let pairs = pairs.iter();
            pairs
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        let user = tags(&[("team", "a"), ("stage", "live"), ("cost", "1"), ("x", "y")]);
        let had = tags(&[
            ("Name", "one"),
            ("team", "a"),
            ("stage", "test"),
            ("own", "z"),
        ]);
        let before = Before::of(&cluster, None, &[backend("i-1", false, had)], &user, None);
        let ours = tags(&[
            ("Name", "prod-Backends"),
            ("team", "a"),
            ("stage", "live"),
            ("cost", "1"),
            ("x", "y"),
        ]);
        let mut instance = backend("i-1", true, ours.clone()).instance;
        instance.tags.insert("x".into(), "somebody's".into());
        let (back, away) = before.tags_of(&instance, &ours);
        assert_eq!(back, tags(&[("Name", "one"), ("stage", "test")]));
        assert_eq!(away, ["cost"]);
        // The group has launched this one.
        instance.id = "i-2".into();
        assert_eq!(before.tags_of(&instance, &ours), (Tags::new(), vec![]));
    }
}
