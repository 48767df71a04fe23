//! The password, the keys and Weka's tokens are nowhere where a person looks: not in what runs leave, not in logs, not
//! among the processes of a machine, nor in its files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::PASSWORD;
use crate::support::cluster::{CLUSTER, Cluster};

/// Looks at the arguments of all processes, again and again, until it is told to end.
struct Watch {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Vec<String>)>,
}

impl Watch {
    /// For secrets in the arguments; counts those of curl by the way, to know that it sees those of machines.
    fn start(secrets: Vec<String>) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let (mut seen, mut found) = (0, Vec::new());
            while !end.load(Ordering::Relaxed) {
                for arguments in arguments_of_all() {
                    seen += usize::from(arguments.starts_with("curl\0--config\0-\0"));
                    if secrets.iter().any(|secret| arguments.contains(secret)) {
                        found.push(arguments);
                    }
                }
                // What is watched needs the processor, too.
                std::thread::sleep(Duration::from_millis(5));
            }
            (seen, found)
        });
        Self { ended, thread }
    }

    #[track_caller]
    fn end(self) {
        self.ended.store(true, Ordering::Relaxed);
        let (seen, found) = self.thread.join().expect("it does not panic");
        assert!(seen > 0, "no call of a machine was ever seen");
        assert_eq!(found, [""; 0]);
    }
}

fn arguments_of_all() -> Vec<String> {
    let processes = std::fs::read_dir("/proc").expect("there is one").flatten();
    let read = |entry: std::fs::DirEntry| std::fs::read(entry.path().join("cmdline")).ok();
    processes
        .filter_map(read)
        .map(|arguments| String::from_utf8_lossy(&arguments).into_owned())
        .collect()
}

/// All the secrets there are: what the test gave, what AWS has drawn, and what Weka has handed out.
fn secrets(cluster: &Cluster) -> Vec<String> {
    let sandbox = &cluster.sandbox;
    let keys = json!({"includeValues": true});
    let keys = sandbox.aws("apigateway", "get_api_keys", &keys);
    let function = json!({"FunctionName": format!("wekactl-{CLUSTER}-fetch-Backends")});
    let found = sandbox.aws("lambda", "get_function_configuration", &function);
    let seal = found["Environment"]["Variables"]["SEAL_KEY"].as_str();
    let (_, seal) = seal
        .and_then(|key| key.split_once(':'))
        .expect("an id and a key");
    let base64 = base64::prelude::BASE64_STANDARD;
    vec![
        PASSWORD.to_owned(),
        base64.encode(PASSWORD),
        keys["items"][0]["value"]
            .as_str()
            .expect("a key")
            .to_owned(),
        seal.to_owned(),
        // As the simulator begins its tokens.
        "access-1".to_owned(),
        "refresh-1".to_owned(),
    ]
}

/// What a person may read about the runs: histories, logs, boots.
fn readable(cluster: &Cluster) -> Vec<(String, String)> {
    let sandbox = &cluster.sandbox;
    let all = |service: &str, operation: &str, params: &Value| {
        let call = json!({
            "service": service, "operation": operation, "params": params, "paginate": true,
        });
        sandbox.post("call", &call)
    };
    let mut texts = Vec::new();
    let machines = sandbox.aws("stepfunctions", "list_state_machines", &json!({}));
    let machine = &machines["stateMachines"][0]["stateMachineArn"];
    let executions = all(
        "stepfunctions",
        "list_executions",
        &json!({"stateMachineArn": machine}),
    );
    for execution in executions["executions"].as_array().expect("a list") {
        let arn = json!({"executionArn": execution["executionArn"]});
        let history = all("stepfunctions", "get_execution_history", &arn);
        texts.push(("a history".to_owned(), history.to_string()));
    }
    for kind in ["join", "fetch", "scale", "terminate", "transient"] {
        let group =
            json!({"logGroupName": format!("/aws/lambda/wekactl-{CLUSTER}-{kind}-Backends")});
        let events = all("logs", "filter_log_events", &group);
        texts.push((format!("the log of {kind}"), events.to_string()));
    }
    for boot in sandbox.get("boots").as_array().expect("a list") {
        texts.push(("a boot".to_owned(), boot.to_string()));
    }
    texts
}

/// All files below a directory, but for the user data: the API key is in that, and opens nothing by itself.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("it is there").flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| !path.is_symlink() && !path.ends_with("user-data"))
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[test]
fn no_secret_is_where_people_look() {
    let cluster = Cluster::start(6);
    let secrets = secrets(&cluster);
    let watch = Watch::start(secrets.clone());
    // One joins, another one fails to, and one leaves; there is a failed run, too.
    cluster.minute();
    cluster.resize(7);
    cluster.until("seven", 5, |cluster, _| cluster.is_at_rest(7));
    cluster.weka.with(|weka| {
        weka.api.fail_command("cluster drive scan");
        weka.io_status = "STOPPED".to_owned();
    });
    cluster.resize(8);
    assert_eq!(cluster.minute().status, "FAILED");
    cluster.weka.with(|weka| {
        weka.api.end_faults();
        weka.io_status = "STARTED".to_owned();
        weka.behaviour.drain_rate = 1_000;
    });
    cluster.resize(6);
    cluster.until("six", 40, |cluster, _| cluster.is_at_rest(6));
    watch.end();

    let texts = readable(&cluster);
    let count = |what: &str| texts.iter().filter(|(name, _)| name == what).count();
    assert_eq!(count("a boot"), 2);
    assert!(count("a history") >= 6);
    assert!(
        texts
            .iter()
            .any(|(_, text)| text.contains("handed out credentials"))
    );
    assert!(
        texts
            .iter()
            .any(|(_, text)| text.contains("\\\"Sealed\\\""))
    );
    for (what, text) in &texts {
        for secret in &secrets {
            assert!(!text.contains(secret), "{secret} is in {what}: {text}");
        }
    }
    // What `weka` was called with on the machines, and what is left on their disks.
    let commands = cluster.weka.with(|weka| weka.commands.clone());
    assert!(commands.len() > 20);
    for command in &commands {
        let line = command.argv.join(" ");
        assert!(
            !secrets.iter().any(|secret| line.contains(secret)),
            "{line}"
        );
    }
    for boot in cluster.sandbox.get("boots").as_array().expect("a list") {
        let directory = boot["directory"].as_str().expect("it has run");
        let files = files(Path::new(directory));
        assert!(!files.is_empty());
        for file in files {
            let content = std::fs::read(&file).expect("it is readable");
            let content = String::from_utf8_lossy(&content);
            let has = |secret: &String| content.contains(secret.as_str());
            assert!(!secrets.iter().any(has), "{}", file.display());
        }
    }
}
