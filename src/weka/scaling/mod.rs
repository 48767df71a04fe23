//! How the cluster follows its Auto Scaling group without losing data.
//!
//! Pure functions over plain values: [`decide`] says what is to be done and why, [`confirm`] what may be terminated
//! after it was done, and [`authorise`] what AWS is asked for. Nothing here does I/O or reads a clock, so that an
//! observation can be saved, replayed and argued about.
//!
//! # The rules
//!
//! An admin sees these names in the verdicts, in the errors of a run, and in `debug scale-plan`.
//!
//! | rule | what it says |
//! |---|---|
//! | S1 | A container and an instance belong together if the container names the instance; if it names none, by the instance's address. The same address with another instance is a leftover. A machine with more than three backend containers or more than one machine identifier, or a container without a mode, closes the gate. |
//! | S2 | It is the cluster that it was before, and all of it was read: another guid, empty lists, lists shorter than the cluster's own count, an upgrade, or IO that is not started close the gate. |
//! | S3 | One run at a time: a lease, deadlines, and no call sent twice. |
//! | S4 | Nothing is inferred from absence alone. An instance that Weka does not know is terminated only if it is older than the grace period, was a backend once or was launched by this group, enough others are known, and a second read agrees; at most two a run. |
//! | S5 | Only what is empty is removed and terminated: all containers inactive, all drives inactive, none younger than ten minutes. |
//! | S6 | A target below the floor max(5, data + protection + hot spare) closes the gate, unless the group is as small already. |
//! | S7 | A healthy machine is drained for size only if all data is protected, all that stay are up and enough of them, what is stored fits, and only a few drain at once. The target is the higher of this run's and the previous one's. |
//! | S8 | Unhealthy machines and leftovers that are down share an allowance of two at once, those that are down first; one that is up only if all data is protected and a stripe's width of others is up. |
//! | S9 | One call for the drives of a machine; if it is refused the machine is left alone, and nothing more is drained for size. A draining machine gets only the calls that are missing. A higher target never reverses a drain. |
//! | S10 | Time is counted on the cluster's clock, from the latest thing known. A clock that is off by more than a minute closes the gate. |
//! | S11 | Instances on their way in or out of the group, or in standby, are left alone and not counted. |
//! | S12 | A word of Weka's that is new to us counts as healthy, and nothing is drained for size meanwhile. |
//! | S13 | What is not to go is protected again in every run. |
//! | S14 | Only what is terminated or unknown to EC2 is detached; what is stopped is terminated first, and only if Weka has released it; what runs never. |
//! | S15 | Before the end everything is checked again: id, address, launch time, membership; at most fifty. |
//! | S16 | What is secret, and what orders a termination, travels sealed. |
//! | S17 | Refused credentials are not tried again until they change or fifteen minutes have passed. |
//! | S18 | Several backends are asked at once, none for long. |
//! | S19 | The second read has a veto: on one instance if it shows life, on all if it fails. |
//! | S20 | With gateways, a target of 0 for a group that has instances closes the gate. |
//!
//! # Gateways
//!
//! Machines that serve NFS have a group of their own and no drives, so that S6 and what S7 and S8 say of data do not
//! concern them. What leaves of them loses its port in the interface group first. What they may do at once is counted
//! apart from the backends: with gateways, no more is done about a backend than without.

mod authorise;
mod class;
mod confirm;
mod decide;
mod decision;
mod gate;
mod machines;
mod observation;
mod script;
#[cfg(test)]
mod tests;
mod upstream;

pub use authorise::{AwsCalls, Order, authorise};
pub use confirm::{Confirmed, Outcome, Reread, confirm};
pub use decide::{active_members, decide};
pub use decision::{
    Action, Call, CallKind, Class, Decision, Finding, Gate, Kill, Purpose, Reason, Rule, Verdict,
};
pub use gate::is_whole;
pub use observation::{
    Ec2State, Gateways, Group, Instance, Observation, ReadError, RuleSet, Settings,
};
