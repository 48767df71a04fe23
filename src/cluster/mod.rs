//! What a managed cluster is, how one is made of a stack, and how it is taken down again.

mod apply;
pub mod before;
pub mod code;
pub mod credentials;
pub mod destroy;
pub mod discovery;
mod go_roles;
pub mod import;
pub mod instance_types;
pub mod inventory;
pub mod names;
pub mod network;
pub mod overview;
pub mod policies;
pub mod request;
mod rivals;
pub mod seal_keys;
pub mod settings;
pub mod spec;
pub mod stack;
mod steps;
pub mod update;

/// What was asked for can not be, whatever AWS says: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);
