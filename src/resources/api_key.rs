//! The API key without which the REST API answers nobody.

use anyhow::Result;
use aws_sdk_apigateway::config::Config;
use aws_sdk_apigateway::types::ApiKey as Key;
use aws_smithy_types::DateTime;
use secrecy::SecretString;

use super::rest_api::{GONE, PAGE, ours_else_all, replace, tag};
use crate::aws::{Answer, Aws, once};
use crate::cluster::names::Cluster;
use crate::resource::{Diff, Resource, Tags, touches};
use crate::run::{Change, Kind};

/// `wekactl-C-Backends`.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: Tags,
}

/// An API key in AWS.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Its id.
    pub id: String,
    /// What a request carries in `x-api-key`.
    pub value: SecretString,
    enabled: bool,
    tags: Tags,
    created: DateTime,
}

impl Resource for ApiKey {
    const KIND: Kind = Kind::ApiKey;
    type Observed = Observed;

    fn name(&self) -> &str {
        &self.name
    }

    async fn find(aws: &Aws, cluster: &Cluster, name: &str) -> Result<Vec<Observed>> {
        // The query is for a prefix.
        let keys = aws
            .apigateway()
            .get_api_keys()
            .name_query(name)
            .include_values(true)
            .limit(PAGE)
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .answer()?;
        let named = keys.into_iter().filter(|key| key.name() == Some(name));
        let mut found: Vec<Observed> = ours_else_all(cluster, named, Key::tags)
            .into_iter()
            .map(|key| Observed {
                id: key.id.unwrap_or_default(),
                value: key.value.unwrap_or_default().into(),
                enabled: key.enabled,
                tags: key.tags.unwrap_or_default().into_iter().collect(),
                created: key.created_date.unwrap_or(DateTime::from_secs(0)),
            })
            .collect();
        found.sort_by_key(|key| key.created);
        Ok(found)
    }

    fn tags(found: &Observed) -> Option<&Tags> {
        Some(&found.tags)
    }

    fn row_name(name: &str, found: &Observed) -> String {
        format!("{name} id {}", found.id)
    }

    fn changes(&self, found: &Observed) -> Vec<Change> {
        Diff::new()
            .field("enabled", &found.enabled, &true)
            .tags(&found.tags, &self.tags)
            .done()
    }

    async fn create(&self, aws: &Aws) -> Result<Observed> {
        let once = Config::builder().retry_config(once());
        let made = aws
            .apigateway()
            .create_api_key()
            .name(&self.name)
            .enabled(true)
            .set_tags(Some(self.tags.clone().into_iter().collect()))
            .customize()
            .config_override(once)
            .send()
            .await
            .answer()?;
        Ok(Observed {
            id: made.id.unwrap_or_default(),
            value: made.value.unwrap_or_default().into(),
            enabled: true,
            tags: self.tags.clone(),
            created: made.created_date.unwrap_or(DateTime::from_secs(0)),
        })
    }

    async fn update(&self, aws: &Aws, mut found: Observed, changes: &[Change]) -> Result<Observed> {
        tag(aws, &format!("/apikeys/{}", found.id), &self.tags).await?;
        if touches(changes, "enabled") {
            aws.apigateway()
                .update_api_key()
                .api_key(&found.id)
                .patch_operations(replace("/enabled", "true"))
                .send()
                .await
                .answer()?;
            found.enabled = true;
        }
        found.tags.extend(self.tags.clone());
        Ok(found)
    }

    async fn delete(aws: &Aws, found: Observed) -> Result<()> {
        aws.apigateway()
            .delete_api_key()
            .api_key(&found.id)
            .send()
            .await
            .if_found(GONE)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drift_is_seen() {
        let key = ApiKey {
            name: "wekactl-prod-Backends".into(),
            tags: Tags::from([("wekactl.io/cluster_name".into(), "prod".into())]),
        };
        let mut found = Observed {
            id: "k1".into(),
            value: String::new().into(),
            enabled: true,
            tags: key.tags.clone(),
            created: DateTime::from_secs(1),
        };
        assert_eq!(key.changes(&found), []);
        found.enabled = false;
        found.tags.clear();
        let fields: Vec<String> = key.changes(&found).into_iter().map(|c| c.field).collect();
        assert_eq!(fields, ["enabled", "tags.wekactl.io/cluster_name"]);
    }
}
