//! Complete: every field of every resource, read back from the account, is what a managed cluster's is.
//!
//! The whole account is compared, in both directions: what is expected but is not there, and what is there but is
//! not expected. Only what AWS draws by lot is [`ANYTHING`].

use std::path::PathBuf;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::account::{ANYTHING, assert_same, common_tags, decoded, kind, one, with};
use crate::support::{PASSWORD, REGION, Sandbox, executable};

/// What a cluster was imported with.
pub(crate) struct Wanted {
    /// The stack, as the sandbox describes it.
    pub(crate) stack: Value,
    /// The account before import.
    pub(crate) before: Value,
    /// The executable that the functions run.
    pub(crate) code: PathBuf,
    pub(crate) user_tags: Value,
    /// Whether it is `--private-subnet`.
    pub(crate) private: bool,
    /// Alias and zone.
    pub(crate) dns: Option<(String, String)>,
}

#[test]
fn a_cluster_with_everything() {
    let sandbox = Sandbox::start();
    let stack = sandbox.stack(&json!({
        "name": "prod", "backends": 6, "clients": 1, "classic_lb": true, "placement_group": true,
        "http_tokens": "required",
    }));
    let zone = make_zone(&sandbox);
    let before = sandbox.inventory();
    // The code is the executable itself.
    sandbox
        .import(
            "prod",
            &[
                "-t",
                "team=storage",
                "-t",
                "cost=a=b",
                "-l",
                "Weka.Example.com",
                "-z",
                &zone,
            ],
        )
        .ok();
    let wanted = Wanted {
        stack,
        before,
        code: executable(),
        user_tags: json!({"team": "storage", "cost": "a=b"}),
        private: false,
        dns: Some(("Weka.Example.com".to_owned(), zone)),
    };
    assert_complete(&sandbox.inventory(), &wanted);
}

#[test]
fn a_cluster_in_a_private_subnet() {
    let sandbox = Sandbox::start();
    let stack = sandbox.stack(&json!({"name": "inside", "backends": 5, "private_subnet": true}));
    sandbox.aws(
        "ec2",
        "create_vpc_endpoint",
        &json!({
            "VpcId": stack["vpc"], "VpcEndpointType": "Interface", "PrivateDnsEnabled": true,
            "ServiceName": format!("com.amazonaws.{REGION}.execute-api"),
            "SubnetIds": [stack["subnets"][0]],
        }),
    );
    let before = sandbox.inventory();
    sandbox.import_small("inside", &["--private-subnet"]).ok();
    let wanted = Wanted {
        stack,
        before,
        code: sandbox.small_code().into(),
        user_tags: json!({}),
        private: true,
        dns: None,
    };
    assert_complete(&sandbox.inventory(), &wanted);
}

/// A public zone; its id.
pub(crate) fn make_zone(sandbox: &Sandbox) -> String {
    let made = sandbox.aws(
        "route53",
        "create_hosted_zone",
        &json!({"Name": "example.com", "CallerReference": "test"}),
    );
    let id = made["HostedZone"]["Id"].as_str().expect("an id");
    id.trim_start_matches("/hostedzone/").to_owned()
}

/// Fails the test unless the account is what it was before, and what the cluster's resources are.
#[track_caller]
pub(crate) fn assert_complete(found: &Value, wanted: &Wanted) {
    let mut expected = wanted.before.clone();
    let facts = Facts::of(found, wanted);
    for (of_kind, name, resource) in resources(&facts) {
        expected[REGION][of_kind][name] = resource;
    }
    for (name, role) in roles(&facts) {
        expected["global"]["roles"][name] = role;
    }
    if let Some((alias, zone)) = &wanted.dns {
        // Route 53 knows no capitals.
        let alias = alias.to_lowercase();
        let zone = &mut expected["global"]["hosted_zones"][format!("/hostedzone/{zone}")];
        zone["ResourceRecordSetCount"] = json!(3);
        zone["Records"][format!("{alias}. A")] = json!({
            "Name": format!("{alias}."),
            "Type": "A",
            "AliasTarget": {
                "DNSName": format!("{}.", facts.balancer_dns),
                "HostedZoneId": facts.balancer_zone,
                "EvaluateTargetHealth": false,
            },
        });
    }
    change_the_stack(&mut expected, &facts);
    assert_same(&expected, found, "the account after import");
}

/// What the expected resources have to repeat: names, and ids that were drawn.
struct Facts<'a> {
    cluster: &'a str,
    stack: &'a Value,
    before: &'a Value,
    tags: Value,
    hostgroup_tags: Value,
    private: bool,
    dns: Option<&'a (String, String)>,
    user_tags: &'a Value,
    account: String,
    sha256: String,
    architecture: &'static str,
    code_size: Value,
    key_arn: String,
    api_id: String,
    api_key_id: String,
    api_key: String,
    plan_id: String,
    deployment_id: String,
    template_id: String,
    balancer_arn: String,
    balancer_dns: String,
    balancer_zone: String,
    target_group_arn: String,
    listener_arn: String,
    /// Name by purpose.
    roles: Value,
    /// The interface that Lambda has made for `scale`.
    interface: Value,
    user_data: String,
    seal_key: String,
}

