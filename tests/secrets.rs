//! Secrets: the Weka password is in the table and nowhere else; nor does the API key or the sealing key appear in
//! anything that is printed.

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::account::{kind, one};
use crate::support::{PASSWORD, Run, Sandbox};

/// All the ways to write it that a careless program might.
fn ways_to_write(secret: &str) -> Vec<String> {
    let standard = base64::prelude::BASE64_STANDARD;
    let url_safe = base64::prelude::BASE64_URL_SAFE;
    let hex = |letter: fn(u8) -> String| secret.bytes().map(letter).collect::<String>();
    vec![
        secret.to_owned(),
        standard.encode(secret),
        url_safe.encode(secret),
        standard.encode(standard.encode(secret)),
        hex(|byte| format!("{byte:02x}")),
        // As a list of numbers, which is what bytes are printed as.
        secret
            .bytes()
            .take(12)
            .map(|byte| byte.to_string())
            .collect::<Vec<_>>()
            .join(", "),
    ]
}

#[track_caller]
fn assert_without(text: &str, secret: &str, what: &str) {
    assert!(secret.len() > 8, "{what}: no secret to look for");
    for written in ways_to_write(secret) {
        assert!(!text.contains(&written), "{written} is in {what}:\n{text}");
    }
}

#[track_caller]
fn assert_silent(run: &Run, secret: &str, what: &str) {
    assert_without(&run.stdout, secret, &format!("what {what} prints"));
    assert_without(&run.stderr, secret, &format!("the messages of {what}"));
}

/// The calls that carry the password, which is the one that stores it.
#[track_caller]
fn assert_stored_once(sandbox: &Sandbox, password: &str, what: &str) {
    let stored = base64::prelude::BASE64_STANDARD.encode(password);
    let mut times = 0;
    for call in sandbox.take_calls() {
        let request = call["request"].as_str().expect("text");
        if call["operation"] == "PutItem" && request.contains("cluster-creds") {
            assert!(request.contains(&stored), "{request}");
            times += 1;
        } else {
            let name = format!("{} of {what}", call["operation"]);
            assert_without(request, password, &name);
        }
    }
    assert_eq!(times, 1, "{what}");
    let inventory = sandbox.inventory();
    let items = one(&inventory, "tables", |_| true)["Items"].as_array();
    let credentials = items
        .into_iter()
        .flatten()
        .find(|item| item["Key"]["S"] == "cluster-creds");
    assert_eq!(
        credentials.expect("an item")["Password"]["S"],
        *stored,
        "{what}"
    );
    // Nor is it anywhere else in the account.
    let mut rest = inventory.clone();
    for table in rest["eu-central-1"]["tables"]
        .as_object_mut()
        .expect("tables")
        .values_mut()
    {
        table["Items"] = json!([]);
    }
    assert_without(
        &rest.to_string(),
        password,
        &format!("the account after {what}"),
    );
}

/// As loud as it gets: `-vv` outranks the variable, and is less.
fn loud(command: &mut Command) -> &mut Command {
    command.envs([
        ("LOG_LEVEL", "trace"),
        ("RUST_LOG", "trace"),
        ("RUST_BACKTRACE", "1"),
    ])
}

