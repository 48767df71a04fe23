//! The log group of a function: made before the function, so that Lambda needs no right to make one
//! and destroy leaves none behind.

use anyhow::Result;

use crate::aws::{Answer, Aws};
use crate::cluster::names::{CLUSTER_TAG, Cluster};
use crate::resource::{Diff, Resource, Tags, touches};
use crate::run::{Change, Kind};

/// A month of one run a minute.
pub const RETENTION_DAYS: i32 = 30;

const GONE: &[&str] = &["ResourceNotFoundException"];

/// `/aws/lambda/<function>`.
#[derive(Debug, Clone)]
pub struct LogGroup {
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: Tags,
}

/// A log group in AWS.
#[derive(Debug, Clone)]
pub struct Observed {
    name: String,
    arn: String,
    retention_days: Option<i32>,
    tags: Tags,
}

impl Observed {
    /// Whether it says whose it is: one that Lambda made by itself does not.
    pub fn is_tagged(&self) -> bool {
        self.tags.contains_key(CLUSTER_TAG)
    }
}

impl Resource for LogGroup {
    const KIND: Kind = Kind::LogGroup;
    type Observed = Observed;

    fn name(&self) -> &str {
        &self.name
    }

    async fn find(aws: &Aws, _cluster: &Cluster, name: &str) -> Result<Vec<Observed>> {
        let arn = aws.arn("logs", &format!("log-group:{name}")).await?;
        let (groups, tags) = tokio::join!(
            aws.logs()
                .describe_log_groups()
                .log_group_name_prefix(name)
                .limit(50)
                .send(),
            aws.logs()
                .list_tags_for_resource()
                .resource_arn(&arn)
                .send(),
        );
        // Names that begin with this one sort after it: it is on the first page or nowhere.
        let groups = groups.answer()?;
        let tags = tags
            .if_found(GONE)?
            .and_then(|answer| answer.tags)
            .unwrap_or_default();
        Ok(groups
            .log_groups()
            .iter()
            .filter(|group| group.log_group_name() == Some(name))
            .map(|group| Observed {
                name: name.to_owned(),
                arn: arn.clone(),
                retention_days: group.retention_in_days(),
                tags: tags.clone().into_iter().collect(),
            })
            .collect())
    }

    /// Lambda itself makes this very group, without tags, for a function that may: such a one is the function's
    /// and is taken over. One that carries another cluster's tag is not.
    fn tags(found: &Observed) -> Option<&Tags> {
        found.is_tagged().then_some(&found.tags)
    }

    fn changes(&self, found: &Observed) -> Vec<Change> {
        Diff::new()
            .field(
                "retentionInDays",
                &found.retention_days,
                &Some(RETENTION_DAYS),
            )
            .tags(&found.tags, &self.tags)
            .done()
    }

    async fn create(&self, aws: &Aws) -> Result<Observed> {
        aws.logs()
            .create_log_group()
            .log_group_name(&self.name)
            .set_tags(Some(self.tags.clone().into_iter().collect()))
            .send()
            .await
            .answer()?;
        aws.logs()
            .put_retention_policy()
            .log_group_name(&self.name)
            .retention_in_days(RETENTION_DAYS)
            .send()
            .await
            .answer()?;
        Ok(Observed {
            name: self.name.clone(),
            arn: aws.arn("logs", &format!("log-group:{}", self.name)).await?,
            retention_days: Some(RETENTION_DAYS),
            tags: self.tags.clone(),
        })
    }

    async fn update(&self, aws: &Aws, mut found: Observed, changes: &[Change]) -> Result<Observed> {
        aws.logs()
            .tag_resource()
            .resource_arn(&found.arn)
            .set_tags(Some(self.tags.clone().into_iter().collect()))
            .send()
            .await
            .answer()?;
        if touches(changes, "retentionInDays") {
            aws.logs()
                .put_retention_policy()
                .log_group_name(&self.name)
                .retention_in_days(RETENTION_DAYS)
                .send()
                .await
                .answer()?;
            found.retention_days = Some(RETENTION_DAYS);
        }
        found.tags.extend(self.tags.clone());
        Ok(found)
    }

    async fn delete(aws: &Aws, found: Observed) -> Result<()> {
        aws.logs()
            .delete_log_group()
            .log_group_name(&found.name)
            .send()
            .await
            .if_found(GONE)?;
        Ok(())
    }
}
