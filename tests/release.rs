//! A release: what its archives have in them, and that the workflow which makes it is what is tested here.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::{Run, executable};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The targets of a release, and what their archives are called after.
const TARGETS: [(&str, &str); 4] = [
    ("x86_64-unknown-linux-musl", "linux-x86_64"),
    ("aarch64-unknown-linux-musl", "linux-arm64"),
    ("x86_64-apple-darwin", "macos-x86_64"),
    ("aarch64-apple-darwin", "macos-arm64"),
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn script(name: &str, directory: &Path, arguments: &[&str]) -> Run {
    let output = Command::new(repository().join(".ci").join(name))
        .args(arguments)
        .current_dir(directory)
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .output();
    Run::of(&output.expect("the script runs"))
}

fn package(built: &Path, out: &Path) -> Run {
    let arguments = [built, out].map(|path| path.to_str().expect("text"));
    script("package", built, &arguments)
}

/// What a build of all targets leaves. Stand-ins: the one for this machine starts the executable under test, and the
/// others can not be started, as it is on the machine that packs.
fn built() -> tempfile::TempDir {
    let built = tempfile::tempdir().expect("a temporary directory");
    for (target, _) in TARGETS {
        let directory = built.path().join(target);
        std::fs::create_dir(&directory).expect("the directory is ours");
        let start = if target == format!("{ARCH}-unknown-linux-musl") {
            format!("exec {:?} \"$@\"", executable())
        } else {
            "exit 126".to_owned()
        };
        let text = format!("#!/bin/sh\n# {target} wekactl-code:{VERSION};\n{start}\n");
        std::fs::write(directory.join("wekactl"), text).expect("the directory is ours");
    }
    std::fs::write(built.path().join("wekactl.cdx.json"), "{}\n").expect("the directory is ours");
    built
}

/// The files of an unpacked archive, by their paths in its only directory.
fn unpacked(archive: &Path, name: &str) -> BTreeMap<String, PathBuf> {
    fn collect(directory: &Path, top: &Path, files: &mut BTreeMap<String, PathBuf>) {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                collect(&path, top, files);
            } else {
                let inside = path.strip_prefix(top).expect("it is inside");
                files.insert(inside.to_str().expect("text").to_owned(), path);
            }
        }
    }
    let directory = archive.with_extension("unpacked");
    std::fs::create_dir(&directory).expect("the directory is ours");
    let tar = Command::new("tar")
        .arg("-xzf")
        .arg(archive)
        .arg("-C")
        .arg(&directory)
        .output();
    Run::of(&tar.expect("tar runs")).ok();
    let tops: Vec<_> = std::fs::read_dir(&directory)
        .expect("a directory")
        .collect();
    assert_eq!(tops.len(), 1, "{tops:?}");
    let top = directory.join(name);
    let mut files = BTreeMap::new();
    collect(&top, &top, &mut files);
    files
}

#[test]
fn an_archive_has_the_executable_with_all_that_belongs_to_it_and_the_checksums_verify() {
    let built = built();
    let out = built.path().join("out");
    let text =
        |path: &Path| String::from_utf8_lossy(&std::fs::read(path).expect("a file")).into_owned();
    package(built.path(), &out).ok();

    let sums = text(&out.join("SHA256SUMS"));
    let summed: Vec<&str> = sums
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    let mut published: Vec<String> = TARGETS
        .iter()
        .map(|(_, platform)| format!("wekactl-{VERSION}-{platform}.tar.gz"))
        .collect();
    published.push(format!("wekactl-{VERSION}.cdx.json"));
    published.sort();
    assert_eq!(summed, published);
    let check = Command::new("sha256sum")
        .args(["--check", "--strict", "SHA256SUMS"])
        .current_dir(&out)
        .output();
    Run::of(&check.expect("sha256sum runs")).ok();

    for (target, platform) in TARGETS {
        let name = format!("wekactl-{VERSION}-{platform}");
        let files = unpacked(&out.join(format!("{name}.tar.gz")), &name);
        let same = |file: &str, target: &str| {
            let original = built.path().join(target).join("wekactl");
            let packed = &files[file];
            assert_eq!(text(packed), text(&original), "{name}: {file}");
            let mode = packed.metadata().expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o755, "{name}: {file}");
        };
        same("wekactl", target);
        let mut executables = vec!["wekactl"];
        if platform.starts_with("macos") {
            same("wekactl-lambda-x86_64", "x86_64-unknown-linux-musl");
            same("wekactl-lambda-arm64", "aarch64-unknown-linux-musl");
            executables.extend(["wekactl-lambda-arm64", "wekactl-lambda-x86_64"]);
        }
        let others: Vec<&str> = files
            .keys()
            .map(String::as_str)
            .filter(|file| !executables.contains(file))
            .collect();
        assert_eq!(
            others,
            [
                "CHANGELOG.md",
                "LICENSE",
                "README.md",
                "SECURITY.md",
                "completions/_wekactl",
                "completions/wekactl.bash",
                "completions/wekactl.fish",
                "man/man1/wekactl-cluster-change-credentials.1",
                "man/man1/wekactl-cluster-destroy.1",
                "man/man1/wekactl-cluster-import.1",
                "man/man1/wekactl-cluster-join-params.1",
                "man/man1/wekactl-cluster-list.1",
                "man/man1/wekactl-cluster-update.1",
                "man/man1/wekactl-cluster.1",
                "man/man1/wekactl-completion.1",
                "man/man1/wekactl-hostgroup-list.1",
                "man/man1/wekactl-hostgroup.1",
                "man/man1/wekactl-version.1",
                "man/man1/wekactl.1",
                "wekactl.cdx.json",
            ],
            "{name}"
        );
        for (file, path) in &files {
            if file.starts_with("man/") {
                let title = format!(".TH {}", file["man/man1/".len()..].trim_end_matches(".1"));
                assert!(text(path).contains(&title), "{name}: {file}");
            } else if file.starts_with("completions/") {
                assert!(text(path).contains("change-credentials"), "{name}: {file}");
            }
        }
    }

    let again = built.path().join("again");
    package(built.path(), &again).ok();
    assert_eq!(text(&again.join("SHA256SUMS")), sums, "the same archives");
}

