//! `cluster update`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::progress::Purpose;
use super::screen::Tone;
use super::session::Session;
use super::{Context, exit};
use crate::cluster::names::{Cluster, VERSION};
use crate::cluster::update::{Automation, UpdateRequest, look, update};
use crate::run::Mode;

const EXAMPLES: &str = "\
Examples:
  See what differs from what this version wants, field by field:
    wekactl cluster update --region eu-west-1 --name prod --dry-run

  Repair it, and bring the functions to this version's code:
    wekactl cluster update --name prod

  In a script: exit code 3 if something differs, or if nothing runs the automation
    wekactl cluster update --name prod --dry-run --exit-code

  Give the functions a new key to seal with what they tell each other:
    wekactl cluster update --name prod --rotate-keys
";

/// Bring every resource of a managed cluster to what this version wants
///
/// What the cluster is comes from its own settings: a resource that is missing is made, one that was changed by hand
/// is repaired, and the functions get this version's code. The group's sizes, a disabled event rule and foreign tags
/// are the operator's and stay. The automation goes on meanwhile.
///
/// Run again, it changes nothing. Clusters of the earlier tool are taken over.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Update {
    /// Name of the cluster
    #[arg(short, long)]
    name: Cluster,

    /// Show what would be changed, and change nothing
    #[arg(short, long)]
    dry_run: bool,

    /// With --dry-run: end with exit code 3 if anything would be changed, or if nothing runs the automation
    ///
    /// Nothing runs it where its event rule is missing, which only import makes. One that is disabled is the operator's,
    /// and no difference.
    #[arg(long, requires = "dry_run")]
    exit_code: bool,

    /// Give the functions a new key to seal with what they tell each other
    ///
    /// Whoever could read the functions' configuration knows the old one.
    #[arg(long)]
    rotate_keys: bool,

    /// A wekactl for Linux to upload as the functions' code, instead of this very program
    ///
    /// Needed where this program does not run in Lambda: with a newer glibc, or on another operating system, unless
    /// wekactl-lambda-x86_64 of the same release is in the program's directory.
    #[arg(long, value_name = "PATH")]
    lambda_binary: Option<PathBuf>,
}

impl Update {
    /// Gives the exit code.
    pub(super) async fn run(self, context: &Context) -> Result<u8> {
        let screen = &context.screen;
        let mode = if self.dry_run {
            Mode::Plan
        } else {
            Mode::Apply
        };
        let mut session = Session::open(context, mode).await?;
        let request = UpdateRequest {
            cluster: self.name,
            lambda_binary: self.lambda_binary,
            rotate_keys: self.rotate_keys,
        };
        let name = &request.cluster.name;
        let doing = format!("updating cluster {name}");
        let (automation, report) = session
            .run(&doing, Purpose::Make, async |aws| {
                let found = look(aws, &request).await?;
                update(aws, &request, found).await
            })
            .await?;
        let is_whole = automation != Automation::Missing;
        if screen.is_json() {
            let (changes, summary) = report.to_json();
            screen.json(&json!({
                "cluster": name,
                "dry_run": self.dry_run,
                "automation": automation == Automation::Runs,
                "changes": changes,
                "summary": summary,
            }))?;
        } else if self.dry_run && report.has_changes() {
            screen.data(&report.table(screen.table_width()))?;
        } else {
            let line = match (report.has_changes(), is_whole) {
                (true, true) => format!("cluster {name} has been brought to wekactl {VERSION}"),
                (false, true) => format!("cluster {name} is as wanted by wekactl {VERSION}"),
                (true, false) => format!(
                    "cluster {name} has been brought to wekactl {VERSION}, but nothing runs its automation"
                ),
                (false, false) => format!(
                    "nothing else differs in cluster {name}, but nothing runs its automation"
                ),
            };
            screen.line(Tone::Plain, &line);
        }
        Ok(
            match self.exit_code && (report.has_changes() || !is_whole) {
                true => exit::DIFFERENCES,
                false => exit::DONE,
            },
        )
    }
}
