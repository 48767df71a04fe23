//! The state machine: what one minute's run does.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use aws_sdk_sfn::types::{
    ExecutionListItem, ExecutionStatus, StateMachineStatus, StateMachineType, Tag,
};
use serde_json::{Value, json};

use super::{fixed, function, role};
use crate::aws::{Answer, Aws, AwsError, Probe, wait_until};
use crate::cluster::names::{Cluster, FunctionKind};
use crate::resource::{Diff, Known, Resource, Tags, touches};
use crate::run::{Change, Kind};

/// A run that takes longer is ended: the next one is a minute after it.
pub const RUN_SECONDS: u32 = 58;
/// A run takes at most [`RUN_SECONDS`]; as much again for AWS to say that it has ended.
const RUN_DEADLINE: Duration = Duration::from_secs(2 * RUN_SECONDS as u64);
/// How much longer than its function's timeout a state waits, for Lambda to say so: a state that is given up
/// leaves a function behind that goes on.
const GRACE_SECONDS: i32 = 2;

const GONE: &[&str] = &["StateMachineDoesNotExist", "ResourceNotFound"];
/// How long a new role may be unknown, and a state machine of the same name may take to go.
const PATIENCE: Duration = Duration::from_secs(180);

/// `wekactl-C-Backends`.
#[derive(Debug, Clone)]
pub struct StateMachine {
    /// Its name.
    pub name: String,
    /// The role that may invoke the functions.
    pub role_arn: Known<String>,
    /// What it invokes.
    pub functions: Functions,
    /// Its tags.
    pub tags: Tags,
}

/// The ARNs of the functions of a run.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "they are the functions' own names")]
pub struct Functions {
    pub fetch: String,
    pub scale: String,
    pub terminate: String,
    pub transient: String,
}

/// A state machine in AWS.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Its ARN.
    pub arn: String,
    /// ARN of its role.
    pub role_arn: String,
    kind: String,
    definition: String,
    tags: Tags,
}

/// The latest run of a state machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRun {
    /// When it began.
    pub started: SystemTime,
    /// When it ended; `None`: it goes on.
    pub ended: Option<SystemTime>,
}

impl StateMachine {
    /// Amazon States Language.
    fn definition(&self) -> Value {
        let Functions {
            fetch,
            scale,
            terminate,
            transient,
        } = &self.functions;
        let seconds = |kind| function::timeout(kind) + GRACE_SECONDS;
        json!({
            "Comment": "One run: reads the group, lets Weka scale, terminates what Weka has released",
            "StartAt": "HostGroupInfo",
            "TimeoutSeconds": RUN_SECONDS,
            "States": {
                "HostGroupInfo": {
                    "Type": "Task",
                    "Resource": fetch,
                    // The lease is the execution's, so the functions have to know which one they work for.
                    "Parameters": {
                        "execution.$": "$$.Execution.Id",
                        "started.$": "$$.Execution.StartTime",
                    },
                    "TimeoutSeconds": seconds(FunctionKind::Fetch),
                    // Faults of Lambda, not of the function, and of this one alone: the others change things.
                    "Retry": [{
                        "ErrorEquals": [
                            "Lambda.ServiceException",
                            "Lambda.AWSLambdaException",
                            "Lambda.SdkClientException",
                            "Lambda.TooManyRequestsException",
                        ],
                        "IntervalSeconds": 1,
                        "MaxAttempts": 2,
                        "BackoffRate": 1.0,
                    }],
                    "Next": "Scale",
                },
                "Scale": {
                    "Type": "Task",
                    "Resource": scale,
                    "TimeoutSeconds": seconds(FunctionKind::Scale),
                    "Next": "Terminate",
                },
                "Terminate": {
                    "Type": "Task",
                    "Resource": terminate,
                    "TimeoutSeconds": seconds(FunctionKind::Terminate),
                    "Next": "ErrorCheck",
                },
                "ErrorCheck": {
                    "Type": "Choice",
                    "Choices": [{
                        "Variable": "$.TransientErrors",
                        "IsNull": false,
                        "Next": "Transient",
                    }],
                    "Default": "Success",
                },
                "Transient": {
                    "Type": "Task",
                    "Resource": transient,
                    "TimeoutSeconds": seconds(FunctionKind::Transient),
                    "End": true,
                },
                "Success": {"Type": "Succeed"},
            },
        })
    }
}

