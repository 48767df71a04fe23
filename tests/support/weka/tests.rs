//! The simulator itself. What it says of live blocks, and what it refuses, is what every other test rests on.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    Action, Behaviour, CallOutcome, DownContainers, DriveStatus, Exchange, Fault, JoinStep, Layout,
    METHOD_NOT_FOUND, Machine, Power, Shape, State, Weka, model,
};

const MINUTE: Duration = Duration::from_secs(60);

fn instance(number: usize) -> String {
    format!("i-{number:017x}")
}

fn address(number: usize) -> String {
    format!("127.20.1.{}", number + 10)
}

fn machine(number: usize) -> Machine {
    Machine::new(&instance(number), &address(number))
}

fn formed(machines: usize) -> Weka {
    let machines: Vec<Machine> = (0..machines).map(machine).collect();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    Weka::form(&machines, Layout::default(), now)
}

/// One that waits for the joining of one more machine.
fn joined(weka: &mut Weka, number: usize) {
    weka.boot(machine(number));
    weka.join(&instance(number), None).expect("it runs");
}

fn deactivate(weka: &mut Weka, number: usize) {
    let disks = weka.disks_of(&instance(number));
    weka.deactivate_drives(&disks).expect("accepted");
    let hosts = weka.own_containers(&instance(number));
    weka.deactivate_hosts(&hosts).expect("accepted");
}

fn states(weka: &Weka, number: usize) -> Vec<State> {
    let hosts = weka.own_containers(&instance(number));
    hosts
        .iter()
        .map(|host| weka.containers[host].state)
        .collect()
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, model::Refusal>, text: &str) {
    let refusal = outcome.expect_err("it should be refused").0;
    assert!(refusal.contains(text), "{refusal}");
}

/// Makes an API call at an address: the result, or the status and body of anything else.
fn call(weka: &mut Weka, at: usize, token: &str, method: &str, params: Value) -> Value {
    let mut request = json!({"jsonrpc": "2.0", "id": "7", "method": method});
    request["params"] = params;
    match weka.exchange(&address(at), Some(token), &request.to_string()) {
        Exchange::Answered { status: 200, body } => {
            let body: Value = serde_json::from_str(&body).expect("JSON");
            assert_eq!(
                (&body["jsonrpc"], &body["id"]),
                (&json!("2.0"), &json!("7"))
            );
            body.get("result").unwrap_or(&body["error"]).clone()
        }
        other => json!(format!("{other:?}")),
    }
}

fn login(weka: &mut Weka, at: usize) -> String {
    let login = json!(["admin", "Very-Secret-Pa55word"]);
    let tokens = call(weka, at, "", "user_login", login);
    tokens["access_token"].as_str().expect("a token").to_owned()
}

#[test]
fn a_new_cluster_is_whole() {
    let weka = formed(6);
    assert!(weka.is_whole() && weka.data_fits() && weka.is_tolerable());
    assert_eq!(weka.health().readable, 500 * 5);
    let live: Vec<usize> = (0..6)
        .map(|number| weka.live_blocks(&instance(number)))
        .collect();
    assert_eq!(live.iter().sum::<usize>(), 500 * 5);
    assert!(
        live.iter().all(|blocks| (400..440).contains(blocks)),
        "{live:?}"
    );
    assert_eq!(weka.containers.len(), 18);
    assert_eq!(weka.up_machines().len(), 6);
}

#[test]
fn draining_is_finite_and_never_makes_a_block_unreadable() {
    let mut weka = formed(7);
    let whole = weka.health();
    deactivate(&mut weka, 3);
    let mut live = weka.live_blocks(&instance(3));
    assert!(live > 2 * weka.behaviour.drain_rate, "{live}");
    let drives_host = weka.own_containers(&instance(3))[0];
    while live > 0 {
        assert_eq!(weka.containers[&drives_host].state, State::Deactivating);
        refused(weka.remove_host(drives_host), "not INACTIVE");
        refused(
            weka.remove_drives(&weka.disks_of(&instance(3))),
            "not INACTIVE",
        );
        weka.tick(1);
        assert_eq!(weka.health(), whole);
        let left = weka.live_blocks(&instance(3));
        assert!(left < live && live - left <= weka.behaviour.drain_rate);
        live = left;
    }
    assert_eq!(states(&weka, 3), [State::Inactive; 3]);
    assert!(weka.is_out(&instance(3)) && !weka.is_out(&instance(2)));

    let disks = weka.disks_of(&instance(3));
    for host in weka.own_containers(&instance(3)) {
        weka.remove_host(host).expect("it is inactive");
    }
    assert!(matches!(states(&weka, 3)[0], State::Removing(_)));
    weka.tick(1);
    assert!(states(&weka, 3).is_empty());
    assert_eq!(
        weka.drives_json()[format!("DiskId<{}>", disks[0])]["host_id"],
        "HostId<INVALID>"
    );
    weka.remove_drives(&disks).expect("they are inactive");
    assert!(weka.disks_of(&instance(3)).is_empty());
    weka.vanish(&instance(3));
    assert_eq!(weka.losses[0].live_blocks, 0);
    assert!(weka.is_whole() && weka.failed.is_empty());
}

