//! The launch template of the backends: what a new instance is like, as one of the stack's is.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use aws_sdk_ec2::types::{
    LaunchTemplateBlockDeviceMappingRequest, LaunchTemplateCpuOptionsRequest,
    LaunchTemplateEbsBlockDeviceRequest, LaunchTemplateIamInstanceProfileSpecificationRequest,
    LaunchTemplateInstanceMetadataOptionsRequest,
    LaunchTemplateInstanceNetworkInterfaceSpecificationRequest, LaunchTemplatePlacementRequest,
    LaunchTemplateTagSpecificationRequest, LaunchTemplateVersion, RequestLaunchTemplateData,
    ResourceType, ResponseLaunchTemplateData, ShutdownBehavior, TagSpecification,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::instances::{ec2_tags, tag_map};
use crate::aws::{Answer, Aws};
use crate::cluster::names::Cluster;
use crate::cluster::spec::{CpuOptions, Placement, Shape, Volume};
use crate::resource::{Diff, Known, Resource, Tags};
use crate::run::{Change, Kind};

/// GiB that the join script and Weka need on the root volume at least.
const MIN_ROOT_SIZE: i32 = 16;
/// The root device of an HVM image is one of these.
/// Source: EC2 user guide, "Device names for volumes on Amazon EC2 instances".
const ROOT_DEVICES: &[&str] = &["/dev/xvda", "/dev/sda1"];

const GONE: &[&str] = &[
    "InvalidLaunchTemplateName.NotFoundException",
    "InvalidLaunchTemplateId.NotFound",
    "InvalidLaunchTemplateId.NotFoundException",
];

/// `wekactl-C-Backends`.
#[derive(Debug, Clone)]
pub struct LaunchTemplate {
    /// Its name.
    pub name: String,
    /// What the stack's backends are like.
    pub shape: Shape,
    /// Whether new instances get a public address: not with `--private-subnet`.
    pub public_address: bool,
    /// Whether gp2 volumes become gp3: see [`has_gp3`].
    pub has_gp3: bool,
    /// Whether the version there is stays, whatever it says: only tags are compared.
    pub stays: bool,
    /// Tags of the instances it launches.
    pub instance_tags: Tags,
    /// Tags of their volumes.
    pub volume_tags: Tags,
    /// The script of their first boot; contains the API key.
    pub user_data: Known<SecretString>,
    /// Its own tags.
    pub tags: Tags,
}

/// A launch template in AWS.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The latest version: the one the group has to use, by this number.
    pub version: i64,
    /// The version that `$Default` means.
    pub default_version: i64,
    /// Its tags.
    pub tags: Tags,
    data: Data,
    user_data: SecretString,
}

/// Whether the region has gp3 volumes. All of the public, Chinese and `GovCloud` partitions do; what an isolated
/// region has can not be looked up, and gp2 is everywhere.
pub fn has_gp3(region: &str) -> bool {
    !region.contains("-iso")
}

/// What a version says besides user data, in the same form whether wanted or found.
#[derive(Debug, Clone, Default, PartialEq)]
struct Data {
    image_id: Option<String>,
    instance_type: Option<String>,
    key_name: Option<String>,
    instance_profile: Option<String>,
    volumes: Vec<Volume>,
    disable_api_termination: bool,
    shutdown_behavior: String,
    interfaces: Vec<Interface>,
    metadata: Metadata,
    placement: Placement,
    cpu: Option<CpuOptions>,
    ebs_optimized: bool,
    instance_tags: Tags,
    volume_tags: Tags,
    /// What was never ours and would change what is launched: spot, another choice of types, groups beside the interface.
    foreign: Vec<&'static str>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Interface {
    device_index: i32,
    public_address: Option<bool>,
    subnet_id: Option<String>,
    groups: Vec<String>,
    delete_on_termination: bool,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Metadata {
    http_tokens: Option<String>,
    http_endpoint: Option<String>,
    hop_limit: Option<i32>,
    http_protocol_ipv6: Option<String>,
    instance_metadata_tags: Option<String>,
}

impl LaunchTemplate {
    /// The version that the group has to use: in a dry run, one that is still to be made is not known.
    pub fn version(&self, made: &Known<Observed>) -> Known<i64> {
        match made {
            Known::Value(found) if !self.changes(found).iter().any(in_a_version) => {
                Known::Value(found.version)
            }
            _ => Known::AfterApply,
        }
    }

