//! The key the cluster's table is encrypted with, and the alias it is found by.

use anyhow::{Result, bail};
use aws_sdk_kms::types::{KeyManagerType, KeyMetadata, KeyState, Tag};
use aws_sdk_resourcegroupstagging::types::TagFilter;
use futures::future::try_join_all;
use std::time::Duration;

use super::table;
use crate::aws::error::Effect;
use crate::aws::retry::retry_while;
use crate::aws::{Answer, Aws, AwsError, once};
use crate::cluster::names::{CLUSTER_TAG, Cluster};
use crate::resource::{Diff, NotOurs, Resource, Settle, Tags, remove_extra, touches};
use crate::run::{Change, Kind};

/// The shortest that AWS allows.
pub const DELETION_WINDOW_DAYS: i32 = 7;
/// KMS hears of a new key in seconds. Source: KMS Developer Guide, "eventual consistency".
const PROPAGATION: Duration = Duration::from_secs(60);
const GONE: &[&str] = &["NotFoundException"];

/// A customer-managed key under `alias/wekactl-C`.
#[derive(Debug, Clone)]
pub struct KmsKey {
    /// The alias, with its prefix `alias/`.
    pub alias: String,
    /// Whose key it is.
    pub cluster: Cluster,
    /// Its tags.
    pub tags: Tags,
}

/// A key in AWS that is not pending deletion.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Its ARN.
    pub arn: String,
    /// Its id.
    pub id: String,
    /// The cluster's alias where it points at this key; `None`: it points elsewhere, or there is none.
    pub alias: Option<String>,
    description: String,
    rotation: bool,
    /// Seconds since 1970.
    created: i64,
    tags: Tags,
}

impl KmsKey {
    /// The key of a cluster.
    pub fn new(cluster: &Cluster, user_tags: &Tags) -> Self {
        Self {
            alias: cluster.kms_alias(),
            cluster: cluster.clone(),
            tags: cluster.tags(user_tags),
        }
    }

    fn description(&self) -> String {
        format!("Encrypts the table of Weka cluster {}", self.cluster.name)
    }

    fn sdk_tags(&self) -> Result<Vec<Tag>> {
        let tag = |(key, value): (&String, &String)| {
            Ok(Tag::builder().tag_key(key).tag_value(value).build()?)
        };
        self.tags.iter().map(tag).collect()
    }

    /// Points the alias at the key, away from one that pends deletion or is this cluster's too.
    async fn point_alias(&self, aws: &Aws, key: &str) -> Result<()> {
        let create = || async {
            aws.kms()
                .create_alias()
                .alias_name(&self.alias)
                .target_key_id(key)
                .send()
                .await
                .answer()
        };
        let created = retry_while(&aws.run, PROPAGATION, |error| error.is(GONE), create).await;
        let Err(taken) = created else { return Ok(()) };
        if !AwsError::of(&taken).is_some_and(|error| error.is(&["AlreadyExistsException"])) {
            return Err(taken);
        }
        let target = describe(aws, &self.alias).await?;
        let Some(target) = target else {
            return Err(taken);
        };
        if target.key_id() == key {
            return Ok(());
        }
        if !is_pending_deletion(&target) {
            let owner = tags_of(aws, target.key_id()).await?.remove(CLUSTER_TAG);
            if owner.as_ref() != Some(&self.cluster.name) {
                bail!(NotOurs {
                    kind: Kind::KmsKey,
                    name: self.alias.clone(),
                    owner,
                    cluster: self.cluster.name.clone(),
                });
            }
        }
        aws.kms()
            .update_alias()
            .alias_name(&self.alias)
            .target_key_id(key)
            .send()
            .await
            .answer()?;
        Ok(())
    }
}

async fn rotate(aws: &Aws, key: &str) -> Result<()> {
    let enable = || async {
        aws.kms()
            .enable_key_rotation()
            .key_id(key)
            .send()
            .await
            .answer()
    };
    retry_while(&aws.run, PROPAGATION, |error| error.is(GONE), enable).await?;
    Ok(())
}

