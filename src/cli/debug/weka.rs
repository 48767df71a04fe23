//! `debug jrpc` and `debug backends`: reads of Weka, through the function that reaches it or directly.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::super::Context;
use super::super::progress::Purpose;
use super::super::session::Session;
use super::super::table::table;
use super::super::values;
use crate::aws::Aws;
use crate::cluster::names::Cluster;
use crate::cluster::{overview, settings};
use crate::functions::probe::{Answer, Question, ask, ask_scale};
use crate::run::Mode;
use crate::weka::client::MANAGEMENT_PORT;
use crate::weka::http::{HttpTransport, Trust};
use crate::weka::ids::ContainerId;
use crate::weka::types::{Container, Mode as ContainerMode};

/// How long Weka may be asked directly.
const TIME: Duration = Duration::from_secs(30);

const JRPC_EXAMPLES: &str = "\
Examples:
  Through the cluster's function, from wherever AWS can be reached:
    wekactl debug jrpc --name prod status

  With parameters, of a backend that can be reached from here:
    wekactl debug jrpc --name prod --address 10.0.0.7 disks_list '{\"show_removed\": false}'
";

const BACKENDS_EXAMPLES: &str = "\
Examples:
  wekactl debug backends --name prod
";

/// Whom to ask, and how.
#[derive(Debug, Args)]
struct Asked {
    /// Name of the cluster
    #[arg(short, long)]
    name: Cluster,

    /// Address of a backend to ask directly; may be given several times
    ///
    /// By default the cluster's function scale asks those of the group: it reaches them, wherever this is run.
    #[arg(long, value_name = "IP", value_parser = values::host_name)]
    address: Vec<String>,
}

/// Ask Weka for something, by a method of its management API that changes nothing
///
/// It is asked with the stored credentials. The result is printed as JSON.
#[derive(Debug, Args)]
#[command(after_help = JRPC_EXAMPLES)]
pub(in super::super) struct Jrpc {
    #[command(flatten)]
    asked: Asked,

    /// The method, such as status
    method: String,

    /// Its parameters: a JSON object or array
    #[arg(value_parser = parameters, default_value = "{}")]
    params: Value,
}

/// List the backend containers of a cluster, as Weka has them
#[derive(Debug, Args)]
#[command(after_help = BACKENDS_EXAMPLES)]
pub(in super::super) struct Backends {
    #[command(flatten)]
    asked: Asked,
}

fn parameters(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Object(_) | Value::Array(_))) => Ok(value),
        Ok(_) => Err("a JSON object or array is wanted".to_owned()),
        Err(error) => Err(format!("it is no JSON: {error}")),
    }
}

impl Jrpc {
    pub(in super::super) async fn run(self, context: &Context) -> Result<()> {
        let result = self.asked.read(context, &self.method, self.params).await?;
        context.screen.json(&result)
    }
}

impl Backends {
    pub(in super::super) async fn run(self, context: &Context) -> Result<()> {
        let result = self.asked.read(context, "hosts_list", json!({})).await?;
        let all: BTreeMap<ContainerId, Container> =
            serde_json::from_value(result).context("Weka's list of containers can not be read")?;
        let backends: BTreeMap<_, _> = all
            .into_iter()
            .filter(|(_, container)| container.mode == Some(ContainerMode::Backend))
            .collect();
        let screen = &context.screen;
        if screen.is_json() {
            return screen.json(&json!({"cluster": self.asked.name.name, "backends": backends}));
        }
        let head = [
            "CONTAINER",
            "NAME",
            "ADDRESS",
            "INSTANCE",
            "STATE",
            "STATUS",
        ];
        let rows = backends.iter().map(|(id, container)| {
            let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            [
                id.to_string(),
                text(&container.container_name),
                text(&container.host_ip),
                text(&container.aws.instance_id),
                word(&container.state),
                word(&container.status),
            ]
        });
        screen.data(&table(head, rows, screen.table_width()))
    }
}

/// As Weka says it.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => "-".to_owned(),
    }
}

impl Asked {
    async fn read(&self, context: &Context, method: &str, params: Value) -> Result<Value> {
        let mut session = Session::open(context, Mode::Plan).await?;
        let doing = format!("asking the Weka of cluster {}", self.name.name);
        let answer = session
            .look(&doing, Purpose::Make, async |aws| {
                self.ask(aws, method, params).await
            })
            .await
            .with_context(|| doing.clone())?;
        match answer {
            Answer::Result { result } => Ok(result),
            Answer::Refused { why }
            | Answer::LoginRefused { why }
            | Answer::Unreachable { why } => bail!("{doing}: {why}"),
        }
    }

    async fn ask(&self, aws: &Aws, method: &str, params: Value) -> Result<Answer> {
        let cluster = &self.name;
        let (backends, credentials) = tokio::try_join!(
            overview::host_group(aws, cluster),
            settings::read_credentials(aws, cluster)
        )?;
        let mut question = Question {
            credentials: credentials.context("no credentials of a Weka user are stored")?,
            addresses: self.address.clone(),
            method: method.to_owned(),
            params,
        };
        if self.address.is_empty() {
            question.addresses = backends.addresses();
            return ask_scale(aws, cluster, &question).await;
        }
        let transport = HttpTransport::new(MANAGEMENT_PORT, &Trust::Any)?;
        ask(transport, &mut StdRng::from_os_rng(), &question, TIME).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_json() {
        assert_eq!(parameters("{}"), Ok(json!({})));
        assert_eq!(parameters("[1]"), Ok(json!([1])));
        for (text, why) in [("1", "object or array"), ("{", "no JSON"), ("", "no JSON")] {
            let error = parameters(text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
