//! Whatever happens to one mutating call of a command, the same command run again ends as if nothing had happened, and
//! destroy leaves the account as it was: after that, and straight after the fault.
//!
//! By default a sample of the calls is tried; `WEKACTL_CONVERGENCE=all cargo test convergence` tries each fault at each
//! call of each command, and a command's words of the table instead of `all` so of that one only. The run prints a table
//! of what was tried.

use std::any::Any;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::adoption::forget_health_check;
use crate::again::{Names, drifts};
use crate::as_before::{assert_as_before, wait_until_fired};
use crate::complete::make_zone;
use crate::support::account::{kind, unlike, without_dying_keys};
use crate::support::background::Background;
use crate::support::go_cluster::{ALL_STEPS, GoCluster};
use crate::support::{APP, PASSWORD, Run, Sandbox, mutations};
use crate::update::{is_one, keys};

/// How many cores there are for it.
const AT_ONCE: usize = 2;
/// A local AWS grows with all that was ever in it: after so many trials another takes its place.
const OF_ONE_SANDBOX: usize = 30;
/// After so many trials the run says how far it is.
const OF_ONE_WORD: usize = 100;

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// AWS refuses it.
    Refused,
    /// It takes effect, and the answer is lost.
    Unanswered,
    /// The process is killed before it takes effect.
    KilledBefore,
    /// The process is killed when it has taken effect.
    KilledAfter,
    /// Ctrl-C comes while it is under way.
    Interrupted,
}

const FAULTS: [Fault; 5] = [
    Fault::Refused,
    Fault::Unanswered,
    Fault::KilledBefore,
    Fault::KilledAfter,
    Fault::Interrupted,
];

/// A command, and the account that it is run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Import,
    /// Of a cluster that has drifted, to other code.
    Update,
    RotateKeys,
    /// Of a cluster that the earlier tool has made.
    UpdateOfGo,
    ChangeCredentials,
    Destroy,
    DestroyKeeping,
}

const SUBJECTS: [Subject; 7] = [
    Subject::Import,
    Subject::Update,
    Subject::RotateKeys,
    Subject::UpdateOfGo,
    Subject::ChangeCredentials,
    Subject::Destroy,
    Subject::DestroyKeeping,
];

/// An account in which a command can be run.
struct Account {
    stack: Value,
    zone: String,
    /// Before anything of ours was in it.
    before: Value,
}

impl Subject {
    fn words(self) -> &'static str {
        match self {
            Self::Import => "import",
            Self::Update => "update",
            Self::RotateKeys => "update --rotate-keys",
            Self::UpdateOfGo => "update of the earlier tool's",
            Self::ChangeCredentials => "change-credentials",
            Self::Destroy => "destroy",
            Self::DestroyKeeping => "destroy --keep-instances",
        }
    }

    /// Of so many faults one is tried by default.
    fn sample(self) -> usize {
        match self {
            Self::Import => 33,
            Self::Update => 23,
            Self::RotateKeys => 19,
            Self::UpdateOfGo => 61,
            Self::ChangeCredentials => 7,
            Self::Destroy | Self::DestroyKeeping => 43,
        }
    }

    fn prepare(self, sandbox: &Sandbox) -> Account {
        sandbox.fault(&[]);
        sandbox.post("reset", &json!({}));
        // Always the same addresses: nothing answers at them.
        let backends = if self == Self::UpdateOfGo { 6 } else { 5 };
        let stack = sandbox.stack(&json!({
            "name": "prod", "backends": backends, "clients": 1, "classic_lb": true, "network": "127.77",
        }));
        let zone = make_zone(sandbox);
        let before = sandbox.inventory();
        let account = Account {
            stack,
            zone,
            before,
        };
        if self == Self::UpdateOfGo {
            GoCluster::make(sandbox, &account.stack, ALL_STEPS, false);
        } else if self != Self::Import {
            run(&mut Self::Import.command(sandbox, &account)).ok();
        }
        if self == Self::Update {
            let names = Names::of(&sandbox.inventory(), &account.stack, &account.zone);
            let drifts = drifts(&names).into_iter().step_by(3);
            for drift in drifts.filter(|drift| drift.what != "the credentials gone") {
                let (service, operation, params) = drift.call;
                sandbox.aws(service, operation, &params);
            }
        }
        if self == Self::ChangeCredentials {
            // What the runs have learned.
            let text = |text: &str| json!({"S": text});
            let item =
                json!({"Key": text("cluster-lease"), "Guid": text("one"), "Expires": {"N": "0"}});
            let put = json!({"TableName": "wekactl-prod", "Item": item});
            sandbox.aws("dynamodb", "put_item", &put);
        }
        account
    }

    fn command(self, sandbox: &Sandbox, account: &Account) -> Command {
        let code = sandbox.small_code();
        let other = sandbox.other_code();
        let line: &[&str] = match self {
            Self::Import => &[
                "import",
                "-n",
                "prod",
                "-u",
                "admin",
                "-t",
                "team=storage",
                "-l",
                "weka.example.com",
                "-z",
                &account.zone,
                "--lambda-binary",
                &code,
                "--no-verify",
            ],
            Self::Update => &["update", "-n", "prod", "--lambda-binary", &other],
            Self::UpdateOfGo => &["update", "-n", "prod", "--lambda-binary", &code],
            Self::RotateKeys => &[
                "update",
                "-n",
                "prod",
                "--lambda-binary",
                &code,
                "--rotate-keys",
            ],
            Self::ChangeCredentials => &[
                "change-credentials",
                "-n",
                "prod",
                "-u",
                "other",
                "--no-verify",
            ],
            Self::Destroy => &["destroy", "-n", "prod", "--if-exists"],
            Self::DestroyKeeping => &["destroy", "-n", "prod", "--if-exists", "--keep-instances"],
        };
        let mut command = sandbox.command(&[&["cluster"], line].concat());
        command.env("WEKACTL_PASSWORD", PASSWORD);
        command
    }

    fn removes(self) -> bool {
        matches!(self, Self::Destroy | Self::DestroyKeeping)
    }
}

