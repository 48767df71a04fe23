//! `cluster import`.

#![expect(
    clippy::doc_markdown,
    reason = "the doc comments are the help, which people read as it is"
)]

use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use secrecy::SecretString;
use serde_json::json;

use super::client_script::client_script;
use super::password::{PasswordFlags, ask_for};
use super::progress::Purpose;
use super::screen::Tone;
use super::session::Session;
use super::{Context, values};
use crate::cluster::UsageError;
use crate::cluster::import::{GivenCredentials, ImportRequest, import, look};
use crate::cluster::names::Cluster;
use crate::cluster::spec::{Cores, Dns};
use crate::run::Mode;

const EXAMPLES: &str = "\
Examples:
  Import the cluster of the stack prod; the password is asked for:
    wekactl cluster import --region eu-west-1 --name prod --username admin

  See first what would be made:
    wekactl cluster import --name prod --username admin --dry-run

  From a script, with the password in a file:
    wekactl cluster import -n prod -u admin --password-stdin < password.txt

  Keep the script with which clients join:
    wekactl cluster import -n prod -u admin > join.sh

  Put tags on everything that is made:
    wekactl cluster import -n prod -u admin -t owner=storage -t stage=live

  A cluster without a stack, from a list of instances:
    wekactl cluster import -n prod -u admin --instance-ids @backends.txt

  A name of one's own for the load balancer:
    wekactl cluster import -n prod -u admin -l weka.example.com -z Z0EXAMPLE
";

/// Make the cluster of a CloudFormation stack a managed one
///
/// Finds the backends of the stack and makes what manages them: an Auto Scaling group, a load balancer, the
/// functions that follow the group's size, and what these need. Prints the script with which clients join.
///
/// Run again, it changes nothing, or makes what is missing; the stored credentials are replaced if they differ.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Import {
    /// Name of the stack, or of the cluster with --instance-ids
    #[arg(short, long)]
    name: Cluster,

    /// User name of a Weka administrator
    #[arg(short, long, value_name = "USER", value_parser = values::user_name)]
    username: SecretString,

    #[command(flatten)]
    password: PasswordFlags,

    /// The backends, where there is no stack: ids with commas between them, or @FILE
    ///
    /// Can be repeated. A file has one id a line, or several with commas; # begins a comment.
    #[arg(short, long, value_name = "IDS")]
    instance_ids: Vec<String>,

    /// A tag for everything that is made; can be repeated
    ///
    /// At most 40 tags. The value may contain =.
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = values::tag)]
    tags: Vec<(String, String)>,

    /// Give new backends no public address, and make the API reachable from the VPC only
    ///
    /// The VPC needs an interface endpoint for execute-api with private DNS.
    #[arg(short = 's', long)]
    private_subnet: bool,

    /// The load balancer's second subnet, in another Availability Zone
    ///
    /// By default a subnet in another zone with the same route table as the backends' is taken.
    #[arg(short, long, value_name = "SUBNET", value_parser = values::subnet)]
    additional_alb_subnet: Option<String>,

    /// A DNS name for the load balancer; needs --dns-zone-id
    #[arg(short = 'l', long, value_name = "HOST", value_parser = values::host_name)]
    dns_alias: Option<String>,

    /// The hosted zone that the DNS name lies in; needs --dns-alias
    #[arg(short = 'z', long, value_name = "ZONE", value_parser = values::zone_id)]
    dns_zone_id: Option<String>,

    /// Let the scale function read the password from DynamoDB itself
    ///
    /// The VPC needs an endpoint for DynamoDB. Without this the password reaches that function sealed, in its
    /// input.
    #[arg(short = 'd', long)]
    use_dynamodb_endpoint: bool,

    /// Cores and memory of a backend's containers: compute=N,drive=N,frontend=N,memory=BYTES
    ///
    /// Needed for an instance type that wekactl does not know. The memory is what the compute container gets; it
    /// may also be a size like 32.64GB.
    #[arg(long, value_name = "CORES", value_parser = values::cores)]
    cores: Option<Cores>,

    /// A wekactl for Linux to upload as the functions' code, instead of this very program
    ///
    /// Needed where this program does not run in Lambda: with a newer glibc, or on another operating system, unless
    /// wekactl-lambda-x86_64 of the same release is in the program's directory.
    #[arg(long, value_name = "PATH")]
    lambda_binary: Option<PathBuf>,

    /// Store user name and password without trying them on the cluster
    ///
    /// Otherwise the function scale, which runs where the backends are, logs in with them. If the cluster refuses them,
    /// import fails before the automation begins, or before they replace others that it works with.
    #[arg(long)]
    no_verify: bool,

    /// Show what would be made, and make nothing
    #[arg(long)]
    dry_run: bool,
}

