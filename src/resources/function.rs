//! The five functions: all run the code in the cluster's layer, and are told apart by a variable.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aws_sdk_ec2::types::Filter;
use aws_sdk_lambda::operation::RequestId as _;
use aws_sdk_lambda::operation::get_function::GetFunctionOutput;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::{
    Architecture as SdkArchitecture, Environment as SdkEnvironment, FunctionCode,
    FunctionConfiguration, LastUpdateStatus, LoggingConfig, Runtime, State, TracingConfig,
    TracingMode, VpcConfig,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::role;
use crate::aws::error::Effect;
use crate::aws::retry::retry_while;
use crate::aws::{Answer, Aws, AwsError, Probe, try_timeout, wait_until};
use crate::cluster::code::{Architecture, BOOTSTRAP, RUNTIME, marker_zip};
use crate::cluster::names::{Cluster, FunctionKind};
use crate::resource::{Diff, Known, Resource, Tags, touches};
use crate::run::{Action, Change, Kind, Row};

/// Which function it is.
pub const KIND_VARIABLE: &str = "LAMBDA";
/// The cluster's region.
pub const REGION_VARIABLE: &str = "REGION";
/// The cluster's name.
pub const CLUSTER_VARIABLE: &str = "CLUSTER_NAME";
/// The Auto Scaling group's name.
pub const GROUP_VARIABLE: &str = "ASG_NAME";
/// The table's name.
pub const TABLE_VARIABLE: &str = "TABLE_NAME";
/// `backend`.
pub const ROLE_VARIABLE: &str = "ROLE";
/// `true` or `false`: whether `scale` reads the credentials itself.
pub const ENDPOINT_VARIABLE: &str = "USE_DYNAMODB_ENDPOINT";
/// The keys that payloads between the functions are sealed with: see [`crate::cluster::seal_keys`].
pub const SEAL_KEY_VARIABLE: &str = "SEAL_KEY";

/// MiB. More would be more processor too, which nothing here needs.
const MEMORY: i32 = 256;
/// As long as the slowest function's interfaces take at most, as a rule.
const UPDATE_DEADLINE: Duration = Duration::from_secs(180);
/// A new role is known to Lambda within seconds, seldom a minute.
const ROLE_DEADLINE: Duration = Duration::from_secs(90);
const GONE: &[&str] = &["ResourceNotFoundException"];
const BUSY: &[&str] = &["ResourceConflictException"];
/// `ResourceConflictException` means this, too.
const STATEMENT_EXISTS: &str = "already exists";
const INTERFACE_PREFIX: &str = "AWS Lambda VPC ENI-";
/// A function that was just made is known to all of Lambda within seconds.
const PERMISSION_DEADLINE: Duration = Duration::from_secs(60);
const API_SERVICE: &str = "apigateway.amazonaws.com";
/// The stage under which instances and clients reach the API.
const API_STAGE: &str = "default";

/// Seconds. Those that the state machine runs one after another stay together below its 58; join stays, as in the
/// Go tool, well below API Gateway's 29.
pub const fn timeout(kind: FunctionKind) -> i32 {
    match kind {
        FunctionKind::Join => 15,
        FunctionKind::Fetch => 8,
        FunctionKind::Scale => 35,
        FunctionKind::Terminate => 12,
        FunctionKind::Transient => 5,
    }
}

/// The longest of them, `scale`'s.
pub const LONGEST_SECONDS: u64 = 35;
/// How long an invocation may go without an answer: the longest timeout, and the start before it.
const INVOKE_TIMEOUT: Duration = Duration::from_secs(LONGEST_SECONDS + 25);

/// The variables of a function.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// All but the sealing key.
    pub variables: BTreeMap<String, String>,
    /// The sealing key, for functions that seal or unseal.
    pub seal_key: Option<SecretString>,
}

/// The subnet and security groups a function runs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vpc {
    /// Subnet ids, sorted.
    pub subnets: Vec<String>,
    /// Security group ids, sorted.
    pub security_groups: Vec<String>,
}

/// A function.
#[derive(Debug, Clone)]
pub struct Function {
    /// Which of the five.
    pub kind: FunctionKind,
    /// Its name.
    pub name: String,
    /// ARN of its role.
    pub role_arn: Known<String>,
    /// ARN of the layer version that holds the code.
    pub layer_arn: Known<String>,
    /// What the code runs on.
    pub architecture: Architecture,
    /// Its variables.
    pub environment: Environment,
    /// For `scale`: where the backends are.
    pub vpc: Option<Vpc>,
    /// Where it writes its logs.
    pub log_group: String,
    /// Its tags.
    pub tags: Tags,
}

/// A function in AWS.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Its name.
    pub name: String,
    /// Its ARN, without a version.
    pub arn: String,
    /// ARN of its role.
    pub role_arn: String,
    /// ARNs of its layer versions.
    pub layers: Vec<String>,
    /// Its variables, the sealing key apart.
    pub environment: Environment,
    /// Where it runs, if in a VPC.
    pub vpc: Option<Vpc>,
    /// `Pending`, `Active`, `Inactive`, `Failed`.
    pub state: String,
    runtime: String,
    handler: String,
    architecture: String,
    timeout: i32,
    memory: i32,
    tracing: String,
    description: String,
    log_group: Option<String>,
    code_sha256: String,
    tags: Tags,
    /// Who may invoke it; read for `join` only.
    permissions: Vec<Permission>,
}

