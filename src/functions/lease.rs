//! The lease: one run at a time, and what one run remembers for the next. S3 of the scaling rules.

use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::cluster::settings::Credentials;

/// How long a run has the lease: longer than a run may take, and shorter than two. S3 of the scaling rules.
const LIFE: SignedDuration = SignedDuration::from_secs(75);
/// Nothing that changes something begins with less than this left of the lease. S3 of the scaling rules.
const LEASE_MARGIN: SignedDuration = SignedDuration::from_secs(12);
/// The same of the function's own time. S3 of the scaling rules.
const DEADLINE_MARGIN: SignedDuration = SignedDuration::from_secs(2);
/// How long refused credentials are left alone: Weka locks a user after five failures. S17 of the scaling rules.
const LOGIN_PAUSE: SignedDuration = SignedDuration::from_mins(15);

/// Who has the lease, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// ARN of the execution.
    pub execution: String,
    /// In whole seconds, as it is stored.
    pub expires: Timestamp,
}

impl Hold {
    /// What an execution takes at `now`.
    pub(super) fn from(execution: &str, now: Timestamp) -> Self {
        // The fraction is dropped, so that what is stored is what is held.
        let expires = Timestamp::from_second((now + LIFE).as_second());
        Self {
            execution: execution.to_owned(),
            expires: expires.unwrap_or(now),
        }
    }

    /// When the last change may begin, in a function that is ended at `deadline`.
    pub(super) fn last_start(&self, deadline: Timestamp) -> Timestamp {
        // What another function hands over may be any time there is, the first one too.
        let of_lease = self.expires.checked_sub(LEASE_MARGIN);
        of_lease
            .unwrap_or(Timestamp::MIN)
            .min(deadline - DEADLINE_MARGIN)
    }
}

/// What the runs before have left for this one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lease {
    /// The cluster this group has always been, if it was ever seen.
    pub guid: Option<String>,
    /// The target that the run before read.
    pub previous_desired: Option<u32>,
    /// The latest login that Weka has refused.
    pub refused_login: Option<RefusedLogin>,
}

/// What a run leaves for the next one. What is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    /// Which cluster this is. Never overwrites one that is known.
    pub guid: Option<String>,
    /// The target that this run read.
    pub previous_desired: Option<u32>,
    /// A login that Weka has refused.
    pub refused_login: Option<RefusedLogin>,
}

/// A login that Weka has refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedLogin {
    /// When.
    pub time: Timestamp,
    /// The credentials' [`fingerprint`].
    pub fingerprint: String,
}

impl RefusedLogin {
    /// Whether these credentials would be refused again, for all we know.
    pub(super) fn speaks_against(&self, credentials: &Credentials, now: Timestamp) -> bool {
        now.duration_since(self.time) < LOGIN_PAUSE && self.fingerprint == fingerprint(credentials)
    }
}

/// Whether both parts are there: Weka counts an empty one as a failure of the user.
pub(super) fn are_complete(credentials: &Credentials) -> bool {
    [&credentials.username, &credentials.password]
        .iter()
        .all(|part| !part.expose_secret().is_empty())
}

/// Tells whether credentials have changed. It is stored beside them, and travels sealed only.
pub(super) fn fingerprint(credentials: &Credentials) -> String {
    let mut hash = Sha256::new();
    for part in [&credentials.username, &credentials.password] {
        let part = part.expose_secret();
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_last_change_keeps_clear_of_lease_and_deadline() {
        let hold = Hold::from("run", at("2026-01-01T00:00:00.9Z"));
        assert_eq!(hold.expires, at("2026-01-01T00:01:15Z"));
        for (deadline, last) in [
            ("2026-01-01T00:00:30Z", "2026-01-01T00:00:28Z"),
            ("2026-01-01T00:02:00Z", "2026-01-01T00:01:03Z"),
        ] {
            assert_eq!(hold.last_start(at(deadline)), at(last));
        }
    }

    #[test]
    fn nothing_begins_in_a_lease_that_ends_before_all_time() {
        let hold = Hold {
            execution: "run".to_owned(),
            expires: Timestamp::MIN,
        };
        let deadline = at("2026-01-01T00:00:30Z");
        assert_eq!(hold.last_start(deadline), Timestamp::MIN);
    }

    #[test]
    fn refused_credentials_rest_until_they_change_or_a_quarter_of_an_hour_has_passed() {
        let of = |username: &str, password: &str| Credentials {
            username: username.into(),
            password: password.into(),
        };
        let refused = RefusedLogin {
            time: at("2026-01-01T00:00:00Z"),
            fingerprint: fingerprint(&of("admin", "one")),
        };
        let soon = at("2026-01-01T00:14:59Z");
        assert!(refused.speaks_against(&of("admin", "one"), soon));
        assert!(!refused.speaks_against(&of("admin", "two"), soon));
        assert!(!refused.speaks_against(&of("admino", "ne"), soon));
        assert!(!refused.speaks_against(&of("admin", "one"), at("2026-01-01T00:15:00Z")));
    }
}
