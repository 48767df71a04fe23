//! From a stack, or instance ids, to the desired cluster: all that import must know, and every reason
//! not to begin, found before the first change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::UsageError;
use super::code::Code;
use super::instance_types::cores_of;
use super::inventory::Inventory;
use super::names::{CLUSTER_TAG, Cluster};
use super::network;
use super::request::ImportRequest;
use super::settings::{self, Settings, Stored};
use super::spec::{Cores, Shape, Spec};
use super::stack::{self, Stack};
use crate::aws::{Answer, Aws};
use crate::resource::Resource as _;
use crate::resources::auto_scaling_group::{self, AutoScalingGroup};
use crate::resources::classic_load_balancer;
use crate::resources::dns_record::{self, DnsRecord};
use crate::resources::instances::{self, Disk, Instance};

/// Below this a Weka cluster is not formed. Source: the vendor's import accepts 5.
const FEWEST_BACKENDS: usize = 5;
/// The group's maximum, in first sizes. Source: the earlier tool.
const MAX_SIZE_FACTOR: usize = 7;
/// What the instance profile of a backend has in its name, by the vendor's template.
const BACKEND_PROFILE: &str = "InstanceProfileBackend";
/// What the instance profile of a client has in its name.
const CLIENT_PROFILE: &str = "InstanceProfileClient";
/// Auto Scaling takes this many ids in one call. Source: API reference, `DescribeAutoScalingInstances`.
const GROUP_IDS: usize = 50;

/// What import works from.
pub struct Discovered {
    /// What the cluster shall be.
    pub spec: Spec,
    /// What there is of it.
    pub inventory: Inventory,
    /// What the table has.
    pub stored: Stored,
    /// The live backends.
    pub backends: Vec<Backend>,
    /// Network cards of the instance type: new interfaces are spread over them.
    pub network_cards: u32,
    /// The stack's classic load balancer as it is.
    pub classic_load_balancer: Option<classic_load_balancer::Observed>,
    /// What has the alias' name in its zone.
    pub dns_records: Vec<dns_record::Observed>,
    /// What the functions run.
    pub code: Arc<Code>,
}

/// A live backend.
#[derive(Debug, Clone)]
pub struct Backend {
    /// What EC2 says.
    pub instance: Instance,
    /// Whether the group has it.
    pub member: bool,
    /// Whether API termination is disabled.
    pub protected: bool,
}

/// Reads everything, and makes no change.
///
/// # Errors
/// Whatever speaks against importing: see the functions below.
pub async fn discover(aws: &Aws, request: &ImportRequest) -> Result<Discovered> {
    let code = Code::read(aws, request.lambda_binary.as_deref());
    let (facts, inventory, code) = tokio::try_join!(
        Box::pin(facts(aws, request)),
        Inventory::read_but_groups(aws, &request.cluster),
        code
    )?;
    let inventory = Inventory {
        groups: facts.groups,
        ..inventory
    };
    Ok(Discovered {
        spec: facts.spec,
        inventory,
        stored: facts.stored,
        backends: facts.backends,
        network_cards: facts.network_cards,
        classic_load_balancer: facts.classic_load_balancer,
        dns_records: facts.dns_records,
        code,
    })
}

/// What [`discover`] finds besides the cluster's own resources.
struct Facts {
    spec: Spec,
    groups: Vec<auto_scaling_group::Observed>,
    stored: Stored,
    backends: Vec<Backend>,
    network_cards: u32,
    classic_load_balancer: Option<classic_load_balancer::Observed>,
    dns_records: Vec<dns_record::Observed>,
}

