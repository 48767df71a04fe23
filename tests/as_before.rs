//! As before: import and then destroy leave the account as it was, whatever else is in it, and wherever an import
//! may have died. The backends are terminated, or kept and free; the KMS key pends deletion.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::again::remove_target_group;
use crate::complete::make_zone;
use crate::support::account::{assert_same, kind, without_dying_keys, without_instances};
use crate::support::background::Background;
use crate::support::{APP, PASSWORD, REGION, Sandbox, mutations};

const EMPTY_ZIP: &str = "UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA==";

/// What destroy does with the backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backends {
    Terminated,
    Kept,
}

impl Backends {
    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Terminated => &[],
            Self::Kept => &["--keep-instances"],
        }
    }
}

/// Fails the test unless the account is as it was, but for the backends if they are not kept.
#[track_caller]
pub(crate) fn assert_as_before(
    before: &Value,
    after: &Value,
    stack: &Value,
    keep: bool,
    keys: usize,
) {
    let (mut before, (mut after, dying)) = (before.clone(), without_dying_keys(after));
    let cluster = &stack["name"];
    assert_eq!(dying.len(), keys, "keys that pend deletion: {dying:#?}");
    for key in dying {
        assert_eq!(key["Tags"]["wekactl.io/cluster_name"], *cluster, "{key:#}");
    }
    if !keep {
        let ids = ids(&stack["backends"]);
        for id in &ids {
            let state = &kind(&after, "instances")[id]["State"]["Name"];
            assert_eq!(state, "terminated", "backend {id}");
        }
        for of_kind in ["volumes", "network_interfaces"] {
            let left = kind(&after, of_kind).len();
            before = without_instances(&before, &ids);
            let wanted = kind(&before, of_kind).len();
            assert_eq!(left, wanted, "{of_kind} have outlived the backends");
        }
        after = without_instances(&after, &ids);
    }
    assert_same(&before, &after, "the account after destroy");
}

fn ids(machines: &Value) -> Vec<String> {
    let machines = machines.as_array().expect("machines");
    let id = |machine: &Value| machine["id"].as_str().expect("an id").to_owned();
    machines.iter().map(id).collect()
}

fn request(call: &Value) -> &str {
    call["request"].as_str().unwrap_or_default()
}

/// Nothing of the cluster can be found.
#[track_caller]
fn assert_gone(sandbox: &Sandbox, name: &str) {
    let words = format!("no cluster named {name} in {REGION}");
    sandbox.destroy(name, &[]).fails(1, &[&words]);
    let run = sandbox.destroy(name, &["--if-exists"]).ok();
    assert!(run.stderr.contains(&words), "{}", run.stderr);
}

/// A network interface as user data makes one: it belongs to no stack, and outlives its instance by itself.
fn attach_interface(sandbox: &Sandbox, stack: &Value, instance: &str, device: u32) -> String {
    let name = stack["name"].as_str().expect("a name");
    let made = sandbox.aws(
        "ec2",
        "create_network_interface",
        &json!({
            "SubnetId": stack["subnets"][0], "Groups": stack["security_groups"],
            "Description": format!("wekactl {name}"),
        }),
    );
    let id = made["NetworkInterface"]["NetworkInterfaceId"].as_str();
    let id = id.expect("an id").to_owned();
    sandbox.aws(
        "ec2",
        "attach_network_interface",
        &json!({"NetworkInterfaceId": id, "InstanceId": instance, "DeviceIndex": device}),
    );
    id
}

