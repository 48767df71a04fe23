//! What a run reports, drawn: spinners on a terminal, one plain line for each finished step otherwise.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};

use super::screen::{Screen, Tone, plain};
use crate::resources::kms_key::DELETION_WINDOW_DAYS;
use crate::run::{Action, Change, Event, Kind, Mode, Row};

/// How long a wait goes on before it is worth a line.
const FIRST_WAITING_LINE: Duration = Duration::from_secs(10);
/// How often it is worth another one.
const NEXT_WAITING_LINE: Duration = Duration::from_secs(30);
/// Fields that the line of a finished step names.
const MOST_FIELDS: usize = 2;
/// A value longer than this is cut in a table: JSON has all of it.
const LONGEST_VALUE: usize = 160;

/// A column of changes that is narrower than this is a column of broken words.
const NARROWEST_CHANGES: usize = 30;

/// What a command is for, and so what its summary counts first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Make,
    Remove,
}

/// What a run did, or would do.
#[derive(Debug)]
pub(super) struct Report {
    rows: Vec<Row>,
    failed: usize,
    stopped: usize,
    purpose: Purpose,
    mode: Mode,
    took: Duration,
}

/// Draws what arrives, and remembers it.
pub(super) struct Progress {
    screen: Screen,
    doing: String,
    begin: Instant,
    overall: ProgressBar,
    running: HashMap<u64, ProgressBar>,
    waits: Waits,
    interrupted: watch::Receiver<bool>,
    report: Report,
}

impl Progress {
    pub(super) fn new(
        screen: Screen,
        doing: &str,
        purpose: Purpose,
        mode: Mode,
        interrupted: watch::Receiver<bool>,
    ) -> Self {
        let overall = spinning(screen.bars().add(spinner()), doing);
        Self {
            screen,
            doing: doing.to_owned(),
            begin: Instant::now(),
            overall,
            running: HashMap::new(),
            waits: Waits::default(),
            interrupted,
            report: Report {
                rows: Vec::new(),
                failed: 0,
                stopped: 0,
                purpose,
                mode,
                took: Duration::ZERO,
            },
        }
    }

    /// Draws until the run has finished and all that it sent is drawn. Gives the events back, for another one.
    pub(super) async fn follow(
        mut self,
        mut events: mpsc::UnboundedReceiver<Event>,
        mut finished: oneshot::Receiver<()>,
    ) -> (Report, mpsc::UnboundedReceiver<Event>) {
        loop {
            tokio::select! {
                // What was sent before the end is drawn before it.
                biased;
                event = events.recv() => match event {
                    Some(event) => self.draw(event),
                    None => break,
                },
                _ = &mut finished => break,
            }
        }
        while let Ok(event) = events.try_recv() {
            self.draw(event);
        }
        for (_, bar) in self.running.drain() {
            bar.finish_and_clear();
        }
        self.overall.finish_and_clear();
        self.screen.clear();
        self.report.took = self.begin.elapsed();
        self.report.rows.sort_by(|one, other| {
            (one.kind, &one.name)
                .cmp(&(other.kind, &other.name))
                // What happens to one thing stays in order, and a line that says that nothing did comes last.
                .then((one.action == Action::Unchanged).cmp(&(other.action == Action::Unchanged)))
        });
        (self.report, events)
    }

