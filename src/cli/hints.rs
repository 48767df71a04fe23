//! What to do about an error: one line for each thing that helps. Pure, so that every hint has its test.

use std::path::PathBuf;

use super::screen::{Screen, Tone};
use super::session::NothingChanged;
use super::{Context, exit};
use crate::aws::{AwsError, BadPlace, BadRates, NoProfile, NoRegion};
use crate::cluster::UsageError;
use crate::functions::OutOfReach;
use crate::resource::{Failures, NotOurs};
use crate::run::Interrupted;

const ACCESS_DENIED: &[&str] = &[
    "AccessDenied",
    "AccessDeniedException",
    "AuthorizationError",
    "AuthorizationErrorException",
    "Client.UnauthorizedOperation",
    "KMSAccessDeniedException",
    "NotAuthorized",
    "UnauthorizedOperation",
];
const EXPIRED: &[&str] = &[
    "ExpiredToken",
    "ExpiredTokenException",
    "TokenRefreshRequired",
];
const REFUSED_CREDENTIALS: &[&str] = &[
    "AuthFailure",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "OptInRequired",
    "UnrecognizedClientException",
];
const CLOCK: &[&str] = &[
    "InvalidSignatureException",
    "RequestExpired",
    "RequestInTheFuture",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
];

/// What a hint has to know besides the error.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    /// "wekactl cluster import".
    pub(super) command: &'static str,
    pub(super) profile: Option<String>,
    pub(super) region: Option<String>,
    /// Where the calls go instead of to AWS.
    pub(super) endpoint: Option<String>,
    /// The text of AWS's configuration file.
    pub(super) config: String,
}

impl Surroundings {
    /// Reads the environment.
    pub(super) fn of(context: &Context) -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let file = std::env::var_os("AWS_CONFIG_FILE")
            .map(PathBuf::from)
            .or_else(|| Some(std::env::home_dir()?.join(".aws").join("config")));
        Self {
            command: context.command,
            profile: context.profile().or_else(|| variable("AWS_PROFILE")),
            region: context.region().or_else(|| variable("AWS_REGION")),
            endpoint: variable("AWS_ENDPOINT_URL"),
            // Without the file there is only less to say.
            config: file
                .and_then(|file| std::fs::read_to_string(file).ok())
                .unwrap_or_default(),
        }
    }

    fn profile_or_default(&self) -> &str {
        self.profile.as_deref().unwrap_or("default")
    }

    fn login(&self) -> String {
        self.profile.as_ref().map_or_else(
            || "aws sso login".to_owned(),
            |profile| format!("aws sso login --profile {profile}"),
        )
    }

    /// What could be given instead of a profile that is not there.
    fn profiles(&self) -> String {
        let sections = self.config.lines().filter_map(section);
        let names: Vec<&str> = sections
            .filter_map(|section| match section.strip_prefix("profile ") {
                Some(name) => Some(name.trim()),
                None => (section == "default").then_some(section),
            })
            .collect();
        if names.is_empty() {
            "there are no profiles in AWS's configuration file: make one with 'aws configure --profile NAME', \
             or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                .to_owned()
        } else {
            format!(
                "the profiles in AWS's configuration file are: {}",
                names.join(", ")
            )
        }
    }

    /// Whether the profile has a setting whose name begins so.
    fn profile_has(&self, setting: &str) -> bool {
        let wanted = self.profile_or_default();
        let mut here = false;
        for line in self.config.lines().map(str::trim) {
            if let Some(section) = section(line) {
                let name = section.strip_prefix("profile ").unwrap_or(section);
                here = name.trim() == wanted;
            } else if here && line.starts_with(setting) {
                return true;
            }
        }
        false
    }
}

/// What stands in brackets at the begin of a line of the configuration file.
fn section(line: &str) -> Option<&str> {
    let rest = line.trim().strip_prefix('[')?;
    Some(rest.split(']').next().unwrap_or_default().trim())
}

/// Shows an error with all its failures and hints.
///
/// Returns the exit code.
pub(super) fn show(error: &anyhow::Error, screen: &Screen, surroundings: &Surroundings) -> u8 {
    let (lines, code) = explain(error, surroundings);
    for (tone, line) in lines {
        screen.line(tone, &line);
    }
    code
}

