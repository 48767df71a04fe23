//! The REST API that a booting instance asks for its script: one method, an API key, the function `join`.
//!
//! A REST API has no unique name: ours is the one of our name with our tag. It is made in four calls, and
//! whatever of them is missing or has drifted, [`Resource::update`] adds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use aws_sdk_apigateway::config::Config;
use aws_sdk_apigateway::types::{
    Deployment, EndpointConfiguration, EndpointType, IntegrationType, Op, PatchOperation, PutMode,
    Resource as Path, RestApi as Api,
};
use aws_smithy_types::{Blob, DateTime};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::aws::error::Effect;
use crate::aws::retry::retry_while;
use crate::aws::{Answer, Aws, AwsError, once};
use crate::cluster::names::{CLUSTER_TAG, Cluster};
use crate::resource::{Diff, Resource, Tags, touches};
use crate::run::{Change, Kind};

/// The one stage.
pub const STAGE: &str = "default";

pub(super) const GONE: &[&str] = &["NotFoundException"];
/// One deployment in five seconds is taken from an account, and others may have their turn first.
const DEPLOYMENT_DEADLINE: Duration = Duration::from_secs(180);
/// The largest page of API Gateway's lists.
pub(super) const PAGE: i32 = 500;

/// `wekactl-C-Backends`.
#[derive(Debug, Clone)]
pub struct RestApi {
    /// Its name, and its only path.
    pub name: String,
    /// With a VPC: only from there.
    pub private_vpc: Option<String>,
    /// The function that answers.
    pub join_function_arn: String,
    /// Its tags and its stage's.
    pub tags: Tags,
}

/// A REST API in AWS.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Its id.
    pub id: String,
    endpoint_type: String,
    /// As [`normalise`] leaves it.
    policy: Option<Value>,
    methods: Vec<Method>,
    stage: Option<Stage>,
    deployments: Vec<Snapshot>,
    tags: Tags,
    created: DateTime,
}

impl Observed {
    /// Where it answers.
    ///
    /// # Errors
    /// As [`Aws::identity`].
    pub async fn url(&self, aws: &Aws, path: &str) -> Result<String> {
        Ok(format!(
            "https://{}.execute-api.{}.{}/{STAGE}/{path}",
            self.id,
            aws.region(),
            aws.identity().await?.dns_suffix()
        ))
    }

    /// The ARN that may invoke the function: exactly the one method, on any stage.
    ///
    /// # Errors
    /// As [`Aws::identity`].
    pub async fn method_arn(&self, aws: &Aws, path: &str) -> Result<String> {
        aws.arn("execute-api", &format!("{}/*/GET/{path}", self.id))
            .await
    }

    fn has_deployed_stage(&self) -> bool {
        self.stage
            .as_ref()
            .is_some_and(|stage| stage.deployment_id.is_some())
    }

