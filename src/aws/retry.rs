//! Which refusals of AWS pass: what it has not heard of yet, and what it takes later but not now.

use std::time::{Duration, Instant};

use anyhow::Result;
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction};
use backon::{BackoffBuilder, ExponentialBuilder};

use super::AwsError;
use super::error::{LIMIT_EXCEEDED, speaks_of_rate};
use super::watch::NO_TIME_LEFT;
use crate::run::Run;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Keeps the SDK from calling again where a quota is full, which it takes for throttling, and where no time is left.
#[derive(Debug)]
pub(super) struct QuotasDoNotPass;

impl ClassifyRetry for QuotasDoNotPass {
    /// By the answer as it came: the error's type is another one for every operation.
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let response = context.response().filter(|_| context.is_failed());
        let Some(response) = response else {
            return RetryAction::NoActionIndicated;
        };
        if response.headers().get(NO_TIME_LEFT).is_some() {
            return RetryAction::RetryForbidden;
        }
        let in_header = response.headers().get("x-amzn-errortype");
        let body = String::from_utf8_lossy(response.body().bytes().unwrap_or_default());
        if is_full_quota(in_header.unwrap_or_default(), &body) {
            RetryAction::RetryForbidden
        } else {
            RetryAction::NoActionIndicated
        }
    }

    fn name(&self) -> &'static str {
        "quotas do not pass"
    }
}

/// JSON services name the error in a header or in the body, the others in the body.
fn is_full_quota(error_type: &str, body: &str) -> bool {
    let names = |text: &str| {
        text.split(|each: char| !each.is_ascii_alphanumeric())
            .any(|word| word == LIMIT_EXCEEDED)
    };
    (names(error_type) || names(body)) && !speaks_of_rate(body)
}

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

    #[test]
    fn a_full_quota_is_known_in_every_form_of_answer() {
        for (error_type, body, is_full) in [
            (
                "LimitExceededException:http://internal",
                r#"{"message":"API Key limit exceeded"}"#,
                true,
            ),
            (
                "LimitExceededException",
                r#"{"message":"The request exceeded the rate limit."}"#,
                false,
            ),
            (
                "",
                r#"{"__type":"com.amazonaws.kms#LimitExceededException","message":"full"}"#,
                true,
            ),
            (
                "",
                "<Error><Code>LimitExceededException</Code><Message>full</Message></Error>",
                true,
            ),
            (
                "",
                "<Error><Code>RequestLimitExceeded</Code><Message>slower</Message></Error>",
                false,
            ),
            ("TooManyRequestsException", "{}", false),
        ] {
            assert_eq!(is_full_quota(error_type, body), is_full, "{body}");
        }
    }

    #[tokio::test]
    async fn only_what_passes_is_tried_again_and_not_for_ever() {
        let long = Duration::from_secs(30);
        assert_eq!(calls_made(1, "NotYet", long).await, (2, true));
        assert_eq!(calls_made(1, "Never", long).await, (1, false));
        assert_eq!(calls_made(9, "NotYet", Duration::ZERO).await, (1, false));
    }
}