    fn draw(&mut self, event: Event) {
        match event {
            Event::Began { id, doing } => {
                let bar = self.screen.bars().insert_before(&self.overall, spinner());
                self.running.insert(id, spinning(bar, &doing));
            }
            Event::Ended { id, rows, ok, took } => {
                if let Some(bar) = self.running.remove(&id) {
                    bar.finish_and_clear();
                    self.screen.bars().remove(&bar);
                }
                let end = match ok {
                    true => End::Done,
                    // A wait that ends at once is what Ctrl-C asked for.
                    false if *self.interrupted.borrow() => End::Stopped,
                    false => End::Failed,
                };
                for row in &rows {
                    self.screen.line(Tone::Plain, &ended(row, end, took));
                }
                match end {
                    End::Done => self.report.rows.extend(rows),
                    End::Stopped => self.report.stopped += rows.len(),
                    End::Failed => self.report.failed += rows.len(),
                }
                self.say_overall("");
            }
            Event::Row(row) => {
                if row.action == Action::Unchanged && self.screen.is_verbose() {
                    self.screen
                        .line(Tone::Plain, &format!("unchanged {} {}", row.kind, row.name));
                }
                self.report.rows.push(row);
            }
            Event::Waiting { what, state } => {
                let waiting = format!("{what}: {state}");
                if self.screen.bars().is_hidden() && self.waits.is_due(&what, Instant::now()) {
                    let elapsed = self.begin.elapsed().as_secs();
                    self.screen.line(
                        Tone::Plain,
                        &format!("waiting: {waiting} (after {elapsed} s)"),
                    );
                }
                self.say_overall(&waiting);
            }
            Event::Notice(text) => self.screen.line(Tone::Note, &text),
            Event::Warning(text) => self.screen.line(Tone::Warning, &text),
        }
    }

    fn say_overall(&self, waiting: &str) {
        let done = self
            .report
            .rows
            .iter()
            .filter(|row| row.action != Action::Unchanged)
            .count();
        let mut text = format!("{}: {done} done", self.doing);
        if !waiting.is_empty() {
            text = format!("{text}, waiting: {waiting}");
        }
        self.overall.set_message(plain(&text));
    }
}

/// A spinner that draws nowhere until it is added to the others.
fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed:>4}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_style(style)
}

fn spinning(bar: ProgressBar, text: &str) -> ProgressBar {
    bar.set_message(plain(text));
    if !bar.is_hidden() {
        bar.enable_steady_tick(Duration::from_millis(100));
    }
    bar
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    Stopped,
    Failed,
}

/// "created IAM role x (0.4s)", "updated instance i-1: disableApiTermination (0.7s)".
fn ended(row: &Row, end: End, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    match end {
        // Until then it is there, and can be had back.
        End::Done if (row.kind, row.action) == (Kind::KmsKey, Action::Delete) => format!(
            "scheduled {} {} for deletion in {DELETION_WINDOW_DAYS} days ({seconds:.1}s)",
            row.kind, row.name
        ),
        End::Done => format!(
            "{} {} {}{} ({seconds:.1}s)",
            participle(row.action),
            row.kind,
            row.name,
            changed(&row.changes)
        ),
        End::Stopped => format!("stopped {} ({seconds:.1}s)", row.doing()),
        End::Failed => format!("failed {} ({seconds:.1}s)", row.doing()),
    }
}

/// Which fields, in short: ": tags.Name, tags.owner and 4 more".
fn changed(changes: &[Change]) -> String {
    let mut fields = changes.iter().map(|change| change.field.as_str());
    let shown: Vec<&str> = fields.by_ref().take(MOST_FIELDS).collect();
    match (shown.is_empty(), fields.count()) {
        (true, _) => String::new(),
        (false, 0) => format!(": {}", shown.join(", ")),
        (false, more) => format!(": {} and {more} more", shown.join(", ")),
    }
}

fn participle(action: Action) -> &'static str {
    match action {
        Action::Create => "created",
        Action::Update => "updated",
        Action::Delete => "deleted",
        Action::Unchanged => "unchanged",
    }
}

/// When each wait was first seen, or last had its line.
#[derive(Default)]
struct Waits(BTreeMap<String, (Instant, Duration)>);

impl Waits {
    fn is_due(&mut self, what: &str, now: Instant) -> bool {
        let (since, pause) = self
            .0
            .entry(what.to_owned())
            .or_insert((now, FIRST_WAITING_LINE));
        if now.duration_since(*since) < *pause {
            return false;
        }
        (*since, *pause) = (now, NEXT_WAITING_LINE);
        true
    }
}

impl Report {
    fn count(&self, action: Action) -> usize {
        self.rows.iter().filter(|row| row.action == action).count()
    }

    fn changes(&self) -> impl Iterator<Item = &Row> {
        self.rows
            .iter()
            .filter(|row| row.action != Action::Unchanged)
    }

    /// Whether anything is, or was, not as wanted.
    pub(super) fn has_changes(&self) -> bool {
        self.changes().next().is_some()
    }