    fn data(&self) -> Data {
        let Shape {
            image_id,
            instance_type,
            key_name,
            instance_profile_arn,
            subnet_id,
            security_groups,
            volumes,
            placement,
            cpu,
            ebs_optimized,
            metadata,
            availability_zone: _,
        } = &self.shape;
        Data {
            image_id: Some(image_id.clone()),
            instance_type: Some(instance_type.clone()),
            key_name: key_name.clone(),
            instance_profile: Some(instance_profile_arn.clone()),
            volumes: volumes
                .iter()
                .map(|volume| launched(volume, self.has_gp3))
                .collect(),
            disable_api_termination: true,
            shutdown_behavior: ShutdownBehavior::Stop.as_str().to_owned(),
            interfaces: vec![Interface {
                device_index: 0,
                public_address: Some(self.public_address),
                subnet_id: Some(subnet_id.clone()),
                groups: sorted(security_groups),
                delete_on_termination: true,
            }],
            metadata: Metadata {
                http_tokens: Some(metadata.http_tokens.clone()),
                http_endpoint: Some(metadata.http_endpoint.clone()),
                hop_limit: Some(metadata.hop_limit),
                http_protocol_ipv6: Some(metadata.http_protocol_ipv6.clone()),
                instance_metadata_tags: Some(metadata.instance_metadata_tags.clone()),
            },
            placement: normal(placement.clone()),
            cpu: cpu.clone(),
            ebs_optimized: *ebs_optimized,
            instance_tags: self.instance_tags.clone(),
            volume_tags: self.volume_tags.clone(),
            foreign: Vec::new(),
        }
    }
}

impl Resource for LaunchTemplate {
    const KIND: Kind = Kind::LaunchTemplate;
    type Observed = Observed;

    fn name(&self) -> &str {
        &self.name
    }

    async fn find(aws: &Aws, _cluster: &Cluster, name: &str) -> Result<Vec<Observed>> {
        let (templates, versions) = tokio::join!(
            aws.ec2()
                .describe_launch_templates()
                .launch_template_names(name)
                .send(),
            aws.ec2()
                .describe_launch_template_versions()
                .launch_template_name(name)
                .versions("$Latest")
                .versions("$Default")
                .send(),
        );
        let templates = templates
            .if_found(GONE)?
            .and_then(|answer| answer.launch_templates)
            .unwrap_or_default();
        let latest = versions
            .if_found(GONE)?
            .and_then(|answer| answer.launch_template_versions)
            .unwrap_or_default()
            .into_iter()
            .max_by_key(LaunchTemplateVersion::version_number)
            .and_then(|version| version.launch_template_data)
            .unwrap_or_else(|| ResponseLaunchTemplateData::builder().build());
        Ok(templates
            .iter()
            .map(|template| Observed {
                id: template.launch_template_id().unwrap_or_default().to_owned(),
                name: name.to_owned(),
                version: template.latest_version_number().unwrap_or_default(),
                default_version: template.default_version_number().unwrap_or_default(),
                tags: tag_map(template.tags()),
                data: observed(&latest),
                user_data: decoded(latest.user_data().unwrap_or_default()),
            })
            .collect())
    }

    fn tags(found: &Observed) -> Option<&Tags> {
        Some(&found.tags)
    }

    fn changes(&self, found: &Observed) -> Vec<Change> {
        if self.stays {
            return Diff::new().tags(&found.tags, &self.tags).done();
        }
        let (is, wanted) = (&found.data, &self.data());
        let interface = |data: &Data| data.interfaces.first().cloned().unwrap_or_default();
        let (is_interface, interface) = (interface(is), interface(wanted));
        let mut diff = Diff::new()
            .field("imageId", &is.image_id, &wanted.image_id)
            .field("instanceType", &is.instance_type, &wanted.instance_type)
            .field("keyName", &is.key_name, &wanted.key_name)
            .field(
                "iamInstanceProfile",
                &is.instance_profile,
                &wanted.instance_profile,
            );
        let devices: BTreeSet<&str> = is
            .volumes
            .iter()
            .chain(&wanted.volumes)
            .map(|volume| volume.device.as_str())
            .collect();
        for device in devices {
            let described = |data: &Data| {
                data.volumes
                    .iter()
                    .find(|volume| volume.device == device)
                    .map_or_else(|| "none".to_owned(), described)
            };
            diff = diff.field(
                &format!("blockDeviceMappings.{device}"),
                &described(is),
                &described(wanted),
            );
        }
        diff = diff
            .field(
                "disableApiTermination",
                &is.disable_api_termination,
                &wanted.disable_api_termination,
            )
            .field(
                "instanceInitiatedShutdownBehavior",
                &is.shutdown_behavior,
                &wanted.shutdown_behavior,
            )
            .field(
                "networkInterfaces.count",
                &is.interfaces.len(),
                &wanted.interfaces.len(),
            )
            .field(
                "networkInterfaces.deviceIndex",
                &is_interface.device_index,
                &interface.device_index,
            )
            .field(
                "networkInterfaces.associatePublicIpAddress",
                &is_interface.public_address,
                &interface.public_address,
            )
            .field(
                "networkInterfaces.subnetId",
                &is_interface.subnet_id,
                &interface.subnet_id,
            )
            .field(
                "networkInterfaces.groups",
                &is_interface.groups,
                &interface.groups,
            )
            .field(
                "networkInterfaces.deleteOnTermination",
                &is_interface.delete_on_termination,
                &interface.delete_on_termination,
            )
            .field(
                "metadataOptions.httpTokens",
                &is.metadata.http_tokens,
                &wanted.metadata.http_tokens,
            )
            .field(
                "metadataOptions.httpEndpoint",
                &is.metadata.http_endpoint,
                &wanted.metadata.http_endpoint,
            )
            .field(
                "metadataOptions.httpPutResponseHopLimit",
                &is.metadata.hop_limit,
                &wanted.metadata.hop_limit,
            )
            .field(
                "metadataOptions.httpProtocolIpv6",
                &is.metadata.http_protocol_ipv6,
                &wanted.metadata.http_protocol_ipv6,
            )
            .field(
                "metadataOptions.instanceMetadataTags",
                &is.metadata.instance_metadata_tags,
                &wanted.metadata.instance_metadata_tags,
            )
            .field(
                "placement.groupName",
                &is.placement.group,
                &wanted.placement.group,
            )
            .field(
                "placement.partitionNumber",
                &is.placement.partition,
                &wanted.placement.partition,
            )
            .field(
                "placement.tenancy",
                &is.placement.tenancy,
                &wanted.placement.tenancy,
            )
            .field(
                "cpuOptions.coreCount",
                &is.cpu.as_ref().map(|cpu| cpu.cores),
                &wanted.cpu.as_ref().map(|cpu| cpu.cores),
            )
            .field(
                "cpuOptions.threadsPerCore",
                &is.cpu.as_ref().map(|cpu| cpu.threads_per_core),
                &wanted.cpu.as_ref().map(|cpu| cpu.threads_per_core),
            )
            .field("ebsOptimized", &is.ebs_optimized, &wanted.ebs_optimized)
            .field("foreign", &is.foreign, &wanted.foreign);
        diff = match &self.user_data {
            Known::Value(script) => diff.secret(
                "userData",
                &found.user_data.expose_secret(),
                &script.expose_secret(),
            ),
            Known::AfterApply => diff.known("userData", &"(hidden)", &Known::AfterApply),
        };
        let mut changes = diff.done();
        changes.extend(tag_changes(
            "instanceTags",
            &is.instance_tags,
            &wanted.instance_tags,
        ));
        changes.extend(tag_changes(
            "volumeTags",
            &is.volume_tags,
            &wanted.volume_tags,
        ));
        changes.extend(
            Diff::new()
                .field("defaultVersion", &found.default_version, &found.version)
                .tags(&found.tags, &self.tags)
                .done(),
        );
        changes
    }

