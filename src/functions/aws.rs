//! The functions' AWS: calls and answers, no rules.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use aws_sdk_autoscaling::types::AutoScalingGroup;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use jiff::Timestamp;

use super::lease::{Hold, Learned, Lease, RefusedLogin};
use super::ports::{Backend, Clock, Cloud, CloudError};
use crate::aws::error::Effect;
use crate::aws::{Answer, Aws, AwsError};
use crate::cluster::names::Cluster;
use crate::cluster::policies::{JOINED_TAG, LEASE_ITEM};
use crate::cluster::settings::{self, Credentials};
use crate::cluster::spec::Cores;
use crate::resource::Tags;
use crate::resources::instances;
use crate::weka::scaling::{Ec2State, Group, Instance};

/// Another has the lease.
const NOT_OURS: &[&str] = &["ConditionalCheckFailedException"];

const READING_THE_TABLE: &str = "reading the cluster's table";

/// The machine's clock.
pub(super) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// [`Cloud`] of one cluster.
pub(super) struct AwsCloud {
    pub(super) aws: Aws,
    pub(super) cluster: Cluster,
    /// Name of the Auto Scaling group.
    pub(super) group: String,
    /// Name of the table.
    pub(super) table: String,
}

type Item = HashMap<String, AttributeValue>;

impl Cloud for AwsCloud {
    async fn group(&self) -> Result<Group, CloudError> {
        let what = format!("reading Auto Scaling group {}", self.group);
        self.read_group()
            .await
            .map_err(|error| failed(&what, &error))
    }

    async fn credentials(&self) -> Result<Option<Credentials>, CloudError> {
        let read = settings::read_credentials(&self.aws, &self.cluster).await;
        read.map_err(|error| failed(READING_THE_TABLE, &error))
    }

    async fn take_lease(&self, hold: &Hold, now: Timestamp) -> Result<Option<Lease>, CloudError> {
        let answer = self
            .lease(hold)
            .update_expression("SET Execution = :execution, Expires = :expires")
            .condition_expression(
                "attribute_not_exists(Expires) OR Expires <= :now OR Execution = :execution",
            )
            .expression_attribute_values(":now", number(now.as_second()))
            .return_values(ReturnValue::AllNew)
            .send()
            .await
            .if_found(NOT_OURS)
            .map_err(|error| failed("taking the lease", &error.into()))?;
        Ok(answer.map(|answer| lease(&answer.attributes.unwrap_or_default())))
    }

    async fn write_lease(&self, hold: &Hold, learned: &Learned) -> Result<bool, CloudError> {
        let mut values = Item::new();
        let mut sets = vec!["Execution = :execution"];
        if let Some(guid) = &learned.guid {
            sets.push("Guid = if_not_exists(Guid, :guid)");
            values.insert(":guid".to_owned(), AttributeValue::S(guid.clone()));
        }
        if let Some(desired) = learned.previous_desired {
            sets.push("PreviousDesired = :desired");
            values.insert(":desired".to_owned(), number(desired.into()));
        }
        if let Some(refused) = &learned.refused_login {
            sets.push("RefusedLogin = :refused");
            values.insert(":refused".to_owned(), refused_login(refused));
        }
        let mut request = self
            .lease(hold)
            .update_expression(format!("SET {}", sets.join(", ")))
            .condition_expression("Execution = :execution AND Expires = :expires");
        for (name, value) in values {
            request = request.expression_attribute_values(name, value);
        }
        let answer = request
            .send()
            .await
            .if_found(NOT_OURS)
            .map_err(|error| failed("writing the lease", &error.into()))?;
        Ok(answer.is_some())
    }

    async fn release_lease(&self, hold: &Hold) -> Result<(), CloudError> {
        self.lease(hold)
            .update_expression("SET Expires = :never")
            .condition_expression("Execution = :execution AND Expires = :expires")
            .expression_attribute_values(":never", number(0))
            .send()
            .await
            .if_found(NOT_OURS)
            .map(|_| ())
            .map_err(|error| failed("releasing the lease", &error.into()))
    }

