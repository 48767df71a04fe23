//! What the functions' own code works with.

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ports::Clock;
use super::seal::{Direction, Parties, SealError, SealKeys, Sealed};
use crate::weka::scaling::Settings;

/// What a function of a run knows of its cluster.
pub struct Setup {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the Auto Scaling group.
    pub group: String,
    /// What is sealed and opened with.
    pub keys: SealKeys,
    /// Whether scale reads the credentials itself.
    pub use_dynamodb_endpoint: bool,
    /// The numbers in the rules.
    pub settings: Settings,
}

/// One invocation of a function.
pub struct Invocation<'a, C, K> {
    /// Where it is.
    pub setup: &'a Setup,
    /// Its AWS.
    pub cloud: &'a C,
    /// Its time.
    pub clock: &'a K,
    /// When it is ended, whatever it does then.
    pub deadline: Timestamp,
}

impl<C, K: Clock> Invocation<'_, C, K> {
    /// Seals a value for the next function of the same execution (S16 of the scaling rules).
    ///
    /// # Errors
    /// A value that is no JSON.
    pub(super) fn seal(
        &self,
        direction: Direction,
        execution: &str,
        value: &impl Serialize,
    ) -> anyhow::Result<Sealed> {
        let parties = self.parties(direction, execution);
        self.setup.keys.seal(parties, self.clock.now(), value)
    }

    /// Opens what the function before has sealed in the same execution.
    ///
    /// # Errors
    /// Every [`SealError`].
    pub(super) fn open<T: DeserializeOwned>(
        &self,
        direction: Direction,
        execution: &str,
        sealed: &Sealed,
    ) -> Result<T, SealError> {
        let parties = self.parties(direction, execution);
        self.setup.keys.open(parties, self.clock.now(), sealed)
    }

    fn parties<'a>(&'a self, direction: Direction, execution: &'a str) -> Parties<'a> {
        Parties {
            cluster: &self.setup.cluster,
            execution,
            direction,
        }
    }
}
