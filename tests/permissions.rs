//! The policy in the README is enough: it allows every call that import and destroy were seen to make, every call
//! that the source can make, and what AWS asks for besides.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{REGION, Sandbox};

/// A managed policy's limit, white space not counted. Source: IAM User Guide, "IAM and AWS STS quotas".
const LONGEST_POLICY: usize = 6_144;

/// What AWS asks for besides the action of an operation, as the services' own pages say (Service Authorization
/// Reference, "dependent actions"; for tags in a creating call, the services' pages on tagging).
const BESIDES: &[(&str, &[&str])] = &[
    ("apigateway:CreateRestApi", &["apigateway:PUT"]),
    ("apigateway:PutRestApi", &["apigateway:UpdateRestApiPolicy"]),
    (
        "autoscaling:CreateAutoScalingGroup",
        &[
            "autoscaling:CreateOrUpdateTags",
            "ec2:CreateTags",
            "ec2:RunInstances",
            "iam:CreateServiceLinkedRole",
            "iam:PassRole",
        ],
    ),
    (
        "dynamodb:CreateTable",
        &["dynamodb:TagResource", "kms:CreateGrant", "kms:DescribeKey"],
    ),
    ("dynamodb:GetItem", &["kms:Decrypt"]),
    ("dynamodb:PutItem", &["kms:Encrypt", "kms:GenerateDataKey"]),
    ("ec2:CreateLaunchTemplate", &["ec2:CreateTags"]),
    ("elbv2:CreateListener", &["elasticloadbalancing:AddTags"]),
    (
        "elbv2:CreateLoadBalancer",
        &[
            "elasticloadbalancing:AddTags",
            "iam:CreateServiceLinkedRole",
        ],
    ),
    ("elbv2:CreateTargetGroup", &["elasticloadbalancing:AddTags"]),
    ("events:PutRule", &["events:TagResource"]),
    ("events:PutTargets", &["iam:PassRole"]),
    ("iam:CreateRole", &["iam:TagRole"]),
    ("kms:CreateKey", &["kms:TagResource"]),
    (
        "lambda:CreateFunction",
        &[
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSubnets",
            "ec2:DescribeVpcs",
            "iam:PassRole",
            "lambda:GetLayerVersion",
            "lambda:TagResource",
        ],
    ),
    // Without it the answer has no tags.
    ("lambda:GetFunction", &["lambda:ListTags"]),
    ("logs:CreateLogGroup", &["logs:TagResource"]),
    (
        "stepfunctions:CreateStateMachine",
        &["iam:PassRole", "states:TagResource"],
    ),
];

/// The SDK's clients as the source names them, and the sandbox's names for the same services.
const CLIENTS: &[(&str, &str)] = &[
    ("apigateway", "apigateway"),
    ("autoscaling", "autoscaling"),
    ("cloudformation", "cloudformation"),
    ("dynamodb", "dynamodb"),
    ("ec2", "ec2"),
    ("elb", "elb"),
    ("elbv2", "elbv2"),
    ("events", "events"),
    ("iam", "iam"),
    ("kms", "kms"),
    ("lambda", "lambda"),
    ("logs", "logs"),
    ("route53", "route53"),
    ("sfn", "stepfunctions"),
    ("sts", "sts"),
    ("tagging", "resourcegroupstaggingapi"),
];

#[test]
fn the_readmes_policy_allows_whatever_import_and_destroy_call() {
    let policy = Policy::of_the_readme();
    assert!(
        policy.length <= LONGEST_POLICY,
        "{} characters",
        policy.length
    );

    let seen = seen();
    let possible = possible();
    assert!(
        seen.len() * 3 > possible.len() * 2,
        "only {} operations were seen, and the source names {}",
        seen.len(),
        possible.len()
    );
    // Neither is all: what is rare is not seen, and what goes through a variable is not found in the source.
    let all: BTreeSet<String> = seen.union(&possible).cloned().collect();

    let mut missing = BTreeSet::new();
    for operation in &all {
        let besides = BESIDES.iter().filter(|(name, _)| name == operation);
        let besides = besides.flat_map(|(_, actions)| actions.iter().map(ToString::to_string));
        for action in action(operation).into_iter().chain(besides) {
            if !policy.allows(&action) {
                missing.insert(format!("{action}, for {operation}"));
            }
        }
    }
    assert!(missing.is_empty(), "README.md lacks {missing:#?}");
    for (operation, _) in BESIDES {
        assert!(
            all.contains(*operation),
            "{operation} is not called any more"
        );
    }
}

