//! `debug scale-plan`: what the next run would do, seen from outside, without doing it.

use serde_json::{Value, json};

use crate::support::cluster::{CLUSTER, Cluster};
use crate::support::weka::{Action, Fault};
use crate::support::{Sandbox, mutations};

#[test]
fn the_plan_is_what_the_next_run_does_and_asking_for_it_changes_nothing() {
    let cluster = Cluster::start(7);
    cluster.minute();
    cluster.resize(6);
    cluster.minute();
    cluster.forget_calls();

    let saved = cluster.sandbox.home().join("seen.json");
    let saved = saved.to_str().expect("text");
    let live = [
        "debug",
        "scale-plan",
        "--name",
        CLUSTER,
        "--save",
        saved,
        "-o",
        "json",
    ];
    let live = cluster.sandbox.wekactl(&live).ok();
    assert_eq!(mutations(&cluster.sandbox.take_calls()), [""; 0]);
    assert_eq!(cluster.changes(), [""; 0]);

    // The same from what was saved, which holds no credentials; as a person reads it; and by the other rules.
    let again = ["debug", "scale-plan", "--observation", saved];
    let as_json = cluster
        .sandbox
        .wekactl(&[&again[..], &["-o", "json"]].concat())
        .ok();
    assert_eq!(as_json.stdout, live.stdout);
    let text = cluster.sandbox.wekactl(&again).ok();
    assert!(
        text.stdout.starts_with("MACHINE ")
            && text.stdout.contains("  Deactivate  S7    one too many"),
        "{}",
        text.stdout
    );
    assert!(
        text.stdout.contains("call  cluster_deactivate_hosts"),
        "{}",
        text.stdout
    );
    let upstream = [&again[..], &["--rules", "upstream"]].concat();
    let upstream = cluster.sandbox.wekactl(&upstream).ok();
    assert!(
        upstream.stdout.contains("  Deactivate  U "),
        "{}",
        upstream.stdout
    );
    let seen = std::fs::read_to_string(saved).expect("it was saved");
    assert!(!seen.contains(crate::support::PASSWORD));

    let plan: Value = serde_json::from_str(&live.stdout).expect("JSON");
    let planned = plan["calls"].as_array().expect("a list").iter();
    let planned: Vec<String> = planned
        .map(|call| call["method"].as_str().expect("a method").to_owned())
        .collect();
    cluster.forget_calls();
    cluster.run();
    assert_eq!(cluster.changes(), planned);

    // What can not be decided says why, and a file that is none of ours is an error.
    cluster
        .weka
        .with(|weka| weka.io_status = "STOPPED".to_owned());
    let closed = cluster
        .sandbox
        .wekactl(&["debug", "scale-plan", "--name", CLUSTER])
        .ok();
    assert!(
        closed
            .stdout
            .starts_with("nothing would be done: the cluster's IO is"),
        "{}",
        closed.stdout
    );
    assert_eq!(closed.stderr, "");
    let closed = ["debug", "scale-plan", "--name", CLUSTER, "-o", "json"];
    let closed = cluster.sandbox.wekactl(&closed).ok();
    let closed: Value = serde_json::from_str(&closed.stdout).expect("JSON");
    let gate = closed["gate"]["text"].as_str().expect("a gate");
    assert!(gate.starts_with("the cluster's IO is"), "{gate}");
    cluster
        .sandbox
        .wekactl(&["debug", "scale-plan", "--name", "nope"])
        .fails(1, &["error: no cluster named nope in eu-central-1: "]);

    // A backend that was reached and is of no use would be of none to the next run either.
    cluster.weka.with(|weka| {
        weka.io_status = "STARTED".to_owned();
        weka.api.fault(Fault::of("user_login", Action::Status(404)));
    });
    let useless = cluster
        .sandbox
        .wekactl(&["debug", "scale-plan", "--name", CLUSTER])
        .ok();
    assert!(
        useless
            .stdout
            .starts_with("nothing would be done: no usable backend: "),
        "{}",
        useless.stdout
    );

    // Saved where nobody could be reached, it is what it is.
    let mut unread: Value = serde_json::from_str(&seen).expect("JSON");
    unread["weka"] = json!({"Err": {"text": "no usable backend: 10.0.0.1: connection refused"}});
    std::fs::write(saved, unread.to_string()).expect("the directory is ours");
    let replayed = cluster.sandbox.wekactl(&again).ok();
    assert!(
        replayed
            .stdout
            .starts_with("nothing would be done: no usable backend: 10.0.0.1"),
        "{}",
        replayed.stdout
    );
    std::fs::write(saved, "{}").expect("the directory is ours");
    cluster
        .sandbox
        .wekactl(&again)
        .fails(1, &["reading the observation", "missing field"]);
    cluster
        .sandbox
        .wekactl(&["debug", "scale-plan"])
        .fails(2, &["--name"]);
}

/// As on a person's own machine: what can not be reached from there says nothing about the next run, which can.
#[test]
fn where_no_backend_can_be_reached_there_is_no_plan() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": CLUSTER, "backends": 5}));
    sandbox.import_small(CLUSTER, &[]).ok();
    let saved = sandbox.home().join("seen.json");
    let saved = saved.to_str().expect("text");
    let plan = ["debug", "scale-plan", "--name", CLUSTER, "--save", saved];
    for more in [
        &[][..],
        &["-o", "json"],
        &["--rules", "upstream"],
        &["--address", "127.9.9.9"],
    ] {
        let run = sandbox.wekactl(&[&plan[..], more].concat()).fails(
            1,
            &[
                "error: planning for cluster prod: Weka's addresses can not be reached from this machine: no usable \
                 backend: 127.",
                ": no connection: ",
                "\nhint: run it where the backends can be reached, or name with --address ",
            ],
        );
        assert_eq!(run.stdout, "");
        assert!(!std::path::Path::new(saved).exists());
    }
}
