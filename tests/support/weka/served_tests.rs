//! The simulator as it is served: real connections, and the commands of the join script.

use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{Action, Fault, Layout, Machine, Server, Transport, Weka};

const QUERY: &str = r#"{"jsonrpc":"2.0","id":"1","method":"client_query_backend","params":{}}"#;
const NEW: &str = "i-new";

// Exit codes of curl.
const NOBODY_LISTENS: i32 = 7;
const NOT_2XX: i32 = 22;
const EMPTY_ANSWER: i32 = 52;

/// Six machines, with addresses that no other test has. The sandbox's begin at 127.16.
fn served(test: u8) -> (Server, impl Fn(usize) -> String) {
    let third = std::process::id() % 250;
    let address = move |number: usize| format!("127.{test}.{third}.{}", number + 1);
    let machines: Vec<Machine> = (0..6)
        .map(|number| Machine::new(&format!("i-{number}"), &address(number)))
        .collect();
    let weka = Weka::form(&machines, Layout::default(), SystemTime::now());
    (Server::start(weka), address)
}

/// The body, or curl's exit code.
fn curl(arguments: &[&str]) -> Result<String, i32> {
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--insecure",
        "--fail",
        "--noproxy",
        "*",
        "--max-time",
        "20",
    ]);
    let output = command.args(arguments).output().expect("curl runs");
    match output.status.code() {
        Some(0) => Ok(String::from_utf8(output.stdout).expect("text")),
        code => Err(code.unwrap_or(-1)),
    }
}

fn query(scheme: &str, address: &str) -> Result<Value, i32> {
    let url = format!("{scheme}://{address}:14000/api/v1");
    let reply = curl(&["--data", QUERY, &url])?;
    let reply: Value = serde_json::from_str(&reply).expect("JSON");
    Ok(reply["result"]["software_release"].clone())
}

fn tell(server: &Server, method: &str, path: &str, body: &Value) -> Result<Value, i32> {
    let url = format!("{}/{path}", server.url);
    let said = curl(&["--request", method, "--data", &body.to_string(), &url])?;
    Ok(serde_json::from_str(&said).expect("JSON"))
}

fn boot(server: &Server, address: &str) {
    let machine = json!({
        "instance_id": NEW, "private_ip": address, "ips": [address, format!("{address}9")],
        "instance_type": "i3en.2xlarge", "availability_zone": "eu-central-1a",
    });
    tell(server, "POST", "machines", &machine).expect("it is booted");
}

/// One of the new machine's commands, with the right credentials: its output, or what it says when it fails.
fn weka(server: &Server, line: &str) -> Result<String, String> {
    let argv: Vec<&str> = line.split(' ').collect();
    let env = json!({"WEKA_USERNAME": "admin", "WEKA_PASSWORD": "Very-Secret-Pa55word"});
    let call = json!({"instance_id": NEW, "argv": argv, "env": env});
    let said = tell(server, "POST", "weka", &call).expect("an answer");
    let text = |name: &str| said[name].as_str().expect("text").to_owned();
    if said["exit"] == 0 {
        Ok(text("stdout"))
    } else {
        Err(text("stderr"))
    }
}

/// `name state` of the new machine's containers, and uuids of its drives, as the command lists them.
fn listed(server: &Server, backend: &str) -> (Vec<String>, Vec<String>) {
    let rows = |what: &str| -> Vec<Value> {
        let said = weka(server, &format!("cluster {what} -J -H {backend}")).expect("a list");
        serde_json::from_str(&said).expect("JSON")
    };
    let own: Vec<Value> = rows("container")
        .into_iter()
        .filter(|row| row["cloud"]["instance_id"] == NEW)
        .collect();
    let text = |row: &Value, field: &str| row[field].as_str().expect("text").to_owned();
    let drives = rows("drive")
        .into_iter()
        .filter(|drive| own.iter().any(|row| row["host_id"] == drive["host_id"]));
    (
        own.iter()
            .map(|row| format!("{} {}", text(row, "container_name"), text(row, "state")))
            .collect(),
        drives.map(|drive| text(&drive, "uuid")).collect(),
    )
}

fn set_up(name: &str, port: u16, more: &str, address: &str, backend: &str) -> String {
    format!(
        "local setup container --name {name} --base-port {port} --cores 1 {more} --core-ids 1 --net ens6 \
         --join-ips {backend} --management-ips {address} --failure-domain 0123456789abcdef --dedicate"
    )
}

