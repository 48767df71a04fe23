//! A cluster as the earlier Go tool leaves it in an account: names, tags, documents and settings of an inventory of one,
//! made call by call, so that it can also be one that is made in part.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::Sandbox;

const EMPTY_ZIP: &str = "UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA==";
const ACCOUNT: &str = "123456789012";
const GROUP: &str = "wekactl-prod-Backends";
const FUNCTIONS: [&str; 5] = ["join", "fetch", "scale", "terminate", "transient"];

/// What the earlier tool had made of stack `prod` after so many of its steps.
pub(crate) struct GoCluster<'a> {
    sandbox: &'a Sandbox,
    stack: &'a Value,
    /// Steps that are still made.
    left: usize,
    /// As early versions wrote the settings: without the VPC and the volumes.
    early: bool,
}

/// All of them.
pub(crate) const ALL_STEPS: usize = usize::MAX;

impl<'a> GoCluster<'a> {
    /// Makes it. `steps`: so many, then the earlier tool had died; [`ALL_STEPS`]: it had not.
    pub(crate) fn make(sandbox: &'a Sandbox, stack: &'a Value, steps: usize, early: bool) {
        Self {
            sandbox,
            stack,
            left: steps,
            early,
        }
        .run();
    }

    /// One step, as long as there are any left.
    fn step(&mut self, service: &str, operation: &str, params: &Value) -> Value {
        if self.left == 0 {
            return Value::Null;
        }
        self.left -= 1;
        self.sandbox.aws(service, operation, params)
    }

    fn run(mut self) {
        let texts = |list: &Value, field: &str| -> Vec<String> {
            let list = list.as_array().expect("a list").iter();
            list.map(|each| each[field].as_str().expect("text").to_owned())
                .collect()
        };
        let backends = texts(&self.stack["backends"], "id");
        let clients = texts(&self.stack["clients"], "id");
        let described = self.sandbox.aws(
            "ec2",
            "describe_instances",
            &json!({"InstanceIds": [backends[0]]}),
        );
        let model = described["Reservations"][0]["Instances"][0].clone();
        let subnet = &self.stack["subnets"][0];
        let groups = &self.stack["security_groups"];

        let key = self.step(
            "kms",
            "create_key",
            &json!({"Tags": tag_list("TagKey", "TagValue", &common("v1"))}),
        );
        let key_id = &key["KeyMetadata"]["KeyId"];
        self.step(
            "kms",
            "create_alias",
            &json!({"AliasName": "alias/wekactl-prod", "TargetKeyId": key_id}),
        );
        let mut table_tags = common("v2");
        table_tags.push(("wekactl.io/stack_id", text(&self.stack["stack_id"])));
        self.step(
            "dynamodb",
            "create_table",
            &json!({
                "TableName": "wekactl-prod", "BillingMode": "PAY_PER_REQUEST",
                "KeySchema": [{"AttributeName": "Key", "KeyType": "HASH"}],
                "AttributeDefinitions": [{"AttributeName": "Key", "AttributeType": "S"}],
                "SSESpecification": {"Enabled": true, "SSEType": "KMS", "KMSMasterKeyId": key_id},
                "Tags": tag_list("Key", "Value", &table_tags),
            }),
        );
        let settings = self.settings(&model);
        self.put_item(&settings);
        let credentials = json!({
            "Key": {"S": "cluster-creds"}, "Username": {"S": "YWRtaW4="}, "Password": {"S": "c2VjcmV0"},
        });
        self.put_item(&credentials);
        for id in backends.iter().chain(&clients) {
            self.step(
                "ec2",
                "modify_instance_attribute",
                &json!({"InstanceId": id, "DisableApiTermination": {"Value": true}}),
            );
        }
        let roles = self.roles();
        self.functions(&roles, subnet, groups);
        let (api, api_key) = self.api();
        let template = self.template(&model, &api, &api_key);
        let target = self.balancer();
        self.group(&template, &target, &backends);
        self.schedule(&roles);
    }

    fn put_item(&mut self, item: &Value) {
        let put = json!({"TableName": "wekactl-prod", "Item": item});
        self.step("dynamodb", "put_item", &put);
    }