impl<'a> Facts<'a> {
    #[track_caller]
    fn of(found: &Value, wanted: &'a Wanted) -> Self {
        let cluster = wanted.stack["name"].as_str().expect("a name");
        let base = format!("wekactl-{cluster}");
        let backends = format!("{base}-Backends");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = one(found, "kms_keys", |_| true);
        let api = one(found, "rest_apis", |_| true);
        let api_key = one(found, "api_keys", |_| true);
        let balancer = &kind(found, "load_balancers")[&base];
        let template = &kind(found, "launch_templates")[&backends];
        let mut roles = json!({});
        let purposes = [
            "join",
            "fetch",
            "scale",
            "terminate",
            "transient",
            "sm",
            "cw",
        ];
        for name in found["global"]["roles"].as_object().expect("roles").keys() {
            let purpose = purposes.iter().find(|purpose| {
                let random = name.strip_prefix(&format!("{backends}-{purpose}-"));
                random.is_some_and(|random| {
                    random.len() == 8 && random.bytes().all(|each| each.is_ascii_hexdigit())
                })
            });
            if let Some(purpose) = purpose {
                assert!(roles[purpose].is_null(), "two roles for {purpose}");
                roles[purpose] = json!(name);
            }
        }
        let code = std::fs::read(&wanted.code).expect("the executable");
        // ELF's e_machine.
        let architecture = if code[18] == 0xb7 { "arm64" } else { "x86_64" };
        let sha256: String = Sha256::digest(&code)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let data = &template["Versions"]["1"]["LaunchTemplateData"]["UserData"];
        let scale = &kind(found, "functions")[&format!("{base}-scale-Backends")];
        let tags = with(&common_tags(cluster), &wanted.user_tags);
        Self {
            cluster,
            stack: &wanted.stack,
            before: &wanted.before,
            hostgroup_tags: with(
                &tags,
                &json!({"wekactl.io/hostgroup_name": "Backends", "wekactl.io/hostgroup_type": "backend"}),
            ),
            tags,
            private: wanted.private,
            dns: wanted.dns.as_ref(),
            user_tags: &wanted.user_tags,
            account: text(&key["AWSAccountId"]),
            sha256,
            architecture,
            code_size: kind(found, "layers")[&base]["1"]["Content"]["CodeSize"].clone(),
            key_arn: text(&key["Arn"]),
            api_id: text(&api["id"]),
            api_key_id: text(&api_key["id"]),
            api_key: text(&api_key["value"]),
            plan_id: text(&one(found, "usage_plans", |_| true)["id"]),
            deployment_id: text(&api["deployments"][0]["id"]),
            template_id: text(&template["LaunchTemplateId"]),
            balancer_arn: text(&balancer["LoadBalancerArn"]),
            balancer_dns: text(&balancer["DNSName"]),
            balancer_zone: text(&balancer["CanonicalHostedZoneId"]),
            target_group_arn: text(
                &kind(found, "target_groups")[&format!("{base}-api")]["TargetGroupArn"],
            ),
            listener_arn: balancer["Listeners"]
                .as_object()
                .and_then(|listeners| listeners.keys().next())
                .cloned()
                .unwrap_or_default(),
            roles,
            interface: one(found, "network_interfaces", |each| {
                each["InterfaceType"] == "lambda"
            })
            .clone(),
            user_data: decoded(data.as_str().unwrap_or_default()),
            seal_key: text(&scale["Environment"]["Variables"]["SEAL_KEY"]),
        }
    }

    fn base(&self) -> String {
        format!("wekactl-{}", self.cluster)
    }

    fn backends(&self) -> String {
        format!("{}-Backends", self.base())
    }

    fn function(&self, word: &str) -> String {
        format!("{}-{word}-Backends", self.base())
    }

    fn arn(&self, service: &str, resource: &str) -> String {
        format!("arn:aws:{service}:{REGION}:{}:{resource}", self.account)
    }

    fn function_arn(&self, word: &str) -> String {
        self.arn("lambda", &format!("function:{}", self.function(word)))
    }

    fn role_arn(&self, purpose: &str) -> String {
        let name = self.roles[purpose].as_str().unwrap_or("(no role)");
        format!(
            "arn:aws:iam::{}:role/wekactl/{}/{name}",
            self.account, self.cluster
        )
    }

    fn subnet(&self) -> &Value {
        &self.stack["subnets"][0]
    }

    fn backend_ids(&self) -> Vec<&str> {
        let machines = self.stack["backends"].as_array().expect("machines");
        machines
            .iter()
            .map(|machine| machine["id"].as_str().expect("an id"))
            .collect()
    }

    /// A backend as it was.
    fn instance(&self) -> &Value {
        &self.before[REGION]["instances"][self.backend_ids()[0]]
    }

    fn max_size(&self) -> usize {
        7 * self.backend_ids().len()
    }
}

