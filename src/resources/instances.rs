//! The cluster's instances: read by filter, never by id (one that is gone would fail the whole call), and changed
//! by id. They are the stack's or the group's to make, so this is no `Resource`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use aws_sdk_ec2::types::{
    AttributeBooleanValue, Filter, InstanceAttributeName, NetworkInfo,
    NetworkInterfaceAttachmentChanges, ProcessorInfo, Reservation, Tag,
};
use futures::future::try_join_all;

use crate::aws::{
    Answer, Aws, AwsError, CHANGES_AT_ONCE, Metered, Probe, in_batches, join_some, wait_until,
};
use crate::cluster::names::{CLUSTER_TAG, Cluster};
use crate::cluster::spec::{CpuOptions, MetadataOptions, Placement, Shape, Volume};
use crate::resource::{Settle, Tags, gather};
use crate::run::some_of;

/// Values a filter takes. Source: EC2's API reference.
const FILTER_VALUES: usize = 200;
/// Instances in one answer. EC2 takes 1000.
const PAGE: i32 = 200;
/// Resources tagged with one call: EC2 takes 1000, a refusal should not hit as many.
const TAGGED_AT_ONCE: usize = 200;
/// EC2 takes 1000; its guide asks for batches, so that one failure does not hold up the rest.
const TERMINATED_AT_ONCE: usize = 50;
/// Reads of single instances under way: EC2 lets more of them through than of changes.
const READS_AT_ONCE: usize = 32;
const TERMINATED_DEADLINE: Duration = Duration::from_secs(1200);

const NO_INSTANCE: &[&str] = &["InvalidInstanceID.NotFound"];
/// Also what EC2 says of attributes while it still shows an instance that is terminated.
const NO_INSTANCE_TO_CHANGE: &[&str] = &["InvalidInstanceID.NotFound", "IncorrectInstanceState"];
const NO_INTERFACE: &[&str] = &[
    "InvalidNetworkInterfaceID.NotFound",
    "InvalidAttachmentID.NotFound",
];

/// An instance in AWS.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// `pending`, `running`, `stopping`, `stopped`, `shutting-down`, `terminated`.
    pub state: String,
    /// Such as `i3en.2xlarge`.
    pub instance_type: String,
    /// AMI id.
    pub image_id: String,
    /// Subnet id; `None` once it is terminated.
    pub subnet_id: Option<String>,
    /// VPC id; `None` once it is terminated.
    pub vpc_id: Option<String>,
    /// Its zone.
    pub availability_zone: String,
    /// Its primary private address.
    pub private_ip: Option<String>,
    /// Name of its key pair.
    pub key_name: Option<String>,
    /// ARN of its instance profile.
    pub profile_arn: Option<String>,
    /// Security group ids of its first interface, sorted.
    pub security_groups: Vec<String>,
    /// Name of its root device.
    pub root_device: Option<String>,
    /// Its EBS volumes.
    pub devices: Vec<Device>,
    /// Placement group and tenancy.
    pub placement: Placement,
    /// Its cores and threads.
    pub cpu: Option<CpuOptions>,
    /// How its metadata service answers.
    pub metadata: Option<MetadataOptions>,
    /// Whether it is EBS-optimised.
    pub ebs_optimized: bool,
    /// When it was launched, or last started.
    pub launched: Option<SystemTime>,
    /// Its tags.
    pub tags: Tags,
    /// Its network interfaces, by device index.
    pub interfaces: Vec<Interface>,
}

impl Instance {
    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.state == "running"
    }

    /// Whether it is gone, or going and never comes back.
    pub fn is_terminated(&self) -> bool {
        matches!(self.state.as_str(), "shutting-down" | "terminated")
    }
}

/// An EBS volume of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Such as `/dev/sdp`.
    pub name: String,
    /// Volume id.
    pub volume_id: String,
    /// Whether it goes with the instance.
    pub delete_on_termination: bool,
}