#[test]
fn destroy_takes_away_what_import_made_and_the_backends() {
    let sandbox = Sandbox::start();
    let stack = sandbox.stack(&json!({"name": "prod", "clients": 2, "classic_lb": true}));
    sandbox.post("populate", &json!({"confusing": "prod"}));
    let zone = make_zone(&sandbox);
    // Somebody else's, in the layer of our name.
    sandbox.aws(
        "lambda",
        "publish_layer_version",
        &json!({
            "LayerName": "wekactl-prod", "Description": "tools for cluster prod2",
            "Content": {"ZipFile": {"__bytes__": EMPTY_ZIP}},
        }),
    );
    let before = sandbox.inventory();
    sandbox
        .import_small(
            "prod",
            &[
                "-t",
                "environment=prod",
                "-l",
                "weka.example.com",
                "-z",
                &zone,
            ],
        )
        .ok();
    let backends = ids(&stack["backends"]);
    for (instance, device) in [(0, 1), (0, 2), (3, 1)] {
        attach_interface(&sandbox, &stack, &backends[instance], device);
    }
    sandbox.take_calls();
    sandbox.destroy("prod", &[]).ok();
    let calls = sandbox.take_calls();
    assert_as_before(&before, &sandbox.inventory(), &stack, false, 1);
    let last = calls
        .iter()
        .rfind(|call| call["operation"] == "ScheduleKeyDeletion");
    let request = last.expect("the key's deletion")["request"]
        .as_str()
        .expect("text");
    assert!(request.contains(r#""PendingWindowInDays":7"#), "{request}");
    assert_gone(&sandbox, "prod");
}

#[test]
fn kept_backends_leave_the_group_twenty_at_a_time_as_they_were_and_free() {
    let sandbox = Sandbox::start();
    // More than AWS detaches in one call.
    let spec = json!({"name": "prod", "backends": 22, "clients": 1, "classic_lb": true});
    let stack = sandbox.stack(&spec);
    sandbox.post("populate", &json!({"confusing": "prod"}));
    let backends = ids(&stack["backends"]);
    sandbox.aws(
        "ec2",
        "modify_instance_attribute",
        &json!({"InstanceId": backends[2], "DisableApiTermination": {"Value": true}}),
    );
    // One has no name, one is no member of the classic load balancer, and one has a name for tags of every kind.
    sandbox.aws(
        "ec2",
        "delete_tags",
        &json!({"Resources": [backends[3]], "Tags": [{"Key": "Name"}]}),
    );
    let name = "Weka «4» in rack=7, é";
    sandbox.aws(
        "ec2",
        "create_tags",
        &json!({"Resources": [backends[4]], "Tags": [{"Key": "Name", "Value": name}]}),
    );
    sandbox.aws(
        "elb",
        "deregister_instances_from_load_balancer",
        &json!({"LoadBalancerName": stack["classic_lb"], "Instances": [{"InstanceId": backends[5]}]}),
    );
    // The tag that everything gets: one has it, one has another value of it.
    for (backend, value) in [(&backends[6], "prod"), (&backends[7], "test")] {
        sandbox.aws(
            "ec2",
            "create_tags",
            &json!({"Resources": [backend], "Tags": [{"Key": "environment", "Value": value}]}),
        );
    }
    let before = sandbox.inventory();
    let import = || {
        sandbox
            .import_small("prod", &["-t", "environment=prod"])
            .ok()
    };
    import();
    sandbox.take_calls();
    sandbox.destroy("prod", &["--keep-instances"]).ok();
    let calls = sandbox.take_calls();
    let detached = calls
        .iter()
        .filter(|call| call["operation"] == "DetachInstances")
        .map(|call| request(call).matches("&InstanceIds.member.").count());
    let mut detached: Vec<usize> = detached.collect();
    detached.sort_unstable();
    assert_eq!(detached, [2, 20]);
    assert_as_before(&before, &sandbox.inventory(), &stack, true, 1);

    // They are out of reach, also of who does not want to keep them.
    assert_gone(&sandbox, "prod");
    assert_as_before(&before, &sandbox.inventory(), &stack, true, 1);

    // Nothing is in the way of another import, nor of another end.
    import();
    sandbox.destroy("prod", &["--keep-instances"]).ok();
    assert_as_before(&before, &sandbox.inventory(), &stack, true, 2);
}

/// Of the name alone nothing follows: only the tag that holds it says whose a thing is.
#[test]
fn a_tag_value_that_equals_the_name_is_not_a_match() {
    let sandbox = Sandbox::start();
    let stack = sandbox.stack(&json!({"name": "prod", "backends": 5}));
    sandbox.post("populate", &json!({"confusing": "prod"}));
    let before = sandbox.inventory();
    let foreign = kind(&before, "kms_keys").values();
    let foreign = foreign.filter(|key| key["Tags"]["environment"] == "prod");
    assert_eq!(foreign.count(), 1);
    assert_gone(&sandbox, "prod");
    assert_same(&before, &sandbox.inventory(), "after a destroy of nothing");

    // Ours is known by its tag where it is known by nothing else.
    sandbox.import_small("prod", &[]).ok();
    let alias = json!({"AliasName": "alias/wekactl-prod"});
    sandbox.aws("kms", "delete_alias", &alias);
    let table = json!({"TableName": "wekactl-prod"});
    sandbox.aws("dynamodb", "delete_table", &table);
    sandbox.destroy("prod", &["--keep-instances"]).ok();
    let mut before = before;
    for id in ids(&stack["backends"]) {
        // What only the table knew.
        before[REGION]["instances"][&id]["Tags"]["Name"] = json!("prod-Backends");
    }
    assert_as_before(&before, &sandbox.inventory(), &stack, true, 1);
}

/// Wherever it is that something can not be removed, or not even be seen.
#[test]
fn a_destroy_that_leaves_something_behind_fails_and_says_what() {
    let sandbox = Sandbox::start();
    let stack = sandbox.stack(&json!({"name": "prod", "backends": 5}));
    let before = sandbox.inventory();
    sandbox.import_small("prod", &[]).ok();
    let refuse = |service: &str, operation: &str| {
        sandbox.fault(&[
            json!({"service": service, "operation": operation, "count": 0, "code": "AccessDeniedException",
                "message": "not today", "status": 403}),
        ]);
    };
    // Whose a thing is can not be told: nothing of it is taken for another's, and nothing is removed.
    sandbox.take_calls();
    for (service, operation) in [
        ("lambda", "GetFunction"),
        ("iam", "ListRoleTags"),
        ("dynamodb", "ListTagsOfResource"),
        ("kms", "ListResourceTags"),
        ("elbv2", "DescribeTags"),
        ("events", "ListTagsForResource"),
        ("stepfunctions", "ListTagsForResource"),
    ] {
        refuse(service, operation);
        sandbox
            .destroy("prod", &[])
            .fails(1, &["error: ", "not today"]);
        assert_eq!(mutations(&sandbox.take_calls()), [""; 0], "{operation}");
    }

    refuse("ec2", "TerminateInstances");
    let run = sandbox.destroy("prod", &[]).fails(1, &["not today"]);
    let left = "warning: left: 5 backends (i-";
    assert!(run.stderr.contains(left), "{}", run.stderr);
    assert!(!run.stderr.contains("no longer managed"), "{}", run.stderr);
    let now = sandbox.inventory();
    for id in ids(&stack["backends"]) {
        assert_eq!(kind(&now, "instances")[&id]["State"]["Name"], "running");
    }

    refuse("lambda", "DeleteFunction");
    let run = sandbox.destroy("prod", &[]).fails(1, &["not today"]);
    assert!(run.stderr.contains("warning: left: "), "{}", run.stderr);
    assert_eq!(kind(&sandbox.inventory(), "functions").len(), 5);

    sandbox.fault(&[]);
    sandbox.destroy("prod", &[]).ok();
    let after = sandbox.inventory();
    let (_, keys) = without_dying_keys(&after);
    assert_as_before(&before, &after, &stack, false, keys.len());
    assert_gone(&sandbox, "prod");
}

/// However short AWS's pages are: an import finds what there is, and makes nothing twice; destroy leaves nothing.
#[test]
fn what_is_on_a_later_page_is_found_too() {
    let sandbox = Sandbox::start();
    let stack = sandbox.stack(&json!({"name": "prod", "backends": 5, "classic_lb": true}));
    sandbox.post(
        "populate",
        &json!({"keys": 4, "tables": 4, "apis": 4, "rules": 4, "state_machines": 4, "functions": 4, "stacks": 4,
            "groups": 4, "confusing": "prod"}),
    );
    let before = sandbox.inventory();
    sandbox.set(&json!({"largest_page": 1}));
    // Tags come in pages, too.
    let tags: Vec<String> = (0..30).map(|number| format!("-tk{number}=v")).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    sandbox.import_small("prod", &tags).ok();
    sandbox.take_calls();
    sandbox.import_small("prod", &[]).ok();
    let calls = sandbox.take_calls();
    assert_eq!(mutations(&calls), [""; 0], "a second import");
    let pages = |operation: &str| {
        let pages = calls.iter().filter(|call| call["operation"] == operation);
        pages.count()
    };
    for operation in ["GetRestApis", "GetApiKeys", "GetUsagePlans"] {
        assert!(pages(operation) > 1, "{operation} came in one page");
    }
    let listed = sandbox.wekactl(&["cluster", "list"]).ok().stdout;
    let is_listed = |name: &str| {
        listed
            .lines()
            .any(|line| line.split_whitespace().next() == Some(name))
    };
    assert!(is_listed("prod") && is_listed("prod2"), "{listed}");

    // The one key, of which nothing but its tag tells.
    let alias = json!({"AliasName": "alias/wekactl-prod"});
    sandbox.aws("kms", "delete_alias", &alias);
    sandbox.destroy("prod", &[]).ok();
    assert_as_before(&before, &sandbox.inventory(), &stack, false, 1);
}

#[test]
fn a_load_balancer_without_target_group_and_a_rule_without_target_are_no_obstacle() {
    let sandbox = Sandbox::start();
    let stack = sandbox.stack(&json!({"name": "prod", "backends": 5}));
    let before = sandbox.inventory();
    sandbox.import_small("prod", &[]).ok();
    let group = "wekactl-prod-Backends";
    let halve = || {
        remove_target_group(&sandbox, &sandbox.inventory());
        let target = json!({"Rule": group, "Ids": ["wekactl"]});
        sandbox.aws("events", "remove_targets", &target);
    };
    halve();
    sandbox.import_small("prod", &[]).ok();
    let now = sandbox.inventory();
    assert_eq!(kind(&now, "target_groups").len(), 1);
    let targets = &kind(&now, "rules")[group]["Targets"];
    assert_eq!(targets.as_array().map(Vec::len), Some(1));
    halve();
    sandbox.destroy("prod", &[]).ok();
    assert_as_before(&before, &sandbox.inventory(), &stack, false, 1);
}

/// Without an import in between that ends what was begun.
#[test]
#[expect(clippy::print_stdout, reason = "shown only when the test fails")]
fn destroy_straight_after_an_import_that_died_leaves_nothing_and_no_backend_protected() {
    let sandbox = Sandbox::start();
    let code = sandbox.small_code();
    for (death, call, backends) in [
        // There is a table, and nothing in it.
        (
            Death::KilledAfter,
            json!({"service": "dynamodb", "operation": "CreateTable"}),
            Backends::Kept,
        ),
        (
            Death::Refused,
            json!({"service": "dynamodb", "operation": "PutItem", "count": 0}),
            Backends::Kept,
        ),
        // Every backend is protected, and none is in the group.
        (
            Death::Refused,
            json!({"service": "autoscaling", "operation": "AttachInstances", "count": 0}),
            Backends::Kept,
        ),
        (
            Death::Refused,
            json!({"service": "autoscaling", "operation": "AttachInstances", "count": 0}),
            Backends::Terminated,
        ),
        // There is a rule without a target.
        (
            Death::Refused,
            json!({"service": "events", "operation": "PutTargets", "count": 0}),
            Backends::Terminated,
        ),
    ] {
        println!("{death:?} at {call}");
        sandbox.post("reset", &json!({}));
        let stack = sandbox.stack(&json!({"name": "prod", "backends": 5, "classic_lb": true}));
        let before = sandbox.inventory();
        let line = ["cluster", "import", "-n", "prod", "-u", "admin"];
        let flags = ["--no-verify", "--lambda-binary", &code];
        die(&sandbox, &[&line[..], &flags].concat(), &call, death);
        if call["operation"] == "AttachInstances" {
            let now = sandbox.inventory();
            for id in ids(&stack["backends"]) {
                let is_protected = &kind(&now, "instances")[&id]["DisableApiTermination"];
                assert_eq!(*is_protected, true, "{id}");
            }
        }
        sandbox.destroy("prod", backends.flags()).ok();
        let after = sandbox.inventory();
        let (_, keys) = without_dying_keys(&after);
        let keep = backends == Backends::Kept;
        assert_as_before(&before, &after, &stack, keep, keys.len());
        assert_gone(&sandbox, "prod");
    }
}

#[test]
fn without_the_table_destroy_finds_what_it_needs_on_the_things_themselves() {
    let sandbox = Sandbox::start();
    let item_gone = |table: &str| {
        let key = json!({"Key": {"S": "cluster-settings"}});
        sandbox.aws(
            "dynamodb",
            "delete_item",
            &json!({"TableName": table, "Key": key}),
        );
    };
    let table_gone = |table: &str| {
        sandbox.aws("dynamodb", "delete_table", &json!({"TableName": table}));
    };
    let accidents: [&dyn Fn(&str); 2] = [&item_gone, &table_gone];
    for (number, accident) in accidents.into_iter().enumerate() {
        for backends in [Backends::Terminated, Backends::Kept] {
            sandbox.post("reset", &json!({}));
            let name = format!("lost{number}");
            let stack = sandbox.stack(&json!({"name": name, "backends": 5, "classic_lb": true}));
            let first = &ids(&stack["backends"])[0];
            sandbox.aws(
                "ec2",
                "modify_instance_attribute",
                &json!({"InstanceId": first, "DisableApiTermination": {"Value": true}}),
            );
            let zone = make_zone(&sandbox);
            let before = sandbox.inventory();
            let flags = ["-l", "weka.example.com", "-z", &zone];
            sandbox.import_small(&name, &flags).ok();
            accident(&format!("wekactl-{name}"));
            sandbox.destroy(&name, backends.flags()).ok();
            let keep = backends == Backends::Kept;
            // The one thing that only the table knew.
            let mut before = before;
            let after = sandbox.inventory();
            for id in ids(&stack["backends"]) {
                before[REGION]["instances"][&id]["Tags"]["Name"] =
                    json!(format!("{name}-Backends"));
            }
            assert_as_before(&before, &after, &stack, keep, 1);
        }
    }
}

#[test]
fn what_the_settings_say_is_given_up_only_where_they_can_not_be_read() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": "prod", "backends": 5}));
    sandbox.import_small("prod", &[]).ok();
    sandbox.take_calls();
    let unanswered = |code: &str, message: &str| {
        sandbox.fault(&[
            json!({"service": "dynamodb", "operation": "GetItem", "count": 0, "code": code, "message": message,
                "status": 400}),
        ]);
    };
    unanswered("ValidationException", "not today");
    let run = sandbox.destroy("prod", &[]).fails(1, &["not today"]);
    assert!(!run.stderr.contains("warning:"), "{}", run.stderr);
    assert_eq!(mutations(&sandbox.take_calls()), [""; 0]);

    unanswered(
        "AccessDeniedException",
        "KMS key access denied: the key is disabled",
    );
    let run = sandbox.destroy("prod", &[]).ok();
    let said = "(AccessDeniedException";
    let warning = run.stderr.lines().find(|line| line.starts_with("warning:"));
    let warning = warning.expect("it is said");
    assert!(warning.contains(said), "{warning}");
    assert!(
        warning.contains("going on without the settings"),
        "{warning}"
    );
    sandbox.fault(&[]);
    assert_gone(&sandbox, "prod");
}

#[test]
fn the_role_of_scale_outlives_its_interfaces() {
    let sandbox = Sandbox::start();
    let stack = sandbox.stack(&json!({"name": "prod", "backends": 5}));
    let before = sandbox.inventory();
    let scale_roles = || -> Vec<String> {
        let inventory = sandbox.inventory();
        let roles = inventory["global"]["roles"].as_object().expect("roles");
        let ours = roles
            .keys()
            .filter(|name| name.starts_with("wekactl-prod-"));
        ours.cloned().collect()
    };

    // Lambda takes its time: destroy waits for it, and says what for.
    sandbox.import_small("prod", &[]).ok();
    sandbox.set(&json!({"eni_linger_seconds": 1.5}));
    sandbox.take_calls();
    sandbox.destroy("prod", &["--keep-instances"]).ok();
    let calls = sandbox.take_calls();
    let is = |call: &&Value, operation: &str, text: &str| {
        call["operation"] == operation
            && call["request"]
                .as_str()
                .is_some_and(|request| request.contains(text))
    };
    let looks = calls
        .iter()
        .filter(|call| is(call, "DescribeNetworkInterfaces", "AWS Lambda VPC ENI"));
    let removed = calls.iter().find(|call| is(call, "DeleteRole", "-scale-"));
    let removed = removed.expect("the role is removed")["start"].as_f64();
    assert!(looks.clone().count() > 2, "it has not waited");
    assert!(
        looks.clone().all(|look| look["end"].as_f64() <= removed),
        "it looks when it is too late"
    );
    assert_as_before(&before, &sandbox.inventory(), &stack, true, 1);

    // Who does not wait is told what is left.
    sandbox.import_small("prod", &[]).ok();
    sandbox.set(&json!({"eni_linger_seconds": 3600}));
    let run = sandbox
        .destroy("prod", &["--keep-instances", "--no-wait"])
        .ok();
    let left = scale_roles();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(
        left[0].starts_with("wekactl-prod-Backends-scale-"),
        "{left:?}"
    );
    assert!(run.stderr.contains(&left[0]), "{}", run.stderr);
    // So it is as long as they are there.
    let run = sandbox.destroy("prod", &["--no-wait", "-o", "json"]).ok();
    let json: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(
        json["left"],
        json!([{"kind": "role", "name": left[0]}]),
        "{json:#}"
    );
    assert_eq!(scale_roles(), left);

    // Lambda has done it, and a later destroy does the rest.
    let inventory = sandbox.inventory();
    let interfaces = kind(&inventory, "network_interfaces").iter();
    for (id, _) in interfaces.filter(|(_, each)| each["InterfaceType"] == "lambda") {
        sandbox.aws(
            "ec2",
            "delete_network_interface",
            &json!({"NetworkInterfaceId": id}),
        );
    }
    sandbox.destroy("prod", &[]).ok();
    assert_as_before(&before, &sandbox.inventory(), &stack, true, 2);
    assert_gone(&sandbox, "prod");
}

/// How an import ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// AWS refuses one call; what was under way ends.
    Refused,
    /// The process is killed while one call has not taken effect.
    KilledBefore,
    /// The process is killed when one call has taken effect and is not yet answered.
    KilledAfter,
}

