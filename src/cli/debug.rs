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

/// The file can be read by nobody else, whatever was there: what was seen names machines, addresses and Weka's own words.
/// A link is not followed, and neither it nor a device is replaced.
fn write_private(file: &Path, text: &str) -> std::io::Result<()> {
    if std::fs::symlink_metadata(file).is_ok_and(|found| !found.is_file()) {
        return Err(std::io::Error::other("it exists and is no regular file"));
    }
    let new = file.with_file_name(format!(".wekactl-{}", uuid::Uuid::new_v4()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut opened = options.open(&new)?;
    let written = opened.write_all(text.as_bytes());
    let written = written.and_then(|()| std::fs::rename(&new, file));
    if written.is_err() {
        // What is told is why it is not there; this could say no more.
        std::fs::remove_file(&new).ok();
    }
    written
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
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_saved_is_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("seen.json");
        std::fs::write(&file, "{\"a long one\": 1}").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        for saved in [&file, &directory.path().join("new.json")] {
            write_private(saved, "{}").unwrap();
            assert_eq!(std::fs::read_to_string(saved).unwrap(), "{}");
            let mode = saved.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn nothing_is_saved_through_a_link_or_over_what_is_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let [other, link, folder] =
            ["other", "link", "folder"].map(|name| directory.path().join(name));
        std::fs::write(&other, "theirs").unwrap();
        std::os::unix::fs::symlink(&other, &link).unwrap();
        std::fs::create_dir(&folder).unwrap();
        for taken in [&link, &folder] {
            let error = write_private(taken, "{}").unwrap_err();
            assert_eq!(error.to_string(), "it exists and is no regular file");
        }
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "theirs");
        // What can not be put in its place is not left beside it.
        write_private(&directory.path().join("x".repeat(256)), "{}").unwrap_err();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 3);
    }
}
