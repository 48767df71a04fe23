//! `debug`: single steps, for whoever has to find out what goes on.

mod weka;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::Context;
use super::screen::{Screen, Tone, plain};
use super::table::table;
use crate::aws::Aws;
use crate::cluster::names::Cluster;
use crate::cluster::overview;
use crate::functions::{next_join_script, observe};
use crate::run::Run;
use crate::weka::scaling::{Decision, Observation, RuleSet, Settings, decide};

const EXAMPLES: &str = "\
Examples:
  From where the backends can be reached, what the next run would do, and why:
    wekactl debug scale-plan --name prod

  Keep what was seen, and decide on it again later:
    wekactl debug scale-plan --name prod --save seen.json
    wekactl debug scale-plan --observation seen.json
";

const SCRIPT_EXAMPLES: &str = "\
Examples:
  wekactl debug join-script --name prod
";

#[derive(Debug, Subcommand)]
pub(super) enum Debug {
    ScalePlan(ScalePlan),
    Jrpc(weka::Jrpc),
    Backends(weka::Backends),
    JoinScript(JoinScript),
}

/// Print the script by which the next new backend would join
///
/// It holds no secrets: the machine asks for the credentials when it runs.
#[derive(Debug, Args)]
#[command(after_help = SCRIPT_EXAMPLES)]
pub(super) struct JoinScript {
    /// Name of the cluster
    #[arg(short, long)]
    name: Cluster,
}

/// Show what the next run of the automation would do about each machine, and by which rule
///
/// Nothing is changed. Weka is asked directly, with the stored credentials: run it where the backends can be reached.
/// Where none can be, it fails: the next run may see what this machine does not.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ScalePlan {
    /// Name of the cluster
    #[arg(short, long, required_unless_present = "observation")]
    name: Option<Cluster>,

    /// Decide on a saved observation instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "address", "save"])]
    observation: Option<PathBuf>,

    /// Address of a backend to ask; may be given several times [default: those of the group]
    #[arg(long, value_name = "IP")]
    address: Vec<String>,

    /// Keep what was seen in a file
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,

    /// Whose rules decide
    #[arg(long, value_enum, default_value_t = Rules::Safe)]
    rules: Rules,
}

/// Whose rules decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rules {
    /// Those that the functions follow
    Safe,
    /// Those of the vendor's own cloud tools, to compare
    Upstream,
}

impl Debug {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        match self {
            Self::ScalePlan(plan) => plan.run(context).await,
            Self::Jrpc(jrpc) => jrpc.run(context).await,
            Self::Backends(backends) => backends.run(context).await,
            Self::JoinScript(script) => script.run(context).await,
        }
    }
}

impl JoinScript {
    async fn run(self, context: &Context) -> Result<()> {
        let aws = Aws::connect(context.region(), context.profile(), Run::unwatched()).await?;
        let name = self.name.name.clone();
        overview::group(&aws, &self.name).await?;
        let script = next_join_script(aws, self.name).await?;
        let screen = &context.screen;
        if screen.is_json() {
            return screen.json(&json!({"cluster": name, "join_script": script}));
        }
        screen.data(&script)
    }
}

impl ScalePlan {
    async fn run(self, context: &Context) -> Result<()> {
        let observation = self.observe(context).await?;
        if let Some(file) = &self.save {
            let text = serde_json::to_string_pretty(&observation)?;
            write_private(file, &text).with_context(|| format!("writing {}", file.display()))?;
        }
        let settings = Settings {
            rules: match self.rules {
                Rules::Safe => RuleSet::Safe,
                Rules::Upstream => RuleSet::Upstream,
            },
            ..Settings::default()
        };
        show(&decide(&observation, &settings), &context.screen)
    }

    async fn observe(&self, context: &Context) -> Result<Observation> {
        if let Some(file) = &self.observation {
            let what = || format!("reading the observation {}", file.display());
            let text = std::fs::read_to_string(file).with_context(what)?;
            return serde_json::from_str(&text).with_context(what);
        }
        let cluster = self.name.clone().context("no cluster is named")?;
        let aws = Aws::connect(context.region(), context.profile(), Run::unwatched()).await?;
        overview::group(&aws, &cluster).await?;
        let doing = format!("planning for cluster {}", cluster.name);
        observe(aws, cluster, self.address.clone())
            .await
            .context(doing)
    }
}

/// A file that is made can be read by nobody else: what was seen names machines, addresses and Weka's own words.
fn write_private(file: &Path, text: &str) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file)?.write_all(text.as_bytes())
}

fn show(decision: &Decision, screen: &Screen) -> Result<()> {
    if screen.is_json() {
        return screen.json(&json!(decision));
    }
    let mut text = String::new();
    if let Some(gate) = &decision.gate {
        text += &format!(
            "nothing would be done: {} ({})\n\n",
            plain(&gate.text),
            gate.rule
        );
    }
    let verdicts = decision.machines.iter().map(|verdict| {
        [
            verdict.key.clone(),
            format!("{:?}", verdict.class),
            format!("{:?}", verdict.action),
            verdict.rule.to_string(),
            verdict.detail.clone(),
        ]
    });
    text += &table(
        ["MACHINE", "CLASS", "ACTION", "RULE", "WHY"],
        verdicts,
        screen.table_width(),
    );
    for call in &decision.calls {
        let params = plain(&call.params.to_string());
        text += &format!("call  {} {params}\n", call.method);
    }
    for kill in &decision.terminate {
        text += &format!("terminate  {}  {:?}\n", plain(&kill.id), kill.reason);
    }
    for id in &decision.detach {
        text += &format!("detach  {}\n", plain(id));
    }
    screen.data(&text)?;
    // A closed gate is the only finding where there is one.
    for finding in decision.errors.iter().filter(|_| decision.gate.is_none()) {
        screen.line(Tone::Warning, &finding.to_string());
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_saved_is_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("seen.json");
        write_private(&file, "{\"a long one\": 1}").unwrap();
        write_private(&file, "{}").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "{}");
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
