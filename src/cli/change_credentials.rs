//! `cluster change-credentials`.

use anyhow::Result;
use clap::Args;
use secrecy::SecretString;
use serde_json::json;

use super::password::{PasswordFlags, ask_for};
use super::progress::Purpose;
use super::screen::Tone;
use super::session::Session;
use super::{Context, values};
use crate::cluster::credentials::{Login, look, replace};
use crate::cluster::names::Cluster;
use crate::run::Mode;

const EXAMPLES: &str = "\
Examples:
  After the password was changed in Weka; it is asked for:
    wekactl cluster change-credentials --region eu-west-1 --name prod --username admin

  From a script, with the password in a file:
    wekactl cluster change-credentials -n prod -u admin --password-stdin < password.txt
";

/// Replace the Weka user name and password that the automation works with
///
/// They are tried on the cluster first, by the function scale, which runs where the backends are: if the cluster refuses
/// them, the old ones stay. If it can not be reached, or this user may not read its status, they are stored, with a
/// warning.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ChangeCredentials {
    /// Name of the cluster
    #[arg(short, long)]
    name: Cluster,

    /// User name of a Weka administrator
    #[arg(short, long, value_name = "USER", value_parser = values::user_name)]
    username: SecretString,

    #[command(flatten)]
    password: PasswordFlags,

    /// Store user name and password without trying them on the cluster
    #[arg(long)]
    no_verify: bool,
}

impl ChangeCredentials {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        let screen = &context.screen;
        let mut session = Session::open(context, Mode::Apply).await?;
        let given = self.password.given(screen, false).await?;
        let (cluster, username) = (self.name, self.username);
        let doing = format!("changing the credentials of cluster {}", cluster.name);
        let found = session
            .look(&doing, Purpose::Make, async |aws| look(aws, &cluster).await)
            .await?;
        let password = match given {
            Some(password) => password,
            None => ask_for(&session, &username).await?,
        };
        let (login, report) = session
            .run(&doing, Purpose::Make, async |aws| {
                replace(aws, &cluster, &found, username, password, !self.no_verify).await
            })
            .await?;
        if screen.is_json() {
            let (changes, summary) = report.to_json();
            screen.json(&json!({
                "cluster": cluster.name,
                "verified": login == Login::Works,
                "changes": changes,
                "summary": summary,
            }))?;
        } else {
            let tried = match login {
                Login::Works => "Weka takes them",
                Login::MayNotRead => "Weka takes them, but this user may not read its status",
                Login::Untried => "they have not been tried on Weka",
            };
            let are = match report.replaces_credentials() {
                true => "are replaced",
                false => "are stored",
            };
            let line = format!("the credentials of cluster {} {are}: {tried}", cluster.name);
            screen.line(Tone::Plain, &line);
        }
        Ok(())
    }
}
