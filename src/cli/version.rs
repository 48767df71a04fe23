//! `version`.

use std::env::consts::{ARCH, OS};

use anyhow::Result;
use serde_json::json;

use super::Context;
use crate::cluster::names::VERSION;

/// The commit it was built from, where the build says so.
const COMMIT: Option<&str> = option_env!("WEKACTL_COMMIT");

pub(super) fn run(context: &Context) -> Result<()> {
    let target = target();
    if context.screen.is_json() {
        context.screen.json(&json!({
            "version": VERSION,
            "commit": COMMIT,
            "target": target,
        }))?;
    } else {
        let commit = COMMIT.unwrap_or("unknown");
        context
            .screen
            .data(&format!("wekactl {VERSION} (commit {commit}, {target})\n"))?;
    }
    Ok(())
}

/// "x86_64-linux-gnu".
fn target() -> String {
    let library = if cfg!(target_env = "gnu") {
        "-gnu"
    } else if cfg!(target_env = "musl") {
        "-musl"
    } else {
        ""
    };
    format!("{ARCH}-{OS}{library}")
}
