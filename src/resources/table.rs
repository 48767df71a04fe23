//! The cluster's table: settings, credentials and the lease, one item each.

use std::time::Duration;

use anyhow::Result;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, PointInTimeRecoverySpecification,
    PointInTimeRecoveryStatus, ScalarAttributeType, SseSpecification, SseType, TableDescription,
    TableStatus, Tag,
};

use crate::aws::retry::retry_while;
use crate::aws::{Answer, Aws, AwsError, Probe, wait_until};
use crate::cluster::names::{Cluster, NO_STACK, STACK_TAG};
use crate::resource::{Diff, Known, Resource, Tags, touches};
use crate::resources::fixed;
use crate::run::{Change, Kind};

/// The hash key of every item.
pub const HASH_KEY: &str = "Key";
/// A table is made, changed or removed in seconds as a rule.
const DEADLINE: Duration = Duration::from_secs(180);
/// The database hears of a new key in seconds. Source: KMS Developer Guide, "eventual consistency".
const KEY_DEADLINE: Duration = Duration::from_secs(60);
/// Before the second look at tags that seem not to be there.
const TAGS_PAUSE: Duration = Duration::from_secs(1);
const GONE: &[&str] = &["ResourceNotFoundException"];
const IN_USE: &[&str] = &["ResourceInUseException"];

/// `wekactl-C`.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// ARN of the key it is encrypted with.
    pub key_arn: Known<String>,
    /// Its tags, the stack's ARN among them.
    pub tags: Tags,
}

/// A table in AWS that is not being deleted.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// ARN of the customer-managed key it is encrypted with, if it is.
    pub key_arn: Option<String>,
    status: String,
    hash_key: Option<String>,
    billing_mode: String,
    tags: Tags,
}

impl Table {
    /// The table of a cluster.
    pub fn new(
        cluster: &Cluster,
        key_arn: Known<String>,
        stack_id: Option<&str>,
        user_tags: &Tags,
    ) -> Self {
        let mut tags = cluster.tags(user_tags);
        if let Some(stack_id) = stack_id {
            tags.insert(STACK_TAG.to_owned(), stack_id.to_owned());
        }
        Self {
            name: cluster.base(),
            key_arn,
            tags,
        }
    }

    fn encryption(&self) -> Result<SseSpecification> {
        Ok(SseSpecification::builder()
            .enabled(true)
            .sse_type(SseType::Kms)
            .kms_master_key_id(self.key_arn.get()?)
            .build())
    }

    /// With a word that a new one came from no stack. One that is there and does not tell may be the earlier tool's,
    /// and from a stack.
    fn tags_to_create(&self) -> Tags {
        let mut tags = self.tags.clone();
        tags.entry(STACK_TAG.to_owned())
            .or_insert_with(|| NO_STACK.to_owned());
        tags
    }

    fn sdk_tags(&self) -> Result<Vec<Tag>> {
        let tag = |(key, value)| Ok(Tag::builder().key(key).value(value).build()?);
        self.tags_to_create().into_iter().map(tag).collect()
    }

    async fn request(&self, aws: &Aws) -> Result<()> {
        let request = aws
            .dynamodb()
            .create_table()
            .table_name(&self.name)
            .attribute_definitions(
                AttributeDefinition::builder()
                    .attribute_name(HASH_KEY)
                    .attribute_type(ScalarAttributeType::S)
                    .build()?,
            )
            .key_schema(
                KeySchemaElement::builder()
                    .attribute_name(HASH_KEY)
                    .key_type(KeyType::Hash)
                    .build()?,
            )
            .billing_mode(BillingMode::PayPerRequest)
            .sse_specification(self.encryption()?)
            .set_tags(Some(self.sdk_tags()?));
        let request = || async { request.clone().send().await.answer() };
        retry_while(&aws.run, KEY_DEADLINE, is_key_unknown, request).await?;
        Ok(())
    }
}

/// The key was made a moment ago.
fn is_key_unknown(error: &AwsError) -> bool {
    ["KMS", "key"]
        .iter()
        .any(|words| error.says("ValidationException", words))
}

async fn describe(aws: &Aws, name: &str) -> Result<Option<TableDescription>> {
    let answer = aws
        .dynamodb()
        .describe_table()
        .table_name(name)
        .send()
        .await;
    Ok(answer.if_found(GONE)?.and_then(|answer| answer.table))
}

async fn tags_of(aws: &Aws, arn: &str) -> Result<Tags> {
    let mut tags = Tags::new();
    let mut next = None;
    loop {
        let page = aws
            .dynamodb()
            .list_tags_of_resource()
            .resource_arn(arn)
            .set_next_token(next)
            .send()
            .await
            .if_found(GONE)?;
        let Some(page) = page else { return Ok(tags) };
        for tag in page.tags() {
            tags.insert(tag.key().to_owned(), tag.value().to_owned());
        }
        next = page.next_token;
        if next.is_none() {
            return Ok(tags);
        }
    }
}

/// ARN of the key that the table is encrypted with now.
///
/// # Errors
/// AWS's failures.
pub async fn key_arn_of(aws: &Aws, name: &str) -> Result<Option<String>> {
    let table = describe(aws, name).await?;
    let key = table.and_then(|table| table.sse_description);
    Ok(key.and_then(|key| key.kms_master_key_arn))
}

