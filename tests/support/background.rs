//! A run that goes on while the test does something else, with a terminal of its own if wanted.

use std::io::{Read, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Run, Sandbox, environment};

/// What a run may take until it says what it is expected to say, or ends.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs the program that follows on a pseudo terminal: what is written to this process is typed there, and what
/// appears there comes out of it.
const TERMINAL: &str =
    "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
/// On that terminal: gives it a size, runs the program, and says what it has left the terminal like. Ctrl-C is
/// meant for the program alone.
const SHELL: &str =
    r#"stty cols 120 rows 40; trap : INT; "$0" "$@"; code=$?; echo; stty -a; exit $code"#;

/// See the module's words.
pub(crate) struct Background {
    child: Child,
    stdout: Stream,
    stderr: Stream,
    said: Arc<Said>,
}

impl Background {
    /// Starts it, with nothing to read on its standard input.
    pub(crate) fn start(command: &mut Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self::of(command)
    }

    /// Starts it where a person sits: all that is drawn is on the run's `stdout`, and after it what `stty` says.
    pub(crate) fn on_a_terminal(sandbox: &Sandbox, command: &Command) -> Self {
        let mut terminal = Command::new(&sandbox.python);
        terminal
            .args(["-I", "-c", TERMINAL, "sh", "-c", SHELL])
            .arg(command.get_program())
            .args(command.get_args())
            .env_clear()
            .envs(environment(command))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self::of(&mut terminal)
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the executable runs");
        let said = Arc::new(Said::default());
        Self {
            stdout: Stream::read(child.stdout.take().expect("stdout is piped"), &said),
            stderr: Stream::read(child.stderr.take().expect("stderr is piped"), &said),
            said,
            child,
        }
    }

    /// Waits until it has said this.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) {
        let until = Instant::now() + DEADLINE;
        let mut news = self.said.0.lock().expect("no reader panics");
        loop {
            let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
            if stdout.contains(text) || stderr.contains(text) {
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || *news == 2 {
                drop(news);
                panic!("{text:?} was not said:\n{stdout}\n{stderr}");
            }
            news = self.said.1.wait_timeout(news, left).expect("as above").0;
        }
    }

    /// Types something and the Enter key.
    pub(crate) fn type_line(&mut self, text: &str) {
        self.type_keys(&format!("{text}\n"));
    }

    /// Types something.
    pub(crate) fn type_keys(&mut self, keys: &str) {
        let keyboard = self.child.stdin.as_mut().expect("it is on a terminal");
        keyboard.write_all(keys.as_bytes()).expect("it reads");
        keyboard.flush().expect("it reads");
    }

    /// Sends a signal: `INT`, `TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("sh")
            .args(["-c", r#"kill -s "$0" "$1""#, signal])
            .arg(self.child.id().to_string())
            .status()
            .expect("there is a shell");
        assert!(sent.success(), "{signal} can not be sent");
    }

    /// Whether it goes on.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Run {
        let until = Instant::now() + DEADLINE;
        // Both streams end with it: the last word of either is the time to look.
        let mut news = self.said.0.lock().expect("no reader panics");
        while *news < 2 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(news);
                let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
                panic!("it does not end:\n{stdout}\n{stderr}");
            }
            news = self.said.1.wait_timeout(news, left).expect("as above").0;
        }
        drop(news);
        let code = self.child.wait().expect("it is our child").code();
        Run {
            code: code.unwrap_or(-1),
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Only after a failed assertion it is still there.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// How many streams have ended, and the bell that rings at every word.
#[derive(Default)]
struct Said(Mutex<u8>, Condvar);

/// What has come out of a pipe so far.
struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    _reader: JoinHandle<()>,
}

impl Stream {
    fn read(mut pipe: impl Read + Send + 'static, said: &Arc<Said>) -> Self {
        let (bytes, said) = (Arc::new(Mutex::new(Vec::new())), Arc::clone(said));
        let into = Arc::clone(&bytes);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let count = pipe.read(&mut buffer).unwrap_or(0);
                into.lock()
                    .expect("nobody panics")
                    .extend_from_slice(&buffer[..count]);
                let mut ended = said.0.lock().expect("nobody panics");
                *ended += u8::from(count == 0);
                said.1.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        Self {
            bytes,
            _reader: reader,
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("nobody panics")).into_owned()
    }
}