/// A line for each failure, each hint once, and the exit code.
fn explain(error: &anyhow::Error, surroundings: &Surroundings) -> (Vec<(Tone, String)>, u8) {
    let (stopped, failures): (Vec<_>, Vec<_>) = flatten(error)
        .into_iter()
        .partition(Failure::is::<Interrupted>);
    let interrupted = !stopped.is_empty();
    let mut lines: Vec<(Tone, String)> = failures
        .iter()
        .map(|failure| (Tone::Error, failure.text.clone()))
        .collect();
    let mut hints: Vec<String> = failures
        .iter()
        .flat_map(|failure| hints_for(failure, surroundings))
        .collect();
    if interrupted {
        lines.push((Tone::Error, "interrupted".to_owned()));
        hints.push("run the same command again to go on".to_owned());
    }
    for hint in hints {
        let hint = (Tone::Hint, hint);
        if !lines.contains(&hint) {
            lines.push(hint);
        }
    }
    let code = if interrupted || failures.iter().any(Failure::is::<NothingChanged>) {
        exit::INTERRUPTED
    } else if failures.iter().any(Failure::is_usage) {
        exit::USAGE
    } else {
        exit::FAILED
    };
    (lines, code)
}

/// One failure of perhaps many, and what was being done, in one line.
struct Failure<'a> {
    text: String,
    error: &'a anyhow::Error,
}

impl Failure<'_> {
    fn find<E: std::error::Error + Send + Sync + 'static>(&self) -> Option<&E> {
        self.error.chain().find_map(|cause| cause.downcast_ref())
    }

    fn is<E: std::error::Error + Send + Sync + 'static>(&self) -> bool {
        self.find::<E>().is_some()
    }

    fn is_usage(&self) -> bool {
        self.is::<UsageError>()
            || self.is::<NoRegion>()
            || self.is::<NoProfile>()
            || self.is::<BadPlace>()
            || self.is::<BadRates>()
    }
}

/// Each failure of steps that ran at once, with the words that stand before all of them.
fn flatten(error: &anyhow::Error) -> Vec<Failure<'_>> {
    let mut before = String::new();
    for cause in error.chain() {
        if let Some(failures) = cause.downcast_ref::<Failures>() {
            return failures
                .0
                .iter()
                .flat_map(flatten)
                .map(|failure| Failure {
                    text: format!("{before}{}", failure.text),
                    ..failure
                })
                .collect();
        }
        before = format!("{before}{cause}: ");
    }
    vec![Failure {
        text: format!("{error:#}"),
        error,
    }]
}

fn hints_for(failure: &Failure<'_>, surroundings: &Surroundings) -> Vec<String> {
    let mut hints = Vec::new();
    // A message that names a flag says itself what to do.
    if failure.is::<UsageError>() && !failure.text.contains("--") {
        hints.push(format!("try '{} --help'", surroundings.command));
    }
    if failure.is::<NotOurs>() {
        hints.push(
            "wekactl takes over nothing without this cluster's tag: remove or rename it if it is not needed".into(),
        );
    }
    if failure.is::<OutOfReach>() {
        hints.push(
            "run it where the backends can be reached, or name with --address a backend that can be from here; with \
             --save there, what is seen can be decided on here with --observation"
                .into(),
        );
    }
    if let Some(error) = failure.find::<AwsError>() {
        hints.extend(aws_hint(error, surroundings));
    }
    hints
}