/// One statement of a function's own policy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Permission {
    id: String,
    /// Empty: no service, or not just one.
    service: String,
    /// The one source it is limited to, if it allows just to invoke and from one source.
    source: Option<String>,
}

/// What a function of this kind finds in its environment; `seal_key` for those that seal or open.
pub fn environment(
    cluster: &Cluster,
    region: &str,
    kind: FunctionKind,
    use_dynamodb_endpoint: bool,
    seal_key: Option<&SecretString>,
) -> Environment {
    let variables = [
        (KIND_VARIABLE, kind.word().to_owned()),
        (REGION_VARIABLE, region.to_owned()),
        (CLUSTER_VARIABLE, cluster.name.clone()),
        (GROUP_VARIABLE, cluster.backends()),
        (TABLE_VARIABLE, cluster.base()),
        (ROLE_VARIABLE, "backend".to_owned()),
        (ENDPOINT_VARIABLE, use_dynamodb_endpoint.to_string()),
    ];
    Environment {
        variables: variables
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        seal_key: seal_key.cloned(),
    }
}

impl Environment {
    fn read(mut variables: BTreeMap<String, String>) -> Self {
        let seal_key = variables.remove(SEAL_KEY_VARIABLE).map(SecretString::from);
        Self {
            variables,
            seal_key,
        }
    }

    /// These variables, and those of `found` that are an operator's.
    fn over(&self, found: Option<&Self>) -> SdkEnvironment {
        let mut variables = found.map_or_else(BTreeMap::new, |found| found.variables.clone());
        variables.extend(self.variables.clone());
        if let Some(key) = &self.seal_key {
            variables.insert(SEAL_KEY_VARIABLE.to_owned(), key.expose_secret().to_owned());
        }
        SdkEnvironment::builder()
            .set_variables(Some(variables.into_iter().collect()))
            .build()
    }

    fn exposed_seal_key(&self) -> Option<&str> {
        self.seal_key.as_ref().map(ExposeSecret::expose_secret)
    }
}

impl Vpc {
    /// Order means nothing to AWS, and is not kept.
    pub fn new(subnet: &str, security_groups: &[String]) -> Self {
        let mut security_groups = security_groups.to_vec();
        security_groups.sort();
        Self {
            subnets: vec![subnet.to_owned()],
            security_groups,
        }
    }

    fn read(config: &FunctionConfiguration) -> Option<Self> {
        let vpc = config
            .vpc_config()
            .filter(|vpc| !vpc.subnet_ids().is_empty())?;
        let (mut subnets, mut security_groups) =
            (vpc.subnet_ids().to_vec(), vpc.security_group_ids().to_vec());
        subnets.sort();
        security_groups.sort();
        Some(Self {
            subnets,
            security_groups,
        })
    }
}

impl Permission {
    fn read(statement: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
        let condition = statement["Condition"].as_object();
        let source = condition
            .filter(|condition| condition.len() == 1)
            .and_then(|condition| {
                condition
                    .get("ArnLike")
                    .or_else(|| condition.get("ArnEquals"))
            })
            .and_then(Value::as_object)
            .filter(|sources| sources.len() == 1)
            .and_then(|sources| {
                let (_, source) = sources
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case("aws:SourceArn"))?;
                text(source)
            });
        let invokes =
            statement["Effect"] == "Allow" && statement["Action"] == "lambda:InvokeFunction";
        Self {
            id: text(&statement["Sid"]).unwrap_or_default(),
            service: text(&statement["Principal"]["Service"]).unwrap_or_default(),
            source: source.filter(|_| invokes),
        }
    }
}

impl Function {
    /// The Go tool's words.
    fn description(&self) -> String {
        format!("Wekactl {}", self.kind.word())
    }

    /// Empty lists take a function out of its VPC.
    fn sdk_vpc(&self) -> VpcConfig {
        let vpc = self.vpc.as_ref();
        VpcConfig::builder()
            .set_subnet_ids(Some(vpc.map_or_else(Vec::new, |vpc| vpc.subnets.clone())))
            .set_security_group_ids(Some(
                vpc.map_or_else(Vec::new, |vpc| vpc.security_groups.clone()),
            ))
            .build()
    }

    fn sdk_architecture(&self) -> SdkArchitecture {
        SdkArchitecture::from(self.architecture.word())
    }

    fn sdk_tags(&self) -> Option<std::collections::HashMap<String, String>> {
        Some(self.tags.clone().into_iter().collect())
    }