fn observe(name: &str, arn: String, table: &TableDescription, tags: Tags) -> Observed {
    let billing = table
        .billing_mode_summary()
        .and_then(|it| it.billing_mode());
    let key = table
        .sse_description()
        .and_then(|it| it.kms_master_key_arn());
    let hash_key = table.key_schema().first();
    Observed {
        name: name.to_owned(),
        arn,
        key_arn: key.map(ToOwned::to_owned),
        status: status_of(table),
        hash_key: hash_key.map(|key| key.attribute_name().to_owned()),
        // AWS says nothing of a table that never was on demand.
        billing_mode: billing
            .unwrap_or(&BillingMode::Provisioned)
            .as_str()
            .to_owned(),
        tags,
    }
}

fn status_of(table: &TableDescription) -> String {
    table
        .table_status()
        .map_or_else(String::new, ToString::to_string)
}

async fn wait_until_active(aws: &Aws, name: &str) -> Result<TableDescription> {
    let what = format!("DynamoDB table {name} becomes active");
    wait_until(&aws.run, &what, DEADLINE, || async {
        Ok(match describe(aws, name).await? {
            // A table that was just made is not known everywhere at once.
            None => Probe::Pending("not there yet".to_owned()),
            Some(table) => match table.table_status() {
                Some(TableStatus::Active) => Probe::Ready(table),
                Some(TableStatus::Creating | TableStatus::Updating) => {
                    Probe::Pending(status_of(&table))
                }
                _ => Probe::Failed(format!("it is {}", status_of(&table))),
            },
        })
    })
    .await
}

async fn wait_until_gone(aws: &Aws, name: &str) -> Result<()> {
    let what = format!("DynamoDB table {name} is gone");
    wait_until(&aws.run, &what, DEADLINE, || async {
        Ok(match describe(aws, name).await? {
            None => Probe::Ready(()),
            Some(table) => Probe::Pending(status_of(&table)),
        })
    })
    .await
}

async fn is_being_deleted(aws: &Aws, name: &str) -> Result<bool> {
    let table = describe(aws, name).await?;
    Ok(table.is_some_and(|table| table.table_status() == Some(&TableStatus::Deleting)))
}

/// A deleted table with point-in-time recovery leaves a backup for 35 days, the password in it.
async fn stop_backups(aws: &Aws, name: &str) -> Result<()> {
    let backups = aws
        .dynamodb()
        .describe_continuous_backups()
        .table_name(name)
        .send()
        .await
        .if_found(&["TableNotFoundException", "ResourceNotFoundException"])?;
    let is_on = backups
        .as_ref()
        .and_then(|answer| answer.continuous_backups_description())
        .and_then(|backups| backups.point_in_time_recovery_description())
        .and_then(|recovery| recovery.point_in_time_recovery_status())
        == Some(&PointInTimeRecoveryStatus::Enabled);
    if is_on {
        aws.dynamodb()
            .update_continuous_backups()
            .table_name(name)
            .point_in_time_recovery_specification(
                PointInTimeRecoverySpecification::builder()
                    .point_in_time_recovery_enabled(false)
                    .build()?,
            )
            .send()
            .await
            .answer()?;
    }
    Ok(())
}

impl Resource for Table {
    const KIND: Kind = Kind::Table;
    type Observed = Observed;

    fn name(&self) -> &str {
        &self.name
    }

    async fn find(aws: &Aws, _cluster: &Cluster, name: &str) -> Result<Vec<Observed>> {
        let arn = aws.arn("dynamodb", &format!("table/{name}")).await?;
        let (table, mut tags) = tokio::try_join!(describe(aws, name), tags_of(aws, &arn))?;
        let table = table.filter(|table| table.table_status() != Some(&TableStatus::Deleting));
        let Some(table) = table else {
            return Ok(Vec::new());
        };
        // Tags are read with a delay, and without them a table that was just made would be somebody else's.
        if tags.is_empty() {
            aws.run.pause(TAGS_PAUSE).await?;
            tags = tags_of(aws, &arn).await?;
        }
        Ok(vec![observe(name, arn, &table, tags)])
    }

    fn tags(found: &Observed) -> Option<&Tags> {
        Some(&found.tags)
    }

    /// A table that is being changed can be used; one that is being made, or has lost its key, can not.
    fn changes(&self, found: &Observed) -> Vec<Change> {
        let active = TableStatus::Active.as_str().to_owned();
        let status = if found.status == TableStatus::Updating.as_str() {
            &active
        } else {
            &found.status
        };
        Diff::new()
            .field("tableStatus", status, &active)
            .field("keySchema", &found.hash_key, &Some(HASH_KEY.to_owned()))
            .field(
                "billingMode",
                &found.billing_mode,
                &BillingMode::PayPerRequest.as_str().to_owned(),
            )
            .known(
                "sseDescription.kmsMasterKeyArn",
                &found.key_arn,
                &self.key_arn.map(|arn| Some(arn.clone())),
            )
            .tags(&found.tags, &self.tags)
            .done()
    }