/// The most specific thing to say about a failed call.
fn aws_hint(error: &AwsError, surroundings: &Surroundings) -> Option<String> {
    let message = error.message.to_lowercase();
    let has = |fragment: &str| message.contains(fragment);
    let denied = error.is(ACCESS_DENIED) || has("is not authorized to perform");
    let no_credentials = error.code.is_none() && has("credential");
    // The SDK never asks for a code.
    if surroundings.profile_has("mfa_serial") && (no_credentials || denied && has("sts:assumerole"))
    {
        return Some(format!(
            "the profile {} asks for an MFA code (mfa_serial), which wekactl does not: get credentials with 'aws configure export-credentials --profile {0} --format env' first",
            surroundings.profile_or_default()
        ));
    }
    if has("sso token")
        || has("sso session")
        || no_credentials && !denied && surroundings.profile_has("sso_")
    {
        return Some(format!("run '{}'", surroundings.login()));
    }
    if error.is(EXPIRED) || has("security token") && has("expired") {
        return Some(format!(
            "the credentials have expired: get new ones ('{}' where they come from IAM Identity Center)",
            surroundings.login()
        ));
    }
    if denied {
        return Some(permission_hint(&error.message));
    }
    if no_credentials && has("profile") && has("was not defined") {
        return Some(surroundings.profiles());
    }
    if no_credentials && (has("no credentials found") || has("imds")) {
        return Some(
            "no AWS credentials were found: give --profile, set AWS_PROFILE, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run 'aws configure'".into(),
        );
    }
    if no_credentials {
        return Some(format!(
            "check the profile {} in AWS's configuration file",
            surroundings.profile_or_default()
        ));
    }
    if error.is(CLOCK) || has("signature expired") || has("signature not yet current") {
        return Some("check the secret access key, and that this machine's clock is right".into());
    }
    if error.is(REFUSED_CREDENTIALS) {
        return Some(format!(
            "AWS does not take these credentials{}: check the access key, and that the region is enabled for the account",
            in_region(surroundings)
        ));
    }
    if error.code.is_none() {
        return Some(match &surroundings.endpoint {
            Some(endpoint) => format!(
                "AWS_ENDPOINT_URL sends the calls to {endpoint}: check that something answers there"
            ),
            None => format!(
                "check the network{} and the name of the region",
                surroundings
                    .region
                    .as_ref()
                    .map_or_else(String::new, |region| format!(
                        ", the way to AWS in {region},"
                    ))
            ),
        });
    }
    if is_quota(error) {
        return Some(format!(
            "a quota of the account is reached{}: remove what is not needed, or ask for more in the Service Quotas console",
            in_region(surroundings)
        ));
    }
    None
}

fn in_region(surroundings: &Surroundings) -> String {
    surroundings
        .region
        .as_ref()
        .map_or_else(String::new, |region| format!(" in {region}"))
}

fn is_quota(error: &AwsError) -> bool {
    error.code.as_deref().is_some_and(|code| {
        // RequestLimitExceeded is throttling.
        (code.contains("LimitExceeded") && !code.contains("Request"))
            || code.starts_with("TooMany") && code != "TooManyRequestsException"
            || matches!(
                code,
                "CodeStorageExceededException"
                    | "ServiceQuotaExceededException"
                    | "LimitExceeded"
                    | "AddressLimitExceeded"
            )
    })
}

/// Names the action that AWS's message names, and says where adding it would not help.
fn permission_hint(message: &str) -> String {
    let denied_by = [
        ("service control policy", "a service control policy"),
        ("resource control policy", "a resource control policy"),
        ("permissions boundary", "a permissions boundary"),
        ("session policy", "a session policy"),
        ("explicit deny", "an explicit deny"),
    ]
    .into_iter()
    .find(|(fragment, _)| message.contains(fragment))
    .map(|(_, policy)| format!(" ({policy} forbids it)"))
    .unwrap_or_default();
    match action(message) {
        Some(action) => format!("the credentials need the permission {action}{denied_by}"),
        None => format!(
            "the credentials lack a permission{denied_by}: the README lists all that are needed"
        ),
    }
}

