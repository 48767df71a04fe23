//! The cluster follows its group: the real executable in the local AWS, with machines that really boot and a Weka that
//! is really asked. Minutes are ticks, and time moves when it is told to.

mod deaths;
mod gates;
mod health;
mod joins;
mod plan;
mod roles;
mod runs;
mod secrets;
mod size;
