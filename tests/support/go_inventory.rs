//! The inventory of the earlier tool's cluster in the form of the sandbox's, so that the two can be compared.

use serde_json::{Map, Value, json};

use super::REGION;
use super::account::ANYTHING;

/// Its kinds, where and how the sandbox's has them, and the field that names one of them.
const KINDS: [(&str, &str, &str, &str); 15] = [
    ("albs", REGION, "load_balancers", "LoadBalancerName"),
    ("apigw", REGION, "rest_apis", "id"),
    ("apigw_keys", REGION, "api_keys", "id"),
    ("apigw_usage_plans", REGION, "usage_plans", "id"),
    ("asg", REGION, "auto_scaling_groups", "AutoScalingGroupName"),
    ("dynamodb", REGION, "tables", "TableName"),
    ("events", REGION, "rules", "Name"),
    ("iam_roles", "global", "roles", "RoleName"),
    ("instances", REGION, "instances", "InstanceId"),
    ("kms_aliases", REGION, "kms_aliases", "AliasName"),
    ("kms_keys", REGION, "kms_keys", "KeyId"),
    ("lambdas", REGION, "functions", "FunctionName"),
    (
        "launch_templates",
        REGION,
        "launch_templates",
        "LaunchTemplateName",
    ),
    ("sfn", REGION, "state_machines", "name"),
    ("target_groups", REGION, "target_groups", "TargetGroupName"),
];

/// What the sandbox has otherwise: kind, path, and what it is instead, if it is there at all.
fn otherwise() -> Vec<(&'static str, &'static str, Option<Value>)> {
    let any = || Some(json!(ANYTHING));
    vec![
        // Drawn, and told by no call that makes them.
        ("asg", "AutoScalingGroupARN", any()),
        ("albs", "CanonicalHostedZoneId", any()),
        ("albs", "DNSName", any()),
        // The earlier tool's code is not there to be had.
        ("lambdas", "CodeSha256", any()),
        ("lambdas", "CodeSize", any()),
        // Nobody had asked, and what nobody has chosen.
        ("albs", "Attributes", any()),
        ("apigw", "endpointConfiguration/ipAddressType", any()),
        ("apigw", "policy", Some(Value::Null)),
        ("asg", "DeletionProtection", Some(json!("none"))),
        ("dynamodb", "Backups", any()),
        ("events", "CreatedBy", any()),
        (
            "kms_keys",
            "Rotation",
            Some(json!({"KeyRotationEnabled": false})),
        ),
        ("lambdas", "Concurrency", Some(Value::Null)),
        ("lambdas", "Invocation", Some(Value::Null)),
        ("lambdas", "LoggingConfig", any()),
        ("lambdas", "VpcConfig/Ipv6AllowedForDualStack", any()),
        ("sfn", "Executions", Some(json!(0))),
        // The inventory's AWS was a local one, too, and in this not like AWS: a constant, an id in place of an ARN, a
        // policy of a listener without TLS, the template of machines that came from none, and the template's own
        // tags among those of what it launches.
        ("lambdas", "VpcConfig/VpcId", any()),
        ("dynamodb", "SSEDescription/KMSMasterKeyArn", any()),
        ("albs", "Listeners/*/SslPolicy", None),
        ("asg", "Instances/*/LaunchTemplate", None),
        // As AWS has it where it is off.
        ("asg", "CapacityRebalance", None),
    ]
}

/// Place, kind and name of everything that the inventory has of the cluster.
pub(crate) fn in_form(go: &Value) -> Value {
    let mut places = json!({});
    for (there, place, here, name) in KINDS {
        for thing in go[there].as_array().expect("a list") {
            let mut thing = tidy(&form_of(there, thing));
            for (_, path, value) in otherwise().iter().filter(|(kind, ..)| *kind == there) {
                let path: Vec<&str> = path.split('/').collect();
                set(&mut thing, &path, value.as_ref());
            }
            let name = thing[name].as_str().expect("a name").to_owned();
            // The rest is the account's own: AWS's aliases, and the role of the stack.
            if place == "global" && !name.starts_with("wekactl-") || name.starts_with("alias/aws/")
            {
                continue;
            }
            places[place][here][name] = match there {
                "kms_aliases" => thing["TargetKeyId"].clone(),
                _ => thing,
            };
        }
    }
    places
}

