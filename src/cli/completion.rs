//! `completion` and `man`: what is made of the commands themselves.

use anyhow::{Context as _, Result, ensure};
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, Context};
use crate::cluster::UsageError;

const EXAMPLES: &str = "\
Examples:
  For this shell:
    source <(wekactl completion bash)

  For every shell to come:
    wekactl completion bash > ~/.local/share/bash-completion/completions/wekactl
    wekactl completion zsh > \"${fpath[1]}/_wekactl\"
    wekactl completion fish > ~/.config/fish/completions/wekactl.fish
";

/// Print the script by which a shell completes commands and flags
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Completion {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Whoever reads JSON shall not get something else.
fn text_only(context: &Context, what: &str) -> Result<()> {
    ensure!(
        !context.screen.is_json(),
        UsageError(format!("{what} is no JSON: leave out --output json"))
    );
    Ok(())
}

impl Completion {
    pub(super) fn run(&self, context: &Context) -> Result<()> {
        text_only(context, "a completion script")?;
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "wekactl", &mut script);
        context.screen.data(&String::from_utf8(script)?)
    }
}

/// Print the manual page of a command
#[derive(Debug, Args)]
pub(super) struct Manual {
    /// The command, as it is typed [default: wekactl itself]
    command: Vec<String>,
}

impl Manual {
    pub(super) fn run(&self, context: &Context) -> Result<()> {
        text_only(context, "a manual page")?;
        let mut root = Cli::command();
        root.build();
        let mut command = &root;
        for word in &self.command {
            let found = command.find_subcommand(word);
            command = found.ok_or_else(|| {
                UsageError(format!("there is no command {}", self.command.join(" ")))
            })?;
        }
        let name = command
            .get_bin_name()
            .unwrap_or("wekactl")
            .replace(' ', "-");
        let mut page = Vec::new();
        Man::new(command.clone().display_name(&name))
            .title(name)
            .render(&mut page)
            .context("writing the manual page")?;
        context.screen.data(&String::from_utf8(page)?)
    }
}