async fn describe(aws: &Aws, key: &str) -> Result<Option<KeyMetadata>> {
    let answer = aws.kms().describe_key().key_id(key).send().await;
    Ok(answer
        .if_found(GONE)?
        .and_then(|answer| answer.key_metadata))
}

/// ARN of the key that an alias points at, if there is one.
///
/// # Errors
/// AWS's failures.
pub async fn arn_of(aws: &Aws, alias: &str) -> Result<Option<String>> {
    Ok(describe(aws, alias).await?.and_then(|key| key.arn))
}

fn is_pending_deletion(key: &KeyMetadata) -> bool {
    matches!(
        key.key_state(),
        Some(KeyState::PendingDeletion | KeyState::PendingReplicaDeletion)
    )
}

async fn tags_of(aws: &Aws, key: &str) -> Result<Tags> {
    let mut pages = aws
        .kms()
        .list_resource_tags()
        .key_id(key)
        .into_paginator()
        .send();
    let mut tags = Tags::new();
    while let Some(page) = pages.next().await {
        for tag in page.answer()?.tags() {
            tags.insert(tag.tag_key().to_owned(), tag.tag_value().to_owned());
        }
    }
    Ok(tags)
}

async fn is_rotated(aws: &Aws, key: &str) -> Result<bool> {
    let status = aws.kms().get_key_rotation_status().key_id(key).send().await;
    // An asymmetric key behind our alias is somebody else's: its tags are to say so, not this call.
    let status = status.if_found(&["UnsupportedOperationException"])?;
    Ok(status.is_some_and(|status| status.key_rotation_enabled()))
}

async fn observe(aws: &Aws, key: KeyMetadata, alias: Option<String>) -> Result<Option<Observed>> {
    if is_pending_deletion(&key) {
        return Ok(None);
    }
    let (tags, rotation) =
        tokio::try_join!(tags_of(aws, key.key_id()), is_rotated(aws, key.key_id()))?;
    Ok(Some(Observed {
        arn: key.arn().unwrap_or_default().to_owned(),
        alias,
        description: key.description().unwrap_or_default().to_owned(),
        rotation,
        created: key
            .creation_date()
            .map_or(0, aws_smithy_types::DateTime::secs),
        tags,
        id: key.key_id,
    }))
}

async fn find_by_alias(aws: &Aws, alias: &str) -> Result<Option<Observed>> {
    match describe(aws, alias).await? {
        Some(key) => observe(aws, key, Some(alias.to_owned())).await,
        None => Ok(None),
    }
}

/// By the exact key and value of our tag: a value alone says nothing.
async fn find_by_tag(aws: &Aws, cluster: &Cluster) -> Result<Vec<Observed>> {
    let ours = TagFilter::builder()
        .key(CLUSTER_TAG)
        .values(&cluster.name)
        .build();
    let mut pages = aws
        .tagging()
        .get_resources()
        .tag_filters(ours)
        .resource_type_filters("kms:key")
        .into_paginator()
        .send();
    let mut arns = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.answer()?;
        arns.extend(
            page.resource_tag_mapping_list()
                .iter()
                .filter_map(|each| each.resource_arn().map(ToOwned::to_owned)),
        );
    }
    let keys = try_join_all(arns.iter().map(|arn| async move {
        match describe(aws, arn).await? {
            Some(key) => observe(aws, key, None).await,
            None => Ok(None),
        }
    }))
    .await?;
    // The tagging service lags behind: what the key itself says counts.
    let ours = |key: &Observed| key.tags.get(CLUSTER_TAG) == Some(&cluster.name);
    Ok(keys.into_iter().flatten().filter(ours).collect())
}