    async fn configure(&self, aws: &Aws, found: &Observed, changes: &[Change]) -> Result<()> {
        let (role, layer) = (self.role_arn.get()?, self.layer_arn.get()?);
        let logging = touches(changes, "loggingConfig")
            .then(|| LoggingConfig::builder().log_group(&self.log_group).build());
        let vpc = touches(changes, "vpcConfig").then(|| self.sdk_vpc());
        let request = || async {
            aws.lambda()
                .update_function_configuration()
                .function_name(&self.name)
                .description(self.description())
                .role(role)
                .runtime(Runtime::from(RUNTIME))
                .handler(BOOTSTRAP)
                .layers(layer)
                .timeout(timeout(self.kind))
                .memory_size(MEMORY)
                .tracing_config(tracing_config())
                .environment(self.environment.over(Some(&found.environment)))
                .set_vpc_config(vpc.clone())
                .set_logging_config(logging.clone())
                .send()
                .await
                .answer()
        };
        let passes = |error: &AwsError| is_not_ready(error) || error.is(BUSY);
        role::retry_while_new(aws, role, UPDATE_DEADLINE, passes, request)
            .await
            .context("changing its configuration")?;
        wait_until_updated(aws, &self.name).await
    }

    async fn replace_code(&self, aws: &Aws, marker: &[u8]) -> Result<()> {
        let request = || async {
            aws.lambda()
                .update_function_code()
                .function_name(&self.name)
                .architectures(self.sdk_architecture())
                .zip_file(Blob::new(marker))
                .send()
                .await
                .answer()
        };
        retry_while(&aws.run, UPDATE_DEADLINE, |error| error.is(BUSY), request)
            .await
            .context("changing its code and architecture")?;
        wait_until_updated(aws, &self.name).await
    }

    fn as_wanted(&self, arn: String, marker: &[u8], state: String) -> Result<Observed> {
        Ok(Observed {
            name: self.name.clone(),
            arn,
            role_arn: self.role_arn.get()?.clone(),
            layers: vec![self.layer_arn.get()?.clone()],
            environment: self.environment.clone(),
            vpc: self.vpc.clone(),
            state,
            runtime: RUNTIME.to_owned(),
            handler: BOOTSTRAP.to_owned(),
            architecture: self.architecture.word().to_owned(),
            timeout: timeout(self.kind),
            memory: MEMORY,
            tracing: TracingMode::Active.as_str().to_owned(),
            description: self.description(),
            log_group: Some(self.log_group.clone()),
            code_sha256: sha256(marker),
            tags: self.tags.clone(),
            permissions: Vec::new(),
        })
    }
}

fn tracing_config() -> TracingConfig {
    TracingConfig::builder().mode(TracingMode::Active).build()
}

/// As Lambda writes it.
fn sha256(content: &[u8]) -> String {
    BASE64_STANDARD.encode(Sha256::digest(content))
}

/// Lambda has not heard of a role that was just made, or not yet of what it may do, or EC2 puts Lambda off.
fn is_not_ready(error: &AwsError) -> bool {
    error.is(&["EC2ThrottledException"])
        || [
            "cannot be assumed",
            "execution role does not have permissions",
            "CreateNetworkInterface",
            // The key that encrypts the variables takes no role yet as a principal.
            "KMS key is invalid for CreateGrant",
            "throttled by EC2",
        ]
        .iter()
        .any(|words| error.says("InvalidParameterValueException", words))
}

/// Lambda has not heard of the function yet, or is at work on it.
fn is_function_not_ready(error: &AwsError) -> bool {
    error.is(GONE) || (error.is(BUSY) && !error.says(BUSY[0], STATEMENT_EXISTS))
}

async fn wait_until_updated(aws: &Aws, name: &str) -> Result<()> {
    let what = format!("Lambda function {name} is updated");
    wait_until(&aws.run, &what, UPDATE_DEADLINE, || async {
        let config = aws
            .lambda()
            .get_function_configuration()
            .function_name(name)
            .send()
            .await
            .answer()?;
        let pending = matches!(config.state(), Some(State::Pending));
        Ok(match config.last_update_status() {
            Some(LastUpdateStatus::Failed) => Probe::Failed(
                config
                    .last_update_status_reason()
                    .unwrap_or("AWS does not say why")
                    .to_owned(),
            ),
            Some(LastUpdateStatus::InProgress) => Probe::Pending("in progress".to_owned()),
            _ if pending => Probe::Pending("pending".to_owned()),
            _ => Probe::Ready(()),
        })
    })
    .await
}

async fn permissions_of(aws: &Aws, name: &str) -> Result<Vec<Permission>> {
    let answer = aws.lambda().get_policy().function_name(name).send().await;
    let Some(policy) = answer.if_found(GONE)?.and_then(|answer| answer.policy) else {
        return Ok(Vec::new());
    };
    let policy: Value =
        serde_json::from_str(&policy).with_context(|| format!("reading the policy of {name}"))?;
    let statements = policy["Statement"].as_array();
    Ok(statements
        .into_iter()
        .flatten()
        .map(Permission::read)
        .collect())
}

/// Lambda answers without them whoever may read the function and not its tags. It would pass for somebody else's.
fn tags_of(function: &GetFunctionOutput) -> Result<Tags, AwsError> {
    match &function.tags_error {
        Some(error) => Err(AwsError {
            code: Some(error.error_code.clone()),
            message: error.message.clone(),
            request_id: function.request_id().map(ToOwned::to_owned),
            effect: Effect::None,
        }),
        None => Ok(function.tags.clone().into_iter().flatten().collect()),
    }
}

