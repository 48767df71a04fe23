//! What each role may do, and who may take it on: pure documents, nothing wider than the calls that are made.

use serde_json::{Value, json};

use super::names::{CLUSTER_TAG, Cluster, FunctionKind, RolePurpose};
use crate::aws::Identity;
use crate::resource::Known;

/// On a member that has been an active backend: only such a one is ever taken for lost. Written by `terminate`.
pub const JOINED_TAG: &str = "wekactl.io/joined";
/// Key of the one item that the functions write.
pub const LEASE_ITEM: &str = "cluster-lease";

/// What Lambda does with the role of a function in a VPC. Source: Lambda Developer Guide, "Giving Lambda
/// functions access to resources in an Amazon VPC": no condition on these works.
const INTERFACE_ACTIONS: [&str; 6] = [
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
];

/// The documents of one cluster's roles.
#[derive(Debug, Clone)]
pub struct Policies<'a> {
    /// Whose roles.
    pub cluster: &'a Cluster,
    /// Where it is.
    pub region: &'a str,
    /// Account and partition it is in.
    pub identity: &'a Identity,
    /// Whether `scale` reads the credentials itself.
    pub use_dynamodb_endpoint: bool,
    /// The key the table is encrypted with.
    pub key_arn: Known<String>,
}

impl Policies<'_> {
    /// Who may take the role on: the service, for this account.
    pub fn trust(&self, purpose: RolePurpose) -> Value {
        let service = match purpose {
            RolePurpose::Function(_) => "lambda.amazonaws.com",
            RolePurpose::StateMachine => "states.amazonaws.com",
            RolePurpose::EventRule => "events.amazonaws.com",
        };
        json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Principal": {"Service": service},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"aws:SourceAccount": self.identity.account}},
            }],
        })
    }

    /// What who has the role may do.
    pub fn permissions(&self, purpose: RolePurpose) -> Known<Value> {
        let statements = match purpose {
            RolePurpose::StateMachine => Known::Value(vec![self.invoke()]),
            RolePurpose::EventRule => Known::Value(vec![self.start_execution()]),
            RolePurpose::Function(kind) => self.function(kind),
        };
        statements.map(|statements| json!({"Version": "2012-10-17", "Statement": statements}))
    }

    fn function(&self, kind: FunctionKind) -> Known<Vec<Value>> {
        let mut statements = vec![self.write_logs(kind), trace()];
        let uses_table = match kind {
            FunctionKind::Join => {
                statements.extend([describe(kind), self.read_table()]);
                true
            }
            FunctionKind::Fetch => {
                statements.extend([describe(kind), self.read_table(), self.write_lease()]);
                true
            }
            FunctionKind::Scale => {
                statements.extend(self.interfaces());
                if self.use_dynamodb_endpoint {
                    statements.push(self.read_table());
                }
                self.use_dynamodb_endpoint
            }
            FunctionKind::Terminate => {
                statements.extend([
                    describe(kind),
                    self.write_lease(),
                    self.change_group(),
                    self.change_instances(),
                    self.mark_joined(),
                ]);
                true
            }
            FunctionKind::Transient => false,
        };
        if !uses_table {
            return Known::Value(statements);
        }
        let writes = matches!(kind, FunctionKind::Fetch | FunctionKind::Terminate);
        self.key_arn.map(|key_arn| {
            statements.push(self.use_key(key_arn, writes));
            statements
        })
    }

    fn write_logs(&self, kind: FunctionKind) -> Value {
        let group = self.cluster.log_group(kind);
        allow(
            &["logs:CreateLogStream", "logs:PutLogEvents"],
            &json!(self.arn("logs", &format!("log-group:{group}:*"))),
        )
    }

    fn read_table(&self) -> Value {
        allow(&["dynamodb:GetItem"], &json!(self.table_arn()))
    }

    /// The other items are import's to write.
    fn write_lease(&self) -> Value {
        with_condition(
            allow(
                &["dynamodb:PutItem", "dynamodb:UpdateItem"],
                &json!(self.table_arn()),
            ),
            json!({"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [LEASE_ITEM]}}),
        )
    }

    fn use_key(&self, key_arn: &str, writes: bool) -> Value {
        let actions: &[&str] = if writes {
            &["kms:Decrypt", "kms:GenerateDataKey"]
        } else {
            &["kms:Decrypt"]
        };
        let service = format!("dynamodb.{}.{}", self.region, self.identity.dns_suffix());
        with_condition(
            allow(actions, &json!(key_arn)),
            json!({"StringEquals": {"kms:ViaService": service}}),
        )
    }

    /// For Lambda, which places the function in the VPC, and not for the function's own code.
    fn interfaces(&self) -> [Value; 2] {
        let function = self.function_arn(FunctionKind::Scale);
        let mut deny = with_condition(
            allow(&INTERFACE_ACTIONS, &json!("*")),
            json!({"ArnEquals": {"lambda:SourceFunctionArn": function}}),
        );
        deny["Effect"] = json!("Deny");
        [allow(&INTERFACE_ACTIONS, &json!("*")), deny]
    }

    fn change_group(&self) -> Value {
        let group = self.cluster.backends();
        let resource = format!("autoScalingGroup:*:autoScalingGroupName/{group}");
        allow(
            &[
                "autoscaling:DetachInstances",
                "autoscaling:SetInstanceProtection",
            ],
            &json!(self.arn("autoscaling", &resource)),
        )
    }

    fn change_instances(&self) -> Value {
        with_condition(
            allow(
                &["ec2:ModifyInstanceAttribute", "ec2:TerminateInstances"],
                &json!(self.arn("ec2", "instance/*")),
            ),
            json!({"StringEquals": self.is_ours()}),
        )
    }

    fn mark_joined(&self) -> Value {
        with_condition(
            allow(&["ec2:CreateTags"], &json!(self.arn("ec2", "instance/*"))),
            json!({
                "StringEquals": self.is_ours(),
                "ForAllValues:StringEquals": {"aws:TagKeys": [JOINED_TAG]},
            }),
        )
    }

    fn is_ours(&self) -> Value {
        json!({format!("ec2:ResourceTag/{CLUSTER_TAG}"): self.cluster.name})
    }

    fn invoke(&self) -> Value {
        let functions: Vec<String> = FunctionKind::ALL
            .into_iter()
            .filter(|kind| *kind != FunctionKind::Join)
            .map(|kind| self.function_arn(kind))
            .collect();
        allow(&["lambda:InvokeFunction"], &json!(functions))
    }

    fn start_execution(&self) -> Value {
        let machine = format!("stateMachine:{}", self.cluster.state_machine());
        allow(
            &["states:StartExecution"],
            &json!(self.arn("states", &machine)),
        )
    }

    fn table_arn(&self) -> String {
        self.arn("dynamodb", &format!("table/{}", self.cluster.base()))
    }

    fn function_arn(&self, kind: FunctionKind) -> String {
        let name = self.cluster.function(kind);
        self.arn("lambda", &format!("function:{name}"))
    }

    fn arn(&self, service: &str, resource: &str) -> String {
        let Identity { account, partition } = self.identity;
        format!(
            "arn:{partition}:{service}:{}:{account}:{resource}",
            self.region
        )
    }
}

/// X-Ray has no resources to name.
fn trace() -> Value {
    allow(
        &["xray:PutTelemetryRecords", "xray:PutTraceSegments"],
        &json!("*"),
    )
}

/// Nor have these. An attribute may also be the user data of any instance, and so another cluster's API key: only who
/// asks for one may.
fn describe(kind: FunctionKind) -> Value {
    let mut actions = vec![
        "autoscaling:DescribeAutoScalingGroups",
        "ec2:DescribeInstances",
    ];
    if kind == FunctionKind::Terminate {
        actions.push("ec2:DescribeInstanceAttribute");
    }
    allow(&actions, &json!("*"))
}

fn allow(actions: &[&str], resource: &Value) -> Value {
    json!({"Effect": "Allow", "Action": actions, "Resource": resource})
}

fn with_condition(mut statement: Value, condition: Value) -> Value {
    statement["Condition"] = condition;
    statement
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// IAM's limits, white space not counted. Source: IAM User Guide, "IAM and AWS STS quotas".
    const MAX_INLINE_POLICIES: usize = 10_240;
    const MAX_TRUST: usize = 2_048;

    fn documents(
        name: &str,
        use_dynamodb_endpoint: bool,
        partition: &str,
    ) -> BTreeMap<&'static str, (Value, Value)> {
        let cluster: Cluster = name.parse().unwrap();
        let identity = Identity {
            account: "123456789012".into(),
            partition: partition.into(),
        };
        let region = if partition == "aws-cn" {
            "cn-north-1"
        } else {
            "eu-central-1"
        };
        let policies = Policies {
            cluster: &cluster,
            region,
            identity: &identity,
            use_dynamodb_endpoint,
            key_arn: Known::Value(format!("arn:{partition}:kms:{region}:123456789012:key/1")),
        };
        RolePurpose::all()
            .map(|purpose| {
                let permissions = policies.permissions(purpose).get().unwrap().clone();
                (purpose.word(), (policies.trust(purpose), permissions))
            })
            .collect()
    }

    #[test]
    fn every_document() {
        insta::assert_json_snapshot!(documents("prod", false, "aws"));
    }

    #[test]
    fn scale_reads_the_table_only_through_an_endpoint() {
        let (without, with) = (
            documents("prod", false, "aws"),
            documents("prod", true, "aws"),
        );
        for (word, document) in &with {
            let same = without[word] == *document;
            assert_eq!(same, *word != "scale", "{word}");
        }
        insta::assert_json_snapshot!(with["scale"].1);
    }

    #[test]
    fn only_what_has_no_resources_is_allowed_on_all() {
        let free = [
            "xray:PutTelemetryRecords",
            "xray:PutTraceSegments",
            "autoscaling:DescribeAutoScalingGroups",
            "ec2:DescribeInstances",
            "ec2:DescribeInstanceAttribute",
        ];
        for (word, (_, permissions)) in documents("prod", true, "aws") {
            for statement in permissions["Statement"].as_array().unwrap() {
                if statement["Resource"] != "*" {
                    continue;
                }
                for action in statement["Action"].as_array().unwrap() {
                    let action = action.as_str().unwrap();
                    assert!(
                        free.contains(&action) || INTERFACE_ACTIONS.contains(&action),
                        "{word} {action}"
                    );
                }
            }
        }
    }

    #[test]
    fn no_partition_is_written_down() {
        let text = format!("{:?}", documents("prod", true, "aws-cn"));
        assert!(!text.contains("arn:aws:"));
        assert!(text.contains("dynamodb.cn-north-1.amazonaws.com.cn"));
    }

    #[test]
    fn the_longest_name_fits() {
        for (word, (trust, permissions)) in documents(&"a".repeat(128), true, "aws-us-gov") {
            assert!(
                permissions.to_string().len() <= MAX_INLINE_POLICIES,
                "{word}"
            );
            assert!(trust.to_string().len() <= MAX_TRUST, "{word}");
        }
    }

    #[test]
    fn who_uses_the_table_waits_for_the_key() {
        let (cluster, identity) = (
            "prod".parse().unwrap(),
            Identity {
                account: "1".into(),
                partition: "aws".into(),
            },
        );
        let policies = Policies {
            cluster: &cluster,
            region: "eu-central-1",
            identity: &identity,
            use_dynamodb_endpoint: false,
            key_arn: Known::AfterApply,
        };
        let waiting: Vec<_> = RolePurpose::all()
            .filter(|purpose| policies.permissions(*purpose) == Known::AfterApply)
            .map(RolePurpose::word)
            .collect();
        assert_eq!(waiting, ["join", "fetch", "terminate"]);
    }
}