/// A network interface of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its id.
    pub id: String,
    /// The instance it belongs to.
    pub instance_id: String,
    /// Id of the attachment.
    pub attachment_id: String,
    /// 0 for the first.
    pub device_index: i32,
    /// Whether it goes with the instance.
    pub delete_on_termination: bool,
    /// Such as `wekactl C` where user data made it.
    pub description: String,
}

/// A network interface by itself, with what only its own description says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedInterface {
    /// The interface.
    pub interface: Interface,
    /// Whether an AWS service manages it: then it is that service's to remove.
    pub is_managed: bool,
    /// Its tags: one of a stack has `aws:cloudformation:stack-id`.
    pub tags: Tags,
}

/// An EBS volume in AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// GiB.
    pub size: i32,
    /// `gp3`, …
    pub volume_type: String,
    /// Operations a second, for every type that has a number, provisioned or not.
    pub iops: Option<i32>,
    /// MiB a second.
    pub throughput: Option<i32>,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// ARN of its KMS key.
    pub kms_key_id: Option<String>,
}

/// What EC2 says of an instance type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeFacts {
    /// `x86_64`, `arm64`.
    pub architectures: Vec<String>,
    /// Network cards.
    pub network_cards: u32,
    /// Network interfaces in all.
    pub max_interfaces: u32,
    /// Cores and threads of an instance launched without CPU options.
    pub default_cpu: Option<CpuOptions>,
}

/// Why an instance can not be the model of new ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ShapeError {
    #[error("instance {id} has no instance profile: new instances could not join without its role")]
    NoProfile { id: String },
    #[error("instance {id} has no root volume on EBS")]
    NoRootVolume { id: String },
    #[error("instance {id}: volume {volume_id} at {device} can not be found")]
    NoVolume {
        id: String,
        device: String,
        volume_id: String,
    },
    #[error("instance {id} has no {what}: it is {state}")]
    Missing {
        id: String,
        what: &'static str,
        state: String,
    },
}

/// A field in which instances that should be alike differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// "instance types", "images", "subnets", "security groups", "instance profiles".
    pub field: &'static str,
    /// For each value the ids of the instances that have it.
    pub values: BTreeMap<String, Vec<String>>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let values: Vec<String> = self
            .values
            .iter()
            .map(|(value, ids)| format!("{value} ({})", some_of(ids)))
            .collect();
        write!(formatter, "different {}: {}", self.field, values.join("; "))
    }
}

/// The instances of these ids that AWS still knows, in whatever state, sorted by id.
///
/// # Errors
/// AWS's failures.
pub async fn describe(aws: &Aws, ids: &[String]) -> Result<Vec<Instance>> {
    let batches = ids
        .chunks(FILTER_VALUES)
        .map(|batch| instances(aws, filter("instance-id", batch)));
    Ok(by_id(try_join_all(batches).await?.into_iter().flatten()))
}

/// The instances that carry a tag with one of these very values, in whatever state, sorted by id.
///
/// # Errors
/// AWS's failures.
pub async fn describe_by_tag_values(
    aws: &Aws,
    key: &str,
    values: &[String],
) -> Result<Vec<Instance>> {
    let found = instances(aws, filter(&format!("tag:{key}"), values)).await?;
    // Filters take wildcards, and what is found by a tag may be changed for it: the values are compared again.
    let carry = found.into_iter().filter(|instance| {
        instance
            .tags
            .get(key)
            .is_some_and(|value| values.contains(value))
    });
    Ok(by_id(carry))
}

/// The instances that carry this cluster's tag, in whatever state, sorted by id.
///
/// # Errors
/// AWS's failures.
pub async fn describe_by_tag(aws: &Aws, cluster: &Cluster) -> Result<Vec<Instance>> {
    describe_by_tag_values(aws, CLUSTER_TAG, std::slice::from_ref(&cluster.name)).await
}