const CONTAINERS: [(&str, u16, &str); 3] = [
    (
        "drives0",
        14000,
        "--drives-dedicated-cores 1 --no-frontends",
    ),
    (
        "compute0",
        15000,
        "--compute-dedicated-cores 1 --no-frontends --memory 32B",
    ),
    (
        "frontend0",
        16000,
        "--frontend-dedicated-cores 1 --allow-protocols true",
    ),
];

#[test]
fn every_backend_answers_over_http_and_https_while_it_runs() {
    let (server, address) = served(8);
    for scheme in ["http", "https"] {
        assert_eq!(query(scheme, &address(0)), Ok(json!("4.2.7")));
    }
    let healthy = curl(&[&format!("https://{}:14000/api/v2/healthcheck/", address(1))]);
    assert!(healthy.is_ok(), "{healthy:?}");
    let installer = curl(&[&format!("http://{}:14000/dist/v1/install", address(1))]);
    assert!(installer.is_ok_and(|text| text.starts_with("#!/bin/sh\n")));
    // Two requests on one connection.
    let url = format!("https://{}:14000/api/v1", address(0));
    let twice = curl(&["--data", QUERY, &url, &url]).expect("two answers");
    assert_eq!(twice.matches("software_release").count(), 2);

    server.set_transport(Transport::Http);
    assert_eq!(query("http", &address(0)), Ok(json!("4.2.7")));
    assert!(query("https", &address(0)).is_err());
    server.set_transport(Transport::Https);
    assert_eq!(query("https", &address(0)), Ok(json!("4.2.7")));
    assert!(query("http", &address(0)).is_err());
    server.set_transport(Transport::Both);

    server.with(|weka| weka.kill("i-0"));
    assert_eq!(query("http", &address(0)), Err(NOBODY_LISTENS));
    server.with(|weka| weka.come_back("i-0"));
    assert_eq!(query("http", &address(0)), Ok(json!("4.2.7")));
    tell(&server, "DELETE", "machines/i-1", &json!({})).expect("it is known");
    tell(&server, "POST", "machines/i-2/stop", &json!({})).expect("it is known");
    tell(&server, "DELETE", "machines/i-9", &json!({})).expect("it is ignored");
    assert_eq!(tell(&server, "GET", "machines", &json!({})), Err(NOT_2XX));
    for number in [1, 2] {
        assert_eq!(query("https", &address(number)), Err(NOBODY_LISTENS));
    }
    // A stopped one starts again: it is no new machine, and its containers are back.
    let again = json!({
        "instance_id": "i-2", "private_ip": address(2), "instance_type": "t", "availability_zone": "z",
    });
    tell(&server, "POST", "machines", &again).expect("it is known");
    assert_eq!(query("https", &address(2)), Ok(json!("4.2.7")));
    assert_eq!(server.with(|weka| weka.own_containers("i-2")), [6, 7, 8]);
    drop(server);
    assert_eq!(query("http", &address(3)), Err(NOBODY_LISTENS));
}

