//! Every function has the rights that it needs, and not one more: with all of them everything works, and without any
//! one something fails and says so.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::account::kind;
use crate::support::cluster::{CLUSTER, Cluster, GROUP};

/// What only Lambda itself uses, and X-Ray, which nobody reads here: the golden test of the roles' documents has these.
const LAMBDAS_OWN: [&str; 3] = [
    "logs:CreateLogStream",
    "xray:PutTelemetryRecords",
    "ec2:CreateNetworkInterface",
];

/// A policy of a role, as it is stored.
struct Policy {
    role: String,
    name: String,
    statements: Vec<Value>,
}

impl Policy {
    /// Those of all roles of the cluster.
    fn all(cluster: &Cluster) -> Vec<Self> {
        let sandbox = &cluster.sandbox;
        let roles = sandbox.aws("iam", "list_roles", &json!({}));
        let roles = roles["Roles"].as_array().expect("a list").iter();
        let ours = roles.filter_map(|role| role["RoleName"].as_str());
        ours.filter(|role| role.starts_with(&format!("wekactl-{CLUSTER}-")))
            .map(|role| {
                let names = sandbox.aws("iam", "list_role_policies", &json!({"RoleName": role}));
                let name = names["PolicyNames"][0]
                    .as_str()
                    .expect("it has one")
                    .to_owned();
                let policy = json!({"RoleName": role, "PolicyName": name});
                let document = sandbox.aws("iam", "get_role_policy", &policy);
                let statements = &document["PolicyDocument"]["Statement"];
                Self {
                    role: role.to_owned(),
                    name,
                    statements: statements.as_array().expect("a list").clone(),
                }
            })
            .collect()
    }

    /// Stores it without one of its statements, or with all of them.
    fn store(&self, cluster: &Cluster, without: Option<usize>) {
        let mut statements = self.statements.clone();
        if let Some(index) = without {
            statements.remove(index);
        }
        let mut policy = json!({"RoleName": self.role, "PolicyName": self.name});
        if statements.is_empty() {
            cluster.sandbox.aws("iam", "delete_role_policy", &policy);
            return;
        }
        let document = json!({"Version": "2012-10-17", "Statement": statements});
        policy["PolicyDocument"] = json!(document.to_string());
        cluster.sandbox.aws("iam", "put_role_policy", &policy);
    }
}

/// Whether the function itself makes use of a statement.
fn is_the_functions_own(statement: &Value) -> bool {
    let first = statement["Action"][0]
        .as_str()
        .expect("it allows something");
    !LAMBDAS_OWN.contains(&first)
}

/// Gives a run all kinds of work: a member that lacks both protections and its mark.
fn make_work(cluster: &Cluster) {
    let sandbox = &cluster.sandbox;
    let id = &cluster.backends()[0];
    let protection = json!({
        "AutoScalingGroupName": GROUP, "InstanceIds": [id], "ProtectedFromScaleIn": false,
    });
    sandbox.aws("autoscaling", "set_instance_protection", &protection);
    let attribute = json!({"InstanceId": id, "DisableApiTermination": {"Value": false}});
    sandbox.aws("ec2", "modify_instance_attribute", &attribute);
    let mark = json!({"Resources": [id], "Tags": [{"Key": "wekactl.io/joined"}]});
    sandbox.aws("ec2", "delete_tags", &mark);
}

/// How the run of this minute ended: what it could not do, or nothing.
fn run(cluster: &Cluster) -> Option<String> {
    make_work(cluster);
    let fired = cluster.sandbox.post("tick", &json!({"wait": true}));
    let run = &fired[0];
    let text = |field: &str| run[field].as_str().unwrap_or_default().to_owned();
    // A function that failed leaves its lease to run out.
    cluster.expire_lease();
    (run["status"] != "SUCCEEDED").then(|| format!("{} {}", text("cause"), text("failed")))
}

#[test]
fn without_any_one_right_a_run_fails_and_says_what_it_may_not() {
    // Here scale reads the table, too.
    let cluster = Cluster::start_with(6, &["--use-dynamodb-endpoint"]);
    assert_eq!(run(&cluster), None);
    let mut tried = 0;
    for policy in Policy::all(&cluster) {
        if policy.role.contains("-join-") {
            continue;
        }
        for (index, statement) in policy.statements.iter().enumerate() {
            if !is_the_functions_own(statement) {
                continue;
            }
            policy.store(&cluster, Some(index));
            let said = run(&cluster).unwrap_or_else(|| {
                panic!("{} does not need {statement}", policy.role);
            });
            let mut actions = statement["Action"].as_array().expect("a list").iter();
            let is_named = actions.any(|action| {
                let action = action.as_str().expect("a name");
                said.contains(action.trim_end_matches('*'))
            });
            assert!(is_named, "{} without {statement} says {said}", policy.role);
            policy.store(&cluster, None);
            tried += 1;
        }
    }
    assert!(tried >= 14, "{tried}");
    // With all of them it is as it was, and all that was taken away is back.
    assert_eq!(run(&cluster), None);
    for member in cluster.group()["Instances"].as_array().expect("a list") {
        assert_eq!(member["ProtectedFromScaleIn"], true, "{member}");
    }
    let inventory = cluster.sandbox.inventory();
    for (id, instance) in kind(&inventory, "instances") {
        if cluster.members().contains(id) {
            assert_eq!(instance["DisableApiTermination"], true, "{id}");
        }
    }
}

#[test]
fn without_any_one_right_of_joins_nobody_joins() {
    let cluster = Cluster::start(6);
    cluster.minute();
    // A member that would join, and does not boot.
    cluster.sandbox.set(&json!({"boot_machines": false}));
    cluster.resize(7);
    cluster.run();
    let members = cluster.members();
    let new = members.iter().find(|id| !cluster.backends().contains(id));
    let new = new.expect("one was launched");
    let ask = |step: &str| invoke_join(&cluster, new, step);
    assert_eq!((ask(""), ask("credentials")), (200, 200));
    let policies = Policy::all(&cluster);
    let policy = policies
        .iter()
        .find(|policy| policy.role.contains("-join-"));
    let policy = policy.expect("join has a role");
    for (index, statement) in policy.statements.iter().enumerate() {
        if !is_the_functions_own(statement) {
            continue;
        }
        policy.store(&cluster, Some(index));
        assert_eq!((ask(""), ask("credentials")), (500, 500), "{statement}");
        policy.store(&cluster, None);
    }
    assert_eq!((ask(""), ask("credentials")), (200, 200));
}

/// The status that join answers an instance with.
fn invoke_join(cluster: &Cluster, instance: &str, step: &str) -> u64 {
    let mut parameters = json!({"instance_id": instance});
    if !step.is_empty() {
        parameters["step"] = json!(step);
    }
    let event = json!({"queryStringParameters": parameters}).to_string();
    let standard = base64::prelude::BASE64_STANDARD;
    let call = json!({
        "FunctionName": format!("wekactl-{CLUSTER}-join-Backends"),
        "Payload": {"__bytes__": standard.encode(event)},
    });
    let answer = cluster.sandbox.aws("lambda", "invoke", &call);
    let payload = answer["Payload"].as_str().expect("a payload");
    let payload = standard.decode(payload).expect("base64");
    let payload: Value = serde_json::from_slice(&payload).expect("JSON");
    payload["statusCode"].as_u64().expect("a status")
}