    /// What the deployment that the stage shows was made from, in its own words.
    fn deployed(&self) -> Option<&str> {
        let id = self.stage.as_ref()?.deployment_id.as_deref()?;
        self.deployments
            .iter()
            .find(|snapshot| snapshot.id == id)?
            .description
            .as_deref()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Method {
    verb_and_path: String,
    authorization: String,
    api_key_required: bool,
    integration_type: String,
    integration_method: String,
    integration_uri: String,
}

#[derive(Debug, Clone)]
struct Stage {
    deployment_id: Option<String>,
    tags: Tags,
}

/// A deployment: the API as it was when the deployment was made.
#[derive(Debug, Clone)]
struct Snapshot {
    id: String,
    description: Option<String>,
}

impl RestApi {
    fn endpoint_type(&self) -> EndpointType {
        if self.private_vpc.is_some() {
            EndpointType::Private
        } else {
            EndpointType::Regional
        }
    }

    fn policy(&self) -> Option<Value> {
        let vpc = self.private_vpc.as_ref()?;
        let invoke = |effect: &str| {
            json!({
                "Effect": effect,
                "Principal": "*",
                "Action": "execute-api:Invoke",
                "Resource": "execute-api:/*",
            })
        };
        let mut deny = invoke("Deny");
        deny["Condition"] = json!({"StringNotEquals": {"aws:SourceVpc": vpc}});
        Some(json!({"Version": "2012-10-17", "Statement": [invoke("Allow"), deny]}))
    }

    fn method(&self) -> Method {
        let mut parts = self.join_function_arn.split(':').skip(1);
        let partition = parts.next().unwrap_or_default();
        let region = parts.nth(1).unwrap_or_default();
        Method {
            verb_and_path: format!("GET /{}", self.name),
            authorization: "NONE".to_owned(),
            api_key_required: true,
            integration_type: "AWS_PROXY".to_owned(),
            integration_method: "POST".to_owned(),
            integration_uri: format!(
                "arn:{partition}:apigateway:{region}:lambda:path/2015-03-31/functions/{}/invocations",
                self.join_function_arn
            ),
        }
    }

    /// The whole API as an `OpenAPI` document.
    fn body(&self) -> Value {
        let method = self.method();
        let mut body = json!({
            "openapi": "3.0.1",
            "info": {"title": self.name, "version": "1"},
            "paths": {
                format!("/{}", self.name): {
                    "get": {
                        "responses": {"200": {"description": "What the instance needs to join"}},
                        "security": [{"api_key": []}],
                        "x-amazon-apigateway-integration": {
                            "type": "aws_proxy",
                            "httpMethod": method.integration_method,
                            "uri": method.integration_uri,
                        },
                    },
                },
            },
            "components": {
                "securitySchemes": {
                    "api_key": {"type": "apiKey", "name": "x-api-key", "in": "header"},
                },
            },
        });
        // The body replaces the whole API, and with it the policy that the API was created with.
        if let Some(policy) = self.policy() {
            body["x-amazon-apigateway-policy"] = policy;
        }
        body
    }

    /// What a deployment of this API is described with. It tells whether a deployment is needed:
    /// AWS allows one in five seconds, and says of none what is in it.
    fn deployment_description(&self) -> String {
        let hash = Sha256::digest(self.body().to_string());
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex}")
    }

    async fn put_body(&self, aws: &Aws, id: &str) -> Result<()> {
        aws.apigateway()
            .put_rest_api()
            .rest_api_id(id)
            .mode(PutMode::Overwrite)
            .body(Blob::new(self.body().to_string()))
            .send()
            .await
            .answer()
            .context("defining its method")?;
        Ok(())
    }

    /// Lets the stage show a deployment of what is wanted; makes what is missing of the two.
    async fn deploy(&self, aws: &Aws, found: &mut Observed) -> Result<()> {
        let description = self.deployment_description();
        let known = found
            .deployments
            .iter()
            .find(|snapshot| snapshot.description.as_deref() == Some(&description))
            .map(|snapshot| snapshot.id.clone());
        let id = if let Some(id) = known {
            id
        } else {
            let id = make_deployment(aws, &found.id, &description)
                .await
                .context("deploying it")?;
            found.deployments.push(Snapshot {
                id: id.clone(),
                description: Some(description),
            });
            id
        };
        let stage = match found.stage.take() {
            Some(stage) => stage,
            None => self.create_stage(aws, &found.id, &id).await?,
        };
        let stage = found.stage.insert(stage);
        if stage.deployment_id.as_ref() != Some(&id) {
            aws.apigateway()
                .update_stage()
                .rest_api_id(&found.id)
                .stage_name(STAGE)
                .patch_operations(replace("/deploymentId", &id))
                .send()
                .await
                .answer()
                .context("updating its stage")?;
            stage.deployment_id = Some(id);
        }
        Ok(())
    }

    async fn create_stage(&self, aws: &Aws, id: &str, deployment_id: &str) -> Result<Stage> {
        let created = aws
            .apigateway()
            .create_stage()
            .rest_api_id(id)
            .stage_name(STAGE)
            .deployment_id(deployment_id)
            .set_tags(Some(self.tags.clone().into_iter().collect()))
            .send()
            .await
            .answer();
        let Err(error) = created else {
            return Ok(Stage {
                deployment_id: Some(deployment_id.to_owned()),
                tags: self.tags.clone(),
            });
        };
        // Made by a try whose answer was lost, or by another run: then it may show another deployment.
        if error.is(&["ConflictException"])
            && let Some(stage) = stage(aws, id).await?
        {
            return Ok(stage);
        }
        Err(error).context("creating its stage")
    }
}

async fn stage(aws: &Aws, api_id: &str) -> Result<Option<Stage>> {
    let stage = aws.apigateway().get_stage().rest_api_id(api_id);
    let stage = stage.stage_name(STAGE).send().await.if_found(GONE)?;
    Ok(stage.map(|stage| Stage {
        deployment_id: stage.deployment_id,
        tags: stage.tags.unwrap_or_default().into_iter().collect(),
    }))
}

/// Makes a deployment; there is no token by which AWS would know the same call again. So what an unanswered try has made
/// is looked for before another one.
async fn make_deployment(aws: &Aws, api_id: &str, description: &str) -> Result<String> {
    let is_again = AtomicBool::new(false);
    let passes = |error: &AwsError| error.effect != Effect::None;
    retry_while(&aws.run, DEPLOYMENT_DEADLINE, passes, || async {
        if is_again.swap(true, Ordering::Relaxed)
            && let Some(made) = deployments(aws, api_id)
                .await?
                .into_iter()
                .find(|made| made.description.as_deref() == Some(description))
        {
            return Ok(made.id);
        }
        let made = aws
            .apigateway()
            .create_deployment()
            .rest_api_id(api_id)
            .description(description)
            .customize()
            .config_override(Config::builder().retry_config(once()))
            .send()
            .await
            .answer()?;
        Ok(made.id().unwrap_or_default().to_owned())
    })
    .await
}

impl Resource for RestApi {
    const KIND: Kind = Kind::RestApi;
    type Observed = Observed;