#[test]
fn answers_may_be_slow_or_missing() {
    let (server, address) = served(9);
    let fault = |action| {
        server.with(|weka| {
            weka.api.end_faults();
            weka.api.fault(Fault::of("*", action).times(1));
        });
    };
    fault(Action::Unanswered);
    assert_eq!(query("http", &address(0)), Err(EMPTY_ANSWER));
    fault(Action::Status(503));
    assert_eq!(query("http", &address(0)), Err(NOT_2XX));
    fault(Action::Slow(Duration::from_millis(300)));
    let asked = std::time::Instant::now();
    assert!(query("http", &address(0)).is_ok());
    assert!(asked.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_tick_moves_data_and_times_but_not_the_clock() {
    let (server, _) = served(10);
    server.with(|weka| weka.kill("i-0"));
    let since = |weka: &mut Weka| {
        let fenced = weka.containers[&0].processes[0].last_fencing_time;
        let down_for = weka.now.duration_since(fenced.expect("it was fenced"));
        down_for.expect("it is past")
    };
    assert!(server.with(since) < Duration::from_secs(60));
    server.tick(121);
    let down_for = server.with(since);
    assert!(down_for >= Duration::from_secs(121 * 60) && down_for < Duration::from_secs(122 * 60));
    assert!(server.with(|weka| weka.is_whole()));
}

#[test]
fn a_machine_joins_by_the_commands_of_the_script() {
    let (server, address) = served(11);
    let (own, backend) = (address(6), address(0));
    boot(&server, &own);
    assert!(query("http", &own).is_err());
    let run = |line: &str| weka(&server, line);
    run(&format!(
        "version get --from {backend}:14000 4.2.7 --set-current"
    ))
    .expect("it has it");
    run("version get --from 127.0.0.1:14000 4.2.7 --set-current").expect_err("nobody is there");
    for line in ["version prepare 4.2.7", "local stop", "local rm --all -f"] {
        run(line).expect(line);
    }
    let [drives, ..] = CONTAINERS;
    run(&set_up(drives.0, drives.1, drives.2, &backend, &backend)).expect_err("another's address");
    for (name, port, more) in CONTAINERS {
        run(&set_up(name, port, more, &own, &backend)).expect(name);
    }
    run(&set_up(drives.0, drives.1, drives.2, &own, &backend)).expect_err("the port is taken");
    assert_eq!(query("https", &own), Ok(json!("4.2.7")));
    assert_eq!(
        run("debug manhole -s 0 operational_status"),
        Ok(json!({"is_ready": true}).to_string())
    );
    assert_eq!(
        listed(&server, &backend),
        (
            vec![
                "drives0 ACTIVE".into(),
                "compute0 ACTIVE".into(),
                "frontend0 ACTIVE".into()
            ],
            vec![]
        )
    );

    run("local exec --container drives0 /weka/tools/weka_sign_drive /dev/nvme2n1").expect("signed");
    run("local exec --container other0 /weka/tools/weka_sign_drive /dev/nvme2n1")
        .expect_err("no such container");
    for _ in 0..2 {
        run(&format!("cluster drive scan 18 -H {backend}")).expect("scanned");
        assert_eq!(listed(&server, &backend).1.len(), 1);
    }
    run("cluster drive scan 18 -H 127.0.0.1").expect_err("nobody is there");
    run(&format!("events trigger-event done -H {backend}")).expect("sent");
    server.tick(2);
    assert!(
        server
            .with(|weka| weka.up_machines().contains(&NEW.to_owned()) && weka.live_blocks(NEW) > 0)
    );
    assert_eq!(
        server.with(|weka| weka.containers[&18].failure_domain.clone()),
        "0123456789abcdef"
    );
    let without =
        json!({"instance_id": NEW, "argv": ["cluster", "drive", "-J", "-H", backend], "env": {}});
    assert_eq!(
        tell(&server, "POST", "weka", &without).expect("an answer")["exit"],
        1
    );
}

#[test]
fn a_failed_join_can_be_undone_by_the_commands_of_the_script() {
    let (server, address) = served(12);
    let (own, backend) = (address(6), address(0));
    boot(&server, &own);
    let run = |line: &str| weka(&server, line);
    for (name, port, more) in CONTAINERS {
        run(&set_up(name, port, more, &own, &backend)).expect(name);
    }
    run("local exec --container drives0 /weka/tools/weka_sign_drive /dev/nvme2n1").expect("signed");
    server.with(|weka| weka.api.fail_command("events"));
    run(&format!("cluster drive scan 18 -H {backend}")).expect("scanned");
    run(&format!("events trigger-event done -H {backend}")).expect_err("told to fail");

    let uuid = listed(&server, &backend).1.remove(0);
    run(&format!("cluster container remove 18 -H {backend}")).expect_err("it is active");
    run(&format!(
        "cluster drive deactivate {uuid} --force -H {backend}"
    ))
    .expect("deactivated");
    run(&format!(
        "cluster container deactivate 18 19 20 -H {backend}"
    ))
    .expect("deactivated");
    let (states, _) = listed(&server, &backend);
    assert_eq!(
        states,
        [
            "drives0 INACTIVE",
            "compute0 INACTIVE",
            "frontend0 INACTIVE"
        ]
    );
    run(&format!("cluster drive remove {uuid} --force -H {backend}")).expect("it is out");
    for host in 18..21 {
        run(&format!("cluster container remove {host} -H {backend}")).expect("it is inactive");
    }
    server.tick(1);
    assert_eq!(listed(&server, &backend), (vec![], vec![]));
    assert!(server.with(|weka| {
        weka.commands
            .iter()
            .all(|command| command.instance_id == NEW)
    }));
}
