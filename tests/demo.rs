//! `cargo demo`: a cluster's life, told while it happens. A stack is imported, grows and shrinks with its group, and is
//! destroyed; all of it by the real executable, in a local AWS that is stopped at the end.
//!
//! Ends with 0 only if everything was as told; Ctrl-C ends it, and the local AWS, at once.

#![expect(clippy::print_stdout, reason = "telling is what it is for")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal as _, Read as _};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, ensure};
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Map, Value};
use support::cluster::{CLUSTER, Cluster, GROUP, Minute};
use support::{PASSWORD, REGION, Sandbox, launcher, target_dir};
use tokio::signal::unix::{SignalKind, signal};

const BACKENDS: usize = 6;
/// What the cluster grows to.
const GROWN: usize = 8;
/// Minutes that growing or shrinking may take.
const PATIENCE: u32 = 40;
/// What import makes, as the inventory and as people call it, and how many of each.
const MADE: &[(&str, &str, usize)] = &[
    ("kms_keys", "KMS key", 1),
    ("kms_aliases", "KMS alias", 1),
    ("tables", "DynamoDB table", 1),
    ("roles", "IAM role", 7),
    ("layers", "Lambda layer", 1),
    ("functions", "Lambda function", 5),
    ("log_groups", "log group", 5),
    ("network_interfaces", "network interface, by Lambda", 1),
    ("rest_apis", "REST API", 1),
    ("api_keys", "API key", 1),
    ("usage_plans", "usage plan", 1),
    ("load_balancers", "load balancer", 1),
    ("target_groups", "target group", 1),
    ("launch_templates", "launch template", 1),
    ("auto_scaling_groups", "Auto Scaling group", 1),
    ("state_machines", "state machine", 1),
    ("rules", "event rule", 1),
];

/// The command that runs now: what Ctrl-C has to end.
static RUNNING: Mutex<Option<Child>> = Mutex::new(None);

fn running() -> MutexGuard<'static, Option<Child>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn main() -> ExitCode {
    std::thread::spawn(end_when_told);
    match story() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nNOT AS TOLD: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// On Ctrl-C and the like: ends the running command and this program. The local AWS ends when its standard input,
/// a pipe that this program holds, closes.
fn end_when_told() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        let waits = kinds.map(|kind| {
            let mut signals = signal(kind).expect("a signal handler");
            Box::pin(async move { signals.recv().await })
        });
        futures::future::select_all(waits).await;
    });
    // Held to the end: no other command starts.
    let mut running = running();
    if let Some(child) = running.as_mut() {
        child.kill().ok();
        child.wait().ok();
    }
    println!("\nstopped: the local AWS, and all that was in it, is gone");
    std::process::exit(130);
}

fn story() -> Result<()> {
    tell(
        "wekactl on a local AWS\n\nEverything happens on this machine: no account, no credentials, no cost. `wekactl` \
         below is this repository's own build, and the functions that it makes run here as processes.",
    );

    chapter("1. An AWS on this machine");
    tell_command("tests/sandbox/sandbox start");
    let sandbox = Sandbox::start();
    tell(&format!("It answers at {}.", sandbox.url));

    chapter("2. A Weka cluster, as CloudFormation makes it");
    tell_command(&format!(
        "tests/sandbox/sandbox stack {CLUSTER} --backends {BACKENDS} --classic-lb"
    ));
    let backends = BACKENDS.to_string();
    let stack = run_sandbox(
        &sandbox,
        &["stack", CLUSTER, "--backends", &backends, "--classic-lb"],
    )?;
    let classic = stack["classic_lb"].as_str().context("a load balancer")?;
    let before = sandbox.inventory();
    let cluster = Cluster::of_stack(sandbox, &stack);
    let sandbox = &cluster.sandbox;
    tell(&format!(
        "Stack {CLUSTER} has {BACKENDS} backends and the classic load balancer {classic}. So far nothing manages them."
    ));

    chapter("3. Import");
    tell_command(&format!(
        "WEKACTL_PASSWORD=… wekactl cluster import --name {CLUSTER} --username admin"
    ));
    let script = run_wekactl(
        sandbox,
        &[
            "cluster",
            "import",
            "--name",
            CLUSTER,
            "--username",
            "admin",
        ],
    )?;
    show(&script);
    ensure!(
        script.starts_with("#!/bin/bash\n"),
        "no script for clients came out"
    );

    chapter("4. What exists now");
    let after = sandbox.inventory();
    show_made(&before, &after)?;
    show_changed(&before, &after, classic)?;

    chapter("5. Eight machines");
    tell(
        "From now on the group's desired capacity is the only knob. The rule starts the state machine every minute. \
         This AWS has no clock: a tick is a minute. New machines really run their user data and the join script; `weka` \
         is a stand-in there, and Weka itself is a model that is served on the machines' addresses.",
    );
    let mut minutes = Minutes::new(&cluster);
    minutes.pass_until(1, BACKENDS)?;
    resize(&cluster, GROWN);
    minutes.pass_until(PATIENCE, GROWN)?;
    tell("Both have joined, and hold a part of the data.");

    chapter("6. And six again");
    tell(
        "Two are too many: Weka moves their data to the others, forgets them, and only then they are terminated. The \
         first minute does nothing: a target that is gone after a minute was a typo. In brackets is the rule that decided; \
         src/weka/scaling/mod.rs has them all. What is terminated is detached in the next minute: it leaves the group, \
         which then has what it shall have and launches nothing in its place.",
    );
    resize(&cluster, BACKENDS);
    minutes.pass_until(PATIENCE, BACKENDS)?;
    ensure!(
        cluster.weka.with(|weka| weka.is_whole()),
        "data was lost, or is not protected"
    );
    tell("No block of data was without its protection at the end, and none was lost.");

    chapter("7. Destroy");
    tell(
        "A function may outlive the state that started it, and then act on machines that are being taken away. So \
         destroy first removes the rule, and then waits until the last run is 35 seconds old: longer than that, none of \
         the functions may run. Had nothing run lately, there would be no wait.",
    );
    tell_command(&format!("wekactl cluster destroy --name {CLUSTER} --yes"));
    run_wekactl(sandbox, &["cluster", "destroy", "--name", CLUSTER, "--yes"])?;

    chapter("8. What is left");
    show_left(&before, &sandbox.inventory())?;

    drop(cluster);
    tell(
        "The local AWS is stopped. To use one by hand, see \"The local AWS by hand\" in README.md.",
    );
    Ok(())
}

