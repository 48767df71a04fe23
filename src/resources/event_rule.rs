//! The rule that starts the state machine every minute. Import makes it last, destroy removes it first.

use std::time::Duration;

use anyhow::{Result, bail};
use aws_sdk_eventbridge::types::{RetryPolicy, RuleState, Tag, Target as SdkTarget};

use super::role;
use crate::aws::{Answer, Aws};
use crate::cluster::names::Cluster;
use crate::resource::{Diff, Known, Resource, Tags, touches};
use crate::run::{Change, Kind};

const GONE: &[&str] = &["ResourceNotFoundException"];
const SCHEDULE: &str = "rate(1 minute)";
/// The Go tool's targets have a random one.
const TARGET_ID: &str = "wekactl";
/// A run that could not start is not made up for: the next one comes in a minute.
const RETRY_ATTEMPTS: i32 = 0;
/// The least that AWS takes.
const EVENT_AGE: i32 = 60;
/// How long a new role may be unknown.
const PROPAGATION: Duration = Duration::from_secs(120);

/// `wekactl-C-Backends`.
#[derive(Debug, Clone)]
pub struct EventRule {
    /// Its name.
    pub name: String,
    /// What it starts.
    pub state_machine_arn: String,
    /// The role that may start it.
    pub role_arn: Known<String>,
    /// Its tags.
    pub tags: Tags,
}

/// A rule in AWS.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// An operator may have disabled it; that is theirs to undo.
    pub enabled: bool,
    schedule: Option<String>,
    description: Option<String>,
    targets: Vec<Target>,
    tags: Tags,
}

#[derive(Debug, Clone)]
struct Target {
    id: String,
    arn: String,
    role_arn: Option<String>,
    attempts: Option<i32>,
    age: Option<i32>,
}

impl Observed {
    /// ARNs of the roles with which its targets are started.
    pub fn role_arns(&self) -> impl Iterator<Item = String> + '_ {
        self.targets
            .iter()
            .filter_map(|target| target.role_arn.clone())
    }

    /// Whether it starts anything: an operator may have disabled it.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// What a person should know of it.
    pub fn notice(&self) -> Option<String> {
        (!self.enabled).then(|| {
            format!(
                "event rule {} is disabled, so nothing scales the cluster; enable it in EventBridge when that is meant to go on",
                self.name
            )
        })
    }
}

impl EventRule {
    fn target(&self) -> Result<Target> {
        Ok(Target {
            id: TARGET_ID.to_owned(),
            arn: self.state_machine_arn.clone(),
            role_arn: Some(self.role_arn.get()?.clone()),
            attempts: Some(RETRY_ATTEMPTS),
            age: Some(EVENT_AGE),
        })
    }

    async fn put_target(&self, aws: &Aws) -> Result<Target> {
        let target = self.target()?;
        let wanted = SdkTarget::builder()
            .id(&target.id)
            .arn(&target.arn)
            .set_role_arn(target.role_arn.clone())
            .retry_policy(
                RetryPolicy::builder()
                    .maximum_retry_attempts(RETRY_ATTEMPTS)
                    .maximum_event_age_in_seconds(EVENT_AGE)
                    .build(),
            )
            .build()?;
        let put = role::retry_while_new(
            aws,
            self.role_arn.get()?,
            PROPAGATION,
            |error| error.says("ValidationException", "cannot be assumed by principal"),
            || async {
                aws.events()
                    .put_targets()
                    .rule(&self.name)
                    .targets(wanted.clone())
                    .send()
                    .await
                    .answer()
            },
        )
        .await?;
        let failure = put.failed_entries().first().map(|entry| {
            (
                entry.error_code().unwrap_or_default(),
                entry.error_message().unwrap_or_default(),
            )
        });
        all_done("setting its target", put.failed_entry_count(), failure)?;
        Ok(target)
    }
}

async fn tags_of(aws: &Aws, arn: &str) -> Result<Tags> {
    let answer = aws.events().list_tags_for_resource().resource_arn(arn);
    let tags = answer.send().await.if_found(GONE)?;
    let tags = tags.and_then(|answer| answer.tags).unwrap_or_default();
    Ok(tags.into_iter().map(|tag| (tag.key, tag.value)).collect())
}

impl Resource for EventRule {
    const KIND: Kind = Kind::EventRule;
    type Observed = Observed;

    fn name(&self) -> &str {
        &self.name
    }

