//! The command line: one verb a file, and the only part that prints.

#![expect(
    clippy::doc_markdown,
    reason = "the doc comments are the help, which people read as it is"
)]

mod change_credentials;
mod client_script;
mod completion;
mod debug;
mod destroy;
mod diagnostics;
mod hints;
mod hostgroup;
mod import;
mod join_params;
mod list;
mod password;
mod progress;
mod screen;
mod session;
mod table;
mod terminal;
mod update;
mod values;
mod version;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{
    ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
};

use screen::{Color, Output, Screen};

/// What the process says to its caller.
mod exit {
    pub(super) const DONE: u8 = 0;
    pub(super) const FAILED: u8 = 1;
    pub(super) const USAGE: u8 = 2;
    pub(super) const DIFFERENCES: u8 = 3;
    pub(super) const INTERRUPTED: u8 = 130;
}

const AFTER_HELP: &str = "\
Examples:
  wekactl cluster import --region eu-west-1 --name prod --username admin
  wekactl cluster destroy --region eu-west-1 --name prod

Environment:
  AWS_*              Region, profile, credentials: as in every AWS tool
  AWS_ENDPOINT_URL   Where all calls go instead of to AWS
  WEKACTL_PASSWORD   The Weka password, where a command wants one
  WEKACTL_EC2_RATES  What AWS has multiplied EC2's default request rates by, for large clusters
  LOG_LEVEL          Diagnostics: trace, debug, info, warn, error, disabled
  NO_COLOR           No colours

Exit codes:
  0 done, 1 failed, 2 wrong usage, 3 there are differences (cluster update --dry-run --exit-code), 130 interrupted
";

const CLUSTER_EXAMPLES: &str = "\
Examples:
  wekactl cluster list
  wekactl cluster import --name prod --username admin
  wekactl cluster update --name prod --dry-run
  wekactl cluster destroy --name prod --dry-run
";

const VERSION_EXAMPLES: &str = "\
Examples:
  wekactl version
  wekactl version --output json
";

/// Turn a Weka CloudFormation stack into a managed, self-scaling cluster on AWS
///
/// An imported cluster follows the size of its Auto Scaling group: machines that are added join Weka, and machines
/// that leave are emptied first. What wekactl makes in the account, destroy takes away again.
#[derive(Debug, Parser)]
#[command(
    name = "wekactl",
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    args_override_self = true,
    after_help = AFTER_HELP
)]
struct Cli {
    #[command(flatten)]
    global: Global,

    #[command(subcommand)]
    command: Command,
}

/// The flags of every command; they may stand before and after it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// AWS region [default: AWS_REGION, else the profile's]
    #[arg(short, long, global = true, value_parser = values::region)]
    region: Option<String>,

    /// AWS profile [default: AWS_PROFILE]
    #[arg(long, global = true)]
    profile: Option<String>,

    /// Cloud provider
    #[arg(short = 'c', long, global = true, value_enum, default_value_t = Provider::Aws)]
    provider: Provider,

    /// How data is written to standard output
    ///
    /// With json it is one document, or nothing after an error. Progress, messages and errors are text on standard
    /// error either way.
    #[arg(short, long, global = true, value_enum, value_name = "FORM", default_value_t = Output::Text)]
    output: Output,

    /// Say also what stays as it is; twice: with diagnostics
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,

    /// Say nothing but warnings and errors
    #[arg(short, long, global = true)]
    quiet: bool,

    /// When to use colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = Color::Auto)]
    color: Color,
}

/// Where clusters are. The flag is the earlier tool's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Provider {
    Aws,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Manage clusters
    #[command(
        subcommand,
        visible_alias = "clusters",
        arg_required_else_help = true,
        after_help = CLUSTER_EXAMPLES
    )]
    Cluster(ClusterCommand),

    /// Look at host groups
    #[command(
        subcommand,
        arg_required_else_help = true,
        after_help = hostgroup::GROUP_EXAMPLES
    )]
    Hostgroup(hostgroup::HostGroupCommand),

    Completion(completion::Completion),

    #[command(hide = true)]
    Man(completion::Manual),

    /// Single steps, to find out what goes on
    #[command(subcommand, hide = true, arg_required_else_help = true)]
    Debug(debug::Debug),

    /// Show the version, the commit it was built from, and the target it was built for
    #[command(after_help = VERSION_EXAMPLES)]
    Version,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    Import(Box<import::Import>),
    Update(update::Update),
    ChangeCredentials(change_credentials::ChangeCredentials),
    Destroy(destroy::Destroy),
    JoinParams(join_params::JoinParams),
    List(list::List),
}

