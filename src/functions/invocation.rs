//! What the functions' own code works with.

use jiff::Timestamp;

use super::seal::SealKeys;
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
