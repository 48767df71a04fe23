//! One command's way through AWS: connect, ask, work, draw, and stop when told to.

use anyhow::{Context as _, Result};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;

use super::progress::{Progress, Purpose, Report};
use super::screen::{Screen, Tone};
use super::{Context, exit};
use crate::aws::Aws;
use crate::run::{Event, Interrupted, Mode, Run};

/// See the module's words.
pub(super) struct Session {
    screen: Screen,
    mode: Mode,
    aws: Aws,
    events: mpsc::UnboundedReceiver<Event>,
    signals: Signals,
    interrupt: watch::Sender<bool>,
}

impl Session {
    /// Finds region and credentials. No call to AWS is made.
    ///
    /// # Errors
    /// No region is known.
    pub(super) async fn open(context: &Context, mode: Mode) -> Result<Self> {
        let (sender, events) = mpsc::unbounded_channel();
        let (interrupt, interrupted) = watch::channel(false);
        let signals = Signals::new().context("listening for Ctrl-C")?;
        let run = Run::new(mode, sender, interrupted);
        let aws = Aws::connect(context.region(), context.profile(), run).await?;
        Ok(Self {
            screen: context.screen.clone(),
            mode,
            aws,
            events,
            signals,
            interrupt,
        })
    }

    pub(super) fn screen(&self) -> &Screen {
        &self.screen
    }

    /// The region that the work will be in.
    pub(super) fn region(&self) -> &str {
        self.aws.region()
    }

    /// What a person answers to a question that blocks, unless it is Ctrl-C.
    ///
    /// # Errors
    /// The question's own error; an interrupt.
    pub(super) async fn answer<T: Send + 'static>(
        &mut self,
        question: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let terminal = TerminalState::save();
        tokio::select! {
            answer = spawn_blocking(question) => answer?,
            _ = self.signals.next() => {
                // The thread that waits for the answer can not be stopped, and will not put the echo back.
                terminal.restore_and_discard();
                self.screen.end_line();
                self.screen.line(Tone::Note, "nothing was changed");
                Err(Interrupted.into())
            }
        }
    }

    /// Does the work, draws its progress, and says in one line what was done, whether or not it succeeded.
    ///
    /// # Errors
    /// The work's own.
    pub(super) async fn run<T>(
        self,
        doing: &str,
        purpose: Purpose,
        work: impl AsyncFnOnce(&Aws) -> Result<T>,
    ) -> Result<(T, Report)> {
        let progress = Progress::new(
            self.screen.clone(),
            doing,
            purpose,
            self.mode,
            self.interrupt.subscribe(),
        );
        let (finished, has_finished) = oneshot::channel();
        let drawing = tokio::spawn(progress.follow(self.events, has_finished));
        let watching = tokio::spawn(watch_signals(
            self.signals,
            self.interrupt,
            self.screen.clone(),
        ));
        let result = work(&self.aws).await;
        // Whoever still holds a sender keeps the channel open: the end is said, not inferred.
        let _ = finished.send(());
        let report = drawing.await.context("drawing the progress")?;
        watching.abort();
        report.summarize(&self.screen, result.is_ok());
        result.map(|done| (done, report))
    }
}

/// The first signal lets the steps under way finish; Ctrl-C after that ends the program at once.
async fn watch_signals(mut signals: Signals, interrupt: watch::Sender<bool>, screen: Screen) {
    let mut stopping = false;
    loop {
        match signals.next().await {
            Signal::Interrupt if stopping => {
                screen.clear();
                screen.line(
                    Tone::Warning,
                    "stopped at once: run the same command again to go on",
                );
                std::process::exit(exit::INTERRUPTED.into());
            }
            Signal::Interrupt | Signal::Terminate if !stopping => {
                stopping = true;
                screen.line(
                    Tone::Warning,
                    "finishing the steps under way; press Ctrl-C again to stop at once",
                );
                interrupt.send_replace(true);
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

/// The terminal's settings as they were before a question without echo.
pub(super) struct TerminalState(#[cfg(unix)] Option<rustix::termios::Termios>);

impl TerminalState {
    #[cfg(unix)]
    fn save() -> Self {
        Self(rustix::termios::tcgetattr(std::io::stdin()).ok())
    }

    #[cfg(not(unix))]
    fn save() -> Self {
        Self()
    }

    /// From now on nothing that is typed is seen.
    #[cfg(unix)]
    pub(super) fn hide() -> Self {
        use rustix::termios::{LocalModes, OptionalActions, tcsetattr};
        let state = Self::save();
        if let Some(settings) = &state.0 {
            let mut hidden = settings.clone();
            hidden.local_modes.remove(LocalModes::ECHO);
            // A terminal that can not be hidden is none.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &hidden);
        }
        state
    }

    /// What is typed is seen again.
    #[cfg(unix)]
    pub(super) fn restore(self) {
        self.set(rustix::termios::OptionalActions::Now);
    }

    /// The same, where an answer may have been typed in part: the shell must not get it.
    #[cfg(unix)]
    fn restore_and_discard(self) {
        self.set(rustix::termios::OptionalActions::Flush);
    }

    #[cfg(not(unix))]
    fn restore_and_discard(self) {}

    #[cfg(unix)]
    fn set(self, when: rustix::termios::OptionalActions) {
        if let Some(settings) = self.0 {
            // A terminal that is gone needs no echo.
            let _ = rustix::termios::tcsetattr(std::io::stdin(), when, &settings);
        }
    }
}
