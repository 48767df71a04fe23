//! Waiting for AWS: polls soon and often, has a deadline, and never takes an error for "done".

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::run::Run;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// One look at what is waited for.
pub enum Probe<T> {
    /// Not yet; the words say what it is like now.
    Pending(String),
    /// There.
    Ready(T),
    /// It will never be; the words say why.
    Failed(String),
}

/// Probes until it is [`Probe::Ready`]. The pause between two looks grows from a tenth of a second to two.
///
/// # Errors
/// The probe's own error at once; [`Probe::Failed`]; the deadline, with the last state seen;
/// an interrupt, which ends the pause at once.
pub async fn wait_until<T, F, Fut>(
    run: &Run,
    what: &str,
    deadline: Duration,
    mut probe: F,
) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Probe<T>>>,
{
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        match probe().await? {
            Probe::Ready(value) => return Ok(value),
            Probe::Failed(why) => bail!("{what}: {why}"),
            Probe::Pending(state) => {
                if start.elapsed() + pause > deadline {
                    bail!(
                        "{what}: not so after {} s: {state}",
                        start.elapsed().as_secs()
                    );
                }
                run.waiting(what, &state);
            }
        }
        run.pause(pause).await?;
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}
