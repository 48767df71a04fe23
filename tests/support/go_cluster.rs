//! A cluster as the earlier Go tool leaves it in an account, made call by call, so that it can also be one that is made
//! in part. What is made is what `go-managed-cluster.json` says: an inventory of a cluster that the Go tool made. Its
//! dates tell the order.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::Sandbox;

const INVENTORY: &str = include_str!("go-managed-cluster.json");
/// In place of the code of its functions, which the inventory does not have.
const EMPTY_ZIP: &str = "UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA==";

/// What the earlier tool had made of stack `prod` after so many of its steps.
pub(crate) struct GoCluster<'a> {
    sandbox: &'a Sandbox,
    stack: &'a Value,
    /// Steps that are still made.
    left: usize,
    /// The inventory, with the ids of this account as far as they are known.
    go: Value,
}

/// All of them.
pub(crate) const ALL_STEPS: usize = usize::MAX;

impl<'a> GoCluster<'a> {
    /// Makes it of a stack of six backends, and returns the inventory that it then has. `steps`: so many, then the
    /// earlier tool had died; [`ALL_STEPS`]: it had not. `early`: as early versions wrote the settings, without the
    /// VPC and the volumes.
    pub(crate) fn make(sandbox: &'a Sandbox, stack: &'a Value, steps: usize, early: bool) -> Value {
        let mut cluster = Self {
            sandbox,
            stack,
            left: steps,
            go: serde_json::from_str(INVENTORY).expect("the inventory is JSON"),
        };
        cluster.move_to_stack();
        cluster.key();
        cluster.table(early);
        cluster.protection();
        cluster.balancer();
        cluster.function("join");
        cluster.api();
        for word in ["fetch", "scale", "terminate", "transient"] {
            cluster.function(word);
        }
        cluster.schedule();
        cluster.template();
        cluster.group();
        cluster.go
    }

    /// One step, as long as there are any left.
    fn step(&mut self, service: &str, operation: &str, params: &Value) -> Value {
        if self.left == 0 {
            return Value::Null;
        }
        self.left -= 1;
        self.sandbox.aws(service, operation, params)
    }

    /// What the inventory calls so is called otherwise here, wherever it occurs. Where the step that would have made
    /// it was not made, nothing will refer to it.
    fn is_here(&mut self, there: &Value, here: &Value) {
        if let (Some(there), Some(here)) = (there.as_str(), here.as_str()) {
            let text = self.go.to_string().replace(there, here);
            self.go = serde_json::from_str(&text).expect("ids need no escapes");
        }
    }

    /// The only one of a kind.
    fn one(&self, kind: &str) -> Value {
        let all = self.go[kind].as_array().expect("a list");
        assert_eq!(all.len(), 1, "{kind}");
        all[0].clone()
    }

    fn move_to_stack(&mut self) {
        let stack = self.stack;
        let machines = list(&self.go["instances"]).to_vec();
        let backends = list(&stack["backends"]);
        assert_eq!(machines.len(), backends.len(), "backends");
        for (there, here) in machines.iter().zip(backends) {
            self.is_here(&there["Id"], &here["id"]);
        }
        let described = self.sandbox.aws(
            "ec2",
            "describe_instances",
            &json!({"InstanceIds": [backends[0]["id"]]}),
        );
        let backend = &described["Reservations"][0]["Instances"][0];
        let stack_id = tag(&self.one("dynamodb")["Tags"], "wekactl.io/stack_id");
        self.is_here(&stack_id, &stack["stack_id"]);
        let data = self.one("launch_templates")["Versions"][0]["LaunchTemplateData"].clone();
        self.is_here(
            &data["IamInstanceProfile"]["Arn"],
            &backend["IamInstanceProfile"]["Arn"],
        );
        self.is_here(&data["ImageId"], &stack["image"]);
        let balancer = self.one("albs");
        self.is_here(&balancer["VpcId"], &stack["vpc"]);
        self.is_here(&balancer["SecurityGroups"][0], &stack["security_groups"][0]);
        for (zone, subnet) in list(&balancer["AvailabilityZones"])
            .iter()
            .zip(list(&stack["subnets"]))
        {
            self.is_here(&zone["SubnetId"], subnet);
        }
    }