/// One call: the `nth` of its kind that a command makes.
#[derive(Debug, Clone)]
struct Point {
    call: String,
    nth: usize,
}

/// One fault at one call of one command.
#[derive(Debug)]
struct Trial {
    subject: Subject,
    point: Point,
    fault: Fault,
    /// Destroy comes straight after the fault.
    straight: bool,
}

/// What a trial has failed at, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failed {
    /// The command, run again, has not ended as it should.
    ToConverge,
    /// Destroy has left something.
    ToRemove,
}

fn run(command: &mut Command) -> Run {
    Run::of(&command.output().expect("the executable runs"))
}

/// The mutating calls of a command to which nothing happens, and the account after it.
fn undisturbed(sandbox: &Sandbox, subject: Subject) -> (Vec<Point>, Value) {
    let account = subject.prepare(sandbox);
    sandbox.take_calls();
    run(&mut subject.command(sandbox, &account)).ok();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let points = mutations(&sandbox.take_calls()).into_iter().map(|call| {
        let nth = seen.entry(call.clone()).or_default();
        *nth += 1;
        Point { call, nth: *nth }
    });
    (points.collect(), sandbox.inventory())
}

/// The command, with the fault at its call.
fn disturb(sandbox: &Sandbox, account: &Account, trial: &Trial) {
    let (service, operation) = trial.point.call.split_once('.').expect("service.Operation");
    sandbox.fault(&[json!({
        "service": service, "operation": operation, "nth": trial.point.nth,
        "caller": format!("^app:{APP}$"), "mutating": true, "code": "AccessDenied", "status": 403,
        "action": match trial.fault {
            Fault::Refused => "error",
            Fault::Unanswered => "apply_drop",
            Fault::KilledBefore => "hang",
            Fault::KilledAfter => "apply_hang",
            Fault::Interrupted => "hold",
        },
    })]);
    sandbox.take_calls();
    let command = Background::start(&mut trial.subject.command(sandbox, account));
    match trial.fault {
        Fault::KilledBefore | Fault::KilledAfter => {
            wait_until_fired(sandbox, &trial.point.call);
            command.signal("KILL");
            assert_eq!(command.end().code, -1);
        }
        Fault::Interrupted => {
            wait_until_fired(sandbox, &trial.point.call);
            command.signal("INT");
            command.wait_for("finishing the steps under way");
            sandbox.fault(&[]);
            let run = command.end();
            // It may have been the last call.
            assert!(matches!(run.code, 0 | 130), "{}", run.stderr);
        }
        Fault::Refused | Fault::Unanswered => {
            let run = command.end();
            // What AWS refuses is an error; what it has done and not answered is seen to be done.
            let code = i32::from(trial.fault == Fault::Refused);
            assert_eq!(run.code, code, "{}", run.stderr);
            let fired = &sandbox.get("faults")[0]["fired"];
            assert_eq!(fired, 1, "the call was not made\n{}", run.stderr);
        }
    }
    sandbox.fault(&[]);
    sandbox.wait_for_calls("the end of every call", |calls| {
        calls.iter().all(|call| !call["end"].is_null())
    });
}