/// The volumes of these ids that AWS knows, by id.
///
/// # Errors
/// AWS's failures.
pub async fn volumes(aws: &Aws, ids: &[String]) -> Result<BTreeMap<String, Disk>> {
    let batches = ids.chunks(FILTER_VALUES).map(async |batch| {
        aws.ec2()
            .describe_volumes()
            .filters(filter("volume-id", batch))
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .answer()
    });
    let found = try_join_all(batches).await?;
    Ok(found
        .iter()
        .flatten()
        .map(|volume| {
            let disk = Disk {
                size: volume.size().unwrap_or_default(),
                volume_type: volume
                    .volume_type()
                    .map_or_else(String::new, ToString::to_string),
                iops: volume.iops(),
                throughput: volume.throughput(),
                encrypted: volume.encrypted().unwrap_or(false),
                kms_key_id: volume.kms_key_id().map(ToOwned::to_owned),
            };
            (volume.volume_id().unwrap_or_default().to_owned(), disk)
        })
        .collect())
}

/// The network interfaces that are attached to these instances.
///
/// # Errors
/// AWS's failures.
pub async fn interfaces(aws: &Aws, ids: &[String]) -> Result<Vec<OwnedInterface>> {
    let batches = ids.chunks(FILTER_VALUES).map(async |batch| {
        aws.ec2()
            .describe_network_interfaces()
            .filters(filter("attachment.instance-id", batch))
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await
            .answer()
    });
    let found = try_join_all(batches).await?;
    Ok(found
        .iter()
        .flatten()
        .filter_map(|found| {
            let attachment = found.attachment()?;
            Some(OwnedInterface {
                interface: Interface {
                    id: found.network_interface_id()?.to_owned(),
                    instance_id: attachment.instance_id()?.to_owned(),
                    attachment_id: attachment.attachment_id()?.to_owned(),
                    device_index: attachment.device_index().unwrap_or_default(),
                    delete_on_termination: attachment.delete_on_termination().unwrap_or(false),
                    description: found.description().unwrap_or_default().to_owned(),
                },
                is_managed: found.requester_managed().unwrap_or(false),
                tags: tag_map(found.tag_set()),
            })
        })
        .collect())
}

/// What EC2 says of an instance type; `None`: this region has none of that name.
///
/// # Errors
/// AWS's failures.
pub async fn type_facts(aws: &Aws, instance_type: &str) -> Result<Option<TypeFacts>> {
    let found = aws
        .ec2()
        .describe_instance_types()
        .filters(
            Filter::builder()
                .name("instance-type")
                .values(instance_type)
                .build(),
        )
        .into_paginator()
        .items()
        .send()
        .try_collect()
        .await
        .answer()?;
    Ok(found.first().map(|facts| {
        let network = facts.network_info();
        let number = |value: Option<i32>| value.and_then(|it| u32::try_from(it).ok()).unwrap_or(0);
        TypeFacts {
            architectures: facts
                .processor_info()
                .map(ProcessorInfo::supported_architectures)
                .unwrap_or_default()
                .iter()
                .map(ToString::to_string)
                .collect(),
            network_cards: number(network.and_then(NetworkInfo::maximum_network_cards)).max(1),
            max_interfaces: number(network.and_then(NetworkInfo::maximum_network_interfaces)),
            default_cpu: facts.v_cpu_info().and_then(|cpu| {
                Some(CpuOptions {
                    cores: cpu.default_cores()?,
                    threads_per_core: cpu.default_threads_per_core()?,
                })
            }),
        }
    }))
}

/// Which of these instances are protected from termination through the API; those that are gone are left out.
///
/// # Errors
/// AWS's failures.
pub async fn termination_protected(aws: &Aws, ids: &[String]) -> Result<BTreeMap<String, bool>> {
    let asked = ids.iter().map(async |id| {
        let is_protected = Box::pin(is_termination_protected(aws, id)).await?;
        anyhow::Ok(is_protected.map(|is_protected| (id.clone(), is_protected)))
    });
    let asked = join_some(READS_AT_ONCE, asked).await.settle()?;
    Ok(asked.into_iter().flatten().collect())
}