    fn key(&mut self) {
        let key = self.one("kms_keys");
        let made = self.step("kms", "create_key", &pick(&key, &["Tags"]));
        self.is_here(&key["KeyId"], &made["KeyMetadata"]["KeyId"]);
        // The first; the others are AWS's own.
        let alias = pick(&self.go["kms_aliases"][0], &["AliasName", "TargetKeyId"]);
        self.step("kms", "create_alias", &alias);
    }

    fn table(&mut self, early: bool) {
        let table = self.one("dynamodb");
        let mut new = pick(
            &table,
            &["TableName", "KeySchema", "AttributeDefinitions", "Tags"],
        );
        new["BillingMode"] = table["BillingModeSummary"]["BillingMode"].clone();
        let encryption = &table["SSEDescription"];
        new["SSESpecification"] = json!({
            "Enabled": true, "SSEType": encryption["SSEType"], "KMSMasterKeyId": encryption["KMSMasterKeyArn"],
        });
        self.step("dynamodb", "create_table", &new);
        for name in ["cluster-settings", "cluster-creds"] {
            let mut item = find(&table["Items"], |item| item["Key"]["S"] == name);
            if early && name == "cluster-settings" {
                remove(&mut item, "VpcId");
                for hosts in ["Backends", "Clients"] {
                    remove(&mut item[hosts]["M"], "VolumesInfo");
                }
            }
            let put = json!({"TableName": table["TableName"], "Item": item});
            self.step("dynamodb", "put_item", &put);
        }
    }

    /// Of the clients, too. The stack of the inventory had none.
    fn protection(&mut self) {
        let stack = self.stack;
        for machine in list(&stack["backends"])
            .iter()
            .chain(list(&stack["clients"]))
        {
            let change =
                json!({"InstanceId": machine["id"], "DisableApiTermination": {"Value": true}});
            self.step("ec2", "modify_instance_attribute", &change);
        }
    }

    fn balancer(&mut self) {
        let group = self.one("target_groups");
        let mut new = pick(
            &group,
            &[
                "Protocol",
                "Port",
                "VpcId",
                "HealthCheckPath",
                "TargetType",
                "Tags",
            ],
        );
        new["Name"] = group["TargetGroupName"].clone();
        let made = self.step("elbv2", "create_target_group", &new);
        let arn = "TargetGroupArn";
        self.is_here(&group[arn], &made["TargetGroups"][0][arn]);

        let balancer = self.one("albs");
        let mut new = pick(&balancer, &["Scheme", "Type", "SecurityGroups", "Tags"]);
        new["Name"] = balancer["LoadBalancerName"].clone();
        let zones = list(&balancer["AvailabilityZones"]).iter();
        new["Subnets"] = zones.map(|zone| zone["SubnetId"].clone()).collect();
        let made = self.step("elbv2", "create_load_balancer", &new);
        let arn = "LoadBalancerArn";
        self.is_here(&balancer[arn], &made["LoadBalancers"][0][arn]);

        let listener = self.one("albs")["Listeners"][0].clone();
        let fields = [
            "LoadBalancerArn",
            "Protocol",
            "Port",
            "DefaultActions",
            "Tags",
        ];
        let made = self.step("elbv2", "create_listener", &pick(&listener, &fields));
        let arn = "ListenerArn";
        self.is_here(&listener[arn], &made["Listeners"][0][arn]);
    }

    fn role(&mut self, purpose: &str) {
        let start = format!("wekactl-prod-Backends-{purpose}-");
        let role = find(&self.go["iam_roles"], |role| {
            text(&role["RoleName"]).starts_with(&start)
        });
        let mut new = pick(&role, &["Path", "RoleName", "Tags"]);
        new["AssumeRolePolicyDocument"] = json!(role["AssumeRolePolicyDocument"].to_string());
        let made = self.step("iam", "create_role", &new);
        self.is_here(&role["RoleId"], &made["Role"]["RoleId"]);
        for (name, policy) in role["Inline"].as_object().expect("policies") {
            let put = json!({
                "RoleName": role["RoleName"], "PolicyName": name, "PolicyDocument": policy.to_string(),
            });
            self.step("iam", "put_role_policy", &put);
        }
    }

    fn function(&mut self, word: &str) {
        self.role(word);
        let function = self.of_functions(word);
        let configuration = &function["Configuration"];
        let mut new = pick(
            configuration,
            &[
                "FunctionName",
                "Runtime",
                "Role",
                "Handler",
                "Description",
                "Timeout",
                "MemorySize",
                "Architectures",
                "TracingConfig",
                "Environment",
            ],
        );
        if let Some(network) = configuration.get("VpcConfig") {
            new["VpcConfig"] = pick(network, &["SubnetIds", "SecurityGroupIds"]);
        }
        new["Code"] = json!({"ZipFile": {"__bytes__": EMPTY_ZIP}});
        new["Tags"] = function["Tags"].clone();
        self.step("lambda", "create_function", &new);
    }

