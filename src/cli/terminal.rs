//! Whether what is typed is seen: not while a password is asked for, and not while spinners are drawn.

use std::sync::{Arc, Mutex, PoisonError};

#[cfg(unix)]
use rustix::fd::BorrowedFd;
#[cfg(unix)]
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

use super::screen::Screen;

/// A terminal's settings as they were.
pub(super) struct TerminalState(#[cfg(unix)] Option<(BorrowedFd<'static>, Termios)>);

#[cfg(unix)]
impl TerminalState {
    /// Those of the terminal that is typed at.
    pub(super) fn save() -> Self {
        Self::of(rustix::stdio::stdin())
    }

    /// The same; from now on nothing that is typed is seen.
    pub(super) fn hide() -> Self {
        Self::save().and_hide()
    }

    fn of(terminal: BorrowedFd<'static>) -> Self {
        Self(
            tcgetattr(terminal)
                .ok()
                .map(|settings| (terminal, settings)),
        )
    }

    fn and_hide(self) -> Self {
        if let Some((terminal, settings)) = &self.0 {
            let mut hidden = settings.clone();
            hidden.local_modes.remove(LocalModes::ECHO);
            set(*terminal, OptionalActions::Now, &hidden);
        }
        self
    }

    /// What is typed is seen again.
    pub(super) fn restore(self) {
        if let Some((terminal, settings)) = self.0 {
            set(terminal, OptionalActions::Now, &settings);
        }
    }

    /// The same, where an answer may have been typed in part: the shell must not get it.
    pub(super) fn restore_and_discard(self) {
        if let Some((terminal, settings)) = self.0 {
            set(terminal, OptionalActions::Flush, &settings);
        }
    }
}

/// Leaves alone a terminal that is gone, or that another job has: who sets that one is stopped.
#[cfg(unix)]
fn set(terminal: BorrowedFd<'_>, when: OptionalActions, settings: &Termios) {
    let is_ours = tcgetpgrp(terminal).is_ok_and(|group| group == rustix::process::getpgrp());
    if is_ours {
        // Without it there is only more to see.
        let _ = tcsetattr(terminal, when, settings);
    }
}

#[cfg(not(unix))]
impl TerminalState {
    pub(super) fn save() -> Self {
        Self()
    }

    fn restore(self) {}

    pub(super) fn restore_and_discard(self) {}
}

/// The echo of the terminal that is drawn on. What it showed between the spinners would move them: the `^C` behind a
/// full line begins a new one, and then the wrong line is wiped away. A password that is typed too early is not seen
/// either.
#[derive(Clone, Default)]
pub(super) struct Echo(Arc<Mutex<Option<TerminalState>>>);

impl Echo {
    /// Hides it until what this returns is gone, if there are spinners.
    pub(super) fn hide_while_drawing(&self, screen: &Screen) -> Hidden<'_> {
        #[cfg(unix)]
        if !screen.bars().is_hidden() {
            let state = TerminalState::of(rustix::stdio::stderr()).and_hide();
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
        }
        #[cfg(not(unix))]
        let _ = screen;
        Hidden(self)
    }

    /// Shows it again.
    pub(super) fn show(&self) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(state) = state {
            state.restore();
        }
    }
}

/// As long as this is there, what is typed is not seen.
pub(super) struct Hidden<'a>(&'a Echo);

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        self.0.show();
    }
}