/// Every operation of imports and destroys with all that they can be asked for.
fn seen() -> BTreeSet<String> {
    let sandbox = Sandbox::start();
    let mut seen = BTreeSet::new();
    let mut look = |sandbox: &Sandbox| {
        for call in sandbox.take_calls() {
            seen.insert(format!(
                "{}:{}",
                call["service"].as_str().unwrap_or_default(),
                call["operation"].as_str().unwrap_or_default()
            ));
        }
    };
    sandbox
        .import("missing", &[])
        .fails(1, &["there is no stack missing"]);
    sandbox.stack(&json!({"name": "one", "classic_lb": true}));
    let zone = sandbox.aws(
        "route53",
        "create_hosted_zone",
        &json!({"Name": "example.com", "CallerReference": "1"}),
    );
    let zone = zone["HostedZone"]["Id"].as_str().expect("an id");
    let zone = zone.trim_start_matches("/hostedzone/");
    let flags = [
        "-t",
        "owner=me",
        "-l",
        "weka.example.com",
        "-z",
        zone,
        "--use-dynamodb-endpoint",
    ];
    sandbox.import("one", &flags).ok();
    spoil(&sandbox);
    sandbox.import("one", &flags).ok();
    look(&sandbox);
    sandbox.destroy("one", &["--keep-instances"]).ok();
    look(&sandbox);
    sandbox.stack(&json!({"name": "two"}));
    sandbox.import("two", &[]).ok();
    sandbox.destroy("two", &["--yes"]).ok();
    look(&sandbox);
    seen
}

/// Changes by hand what import repairs.
fn spoil(sandbox: &Sandbox) {
    let tag = json!({"wekactl.io/version": "0", "owner": "you"});
    let function = "wekactl-one-fetch-Backends";
    sandbox.aws(
        "lambda",
        "update_function_configuration",
        &json!({"FunctionName": function, "Timeout": 1}),
    );
    sandbox.aws(
        "lambda",
        "remove_permission",
        &json!({"FunctionName": "wekactl-one-join-Backends", "StatementId": statement(sandbox)}),
    );
    let inventory = sandbox.inventory();
    let here = &inventory[REGION];
    for (name, role) in inventory["global"]["roles"].as_object().expect("roles") {
        if name.contains("wekactl-one") {
            let policies = role["Policies"].as_object().expect("policies");
            for policy in policies.keys() {
                let nothing = json!({"Effect": "Deny", "Action": "*", "Resource": "*"});
                let document = json!({"Version": "2012-10-17", "Statement": [nothing]}).to_string();
                sandbox.aws(
                    "iam",
                    "put_role_policy",
                    &json!({"RoleName": name, "PolicyName": policy, "PolicyDocument": document}),
                );
            }
        }
    }
    let target_group = &here["target_groups"]["wekactl-one-api"]["TargetGroupArn"];
    sandbox.aws(
        "elbv2",
        "modify_target_group",
        &json!({"TargetGroupArn": target_group, "HealthCheckPath": "/"}),
    );
    let machine = &here["state_machines"]["wekactl-one-Backends"]["stateMachineArn"];
    let definition = json!({"StartAt": "A", "States": {"A": {"Type": "Succeed"}}}).to_string();
    sandbox.aws(
        "stepfunctions",
        "update_state_machine",
        &json!({"stateMachineArn": machine, "definition": definition}),
    );
    sandbox.aws(
        "events",
        "remove_targets",
        &json!({"Rule": "wekactl-one-Backends", "Ids": [here["rules"]["wekactl-one-Backends"]["Targets"][0]["Id"]]}),
    );
    sandbox.aws(
        "logs",
        "delete_retention_policy",
        &json!({"logGroupName": format!("/aws/lambda/{function}")}),
    );
    sandbox.aws(
        "autoscaling",
        "resume_processes",
        &json!({"AutoScalingGroupName": "wekactl-one-Backends"}),
    );
    let table = &here["tables"]["wekactl-one"]["TableArn"];
    sandbox.aws(
        "dynamodb",
        "untag_resource",
        &json!({"ResourceArn": table, "TagKeys": ["owner"]}),
    );
    let (key, _) = here["kms_keys"]
        .as_object()
        .and_then(|keys| keys.iter().next())
        .expect("a key");
    sandbox.aws("kms", "disable_key_rotation", &json!({"KeyId": key}));
    let function_arn = &here["functions"][function]["FunctionArn"];
    sandbox.aws(
        "lambda",
        "tag_resource",
        &json!({"Resource": function_arn, "Tags": tag}),
    );
}

