//! Where the password comes from. It never goes to an error, a log or another process.

#![expect(
    clippy::doc_markdown,
    reason = "the doc comments are the help, which people read as it is"
)]

use std::ffi::OsString;

use anyhow::{Context as _, Result};
use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::task::spawn_blocking;

use super::screen::Screen;
#[cfg(not(unix))]
use super::screen::plain;
use super::session::Session;
#[cfg(unix)]
use super::terminal::TerminalState;
use super::values;
use crate::cluster::UsageError;

const VARIABLE: &str = "WEKACTL_PASSWORD";
const WAYS: &str = "give it with --password-stdin or WEKACTL_PASSWORD";

/// The flags that every command with a password has.
#[derive(Debug, Clone, Args)]
pub(super) struct PasswordFlags {
    /// The user's password
    ///
    /// Other users of this machine can read it in the list of processes: --password-stdin and the environment
    /// variable WEKACTL_PASSWORD are safer. Without any of these it is asked for, without echo.
    // Whatever follows is the password, as in the earlier tool: it may begin with a hyphen.
    #[arg(short, long, value_name = "PASSWORD", allow_hyphen_values = true, conflicts_with = "password_stdin", value_parser = values::secret)]
    password: Option<SecretString>,

    /// Read the password from the first line of standard input
    #[arg(long)]
    password_stdin: bool,
}

/// The first of these that there is.
#[derive(Debug)]
enum Source {
    Known(SecretString),
    Stdin,
    Terminal,
}

impl PasswordFlags {
    /// The password, unless it has to be [asked for](ask_for) or, in a dry run, is not given.
    ///
    /// # Errors
    /// There is none and nobody to ask, or an empty one.
    pub(super) async fn given(
        &self,
        screen: &Screen,
        dry_run: bool,
    ) -> Result<Option<SecretString>> {
        let environment = std::env::var_os(VARIABLE);
        let source = self.source(environment, screen.can_ask() || dry_run)?;
        let password = match source {
            Source::Known(password) => password,
            Source::Stdin => spawn_blocking(first_line_of_stdin).await??,
            Source::Terminal => return Ok(None),
        };
        if password.expose_secret().is_empty() {
            return Err(UsageError(format!("the password is empty: {WAYS}")).into());
        }
        Ok(Some(password))
    }

    fn source(&self, environment: Option<OsString>, can_ask: bool) -> Result<Source, UsageError> {
        if let Some(password) = &self.password {
            return Ok(Source::Known(password.clone()));
        }
        if self.password_stdin {
            return Ok(Source::Stdin);
        }
        if let Some(value) = environment {
            // The value must not be in the error.
            let value = value
                .into_string()
                .map_err(|_| UsageError(format!("the password in {VARIABLE} is not UTF-8")))?;
            return Ok(Source::Known(value.into()));
        }
        if can_ask {
            return Ok(Source::Terminal);
        }
        Err(UsageError(format!(
            "there is no password, and no terminal to ask for it: {WAYS}"
        )))
    }
}

/// Asks for the user's password at the terminal.
///
/// # Errors
/// The answer is empty; the question was interrupted.
pub(super) async fn ask_for(session: &Session, username: &SecretString) -> Result<SecretString> {
    let screen = session.screen().clone();
    let question = format!("Password of Weka user {}: ", username.expose_secret());
    let password = session.answer(move || ask(&screen, &question)).await?;
    if password.expose_secret().is_empty() {
        return Err(UsageError("no password was typed: nothing was changed".into()).into());
    }
    Ok(password)
}

fn first_line_of_stdin() -> Result<SecretString> {
    first_line(std::io::stdin().lock())
}

fn first_line(mut stream: impl std::io::BufRead) -> Result<SecretString> {
    let mut line = String::new();
    stream
        .read_line(&mut line)
        .context("reading the password from standard input")?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    Ok(line.into())
}

/// The echo ends before the question is seen: an answer that comes at once is not seen either, and is not lost.
#[cfg(unix)]
fn ask(screen: &Screen, question: &str) -> Result<SecretString> {
    let terminal = TerminalState::hide();
    screen.question(question);
    let password = first_line_of_stdin();
    terminal.restore();
    screen.end_line();
    password
}

#[cfg(not(unix))]
fn ask(_: &Screen, question: &str) -> Result<SecretString> {
    let password = dialoguer::Password::new()
        .with_prompt(plain(question).trim_end_matches([':', ' ']))
        .report(false)
        .allow_empty_password(true)
        .interact_on(&dialoguer::console::Term::stderr())
        .context("asking for the password")?;
    Ok(password.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(password: Option<&str>, password_stdin: bool) -> PasswordFlags {
        PasswordFlags {
            password: password.map(Into::into),
            password_stdin,
        }
    }

    fn known(source: Result<Source, UsageError>) -> String {
        match source {
            Ok(Source::Known(password)) => password.expose_secret().to_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flag_then_stdin_then_environment_then_terminal() {
        let variable = || Some(OsString::from("from variable"));
        assert_eq!(
            known(flags(Some("from flag"), false).source(variable(), true)),
            "from flag"
        );
        assert!(matches!(
            flags(None, true).source(variable(), true),
            Ok(Source::Stdin)
        ));
        assert_eq!(
            known(flags(None, false).source(variable(), true)),
            "from variable"
        );
        assert!(matches!(
            flags(None, false).source(None, true),
            Ok(Source::Terminal)
        ));
        let error = flags(None, false).source(None, false).unwrap_err();
        assert!(error.to_string().contains("--password-stdin"), "{error}");
        assert!(error.to_string().contains("WEKACTL_PASSWORD"), "{error}");
    }

    #[test]
    fn one_line_without_its_end() {
        for (input, expected) in [
            ("secret\n", "secret"),
            ("secret\r\nmore\n", "secret"),
            (" se cret ", " se cret "),
            ("", ""),
        ] {
            let password = first_line(input.as_bytes()).unwrap();
            assert_eq!(password.expose_secret(), expected);
        }
    }

    #[cfg(unix)]
    #[test]
    fn no_error_repeats_what_is_not_utf_8() {
        use std::os::unix::ffi::OsStringExt as _;
        let value = OsString::from_vec(b"hunter2\xff".to_vec());
        let error = flags(None, false).source(Some(value), true).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        let error = first_line(&b"hunter2\xff\n"[..]).unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}