    async fn create(&self, aws: &Aws) -> Result<Observed> {
        let (data, user_data) = (self.data(), self.user_data.get()?);
        let made = aws
            .ec2()
            .create_launch_template()
            .client_token(Uuid::new_v4().to_string())
            .launch_template_name(&self.name)
            .launch_template_data(request(&data, user_data))
            .tag_specifications(
                TagSpecification::builder()
                    .resource_type(ResourceType::LaunchTemplate)
                    .set_tags(Some(ec2_tags(&self.tags)))
                    .build(),
            )
            .send()
            .await
            .answer()?
            .launch_template
            .context("AWS answered without the launch template")?;
        Ok(Observed {
            id: made.launch_template_id.unwrap_or_default(),
            name: self.name.clone(),
            version: made.latest_version_number.unwrap_or(1),
            default_version: made.default_version_number.unwrap_or(1),
            tags: self.tags.clone(),
            data,
            user_data: user_data.clone(),
        })
    }

    /// A new version is written whole: what the one before says by accident is not taken along.
    async fn update(&self, aws: &Aws, mut found: Observed, changes: &[Change]) -> Result<Observed> {
        aws.ec2()
            .create_tags()
            .resources(&found.id)
            .set_tags(Some(ec2_tags(&self.tags)))
            .send()
            .await
            .answer()
            .context("tagging it")?;
        if changes.iter().any(in_a_version) {
            let (data, user_data) = (self.data(), self.user_data.get()?);
            let version = aws
                .ec2()
                .create_launch_template_version()
                .client_token(Uuid::new_v4().to_string())
                .launch_template_id(&found.id)
                .launch_template_data(request(&data, user_data))
                .send()
                .await
                .answer()?
                .launch_template_version
                .context("AWS answered without the launch template's version")?;
            found.version = version.version_number.unwrap_or_default();
            found.data = data;
            found.user_data = user_data.clone();
        }
        if found.default_version != found.version && !self.stays {
            aws.ec2()
                .modify_launch_template()
                .launch_template_id(&found.id)
                .default_version(found.version.to_string())
                .send()
                .await
                .answer()
                .with_context(|| format!("making version {} the default", found.version))?;
            found.default_version = found.version;
        }
        found.tags.extend(self.tags.clone());
        Ok(found)
    }