#[test]
fn a_dead_machine_is_rebuilt_elsewhere_and_what_is_left_comes_back_with_it() {
    let mut weka = formed(6);
    let held = weka.live_blocks(&instance(0));
    weka.kill(&instance(0));
    let health = weka.health();
    assert_eq!((health.readable, health.fewest), (2500 - held, 4));
    assert!(!weka.is_whole());
    weka.tick(1);
    let rate = weka.behaviour.rebuild_rate;
    assert_eq!(weka.health().readable, 2500 - held + rate);
    assert_eq!(weka.live_blocks(&instance(0)), held - rate);
    weka.come_back(&instance(0));
    assert_eq!(weka.health().readable, 2500);
    weka.tick(20);
    assert!(weka.is_whole() && weka.failed.is_empty());

    weka.kill(&instance(1));
    weka.behaviour.rebuild_stuck = true;
    weka.tick(10);
    assert_eq!(weka.health().fewest, 4);
    weka.behaviour.rebuild_stuck = false;
    weka.tick(10);
    assert!(weka.is_whole());
    assert_eq!(weka.live_blocks(&instance(1)), 0);
}

#[test]
fn two_failures_are_survived_and_a_third_is_not_promised() {
    let mut weka = formed(6);
    weka.kill(&instance(0));
    weka.vanish(&instance(1));
    assert_eq!(weka.health().fewest, 3);
    assert_eq!(weka.health().unreadable, 0);
    assert!(weka.is_tolerable());
    // Four machines for five blocks: two of them together, which is not whole.
    weka.tick(30);
    assert_eq!((weka.health().fewest, weka.is_whole()), (5, false));
    joined(&mut weka, 6);
    weka.tick(30);
    assert!(weka.is_whole() && weka.failed.is_empty());

    for number in [2, 3, 4] {
        weka.kill(&instance(number));
    }
    assert!(weka.health().unreadable > 0 && !weka.is_tolerable());
    let unreadable = weka.health().unreadable;
    (7..10).for_each(|number| joined(&mut weka, number));
    weka.tick(20);
    // Nothing can be rebuilt of stripes that can not be read.
    assert_eq!(weka.health().unreadable, unreadable);
    weka.come_back(&instance(2));
    assert_eq!(weka.health().unreadable, 0);
}

#[test]
fn a_failure_counts_until_there_are_machines_enough_again() {
    let mut weka = formed(6);
    joined(&mut weka, 6);
    weka.behaviour.drain_rate = 0;
    deactivate(&mut weka, 0);
    deactivate(&mut weka, 1);
    // It held nothing, but without it what drains has to share machines.
    weka.kill(&instance(6));
    weka.tick(1);
    assert!(weka.is_whole());
    assert_eq!(weka.failed.len(), 1);
    joined(&mut weka, 7);
    weka.tick(1);
    assert!(weka.failed.is_empty());
}

#[test]
fn stopped_and_terminated_machines_lose_their_disks() {
    let mut weka = formed(8);
    for number in [0, 1] {
        let held = weka.live_blocks(&instance(number));
        if number == 0 {
            weka.stop(&instance(number));
        } else {
            weka.vanish(&instance(number));
        }
        assert_eq!(weka.losses[number].live_blocks, held);
        assert_eq!(weka.live_blocks(&instance(number)), 0);
        weka.come_back(&instance(number));
        assert!(weka.health().readable < 2500);
        weka.tick(10);
    }
    assert!(weka.machines[&instance(0)].is_up());
    assert_eq!(weka.machines[&instance(1)].power, Power::Gone);
    assert_eq!(weka.up_machines().len(), 7);
    assert!(weka.is_whole() && weka.is_tolerable());
}

#[test]
fn a_reboot_ends_by_itself() {
    let mut weka = formed(6);
    weka.reboot(&instance(2));
    weka.tick(2);
    assert_eq!(weka.up_machines().len(), 5);
    weka.tick(1);
    assert_eq!(weka.up_machines().len(), 6);
}

#[test]
fn what_would_not_fit_or_leave_too_few_machines_is_refused() {
    let mut weka = formed(6);
    let disks = |weka: &Weka, number| weka.disks_of(&instance(number));
    weka.behaviour.keeps_hot_spare = true;
    refused(
        weka.deactivate_drives(&disks(&weka, 0)),
        "at least 6 are required",
    );
    weka.behaviour.keeps_hot_spare = false;
    weka.deactivate_drives(&disks(&weka, 0)).expect("five stay");
    refused(
        weka.deactivate_drives(&disks(&weka, 1)),
        "at least 5 are required",
    );
    refused(
        weka.deactivate_hosts(&weka.own_containers(&instance(1))),
        "at least 5 are required",
    );
    assert_eq!(states(&weka, 1), [State::Active; 3]);
    // One of a machine's drives takes no failure domain away.
    weka.deactivate_drives(&disks(&weka, 1)[..1])
        .expect("the other stays");

    let mut weka = formed(8);
    weka.fill(0.9);
    refused(
        weka.deactivate_drives(&disks(&weka, 0)),
        "Not enough capacity",
    );
    assert!(weka.drives.values().all(|drive| drive.should_be_active));
    // The hot spare is there for what is dead.
    weka.kill(&instance(0));
    weka.deactivate_drives(&disks(&weka, 0))
        .expect("the spare's space is enough");
    weka.tick(20);
    assert!(weka.is_whole() && weka.data_fits());
    refused(weka.deactivate_drives(&[999]), "does not exist");

    // Enough room in all, but not for a block of every stripe on each of the five machines left.
    let mut weka = formed(6);
    weka.fill(0.7);
    weka.drive_failed(disks(&weka, 1)[0]);
    refused(weka.deactivate_drives(&disks(&weka, 0)), "too uneven");
}

