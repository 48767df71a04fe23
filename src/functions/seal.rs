//! What is secret, and what orders a termination, travels sealed from one function to the next: whoever reads the
//! runs' history can neither read nor replay it. S16 of the scaling rules.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use jiff::{SignedDuration, Timestamp};
use rand::RngCore as _;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What was sealed longer ago is refused. S16 of the scaling rules.
const MAX_AGE: SignedDuration = SignedDuration::from_secs(60);
/// Bytes of a nonce: long enough to be drawn at random for as long as a key lives.
const NONCE: usize = 24;
/// Bytes of a key.
const KEY: usize = 32;

/// The keys that a function knows. They can not be printed.
pub struct SealKeys {
    /// The first one seals, all open: so keys are replaced one function after the other.
    keys: Vec<(String, XChaCha20Poly1305)>,
}

/// A variable that holds no keys. It does not say what it holds.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("it is no list of keys: <id>:<base64 of {KEY} bytes>, separated by commas")]
pub struct BadKeys;

/// Which way a sealed text goes; it opens no other way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Credentials.
    FetchToScale,
    /// What is to be terminated.
    ScaleToTerminate,
    /// A question, and as whom it is asked.
    AskerToScale,
}

/// Whose text it is: it opens for nobody else.
#[derive(Debug, Clone, Copy)]
pub struct Parties<'a> {
    /// Name of the cluster.
    pub cluster: &'a str,
    /// ARN of the execution.
    pub execution: &'a str,
    /// From whom to whom.
    pub direction: Direction,
}

/// A sealed text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Sealed {
    key: String,
    nonce: String,
    time: Timestamp,
    text: String,
}

/// Why a text was not opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SealError {
    /// This function does not have the key.
    #[error("it is sealed with key {0:?}, which is not known here")]
    UnknownKey(String),
    /// Too much time has passed, or the clocks differ too much.
    #[error("it was sealed at {0}, which is too far from now")]
    TooOld(Timestamp),
    /// Sealed for somebody else, with another key of the same id, or changed on the way.
    #[error("its seal is broken, or it is meant for another run")]
    Broken,
    /// What was sealed is something else than what was expected.
    #[error("what is sealed in it can not be read")]
    Unreadable,
}

impl SealKeys {
    /// Reads `<id>:<base64 of 32 bytes>`, or several with commas between them.
    ///
    /// # Errors
    /// [`BadKeys`].
    pub fn read(variable: &SecretString) -> Result<Self, BadKeys> {
        let keys = variable.expose_secret().split(',').map(|each| {
            let (id, key) = each.trim().split_once(':').ok_or(BadKeys)?;
            let key = Zeroizing::new(BASE64_STANDARD.decode(key).map_err(|_| BadKeys)?);
            let cipher = XChaCha20Poly1305::new_from_slice(&key).map_err(|_| BadKeys)?;
            Ok((id.to_owned(), cipher))
        });
        Ok(Self {
            keys: keys.collect::<Result<_, _>>()?,
        })
    }

    /// Seals a value for these parties.
    ///
    /// # Errors
    /// A value that is no JSON.
    pub fn seal(
        &self,
        parties: Parties<'_>,
        now: Timestamp,
        value: &impl Serialize,
    ) -> anyhow::Result<Sealed> {
        let text = Zeroizing::new(serde_json::to_vec(value)?);
        let (key, cipher) = self.keys.first().ok_or(BadKeys)?;
        let mut nonce = [0; NONCE];
        rand::rng().fill_bytes(&mut nonce);
        let payload = Payload {
            msg: &text,
            aad: &parties.associated_data(now),
        };
        let sealed = cipher
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| SealError::Broken)?;
        Ok(Sealed {
            key: key.clone(),
            nonce: BASE64_STANDARD.encode(nonce),
            time: now,
            text: BASE64_STANDARD.encode(sealed),
        })
    }

    /// Opens what was sealed for these parties.
    ///
    /// # Errors
    /// Every [`SealError`].
    pub fn open<T: DeserializeOwned>(
        &self,
        parties: Parties<'_>,
        now: Timestamp,
        sealed: &Sealed,
    ) -> Result<T, SealError> {
        let mut keys = self.keys.iter();
        let (_, cipher) = keys
            .find(|(id, _)| *id == sealed.key)
            .ok_or_else(|| SealError::UnknownKey(sealed.key.chars().take(KEY).collect()))?;
        if now.duration_since(sealed.time).abs() > MAX_AGE {
            return Err(SealError::TooOld(sealed.time));
        }
        let decode = |text: &str| BASE64_STANDARD.decode(text).map_err(|_| SealError::Broken);
        let nonce: [u8; NONCE] = decode(&sealed.nonce)?
            .try_into()
            .map_err(|_| SealError::Broken)?;
        let payload = Payload {
            msg: &decode(&sealed.text)?,
            aad: &parties.associated_data(sealed.time),
        };
        let text = cipher
            .decrypt(&XNonce::from(nonce), payload)
            .map_err(|_| SealError::Broken)?;
        // serde's own words may quote what was sealed.
        serde_json::from_slice(&Zeroizing::new(text)).map_err(|_| SealError::Unreadable)
    }
}