    async fn set_scale_in_protection(
        &self,
        ids: &[String],
        is_protected: bool,
    ) -> Result<(), CloudError> {
        let answer = self
            .aws
            .autoscaling()
            .set_instance_protection()
            .auto_scaling_group_name(&self.group)
            .set_instance_ids(Some(ids.to_vec()))
            .protected_from_scale_in(is_protected)
            .send()
            .await;
        done(answer.answer())
    }

    async fn termination_protection(&self, id: &str) -> Result<bool, CloudError> {
        let ids = [id.to_owned()];
        let found = instances::termination_protected(&self.aws, &ids).await;
        let found = found.map_err(|error| plain(&error))?;
        // One that is gone lacks nothing.
        Ok(found.get(id).copied().unwrap_or(true))
    }

    async fn set_termination_protection(
        &self,
        id: &str,
        is_protected: bool,
    ) -> Result<(), CloudError> {
        instances::set_termination_protection(&self.aws, id, is_protected)
            .await
            .map_err(|error| plain(&error))
    }

    async fn terminate(&self, ids: &[String]) -> Result<(), CloudError> {
        let answer = self
            .aws
            .ec2()
            .terminate_instances()
            .set_instance_ids(Some(ids.to_vec()))
            .send()
            .await;
        done(answer.answer())
    }

    async fn detach(&self, ids: &[String]) -> Result<(), CloudError> {
        let answer = self
            .aws
            .autoscaling()
            .detach_instances()
            .auto_scaling_group_name(&self.group)
            .set_instance_ids(Some(ids.to_vec()))
            .should_decrement_desired_capacity(false)
            .send()
            .await;
        done(answer.answer())
    }

    async fn mark_joined(&self, ids: &[String]) -> Result<(), CloudError> {
        let tags = Tags::from([(JOINED_TAG.to_owned(), "true".to_owned())]);
        instances::tag(&self.aws, ids, &tags)
            .await
            .map_err(|error| plain(&error))
    }

    async fn running_backends(&self) -> Result<Vec<Backend>, CloudError> {
        let found = instances::describe_by_tag(&self.aws, &self.cluster).await;
        let found = found.map_err(|error| failed("reading the cluster's instances", &error))?;
        let running = found.into_iter().filter(instances::Instance::is_running);
        Ok(running
            .filter_map(|instance| {
                Some(Backend {
                    private_ip: instance.private_ip?,
                    launched: instance.launched.and_then(timestamp),
                })
            })
            .collect())
    }

    async fn cores(&self) -> Result<Option<Cores>, CloudError> {
        let read = settings::read_cores(&self.aws, &self.cluster).await;
        read.map_err(|error| failed(READING_THE_TABLE, &error))
    }
}

impl AwsCloud {
    async fn read_group(&self) -> Result<Group> {
        let answer = self
            .aws
            .autoscaling()
            .describe_auto_scaling_groups()
            .auto_scaling_group_names(&self.group)
            .send()
            .await
            .answer()?;
        let found = answer.auto_scaling_groups().first();
        let found = found.context("it does not exist")?;
        let ids = found.instances().iter();
        let ids: Vec<String> = ids
            .filter_map(|member| member.instance_id().map(ToOwned::to_owned))
            .collect();
        let machines = instances::describe(&self.aws, &ids).await?;
        group(found, machines)
    }

    /// A change of the lease item, with who holds it as values.
    /// What the runs so far have left, without taking the lease.
    pub(super) async fn remembered(&self) -> Result<Lease, CloudError> {
        let answer = self
            .aws
            .dynamodb()
            .get_item()
            .table_name(&self.table)
            .key("Key", AttributeValue::S(LEASE_ITEM.to_owned()))
            .consistent_read(true)
            .send()
            .await
            .answer()
            .map_err(|error| failed("reading the lease", &error.into()))?;
        Ok(answer.item.as_ref().map(lease).unwrap_or_default())
    }

    fn lease(
        &self,
        hold: &Hold,
    ) -> aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder {
        self.aws
            .dynamodb()
            .update_item()
            .table_name(&self.table)
            .key("Key", AttributeValue::S(LEASE_ITEM.to_owned()))
            .expression_attribute_values(":execution", AttributeValue::S(hold.execution.clone()))
            .expression_attribute_values(":expires", number(hold.expires.as_second()))
    }
}