fn observe(config: &FunctionConfiguration, tags: Tags, permissions: Vec<Permission>) -> Observed {
    let owned = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let variables = config
        .environment()
        .and_then(|environment| environment.variables().cloned())
        .unwrap_or_default();
    Observed {
        name: owned(config.function_name()),
        arn: owned(config.function_arn()),
        role_arn: owned(config.role()),
        layers: config
            .layers()
            .iter()
            .filter_map(|layer| layer.arn().map(ToOwned::to_owned))
            .collect(),
        environment: Environment::read(variables.into_iter().collect()),
        vpc: Vpc::read(config),
        state: config.state().map_or_else(String::new, ToString::to_string),
        runtime: config
            .runtime()
            .map_or_else(String::new, ToString::to_string),
        handler: owned(config.handler()),
        architecture: config
            .architectures()
            .first()
            .map_or_else(String::new, ToString::to_string),
        timeout: config.timeout().unwrap_or_default(),
        memory: config.memory_size().unwrap_or_default(),
        tracing: config
            .tracing_config()
            .and_then(|tracing| tracing.mode())
            .map_or_else(String::new, ToString::to_string),
        description: owned(config.description()),
        log_group: config
            .logging_config()
            .and_then(|logging| logging.log_group())
            .map(ToOwned::to_owned),
        code_sha256: owned(config.code_sha256()),
        tags,
        permissions,
    }
}

/// Ids of the network interfaces that Lambda has made for a function, and removes some time after it.
/// Source of their description: Lambda Developer Guide, "Giving Lambda functions access to resources in an Amazon VPC".
///
/// # Errors
/// AWS's failures.
pub async fn interfaces(aws: &Aws, function: &str) -> Result<Vec<String>> {
    let description = Filter::builder()
        .name("description")
        .values(format!("{INTERFACE_PREFIX}{function}*"))
        .build();
    let mut pages = aws
        .ec2()
        .describe_network_interfaces()
        .filters(description)
        .into_paginator()
        .send();
    let mut ids = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.answer()?;
        let of_function = page.network_interfaces().iter().filter(|interface| {
            is_interface_of(function, interface.description().unwrap_or_default())
        });
        ids.extend(
            of_function.filter_map(|each| each.network_interface_id().map(ToOwned::to_owned)),
        );
    }
    Ok(ids)
}

/// Whether nothing but Lambda's own random id follows the function's name, which may be how another name begins.
fn is_interface_of(function: &str, description: &str) -> bool {
    description
        .strip_prefix(INTERFACE_PREFIX)
        .and_then(|name| name.strip_prefix(function))
        .is_some_and(|rest| {
            rest.is_empty()
                || rest
                    .strip_prefix('-')
                    .is_some_and(|id| uuid::Uuid::try_parse(id).is_ok())
        })
}

/// Invokes a function, and waits for its answer.
///
/// # Errors
/// AWS's failures; the function's own, in its words.
pub async fn invoke(aws: &Aws, name: &str, input: &Value) -> Result<Value> {
    let answer = aws
        .lambda()
        .invoke()
        .function_name(name)
        .payload(Blob::new(serde_json::to_vec(input)?))
        .customize()
        .config_override(
            aws_sdk_lambda::config::Config::builder().timeout_config(try_timeout(INVOKE_TIMEOUT)),
        )
        .send()
        .await
        .answer()?;
    let payload = answer.payload().map_or(&[][..], Blob::as_ref);
    let output: Value = serde_json::from_slice(payload).context("reading its answer")?;
    if let Some(kind) = answer.function_error() {
        let message = output["errorMessage"].as_str().unwrap_or(kind);
        bail!("it failed: {message}");
    }
    Ok(output)
}

/// The one statement that lets the API invoke `join`, and by which it is known again.
fn statement_id(api_id: &str) -> String {
    format!("wekactl-api-{api_id}")
}

/// What is wanted is the one statement, and no other for an API: those of APIs that are gone would let whoever
/// gets their ids invoke the function.
fn permission_changes(found: &[Permission], wanted: &Known<Permission>) -> Vec<Change> {
    let show = |permission: &Permission| {
        let source = permission.source.as_deref().unwrap_or("any source");
        format!("{API_SERVICE} from {source}")
    };
    let has = wanted.value().is_some_and(|wanted| found.contains(wanted));
    let stale = found.iter().filter(|permission| {
        permission.service == API_SERVICE && wanted.value() != Some(permission)
    });
    let mut changes: Vec<Change> = stale
        .map(|permission| Change {
            field: format!("policy.{}", permission.id),
            from: Some(show(permission)),
            to: None,
        })
        .collect();
    if !has {
        changes.push(Change {
            field: wanted.value().map_or_else(
                || "policy".to_owned(),
                |wanted| format!("policy.{}", wanted.id),
            ),
            from: None,
            to: Some(wanted.map(show).to_string()),
        });
    }
    changes
}