    async fn delete(aws: &Aws, found: Observed) -> Result<()> {
        aws.ec2()
            .delete_launch_template()
            .launch_template_id(&found.id)
            .send()
            .await
            .if_found(GONE)?;
        Ok(())
    }
}

/// Whether a change is to be made in a new version rather than in the template.
fn in_a_version(change: &Change) -> bool {
    change.field != "defaultVersion" && !change.field.starts_with("tags.")
}

fn tag_changes(field: &str, found: &Tags, wanted: &Tags) -> Vec<Change> {
    let mut changes = Diff::new().tags(found, wanted).done();
    for change in &mut changes {
        change.field = change.field.replacen("tags", field, 1);
    }
    changes
}

/// The volume that a new instance gets for one of the stack's. It always goes with its instance: nobody would look
/// after it then, nor know what it is. gp2 becomes gp3 that is no slower: gp2 has three
/// operations a second for each GiB and 250 MiB/s above 170 GiB, gp3 has 3000 and 125 unless it is given more.
/// Source: EBS user guide, "General Purpose SSD volumes".
fn launched(volume: &Volume, has_gp3: bool) -> Volume {
    let mut volume = volume.clone();
    volume.delete_on_termination = true;
    if ROOT_DEVICES.contains(&volume.device.as_str()) {
        volume.size = volume.size.max(MIN_ROOT_SIZE);
    }
    if volume.volume_type == "gp2" {
        volume.iops = None;
        volume.throughput = None;
        if has_gp3 {
            volume.volume_type = "gp3".to_owned();
            volume.iops = (volume.size > 1000).then(|| (volume.size * 3).min(16_000));
            volume.throughput = (volume.size > 170).then_some(250);
        }
    }
    volume
}

/// All of a volume in words, so that a change of any part is one and can be read.
fn described(volume: &Volume) -> String {
    let mut text = format!("{} GiB {}", volume.size, volume.volume_type);
    if let Some(iops) = volume.iops {
        text += &format!(", {iops} IOPS");
    }
    if let Some(throughput) = volume.throughput {
        text += &format!(", {throughput} MiB/s");
    }
    if volume.encrypted {
        text += ", encrypted";
    }
    if let Some(key) = &volume.kms_key_id {
        text += &format!(" with {key}");
    }
    if !volume.delete_on_termination {
        text += ", outlives the instance";
    }
    text
}

/// The default tenancy has a name and is usually given as nothing.
fn normal(mut placement: Placement) -> Placement {
    placement.group = placement.group.filter(|group| !group.is_empty());
    placement.tenancy = placement.tenancy.filter(|tenancy| tenancy != "default");
    placement
}

fn sorted(groups: &[String]) -> Vec<String> {
    let mut groups = groups.to_vec();
    groups.sort();
    groups
}

fn decoded(user_data: &str) -> SecretString {
    BASE64_STANDARD
        .decode(user_data)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .unwrap_or_else(|| user_data.to_owned())
        .into()
}

fn request(data: &Data, user_data: &SecretString) -> RequestLaunchTemplateData {
    let volumes = data.volumes.iter().map(|volume| {
        let disk = LaunchTemplateEbsBlockDeviceRequest::builder()
            .volume_size(volume.size)
            .volume_type(volume.volume_type.as_str().into())
            .set_iops(volume.iops)
            .set_throughput(volume.throughput)
            // "Not encrypted" is never sent: for a volume from a snapshot EC2 refuses it.
            .set_encrypted(volume.encrypted.then_some(true))
            .set_kms_key_id(volume.kms_key_id.clone())
            .delete_on_termination(volume.delete_on_termination)
            .build();
        LaunchTemplateBlockDeviceMappingRequest::builder()
            .device_name(&volume.device)
            .ebs(disk)
            .build()
    });
    let interfaces = data.interfaces.iter().map(|interface| {
        LaunchTemplateInstanceNetworkInterfaceSpecificationRequest::builder()
            .device_index(interface.device_index)
            .set_associate_public_ip_address(interface.public_address)
            .set_subnet_id(interface.subnet_id.clone())
            .set_groups(Some(interface.groups.clone()))
            .delete_on_termination(interface.delete_on_termination)
            .build()
    });
    let metadata = LaunchTemplateInstanceMetadataOptionsRequest::builder()
        .set_http_tokens(data.metadata.http_tokens.as_deref().map(Into::into))
        .set_http_endpoint(data.metadata.http_endpoint.as_deref().map(Into::into))
        .set_http_put_response_hop_limit(data.metadata.hop_limit)
        .set_http_protocol_ipv6(data.metadata.http_protocol_ipv6.as_deref().map(Into::into))
        .set_instance_metadata_tags(
            data.metadata
                .instance_metadata_tags
                .as_deref()
                .map(Into::into),
        )
        .build();
    let placement = (data.placement != Placement::default()).then(|| {
        LaunchTemplatePlacementRequest::builder()
            .set_group_name(data.placement.group.clone())
            .set_partition_number(data.placement.partition)
            .set_tenancy(data.placement.tenancy.as_deref().map(Into::into))
            .build()
    });
    let cpu = data.cpu.as_ref().map(|cpu| {
        LaunchTemplateCpuOptionsRequest::builder()
            .core_count(cpu.cores)
            .threads_per_core(cpu.threads_per_core)
            .build()
    });
    let tags = [
        (ResourceType::Instance, &data.instance_tags),
        (ResourceType::Volume, &data.volume_tags),
    ];
    RequestLaunchTemplateData::builder()
        .set_image_id(data.image_id.clone())
        .set_instance_type(data.instance_type.as_deref().map(Into::into))
        .set_key_name(data.key_name.clone())
        .iam_instance_profile(
            LaunchTemplateIamInstanceProfileSpecificationRequest::builder()
                .set_arn(data.instance_profile.clone())
                .build(),
        )
        .set_block_device_mappings(Some(volumes.collect()))
        .disable_api_termination(data.disable_api_termination)
        .instance_initiated_shutdown_behavior(data.shutdown_behavior.as_str().into())
        .set_network_interfaces(Some(interfaces.collect()))
        .metadata_options(metadata)
        .set_placement(placement)
        .set_cpu_options(cpu)
        .ebs_optimized(data.ebs_optimized)
        .set_tag_specifications(Some(
            tags.into_iter()
                // EC2 refuses a specification without tags.
                .filter(|(_, tags)| !tags.is_empty())
                .map(|(kind, tags)| {
                    LaunchTemplateTagSpecificationRequest::builder()
                        .resource_type(kind)
                        .set_tags(Some(ec2_tags(tags)))
                        .build()
                })
                .collect(),
        ))
        .user_data(BASE64_STANDARD.encode(user_data.expose_secret()))
        .build()
}

fn observed(data: &ResponseLaunchTemplateData) -> Data {
    let tags_of = |kind: &ResourceType| {
        data.tag_specifications()
            .iter()
            .filter(|specification| specification.resource_type() == Some(kind))
            .flat_map(|specification| tag_map(specification.tags()))
            .collect()
    };
    let mut volumes: Vec<Volume> = data
        .block_device_mappings()
        .iter()
        .filter_map(|mapping| {
            let disk = mapping.ebs()?;
            Some(Volume {
                device: mapping.device_name().unwrap_or_default().to_owned(),
                size: disk.volume_size().unwrap_or_default(),
                volume_type: disk
                    .volume_type()
                    .map_or_else(String::new, ToString::to_string),
                iops: disk.iops(),
                throughput: disk.throughput(),
                encrypted: disk.encrypted().unwrap_or(false),
                kms_key_id: disk.kms_key_id().map(ToOwned::to_owned),
                delete_on_termination: disk.delete_on_termination().unwrap_or(true),
            })
        })
        .collect();
    volumes.sort_by(|one, other| one.device.cmp(&other.device));
    let foreign = [
        (
            "instanceMarketOptions",
            data.instance_market_options().is_some(),
        ),
        (
            "instanceRequirements",
            data.instance_requirements().is_some(),
        ),
        ("securityGroupIds", !data.security_group_ids().is_empty()),
        ("securityGroups", !data.security_groups().is_empty()),
    ];
    Data {
        image_id: data.image_id().map(ToOwned::to_owned),
        instance_type: data.instance_type().map(ToString::to_string),
        key_name: data.key_name().map(ToOwned::to_owned),
        instance_profile: data
            .iam_instance_profile()
            .and_then(|profile| profile.arn().or(profile.name()))
            .map(ToOwned::to_owned),
        volumes,
        disable_api_termination: data.disable_api_termination().unwrap_or(false),
        // What EC2 does where nothing is said.
        shutdown_behavior: data
            .instance_initiated_shutdown_behavior()
            .unwrap_or(&ShutdownBehavior::Stop)
            .to_string(),
        interfaces: data
            .network_interfaces()
            .iter()
            .map(|interface| Interface {
                device_index: interface.device_index().unwrap_or(0),
                public_address: interface.associate_public_ip_address(),
                subnet_id: interface.subnet_id().map(ToOwned::to_owned),
                groups: sorted(interface.groups()),
                delete_on_termination: interface.delete_on_termination().unwrap_or(true),
            })
            .collect(),
        metadata: data
            .metadata_options()
            .map(|options| Metadata {
                http_tokens: options.http_tokens().map(ToString::to_string),
                http_endpoint: options.http_endpoint().map(ToString::to_string),
                hop_limit: options.http_put_response_hop_limit(),
                http_protocol_ipv6: options.http_protocol_ipv6().map(ToString::to_string),
                instance_metadata_tags: options.instance_metadata_tags().map(ToString::to_string),
            })
            .unwrap_or_default(),
        placement: data
            .placement()
            .map(|placement| {
                normal(Placement {
                    group: placement.group_name().map(ToOwned::to_owned),
                    partition: placement.partition_number(),
                    tenancy: placement.tenancy().map(ToString::to_string),
                })
            })
            .unwrap_or_default(),
        cpu: data.cpu_options().and_then(|cpu| {
            Some(CpuOptions {
                cores: cpu.core_count()?,
                threads_per_core: cpu.threads_per_core()?,
            })
        }),
        ebs_optimized: data.ebs_optimized().unwrap_or(false),
        instance_tags: tags_of(&ResourceType::Instance),
        volume_tags: tags_of(&ResourceType::Volume),
        foreign: foreign
            .into_iter()
            .filter_map(|(name, is_there)| is_there.then_some(name))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::{
        InstanceMetadataTagsState, LaunchTemplateBlockDeviceMapping, LaunchTemplateEbsBlockDevice,
        LaunchTemplateHttpTokensState, LaunchTemplateIamInstanceProfileSpecification,
        LaunchTemplateInstanceMarketOptions, LaunchTemplateInstanceMetadataEndpointState,
        LaunchTemplateInstanceMetadataOptions, LaunchTemplateInstanceNetworkInterfaceSpecification,
        LaunchTemplatePlacement, LaunchTemplateTagSpecification,
    };

    use super::*;
    use crate::cluster::names::{CLUSTER_TAG, VERSION_TAG};
    use crate::cluster::spec::MetadataOptions;

    fn volume(device: &str, size: i32, volume_type: &str) -> Volume {
        Volume {
            device: device.into(),
            size,
            volume_type: volume_type.into(),
            iops: None,
            throughput: None,
            encrypted: false,
            kms_key_id: None,
            delete_on_termination: true,
        }
    }

    fn tags() -> Tags {
        Tags::from([
            (CLUSTER_TAG.into(), "prod".into()),
            (VERSION_TAG.into(), "2".into()),
        ])
    }

    fn wanted() -> LaunchTemplate {
        LaunchTemplate {
            name: "wekactl-prod-Backends".into(),
            shape: Shape {
                image_id: "ami-1".into(),
                instance_type: "i3en.2xlarge".into(),
                key_name: Some("weka-key".into()),
                instance_profile_arn: "arn:aws:iam::123456789012:instance-profile/backend".into(),
                subnet_id: "subnet-1".into(),
                availability_zone: "eu-central-1a".into(),
                security_groups: vec!["sg-2".into(), "sg-1".into()],
                volumes: vec![volume("/dev/sdp", 78, "gp3"), volume("/dev/xvda", 8, "gp2")],
                placement: Placement {
                    group: Some("prod-pg".into()),
                    partition: None,
                    tenancy: Some("default".into()),
                },
                cpu: None,
                ebs_optimized: true,
                metadata: MetadataOptions {
                    http_tokens: "required".into(),
                    http_endpoint: "enabled".into(),
                    hop_limit: 2,
                    http_protocol_ipv6: "disabled".into(),
                    instance_metadata_tags: "disabled".into(),
                },
            },
            public_address: true,
            has_gp3: true,
            stays: false,
            instance_tags: tags(),
            volume_tags: tags(),
            user_data: Known::Value("#!/bin/bash\nkey\n".into()),
            tags: tags(),
        }
    }

    fn found() -> Observed {
        let wanted = wanted();
        Observed {
            id: "lt-1".into(),
            name: wanted.name.clone(),
            version: 3,
            default_version: 3,
            tags: tags(),
            data: wanted.data(),
            user_data: "#!/bin/bash\nkey\n".into(),
        }
    }

    /// What EC2 answers to a request.
    fn answered(request: &RequestLaunchTemplateData) -> ResponseLaunchTemplateData {
        let mut answer = ResponseLaunchTemplateData::builder()
            .set_image_id(request.image_id.clone())
            .set_instance_type(request.instance_type.clone())
            .set_key_name(request.key_name.clone())
            .set_user_data(request.user_data.clone())
            .set_disable_api_termination(request.disable_api_termination)
            .set_instance_initiated_shutdown_behavior(
                request.instance_initiated_shutdown_behavior.clone(),
            )
            .set_ebs_optimized(request.ebs_optimized);
        if let Some(profile) = &request.iam_instance_profile {
            answer = answer.iam_instance_profile(
                LaunchTemplateIamInstanceProfileSpecification::builder()
                    .set_arn(profile.arn.clone())
                    .build(),
            );
        }
        for mapping in request.block_device_mappings() {
            let disk = mapping.ebs().unwrap();
            answer = answer.block_device_mappings(
                LaunchTemplateBlockDeviceMapping::builder()
                    .set_device_name(mapping.device_name.clone())
                    .ebs(
                        LaunchTemplateEbsBlockDevice::builder()
                            .set_volume_size(disk.volume_size)
                            .set_volume_type(disk.volume_type.clone())
                            .set_iops(disk.iops)
                            .set_throughput(disk.throughput)
                            .set_encrypted(disk.encrypted)
                            .set_kms_key_id(disk.kms_key_id.clone())
                            .set_delete_on_termination(disk.delete_on_termination)
                            .build(),
                    )
                    .build(),
            );
        }
        for interface in request.network_interfaces() {
            answer = answer.network_interfaces(
                LaunchTemplateInstanceNetworkInterfaceSpecification::builder()
                    .set_device_index(interface.device_index)
                    .set_associate_public_ip_address(interface.associate_public_ip_address)
                    .set_subnet_id(interface.subnet_id.clone())
                    // In no particular order.
                    .set_groups(
                        interface
                            .groups
                            .clone()
                            .map(|groups| groups.into_iter().rev().collect()),
                    )
                    .set_delete_on_termination(interface.delete_on_termination)
                    .ipv6_address_count(0)
                    .build(),
            );
        }
        if let Some(metadata) = request.metadata_options() {
            answer = answer.metadata_options(
                LaunchTemplateInstanceMetadataOptions::builder()
                    .set_http_tokens(metadata.http_tokens.clone())
                    .set_http_endpoint(metadata.http_endpoint.clone())
                    .set_http_put_response_hop_limit(metadata.http_put_response_hop_limit)
                    .set_http_protocol_ipv6(metadata.http_protocol_ipv6.clone())
                    .set_instance_metadata_tags(metadata.instance_metadata_tags.clone())
                    .build(),
            );
        }
        if let Some(placement) = request.placement() {
            answer = answer.placement(
                LaunchTemplatePlacement::builder()
                    .set_group_name(placement.group_name.clone())
                    .tenancy(aws_sdk_ec2::types::Tenancy::Default)
                    .build(),
            );
        }
        for specification in request.tag_specifications() {
            answer = answer.tag_specifications(
                LaunchTemplateTagSpecification::builder()
                    .set_resource_type(specification.resource_type.clone())
                    .set_tags(specification.tags.clone())
                    .build(),
            );
        }
        answer.build()
    }

    #[test]
    fn what_was_sent_compares_as_wanted_when_it_comes_back() {
        let wanted = wanted();
        let sent = request(&wanted.data(), wanted.user_data.get().unwrap());
        let answer = answered(&sent);
        let found = Observed {
            data: observed(&answer),
            user_data: decoded(answer.user_data().unwrap()),
            ..found()
        };
        assert_eq!(wanted.changes(&found), []);
    }

    #[test]
    fn what_is_sent() {
        let sent = request(&wanted().data(), &"script".into());
        assert_eq!(sent.user_data(), Some("c2NyaXB0"));
        assert_eq!(sent.disable_api_termination(), Some(true));
        assert_eq!(
            sent.instance_initiated_shutdown_behavior(),
            Some(&ShutdownBehavior::Stop)
        );
        assert_eq!(
            sent.metadata_options()
                .unwrap()
                .instance_metadata_tags()
                .unwrap()
                .as_str(),
            InstanceMetadataTagsState::Disabled.as_str()
        );
        let kinds: Vec<_> = sent
            .tag_specifications()
            .iter()
            .filter_map(|specification| specification.resource_type())
            .collect();
        assert_eq!(kinds, [&ResourceType::Instance, &ResourceType::Volume]);
        let root = sent.block_device_mappings()[1].ebs().unwrap();
        assert_eq!(root.volume_size(), Some(MIN_ROOT_SIZE));
        assert_eq!(root.encrypted(), None);
    }

    #[test]
    fn every_version_has_the_metadata_options_and_the_placement_group() {
        let sent = request(&wanted().data(), &"script".into());
        let placement = sent.placement().unwrap();
        assert_eq!(placement.group_name(), Some("prod-pg"));
        let metadata = sent.metadata_options().unwrap();
        assert_eq!(
            (
                metadata.http_tokens(),
                metadata.http_endpoint(),
                metadata.http_put_response_hop_limit(),
            ),
            (
                Some(&LaunchTemplateHttpTokensState::Required),
                Some(&LaunchTemplateInstanceMetadataEndpointState::Enabled),
                Some(2)
            )
        );
    }

    #[test]
    fn every_field_that_drifts_is_reported() {
        type Drift = fn(&mut Observed);
        let drifts: &[(&str, Drift)] = &[
            ("imageId", |found| found.data.image_id = None),
            ("instanceType", |found| {
                found.data.instance_type = Some("i3en.3xlarge".into());
            }),
            ("keyName", |found| found.data.key_name = None),
            ("iamInstanceProfile", |found| {
                found.data.instance_profile = Some("other".into());
            }),
            ("blockDeviceMappings./dev/sdp", |found| {
                found.data.volumes[0].size = 10;
            }),
            ("blockDeviceMappings./dev/sdp", |found| {
                found.data.volumes[0].volume_type = "gp2".into();
            }),
            ("blockDeviceMappings./dev/sdp", |found| {
                found.data.volumes[0].iops = Some(4000);
            }),
            ("blockDeviceMappings./dev/sdp", |found| {
                found.data.volumes[0].throughput = Some(125);
            }),
            ("blockDeviceMappings./dev/sdp", |found| {
                found.data.volumes[0].encrypted = true;
            }),
            ("blockDeviceMappings./dev/sdp", |found| {
                found.data.volumes[0].kms_key_id = Some("key".into());
            }),
            ("blockDeviceMappings./dev/sdp", |found| {
                found.data.volumes[0].delete_on_termination = false;
            }),
            ("blockDeviceMappings./dev/xvda", |found| {
                found.data.volumes.truncate(1);
            }),
            ("blockDeviceMappings./dev/sdz", |found| {
                found.data.volumes.push(volume("/dev/sdz", 1, "gp3"));
            }),
            ("disableApiTermination", |found| {
                found.data.disable_api_termination = false;
            }),
            ("instanceInitiatedShutdownBehavior", |found| {
                found.data.shutdown_behavior = "terminate".into();
            }),
            ("networkInterfaces.count", |found| {
                let second = found.data.interfaces[0].clone();
                found.data.interfaces.push(second);
            }),
            ("networkInterfaces.deviceIndex", |found| {
                found.data.interfaces[0].device_index = 1;
            }),
            ("networkInterfaces.associatePublicIpAddress", |found| {
                found.data.interfaces[0].public_address = None;
            }),
            ("networkInterfaces.subnetId", |found| {
                found.data.interfaces[0].subnet_id = None;
            }),
            ("networkInterfaces.groups", |found| {
                found.data.interfaces[0].groups.truncate(1);
            }),
            ("networkInterfaces.deleteOnTermination", |found| {
                found.data.interfaces[0].delete_on_termination = false;
            }),
            ("metadataOptions.httpTokens", |found| {
                found.data.metadata.http_tokens = Some("optional".into());
            }),
            ("metadataOptions.httpEndpoint", |found| {
                found.data.metadata.http_endpoint = None;
            }),
            ("metadataOptions.httpPutResponseHopLimit", |found| {
                found.data.metadata.hop_limit = Some(1);
            }),
            ("metadataOptions.httpProtocolIpv6", |found| {
                found.data.metadata.http_protocol_ipv6 = Some("enabled".into());
            }),
            ("metadataOptions.instanceMetadataTags", |found| {
                found.data.metadata.instance_metadata_tags = None;
            }),
            ("placement.groupName", |found| {
                found.data.placement.group = None;
            }),
            ("placement.partitionNumber", |found| {
                found.data.placement.partition = Some(1);
            }),
            ("placement.tenancy", |found| {
                found.data.placement.tenancy = Some("dedicated".into());
            }),
            ("ebsOptimized", |found| found.data.ebs_optimized = false),
            ("foreign", |found| {
                found.data.foreign.push("instanceMarketOptions");
            }),
            ("userData", |found| {
                found.user_data = "#!/bin/bash\nother\n".into();
            }),
            ("instanceTags.wekactl.io/cluster_name", |found| {
                found.data.instance_tags.clear();
            }),
            ("volumeTags.wekactl.io/cluster_name", |found| {
                found.data.volume_tags.clear();
            }),
            ("defaultVersion", |found| found.default_version = 1),
            ("tags.wekactl.io/cluster_name", |found| found.tags.clear()),
        ];
        for (field, drift) in drifts {
            let mut found = found();
            drift(&mut found);
            let changes = wanted().changes(&found);
            assert_eq!(changes.len(), 1, "{field}: {changes:?}");
            assert_eq!(changes[0].field, *field);
            assert_eq!(
                in_a_version(&changes[0]),
                !matches!(*field, "defaultVersion" | "tags.wekactl.io/cluster_name"),
                "{field}"
            );
        }
        let mut found = found();
        found.data.cpu = Some(CpuOptions {
            cores: 4,
            threads_per_core: 1,
        });
        let changes = wanted().changes(&found);
        assert_eq!(changes.len(), 2, "{changes:?}");
    }

    #[test]
    fn a_spot_template_is_not_taken_for_ours() {
        let spot = ResponseLaunchTemplateData::builder()
            .instance_market_options(LaunchTemplateInstanceMarketOptions::builder().build())
            .build();
        assert_eq!(observed(&spot).foreign, ["instanceMarketOptions"]);
    }

    #[test]
    fn user_data_is_never_shown() {
        let mut unknown = wanted();
        unknown.user_data = Known::AfterApply;
        let mut other = wanted();
        other.user_data = Known::Value("other key".into());
        for (wanted, to) in [(unknown, "(known after apply)"), (other, "(hidden)")] {
            let changes = wanted.changes(&found());
            assert_eq!(
                changes,
                [Change {
                    field: "userData".into(),
                    from: Some("(hidden)".into()),
                    to: Some(to.into()),
                }]
            );
        }
    }

    #[test]
    fn volumes_are_kept_and_gp2_loses_no_speed() {
        let gp2 = |size| launched(&volume("/dev/sdp", size, "gp2"), true);
        let speed = |volume: Volume| (volume.volume_type, volume.iops, volume.throughput);
        assert_eq!(speed(gp2(78)), ("gp3".into(), None, None));
        assert_eq!(speed(gp2(500)), ("gp3".into(), None, Some(250)));
        assert_eq!(speed(gp2(2000)), ("gp3".into(), Some(6000), Some(250)));
        assert_eq!(speed(gp2(9000)), ("gp3".into(), Some(16_000), Some(250)));
        let mut provisioned = volume("/dev/sdp", 100, "io2");
        provisioned.iops = Some(5000);
        assert_eq!(launched(&provisioned, true), provisioned);
        let old = volume("/dev/sdp", 500, "gp2");
        assert_eq!(launched(&old, false), old);
        let mut outliving = old.clone();
        outliving.delete_on_termination = false;
        assert_eq!(launched(&outliving, false), old);
        assert_eq!(launched(&volume("/dev/sda1", 8, "gp3"), true).size, 16);
        assert_eq!(launched(&volume("/dev/sda1", 50, "gp3"), true).size, 50);
        assert!(has_gp3("cn-north-1") && !has_gp3("us-isob-east-1"));
    }
}
