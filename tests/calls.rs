//! `cargo bench`: how many calls import, update and destroy make, how many at once, and how long that takes when
//! every call takes a while; and what scaling costs.
//!
//! ```text
//! cargo bench                        the release build, 80 ms a call
//! cargo bench -- --delay-ms 150      another delay
//! cargo bench -- --largest 100       without the cluster of 1,000 backends, which takes a quarter of an hour
//! cargo bench --profile dev          without a release build: calls and chains are the same, times are not
//! ```
//! Fails if the number of calls depends on what else is in the account, if a second import or an update with nothing to
//! do changes anything, if the executable is sent more than once, or if a large cluster is throttled or takes 100 MB
//! of memory. A time above its target is marked, and no failure: the machine may be busy.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]

#[path = "benchmark/large.rs"]
mod large;
#[path = "benchmark/scaling.rs"]
mod scaling;
mod support;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser as _;
use comfy_table::{Table, presets};
use serde_json::{Value, json};
use support::{REGION, Run, Sandbox, executable, mutations};

const BACKENDS: u32 = 6;
/// What else is in the account when it is a big one.
const OTHERS: &[(&str, u32)] = &[
    ("functions", 200),
    ("keys", 200),
    ("tables", 100),
    ("apis", 120),
    ("rules", 110),
    ("state_machines", 110),
];
/// No request but the one with the executable is this long.
const LONG_REQUEST: u64 = 64 * 1024;

#[derive(clap::Parser)]
#[command(about = "Calls, calls in flight and time of import, update and destroy")]
struct Options {
    /// How long each call takes
    #[arg(long, default_value_t = 80, value_name = "N")]
    delay_ms: u32,
    /// How often each is measured
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// The largest cluster that is measured: of those there are, 100 and 1000 backends
    #[arg(long, default_value_t = 1000, value_name = "N")]
    largest: usize,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Import,
    SecondImport,
    Update,
    UpdateOfCode,
    Destroy,
}

impl What {
    const ALL: [Self; 5] = [
        Self::Import,
        Self::SecondImport,
        Self::Update,
        Self::UpdateOfCode,
        Self::Destroy,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Import => "import",
            Self::SecondImport => "second import",
            Self::Update => "update, nothing to do",
            Self::UpdateOfCode => "update, new code",
            Self::Destroy => "destroy",
        }
    }

    /// At 80 ms a call and six backends: what it may take, and the calls and seconds of the earlier tool.
    fn target(self) -> (Option<Duration>, &'static str) {
        let (target, earlier) = match self {
            Self::Import => (Some(2000), "93, 8.3 s"),
            Self::SecondImport => (Some(1000), "86, 7.6 s"),
            Self::Update => (Some(1000), "71, 6.3 s"),
            Self::UpdateOfCode => (None, "91, 8.1 s"),
            Self::Destroy => (Some(2000), "103, 9.0 s"),
        };
        (target.map(Duration::from_millis), earlier)
    }

    fn changes_nothing(self) -> bool {
        matches!(self, Self::SecondImport | Self::Update)
    }
}

/// One run of a command, as the sandbox's journal and a clock saw it.
struct Measured {
    took: Duration,
    calls: Vec<Call>,
    mutating: usize,
}

struct Call {
    operation: String,
    start: f64,
    end: f64,
    in_flight: u64,
    bytes: u64,
}

impl Measured {
    fn of(sandbox: &Sandbox, command: impl FnOnce() -> Run) -> Self {
        sandbox.take_calls();
        let begin = Instant::now();
        command().ok();
        let took = begin.elapsed();
        let calls = sandbox.take_calls();
        let mutating = mutations(&calls).len();
        let calls = calls.iter().map(Call::of).collect();
        Self {
            took,
            calls,
            mutating,
        }
    }

    fn most_in_flight(&self) -> u64 {
        self.calls
            .iter()
            .map(|call| call.in_flight)
            .max()
            .unwrap_or(0)
    }

