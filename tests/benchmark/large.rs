//! What large clusters cost: a hundred backends of a stack, and a thousand that are given in a file, at AWS's request
//! rates and without.

use std::process::Command;
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use serde_json::json;

use super::seconds;
use super::support::large::{CLUSTER, Machines, command, throttled, with_peak};
use super::support::{Sandbox, mutations};

/// So many are a stack's, more are given by their ids.
const IN_A_STACK: usize = 100;
const SIZES: [usize; 2] = [IN_A_STACK, 1000];
/// MB of memory that no run may have.
const MOST_MEMORY: f64 = 100.0;

/// The table, and what is wrong whatever the machine does besides.
pub(super) fn costs(largest: usize, delay_ms: u32) -> (Table, Vec<String>) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "backends",
        "run",
        "calls",
        "changing",
        "throttled",
        "memory",
        "time",
    ]);
    let mut wrong = Vec::new();
    for size in SIZES.into_iter().filter(|size| *size <= largest) {
        for strict in [false, true] {
            let mark = if strict { ", `--strict`" } else { "" };
            for run in measure(size, strict, delay_ms) {
                let title = format!("{size}{mark}: {}", run.what);
                if run.peak > MOST_MEMORY {
                    wrong.push(format!("{title} had {:.0} MB in memory", run.peak));
                }
                if run.what == SECOND && run.changing > 0 {
                    wrong.push(format!("{title} changed something"));
                }
                if run.throttled > 0 {
                    wrong.push(format!("{title} was throttled {} times", run.throttled));
                }
                table.add_row([
                    format!("{size}{mark}"),
                    run.what.to_owned(),
                    run.calls.to_string(),
                    run.changing.to_string(),
                    run.throttled.to_string(),
                    format!("{:.0} MB", run.peak),
                    seconds(run.took),
                ]);
            }
        }
    }
    (table, wrong)
}

const SECOND: &str = "second import";

struct Measured {
    what: &'static str,
    calls: usize,
    changing: usize,
    throttled: usize,
    peak: f64,
    took: Duration,
}

/// Import, second import, update and destroy. Without AWS's rates wekactl does not keep them either.
fn measure(size: usize, strict: bool, delay_ms: u32) -> Vec<Measured> {
    let sandbox = match strict {
        true => Sandbox::start_with(&["--strict"]),
        false => Sandbox::start(),
    };
    let given = if size > IN_A_STACK {
        Some(Machines::make(&sandbox, size).argument)
    } else {
        sandbox.stack(&json!({"name": CLUSTER, "backends": size}));
        None
    };
    sandbox.set(&json!({"delay_ms": delay_ms}));
    let given: Vec<&str> = given
        .iter()
        .flat_map(|ids| ["--instance-ids", ids])
        .collect();
    [
        ("import", "import", &given[..]),
        (SECOND, "import", &given[..]),
        ("update --dry-run", "update", &["--dry-run"]),
        ("destroy", "destroy", &[]),
    ]
    .into_iter()
    .map(|(what, verb, flags)| {
        let mut command: Command = command(&sandbox, verb, flags);
        if !strict {
            command.env("WEKACTL_EC2_RATES", "1000");
        }
        sandbox.take_calls();
        let begin = Instant::now();
        let (run, peak) = with_peak(&sandbox, &command);
        let took = begin.elapsed();
        run.ok();
        let calls = sandbox.take_calls();
        Measured {
            what,
            calls: calls.len(),
            changing: mutations(&calls).len(),
            throttled: throttled(&calls).len(),
            peak,
            took,
        }
    })
    .collect()
}
