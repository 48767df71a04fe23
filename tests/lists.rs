//! What only looks: lists, scripts, and questions to Weka. Nothing of it changes anything.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::cluster::{CLUSTER, Cluster};
use crate::support::{PASSWORD, REGION, Run, Sandbox, mutations};

/// The one document that stdout has to be.
#[track_caller]
fn document(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).expect("one JSON document")
}

/// What bash says of a script, which has to be nothing.
#[track_caller]
fn is_bash(script: &str) {
    use std::io::Write as _;
    let mut bash = Command::new("bash")
        .arg("-n")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("there is bash");
    let mut stdin = bash.stdin.take().expect("it is piped");
    stdin.write_all(script.as_bytes()).expect("bash reads");
    drop(stdin);
    let output = bash.wait_with_output().expect("bash ends");
    assert!(output.status.success(), "{output:?}");
}

/// The calls since the last look, by operation; none of them has changed anything.
#[track_caller]
fn reads(sandbox: &Sandbox) -> BTreeMap<String, usize> {
    let calls = sandbox.take_calls();
    assert_eq!(mutations(&calls), [""; 0]);
    let mut counts = BTreeMap::new();
    for call in &calls {
        let operation = call["operation"].as_str().expect("a name").to_owned();
        *counts.entry(operation).or_default() += 1;
    }
    counts
}