/// What was found, and the key that the table is encrypted with if it is this cluster's: the alias may be gone, and
/// the tagging service lags behind.
///
/// # Errors
/// AWS's failures.
pub async fn with_the_tables(
    aws: &Aws,
    cluster: &Cluster,
    mut found: Vec<Observed>,
    table_key_arn: Option<&str>,
) -> Result<Vec<Observed>> {
    let account = aws.arn("kms", "key/").await?;
    let unseen = table_key_arn
        .filter(|arn| arn.starts_with(&account) && found.iter().all(|key| key.arn != *arn));
    let Some(arn) = unseen else { return Ok(found) };
    let key = describe(aws, arn).await?;
    let key = key.filter(|key| key.key_manager() == Some(&KeyManagerType::Customer));
    if let Some(key) = key
        && let Some(key) = observe(aws, key, None).await?
        && key.tags.get(CLUSTER_TAG) == Some(&cluster.name)
    {
        found.push(key);
    }
    Ok(found)
}

/// Puts the key first that the table is encrypted with: it is the one not to lose.
pub fn referenced_first(mut found: Vec<Observed>, table_key_arn: Option<&str>) -> Vec<Observed> {
    found.sort_by_key(|key| Some(key.arn.as_str()) != table_key_arn);
    found
}

/// Removes the keys that a lost answer, or another import, has left beside the one that is kept; never the one that the
/// table is encrypted with by now.
///
/// # Errors
/// AWS's failures.
pub async fn remove_surplus(aws: &Aws, cluster: &Cluster, surplus: Vec<Observed>) -> Result<()> {
    if surplus.is_empty() {
        return Ok(());
    }
    let in_use = table::key_arn_of(aws, &cluster.base()).await?;
    for key in surplus {
        if in_use.as_ref() != Some(&key.arn) {
            remove_extra::<KmsKey>(aws, cluster, &cluster.kms_alias(), key).await?;
        }
    }
    Ok(())
}

/// A key has no unique name. Once it is made, nothing that fails afterwards may lead to a second one,
/// as a failure would that says it may have taken effect.
fn made_already(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<AwsError>() {
        Ok(leaf) => AwsError {
            effect: Effect::None,
            ..leaf
        }
        .into(),
        Err(error) => error,
    }
}

impl Resource for KmsKey {
    const KIND: Kind = Kind::KmsKey;
    type Observed = Observed;

    fn name(&self) -> &str {
        &self.alias
    }

    async fn find(aws: &Aws, cluster: &Cluster, name: &str) -> Result<Vec<Observed>> {
        let (by_alias, mut others) =
            tokio::try_join!(find_by_alias(aws, name), find_by_tag(aws, cluster))?;
        others.retain(|key| by_alias.as_ref().is_none_or(|kept| kept.id != key.id));
        others.sort_by(|one, other| (one.created, &one.id).cmp(&(other.created, &other.id)));
        Ok(by_alias.into_iter().chain(others).collect())
    }

    fn tags(found: &Observed) -> Option<&Tags> {
        Some(&found.tags)
    }

    fn row_name(name: &str, found: &Observed) -> String {
        format!("{name} key {}", found.id)
    }

    fn changes(&self, found: &Observed) -> Vec<Change> {
        Diff::new()
            .field("alias", &found.alias, &Some(self.alias.clone()))
            .field("description", &found.description, &self.description())
            .field("keyRotationEnabled", &found.rotation, &true)
            .tags(&found.tags, &self.tags)
            .done()
    }

    async fn create(&self, aws: &Aws) -> Result<Observed> {
        let key = aws
            .kms()
            .create_key()
            .description(self.description())
            .set_tags(Some(self.sdk_tags()?))
            .customize()
            .config_override(aws_sdk_kms::config::Config::builder().retry_config(once()))
            .send()
            .await
            .answer()?
            .key_metadata;
        let Some(key) = key else {
            bail!("AWS made a key and did not say which");
        };
        tokio::join!(
            self.point_alias(aws, key.key_id()),
            rotate(aws, key.key_id())
        )
        .settle()
        .map_err(made_already)?;
        Ok(Observed {
            arn: key.arn().unwrap_or_default().to_owned(),
            alias: Some(self.alias.clone()),
            description: self.description(),
            rotation: true,
            created: key
                .creation_date()
                .map_or(0, aws_smithy_types::DateTime::secs),
            tags: self.tags.clone(),
            id: key.key_id,
        })
    }

