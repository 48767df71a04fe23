//! The only door to the terminal. Data goes to stdout, everything else to stderr, and nothing that AWS or a user
//! wrote can move the cursor, change a colour or forge a line.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use clap::error::{ContextKind, ContextValue};
use indicatif::{MultiProgress, ProgressDrawTarget};

use super::Global;

/// How data is written to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    Text,
    Json,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    Auto,
    Always,
    Never,
}

impl Color {
    fn applies(self, terminal: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                terminal && !refused && !is_dumb()
            }
        }
    }
}

/// What a line on stderr is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// Something was done, or is as it was.
    Plain,
    /// Something a person should know.
    Note,
    /// Something a person should act on. Shown with `--quiet`, too.
    Warning,
    /// Why it failed. Shown with `--quiet`, too.
    Error,
    /// What to do about it. Shown with `--quiet`, too.
    Hint,
}

impl Tone {
    fn label(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Plain => None,
            Self::Note => Some(("note", "36")),
            Self::Warning => Some(("warning", "1;33")),
            Self::Error => Some(("error", "1;31")),
            Self::Hint => Some(("hint", "1;36")),
        }
    }

    fn survives_quiet(self) -> bool {
        matches!(self, Self::Warning | Self::Error | Self::Hint)
    }
}

/// See the module's words. Clones draw on the same terminal.
#[derive(Clone)]
pub(super) struct Screen {
    output: Output,
    verbose: u8,
    quiet: bool,
    colored: bool,
    bars: MultiProgress,
}