/// What import made, kind by kind; an error if it is not what it should be.
fn show_made(before: &Value, after: &Value) -> Result<()> {
    let made = new_things(before, after);
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(100)
        .set_header(["kind", "", "name"]);
    for (kind, title, count) in MADE {
        let names = made.get(kind).cloned().unwrap_or_default();
        ensure!(
            names.len() == *count,
            "{count} of kind {title} should have been made, not {}: {}",
            names.len(),
            names.join(", ")
        );
        table.add_row([(*title).to_owned(), count.to_string(), names.join("\n")]);
    }
    println!("{}\n", table.trim_fmt());
    let known = |kind: &str| MADE.iter().any(|(known, ..)| *known == kind);
    let unknown: Vec<&&str> = made.keys().filter(|kind| !known(kind)).collect();
    ensure!(
        unknown.is_empty(),
        "something was made that should not have been: {unknown:?}"
    );
    Ok(())
}

/// What import changed on things that the stack made.
fn show_changed(before: &Value, after: &Value, classic: &str) -> Result<()> {
    let group = format!("wekactl-{CLUSTER}-Backends");
    let group = kind(after, "auto_scaling_groups")[group.as_str()];
    let members = group["Instances"]
        .as_object()
        .context("the group's members")?;
    let in_service = members
        .values()
        .filter(|member| {
            member["LifecycleState"] == "InService" && member["ProtectedFromScaleIn"] == true
        })
        .count();
    let protected = kind(after, "instances")
        .values()
        .filter(|instance| instance["DisableApiTermination"] == true)
        .count();
    ensure!(
        (in_service, protected) == (BACKENDS, BACKENDS),
        "{in_service} backends are in service in the group, and {protected} protected, not {BACKENDS}"
    );
    tell(&format!(
        "The {BACKENDS} backends were not touched otherwise: they are members of the group, InService, protected from \
         scale-in and from termination, and tagged."
    ));
    let target = |inventory: &Value| {
        let check = &kind(inventory, "classic_load_balancers")[classic]["HealthCheck"]["Target"];
        check.as_str().unwrap_or_default().to_owned()
    };
    let (was, is) = (target(before), target(after));
    ensure!(
        was != is,
        "the classic load balancer's health check is still {was}"
    );
    tell(&format!(
        "The health check of the stack's classic load balancer was {was} and is {is} now. What it was is remembered, \
         and destroy puts it back."
    ));
    Ok(())
}

/// Turns the only knob.
fn resize(cluster: &Cluster, desired: usize) {
    tell_command(&format!(
        "aws autoscaling set-desired-capacity --auto-scaling-group-name {GROUP} --desired-capacity {desired}"
    ));
    cluster.resize(u32::try_from(desired).expect("small"));
}

