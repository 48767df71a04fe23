//! Watches every call: tells diagnostics of it, tells a person who waits that AWS is asked again, and lets the last
//! answer be the end where there is no time left for another one.

use std::time::{Duration, Instant};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextRef,
    FinalizerInterceptorContextRef,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, Metadata};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::{ConfigBag, Storable, StoreReplace};

use super::error::REQUEST_IDS;
use crate::run::Run;

/// Marks an answer after which there is no time for another try: with it a call ends with AWS's own words, and not
/// with a deadline's.
pub(super) const NO_TIME_LEFT: &str = "x-wekactl-no-time-left";
/// What stands where an answer's code would.
const NO_ANSWER: &str = "no answer";

/// See the module's words.
pub(super) struct Watch {
    run: Run,
    /// How long tries may begin.
    patience: Duration,
}

impl Watch {
    /// Of the calls of a run that may take `deadline` with all their tries, and pause for `longest_pause` before one.
    pub(super) fn new(run: Run, deadline: Duration, longest_pause: Duration) -> Self {
        let patience = deadline.saturating_sub(longest_pause);
        Self { run, patience }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// The tries of one call so far.
#[derive(Debug, Clone)]
struct Tries {
    began: Instant,
    sent: Instant,
    /// What the last one came to.
    failed: Option<String>,
}

impl Storable for Tries {
    type Storer = StoreReplace<Self>;
}

impl Intercept for Watch {
    fn name(&self) -> &'static str {
        "wekactl watches"
    }

    fn read_before_attempt(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let now = Instant::now();
        let mut tries = cfg.load::<Tries>().cloned().unwrap_or(Tries {
            began: now,
            sent: now,
            failed: None,
        });
        tries.sent = now;
        if let Some(failure) = &tries.failed {
            // One wait, however many calls: each of them told by itself would be a flood.
            let state = format!("{} is called again after {failure}", call(cfg));
            self.run.waiting("AWS to answer", &state);
        }
        cfg.interceptor_state().store_put(tries);
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let began = cfg.load::<Tries>().map(|tries| tries.began);
        if began.is_some_and(|began| began.elapsed() > self.patience) {
            context
                .response_mut()
                .headers_mut()
                .insert(NO_TIME_LEFT, "true");
        }
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let Some(mut tries) = cfg.load::<Tries>().cloned() else {
            return Ok(());
        };
        let response = context.response();
        let failed = context.output_or_error().is_none_or(|end| end.is_err());
        tries.failed = failed.then(|| response.map_or_else(|| NO_ANSWER.to_owned(), code));
        // Neither what is asked nor what is answered: both may hold secrets.
        tracing::debug!(
            target: "wekactl::aws",
            "{} took {} ms: {}{}",
            call(cfg),
            tries.sent.elapsed().as_millis(),
            tries.failed.as_deref().unwrap_or("done"),
            response.and_then(request_id).map_or_else(String::new, |id| format!(", request id {id}")),
        );
        cfg.interceptor_state().store_put(tries);
        Ok(())
    }
}

/// "EC2.DescribeInstances".
fn call(cfg: &ConfigBag) -> String {
    cfg.load::<Metadata>().map_or_else(
        || "a call".to_owned(),
        |call| format!("{}.{}", call.service(), call.name()),
    )
}

fn request_id(response: &HttpResponse) -> Option<&str> {
    let headers = response.headers();
    REQUEST_IDS.iter().find_map(|name| headers.get(*name))
}

fn code(response: &HttpResponse) -> String {
    let in_header = response.headers().get("x-amzn-errortype");
    let body = response.body().bytes().unwrap_or_default();
    error_code(in_header, body).unwrap_or_else(|| format!("HTTP {}", response.status().as_u16()))
}

/// The error's code, by the answer as it came: JSON services have it in a header or in the body, the others in the
/// body. Only what looks like a code is one.
fn error_code(in_header: Option<&str>, body: &[u8]) -> Option<String> {
    let in_json = || {
        let body: serde_json::Value = serde_json::from_slice(body).ok()?;
        let code = ["__type", "code", "Code"]
            .iter()
            .find_map(|name| body.get(name)?.as_str())?;
        Some(code.to_owned())
    };
    let in_xml = || {
        let body = String::from_utf8_lossy(body);
        let (_, rest) = body.split_once("<Code>")?;
        Some(rest.split_once("</Code>")?.0.to_owned())
    };
    let code = in_header
        .map(ToOwned::to_owned)
        .or_else(in_json)
        .or_else(in_xml)?;
    let code = code.split(':').next()?.rsplit('#').next()?.trim();
    let fits = |each: char| each.is_ascii_alphanumeric() || "._-".contains(each);
    (!code.is_empty() && code.len() <= 100 && code.chars().all(fits)).then(|| code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_found_in_every_form_of_answer() {
        for (header, body, code) in [
            (Some("Throttled:http://internal"), "{}", Some("Throttled")),
            (
                None,
                r#"{"__type":"com.amazonaws.kms#KMSInternalException"}"#,
                Some("KMSInternalException"),
            ),
            (
                None,
                "<Response><Errors><Error><Code>Unavailable</Code></Error></Errors></Response>",
                Some("Unavailable"),
            ),
            (None, r#"{"code":"a secret of\nmany words"}"#, None),
            (None, "<html>502</html>", None),
            (None, "", None),
        ] {
            assert_eq!(
                error_code(header, body.as_bytes()).as_deref(),
                code,
                "{body}"
            );
        }
    }
}
