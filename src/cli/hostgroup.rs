//! `hostgroup list`.

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Context;
use super::progress::Purpose;
use super::session::Session;
use super::table::table;
use crate::cluster::names::Cluster;
use crate::cluster::overview::{HostGroup, host_group};
use crate::run::Mode;

pub(super) const GROUP_EXAMPLES: &str = "\
Examples:
  wekactl hostgroup list --name prod
";

const EXAMPLES: &str = "\
Examples:
  wekactl hostgroup list --name prod
  wekactl hostgroup list --name prod --output json
";

/// The name and the role of the one host group that a cluster has.
const NAME: &str = "Backends";
const ROLE: &str = "backend";

#[derive(Debug, Subcommand)]
pub(super) enum HostGroupCommand {
    List(List),
}

/// List the backends of a managed cluster, as its Auto Scaling group has them
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct List {
    /// Name of the cluster
    #[arg(short, long)]
    name: Cluster,
}

impl List {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        let mut session = Session::open(context, Mode::Plan).await?;
        let cluster = &self.name;
        let doing = format!("reading the backends of cluster {}", cluster.name);
        let found = session
            .look(&doing, Purpose::Make, async |aws| {
                host_group(aws, cluster).await
            })
            .await?;
        let screen = &context.screen;
        if screen.is_json() {
            return screen.json(&json!({"cluster": cluster.name, "hostgroups": [to_json(&found)]}));
        }
        let group = &found.group;
        let head = [
            "HOSTGROUP",
            "ROLE",
            "DESIRED",
            "MIN",
            "MAX",
            "AUTO SCALING GROUP",
        ];
        let row = [
            NAME.to_owned(),
            ROLE.to_owned(),
            group.desired_capacity.to_string(),
            group.min_size.to_string(),
            group.max_size.to_string(),
            group.name.clone(),
        ];
        let width = screen.table_width();
        let mut text = table(head, [row], width);
        if !found.members.is_empty() {
            text.push('\n');
        }
        let head = [
            "INSTANCE",
            "STATE",
            "LIFECYCLE",
            "HEALTH",
            "PROTECTED",
            "ADDRESS",
        ];
        text += &table(head, columns(&found), width);
        screen.data(&text)
    }
}

fn to_json(found: &HostGroup) -> Value {
    let instances: Vec<Value> = found
        .members
        .iter()
        .map(|(member, instance)| {
            let instance = instance.as_ref();
            json!({
                "id": member.id,
                "state": instance.map(|instance| &instance.state),
                "lifecycle": member.lifecycle,
                "healthy": member.is_healthy,
                "protected_from_scale_in": member.is_protected,
                "private_ip": instance.and_then(|instance| instance.private_ip.as_ref()),
            })
        })
        .collect();
    let group = &found.group;
    json!({
        "name": NAME,
        "role": ROLE,
        "auto_scaling_group": group.name,
        "desired": group.desired_capacity,
        "min": group.min_size,
        "max": group.max_size,
        "instances": instances,
    })
}

fn columns(found: &HostGroup) -> impl Iterator<Item = [String; 6]> {
    let none = || "-".to_owned();
    found.members.iter().map(move |(member, instance)| {
        let instance = instance.as_ref();
        let address = instance.and_then(|instance| instance.private_ip.clone());
        [
            member.id.clone(),
            instance.map_or_else(none, |instance| instance.state.clone()),
            member.lifecycle.clone(),
            if member.is_healthy {
                "healthy"
            } else {
                "unhealthy"
            }
            .to_owned(),
            if member.is_protected { "yes" } else { "no" }.to_owned(),
            address.unwrap_or_else(none),
        ]
    })
}