async fn facts(aws: &Aws, request: &ImportRequest) -> Result<Facts> {
    let cluster = &request.cluster;
    let stack = async {
        match request.instance_ids {
            Some(_) => Ok(None),
            None => stack::read(aws, cluster).await,
        }
    };
    let dns = async {
        match &request.dns {
            Some(dns) => dns_record::check_zone(aws, dns).await,
            None => Ok(()),
        }
    };
    let group_name = cluster.backends();
    let (_, stored, groups, stack, ()) = tokio::try_join!(
        aws.identity(),
        settings::read(aws, cluster),
        AutoScalingGroup::find(aws, cluster, &group_name),
        stack,
        dns
    )?;
    let settings = stored.settings.as_ref();
    if let Some(settings) = settings {
        request.check_against(settings)?;
    }

    let members: BTreeSet<String> = groups
        .iter()
        .flat_map(auto_scaling_group::Observed::member_ids)
        .collect();
    let sources = source_ids(aws, request, stack.as_ref(), settings.is_some()).await?;
    let ids: BTreeSet<String> = sources.into_iter().chain(members.iter().cloned()).collect();
    let ids: Vec<String> = ids.into_iter().collect();
    let found = instances::describe(aws, &ids)
        .await
        .context("reading the backends")?;
    let live = live_backends(aws, request, found.clone(), &members)?;
    if settings.is_none() {
        if let Some(given) = &request.instance_ids {
            check_given(cluster, given, &found)?;
        }
        check_alike(cluster, &live)?;
    }
    let pattern = match (settings, live.first()) {
        (Some(settings), _) => Pattern::Settings(settings),
        (None, Some(first)) => Pattern::Instance(first),
        (None, None) => bail!("cluster {} has no backends", cluster.name),
    };
    let cores = cores(request, &stored, pattern.instance_type())?;
    let classic_name = match settings {
        Some(settings) => settings.classic_load_balancer.clone(),
        None => stack
            .as_ref()
            .and_then(|stack| stack.classic_load_balancers.first().cloned()),
    };

    let live_ids: Vec<String> = live.iter().map(|each| each.id.clone()).collect();
    let newcomers: Vec<&Instance> = live
        .iter()
        .filter(|each| !members.contains(&each.id))
        .collect();
    let classic = async {
        match &classic_name {
            Some(name) => classic_load_balancer::describe(aws, name)
                .await
                .context("reading the classic load balancer"),
            None => Ok(None),
        }
    };
    let dns = settings.map_or_else(|| request.dns.clone(), Settings::dns);
    let records = async {
        match &dns {
            Some(dns) => {
                let name = DnsRecord::name_of(dns);
                DnsRecord::find(aws, cluster, &name)
                    .await
                    .context("reading the DNS record")
            }
            None => Ok(Vec::new()),
        }
    };
    let (network, protected, volumes, machine, (), (), classic_load_balancer, dns_records) = tokio::try_join!(
        network::read(aws, pattern.vpc_id()),
        async {
            instances::termination_protected(aws, &live_ids)
                .await
                .context("reading the backends' protection")
        },
        pattern.volumes(aws),
        async {
            instances::type_facts(aws, pattern.instance_type())
                .await
                .context("reading the instance type")
        },
        check_image(aws, pattern.image_id()),
        check_other_groups(aws, cluster, &newcomers),
        classic,
        records,
    )?;
    let default_cpu = machine
        .as_ref()
        .and_then(|machine| machine.default_cpu.as_ref());
    let network_cards = machine.as_ref().map_or(1, |machine| machine.network_cards);
    let backends = match &pattern {
        Pattern::Settings(settings) => settings
            .backends
            .shape(network.zone(&settings.subnet).unwrap_or_default()),
        Pattern::Instance(instance) => instances::shape_of(instance, &volumes, default_cpu)?,
    };
    let stack_id = stack.map(|stack| stack.id);
    let spec = if let Some(settings) = settings {
        Spec {
            cluster: cluster.clone(),
            stack_id: settings.stack_id.clone().or(stack_id),
            backends,
            max_size: settings.backends.max_size,
            cores,
            vpc_id: settings.vpc_id.clone(),
            additional_subnet: settings.additional_subnet.clone(),
            private_subnet: settings.private_subnet,
            dns,
            use_dynamodb_endpoint: settings.use_dynamodb_endpoint,
            user_tags: settings.tags_map.clone().unwrap_or_default(),
            classic_load_balancer: classic_name,
        }
    } else {
        network.check_api(request.private_subnet)?;
        Spec {
            cluster: cluster.clone(),
            stack_id,
            additional_subnet: network
                .second_subnet(&backends.subnet_id, request.additional_subnet.as_deref())?,
            backends,
            max_size: i32::try_from(live.len() * MAX_SIZE_FACTOR).unwrap_or(i32::MAX),
            cores,
            vpc_id: network.vpc_id.clone(),
            private_subnet: request.private_subnet,
            dns,
            use_dynamodb_endpoint: request.use_dynamodb_endpoint,
            user_tags: request.user_tags.clone(),
            classic_load_balancer: classic_name,
        }
    };
    check_newcomers(&newcomers, &spec.backends)?;
    check_volume_keys(aws, &spec.backends).await?;

    let backends = live
        .into_iter()
        .map(|instance| Backend {
            member: members.contains(&instance.id),
            protected: protected.get(&instance.id).copied().unwrap_or(false),
            instance,
        })
        .collect();
    Ok(Facts {
        spec,
        groups,
        stored,
        backends,
        network_cards,
        classic_load_balancer,
        dns_records,
    })
}