#[test]
fn dead_machines_may_go_although_nothing_replaces_them() {
    let mut weka = formed(6);
    for number in [0, 1] {
        weka.kill(&instance(number));
    }
    for number in [0, 1] {
        deactivate(&mut weka, number);
    }
    weka.tick(30);
    assert_eq!(states(&weka, 0), [State::Inactive; 3]);
    assert_eq!(states(&weka, 1), [State::Inactive; 3]);
    assert_eq!(weka.health().fewest, 5);
}

#[test]
fn a_container_that_is_down_leaves_in_one_of_three_ways() {
    for (behaviour, later) in [
        (DownContainers::GoOnToInactive, State::Inactive),
        (DownContainers::GoBackToActive, State::Active),
    ] {
        let mut weka = formed(8);
        weka.behaviour.down_containers = behaviour;
        weka.kill(&instance(0));
        deactivate(&mut weka, 0);
        assert_eq!(states(&weka, 0), [State::Deactivating; 3]);
        weka.tick(10);
        assert_eq!(states(&weka, 0), [later; 3]);
    }
    let mut weka = formed(8);
    weka.behaviour.down_containers = DownContainers::Refused;
    weka.kill(&instance(0));
    refused(
        weka.deactivate_hosts(&weka.own_containers(&instance(0))),
        "is unavailable",
    );
    assert_eq!(states(&weka, 0), [State::Active; 3]);
}

#[test]
fn removals_may_end_where_they_began() {
    let mut weka = formed(7);
    deactivate(&mut weka, 0);
    weka.tick(10);
    weka.behaviour.removals_fail = true;
    let host = weka.own_containers(&instance(0))[0];
    weka.remove_host(host).expect("it is inactive");
    weka.tick(1);
    assert_eq!(states(&weka, 0), [State::Inactive; 3]);
}

#[test]
fn broken_drives_go_by_themselves_and_stuck_ones_do_not() {
    let mut weka = formed(6);
    let disk = weka.disks_of(&instance(0))[0];
    weka.drive_failed(disk);
    assert_eq!(weka.drives[&disk].status, DriveStatus::Failed);
    assert_eq!(weka.health().fewest, 4);
    weka.tick(5);
    assert_eq!(weka.drives[&disk].status, DriveStatus::Inactive);
    assert!(weka.is_whole() && weka.drives[&disk].should_be_active);

    let stuck = weka.disks_of(&instance(1))[0];
    weka.drive_stuck(stuck).expect("accepted");
    weka.tick(30);
    assert_eq!(weka.drives[&stuck].status, DriveStatus::PhasingOut);
    assert!(weka.live_blocks_on(stuck) > 0);
}

#[test]
fn new_machines_take_blocks_over_and_are_then_live_too() {
    let mut weka = formed(6);
    joined(&mut weka, 6);
    assert_eq!(weka.live_blocks(&instance(6)), 0);
    weka.tick(2);
    assert!(weka.live_blocks(&instance(6)) > 0);
    weka.tick(20);
    let live = weka.live_blocks(&instance(6));
    assert!((320..400).contains(&live), "{live}");
    assert!(weka.is_whole());
}

#[test]
fn a_join_that_fails_leaves_what_it_made() {
    for (step, containers) in [
        (JoinStep::Drives, 0),
        (JoinStep::Compute, 1),
        (JoinStep::Frontend, 2),
        (JoinStep::Sign, 3),
        (JoinStep::Scan, 3),
    ] {
        let mut weka = formed(6);
        weka.boot(machine(6));
        refused(weka.join(&instance(6), Some(step)), &format!("{step:?}"));
        assert_eq!(weka.own_containers(&instance(6)).len(), containers);
        assert!(weka.disks_of(&instance(6)).is_empty());
    }
}

#[test]
fn the_leadership_replaces_who_dies_or_leaves_and_keeps_who_drains() {
    let mut weka = formed(8);
    let members = weka.leadership.clone();
    assert_eq!(members, [0, 3, 6, 9, 12]);
    weka.move_leader();
    assert_eq!(weka.leadership[0], 3);
    weka.kill(&instance(1));
    assert_eq!(weka.leadership, [6, 9, 12, 0, 15]);
    deactivate(&mut weka, 2);
    weka.tick(1);
    assert_eq!(
        (weka.draining_leaders(), weka.draining_machines()),
        (1, vec![instance(2)])
    );
    weka.tick(20);
    assert_eq!((weka.draining_leaders(), weka.leadership.len()), (0, 5));
    assert!(!weka.leadership.contains(&6));
    let hosts = weka.hosts_json();
    assert_eq!(hosts["HostId<9>"]["leadership_role"], "LEADER");
    assert_eq!(hosts["HostId<6>"]["member_of_leadership"], false);
}

#[test]
fn addresses_and_host_ids_may_be_used_again() {
    let mut weka = formed(7);
    weka.behaviour.reuses_host_ids = true;
    weka.vanish(&instance(0));
    weka.boot(Machine::new("i-other", &address(0)));
    weka.join("i-other", None).expect("it runs");
    let hosts = weka.hosts_json();
    assert_eq!(
        hosts["HostId<0>"]["host_ip"],
        hosts["HostId<21>"]["host_ip"]
    );
    assert_eq!(hosts["HostId<0>"]["status"], "DOWN");
    assert_eq!(hosts["HostId<21>"]["status"], "UP");
    assert_eq!(hosts["HostId<21>"]["aws"]["instance_id"], "i-other");

    deactivate(&mut weka, 0);
    weka.tick(20);
    for host in 0..3 {
        weka.remove_host(host).expect("it is inactive");
    }
    weka.tick(1);
    joined(&mut weka, 8);
    assert_eq!(weka.own_containers(&instance(8)), [0, 1, 2]);
    let machine_of = |disk: u32| weka.drives[&disk].machine;
    assert_ne!(
        machine_of(weka.disks_of(&instance(0))[0]),
        machine_of(weka.disks_of(&instance(8))[0])
    );
}

