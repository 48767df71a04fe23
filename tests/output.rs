//! Data goes to stdout and nothing else does; people read stderr, a terminal is drawn on, and nothing that was written
//! by somebody else acts on it.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::background::Background;
use crate::support::{PASSWORD, Run, Sandbox, environment, executable, mutations};

const IMPORT: &[&str] = &["cluster", "import", "--name", "prod", "--username", "admin"];
const DESTROY: &[&str] = &["cluster", "destroy", "--name", "prod"];

fn run(command: &mut Command) -> Run {
    Run::of(&command.output().expect("the executable runs"))
}

/// The one document that stdout has to be.
#[track_caller]
fn document(run: &Run) -> Value {
    assert!(run.stdout.ends_with("}\n"), "{}", run.stdout);
    serde_json::from_str(&run.stdout).expect("one JSON document")
}

/// Lines for people, each plain.
#[track_caller]
fn plain_lines(text: &str) -> Vec<&str> {
    let harmless = |character: char| character == '\n' || !character.is_control();
    assert!(text.chars().all(harmless), "{text:?}");
    text.lines().collect()
}

/// "created IAM role x (0.4s)".
fn is_step(line: &str) -> bool {
    let time = line
        .rsplit_once(" (")
        .and_then(|(_, rest)| rest.strip_suffix("s)"));
    let words = ["created ", "updated ", "deleted "];
    words.iter().any(|word| line.starts_with(word))
        && time.is_some_and(|time| time.parse::<f64>().is_ok())
}

/// Runs the client script for real, with `curl`, `mount` and `mkdir` that only write down what they are asked for.
fn run_script(script: &str) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("it can be written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
            .expect("it can be made executable");
        path
    };
    for name in ["mount", "mkdir"] {
        file(
            name,
            &format!(
                "#!/bin/sh\necho {name} \"$@\" >> '{}'\n",
                directory.path().join("log").display()
            ),
        );
    }
    let log = directory.path().join("log");
    file(
        "curl",
        &format!(
            "#!/bin/sh\necho curl \"$@\" >> '{0}'\necho \"echo installed >> '{0}'\"\n",
            log.display()
        ),
    );
    let script = file("join.sh", script);
    let syntax = Command::new("bash")
        .arg("-n")
        .arg(&script)
        .status()
        .expect("there is bash");
    assert!(syntax.success(), "bash does not take it for a script");
    let path = std::env::var("PATH").unwrap_or_default();
    let ran = Command::new(&script)
        .env("PATH", format!("{}:{path}", directory.path().display()))
        .status()
        .expect("its first line names its interpreter");
    assert!(ran.success());
    std::fs::read_to_string(Path::new(&log)).expect("it has run")
}

