//! Calls that go wrong, and functions that die.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What befalls one call to AWS.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trouble {
    /// It is refused: nothing is done.
    Refused,
    /// It is done, and its answer is lost.
    Unanswered,
    /// It is done, and takes so long.
    Slow(Duration),
}

/// When a function dies: at one of its calls, before or after that took effect. Calls are counted over AWS and Weka.
#[derive(Debug, Default)]
pub(crate) struct Death {
    /// Calls that go well first; `None`: it lives.
    left: Option<AtomicUsize>,
    after: bool,
}

impl Death {
    /// Dies at call number `call`, from zero.
    pub(crate) fn at(call: usize, after: bool) -> Self {
        Self {
            left: Some(AtomicUsize::new(call + 1)),
            after,
        }
    }

    /// Before a call takes effect.
    pub(crate) async fn before(&self) {
        if let Some(left) = &self.left {
            let counted = left.fetch_sub(1, Ordering::Relaxed);
            if counted == 1 && !self.after {
                dead().await;
            }
        }
    }

    /// After it did.
    pub(crate) async fn after(&self) {
        let is_last = self
            .left
            .as_ref()
            .is_some_and(|left| left.load(Ordering::Relaxed) == 0);
        if is_last && self.after {
            dead().await;
        }
    }
}

/// Nothing more comes of it, until its function's time is over.
async fn dead() {
    std::future::pending::<()>().await;
}