impl Import {
    pub(super) async fn run(self, context: &Context) -> Result<()> {
        let screen = &context.screen;
        let user_tags = values::tags(&self.tags)?;
        let dns = dns(self.dns_alias, self.dns_zone_id)?;
        let instance_ids = if self.instance_ids.is_empty() {
            None
        } else {
            Some(values::instance_ids(&self.instance_ids)?)
        };
        let mode = if self.dry_run {
            Mode::Plan
        } else {
            Mode::Apply
        };
        let mut session = Session::open(context, mode).await?;
        let given = self.password.given(screen, self.dry_run).await?;
        let cluster = self.name;
        let request = ImportRequest {
            cluster: cluster.clone(),
            instance_ids,
            user_tags,
            private_subnet: self.private_subnet,
            additional_subnet: given_value(self.additional_alb_subnet),
            dns,
            use_dynamodb_endpoint: self.use_dynamodb_endpoint,
            cores: self.cores,
            lambda_binary: self.lambda_binary,
            only_managed: false,
            verify: !self.no_verify,
        };
        let doing = format!("importing cluster {}", cluster.name);
        // Nobody types a password for a stack that is not there.
        let found = session
            .look(&doing, Purpose::Make, async |aws| look(aws, &request).await)
            .await?;
        let password = match given {
            None if !self.dry_run => Some(ask_for(&session, &self.username).await?),
            given => given,
        };
        let credentials = GivenCredentials {
            username: self.username,
            password,
        };
        let (host, report) = session
            .run(&doing, Purpose::Make, async |aws| {
                import(aws, &request, found, &credentials).await
            })
            .await?;
        if report.replaces_credentials() {
            let are = if self.dry_run { "would be" } else { "are" };
            screen.line(
                Tone::Note,
                &format!(
                    "the user name or password stored before was another one: they {are} replaced"
                ),
            );
        }
        let script = host.as_deref().map(client_script).transpose()?;
        if screen.is_json() {
            let (changes, summary) = report.to_json();
            screen.json(&json!({
                "cluster": cluster.name,
                "dry_run": self.dry_run,
                "changes": changes,
                "summary": summary,
                "client_script": script,
            }))?;
        } else if self.dry_run {
            screen.data(&report.table(screen.table_width()))?;
        } else if let Some(script) = script {
            let script_is = if std::io::stdout().is_terminal() {
                "clients join with this script:"
            } else {
                "the script with which clients join is on standard output"
            };
            screen.line(
                Tone::Plain,
                &format!("cluster {} is managed; {script_is}", cluster.name),
            );
            screen.data(&script)?;
        }
        Ok(())
    }
}

/// An empty value counts as not given, as in scripts that pass a variable.
fn given_value(value: Option<String>) -> Option<String> {
    value.filter(|value| !value.is_empty())
}

