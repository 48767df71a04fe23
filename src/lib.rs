//! Turns a Weka `CloudFormation` stack into a managed cluster, and is the functions that manage it.
//!
//! `ARCHITECTURE.md` is the map of this house.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test that panics has failed")
)]

pub mod aws;
pub mod bootstrap;
pub mod cli;
pub mod cluster;
pub mod functions;
pub mod resource;
pub mod resources;
pub mod run;
pub mod weka;