#[test]
fn data_on_stdout_and_words_on_stderr() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": "prod", "classic_lb": true}));

    // A plan, as JSON and as a table.
    let json_plan = sandbox
        .import_small("prod", &["--dry-run", "-o", "json"])
        .ok();
    let plan = document(&json_plan);
    assert_eq!(
        (&plan["cluster"], &plan["dry_run"], &plan["client_script"]),
        (&json!("prod"), &json!(true), &json!(null))
    );
    let changes = plan["changes"].as_array().expect("a list");
    let table = sandbox.import_small("prod", &["--dry-run"]).ok();
    let rows = plain_lines(&table.stdout);
    assert!(rows[0].starts_with("ACTION  KIND"), "{}", table.stdout);
    for change in changes {
        let name = change["name"].as_str().expect("a name");
        let action = change["action"].as_str().expect("an action");
        assert!(
            rows.iter()
                .any(|row| row.starts_with(action) && row.contains(name)),
            "{action} {name}\n{}",
            table.stdout
        );
    }
    for run in [&json_plan, &table] {
        let lines = plain_lines(&run.stderr);
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with("dry run, nothing was changed: would make ")),
            "{lines:?}"
        );
        assert!(
            !run.stderr.contains("ACTION") && !run.stderr.contains("changes"),
            "{}",
            run.stderr
        );
    }
    let again = sandbox.import_small("prod", &["--dry-run"]).ok();
    assert_eq!(again.stdout, table.stdout, "two dry runs agree");
    assert!(table.stdout.contains("-<random>\n"), "{}", table.stdout);
    let without_password = run(&mut sandbox.command(&[IMPORT, &["--dry-run"]].concat()));
    assert!(without_password.ok().stdout.starts_with("ACTION  KIND"));
    assert_eq!(mutations(&sandbox.take_calls()), [""; 0]);

    // An import: stdout is the script that clients run, from its first byte to its last.
    let import = sandbox.import_small("prod", &[]).ok();
    assert!(
        import.stdout.starts_with("#!/bin/bash\n") && import.stdout.ends_with('\n'),
        "{:?}",
        import.stdout
    );
    // The password goes into the one call that stores it, and nowhere else.
    let secrets = [PASSWORD.to_owned(), base64_of(PASSWORD)];
    let calls = sandbox.take_calls();
    let tells = |call: &&Value| {
        let request = call["request"].as_str().unwrap_or_default();
        secrets.iter().any(|secret| request.contains(secret))
    };
    let told: Vec<&Value> = calls
        .iter()
        .filter(tells)
        .map(|call| &call["operation"])
        .collect();
    assert_eq!(told, ["PutItem"]);
    let balancer = sandbox.aws(
        "elbv2",
        "describe_load_balancers",
        &json!({"Names": ["wekactl-prod"]}),
    );
    let host = balancer["LoadBalancers"][0]["DNSName"]
        .as_str()
        .expect("a name")
        .to_owned();
    assert_eq!(
        run_script(&import.stdout),
        format!(
            "curl {host}:14000/dist/v1/install\ninstalled\nmkdir -p /mnt/weka\nmount -t wekafs {host}/default /mnt/weka\n"
        )
    );
    // Its words: a line for each step, what a person should act on, a sum, and what stdout is.
    let lines = plain_lines(&import.stderr);
    let (steps, rest): (Vec<&str>, Vec<&str>) = lines.iter().partition(|line| is_step(line));
    let count = |word: &str| steps.iter().filter(|line| line.starts_with(word)).count();
    let (made, changed) = (count("created "), count("updated "));
    assert_eq!(
        changes
            .iter()
            .filter(|change| change["action"] == "create")
            .count(),
        made
    );
    assert_eq!(rest.len(), 3, "{rest:?}");
    // What is changed more than once says what.
    let updates = steps
        .iter()
        .filter(|line| line.starts_with("updated instance i-"));
    let mut updated: Vec<&str> = updates
        .map(|line| line.split_once(": ").expect("what was changed").1)
        .map(|what| what.rsplit_once(" (").expect("a time").0)
        .collect();
    updated.sort_unstable();
    updated.dedup();
    assert_eq!(
        updated,
        [
            "disableApiTermination",
            "tags.Name, tags.wekactl.io/api_version and 4 more",
            "tags.wekactl.io/before"
        ]
    );
    assert!(
        rest[0].starts_with("warning: an update of stack prod may replace backends"),
        "{rest:?}"
    );
    assert!(
        rest[1].starts_with(&format!(
            "made {made}, changed {changed}, unchanged 0, took "
        )),
        "{rest:?}"
    );
    assert_eq!(
        rest[2],
        "cluster prod is managed; the script with which clients join is on standard output"
    );

    // A second one: the same data, in every form.
    let again = sandbox.import_small("prod", &["-o", "json"]).ok();
    let done = document(&again);
    assert_eq!(
        (&done["changes"], &done["dry_run"]),
        (&json!([]), &json!(false))
    );
    assert_eq!(done["client_script"], import.stdout.as_str());
    assert_eq!(
        (&done["summary"]["created"], &done["summary"]["updated"]),
        (&json!(0), &json!(0))
    );
    assert!(done["summary"]["unchanged"].as_u64() > Some(30), "{done}");
    assert!(done["summary"]["seconds"].as_f64() > Some(0.0), "{done}");
    let quiet = sandbox.import_small("prod", &["-q"]).ok();
    assert_eq!(
        (quiet.stdout.as_str(), quiet.stderr.as_str()),
        (import.stdout.as_str(), "")
    );
    let verbose = sandbox.import_small("prod", &["-v"]).ok();
    assert!(
        verbose
            .stderr
            .contains("unchanged KMS key alias/wekactl-prod\n"),
        "{}",
        verbose.stderr
    );
    assert!(
        verbose
            .stderr
            .contains("unchanged event rule wekactl-prod-Backends\n"),
        "{}",
        verbose.stderr
    );
    let replaced = "the user name or password stored before was another one: they ";
    assert!(!verbose.stderr.contains(replaced));
    let other = sandbox
        .import_small("prod", &["-p", "another", "--dry-run"])
        .ok();
    assert!(
        other
            .stderr
            .contains(&format!("{replaced}would be replaced")),
        "{}",
        other.stderr
    );
    let other = sandbox.import_small("prod", &["-p", "another"]).ok();
    assert!(
        other.stderr.contains(&format!("{replaced}are replaced")),
        "{}",
        other.stderr
    );
    sandbox.import_small("prod", &[]).ok();
    let diagnosed = sandbox.import_small("prod", &["-vv"]).ok();
    let mut by_variable = sandbox.command(&[DESTROY, &["--dry-run"]].concat());
    let by_variable = run(by_variable.env("LOG_LEVEL", "debug")).ok();
    for run in [&diagnosed, &by_variable] {
        let calls: Vec<&str> = run
            .stderr
            .lines()
            .filter(|line| line.contains("wekactl::aws: "))
            .collect();
        assert!(calls.len() > 50, "{}", run.stderr);
        let identity = calls
            .iter()
            .find(|line| line.contains(" STS.GetCallerIdentity took "));
        let identity = identity.expect("who am I");
        assert!(identity.contains(" ms: done, request id "), "{identity}");
    }
    assert!(
        !verbose.stderr.contains("GetCallerIdentity"),
        "{}",
        verbose.stderr
    );
    for run in [&import, &again, &verbose, &diagnosed] {
        assert!(!run.stderr.contains(PASSWORD) && !run.stdout.contains(PASSWORD));
    }
    // Whoever stops listening stops nothing.
    let mut deaf = sandbox.command(&[DESTROY, &["--dry-run"]].concat());
    assert_eq!(with_closed_pipes(&mut deaf), Some(0));

    // Destroy has data only when it is asked for.
    let plan = document(
        &sandbox
            .wekactl(&[DESTROY, &["--dry-run", "-o", "json"]].concat())
            .ok(),
    );
    assert_eq!(
        (&plan["dry_run"], &plan["found"]),
        (&json!(true), &json!(true))
    );
    for change in plan["changes"].as_array().expect("a list") {
        // One thing a row, and nothing that stays as it is, or that nobody has looked at.
        assert!(
            !change["name"].as_str().expect("a name").contains(", "),
            "{change}"
        );
        for field in change["changes"].as_array().into_iter().flatten() {
            assert_ne!(field["from"], field["to"], "{change}");
        }
        if change["kind"] == "instance" && change["action"] == "update" {
            let protection = &change["changes"][0];
            assert_eq!(protection["field"], "disableApiTermination");
            assert_eq!(
                (&protection["from"], &protection["to"]),
                (&json!("true"), &json!("false"))
            );
        }
    }
    let deletes = plan["changes"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|change| change["action"] == "delete")
        .count();
    let gone = sandbox.wekactl(&[DESTROY, &["-o", "json"]].concat()).ok();
    let done = document(&gone);
    assert_eq!(
        (&done["found"], &done["left"], &done["cluster"]),
        (&json!(true), &json!([]), &json!("prod"))
    );
    assert_eq!(done["summary"]["deleted"], deletes);
    // What is done has the form of what was planned; only what needs no look is not read.
    let rows = |document: &Value| -> Vec<Value> {
        let rows = document["changes"].as_array().expect("a list").iter();
        rows.filter(|row| row["action"] == "update")
            .cloned()
            .collect()
    };
    let mut planned = rows(&plan);
    for row in planned.iter_mut().filter(|row| row["kind"] == "instance") {
        row["changes"][0]["from"] = json!("(not read)");
    }
    assert_eq!(rows(&done), planned);
    let frozen = planned
        .iter()
        .flat_map(|row| row["changes"].as_array().expect("a list"));
    let frozen = frozen.filter(|change| change["field"] == "suspendedProcesses");
    let suspended: Vec<Vec<String>> = frozen
        .flat_map(|change| [&change["from"], &change["to"]])
        .map(|list| serde_json::from_str(list.as_str().expect("text")).expect("a list"))
        .collect();
    assert_eq!(suspended.len(), 2);
    assert!(
        !suspended[0].contains(&"Launch".to_owned()) && suspended[1].contains(&"Launch".to_owned()),
        "{suspended:?}"
    );
    assert_eq!(done["backends"], json!({"terminated": 6, "kept": 0}));
    assert!(
        gone.stderr
            .contains("TERMINATED WITH ITS DATA: 6 backends."),
        "{}",
        gone.stderr
    );
    assert!(
        gone.stderr.contains(" for deletion in 7 days ("),
        "{}",
        gone.stderr
    );
    let lines = plain_lines(&gone.stderr);
    assert!(
        lines
            .last()
            .is_some_and(|line| line.starts_with(&format!("removed {deletes}, changed "))),
        "{lines:?}"
    );
    // What is not there: an error, or what was wanted.
    let none = sandbox.wekactl(&[DESTROY, &["-o", "json"]].concat());
    let none = none.fails(1, &["error: no cluster named prod in eu-central-1"]);
    assert_eq!(none.stdout, "");
    let none = document(
        &sandbox
            .wekactl(&[DESTROY, &["--if-exists", "-o", "json"]].concat())
            .ok(),
    );
    assert_eq!(
        (&none["found"], &none["changes"]),
        (&json!(false), &json!([]))
    );
    let none = sandbox.wekactl(&[DESTROY, &["--if-exists"]].concat()).ok();
    assert_eq!(
        (none.stdout.as_str(), none.stderr.as_str()),
        (
            "",
            "no cluster named prod in eu-central-1: there was nothing to remove\n"
        )
    );

    // An import whose reader goes away at once is not stopped by that half-way.
    sandbox.stack(&json!({"name": "deaf", "backends": 5}));
    let code = sandbox.small_code();
    let line = [
        "cluster",
        "import",
        "--name",
        "deaf",
        "--username",
        "admin",
        "--lambda-binary",
        &code,
    ];
    let mut deaf = sandbox.command(&line);
    assert_eq!(
        with_closed_pipes(deaf.env("WEKACTL_PASSWORD", PASSWORD)),
        Some(0)
    );
    sandbox.take_calls();
    sandbox.import_small("deaf", &[]).ok();
    assert_eq!(mutations(&sandbox.take_calls()), [""; 0]);
}