/// What new backends are modelled on: the settings of a managed cluster, else the first backend.
enum Pattern<'a> {
    Settings(&'a Settings),
    Instance(&'a Instance),
}

impl Pattern<'_> {
    fn instance_type(&self) -> &str {
        match self {
            Self::Settings(settings) => &settings.backends.instance_type,
            Self::Instance(instance) => &instance.instance_type,
        }
    }

    fn image_id(&self) -> &str {
        match self {
            Self::Settings(settings) => &settings.backends.image_id,
            Self::Instance(instance) => &instance.image_id,
        }
    }

    fn vpc_id(&self) -> &str {
        match self {
            Self::Settings(settings) => &settings.vpc_id,
            Self::Instance(instance) => instance.vpc_id.as_deref().unwrap_or_default(),
        }
    }

    /// The volumes of the instance; the settings have theirs.
    async fn volumes(&self, aws: &Aws) -> Result<BTreeMap<String, Disk>> {
        match self {
            Self::Settings(_) => Ok(BTreeMap::new()),
            Self::Instance(instance) => {
                let ids: Vec<String> = instance
                    .devices
                    .iter()
                    .map(|device| device.volume_id.clone())
                    .collect();
                instances::volumes(aws, &ids)
                    .await
                    .context("reading the volumes")
            }
        }
    }
}

/// The ids the backends are looked for among, besides the group's members.
async fn source_ids(
    aws: &Aws,
    request: &ImportRequest,
    stack: Option<&Stack>,
    managed: bool,
) -> Result<Vec<String>> {
    let name = &request.cluster.name;
    if let Some(ids) = &request.instance_ids {
        return Ok(ids.clone());
    }
    let Some(stack) = stack else {
        if managed {
            // The stack is gone, or there never was one: the group has its backends.
            return Ok(Vec::new());
        }
        let stacks = stack::usable_weka_stacks(aws).await?;
        let there_are = if stacks.is_empty() {
            "there are no Weka stacks in a usable state".to_owned()
        } else {
            format!("the Weka stacks there are: {}", stacks.join(", "))
        };
        bail!("there is no stack {name} in {}; {there_are}", aws.region());
    };
    if !stack.usable {
        bail!(
            "stack {name} is {}: it can be imported once it is CREATE_COMPLETE, UPDATE_COMPLETE, \
             UPDATE_ROLLBACK_COMPLETE or IMPORT_COMPLETE",
            stack.status
        );
    }
    if stack.instance_ids.is_empty() {
        bail!(
            "stack {name} has no EC2 instances: it is no Weka cluster, or its instances are in a nested stack"
        );
    }
    Ok(stack.instance_ids.clone())
}

