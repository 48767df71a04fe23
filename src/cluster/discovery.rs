//! From a stack, or instance ids, to the desired cluster: all that import must know, and every reason
//! not to begin, found before the first change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use aws_sdk_kms::types::GrantListEntry;

use super::UsageError;
use super::before;
use super::code::Code;
use super::instance_types::{cores_of, go_tool_cores_of};
use super::inventory::{self, Inventory};
use super::names::{CLUSTER_TAG, Cluster};
use super::network::{self, Network};
use super::request::ImportRequest;
use super::settings::{self, Settings, Stored};
use super::spec::{Cores, Shape, Spec};
use super::stack::{self, Stack};
use crate::aws::{Answer, Aws};
use crate::resource::{Resource as _, owned};
use crate::resources::auto_scaling_group::{self, AutoScalingGroup};
use crate::resources::classic_load_balancer;
use crate::resources::dns_record::{self, DnsRecord};
use crate::resources::instances::{self, Disk, Instance, TypeFacts};
use crate::resources::load_balancer::LoadBalancer;
use crate::run::Run;

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
    /// Ids of instances that the Go tool has protected and that are no backends, where it is being taken over.
    pub go_protected: Vec<String>,
    /// What has the alias' name in its zone.
    pub dns_records: Vec<dns_record::Observed>,
    /// What the functions run.
    pub code: Arc<Code>,
}

impl Discovered {
    /// Addresses of the live backends.
    pub(super) fn addresses(&self) -> Vec<String> {
        let backends = self.backends.iter();
        backends
            .filter_map(|backend| backend.instance.private_ip.clone())
            .collect()
    }
}

/// A live backend.
#[derive(Debug, Clone)]
pub struct Backend {
    /// What EC2 says.
    pub instance: Instance,
    /// Whether the group has launched it: then it was never anything else than ours.
    pub launched: bool,
    /// Whether API termination is disabled.
    pub protected: bool,
}

/// So often all is read, where the group's members change meanwhile.
const ROUNDS: usize = 3;

/// Something changes the group's members while they are read, as another import does.
#[derive(Debug, thiserror::Error)]
#[error("the members of Auto Scaling group {0} change while they are read: run this again")]
pub(super) struct Moving(String);

/// Reads everything, and makes no change.
///
/// # Errors
/// Whatever speaks against importing: see the functions below.
pub async fn discover(aws: &Aws, request: &ImportRequest) -> Result<Discovered> {
    for _ in 1..ROUNDS {
        match discover_once(aws, request).await {
            Err(error) if error.is::<Moving>() => {}
            done => return done,
        }
    }
    discover_once(aws, request).await
}