/// `iam:PassRole` from "… is not authorized to perform: iam:PassRole on resource: …".
fn action(message: &str) -> Option<&str> {
    let fits = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|each| each.is_ascii_alphanumeric() || each == '-' || each == '*')
    };
    message
        .split("not authorized to perform")
        .skip(1)
        .find_map(|rest| {
            let word = rest
                .trim_start_matches(':')
                .split_whitespace()
                .next()?
                .trim_end_matches(['.', ',', ';']);
            let (service, name) = word.split_once(':')?;
            (fits(service) && fits(name)).then_some(word)
        })
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;
    use crate::aws::error::Effect;

    fn aws(code: Option<&str>, message: &str) -> AwsError {
        AwsError {
            code: code.map(ToOwned::to_owned),
            message: message.into(),
            request_id: None,
            effect: Effect::None,
        }
    }

    fn hints(error: impl Into<anyhow::Error>, surroundings: &Surroundings) -> String {
        let error = error.into();
        flatten(&error)
            .iter()
            .flat_map(|failure| hints_for(failure, surroundings))
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn surroundings() -> Surroundings {
        Surroundings {
            command: "wekactl cluster import",
            profile: Some("work".into()),
            region: Some("eu-west-1".into()),
            endpoint: None,
            config: "[default]\nmfa_serial = arn:x\n[profile work]\nregion = eu-west-1\n# mfa_serial\n[profile mfa]\n mfa_serial=arn:y\n".into(),
        }
    }

    #[test]
    fn each_failure_of_a_call_has_its_hint() {
        for (code, message, hint) in [
            (
                Some("AccessDenied"),
                "User: arn:aws:iam::1:user/x is not authorized to perform: iam:PassRole on resource: arn:aws:iam::1:role/y because no identity-based policy allows the iam:PassRole action",
                "the credentials need the permission iam:PassRole",
            ),
            (
                Some("AccessDeniedException"),
                "User: x is not authorized to perform: apigateway:POST on resource: y with an explicit deny in a service control policy",
                "the credentials need the permission apigateway:POST (a service control policy forbids it)",
            ),
            (
                Some("UnauthorizedOperation"),
                "You are not authorized to perform this operation.",
                "the README lists all",
            ),
            (
                Some("UnauthorizedOperation"),
                "You are not authorized to perform this operation. User: x is not authorized to perform: ec2:CreateTags on y. Encoded authorization failure message: abc",
                "the credentials",
            ),
            (
                Some("ExpiredToken"),
                "The security token included in the request is expired",
                "aws sso login --profile work",
            ),
            (
                None,
                "dispatch failure: other: the SSO token has expired and cannot be refreshed",
                "run 'aws sso login --profile work'",
            ),
            (
                Some("AccessDenied"),
                "User: arn:aws:sts::1:assumed-role/AWSReservedSSO_Admin/x is not authorized to perform: iam:GetRole because no session policy allows it",
                "the permission iam:GetRole (a session policy forbids it)",
            ),
            (
                None,
                "no credentials found",
                "no AWS credentials were found",
            ),
            (
                None,
                "no credentials found: profile `x` was not defined",
                "the profiles in AWS's configuration file are: default, work, mfa",
            ),
            (
                None,
                "dispatch failure: io error: client error (Connect): dns error",
                "the way to AWS in eu-west-1",
            ),
            (
                Some("InvalidClientTokenId"),
                "The security token included in the request is invalid.",
                "does not take these credentials in eu-west-1",
            ),
            (
                Some("SignatureDoesNotMatch"),
                "Signature expired: 2024 is now earlier than 2025",
                "clock",
            ),
            (
                Some("VpcLimitExceeded"),
                "The maximum number has been reached.",
                "Service Quotas",
            ),
            (
                Some("TooManyLoadBalancers"),
                "The limit is reached.",
                "Service Quotas",
            ),
        ] {
            let found = hints(aws(code, message), &surroundings());
            assert!(found.contains(hint), "{message}: {found}");
        }
        for (code, message) in [
            ("ValidationError", "bad"),
            ("RequestLimitExceeded", "slower"),
            ("TooManyRequestsException", "slower"),
        ] {
            assert_eq!(hints(aws(Some(code), message), &surroundings()), "");
        }
    }

    #[test]
    fn an_action_is_found_behind_words_that_name_none() {
        let message = "You are not authorized to perform this operation. User: x is not authorized to perform: ec2:CreateTags on resource: y";
        assert_eq!(
            permission_hint(message),
            "the credentials need the permission ec2:CreateTags"
        );
    }

    #[test]
    fn another_endpoint_is_named() {
        let local = Surroundings {
            endpoint: Some("http://127.0.0.1:1".into()),
            ..surroundings()
        };
        let found = hints(aws(None, "dispatch failure: io error"), &local);
        assert!(
            found.contains("AWS_ENDPOINT_URL sends the calls to http://127.0.0.1:1"),
            "{found}"
        );
    }

    #[test]
    fn a_profile_with_mfa() {
        for (profile, expected) in [
            (Some("mfa"), true),
            (None, true),
            (Some("work"), false),
            (Some("absent"), false),
        ] {
            let here = Surroundings {
                profile: profile.map(ToOwned::to_owned),
                ..surroundings()
            };
            let error = aws(
                Some("AccessDenied"),
                "User: x is not authorized to perform: sts:AssumeRole on resource: y",
            );
            assert_eq!(
                hints(error, &here).contains("MFA code"),
                expected,
                "{profile:?}"
            );
        }
    }

    #[test]
    fn failures_are_flat_and_keep_what_stood_before_them() {
        let failures = Failures(vec![
            anyhow::anyhow!("no").context("creating A"),
            anyhow::Error::from(Failures(vec![
                anyhow::Error::from(aws(Some("X"), "refused")).context("creating B"),
                Interrupted.into(),
            ])),
        ]);
        let error = Err::<(), _>(anyhow::Error::from(failures))
            .context("importing prod")
            .unwrap_err();
        let flat = flatten(&error);
        let texts: Vec<&str> = flat.iter().map(|failure| failure.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "importing prod: creating A: no",
                "importing prod: creating B: refused (X)",
                "importing prod: interrupted"
            ]
        );
        assert!(flat[1].is::<AwsError>() && !flat[0].is::<AwsError>());
        assert!(flat[2].is::<Interrupted>());
    }

    #[test]
    fn a_usage_error_points_to_the_help() {
        let error = anyhow::Error::from(UsageError("no".into())).context("importing");
        assert_eq!(
            hints(error, &surroundings()),
            "try 'wekactl cluster import --help'"
        );
        for says_it_itself in [
            UsageError("give --tags".into()).into(),
            anyhow::Error::from(NoRegion),
        ] {
            assert_eq!(hints(says_it_itself, &surroundings()), "");
        }
    }

    #[test]
    fn every_failure_ends_with_a_code_that_is_not_0() {
        let code = |error: anyhow::Error| explain(&error, &surroundings()).1;
        for code in [exit::FAILED, exit::USAGE, exit::INTERRUPTED] {
            assert_ne!(code, 0);
        }
        assert_eq!(code(anyhow::anyhow!("x")), exit::FAILED);
        assert_eq!(code(UsageError("x".into()).into()), exit::USAGE);
        assert_eq!(code(NoRegion.into()), exit::USAGE);
        let no_profile = NoProfile {
            name: "x".into(),
            known: Vec::new(),
        };
        assert_eq!(code(no_profile.into()), exit::USAGE);
        assert_eq!(code(Interrupted.into()), exit::INTERRUPTED);
        assert_eq!(code(NothingChanged.into()), exit::INTERRUPTED);
    }

    #[test]
    fn an_interrupt_beside_failures_is_said_once_and_hints_are_not_repeated() {
        let denied = "User: x is not authorized to perform: iam:CreateRole on resource: y";
        let refused = || anyhow::Error::from(aws(Some("AccessDenied"), denied));
        let error = Failures(vec![
            refused().context("creating A"),
            Interrupted.into(),
            refused().context("creating B"),
            Interrupted.into(),
        ]);
        let (lines, code) = explain(&error.into(), &surroundings());
        let text: Vec<String> = lines
            .iter()
            .map(|(tone, line)| format!("{tone:?} {line}"))
            .collect();
        assert_eq!(
            text,
            [
                &format!("Error creating A: {denied} (AccessDenied)"),
                &format!("Error creating B: {denied} (AccessDenied)"),
                "Error interrupted",
                "Hint the credentials need the permission iam:CreateRole",
                "Hint run the same command again to go on",
            ]
        );
        assert_eq!(code, exit::INTERRUPTED);
    }
}