/// `None`: it is gone. EC2 tells of one instance at a time, and not where it describes them.
async fn is_termination_protected(aws: &Aws, id: &str) -> Result<Option<bool>> {
    aws.pace(Metered::DescribeInstanceAttribute, 1).await?;
    let answer = aws
        .ec2()
        .describe_instance_attribute()
        .instance_id(id)
        .attribute(InstanceAttributeName::DisableApiTermination)
        .send()
        .await
        .if_found(NO_INSTANCE)?;
    Ok(answer.map(|answer| {
        let value = answer
            .disable_api_termination()
            .and_then(AttributeBooleanValue::value);
        value.unwrap_or(false)
    }))
}

/// Protects an instance from termination through the API, or ends that; for one that is gone it has ended.
///
/// # Errors
/// AWS's failures.
pub async fn set_termination_protection(aws: &Aws, id: &str, is_protected: bool) -> Result<()> {
    aws.pace(Metered::ModifyInstanceAttribute, 1).await?;
    let request = aws
        .ec2()
        .modify_instance_attribute()
        .instance_id(id)
        .disable_api_termination(AttributeBooleanValue::builder().value(is_protected).build());
    let answer = Box::pin(request.send()).await;
    if is_protected {
        answer.answer()?;
    } else {
        answer.if_found(NO_INSTANCE_TO_CHANGE)?;
    }
    Ok(())
}

/// Writes tags on instances, or on anything else that EC2 tags.
///
/// # Errors
/// AWS's failures, all of them; one id that is gone does not keep the others.
pub async fn tag(aws: &Aws, ids: &[String], tags: &Tags) -> Result<()> {
    let tags = &ec2_tags(tags);
    let sizes = (TAGGED_AT_ONCE, CHANGES_AT_ONCE);
    let errors = in_batches(&aws.run, "tagging", ids, sizes, |batch| async move {
        aws.pace(Metered::CreateTags, 1).await?;
        aws.ec2()
            .create_tags()
            .set_resources(Some(batch))
            .set_tags(Some(tags.clone()))
            .send()
            .await
            .answer()?;
        Ok(())
    });
    gather(errors.await)
}

/// Takes tags away, whatever their values; those that are gone have none.
///
/// # Errors
/// AWS's failures, all of them.
pub async fn untag(aws: &Aws, ids: &[String], keys: &[String]) -> Result<()> {
    // `DeleteTags` without any tag takes all of them away.
    if keys.is_empty() {
        return Ok(());
    }
    let tags: Vec<Tag> = keys
        .iter()
        .map(|key| Tag::builder().key(key).build())
        .collect();
    let tags = &tags;
    let sizes = (TAGGED_AT_ONCE, CHANGES_AT_ONCE);
    let errors = in_batches(&aws.run, "untagging", ids, sizes, |batch| async move {
        aws.pace(Metered::DeleteTags, 1).await?;
        let answer = aws
            .ec2()
            .delete_tags()
            .set_resources(Some(batch.clone()))
            .set_tags(Some(tags.clone()))
            .send()
            .await;
        gone_alone_is_fine(&batch, answer.answer().map(drop))
    });
    gather(errors.await)
}

/// Orders the termination of all that can be terminated, and returns why the others can not. One protected instance
/// fails its whole batch, so the batch is halved. Those that are gone are terminated.
pub async fn terminate(aws: &Aws, ids: &[String]) -> Vec<anyhow::Error> {
    let sizes = (TERMINATED_AT_ONCE, CHANGES_AT_ONCE);
    let doing = "terminating instance";
    in_batches(&aws.run, doing, ids, sizes, |batch| async move {
        aws.pace(Metered::TerminateInstances, batch.len()).await?;
        let answer = aws
            .ec2()
            .terminate_instances()
            .set_instance_ids(Some(batch.clone()))
            .send()
            .await;
        gone_alone_is_fine(&batch, answer.answer().map(drop))
    })
    .await
}