/// Every resource of the cluster: kind, name or id, and all its fields.
fn resources(facts: &Facts) -> Vec<(&'static str, String, Value)> {
    let (base, backends) = (facts.base(), facts.backends());
    let key_id = facts.key_arn.rsplit('/').next().unwrap_or_default();
    let mut all = vec![
        ("kms_keys", key_id.to_owned(), kms_key(facts, key_id)),
        ("kms_aliases", format!("alias/{base}"), json!(key_id)),
        ("tables", base.clone(), table(facts)),
        ("layers", base.clone(), layer(facts)),
        ("rest_apis", facts.api_id.clone(), rest_api(facts)),
        (
            "api_keys",
            facts.api_key_id.clone(),
            json!({
                "id": facts.api_key_id, "name": backends, "enabled": true, "value": ANYTHING, "stageKeys": [],
                "tags": facts.hostgroup_tags,
            }),
        ),
        (
            "usage_plans",
            facts.plan_id.clone(),
            json!({
                "id": facts.plan_id, "name": backends, "tags": facts.hostgroup_tags,
                "apiStages": [{"apiId": facts.api_id, "stage": "default"}],
                "keys": [{
                    "id": facts.api_key_id, "name": backends, "type": "API_KEY", "value": facts.api_key,
                }],
            }),
        ),
        ("launch_templates", backends.clone(), launch_template(facts)),
        ("auto_scaling_groups", backends.clone(), group(facts)),
        ("load_balancers", base.clone(), load_balancer(facts)),
        ("target_groups", format!("{base}-api"), target_group(facts)),
        ("state_machines", backends.clone(), state_machine(facts)),
        ("rules", backends.clone(), rule(facts)),
        (
            "network_interfaces",
            facts.interface["NetworkInterfaceId"]
                .as_str()
                .expect("an id")
                .to_owned(),
            facts.interface.clone(),
        ),
    ];
    // Lambda's own; what is ours about it is where it is.
    assert_eq!(facts.interface["SubnetId"], *facts.subnet());
    for word in ["join", "fetch", "scale", "terminate", "transient"] {
        let name = facts.function(word);
        all.push(("functions", name.clone(), function(facts, word)));
        let log_group = format!("/aws/lambda/{name}");
        let arn = facts.arn("logs", &format!("log-group:{log_group}"));
        all.push((
            "log_groups",
            log_group.clone(),
            json!({
                "logGroupName": log_group, "retentionInDays": 30, "metricFilterCount": 0,
                "logGroupArn": arn, "arn": format!("{arn}:*"), "Tags": facts.hostgroup_tags,
            }),
        ));
    }
    all
}

fn kms_key(facts: &Facts, key_id: &str) -> Value {
    json!({
        "KeyId": key_id,
        "Arn": facts.key_arn,
        "AWSAccountId": facts.account,
        "Description": format!("Encrypts the table of Weka cluster {}", facts.cluster),
        "Enabled": true,
        "KeyState": "Enabled",
        "KeyManager": "CUSTOMER",
        "KeySpec": "SYMMETRIC_DEFAULT",
        "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT",
        "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"],
        "SigningAlgorithms": [],
        "Origin": "AWS_KMS",
        "Rotation": {"KeyRotationEnabled": true},
        "Tags": facts.tags,
        // AWS's default: the account decides.
        "Policy": {
            "Version": "2012-10-17",
            "Id": "key-default-1",
            "Statement": [{
                "Sid": "Enable IAM User Permissions", "Effect": "Allow", "Action": "kms:*", "Resource": "*",
                "Principal": {"AWS": format!("arn:aws:iam::{}:root", facts.account)},
            }],
        },
    })
}

fn table(facts: &Facts) -> Value {
    json!({
        "TableName": facts.base(),
        "TableArn": facts.arn("dynamodb", &format!("table/{}", facts.base())),
        "TableStatus": "ACTIVE",
        "TableSizeBytes": 0,
        "ItemCount": 2,
        "KeySchema": [{"AttributeName": "Key", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "Key", "AttributeType": "S"}],
        "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
        "ProvisionedThroughput": {
            "NumberOfDecreasesToday": 0, "ReadCapacityUnits": 0, "WriteCapacityUnits": 0,
        },
        "WarmThroughput": ANYTHING,
        "GlobalSecondaryIndexes": [],
        "LocalSecondaryIndexes": [],
        "DeletionProtectionEnabled": false,
        "SSEDescription": {"SSEType": "KMS", "Status": "ENABLED", "KMSMasterKeyArn": facts.key_arn},
        "Backups": {"ContinuousBackupsDescription": {
            "ContinuousBackupsStatus": "ENABLED",
            "PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": "DISABLED"},
        }},
        "Tags": with(&facts.tags, &json!({"wekactl.io/stack_id": facts.stack["stack_id"]})),
        "Items": [
            attributes(&json!({
                "Key": "cluster-creds", "Username": base64("admin"), "Password": base64(PASSWORD),
            })),
            attributes(&settings(facts)),
        ],
    })
}