impl Command {
    /// As it is typed.
    fn words(&self) -> &'static str {
        match self {
            Self::Cluster(ClusterCommand::Import(_)) => "wekactl cluster import",
            Self::Cluster(ClusterCommand::Update(_)) => "wekactl cluster update",
            Self::Cluster(ClusterCommand::ChangeCredentials(_)) => {
                "wekactl cluster change-credentials"
            }
            Self::Cluster(ClusterCommand::Destroy(_)) => "wekactl cluster destroy",
            Self::Cluster(ClusterCommand::JoinParams(_)) => "wekactl cluster join-params",
            Self::Cluster(ClusterCommand::List(_)) => "wekactl cluster list",
            Self::Hostgroup(hostgroup::HostGroupCommand::List(_)) => "wekactl hostgroup list",
            Self::Completion(_) => "wekactl completion",
            Self::Man(_) => "wekactl man",
            Self::Debug(debug::Debug::ScalePlan(_)) => "wekactl debug scale-plan",
            Self::Debug(debug::Debug::Jrpc(_)) => "wekactl debug jrpc",
            Self::Debug(debug::Debug::Backends(_)) => "wekactl debug backends",
            Self::Debug(debug::Debug::JoinScript(_)) => "wekactl debug join-script",
            Self::Version => "wekactl version",
        }
    }
}

/// What every verb gets.
struct Context {
    global: Global,
    screen: Screen,
    command: &'static str,
}

impl Context {
    /// The region of the flag; an empty one counts as not given, as in scripts that pass a variable.
    fn region(&self) -> Option<String> {
        self.global
            .region
            .clone()
            .filter(|region| !region.is_empty())
    }

    fn profile(&self) -> Option<String> {
        self.global
            .profile
            .clone()
            .filter(|profile| !profile.is_empty())
    }
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let color = color_before_parsing(&arguments);
    let cli = match parse(arguments.clone()) {
        Ok(cli) => cli,
        Err(error) if may_show_a_password(&error, &arguments) => {
            screen::early_error(
                "an argument too many, perhaps a part of the password: quote a password that has spaces, or use --password-stdin",
                color,
            );
            return exit::USAGE.into();
        }
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(exit::FAILED);
            screen::clap_message(error, color);
            if let Some(flag) = flag_with_one_hyphen(&arguments).filter(|_| code == exit::USAGE) {
                screen::early_hint(&format!("did you mean {flag}?"), color);
            }
            return code.into();
        }
    };
    let screen = Screen::new(&cli.global);
    diagnostics::start(&cli.global, &screen);
    let context = Context {
        command: cli.command.words(),
        global: cli.global,
        screen,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            screen::early_error(&format!("starting the runtime: {error}"), color);
            return exit::FAILED.into();
        }
    };
    let result = runtime.block_on(run(cli.command, &context));
    // A question that was interrupted still waits for its answer, on a thread that nothing can stop.
    runtime.shutdown_background();
    match result {
        Ok(code) => code.into(),
        Err(error) => {
            hints::show(&error, &context.screen, &hints::Surroundings::of(&context)).into()
        }
    }
}

/// Gives the exit code of what has not failed.
async fn run(command: Command, context: &Context) -> Result<u8> {
    match command {
        Command::Cluster(ClusterCommand::Import(import)) => import.run(context).await?,
        Command::Cluster(ClusterCommand::Update(update)) => return update.run(context).await,
        Command::Cluster(ClusterCommand::ChangeCredentials(change)) => change.run(context).await?,
        Command::Cluster(ClusterCommand::Destroy(destroy)) => destroy.run(context).await?,
        Command::Cluster(ClusterCommand::JoinParams(join)) => join.run(context).await?,
        Command::Cluster(ClusterCommand::List(list)) => list.run(context).await?,
        Command::Hostgroup(hostgroup::HostGroupCommand::List(list)) => list.run(context).await?,
        Command::Completion(completion) => completion.run(context)?,
        Command::Man(manual) => manual.run(context)?,
        Command::Debug(debug) => debug.run(context).await?,
        Command::Version => version::run(context)?,
    }
    Ok(exit::DONE)
}