    async fn find(aws: &Aws, _cluster: &Cluster, name: &str) -> Result<Vec<Observed>> {
        let arn = aws.arn("events", &format!("rule/{name}")).await?;
        let (rule, targets, tags) = tokio::join!(
            aws.events().describe_rule().name(name).send(),
            targets_of(aws, name),
            tags_of(aws, &arn),
        );
        let Some(rule) = rule.if_found(GONE)? else {
            return Ok(Vec::new());
        };
        let mut tags = tags?;
        if tags.is_empty() {
            // It may have been made between the two answers.
            tags = tags_of(aws, &arn).await?;
        }
        Ok(vec![Observed {
            name: name.to_owned(),
            arn,
            enabled: rule.state() != Some(&RuleState::Disabled),
            schedule: rule.schedule_expression,
            description: rule.description,
            targets: targets?,
            tags,
        }])
    }

    fn tags(found: &Observed) -> Option<&Tags> {
        Some(&found.tags)
    }

    fn changes(&self, found: &Observed) -> Vec<Change> {
        let ids: Vec<&str> = found
            .targets
            .iter()
            .map(|target| target.id.as_str())
            .collect();
        let mut diff = Diff::new()
            .field(
                "scheduleExpression",
                &found.schedule.as_deref(),
                &Some(SCHEDULE),
            )
            .field("targets", &ids, &vec![TARGET_ID]);
        if let Some(target) = found.targets.iter().find(|target| target.id == TARGET_ID) {
            diff = diff
                .field("target.arn", &target.arn, &self.state_machine_arn)
                .known(
                    "target.roleArn",
                    &target.role_arn,
                    &self.role_arn.map(|arn| Some(arn.clone())),
                )
                .field(
                    "target.retryPolicy.maximumRetryAttempts",
                    &target.attempts,
                    &Some(RETRY_ATTEMPTS),
                )
                .field(
                    "target.retryPolicy.maximumEventAgeInSeconds",
                    &target.age,
                    &Some(EVENT_AGE),
                );
        }
        diff.tags(&found.tags, &self.tags).done()
    }

    async fn create(&self, aws: &Aws) -> Result<Observed> {
        let made = aws
            .events()
            .put_rule()
            .name(&self.name)
            .schedule_expression(SCHEDULE)
            .state(RuleState::Enabled)
            .set_tags(Some(sdk_tags(&self.tags)?))
            .send()
            .await
            .answer()?;
        let target = self.put_target(aws).await?;
        Ok(Observed {
            name: self.name.clone(),
            arn: made.rule_arn.unwrap_or_default(),
            enabled: true,
            schedule: Some(SCHEDULE.to_owned()),
            description: None,
            targets: vec![target],
            tags: self.tags.clone(),
        })
    }

    async fn update(&self, aws: &Aws, mut found: Observed, changes: &[Change]) -> Result<Observed> {
        aws.events()
            .tag_resource()
            .resource_arn(&found.arn)
            .set_tags(Some(sdk_tags(&self.tags)?))
            .send()
            .await
            .answer()?;
        if touches(changes, "scheduleExpression") {
            // What is not said is reset: a disabled rule would be enabled.
            let state = if found.enabled {
                RuleState::Enabled
            } else {
                RuleState::Disabled
            };
            aws.events()
                .put_rule()
                .name(&self.name)
                .schedule_expression(SCHEDULE)
                .state(state)
                .set_description(found.description.clone())
                .send()
                .await
                .answer()?;
            found.schedule = Some(SCHEDULE.to_owned());
        }
        if touches(changes, "targets") || touches(changes, "target") {
            // Others first: with two, every run would happen twice.
            let others = found
                .targets
                .iter()
                .filter(|target| target.id != TARGET_ID)
                .map(|target| target.id.clone())
                .collect();
            remove_targets(aws, &self.name, others).await?;
            found.targets = vec![self.put_target(aws).await?];
        }
        found.tags.extend(self.tags.clone());
        Ok(found)
    }

    async fn delete(aws: &Aws, found: Observed) -> Result<()> {
        let targets = found.targets.into_iter().map(|target| target.id).collect();
        remove_targets(aws, &found.name, targets).await?;
        aws.events()
            .delete_rule()
            .name(&found.name)
            .send()
            .await
            .if_found(GONE)?;
        Ok(())
    }
}

async fn targets_of(aws: &Aws, rule: &str) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    let mut next = None;
    loop {
        let Some(page) = aws
            .events()
            .list_targets_by_rule()
            .rule(rule)
            .set_next_token(next)
            .send()
            .await
            .if_found(GONE)?
        else {
            return Ok(targets);
        };
        next = page.next_token;
        targets.extend(page.targets.unwrap_or_default().into_iter().map(|target| {
            let policy = target.retry_policy.as_ref();
            Target {
                attempts: policy.and_then(RetryPolicy::maximum_retry_attempts),
                age: policy.and_then(RetryPolicy::maximum_event_age_in_seconds),
                id: target.id,
                arn: target.arn,
                role_arn: target.role_arn,
            }
        }));
        if next.is_none() {
            return Ok(targets);
        }
    }
}