/// Minutes that pass, a line each.
struct Minutes<'a> {
    cluster: &'a Cluster,
    number: u32,
    members: BTreeSet<String>,
    backends: BTreeSet<String>,
}

impl<'a> Minutes<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        println!("  minute  desired  in group  in Weka  draining  what was done");
        Self {
            cluster,
            number: 0,
            members: cluster.members().into_iter().collect(),
            backends: cluster.backends().into_iter().collect(),
        }
    }

    /// Until group and Weka have so many machines and the run is green; an error if that takes too long.
    fn pass_until(&mut self, most: u32, size: usize) -> Result<()> {
        for _ in 0..most {
            let minute = self.cluster.minute();
            self.number += 1;
            self.tell(&minute);
            if minute.status == "SUCCEEDED" && self.cluster.is_at_rest(size) {
                println!();
                return Ok(());
            }
        }
        anyhow::bail!("the cluster does not have {size} machines after {most} minutes")
    }

    fn tell(&mut self, minute: &Minute) {
        let members: BTreeSet<String> = self.cluster.members().into_iter().collect();
        let backends: BTreeSet<String> = self.cluster.backends().into_iter().collect();
        let counts = [
            (members.difference(&self.members).count(), "launched"),
            (backends.difference(&self.backends).count(), "joined"),
            (actions(minute, "Deactivate").count(), "told to drain"),
            (actions(minute, "Remove").count(), "removed from Weka"),
            (
                list(&minute.output["Done"]["Terminated"]).len(),
                "terminated",
            ),
            (list(&minute.output["Done"]["Detached"]).len(), "detached"),
        ];
        let mut done: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| match *what {
                "told to drain" => format!("{count} {what} ({})", rules(minute, "Deactivate")),
                "removed from Weka" => format!("{count} {what} ({})", rules(minute, "Remove")),
                _ => format!("{count} {what}"),
            })
            .collect();
        if !minute.errors.is_empty() {
            done.push(minute.errors.clone());
        }
        let draining = self.cluster.draining().len();
        if done.is_empty() {
            let idle = if draining > 0 {
                "data moves"
            } else {
                "nothing"
            };
            done.push(idle.to_owned());
        }
        let desired = self.cluster.group()["DesiredCapacity"].clone();
        println!(
            "  {:>6}  {:>7}  {:>8}  {:>7}  {:>8}  {}",
            self.number,
            desired.as_u64().unwrap_or_default(),
            members.len(),
            backends.len(),
            draining,
            done.join(", "),
        );
        (self.members, self.backends) = (members, backends);
    }
}

/// Verdicts of a run that decided this for a machine.
fn actions<'a>(minute: &'a Minute, action: &str) -> impl Iterator<Item = &'a Value> {
    let verdicts = list(&minute.output["Verdicts"]).iter();
    // S9: what has begun before goes on.
    verdicts.filter(move |verdict| verdict["Action"] == *action && verdict["Rule"] != "S9")
}

/// By which rules.
fn rules(minute: &Minute, action: &str) -> String {
    let rules: BTreeSet<&str> = actions(minute, action)
        .filter_map(|verdict| verdict["Rule"].as_str())
        .collect();
    rules.into_iter().collect::<Vec<_>>().join(", ")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// That the account is as it was, but for what can not be brought back.
fn show_left(before: &Value, after: &Value) -> Result<()> {
    // With a machine go its volumes and interfaces, and its place in the stack's load balancer.
    let with_machines = ["volumes", "network_interfaces"];
    let (mut terminated, mut joined) = (0, 0);
    let mut pending = 0;
    let mut wrong = Vec::new();
    for (place, name, was, is) in compared(before, after) {
        match place.as_str() {
            "instances" if is["State"]["Name"] == "terminated" && was.is_null() => joined += 1,
            "instances" if is["State"]["Name"] == "terminated" => terminated += 1,
            "kms_keys" if was.is_null() && is["KeyState"] == "PendingDeletion" => pending += 1,
            gone if with_machines.contains(&gone) && is.is_null() => {}
            "classic_load_balancers" if without(was, "Instances") == without(is, "Instances") => {}
            _ => wrong.push(format!("{place} {name}: was {was}, is {is}")),
        }
    }
    ensure!(
        wrong.is_empty(),
        "the account is not as it was: {}",
        wrong.join("; ")
    );
    ensure!(
        (terminated, joined, pending) == (BACKENDS, GROWN - BACKENDS, 1),
        "{terminated} backends of the stack and {joined} others are terminated, and {pending} keys pending deletion"
    );
    tell(&format!(
        "Nothing that wekactl made. Compared with the account before the import, item by item, there are only two \
         differences: the {BACKENDS} backends are terminated, and so are the {joined} that joined, and with them their \
         disks and interfaces; and the KMS key is pending deletion, which AWS does after 7 days at the earliest. The \
         classic load balancer has its health check back. The stack can be deleted."
    ));
    Ok(())
}

fn without(thing: &Value, field: &str) -> Value {
    let mut thing = thing.clone();
    if let Some(fields) = thing.as_object_mut() {
        fields.remove(field);
    }
    thing
}

/// A kind's things, those of the region and those of the whole account.
fn kind<'a>(inventory: &'a Value, kind: &str) -> BTreeMap<&'a str, &'a Value> {
    [REGION, "global"]
        .into_iter()
        .filter_map(|place| inventory[place][kind].as_object())
        .flat_map(Map::iter)
        .map(|(name, thing)| (name.as_str(), thing))
        .collect()
}

