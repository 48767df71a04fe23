//! The credentials of a cluster: tried from inside before they are stored, replaced only where there is a managed
//! cluster, and never at the cost of those that work.

use serde_json::{Value, json};

use crate::again::assert_no_mutations;
use crate::support::account::{decoded, kind};
use crate::support::cluster::{CLUSTER, Cluster};
use crate::support::weka::Fault;
use crate::support::{PASSWORD, Run, Sandbox, mutations};

const NEW: &str = "Another-Secret-Pa55word";
const REFUSED: &str = "Weka refuses this user name and password";
const UNTRIED: &str = "user name and password have not been tried on the cluster";

fn change(sandbox: &Sandbox, password: &str, more: &[&str]) -> Run {
    let line = [
        "cluster",
        "change-credentials",
        "-n",
        CLUSTER,
        "-u",
        "admin",
    ];
    let mut command = sandbox.command(&[&line, more].concat());
    let run = Run::of(
        &command
            .env("WEKACTL_PASSWORD", password)
            .output()
            .expect("the executable runs"),
    );
    let said = format!("{}{}", run.stdout, run.stderr);
    assert!(!said.contains(password), "{said}");
    run
}

fn import_with(sandbox: &Sandbox, password: &str) -> Run {
    let line = ["cluster", "import", "-n", CLUSTER, "-u", "admin"];
    let mut command = sandbox.command(&line);
    Run::of(
        &command
            .env("WEKACTL_PASSWORD", password)
            .output()
            .expect("the executable runs"),
    )
}

fn item(sandbox: &Sandbox, key: &str) -> Value {
    let item = json!({"TableName": "wekactl-prod", "Key": {"Key": {"S": key}}});
    sandbox.aws("dynamodb", "get_item", &item)["Item"].clone()
}

fn stored(sandbox: &Sandbox) -> String {
    let password = &item(sandbox, "cluster-creds")["Password"]["S"];
    decoded(password.as_str().expect("text"))
}

#[test]
fn credentials_are_tried_before_they_replace_those_that_work() {
    let cluster = Cluster::start(6);
    let sandbox = &cluster.sandbox;
    assert_eq!(cluster.minute().status, "SUCCEEDED");
    sandbox.take_calls();

    // Refused: the old ones stay, and go on working.
    change(sandbox, NEW, &[]).fails(1, &[REFUSED]);
    let run = import_with(sandbox, NEW).fails(1, &[REFUSED]);
    assert_eq!(run.stdout, "");
    let changed = mutations(&sandbox.take_calls());
    assert!(
        changed.iter().all(|call| call == "lambda.Invoke"),
        "{changed:?}"
    );
    assert_eq!(stored(sandbox), PASSWORD);
    assert_eq!(cluster.minute().status, "SUCCEEDED");

    // Also where nothing runs the automation any more.
    let rules = sandbox.inventory();
    let (rule, of_rule) = kind(&rules, "rules").iter().next().expect("a rule");
    let target = &of_rule["Targets"][0]["Id"];
    let targets = json!({"Rule": rule, "Ids": [target]});
    sandbox.aws("events", "remove_targets", &targets);
    sandbox.aws("events", "delete_rule", &json!({"Name": rule}));
    import_with(sandbox, NEW).fails(1, &[REFUSED]);
    assert_eq!(stored(sandbox), PASSWORD);
    assert_eq!(kind(&sandbox.inventory(), "rules").len(), 0);
    import_with(sandbox, PASSWORD).ok();
    sandbox.take_calls();

    // Those that work already are not tried again by an import, and are by who asks for that.
    import_with(sandbox, PASSWORD).ok();
    assert_no_mutations(sandbox, "an import with the same credentials");
    let run = change(sandbox, PASSWORD, &["-o", "json"]).ok();
    let document: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(document["verified"], true, "{document}");
    assert_eq!(stored(sandbox), PASSWORD);

    // The password is another one now, and a run has met it.
    cluster
        .weka
        .with(|weka| weka.api.set_user("admin", NEW, "ClusterAdmin"));
    assert_eq!(cluster.minute().status, "FAILED");
    let lease = item(sandbox, "cluster-lease");
    assert!(lease["RefusedLogin"].is_object(), "{lease}");
    let run = change(sandbox, NEW, &[]).ok();
    assert!(run.stderr.contains("Weka takes them"), "{}", run.stderr);
    assert_eq!(stored(sandbox), NEW);
    let lease = item(sandbox, "cluster-lease");
    assert!(
        lease["RefusedLogin"].is_null() && lease["Guid"].is_null(),
        "{lease}"
    );
    assert!(lease["Expires"].is_object(), "{lease}");
    assert_eq!(cluster.minute().status, "SUCCEEDED");

    // A login that works, of a user that may not read what every run reads.
    let text = "user 'admin' may not do this";
    cluster
        .weka
        .with(|weka| weka.api.fault(Fault::refusal("status", text)));
    for form in ["text", "json"] {
        let run = change(sandbox, NEW, &["-o", form]).ok();
        assert!(
            run.stderr
                .contains("Weka takes user name and password, but this user may not read its status: Weka refused status")
                && run.stderr.contains("Weka administrator with wekactl cluster change-credentials --name prod")
                && !run.stderr.contains(UNTRIED),
            "{}",
            run.stderr
        );
        match form {
            "json" => {
                let document: Value = serde_json::from_str(&run.stdout).expect("JSON");
                assert_eq!(document["verified"], false, "{document}");
            }
            _ => assert!(
                run.stderr
                    .contains("Weka takes them, but this user may not read its status"),
                "{}",
                run.stderr
            ),
        }
    }
    cluster.weka.with(|weka| weka.api.end_faults());

    // A function of this name that is somebody else's would read them: it is not asked.
    let function = "arn:aws:lambda:eu-central-1:123456789012:function:wekactl-prod-scale-Backends";
    let owner = json!({"Resource": function, "Tags": {"wekactl.io/cluster_name": "theirs"}});
    sandbox.aws("lambda", "tag_resource", &owner);
    sandbox.take_calls();
    let run = change(sandbox, NEW, &[]).ok();
    let foreign = "Lambda function wekactl-prod-scale-Backends exists and does not belong to cluster prod: its tag";
    for said in [UNTRIED, foreign] {
        assert!(run.stderr.contains(said), "{}", run.stderr);
    }
    let debug = ["debug", "jrpc", "-n", CLUSTER, "status"];
    sandbox.wekactl(&debug).fails(1, &[foreign]);
    let calls = sandbox.take_calls();
    assert!(
        calls.iter().all(|call| call["operation"] != "Invoke"),
        "{calls:?}"
    );

    // Whoever says so stores what does not work.
    let run = change(sandbox, "nonsense", &["--no-verify"]).ok();
    assert!(!run.stderr.contains("Weka takes them"), "{}", run.stderr);
    assert_eq!(stored(sandbox), "nonsense");
}