    fn settings(&self, model: &Value) -> Value {
        let s = |value: &Value| json!({"S": value});
        let groups: Vec<Value> = self.stack["security_groups"]
            .as_array()
            .expect("a list")
            .iter()
            .map(s)
            .collect();
        let mut host_group = json!({
            "HttpTokens": {"S": "optional"}, "IamArn": s(&model["IamInstanceProfile"]["Arn"]),
            "ImageID": s(&model["ImageId"]), "InstanceType": s(&model["InstanceType"]),
            "KeyName": s(&model["KeyName"]), "MaxSize": {"N": "42"}, "SecurityGroupsIds": {"L": groups},
            "Subnet": s(&self.stack["subnets"][0]),
        });
        let volume = |name: &str, size: &str| json!({"M": {"Name": {"S": name}, "Size": {"N": size}, "Type": {"S": "gp3"}}});
        let mut settings = json!({
            "Key": {"S": "cluster-settings"}, "AdditionalSubnet": s(&self.stack["subnets"][1]),
            "BuildVersion": {"S": "1.0"}, "DnsAlias": {"NULL": true}, "DnsZoneId": {"NULL": true},
            "PrivateSubnet": {"BOOL": false}, "StackId": {"NULL": true}, "Subnet": s(&self.stack["subnets"][0]),
            "TagsMap": {"M": {"env": {"S": "test"}, "owner": {"S": "me"}}},
            "UseDynamoDBEndpoint": {"BOOL": false},
        });
        if !self.early {
            host_group["VolumesInfo"] =
                json!({"L": [volume("/dev/xvda", "16"), volume("/dev/sdp", "78")]});
            settings["VpcId"] = s(&model["VpcId"]);
        }
        settings["Backends"] = json!({"M": host_group});
        settings["Clients"] = settings["Backends"].clone();
        settings
    }

    /// ARNs of the roles, by purpose: the functions' five, then the state machine's and the rule's.
    fn roles(&mut self) -> Vec<(&'static str, Value)> {
        const LOGS: [&str; 3] = [
            "logs:CreateLogStream",
            "logs:PutLogEvents",
            "logs:CreateLogGroup",
        ];
        const READS: [&str; 4] = [
            "dynamodb:GetItem",
            "autoscaling:Describe*",
            "ec2:Describe*",
            "kms:Decrypt",
        ];
        const INTERFACES: [&str; 3] = [
            "ec2:CreateNetworkInterface",
            "ec2:DescribeNetworkInterfaces",
            "ec2:DeleteNetworkInterface",
        ];
        let policies: [(&str, &str, &str, Vec<&str>); 7] = [
            (
                "join",
                "9db5547b-07b1-4da7-ab95-70689959047d",
                "lambda",
                [&LOGS[..], &READS].concat(),
            ),
            (
                "fetch",
                "31a75e76-eeba-4609-aa57-d5-185326777",
                "lambda",
                [&LOGS[..], &READS].concat(),
            ),
            (
                "scale",
                "9b0086f2-d319-41e5-9804-0d8-18707921",
                "lambda",
                [&LOGS[..], &INTERFACES, &["dynamodb:GetItem", "kms:Decrypt"]].concat(),
            ),
            (
                "terminate",
                "4117601e-a573-4e91-a7c-165563139",
                "lambda",
                [
                    &LOGS[..],
                    &INTERFACES,
                    &[
                        "ec2:ModifyInstanceAttribute",
                        "ec2:TerminateInstances",
                        "autoscaling:DetachInstances",
                        "autoscaling:Describe*",
                        "autoscaling:SetInstanceProtection",
                        "ec2:Describe*",
                    ],
                ]
                .concat(),
            ),
            (
                "transient",
                "c3590068-6c40-4608-993-204404503",
                "lambda",
                Vec::new(),
            ),
            (
                "sm",
                "5259b809-be8e-48ce-833d-7d90d1209a89",
                "states",
                vec!["lambda:InvokeFunction"],
            ),
            (
                "cw",
                "474d5252-a96e-496d-8b56-8a36a7b513ba",
                "events",
                vec!["states:StartExecution"],
            ),
        ];
        let made = policies.map(|(purpose, drawn, service, actions)| {
            let name = format!("wekactl-prod-Backends-{purpose}-{drawn}");
            let trust = json!({"Version": "2012-10-17", "Statement": [{
                "Effect": "Allow", "Action": ["sts:AssumeRole"],
                "Principal": {"Service": format!("{service}.amazonaws.com")},
            }]});
            let version = "d4c31a71a99a9b5326db610870a03071d61ddbed1c10c2a975f20cfc6b6cc182";
            self.step(
                "iam",
                "create_role",
                &json!({
                    "Path": "/wekactl/prod/", "RoleName": name, "AssumeRolePolicyDocument": trust.to_string(),
                    "Tags": tag_list("Key", "Value", &host_group(version)),
                }),
            );
            if !actions.is_empty() {
                let allow = json!({"Effect": "Allow", "Action": actions, "Resource": "*"});
                let policy = json!({"Version": "2012-10-17", "Statement": [allow]});
                self.step(
                    "iam",
                    "put_role_policy",
                    &json!({
                        "RoleName": name, "PolicyName": format!("wekactl-prod-{purpose}-Backends"),
                        "PolicyDocument": policy.to_string(),
                    }),
                );
            }
            let arn = format!("arn:aws:iam::{ACCOUNT}:role/wekactl/prod/{name}");
            (purpose, json!(arn))
        });
        made.into()
    }