#[test]
fn every_weka_stack_and_every_managed_cluster_is_listed_and_nothing_else() {
    let sandbox = Sandbox::start();
    let list = ["cluster", "list"];
    let none = sandbox.wekactl(&list).ok();
    assert_eq!(
        (none.stdout.as_str(), none.stderr.as_str()),
        (
            "",
            "there are no Weka stacks and no managed clusters in eu-central-1\n"
        )
    );
    let none = document(&sandbox.wekactl(&["cluster", "list", "-o", "json"]).ok());
    assert_eq!(none, json!({"region": REGION, "clusters": []}));

    for (number, (name, more)) in [
        ("prod", json!({})),
        ("free", json!({})),
        ("bare", json!({"description": null})),
        ("other", json!({"description": "something else"})),
        ("broken", json!({"status": "ROLLBACK_COMPLETE"})),
    ]
    .into_iter()
    .enumerate()
    {
        let mut stack =
            json!({"name": name, "backends": 5, "network": format!("127.{}", 30 + number)});
        stack
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        let made = sandbox.stack(&stack);
        if name == "bare" {
            let ids = made["backends"].as_array().expect("a list").iter();
            let ids: Vec<&str> = ids.filter_map(|each| each["id"].as_str()).collect();
            sandbox.import_small("by-ids", &["-i", &ids.join(",")]).ok();
        }
    }
    sandbox.import_small("prod", &[]).ok();
    sandbox.take_calls();

    let json_list = document(&sandbox.wekactl(&["clusters", "list", "-o", "json"]).ok());
    let few = reads(&sandbox);
    let clusters = json_list["clusters"].as_array().expect("a list");
    let shown: Vec<(&Value, &Value, bool, &Value)> = clusters
        .iter()
        .map(|each| {
            let has_time = each["created"].as_str().is_some();
            (
                &each["name"],
                &each["managed"],
                has_time,
                &each["stack"]["status"],
            )
        })
        .collect();
    let (yes, no, complete) = (json!(true), json!(false), json!("CREATE_COMPLETE"));
    assert_eq!(
        shown,
        [
            (&json!("by-ids"), &yes, false, &Value::Null),
            (&json!("free"), &no, true, &complete),
            (&json!("prod"), &yes, true, &complete),
        ]
    );
    let text = sandbox.wekactl(&list).ok();
    assert_eq!(text.stderr, "");
    let lines: Vec<Vec<&str>> = text
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0], ["NAME", "CREATED", "MANAGED", "STACK"]);
    assert_eq!(lines[1], ["by-ids", "-", "yes", "-"]);
    assert_eq!(
        (lines[3][0], lines[3][3], lines[3][4]),
        ("prod", "yes", "CREATE_COMPLETE")
    );
    assert_eq!(lines.len(), 4, "{}", text.stdout);

    // Without a word of its stack on its table, as after a dry run of the earlier tool, the cluster is the stack's of
    // its name. Of one that came from none, the table says so.
    let table = |name: &str| format!("arn:aws:dynamodb:{REGION}:123456789012:table/wekactl-{name}");
    let tags_of = |name: &str| {
        let found = json!({"ResourceArn": table(name)});
        sandbox.aws("dynamodb", "list_tags_of_resource", &found)["Tags"].clone()
    };
    let from_none = json!({"Key": "wekactl.io/stack_id", "Value": "none"});
    let tags = tags_of("by-ids");
    assert!(
        tags.as_array()
            .is_some_and(|tags| tags.contains(&from_none)),
        "{tags}"
    );
    let blank = json!({"Key": "wekactl.io/stack_id", "Value": ""});
    let blanked = json!({"ResourceArn": table("prod"), "Tags": [blank]});
    sandbox.aws("dynamodb", "tag_resource", &blanked);
    let unchanged = sandbox.wekactl(&["clusters", "list", "-o", "json"]).ok();
    assert_eq!(document(&unchanged), json_list);
    let tag = json!({"ResourceArn": table("prod"), "TagKeys": ["wekactl.io/stack_id"]});
    sandbox.aws("dynamodb", "untag_resource", &tag);
    let unchanged = sandbox.wekactl(&["clusters", "list", "-o", "json"]).ok();
    assert_eq!(document(&unchanged), json_list);

    // As a destroy leaves it that did not come to its end.
    let mark = json!({
        "ResourceId": "wekactl-by-ids-Backends", "ResourceType": "auto-scaling-group", "PropagateAtLaunch": false,
        "Key": "wekactl.io/destroying", "Value": "true",
    });
    let marked = json!({"Tags": [mark]});
    sandbox.aws("autoscaling", "create_or_update_tags", &marked);
    let text = sandbox.wekactl(&list).ok().stdout;
    let halves: Vec<&str> = text
        .lines()
        .filter(|line| line.contains(" incomplete "))
        .collect();
    assert!(
        matches!(halves[..], [half] if half.starts_with("by-ids ")),
        "{text}"
    );
    let json_list = document(&sandbox.wekactl(&["clusters", "list", "-o", "json"]).ok());
    assert_eq!(json_list["clusters"][0]["incomplete"], json!(true));

    // However much else there is: each list once, to its last page.
    sandbox.post(
        "populate",
        &json!({"stacks": 130, "tables": 120, "groups": 60, "functions": 20, "confusing": "prod"}),
    );
    sandbox.take_calls();
    let among_others = document(&sandbox.wekactl(&["cluster", "list", "-o", "json"]).ok());
    let many = reads(&sandbox);
    let names: Vec<&str> = among_others["clusters"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|each| each["name"].as_str())
        .collect();
    // Those that are named so are others' managed clusters; prod2 is one, too.
    let ours = names.iter().filter(|name| !name.starts_with("other"));
    assert_eq!(
        ours.copied().collect::<Vec<_>>(),
        ["by-ids", "free", "prod", "prod2"]
    );
    let one = |operation: &str| (operation.to_owned(), 1);
    assert_eq!(
        few,
        BTreeMap::from([
            one("DescribeAutoScalingGroups"),
            one("GetCallerIdentity"),
            one("GetResources"),
            one("ListStacks"),
        ])
    );
    assert_eq!(
        many.keys().collect::<Vec<_>>(),
        few.keys().collect::<Vec<_>>()
    );
    assert!(many["ListStacks"] >= 2, "there was one page: {many:?}");
    assert!(many.values().sum::<usize>() < 12, "{many:?}");
}