    fn of_functions(&self, word: &str) -> Value {
        find(&self.go["lambdas"], |function| {
            function["Configuration"]["Environment"]["Variables"]["LAMBDA"] == word
        })
    }

    fn api(&mut self) {
        let api = self.one("apigw");
        let fields = ["name", "description", "endpointConfiguration", "tags"];
        let made = self.step("apigateway", "create_rest_api", &pick(&api, &fields));
        for id in ["id", "rootResourceId"] {
            self.is_here(&api[id], &made[id]);
        }
        let mut path = self.path();
        path["restApiId"] = self.one("apigw")["id"].clone();
        let fields = ["restApiId", "parentId", "pathPart"];
        let made = self.step("apigateway", "create_resource", &pick(&path, &fields));
        self.is_here(&path["id"], &made["id"]);

        let api = self.one("apigw");
        let path = self.path();
        let method = &path["resourceMethods"]["GET"];
        let mut new = pick(
            method,
            &["httpMethod", "authorizationType", "apiKeyRequired"],
        );
        new["restApiId"] = api["id"].clone();
        new["resourceId"] = path["id"].clone();
        self.step("apigateway", "put_method", &new);
        let integration = &method["methodIntegration"];
        let mut of_method = pick(&new, &["restApiId", "resourceId", "httpMethod"]);
        of_method["type"] = integration["type"].clone();
        of_method["uri"] = integration["uri"].clone();
        of_method["integrationHttpMethod"] = integration["httpMethod"].clone();
        self.step("apigateway", "put_integration", &of_method);

        let join = self.of_functions("join");
        let statement = &join["Policy"]["Statement"][0];
        let permission = json!({
            "FunctionName": join["Configuration"]["FunctionName"], "StatementId": statement["Sid"],
            "Action": statement["Action"], "Principal": statement["Principal"]["Service"],
            "SourceArn": statement["Condition"]["ArnLike"]["AWS:SourceArn"],
        });
        self.step("lambda", "add_permission", &permission);

        let stage = &api["stages"][0];
        let new = json!({"restApiId": api["id"], "stageName": stage["stageName"]});
        let made = self.step("apigateway", "create_deployment", &new);
        self.is_here(&stage["deploymentId"], &made["id"]);

        let plan = self.one("apigw_usage_plans");
        let new = pick(&plan, &["name", "apiStages"]);
        let made = self.step("apigateway", "create_usage_plan", &new);
        self.is_here(&plan["id"], &made["id"]);
        let key = self.one("apigw_keys");
        let new = pick(&key, &["name", "enabled", "tags"]);
        let made = self.step("apigateway", "create_api_key", &new);
        for drawn in ["id", "value"] {
            self.is_here(&key[drawn], &made[drawn]);
        }
        let plan = self.one("apigw_usage_plans");
        let key = &plan["keys"][0];
        let new = json!({"usagePlanId": plan["id"], "keyId": key["id"], "keyType": key["type"]});
        self.step("apigateway", "create_usage_plan_key", &new);
    }

    /// The one path of the API.
    fn path(&self) -> Value {
        find(&self.one("apigw")["resources"], |path| {
            path["pathPart"].is_string()
        })
    }

    fn schedule(&mut self) {
        self.role("sm");
        let machine = pick(&self.one("sfn"), &["name", "definition", "roleArn", "tags"]);
        self.step("stepfunctions", "create_state_machine", &machine);
        self.role("cw");
        let rule = self.one("events");
        let new = pick(&rule, &["Name", "ScheduleExpression", "State", "Tags"]);
        self.step("events", "put_rule", &new);
        let targets = json!({"Rule": rule["Name"], "Targets": rule["Targets"]});
        self.step("events", "put_targets", &targets);
    }