fn settings(facts: &Facts) -> Value {
    let instance = facts.instance();
    let volume = |device: &str, size: u32| {
        json!({
            "Name": device, "Type": "gp3", "Size": size, "Iops": 3000, "Throughput": 125,
            "Encrypted": false, "DeleteOnTermination": true,
        })
    };
    let host_group = json!({
        "SecurityGroupsIds": facts.stack["security_groups"],
        "ImageID": facts.stack["image"],
        "KeyName": facts.stack["key_name"],
        "IamArn": instance["IamInstanceProfile"]["Arn"],
        "InstanceType": "i3en.2xlarge",
        "Subnet": facts.subnet(),
        "VolumesInfo": [volume("/dev/sdp", 78), volume("/dev/xvda", 16)],
        "MaxSize": facts.max_size(),
        "HttpTokens": instance["MetadataOptions"]["HttpTokens"],
        "AvailabilityZone": format!("{REGION}a"),
        "EbsOptimized": false,
        "Placement": {"group": facts.stack["placement_group"], "partition": null, "tenancy": null},
        "Metadata": {
            "http_tokens": instance["MetadataOptions"]["HttpTokens"],
            "http_endpoint": "enabled", "hop_limit": 1, "http_protocol_ipv6": "disabled",
            "instance_metadata_tags": "disabled",
        },
    });
    let mut before = json!({"TerminationProtection": {}, "Names": {}});
    for (number, id) in facts.backend_ids().into_iter().enumerate() {
        before["TerminationProtection"][id] = json!(false);
        before["Names"][id] = json!(format!("{}-Backend{number}", facts.cluster));
    }
    let mut settings = json!({
        "Key": "cluster-settings",
        "Backends": host_group,
        "Clients": host_group,
        "Subnet": facts.subnet(),
        "AdditionalSubnet": facts.stack["subnets"][1],
        "VpcId": facts.stack["vpc"],
        "TagsMap": facts.user_tags,
        "PrivateSubnet": facts.private,
        "StackId": facts.stack["stack_id"],
        "BuildVersion": env!("CARGO_PKG_VERSION"),
        "DnsAlias": facts.dns.map(|(alias, _)| alias),
        "DnsZoneId": facts.dns.map(|(_, zone)| zone),
        "UseDynamoDBEndpoint": false,
        "Cores": {"compute": 1, "drive": 1, "frontend": 1, "memory": 32_640_000_000_u64},
    });
    if let Some(classic) = facts.stack["classic_lb"].as_str() {
        let mut members = facts.backend_ids();
        members.sort_unstable();
        settings["ClassicLoadBalancer"] = json!(classic);
        before["ClassicLoadBalancer"] = json!({
            "members": members,
            "health_check": {
                "target": "HTTP:14000/", "interval": 10, "timeout": 3, "unhealthy": 2, "healthy": 10,
            },
        });
    }
    settings["Before"] = before;
    settings
}