/// Runs with pipes that nobody reads.
fn with_closed_pipes(command: &mut Command) -> Option<i32> {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the executable runs");
    drop((child.stdout.take(), child.stderr.take()));
    child.wait().expect("it is our child").code()
}

#[test]
fn versions_helps_and_colors() {
    let sandbox = Sandbox::start();
    let version = env!("CARGO_PKG_VERSION");
    let text = sandbox.wekactl(&["version"]).ok();
    assert!(
        text.stdout
            .starts_with(&format!("wekactl {version} (commit ")),
        "{}",
        text.stdout
    );
    assert_eq!((text.stdout.lines().count(), text.stderr.as_str()), (1, ""));
    let document = document(&sandbox.wekactl(&["version", "-o", "json"]).ok());
    assert_eq!(document["version"], version);
    assert!(
        document["target"]
            .as_str()
            .is_some_and(|target| target.contains(std::env::consts::ARCH)),
        "{document}"
    );
    assert_eq!(
        sandbox.wekactl(&["--version"]).ok().stdout,
        format!("wekactl {version}\n")
    );

    // Help is data: it can be paged, and a pager that ends early is no failure.
    for command in [
        &[][..],
        &["cluster"],
        &["clusters"],
        &["cluster", "import"],
        &["cluster", "destroy"],
        &["cluster", "join-params"],
        &["cluster", "list"],
        &["hostgroup", "list"],
        &["completion"],
        &["version"],
    ] {
        let long = sandbox.wekactl(&[command, &["--help"]].concat()).ok();
        assert_eq!(long.stderr, "");
        assert!(
            long.stdout.contains("Usage: wekactl") && long.stdout.contains("Examples:\n"),
            "{}",
            long.stdout
        );
        let short = sandbox.wekactl(&[command, &["-h"]].concat()).ok();
        assert!(short.stdout.len() <= long.stdout.len() && plain_lines(&short.stdout).len() > 5);
        let mut paged = sandbox.command(&[command, &["--help"]].concat());
        assert_eq!(with_closed_pipes(&mut paged), Some(0));
    }
    let help = sandbox.wekactl(&["help", "cluster", "destroy"]).ok();
    assert_eq!(
        help.stdout,
        sandbox
            .wekactl(&["cluster", "destroy", "--help"])
            .ok()
            .stdout
    );

    // Colours only where they are wanted.
    let failing = |flags: &[&str], variable: Option<&str>| {
        let mut command = sandbox.command(&[DESTROY, flags].concat());
        if let Some(value) = variable {
            command.env("NO_COLOR", value);
        }
        let run = run(&mut command);
        assert_eq!(run.code, 1);
        run.stderr
    };
    let plain = failing(&[], None);
    assert!(plain.starts_with("error: no cluster named prod"), "{plain}");
    assert_eq!(failing(&["--color", "never"], None), plain);
    assert_eq!(failing(&[], Some("1")), plain);
    assert_eq!(failing(&["-q"], None), plain, "errors are never quiet");
    let colored = failing(&["--color", "always"], Some("1"));
    assert_eq!(
        colored,
        plain.replace("error:", "\u{1b}[1;31merror:\u{1b}[0m")
    );
    let mut misspelt = sandbox.command(&["--color=always", "clutser"]);
    assert!(run(&mut misspelt).fails(2, &["\u{1b}["]).stdout.is_empty());
}