#[test]
fn ageing_moves_every_time_of_the_replies_and_not_the_clock() {
    let mut weka = formed(6);
    weka.kill(&instance(1));
    weka.set_override("skip_scale_down", true);
    let before = [
        weka.hosts_json(),
        weka.processes_json(),
        weka.drives_json(),
        weka.overrides_json(),
    ];
    let (now, clock) = (weka.now, weka.status_json()["time"].clone());
    weka.age(90 * MINUTE);
    let after = [
        weka.hosts_json(),
        weka.processes_json(),
        weka.drives_json(),
        weka.overrides_json(),
    ];
    assert_eq!((weka.now, &weka.status_json()["time"]), (now, &clock));
    for (before, after) in before.iter().zip(&after) {
        for (key, entry) in before.as_object().expect("a map") {
            for (field, value) in entry.as_object().expect("a map") {
                let is_time =
                    field.ends_with("_time") || field == "up_since" || field.starts_with("time_");
                let moved = value != &after[key][field];
                assert_eq!(moved, is_time && !value.is_null(), "{key} {field}");
            }
        }
    }
    weka.skew = -7200;
    assert_ne!(weka.status_json()["time"], clock);
}

/// The same keys, and values of the same types; a null may stand for anything.
fn assert_same_shape(at: &str, expected: &Value, found: &Value) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            let keys = |map: &serde_json::Map<String, Value>| -> BTreeSet<String> {
                map.keys().cloned().collect()
            };
            assert_eq!(keys(expected), keys(found), "{at}");
            for (key, value) in expected {
                assert_same_shape(&format!("{at}.{key}"), value, &found[key]);
            }
        }
        (Value::Array(expected), Value::Array(found)) => {
            for (expected, found) in expected.iter().zip(found) {
                assert_same_shape(at, expected, found);
            }
        }
        (Value::Null, _) | (_, Value::Null) => {}
        _ => assert_eq!(
            std::mem::discriminant(expected),
            std::mem::discriminant(found),
            "{at}: {found}"
        ),
    }
}

const STATUS: &str = r#"{"io_status":"STARTED","io_status_changed_time":"2024-02-20T16:21:04Z","status":"OK","upgrade":"",
 "name":"prod","guid":"a1d2","is_cluster":true,"release":"4.2.7","release_hash":"0ab1","init_stage":"INITIALIZED",
 "hot_spare":1,"stripe_data_drives":3,"stripe_protection_drives":2,"active_alerts_count":2,"time":{"cluster_time":""},
 "hosts":{"active_count":18,"total_count":18,"backends":{"active":18,"total":18},"clients":{"active":0,"total":0}},
 "drives":{"active":12,"total":12},"io_nodes":{"active":24,"total":24},
 "nodes":{"black_listed":0,"total":42},
 "buckets":{"active":105,"total":105,"shutting_down":0},
 "capacity":{"total_bytes":30000000000000,"hot_spare_bytes":5000000000000,"unprovisioned_bytes":15000000000000},
 "rebuild":{"enoughActiveFDs":true,"numActiveFDs":6,"requiredFDsForRebuild":3,"progressPercent":0,"stripeDisks":5,
            "isInited":true,
            "protectionState":[{"numFailures":0,"percent":100,"MiB":1000},{"numFailures":1,"percent":0,"MiB":0},{"numFailures":2,"percent":0,"MiB":0}],
            "totalCopiesMiB":0,"totalCopiesDoneMiB":0,"unavailableMiB":0,"unavailablePercent":0},
 "activity":{"num_ops":0,"num_reads":0,"num_writes":0,"sum_bytes_read":0,"sum_bytes_written":0,
             "obs_download_bytes_per_second":0,"obs_upload_bytes_per_second":0},
 "cloud":{"enabled":true,"healthy":true,"proxy":"","url":"https://api.home.weka.io"},
 "licensing":{"io_start_eligibility":true,"mode":"Classic","usage":{"drive_capacity_gb":30000,"usable_capacity_gb":9000,"obs_capacity_gb":0}}}"#;

const HOST: &str = r#"{"uid":"5c6f3c8e-9c14-bd06-9dbf-3f3ff7be8a3f","mode":"backend","container_name":"drives0",
 "machine_identifier":"9c6fe1b0","hostname":"ip-10-0-1-245","host_ip":"10.0.1.245","ips":["10.0.1.245","10.0.1.12"],
 "state":"ACTIVE","status":"UP","added_time":"2024-02-20T09:28:53.407011Z","state_changed_time":"2024-02-20T09:28:53.4Z",
 "start_time":"2024-02-20T09:28:40Z","failure_domain":"DOM-009","failure_domain_id":"FailureDomainId<1>","failure_domain_type":"USER",
 "aws":{"instance_id":"i-0abc","instance_type":"i3en.2xlarge","availability_zone":"eu-west-1a"},
 "sw_version":"4.2.7","mgmt_port":14000,"cores":1,"cores_ids":[1],"drives_dedicated_cores":1,"frontend_dedicated_cores":0,
 "io_nodes":1,"memory":1491075072,"bandwidth":6497,"leadership_role":null,"member_of_leadership":false,
 "last_failure":"","last_failure_code":null,"last_failure_time":null,"is_dedicated":true,"auto_remove_timeout":null}"#;