/// The group in our words. A member that EC2 does not know is absent.
fn group(found: &AutoScalingGroup, machines: Vec<instances::Instance>) -> Result<Group> {
    let created = found
        .created_time()
        .and_then(|time| SystemTime::try_from(*time).ok());
    let mut machines: BTreeMap<String, instances::Instance> = machines
        .into_iter()
        .map(|machine| (machine.id.clone(), machine))
        .collect();
    let instances = found.instances().iter().filter_map(|member| {
        let id = member.instance_id()?;
        let machine = machines.remove(id);
        let launched = machine.as_ref().and_then(|machine| machine.launched);
        let is_older = launched
            .zip(created)
            .is_some_and(|(launched, created)| launched < created);
        Some(Instance {
            id: id.to_owned(),
            private_ip: machine
                .as_ref()
                .and_then(|machine| machine.private_ip.clone()),
            launched: launched.and_then(timestamp),
            ec2: machine
                .as_ref()
                .map_or(Ec2State::Absent, |machine| ec2_state(&machine.state)),
            lifecycle: member
                .lifecycle_state()
                .map_or_else(String::new, ToString::to_string),
            healthy: member.health_status() == Some("Healthy"),
            protected: member.protected_from_scale_in() == Some(true),
            attached: member.launch_template().is_none() || is_older,
            joined: machine.is_some_and(|machine| machine.tags.contains_key(JOINED_TAG)),
        })
    });
    Ok(Group {
        name: found
            .auto_scaling_group_name()
            .unwrap_or_default()
            .to_owned(),
        desired: u32::try_from(found.desired_capacity().unwrap_or_default())
            .context("its desired capacity is negative")?,
        suspended: found
            .suspended_processes()
            .iter()
            .filter_map(|process| process.process_name().map(ToOwned::to_owned))
            .collect(),
        instances: instances.collect(),
    })
}

/// A state that is new to us is taken for one that ends nothing.
fn ec2_state(word: &str) -> Ec2State {
    match word {
        "pending" => Ec2State::Pending,
        "stopping" => Ec2State::Stopping,
        "stopped" => Ec2State::Stopped,
        "shutting-down" => Ec2State::ShuttingDown,
        "terminated" => Ec2State::Terminated,
        _ => Ec2State::Running,
    }
}

fn timestamp(time: SystemTime) -> Option<Timestamp> {
    Timestamp::try_from(time).ok()
}

fn lease(item: &Item) -> Lease {
    let text = |value: &AttributeValue| value.as_s().ok().cloned();
    let refused = item.get("RefusedLogin").and_then(|value| value.as_m().ok());
    Lease {
        guid: item.get("Guid").and_then(text),
        previous_desired: item
            .get("PreviousDesired")
            .and_then(|value| value.as_n().ok()?.parse().ok()),
        refused_login: refused.and_then(|refused| {
            Some(RefusedLogin {
                time: refused.get("Time").and_then(text)?.parse().ok()?,
                fingerprint: refused.get("Fingerprint").and_then(text)?,
            })
        }),
    }
}

fn refused_login(refused: &RefusedLogin) -> AttributeValue {
    AttributeValue::M(Item::from([
        (
            "Time".to_owned(),
            AttributeValue::S(refused.time.to_string()),
        ),
        (
            "Fingerprint".to_owned(),
            AttributeValue::S(refused.fingerprint.clone()),
        ),
    ]))
}

fn number(number: i64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

fn done<T>(answer: Result<T, AwsError>) -> Result<(), CloudError> {
    answer.map(|_| ()).map_err(|error| plain(&error.into()))
}

/// A failure of a call of which the caller says what it was for.
fn plain(error: &anyhow::Error) -> CloudError {
    CloudError {
        text: format!("{error:#}"),
        refused: AwsError::of(error).is_some_and(|error| error.effect == Effect::None),
    }
}

fn failed(what: &str, error: &anyhow::Error) -> CloudError {
    let CloudError { text, refused } = plain(error);
    CloudError {
        text: format!("{what}: {text}"),
        refused,
    }
}
