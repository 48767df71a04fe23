//! What scaling costs: a decision about a large cluster, the start of a function, the requests of an idle run.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use wekactl::weka::scaling::{Ec2State, Group, Instance, Observation, Settings, decide};
use wekactl::weka::types::Reads;

use super::support::cluster::Cluster;
use super::support::executable;

/// Machines of the large cluster: with three containers, twenty drives and sixteen processes each.
const MACHINES: u32 = 1_000;
const DRIVES: u32 = 20;
const PROCESSES: u32 = 16;
/// What the functions have in AWS, and what of it is the target.
const START_TARGET: Duration = Duration::from_millis(60);
const MEMORY_TARGET: u64 = 64;
const DECISION_TARGET: Duration = Duration::from_millis(50);
/// An idle run over six backends may ask Weka so often.
const REQUESTS: usize = 20;

/// One row: what, how much, what it may be, and whether it is.
pub(crate) type Row = (&'static str, String, String, bool);

/// Everything, measured so often and the best taken.
pub(crate) fn rows(runs: u32) -> Vec<Row> {
    let decision = (0..runs).map(|_| decision()).min().unwrap_or_default();
    let starts: Vec<(Duration, u64)> = (0..runs).map(|_| start()).collect();
    let start = starts
        .iter()
        .map(|(took, _)| *took)
        .min()
        .unwrap_or_default();
    let memory = starts
        .iter()
        .map(|(_, memory)| *memory)
        .max()
        .unwrap_or_default();
    let requests = requests();
    let milliseconds = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
    vec![
        (
            "decision about 1,000 machines, with parsing",
            milliseconds(decision),
            milliseconds(DECISION_TARGET),
            decision <= DECISION_TARGET,
        ),
        (
            "start of `transient` to its answer",
            milliseconds(start),
            milliseconds(START_TARGET),
            start <= START_TARGET,
        ),
        (
            "its memory",
            format!("{memory} MB"),
            format!("{MEMORY_TARGET} MB"),
            memory <= MEMORY_TARGET,
        ),
        (
            "requests to Weka of an idle run",
            requests.to_string(),
            REQUESTS.to_string(),
            requests <= REQUESTS,
        ),
    ]
}

/// Parsing what Weka says, and deciding.
fn decision() -> Duration {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
    let [status, containers, drives, processes] = replies(now);
    let instances = (0..MACHINES).map(|number| Instance {
        id: instance(number),
        private_ip: Some(address(number)),
        launched: Some(now - SignedDuration::from_hours(24)),
        ec2: Ec2State::Running,
        lifecycle: "InService".to_owned(),
        healthy: true,
        protected: true,
        attached: false,
        joined: true,
    });
    let group = Group {
        name: "wekactl-prod-Backends".to_owned(),
        desired: MACHINES - 10,
        suspended: Vec::new(),
        instances: instances.collect(),
    };
    let began = Instant::now();
    let reads = Reads {
        status: serde_json::from_str(&status).expect("a status"),
        containers: serde_json::from_str(&containers).expect("containers"),
        drives: serde_json::from_str(&drives).expect("drives"),
        processes: serde_json::from_str(&processes).expect("processes"),
        interface_groups: Vec::new(),
        overrides: std::collections::BTreeMap::new(),
    };
    let observation = Observation {
        now,
        pinned_guid: None,
        previous_desired: Some(MACHINES - 10),
        group,
        nfs: None,
        weka: Ok(reads),
    };
    let decision = decide(&observation, &Settings::default());
    let took = began.elapsed();
    assert_eq!(decision.gate, None);
    assert_eq!(decision.machines.len(), MACHINES as usize);
    assert!(!decision.calls.is_empty(), "ten machines are too many");
    took
}

fn instance(number: u32) -> String {
    format!("i-{number:017x}")
}

fn address(number: u32) -> String {
    format!("10.0.{}.{}", number / 250, number % 250)
}

/// `status`, `hosts_list`, `disks_list` and `nodes_list`, as text.
fn replies(now: Timestamp) -> [String; 4] {
    let before = (now - SignedDuration::from_hours(24)).to_string();
    let status = json!({
        "guid": "a1d2", "io_status": "STARTED", "upgrade": "", "hot_spare": 1,
        "stripe_data_drives": 16, "stripe_protection_drives": 2, "time": {"cluster_time": now.to_string()},
        "hosts": {"backends": {"total": MACHINES * 3}},
        "capacity": {"total_bytes": 1_u64 << 50, "unprovisioned_bytes": 1_u64 << 49},
        "rebuild": {
            "enoughActiveFDs": true, "unavailablePercent": 0, "unavailableMiB": 0,
            "protectionState": [{"numFailures": 0, "percent": 100}],
        },
    });
    let (mut containers, mut drives, mut processes) = (
        serde_json::Map::new(),
        serde_json::Map::new(),
        serde_json::Map::new(),
    );
    for machine in 0..MACHINES {
        for (part, name) in ["drives0", "compute0", "frontend0"].into_iter().enumerate() {
            let host = machine * 3 + u32::try_from(part).expect("small");
            let id = format!("HostId<{host}>");
            containers.insert(
                id.clone(),
                json!({
                    "mode": "backend", "container_name": name, "host_ip": address(machine),
                    "machine_identifier": instance(machine), "ips": [address(machine)], "state": "ACTIVE",
                    "status": "UP", "added_time": before, "state_changed_time": before,
                    "aws": {"instance_id": instance(machine)}, "member_of_leadership": machine < 5,
                    "hostname": "ip-10-0-0-1", "uid": "5c6f3c8e-9c14-bd06-9dbf-3f3ff7be8a3f", "memory": 1_491_075_072,
                }),
            );
            let slots = if part == 0 { PROCESSES - 10 } else { 5 };
            for slot in 0..slots {
                processes.insert(
                    format!("NodeId<{}>", host * 20 + slot),
                    json!({
                        "host_id": id, "status": "UP", "roles": ["MANAGEMENT"], "up_since": before,
                        "last_fencing_time": null, "mode": "backend", "slot": slot,
                    }),
                );
            }
        }
        for disk in 0..DRIVES {
            drives.insert(
                format!("DiskId<{}>", machine * DRIVES + disk),
                json!({
                    "uuid": format!("{machine:08}-{disk:04}"), "host_id": format!("HostId<{}>", machine * 3),
                    "status": "ACTIVE", "should_be_active": true, "size_bytes": 2_500_000_000_000_u64,
                    "model": "Amazon EC2 NVMe Instance Storage", "vendor": "AMAZON",
                }),
            );
        }
    }
    [
        status.to_string(),
        json!(containers).to_string(),
        json!(drives).to_string(),
        json!(processes).to_string(),
    ]
}

/// From the start of the process to `transient`'s answer, and the memory it had at most, in MB. Lambda's runtime API is
/// this function: whatever a runner and unzipping take is not part of it.
fn start() -> (Duration, u64) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let began = Instant::now();
    let mut function = Command::new(executable())
        .env_clear()
        .env(
            "AWS_LAMBDA_RUNTIME_API",
            listener.local_addr().expect("it is bound").to_string(),
        )
        .env("AWS_LAMBDA_FUNCTION_NAME", "transient")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
        .env("AWS_LAMBDA_LOG_STREAM_NAME", "bench")
        .env("AWS_LAMBDA_LOG_GROUP_NAME", "bench")
        .env("LAMBDA", "transient")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the executable runs");
    let event = json!({"TransientErrors": ["IO is stopped"]}).to_string();
    listener.set_nonblocking(true).expect("a socket");
    loop {
        let Ok((mut stream, _)) = listener.accept() else {
            let ended = function.try_wait().expect("it is our child");
            assert!(ended.is_none(), "it ended without an answer: {ended:?}");
            continue;
        };
        stream.set_nonblocking(false).expect("a socket");
        if serve(&mut stream, &event) {
            break;
        }
    }
    let took = began.elapsed();
    let status = std::fs::read_to_string(format!("/proc/{}/status", function.id()));
    let status = status.expect("it still runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    function.kill().expect("it runs");
    function.wait().expect("it is our child");
    (took, peak.expect("a size in KB") / 1024)
}

/// Requests of one connection, until the answer is there or the connection ends.
fn serve(stream: &mut TcpStream, event: &str) -> bool {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).expect("it asks") == 0 {
                return false;
            }
        }
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse().ok())?
        });
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).expect("a whole request");
        if head.starts_with("POST") {
            return true;
        }
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Lambda-Runtime-Aws-Request-Id: 1\r\nLambda-Runtime-Deadline-Ms: 9999999999999\r\n\
             Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:eu-central-1:1:function:transient\r\n\r\n{event}",
            event.len()
        );
        stream.write_all(answer.as_bytes()).expect("it reads");
    }
}

/// Of a run in which nothing is to do, logins included.
fn requests() -> usize {
    let cluster = Cluster::start(6);
    cluster.minute();
    cluster.weka.with(|weka| weka.api.counts.clear());
    let minute = cluster.minute();
    assert_eq!(minute.status, "SUCCEEDED", "{minute:?}");
    cluster.weka.with(|weka| weka.api.counts.values().sum())
}