const DRIVE: &str = r#"{"uuid":"d5c36ee4","host_id":"HostId<9>","node_id":"NodeId<181>","hostname":"ip-10-0-1-245",
 "status":"ACTIVE","should_be_active":true,"attachment":"OK","size_bytes":2500000000000,"block_size":512,
 "vendor":"AMAZON","model":"Amazon EC2 NVMe Instance Storage","serial_number":"AWS","firmware":"0","device_path":"0000:00:1e.0",
 "failure_domain":"FailureDomainId<1>","failure_domain_name":"DOM-009","percentage_used":0,"spares_remaining":100,"spares_threshold":0,
 "added_time":"2024-02-20T09:30:00Z","removed_time":null}"#;

const PROCESS: &str = r#"{"host_id":"HostId<9>","status":"UP","mode":"backend","roles":["MANAGEMENT"],"slot":0,"hostname":"ip-10-0-1-245",
 "ips":["10.0.1.245"],"mgmt_port":14000,"network_mode":"UDP","up_since":"2024-02-20T09:29:10Z",
 "last_fencing_time":null,"last_fencing_reason":null,"is_blacklisted":false,"uid":"","leadership_role":null}"#;

const GROUPS: &str = r#"[{"name":"weka-ig","uid":"","type":"NFS","status":"OK","gateway":"10.0.1.1","subnet_mask":"255.255.255.0",
  "ips":["10.0.1.90"],"allow_manage_gids":true,"ports":[{"host_uid":"","host_id":"HostId<21>","port":"ens5","status":"OK"}]}]"#;

const OVERRIDE: &str = r#"{"override_id":"ManualOverrideId<0>","key":"skip_scale_down","value":true,"enabled":true,"forced":false,
  "bucket_id":"BucketId<INVALID>","bucket_string":"","negate_bucket":false,"comment":"maintenance","time_created":"","time_enabled":""}"#;

#[test]
fn replies_have_the_shapes_of_the_real_ones() {
    let mut weka = formed(6);
    weka.boot(machine(7));
    weka.add_gateway(&instance(7), "weka-ig").expect("it runs");
    weka.set_override("skip_scale_down", true);
    let token = login(&mut weka, 0);
    let mut result = |method: &str| call(&mut weka, 0, &token, method, json!({}));
    let parse = |text: &str| -> Value { serde_json::from_str(text).expect("JSON") };
    for (method, key, example) in [
        ("status", None, STATUS),
        ("hosts_list", Some("HostId<9>"), HOST),
        ("disks_list", Some("DiskId<8>"), DRIVE),
        ("nodes_list", Some("NodeId<180>"), PROCESS),
        ("nodes_list", Some("NodeId<181>"), PROCESS),
        ("interface_group_list", None, GROUPS),
        (
            "manual_override_list",
            Some("ManualOverrideId<0>"),
            OVERRIDE,
        ),
    ] {
        let reply = result(method);
        let found = key.map_or(&reply, |key| &reply[key]);
        assert_same_shape(method, &parse(example), found);
    }
    assert_eq!(
        result("nodes_list")["NodeId<181>"]["roles"],
        json!(["DRIVES"])
    );
    let status = result("status");
    assert_same_shape(
        "rebuild",
        &status["rebuild"],
        &result("system_get_rebuild_status"),
    );
    assert_eq!(
        status["hosts"]["backends"],
        json!({"active": 19, "total": 19})
    );
    let protection = &status["rebuild"]["protectionState"];
    assert_eq!(
        (&protection[0]["percent"], &protection[2]["numFailures"]),
        (&json!(100), &json!(2))
    );
}

#[test]
fn whatever_is_odd_shows_in_the_replies() {
    let mut weka = formed(6);
    let since = weka.now - 181 * MINUTE;
    weka.kill_since(&instance(0), since);
    let client = weka.add_client("i-client", &address(1));
    let fourth = weka.add_container(&instance(2), "extra0", 17000);
    let fourth = fourth.expect("it runs");
    weka.container_mut(9).mode = None;
    weka.container_mut(10).machine_identifier = "another".to_owned();
    weka.container_mut(11).state_changed_time = None;
    weka.container_mut(12).odd_state = Some("THINKING".to_owned());
    weka.container_mut(13).odd_status = Some("PONDERING".to_owned());
    weka.management_mut(15).up_since = None;
    weka.management_down(16, since);
    weka.tells_time = false;
    let (hosts, processes) = (weka.hosts_json(), weka.processes_json());
    let host = |host: u32| &hosts[format!("HostId<{host}>")];
    assert_eq!(host(0)["status"], "DOWN");
    assert_eq!(
        processes["NodeId<0>"]["last_fencing_time"],
        weka.time(since)
    );
    assert_eq!(
        (&host(client)["mode"], &host(client)["host_ip"]),
        (&json!("client"), &host(3)["host_ip"])
    );
    assert_eq!(host(fourth)["host_ip"], host(6)["host_ip"]);
    assert_eq!(weka.own_containers(&instance(2)).len(), 4);
    assert!(host(9).get("mode").is_none());
    assert_ne!(
        host(10)["machine_identifier"],
        host(11)["machine_identifier"]
    );
    assert!(host(11)["state_changed_time"].is_null());
    assert_eq!(
        (&host(12)["state"], &host(13)["status"]),
        (&json!("THINKING"), &json!("PONDERING"))
    );
    assert!(processes["NodeId<300>"]["up_since"].is_null());
    assert_eq!(
        (&host(16)["status"], &host(17)["status"]),
        (&json!("DOWN"), &json!("UP"))
    );
    assert_eq!(weka.status_json()["time"], json!({}));

    weka.management_up(16);
    assert_eq!(weka.hosts_json()["HostId<16>"]["status"], "UP");
    weka.behaviour.knows_instances = false;
    assert!(weka.hosts_json()["HostId<3>"].get("aws").is_none());
    let disk = weka.disks_of(&instance(3))[0];
    weka.drive_inactive(disk);
    let drives = weka.drives_json();
    let drive = &drives[format!("DiskId<{disk}>")];
    assert_eq!(
        (&drive["status"], &drive["should_be_active"]),
        (&json!("INACTIVE"), &json!(true))
    );
    assert_eq!(weka.live_blocks_on(disk), 0);
    weka.set_override("skip_scale_down", false);
    weka.set_override("other", true);
    weka.clear_override("skip_scale_down");
    let overrides = weka.overrides_json();
    let keys: Vec<&Value> = overrides
        .as_object()
        .expect("a map")
        .values()
        .map(|entry| &entry["key"])
        .collect();
    assert_eq!(keys, ["other"]);
}