/// The id of the statement by which API Gateway may call join.
fn statement(sandbox: &Sandbox) -> Value {
    let inventory = sandbox.inventory();
    let policy = &inventory[REGION]["functions"]["wekactl-one-join-Backends"]["Policy"];
    policy["Statement"][0]["Sid"].clone()
}

/// Every operation that the source names, but for the functions': those run with their own roles.
fn possible() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut directories = vec![source.clone()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && path != source.join("functions") {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("text");
                found.extend(operations(&text));
            }
        }
    }
    found
}

/// `aws.ec2().describe_images()` is `ec2:DescribeImages`.
fn operations(source: &str) -> Vec<String> {
    let source: String = source.split_whitespace().collect();
    let mut found = Vec::new();
    for (client, service) in CLIENTS {
        for call in source.split(&format!(".{client}().")).skip(1) {
            let name = call.split('(').next().unwrap_or_default();
            found.push(format!("{service}:{}", camel_case(name)));
        }
    }
    found
}

fn camel_case(name: &str) -> String {
    name.split('_')
        .flat_map(|word| {
            let (first, rest) = word.split_at(word.len().min(1));
            [first.to_uppercase(), rest.to_owned()]
        })
        .collect()
}

/// The action that IAM has for an operation; none where none is needed.
fn action(operation: &str) -> Option<String> {
    let (service, name) = operation.split_once(':')?;
    let prefix = match service {
        // Whoever has credentials may ask whose they are.
        "sts" => return None,
        "apigateway" => return Some(format!("apigateway:{}", verb(name))),
        "elb" | "elbv2" => "elasticloadbalancing",
        "lambda" if name == "Invoke" => return Some("lambda:InvokeFunction".to_owned()),
        "stepfunctions" => "states",
        "resourcegroupstaggingapi" => "tag",
        other => other,
    };
    Some(format!("{prefix}:{name}"))
}

/// API Gateway's actions are the verbs of HTTP.
fn verb(operation: &str) -> &'static str {
    match operation {
        "PutRestApi" | "TagResource" => "PUT",
        name if name.starts_with("Get") => "GET",
        name if name.starts_with("Create") => "POST",
        name if name.starts_with("Update") => "PATCH",
        name if name.starts_with("Delete") => "DELETE",
        name => panic!("what verb has apigateway:{name}?"),
    }
}

struct Policy {
    actions: Vec<String>,
    length: usize,
}

impl Policy {
    /// The JSON block of the README that has statements.
    fn of_the_readme() -> Self {
        let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
        let readme = std::fs::read_to_string(readme).expect("README.md");
        let blocks = readme.split("```json\n").skip(1);
        let blocks = blocks.filter_map(|rest| rest.split("```").next());
        let document: Value = blocks
            .map(|block| serde_json::from_str(block).expect("valid JSON"))
            .find(|document: &Value| document.get("Statement").is_some())
            .expect("a policy");
        let mut actions = Vec::new();
        for statement in document["Statement"].as_array().expect("statements") {
            assert_eq!(statement["Effect"], "Allow", "{statement}");
            match &statement["Action"] {
                Value::String(one) => actions.push(one.clone()),
                Value::Array(all) => {
                    actions.extend(all.iter().filter_map(Value::as_str).map(ToOwned::to_owned));
                }
                other => panic!("{other} is no action"),
            }
        }
        Self {
            actions,
            length: document.to_string().len(),
        }
    }

    fn allows(&self, action: &str) -> bool {
        self.actions
            .iter()
            .any(|allowed| match allowed.strip_suffix('*') {
                Some(beginning) => action.starts_with(beginning),
                None => action == allowed,
            })
    }
}
