//! Weka: its management API, and the decision what to do about it.

pub mod client;
pub mod http;
pub mod ids;
pub mod scaling;
pub mod types;
