//! One run of a command: whether it may change anything, whom it tells, and whether to go on.
//!
//! The library reports here and never prints; the command line draws what arrives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::sync::{mpsc, watch};

/// What kind of thing a row, a step or an error speaks of. `Display` is AWS's own noun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the variants are AWS's own nouns")]
pub enum Kind {
    KmsKey,
    Table,
    Credentials,
    Settings,
    Lease,
    Role,
    LogGroup,
    LayerVersion,
    Function,
    RestApi,
    ApiKey,
    UsagePlan,
    LaunchTemplate,
    AutoScalingGroup,
    GroupMembers,
    Instance,
    NetworkInterface,
    LoadBalancer,
    TargetGroup,
    Listener,
    DnsRecord,
    ClassicLoadBalancer,
    StateMachine,
    EventRule,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::KmsKey => "KMS key",
            Self::Table => "DynamoDB table",
            Self::Credentials => "credentials item",
            Self::Settings => "settings item",
            Self::Lease => "lease item",
            Self::Role => "IAM role",
            Self::LogGroup => "log group",
            Self::LayerVersion => "Lambda layer",
            Self::Function => "Lambda function",
            Self::RestApi => "REST API",
            Self::ApiKey => "API key",
            Self::UsagePlan => "usage plan",
            Self::LaunchTemplate => "launch template",
            Self::AutoScalingGroup => "Auto Scaling group",
            Self::GroupMembers => "group members",
            Self::Instance => "instance",
            Self::NetworkInterface => "network interface",
            Self::LoadBalancer => "load balancer",
            Self::TargetGroup => "target group",
            Self::Listener => "listener",
            Self::DnsRecord => "DNS record",
            Self::ClassicLoadBalancer => "classic load balancer",
            Self::StateMachine => "state machine",
            Self::EventRule => "event rule",
        })
    }
}

/// One difference between what is there and what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The field in AWS's words, dotted where nested.
    pub field: String,
    /// What is there; `None`: nothing.
    pub from: Option<String>,
    /// What is wanted; `None`: nothing.
    pub to: Option<String>,
}

/// What a run does, or would do, to one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the variants say it")]
pub enum Action {
    Create,
    Update,
    Delete,
    Unchanged,
}

impl Action {
    /// "creating", "updating", "deleting", "checking".
    pub fn gerund(self) -> &'static str {
        match self {
            Self::Create => "creating",
            Self::Update => "updating",
            Self::Delete => "deleting",
            Self::Unchanged => "checking",
        }
    }
}

/// One line of a plan and of a summary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What it is.
    pub kind: Kind,
    /// Its name in AWS, or its id where it has none.
    pub name: String,
    /// What is done to it.
    pub action: Action,
    /// For an update: every field that differs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
}

impl Row {
    /// A row without changed fields.
    pub fn new(kind: Kind, name: impl Into<String>, action: Action) -> Self {
        Self {
            kind,
            name: name.into(),
            action,
            changes: Vec::new(),
        }
    }

    /// "creating IAM role x".
    pub fn doing(&self) -> String {
        format!("{} {} {}", self.action.gerund(), self.kind, self.name)
    }
}

/// How many of a list are named where all would be a flood.
const NAMED: usize = 10;

/// "i-1, i-2, i-3", or the first ten and how many more.
pub fn some_of(names: &[impl AsRef<str>]) -> String {
    let named: Vec<&str> = names.iter().take(NAMED).map(AsRef::as_ref).collect();
    let named = named.join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// What the command line draws.
#[derive(Debug)]
pub enum Event {
    /// A step began.
    Began {
        /// Pairs it with its end.
        id: u64,
        /// "creating IAM role x".
        doing: String,
    },
    /// A step ended.
    Ended {
        /// The step's id.
        id: u64,
        /// What it was: a row for each thing that was changed at once.
        rows: Vec<Row>,
        /// Whether it succeeded; why not is the error's to say.
        ok: bool,
        /// How long it took.
        took: Duration,
    },
    /// Something that is as wanted, or, in a dry run, would be done.
    Row(Row),
    /// AWS takes its time.
    Waiting {
        /// What is waited for.
        what: String,
        /// What it is like now.
        state: String,
    },
    /// Something a person should know, that stops nothing.
    Notice(String),
    /// Something a person should act on, that stops nothing.
    Warning(String),
}

/// Whether a run may change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Only reads are made; what would be done is reported.
    Plan,
    /// Changes are made.
    Apply,
}