/// In a batch the one that is gone fails the others: by itself it is as it shall be.
fn gone_alone_is_fine(batch: &[String], answer: Result<(), AwsError>) -> Result<()> {
    match answer {
        Err(error) if batch.len() == 1 && error.is(NO_INSTANCE) => Ok(()),
        answer => Ok(answer?),
    }
}

/// Waits until AWS says of every one of these instances that it is terminated, or does not know it any more.
///
/// # Errors
/// AWS's failures; the deadline.
pub async fn wait_until_terminated(aws: &Aws, ids: &[String]) -> Result<()> {
    let what = "the instances to be terminated";
    wait_until(&aws.run, what, TERMINATED_DEADLINE, || async {
        let left = describe(aws, ids)
            .await?
            .into_iter()
            .filter(|instance| instance.state != "terminated")
            .count();
        Ok(if left == 0 {
            Probe::Ready(())
        } else {
            Probe::Pending(format!("{left} of {} are left", ids.len()))
        })
    })
    .await
}

/// Makes interfaces go with their instances; those that are gone have.
///
/// # Errors
/// AWS's failures, all of them.
pub async fn set_delete_on_termination(aws: &Aws, interfaces: &[Interface]) -> Result<()> {
    let changed = interfaces.iter().map(async |interface| {
        aws.pace(Metered::ModifyNetworkInterfaceAttribute, 1)
            .await?;
        aws.ec2()
            .modify_network_interface_attribute()
            .network_interface_id(&interface.id)
            .attachment(
                NetworkInterfaceAttachmentChanges::builder()
                    .attachment_id(&interface.attachment_id)
                    .delete_on_termination(true)
                    .build(),
            )
            .send()
            .await
            .if_found(NO_INTERFACE)
            .with_context(|| format!("making interface {} go with its instance", interface.id))?;
        Ok(())
    });
    join_some(CHANGES_AT_ONCE, changed)
        .await
        .settle()
        .map(|_: Vec<()>| ())
}

/// What every instance of the cluster carries: the host group's tags and the name. Written explicitly on attached
/// instances, which Auto Scaling does not tag; `Name` is the group's there too, as the Go tool wrote it.
pub fn instance_tags(cluster: &Cluster, user: &Tags) -> Tags {
    let mut tags = cluster.hostgroup_tags(user);
    tags.insert("Name".to_owned(), cluster.instance_name());
    tags
}

/// That an instance has what nothing else can replace: an instance profile, whose ARN is returned, and a root volume.
///
/// # Errors
/// What it lacks.
pub fn check_model(instance: &Instance) -> Result<&str, ShapeError> {
    let id = || instance.id.clone();
    let profile = instance
        .profile_arn
        .as_deref()
        .ok_or_else(|| ShapeError::NoProfile { id: id() })?;
    let root = instance.root_device.as_ref();
    if !root.is_some_and(|root| instance.devices.iter().any(|device| device.name == *root)) {
        return Err(ShapeError::NoRootVolume { id: id() });
    }
    Ok(profile)
}

/// The instance as a model for new ones. `default_cpu` is the type's: only other CPU options are kept.
///
/// # Errors
/// What it lacks.
pub fn shape_of(
    instance: &Instance,
    disks: &BTreeMap<String, Disk>,
    default_cpu: Option<&CpuOptions>,
) -> Result<Shape, ShapeError> {
    let id = || instance.id.clone();
    let missing = |what| ShapeError::Missing {
        id: id(),
        what,
        state: instance.state.clone(),
    };
    let instance_profile_arn = check_model(instance)?.to_owned();
    let subnet_id = instance
        .subnet_id
        .clone()
        .ok_or_else(|| missing("subnet"))?;
    let metadata = instance
        .metadata
        .clone()
        .ok_or_else(|| missing("metadata options"))?;
    let mut volumes = instance
        .devices
        .iter()
        .map(|device| {
            let disk = disks
                .get(&device.volume_id)
                .ok_or_else(|| ShapeError::NoVolume {
                    id: id(),
                    device: device.name.clone(),
                    volume_id: device.volume_id.clone(),
                })?;
            Ok(volume(device, disk))
        })
        .collect::<Result<Vec<_>, _>>()?;
    volumes.sort_by(|one, other| one.device.cmp(&other.device));
    Ok(Shape {
        image_id: instance.image_id.clone(),
        instance_type: instance.instance_type.clone(),
        key_name: instance.key_name.clone(),
        instance_profile_arn,
        subnet_id,
        availability_zone: instance.availability_zone.clone(),
        security_groups: instance.security_groups.clone(),
        volumes,
        placement: instance.placement.clone(),
        cpu: instance.cpu.clone().filter(|cpu| Some(cpu) != default_cpu),
        ebs_optimized: instance.ebs_optimized,
        metadata,
    })
}