    fn functions(&mut self, roles: &[(&str, Value)], subnet: &Value, groups: &Value) {
        for word in FUNCTIONS {
            let mut function = json!({
                "FunctionName": format!("wekactl-prod-{word}-Backends"), "Runtime": "provided.al2",
                "Role": role(roles, word), "Handler": "bootstrap", "Description": format!("Wekactl {word}"),
                "Timeout": 15, "MemorySize": 256, "Architectures": ["arm64"], "TracingConfig": {"Mode": "Active"},
                "Code": {"ZipFile": {"__bytes__": EMPTY_ZIP}},
                "Environment": {"Variables": {
                    "ASG_NAME": GROUP, "CLUSTER_NAME": "prod", "LAMBDA": word, "REGION": super::REGION,
                    "ROLE": "backend", "TABLE_NAME": "wekactl-prod", "USE_DYNAMODB_ENDPOINT": "false",
                }},
                "Tags": tag_map(&host_group("sid1")),
            });
            if word == "scale" {
                function["VpcConfig"] = json!({"SubnetIds": [subnet], "SecurityGroupIds": groups});
            }
            self.step("lambda", "create_function", &function);
        }
    }

    /// The API's id and the key's value.
    fn api(&mut self) -> (Value, Value) {
        let api = self.step(
            "apigateway",
            "create_rest_api",
            &json!({
                "name": GROUP, "description": "Wekactl host join info API",
                "endpointConfiguration": {"types": ["EDGE"]}, "tags": tag_map(&host_group("v1")),
            }),
        );
        let id = api["id"].clone();
        let path = self.step(
            "apigateway",
            "create_resource",
            &json!({"restApiId": id, "parentId": api["rootResourceId"], "pathPart": GROUP}),
        );
        let method = json!({"restApiId": id, "resourceId": path["id"], "httpMethod": "GET"});
        let with = |more: Value| {
            let mut method = method.clone();
            let more = more.as_object().expect("an object").clone();
            method.as_object_mut().expect("an object").extend(more);
            method
        };
        self.step(
            "apigateway",
            "put_method",
            &with(json!({"authorizationType": "NONE", "apiKeyRequired": true})),
        );
        let join = format!(
            "arn:aws:lambda:{}:{ACCOUNT}:function:wekactl-prod-join-Backends",
            super::REGION
        );
        let uri = format!(
            "arn:aws:apigateway:{}:lambda:path/2015-03-31/functions/{join}/invocations",
            super::REGION
        );
        self.step(
            "apigateway",
            "put_integration",
            &with(json!({"type": "AWS_PROXY", "integrationHttpMethod": "POST", "uri": uri})),
        );
        self.step(
            "lambda",
            "add_permission",
            &json!({
                "FunctionName": "wekactl-prod-join-Backends", "Action": "lambda:InvokeFunction",
                "StatementId": "wekactl-prod-join-Backends-98d7da73-0955-4247-befe-a9a957de2f2d",
                "Principal": "apigateway.amazonaws.com",
                "SourceArn": format!("arn:aws:execute-api:{}:{ACCOUNT}:{}/*/GET/{GROUP}", super::REGION, text_or(&id)),
            }),
        );
        self.step(
            "apigateway",
            "create_deployment",
            &json!({"restApiId": id, "stageName": "default"}),
        );
        let plan = self.step(
            "apigateway",
            "create_usage_plan",
            &json!({"name": GROUP, "apiStages": [{"apiId": id, "stage": "default"}]}),
        );
        let key = self.step(
            "apigateway",
            "create_api_key",
            &json!({"name": GROUP, "enabled": true, "tags": tag_map(&host_group("v1"))}),
        );
        self.step(
            "apigateway",
            "create_usage_plan_key",
            &json!({"usagePlanId": plan["id"], "keyId": key["id"], "keyType": "API_KEY"}),
        );
        (id, key["value"].clone())
    }