async fn tags_of(aws: &Aws, arn: &str) -> Result<Tags> {
    let answer = aws.sfn().list_tags_for_resource().resource_arn(arn);
    let tags = answer.send().await.if_found(GONE)?;
    let tags = tags.and_then(|answer| answer.tags).unwrap_or_default();
    let pair = |tag: Tag| Some((tag.key?, tag.value?));
    Ok(tags.into_iter().filter_map(pair).collect())
}

impl Resource for StateMachine {
    const KIND: Kind = Kind::StateMachine;
    type Observed = Observed;

    fn name(&self) -> &str {
        &self.name
    }

    async fn find(aws: &Aws, _cluster: &Cluster, name: &str) -> Result<Vec<Observed>> {
        let arn = arn(aws, name).await?;
        let (machine, tags) = tokio::join!(
            aws.sfn()
                .describe_state_machine()
                .state_machine_arn(&arn)
                .send(),
            tags_of(aws, &arn),
        );
        let machine = machine
            .if_found(GONE)?
            .filter(|machine| machine.status() != Some(&StateMachineStatus::Deleting));
        let Some(machine) = machine else {
            return Ok(Vec::new());
        };
        let mut tags = tags?;
        if tags.is_empty() {
            // It may have been made between the two answers.
            tags = tags_of(aws, &arn).await?;
        }
        Ok(vec![Observed {
            arn,
            kind: machine.r#type().as_str().to_owned(),
            definition: machine.definition,
            role_arn: machine.role_arn,
            tags,
        }])
    }

    fn tags(found: &Observed) -> Option<&Tags> {
        Some(&found.tags)
    }

    fn changes(&self, found: &Observed) -> Vec<Change> {
        Diff::new()
            .field(
                "type",
                &found.kind.as_str(),
                &StateMachineType::Standard.as_str(),
            )
            .json("definition", Some(&found.definition), &self.definition())
            .known("roleArn", &found.role_arn, &self.role_arn)
            .tags(&found.tags, &self.tags)
            .done()
    }

    async fn create(&self, aws: &Aws) -> Result<Observed> {
        let definition = self.definition().to_string();
        let role_arn = self.role_arn.get()?;
        let made = role::retry_while_new(
            aws,
            role_arn,
            PATIENCE,
            |error| is_new_role(error) || error.is(&["StateMachineDeleting"]),
            || async {
                aws.sfn()
                    .create_state_machine()
                    .name(&self.name)
                    .r#type(StateMachineType::Standard)
                    .definition(&definition)
                    .role_arn(role_arn)
                    .set_tags(Some(sdk_tags(&self.tags)))
                    .send()
                    .await
                    .answer()
            },
        )
        .await?;
        Ok(Observed {
            arn: made.state_machine_arn,
            kind: StateMachineType::Standard.as_str().to_owned(),
            definition,
            role_arn: role_arn.clone(),
            tags: self.tags.clone(),
        })
    }

    async fn update(&self, aws: &Aws, mut found: Observed, changes: &[Change]) -> Result<Observed> {
        fixed(changes, &["type"])?;
        aws.sfn()
            .tag_resource()
            .resource_arn(&found.arn)
            .set_tags(Some(sdk_tags(&self.tags)))
            .send()
            .await
            .answer()?;
        if touches(changes, "definition") || touches(changes, "roleArn") {
            let definition = self.definition().to_string();
            let role_arn = self.role_arn.get()?;
            role::retry_while_new(aws, role_arn, PATIENCE, is_new_role, || async {
                aws.sfn()
                    .update_state_machine()
                    .state_machine_arn(&found.arn)
                    .definition(&definition)
                    .role_arn(role_arn)
                    .send()
                    .await
                    .answer()
            })
            .await?;
            found.definition = definition;
            found.role_arn.clone_from(role_arn);
        }
        found.tags.extend(self.tags.clone());
        Ok(found)
    }