#[test]
fn the_new_shape_says_it_in_new_fields() {
    let mut weka = formed(6);
    weka.shape = Shape::New;
    weka.upgrade = Some("rolling".to_owned());
    let status = weka.status_json();
    assert!(status.get("upgrade").is_none() && status.get("hosts").is_none());
    assert_eq!(status["upgrade_info"]["upgrade_phase"], "rolling");
    assert_eq!(
        status["containers"]["backends"],
        json!({"active": 18, "total": 18})
    );
    assert_eq!(status["servers"]["total"], 6);
    weka.upgrade = None;
    assert_eq!(weka.status_json()["upgrade_info"]["upgrade_phase"], "");
}

#[test]
fn protection_is_all_or_less_than_100_percent() {
    let mut weka = formed(6);
    let percent = |weka: &Weka, failures: usize| {
        weka.rebuild_json()["protectionState"][failures]["percent"].clone()
    };
    assert_eq!(percent(&weka, 0), 100);
    weka.kill(&instance(0));
    assert_ne!(percent(&weka, 1), 0);
    while !weka.is_whole() {
        assert_ne!(percent(&weka, 0), 100);
        assert_eq!(weka.status_json()["status"], "REBUILDING");
        weka.tick(1);
    }
    assert_eq!(percent(&weka, 0), 100);
    for number in [1, 2, 3] {
        weka.kill(&instance(number));
    }
    assert_ne!(weka.rebuild_json()["unavailablePercent"], 0);
    assert_eq!(weka.rebuild_json()["enoughActiveFDs"], false);
}

#[test]
fn who_may_call() {
    let mut weka = formed(6);
    let release = json!({"software_release": "4.2.7"});
    assert_eq!(
        call(&mut weka, 0, "", "client_query_backend", json!({})),
        release
    );
    let unauthorised = |reply: &Value| {
        reply
            .as_str()
            .is_some_and(|text| text.contains("status: 401"))
    };
    assert!(unauthorised(&call(
        &mut weka,
        0,
        "access-1",
        "status",
        json!({})
    )));

    let tokens = call(
        &mut weka,
        1,
        "",
        "user_login",
        json!(["admin", "Very-Secret-Pa55word"]),
    );
    let access = tokens["access_token"].as_str().expect("a token");
    assert_eq!(
        call(&mut weka, 2, access, "status", json!({}))["io_status"],
        "STARTED"
    );
    let refresh = &tokens["refresh_token"];
    assert!(unauthorised(&call(
        &mut weka,
        2,
        refresh.as_str().expect("a token"),
        "status",
        json!({})
    )));
    weka.advance(Duration::from_secs(300));
    assert!(unauthorised(&call(
        &mut weka,
        2,
        access,
        "status",
        json!({})
    )));
    let fresh = call(&mut weka, 2, "", "user_refresh_token", json!([refresh]));
    let access = fresh["access_token"].as_str().expect("a token");
    assert_eq!(
        call(&mut weka, 2, access, "status", json!({}))["io_status"],
        "STARTED"
    );
    weka.api.expire_tokens();
    assert!(unauthorised(&call(
        &mut weka,
        2,
        access,
        "status",
        json!({})
    )));

    weka.api.set_user("reader", "r", "ReadOnly");
    let tokens = call(&mut weka, 0, "", "user_login", json!(["reader", "r"]));
    let access = tokens["access_token"].as_str().expect("a token");
    assert!(call(&mut weka, 0, access, "hosts_list", json!({})).is_object());
    let event = call(
        &mut weka,
        0,
        access,
        "events_trigger_custom",
        json!({"message": "m"}),
    );
    assert!(
        event.as_str().is_some_and(|text| text.contains("403")),
        "{event}"
    );

    // A changed password ends the tokens; five refused logins lock the user.
    weka.api.set_user("admin", "new", "ClusterAdmin");
    assert!(unauthorised(&call(
        &mut weka,
        0,
        "",
        "user_refresh_token",
        json!([refresh])
    )));
    for _ in 0..5 {
        assert!(unauthorised(&call(
            &mut weka,
            0,
            "",
            "user_login",
            json!(["admin", "old"])
        )));
    }
    assert!(unauthorised(&call(
        &mut weka,
        0,
        "",
        "user_login",
        json!(["admin", "new"])
    )));
    assert_eq!(weka.api.counts["user_login"], 8);
}