fn dns(alias: Option<String>, zone_id: Option<String>) -> Result<Option<Dns>, UsageError> {
    match (given_value(alias), given_value(zone_id)) {
        (None, None) => Ok(None),
        (Some(alias), Some(zone_id)) => Ok(Some(Dns { alias, zone_id })),
        (Some(_), None) => Err(UsageError(
            "--dns-alias needs --dns-zone-id: the hosted zone that the name lies in".into(),
        )),
        (None, Some(_)) => Err(UsageError(
            "--dns-zone-id needs --dns-alias: the name that the load balancer gets".into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::super::tests::parsed;
    use super::super::{ClusterCommand, Command};
    use super::*;

    fn import(arguments: &[&str]) -> Import {
        let line = [&["cluster", "import"], arguments].concat();
        match parsed(&line).command {
            Command::Cluster(ClusterCommand::Import(import)) => *import,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn long_and_short_flags_mean_the_same() {
        let long = import(&[
            "--name",
            "prod",
            "--username",
            "admin",
            "--password",
            "secret",
            "--instance-ids",
            "i-1,i-2",
            "--instance-ids",
            "@file",
            "--tags",
            "a=b=c",
            "--tags",
            "d=",
            "--private-subnet",
            "--additional-alb-subnet",
            "subnet-00000000",
            "--dns-alias",
            "weka.example.com",
            "--dns-zone-id",
            "Z1",
            "--use-dynamodb-endpoint",
            "--cores",
            "compute=1,drive=2,frontend=3,memory=4",
            "--lambda-binary",
            "/x",
            "--no-verify",
            "--dry-run",
        ]);
        let short = import(&[
            "-nprod",
            "-u",
            "admin",
            "-p=secret",
            "-i=i-1,i-2",
            "-i",
            "@file",
            "-t",
            "a=b=c",
            "-td=",
            "-sd",
            "-a",
            "subnet-00000000",
            "-l",
            "weka.example.com",
            "-z",
            "Z1",
            "--cores=memory=4,frontend=3,drive=2,compute=1",
            "--lambda-binary=/x",
            "--no-verify",
            "--dry-run",
        ]);
        for parsed in [&long, &short] {
            assert_eq!(parsed.name.name, "prod");
            assert_eq!(parsed.username.expose_secret(), "admin");
            assert_eq!(parsed.instance_ids, ["i-1,i-2", "@file"]);
            let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
            assert_eq!(parsed.tags, [tag("a", "b=c"), tag("d", "")]);
            assert!(parsed.private_subnet && parsed.use_dynamodb_endpoint);
            assert_eq!(
                parsed.additional_alb_subnet.as_deref(),
                Some("subnet-00000000")
            );
            assert_eq!(parsed.dns_alias.as_deref(), Some("weka.example.com"));
            assert_eq!(parsed.dns_zone_id.as_deref(), Some("Z1"));
            assert_eq!(parsed.cores.map(|cores| cores.memory), Some(4));
            assert_eq!(parsed.lambda_binary, Some("/x".into()));
            assert!(parsed.no_verify && parsed.dry_run);
        }
        assert_eq!(format!("{long:?}"), format!("{short:?}"));
    }

    #[test]
    fn the_least_there_is() {
        let least = import(&["-n", "prod", "-u", "admin"]);
        assert!(!least.private_subnet && !least.use_dynamodb_endpoint && !least.dry_run);
        assert!(least.instance_ids.is_empty() && least.tags.is_empty() && least.cores.is_none());
    }

    #[test]
    fn no_debug_output_has_the_credentials() {
        let shown = format!(
            "{:?}",
            import(&["-n", "prod", "-u", "rooot", "-p", "hunter2"])
        );
        assert!(
            !shown.contains("hunter2") && !shown.contains("rooot"),
            "{shown}"
        );
    }

    #[test]
    fn an_alias_and_its_zone_go_together() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(dns(None, None).unwrap(), None);
        assert_eq!(dns(some(""), some("")).unwrap(), None);
        assert!(dns(some("a"), some("Z")).unwrap().is_some());
        for (alias, zone_id, needed) in [
            (some("a"), None, "needs --dns-zone-id"),
            (some("a"), some(""), "needs --dns-zone-id"),
            (None, some("Z"), "needs --dns-alias"),
        ] {
            let error = dns(alias, zone_id).unwrap_err().to_string();
            assert!(error.contains(needed), "{error}");
        }
    }
}