    /// AWS deletes it when its executions have ended; until then it is `DELETING`, which counts as gone.
    async fn delete(aws: &Aws, found: Observed) -> Result<()> {
        aws.sfn()
            .delete_state_machine()
            .state_machine_arn(&found.arn)
            .send()
            .await
            .if_found(GONE)?;
        Ok(())
    }
}

/// The ARN of the state machine of that name.
///
/// # Errors
/// As [`Aws::identity`].
pub async fn arn(aws: &Aws, name: &str) -> Result<String> {
    aws.arn("states", &format!("stateMachine:{name}")).await
}

/// Waits until the runs have ended that are under way now. Those that begin later are not waited for.
///
/// # Errors
/// AWS's failures; a run that takes longer than one can.
pub async fn wait_for_runs_under_way(aws: &Aws, machine_arn: &str) -> Result<()> {
    let running = async || {
        let running = running(aws, machine_arn).await?.into_iter();
        let arns = running.map(|execution| execution.execution_arn().to_owned());
        anyhow::Ok(arns.collect::<BTreeSet<String>>())
    };
    let under_way = &running().await?;
    if under_way.is_empty() {
        return Ok(());
    }
    let what = "the runs under way to end";
    wait_until(&aws.run, what, RUN_DEADLINE, || async {
        let left = running().await?.intersection(under_way).count();
        Ok(match left {
            0 => Probe::Ready(()),
            left => Probe::Pending(format!("{left} under way")),
        })
    })
    .await
}

async fn running(aws: &Aws, machine_arn: &str) -> Result<Vec<ExecutionListItem>> {
    let running = aws
        .sfn()
        .list_executions()
        .state_machine_arn(machine_arn)
        .status_filter(ExecutionStatus::Running)
        .into_paginator()
        .items()
        .send()
        .try_collect()
        .await
        .if_found(GONE)
        .context("listing its executions")?;
    Ok(running.unwrap_or_default())
}

/// Ends every execution under way, and says how many there were. The function that one of them is in goes on.
///
/// # Errors
/// AWS's failures.
pub async fn stop_executions(aws: &Aws, machine_arn: &str) -> Result<usize> {
    let running = running(aws, machine_arn).await?;
    futures::future::join_all(running.iter().map(|execution| async move {
        aws.sfn()
            .stop_execution()
            .execution_arn(execution.execution_arn())
            .cause("the cluster is being destroyed")
            .send()
            .await
            .if_found(&["ExecutionDoesNotExist"])
            .with_context(|| format!("stopping execution {}", execution.name()))
    }))
    .await
    .into_iter()
    .collect::<Result<Vec<_>>>()?;
    Ok(running.len())
}

/// The latest execution; `None`: there never was one, or there is no such state machine.
///
/// # Errors
/// AWS's failures.
pub async fn last_run(aws: &Aws, machine_arn: &str) -> Result<Option<LastRun>> {
    let answer = aws
        .sfn()
        .list_executions()
        .state_machine_arn(machine_arn)
        .max_results(1)
        .send()
        .await
        .if_found(GONE)
        .context("listing its executions")?;
    let Some(last) = answer.and_then(|answer| answer.executions.into_iter().next()) else {
        return Ok(None);
    };
    let ended = last.stop_date.map(SystemTime::try_from).transpose()?;
    Ok(Some(LastRun {
        started: SystemTime::try_from(last.start_date)?,
        ended,
    }))
}

/// A role that IAM has not told everybody of yet. The words are AWS's; the caller's own lack of a permission
/// has the same code and other words.
fn is_new_role(error: &AwsError) -> bool {
    error.says(
        "AccessDeniedException",
        "authorized to assume the provided role",
    )
}

