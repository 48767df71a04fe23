//! AWS's failures in our words: one leaf error with code, message and request id.

use aws_config::meta::ProviderChainError;
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

/// What a failed call tells about its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// AWS answered and refused: nothing changed.
    None,
    /// AWS refused for now (throttling): nothing changed, the same call may succeed later.
    NoneYet,
    /// No answer, or a fault on AWS's side: the call may have taken effect.
    Unknown,
}

/// A failed call. `Display` is complete: it has no source that would say more.
#[derive(Debug, Clone)]
pub struct AwsError {
    /// AWS's error code (`AccessDenied`); `None` when AWS did not answer.
    pub code: Option<String>,
    /// AWS's words, or the transport's.
    pub message: String,
    /// What AWS support asks for.
    pub request_id: Option<String>,
    /// Whether the call may have changed something.
    pub effect: Effect,
}

impl AwsError {
    /// Whether AWS answered with one of these codes.
    pub fn is(&self, codes: &[&str]) -> bool {
        self.code
            .as_deref()
            .is_some_and(|code| codes.contains(&code))
    }

    /// Whether AWS answered with this code and words that contain `fragment`.
    pub fn says(&self, code: &str, fragment: &str) -> bool {
        self.is(&[code])
            && self
                .message
                .to_lowercase()
                .contains(&fragment.to_lowercase())
    }

    /// The AWS failure at the root of an error, if there is one.
    pub fn of(error: &anyhow::Error) -> Option<&Self> {
        error.chain().find_map(|cause| cause.downcast_ref())
    }
}

impl std::fmt::Display for AwsError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)?;
        match (&self.code, &self.request_id) {
            (Some(code), Some(id)) => write!(formatter, " ({code}, request id {id})"),
            (Some(code), None) => write!(formatter, " ({code})"),
            (None, Some(id)) => write!(formatter, " (request id {id})"),
            (None, None) => Ok(()),
        }
    }
}

impl std::error::Error for AwsError {}

/// The codes with which services say "slower": the SDK's own list and API Gateway's.
const THROTTLING: &[&str] = &[
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottledException",
    "TooManyRequestsException",
    "ProvisionedThroughputExceededException",
    "TransactionInProgressException",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
    LIMIT_EXCEEDED,
    "RequestThrottled",
    "SlowDown",
    "PriorRequestNotComplete",
    "EC2ThrottledException",
];

/// For some services a rate that passes, for others a quota that is full until somebody empties or raises it:
/// only the message tells which.
pub(super) const LIMIT_EXCEEDED: &str = "LimitExceededException";

/// Whether the words that come with [`LIMIT_EXCEEDED`] mean that the same call will soon be taken.
pub(super) fn speaks_of_rate(message: &str) -> bool {
    let message = message.to_lowercase();
    message.contains("too many")
        || message
            .split(|each: char| !each.is_ascii_alphabetic())
            .any(|word| {
                matches!(word, "rate" | "rates")
                    || ["throttl", "simultaneous", "concurrent"]
                        .iter()
                        .any(|begin| word.starts_with(begin))
            })
}

/// The headers in which services tell the request's id.
pub(super) const REQUEST_IDS: &[&str] =
    &["x-amzn-requestid", "x-amz-request-id", "x-amzn-request-id"];

/// Turns the SDK's nested errors into one leaf.
pub trait Answer<T>: Sized {
    /// # Errors
    /// The call's failure as one [`AwsError`].
    fn answer(self) -> Result<T, AwsError>;