/// Waits until the one rule there is has met its call.
#[track_caller]
pub(crate) fn wait_until_fired(sandbox: &Sandbox, call: &str) {
    let until = Instant::now() + Duration::from_secs(60);
    while sandbox.get("faults")[0]["fired"] == 0 {
        assert!(Instant::now() < until, "{call} is not made");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An import of which the `nth` of those calls that match is the last.
#[track_caller]
pub(crate) fn die(sandbox: &Sandbox, arguments: &[&str], call: &Value, death: Death) {
    let mut rule = json!({
        "caller": format!("^app:{APP}$"), "mutating": true,
        "action": match death {
            Death::Refused => "error",
            Death::KilledBefore => "hang",
            Death::KilledAfter => "apply_hang",
        },
        "code": "AccessDenied", "status": 403,
    });
    for (field, value) in call.as_object().expect("an object") {
        rule[field] = value.clone();
    }
    sandbox.fault(&[rule]);
    sandbox.take_calls();
    let mut command = sandbox.command(arguments);
    let import = Background::start(command.env("WEKACTL_PASSWORD", PASSWORD));
    if death == Death::Refused {
        import.end().fails(1, &["injected by the sandbox"]);
    } else {
        wait_until_fired(sandbox, &call.to_string());
        import.signal("KILL");
        assert_eq!(import.end().code, -1);
    }
    sandbox.fault(&[]);
    // What was sent before the end takes effect after it.
    sandbox.wait_for_calls("the end of every call", |calls| {
        calls.iter().all(|call| !call["end"].is_null())
    });
}
