//! Starts the local AWS and runs the real executable against it.
#![allow(
    dead_code,
    unused_imports,
    reason = "every test target uses another part"
)]

pub(crate) mod account;
pub(crate) mod background;
pub(crate) mod cluster;
pub(crate) mod go_cluster;
pub(crate) mod go_inventory;
pub(crate) mod large;
pub(crate) mod weka;

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The region of everything unless a test says otherwise.
pub(crate) const REGION: &str = "eu-central-1";
/// What marks the calls of the executable under test in the journal.
pub(crate) const APP: &str = "wekactl-test";
/// A password that must never be seen.
pub(crate) const PASSWORD: &str = "Very-Secret-Pa55word";

/// A local AWS of its own. It ends with this value, and also when the test process is killed.
pub(crate) struct Sandbox {
    child: Child,
    /// `http://127.0.0.1:<port>`
    pub(crate) url: String,
    /// The interpreter it runs on.
    pub(crate) python: PathBuf,
    http: ureq::Agent,
    home: tempfile::TempDir,
}

impl Sandbox {
    /// A fresh one, answering at once.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// A fresh one with more flags for `sandbox start`.
    pub(crate) fn start_with(flags: &[&str]) -> Self {
        let mut child = Command::new(launcher())
            .args([
                "start",
                "--json",
                "--until-stdin-closes",
                "--region",
                REGION,
            ])
            .args(flags)
            .env("CARGO_TARGET_DIR", target_dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the sandbox's launcher runs");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the sandbox says where it is");
        let ready: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("the sandbox did not start: {line:?}"));
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build();
        let home = tempfile::tempdir().expect("a temporary directory");
        Self {
            child,
            url: ready["url"].as_str().expect("a url").to_owned(),
            python: ready["python"].as_str().expect("a path").into(),
            http: agent.into(),
            home,
        }
    }