#[test]
fn calls_change_the_cluster_and_are_recorded_with_what_they_did() {
    let mut weka = formed(7);
    let token = login(&mut weka, 0);
    let disks = weka.drives_json();
    let uuids: Vec<&Value> = weka
        .disks_of(&instance(0))
        .iter()
        .map(|disk| &disks[format!("DiskId<{disk}>")]["uuid"])
        .collect();
    let drives = json!({"drive_uuids": uuids});
    assert!(
        call(
            &mut weka,
            1,
            &token,
            "cluster_deactivate_drives",
            drives.clone()
        )
        .is_null()
    );
    let hosts = json!({"host_ids": ["HostId<0>", "HostId<1>", "HostId<2>"], "skip_resource_validation": false});
    assert!(call(&mut weka, 1, &token, "cluster_deactivate_hosts", hosts).is_null());
    let remove = json!({"host_id": 0, "no_wait": true});
    let refused = call(&mut weka, 1, &token, "cluster_remove_host", remove.clone());
    assert_eq!(refused["message"], "HostId<0> is not INACTIVE");
    weka.tick(10);
    let token = login(&mut weka, 0);
    for host in 0..3 {
        let remove = json!({"host_id": host, "no_wait": true});
        assert!(call(&mut weka, 1, &token, "cluster_remove_host", remove).is_null());
    }
    assert!(
        call(
            &mut weka,
            1,
            &token,
            "cluster_remove_drives",
            drives.clone()
        )
        .is_null()
    );
    for (method, params) in [
        ("cluster_remove_host", json!({"host_id": "HostId<0>"})),
        (
            "cluster_deactivate_hosts",
            json!({"host_ids": [3], "skip_resource_validation": false}),
        ),
        (
            "cluster_deactivate_hosts",
            json!({"host_ids": ["HostId<3>"]}),
        ),
        ("cluster_deactivate_drives", json!(["x"])),
    ] {
        assert_eq!(call(&mut weka, 1, &token, method, params)["code"], -32602);
    }
    weka.tick(1);
    assert_eq!(
        call(&mut weka, 0, &token, "status", json!({}))["code"],
        METHOD_NOT_FOUND
    );

    let outcomes: Vec<(&str, bool)> = weka
        .calls
        .iter()
        .map(|call| (call.method.as_str(), call.outcome == CallOutcome::Applied))
        .collect();
    assert_eq!(
        outcomes[..7],
        [
            ("cluster_deactivate_drives", true),
            ("cluster_deactivate_hosts", true),
            ("cluster_remove_host", false),
            ("cluster_remove_host", true),
            ("cluster_remove_host", true),
            ("cluster_remove_host", true),
            ("cluster_remove_drives", true),
        ]
    );
    assert!(weka.calls.iter().all(|call| call.before == call.after));
    assert!(weka.calls[2].live > 0);
    assert_eq!(weka.calls[6].live, 0);
    assert_eq!(
        (&weka.calls[0].params, &weka.calls[0].address),
        (&drives, &address(1))
    );
}

#[test]
fn ports_leave_their_interface_group() {
    let mut weka = formed(6);
    weka.boot(machine(7));
    let host = weka.add_gateway(&instance(7), "weka-ig").expect("it runs");
    let token = login(&mut weka, 0);
    let port = json!({"name": "weka-ig", "host_id": format!("HostId<{host}>"), "port": "ens5"});
    assert!(
        call(
            &mut weka,
            0,
            &token,
            "interface_group_delete_port",
            port.clone()
        )
        .is_null()
    );
    assert_eq!(weka.interface_groups_json()[0]["ports"], json!([]));
    assert_ne!(
        call(&mut weka, 0, &token, "interface_group_delete_port", port),
        Value::Null
    );
}

#[test]
fn calls_go_wrong_as_told() {
    let mut weka = formed(6);
    let token = login(&mut weka, 0);
    let event = json!({"message": "m"});
    let mut send = |fault: Fault| {
        weka.api.end_faults();
        weka.api.fault(fault.times(1));
        let reply = call(&mut weka, 0, &token, "events_trigger_custom", event.clone());
        let made = weka.calls.last().expect("it is recorded");
        (reply.to_string(), made.outcome.clone(), made.answered)
    };
    for (action, reply, outcome, answered) in [
        (Action::Status(503), "503", CallOutcome::NotDone, true),
        (Action::Slow(MINUTE), "Slow", CallOutcome::Applied, true),
        (
            Action::Unanswered,
            "Unanswered",
            CallOutcome::Applied,
            false,
        ),
        (Action::Lost, "Unanswered", CallOutcome::NotDone, false),
        (
            Action::RefuseConnection,
            "Refused",
            CallOutcome::NotDone,
            false,
        ),
        (Action::Reply(json!(1)), "1", CallOutcome::NotDone, true),
    ] {
        let (text, was, had) = send(Fault::of("events_trigger_custom", action));
        assert!(text.contains(reply), "{text}");
        assert_eq!((was, had), (outcome, answered), "{reply}");
    }
    let (text, outcome, _) = send(Fault::refusal("events_trigger_custom", "no room"));
    assert!(text.contains("no room") && outcome == CallOutcome::Refused("no room".to_owned()));

    weka.api.end_faults();
    let short = weka.hosts_without(&instance(0));
    assert_eq!(short.as_object().map(serde_json::Map::len), Some(15));
    weka.api.fault(
        Fault::of("hosts_list", Action::Reply(short.clone()))
            .after(1)
            .times(1),
    );
    let mut lengths = Vec::new();
    for _ in 0..3 {
        let hosts = call(&mut weka, 0, &token, "hosts_list", json!({}));
        lengths.push(hosts.as_object().map(serde_json::Map::len));
    }
    assert_eq!(lengths, [Some(18), Some(15), Some(18)]);

    weka.api
        .fault(Fault::of("*", Action::Foreign).at(&address(2)));
    let foreign = call(&mut weka, 2, &token, "status", json!({}))["guid"].clone();
    assert_ne!(foreign, weka.guid);
    assert_eq!(
        call(&mut weka, 1, &token, "status", json!({}))["guid"],
        weka.guid
    );
    let hosts = call(&mut weka, 2, &token, "hosts_list", json!({}));
    assert_ne!(hosts["HostId<0>"]["host_ip"], address(0));
    weka.api.fault(Fault::stem(&address(3)));
    assert_eq!(
        call(&mut weka, 3, &token, "status", json!({}))["code"],
        METHOD_NOT_FOUND
    );
}

