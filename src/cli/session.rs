//! One command's way through AWS: connect, ask, work, draw, and stop when told to.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};

use super::progress::{Progress, Purpose, Report};
use super::screen::{Screen, Tone};
use super::terminal::{Echo, TerminalState};
use super::{Context, exit};
use crate::aws::Aws;
use crate::run::{Event, Mode, Run};

/// Ctrl-C or SIGTERM came while nothing had been changed yet.
#[derive(Debug, thiserror::Error)]
#[error("interrupted: nothing was changed")]
pub(super) struct NothingChanged;

/// See the module's words.
pub(super) struct Session {
    screen: Screen,
    mode: Mode,
    aws: Aws,
    /// Gone only while they are drawn.
    events: Option<mpsc::UnboundedReceiver<Event>>,
    interrupt: watch::Receiver<bool>,
    watching: JoinHandle<()>,
    echo: Echo,
    looked: Duration,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Session {
    /// Finds region and credentials. No call to AWS is made.
    ///
    /// # Errors
    /// No region is known; the profile is not there.
    pub(super) async fn open(context: &Context, mode: Mode) -> Result<Self> {
        let (sender, events) = mpsc::unbounded_channel();
        let (interrupt, interrupted) = watch::channel(false);
        let signals = Signals::new().context("listening for Ctrl-C")?;
        let run = Run::new(mode, sender, interrupted.clone());
        let aws = Aws::connect(context.region(), context.profile(), run.clone()).await?;
        let screen = context.screen.clone();
        let echo = Echo::default();
        let watching = watch_signals(signals, interrupt, run, screen.clone(), echo.clone());
        let watching = tokio::spawn(watching);
        Ok(Self {
            screen,
            mode,
            aws,
            events: Some(events),
            interrupt: interrupted,
            watching,
            echo,
            looked: Duration::ZERO,
        })
    }

    pub(super) fn screen(&self) -> &Screen {
        &self.screen
    }

    /// The region that the work will be in.
    pub(super) fn region(&self) -> &str {
        self.aws.region()
    }

    /// What a person answers to a question that blocks, unless it is Ctrl-C. Before the first change.
    ///
    /// # Errors
    /// The question's own error; [`NothingChanged`].
    pub(super) async fn answer<T: Send + 'static>(
        &self,
        question: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let terminal = TerminalState::save();
        tokio::select! {
            answer = spawn_blocking(question) => answer?,
            () = self.aws.run.interrupted() => {
                // The thread that waits for the answer can not be stopped, and will not put the echo back.
                terminal.restore_and_discard();
                self.screen.end_line();
                Err(NothingChanged.into())
            }
        }
    }

    /// Does what only reads, and draws its progress.
    ///
    /// # Errors
    /// The work's own; [`NothingChanged`].
    pub(super) async fn look<T>(
        &mut self,
        doing: &str,
        purpose: Purpose,
        work: impl AsyncFnOnce(&Aws) -> Result<T>,
    ) -> Result<T> {
        let (result, report) = self.draw(doing, purpose, work).await?;
        self.looked += report.took();
        result
    }

    /// Does the work, draws its progress, and says in one line what was done, whether or not it succeeded.
    ///
    /// # Errors
    /// The work's own; [`NothingChanged`].
    pub(super) async fn run<T>(
        &mut self,
        doing: &str,
        purpose: Purpose,
        work: impl AsyncFnOnce(&Aws) -> Result<T>,
    ) -> Result<(T, Report)> {
        let (result, report) = self.draw(doing, purpose, work).await?;
        let report = report.with(self.looked);
        report.summarize(&self.screen, result.is_ok());
        result.map(|done| (done, report))
    }

    async fn draw<T>(
        &mut self,
        doing: &str,
        purpose: Purpose,
        work: impl AsyncFnOnce(&Aws) -> Result<T>,
    ) -> Result<(Result<T>, Report)> {
        let hidden = self.echo.hide_while_drawing(&self.screen);
        let progress = Progress::new(
            self.screen.clone(),
            doing,
            purpose,
            self.mode,
            self.interrupt.clone(),
        );
        let events = self.events.take().context("drawing twice at once")?;
        let (finished, has_finished) = oneshot::channel();
        let drawing = tokio::spawn(progress.follow(events, has_finished));
        let result = tokio::select! {
            biased;
            () = interrupted_before_a_change(&self.aws.run) => Err(NothingChanged.into()),
            result = work(&self.aws) => result,
        };
        // Whoever still holds a sender keeps the channel open: the end is said, not inferred.
        let _ = finished.send(());
        let (report, events) = drawing.await.context("drawing the progress")?;
        self.events = Some(events);
        drop(hidden);
        Ok((result, report))
    }
}

/// Waits for an interrupt, and for ever where one comes after the first change: that one is left to the steps.
async fn interrupted_before_a_change(run: &Run) {
    run.interrupted().await;
    if run.has_begun() {
        std::future::pending::<()>().await;
    }
}

/// The first signal lets the steps under way finish; Ctrl-C after that ends the program at once.
async fn watch_signals(
    mut signals: Signals,
    interrupt: watch::Sender<bool>,
    run: Run,
    screen: Screen,
    echo: Echo,
) {
    let mut stopping = false;
    loop {
        match signals.next().await {
            Signal::Interrupt if stopping => {
                screen.clear();
                screen.line(
                    Tone::Warning,
                    "stopped at once: run the same command again to go on",
                );
                echo.show();
                std::process::exit(exit::INTERRUPTED.into());
            }
            signal @ (Signal::Interrupt | Signal::Terminate) if !stopping => {
                stopping = true;
                // Said before it is asked what has begun: no step begins between the two.
                interrupt.send_replace(true);
                if run.has_begun() {
                    let at_once = match signal {
                        Signal::Interrupt => "press Ctrl-C again to stop at once",
                        Signal::Terminate => "SIGINT stops at once",
                    };
                    let line = format!("finishing the steps under way; {at_once}");
                    screen.line(Tone::Warning, &line);
                }
            }
            Signal::Interrupt | Signal::Terminate => {}
        }
    }
}

enum Signal {
    Interrupt,
    #[cfg_attr(not(unix), expect(dead_code, reason = "there is no SIGTERM"))]
    Terminate,
}

/// Ctrl-C and SIGTERM, instead of the process's death.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(windows)]
    interrupt: tokio::signal::windows::CtrlC,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    #[cfg(windows)]
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: tokio::signal::windows::ctrl_c()?,
        })
    }

    #[cfg(unix)]
    async fn next(&mut self) -> Signal {
        tokio::select! {
            Some(()) = self.interrupt.recv() => Signal::Interrupt,
            Some(()) = self.terminate.recv() => Signal::Terminate,
            else => std::future::pending().await,
        }
    }

    #[cfg(windows)]
    async fn next(&mut self) -> Signal {
        match self.interrupt.recv().await {
            Some(()) => Signal::Interrupt,
            None => std::future::pending().await,
        }
    }
}
