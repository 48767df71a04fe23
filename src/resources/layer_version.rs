//! The functions' code: a layer whose newest version holds this executable.

use std::sync::Arc;

use anyhow::{Context, Result};
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{
    Architecture, LayerVersionContentInput, LayerVersionsListItem, Runtime,
};

use crate::aws::{Answer, Aws, CALL_DEADLINE, once, try_timeout};
use crate::cluster::code::{Code, RUNTIME};
use crate::cluster::names::Cluster;
use crate::resource::{Diff, Known, Resource, Settle, Tags, ensure};
use crate::run::{Action, Change, Kind, Row};

const GONE: &[&str] = &["ResourceNotFoundException"];

/// A version of the layer `wekactl-C`.
#[derive(Clone)]
pub struct LayerVersion {
    /// The layer's name.
    pub name: String,
    /// Whose code.
    pub cluster: Cluster,
    /// The code.
    pub code: Arc<Code>,
}

/// A version in AWS whose description names the cluster.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The layer's name.
    pub name: String,
    /// ARN of the version: what a function refers to.
    pub arn: String,
    /// Its number.
    pub version: i64,
    /// Of the executable in it.
    pub sha256: String,
    architectures: Vec<String>,
    runtimes: Vec<String>,
}

impl LayerVersion {
    /// The layer of a cluster.
    pub fn new(cluster: &Cluster, code: Arc<Code>) -> Self {
        Self {
            name: cluster.layer(),
            cluster: cluster.clone(),
            code,
        }
    }

    /// Publishes a version, unless one with this very code exists. The others stay as long as functions use them:
    /// see [`prune`].
    ///
    /// # Errors
    /// As [`ensure`].
    pub async fn publish_if_new(&self, aws: &Aws, found: Vec<Observed>) -> Result<Known<Observed>> {
        let same = found
            .into_iter()
            .find(|version| self.changes(version).is_empty());
        ensure(aws, &self.cluster, self, same.into_iter().collect()).await
    }

    async fn publish(&self, aws: &Aws) -> Result<Observed> {
        let zip = self.code.zip().await?;
        let content = LayerVersionContentInput::builder()
            .zip_file(Blob::new(zip.as_slice()))
            .build();
        let made = aws
            .lambda()
            .publish_layer_version()
            .layer_name(&self.name)
            .description(describe(&self.cluster, &self.code.sha256))
            .content(content)
            .compatible_architectures(Architecture::from(self.code.architecture.word()))
            .compatible_runtimes(Runtime::from(RUNTIME))
            .customize()
            .config_override(
                aws_sdk_lambda::config::Config::builder()
                    .retry_config(once())
                    // Megabytes, over whatever line there is.
                    .timeout_config(try_timeout(CALL_DEADLINE)),
            )
            .send()
            .await
            .answer()?;
        Ok(Observed {
            name: self.name.clone(),
            arn: made
                .layer_version_arn
                .context("AWS made a layer version and did not say which")?,
            version: made.version,
            sha256: self.code.sha256.clone(),
            architectures: vec![self.code.architecture.word().to_owned()],
            runtimes: vec![RUNTIME.to_owned()],
        })
    }
}

/// All versions there are, of which `found` tells if this run has published none: a publication whose answer was lost
/// has made one that only another look shows.
///
/// # Errors
/// AWS's failures.
pub async fn versions(
    aws: &Aws,
    cluster: &Cluster,
    kept: &Observed,
    found: Vec<Observed>,
) -> Result<Vec<Observed>> {
    if found.iter().any(|version| version.arn == kept.arn) {
        return Ok(found);
    }
    LayerVersion::find(aws, cluster, &kept.name)
        .await
        .with_context(|| format!("reading the versions of Lambda layer {}", kept.name))
}