async fn remove_targets(aws: &Aws, rule: &str, ids: Vec<String>) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let Some(removed) = aws
        .events()
        .remove_targets()
        .rule(rule)
        .set_ids(Some(ids))
        .send()
        .await
        .if_found(GONE)?
    else {
        return Ok(());
    };
    let entries = removed.failed_entries();
    let failure = entries
        .iter()
        .map(|entry| {
            (
                entry.error_code().unwrap_or_default(),
                entry.error_message().unwrap_or_default(),
            )
        })
        .find(|(code, _)| !GONE.contains(code));
    if failure.is_none() && !entries.is_empty() {
        return Ok(());
    }
    all_done(
        "removing its targets",
        removed.failed_entry_count(),
        failure,
    )
}

/// These calls succeed with their failures inside.
fn all_done(what: &str, failures: i32, first: Option<(&str, &str)>) -> Result<()> {
    match first {
        Some((code, message)) => bail!("{what}: {message} ({code})"),
        None if failures > 0 => bail!("{what}: {failures} failed, and AWS does not say why"),
        None => Ok(()),
    }
}

fn sdk_tags(tags: &Tags) -> Result<Vec<Tag>> {
    tags.iter()
        .map(|(key, value)| Ok(Tag::builder().key(key).value(value).build()?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> EventRule {
        EventRule {
            name: "wekactl-prod-Backends".into(),
            state_machine_arn: "machine".into(),
            role_arn: Known::Value("role".into()),
            tags: Tags::from([("wekactl.io/cluster_name".into(), "prod".into())]),
        }
    }

    fn made() -> Observed {
        Observed {
            name: wanted().name,
            arn: "arn".into(),
            enabled: true,
            schedule: Some("rate(1 minute)".into()),
            description: None,
            targets: vec![wanted().target().expect("known")],
            tags: wanted().tags,
        }
    }

    fn changed(found: &Observed) -> Vec<String> {
        wanted()
            .changes(found)
            .into_iter()
            .map(|change| change.field)
            .collect()
    }

    #[test]
    fn every_drift_is_seen() {
        type Drift = fn(&mut Observed);
        let cases: &[(&str, Drift)] = &[
            ("scheduleExpression", |found| {
                found.schedule = Some("rate(1 hour)".into());
            }),
            ("targets", |found| found.targets.clear()),
            // The Go tool's only target.
            ("targets", |found| {
                found.targets[0].id = "5a8ce3cc-dca3-454e-a932-ce79d601dde0".into();
            }),
            ("targets", |found| {
                let second = Target {
                    id: "second".into(),
                    ..found.targets[0].clone()
                };
                found.targets.push(second);
            }),
            ("target.arn", |found| found.targets[0].arn = "other".into()),
            ("target.roleArn", |found| found.targets[0].role_arn = None),
            ("target.retryPolicy.maximumRetryAttempts", |found| {
                found.targets[0].attempts = Some(185);
            }),
            ("target.retryPolicy.maximumEventAgeInSeconds", |found| {
                found.targets[0].age = None;
            }),
            ("tags.wekactl.io/cluster_name", |found| found.tags.clear()),
        ];
        assert_eq!(changed(&made()), Vec::<String>::new());
        for (field, drift) in cases {
            let mut found = made();
            drift(&mut found);
            assert_eq!(changed(&found), [*field]);
        }
    }

    #[test]
    fn a_disabled_rule_is_no_difference_but_worth_a_word() {
        assert_eq!(made().notice(), None);
        let disabled = Observed {
            enabled: false,
            ..made()
        };
        assert_eq!(changed(&disabled), Vec::<String>::new());
        assert!(
            disabled
                .notice()
                .is_some_and(|text| text.contains("disabled"))
        );
    }

    #[test]
    fn failures_inside_an_answer_are_failures() {
        assert!(all_done("setting", 0, None).is_ok());
        let error = |result: Result<()>| result.expect_err("it failed").to_string();
        assert_eq!(
            error(all_done(
                "setting",
                1,
                Some(("LimitExceededException", "too many"))
            )),
            "setting: too many (LimitExceededException)"
        );
        assert_eq!(
            error(all_done("setting", 2, None)),
            "setting: 2 failed, and AWS does not say why"
        );
    }
}