/// What others can write into an account must not move the cursor, change a colour, forge a line, or turn the
/// direction of writing.
#[test]
fn nothing_hostile_reaches_the_terminal() {
    let sandbox = Sandbox::start();
    let stack = sandbox.stack(&json!({"name": "prod", "backends": 5}));
    let hostile = "x\u{1b}[2J\u{1b}]0;owned\u{7}\r\nerror: forged\u{202e}\u{9b}31m";
    let spelled = "x\\u{1b}[2J\\u{1b}]0;owned\\u{7} error: forged\\u{202e}\\u{9b}31m";

    // An error of AWS.
    sandbox.fault(&[json!({"service": "kms", "operation": "DescribeKey", "count": 0, "code": "AccessDeniedException",
        "message": format!("User: {hostile} is not authorized to perform: kms:DescribeKey"), "status": 400})]);
    let run = sandbox.import_small("prod", &[]).fails(1, &[spelled]);
    let lines = plain_lines(&run.stderr);
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.starts_with("error:"))
            .count(),
        1,
        "{lines:?}"
    );
    sandbox.fault(&[]);

    // A tag of an instance. XML carries fewer characters than JSON: those that are left are bad enough.
    let in_xml = "other\u{9b}2J\u{202e}";
    let ids = json!([stack["backends"][0]["id"]]);
    let tag =
        json!({"Resources": ids, "Tags": [{"Key": "wekactl.io/cluster_name", "Value": in_xml}]});
    sandbox.aws("ec2", "create_tags", &tag);
    let run = sandbox.import_small("prod", &[]).fails(
        1,
        &["belongs to the managed cluster other\\u{9b}2J\\u{202e}: "],
    );
    plain_lines(&run.stderr);
    sandbox.aws(
        "ec2",
        "delete_tags",
        &json!({"Resources": ids, "Tags": [{"Key": "wekactl.io/cluster_name"}]}),
    );

    // A record in DNS.
    let zone = sandbox.aws(
        "route53",
        "create_hosted_zone",
        &json!({"Name": "example.com", "CallerReference": "1"}),
    );
    let zone = zone["HostedZone"]["Id"]
        .as_str()
        .expect("an id")
        .trim_start_matches("/hostedzone/");
    let record = json!({"Name": "weka.example.com", "Type": "CNAME", "TTL": 60, "ResourceRecords": [{"Value": in_xml}]});
    let change = json!({"HostedZoneId": zone, "ChangeBatch": {"Changes": [{"Action": "CREATE", "ResourceRecordSet": record}]}});
    sandbox.aws("route53", "change_resource_record_sets", &change);
    let run = sandbox.import_small("prod", &["-l", "weka.example.com", "-z", zone]);
    let run = run.fails(
        1,
        &["weka.example.com is taken: ", "for other\\u{9b}2J\\u{202e}"],
    );
    plain_lines(&run.stderr);

    // A function's environment, in a dry run's table and in its JSON.
    sandbox.import_small("prod", &[]).ok();
    let join = json!({"FunctionName": "wekactl-prod-join-Backends"});
    let found = sandbox.aws("lambda", "get_function_configuration", &join);
    let mut change =
        json!({"FunctionName": join["FunctionName"], "Environment": found["Environment"]});
    change["Environment"]["Variables"]["ASG_NAME"] = hostile.into();
    sandbox.aws("lambda", "update_function_configuration", &change);
    let spelled = spelled.replace("\\u{7} error", r"\u{7}\r\nerror");
    let table = sandbox.import_small("prod", &["--dry-run"]).ok();
    let row = format!("environment.ASG_NAME: {spelled} → wekactl-prod-Backends");
    assert!(table.stdout.contains(&row), "{}", table.stdout);
    plain_lines(&table.stdout);
    let run = sandbox
        .import_small("prod", &["--dry-run", "-o", "json"])
        .ok();
    plain_lines(&run.stdout);
    let change = &document(&run)["changes"][0]["changes"][0];
    assert_eq!(change["field"], "environment.ASG_NAME");
    assert_eq!(change["from"], spelled);

    // Arguments are somebody's, too, where a script passes them on.
    let run = sandbox.wekactl(&["cluster", "destroy", "-n", hostile]);
    plain_lines(&run.fails(2, &["--name"]).stderr);
    for cores in [
        format!("compute={hostile},drive=1,frontend=1,memory=1"),
        format!("compute=1,drive=1,frontend=1,memory={hostile}"),
    ] {
        let import = ["cluster", "import", "-n", "prod", "-u", "admin"];
        let run = sandbox.wekactl(&[&import[..], &["--cores", &cores]].concat());
        plain_lines(&run.fails(2, &["--cores"]).stderr);
    }
}

