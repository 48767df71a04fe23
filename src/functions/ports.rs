//! What the functions need of the world, as their own code sees it: AWS and the time. Weka's side is
//! [`Transport`](crate::weka::client::Transport).

use jiff::Timestamp;

use super::lease::{Hold, Learned, Lease};
use crate::cluster::settings::Credentials;
use crate::cluster::spec::Cores;
use crate::weka::scaling::Group;

/// The time.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// A call to AWS that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct CloudError {
    /// What was tried and AWS's words, without secrets.
    pub text: String,
    /// Whether AWS has answered that it will not: nothing was changed. Otherwise something may have been.
    pub refused: bool,
}

/// A machine that others may join through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Its address.
    pub private_ip: String,
    /// When it was launched.
    pub launched: Option<Timestamp>,
}

/// The AWS of one cluster. The methods are single calls, or batches of the same; the rules are the functions'.
pub trait Cloud: Send + Sync {
    /// The Auto Scaling group, with what EC2 says of its members. They are described by filter: one unknown id fails
    /// a call that names ids (S14 of the scaling rules).
    ///
    /// # Errors
    /// AWS's failures; no such group.
    fn group(&self) -> impl Future<Output = Result<Group, CloudError>> + Send;

    /// The stored credentials, read consistently; `None`: there are none.
    ///
    /// # Errors
    /// AWS's failures.
    fn credentials(&self) -> impl Future<Output = Result<Option<Credentials>, CloudError>> + Send;

    /// Takes the lease for an execution, until `expires`; `None`: another has it. It is free if there was never one,
    /// if it has expired at `now`, and for the execution that has it.
    ///
    /// # Errors
    /// AWS's failures.
    fn take_lease(
        &self,
        hold: &Hold,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<Lease>, CloudError>> + Send;

    /// Writes what was learned into the lease, if it is held still; `false`: it is not.
    ///
    /// # Errors
    /// AWS's failures.
    fn write_lease(
        &self,
        hold: &Hold,
        learned: &Learned,
    ) -> impl Future<Output = Result<bool, CloudError>> + Send;

    /// Lets the lease expire now, if it is held still.
    ///
    /// # Errors
    /// AWS's failures.
    fn release_lease(&self, hold: &Hold) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Protects at most fifty members from scale-in, or ends that.
    ///
    /// # Errors
    /// AWS's failures; one member in another state than in service or standby fails all.
    fn set_scale_in_protection(
        &self,
        ids: &[String],
        is_protected: bool,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Whether an instance is protected from termination through the API.
    ///
    /// # Errors
    /// AWS's failures.
    fn termination_protection(
        &self,
        id: &str,
    ) -> impl Future<Output = Result<bool, CloudError>> + Send;

    /// Protects an instance from termination through the API, or ends that.
    ///
    /// # Errors
    /// AWS's failures.
    fn set_termination_protection(
        &self,
        id: &str,
        is_protected: bool,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Orders the termination of instances.
    ///
    /// # Errors
    /// AWS's failures; a refusal of one fails all.
    fn terminate(&self, ids: &[String]) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Takes at most twenty members out of the group, which launches others in their place.
    ///
    /// # Errors
    /// AWS's failures; a refusal of one fails all.
    fn detach(&self, ids: &[String]) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Marks instances as backends that were active once.
    ///
    /// # Errors
    /// AWS's failures.
    fn mark_joined(&self, ids: &[String]) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// The cluster's instances that run, by their tags.
    ///
    /// # Errors
    /// AWS's failures.
    fn running_backends(&self) -> impl Future<Output = Result<Vec<Backend>, CloudError>> + Send;

    /// What Weka gets of each backend, as stored; `None`: the stored settings do not say.
    ///
    /// # Errors
    /// AWS's failures.
    fn cores(&self) -> impl Future<Output = Result<Option<Cores>, CloudError>> + Send;
}
