//! A Weka cluster: one model, driven in memory by the property tests, and served as Weka's management API on each
//! instance's loopback address for the tests with the real executable.
//!
//! It knows the truth that no reply shows: which blocks of which stripe are on which drive. What a tool does to the
//! cluster is judged by that, not by what the tool could read. Draining is not out: blocks on a drive that phases out
//! can be read until the last one has moved, and they move at a finite rate.

mod cli;
mod data;
mod events;
mod http;
mod model;
mod rpc;
#[cfg(test)]
mod served_tests;
mod server;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use model::{
    Behaviour, DownContainers, DriveStatus, JoinStep, Layout, Machine, Power, Shape, State, Weka,
};
pub(crate) use rpc::{Action, CallOutcome, Exchange, Fault, METHOD_NOT_FOUND};
pub(crate) use server::{Server, Transport};