/// The run was interrupted; what was under way has finished.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// See the module's words.
#[derive(Clone)]
pub struct Run {
    mode: Mode,
    events: mpsc::UnboundedSender<Event>,
    interrupt: watch::Receiver<bool>,
    begun: Arc<AtomicBool>,
}

static NEXT_STEP: AtomicU64 = AtomicU64::new(0);

impl Run {
    /// A run that reports to `events` and stops when `interrupt` turns true.
    pub fn new(
        mode: Mode,
        events: mpsc::UnboundedSender<Event>,
        interrupt: watch::Receiver<bool>,
    ) -> Self {
        Self {
            mode,
            events,
            interrupt,
            begun: Arc::default(),
        }
    }

    /// A run that nobody watches and nothing interrupts: what the functions use.
    pub fn unwatched() -> Self {
        let (events, _) = mpsc::unbounded_channel();
        let (_, interrupt) = watch::channel(false);
        Self {
            mode: Mode::Apply,
            events,
            interrupt,
            begun: Arc::default(),
        }
    }

    /// Whether this is a dry run.
    pub fn is_plan(&self) -> bool {
        self.mode == Mode::Plan
    }

    /// Whether a change may have begun. As long as none has, whatever goes on only reads, and can be dropped at any
    /// moment: [`Run::begin`] says so before it asks whether it may.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }

    /// Waits for Ctrl-C.
    pub async fn interrupted(&self) {
        let mut interrupt = self.interrupt.clone();
        // A sender that is gone can not interrupt any more.
        if interrupt.wait_for(|is| *is).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether something new may start.
    ///
    /// # Errors
    /// [`Interrupted`] after Ctrl-C.
    pub fn proceed(&self) -> Result<(), Interrupted> {
        if *self.interrupt.borrow() {
            Err(Interrupted)
        } else {
            Ok(())
        }
    }

    /// As [`Run::proceed`], for what changes something.
    ///
    /// # Errors
    /// [`Interrupted`] after Ctrl-C.
    pub fn begin(&self) -> Result<(), Interrupted> {
        self.begun.store(true, Ordering::SeqCst);
        self.proceed()
    }

    /// Sleeps, but not through an interrupt.
    ///
    /// # Errors
    /// [`Interrupted`] after Ctrl-C, at once.
    pub async fn pause(&self, time: Duration) -> Result<(), Interrupted> {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            () = self.interrupted() => Err(Interrupted),
        }
    }

    /// Reports something that is as wanted.
    pub fn unchanged(&self, kind: Kind, name: &str) {
        self.send(Event::Row(Row::new(kind, name, Action::Unchanged)));
    }

    /// Reports what AWS takes its time with.
    pub fn waiting(&self, what: &str, state: &str) {
        self.send(Event::Waiting {
            what: what.to_owned(),
            state: state.to_owned(),
        });
    }

    /// Reports what a person should know.
    pub fn notice(&self, text: impl Into<String>) {
        self.send(Event::Notice(text.into()));
    }

    /// Reports what a person should act on.
    pub fn warning(&self, text: impl Into<String>) {
        self.send(Event::Warning(text.into()));
    }

    /// Does what `row` says, and reports it; in a dry run only reports it and returns `None`.
    ///
    /// # Errors
    /// [`Interrupted`] instead of beginning after Ctrl-C; the work's own error, with the step's words before it.
    pub async fn step<T>(
        &self,
        row: Row,
        work: impl Future<Output = Result<T>>,
    ) -> Result<Option<T>> {
        self.step_of(vec![row], work).await
    }

    /// The same for several things of one kind that are changed at once. Without any nothing is done.
    ///
    /// # Errors
    /// As [`Run::step`].
    pub async fn step_of<T>(
        &self,
        rows: Vec<Row>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<Option<T>> {
        let Some(first) = rows.first() else {
            return Ok(None);
        };
        if self.is_plan() {
            for row in rows {
                self.send(Event::Row(row));
            }
            return Ok(None);
        }
        self.begin()?;
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        let doing = Row::new(first.kind, some_of(&names), first.action).doing();
        let (id, begin) = (NEXT_STEP.fetch_add(1, Ordering::Relaxed), Instant::now());
        self.send(Event::Began {
            id,
            doing: doing.clone(),
        });
        let done = work.await;
        self.send(Event::Ended {
            id,
            rows,
            ok: done.is_ok(),
            took: begin.elapsed(),
        });
        done.map(Some).with_context(|| doing)
    }

    fn send(&self, event: Event) {
        // Nobody listens in a function, and after the drawing ended: that is no fault of the work.
        let _ = self.events.send(event);
    }
}