    /// The answer, or `None` when AWS says with one of `codes` that there is no such thing.
    ///
    /// # Errors
    /// Any other failure.
    fn if_found(self, codes: &[&str]) -> Result<Option<T>, AwsError> {
        match self.answer() {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.is(codes) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl<T, E> Answer<T> for Result<T, SdkError<E, HttpResponse>>
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    fn answer(self) -> Result<T, AwsError> {
        self.map_err(|error| leaf(&error))
    }
}

fn leaf<E>(error: &SdkError<E, HttpResponse>) -> AwsError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let status = error
        .raw_response()
        .map(|response| response.status().as_u16());
    if let SdkError::ServiceError(context) = error {
        let metadata = context.err().meta();
        // An answer without a code is one all the same.
        let http = || status.map(|status| format!("HTTP {status}"));
        let code = metadata.code().map(ToOwned::to_owned).or_else(http);
        let is_quota = code.as_deref() == Some(LIMIT_EXCEEDED)
            && !speaks_of_rate(metadata.message().unwrap_or_default());
        let throttled = !is_quota
            && (status == Some(429)
                || code
                    .as_deref()
                    .is_some_and(|code| THROTTLING.contains(&code)));
        let effect = match status {
            _ if throttled => Effect::NoneYet,
            Some(status) if status < 500 => Effect::None,
            _ => Effect::Unknown,
        };
        let request_id = metadata
            .extra("aws_request_id")
            .map(ToOwned::to_owned)
            .or_else(|| {
                REQUEST_IDS
                    .iter()
                    .find_map(|name| context.raw().headers().get(*name))
                    .map(ToOwned::to_owned)
            });
        let message = match metadata.message() {
            Some(message) if !message.is_empty() => message.to_owned(),
            _ if metadata.code().is_none() => "AWS answered without a reason".to_owned(),
            _ => format!(
                "AWS refused the call: {}",
                code.as_deref().unwrap_or_default()
            ),
        };
        return AwsError {
            code,
            message,
            request_id,
            effect,
        };
    }
    let effect = match error {
        SdkError::ConstructionFailure(_) => Effect::None,
        _ => Effect::Unknown,
    };
    AwsError {
        code: None,
        message: chain(error),
        request_id: None,
        effect,
    }
}

/// What the SDK puts before the cause of a call that was never sent or never answered, and what to say instead.
const WRAPPING: &[(&str, &str)] = &[
    ("dispatch failure", ""),
    ("io error", ""),
    ("other", ""),
    ("the credential provider was not enabled", ""),
    (
        "an error occurred while loading credentials",
        "loading credentials",
    ),
];
/// What the SDK calls the place where the profile is read.
const PROFILE: &str = "Profile";

/// All causes in one line, each once: the SDK's own errors repeat their sources in part.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        let text = match cause.downcast_ref::<ProviderChainError<CredentialsError>>() {
            Some(places) => no_credentials(places),
            None => cause.to_string(),
        };
        let text = WRAPPING
            .iter()
            .find(|(wrapping, _)| *wrapping == text)
            .map_or(text.as_str(), |(_, instead)| instead);
        if !text.is_empty() && !parts.iter().any(|part| part.contains(text)) {
            parts.push(text.to_owned());
        }
        next = cause.source();
    }
    parts.join(": ")
}

/// The SDK tells of every place where it has looked in vain; only what is wrong with the profile is news.
fn no_credentials(places: &ProviderChainError<CredentialsError>) -> String {
    let profile = places
        .attempts()
        .iter()
        .find(|place| place.name() == PROFILE)
        .and_then(|place| std::error::Error::source(place.error()));
    let none = "no credentials found";
    profile.map_or_else(
        || none.to_owned(),
        |wrong| format!("{none}: {}", chain(wrong)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error with what it wraps.
    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl std::fmt::Display for Layer {
        fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str(self.0)
        }
    }

    impl std::error::Error for Layer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            self.1.as_ref().map(|inner| inner as _)
        }
    }

    #[test]
    fn a_full_quota_is_told_from_a_rate() {
        for (message, is_rate) in [
            ("The request exceeded the rate limit. Retry later.", true),
            ("Rate exceeded", true),
            ("Request was throttled", true),
            ("Too many requests", true),
            (
                "Only 10 tables can be created, updated, or deleted simultaneously",
                true,
            ),
            ("The number of keys has reached its limit", false),
            ("The requested operation would generate another rule", false),
            ("API Key limit exceeded", false),
            ("", false),
        ] {
            assert_eq!(speaks_of_rate(message), is_rate, "{message}");
        }
    }

    #[test]
    fn only_the_causes_are_told_and_each_once() {
        for (layers, told) in [
            (
                &[
                    "dispatch failure",
                    "io error",
                    "client error (Connect)",
                    "refused",
                ][..],
                "client error (Connect): refused",
            ),
            (
                &[
                    "dispatch failure",
                    "other",
                    "an error occurred while loading credentials",
                    "failed to load the cached SSO token",
                ],
                "loading credentials: failed to load the cached SSO token",
            ),
            (
                &["request failed: no route", "no route"],
                "request failed: no route",
            ),
        ] {
            let error = layers
                .iter()
                .rev()
                .fold(None, |inner, text| Some(Box::new(Layer(text, inner))));
            assert_eq!(chain(&error.expect("a layer")), told);
        }
    }
}