/// Removes the versions but `kept`, which every function has.
///
/// # Errors
/// AWS's failures, all of them.
pub async fn prune(aws: &Aws, kept: &str, found: &[Observed]) -> Result<()> {
    let stale = found.iter().filter(|version| version.arn != kept);
    let removals = stale.map(|version| {
        let name = LayerVersion::row_name(&version.name, version);
        let row = Row::new(Kind::LayerVersion, name, Action::Delete);
        aws.run
            .step(row, LayerVersion::delete(aws, version.clone()))
    });
    futures::future::join_all(removals).await.settle()?;
    Ok(())
}

/// A layer has no tags: the description says whose it is, and what is in it.
fn describe(cluster: &Cluster, sha256: &str) -> String {
    format!("wekactl for cluster {}, sha256 {sha256}", cluster.name)
}

/// The executable's hash, if the description is this cluster's.
fn hash_in<'a>(cluster: &Cluster, description: &'a str) -> Option<&'a str> {
    description.strip_prefix(&describe(cluster, ""))
}

fn observe(cluster: &Cluster, name: &str, version: &LayerVersionsListItem) -> Option<Observed> {
    let sha256 = hash_in(cluster, version.description()?)?;
    Some(Observed {
        name: name.to_owned(),
        arn: version.layer_version_arn()?.to_owned(),
        version: version.version(),
        sha256: sha256.to_owned(),
        architectures: strings(version.compatible_architectures()),
        runtimes: strings(version.compatible_runtimes()),
    })
}

fn strings<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

impl Resource for LayerVersion {
    const KIND: Kind = Kind::LayerVersion;
    type Observed = Observed;

    fn name(&self) -> &str {
        &self.name
    }

    /// The newest first.
    async fn find(aws: &Aws, cluster: &Cluster, name: &str) -> Result<Vec<Observed>> {
        let mut pages = aws
            .lambda()
            .list_layer_versions()
            .layer_name(name)
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let Some(page) = page.if_found(GONE)? else {
                break;
            };
            let versions = page.layer_versions().iter();
            found.extend(versions.filter_map(|version| observe(cluster, name, version)));
        }
        found.sort_by_key(|version| std::cmp::Reverse(version.version));
        Ok(found)
    }

    fn tags(_found: &Observed) -> Option<&Tags> {
        None
    }

    fn row_name(name: &str, found: &Observed) -> String {
        format!("{name} version {}", found.version)
    }

    fn changes(&self, found: &Observed) -> Vec<Change> {
        Diff::new()
            .field("sha256", &found.sha256, &self.code.sha256)
            .field(
                "compatibleArchitectures",
                &found.architectures,
                &vec![self.code.architecture.word().to_owned()],
            )
            .field(
                "compatibleRuntimes",
                &found.runtimes,
                &vec![RUNTIME.to_owned()],
            )
            .done()
    }

    async fn create(&self, aws: &Aws) -> Result<Observed> {
        self.publish(aws).await
    }

    /// A version never changes: what is there stays, and a new one comes beside it.
    async fn update(&self, aws: &Aws, _found: Observed, _changes: &[Change]) -> Result<Observed> {
        self.publish(aws).await
    }

    async fn delete(aws: &Aws, found: Observed) -> Result<()> {
        aws.lambda()
            .delete_layer_version()
            .layer_name(&found.name)
            .version_number(found.version)
            .send()
            .await
            .if_found(GONE)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    /// Source: Lambda API reference, `PublishLayerVersion`.
    const MAX_DESCRIPTION: usize = 256;

    #[test]
    fn the_description_says_whose_and_what() {
        let cluster: Cluster = "prod".parse().unwrap();
        let text = describe(&cluster, SHA);
        assert_eq!(hash_in(&cluster, &text), Some(SHA));
        assert_eq!(hash_in(&"pro".parse().unwrap(), &text), None);
        assert_eq!(hash_in(&"prod2".parse().unwrap(), &text), None);
        assert_eq!(hash_in(&cluster, ""), None);
        let longest = "a".repeat(128).parse().unwrap();
        assert!(describe(&longest, SHA).len() <= MAX_DESCRIPTION);
    }
}