/// Understands the arguments, the earlier tool's `--flag=true` included.
fn parse(mut arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    loop {
        let error = match Cli::command()
            .try_get_matches_from(&arguments)
            .and_then(|matches| Cli::from_arg_matches(&matches))
        {
            Ok(cli) => return Ok(cli),
            Err(error) => error,
        };
        match without_bool_value(&error, &arguments) {
            Some(rewritten) => arguments = rewritten,
            None => return Err(error),
        }
    }
}

/// What stands instead of an argument: `None`, the same; empty, nothing.
type Rewrite<'a> = Box<dyn Fn(&str) -> Option<String> + 'a>;

/// The arguments with `--flag=true` as `--flag` and without `--flag=false`, where that is what the error is about:
/// scripts for the earlier tool may say `--keep-instances=$KEEP`, or `-k=$KEEP`.
fn without_bool_value(error: &clap::Error, arguments: &[OsString]) -> Option<Vec<OsString>> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let flag = context(ContextKind::InvalidArg)?;
    let rewrite: Rewrite<'_> = match error.kind() {
        ErrorKind::TooManyValues => {
            let value = context(ContextKind::InvalidValue)?;
            let is_true = go_bool(value)?;
            let given = format!("{flag}={value}");
            let instead = if is_true { flag } else { "" };
            Box::new(move |argument| (argument == given).then(|| instead.to_owned()))
        }
        ErrorKind::UnknownArgument if flag == "-=" => Box::new(|argument| {
            let (letters, value) = argument.strip_prefix('-')?.split_once('=')?;
            let last = letters.chars().next_back()?;
            let flags = letters.chars().all(|each| "sdk".contains(each));
            let kept = match (flags, go_bool(value)?) {
                (false, _) => return None,
                (true, true) => letters,
                (true, false) => letters.strip_suffix(last)?,
            };
            Some(if kept.is_empty() {
                String::new()
            } else {
                format!("-{kept}")
            })
        }),
        _ => return None,
    };
    let mut rewritten = Vec::with_capacity(arguments.len());
    for argument in arguments {
        match argument.to_str().and_then(&rewrite) {
            None => rewritten.push(argument.clone()),
            Some(instead) if instead.is_empty() => {}
            Some(instead) => rewritten.push(instead.into()),
        }
    }
    (rewritten != arguments).then_some(rewritten)
}

/// What Go takes for a truth value.
fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Whether the word that the error would repeat may be the rest of a password with spaces.
fn may_show_a_password(error: &clap::Error, arguments: &[OsString]) -> bool {
    let about_a_stray_word = matches!(
        error.kind(),
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand
    );
    about_a_stray_word
        && arguments.iter().any(|argument| {
            let text = argument.to_string_lossy();
            text.starts_with("-p") || text == "--password" || text.starts_with("--password=")
        })
        && !matches!(
            error.get(ContextKind::InvalidArg),
            Some(ContextValue::String(word)) if word.starts_with("--")
        )
}

/// The long flag that was written with one hyphen, as the earlier tool took it: `-dry-run` is `-d -r y-run`.
fn flag_with_one_hyphen(arguments: &[OsString]) -> Option<String> {
    fn is_a_flag(command: &clap::Command, name: &str) -> bool {
        command
            .get_arguments()
            .any(|argument| argument.get_long() == Some(name))
            || command
                .get_subcommands()
                .any(|command| is_a_flag(command, name))
    }
    let command = Cli::command();
    arguments.iter().find_map(|argument| {
        let name = argument.to_str()?.strip_prefix('-')?;
        let name = name.split('=').next().filter(|name| name.len() > 1)?;
        is_a_flag(&command, name).then(|| format!("--{name}"))
    })
}

