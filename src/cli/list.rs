//! `cluster list`.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::Context;
use super::progress::Purpose;
use super::session::Session;
use super::table::table;
use crate::cluster::overview::{Listed, clusters};
use crate::run::Mode;

const EXAMPLES: &str = "\
Examples:
  wekactl cluster list --region eu-west-1
  wekactl cluster list --output json
";

/// List the Weka stacks of a region, and the clusters that are managed
///
/// A stack is listed if it has the description of Weka's templates and is in a state in which it can be imported. A
/// managed cluster is listed also where it has no such stack. It is "incomplete" where an import has not yet made its
/// Auto Scaling group, or a destroy has begun to take that apart: run the same command again.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct List {}

impl List {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        let mut session = Session::open(context, Mode::Plan).await?;
        let region = session.region().to_owned();
        let doing = format!("listing the clusters in {region}");
        let found = session.look(&doing, Purpose::Make, clusters).await?;
        let screen = &context.screen;
        if screen.is_json() {
            let all: Vec<_> = found.iter().map(to_json).collect();
            return screen.json(&json!({"region": region, "clusters": all}));
        }
        if found.is_empty() {
            let text = format!("there are no Weka stacks and no managed clusters in {region}");
            screen.line(super::screen::Tone::Plain, &text);
        }
        let head = ["NAME", "CREATED", "MANAGED", "STACK"];
        screen.data(&table(
            head,
            found.iter().map(columns),
            screen.table_width(),
        ))
    }
}

fn to_json(cluster: &Listed) -> serde_json::Value {
    let stack = cluster.stack.as_ref();
    json!({
        "name": cluster.name,
        "created": cluster.created,
        "managed": cluster.managed,
        "incomplete": cluster.managed && !cluster.has_group,
        "stack": stack.map(|stack| json!({"id": stack.id, "status": stack.status})),
    })
}

fn columns(cluster: &Listed) -> [String; 4] {
    let none = || "-".to_owned();
    [
        cluster.name.clone(),
        cluster
            .created
            .map_or_else(none, |time| time.strftime("%F %TZ").to_string()),
        match (cluster.managed, cluster.has_group) {
            (true, true) => "yes",
            (true, false) => "incomplete",
            (false, _) => "no",
        }
        .to_owned(),
        cluster
            .stack
            .as_ref()
            .map_or_else(none, |stack| stack.status.clone()),
    ]
}