#[test]
fn only_machines_that_run_weka_answer() {
    let mut weka = formed(6);
    let reply =
        |weka: &mut Weka, at| call(weka, at, "", "client_query_backend", json!({})).to_string();
    weka.kill(&instance(0));
    weka.boot(machine(6));
    weka.management_down(weka.own_containers(&instance(1))[0], weka.now);
    for silent in [0, 1, 6, 7] {
        assert!(reply(&mut weka, silent).contains("Refused"), "{silent}");
    }
    assert!(reply(&mut weka, 2).contains("4.2.7"));
    weka.machine_mut(&instance(6)).installed = true;
    assert!(reply(&mut weka, 6).contains("4.2.7"));
    let token = login(&mut weka, 2);
    assert_eq!(
        call(&mut weka, 6, &token, "hosts_list", json!({}))["code"],
        METHOD_NOT_FOUND
    );
    weka.kill(&instance(6));
    assert!(reply(&mut weka, 6).contains("Refused"));
    (0..6).for_each(|number| weka.kill(&instance(number)));
    assert!((0..6).all(|number| reply(&mut weka, number).contains("Refused")));
    let readable = weka.health().readable;
    weka.tick(10);
    assert_eq!((readable, weka.health().readable), (0, 0));
}

/// What the random histories below consist of.
#[derive(Clone, Debug)]
enum Event {
    Kill(usize),
    Stop(usize),
    Vanish(usize),
    ComeBack(usize),
    Reboot(usize),
    Join,
    FailDrive(usize),
    Deactivate(usize),
    /// Removes and terminates what is out.
    Clean,
    Tick(u32),
}

fn any_event() -> impl Strategy<Value = Event> {
    let number = 0..12_usize;
    prop_oneof![
        2 => number.clone().prop_map(Event::Kill),
        1 => number.clone().prop_map(Event::Stop),
        1 => number.clone().prop_map(Event::Vanish),
        3 => number.clone().prop_map(Event::ComeBack),
        1 => number.clone().prop_map(Event::Reboot),
        4 => Just(Event::Join),
        1 => number.clone().prop_map(Event::FailDrive),
        3 => number.prop_map(Event::Deactivate),
        3 => Just(Event::Clean),
        8 => (1..15_u32).prop_map(Event::Tick),
    ]
}

fn clean(weka: &mut Weka) {
    let known: Vec<String> = weka.machines.keys().cloned().collect();
    for instance in known {
        let hosts = weka.own_containers(&instance);
        if hosts.is_empty()
            || hosts
                .iter()
                .any(|host| weka.containers[host].state != State::Inactive)
        {
            continue;
        }
        for host in hosts {
            weka.remove_host(host).expect("it is inactive");
        }
        assert!(weka.is_out(&instance));
        weka.vanish(&instance);
        assert_eq!(weka.losses.last().map(|loss| loss.live_blocks), Some(0));
    }
}

fn happen(weka: &mut Weka, event: &Event, next: &mut usize) {
    let known = |number: usize| number < *next;
    match *event {
        Event::Kill(number) if known(number) => weka.kill(&instance(number)),
        Event::Stop(number) if known(number) => weka.stop(&instance(number)),
        Event::Vanish(number) if known(number) => weka.vanish(&instance(number)),
        Event::ComeBack(number) if known(number) => weka.come_back(&instance(number)),
        Event::Reboot(number) if known(number) => weka.reboot(&instance(number)),
        Event::Join => {
            joined(weka, *next);
            *next += 1;
        }
        Event::FailDrive(number) if known(number) => {
            if let Some(disk) = weka.disks_of(&instance(number)).first() {
                weka.drive_failed(*disk);
            }
        }
        Event::Deactivate(number) if known(number) => {
            let hosts = weka.own_containers(&instance(number));
            weka.deactivate_hosts(&hosts).ok();
        }
        Event::Clean => clean(weka),
        Event::Tick(minutes) => weka.tick(minutes),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What Weka accepts and does by itself never costs a block, and whatever a tool empties first, data is only lost
    /// when more than two machines have failed.
    #[test]
    fn data_is_lost_only_when_more_fails_than_is_tolerable(
        machines in 6..9_usize,
        events in proptest::collection::vec(any_event(), 1..60),
    ) {
        let mut weka = formed(machines);
        let mut next = machines;
        for event in &events {
            let before = weka.health();
            happen(&mut weka, event, &mut next);
            let after = weka.health();
            if matches!(event, Event::Deactivate(_) | Event::Clean | Event::Tick(_) | Event::Join | Event::ComeBack(_)) {
                prop_assert!(before.readable <= after.readable, "{:?}: {:?} {:?}", event, before, after);
            }
            if weka.is_tolerable() {
                prop_assert_eq!(after.unreadable, 0, "{:?}", event);
            }
            for (disk, drive) in &weka.drives {
                prop_assert!(drive.status != DriveStatus::Inactive || weka.live_blocks_on(*disk) == 0);
            }
        }
    }
}
