//! Turns a Weka `CloudFormation` stack into a managed cluster, and is the functions that manage it.
//!
//! `ARCHITECTURE.md` is the map of this house.

pub mod aws;
pub mod bootstrap;
pub mod cli;
pub mod cluster;
pub mod functions;
pub mod resource;
pub mod resources;
pub mod run;
