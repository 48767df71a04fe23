//! The desired cluster: plain data, no I/O. Discovery makes it, the resources are made from it.

use serde::{Deserialize, Serialize};

use super::names::{Cluster, DNS_ALIAS_TAG, DNS_ZONE_TAG};
use crate::resource::Tags;

/// What a managed cluster shall be.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Its name, and with it all names.
    pub cluster: Cluster,
    /// The ARN of the stack it came from; `None` with `--instance-ids`.
    pub stack_id: Option<String>,
    /// What every backend is like, and what every new one will be.
    pub backends: Shape,
    /// How many backends the group may ever have: seven times the first number, as in the Go tool.
    pub max_size: i32,
    /// What Weka gets of each backend.
    pub cores: Cores,
    /// The VPC of the backends' subnet.
    pub vpc_id: String,
    /// A second subnet in another zone: an application load balancer wants two.
    pub additional_subnet: String,
    /// The backends have no public address, and the API none outside the VPC.
    pub private_subnet: bool,
    /// A name for the load balancer.
    pub dns: Option<Dns>,
    /// `scale` may reach `DynamoDB` from the VPC and reads the credentials itself.
    pub use_dynamodb_endpoint: bool,
    /// The user's tags on everything.
    pub user_tags: Tags,
    /// The stack's classic load balancer, whose members the group keeps.
    pub classic_load_balancer: Option<String>,
    /// The backends' image is gone, and with it Auto Scaling takes no launch template: the one there is stays.
    pub keeps_template: bool,
}

/// A DNS name that points at the load balancer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// The name, such as `weka.example.com`.
    pub alias: String,
    /// The id of the hosted zone it lies in.
    pub zone_id: String,
}

impl Dns {
    /// What the load balancer's tags say of it.
    pub fn tags(&self) -> [(String, String); 2] {
        [
            (DNS_ALIAS_TAG.to_owned(), self.alias.clone()),
            (DNS_ZONE_TAG.to_owned(), self.zone_id.clone()),
        ]
    }

    /// Read from there.
    pub fn in_tags(tags: &Tags) -> Option<Self> {
        Some(Self {
            alias: tags.get(DNS_ALIAS_TAG)?.clone(),
            zone_id: tags.get(DNS_ZONE_TAG)?.clone(),
        })
    }
}

/// An instance as it is launched: what all backends of a stack have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// AMI id.
    pub image_id: String,
    /// Such as `i3en.2xlarge`.
    pub instance_type: String,
    /// Name of the key pair, if there is one.
    pub key_name: Option<String>,
    /// ARN of the instance profile.
    pub instance_profile_arn: String,
    /// Subnet id.
    pub subnet_id: String,
    /// Availability Zone name of the subnet.
    pub availability_zone: String,
    /// Security group ids, sorted.
    pub security_groups: Vec<String>,
    /// Block devices, sorted by device name.
    pub volumes: Vec<Volume>,
    /// Placement group and tenancy.
    pub placement: Placement,
    /// Given only where the instance differs from its type's default.
    pub cpu: Option<CpuOptions>,
    /// Whether the instance is EBS-optimised.
    pub ebs_optimized: bool,
    /// The metadata service's options.
    pub metadata: MetadataOptions,
}

/// One EBS volume of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Such as `/dev/sdp`.
    pub device: String,
    /// GiB.
    pub size: i32,
    /// `gp3`, `gp2`, `io1`, `io2`, …
    pub volume_type: String,
    /// Operations a second, where provisioned (gp3, io1, io2).
    pub iops: Option<i32>,
    /// MiB a second, where provisioned (gp3).
    pub throughput: Option<i32>,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// ARN of the KMS key it is encrypted with.
    pub kms_key_id: Option<String>,
    /// Whether it goes with the instance.
    pub delete_on_termination: bool,
}

/// Where in the zone an instance runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Name of the placement group, if there is one.
    pub group: Option<String>,
    /// Partition within a partition placement group.
    pub partition: Option<i32>,
    /// `default`, `dedicated` or `host`; `None`: default.
    pub tenancy: Option<String>,
}

/// Cores and threads of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuOptions {
    /// Physical cores.
    pub cores: i32,
    /// 1: no hyper-threading.
    pub threads_per_core: i32,
}

/// How the instance metadata service answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataOptions {
    /// `optional` or `required` (`IMDSv2`).
    pub http_tokens: String,
    /// `enabled` or `disabled`.
    pub http_endpoint: String,
    /// 1 to 64.
    pub hop_limit: i32,
    /// `enabled` or `disabled`.
    pub http_protocol_ipv6: String,
    /// `enabled` or `disabled`.
    pub instance_metadata_tags: String,
}

/// What Weka's containers get of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cores {
    /// Cores of `compute0`.
    pub compute: u32,
    /// Cores of `drives0`.
    pub drive: u32,
    /// Cores of `frontend0`; 0: no such container.
    pub frontend: u32,
    /// Bytes for `compute0`.
    pub memory: u64,
}

impl Cores {
    /// Network interfaces a machine needs besides the first: one for each core.
    pub fn interfaces(&self) -> u32 {
        self.compute + self.drive + self.frontend
    }
}

impl std::fmt::Display for Cores {
    /// As `--cores` takes it.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            compute,
            drive,
            frontend,
            memory,
        } = self;
        write!(
            formatter,
            "compute={compute},drive={drive},frontend={frontend},memory={memory}"
        )
    }
}
