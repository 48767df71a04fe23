//! What a user relies on, one file a promise.

mod support;