/// `--color` as far as it can be known where the arguments may make no sense.
fn color_before_parsing(arguments: &[OsString]) -> Color {
    let mut words = arguments.iter().map(|argument| argument.to_string_lossy());
    let mut color = Color::Auto;
    while let Some(word) = words.next() {
        let value = match word.strip_prefix("--color") {
            Some("") => words.next(),
            Some(rest) => rest.strip_prefix('=').map(|value| value.to_owned().into()),
            None => None,
        };
        match value.as_deref() {
            Some("always") => color = Color::Always,
            Some("never") => color = Color::Never,
            _ => {}
        }
    }
    color
}

#[cfg(test)]
impl Global {
    /// For tests: nothing is printed.
    fn silent() -> Self {
        Self {
            region: None,
            profile: None,
            provider: Provider::Aws,
            output: Output::Text,
            verbose: 0,
            quiet: true,
            color: Color::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_parsed(line: &[&str]) -> Result<Cli, clap::Error> {
        parse(
            [&["wekactl"], line]
                .concat()
                .iter()
                .map(Into::into)
                .collect(),
        )
    }

    pub(super) fn parsed(line: &[&str]) -> Cli {
        try_parsed(line).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The help of every command, in the words a person reads.
    #[test]
    fn help() {
        fn collect(command: &mut clap::Command, path: &str, all: &mut String) {
            let line = "=".repeat(100);
            let text = command.render_long_help();
            all.push_str(&format!("{line}\n{path} --help\n{line}\n{text}\n"));
            for subcommand in command.get_subcommands_mut() {
                let path = format!("{path} {}", subcommand.get_name());
                if subcommand.get_name() != "help" {
                    collect(subcommand, &path, all);
                }
            }
        }
        let mut command = Cli::command().term_width(100);
        command.build();
        let mut all = String::new();
        collect(&mut command, "wekactl", &mut all);
        insta::assert_snapshot!(all);
    }

    #[test]
    fn global_flags_stand_before_and_after_the_command() {
        let flags = [
            "--region",
            "eu-west-1",
            "--profile",
            "p",
            "-c",
            "aws",
            "-o",
            "json",
            "-vv",
            "--color=always",
        ];
        let command = ["cluster", "destroy", "-n", "prod"];
        for line in [
            [&flags[..], &command].concat(),
            [&command[..], &flags].concat(),
        ] {
            let global = parsed(&line).global;
            assert_eq!(global.region.as_deref(), Some("eu-west-1"));
            assert_eq!(global.profile.as_deref(), Some("p"));
            assert_eq!(global.output, Output::Json);
            assert_eq!((global.verbose, global.quiet), (2, false));
            assert_eq!(global.color, Color::Always);
        }
        let line = ["cluster", "-r", "eu-west-2", "-q", "destroy", "-n", "prod"];
        let global = parsed(&line).global;
        assert_eq!(global.region.as_deref(), Some("eu-west-2"));
        assert!(global.quiet);
    }

    #[test]
    fn wrong_usage_ends_with_2_and_says_what_was_meant() {
        for (line, said) in [
            (&["cluster", "imprt"][..], "import"),
            (&["clutser"], "cluster"),
            (
                &[
                    "cluster",
                    "import",
                    "-n",
                    "a",
                    "-u",
                    "b",
                    "--dns-alais",
                    "x",
                ],
                "--dns-alias",
            ),
            (&["cluster", "import", "-u", "b"], "--name"),
            (&["cluster", "import", "-n", "a"], "--username"),
            (
                &["cluster", "import", "-n", "1a", "-u", "b"],
                "is no cluster name",
            ),
            (&["cluster", "import", "-n", "a", "-u", ""], "it is empty"),
            (
                &["cluster", "import", "-n", "a", "-u", "b", "-t", "x"],
                "key=value",
            ),
            (
                &["cluster", "import", "-n", "a", "-u", "b", "--cores", "x"],
                "compute=1",
            ),
            (
                &[
                    "cluster",
                    "import",
                    "-n",
                    "a",
                    "-u",
                    "b",
                    "-p",
                    "c",
                    "--password-stdin",
                ],
                "--password-stdin",
            ),
            (&["cluster", "destroy", "-n", "a", "-c", "gcp"], "aws"),
            (&["cluster", "destroy", "-n", "a", "-o", "yaml"], "json"),
            (&["cluster", "destroy", "-n", "a", "-vq"], "--quiet"),
            (&["cluster", "destroy", "-n", "a", "b"], "'b'"),
            (
                &["cluster", "destroy", "-n", "a", "--keep-instances=maybe"],
                "maybe",
            ),
            (&[], "Usage:"),
            (&["cluster"], "Usage:"),
        ] {
            let error = try_parsed(line).expect_err(&line.join(" "));
            assert_eq!(error.exit_code(), 2, "{line:?}");
            assert!(error.to_string().contains(said), "{line:?}: {error}");
            assert!(error.use_stderr(), "{line:?}");
        }
        for line in [
            &["--help"][..],
            &["cluster", "import", "-h"],
            &["help"],
            &["-V"],
        ] {
            let shown = try_parsed(line).expect_err("shown instead of done");
            assert_eq!((shown.exit_code(), shown.use_stderr()), (0, false));
        }
    }

    #[test]
    fn the_earlier_tools_ways_to_write_flags() {
        let keeps = |flags: &[&str]| {
            let line = [&["cluster", "destroy", "-n", "a"], flags].concat();
            match parsed(&line).command {
                Command::Cluster(ClusterCommand::Destroy(destroy)) => {
                    format!("{destroy:?}").contains("keep_instances: true")
                }
                other => panic!("{other:?}"),
            }
        };
        assert!(keeps(&["--keep-instances=true", "--dry-run=True"]));
        assert!(!keeps(&["--keep-instances=false"]));
        assert!(keeps(&["-k=1"]));
        assert!(!keeps(&["-k=f"]));
        assert!(keeps(&["-kd=false"]));
        assert!(!keeps(&["-dk=0"]));
        assert!(try_parsed(&["cluster", "destroy", "-n", "a", "-y=true"]).is_err());
        assert!(keeps(&["-k", "--keep-instances"]));
        // The last one counts.
        let last = parsed(&[
            "-r",
            "eu-west-1",
            "cluster",
            "destroy",
            "-n",
            "x",
            "-n",
            "y",
            "-r",
            "eu-west-2",
        ]);
        assert_eq!(last.global.region.as_deref(), Some("eu-west-2"));
        assert!(format!("{:?}", last.command).contains("\"y\""));
    }

    #[test]
    fn a_stray_part_of_a_password_is_not_repeated() {
        let line = ["wekactl", "cluster", "import", "-p", "correct", "horse"];
        let arguments: Vec<OsString> = line.iter().map(Into::into).collect();
        let error = parse(arguments.clone()).unwrap_err();
        assert!(error.to_string().contains("horse"));
        assert!(may_show_a_password(&error, &arguments));
        let line = ["wekactl", "cluster", "import", "-p", "x", "--dry-rnu"];
        let arguments: Vec<OsString> = line.iter().map(Into::into).collect();
        let error = parse(arguments.clone()).unwrap_err();
        assert!(!may_show_a_password(&error, &arguments), "{error}");
    }

    #[test]
    fn a_long_flag_with_one_hyphen_is_refused_and_told() {
        let meant = |line: &[&str]| {
            let arguments: Vec<OsString> = line.iter().map(Into::into).collect();
            flag_with_one_hyphen(&arguments)
        };
        for (command, flag) in [
            ("import", "-dry-run"),
            ("destroy", "-dry-run"),
            ("destroy", "-dry-run=true"),
            ("destroy", "-keep-instances"),
        ] {
            let line = ["cluster", command, "-n", "a", "-u", "b", flag];
            assert!(try_parsed(&line).is_err(), "{line:?}");
            let long = flag.split('=').next().map(|flag| format!("-{flag}"));
            assert_eq!(meant(&line), long, "{line:?}");
        }
        assert_eq!(meant(&["-n", "prod", "-d", "--dry-run", "-dk", "-v"]), None);
    }

    #[test]
    fn colors_before_anything_is_understood() {
        let color =
            |line: &[&str]| color_before_parsing(&line.iter().map(Into::into).collect::<Vec<_>>());
        assert_eq!(color(&["wekactl", "--color", "never", "x"]), Color::Never);
        assert_eq!(color(&["wekactl", "--color=always"]), Color::Always);
        assert_eq!(color(&["wekactl", "--colorful"]), Color::Auto);
    }
}
