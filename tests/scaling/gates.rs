//! What has to be true before anything is done at all. Behind a closed gate nothing is touched, and the run says why.

use serde_json::json;

use crate::support::cluster::{CLUSTER, Cluster};
use crate::support::weka::{Action, DriveStatus, Fault, Power, Shape, Weka};

/// A cluster with a member too many and one that has been down for hours: with an open gate there is much to do.
fn busy_cluster() -> Cluster {
    let cluster = Cluster::start(8);
    cluster.minute();
    cluster.minute();
    cluster
}

/// Lets something be wrong, and asserts that a run says so and touches nothing.
#[track_caller]
fn assert_closed(cluster: &Cluster, what: &str, says: &str, wrong: impl FnOnce(&mut Weka)) {
    cluster.weka.with(wrong);
    cluster.forget_calls();
    let minute = cluster.run();
    assert_eq!(minute.status, "FAILED", "{what}: {minute:?}");
    assert!(minute.errors.contains(says), "{what}: {}", minute.errors);
    assert_eq!(cluster.changes(), [""; 0], "{what}");
}

fn first_container(weka: &Weka) -> u32 {
    *weka.containers.keys().next().expect("there are some")
}

#[test]
fn behind_a_closed_gate_nothing_is_touched_and_everybody_is_told_why() {
    let cluster = busy_cluster();
    let address = cluster.weka.with(|weka| {
        let machines = weka.machines.values();
        machines.map(|machine| machine.address.clone()).next()
    });
    let address = address.expect("there are some");
    // From here on a run with an open gate would drain one machine.
    cluster.resize(7);
    cluster.weka.with(|weka| weka.behaviour.drain_rate = 0);

    assert_closed(&cluster, "IO", "IO is \"STOPPED\"", |weka| {
        weka.io_status = "STOPPED".to_owned();
    });
    assert_closed(&cluster, "upgrade", "is being upgraded", |weka| {
        weka.io_status = "STARTED".to_owned();
        weka.upgrade = Some("ROLLING".to_owned());
    });
    assert_closed(&cluster, "upgrade of 4.4", "is being upgraded", |weka| {
        weka.shape = Shape::New;
    });
    assert_closed(&cluster, "override", "skip_scale_down", |weka| {
        weka.upgrade = None;
        weka.set_override("skip_scale_down", true);
    });
    assert_closed(&cluster, "clock", "clock is", |weka| {
        weka.clear_override("skip_scale_down");
        weka.skew = 3600;
    });
    assert_closed(&cluster, "mode", "does not say its mode", |weka| {
        weka.skew = 0;
        let first = first_container(weka);
        weka.container_mut(first).mode = None;
    });
    assert_closed(&cluster, "identifiers", "machine identifiers", |weka| {
        let first = first_container(weka);
        let container = weka.container_mut(first);
        container.mode = Some("backend".to_owned());
        container.machine_identifier = "another".to_owned();
    });
    assert_closed(
        &cluster,
        "four containers",
        "4 backend containers",
        |weka| {
            let first = first_container(weka);
            let (second, instance) = (first + 1, weka.containers[&first].instance_id.clone());
            let identifier = weka.containers[&second].machine_identifier.clone();
            weka.container_mut(first).machine_identifier = identifier;
            weka.add_container(&instance, "compute1", 17000)
                .expect("it runs");
        },
    );
    assert_closed(
        &cluster,
        "short list",
        "backend containers and counts",
        |weka| {
            let fourth = *weka.containers.keys().last().expect("there are some");
            weka.containers.remove(&fourth);
            let instance = weka.containers[&first_container(weka)].instance_id.clone();
            let short = weka.hosts_without(&instance);
            weka.api
                .fault(Fault::of("hosts_list", Action::Reply(short)));
        },
    );
    assert_closed(&cluster, "empty list", "lists no containers", |weka| {
        weka.api.end_faults();
        weka.api
            .fault(Fault::of("hosts_list", Action::Reply(json!({}))));
    });
    assert_closed(&cluster, "foreign list", "no member of the group", |weka| {
        weka.api.end_faults();
        weka.api.fault(Fault::of("hosts_list", Action::Foreign));
    });
    assert_closed(
        &cluster,
        "foreign cluster",
        "another cluster answers",
        |weka| {
            weka.api.end_faults();
            weka.api.fault(Fault::of("status", Action::Foreign));
        },
    );
    assert_closed(&cluster, "failing list", "hosts_list", |weka| {
        weka.api.end_faults();
        weka.api
            .fault(Fault::refusal("hosts_list", "internal error"));
    });
    assert_closed(&cluster, "all dead", "no usable backend", |weka| {
        weka.api.end_faults();
        let machines: Vec<String> = weka.machines.keys().cloned().collect();
        machines
            .iter()
            .for_each(|id| weka.machine_mut(id).power = Power::Down);
    });

    // One that is dead, and one that is in no cluster, are passed over: with the others the gate is open again.
    cluster.weka.with(|weka| {
        let machines: Vec<String> = weka.machines.keys().cloned().collect();
        machines
            .iter()
            .for_each(|id| weka.machine_mut(id).power = Power::Up);
        weka.shape = Shape::Old;
        weka.api.fault(Fault::stem(&address));
    });
    cluster.forget_calls();
    let minute = cluster.run();
    assert_eq!(minute.status, "SUCCEEDED", "{minute:?}");
    let changes = cluster.changes();
    assert!(
        changes.contains(&"cluster_deactivate_hosts".to_owned()),
        "{changes:?}"
    );
    assert_eq!(cluster.draining().len(), 1);
}

