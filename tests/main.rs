//! What a user relies on, one file a promise.

mod adoption;
mod again;
mod any_json;
mod as_before;
mod bad_input;
mod complete;
mod convergence;
mod credentials;
mod documents;
mod faults;
mod functions;
mod histories;
mod interrupt;
mod large;
mod lists;
mod local_aws;
mod names;
mod order;
mod output;
mod permissions;
mod release;
mod scaling;
mod secrets;
mod support;
mod update;
