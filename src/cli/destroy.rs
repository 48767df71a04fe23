//! `cluster destroy`.

use std::io::IsTerminal as _;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::json;

use super::Context;
use super::progress::Purpose;
use super::screen::{Screen, Tone};
use super::session::Session;
use crate::cluster::UsageError;
use crate::cluster::destroy::{Confirmed, DestroyRequest, destroy};
use crate::cluster::names::Cluster;
use crate::run::Mode;

const EXAMPLES: &str = "\
Examples:
  Remove what wekactl made and terminate the backends, after a question:
    wekactl cluster destroy --region eu-west-1 --name prod

  See first what would be removed:
    wekactl cluster destroy --name prod --dry-run

  Only stop managing the cluster: its backends go on running:
    wekactl cluster destroy --name prod --keep-instances

  From a script, also where the cluster may be gone already:
    wekactl cluster destroy --name prod --yes --if-exists
";

/// Remove all that wekactl made for a cluster, and terminate its backends
///
/// The backends are terminated WITH THEIR DATA, unless --keep-instances is given. What else belongs to the stack
/// stays. On a terminal the cluster's name is asked for first.
///
/// It finds what to remove in AWS and not in a record of its own: it also cleans up after an import that was
/// stopped. What can not be removed is listed; run again, it goes on.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Destroy {
    /// Name of the cluster
    #[arg(short, long)]
    name: Cluster,

    /// Leave the backends running, with the termination protection they had before
    #[arg(short, long)]
    keep_instances: bool,

    /// Show what would be removed, and remove nothing
    #[arg(short, long)]
    dry_run: bool,

    /// Do not ask
    ///
    /// Where standard input is no terminal, nothing is asked either.
    #[arg(short, long)]
    yes: bool,

    /// Leave what AWS releases only after minutes for a later destroy
    ///
    /// The network interfaces of the scale function take up to 20 minutes, and its role has to outlive them.
    #[arg(long)]
    no_wait: bool,

    /// Succeed where nothing of the cluster exists
    #[arg(long)]
    if_exists: bool,
}

impl Destroy {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        let screen = &context.screen;
        let mode = if self.dry_run {
            Mode::Plan
        } else {
            Mode::Apply
        };
        let mut session = Session::open(context, mode).await?;
        let asks = !self.dry_run && !self.yes && std::io::stdin().is_terminal();
        let confirmed = if asks {
            self.ask(&mut session).await?
        } else {
            Confirmed::without_asking()
        };
        let request = DestroyRequest {
            cluster: self.name.clone(),
            keep_instances: self.keep_instances,
            wait: !self.no_wait,
        };
        let name = &self.name.name;
        let region = session.region().to_owned();
        let doing = format!("destroying cluster {name}");
        let (destroyed, report) = session
            .run(&doing, Purpose::Remove, async |aws| {
                destroy(aws, request, &confirmed).await
            })
            .await?;
        if !destroyed.found && !self.if_exists {
            bail!("no cluster named {name} in {region}: nothing that wekactl made has this name");
        }
        if !destroyed.left.is_empty() {
            let left: Vec<String> = destroyed
                .left
                .iter()
                .map(|(kind, name)| format!("{kind} {name}"))
                .collect();
            screen.line(
                Tone::Warning,
                &format!(
                    "left, because AWS still uses it: {}; run the same command again in 20 minutes",
                    left.join(", ")
                ),
            );
        }
        if screen.is_json() {
            let (changes, summary) = report.to_json();
            let left: Vec<_> = destroyed
                .left
                .iter()
                .map(|(kind, name)| json!({"kind": kind, "name": name}))
                .collect();
            screen.json(&json!({
                "cluster": name,
                "dry_run": self.dry_run,
                "found": destroyed.found,
                "changes": changes,
                "summary": summary,
                "left": left,
            }))?;
        } else if self.dry_run {
            screen.data(&report.table(screen.table_width()))?;
        } else {
            screen.line(Tone::Plain, &farewell(name, &region, destroyed.found));
        }
        Ok(())
    }

    /// Asks for the cluster's name.
    async fn ask(&self, session: &mut Session) -> Result<Confirmed> {
        let screen = session.screen().clone();
        if !screen.can_ask() {
            return Err(UsageError(
                "the question can not be seen, because standard error is no terminal: give --yes to go on without it".into(),
            )
            .into());
        }
        let (name, region) = (self.name.name.clone(), session.region().to_owned());
        let backends = if self.keep_instances {
            "Its backends go on running."
        } else {
            "EVERY BACKEND IS TERMINATED WITH ITS DATA."
        };
        screen.line(
            Tone::Warning,
            &format!(
                "all that wekactl made for cluster {name} in {region} will be removed. {backends}"
            ),
        );
        let typed = session.answer(move || line(&screen)).await?;
        Confirmed::by_name(&self.name, &typed)
            .context("the answer is not the cluster's name: nothing was changed")
    }
}

/// One line from the terminal; empty at its end.
fn line(screen: &Screen) -> Result<String> {
    screen.question("Type the cluster's name to go on: ");
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line)? == 0 {
        screen.end_line();
    }
    Ok(line.trim().to_owned())
}

fn farewell(name: &str, region: &str, found: bool) -> String {
    if found {
        format!("cluster {name} is no longer managed")
    } else {
        format!("no cluster named {name} in {region}: there was nothing to remove")
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::parsed;
    use super::super::{ClusterCommand, Command};
    use super::*;

    fn destroy(arguments: &[&str]) -> Destroy {
        let line = [&["clusters", "destroy"], arguments].concat();
        match parsed(&line).command {
            Command::Cluster(ClusterCommand::Destroy(destroy)) => destroy,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn long_and_short_flags_mean_the_same() {
        let long = destroy(&[
            "--name",
            "prod",
            "--keep-instances",
            "--dry-run",
            "--yes",
            "--no-wait",
            "--if-exists",
        ]);
        let short = destroy(&["-n", "prod", "-kdy", "--no-wait", "--if-exists"]);
        for parsed in [&long, &short] {
            assert_eq!(parsed.name.name, "prod");
            assert!(parsed.keep_instances && parsed.dry_run && parsed.yes);
            assert!(parsed.no_wait && parsed.if_exists);
        }
        let least = destroy(&["-n", "prod"]);
        assert!(!least.keep_instances && !least.dry_run && !least.yes);
        assert!(!least.no_wait && !least.if_exists);
    }
}