/// The instances that are backends of this cluster and still alive, in the order of `found`.
fn live_backends(
    aws: &Aws,
    request: &ImportRequest,
    found: Vec<Instance>,
    members: &BTreeSet<String>,
) -> Result<Vec<Instance>> {
    let mut live = Vec::new();
    for instance in found.into_iter().filter(|each| !each.is_terminated()) {
        let owner = instance.tags.get(CLUSTER_TAG);
        if members.contains(&instance.id) {
            live.push(instance);
        } else if owner.is_some_and(|owner| *owner != request.cluster.name) {
            bail!(
                "instance {} belongs to the managed cluster {}",
                instance.id,
                owner.map_or("", String::as_str)
            );
        } else if owner.is_some() {
            aws.run.notice(format!(
                "instance {} was a member of the group and was taken out of it: it is left alone",
                instance.id
            ));
        } else if request.instance_ids.is_some() {
            live.push(instance);
        } else {
            match instance.profile_arn.as_deref() {
                Some(profile) if profile.contains(BACKEND_PROFILE) => live.push(instance),
                Some(profile) if profile.contains(CLIENT_PROFILE) => {}
                Some(profile) => aws.run.notice(format!(
                    "instance {} has the profile {profile}, neither a backend's nor a client's: it is left alone",
                    instance.id
                )),
                None => bail!(
                    "instance {} has no instance profile: a backend needs one, for itself and for those launched after it",
                    instance.id
                ),
            }
        }
    }
    Ok(live)
}

/// That every id given with `--instance-ids` is a live instance. Only on a first import: later, those may
/// have been replaced.
fn check_given(cluster: &Cluster, given: &[String], found: &[Instance]) -> Result<()> {
    let alive: BTreeSet<&String> = found
        .iter()
        .filter(|each| !each.is_terminated())
        .map(|each| &each.id)
        .collect();
    let missing: Vec<&str> = given
        .iter()
        .filter(|id| !alive.contains(id))
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        bail!(
            "instances given for cluster {} do not exist, or are terminated: {}",
            cluster.name,
            missing.join(", ")
        );
    }
    Ok(())
}

/// That a first import has enough backends, and that they are alike: the group will launch more of one kind.
fn check_alike(cluster: &Cluster, live: &[Instance]) -> Result<()> {
    let differences = instances::differences(live);
    if !differences.is_empty() {
        bail!(
            "the backends of cluster {} are not alike: {}",
            cluster.name,
            differences
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ")
        );
    }
    if live.len() < FEWEST_BACKENDS {
        bail!(
            "cluster {} has {} backends, and a managed one needs at least {FEWEST_BACKENDS}",
            cluster.name,
            live.len()
        );
    }
    Ok(())
}

/// That the backends that are not in the group yet can be attached to it.
fn check_newcomers(newcomers: &[&Instance], shape: &Shape) -> Result<()> {
    for instance in newcomers {
        if !instance.is_running() {
            bail!(
                "instance {} is {}: start it, then import again",
                instance.id,
                instance.state
            );
        }
        if instance.availability_zone != shape.availability_zone {
            bail!(
                "instance {} is in {}, and the cluster's group is in {}",
                instance.id,
                instance.availability_zone,
                shape.availability_zone
            );
        }
    }
    Ok(())
}

/// What Weka gets of each machine.
fn cores(request: &ImportRequest, stored: &Stored, instance_type: &str) -> Result<Cores> {
    let stored = stored.settings.as_ref().and_then(|settings| settings.cores);
    stored.or(request.cores).or_else(|| cores_of(instance_type)).ok_or_else(|| {
        UsageError(format!(
            "instance type {instance_type} is not in wekactl's table: say what Weka gets of such a machine \
             with --cores compute=N,drive=N,frontend=N,memory=BYTES"
        ))
        .into()
    })
}

