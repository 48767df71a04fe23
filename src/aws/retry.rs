//! Calls that AWS refuses only because it has not heard yet of what was just made.

use std::time::{Duration, Instant};

use anyhow::Result;
use backon::{BackoffBuilder, ExponentialBuilder};

use super::AwsError;
use crate::run::Run;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Calls again while AWS's refusal is one that passes: `is_transient` names its code and words.
/// Throttling is no matter of this function, the SDK sits it out.
///
/// # Errors
/// The first refusal of another kind, at once; the last one when `deadline` has passed; an interrupt,
/// which ends the pause at once.
pub async fn retry_while<T, F, Fut>(
    run: &Run,
    deadline: Duration,
    is_transient: impl Fn(&AwsError) -> bool,
    mut call: F,
) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, AwsError>>,
{
    let start = Instant::now();
    let mut pauses = ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build();
    loop {
        let refusal = match call().await {
            Ok(answer) => return Ok(answer),
            Err(refusal) => refusal,
        };
        if !is_transient(&refusal) {
            return Err(refusal.into());
        }
        match pauses.next() {
            Some(pause) if start.elapsed() + pause <= deadline => run.pause(pause).await?,
            _ => return Err(refusal.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::error::Effect;

    fn refusal(code: &str) -> AwsError {
        AwsError {
            code: Some(code.to_owned()),
            message: "no".to_owned(),
            request_id: None,
            effect: Effect::None,
        }
    }

    async fn calls_made(refusals: usize, code: &str, deadline: Duration) -> (usize, bool) {
        let mut calls = 0;
        let answer = retry_while(
            &Run::unwatched(),
            deadline,
            |error| error.is(&["NotYet"]),
            || {
                calls += 1;
                let answer = if calls > refusals {
                    Ok(())
                } else {
                    Err(refusal(code))
                };
                async { answer }
            },
        )
        .await;
        (calls, answer.is_ok())
    }

    #[tokio::test]
    async fn only_what_passes_is_tried_again_and_not_for_ever() {
        let long = Duration::from_secs(30);
        assert_eq!(calls_made(1, "NotYet", long).await, (2, true));
        assert_eq!(calls_made(1, "Never", long).await, (1, false));
        assert_eq!(calls_made(9, "NotYet", Duration::ZERO).await, (1, false));
    }
}
