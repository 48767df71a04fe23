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
use crate::cluster::destroy::{Confirmed, DestroyRequest, Destroyed, look, take_down};
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
        if asks && !screen.can_ask() {
            return Err(UsageError(
                "the question can not be seen, because standard error is no terminal: give --yes to go on without it".into(),
            )
            .into());
        }
        let request = DestroyRequest {
            cluster: self.name.clone(),
            keep_instances: self.keep_instances,
            wait: !self.no_wait,
        };
        let name = &self.name.name;
        let region = session.region().to_owned();
        let looking = format!("looking at what there is of cluster {name}");
        let (found, account) = session
            .look(&looking, Purpose::Remove, async |aws| {
                let found = look(aws, &request).await?;
                Ok((found, aws.identity().await?.account.clone()))
            })
            .await?;
        if found.is_none() && !self.if_exists {
            bail!("no cluster named {name} in {region}: nothing that wekactl made has this name");
        }
        if let (Some(found), false) = (&found, self.dry_run) {
            let place = format!("{region} (account {account})");
            screen.line(Tone::Warning, &self.warning(&place, found.backends()));
        }
        let confirmed = if asks && found.is_some() {
            self.ask(&session).await?
        } else {
            Confirmed::without_asking()
        };
        let is_found = found.is_some();
        let doing = format!("destroying cluster {name}");
        let (destroyed, report) = session
            .run(&doing, Purpose::Remove, async |aws| match found {
                Some(found) => take_down(aws, &request, found, &confirmed).await,
                None => Ok(Destroyed::default()),
            })
            .await?;
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
            let (terminated, kept) = match self.keep_instances {
                false => (destroyed.backends, 0),
                true => (0, destroyed.backends),
            };
            screen.json(&json!({
                "cluster": name,
                "dry_run": self.dry_run,
                "found": is_found,
                "backends": {"terminated": terminated, "kept": kept},
                "changes": changes,
                "summary": summary,
                "left": left,
            }))?;
        } else if self.dry_run {
            screen.data(&report.table(screen.table_width()))?;
        } else if is_found {
            screen.line(Tone::Plain, &self.farewell(&destroyed));
        } else {
            screen.line(
                Tone::Plain,
                &format!("no cluster named {name} in {region}: there was nothing to remove"),
            );
        }
        Ok(())
    }

    /// What is going to happen, in which account, and to how many.
    fn warning(&self, place: &str, backends: usize) -> String {
        let name = &self.name.name;
        let fate = match (backends, self.keep_instances) {
            (0, _) => "It has no backends any more.".to_owned(),
            (1, true) => "Its 1 backend goes on running.".to_owned(),
            (_, true) => format!("Its {backends} backends go on running."),
            (_, false) => {
                format!(
                    "EVERY BACKEND IS TERMINATED WITH ITS DATA: {}.",
                    count(backends)
                )
            }
        };
        format!("all that wekactl made for cluster {name} in {place} will be removed. {fate}")
    }

    /// What has happened.
    fn farewell(&self, destroyed: &Destroyed) -> String {
        let name = &self.name.name;
        let backends = count(destroyed.backends);
        let fate = match (destroyed.backends, self.keep_instances) {
            (0, _) => "there were no backends left".to_owned(),
            (_, true) => format!("{backends} set free"),
            (_, false) => format!("{backends} terminated"),
        };
        if destroyed.left.is_empty() {
            format!("cluster {name} is no longer managed: {fate}")
        } else {
            format!("cluster {name} is not gone yet, because of what is left: {fate}")
        }
    }

    /// Asks for the cluster's name.
    async fn ask(&self, session: &Session) -> Result<Confirmed> {
        let screen = session.screen().clone();
        let typed = session.answer(move || line(&screen)).await?;
        Confirmed::by_name(&self.name, &typed)
            .context("the answer is not the cluster's name: nothing was changed")
    }
}

/// "1 backend", "6 backends".
fn count(backends: usize) -> String {
    let noun = if backends == 1 { "backend" } else { "backends" };
    format!("{backends} {noun}")
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
    fn how_many_backends_is_said_before_and_after() {
        let (ends, keeps) = (destroy(&["-n", "prod"]), destroy(&["-n", "prod", "-k"]));
        for (command, backends, before, after) in [
            (
                &ends,
                6,
                "WITH ITS DATA: 6 backends.",
                "no longer managed: 6 backends terminated",
            ),
            (
                &ends,
                0,
                "It has no backends any more.",
                "there were no backends left",
            ),
            (
                &keeps,
                6,
                "Its 6 backends go on running.",
                "6 backends set free",
            ),
            (
                &keeps,
                1,
                "Its 1 backend goes on running.",
                "1 backend set free",
            ),
        ] {
            let said = command.warning("eu-west-1 (account 1)", backends);
            assert!(
                said.contains("eu-west-1 (account 1)") && said.ends_with(before),
                "{said}"
            );
            let done = Destroyed {
                backends,
                left: Vec::new(),
            };
            assert!(command.farewell(&done).ends_with(after));
            let left = vec![(crate::run::Kind::Role, "x".to_owned())];
            let said = command.farewell(&Destroyed { left, ..done });
            assert!(said.contains("is not gone yet"), "{said}");
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
