//! `fetch`: what the group wants and has. The first state of a minute's run.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aws_sdk_ec2::types::{Filter, Reservation};
use serde::Serialize;
use serde_json::Value;

use super::Environment;
use crate::aws::{Answer, Aws};

/// The layout of what fetch hands to scale.
const PAYLOAD_VERSION: u32 = 1;
/// EC2 takes this many values in one filter. Source: EC2 API reference, `DescribeInstances`.
const FILTER_VALUES: usize = 200;

/// What fetch hands to scale; names as in the Go tool's payload.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct HostGroupInfo {
    version: u32,
    cluster: String,
    role: &'static str,
    /// The Step Functions execution this run belongs to.
    execution: Option<String>,
    /// What the group shall have.
    desired_capacity: i32,
    /// What it has.
    instances: Vec<Member>,
    /// Addresses of the members that run.
    backend_ips: Vec<String>,
    /// Always present: an absent path would fail the Choice state.
    transient_errors: Option<Vec<String>>,
}

/// A member of the group.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Member {
    id: String,
    /// Such as `InService`.
    lifecycle_state: String,
    /// EC2's state; `absent` where EC2 knows the id no more.
    state: String,
    private_ip: Option<String>,
}

pub(super) async fn handle(aws: &Aws, environment: &Environment, input: &Value) -> Result<Value> {
    let groups = aws
        .autoscaling()
        .describe_auto_scaling_groups()
        .auto_scaling_group_names(&environment.group)
        .send()
        .await
        .answer()
        .with_context(|| format!("reading Auto Scaling group {}", environment.group))?;
    let group = groups
        .auto_scaling_groups()
        .first()
        .with_context(|| format!("Auto Scaling group {} does not exist", environment.group))?;

    let ids: Vec<String> = group
        .instances()
        .iter()
        .filter_map(|each| each.instance_id().map(ToOwned::to_owned))
        .collect();
    let mut machines = BTreeMap::new();
    for ids in ids.chunks(FILTER_VALUES) {
        machines.extend(describe(aws, ids).await?);
    }
    let instances: Vec<Member> = group
        .instances()
        .iter()
        .filter_map(|each| {
            let id = each.instance_id()?.to_owned();
            let (state, private_ip) = machines
                .remove(&id)
                .unwrap_or_else(|| ("absent".to_owned(), None));
            let lifecycle_state = each
                .lifecycle_state()
                .map_or_else(String::new, ToString::to_string);
            Some(Member {
                id,
                lifecycle_state,
                state,
                private_ip,
            })
        })
        .collect();
    let running = instances.iter().filter(|member| member.state == "running");
    let info = HostGroupInfo {
        version: PAYLOAD_VERSION,
        cluster: environment.cluster.name.clone(),
        role: "backend",
        execution: input
            .get("execution")
            .and_then(Value::as_str)
            .map(ToOwned::to_owned),
        desired_capacity: group.desired_capacity().unwrap_or_default(),
        backend_ips: running
            .filter_map(|member| member.private_ip.clone())
            .collect(),
        instances,
        transient_errors: None,
    };
    tracing::info!(
        desired = info.desired_capacity,
        members = info.instances.len(),
        running = info.backend_ips.len(),
        "fetched"
    );
    Ok(serde_json::to_value(info)?)
}

/// State and private address by instance id. By filter: one unknown id would fail a call that names ids.
async fn describe(aws: &Aws, ids: &[String]) -> Result<BTreeMap<String, (String, Option<String>)>> {
    let filter = Filter::builder()
        .name("instance-id")
        .set_values(Some(ids.to_vec()))
        .build();
    let mut pages = aws
        .ec2()
        .describe_instances()
        .filters(filter)
        .into_paginator()
        .send();
    let mut found = BTreeMap::new();
    while let Some(page) = pages.next().await {
        let page = page.answer().context("reading the group's instances")?;
        for instance in page.reservations().iter().flat_map(Reservation::instances) {
            let state = instance
                .state()
                .and_then(|state| state.name())
                .map_or_else(String::new, ToString::to_string);
            let address = instance.private_ip_address().map(ToOwned::to_owned);
            found.insert(
                instance.instance_id().unwrap_or_default().to_owned(),
                (state, address),
            );
        }
    }
    Ok(found)
}