    /// How long it took.
    pub(super) fn took(&self) -> Duration {
        self.took
    }

    /// With the time that a look before it took.
    pub(super) fn with(mut self, looked: Duration) -> Self {
        self.took += looked;
        self
    }

    /// Whether the credentials that are stored were other ones before.
    pub(super) fn replaces_credentials(&self) -> bool {
        let replaced = |row: &Row| row.kind == Kind::Credentials && row.action == Action::Update;
        self.rows.iter().any(replaced)
    }

    /// Says on stderr in one line what was done. Where nothing was, the error or the farewell says all there is.
    pub(super) fn summarize(&self, screen: &Screen, succeeded: bool) {
        let says_more = match (succeeded, self.purpose) {
            (true, Purpose::Make) => true,
            (true, Purpose::Remove) => !self.rows.is_empty(),
            (false, _) => self.mode == Mode::Apply && !self.rows.is_empty(),
        };
        if says_more {
            screen.line(Tone::Plain, &self.summary());
        }
        // After Ctrl-C the error says the same.
        if !succeeded && says_more && self.stopped == 0 && self.failed > 0 {
            screen.line(
                Tone::Plain,
                "what was done stays; the same command, run again, goes on from here",
            );
        }
    }

    /// "made 31, changed 0, unchanged 2, took 1.9 s".
    fn summary(&self) -> String {
        let make = (
            "made",
            "would make",
            self.count(Action::Create),
            Purpose::Make,
        );
        let remove = (
            "removed",
            "would remove",
            self.count(Action::Delete),
            Purpose::Remove,
        );
        let update = (
            "changed",
            "would change",
            self.count(Action::Update),
            self.purpose,
        );
        let leave = (
            "unchanged",
            "would leave",
            self.count(Action::Unchanged),
            Purpose::Make,
        );
        let mut parts: Vec<String> = [make, remove, update, leave]
            .into_iter()
            .filter(|(_, _, count, purpose)| *count > 0 || *purpose == self.purpose)
            .map(|(done, planned, count, _)| match self.mode {
                Mode::Apply => format!("{done} {count}"),
                Mode::Plan => format!("{planned} {count}"),
            })
            .collect();
        for (word, count) in [("stopped", self.stopped), ("failed", self.failed)] {
            if count > 0 {
                parts.push(format!("{word} {count}"));
            }
        }
        parts.push(format!("took {:.1} s", self.took.as_secs_f64()));
        let text = parts.join(", ");
        match self.mode {
            Mode::Apply => text,
            Mode::Plan => format!("dry run, nothing was changed: {text}"),
        }
    }

    /// What `-o json` shows of it: the rows that change something, and the counts.
    pub(super) fn to_json(&self) -> (serde_json::Value, serde_json::Value) {
        let rows: Vec<&Row> = self.changes().collect();
        let milliseconds = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX);
        let summary = json!({
            "created": self.count(Action::Create),
            "updated": self.count(Action::Update),
            "deleted": self.count(Action::Delete),
            "unchanged": self.count(Action::Unchanged),
            "seconds": Duration::from_millis(milliseconds).as_secs_f64(),
        });
        (json!(rows), summary)
    }

    /// The plan of a dry run as a table, `width` columns wide where that matters; empty where nothing would change.
    pub(super) fn table(&self, width: Option<u16>) -> String {
        if self.changes().next().is_none() {
            return String::new();
        }
        let rows: Vec<[String; 4]> = self.changes().map(columns).collect();
        if width.is_some_and(|width| !is_wide_enough(&rows, width)) {
            return rows.iter().map(lines).collect();
        }
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_header(["ACTION", "KIND", "NAME", "CHANGES"]);
        match width {
            Some(width) => table
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(width),
            None => table
                .force_no_tty()
                .set_content_arrangement(ContentArrangement::Disabled),
        };
        table.add_rows(rows);
        for (number, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            // Only what changes may be broken: names are there to be copied.
            if number < 3 {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        format!("{}\n", table.trim_fmt())
    }
}

/// A row's cells.
fn columns(row: &Row) -> [String; 4] {
    let mut changes: Vec<String> = row.changes.iter().map(change).collect();
    if (row.kind, row.action) == (Kind::KmsKey, Action::Delete) {
        changes.push(format!("in {DELETION_WINDOW_DAYS} days"));
    }
    [
        action_word(row.action).to_owned(),
        row.kind.to_string(),
        plain(&row.name),
        changes.join("\n"),
    ]
}

/// Whether names in one piece leave the changes, where there are any, enough to be read.
fn is_wide_enough(rows: &[[String; 4]], width: u16) -> bool {
    let widest = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count() + 2);
        widths.max().unwrap_or(0)
    };
    let changes = match rows.iter().all(|row| row[3].is_empty()) {
        true => "CHANGES".len(),
        false => NARROWEST_CHANGES,
    };
    // No column is narrower than its heading.
    let names = widest(0).max(8) + widest(1).max(6) + widest(2).max(6);
    names + changes <= usize::from(width)
}