impl Parties<'_> {
    /// Each part with its length before it: no two sets of parts are the same text.
    fn associated_data(&self, time: Timestamp) -> Vec<u8> {
        let direction = match self.direction {
            Direction::FetchToScale => "fetch to scale",
            Direction::ScaleToTerminate => "scale to terminate",
            Direction::AskerToScale => "asker to scale",
        };
        let time = time.to_string();
        [self.cluster, self.execution, direction, &time]
            .into_iter()
            .flat_map(|part| [&part.len().to_be_bytes(), part.as_bytes()].concat())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "one:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const TWO: &str = "two:HwECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const PARTIES: Parties<'static> = Parties {
        cluster: "prod",
        execution: "arn:run",
        direction: Direction::FetchToScale,
    };

    fn keys(text: &str) -> SealKeys {
        SealKeys::read(&text.into()).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn sealed() -> Sealed {
        keys(ONE).seal(PARTIES, at(1000), &"hidden").unwrap()
    }

    fn open(
        with: &str,
        parties: Parties<'_>,
        now: i64,
        sealed: &Sealed,
    ) -> Result<String, SealError> {
        keys(with).open(parties, at(now), sealed)
    }

    #[test]
    fn it_opens_for_whom_it_was_sealed_and_shows_nothing() {
        let sealed = sealed();
        assert_eq!(open(ONE, PARTIES, 1060, &sealed), Ok("hidden".into()));
        let text = serde_json::to_string(&sealed).unwrap();
        assert!(!text.contains("hidden") && !text.contains(&BASE64_STANDARD.encode("hidden")));
        let read: Sealed = serde_json::from_str(&text).unwrap();
        assert_eq!(open(ONE, PARTIES, 1000, &read), Ok("hidden".into()));
    }

    #[test]
    fn another_run_cluster_or_direction_does_not_open_it() {
        for parties in [
            Parties {
                execution: "arn:other",
                ..PARTIES
            },
            Parties {
                cluster: "test",
                ..PARTIES
            },
            Parties {
                cluster: "proda",
                execution: "rn:run",
                ..PARTIES
            },
            Parties {
                direction: Direction::ScaleToTerminate,
                ..PARTIES
            },
        ] {
            assert_eq!(open(ONE, parties, 1000, &sealed()), Err(SealError::Broken));
        }
    }

    #[test]
    fn an_old_one_is_refused_and_can_not_be_made_younger() {
        let mut sealed = sealed();
        for now in [1061, 939] {
            let refused = open(ONE, PARTIES, now, &sealed);
            assert_eq!(refused, Err(SealError::TooOld(at(1000))));
        }
        sealed.time = at(2000);
        assert_eq!(open(ONE, PARTIES, 2000, &sealed), Err(SealError::Broken));
    }

    #[test]
    fn keys_are_replaced_one_function_after_the_other() {
        let old = sealed();
        let both = format!("{TWO},{ONE}");
        assert_eq!(open(&both, PARTIES, 1000, &old), Ok("hidden".into()));
        let new = keys(&both).seal(PARTIES, at(1000), &"hidden").unwrap();
        assert_eq!(open(TWO, PARTIES, 1000, &new), Ok("hidden".into()));
        assert_eq!(
            open(TWO, PARTIES, 1000, &old),
            Err(SealError::UnknownKey("one".into()))
        );
        let same_id = TWO.replace("two", "one");
        assert_eq!(open(&same_id, PARTIES, 1000, &old), Err(SealError::Broken));
    }

    #[test]
    fn what_was_changed_is_refused() {
        for change in [
            |sealed: &mut Sealed| sealed.text = BASE64_STANDARD.encode("something else, and long"),
            |sealed: &mut Sealed| sealed.text.clear(),
            |sealed: &mut Sealed| sealed.nonce = BASE64_STANDARD.encode([1; NONCE]),
            |sealed: &mut Sealed| sealed.nonce = "AA==".into(),
            |sealed: &mut Sealed| sealed.nonce = "?".into(),
        ] {
            let mut sealed = sealed();
            change(&mut sealed);
            assert_eq!(open(ONE, PARTIES, 1000, &sealed), Err(SealError::Broken));
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_told() {
        for text in ["", "one", "one:", "one:AAEC", "one:?", &format!("{ONE},")] {
            let error = SealKeys::read(&text.into()).err();
            assert_eq!(error, Some(BadKeys), "{text}");
        }
    }
}