    async fn create(&self, aws: &Aws) -> Result<Observed> {
        let mut made = self.request(aws).await;
        if let Err(error) = &made
            && AwsError::of(error).is_some_and(|cause| cause.is(IN_USE))
            && is_being_deleted(aws, &self.name).await?
        {
            wait_until_gone(aws, &self.name).await?;
            made = self.request(aws).await;
        }
        made?;
        let table = wait_until_active(aws, &self.name).await?;
        let arn = aws.arn("dynamodb", &format!("table/{}", self.name)).await?;
        Ok(observe(&self.name, arn, &table, self.tags_to_create()))
    }

    async fn update(&self, aws: &Aws, found: Observed, changes: &[Change]) -> Result<Observed> {
        fixed(changes, &["keySchema"])?;
        let mut table = wait_until_active(aws, &self.name).await?;
        aws.dynamodb()
            .tag_resource()
            .resource_arn(&found.arn)
            .set_tags(Some(self.sdk_tags()?))
            .send()
            .await
            .answer()?;
        // One change at a time: AWS does not take both in one call.
        if touches(changes, "billingMode") {
            aws.dynamodb()
                .update_table()
                .table_name(&self.name)
                .billing_mode(BillingMode::PayPerRequest)
                .send()
                .await
                .answer()?;
            table = wait_until_active(aws, &self.name).await?;
        }
        if touches(changes, "sseDescription") {
            aws.dynamodb()
                .update_table()
                .table_name(&self.name)
                .sse_specification(self.encryption()?)
                .send()
                .await
                .answer()?;
            table = wait_until_active(aws, &self.name).await?;
        }
        let mut tags = found.tags;
        tags.extend(self.tags.clone());
        Ok(observe(&self.name, found.arn, &table, tags))
    }

    async fn delete(aws: &Aws, found: Observed) -> Result<()> {
        let name = &found.name;
        stop_backups(aws, name).await?;
        let request = || async {
            let answer = aws.dynamodb().delete_table().table_name(name).send().await;
            answer.if_found(GONE).map(drop)
        };
        // In use: it is being made, changed, or deleted already.
        retry_while(&aws.run, DEADLINE, |error| error.is(IN_USE), request).await?;
        wait_until_gone(aws, name).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:eu-central-1:123456789012:key/1";

    fn wanted() -> Table {
        let user = Tags::from([("owner".to_owned(), "me".to_owned())]);
        Table::new(
            &"prod".parse().unwrap(),
            Known::Value(KEY.into()),
            Some("arn:aws:cloudformation:eu-central-1:123456789012:stack/prod/1"),
            &user,
        )
    }

    fn as_created() -> Observed {
        Observed {
            name: "wekactl-prod".into(),
            arn: "arn:aws:dynamodb:eu-central-1:123456789012:table/wekactl-prod".into(),
            key_arn: Some(KEY.into()),
            status: "ACTIVE".into(),
            hash_key: Some("Key".into()),
            billing_mode: "PAY_PER_REQUEST".into(),
            tags: wanted().tags,
        }
    }

    #[test]
    fn only_a_key_that_is_not_known_yet_is_waited_for() {
        for (message, passes) in [
            ("KMS validation error: the key does not exist", true),
            ("Invalid table name", false),
        ] {
            let refusal = AwsError {
                code: Some("ValidationException".into()),
                message: message.into(),
                request_id: None,
                effect: crate::aws::error::Effect::None,
            };
            assert_eq!(is_key_unknown(&refusal), passes, "{message}");
        }
    }

    /// The field that a drift shows in, and the drift.
    type Drift = (&'static str, fn(&mut Observed));

    #[test]
    fn every_drift_is_seen() {
        assert_eq!(wanted().changes(&as_created()), []);
        let drifts: [Drift; 8] = [
            ("tableStatus", |table| table.status = "CREATING".into()),
            ("keySchema", |table| table.hash_key = Some("id".into())),
            ("billingMode", |table| {
                table.billing_mode = "PROVISIONED".into();
            }),
            ("sseDescription.kmsMasterKeyArn", |table| {
                table.key_arn = None;
            }),
            ("sseDescription.kmsMasterKeyArn", |table| {
                table.key_arn = Some(KEY.replace("key/1", "key/2"));
            }),
            ("tags.owner", |table| drop(table.tags.remove("owner"))),
            ("tags.wekactl.io/stack_id", |table| {
                table.tags.insert(STACK_TAG.into(), String::new());
            }),
            ("tags.wekactl.io/cluster_name", |table| {
                table.tags.remove("wekactl.io/cluster_name");
            }),
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
    fn a_key_that_is_yet_to_be_made_is_a_change() {
        let wanted = Table {
            key_arn: Known::AfterApply,
            ..wanted()
        };
        let changes = wanted.changes(&as_created());
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].to.as_deref(), Some("(known after apply)"));
    }

    #[test]
    fn a_table_that_is_being_changed_is_left_alone() {
        let found = Observed {
            status: "UPDATING".into(),
            ..as_created()
        };
        assert_eq!(wanted().changes(&found), []);
    }
}