#[test]
fn an_executable_of_another_version_is_not_packed() {
    let built = built();
    let foreign = built.path().join("aarch64-unknown-linux-musl/wekactl");
    std::fs::write(&foreign, "#!/bin/sh\n# wekactl-code:1.9.3;\n").expect("the directory is ours");
    let out = built.path().join("out");
    let words = ["aarch64-unknown-linux-musl/wekactl is no wekactl", VERSION];
    package(built.path(), &out).fails(1, &words);
    assert!(!out.join("SHA256SUMS").exists());
}

#[test]
fn a_release_is_what_tag_version_and_changelog_agree_on() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, text: &str| {
        std::fs::write(directory.path().join(name), text).expect("the directory is ours");
    };
    write(
        "Cargo.toml",
        "[package]\nversion = \"2.1.0\"\n[dependencies]\nx = { version = \"3\" }\n",
    );
    let changelog = "# Changelog\n\n## [Unreleased]\n\n## [2.1.0] - 2026-11-28\n\n### Added\n\n- This.\n\n\
                     ## [2.0.0] - 2026-10-01\n\n- That.\n\n[2.1.0]: https://example.com\n";
    write("CHANGELOG.md", changelog);
    let notes = |tag: &str| script("notes", directory.path(), &[tag]);
    assert_eq!(notes("v2.1.0").ok().stdout.trim(), "### Added\n\n- This.");
    for tag in ["v2.0.0", "2.1.0", "v2.1.0-rc.1"] {
        notes(tag).fails(1, &[tag, "its tag is v2.1.0"]);
    }
    write("CHANGELOG.md", "## [Unreleased]\n\n- This.\n");
    notes("v2.1.0").fails(1, &["CHANGELOG.md", "## [2.1.0] - <date>"]);
}

#[test]
fn the_changelog_has_the_form_that_the_notes_are_taken_from() {
    let text = std::fs::read_to_string(repository().join("CHANGELOG.md")).expect("a file");
    let kinds = [
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
    ];
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("### ") {
            assert!(kinds.contains(&kind), "{line}");
        } else if let Some(version) = line.strip_prefix("## ") {
            let released = version
                .strip_prefix('[')
                .and_then(|version| version.split_once("] - "))
                .is_some_and(|(number, date)| {
                    number.split('.').count() == 3 && date.parse::<jiff::civil::Date>().is_ok()
                });
            assert!(released || version == "[Unreleased]", "{line}");
        }
    }
}

#[test]
fn the_workflows_build_every_target_with_pinned_actions_and_no_secrets() {
    let workflow = |name: &str| {
        let path = repository().join(".github/workflows").join(name);
        std::fs::read_to_string(path).expect("a file")
    };
    let release = workflow("release.yml");
    for step in [
        "tags: [\"v*\"]",
        "permissions: {}",
        ".ci/notes \"$GITHUB_REF_NAME\"",
        ".ci/package built out",
        "cargo cyclonedx",
        "needs: [gate, package]",
    ] {
        assert!(release.contains(step), "{step}");
    }
    for text in [&release, &workflow("ci.yml")] {
        let built: Vec<&str> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("- target: "))
            .collect();
        assert_eq!(built, TARGETS.map(|(target, _)| target));
        assert!(!text.contains("secrets."), "only the run's own token");
        for line in text.lines() {
            let Some((_, action)) = line.split_once("uses: ") else {
                continue;
            };
            let pinned = action.split_once('@').is_some_and(|(_, rest)| {
                let (hash, version) = rest.split_once(" # v").unwrap_or_default();
                hash.len() == 40
                    && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
                    && !version.is_empty()
            });
            assert!(pinned || action.starts_with("./"), "{line}");
        }
    }
}