#[test]
fn a_target_that_can_not_be_is_refused_every_minute() {
    let cluster = Cluster::start(7);
    cluster.minute();
    cluster.minute();
    for _ in 0..3 {
        cluster.resize(5);
        cluster.forget_calls();
        let minute = cluster.minute();
        assert_eq!(minute.status, "FAILED", "{minute:?}");
        assert!(
            minute.errors.contains("needs at least 6"),
            "{}",
            minute.errors
        );
        assert_eq!(cluster.changes(), [""; 0]);
    }

    // A typo of one minute drains nothing: it is not below the floor, and gone with the next run.
    cluster.resize(7);
    cluster.minute();
    cluster.resize(6);
    cluster.forget_calls();
    cluster.minute();
    assert_eq!(cluster.changes(), [""; 0]);
    cluster.resize(7);
    cluster.minute();
    assert_eq!(cluster.changes(), [""; 0]);

    // What is stored would not fit on six.
    cluster.weka.with(|weka| weka.fill(0.97));
    cluster.resize(6);
    cluster.minute();
    for _ in 0..2 {
        let minute = cluster.minute();
        assert_eq!(minute.status, "FAILED", "{minute:?}");
        assert!(
            minute.errors.contains("do not fit on 6 machines"),
            "{}",
            minute.errors
        );
        assert_eq!(cluster.changes(), [""; 0]);
    }
    let in_use = cluster.weka.with(|weka| {
        let drives = weka.drives.values();
        drives
            .filter(|drive| drive.status == DriveStatus::Active)
            .count()
    });
    assert_eq!(in_use, 14);
}

#[test]
fn refused_credentials_are_left_alone_until_they_change() {
    let cluster = Cluster::start(6);
    assert_eq!(cluster.minute().status, "SUCCEEDED");
    cluster.forget_calls();
    let logins = |cluster: &Cluster| {
        cluster
            .weka
            .with(|weka| weka.api.counts.get("user_login").copied().unwrap_or(0))
    };

    cluster
        .weka
        .with(|weka| weka.api.set_user("admin", "another", "ClusterAdmin"));
    let before = logins(&cluster);
    let minute = cluster.minute();
    assert!(
        minute.errors.contains("refused the login"),
        "{}",
        minute.errors
    );
    assert_eq!(
        logins(&cluster),
        before + 1,
        "Weka locks a user after five failures"
    );
    for _ in 0..3 {
        let minute = cluster.minute();
        assert!(
            minute
                .errors
                .contains("Weka refused the stored credentials"),
            "{}",
            minute.errors
        );
    }
    assert_eq!(logins(&cluster), before + 1);
    assert_eq!(cluster.changes(), [""; 0]);

    // Import stores others, and the next run tries them.
    let mut import = cluster
        .sandbox
        .command(&["cluster", "import", "-n", CLUSTER, "-u", "admin"]);
    let import = import
        .env("WEKACTL_PASSWORD", "another")
        .output()
        .expect("it runs");
    assert!(
        import.status.success(),
        "{}",
        String::from_utf8_lossy(&import.stderr)
    );
    assert_eq!(cluster.minute().status, "SUCCEEDED");
}