#[test]
fn an_automation_does_not_begin_with_credentials_that_are_refused() {
    let sandbox = Sandbox::start();
    let stack = sandbox.stack(&json!({"name": CLUSTER, "backends": 5}));
    let cluster = Cluster::of_stack(sandbox, &stack);
    let sandbox = &cluster.sandbox;
    for _ in 0..2 {
        import_with(sandbox, NEW).fails(1, &[REFUSED]);
        assert_eq!(kind(&sandbox.inventory(), "rules").len(), 0);
    }
    let run = import_with(sandbox, PASSWORD).ok();
    assert!(!run.stderr.contains(UNTRIED), "{}", run.stderr);
    assert_eq!(kind(&sandbox.inventory(), "rules").len(), 1);
    assert_eq!(stored(sandbox), PASSWORD);
    assert_eq!(cluster.minute().status, "SUCCEEDED");
}

#[test]
fn where_the_cluster_can_not_be_asked_credentials_are_stored_and_it_is_said() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": CLUSTER, "backends": 5}));
    // Nobody answers at the backends' addresses.
    let run = import_with(&sandbox, PASSWORD).ok();
    for said in [UNTRIED, "wekactl cluster change-credentials --name prod"] {
        assert!(run.stderr.contains(said), "{}", run.stderr);
    }
    let run = change(&sandbox, NEW, &[]).ok();
    assert!(run.stderr.contains(UNTRIED), "{}", run.stderr);
    assert_eq!(stored(&sandbox), NEW);
    let run = change(&sandbox, PASSWORD, &["--no-verify"]).ok();
    assert!(!run.stderr.contains(UNTRIED), "{}", run.stderr);
    assert_eq!(stored(&sandbox), PASSWORD);
}

/// The earlier tool wrote an item for a cluster that there was not.
#[test]
fn a_cluster_that_is_not_managed_gets_no_credentials() {
    let sandbox = Sandbox::start();
    sandbox.stack(&json!({"name": CLUSTER, "backends": 5}));
    change(&sandbox, NEW, &[]).fails(1, &["no managed cluster named prod", "cluster import"]);
    assert_no_mutations(&sandbox, "credentials for nothing");

    // Nor does a table that is somebody else's.
    sandbox.aws(
        "dynamodb",
        "create_table",
        &json!({
            "TableName": "wekactl-prod", "BillingMode": "PAY_PER_REQUEST",
            "KeySchema": [{"AttributeName": "Key", "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": "Key", "AttributeType": "S"}],
        }),
    );
    change(&sandbox, NEW, &[]).fails(1, &["does not belong to cluster prod"]);
    assert_no_mutations(&sandbox, "credentials in somebody else's table");
}
