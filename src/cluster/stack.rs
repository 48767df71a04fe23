//! The `CloudFormation` stack a cluster comes from. It is read, never changed.

use std::time::SystemTime;

use anyhow::{Context, Result};
use aws_sdk_cloudformation::types::StackStatus;

use jiff::Timestamp;

use super::names::Cluster;
use crate::aws::{Answer, Aws};

/// How the descriptions of Weka's templates begin.
/// Source: the vendor's public template; the earlier tool looked for the same words.
pub const WEKA_DESCRIPTION: &str = "[WekaIO] To learn more about this template visit https://docs.weka.io/install/aws/cloudformation";

/// The states in which a stack's resources are complete and stay.
const USABLE: &[StackStatus] = &[
    StackStatus::CreateComplete,
    StackStatus::UpdateComplete,
    StackStatus::UpdateRollbackComplete,
    StackStatus::ImportComplete,
];

/// A stack and what import needs of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Its ARN.
    pub id: String,
    /// Such as `CREATE_COMPLETE`.
    pub status: String,
    /// Whether its resources are complete and stay.
    pub usable: bool,
    /// Ids of its EC2 instances, backends and clients.
    pub instance_ids: Vec<String>,
    /// Names of its classic load balancers.
    pub classic_load_balancers: Vec<String>,
}

/// The stack of this name; `None`: there is none.
///
/// # Errors
/// AWS's failures.
pub async fn read(aws: &Aws, cluster: &Cluster) -> Result<Option<Stack>> {
    let describe = async {
        let stacks = aws
            .cloudformation()
            .describe_stacks()
            .stack_name(&cluster.name)
            .send()
            .await
            .answer();
        match stacks {
            Ok(stacks) => Ok(stacks.stacks.unwrap_or_default().into_iter().next()),
            Err(error) if error.says("ValidationError", "does not exist") => Ok(None),
            Err(error) => Err(error),
        }
    };
    let (stack, resources) = tokio::join!(describe, resources(aws, &cluster.name));
    let Some(stack) = stack.with_context(|| format!("reading stack {}", cluster.name))? else {
        return Ok(None);
    };
    let mut found = Stack {
        id: stack.stack_id.unwrap_or_default(),
        status: stack
            .stack_status
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
        usable: stack
            .stack_status
            .is_some_and(|status| USABLE.contains(&status)),
        instance_ids: Vec::new(),
        classic_load_balancers: Vec::new(),
    };
    for (kind, id) in
        resources.with_context(|| format!("reading the resources of stack {}", cluster.name))?
    {
        match kind.as_str() {
            "AWS::EC2::Instance" => found.instance_ids.push(id),
            "AWS::ElasticLoadBalancing::LoadBalancer" => found.classic_load_balancers.push(id),
            _ => {}
        }
    }
    Ok(Some(found))
}

/// Types and physical ids of a stack's resources, to the last page; none for a stack that is not there.
async fn resources(aws: &Aws, name: &str) -> Result<Vec<(String, String)>> {
    let mut pages = aws
        .cloudformation()
        .list_stack_resources()
        .stack_name(name)
        .into_paginator()
        .send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        let page = match page.answer() {
            Ok(page) => page,
            Err(error) if error.says("ValidationError", "does not exist") => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        found.extend(
            page.stack_resource_summaries()
                .iter()
                .filter_map(|resource| {
                    // A resource that was never made has no physical id.
                    Some((
                        resource.resource_type()?.to_owned(),
                        resource.physical_resource_id()?.to_owned(),
                    ))
                }),
        );
    }
    Ok(found)
}

/// A Weka stack that could be imported, or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WekaStack {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub id: String,
    /// Such as `CREATE_COMPLETE`.
    pub status: String,
    /// When it was made.
    pub created: Option<Timestamp>,
}

/// The Weka stacks in a usable state, by name.
///
/// # Errors
/// AWS's failures.
pub async fn usable_weka_stacks(aws: &Aws) -> Result<Vec<WekaStack>> {
    let mut pages = aws
        .cloudformation()
        .list_stacks()
        .set_stack_status_filter(Some(USABLE.to_vec()))
        .into_paginator()
        .send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.answer().context("listing stacks")?;
        let weka = page.stack_summaries().iter().filter(|stack| {
            stack
                .template_description()
                .is_some_and(|text| text.starts_with(WEKA_DESCRIPTION))
        });
        found.extend(weka.map(|stack| {
            let created = stack.creation_time();
            let created = created.and_then(|time| SystemTime::try_from(*time).ok());
            WekaStack {
                name: stack.stack_name().unwrap_or_default().to_owned(),
                id: stack.stack_id().unwrap_or_default().to_owned(),
                status: stack
                    .stack_status()
                    .map_or_else(String::new, ToString::to_string),
                created: created.and_then(|time| Timestamp::try_from(time).ok()),
            }
        }));
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}