fn sdk_tags(tags: &Tags) -> Vec<Tag> {
    tags.iter()
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::error::Effect;

    fn wanted() -> StateMachine {
        StateMachine {
            name: "wekactl-prod-Backends".into(),
            role_arn: Known::Value("role".into()),
            functions: Functions {
                fetch: "arn:fetch".into(),
                scale: "arn:scale".into(),
                terminate: "arn:terminate".into(),
                transient: "arn:transient".into(),
            },
            tags: Tags::from([("wekactl.io/cluster_name".into(), "prod".into())]),
        }
    }

    #[test]
    fn every_drift_is_seen() {
        type Drift = fn(&mut Observed);
        let cases: &[(&str, Drift)] = &[
            ("type", |found| found.kind = "EXPRESS".into()),
            ("definition", |found| {
                found.definition = found.definition.replace("arn:scale", "arn:other");
            }),
            ("definition", |found| found.definition = "{".into()),
            ("roleArn", |found| found.role_arn = "other".into()),
            ("tags.wekactl.io/cluster_name", |found| found.tags.clear()),
        ];
        let made = Observed {
            arn: "arn".into(),
            kind: "STANDARD".into(),
            // AWS keeps the text; a person who saves it in the console does not.
            definition: format!("{:#}", wanted().definition()),
            role_arn: "role".into(),
            tags: wanted().tags,
        };
        assert_eq!(wanted().changes(&made), []);
        for (field, drift) in cases {
            let mut found = made.clone();
            drift(&mut found);
            let fields: Vec<String> = wanted()
                .changes(&found)
                .into_iter()
                .map(|change| change.field)
                .collect();
            assert_eq!(fields, [*field]);
        }
    }

    #[test]
    fn only_a_role_that_is_not_known_yet_is_worth_waiting_for() {
        let error = |message: &str| AwsError {
            code: Some("AccessDeniedException".into()),
            message: message.into(),
            request_id: None,
            effect: Effect::None,
        };
        assert!(is_new_role(&error(
            "Neither the global service principal states.amazonaws.com, nor the regional one is authorized to assume the provided role."
        )));
        assert!(!is_new_role(&error(
            "User: arn:aws:iam::123456789012:user/me is not authorized to perform: states:CreateStateMachine"
        )));
    }

    #[test]
    fn the_document() {
        insta::assert_json_snapshot!(wanted().definition(), @r#"
        {
          "Comment": "One run: reads the group, lets Weka scale, terminates what Weka has released",
          "StartAt": "HostGroupInfo",
          "States": {
            "ErrorCheck": {
              "Choices": [
                {
                  "IsNull": false,
                  "Next": "Transient",
                  "Variable": "$.TransientErrors"
                }
              ],
              "Default": "Success",
              "Type": "Choice"
            },
            "HostGroupInfo": {
              "Next": "Scale",
              "Parameters": {
                "execution.$": "$$.Execution.Id",
                "started.$": "$$.Execution.StartTime"
              },
              "Resource": "arn:fetch",
              "Retry": [
                {
                  "BackoffRate": 1.0,
                  "ErrorEquals": [
                    "Lambda.ServiceException",
                    "Lambda.AWSLambdaException",
                    "Lambda.SdkClientException",
                    "Lambda.TooManyRequestsException"
                  ],
                  "IntervalSeconds": 1,
                  "MaxAttempts": 2
                }
              ],
              "TimeoutSeconds": 10,
              "Type": "Task"
            },
            "Scale": {
              "Next": "Terminate",
              "Resource": "arn:scale",
              "TimeoutSeconds": 37,
              "Type": "Task"
            },
            "Success": {
              "Type": "Succeed"
            },
            "Terminate": {
              "Next": "ErrorCheck",
              "Resource": "arn:terminate",
              "TimeoutSeconds": 14,
              "Type": "Task"
            },
            "Transient": {
              "End": true,
              "Resource": "arn:transient",
              "TimeoutSeconds": 7,
              "Type": "Task"
            }
          },
          "TimeoutSeconds": 58
        }
        "#);
    }
}