fn attempt(sandbox: &Sandbox, trial: &Trial, good: &Value) -> Result<(), (Failed, String)> {
    let subject = trial.subject;
    let mut account = None;
    caught(|| {
        let made = subject.prepare(sandbox);
        disturb(sandbox, &made, trial);
        if !trial.straight {
            run(&mut subject.command(sandbox, &made)).ok();
            if !subject.removes() {
                let unlike = unlike(good, &sandbox.inventory());
                let first = &unlike[..unlike.len().min(20)];
                assert!(
                    unlike.is_empty(),
                    "{} differences: {first:#?}",
                    unlike.len()
                );
                let keys = keys(sandbox);
                assert!(is_one(&keys), "{} keys", keys.len());
            }
        }
        account = Some(made);
    })
    .map_err(|why| (Failed::ToConverge, why))?;
    caught(|| {
        let mut account = account.expect("it was made");
        if !subject.removes() {
            sandbox.destroy("prod", &["--if-exists"]).ok();
        }
        let after = sandbox.inventory();
        let first = account.stack["backends"][0]["id"].as_str();
        let first = &kind(&after, "instances")[first.expect("an id")];
        // An import that ended before it touched them has made none of them ours.
        let keeps = match subject {
            Subject::DestroyKeeping => true,
            Subject::Import if trial.straight => first["State"]["Name"] == "running",
            _ => false,
        };
        // A key of which nothing was known, because nobody answered, is followed by another.
        let (_, keys) = without_dying_keys(&after);
        if subject == Subject::UpdateOfGo {
            forget_health_check(&mut account.before, &after);
        }
        assert_as_before(&account.before, &after, &account.stack, keeps, keys.len());
    })
    .map_err(|why| (Failed::ToRemove, why))
}

fn caught(work: impl FnOnce()) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default()
    })
}

/// All there are, or a sample in which each fault and each call has its turn.
fn trials(points: &BTreeMap<&str, (Subject, Vec<Point>, Value)>) -> Vec<Trial> {
    let which = std::env::var("WEKACTL_CONVERGENCE").unwrap_or_default();
    let only = (!matches!(which.as_str(), "" | "all")).then_some(which.as_str());
    let mut trials = Vec::new();
    for (words, (subject, points, _)) in points {
        if only.is_some_and(|only| only != *words) {
            continue;
        }
        let each = points.iter().flat_map(|point| {
            FAULTS.map(|fault| [false, true].map(|straight| (point.clone(), fault, straight)))
        });
        let each = each
            .flatten()
            .enumerate()
            .filter(|(number, (_, _, straight))| {
                let is_sampled = number % subject.sample() == 0;
                (!which.is_empty() || is_sampled) && !(*straight && subject.removes())
            });
        trials.extend(each.map(|(_, (point, fault, straight))| Trial {
            subject: *subject,
            point,
            fault,
            straight,
        }));
    }
    trials
}

/// Also where the test passes: print! would be captured.
fn say(text: &str) {
    let said = std::io::stderr().write_all(text.as_bytes());
    said.expect("stderr takes it");
}

#[test]
fn convergence() {
    let first = Sandbox::start();
    let subjects: BTreeMap<&str, (Subject, Vec<Point>, Value)> = SUBJECTS
        .into_iter()
        .map(|subject| {
            let (points, good) = undisturbed(&first, subject);
            (subject.words(), (subject, points, good))
        })
        .collect();
    drop(first);
    let trials = trials(&subjects);
    assert!(!trials.is_empty(), "no command of the table is called so");
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let (mut sandbox, mut tried) = (Sandbox::start(), 0);
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    let Some(trial) = trials.get(number) else {
                        break;
                    };
                    if number % OF_ONE_WORD == 0 {
                        say(&format!("{number} of {} trials\n", trials.len()));
                    }
                    if tried == OF_ONE_SANDBOX {
                        (sandbox, tried) = (Sandbox::start(), 0);
                    }
                    tried += 1;
                    let (_, _, good) = &subjects[trial.subject.words()];
                    if let Err((at, why)) = attempt(&sandbox, trial, good) {
                        say(&format!("{trial:?} failed\n"));
                        let mut failures = failures.lock().expect("nobody panics here");
                        failures.push((trial.subject, at, format!("{trial:?}: {why}")));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("nobody panics here");
    let mut table = String::from(
        "\n| command | mutating calls | faults tried | not converged | left over |\n|---|---|---|---|---|\n",
    );
    for (words, (subject, points, _)) in &subjects {
        let tried = trials
            .iter()
            .filter(|trial| trial.subject == *subject)
            .count();
        let failed = |to: Failed| {
            let failed = failures
                .iter()
                .filter(|(of, at, _)| (*of, *at) == (*subject, to));
            failed.count()
        };
        table += &format!(
            "| {words} | {} | {tried} | {} | {} |\n",
            points.len(),
            failed(Failed::ToConverge),
            failed(Failed::ToRemove),
        );
    }
    say(&table);
    let whys: Vec<&String> = failures.iter().map(|(_, _, why)| why).collect();
    assert!(whys.is_empty(), "{whys:#?}");
}
