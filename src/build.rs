//! Tells the program which commit it is built from, where that can be known: `WEKACTL_COMMIT`, else the clone's.

use std::path::Path;
use std::process::Command;

const VARIABLE: &str = "WEKACTL_COMMIT";

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    if std::env::var_os(VARIABLE).is_some_and(|commit| !commit.is_empty()) {
        return;
    }
    // Sources without git, or inside of somebody else's clone, have no commit.
    let Some(top) = git(&["rev-parse", "--show-toplevel"]) else {
        return;
    };
    let same = |path: &str| Path::new(path).canonicalize().ok();
    if same(&top) != same(env!("CARGO_MANIFEST_DIR")) {
        return;
    }
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return;
    };
    println!("cargo::rustc-env={VARIABLE}={commit}");
    // What a commit and a checkout write. A file that is not there would mean a build every time.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    let files = ["HEAD", "logs/HEAD", "packed-refs"].map(ToOwned::to_owned);
    for file in files.into_iter().chain(branch) {
        if let Some(path) = git(&["rev-parse", "--git-path", &file])
            && Path::new(&path).exists()
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// What git says, in one line; `None` where there is no git, or nothing to say.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !line.is_empty()).then_some(line)
}