    fn name(&self) -> &str {
        &self.name
    }

    async fn find(aws: &Aws, cluster: &Cluster, name: &str) -> Result<Vec<Observed>> {
        let ours = named(aws, cluster, name).await?;
        let mut found =
            futures::future::try_join_all(ours.iter().map(|api| observe(aws, api))).await?;
        found.sort_by_key(|api| (!api.has_deployed_stage(), api.created));
        Ok(found)
    }

    fn tags(found: &Observed) -> Option<&Tags> {
        Some(&found.tags)
    }

    fn row_name(name: &str, found: &Observed) -> String {
        format!("{name} id {}", found.id)
    }

    fn changes(&self, found: &Observed) -> Vec<Change> {
        // An edge-optimised API, as the Go tool made it, serves as well as a regional one.
        let endpoint_type = match found.endpoint_type.as_str() {
            "EDGE" => "REGIONAL",
            other => other,
        };
        let wanted = self.method();
        let paths = |methods: &[Method]| -> Vec<String> {
            methods
                .iter()
                .map(|each| each.verb_and_path.clone())
                .collect()
        };
        let mut diff = Diff::new()
            .field(
                "endpointConfiguration.types",
                &endpoint_type,
                &self.endpoint_type().as_str(),
            )
            .field(
                "policy",
                &found.policy.as_ref().map(Value::to_string),
                &self.policy().map(|policy| policy.to_string()),
            )
            .field(
                "methods",
                &paths(&found.methods),
                &paths(std::slice::from_ref(&wanted)),
            );
        if let [method] = found.methods.as_slice() {
            diff = diff
                .field(
                    "method.authorizationType",
                    &method.authorization,
                    &wanted.authorization,
                )
                .field(
                    "method.apiKeyRequired",
                    &method.api_key_required,
                    &wanted.api_key_required,
                )
                .field(
                    "method.integration.type",
                    &method.integration_type,
                    &wanted.integration_type,
                )
                .field(
                    "method.integration.httpMethod",
                    &method.integration_method,
                    &wanted.integration_method,
                )
                .field(
                    "method.integration.uri",
                    &method.integration_uri,
                    &wanted.integration_uri,
                );
        }
        let mut changes = diff
            .field(
                "stage.name",
                &found.stage.as_ref().map(|_| STAGE),
                &Some(STAGE),
            )
            .field(
                "stage.deployment",
                &found.deployed(),
                &Some(self.deployment_description().as_str()),
            )
            .tags(&found.tags, &self.tags)
            .done();
        if let Some(stage) = &found.stage {
            let tags = Diff::new().tags(&stage.tags, &self.tags).done();
            changes.extend(tags.into_iter().map(|change| Change {
                field: format!("stage.{}", change.field),
                ..change
            }));
        }
        changes
    }