async fn discover_once(aws: &Aws, request: &ImportRequest) -> Result<Discovered> {
    let code = async {
        let (layers, code) = tokio::try_join!(
            inventory::layers(aws, &request.cluster),
            Code::read(aws, request.lambda_binary.as_deref())
        )?;
        let is_new = !layers.iter().any(|version| version.sha256 == code.sha256);
        if is_new && !aws.run.is_plan() {
            code.start_zip();
        }
        Ok((layers, code))
    };
    let own = Inventory::read_around(aws, &request.cluster, code);
    let (facts, (inventory, code)) =
        tokio::try_join!(Box::pin(facts(aws, request)), Box::pin(own))?;
    let inventory = Inventory {
        groups: facts.groups,
        ..inventory
    };
    inventory.check_owned(&request.cluster)?;
    let balancer = inventory.load_balancers.first();
    let balancer = balancer.map(|balancer| balancer.dns_name.as_str());
    dns_record::check_free(&facts.dns_records, balancer)?;
    Ok(Discovered {
        spec: facts.spec,
        inventory,
        stored: facts.stored,
        backends: facts.backends,
        network_cards: facts.network_cards,
        classic_load_balancer: facts.classic_load_balancer,
        go_protected: facts.go_protected,
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
    go_protected: Vec<String>,
    dns_records: Vec<dns_record::Observed>,
}

async fn facts(aws: &Aws, request: &ImportRequest) -> Result<Facts> {
    let cluster = &request.cluster;
    let stack = async {
        match request.instance_ids {
            Some(_) => Ok(None),
            None if request.only_managed => Ok(None),
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
    match settings {
        Some(settings) => request.check_against(settings)?,
        None if request.only_managed => bail!(
            "no managed cluster named {name} in {}: there is no table wekactl-{name} with its settings. Where an import \
             did not come to its end, run it again: wekactl cluster import --name {name} --username USER",
            aws.region(),
            name = cluster.name
        ),
        None => {}
    }
    let stack = match settings {
        Some(settings) if request.only_managed && settings.are_ours() => None,
        Some(settings) if request.only_managed => {
            // The Go tool's settings do not tell of it.
            own_stack(
                &aws.run,
                cluster,
                settings,
                stack::read(aws, cluster).await?,
            )?
        }
        Some(settings) => own_stack(&aws.run, cluster, settings, stack)?,
        None => stack,
    };

    let members: BTreeSet<String> = groups
        .iter()
        .flat_map(auto_scaling_group::Observed::member_ids)
        .collect();
    let launched: BTreeSet<&str> = groups
        .iter()
        .flat_map(auto_scaling_group::Observed::launched_ids)
        .collect();
    let half_destroyed = groups
        .iter()
        .any(auto_scaling_group::Observed::is_half_destroyed);
    if half_destroyed && request.only_managed {
        let (with, keep, then) = match groups
            .iter()
            .any(auto_scaling_group::Observed::is_being_left)
        {
            true => (
                " with --keep-instances",
                " --keep-instances",
                "sets the backends free",
            ),
            false => ("", "", "terminates the backends"),
        };
        bail!(
            "a destroy of cluster {name}{with} has begun and did not end: end it with wekactl cluster destroy --name \
             {name}{keep}, which {then}, or undo it with wekactl cluster import --name {name} --username USER",
            name = cluster.name
        );
    }
    let (sources, freed) = tokio::try_join!(
        source_ids(
            aws,
            request,
            stack.as_ref().filter(|_| !request.only_managed),
            settings.is_some()
        ),
        async {
            match half_destroyed {
                true => instances::describe_by_tag(aws, cluster)
                    .await
                    .context("reading the cluster's instances"),
                false => Ok(Vec::new()),
            }
        }
    )?;
    let ids: BTreeSet<String> = sources
        .into_iter()
        .chain(freed.into_iter().map(|each| each.id))
        .chain(members.iter().cloned())
        .collect();
    let ids: Vec<String> = ids.into_iter().collect();
    let found = instances::describe(aws, &ids)
        .await
        .context("reading the backends")?;
    check_settled(aws, cluster, &found, &members).await?;
    let live = live_backends(aws, request, found.clone(), &members, half_destroyed)?;
    if settings.is_none() {
        if let Some(given) = &request.instance_ids {
            check_given(cluster, given, &found)?;
        }
        check_alike(cluster, &live)?;
    }
    let Some(first) = live.first() else {
        if half_destroyed {
            bail!(
                "a destroy of cluster {name} has begun, and it has no backends left: end it with wekactl cluster destroy \
                 --name {name}",
                name = cluster.name
            );
        }
        bail!(
            "cluster {name} has no live backends in its Auto Scaling group {group_name}: run wekactl cluster import \
             --name {name} --username USER where an import did not come to its end",
            name = cluster.name
        );
    };
    let pattern = Pattern { settings, first };
    let cores = cores(request, settings, pattern.instance_type())?;
    let classic_name = match settings {
        Some(settings) if settings.are_ours() => settings.classic_load_balancer.clone(),
        _ => stack
            .as_ref()
            .and_then(|stack| stack.classic_load_balancers.first().cloned()),
    };

    let live_ids: Vec<String> = live.iter().map(|each| each.id.clone()).collect();
    let newcomers: Vec<&Instance> = live
        .iter()
        .filter(|each| !members.contains(&each.id))
        .collect();
    check_metadata_tags(&newcomers)?;
    let is_settled = settings.is_some() && newcomers.is_empty();
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
    let (network, protected, volumes, machine, has_image, (), classic_load_balancer, dns_records) =
        tokio::try_join!(
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
            has_image(aws, pattern.image_id()),
            check_other_groups(aws, cluster, &newcomers),
            classic,
            records,
        )?;
    if !has_image {
        mind_missing_image(&aws.run, cluster, pattern.image_id(), is_settled)?;
    }
    if settings.is_none_or(|settings| settings.cores.is_none()) {
        check_interfaces(pattern.instance_type(), cores, machine.as_ref())?;
    }
    let default_cpu = machine
        .as_ref()
        .and_then(|machine| machine.default_cpu.as_ref());
    let network_cards = machine.as_ref().map_or(1, |machine| machine.network_cards);
    let mut backends = match settings {
        Some(settings) => {
            let volumes = match settings.backends.volumes_info {
                Some(_) => Vec::new(),
                None => instances::shape_of(first, &volumes, default_cpu)?.volumes,
            };
            let zone = network.zone(&settings.subnet).unwrap_or_default();
            settings.backends.shape(zone, volumes)
        }
        None => instances::shape_of(first, &volumes, default_cpu)?,
    };
    // With them there could be no tag of ours on an instance.
    "disabled".clone_into(&mut backends.metadata.instance_metadata_tags);
    let stack_id = stack.as_ref().map(|stack| stack.id.clone());
    let spec = if let Some(settings) = settings {
        Spec {
            cluster: cluster.clone(),
            stack_id: settings.stack_id.clone().or(stack_id),
            additional_subnet: match &settings.additional_subnet {
                Some(stored) => stored.clone(),
                None => balanced_subnet(aws, request, &network, &backends.subnet_id).await?,
            },
            backends,
            max_size: settings.backends.max_size,
            cores,
            vpc_id: network.vpc_id.clone(),
            private_subnet: settings.private_subnet,
            dns,
            use_dynamodb_endpoint: settings.use_dynamodb_endpoint,
            user_tags: settings.tags_map.clone().unwrap_or_default(),
            classic_load_balancer: classic_name,
            keeps_template: !has_image,
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
            keeps_template: false,
        }
    };
    let go_protected = match (settings, &stack) {
        (Some(settings), Some(stack)) if !settings.are_ours() => {
            let backends = live.iter().map(|each| each.id.clone()).collect();
            before::go_protected(aws, &stack.instance_ids, &backends).await?
        }
        _ => Vec::new(),
    };
    check_newcomers(&newcomers, &spec.backends)?;
    check_volume_keys(aws, &spec.backends, is_settled).await?;

    let backends = live
        .into_iter()
        .map(|instance| Backend {
            launched: launched.contains(instance.id.as_str()),
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
        go_protected,
        dns_records,
    })
}

/// What new backends are modelled on: the settings of a managed cluster, and the first backend where there are none,
/// or where they do not tell.
struct Pattern<'a> {
    settings: Option<&'a Settings>,
    first: &'a Instance,
}

impl Pattern<'_> {
    fn instance_type(&self) -> &str {
        self.settings.map_or(&self.first.instance_type, |settings| {
            &settings.backends.instance_type
        })
    }

    fn image_id(&self) -> &str {
        self.settings
            .map_or(&self.first.image_id, |settings| &settings.backends.image_id)
    }

    fn vpc_id(&self) -> &str {
        let stored = self
            .settings
            .and_then(|settings| settings.vpc_id.as_deref());
        stored.or(self.first.vpc_id.as_deref()).unwrap_or_default()
    }

    /// The volumes of the first backend, where the settings do not tell.
    async fn volumes(&self, aws: &Aws) -> Result<BTreeMap<String, Disk>> {
        let stored = self
            .settings
            .and_then(|settings| settings.backends.volumes_info.as_ref());
        if stored.is_some() {
            return Ok(BTreeMap::new());
        }
        let ids: Vec<String> = self
            .first
            .devices
            .iter()
            .map(|device| device.volume_id.clone())
            .collect();
        instances::volumes(aws, &ids)
            .await
            .context("reading the volumes")
    }
}

/// The stack from which a managed cluster may still get backends: the very one it came from, while its resources
/// stay. Another one of that name has other backends, which are not this cluster's.
fn own_stack(
    run: &Run,
    cluster: &Cluster,
    settings: &Settings,
    stack: Option<Stack>,
) -> Result<Option<Stack>> {
    let name = &cluster.name;
    let nothing = |why: String| {
        run.notice(format!("{why}: no backends are taken from it"));
        Ok(None)
    };
    match (stack, &settings.stack_id) {
        (None, None) => Ok(None),
        (None, Some(_)) => nothing(format!(
            "stack {name}, which the cluster came from, is gone"
        )),
        (Some(stack), Some(stored)) if stack.id != *stored => bail!(
            "cluster {name} came from stack {stored}, and the stack of that name is another one now, {}: a cluster of \
             one name at a time; destroy the managed one first, with --keep-instances if its machines shall stay",
            stack.id
        ),
        (Some(_), None) if settings.are_ours() => nothing(format!(
            "there is a stack {name}, and the cluster of that name did not come from it"
        )),
        (Some(stack), _) if !stack.usable => nothing(format!("stack {name} is {}", stack.status)),
        (Some(stack), _) => Ok(Some(stack)),
    }
}

/// The load balancer's second subnet in a managed cluster whose settings do not tell: the one it has.
async fn balanced_subnet(
    aws: &Aws,
    request: &ImportRequest,
    network: &Network,
    first: &str,
) -> Result<String> {
    let given = request.additional_subnet.as_deref();
    if given.is_none() {
        let name = request.cluster.load_balancer();
        let found = LoadBalancer::find(aws, &request.cluster, &name)
            .await
            .with_context(|| format!("reading load balancer {name}"))?;
        let ours = found
            .iter()
            .filter(|found| owned::<LoadBalancer>(&request.cluster, &name, found).is_ok());
        let mut subnets = ours.flat_map(|found| &found.subnets);
        if let Some(second) = subnets.find(|subnet| *subnet != first) {
            return Ok(second.clone());
        }
    }
    network.second_subnet(first, given)
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
            let names: Vec<&str> = stacks.iter().map(|stack| stack.name.as_str()).collect();
            format!("the Weka stacks there are: {}", names.join(", "))
        };
        bail!("there is no stack {name} in {}; {there_are}", aws.region());
    };
    if managed {
        return Ok(stack.instance_ids.clone());
    }
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

/// That an instance with the cluster's tag that was no member when the group was read is still none: an import at the
/// same time attaches what it then tags.
async fn check_settled(
    aws: &Aws,
    cluster: &Cluster,
    found: &[Instance],
    members: &BTreeSet<String>,
) -> Result<()> {
    let is_stranger = |each: &Instance| {
        let is_ours = each.tags.get(CLUSTER_TAG) == Some(&cluster.name);
        is_ours && !each.is_terminated() && !members.contains(&each.id)
    };
    if !found.iter().any(is_stranger) {
        return Ok(());
    }
    let name = cluster.backends();
    let group = auto_scaling_group::describe(aws, &name)
        .await
        .with_context(|| format!("reading Auto Scaling group {name} again"))?;
    let now = group
        .iter()
        .flat_map(auto_scaling_group::Observed::member_ids);
    match now.collect::<BTreeSet<String>>() == *members {
        true => Ok(()),
        false => Err(Moving(name).into()),
    }
}

/// The instances that are backends of this cluster and still alive, in the order of `found`. After a destroy that was
/// interrupted, also those that it has taken out of the group.
fn live_backends(
    aws: &Aws,
    request: &ImportRequest,
    found: Vec<Instance>,
    members: &BTreeSet<String>,
    half_destroyed: bool,
) -> Result<Vec<Instance>> {
    let mut live = Vec::new();
    for instance in found.into_iter().filter(|each| !each.is_terminated()) {
        let owner = instance.tags.get(CLUSTER_TAG).map(String::as_str);
        let is_ours = owner.is_some_and(|owner| owner == request.cluster.name);
        let other = owner
            .or_else(|| before::cluster_in_tag(&instance.tags))
            .filter(|owner| *owner != request.cluster.name);
        if members.contains(&instance.id) || is_ours && half_destroyed {
            live.push(instance);
        } else if let Some(owner) = other {
            bail!(
                "instance {} belongs to the managed cluster {owner}: leave it out, or run \
                 `wekactl cluster destroy --name {owner} --keep-instances` first",
                instance.id,
            );
        } else if is_ours {
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

/// That a first import has enough backends, that they lack nothing, and that they are alike: the group will launch
/// more of one kind.
fn check_alike(cluster: &Cluster, live: &[Instance]) -> Result<()> {
    for instance in live {
        instances::check_model(instance)?;
    }
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
            "cluster {} has too few backends: a managed one needs at least {FEWEST_BACKENDS}, and without terminated \
             ones there are {}",
            cluster.name,
            live.len()
        );
    }
    Ok(())
}

/// That these backends can be tagged: where an instance offers its tags through its metadata service, which makes paths
/// of them, EC2 takes no key with a slash.
fn check_metadata_tags(newcomers: &[&Instance]) -> Result<()> {
    let offering: Vec<&str> = newcomers
        .iter()
        .filter(|instance| {
            let options = instance.metadata.as_ref();
            options.is_some_and(|options| options.instance_metadata_tags == "enabled")
        })
        .map(|instance| instance.id.as_str())
        .collect();
    let Some(first) = offering.first() else {
        return Ok(());
    };
    bail!(
        "EC2 refuses the tags of a managed cluster on instances that offer theirs through the metadata service: {}; run \
         for each, as for the first, `aws ec2 modify-instance-metadata-options --instance-id {first} \
         --instance-metadata-tags disabled`, then import again",
        offering.join(", ")
    )
}

/// That a machine has a network interface for each of Weka's cores, and one for management.
fn check_interfaces(
    instance_type: &str,
    cores: Cores,
    machine: Option<&TypeFacts>,
) -> Result<(), UsageError> {
    let needed = cores.interfaces() + 1;
    let most = machine
        .map(|machine| machine.max_interfaces)
        .filter(|most| *most > 0);
    match most {
        Some(most) if needed > most => Err(UsageError(format!(
            "instance type {instance_type} has {most} network interfaces, and Weka needs {needed} with {cores}, one for \
             each core and one for management: give it fewer cores with --cores"
        ))),
        _ => Ok(()),
    }
}

/// That the backends that are not in the group yet can be attached to it, and are what it launches.
fn check_newcomers(newcomers: &[&Instance], shape: &Shape) -> Result<()> {
    for instance in newcomers {
        if !instance.is_running() {
            bail!(
                "instance {} is {}: start it, then import again",
                instance.id,
                instance.state
            );
        }
        let misfits = misfits(instance, shape);
        if !misfits.is_empty() {
            bail!(
                "instance {} is not what the cluster's group consists of: {}",
                instance.id,
                misfits.join("; ")
            );
        }
    }
    Ok(())
}

/// In what an instance differs from the group's.
fn misfits(instance: &Instance, shape: &Shape) -> Vec<String> {
    let none = || "none".to_owned();
    let compared = [
        (
            "instance type is",
            instance.instance_type.clone(),
            shape.instance_type.clone(),
        ),
        (
            "image is",
            instance.image_id.clone(),
            shape.image_id.clone(),
        ),
        (
            "subnet is",
            instance.subnet_id.clone().unwrap_or_else(none),
            shape.subnet_id.clone(),
        ),
        (
            "zone is",
            instance.availability_zone.clone(),
            shape.availability_zone.clone(),
        ),
        (
            "security groups are",
            instance.security_groups.join(" and "),
            shape.security_groups.join(" and "),
        ),
        (
            "instance profile is",
            instance.profile_arn.clone().unwrap_or_else(none),
            shape.instance_profile_arn.clone(),
        ),
    ];
    let differ = compared
        .into_iter()
        .filter(|(_, its, wanted)| its != wanted);
    differ
        .map(|(field, its, wanted)| format!("its {field} {its}, the group's {wanted}"))
        .collect()
}

/// What Weka gets of each machine. A cluster of the Go tool keeps what that tool gave it.
fn cores(
    request: &ImportRequest,
    settings: Option<&Settings>,
    instance_type: &str,
) -> Result<Cores, UsageError> {
    let stored = settings.and_then(|settings| settings.cores);
    let published = || {
        let go_tool = settings.and_then(|_| go_tool_cores_of(instance_type));
        go_tool.or_else(|| cores_of(instance_type))
    };
    stored.or(request.cores).or_else(published).ok_or_else(|| {
        UsageError(format!(
            "instance type {instance_type} is not in wekactl's table: say what Weka gets of such a machine \
             with --cores compute=N,drive=N,frontend=N,memory=BYTES"
        ))
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

/// Whether instances can be launched from the image.
async fn has_image(aws: &Aws, image: &str) -> Result<bool> {
    let images = aws.ec2().describe_images().image_ids(image).send().await;
    let images = images
        .if_found(&["InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"])
        .context("reading the backends' image")?;
    Ok(images.is_some_and(|images| !images.images().is_empty()))
}

/// Without the image nothing is imported. What is `is_settled`, managed already and with nobody to take in, works on
/// without it, and is looked after.
fn mind_missing_image(run: &Run, cluster: &Cluster, image: &str, is_settled: bool) -> Result<()> {
    let gone = format!(
        "the backends' image {image} is gone, or not shared with this account: no instance can be launched from it"
    );
    if !is_settled {
        bail!(gone);
    }
    run.warning(format!(
        "{gone}. The launch template, and the version of it that the group uses, stay as they are. Have the image \
         restored or shared again; or write the id of another one as Backends.ImageID into the item cluster-settings of \
         table {}, then run update",
        cluster.base()
    ));
    Ok(())
}

/// That Auto Scaling may use the customer's keys the volumes are encrypted with. Where the cluster `is_settled`, as
/// for its image, a warning if not.
async fn check_volume_keys(aws: &Aws, shape: &Shape, is_settled: bool) -> Result<()> {
    let keys = shape
        .volumes
        .iter()
        .filter_map(|volume| Some((volume.kms_key_id.as_deref()?, volume.device.as_str())));
    // One check a key, whatever the number of volumes under it.
    let keys: BTreeMap<&str, &str> = keys.collect();
    let checks = keys
        .into_iter()
        .map(|(key, device)| unusable_key(aws, key, device));
    let unusable = futures::future::try_join_all(checks).await?;
    for unusable in unusable.into_iter().flatten() {
        if !is_settled {
            bail!(unusable);
        }
        aws.run
            .warning(format!("no new machine can be launched: {unusable}"));
    }
    Ok(())
}

/// The service-linked role with which Auto Scaling launches. Source: Auto Scaling user guide, "Service-linked roles".
const AUTO_SCALING_ROLE: &str =
    "role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling";

/// What KMS says to who may not see who may use a key, another account's included: nothing follows from it.
const MAY_NOT_LOOK: &[&str] = &["AccessDeniedException", "NotFoundException"];

/// Why Auto Scaling can not use the customer's key a volume is encrypted with, and what to do; nothing where it can.
async fn unusable_key(aws: &Aws, key: &str, device: &str) -> Result<Option<String>> {
    let identity = aws.identity().await?;
    let role = format!(
        "arn:{}:iam::{}:{AUTO_SCALING_ROLE}",
        identity.partition, identity.account
    );
    let (described, policy, grants) = tokio::join!(
        aws.kms().describe_key().key_id(key).send(),
        aws.kms()
            .get_key_policy()
            .key_id(key)
            .policy_name("default")
            .send(),
        aws.kms()
            .list_grants()
            .key_id(key)
            .grantee_principal(&role)
            .into_paginator()
            .items()
            .send()
            .try_collect(),
    );
    let described = described
        .if_found(&MAY_NOT_LOOK[..1])
        .with_context(|| format!("reading the key {key} of volume {device}"))?;
    // AWS's own key for EBS may be used by whoever may use EBS.
    if described
        .as_ref()
        .and_then(|described| described.key_metadata())
        .and_then(|key| key.key_manager())
        .is_some_and(|manager| manager.as_str() == "AWS")
    {
        return Ok(None);
    }
    let policy = policy
        .if_found(MAY_NOT_LOOK)
        .with_context(|| format!("reading the policy of the key {key}"))?;
    let grants = grants
        .if_found(MAY_NOT_LOOK)
        .with_context(|| format!("reading the grants of the key {key}"))?;
    let in_policy = policy.as_ref().map(|answer| {
        let document = answer.policy();
        document.is_some_and(|document| document.contains(AUTO_SCALING_ROLE))
    });
    let in_grants = grants.as_ref().map(|grants: &Vec<_>| {
        grants
            .iter()
            .any(|grant: &GrantListEntry| grant.grantee_principal() == Some(&role))
    });
    match (in_policy, in_grants) {
        (Some(true), _) | (_, Some(true)) => return Ok(None),
        (Some(false), Some(false)) => {}
        (None, _) | (_, None) => {
            aws.run.warning(format!(
                "volume {device} is encrypted with the key {key}, and these credentials may not see who may use it: if \
                 {role} may not, no instance can be launched"
            ));
            return Ok(None);
        }
    }
    Ok(Some(format!(
        "volume {device} is encrypted with the key {key}, which Auto Scaling may not use to launch instances: add to the \
         key's policy {}",
        serde_json::json!([
            {"Effect": "Allow", "Principal": {"AWS": role}, "Resource": "*",
             "Action": ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"]},
            {"Effect": "Allow", "Principal": {"AWS": role}, "Resource": "*", "Action": "kms:CreateGrant",
             "Condition": {"Bool": {"kms:GrantIsForAWSResource": true}}},
        ])
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::spec::MetadataOptions;

    fn prod() -> Cluster {
        "prod".parse().unwrap()
    }

    /// As the Go tool wrote them, and more.
    fn settings(more: &Value) -> Settings {
        let mut settings = json!({
            "Subnet": "subnet-1",
            "Backends": {"IamArn": "arn:p", "ImageID": "ami-1", "InstanceType": "i3en.2xlarge", "MaxSize": 42,
                "SecurityGroupsIds": ["sg-1"], "Subnet": "subnet-1"},
        });
        for (key, value) in more.as_object().unwrap() {
            settings[key] = value.clone();
        }
        serde_json::from_value(settings).unwrap()
    }

    fn stack(id: &str, usable: bool) -> Stack {
        Stack {
            id: id.into(),
            status: "DELETE_FAILED".into(),
            usable,
            instance_ids: vec!["i-1".into()],
            classic_load_balancers: Vec::new(),
        }
    }

    #[test]
    fn only_the_stack_it_came_from_gives_a_managed_cluster_backends() {
        let cores = json!({"compute": 1, "drive": 1, "frontend": 1, "memory": 2_000_000_000});
        let (go, ours, given) = (
            settings(&json!({})),
            settings(&json!({"StackId": "arn:1", "Cores": cores})),
            settings(&json!({"Cores": cores})),
        );
        let used = |settings: &Settings, stack: Option<Stack>| {
            let own = own_stack(&Run::unwatched(), &prod(), settings, stack);
            own.map(|stack| stack.map(|stack| stack.id))
        };
        let one = || Some("arn:1".to_owned());
        assert_eq!(used(&ours, Some(stack("arn:1", true))).unwrap(), one());
        // The Go tool did not write down which it was.
        assert_eq!(used(&go, Some(stack("arn:1", true))).unwrap(), one());
        assert_eq!(used(&given, Some(stack("arn:1", true))).unwrap(), None);
        assert_eq!(used(&ours, Some(stack("arn:1", false))).unwrap(), None);
        assert_eq!(used(&ours, None).unwrap(), None);
        let error = used(&ours, Some(stack("arn:2", true))).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("arn:1") && said.contains("arn:2"), "{said}");
    }

    fn instance() -> Instance {
        let shape = settings(&json!({})).backends.shape("a", Vec::new());
        Instance {
            id: "i-1".into(),
            state: "running".into(),
            instance_type: shape.instance_type,
            image_id: shape.image_id,
            subnet_id: Some(shape.subnet_id),
            availability_zone: shape.availability_zone,
            profile_arn: Some(shape.instance_profile_arn),
            security_groups: shape.security_groups,
            metadata: Some(shape.metadata),
            ..Instance::default()
        }
    }

    #[test]
    fn a_newcomer_is_what_the_group_consists_of() {
        type Flaw = fn(&mut Instance);
        let shape = settings(&json!({})).backends.shape("a", Vec::new());
        assert!(check_newcomers(&[&instance()], &shape).is_ok());
        let flaws: [(&str, Flaw); 6] = [
            (
                "its instance type is m5.large, the group's i3en.2xlarge",
                |it| {
                    it.instance_type = "m5.large".into();
                },
            ),
            ("its image is ami-2, the group's ami-1", |it| {
                it.image_id = "ami-2".into();
            }),
            (
                "its subnet is subnet-2, the group's subnet-1; its zone is b, the group's a",
                |it| {
                    it.subnet_id = Some("subnet-2".into());
                    it.availability_zone = "b".into();
                },
            ),
            (
                "its security groups are sg-1 and sg-2, the group's sg-1",
                |it| {
                    it.security_groups.push("sg-2".into());
                },
            ),
            ("its instance profile is none, the group's arn:p", |it| {
                it.profile_arn = None;
            }),
            ("i-1 is stopped", |it| it.state = "stopped".into()),
        ];
        for (words, flaw) in flaws {
            let mut newcomer = instance();
            flaw(&mut newcomer);
            let error = check_newcomers(&[&newcomer], &shape)
                .unwrap_err()
                .to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn instances_that_offer_their_tags_are_refused_with_the_command() {
        let mut offering = instance();
        offering.metadata = Some(MetadataOptions {
            instance_metadata_tags: "enabled".into(),
            ..offering.metadata.unwrap()
        });
        assert!(check_metadata_tags(&[&instance()]).is_ok());
        let error = check_metadata_tags(&[&instance(), &offering])
            .unwrap_err()
            .to_string();
        let command = "`aws ec2 modify-instance-metadata-options --instance-id i-1 --instance-metadata-tags disabled`";
        assert!(error.contains(command), "{error}");
    }

    #[test]
    fn each_core_has_an_interface_and_management_has_one() {
        let machine = |max_interfaces| TypeFacts {
            architectures: Vec::new(),
            network_cards: 1,
            max_interfaces,
            default_cpu: None,
        };
        let cores = "compute=1,drive=1,frontend=1,memory=2000000000"
            .parse()
            .unwrap();
        let check = |most| check_interfaces("i3en.2xlarge", cores, Some(&machine(most)));
        assert!(check(4).is_ok());
        let error = check(3).unwrap_err().to_string();
        assert!(
            error.contains("has 3") && error.contains("--cores"),
            "{error}"
        );
    }

    fn request() -> ImportRequest {
        ImportRequest {
            cluster: prod(),
            instance_ids: None,
            user_tags: crate::resource::Tags::new(),
            private_subnet: false,
            additional_subnet: None,
            dns: None,
            use_dynamodb_endpoint: false,
            cores: None,
            lambda_binary: None,
            only_managed: false,
            verify: true,
        }
    }

    #[test]
    fn an_unknown_type_has_no_cores_until_the_flag_says_how_many() {
        let error = cores(&request(), None, "m5.xlarge").unwrap_err();
        assert!(error.to_string().contains("m5.xlarge"), "{error}");
        assert!(error.to_string().contains("--cores compute=N"), "{error}");
        let given: Option<Cores> = "compute=2,drive=1,frontend=1,memory=2000000000"
            .parse()
            .ok();
        let request = ImportRequest {
            cores: given,
            ..request()
        };
        assert_eq!(cores(&request, None, "m5.xlarge").ok(), given);
    }

    #[test]
    fn a_cluster_of_the_go_tool_keeps_the_go_tools_cores() {
        let request = request();
        let go = settings(&json!({}));
        let of = |request: &ImportRequest, settings, kind| cores(request, settings, kind).unwrap();
        let memory = of(&request, Some(&go), "i3en.2xlarge").memory;
        assert_eq!(memory, 31_796_436_575);
        assert_eq!(of(&request, None, "i3en.2xlarge").memory, 32_640_000_000);
        // It knew none of these, and gave them nothing.
        assert_eq!(
            of(&request, Some(&go), "i8ge.2xlarge").memory,
            32_640_000_000
        );
        let given = ImportRequest {
            cores: "compute=2,drive=1,frontend=0,memory=2000000000"
                .parse()
                .ok(),
            ..request
        };
        assert_eq!(of(&given, Some(&go), "i3en.2xlarge").compute, 2);
    }
}