#[test]
fn no_secret_is_seen() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": "prod", "classic_lb": true}));
    let code = sandbox.small_code();
    let import = [
        "cluster",
        "import",
        "-n",
        "prod",
        "-u",
        "admin",
        "--lambda-binary",
        &code,
    ];
    let run = |more: &[&str], variable: Option<&str>, input: &str| -> Run {
        let mut command = sandbox.command(&[&import[..], more].concat());
        if let Some(password) = variable {
            command.env("WEKACTL_PASSWORD", password);
        }
        loud(&mut command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the executable runs");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // Who does not read it may have gone.
        stdin.write_all(input.as_bytes()).ok();
        drop(stdin);
        Run::of(&child.wait_with_output().expect("it ends"))
    };

    // Every way to give it, the first of which makes the cluster.
    let [first, second, third] = [PASSWORD, "An0ther~Pa$$w\"rd", "Öne m0re pässwörd"];
    let plan = run(&["--dry-run", "-vv"], Some(first), "").ok();
    assert_silent(&plan, first, "a dry run");
    let made = run(&["-vv"], Some(first), "").ok();
    assert_silent(&made, first, "an import");
    assert_stored_once(&sandbox, first, "WEKACTL_PASSWORD");
    let argument = run(&["-p", second], None, "").ok();
    assert_silent(&argument, second, "an import");
    assert_stored_once(&sandbox, second, "-p");
    let from_stdin = run(
        &["--password-stdin", "-o", "json"],
        None,
        &format!("{third}\n"),
    )
    .ok();
    assert_silent(&from_stdin, third, "an import");
    assert_silent(&from_stdin, second, "an import");
    assert_stored_once(&sandbox, third, "--password-stdin");

    // What AWS has drawn, and what import has.
    let inventory = sandbox.inventory();
    let api_key = one(&inventory, "api_keys", |_| true)["value"]
        .as_str()
        .expect("text");
    let seal_keys = seal_keys(&inventory);
    assert_eq!(seal_keys.len(), 3);
    assert!(
        seal_keys.iter().all(|key| *key == seal_keys[0]),
        "{seal_keys:?}"
    );
    let (number, key) = seal_keys[0].split_once(':').expect("a number and a key");
    assert!(number.len() <= 8);
    let runs = [&made, &argument, &from_stdin];
    for run in runs {
        assert_silent(run, api_key, "an import");
        assert_silent(run, key, "an import");
    }

    // The key stays: what was sealed with it can be opened. Also when a function has to be made again.
    let function = "wekactl-prod-scale-Backends";
    sandbox.aws(
        "lambda",
        "delete_function",
        &json!({"FunctionName": function}),
    );
    run(&[], Some(third), "").ok();
    assert_eq!(self::seal_keys(&sandbox.inventory()), seal_keys);

    // An import that fails says what has failed, and not with what.
    for (operation, table) in [("PutItem", "dynamodb"), ("CreateFunction", "lambda")] {
        sandbox.aws(
            "lambda",
            "delete_function",
            &json!({"FunctionName": function}),
        );
        sandbox.fault(&[json!({
            "service": table, "operation": operation, "action": "error", "code": "AccessDenied", "status": 403,
        })]);
        let failed = run(&[], Some("n0t st0red yet"), "").fails(1, &["AccessDenied"]);
        assert_silent(&failed, "n0t st0red yet", "a failed import");
        assert_silent(&failed, key, "a failed import");
        sandbox.fault(&[]);
    }
    let destroyed = loud(&mut sandbox.command(&["cluster", "destroy", "-vv", "-n", "prod"]))
        .output()
        .expect("the executable runs");
    let destroyed = Run::of(&destroyed).ok();
    for secret in [third, api_key, key] {
        assert_silent(&destroyed, secret, "destroy");
    }
}

fn seal_keys(inventory: &Value) -> Vec<String> {
    let functions = kind(inventory, "functions").values();
    let keys =
        functions.filter_map(|function| function["Environment"]["Variables"]["SEAL_KEY"].as_str());
    keys.map(ToOwned::to_owned).collect()
}

/// The one program that wekactl starts is the profile's, for credentials: it does not learn the password from its
/// arguments, nor does who lists processes.
#[test]
fn no_process_that_is_started_has_the_password_in_its_arguments() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": "prod", "backends": 5}));
    let seen = sandbox.home().join("seen");
    let helper = sandbox.home().join("helper");
    let answer =
        r#"{"Version": 1, "AccessKeyId": "AKIAIOSFODNN7EXAMPLE", "SecretAccessKey": "secret"}"#;
    let script = format!(
        "#!/bin/bash\n(tr '\\0' ' ' </proc/$$/cmdline; echo; tr '\\0' ' ' </proc/$PPID/cmdline; echo) >>{}\necho '{answer}'\n",
        seen.display()
    );
    std::fs::write(&helper, script).expect("the directory is ours");
    let config = format!(
        "[profile company]\nregion = eu-central-1\ncredential_process = bash {}\n",
        helper.display()
    );
    std::fs::create_dir(sandbox.home().join(".aws")).expect("the directory is ours");
    std::fs::write(sandbox.home().join(".aws/config"), config).expect("the directory is ours");
    let code = sandbox.small_code();
    for way in ["variable", "stdin"] {
        let mut command = sandbox.command(&[
            "--profile",
            "company",
            "cluster",
            "import",
            "-n",
            "prod",
            "-u",
            "admin",
            "--lambda-binary",
            &code,
        ]);
        command
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY")
            .env_remove("AWS_REGION");
        if way == "variable" {
            command.env("WEKACTL_PASSWORD", PASSWORD);
        } else {
            let file = sandbox.home().join("password");
            std::fs::write(&file, PASSWORD).expect("the directory is ours");
            command
                .arg("--password-stdin")
                .stdin(std::fs::File::open(file).expect("it is there"));
        }
        let run = Run::of(&command.output().expect("the executable runs")).ok();
        assert_silent(&run, PASSWORD, way);
        let listed = std::fs::read_to_string(&seen).expect("the helper was started");
        assert!(listed.contains("helper"), "{listed}");
        assert_without(&listed, PASSWORD, "the list of processes");
        std::fs::remove_file(&seen).expect("the directory is ours");
    }
}