/// A document as an item of a table.
fn attributes(document: &Value) -> Value {
    fn attribute(value: &Value) -> Value {
        match value {
            Value::Null => json!({"NULL": true}),
            Value::Bool(value) => json!({"BOOL": value}),
            Value::Number(value) => json!({"N": value.to_string()}),
            Value::String(value) => json!({"S": value}),
            Value::Array(values) => json!({"L": values.iter().map(attribute).collect::<Vec<_>>()}),
            Value::Object(_) => json!({"M": attributes(value)}),
        }
    }
    let fields = document.as_object().expect("an object").iter();
    fields
        .map(|(name, value)| (name.clone(), attribute(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

pub(crate) fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::prelude::BASE64_STANDARD.encode(text)
}

fn layer(facts: &Facts) -> Value {
    let arn = facts.arn("lambda", &format!("layer:{}", facts.base()));
    json!({"1": {
        "Version": 1,
        "LayerArn": arn,
        "LayerVersionArn": format!("{arn}:1"),
        "Description": format!("wekactl for cluster {}, sha256 {}", facts.cluster, facts.sha256),
        "CompatibleArchitectures": [facts.architecture],
        "CompatibleRuntimes": ["provided.al2023"],
        "Content": {"CodeSha256": ANYTHING, "CodeSize": facts.code_size, "Location": ANYTHING},
        "LicenseInfo": "",
    }})
}

fn function(facts: &Facts, word: &str) -> Value {
    let timeout = match word {
        "join" => 15,
        "fetch" => 8,
        "scale" => 35,
        "terminate" => 12,
        _ => 5,
    };
    let mut environment = json!({
        "LAMBDA": word,
        "REGION": REGION,
        "CLUSTER_NAME": facts.cluster,
        "ASG_NAME": facts.backends(),
        "TABLE_NAME": facts.base(),
        "ROLE": "backend",
        "USE_DYNAMODB_ENDPOINT": "false",
    });
    // Those between which the credentials travel, and no other.
    if matches!(word, "fetch" | "scale" | "terminate") {
        assert!(facts.seal_key.len() > 40, "no sealing key");
        environment["SEAL_KEY"] = json!(facts.seal_key);
    }
    let mut function = json!({
        "FunctionName": facts.function(word),
        "FunctionArn": facts.function_arn(word),
        "Description": format!("Wekactl {word}"),
        "Runtime": "provided.al2023",
        "Handler": "bootstrap",
        "Architectures": [facts.architecture],
        "PackageType": "Zip",
        "MemorySize": 256,
        "Timeout": timeout,
        "TracingConfig": {"Mode": "Active"},
        "Environment": {"Variables": environment},
        "EphemeralStorage": {"Size": 512},
        "Layers": [{
            "Arn": facts.arn("lambda", &format!("layer:{}:1", facts.base())), "CodeSize": facts.code_size,
        }],
        // A few bytes: the code is the layer's.
        "CodeSize": 145,
        "CodeSha256": ANYTHING,
        "LoggingConfig": {
            "LogFormat": "Text", "LogGroup": format!("/aws/lambda/{}", facts.function(word)),
        },
        "Role": facts.role_arn(word),
        "Tags": facts.hostgroup_tags,
        "State": "Active",
        "LastUpdateStatus": "Successful",
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        "Version": "$LATEST",
        "Concurrency": null,
        "Invocation": null,
        "Policy": null,
    });
    if word == "scale" {
        function["VpcConfig"] = json!({
            "SubnetIds": [facts.subnet()],
            "SecurityGroupIds": facts.stack["security_groups"],
            "VpcId": facts.stack["vpc"],
            "Ipv6AllowedForDualStack": false,
        });
    }
    if word == "join" {
        let method = format!("{}/default/GET/{}", facts.api_id, facts.backends());
        function["Policy"] = json!({
            "Version": "2012-10-17",
            "Id": "default",
            "Statement": [{
                "Sid": ANYTHING,
                "Effect": "Allow",
                "Action": "lambda:InvokeFunction",
                "Principal": {"Service": "apigateway.amazonaws.com"},
                "Resource": facts.function_arn("join"),
                "Condition": {"ArnLike": {"AWS:SourceArn": facts.arn("execute-api", &method)}},
            }],
        });
    }
    function
}

fn rest_api(facts: &Facts) -> Value {
    let path = facts.backends();
    let policy = facts.private.then(|| {
        let methods = facts.arn("execute-api", &format!("{}/*", facts.api_id));
        json!({
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Principal": "*", "Action": "execute-api:Invoke", "Resource": methods},
                {
                    "Effect": "Deny", "Principal": "*", "Action": "execute-api:Invoke", "Resource": methods,
                    "Condition": {"StringNotEquals": {"aws:SourceVpc": facts.stack["vpc"]}},
                },
            ],
        })
    });
    let kind = if facts.private { "PRIVATE" } else { "REGIONAL" };
    let integration = format!(
        "arn:aws:apigateway:{REGION}:lambda:path/2015-03-31/functions/{}/invocations",
        facts.function_arn("join")
    );
    json!({
        "id": facts.api_id,
        "name": facts.backends(),
        "version": "V1",
        "apiKeySource": "HEADER",
        "binaryMediaTypes": [],
        "disableExecuteApiEndpoint": false,
        "endpointConfiguration": {"types": [kind], "ipAddressType": ANYTHING},
        "policy": policy,
        "rootResourceId": ANYTHING,
        "tags": facts.hostgroup_tags,
        "resources": [
            {"id": ANYTHING, "path": "/"},
            {
                "id": ANYTHING, "parentId": ANYTHING, "path": format!("/{path}"), "pathPart": path,
                "resourceMethods": {"GET": {
                    "httpMethod": "GET",
                    "authorizationType": "NONE",
                    "apiKeyRequired": true,
                    "methodResponses": {"200": {"statusCode": "200"}},
                    "methodIntegration": {
                        "type": "AWS_PROXY", "httpMethod": "POST", "uri": integration, "cacheKeyParameters": [],
                    },
                }},
            },
        ],
        "deployments": [{"id": facts.deployment_id, "description": ANYTHING}],
        "stages": [{
            "stageName": "default", "deploymentId": facts.deployment_id, "description": "",
            "cacheClusterEnabled": false, "methodSettings": {}, "variables": {}, "tags": facts.hostgroup_tags,
        }],
    })
}

fn launch_template(facts: &Facts) -> Value {
    // The script itself is tested where it is rendered; here, that the values are this cluster's.
    let url = format!(
        "https://{}.execute-api.{REGION}.amazonaws.com/default/{}",
        facts.api_id,
        facts.backends()
    );
    let group = facts.stack["security_groups"][0]
        .as_str()
        .unwrap_or_default();
    for line in [
        "#!/bin/bash",
        &format!("REGION='{REGION}'"),
        &format!("SUBNET='{}'", facts.subnet().as_str().unwrap_or_default()),
        &format!("SECURITY_GROUPS=('{group}')"),
        "INTERFACES=3",
        "NETWORK_CARDS=1",
        &format!("CLUSTER='{}'", facts.cluster),
        &format!("JOIN_URL='{url}'"),
        &format!("API_KEY='{}'", facts.api_key),
    ] {
        assert!(
            facts.user_data.lines().any(|each| each == line),
            "user data without {line}:\n{}",
            facts.user_data
        );
    }
    let volume = |device: &str, size: u32| {
        json!({
            "DeviceName": device,
            "Ebs": {
                "VolumeSize": size, "VolumeType": "gp3", "Iops": 3000, "Throughput": 125,
                "DeleteOnTermination": true,
            },
        })
    };
    let instance = facts.instance();
    let made_by = format!("arn:aws:iam::{}:root", facts.account);
    let mut data = json!({
        "ImageId": facts.stack["image"],
        "InstanceType": "i3en.2xlarge",
        "KeyName": facts.stack["key_name"],
        "IamInstanceProfile": {"Arn": instance["IamInstanceProfile"]["Arn"]},
        "BlockDeviceMappings": [volume("/dev/sdp", 78), volume("/dev/xvda", 16)],
        "EbsOptimized": false,
        "DisableApiTermination": true,
        "InstanceInitiatedShutdownBehavior": "stop",
        "NetworkInterfaces": [{
            "DeviceIndex": 0,
            "AssociatePublicIpAddress": !facts.private,
            "SubnetId": facts.subnet(),
            "Groups": facts.stack["security_groups"],
            "DeleteOnTermination": true,
        }],
        "MetadataOptions": {
            "HttpTokens": instance["MetadataOptions"]["HttpTokens"],
            "HttpEndpoint": "enabled", "HttpPutResponseHopLimit": 1, "HttpProtocolIpv6": "disabled",
            "InstanceMetadataTags": "disabled",
        },
        "TagSpecifications": [
            {"ResourceType": "instance", "Tags": facts.hostgroup_tags},
            {"ResourceType": "volume", "Tags": facts.hostgroup_tags},
        ],
        "UserData": base64(&facts.user_data),
    });
    if let Some(group) = facts.stack["placement_group"].as_str() {
        data["Placement"] = json!({"GroupName": group});
    }
    json!({
        "LaunchTemplateId": facts.template_id,
        "LaunchTemplateName": facts.backends(),
        "DefaultVersionNumber": 1,
        "LatestVersionNumber": 1,
        "CreatedBy": made_by,
        "Tags": facts.hostgroup_tags,
        "Versions": {"1": {
            "LaunchTemplateId": facts.template_id,
            "LaunchTemplateName": facts.backends(),
            "VersionNumber": 1,
            "DefaultVersion": true,
            "CreatedBy": made_by,
            "LaunchTemplateData": data,
        }},
    })
}

fn group(facts: &Facts) -> Value {
    let mut members = json!({});
    for id in facts.backend_ids() {
        members[id] = json!({
            "InstanceId": id, "InstanceType": "i3en.2xlarge", "AvailabilityZone": format!("{REGION}a"),
            "LifecycleState": "InService", "HealthStatus": "Healthy", "ProtectedFromScaleIn": true,
        });
    }
    let name_tag = json!({"Name": format!("{}-Backends", facts.cluster)});
    let mut tags = json!({});
    for (key, value) in with(&facts.hostgroup_tags, &name_tag)
        .as_object()
        .expect("tags")
    {
        tags[key] = json!({
            "Key": key, "Value": value, "PropagateAtLaunch": true, "ResourceId": facts.backends(),
            "ResourceType": "auto-scaling-group",
        });
    }
    let suspended = [
        "AZRebalance",
        "InstanceRefresh",
        "ReplaceUnhealthy",
        "Terminate",
    ]
    .map(|process| json!({"ProcessName": process, "SuspensionReason": ANYTHING}));
    let classic: Vec<&Value> = [&facts.stack["classic_lb"]]
        .into_iter()
        .filter(|name| !name.is_null())
        .collect();
    json!({
        "AutoScalingGroupName": facts.backends(),
        "AutoScalingGroupARN": ANYTHING,
        "LaunchTemplate": {
            "LaunchTemplateId": facts.template_id, "LaunchTemplateName": facts.backends(), "Version": "1",
        },
        "MinSize": 0,
        "MaxSize": facts.max_size(),
        "DesiredCapacity": facts.backend_ids().len(),
        "Instances": members,
        "NewInstancesProtectedFromScaleIn": true,
        "DeletionProtection": "prevent-force-deletion",
        "SuspendedProcesses": suspended,
        "VPCZoneIdentifier": facts.subnet(),
        "AvailabilityZones": [format!("{REGION}a")],
        "TargetGroupARNs": [facts.target_group_arn],
        "LoadBalancerNames": classic,
        "HealthCheckType": "EC2",
        "HealthCheckGracePeriod": 300,
        "DefaultCooldown": 300,
        "CapacityRebalance": false,
        "TerminationPolicies": ["Default"],
        "EnabledMetrics": [],
        "ServiceLinkedRoleARN": ANYTHING,
        "Tags": tags,
    })
}

fn load_balancer(facts: &Facts) -> Value {
    let mut tags = facts.tags.clone();
    if let Some((alias, zone)) = facts.dns {
        tags = with(
            &tags,
            &json!({"wekactl.io/dns_alias": alias, "wekactl.io/dns_zone_id": zone}),
        );
    }
    let listener_tags = with(&facts.tags, &json!({"wekactl.io/listener_type": "api"}));
    json!({
        "LoadBalancerName": facts.base(),
        "LoadBalancerArn": facts.balancer_arn,
        "DNSName": facts.balancer_dns,
        "CanonicalHostedZoneId": facts.balancer_zone,
        "Scheme": "internal",
        "Type": "application",
        "IpAddressType": "ipv4",
        "VpcId": facts.stack["vpc"],
        "AvailabilityZones": [
            {"SubnetId": facts.stack["subnets"][0], "ZoneName": format!("{REGION}a")},
            {"SubnetId": facts.stack["subnets"][1], "ZoneName": format!("{REGION}b")},
        ],
        "SecurityGroups": facts.stack["security_groups"],
        "Tags": tags,
        "Attributes": {
            "access_logs.s3.bucket": "", "access_logs.s3.prefix": "", "deletion_protection.enabled": "false",
            "load_balancing.cross_zone.enabled": ANYTHING,
        },
        "Listeners": {&facts.listener_arn: {
            "ListenerArn": facts.listener_arn,
            "LoadBalancerArn": facts.balancer_arn,
            "Protocol": "HTTP",
            "Port": 14000,
            "AlpnPolicy": [],
            "DefaultActions": [{"Type": "forward", "TargetGroupArn": facts.target_group_arn}],
            "Tags": listener_tags,
        }},
    })
}

fn target_group(facts: &Facts) -> Value {
    json!({
        "TargetGroupName": format!("{}-api", facts.base()),
        "TargetGroupArn": facts.target_group_arn,
        "TargetType": "instance",
        "Protocol": "HTTP",
        "ProtocolVersion": "HTTP1",
        "Port": 14000,
        "IpAddressType": "ipv4",
        "VpcId": facts.stack["vpc"],
        "LoadBalancerArns": [facts.balancer_arn],
        "HealthCheckEnabled": true,
        "HealthCheckProtocol": "HTTP",
        "HealthCheckPort": "traffic-port",
        "HealthCheckPath": "/api/v2/healthcheck/",
        "HealthCheckIntervalSeconds": 30,
        "HealthCheckTimeoutSeconds": 5,
        "HealthyThresholdCount": 5,
        "UnhealthyThresholdCount": 2,
        "Matcher": {"HttpCode": "200"},
        "Targets": facts.backend_ids(),
        // Nothing is set: these are AWS's own.
        "Attributes": ANYTHING,
        "Tags": facts.tags,
    })
}

fn state_machine(facts: &Facts) -> Value {
    let task = |word: &str, seconds: u32| json!({"Type": "Task", "Resource": facts.function_arn(word), "TimeoutSeconds": seconds});
    // Only reading is tried again.
    let fetch = with(
        &task("fetch", 10),
        &json!({
            "Next": "Scale",
            "Parameters": {"execution.$": "$$.Execution.Id", "started.$": "$$.Execution.StartTime"},
            "Retry": [{
                "ErrorEquals": [
                    "Lambda.ServiceException", "Lambda.AWSLambdaException", "Lambda.SdkClientException",
                    "Lambda.TooManyRequestsException",
                ],
                "IntervalSeconds": 1, "MaxAttempts": 2, "BackoffRate": 1.0,
            }],
        }),
    );
    json!({
        "name": facts.backends(),
        "stateMachineArn": facts.arn("states", &format!("stateMachine:{}", facts.backends())),
        "type": "STANDARD",
        "status": "ACTIVE",
        "roleArn": facts.role_arn("sm"),
        "Tags": facts.hostgroup_tags,
        "Executions": 0,
        "encryptionConfiguration": {"type": "AWS_OWNED_KEY"},
        "loggingConfiguration": {"level": "OFF"},
        "tracingConfiguration": {"enabled": false},
        "definition": {
            "Comment": ANYTHING,
            "TimeoutSeconds": 58,
            "StartAt": "HostGroupInfo",
            "States": {
                "HostGroupInfo": fetch,
                "Scale": with(&task("scale", 37), &json!({"Next": "Terminate"})),
                "Terminate": with(&task("terminate", 14), &json!({"Next": "ErrorCheck"})),
                "ErrorCheck": {
                    "Type": "Choice",
                    "Choices": [{"Variable": "$.TransientErrors", "IsNull": false, "Next": "Transient"}],
                    "Default": "Success",
                },
                "Transient": with(&task("transient", 7), &json!({"End": true})),
                "Success": {"Type": "Succeed"},
            },
        },
    })
}

fn rule(facts: &Facts) -> Value {
    json!({
        "Name": facts.backends(),
        "Arn": facts.arn("events", &format!("rule/{}", facts.backends())),
        "EventBusName": "default",
        "CreatedBy": facts.account,
        "ScheduleExpression": "rate(1 minute)",
        "State": "ENABLED",
        "Tags": facts.hostgroup_tags,
        "Targets": [{
            "Id": "wekactl",
            "Arn": facts.arn("states", &format!("stateMachine:{}", facts.backends())),
            "RoleArn": facts.role_arn("cw"),
            "RetryPolicy": {"MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60},
        }],
    })
}

/// Every role: its name, who may take it on, and what it may do.
fn roles(facts: &Facts) -> Vec<(String, Value)> {
    let allow = |actions: &[&str], on: &Value| json!({"Effect": "Allow", "Action": actions, "Resource": on});
    let when =
        |statement: Value, condition: Value| with(&statement, &json!({"Condition": condition}));
    let table = json!(facts.arn("dynamodb", &format!("table/{}", facts.base())));
    let instances = json!(facts.arn("ec2", "instance/*"));
    let log = |word: &str| {
        let group = format!("log-group:/aws/lambda/{}:*", facts.function(word));
        allow(
            &["logs:CreateLogStream", "logs:PutLogEvents"],
            &json!(facts.arn("logs", &group)),
        )
    };
    let trace = allow(
        &["xray:PutTelemetryRecords", "xray:PutTraceSegments"],
        &json!("*"),
    );
    let describe = |more: &[&str]| {
        let reads = [
            "autoscaling:DescribeAutoScalingGroups",
            "ec2:DescribeInstances",
        ];
        allow(&[&reads, more].concat(), &json!("*"))
    };
    let read = allow(&["dynamodb:GetItem"], &table);
    let write_lease = when(
        allow(&["dynamodb:PutItem", "dynamodb:UpdateItem"], &table),
        json!({"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["cluster-lease"]}}),
    );
    let key = |actions: &[&str]| {
        when(
            allow(actions, &json!(facts.key_arn)),
            json!({"StringEquals": {"kms:ViaService": format!("dynamodb.{REGION}.amazonaws.com")}}),
        )
    };
    let ours = json!({"ec2:ResourceTag/wekactl.io/cluster_name": facts.cluster});
    let interfaces = allow(
        &[
            "ec2:CreateNetworkInterface",
            "ec2:DeleteNetworkInterface",
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeSubnets",
            "ec2:AssignPrivateIpAddresses",
            "ec2:UnassignPrivateIpAddresses",
        ],
        &json!("*"),
    );
    let not_its_own_code = with(
        &when(
            interfaces.clone(),
            json!({"ArnEquals": {"lambda:SourceFunctionArn": facts.function_arn("scale")}}),
        ),
        &json!({"Effect": "Deny"}),
    );
    let group = format!(
        "autoScalingGroup:*:autoScalingGroupName/{}",
        facts.backends()
    );
    let invoked = ["fetch", "scale", "terminate", "transient"].map(|word| facts.function_arn(word));
    let machine = format!("stateMachine:{}", facts.backends());
    let both = &["kms:Decrypt", "kms:GenerateDataKey"][..];
    let roles = [
        (
            "join",
            "lambda",
            vec![
                log("join"),
                trace.clone(),
                describe(&[]),
                read.clone(),
                key(&["kms:Decrypt"]),
            ],
        ),
        (
            "fetch",
            "lambda",
            vec![
                log("fetch"),
                trace.clone(),
                describe(&[]),
                read,
                write_lease.clone(),
                key(both),
            ],
        ),
        (
            "scale",
            "lambda",
            vec![log("scale"), trace.clone(), interfaces, not_its_own_code],
        ),
        (
            "terminate",
            "lambda",
            vec![
                log("terminate"),
                trace.clone(),
                describe(&["ec2:DescribeInstanceAttribute"]),
                write_lease,
                allow(
                    &[
                        "autoscaling:DetachInstances",
                        "autoscaling:SetInstanceProtection",
                    ],
                    &json!(facts.arn("autoscaling", &group)),
                ),
                when(
                    allow(
                        &["ec2:ModifyInstanceAttribute", "ec2:TerminateInstances"],
                        &instances,
                    ),
                    json!({"StringEquals": ours}),
                ),
                when(
                    allow(&["ec2:CreateTags"], &instances),
                    json!({
                        "StringEquals": ours,
                        "ForAllValues:StringEquals": {"aws:TagKeys": ["wekactl.io/joined"]},
                    }),
                ),
                key(both),
            ],
        ),
        ("transient", "lambda", vec![log("transient"), trace]),
        (
            "sm",
            "states",
            vec![allow(&["lambda:InvokeFunction"], &json!(invoked))],
        ),
        (
            "cw",
            "events",
            vec![allow(
                &["states:StartExecution"],
                &json!(facts.arn("states", &machine)),
            )],
        ),
    ];
    let role = |(purpose, service, statements): (&str, &str, Vec<Value>)| {
        let name = facts.roles[purpose].as_str().unwrap_or(purpose).to_owned();
        let role = json!({
            "RoleName": name,
            "RoleId": ANYTHING,
            "Arn": facts.role_arn(purpose),
            "Path": format!("/wekactl/{}/", facts.cluster),
            "MaxSessionDuration": 3600,
            "Attached": [],
            "Tags": with(&facts.hostgroup_tags, &json!({"wekactl.io/region": REGION})),
            "AssumeRolePolicyDocument": {
                "Version": "2012-10-17",
                "Statement": [{
                    "Effect": "Allow",
                    "Action": "sts:AssumeRole",
                    "Principal": {"Service": format!("{service}.amazonaws.com")},
                    "Condition": {"StringEquals": {"aws:SourceAccount": facts.account}},
                }],
            },
            "Policies": {
                format!("wekactl-{}-{purpose}-Backends", facts.cluster):
                    {"Version": "2012-10-17", "Statement": statements},
            },
        });
        (name, role)
    };
    roles.into_iter().map(role).collect()
}

/// What import changes on what the stack has made: the backends, and the classic load balancer.
fn change_the_stack(expected: &mut Value, facts: &Facts) {
    for id in facts.backend_ids() {
        let instance = &mut expected[REGION]["instances"][id];
        instance["DisableApiTermination"] = json!(true);
        let member = if facts.stack["classic_lb"].is_null() {
            ""
        } else {
            " classic-load-balancer=member"
        };
        let before = format!(
            "cluster={} termination-protection=off{member}",
            facts.cluster
        );
        let ours = json!({
            "Name": format!("{}-Backends", facts.cluster),
            "aws:autoscaling:groupName": facts.backends(),
            "wekactl.io/before": before,
        });
        instance["Tags"] = with(&with(&instance["Tags"], &facts.hostgroup_tags), &ours);
    }
    if let Some(classic) = facts.stack["classic_lb"].as_str() {
        let balancer = &mut expected[REGION]["classic_load_balancers"][classic];
        balancer["HealthCheck"] = json!({
            "Target": "HTTP:14000/ui", "Interval": 30, "Timeout": 5, "UnhealthyThreshold": 5, "HealthyThreshold": 3,
        });
        let before = "interval=10 timeout=3 unhealthy=2 healthy=10 target=HTTP:14000/";
        // AWS's answer without tags is an empty list.
        let tags = Some(balancer["Tags"].clone()).filter(Value::is_object);
        balancer["Tags"] = with(
            &tags.unwrap_or_else(|| json!({})),
            &json!({"wekactl.io/before": before}),
        );
    }
}