#[test]
fn a_person_at_a_terminal() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": "prod", "backends": 5}));
    sandbox.set(&json!({"delay_ms": 30}));
    let at = |line: &[&str]| {
        let mut command = sandbox.command(line);
        Background::on_a_terminal(&sandbox, command.env("TERM", "xterm-256color"))
    };

    // A password that is not seen, and Ctrl-C instead of one: the terminal shows again what is typed.
    let code = sandbox.small_code();
    let import = [IMPORT, &["--lambda-binary", &code]].concat();
    let mut terminal = at(&import);
    terminal.wait_for("Password of Weka user admin: ");
    terminal.type_keys("half of it\u{3}");
    let run = terminal.end();
    assert_eq!(run.code, 130, "{}", run.stdout);
    assert!(
        run.stdout.contains("nothing was changed") && !run.stdout.contains("half"),
        "{}",
        run.stdout
    );
    assert!(
        run.stdout.contains(" echo ") && run.stdout.contains(" icanon "),
        "{}",
        run.stdout
    );
    assert_eq!(run.stdout.matches("nothing was changed").count(), 1);
    assert_eq!(mutations(&sandbox.take_calls()), [""; 0]);
    // Spinners are not torn by what is typed, and nothing of them stays: not even by Ctrl-C, which a terminal shows.
    sandbox.set(&json!({"delay_ms": 1500}));
    let mut terminal = at(&import);
    terminal.wait_for("importing cluster prod");
    terminal.type_keys("too early\n\u{3}");
    let run = terminal.end();
    assert_eq!(run.code, 130, "{}", run.stdout);
    // What follows is what `stty` says.
    let (drawn, left) = run.stdout.split_once("speed ").expect("a terminal");
    assert!(!drawn.contains("early") && !drawn.contains("^C"), "{drawn}");
    assert!(left.contains(" echo "), "{left}");
    sandbox.set(&json!({"delay_ms": 30}));
    // An empty one; and none at all for a stack that is not there, or for a dry run.
    let mut terminal = at(&import);
    terminal.wait_for("Password");
    terminal.type_line("");
    let run = terminal.end();
    assert_eq!(run.code, 2, "{}", run.stdout);
    assert!(
        run.stdout
            .contains("no password was typed: nothing was changed"),
        "{}",
        run.stdout
    );
    assert!(!run.stdout.contains("--password-stdin"), "{}", run.stdout);
    let run = at(&["cluster", "import", "-n", "prud", "-u", "admin"]).end();
    assert_eq!(run.code, 1, "{}", run.stdout);
    assert!(
        run.stdout.contains("prud") && !run.stdout.contains("Password"),
        "{}",
        run.stdout
    );
    let run = at(&[&import[..], &["--dry-run"]].concat()).end();
    assert_eq!(run.code, 0, "{}", run.stdout);
    assert!(!run.stdout.contains("Password"), "{}", run.stdout);
    assert_eq!(mutations(&sandbox.take_calls()), [""; 0]);
    let mut terminal = at(&import);
    terminal.wait_for("Password");
    terminal.type_line(PASSWORD);
    let run = terminal.end();
    assert_eq!(run.code, 0, "{}", run.stdout);
    assert!(!run.stdout.contains(PASSWORD), "{}", run.stdout);
    let key = json!({"TableName": "wekactl-prod", "Key": {"Key": {"S": "cluster-creds"}}});
    let stored = sandbox.aws("dynamodb", "get_item", &key)["Item"].to_string();
    assert!(stored.contains(&base64_of(PASSWORD)), "{stored}");
    // What goes on is drawn, and what is done stays on the screen with the script.
    for drawn in [
        "\u{1b}[",
        "importing cluster prod",
        "creating ",
        "created event rule wekactl-prod-Backends ",
        "#!/bin/bash",
    ] {
        assert!(run.stdout.contains(drawn), "{drawn}: {}", run.stdout);
    }
    assert!(
        run.stdout
            .contains("\u{1b}[1;33mwarning:\u{1b}[0m an update of stack"),
        "{}",
        run.stdout
    );

    // Colours can be refused, and a dumb terminal is not drawn on.
    for (variable, value, forbidden) in
        [("NO_COLOR", "1", "\u{1b}[1;3"), ("TERM", "dumb", "\u{1b}")]
    {
        let mut command = sandbox.command(&[DESTROY, &["--dry-run"]].concat());
        command.env("TERM", "xterm-256color").env(variable, value);
        let run = Background::on_a_terminal(&sandbox, &command).end();
        assert_eq!(run.code, 0, "{}", run.stdout);
        assert!(
            !run.stdout.contains(forbidden),
            "{variable}: {}",
            run.stdout
        );
    }

    // Destroy asks, unless there is nothing to destroy, and takes nothing but the name for an answer.
    let run = at(&["cluster", "destroy", "--name", "prud"]).end();
    assert_eq!(run.code, 1, "{}", run.stdout);
    assert!(
        run.stdout.contains("no cluster named prud") && !run.stdout.contains("Type"),
        "{}",
        run.stdout
    );
    sandbox.take_calls();
    let question = "Type the cluster's name to go on: ";
    for (answer, code, said) in [
        (
            "yes\n",
            1,
            "the answer is not the cluster's name: nothing was changed",
        ),
        (
            "\n",
            1,
            "the answer is not the cluster's name: nothing was changed",
        ),
        (
            "production\n",
            1,
            "the answer is not the cluster's name: nothing was changed",
        ),
        // The end of the input, and Ctrl-C.
        (
            "\u{4}",
            1,
            "the answer is not the cluster's name: nothing was changed",
        ),
        ("\u{3}", 130, "nothing was changed"),
    ] {
        let mut terminal = at(DESTROY);
        terminal.wait_for(question);
        terminal.type_keys(answer);
        let run = terminal.end();
        assert_eq!(run.code, code, "{}", run.stdout);
        assert!(run.stdout.contains(said), "{}", run.stdout);
        assert!(
            run.stdout
                .contains("in eu-central-1 (account 123456789012) will be removed. EVERY BACKEND IS TERMINATED WITH ITS DATA: 5 backends."),
            "{}",
            run.stdout
        );
        assert_eq!(mutations(&sandbox.take_calls()), [""; 0], "{answer:?}");
    }
    // Where the question could not be seen, it is not asked, and nothing is done.
    let program = executable();
    let hidden = shell(
        &sandbox,
        &format!(
            "'{}' cluster destroy --name prod 2>/dev/null",
            program.display()
        ),
    );
    assert_eq!(Background::on_a_terminal(&sandbox, &hidden).end().code, 2);
    assert_eq!(mutations(&sandbox.take_calls()), [""; 0]);

    let mut terminal = at(DESTROY);
    terminal.wait_for(question);
    terminal.type_line("prod");
    let run = terminal.end();
    assert_eq!(run.code, 0, "{}", run.stdout);
    assert!(
        run.stdout
            .contains("cluster prod is no longer managed: 5 backends terminated"),
        "{}",
        run.stdout
    );
    sandbox
        .destroy("prod", &[])
        .fails(1, &["no cluster named prod"]);
}

/// A shell's line with the environment of the executable under test.
fn shell(sandbox: &Sandbox, line: &str) -> Command {
    let executable = sandbox.command(&[]);
    let mut command = Command::new("sh");
    command.args(["-c", line]).envs(environment(&executable));
    command
}

fn base64_of(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