/// Lets the API invoke `join`, by exactly its one method. `before` is the function as it was when this run began:
/// a new one's permission is part of making it, and no change of its own.
///
/// # Errors
/// AWS's failures.
pub async fn allow_api(
    aws: &Aws,
    cluster: &Cluster,
    before: Option<&Observed>,
    api_id: &Known<String>,
) -> Result<()> {
    let name = cluster.function(FunctionKind::Join);
    let path = cluster.backends();
    let prefix = aws.arn("execute-api", "").await?;
    let wanted = api_id.map(|id| Permission {
        id: statement_id(id),
        service: API_SERVICE.to_owned(),
        source: Some(format!("{prefix}{id}/{API_STAGE}/GET/{path}")),
    });
    let found = before.map_or(&[][..], |function| &function.permissions);
    let changes = permission_changes(found, &wanted);
    if changes.is_empty() {
        return Ok(());
    }
    let work = async {
        let wanted = wanted.get()?;
        set_permission(aws, &name, found, wanted)
            .await
            .with_context(|| format!("allowing the API to invoke {name}"))
    };
    if before.is_some() {
        let row = Row {
            changes,
            ..Row::new(Kind::Function, &name, Action::Update)
        };
        aws.run.step(row, work).await?;
    } else if !aws.run.is_plan() {
        aws.run.proceed()?;
        work.await?;
    }
    Ok(())
}

async fn set_permission(
    aws: &Aws,
    name: &str,
    found: &[Permission],
    wanted: &Permission,
) -> Result<()> {
    let (same_id, stale): (Vec<_>, Vec<_>) = found
        .iter()
        .filter(|permission| permission.service == API_SERVICE && *permission != wanted)
        .partition(|permission| permission.id == wanted.id);
    for permission in same_id {
        remove_permission(aws, name, &permission.id).await?;
    }
    if !found.contains(wanted) {
        add_permission(aws, name, wanted).await?;
    }
    // Last: an API that is in use stays so until the new one is allowed.
    for permission in stale {
        remove_permission(aws, name, &permission.id).await?;
    }
    Ok(())
}

async fn add_permission(aws: &Aws, name: &str, wanted: &Permission) -> Result<()> {
    let request = || async {
        aws.lambda()
            .add_permission()
            .function_name(name)
            .statement_id(&wanted.id)
            .action("lambda:InvokeFunction")
            .principal(&wanted.service)
            .set_source_arn(wanted.source.clone())
            .send()
            .await
            .answer()
    };
    let deadline = PERMISSION_DEADLINE;
    let Err(error) = retry_while(&aws.run, deadline, is_function_not_ready, request).await else {
        return Ok(());
    };
    // An answer was lost and the call sent again, or this run knew less than AWS.
    let is_there = AwsError::of(&error).is_some_and(|cause| cause.is(BUSY))
        && permissions_of(aws, name).await?.contains(wanted);
    if is_there { Ok(()) } else { Err(error) }
}

async fn remove_permission(aws: &Aws, name: &str, id: &str) -> Result<()> {
    aws.lambda()
        .remove_permission()
        .function_name(name)
        .statement_id(id)
        .send()
        .await
        .if_found(GONE)?;
    Ok(())
}

impl Resource for Function {
    const KIND: Kind = Kind::Function;
    type Observed = Observed;

    fn name(&self) -> &str {
        &self.name
    }

    async fn find(aws: &Aws, cluster: &Cluster, name: &str) -> Result<Vec<Observed>> {
        let is_join = name == cluster.function(FunctionKind::Join);
        let (function, permissions) = tokio::try_join!(
            async {
                let answer = aws.lambda().get_function().function_name(name).send().await;
                anyhow::Ok(answer.if_found(GONE)?)
            },
            async {
                if is_join {
                    permissions_of(aws, name).await
                } else {
                    Ok(Vec::new())
                }
            },
        )?;
        let Some(function) = function else {
            return Ok(Vec::new());
        };
        let tags = tags_of(&function).with_context(|| format!("reading the tags of {name}"))?;
        let config = function
            .configuration
            .with_context(|| format!("AWS says nothing of Lambda function {name}"))?;
        Ok(vec![observe(&config, tags, permissions)])
    }

    fn tags(found: &Observed) -> Option<&Tags> {
        Some(&found.tags)
    }