/// That none of the instances is in another group.
async fn check_other_groups(aws: &Aws, cluster: &Cluster, newcomers: &[&Instance]) -> Result<()> {
    let ours = cluster.backends();
    let ids: Vec<String> = newcomers.iter().map(|each| each.id.clone()).collect();
    let reads = ids.chunks(GROUP_IDS).map(|ids| async {
        let answer = aws
            .autoscaling()
            .describe_auto_scaling_instances()
            .set_instance_ids(Some(ids.to_vec()))
            .send()
            .await;
        answer
            .answer()
            .context("reading which Auto Scaling groups the backends are in")
    });
    for answer in futures::future::try_join_all(reads).await? {
        for each in answer.auto_scaling_instances() {
            let group = each.auto_scaling_group_name().unwrap_or_default();
            if group != ours {
                bail!(
                    "instance {} is in the Auto Scaling group {group}: take it out of that group, then import again",
                    each.instance_id().unwrap_or_default()
                );
            }
        }
    }
    Ok(())
}

/// That instances can be launched from the image.
async fn check_image(aws: &Aws, image: &str) -> Result<()> {
    let images = aws.ec2().describe_images().image_ids(image).send().await;
    let images = images
        .if_found(&["InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"])
        .context("reading the backends' image")?;
    if images.is_none_or(|images| images.images().is_empty()) {
        bail!(
            "the backends' image {image} is gone, or not shared with this account: no instance can be launched from it"
        );
    }
    Ok(())
}

/// That Auto Scaling may use the customer's keys the volumes are encrypted with.
async fn check_volume_keys(aws: &Aws, shape: &Shape) -> Result<()> {
    let keys = shape
        .volumes
        .iter()
        .filter_map(|volume| Some((volume.kms_key_id.as_deref()?, volume.device.as_str())));
    // One check a key, whatever the number of volumes under it.
    let keys: BTreeMap<&str, &str> = keys.collect();
    futures::future::try_join_all(
        keys.into_iter()
            .map(|(key, device)| check_volume_key(aws, key, device)),
    )
    .await?;
    Ok(())
}

/// The service-linked role with which Auto Scaling launches. Source: Auto Scaling user guide, "Service-linked roles".
const AUTO_SCALING_ROLE: &str =
    "role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling";

/// That Auto Scaling may use the customer's key a volume is encrypted with.
async fn check_volume_key(aws: &Aws, key: &str, device: &str) -> Result<()> {
    let (described, policy, grants) = tokio::join!(
        aws.kms().describe_key().key_id(key).send(),
        aws.kms()
            .get_key_policy()
            .key_id(key)
            .policy_name("default")
            .send(),
        aws.kms().list_grants().key_id(key).limit(100).send(),
    );
    let manager = described
        .answer()
        .with_context(|| format!("reading the key {key} of volume {device}"))?;
    // AWS's own key for EBS may be used by whoever may use EBS.
    if manager
        .key_metadata()
        .and_then(|key| key.key_manager())
        .is_some_and(|manager| manager.as_str() == "AWS")
    {
        return Ok(());
    }
    let identity = aws.identity().await?;
    let role = format!(
        "arn:{}:iam::{}:{AUTO_SCALING_ROLE}",
        identity.partition, identity.account
    );
    let in_policy = policy.answer().is_ok_and(|answer| {
        answer
            .policy()
            .is_some_and(|policy| policy.contains(AUTO_SCALING_ROLE))
    });
    let in_grants = grants.answer().is_ok_and(|answer| {
        answer
            .grants()
            .iter()
            .any(|grant| grant.grantee_principal() == Some(&role))
    });
    if in_policy || in_grants {
        return Ok(());
    }
    bail!(
        "volume {device} is encrypted with the key {key}, which Auto Scaling may not use to launch instances: add to the \
         key's policy {}",
        serde_json::json!([
            {"Effect": "Allow", "Principal": {"AWS": role}, "Resource": "*",
             "Action": ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"]},
            {"Effect": "Allow", "Principal": {"AWS": role}, "Resource": "*", "Action": "kms:CreateGrant",
             "Condition": {"Bool": {"kms:GrantIsForAWSResource": true}}},
        ])
    )
}
