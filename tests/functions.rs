//! What import uploads really runs: each function as Lambda runs it, with nothing but its own role, and the schedule
//! that calls them.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::support::{PASSWORD, REGION, Sandbox};

const CLUSTER: &str = "prod";

/// A sandbox with an imported cluster, and what its stack consists of.
fn imported() -> (Sandbox, Value) {
    let sandbox = Sandbox::start();
    let stack = sandbox.stack(&json!({"name": CLUSTER, "backends": 6, "clients": 1}));
    // Otherwise scale would be asked whether the credentials work.
    sandbox.import(CLUSTER, &["--no-verify"]).ok();
    (sandbox, stack)
}

fn function(kind: &str) -> String {
    format!("wekactl-{CLUSTER}-{kind}-Backends")
}

/// Invokes a function as the state machine does: its answer, or what it failed with.
fn invoke(sandbox: &Sandbox, kind: &str, input: &Value) -> Result<Value, (String, String)> {
    let payload = json!({"__bytes__": BASE64.encode(input.to_string())});
    let call = json!({"FunctionName": function(kind), "Payload": payload});
    let answer = sandbox.aws("lambda", "invoke", &call);
    assert_eq!(answer["StatusCode"], 200, "{answer}");
    let payload = answer["Payload"].as_str().expect("a payload");
    let payload = BASE64.decode(payload).expect("base64");
    let payload: Value = serde_json::from_slice(&payload).expect("JSON");
    if answer["FunctionError"].is_null() {
        return Ok(payload);
    }
    let part = |name: &str| payload[name].as_str().unwrap_or_default().to_owned();
    Err((part("errorType"), part("errorMessage")))
}

/// What the runs of functions left in the sandbox's records.
fn runs(sandbox: &Sandbox) -> Vec<Value> {
    let runs = sandbox.get("invocations");
    runs.as_array().expect("a list").clone()
}

fn last_run(sandbox: &Sandbox) -> Value {
    runs(sandbox).pop().expect("a run")
}

/// All that the function has written into its log group.
fn log_of(sandbox: &Sandbox, kind: &str) -> String {
    let group = json!({"logGroupName": format!("/aws/lambda/{}", function(kind))});
    let events = sandbox.aws("logs", "filter_log_events", &group);
    let lines = events["events"].as_array().expect("a list").iter();
    lines
        .filter_map(|event| event["message"].as_str())
        .collect::<Vec<_>>()
        .join("\n")
}

fn texts(list: &Value, field: &str) -> BTreeSet<String> {
    let items = list.as_array().expect("a list").iter();
    items
        .map(|item| item[field].as_str().expect("a string").to_owned())
        .collect()
}

/// The members in what fetch says, by the names of their columns.
fn rows(info: &Value) -> Vec<BTreeMap<String, Value>> {
    let fields = info["InstanceFields"].as_array().expect("a list");
    let fields = || {
        fields
            .iter()
            .filter_map(Value::as_str)
            .map(ToOwned::to_owned)
    };
    let members = info["Instances"].as_array().expect("a list").iter();
    members
        .map(|row| {
            fields()
                .zip(row.as_array().expect("a row").clone())
                .collect()
        })
        .collect()
}

