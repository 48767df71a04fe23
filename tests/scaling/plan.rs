//! `debug scale-plan`: what the next run would do, seen from outside, without doing it.

use serde_json::Value;

use crate::support::cluster::{CLUSTER, Cluster};
use crate::support::mutations;

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