    /// Who may invoke it is compared by [`allow_api`].
    fn changes(&self, found: &Observed) -> Vec<Change> {
        let variables = &found.environment.variables;
        let subnets = |vpc: &Option<Vpc>| vpc.clone().map_or_else(Vec::new, |vpc| vpc.subnets);
        let groups =
            |vpc: &Option<Vpc>| vpc.clone().map_or_else(Vec::new, |vpc| vpc.security_groups);
        let mut diff = Diff::new()
            .field("description", &found.description, &self.description())
            .field("runtime", &found.runtime.as_str(), &RUNTIME)
            .field("handler", &found.handler.as_str(), &BOOTSTRAP)
            .known("role", &found.role_arn, &self.role_arn)
            .known(
                "layers",
                &found.layers,
                &self.layer_arn.map(|arn| vec![arn.clone()]),
            )
            .field("timeout", &found.timeout, &timeout(self.kind))
            .field("memorySize", &found.memory, &MEMORY)
            .field(
                "tracingConfig.mode",
                &found.tracing.as_str(),
                &TracingMode::Active.as_str(),
            )
            .field(
                "vpcConfig.subnetIds",
                &subnets(&found.vpc),
                &subnets(&self.vpc),
            )
            .field(
                "vpcConfig.securityGroupIds",
                &groups(&found.vpc),
                &groups(&self.vpc),
            )
            .field(
                "architectures",
                &found.architecture.as_str(),
                &self.architecture.word(),
            );
        for (variable, value) in &self.environment.variables {
            diff = diff.field(
                &format!("environment.{variable}"),
                &variables.get(variable),
                &Some(value),
            );
        }
        diff = diff.secret(
            &format!("environment.{SEAL_KEY_VARIABLE}"),
            &found.environment.exposed_seal_key(),
            &self.environment.exposed_seal_key(),
        );
        // Nothing said: the default, which is this very name.
        if let Some(log_group) = &found.log_group {
            diff = diff.field("loggingConfig.logGroup", log_group, &self.log_group);
        }
        if let Ok(marker) = marker_zip() {
            diff = diff.field("codeSha256", &found.code_sha256, &sha256(&marker));
        }
        diff.tags(&found.tags, &self.tags).done()
    }

    async fn create(&self, aws: &Aws) -> Result<Observed> {
        let marker = marker_zip()?;
        let (role, layer) = (self.role_arn.get()?, self.layer_arn.get()?);
        let code = FunctionCode::builder()
            .zip_file(Blob::new(marker.as_slice()))
            .build();
        let request = || async {
            aws.lambda()
                .create_function()
                .function_name(&self.name)
                .description(self.description())
                .role(role)
                .runtime(Runtime::from(RUNTIME))
                .handler(BOOTSTRAP)
                .code(code.clone())
                .layers(layer)
                .architectures(self.sdk_architecture())
                .timeout(timeout(self.kind))
                .memory_size(MEMORY)
                .tracing_config(tracing_config())
                .environment(self.environment.over(None))
                .set_vpc_config(self.vpc.as_ref().map(|_| self.sdk_vpc()))
                .set_tags(self.sdk_tags())
                .send()
                .await
                .answer()
        };
        let role = self.role_arn.get()?;
        let made = role::retry_while_new(aws, role, ROLE_DEADLINE, is_not_ready, request).await?;
        let arn = made
            .function_arn()
            .context("AWS made a function and did not say which")?;
        let state = made.state().map_or_else(String::new, ToString::to_string);
        self.as_wanted(arn.to_owned(), &marker, state)
    }

    /// Configuration before code: the layer is there before the function's own `bootstrap` goes.
    async fn update(&self, aws: &Aws, found: Observed, changes: &[Change]) -> Result<Observed> {
        aws.lambda()
            .tag_resource()
            .resource(&found.arn)
            .set_tags(self.sdk_tags())
            .send()
            .await
            .answer()?;
        let marker = marker_zip()?;
        let of_code =
            |change: &Change| change.field == "architectures" || change.field == "codeSha256";
        if changes
            .iter()
            .any(|change| !of_code(change) && !change.field.starts_with("tags."))
        {
            self.configure(aws, &found, changes).await?;
        }
        if changes.iter().any(of_code) {
            self.replace_code(aws, &marker).await?;
        }
        let mut updated = self.as_wanted(found.arn, &marker, found.state)?;
        updated.permissions = found.permissions;
        for (key, value) in found.tags {
            updated.tags.entry(key).or_insert(value);
        }
        Ok(updated)
    }

