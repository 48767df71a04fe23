//! The local AWS answers like AWS where it matters here. When moto is upgraded, this says which of the
//! patches are no longer needed, and which no longer work.

use crate::support::{Run, launcher, target_dir};

#[test]
fn every_patch_of_moto_is_needed_and_works() {
    let output = std::process::Command::new(launcher())
        .arg("selftest")
        .env("CARGO_TARGET_DIR", target_dir())
        .output()
        .expect("the launcher runs");
    let run = Run::of(&output).ok();
    assert!(run.stderr.contains("OK"), "{}", run.stderr);
}