#[test]
fn the_clients_script_and_the_backends_of_a_managed_cluster() {
    let sandbox = Sandbox::start();
    let stack = sandbox.stack(&json!({"name": CLUSTER, "backends": 5}));
    let import = sandbox.import_small(CLUSTER, &[]).ok();
    sandbox.take_calls();

    // The same script as import has printed, whichever way it is asked for.
    let join = ["cluster", "join-params", "--name", CLUSTER];
    assert_eq!(sandbox.wekactl(&join).ok().stdout, import.stdout);
    let as_json = sandbox.wekactl(&[&join[..], &["-o", "json"]].concat()).ok();
    assert_eq!(document(&as_json)["client_script"], import.stdout.as_str());
    let alias = sandbox
        .wekactl(&[&join[..], &["-l", "weka.example.com."]].concat())
        .ok();
    let host = document(&as_json)["host"]
        .as_str()
        .expect("a name")
        .to_owned();
    assert_eq!(
        alias.stdout,
        import.stdout.replace(&host, "weka.example.com")
    );
    sandbox
        .wekactl(&[&join[..], &["-l", "a;reboot"]].concat())
        .fails(2, &["--dns-alias", "looks like weka.example.com"]);
    reads(&sandbox);

    // A name that was given at import stays the clients' name.
    let zone = json!({"Name": "example.com", "CallerReference": "1"});
    let zone = sandbox.aws("route53", "create_hosted_zone", &zone);
    let zone = zone["HostedZone"]["Id"].as_str().expect("an id").to_owned();
    sandbox.stack(&json!({"name": "named", "backends": 5, "network": "127.31"}));
    let named = ["-l", "named.example.com", "-z", &zone];
    let named = sandbox.import_small("named", &named).ok();
    sandbox.take_calls();
    let join = sandbox
        .wekactl(&["cluster", "join-params", "-n", "named"])
        .ok();
    assert!(
        join.stdout.contains("curl named.example.com:14000/"),
        "{}",
        join.stdout
    );
    assert_eq!(join.stdout, named.stdout);
    reads(&sandbox);

    // The group, and each of its members.
    let id = |number: usize| {
        stack["backends"][number]["id"]
            .as_str()
            .expect("an id")
            .to_owned()
    };
    let sick = json!({"InstanceId": id(0), "HealthStatus": "Unhealthy"});
    sandbox.aws("autoscaling", "set_instance_health", &sick);
    let bare = json!({"AutoScalingGroupName": "wekactl-prod-Backends", "InstanceIds": [id(1)], "ProtectedFromScaleIn": false});
    sandbox.aws("autoscaling", "set_instance_protection", &bare);
    let group = ["hostgroup", "list", "-n", CLUSTER];
    let as_json = document(
        &sandbox
            .wekactl(&[&group[..], &["-o", "json"]].concat())
            .ok(),
    );
    let found = &as_json["hostgroups"][0];
    for (field, value) in [
        ("name", json!("Backends")),
        ("role", json!("backend")),
        ("auto_scaling_group", json!("wekactl-prod-Backends")),
        ("desired", json!(5)),
        ("max", json!(35)),
    ] {
        assert_eq!(found[field], value, "{field}");
    }
    let text = sandbox.wekactl(&group).ok().stdout;
    let instances = found["instances"].as_array().expect("a list");
    assert_eq!(instances.len(), 5);
    for number in 0..5 {
        let wanted = json!({
            "id": id(number),
            "state": "running",
            "lifecycle": "InService",
            "healthy": number != 0,
            "protected_from_scale_in": number != 1,
            "private_ip": stack["backends"][number]["private_ip"],
        });
        assert!(instances.contains(&wanted), "{wanted}: {instances:?}");
        let line = text.lines().find(|line| line.starts_with(&id(number)));
        let words: Vec<&str> = line.expect("a line").split_whitespace().collect();
        let health = if number == 0 { "unhealthy" } else { "healthy" };
        let protected = if number == 1 { "no" } else { "yes" };
        let address = stack["backends"][number]["private_ip"]
            .as_str()
            .expect("an address");
        assert_eq!(
            words[1..],
            ["running", "InService", health, protected, address]
        );
    }
    assert!(text.starts_with("HOSTGROUP"), "{text}");

    // What is not managed has neither.
    for line in [
        &["cluster", "join-params", "-n", "nope"][..],
        &[
            "cluster",
            "join-params",
            "-n",
            "nope",
            "-l",
            "x.example.com",
        ],
        &["hostgroup", "list", "-n", "nope"],
        &["debug", "jrpc", "-n", "nope", "status"],
        &["debug", "join-script", "-n", "nope"],
    ] {
        let run = sandbox.wekactl(line);
        let run = run.fails(1, &["no cluster named nope in eu-central-1: "]);
        assert_eq!(run.stdout, "");
    }
}