    fn template(&mut self, model: &Value, api: &Value, api_key: &Value) -> Value {
        let ebs = |device: &str, size: u32| json!({"DeviceName": device, "Ebs": {"DeleteOnTermination": true, "VolumeSize": size, "VolumeType": "gp3"}});
        let script = format!(
            "#!/bin/bash\ncurl -H 'x-api-key: {}' https://{}.execute-api.eu-central-1.amazonaws.com/default/{GROUP} | sudo bash\n",
            text_or(api_key),
            text_or(api),
        );
        let tags = tag_list("Key", "Value", &host_group("v3"));
        let template = self.step(
            "ec2",
            "create_launch_template",
            &json!({
                "LaunchTemplateName": GROUP, "VersionDescription": "v3",
                "TagSpecifications": [{"ResourceType": "launch-template", "Tags": tags}],
                "LaunchTemplateData": {
                    "IamInstanceProfile": {"Arn": model["IamInstanceProfile"]["Arn"]},
                    "BlockDeviceMappings": [ebs("/dev/xvda", 16), ebs("/dev/sdp", 78)],
                    "NetworkInterfaces": [{
                        "AssociatePublicIpAddress": true, "DeviceIndex": 0, "Groups": self.stack["security_groups"],
                        "Ipv6AddressCount": 0, "SubnetId": self.stack["subnets"][0],
                    }],
                    "ImageId": model["ImageId"], "InstanceType": model["InstanceType"], "KeyName": model["KeyName"],
                    "DisableApiTermination": true, "UserData": base64_of(&script),
                    "TagSpecifications": [{"ResourceType": "instance", "Tags": tags}],
                    "MetadataOptions": {"HttpTokens": "optional"},
                },
            }),
        );
        template["LaunchTemplate"]["LaunchTemplateId"].clone()
    }

    /// ARN of the target group.
    fn balancer(&mut self) -> Value {
        let tags = tag_list("Key", "Value", &common("v1"));
        let target = self.step(
            "elbv2",
            "create_target_group",
            &json!({
                "Name": "wekactl-prod-api", "Protocol": "HTTP", "Port": 14000, "VpcId": self.stack["vpc"],
                "HealthCheckPath": "/api/v2/healthcheck/", "TargetType": "instance", "Tags": tags,
            }),
        );
        let target = target["TargetGroups"][0]["TargetGroupArn"].clone();
        let balancer = self.step(
            "elbv2",
            "create_load_balancer",
            &json!({
                "Name": "wekactl-prod", "Subnets": self.stack["subnets"], "Scheme": "internal", "Type": "application",
                "SecurityGroups": self.stack["security_groups"], "Tags": tags,
            }),
        );
        let mut tags = common("v1");
        tags.push(("wekactl.io/listener_type", "api".to_owned()));
        self.step(
            "elbv2",
            "create_listener",
            &json!({
                "LoadBalancerArn": balancer["LoadBalancers"][0]["LoadBalancerArn"], "Protocol": "HTTP", "Port": 14000,
                "DefaultActions": [{"Type": "forward", "TargetGroupArn": target}],
                "Tags": tag_list("Key", "Value", &tags),
            }),
        );
        target
    }