    async fn update(&self, aws: &Aws, mut found: Observed, changes: &[Change]) -> Result<Observed> {
        aws.kms()
            .tag_resource()
            .key_id(&found.id)
            .set_tags(Some(self.sdk_tags()?))
            .send()
            .await
            .answer()?;
        let alias = async {
            if touches(changes, "alias") {
                self.point_alias(aws, &found.id).await?;
            }
            anyhow::Ok(())
        };
        let description = async {
            if touches(changes, "description") {
                aws.kms()
                    .update_key_description()
                    .key_id(&found.id)
                    .description(self.description())
                    .send()
                    .await
                    .answer()?;
            }
            anyhow::Ok(())
        };
        let rotation = async {
            if touches(changes, "keyRotationEnabled") {
                rotate(aws, &found.id).await?;
            }
            anyhow::Ok(())
        };
        tokio::join!(alias, description, rotation).settle()?;
        found.alias = Some(self.alias.clone());
        found.description = self.description();
        found.rotation = true;
        found.tags.extend(self.tags.clone());
        Ok(found)
    }

    /// The alias first: of a key that pends deletion nothing would be found to remove it by.
    async fn delete(aws: &Aws, found: Observed) -> Result<()> {
        if let Some(alias) = &found.alias {
            aws.kms()
                .delete_alias()
                .alias_name(alias)
                .send()
                .await
                .if_found(GONE)?;
        }
        let scheduled = aws
            .kms()
            .schedule_key_deletion()
            .key_id(&found.id)
            .pending_window_in_days(DELETION_WINDOW_DAYS)
            .send()
            .await
            .if_found(GONE);
        match scheduled {
            Err(error) if error.says("KMSInvalidStateException", "pending deletion") => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> KmsKey {
        let user = Tags::from([("owner".to_owned(), "me".to_owned())]);
        KmsKey::new(&"prod".parse().unwrap(), &user)
    }

    fn as_created() -> Observed {
        Observed {
            arn: "arn:aws:kms:eu-central-1:123456789012:key/1".into(),
            id: "1".into(),
            alias: Some("alias/wekactl-prod".into()),
            description: "Encrypts the table of Weka cluster prod".into(),
            rotation: true,
            created: 1,
            tags: wanted().tags,
        }
    }

    /// The field that a drift shows in, and the drift.
    type Drift = (&'static str, fn(&mut Observed));

    #[test]
    fn every_drift_is_seen() {
        assert_eq!(wanted().changes(&as_created()), []);
        let drifts: [Drift; 4] = [
            ("alias", |key| key.alias = None),
            ("description", |key| key.description = String::new()),
            ("keyRotationEnabled", |key| key.rotation = false),
            ("tags.owner", |key| drop(key.tags.remove("owner"))),
        ];
        for (field, drift) in drifts {
            let mut found = as_created();
            drift(&mut found);
            let changes = wanted().changes(&found);
            let fields: Vec<_> = changes.iter().map(|change| &change.field).collect();
            assert_eq!(fields, [field]);
        }
    }

    #[test]
    fn the_tables_own_key_is_kept() {
        let other = Observed {
            arn: "arn:aws:kms:eu-central-1:123456789012:key/2".into(),
            id: "2".into(),
            alias: None,
            ..as_created()
        };
        let ids = |table_key: Option<&str>| -> Vec<String> {
            let found = vec![as_created(), other.clone()];
            referenced_first(found, table_key)
                .into_iter()
                .map(|key| key.id)
                .collect()
        };
        assert_eq!(ids(None), ["1", "2"]);
        assert_eq!(ids(Some(&other.arn)), ["2", "1"]);
    }
}
