//! The `CloudFormation` stack a cluster comes from. It is read, never changed.

use anyhow::{Context, Result};
use aws_sdk_cloudformation::types::StackStatus;

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

/// Names of the Weka stacks that could be imported, sorted. For the error that says what there is.
///
/// # Errors
/// AWS's failures.
pub async fn usable_weka_stacks(aws: &Aws) -> Result<Vec<String>> {
    let mut pages = aws
        .cloudformation()
        .list_stacks()
        .set_stack_status_filter(Some(USABLE.to_vec()))
        .into_paginator()
        .send();
    let mut names = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.answer().context("listing stacks")?;
        names.extend(page.stack_summaries().iter().filter_map(|stack| {
            let is_weka = stack
                .template_description()
                .is_some_and(|text| text.starts_with(WEKA_DESCRIPTION));
            is_weka.then(|| stack.stack_name().unwrap_or_default().to_owned())
        }));
    }
    names.sort();
    Ok(names)
}