#[test]
fn fetch_counts_the_group_and_tells_no_secret() {
    let (sandbox, stack) = imported();
    let input = json!({"execution": "arn:aws:states:x:1:execution:y:z", "anything": [1, null]});
    let info = invoke(&sandbox, "fetch", &input).expect("fetch succeeds");

    assert_eq!(info["Version"], 1);
    assert_eq!(info["Cluster"], CLUSTER);
    assert_eq!(info["Execution"], input["execution"]);
    assert_eq!(info["DesiredCapacity"], 6);
    // Members are rows: a thousand of them have to fit into the execution's history.
    let members = rows(&info);
    let column = |name: &str| -> BTreeSet<String> {
        let values = members.iter().map(|member| member[name].as_str());
        values
            .map(|value| value.expect("a string").to_owned())
            .collect()
    };
    assert_eq!(column("Id"), texts(&stack["backends"], "id"));
    assert_eq!(column("PrivateIp"), texts(&stack["backends"], "private_ip"));
    for member in &members {
        assert_eq!(
            (&member["Lifecycle"], &member["State"], &member["Attached"]),
            (&json!("InService"), &json!("running"), &json!(true))
        );
    }
    let addresses: BTreeSet<&str> = info["BackendIps"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(addresses.len(), 6);
    // Present and null: the state machine's choice fails on a path that is absent.
    assert_eq!(info.get("TransientErrors"), Some(&Value::Null));

    // No credentials in what goes into the execution's history, nor in the log.
    let log = log_of(&sandbox, "fetch");
    for text in [info.to_string(), log.clone()] {
        for secret in [
            PASSWORD,
            &BASE64.encode(PASSWORD),
            "admin",
            &BASE64.encode("admin"),
            "Password",
        ] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    // The log is one JSON object a line, in the group that import has made.
    assert!(log.contains("START RequestId"), "{log}");
    let said: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    assert_eq!(said.len(), 1, "{log}");
    assert_eq!(
        said[0]["fields"],
        json!({"message": "fetched", "desired": 6, "members": 6, "running": 6})
    );

    // A cold start in the record, and a short one: most of a run of 1440 a day.
    let run = last_run(&sandbox);
    let (initialised, took) = (
        run["init_ms"].as_f64().expect("a time"),
        run["ms"].as_f64().expect("a time"),
    );
    assert!(initialised > 0.0 && took > initialised, "{run}");

    // Machines change: one is stopped, one is terminated behind the group's back.
    let id = |index: usize| stack["backends"][index]["id"].clone();
    sandbox.aws("ec2", "stop_instances", &json!({"InstanceIds": [id(0)]}));
    sandbox.aws(
        "ec2",
        "modify_instance_attribute",
        &json!({"InstanceId": id(1), "DisableApiTermination": {"Value": false}}),
    );
    sandbox.aws(
        "ec2",
        "terminate_instances",
        &json!({"InstanceIds": [id(1)]}),
    );
    // The lease is still this execution's: a function that is retried goes on.
    let info = invoke(&sandbox, "fetch", &input).expect("fetch succeeds");
    let members = rows(&info);
    let state = |index: usize| {
        let member = members.iter().find(|member| member["Id"] == id(index));
        member.map(|member| member["State"].as_str().unwrap_or("").to_owned())
    };
    assert_eq!(state(0).as_deref(), Some("stopped"));
    assert!(
        matches!(state(1).as_deref(), None | Some("terminated")),
        "{members:?}"
    );
    assert_eq!(info["BackendIps"].as_array().map(Vec::len), Some(4));

    // Another one does not get it, and is told no more than that.
    let another = json!({"execution": "arn:aws:states:x:1:execution:y:another"});
    let info = invoke(&sandbox, "fetch", &another).expect("that is no failure");
    assert_eq!(info["LeaseLost"], true);
    assert_eq!(info.get("TransientErrors"), Some(&Value::Null));
    assert_eq!(info["Instances"], json!([]));

    // It is the role that lets it, nothing else: without its policy it fails, and says at what.
    let role = last_run(&sandbox)["role"].clone();
    let policy =
        sandbox.aws("iam", "list_role_policies", &json!({"RoleName": role}))["PolicyNames"][0]
            .clone();
    sandbox.aws(
        "iam",
        "delete_role_policy",
        &json!({"RoleName": role, "PolicyName": policy}),
    );
    let (kind, message) = invoke(&sandbox, "fetch", &input).expect_err("fetch may read nothing");
    assert_eq!(kind, "FunctionFailed");
    assert!(
        message.starts_with("taking the lease: ") && message.contains("dynamodb:UpdateItem"),
        "{message}"
    );
    // Import heals it.
    sandbox.import(CLUSTER, &[]).ok();
    invoke(&sandbox, "fetch", &input).expect("fetch succeeds again");
}

/// Without a Weka that answers nothing is done, and everybody is told.
#[test]
fn the_other_functions_the_schedule_and_the_join_url() {
    let (sandbox, _) = imported();
    join_url_wants_the_key(&sandbox);
    schedule_runs_the_state_machine(&sandbox);
    others_fail_and_say_why(&sandbox);
}

fn others_fail_and_say_why(sandbox: &Sandbox) {
    let errors = json!({"TransientErrors": ["IO is stopped", "one backend is down"]});
    assert_eq!(
        invoke(sandbox, "transient", &errors),
        Err((
            "TransientErrors".into(),
            "2 transient errors: IO is stopped; one backend is down".into()
        ))
    );
    assert!(log_of(sandbox, "transient").contains("IO is stopped"));

    // What is none of ours is not acted on.
    sandbox.take_calls();
    for kind in ["scale", "terminate"] {
        let (error, message) = invoke(sandbox, kind, &json!({})).expect_err("it has no version");
        assert_eq!(error, "FunctionFailed");
        assert!(
            message.contains("has version null and this function reads version 1"),
            "{message}"
        );
    }

    // A function knows its place: none runs on without its environment.
    let configuration = json!({"FunctionName": function("fetch")});
    let found = sandbox.aws("lambda", "get_function_configuration", &configuration);
    let mut environment = found["Environment"].clone();
    environment["Variables"]["LAMBDA"] = "fetsch".into();
    let wrong = json!({"FunctionName": function("fetch"), "Environment": environment});
    sandbox.aws("lambda", "update_function_configuration", &wrong);
    let (_, message) = invoke(sandbox, "fetch", &json!({})).expect_err("there is no fetsch");
    let log = last_run(sandbox)["log"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(
        log.contains("there is no function \"fetsch\""),
        "{message}\n{log}"
    );
}

fn schedule_runs_the_state_machine(sandbox: &Sandbox) {
    let before = runs(sandbox).len();
    let fired = sandbox.post("tick", &json!({"wait": true}));
    let fired = fired.as_array().expect("a list");
    assert_eq!(fired.len(), 1, "{fired:?}");
    let run = &fired[0];
    assert_eq!(run["rule"], "wekactl-prod-Backends");
    assert_eq!(run["status"], "FAILED");
    let states = json!([
        "HostGroupInfo",
        "Scale",
        "Terminate",
        "ErrorCheck",
        "Transient"
    ]);
    assert_eq!(run["states"], states);
    assert_eq!(run["error"], "TransientErrors");
    let cause = run["cause"].as_str().expect("a cause");
    assert!(cause.contains("no usable backend"), "{cause}");

    // Every function ran once, the second on what the first has found, and in the very execution.
    let runs = runs(sandbox);
    let runs = &runs[before..];
    let names: Vec<&str> = runs
        .iter()
        .filter_map(|run| run["function"].as_str())
        .collect();
    let kinds = ["fetch", "scale", "terminate", "transient"];
    assert_eq!(names, kinds.map(function));
    let parsed = |text: &Value| -> Value {
        serde_json::from_str(text.as_str().expect("text")).expect("JSON")
    };
    let (fetched, given) = (parsed(&runs[0]["payload"]), parsed(&runs[1]["event"]));
    assert_eq!(fetched["DesiredCapacity"], 6);
    assert_eq!(fetched["Execution"], run["execution"], "{fetched}");
    for (field, value) in fetched.as_object().expect("an object") {
        assert_eq!(given.get(field), Some(value), "{field}: {given}");
    }

    // Nothing of the group was changed by it.
    let groups = json!({"AutoScalingGroupNames": ["wekactl-prod-Backends"]});
    let group = &sandbox.aws("autoscaling", "describe_auto_scaling_groups", &groups)["AutoScalingGroups"]
        [0];
    assert_eq!(group["DesiredCapacity"], 6);
    assert_eq!(group["Instances"].as_array().map(Vec::len), Some(6));
}

fn join_url_wants_the_key(sandbox: &Sandbox) {
    let api = sandbox.aws("apigateway", "get_rest_apis", &json!({}))["items"][0]["id"].clone();
    let api = api.as_str().expect("an id");
    let keys = sandbox.aws(
        "apigateway",
        "get_api_keys",
        &json!({"includeValues": true}),
    );
    let key = keys["items"][0]["value"].as_str().expect("a key");
    let url = format!(
        "{}/execute-api/{api}/{REGION}/default/wekactl-prod-Backends",
        sandbox.url
    );
    let get = |key: Option<&str>| {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into();
        let mut request = agent.get(&url);
        if let Some(key) = key {
            request = request.header("x-api-key", key);
        }
        let mut answer = request.call().expect("an answer");
        let body = answer.body_mut().read_to_string().expect("text");
        (answer.status().as_u16(), body)
    };

    for wrong in [None, Some("not-the-key")] {
        let (status, body) = get(wrong);
        assert_eq!(status, 403, "{body}");
        assert_eq!(body, r#"{"message": "Forbidden"}"#);
    }
    assert_eq!(
        runs(sandbox),
        [Value::Null; 0],
        "nobody without the key reaches the function"
    );

    // User data runs what it gets as root: a failure must not look like a script.
    let (status, body) = get(Some(key));
    assert_eq!((status, body.as_str()), (403, ""), "it names no instance");
    assert_eq!(last_run(sandbox)["function"], function("join"));
}
