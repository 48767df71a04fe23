//! `cluster join-params`.

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;

use super::client_script::client_script;
use super::progress::Purpose;
use super::session::Session;
use super::{Context, values};
use crate::cluster::names::Cluster;
use crate::cluster::overview;
use crate::run::Mode;

const EXAMPLES: &str = "\
Examples:
  Keep the script with which clients join:
    wekactl cluster join-params --name prod > join.sh

  With another name for the load balancer:
    wekactl cluster join-params --name prod --dns-alias weka.example.com
";

/// Print the script with which clients join a managed cluster
///
/// It is the one that the import has printed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct JoinParams {
    /// Name of the cluster
    #[arg(short, long)]
    name: Cluster,

    /// The name under which clients reach the load balancer
    ///
    /// By default the DNS name given at import, else the load balancer's own.
    #[arg(short = 'l', long, value_name = "HOST", value_parser = values::host_name)]
    dns_alias: Option<String>,
}

impl JoinParams {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        let mut session = Session::open(context, Mode::Plan).await?;
        let (name, cluster) = (&self.name.name, &self.name);
        let doing = format!("reading how clients join cluster {name}");
        let alias = self.dns_alias.filter(|alias| !alias.is_empty());
        let host = session
            .look(&doing, Purpose::Make, async |aws| match alias {
                Some(alias) => overview::group(aws, cluster).await.map(|_| alias),
                None => overview::client_host(aws, cluster).await,
            })
            .await?;
        let script = client_script(&host).with_context(|| format!("cluster {name}"))?;
        if context.screen.is_json() {
            let document = json!({"cluster": name, "host": host, "client_script": script});
            return context.screen.json(&document);
        }
        context.screen.data(&script)
    }
}