    fn by_operation(&self) -> BTreeMap<&str, usize> {
        let mut count = BTreeMap::new();
        for call in &self.calls {
            *count.entry(call.operation.as_str()).or_default() += 1;
        }
        count
    }

    /// From the call that ended last back to the first: each one's predecessor is the last that had ended when it
    /// began. With a delay that outweighs everything else that is the chain of calls that needed each other.
    fn chain(&self) -> Vec<&Call> {
        let last_before = |moment: f64| {
            let ended = self.calls.iter().filter(|call| call.end <= moment);
            ended.max_by(|one, other| one.end.total_cmp(&other.end))
        };
        let mut chain: Vec<&Call> = last_before(f64::INFINITY).into_iter().collect();
        while let Some(before) = chain.last().and_then(|call| last_before(call.start)) {
            chain.push(before);
        }
        chain.reverse();
        chain
    }
}

impl Call {
    fn of(entry: &Value) -> Self {
        let text = |field: &str| entry[field].as_str().unwrap_or_default();
        let number = |field: &str| entry[field].as_f64().unwrap_or_default();
        Self {
            operation: format!("{}:{}", text("service"), text("operation")),
            start: number("start"),
            end: number("end"),
            in_flight: entry["in_flight"].as_u64().unwrap_or_default(),
            bytes: entry["bytes"].as_u64().unwrap_or_default(),
        }
    }
}

/// All runs of one command in one surrounding.
struct Series {
    what: What,
    surrounding: &'static str,
    runs: Vec<Measured>,
}

impl Series {
    fn sorted(&self) -> Vec<&Measured> {
        let mut runs: Vec<&Measured> = self.runs.iter().collect();
        runs.sort_by_key(|run| run.took);
        runs
    }

    fn best(&self) -> &Measured {
        self.sorted()[0]
    }

    fn median(&self) -> Duration {
        self.sorted()[self.runs.len() / 2].took
    }