/// The same as lines, each change on one of its own.
fn lines([action, kind, name, changes]: &[String; 4]) -> String {
    let changes = changes.lines().map(|change| format!("    {change}\n"));
    format!("{action} {kind} {name}\n{}", changes.collect::<String>())
}

fn action_word(action: Action) -> &'static str {
    match action {
        Action::Create => "create",
        Action::Update => "update",
        Action::Delete => "delete",
        Action::Unchanged => "unchanged",
    }
}

/// "retentionInDays: 7 → 30".
fn change(change: &Change) -> String {
    let value = |value: &Option<String>| {
        value.as_ref().map_or_else(
            || "(none)".to_owned(),
            |value| {
                let mut short: String = value.chars().take(LONGEST_VALUE).collect();
                if short.len() < value.len() {
                    short.push('…');
                }
                plain(&short)
            },
        )
    };
    format!(
        "{}: {} → {}",
        plain(&change.field),
        value(&change.from),
        value(&change.to)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(mode: Mode, rows: Vec<Row>) -> Report {
        Report {
            rows,
            failed: 0,
            stopped: 0,
            purpose: Purpose::Make,
            mode,
            took: Duration::from_millis(1940),
        }
    }

    fn rows() -> Vec<Row> {
        vec![
            Row::new(Kind::Table, "wekactl-prod", Action::Create),
            Row {
                changes: vec![
                    Change {
                        field: "retentionInDays".into(),
                        from: Some("7".into()),
                        to: Some("30".into()),
                    },
                    Change {
                        field: "tags.owner".into(),
                        from: None,
                        to: Some("\u{1b}[31mred".into()),
                    },
                ],
                ..Row::new(Kind::LogGroup, "/aws/lambda/x", Action::Update)
            },
            Row::new(Kind::Role, "wekactl-prod-sm", Action::Unchanged),
        ]
    }

    #[test]
    fn summaries() {
        assert_eq!(
            report(Mode::Apply, rows()).summary(),
            "made 1, changed 1, unchanged 1, took 1.9 s"
        );
        assert_eq!(
            report(Mode::Plan, rows()).summary(),
            "dry run, nothing was changed: would make 1, would change 1, would leave 1, took 1.9 s"
        );
        let removed = vec![Row::new(Kind::Table, "x", Action::Delete)];
        let failed = Report {
            failed: 2,
            stopped: 1,
            purpose: Purpose::Remove,
            ..report(Mode::Apply, removed)
        };
        assert_eq!(
            failed.summary(),
            "removed 1, changed 0, stopped 1, failed 2, took 1.9 s"
        );
    }

    #[test]
    fn a_plan_as_a_table() {
        insta::assert_snapshot!(report(Mode::Plan, rows()).table(None), @r"
        ACTION  KIND            NAME           CHANGES
        create  DynamoDB table  wekactl-prod
        update  log group       /aws/lambda/x  retentionInDays: 7 → 30
                                               tags.owner: (none) → \u{1b}[31mred
        ");
        assert_eq!(report(Mode::Plan, Vec::new()).table(None), "");
    }

    #[test]
    fn a_name_is_never_broken() {
        insta::assert_snapshot!(report(Mode::Plan, rows()).table(Some(60)), @r"
        create DynamoDB table wekactl-prod
        update log group /aws/lambda/x
            retentionInDays: 7 → 30
            tags.owner: (none) → \u{1b}[31mred
        ");
        let wide = report(Mode::Plan, rows()).table(Some(80));
        assert!(wide.starts_with("ACTION"), "{wide}");
        let long = "wekactl-a-name-that-takes-more-than-half-of-a-terminal";
        let row = Row {
            name: long.to_owned(),
            ..rows().swap_remove(1)
        };
        for width in [60, 80, 100, 200] {
            let table = report(Mode::Plan, vec![row.clone()]).table(Some(width));
            assert!(table.contains(long), "{table}");
            assert!(table.contains("retentionInDays: 7 → 30"), "{table}");
        }
    }

    #[test]
    fn a_plan_as_json() {
        let (changes, summary) = report(Mode::Plan, rows()).to_json();
        insta::assert_json_snapshot!(json!({"changes": changes, "summary": summary}), @r#"
        {
          "changes": [
            {
              "action": "create",
              "kind": "table",
              "name": "wekactl-prod"
            },
            {
              "action": "update",
              "changes": [
                {
                  "field": "retentionInDays",
                  "from": "7",
                  "to": "30"
                },
                {
                  "field": "tags.owner",
                  "from": null,
                  "to": "\u001b[31mred"
                }
              ],
              "kind": "log-group",
              "name": "/aws/lambda/x"
            }
          ],
          "summary": {
            "created": 1,
            "deleted": 0,
            "seconds": 1.94,
            "unchanged": 1,
            "updated": 1
          }
        }
        "#);
    }

    #[test]
    fn lines_of_steps() {
        let row = Row::new(Kind::Role, "x", Action::Create);
        let took = Duration::from_millis(432);
        for (end, line) in [
            (End::Done, "created IAM role x (0.4s)"),
            (End::Stopped, "stopped creating IAM role x (0.4s)"),
            (End::Failed, "failed creating IAM role x (0.4s)"),
        ] {
            assert_eq!(ended(&row, end, took), line);
        }
        let field = |field: &str| Change {
            field: field.to_owned(),
            from: None,
            to: None,
        };
        for (fields, line) in [
            (&["a"][..], "updated instance i-1: a (0.4s)"),
            (&["a", "b"], "updated instance i-1: a, b (0.4s)"),
            (
                &["a", "b", "c", "d"],
                "updated instance i-1: a, b and 2 more (0.4s)",
            ),
        ] {
            let row = Row {
                changes: fields.iter().map(|each| field(each)).collect(),
                ..Row::new(Kind::Instance, "i-1", Action::Update)
            };
            assert_eq!(ended(&row, End::Done, took), line);
        }
        let key = Row::new(Kind::KmsKey, "alias/x", Action::Delete);
        assert_eq!(
            ended(&key, End::Done, took),
            "scheduled KMS key alias/x for deletion in 7 days (0.4s)"
        );
    }

    #[test]
    fn a_wait_has_a_line_after_10_s_and_then_every_30() {
        let mut waits = Waits::default();
        let begin = Instant::now();
        let due: Vec<u64> = (0..100)
            .filter(|second| waits.is_due("table", begin + Duration::from_secs(*second)))
            .collect();
        assert_eq!(due, [10, 40, 70]);
    }

    #[tokio::test]
    async fn everything_sent_before_the_end_is_in_the_report() {
        let screen = Screen::new(&super::super::Global::silent());
        let (sender, events) = mpsc::unbounded_channel();
        let (finished, has_finished) = oneshot::channel();
        for (id, name) in [(1, "b"), (2, "a")] {
            let row = Row::new(Kind::Role, name, Action::Create);
            let doing = row.doing();
            sender.send(Event::Began { id, doing }).unwrap();
            let took = Duration::ZERO;
            let ok = true;
            let rows = vec![row];
            sender.send(Event::Ended { id, rows, ok, took }).unwrap();
        }
        finished.send(()).unwrap();
        // The sender is still there: the end was said.
        let (_, interrupted) = watch::channel(false);
        let (report, _) = Progress::new(screen, "testing", Purpose::Make, Mode::Apply, interrupted)
            .follow(events, has_finished)
            .await;
        let names: Vec<&str> = report.rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        drop(sender);
    }
}