#[test]
fn weka_is_asked_through_scale_and_changes_nothing() {
    let cluster = Cluster::start(6);
    let sandbox = &cluster.sandbox;
    let debug = |line: &[&str]| sandbox.wekactl(&[&["debug"], line, &["-n", CLUSTER]].concat());
    cluster.forget_calls();

    let status = document(&debug(&["jrpc", "status"]).ok());
    assert_eq!(status["io_status"], "STARTED");
    let drives = debug(&["jrpc", "disks_list", r#"{"show_removed": false}"#]).ok();
    assert!(
        document(&drives)
            .as_object()
            .is_some_and(|drives| !drives.is_empty())
    );
    let backends = document(&debug(&["backends", "-o", "json"]).ok());
    assert_eq!(
        backends["backends"].as_object().map(serde_json::Map::len),
        Some(18)
    );
    let table = debug(&["backends"]).ok().stdout;
    assert_eq!(table.lines().count(), 19, "{table}");
    for member in cluster.members() {
        assert_eq!(table.matches(&member).count(), 3, "{table}");
    }
    // A backend that can be reached is asked without the function.
    let invoked = |calls: &[Value]| {
        calls
            .iter()
            .filter(|call| call["operation"] == "Invoke")
            .count()
    };
    let calls = sandbox.take_calls();
    assert_eq!(invoked(&calls), 4);
    let address = cluster
        .weka
        .with(|weka| weka.machines.values().next().expect("one").address.clone());
    let direct = debug(&["jrpc", "status", "--address", &address]).ok();
    assert_eq!(document(&direct)["guid"], status["guid"]);
    let calls = sandbox.take_calls();
    assert_eq!(invoked(&calls), 0);

    // What changes something is asked of nobody, either way.
    for way in [&[][..], &["--address", &address]] {
        let line = [
            &["jrpc", "cluster_remove_host", r#"{"host_id": 1}"#][..],
            way,
        ]
        .concat();
        debug(&line).fails(
            1,
            &["cluster_remove_host is not among the methods that are known to change nothing"],
        );
    }
    assert_eq!(invoked(&sandbox.take_calls()), 0);
    debug(&["jrpc", "status", "3"]).fails(2, &["a JSON object or array is wanted"]);

    // No secret on the way, and none in the script for the next machine.
    let script = debug(&["join-script"]).ok().stdout;
    is_bash(&script);
    assert!(
        script.starts_with("#!") && script.contains("CLUSTER='prod'"),
        "{script}"
    );
    assert!(!script.contains(PASSWORD));
    let logs = json!({"logGroupName": "/aws/lambda/wekactl-prod-scale-Backends"});
    let logs = sandbox.aws("logs", "filter_log_events", &logs).to_string();
    assert!(
        logs.contains("answered a question") && !logs.contains(PASSWORD),
        "{logs}"
    );

    // A password that Weka has not.
    cluster
        .weka
        .with(|weka| weka.api.set_user("admin", "another", "ClusterAdmin"));
    let refused = debug(&["jrpc", "status"]);
    refused.fails(
        1,
        &[
            "asking the Weka of cluster prod: ",
            " refused the login of the Weka user",
        ],
    );
    let calls = sandbox.take_calls();
    let tells = |call: &&Value| {
        call["request"]
            .as_str()
            .is_some_and(|text| text.contains(PASSWORD))
    };
    assert_eq!(calls.iter().filter(tells).count(), 0);
    assert_eq!(cluster.changes(), [""; 0]);
}

#[test]
fn shells_complete_and_manuals_are_pages() {
    let sandbox = Sandbox::start();
    let mut scripts = BTreeMap::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let mut command = sandbox.command(&["completion", shell]);
        let output = command.env_remove("AWS_REGION").output().expect("it runs");
        let script = Run::of(&output).ok().stdout;
        for word in ["join-params", "hostgroup", "keep-instances"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
        scripts.insert(shell, script);
    }
    is_bash(&scripts["bash"]);
    sandbox
        .wekactl(&["completion", "tcsh"])
        .fails(2, &["possible values: bash, elvish, fish, powershell, zsh"]);
    let page = |command: &[&str]| sandbox.wekactl(&[&["man"], command].concat());
    let whole = page(&[]).ok().stdout;
    assert!(
        whole.contains(".TH wekactl 1") && whole.contains("self\\-scaling"),
        "{whole}"
    );
    let import = page(&["cluster", "import"]).ok().stdout;
    assert!(
        import.contains(".TH wekactl-cluster-import 1") && import.contains("\\-\\-dns\\-alias"),
        "{import}"
    );
    for line in [&["completion", "bash"][..], &["man"]] {
        let run = sandbox.wekactl(&[line, &["-o", "json"]].concat());
        let run = run.fails(2, &[" is no JSON: leave out --output json"]);
        assert_eq!(run.stdout, "");
    }
    page(&["cluster", "imprt"]).fails(2, &["there is no command cluster imprt"]);
    assert_eq!(sandbox.take_calls().len(), 0);
}