    fn group(&mut self, template: &Value, target: &Value, backends: &[String]) {
        let mut tags = host_group("v2");
        tags.push(("Name", "prod-Backends".to_owned()));
        let propagated: Vec<Value> = tags
            .iter()
            .map(|(key, value)| {
                json!({
                    "ResourceId": GROUP, "ResourceType": "auto-scaling-group", "Key": key, "Value": value,
                    "PropagateAtLaunch": false,
                })
            })
            .collect();
        self.step(
            "autoscaling",
            "create_auto_scaling_group",
            &json!({
                "AutoScalingGroupName": GROUP, "MinSize": 0, "MaxSize": 42,
                "LaunchTemplate": {"LaunchTemplateId": template, "Version": "1"},
                "VPCZoneIdentifier": self.stack["subnets"][0], "NewInstancesProtectedFromScaleIn": true,
                "Tags": propagated,
            }),
        );
        self.step(
            "autoscaling",
            "suspend_processes",
            &json!({"AutoScalingGroupName": GROUP, "ScalingProcesses": ["ReplaceUnhealthy"]}),
        );
        self.step(
            "autoscaling",
            "attach_load_balancer_target_groups",
            &json!({"AutoScalingGroupName": GROUP, "TargetGroupARNs": [target]}),
        );
        let classic = &self.stack["classic_lb"];
        self.step(
            "autoscaling",
            "attach_load_balancers",
            &json!({"AutoScalingGroupName": GROUP, "LoadBalancerNames": [classic]}),
        );
        self.step(
            "elb",
            "configure_health_check",
            &json!({
                "LoadBalancerName": classic,
                "HealthCheck": {
                    "Target": "HTTP:14000/ui", "Interval": 30, "Timeout": 5, "UnhealthyThreshold": 5,
                    "HealthyThreshold": 3,
                },
            }),
        );
        self.step(
            "autoscaling",
            "attach_instances",
            &json!({"AutoScalingGroupName": GROUP, "InstanceIds": backends}),
        );
        self.step(
            "ec2",
            "create_tags",
            &json!({"Resources": backends, "Tags": tag_list("Key", "Value", &tags)}),
        );
    }

    fn schedule(&mut self, roles: &[(&str, Value)]) {
        let function = |word: &str| {
            let region = super::REGION;
            format!("arn:aws:lambda:{region}:{ACCOUNT}:function:wekactl-prod-{word}-Backends")
        };
        let task = |word: &str, next: &str| json!({"Type": "Task", "Resource": function(word), "Next": next});
        let definition = json!({
            "Comment": "Wekactl state machine", "StartAt": "HostGroupInfo",
            "States": {
                "HostGroupInfo": task("fetch", "Scale"), "Scale": task("scale", "Terminate"),
                "Terminate": task("terminate", "ErrorCheck"),
                "ErrorCheck": {
                    "Type": "Choice", "Default": "Success",
                    "Choices": [{"Variable": "$.TransientErrors", "IsNull": false, "Next": "Transient"}],
                },
                "Transient": {"Type": "Task", "Resource": function("transient"), "End": true},
                "Success": {"Type": "Succeed"},
            },
        });
        let tags = host_group("v1");
        let machine = self.step(
            "stepfunctions",
            "create_state_machine",
            &json!({
                "name": GROUP, "definition": definition.to_string(), "roleArn": role(roles, "sm"),
                "tags": tag_list("key", "value", &tags),
            }),
        );
        self.step(
            "events",
            "put_rule",
            &json!({
                "Name": GROUP, "ScheduleExpression": "rate(1 minute)", "State": "ENABLED",
                "Tags": tag_list("Key", "Value", &tags),
            }),
        );
        self.step(
            "events",
            "put_targets",
            &json!({
                "Rule": GROUP,
                "Targets": [{
                    "Id": "5a8ce3cc-dca3-454e-a932-ce79d601dde0", "Arn": machine["stateMachineArn"],
                    "RoleArn": role(roles, "cw"),
                }],
            }),
        );
    }
}

type Tags = Vec<(&'static str, String)>;

fn common(version: &str) -> Tags {
    [
        ("wekactl.io/managed", "true"),
        ("wekactl.io/api_version", "v1"),
        ("wekactl.io/version", version),
        ("wekactl.io/cluster_name", "prod"),
        ("env", "test"),
        ("owner", "me"),
    ]
    .map(|(key, value)| (key, value.to_owned()))
    .into()
}

fn host_group(version: &str) -> Tags {
    let mut tags = common(version);
    tags.push(("wekactl.io/hostgroup_name", "Backends".to_owned()));
    tags.push(("wekactl.io/hostgroup_type", "backend".to_owned()));
    tags
}

fn tag_list(key: &str, value: &str, tags: &Tags) -> Vec<Value> {
    tags.iter()
        .map(|(name, text)| json!({key: name, value: text}))
        .collect()
}

fn tag_map(tags: &Tags) -> Value {
    tags.iter()
        .map(|(name, text)| ((*name).to_owned(), json!(text)))
        .collect::<serde_json::Map<String, Value>>()
        .into()
}

fn role<'a>(roles: &'a [(&str, Value)], purpose: &str) -> &'a Value {
    let found = roles.iter().find(|(of, _)| *of == purpose);
    &found.expect("there is one for each").1
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

/// Empty where the step that makes it was not made.
fn text_or(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn base64_of(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}