    async fn create(&self, aws: &Aws) -> Result<Observed> {
        let once = Config::builder().retry_config(once());
        let made = aws
            .apigateway()
            .create_rest_api()
            .name(&self.name)
            .endpoint_configuration(
                EndpointConfiguration::builder()
                    .types(self.endpoint_type())
                    .build(),
            )
            .set_policy(self.policy().map(|policy| policy.to_string()))
            .set_tags(Some(self.tags.clone().into_iter().collect()))
            .customize()
            .config_override(once)
            .send()
            .await
            .answer()?;
        let mut found = Observed {
            id: made.id().unwrap_or_default().to_owned(),
            endpoint_type: self.endpoint_type().as_str().to_owned(),
            policy: self.policy(),
            methods: Vec::new(),
            stage: None,
            deployments: Vec::new(),
            tags: self.tags.clone(),
            created: made
                .created_date()
                .copied()
                .unwrap_or(DateTime::from_secs(0)),
        };
        self.put_body(aws, &found.id).await?;
        found.methods = vec![self.method()];
        self.deploy(aws, &mut found).await?;
        Ok(found)
    }

    async fn update(&self, aws: &Aws, mut found: Observed, changes: &[Change]) -> Result<Observed> {
        tag(aws, &format!("/restapis/{}", found.id), &self.tags).await?;
        let mut patches = Vec::new();
        if touches(changes, "policy") {
            // An empty policy is how AWS spells none.
            let policy = self
                .policy()
                .map_or_else(String::new, |policy| policy.to_string());
            patches.push(replace("/policy", &policy));
        }
        if touches(changes, "endpointConfiguration") {
            patches.push(replace(
                &format!("/endpointConfiguration/types/{}", found.endpoint_type),
                self.endpoint_type().as_str(),
            ));
        }
        if !patches.is_empty() {
            aws.apigateway()
                .update_rest_api()
                .rest_api_id(&found.id)
                .set_patch_operations(Some(patches))
                .send()
                .await
                .answer()?;
            found.policy = self.policy();
            if touches(changes, "endpointConfiguration") {
                self.endpoint_type()
                    .as_str()
                    .clone_into(&mut found.endpoint_type);
            }
        }
        if touches(changes, "methods") || touches(changes, "method") {
            self.put_body(aws, &found.id).await?;
            found.methods = vec![self.method()];
        }
        self.deploy(aws, &mut found).await?;
        if touches(changes, "stage.tags")
            && let Some(stage) = &mut found.stage
        {
            let path = format!("/restapis/{}/stages/{STAGE}", found.id);
            tag(aws, &path, &self.tags).await?;
            stage.tags.extend(self.tags.clone());
        }
        found.tags.extend(self.tags.clone());
        Ok(found)
    }