fn form_of(kind: &str, thing: &Value) -> Value {
    let mut thing = thing.clone();
    let document = |text: &Value| -> Value {
        serde_json::from_str(text.as_str().expect("text")).expect("a document")
    };
    match kind {
        "albs" => {
            thing["Listeners"] = by(&thing["Listeners"], "ListenerArn");
            take(&mut thing, "State");
        }
        "asg" => {
            thing["Instances"] = by(&thing["Instances"], "InstanceId");
            thing["Tags"] = by(&thing["Tags"], "Key");
            take(&mut thing, "TGs");
        }
        "iam_roles" => thing["Policies"] = take(&mut thing, "Inline"),
        "instances" => {
            thing = json!({
                "InstanceId": thing["Id"], "State": thing["State"], "Tags": thing["Tags"],
                "DisableApiTermination": thing["Term"],
            });
        }
        "kms_keys" => thing["Policy"] = document(&thing["Policy"]),
        "lambdas" => {
            take(&mut thing, "Code");
            let configuration = take(&mut thing, "Configuration");
            let configuration = configuration.as_object().expect("an object").clone();
            thing
                .as_object_mut()
                .expect("an object")
                .extend(configuration);
        }
        "launch_templates" => {
            let data = &mut thing["Versions"][0]["LaunchTemplateData"];
            take(data, "UserData_decoded");
            let tags = data["TagSpecifications"].as_array_mut().expect("a list");
            tags.retain(|tags| tags["ResourceType"] != "launch-template");
            thing["Versions"] = by(&thing["Versions"], "VersionNumber");
        }
        "sfn" => {
            thing["definition"] = document(&thing["definition"]);
            thing["Tags"] = take(&mut thing, "tags");
        }
        "target_groups" => {
            let targets = take(&mut thing, "Health");
            let targets = targets.as_array().expect("a list").iter();
            thing["Targets"] = targets.map(|target| target["Id"].clone()).collect();
        }
        _ => {}
    }
    thing
}

/// The things of a list by a field of theirs.
fn by(list: &Value, field: &str) -> Value {
    let list = list.as_array().expect("a list").iter();
    let named = list.map(|thing| {
        let name = &thing[field];
        let name = name
            .as_str()
            .map_or_else(|| name.to_string(), ToOwned::to_owned);
        (name, thing.clone())
    });
    named.collect::<Map<_, _>>().into()
}

/// Removes a field, and returns it.
#[track_caller]
fn take(object: &mut Value, field: &str) -> Value {
    let fields = object.as_object_mut().expect("an object");
    fields.remove(field).unwrap_or_else(|| panic!("no {field}"))
}

/// Puts a value at a path, in which `*` is everything, or takes away what is there.
fn set(thing: &mut Value, path: &[&str], value: Option<&Value>) {
    let Some(fields) = thing.as_object_mut() else {
        return;
    };
    match (path, value) {
        (["*", rest @ ..], _) => {
            for each in fields.values_mut() {
                set(each, rest, value);
            }
        }
        ([field], Some(value)) => drop(fields.insert((*field).to_owned(), value.clone())),
        ([field], None) => drop(fields.remove(*field)),
        ([field, rest @ ..], _) => {
            if let Some(inner) = fields.get_mut(*field) {
                set(inner, rest, value);
            }
        }
        ([], _) => {}
    }
}

/// Without dates, and tags as an object, as in the sandbox's.
fn tidy(value: &Value) -> Value {
    const DATES: [&str; 10] = [
        "CreateDate",
        "CreateTime",
        "CreatedTime",
        "CreationDate",
        "CreationDateTime",
        "LastModified",
        "RoleLastUsed",
        "createdDate",
        "creationDate",
        "lastUpdatedDate",
    ];
    match value {
        Value::Object(fields) => {
            let kept = fields
                .iter()
                .filter(|(name, _)| !DATES.contains(&name.as_str()));
            let kept = kept.map(|(name, value)| (name.clone(), tidy(value)));
            kept.collect::<Map<_, _>>().into()
        }
        Value::Array(values) => tags(values).unwrap_or_else(|| values.iter().map(tidy).collect()),
        other => other.clone(),
    }
}

/// The object, if these are tags.
fn tags(values: &[Value]) -> Option<Value> {
    let tag = |each: &Value| {
        let forms = [("Key", "Value"), ("TagKey", "TagValue"), ("key", "value")];
        let mut tags = forms.into_iter().filter_map(|(key, content)| {
            Some((
                each.get(key)?.as_str()?.to_owned(),
                each.get(content)?.clone(),
            ))
        });
        tags.next()
            .filter(|_| each.as_object().is_some_and(|each| each.len() == 2))
    };
    let tags: Option<Map<_, _>> = values.iter().map(tag).collect();
    tags.filter(|tags| !tags.is_empty()).map(Into::into)
}