/// EC2 states operations a second also for types that are not given any, and refuses them for those.
fn volume(device: &Device, disk: &Disk) -> Volume {
    let takes_iops = matches!(disk.volume_type.as_str(), "gp3" | "io1" | "io2");
    Volume {
        device: device.name.clone(),
        size: disk.size,
        volume_type: disk.volume_type.clone(),
        iops: disk.iops.filter(|_| takes_iops),
        throughput: disk.throughput.filter(|_| disk.volume_type == "gp3"),
        encrypted: disk.encrypted,
        kms_key_id: disk.kms_key_id.clone().filter(|_| disk.encrypted),
        delete_on_termination: device.delete_on_termination,
    }
}

/// In what instances that have to be alike differ.
pub fn differences(instances: &[Instance]) -> Vec<Difference> {
    type Value = fn(&Instance) -> String;
    let fields: [(&'static str, Value); 5] = [
        ("instance types", |instance| instance.instance_type.clone()),
        ("images", |instance| instance.image_id.clone()),
        ("subnets", |instance| {
            instance.subnet_id.clone().unwrap_or_else(|| "none".into())
        }),
        ("security groups", |instance| {
            instance.security_groups.join(" and ")
        }),
        ("instance profiles", |instance| {
            instance
                .profile_arn
                .clone()
                .unwrap_or_else(|| "none".into())
        }),
    ];
    fields
        .into_iter()
        .filter_map(|(field, value)| {
            let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for instance in instances {
                values
                    .entry(value(instance))
                    .or_default()
                    .push(instance.id.clone());
            }
            (values.len() > 1).then_some(Difference { field, values })
        })
        .collect()
}

/// Tags in EC2's form.
pub(super) fn ec2_tags(tags: &Tags) -> Vec<Tag> {
    tags.iter()
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect()
}

/// Tags from EC2's form.
pub(super) fn tag_map(tags: &[Tag]) -> Tags {
    tags.iter()
        .map(|tag| {
            (
                tag.key().unwrap_or_default().to_owned(),
                tag.value().unwrap_or_default().to_owned(),
            )
        })
        .collect()
}

fn filter(name: &str, values: &[String]) -> Filter {
    Filter::builder()
        .name(name)
        .set_values(Some(values.to_vec()))
        .build()
}

/// Page by page: what EC2 says of a thousand instances is many times what is kept of it.
async fn instances(aws: &Aws, filter: Filter) -> Result<Vec<Instance>> {
    let mut pages = aws
        .ec2()
        .describe_instances()
        .filters(filter)
        .into_paginator()
        .page_size(PAGE)
        .send();
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.answer()?;
        let instances = page.reservations().iter().flat_map(Reservation::instances);
        found.extend(instances.map(observed));
    }
    Ok(found)
}

fn by_id(instances: impl Iterator<Item = Instance>) -> Vec<Instance> {
    let unique: BTreeMap<String, Instance> = instances
        .map(|instance| (instance.id.clone(), instance))
        .collect();
    unique.into_values().collect()
}