    /// A control call.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Value {
        let mut answer = self
            .http
            .post(format!("{}/sandbox/{path}", self.url))
            .send_json(body)
            .expect("the sandbox answers");
        let value: Value = answer
            .body_mut()
            .with_config()
            .limit(1 << 30)
            .read_json()
            .expect("JSON");
        assert!(answer.status().is_success(), "{path} {body}: {value}");
        value
    }

    /// A control read.
    pub(crate) fn get(&self, path: &str) -> Value {
        let mut answer = self
            .http
            .get(format!("{}/sandbox/{path}", self.url))
            .call()
            .expect("the sandbox answers");
        let value: Value = answer
            .body_mut()
            .with_config()
            .limit(1 << 30)
            .read_json()
            .expect("JSON");
        assert!(answer.status().is_success(), "{path}: {value}");
        value
    }

    /// Any AWS call, in boto3's names: what a test asserts on, or makes besides.
    pub(crate) fn aws(&self, service: &str, operation: &str, params: &Value) -> Value {
        self.post("call", &json!({"service": service, "operation": operation, "params": params, "paginate": false}))
    }

    /// Changes settings: `{"delay_ms": 80}`.
    pub(crate) fn set(&self, settings: &Value) {
        self.post("settings", settings);
    }

    /// Replaces the rules by which calls fail, as in `tests/sandbox/localaws/faults.py`; none end all.
    pub(crate) fn fault(&self, rules: &[Value]) {
        self.post("faults", &json!(rules));
    }

    /// Makes a Weka stack; `spec` as in `tests/sandbox/localaws/stack.py`.
    pub(crate) fn stack(&self, spec: &Value) -> Value {
        self.post("stack", spec)
    }

    /// The account's whole inventory.
    pub(crate) fn inventory(&self) -> Value {
        self.get("inventory")
    }

    /// The calls of the executable since the last look, oldest first.
    pub(crate) fn take_calls(&self) -> Vec<Value> {
        let calls = self.calls();
        self.http
            .delete(format!("{}/sandbox/journal", self.url))
            .call()
            .expect("the sandbox answers");
        calls
    }

    /// The same, without taking them: also those under way, which have no `end` yet.
    pub(crate) fn calls(&self) -> Vec<Value> {
        let calls = self.get(&format!("journal?caller=app:{APP}"));
        calls.as_array().expect("a list").clone()
    }

    /// Waits until the calls of the executable are such.
    #[track_caller]
    pub(crate) fn wait_for_calls(&self, what: &str, are_such: impl Fn(&[Value]) -> bool) {
        let until = Instant::now() + Duration::from_secs(60);
        while !are_such(&self.calls()) {
            assert!(Instant::now() < until, "never: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The executable under test, ready to run against this sandbox, with nothing of the caller's environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(executable());
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("AWS_ENDPOINT_URL", &self.url)
            .env("AWS_REGION", REGION)
            .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
            .env(
                "AWS_SECRET_ACCESS_KEY",
                "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            )
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_SDK_UA_APP_ID", APP)
            .stdin(Stdio::null());
        command
    }

    /// Runs it.
    pub(crate) fn wekactl(&self, arguments: &[&str]) -> Run {
        Run::of(
            &self
                .command(arguments)
                .output()
                .expect("the executable runs"),
        )
    }

    /// Runs `cluster import` of a stack.
    pub(crate) fn import(&self, name: &str, more: &[&str]) -> Run {
        let arguments = [
            &["cluster", "import", "--name", name, "--username", "admin"],
            more,
        ]
        .concat();
        let mut command = self.command(&arguments);
        Run::of(
            &command
                .env("WEKACTL_PASSWORD", PASSWORD)
                .output()
                .expect("the executable runs"),
        )
    }

    /// The same with functions' code that weighs nothing: zipping and sending the real one is what an import takes
    /// most of its time for. There is nobody in it who could try the credentials.
    pub(crate) fn import_small(&self, name: &str, more: &[&str]) -> Run {
        let code = self.small_code();
        let small = ["--lambda-binary", &code, "--no-verify"];
        self.import(name, &[&small, more].concat())
    }

    /// Runs `cluster update` with the same code.
    pub(crate) fn update_small(&self, name: &str, more: &[&str]) -> Run {
        let code = self.small_code();
        let line = [
            "cluster",
            "update",
            "--name",
            name,
            "--lambda-binary",
            &code,
        ];
        self.wekactl(&[&line, more].concat())
    }

    /// An executable that Lambda would take: the header of one, with nothing but wekactl's mark behind it.
    pub(crate) fn small_code(&self) -> String {
        let mut header = b"\x7fELF\x02\x01\x01".to_vec();
        header.resize(64, 0);
        (header[16], header[18], header[20]) = (2, 0x3e, 1);
        header.extend(concat!("wekactl-code:", env!("CARGO_PKG_VERSION"), ";").bytes());
        let path = self.home().join("small-code");
        std::fs::write(&path, header).expect("the directory is ours");
        path.to_str().expect("text").to_owned()
    }

    /// The same of another version.
    pub(crate) fn other_code(&self) -> String {
        let mut code = std::fs::read(self.small_code()).expect("it is there");
        code.push(0);
        let path = self.home().join("other-code");
        std::fs::write(&path, code).expect("the directory is ours");
        path.to_str().expect("text").to_owned()
    }

    /// The home directory of the executable's runs.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Runs `cluster destroy`.
    pub(crate) fn destroy(&self, name: &str, more: &[&str]) -> Run {
        self.wekactl(&[&["cluster", "destroy", "--name", name], more].concat())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It ends by itself when its stdin closes; killing it as well only makes that sooner.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The environment that a command is given, for another one.
pub(crate) fn environment(command: &Command) -> impl Iterator<Item = (&OsStr, &OsStr)> {
    command
        .get_envs()
        .filter_map(|(name, value)| Some((name, value?)))
}

/// What a run of the executable left.
#[derive(Debug)]
pub(crate) struct Run {
    /// Exit code; -1 after a signal.
    pub(crate) code: i32,
    /// Data.
    pub(crate) stdout: String,
    /// Everything else.
    pub(crate) stderr: String,
}

impl Run {
    /// From a finished process.
    pub(crate) fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Fails the test unless the run succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// Fails the test unless the run ended with this code and said all of this on stderr.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.stdout, self.stderr);
        for word in words {
            assert!(
                self.stderr.contains(word),
                "{word:?} is not in:\n{}",
                self.stderr
            );
        }
        self
    }
}

/// The mutating ones among journalled calls, as `service.Operation`.
pub(crate) fn mutations(calls: &[Value]) -> Vec<String> {
    calls
        .iter()
        .filter(|call| call["read"] == false)
        .map(|call| {
            format!(
                "{}.{}",
                call["service"].as_str().unwrap_or(""),
                call["operation"].as_str().unwrap_or("")
            )
        })
        .collect()
}

/// The executable under test.
pub(crate) fn executable() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_wekactl"))
}

/// What starts the local AWS.
pub(crate) fn launcher() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sandbox/sandbox")
}

/// Where cargo builds, and the sandbox keeps its Python environment.
pub(crate) fn target_dir() -> PathBuf {
    let executable = executable();
    // <target>/<profile>/wekactl
    executable
        .ancestors()
        .nth(2)
        .expect("a target directory")
        .to_owned()
}