    async fn delete(aws: &Aws, found: Observed) -> Result<()> {
        let request = || async {
            let answer = aws
                .lambda()
                .delete_function()
                .function_name(&found.name)
                .send()
                .await;
            answer.if_found(GONE).map(drop)
        };
        // Busy: it is being made or changed.
        retry_while(&aws.run, UPDATE_DEADLINE, |error| error.is(BUSY), request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: &str = "arn:aws:iam::123456789012:role/wekactl/prod/wekactl-prod-Backends-scale-1";
    const LAYER: &str = "arn:aws:lambda:eu-central-1:123456789012:layer:wekactl-prod:1";
    const KEY: &str = "1a2b3c4d:c2VjcmV0";

    fn prod() -> Cluster {
        "prod".parse().unwrap()
    }

    fn wanted() -> Function {
        let kind = FunctionKind::Scale;
        Function {
            kind,
            name: prod().function(kind),
            role_arn: Known::Value(ROLE.into()),
            layer_arn: Known::Value(LAYER.into()),
            architecture: Architecture::Arm,
            environment: environment(&prod(), "eu-central-1", kind, false, Some(&KEY.into())),
            vpc: Some(Vpc::new("subnet-1", &["sg-2".into(), "sg-1".into()])),
            log_group: prod().log_group(kind),
            tags: Tags::from([("owner".to_owned(), "me".to_owned())]),
        }
    }

    /// As `GetFunction` answers.
    fn as_created() -> Observed {
        let vpc = aws_sdk_lambda::types::VpcConfigResponse::builder()
            .subnet_ids("subnet-1")
            .security_group_ids("sg-1")
            .security_group_ids("sg-2")
            .vpc_id("vpc-1")
            .build();
        let variables = wanted().environment.over(None).variables;
        let config = FunctionConfiguration::builder()
            .function_name("wekactl-prod-scale-Backends")
            .function_arn("arn:aws:lambda:eu-central-1:123456789012:function:x")
            .description("Wekactl scale")
            .role(ROLE)
            .runtime(Runtime::Providedal2023)
            .handler("bootstrap")
            .layers(aws_sdk_lambda::types::Layer::builder().arn(LAYER).build())
            .timeout(35)
            .memory_size(256)
            .architectures(SdkArchitecture::Arm64)
            .tracing_config(
                aws_sdk_lambda::types::TracingConfigResponse::builder()
                    .mode(TracingMode::Active)
                    .build(),
            )
            .vpc_config(vpc)
            .environment(
                aws_sdk_lambda::types::EnvironmentResponse::builder()
                    .set_variables(variables)
                    .build(),
            )
            .code_sha256(sha256(&marker_zip().unwrap()))
            .state(State::Pending)
            .build();
        observe(&config, wanted().tags, Vec::new())
    }

    #[test]
    fn tags_that_may_not_be_read_are_not_taken_for_none() {
        let answer = GetFunctionOutput::builder;
        assert_eq!(tags_of(&answer().build()).unwrap(), Tags::new());
        let tagged = answer().tags("owner", "me").build();
        assert_eq!(tags_of(&tagged).unwrap(), wanted().tags);
        let message = "User: x is not authorized to perform: lambda:ListTags on resource: y";
        let error = aws_sdk_lambda::types::TagsError::builder()
            .error_code("AccessDeniedException")
            .message(message)
            .build()
            .unwrap();
        let error = tags_of(&answer().tags_error(error).build()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{message} (AccessDeniedException)")
        );
    }

    /// The field that a drift shows in, and the drift.
    type Drift = (&'static str, fn(&mut Observed));

    #[test]
    fn every_drift_is_seen() {
        assert_eq!(wanted().changes(&as_created()), []);
        let drifts: [Drift; 18] = [
            ("description", |it| it.description.clear()),
            ("runtime", |it| it.runtime = "provided.al2".into()),
            ("handler", |it| it.handler = "main".into()),
            ("role", |it| it.role_arn.push('2')),
            ("layers", |it| it.layers.clear()),
            ("layers", |it| it.layers.push("other".into())),
            ("timeout", |it| it.timeout = 15),
            ("memorySize", |it| it.memory = 128),
            ("tracingConfig.mode", |it| it.tracing = "PassThrough".into()),
            ("vpcConfig.subnetIds", |it| {
                it.vpc = Some(Vpc::new("subnet-2", &["sg-1".into(), "sg-2".into()]));
            }),
            ("vpcConfig.securityGroupIds", |it| {
                it.vpc = Some(Vpc::new("subnet-1", &["sg-1".into()]));
            }),
            ("architectures", |it| it.architecture = "x86_64".into()),
            ("environment.TABLE_NAME", |it| {
                it.environment
                    .variables
                    .insert(TABLE_VARIABLE.into(), String::new());
            }),
            ("environment.REGION", |it| {
                it.environment.variables.remove(REGION_VARIABLE);
            }),
            ("environment.SEAL_KEY", |it| it.environment.seal_key = None),
            ("loggingConfig.logGroup", |it| {
                it.log_group = Some("elsewhere".into());
            }),
            ("codeSha256", |it| it.code_sha256.clear()),
            ("tags.owner", |it| drop(it.tags.remove("owner"))),
        ];
        for (field, drift) in drifts {
            let mut found = as_created();
            drift(&mut found);
            let changes = wanted().changes(&found);
            let fields: Vec<_> = changes.iter().map(|change| &change.field).collect();
            assert_eq!(fields, [field]);
        }
    }

    #[test]
    fn what_is_not_known_yet_is_a_change() {
        let wanted = Function {
            role_arn: Known::AfterApply,
            layer_arn: Known::AfterApply,
            ..wanted()
        };
        let changes = wanted.changes(&as_created());
        let fields: Vec<_> = changes.iter().map(|change| change.field.as_str()).collect();
        assert_eq!(fields, ["role", "layers"]);
    }

    #[test]
    fn the_sealing_key_is_shown_nowhere() {
        let mut found = as_created();
        assert!(!format!("{found:?} {:?}", wanted()).contains(KEY));
        found.environment.seal_key = Some("other".into());
        let changes = wanted().changes(&found);
        assert_eq!(changes.len(), 1);
        assert!(!format!("{changes:?}").contains("c2VjcmV0"));
    }

    #[test]
    fn the_longest_names_variables_fit() {
        let long: Cluster = "a".repeat(128).parse().unwrap();
        for kind in FunctionKind::ALL {
            let keys = SecretString::from(format!("{KEY},{KEY}"));
            let environment = environment(&long, "ap-southeast-1", kind, false, Some(&keys));
            let variables = environment.over(None).variables.unwrap();
            let size: usize = variables
                .iter()
                .map(|(key, value)| key.len() + value.len())
                .sum();
            assert!(size < 4096, "{size}");
        }
    }

    #[test]
    fn an_operators_variables_stay_and_a_stray_sealing_key_does_not() {
        let found = Environment::read(BTreeMap::from([
            ("RUST_LOG".to_owned(), "debug".to_owned()),
            (SEAL_KEY_VARIABLE.to_owned(), KEY.to_owned()),
            (TABLE_VARIABLE.to_owned(), String::new()),
        ]));
        let kind = FunctionKind::Join;
        let wanted = environment(&prod(), "eu-central-1", kind, false, None);
        let variables = wanted.over(Some(&found)).variables.unwrap();
        assert_eq!(variables["RUST_LOG"], "debug");
        assert_eq!(variables[TABLE_VARIABLE], "wekactl-prod");
        assert!(!variables.contains_key(SEAL_KEY_VARIABLE));
    }

    #[test]
    fn one_api_may_invoke_and_no_other() {
        let statement = |id: &str, api: &str, path: &str| {
            let source = format!("arn:aws:execute-api:eu-central-1:123456789012:{api}/{path}");
            serde_json::json!({
                "Sid": id, "Effect": "Allow", "Action": "lambda:InvokeFunction",
                "Principal": {"Service": API_SERVICE},
                "Resource": "arn:aws:lambda:eu-central-1:123456789012:function:x",
                "Condition": {"ArnLike": {"AWS:SourceArn": source}},
            })
        };
        let ours = Permission::read(&statement(
            "wekactl-api-new",
            "new",
            "default/GET/wekactl-prod-Backends",
        ));
        let go = Permission::read(&statement("go", "old", "*/GET/wekactl-prod-Backends"));
        let fields = |found: &[Permission], wanted: &Known<Permission>| -> Vec<String> {
            permission_changes(found, wanted)
                .into_iter()
                .map(|change| change.field)
                .collect()
        };
        let wanted = Known::Value(ours.clone());
        assert!(fields(std::slice::from_ref(&ours), &wanted).is_empty());
        assert_eq!(fields(&[], &wanted), ["policy.wekactl-api-new"]);
        assert_eq!(fields(&[go.clone(), ours.clone()], &wanted), ["policy.go"]);
        assert_eq!(
            fields(std::slice::from_ref(&go), &Known::AfterApply),
            ["policy.go", "policy"]
        );

        let mut wide = statement("wekactl-api-new", "new", "*");
        wide["Condition"] = Value::Null;
        assert_eq!(Permission::read(&wide).source, None);
        let mut foreign = statement("alexa", "x", "y");
        foreign["Principal"] = serde_json::json!({"Service": "events.amazonaws.com"});
        assert!(fields(&[ours, Permission::read(&foreign)], &wanted).is_empty());
    }

    #[test]
    fn scale_is_the_longest() {
        let longest = FunctionKind::ALL.into_iter().map(timeout).max();
        assert_eq!(longest.map(i64::from), Some(LONGEST_SECONDS.cast_signed()));
    }

    #[test]
    fn interfaces_are_told_from_those_of_longer_names() {
        let description = |name: &str| format!("AWS Lambda VPC ENI-{name}");
        let id = "31a75e76-eeba-4609-aa57-d5185326777f";
        assert!(is_interface_of("scale", &description("scale")));
        assert!(is_interface_of(
            "scale",
            &description(&format!("scale-{id}"))
        ));
        assert!(!is_interface_of(
            "scale",
            &description(&format!("scale-2-{id}"))
        ));
        assert!(!is_interface_of(
            "scale",
            &description(&format!("scale2-{id}"))
        ));
        assert!(!is_interface_of("scale", "scale"));
    }

    fn refusal(code: &str, message: &str) -> AwsError {
        AwsError {
            code: Some(code.into()),
            message: message.into(),
            request_id: None,
            effect: crate::aws::error::Effect::None,
        }
    }

    #[test]
    fn only_what_lambda_has_not_heard_of_yet_is_waited_for() {
        let code = "InvalidParameterValueException";
        for (code, message, passes) in [
            (
                code,
                "The role defined for the function cannot be assumed by Lambda.",
                true,
            ),
            (
                code,
                "The provided execution role does not have permissions to call CreateNetworkInterface on EC2",
                true,
            ),
            (
                code,
                "Lambda was unable to configure access to your environment variables because the KMS key is invalid \
                 for CreateGrant. Please check your KMS key settings.",
                true,
            ),
            (code, "Your request has been throttled by EC2", true),
            ("EC2ThrottledException", "", true),
            (code, "The subnet does not exist", false),
            ("AccessDeniedException", "cannot be assumed", false),
        ] {
            assert_eq!(is_not_ready(&refusal(code, message)), passes, "{message}");
        }
    }

    #[test]
    fn a_statement_that_exists_is_not_waited_for() {
        let busy = "ResourceConflictException";
        for (code, message, passes) in [
            (busy, "currently in the following state: Pending", true),
            ("ResourceNotFoundException", "Function not found", true),
            (
                busy,
                "The statement id (wekactl-api-1) provided already exists.",
                false,
            ),
            ("AccessDeniedException", "no", false),
        ] {
            let passed = is_function_not_ready(&refusal(code, message));
            assert_eq!(passed, passes, "{message}");
        }
    }
}