    fn template(&mut self) {
        // The inventory does not have the earlier tool's script. It ran what the API answered.
        let script = format!(
            "#!/bin/bash\ncurl -H 'x-api-key: {}' https://{}.execute-api.{}.amazonaws.com/default/{} | sudo bash\n",
            text(&self.one("apigw_keys")["value"]),
            text(&self.one("apigw")["id"]),
            super::REGION,
            text(&self.one("apigw")["name"]),
        );
        let left_out =
            self.one("launch_templates")["Versions"][0]["LaunchTemplateData"]["UserData"].clone();
        self.is_here(&left_out, &json!(BASE64_STANDARD.encode(script)));

        let template = self.one("launch_templates");
        let version = &template["Versions"][0];
        let mut new = pick(
            version,
            &[
                "LaunchTemplateName",
                "VersionDescription",
                "LaunchTemplateData",
            ],
        );
        let data = &mut new["LaunchTemplateData"];
        remove(data, "UserData_decoded");
        // What the inventory has besides is how the local AWS reads back the template's own tags.
        let instances = find(&data["TagSpecifications"], |tags| {
            tags["ResourceType"] == "instance"
        });
        data["TagSpecifications"] = json!([instances]);
        new["TagSpecifications"] =
            json!([{"ResourceType": "launch-template", "Tags": template["Tags"]}]);
        let made = self.step("ec2", "create_launch_template", &new);
        let id = "LaunchTemplateId";
        self.is_here(&template[id], &made["LaunchTemplate"][id]);
    }

    fn group(&mut self) {
        let group = self.one("asg");
        let of_group = pick(&group, &["AutoScalingGroupName"]);
        let of_group = |field: &str, value: Value| {
            let mut params = of_group.clone();
            params[field] = value;
            params
        };
        let mut new = pick(
            &group,
            &[
                "AutoScalingGroupName",
                "MinSize",
                "MaxSize",
                "VPCZoneIdentifier",
                "NewInstancesProtectedFromScaleIn",
                "Tags",
            ],
        );
        new["LaunchTemplate"] = pick(&group["LaunchTemplate"], &["LaunchTemplateId", "Version"]);
        self.step("autoscaling", "create_auto_scaling_group", &new);
        let suspended = list(&group["SuspendedProcesses"]).iter();
        let suspended = suspended.map(|each| each["ProcessName"].clone()).collect();
        let params = of_group("ScalingProcesses", suspended);
        self.step("autoscaling", "suspend_processes", &params);
        let params = of_group("TargetGroupARNs", group["TargetGroupARNs"].clone());
        self.step("autoscaling", "attach_load_balancer_target_groups", &params);
        // The stack of the inventory had none.
        let classic = &self.stack["classic_lb"];
        if classic.is_string() {
            let params = of_group("LoadBalancerNames", json!([classic]));
            self.step("autoscaling", "attach_load_balancers", &params);
            let check = json!({
                "Target": "HTTP:14000/ui", "Interval": 30, "Timeout": 5, "UnhealthyThreshold": 5,
                "HealthyThreshold": 3,
            });
            let params = json!({"LoadBalancerName": classic, "HealthCheck": check});
            self.step("elb", "configure_health_check", &params);
        }
        let members = list(&group["Instances"]).iter();
        let members: Value = members.map(|each| each["InstanceId"].clone()).collect();
        let params = of_group("InstanceIds", members.clone());
        self.step("autoscaling", "attach_instances", &params);
        // All have the same; AWS's own were there before.
        let mut tags = self.go["instances"][0]["Tags"].clone();
        let tags_list = tags.as_array_mut().expect("tags");
        tags_list.retain(|tag| !text(&tag["Key"]).starts_with("aws:"));
        let params = json!({"Resources": members, "Tags": tags});
        self.step("ec2", "create_tags", &params);
    }
}

/// These fields of it.
fn pick(value: &Value, fields: &[&str]) -> Value {
    let pick = |field: &&str| {
        let found = value.get(*field);
        let found = found.unwrap_or_else(|| panic!("no {field} in {value:#}"));
        ((*field).to_owned(), found.clone())
    };
    fields
        .iter()
        .map(pick)
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn remove(object: &mut Value, field: &str) {
    let removed = object.as_object_mut().expect("an object").remove(field);
    assert!(removed.is_some(), "no {field} in {object:#}");
}

/// The first for which it holds.
fn find(values: &Value, is: impl Fn(&Value) -> bool) -> Value {
    let found = list(values).iter().find(|value| is(value));
    found.unwrap_or_else(|| panic!("not in {values:#}")).clone()
}

fn tag(tags: &Value, key: &str) -> Value {
    find(tags, |tag| tag["Key"] == key)["Value"].clone()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}