    /// AWS allows one in thirty seconds; the client sits the refusals out.
    async fn delete(aws: &Aws, found: Observed) -> Result<()> {
        aws.apigateway()
            .delete_rest_api()
            .rest_api_id(&found.id)
            .send()
            .await
            .if_found(GONE)?;
        Ok(())
    }
}

/// Ids of the APIs of this name that are the cluster's.
///
/// # Errors
/// AWS's failures.
pub async fn ids(aws: &Aws, cluster: &Cluster, name: &str) -> Result<Vec<String>> {
    let found = named(aws, cluster, name).await?;
    Ok(found.into_iter().filter_map(|api| api.id).collect())
}

async fn named(aws: &Aws, cluster: &Cluster, name: &str) -> Result<Vec<Api>> {
    let apis = aws
        .apigateway()
        .get_rest_apis()
        .limit(PAGE)
        .into_paginator()
        .items()
        .send()
        .try_collect()
        .await
        .answer()?;
    let named = apis.into_iter().filter(|api| api.name() == Some(name));
    Ok(ours_else_all(cluster, named, Api::tags))
}

/// Names are not unique here: what is ours by its tag, or, where nothing is, all that has our name.
pub(super) fn ours_else_all<T>(
    cluster: &Cluster,
    named: impl Iterator<Item = T>,
    tags: impl Fn(&T) -> Option<&std::collections::HashMap<String, String>>,
) -> Vec<T> {
    let (ours, others): (Vec<T>, Vec<T>) = named
        .partition(|each| tags(each).and_then(|tags| tags.get(CLUSTER_TAG)) == Some(&cluster.name));
    if ours.is_empty() { others } else { ours }
}

/// Adds or changes tags of something in API Gateway, whose ARNs have no account.
pub(super) async fn tag(aws: &Aws, path: &str, tags: &Tags) -> Result<()> {
    let partition = &aws.identity().await?.partition;
    aws.apigateway()
        .tag_resource()
        .resource_arn(format!(
            "arn:{partition}:apigateway:{}::{path}",
            aws.region()
        ))
        .set_tags(Some(tags.clone().into_iter().collect()))
        .send()
        .await
        .answer()
        .context("tagging it")?;
    Ok(())
}

pub(super) fn replace(path: &str, value: &str) -> PatchOperation {
    PatchOperation::builder()
        .op(Op::Replace)
        .path(path)
        .value(value)
        .build()
}

/// The rest of an API that a list tells only the head of; something that vanishes meanwhile has no rest.
async fn observe(aws: &Aws, api: &Api) -> Result<Observed> {
    let id = api.id().unwrap_or_default();
    let client = aws.apigateway();
    let (paths, stage, deployments) = tokio::join!(
        client
            .get_resources()
            .rest_api_id(id)
            .limit(PAGE)
            .embed("methods")
            .into_paginator()
            .items()
            .send()
            .try_collect(),
        stage(aws, id),
        deployments(aws, id),
    );
    Ok(Observed {
        id: id.to_owned(),
        endpoint_type: api
            .endpoint_configuration()
            .and_then(|configuration| configuration.types().first())
            .map_or_else(String::new, |kind| kind.as_str().to_owned()),
        policy: api.policy().and_then(normalise),
        methods: methods(&paths.if_found(GONE)?.unwrap_or_default()),
        stage: stage?,
        deployments: deployments?,
        tags: api
            .tags()
            .cloned()
            .unwrap_or_default()
            .into_iter()
            .collect(),
        created: api
            .created_date()
            .copied()
            .unwrap_or(DateTime::from_secs(0)),
    })
}

async fn deployments(aws: &Aws, api_id: &str) -> Result<Vec<Snapshot>, AwsError> {
    let found = aws
        .apigateway()
        .get_deployments()
        .rest_api_id(api_id)
        .limit(PAGE)
        .into_paginator()
        .items()
        .send()
        .try_collect()
        .await
        .if_found(GONE)?;
    let found = found.unwrap_or_default().into_iter();
    Ok(found
        .map(|deployment: Deployment| Snapshot {
            id: deployment.id.unwrap_or_default(),
            description: deployment.description,
        })
        .collect())
}

fn methods(paths: &[Path]) -> Vec<Method> {
    let mut methods: Vec<Method> = paths
        .iter()
        .flat_map(|path| {
            path.resource_methods()
                .into_iter()
                .flatten()
                .map(move |(verb, method)| (path.path().unwrap_or_default(), verb, method))
        })
        .map(|(path, verb, method)| {
            let integration = method.method_integration();
            let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
            Method {
                verb_and_path: format!("{verb} {path}"),
                authorization: text(method.authorization_type()),
                api_key_required: method.api_key_required().unwrap_or_default(),
                // In the document it is in lower case, and some give it back so.
                integration_type: text(
                    integration.and_then(|each| each.r#type().map(IntegrationType::as_str)),
                )
                .to_uppercase(),
                integration_method: text(integration.and_then(|each| each.http_method())),
                integration_uri: text(integration.and_then(|each| each.uri())),
            }
        })
        .collect();
    methods.sort_by(|one, other| one.verb_and_path.cmp(&other.verb_and_path));
    methods
}

/// A policy as it was sent: AWS gives it back with its quotes escaped, the resources' short form spelt out,
/// and single values as lists or lists as single values. No policy is an empty one.
fn normalise(policy: &str) -> Option<Value> {
    if policy.is_empty() {
        return None;
    }
    let parsed = serde_json::from_str::<Value>(policy)
        .ok()
        .filter(|value| !value.is_string())
        .or_else(|| {
            let unescaped: String = serde_json::from_str(&format!("\"{policy}\"")).ok()?;
            serde_json::from_str(&unescaped).ok()
        });
    // What can not be read is shown as it is: it differs from whatever is wanted.
    Some(parsed.map_or_else(|| Value::String(policy.to_owned()), plain))
}

fn plain(value: Value) -> Value {
    match value {
        Value::Array(mut items) if items.len() == 1 && items[0].is_string() => {
            items.pop().map_or(Value::Null, plain)
        }
        Value::Array(items) => Value::Array(items.into_iter().map(plain).collect()),
        Value::Object(fields) => {
            let everybody = fields.len() == 1 && fields.get("AWS") == Some(&json!("*"));
            if everybody {
                json!("*")
            } else {
                fields
                    .into_iter()
                    .map(|(key, value)| (key, plain(value)))
                    .collect()
            }
        }
        Value::String(text) => Value::String(short(&text).unwrap_or(text)),
        other => other,
    }
}

/// `execute-api:/…` for `arn:…:execute-api:<region>:<account>:<id>/…`.
fn short(resource: &str) -> Option<String> {
    let tail = resource
        .strip_prefix("arn:")?
        .split_once(":execute-api:")?
        .1;
    Some(format!("execute-api:/{}", tail.split_once('/')?.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(private: bool) -> RestApi {
        RestApi {
            name: "wekactl-prod-Backends".into(),
            private_vpc: private.then(|| "vpc-1".into()),
            join_function_arn:
                "arn:aws-cn:lambda:cn-north-1:123456789012:function:wekactl-prod-join-Backends"
                    .into(),
            tags: Tags::from([("wekactl.io/cluster_name".into(), "prod".into())]),
        }
    }

    fn made(api: &RestApi) -> Observed {
        Observed {
            id: "a1".into(),
            endpoint_type: api.endpoint_type().as_str().into(),
            policy: api.policy(),
            methods: vec![api.method()],
            stage: Some(Stage {
                deployment_id: Some("d1".into()),
                tags: api.tags.clone(),
            }),
            deployments: vec![
                Snapshot {
                    id: "d0".into(),
                    description: None,
                },
                Snapshot {
                    id: "d1".into(),
                    description: Some(api.deployment_description()),
                },
            ],
            tags: api.tags.clone(),
            created: DateTime::from_secs(1),
        }
    }

    fn changed(api: &RestApi, found: &Observed) -> Vec<String> {
        api.changes(found)
            .into_iter()
            .map(|change| change.field)
            .collect()
    }

    #[test]
    fn as_made_is_as_wanted() {
        for private in [false, true] {
            let api = wanted(private);
            assert_eq!(changed(&api, &made(&api)), Vec::<String>::new());
        }
    }

    #[test]
    fn every_drift_is_seen() {
        type Drift = fn(&mut Observed);
        let cases: &[(&[&str], Drift)] = &[
            (&["endpointConfiguration.types"], |found| {
                found.endpoint_type = "PRIVATE".into();
            }),
            (&["policy"], |found| found.policy = Some(json!({}))),
            (&["methods"], |found| found.methods.clear()),
            (&["methods"], |found| {
                let extra = Method {
                    verb_and_path: "POST /x".into(),
                    ..found.methods[0].clone()
                };
                found.methods.push(extra);
            }),
            (&["method.authorizationType"], |found| {
                found.methods[0].authorization = "AWS_IAM".into();
            }),
            (&["method.apiKeyRequired"], |found| {
                found.methods[0].api_key_required = false;
            }),
            (&["method.integration.type"], |found| {
                found.methods[0].integration_type = "MOCK".into();
            }),
            (&["method.integration.httpMethod"], |found| {
                found.methods[0].integration_method = "GET".into();
            }),
            (&["method.integration.uri"], |found| {
                found.methods[0].integration_uri = "arn:other".into();
            }),
            (&["stage.name", "stage.deployment"], |found| {
                found.stage = None;
            }),
            (&["stage.deployment"], |found| {
                found.stage.as_mut().expect("a stage").deployment_id = Some("d0".into());
            }),
            (&["stage.tags.wekactl.io/cluster_name"], |found| {
                found.stage.as_mut().expect("a stage").tags.clear();
            }),
            (&["tags.wekactl.io/cluster_name"], |found| {
                found.tags.clear();
            }),
        ];
        let api = wanted(false);
        for (fields, drift) in cases {
            let mut found = made(&api);
            drift(&mut found);
            assert_eq!(&changed(&api, &found), fields);
        }
    }

    #[test]
    fn an_edge_api_is_as_good_as_a_regional_one() {
        let api = wanted(false);
        let mut found = made(&api);
        found.endpoint_type = "EDGE".into();
        assert_eq!(changed(&api, &found), Vec::<String>::new());
        let private = wanted(true);
        assert!(changed(&private, &found).contains(&"endpointConfiguration.types".to_owned()));
    }

    #[test]
    fn policies_compare_as_they_were_sent() {
        let api = wanted(true);
        let policy = api.policy().expect("a private API has one");
        let expanded = policy.to_string().replace(
            "execute-api:/*",
            "arn:aws-cn:execute-api:cn-north-1:123456789012:a1b2c3/*",
        );
        let listed = expanded
            .replace("\"execute-api:Invoke\"", "[\"execute-api:Invoke\"]")
            .replace("\"Principal\":\"*\"", "\"Principal\":{\"AWS\":\"*\"}");
        let escaped = listed.replace('"', "\\\"");
        for text in [&policy.to_string(), &expanded, &listed, &escaped] {
            assert_eq!(normalise(text).as_ref(), Some(&policy), "{text}");
        }
        assert_eq!(normalise(""), None);
        assert_eq!(normalise("{"), Some(json!("{")));
    }

    #[test]
    fn the_document() {
        insta::assert_json_snapshot!(wanted(true).body(), @r#"
        {
          "components": {
            "securitySchemes": {
              "api_key": {
                "in": "header",
                "name": "x-api-key",
                "type": "apiKey"
              }
            }
          },
          "info": {
            "title": "wekactl-prod-Backends",
            "version": "1"
          },
          "openapi": "3.0.1",
          "paths": {
            "/wekactl-prod-Backends": {
              "get": {
                "responses": {
                  "200": {
                    "description": "What the instance needs to join"
                  }
                },
                "security": [
                  {
                    "api_key": []
                  }
                ],
                "x-amazon-apigateway-integration": {
                  "httpMethod": "POST",
                  "type": "aws_proxy",
                  "uri": "arn:aws-cn:apigateway:cn-north-1:lambda:path/2015-03-31/functions/arn:aws-cn:lambda:cn-north-1:123456789012:function:wekactl-prod-join-Backends/invocations"
                }
              }
            }
          },
          "x-amazon-apigateway-policy": {
            "Statement": [
              {
                "Action": "execute-api:Invoke",
                "Effect": "Allow",
                "Principal": "*",
                "Resource": "execute-api:/*"
              },
              {
                "Action": "execute-api:Invoke",
                "Condition": {
                  "StringNotEquals": {
                    "aws:SourceVpc": "vpc-1"
                  }
                },
                "Effect": "Deny",
                "Principal": "*",
                "Resource": "execute-api:/*"
              }
            ],
            "Version": "2012-10-17"
          }
        }
        "#);
    }
}