    fn title(&self) -> String {
        format!("{}{}", self.what.name(), self.surrounding)
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let sandbox = Sandbox::start();
    println!(
        "wekactl {}, {} build, {BACKENDS} backends, {} ms a call, {} runs of each\n",
        env!("CARGO_PKG_VERSION"),
        if cfg!(debug_assertions) {
            "DEV"
        } else {
            "release"
        },
        options.delay_ms,
        options.runs,
    );
    // The first calls of a service are slow in the sandbox, not in the program.
    measure(&sandbox, "", "warm", 1, 0);

    let quiet = measure(&sandbox, "", "small", options.runs, options.delay_ms);
    let size = layer_size(&sandbox);
    let others: BTreeMap<&str, u32> = OTHERS.iter().copied().collect();
    sandbox.post("populate", &json!(others));
    let big = measure(
        &sandbox,
        ", big account",
        "big",
        options.runs,
        options.delay_ms,
    );
    let strict = measure_strict(options.delay_ms);

    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([
        "run",
        "calls",
        "changing",
        "chain",
        "most in flight",
        "best",
        "median",
        "target",
        "the earlier tool",
    ]);
    for series in quiet.iter().chain(&big).chain([&strict]) {
        table.add_row(row(series));
    }
    println!("{table}\n");
    println!("{size}\n");
    let (costs, too_many) = costs(options.runs);
    println!("{costs}\n");
    let (costs, too_large) = large::costs(options.largest, options.delay_ms);
    println!("{costs}\n");
    for series in &quiet {
        show_chain(&series.title(), series.best());
    }

    let mut wrong: Vec<String> = too_many.into_iter().chain(too_large).collect();
    for (quiet, big) in quiet.iter().zip(&big) {
        wrong.extend(differences(quiet, big));
    }
    wrong.extend(quiet.iter().chain(&big).flat_map(mistakes));
    for line in &wrong {
        println!("WRONG: {line}");
    }
    if wrong.is_empty() {
        println!(
            "the number of calls is the same in both accounts, and the executable was sent once for each new code"
        );
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What scaling costs, and what is wrong with that whatever the machine does besides.
fn costs(runs: u32) -> (Table, Option<String>) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["scaling", "best", "target"]);
    let rows = scaling::rows(runs);
    let too_many = rows
        .iter()
        .find(|(what, _, _, is_met)| what.contains("requests") && !is_met)
        .map(|(what, measured, target, _)| {
            format!("{what}: {measured}, where {target} are allowed")
        });
    for (what, measured, target, is_met) in rows {
        let mark = if is_met { "" } else { " (missed)" };
        table.add_row([what.to_owned(), format!("{measured}{mark}"), target]);
    }
    (table, too_many)
}

/// The executable as a later version would be: of another hash, and of the same weight.
fn later_version(sandbox: &Sandbox) -> String {
    let mut code = std::fs::read(executable()).expect("it is there");
    code.push(0);
    let path = sandbox.home().join("later-version");
    std::fs::write(&path, code).expect("the directory is ours");
    path.to_str().expect("text").to_owned()
}

/// Makes a stack and does with it all there is in [`What::ALL`]: `runs` times.
fn measure(
    sandbox: &Sandbox,
    surrounding: &'static str,
    name: &str,
    runs: u32,
    delay_ms: u32,
) -> [Series; What::ALL.len()] {
    let mut all = What::ALL.map(|what| Series {
        what,
        surrounding,
        runs: Vec::new(),
    });
    let other = later_version(sandbox);
    for number in 0..runs {
        let name = format!("{name}-{number}");
        sandbox.post("settings", &json!({"delay_ms": 0}));
        sandbox.stack(&json!({"name": name, "backends": BACKENDS, "classic_lb": true}));
        sandbox.post("settings", &json!({"delay_ms": delay_ms}));
        for series in &mut all {
            let run = Measured::of(sandbox, || match series.what {
                What::Import | What::SecondImport => sandbox.import(&name, &[]),
                What::Update => sandbox.wekactl(&["cluster", "update", "--name", &name]),
                What::UpdateOfCode => sandbox.wekactl(&[
                    "cluster",
                    "update",
                    "--name",
                    &name,
                    "--lambda-binary",
                    &other,
                ]),
                What::Destroy => sandbox.destroy(&name, &[]),
            });
            series.runs.push(run);
        }
    }
    all
}

/// Import where what was just made is not usable everywhere at once, as on AWS.
fn measure_strict(delay_ms: u32) -> Series {
    let sandbox = Sandbox::start_with(&["--strict"]);
    sandbox.stack(&json!({"name": "strict", "backends": BACKENDS, "classic_lb": true}));
    sandbox.post("settings", &json!({"delay_ms": delay_ms}));
    Series {
        what: What::Import,
        surrounding: ", --strict",
        runs: vec![Measured::of(&sandbox, || sandbox.import("strict", &[]))],
    }
}

fn row(series: &Series) -> [String; 9] {
    let best = series.best();
    let is_strict = series.surrounding.contains("strict");
    let (target, earlier) = match (is_strict, series.surrounding.is_empty()) {
        (true, _) => (Some(Duration::from_secs(15)), ""),
        (false, true) => series.what.target(),
        // In an account with fewer others than here.
        (false, false) => match series.what {
            What::Import => (None, "493, 41.2 s"),
            What::Destroy => (None, "1300, 110.7 s"),
            What::SecondImport | What::Update | What::UpdateOfCode => (None, ""),
        },
    };
    [
        series.title(),
        best.calls.len().to_string(),
        best.mutating.to_string(),
        best.chain().len().to_string(),
        best.most_in_flight().to_string(),
        seconds(best.took),
        seconds(series.median()),
        target.map_or_else(String::new, |target| {
            let missed = if best.took > target { " MISSED" } else { "" };
            format!("{}{missed}", seconds(target))
        }),
        earlier.to_owned(),
    ]
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// What the executable and its zip weigh; the layer of a cluster that is imported for this only.
fn layer_size(sandbox: &Sandbox) -> String {
    sandbox.post("settings", &json!({"delay_ms": 0}));
    sandbox.stack(&json!({"name": "size", "backends": BACKENDS}));
    let import = Measured::of(sandbox, || sandbox.import("size", &[]));
    let layers = &sandbox.inventory()[REGION]["layers"]["wekactl-size"]["1"];
    let zip = layers["Content"]["CodeSize"].as_f64().unwrap_or(f64::NAN);
    let file = std::fs::metadata(executable()).map_or(f64::NAN, |file| file.len() as f64);
    let all: u64 = import.calls.iter().map(|call| call.bytes).sum();
    let longest = import
        .calls
        .iter()
        .map(|call| call.bytes)
        .max()
        .unwrap_or(0);
    sandbox.destroy("size", &[]).ok();
    format!(
        "executable {:.1} MB, zipped {:.1} MB; sent by an import: {:.1} MB, of which {:.1} MB are the layer's request",
        file / 1e6,
        zip / 1e6,
        all as f64 / 1e6,
        longest as f64 / 1e6,
    )
}

fn show_chain(title: &str, run: &Measured) {
    let chain = run.chain();
    let (Some(first), Some(last)) = (chain.first(), chain.last()) else {
        return;
    };
    let inside = last.end - first.start;
    println!(
        "{title}: a chain of {} calls, {inside:.2} s, and {:.2} s before the first and after the last",
        chain.len(),
        run.took.as_secs_f64() - inside,
    );
    let mut before = first.start;
    for call in &chain {
        println!(
            "  {:6.0} ms  {:45} {:5.0} ms, {:4.0} ms after the one before",
            (call.start - first.start) * 1000.0,
            call.operation,
            (call.end - call.start) * 1000.0,
            (call.start - before) * 1000.0,
        );
        before = call.end;
    }
    println!();
}

/// Operations that are called more or less often in a big account, or from one run to the next.
fn differences(quiet: &Series, big: &Series) -> Vec<String> {
    let wanted = quiet.best().by_operation();
    let mut wrong = Vec::new();
    for (run, number) in quiet.runs.iter().chain(&big.runs).zip(1..) {
        let found = run.by_operation();
        let operations = wanted.keys().chain(found.keys());
        let operations: std::collections::BTreeSet<_> = operations.collect();
        for operation in operations {
            let count =
                |counts: &BTreeMap<&str, usize>| counts.get(*operation).copied().unwrap_or(0);
            if count(&wanted) != count(&found) {
                wrong.push(format!(
                    "{}: {operation} is called {} times in the best run of the small account, and {} times in run \
                     {number} of {} ({} are in the small account)",
                    quiet.what.name(),
                    count(&wanted),
                    count(&found),
                    quiet.runs.len() + big.runs.len(),
                    quiet.runs.len(),
                ));
            }
        }
    }
    wrong
}

/// What no run may do.
fn mistakes(series: &Series) -> Vec<String> {
    let mut wrong = Vec::new();
    for run in &series.runs {
        let long = run.calls.iter().filter(|call| call.bytes > LONG_REQUEST);
        let long: Vec<&str> = long.map(|call| call.operation.as_str()).collect();
        let wanted: &[&str] = match series.what {
            What::Import | What::UpdateOfCode => &["lambda:PublishLayerVersion"],
            What::SecondImport | What::Update | What::Destroy => &[],
        };
        if long != wanted {
            wrong.push(format!(
                "{}: large requests: {}",
                series.title(),
                long.join(", ")
            ));
        }
        if series.what.changes_nothing() && run.mutating > 0 {
            wrong.push(format!(
                "{}: {} calls that change something",
                series.title(),
                run.mutating
            ));
        }
    }
    wrong
}