/// Kind, name, and what was and is, of all that differs.
fn compared<'a>(
    before: &'a Value,
    after: &'a Value,
) -> Vec<(String, String, &'a Value, &'a Value)> {
    static NOTHING: Value = Value::Null;
    let mut differing = Vec::new();
    for place in keys(before, after) {
        for kind in keys(&before[&place], &after[&place]) {
            let (was, is) = (&before[&place][&kind], &after[&place][&kind]);
            for name in keys(was, is) {
                let was = was.get(&name).unwrap_or(&NOTHING);
                let is = is.get(&name).unwrap_or(&NOTHING);
                if was != is {
                    differing.push((kind.clone(), name, was, is));
                }
            }
        }
    }
    differing
}

fn keys(one: &Value, other: &Value) -> Vec<String> {
    let keys = [one, other]
        .into_iter()
        .filter_map(Value::as_object)
        .flat_map(Map::keys);
    let keys: std::collections::BTreeSet<&String> = keys.collect();
    keys.into_iter().cloned().collect()
}

/// What is new, by kind, under the names that people know.
fn new_things<'a>(before: &'a Value, after: &'a Value) -> BTreeMap<&'static str, Vec<String>> {
    let mut new: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for (kind, key, was, is) in compared(before, after) {
        if was.is_null() {
            let known = MADE.iter().find(|(known, ..)| *known == kind);
            let known = known.map_or("something else", |(known, ..)| known);
            let name = match known {
                "rest_apis" | "api_keys" | "usage_plans" => is["name"].as_str(),
                "network_interfaces" => is["Description"].as_str(),
                _ => None,
            };
            new.entry(known)
                .or_default()
                .push(name.map_or(key, ToOwned::to_owned));
        }
    }
    for names in new.values_mut() {
        names.sort();
    }
    new
}

/// Runs the executable with its progress on this program's own standard error. Returns its standard output.
fn run_wekactl(sandbox: &Sandbox, arguments: &[&str]) -> Result<String> {
    let mut command = sandbox.command(arguments);
    command.env("WEKACTL_PASSWORD", PASSWORD);
    // How it may draw is the terminal's matter.
    for name in ["TERM", "COLORTERM", "NO_COLOR", "LANG", "LC_ALL"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let output = run(&mut command)?;
    println!();
    ensure!(!output.contains(PASSWORD), "the password was shown");
    Ok(output)
}

/// Runs a command of the sandbox. Returns what it printed.
fn run_sandbox(sandbox: &Sandbox, arguments: &[&str]) -> Result<Value> {
    let mut command = Command::new(launcher());
    command
        .args(arguments)
        .env("WEKACTL_SANDBOX", &sandbox.url)
        .env("CARGO_TARGET_DIR", target_dir())
        .stdin(Stdio::null());
    Ok(serde_json::from_str(&run(&mut command)?)?)
}

fn run(command: &mut Command) -> Result<String> {
    let mut stdout = {
        // One lock for both: what was told to end starts nothing.
        let mut running = running();
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        *running = Some(child);
        stdout
    };
    let mut output = String::new();
    stdout.read_to_string(&mut output)?;
    let child = running().take();
    let status = child.context("it runs")?.wait()?;
    ensure!(status.success(), "the command ended with {status}");
    Ok(output)
}

fn chapter(title: &str) {
    if std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        println!("\u{1b}[1m{title}\u{1b}[0m\n");
    } else {
        println!("{title}\n");
    }
}

/// A paragraph.
fn tell(text: &str) {
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > 96 {
                println!("{line}");
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        println!("{line}");
    }
    println!();
}

fn tell_command(command: &str) {
    println!("$ {command}");
}

fn show(output: &str) {
    for line in output.lines() {
        println!("  {line}");
    }
    println!();
}