impl Screen {
    pub(super) fn new(global: &Global) -> Self {
        let draws = !global.quiet && io::stderr().is_terminal() && !is_dumb();
        let target = if draws {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        Self {
            output: global.output,
            verbose: global.verbose,
            quiet: global.quiet,
            colored: global.color.applies(io::stderr().is_terminal()),
            bars: MultiProgress::with_draw_target(target),
        }
    }

    /// Whether data is asked for as JSON.
    pub(super) fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    /// Whether also what did not change is worth a line.
    pub(super) fn is_verbose(&self) -> bool {
        self.verbose > 0
    }

    /// Where spinners are drawn; hidden where stderr is no terminal.
    pub(super) fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    /// Whether a person can be asked: a question has to be seen, and its answer typed.
    pub(super) fn can_ask(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// How wide a table may be; `None` where stdout is no terminal and a line may have any length.
    pub(super) fn table_width(&self) -> Option<u16> {
        io::stdout().is_terminal().then(|| terminal_width().max(60))
    }

    /// Writes text that ends its own lines to stdout. A reader that went away (`| head`) is no failure.
    ///
    /// # Errors
    /// Stdout can not be written: a full disk.
    pub(super) fn data(&self, text: &str) -> Result<()> {
        self.bars
            .suspend(|| write_all(io::stdout().lock(), text))
            .context("writing to standard output")
    }

    /// Writes one document to stdout.
    ///
    /// # Errors
    /// As [`Screen::data`].
    pub(super) fn json(&self, document: &serde_json::Value) -> Result<()> {
        self.data(&format!("{}\n", plain_json(&format!("{document:#}"))))
    }

    /// Writes one line to stderr.
    pub(super) fn line(&self, tone: Tone, text: &str) {
        if self.quiet && !tone.survives_quiet() {
            return;
        }
        self.raw_line(&labelled(tone, text, self.colored));
    }

    /// Writes a question to stderr, without ending its line.
    pub(super) fn question(&self, text: &str) {
        self.bars.suspend(|| {
            let _ = write_all(io::stderr().lock(), &plain(text));
        });
    }

    /// Ends a line that a question left open.
    pub(super) fn end_line(&self) {
        self.raw_line("");
    }

    /// Takes all spinners away.
    pub(super) fn clear(&self) {
        // A terminal that is gone has nothing to clear.
        let _ = self.bars.clear();
    }

    fn raw_line(&self, line: &str) {
        self.bars.suspend(|| {
            // There is nowhere left to say that stderr can not be written.
            let _ = write_all(io::stderr().lock(), &format!("{line}\n"));
        });
    }
}

/// Diagnostics go the same way, so that they do not tear the spinners.
impl io::Write for Screen {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.raw_line(&plain(String::from_utf8_lossy(line).trim_end()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Shows what clap has to say: help and version on stdout, a usage error on stderr.
///
/// Before arguments are understood there is no [`Screen`], and no certain `--color` either.
pub(super) fn clap_message(mut message: clap::Error, color: Color) {
    // It repeats arguments, which a script may have from anywhere.
    let arguments: Vec<(ContextKind, String)> = message
        .context()
        .filter_map(|(kind, value)| match value {
            ContextValue::String(argument) => Some((kind, plain(argument))),
            _ => None,
        })
        .collect();
    for (kind, argument) in arguments {
        message.insert(kind, ContextValue::String(argument));
    }
    let text = message.render();
    let on_stderr = message.use_stderr();
    let terminal = if on_stderr {
        io::stderr().is_terminal()
    } else {
        io::stdout().is_terminal()
    };
    let text = if color.applies(terminal) {
        text.ansi().to_string()
    } else {
        text.to_string()
    };
    // A reader that went away is no failure, and of another one nothing could tell.
    let _ = if on_stderr {
        write_all(io::stderr().lock(), &text)
    } else {
        write_all(io::stdout().lock(), &text)
    };
}

/// What is wrong, in one line on stderr, before there is a [`Screen`].
pub(super) fn early_error(text: &str, color: Color) {
    early_line(Tone::Error, text, color);
}

/// What to do about it.
pub(super) fn early_hint(text: &str, color: Color) {
    early_line(Tone::Hint, text, color);
}

fn early_line(tone: Tone, text: &str, color: Color) {
    let colored = color.applies(io::stderr().is_terminal());
    let line = labelled(tone, text, colored);
    let _ = write_all(io::stderr().lock(), &format!("{line}\n"));
}

/// Text in which nothing acts on a terminal: a line break becomes a space, every other control character and
/// every character that turns the direction of writing is spelled out.
pub(super) fn plain(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\n' | '\r' | '\t' => {
                while characters
                    .next_if(|next| matches!(next, ' ' | '\n' | '\r' | '\t'))
                    .is_some()
                {}
                safe.push(' ');
            }
            _ if character.is_control() || turns_direction(character) => {
                // Writing to a string can not fail.
                let _ = write!(safe, "{}", character.escape_unicode());
            }
            _ => safe.push(character),
        }
    }
    safe
}

/// The same document, in which nothing acts on a terminal either: JSON itself escapes only some of that.
fn plain_json(document: &str) -> String {
    let mut safe = String::with_capacity(document.len());
    for character in document.chars() {
        if character != '\n' && (character.is_control() || turns_direction(character)) {
            // Writing to a string can not fail.
            let _ = write!(safe, "\\u{:04x}", u32::from(character));
        } else {
            safe.push(character);
        }
    }
    safe
}

fn turns_direction(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn labelled(tone: Tone, text: &str, colored: bool) -> String {
    let text = plain(text);
    match tone.label() {
        None => text,
        Some((label, code)) if colored => format!("\u{1b}[{code}m{label}:\u{1b}[0m {text}"),
        Some((label, _)) => format!("{label}: {text}"),
    }
}

fn write_all(mut stream: impl io::Write, text: &str) -> io::Result<()> {
    match stream
        .write_all(text.as_bytes())
        .and_then(|()| stream.flush())
    {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn terminal_width() -> u16 {
    comfy_table::Table::new().width().unwrap_or(100)
}

fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hostile_reaches_the_terminal() {
        for (hostile, safe) in [
            ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
            (
                "x\nerror: forged\r\n  hint: too",
                "x error: forged hint: too",
            ),
            ("tab\tbell\u{7}", "tab bell\\u{7}"),
            ("c1 \u{9b}31m", "c1 \\u{9b}31m"),
            ("\u{202e}desrever", "\\u{202e}desrever"),
            ("weka-größe → 2, \u{1f980}", "weka-größe → 2, \u{1f980}"),
        ] {
            assert_eq!(plain(hostile), safe);
            assert_eq!(
                labelled(Tone::Error, hostile, false),
                format!("error: {safe}")
            );
        }
    }

    #[test]
    fn nothing_hostile_is_in_json_and_nothing_is_lost() {
        let document = serde_json::json!({"a": "\u{1b}[2J \u{9b}31m \u{202e} \u{7f} ä\n"});
        let safe = plain_json(&format!("{document:#}"));
        assert!(
            safe.chars().all(|each| each == '\n' || !each.is_control()),
            "{safe:?}"
        );
        assert!(!safe.contains('\u{202e}'), "{safe:?}");
        let read: serde_json::Value = serde_json::from_str(&safe).unwrap();
        assert_eq!(read, document);
    }

    #[test]
    fn only_labels_are_colored() {
        assert_eq!(
            labelled(Tone::Warning, "w", true),
            "\u{1b}[1;33mwarning:\u{1b}[0m w"
        );
        assert_eq!(labelled(Tone::Plain, "made", true), "made");
    }

    #[test]
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is() {
        struct Fails(io::ErrorKind);
        impl io::Write for Fails {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(write_all(Fails(io::ErrorKind::BrokenPipe), "x").is_ok());
        assert!(write_all(Fails(io::ErrorKind::StorageFull), "x").is_err());
    }
}