fn observed(instance: &aws_sdk_ec2::types::Instance) -> Instance {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let id = text(instance.instance_id());
    let placement = instance.placement();
    let security_groups: BTreeSet<&str> = instance
        .security_groups()
        .iter()
        .filter_map(|group| group.group_id())
        .collect();
    let devices = instance
        .block_device_mappings()
        .iter()
        .filter_map(|mapping| {
            let disk = mapping.ebs()?;
            Some(Device {
                name: text(mapping.device_name()),
                volume_id: text(disk.volume_id()),
                delete_on_termination: disk.delete_on_termination().unwrap_or(false),
            })
        });
    let mut interfaces: Vec<Interface> = instance
        .network_interfaces()
        .iter()
        .filter_map(|interface| {
            let attachment = interface.attachment()?;
            Some(Interface {
                id: text(interface.network_interface_id()),
                instance_id: id.clone(),
                attachment_id: text(attachment.attachment_id()),
                device_index: attachment.device_index().unwrap_or_default(),
                delete_on_termination: attachment.delete_on_termination().unwrap_or(false),
                description: text(interface.description()),
            })
        })
        .collect();
    interfaces.sort_by_key(|interface| interface.device_index);
    Instance {
        state: instance
            .state()
            .and_then(|state| state.name())
            .map_or_else(String::new, ToString::to_string),
        instance_type: instance
            .instance_type()
            .map_or_else(String::new, ToString::to_string),
        image_id: text(instance.image_id()),
        subnet_id: instance.subnet_id().map(ToOwned::to_owned),
        vpc_id: instance.vpc_id().map(ToOwned::to_owned),
        availability_zone: text(placement.and_then(|it| it.availability_zone())),
        private_ip: instance.private_ip_address().map(ToOwned::to_owned),
        key_name: instance.key_name().map(ToOwned::to_owned),
        profile_arn: instance
            .iam_instance_profile()
            .and_then(|profile| profile.arn().map(ToOwned::to_owned)),
        security_groups: security_groups.into_iter().map(ToOwned::to_owned).collect(),
        root_device: instance.root_device_name().map(ToOwned::to_owned),
        devices: devices.collect(),
        placement: Placement {
            group: placement
                .and_then(|it| it.group_name())
                .filter(|group| !group.is_empty())
                .map(ToOwned::to_owned),
            partition: placement.and_then(aws_sdk_ec2::types::Placement::partition_number),
            tenancy: placement
                .and_then(|it| it.tenancy())
                .map(ToString::to_string)
                .filter(|tenancy| tenancy != "default"),
        },
        cpu: instance.cpu_options().and_then(|cpu| {
            Some(CpuOptions {
                cores: cpu.core_count()?,
                threads_per_core: cpu.threads_per_core()?,
            })
        }),
        metadata: instance.metadata_options().map(|options| MetadataOptions {
            http_tokens: options
                .http_tokens()
                .map_or_else(|| "optional".to_owned(), ToString::to_string),
            http_endpoint: options
                .http_endpoint()
                .map_or_else(|| "enabled".to_owned(), ToString::to_string),
            hop_limit: options.http_put_response_hop_limit().unwrap_or(1),
            http_protocol_ipv6: options
                .http_protocol_ipv6()
                .map_or_else(|| "disabled".to_owned(), ToString::to_string),
            instance_metadata_tags: options
                .instance_metadata_tags()
                .map_or_else(|| "disabled".to_owned(), ToString::to_string),
        }),
        ebs_optimized: instance.ebs_optimized().unwrap_or(false),
        launched: instance
            .launch_time()
            .and_then(|time| SystemTime::try_from(*time).ok()),
        tags: tag_map(instance.tags()),
        interfaces,
        id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str) -> Instance {
        Instance {
            id: id.into(),
            state: "running".into(),
            instance_type: "i3en.2xlarge".into(),
            image_id: "ami-1".into(),
            subnet_id: Some("subnet-1".into()),
            availability_zone: "eu-central-1a".into(),
            profile_arn: Some("arn:profile".into()),
            security_groups: vec!["sg-1".into(), "sg-2".into()],
            root_device: Some("/dev/xvda".into()),
            devices: [("/dev/xvda", "vol-1"), ("/dev/sdp", "vol-2")]
                .map(|(name, volume_id)| Device {
                    name: name.into(),
                    volume_id: volume_id.into(),
                    delete_on_termination: true,
                })
                .to_vec(),
            cpu: Some(CpuOptions {
                cores: 4,
                threads_per_core: 2,
            }),
            metadata: Some(MetadataOptions {
                http_tokens: "required".into(),
                http_endpoint: "enabled".into(),
                hop_limit: 2,
                http_protocol_ipv6: "disabled".into(),
                instance_metadata_tags: "enabled".into(),
            }),
            ..Instance::default()
        }
    }

    fn disk(volume_type: &str) -> Disk {
        Disk {
            size: 100,
            volume_type: volume_type.into(),
            iops: Some(3000),
            throughput: Some(125),
            encrypted: false,
            kms_key_id: None,
        }
    }

    fn disks() -> BTreeMap<String, Disk> {
        BTreeMap::from([("vol-1".into(), disk("gp2")), ("vol-2".into(), disk("gp3"))])
    }

    #[test]
    fn a_shape_has_what_the_instance_has() {
        let shape = shape_of(&instance("i-1"), &disks(), None).unwrap();
        let volumes: Vec<_> = shape
            .volumes
            .iter()
            .map(|volume| (volume.device.as_str(), volume.iops, volume.throughput))
            .collect();
        assert_eq!(
            volumes,
            [
                ("/dev/sdp", Some(3000), Some(125)),
                ("/dev/xvda", None, None)
            ]
        );
        assert_eq!(shape.cpu, instance("i-1").cpu);
        assert_eq!(shape.metadata.hop_limit, 2);
    }

    #[test]
    fn only_cpu_options_that_are_not_the_types_are_kept() {
        let mut model = instance("i-1");
        let default = model.cpu.clone();
        let cpu = |model: &Instance| shape_of(model, &disks(), default.as_ref()).unwrap().cpu;
        assert_eq!(cpu(&model), None);
        model.cpu = Some(CpuOptions {
            cores: 4,
            threads_per_core: 1,
        });
        assert_eq!(cpu(&model), model.cpu);
    }

    #[test]
    fn what_a_model_lacks_is_named() {
        type Flaw = fn(&mut Instance);
        let flaws: [(&str, Flaw); 5] = [
            (
                "instance i-1 has no instance profile: new instances could not join without its role",
                |it| it.profile_arn = None,
            ),
            ("instance i-1 has no root volume on EBS", |it| {
                it.devices.retain(|device| device.name != "/dev/xvda");
            }),
            ("instance i-1 has no root volume on EBS", |it| {
                it.root_device = None;
            }),
            (
                "instance i-1: volume vol-9 at /dev/xvda can not be found",
                |it| it.devices[0].volume_id = "vol-9".into(),
            ),
            ("instance i-1 has no subnet: it is terminated", |it| {
                it.subnet_id = None;
                it.state = "terminated".into();
            }),
        ];
        for (message, flaw) in flaws {
            let mut model = instance("i-1");
            flaw(&mut model);
            let error = shape_of(&model, &disks(), None).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn differences_name_value_and_instances() {
        let mut all: Vec<_> = ["i-1", "i-2", "i-3"].map(instance).to_vec();
        assert_eq!(differences(&all), []);
        all[1].instance_type = "i3en.3xlarge".into();
        all[2].subnet_id = Some("subnet-2".into());
        all[2].security_groups.pop();
        all[0].profile_arn = Some("arn:other".into());
        let texts: Vec<_> = differences(&all).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "different instance types: i3en.2xlarge (i-1, i-3); i3en.3xlarge (i-2)",
                "different subnets: subnet-1 (i-1, i-2); subnet-2 (i-3)",
                "different security groups: sg-1 (i-3); sg-1 and sg-2 (i-1, i-2)",
                "different instance profiles: arn:other (i-1); arn:profile (i-2, i-3)",
            ]
        );
    }
}
