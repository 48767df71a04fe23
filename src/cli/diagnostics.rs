//! Diagnostics on stderr, for who looks for a fault. What the AWS SDK says of requests and credentials never
//! gets through, however much is asked for.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::Global;
use super::screen::{Screen, Tone};

const VARIABLE: &str = "LOG_LEVEL";

/// Starts them, once in a process.
pub(super) fn start(global: &Global, screen: &Screen) {
    let variable = std::env::var(VARIABLE)
        .ok()
        .filter(|level| !level.is_empty());
    let from_variable = variable.as_deref().map(level);
    if let (Some(word), Some(None)) = (&variable, from_variable) {
        screen.line(
            Tone::Warning,
            &format!("{VARIABLE}={word} is no level: trace, debug, info, warn, error or disabled"),
        );
    }
    let writer = screen.clone();
    let format = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(move || writer.clone());
    // A second start, as in tests, keeps the first one's.
    let _ = tracing_subscriber::registry()
        .with(targets(wanted(global, from_variable.flatten())))
        .with(format)
        .try_init();
}

/// The flags outrank the variable.
fn wanted(global: &Global, variable: Option<LevelFilter>) -> LevelFilter {
    match (global.quiet, global.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => variable.unwrap_or(LevelFilter::WARN),
        (false, 1) => LevelFilter::INFO,
        (false, _) => LevelFilter::DEBUG,
    }
}

/// Ours as wanted; of all others at most warnings, because from "info" on the SDK tells about credentials and
/// from "debug" on about the bodies of requests.
fn targets(wanted: LevelFilter) -> Targets {
    let others = if wanted >= LevelFilter::INFO {
        LevelFilter::WARN
    } else {
        wanted.min(LevelFilter::ERROR)
    };
    Targets::new()
        .with_default(others)
        .with_target("wekactl", wanted)
}

/// The earlier tool's words, and ours.
fn level(word: &str) -> Option<LevelFilter> {
    Some(match word.to_ascii_lowercase().as_str() {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "warn" | "warning" => LevelFilter::WARN,
        "error" | "fatal" | "panic" => LevelFilter::ERROR,
        "disabled" | "off" => LevelFilter::OFF,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn the_sdk_never_tells_more_than_warnings() {
        for wanted in [LevelFilter::TRACE, LevelFilter::DEBUG, LevelFilter::INFO] {
            let targets = targets(wanted);
            for target in [
                "aws_config::profile::credentials",
                "aws_smithy_runtime::client",
                "hyper",
            ] {
                assert!(
                    !targets.would_enable(target, &Level::INFO),
                    "{wanted} {target}"
                );
                assert!(
                    targets.would_enable(target, &Level::WARN),
                    "{wanted} {target}"
                );
            }
            assert!(targets.would_enable("wekactl::aws", &Level::INFO));
        }
        assert!(!targets(LevelFilter::OFF).would_enable("hyper", &Level::ERROR));
    }

    #[test]
    fn flags_outrank_the_variable() {
        let with = |quiet, verbose| Global {
            quiet,
            verbose,
            ..Global::silent()
        };
        let debug = level("DEBUG");
        assert_eq!(wanted(&with(false, 0), debug), LevelFilter::DEBUG);
        assert_eq!(wanted(&with(false, 0), None), LevelFilter::WARN);
        assert_eq!(wanted(&with(false, 1), debug), LevelFilter::INFO);
        assert_eq!(wanted(&with(false, 2), level("off")), LevelFilter::DEBUG);
        assert_eq!(wanted(&with(true, 0), debug), LevelFilter::ERROR);
        assert_eq!(level("loud"), None);
    }
}
