//! The two items of the cluster's table: the settings, in the Go tool's layout and more, and the credentials.

use std::collections::HashMap;

use anyhow::{Context, Result};
use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::before::Before;
use super::names::{Cluster, VERSION};
use super::policies::LEASE_ITEM;
use super::spec::{Cores, CpuOptions, Dns, MetadataOptions, Placement, Shape, Spec, Volume};
use crate::aws::{Answer, Aws};
use crate::resource::{Diff, Tags};
use crate::run::{Action, Change, Kind, Row};

const SETTINGS_KEY: &str = "cluster-settings";
const CREDENTIALS_KEY: &str = "cluster-creds";
const NO_TABLE: &[&str] = &["ResourceNotFoundException"];

/// What the runs write into the lease item and a change of the credentials makes doubtful (S2 and S17 of the scaling
/// rules).
const LEARNED: [&str; 2] = ["Guid", "RefusedLogin"];

type Item = HashMap<String, AttributeValue>;

/// A Weka user that may deactivate and remove: `ClusterAdmin`.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The user's name.
    pub username: SecretString,
    /// The password.
    pub password: SecretString,
}

/// What a person gave of them: a dry run needs no password.
#[derive(Debug, Clone)]
pub struct GivenCredentials {
    /// The user's name.
    pub username: SecretString,
    /// The password; `None` only in a dry run.
    pub password: Option<SecretString>,
}

impl GivenCredentials {
    /// Both are given.
    pub fn of(credentials: Credentials) -> Self {
        Self {
            username: credentials.username,
            password: Some(credentials.password),
        }
    }

    /// Both, if both are given.
    pub fn both(&self) -> Option<Credentials> {
        Some(Credentials {
            username: self.username.clone(),
            password: self.password.clone()?,
        })
    }

    /// Whether these are stored, as far as they are given.
    pub fn are(&self, stored: &Credentials) -> bool {
        let password = self.password.as_ref();
        self.username.expose_secret() == stored.username.expose_secret()
            && password.is_none_or(|given| given.expose_secret() == stored.password.expose_secret())
    }
}

/// What the settings item says. Attribute names of the Go tool where it had the attribute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Settings {
    /// What a backend is like.
    pub backends: HostGroup,
    /// The Go tool's copy of `Backends`; kept for its sake, never read.
    #[serde(default)]
    pub clients: Option<serde_json::Value>,
    /// The backends' subnet.
    pub subnet: String,
    /// The load balancer's second subnet. Missing in items of early versions of the Go tool.
    #[serde(default)]
    pub additional_subnet: Option<String>,
    /// The VPC of both. Missing there, too.
    #[serde(default)]
    pub vpc_id: Option<String>,
    /// The user's tags.
    #[serde(default)]
    pub tags_map: Option<Tags>,
    /// `--private-subnet`.
    #[serde(default)]
    pub private_subnet: bool,
    /// The stack's ARN; NULL in the Go tool's items and for clusters without a stack.
    #[serde(default)]
    pub stack_id: Option<String>,
    /// The version that wrote the item.
    #[serde(default)]
    pub build_version: Option<String>,
    /// `--dns-alias`.
    #[serde(default)]
    pub dns_alias: Option<String>,
    /// `--dns-zone-id`.
    #[serde(default)]
    pub dns_zone_id: Option<String>,
    /// `--use-dynamodb-endpoint`.
    #[serde(default, rename = "UseDynamoDBEndpoint")]
    pub use_dynamodb_endpoint: bool,
    /// What Weka gets of each backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<Cores>,
    /// The stack's classic load balancer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classic_load_balancer: Option<String>,
    /// What import changed on things it does not own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Before>,
}

/// A host group's part of the settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HostGroup {
    /// Security group ids.
    pub security_groups_ids: Vec<String>,
    /// AMI id.
    #[serde(rename = "ImageID")]
    pub image_id: String,
    /// Key pair.
    #[serde(default)]
    pub key_name: Option<String>,
    /// ARN of the instance profile.
    pub iam_arn: String,
    /// Such as `i3en.2xlarge`.
    pub instance_type: String,
    /// Subnet id.
    pub subnet: String,
    /// The EBS volumes. Missing in items of early versions of the Go tool.
    #[serde(default)]
    pub volumes_info: Option<Vec<VolumeInfo>>,
    /// The group's maximum at creation.
    pub max_size: i32,
    /// `optional` or `required`.
    #[serde(default)]
    pub http_tokens: Option<String>,
    /// The subnet's zone. Not in the Go tool's items, as everything below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// Placement group and tenancy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// CPU options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuOptions>,
    /// EBS optimisation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ebs_optimized: Option<bool>,
    /// All metadata options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<MetadataOptions>,
}

/// One volume in the settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VolumeInfo {
    /// Device name.
    pub name: String,
    /// Volume type.
    #[serde(rename = "Type")]
    pub volume_type: String,
    /// GiB.
    pub size: i32,
    /// Not in the Go tool's items, as everything below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<i32>,
    /// MiB a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<i32>,
    /// Whether encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// The encryption key's ARN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    /// Whether it goes with its instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_on_termination: Option<bool>,
}

/// What the table has.
#[derive(Debug, Default)]
pub struct Stored {
    /// The settings, if the item is there.
    pub settings: Option<Settings>,
    /// The settings item as it is, attributes that this version does not know included.
    raw: Item,
    /// The credentials, if the item is there.
    pub credentials: Option<Credentials>,
}

impl Settings {
    /// The settings of a cluster as wanted.
    pub fn of(spec: &Spec, stored: Option<&Self>, before: Option<Before>) -> Self {
        let group = HostGroup::of(&spec.backends, spec.max_size);
        Self {
            clients: stored
                .and_then(|stored| stored.clients.clone())
                .or_else(|| serde_json::to_value(&group).ok()),
            backends: group,
            subnet: spec.backends.subnet_id.clone(),
            additional_subnet: Some(spec.additional_subnet.clone()),
            vpc_id: Some(spec.vpc_id.clone()),
            tags_map: Some(spec.user_tags.clone()),
            private_subnet: spec.private_subnet,
            stack_id: spec.stack_id.clone(),
            build_version: Some(VERSION.to_owned()),
            dns_alias: spec.dns.as_ref().map(|dns| dns.alias.clone()),
            dns_zone_id: spec.dns.as_ref().map(|dns| dns.zone_id.clone()),
            use_dynamodb_endpoint: spec.use_dynamodb_endpoint,
            cores: Some(spec.cores),
            classic_load_balancer: spec.classic_load_balancer.clone(),
            before,
        }
    }

    /// Whether this tool wrote them. The Go tool's lack, besides the cores, what it never knew: the stack.
    pub fn are_ours(&self) -> bool {
        self.cores.is_some()
    }

    /// The alias and its zone, where both are set.
    pub fn dns(&self) -> Option<Dns> {
        let (alias, zone_id) = self.dns_alias.clone().zip(self.dns_zone_id.clone())?;
        (!alias.is_empty()).then_some(Dns { alias, zone_id })
    }
}

impl HostGroup {
    fn of(shape: &Shape, max_size: i32) -> Self {
        Self {
            security_groups_ids: shape.security_groups.clone(),
            image_id: shape.image_id.clone(),
            key_name: shape.key_name.clone(),
            iam_arn: shape.instance_profile_arn.clone(),
            instance_type: shape.instance_type.clone(),
            subnet: shape.subnet_id.clone(),
            volumes_info: Some(shape.volumes.iter().map(VolumeInfo::of).collect()),
            max_size,
            http_tokens: Some(shape.metadata.http_tokens.clone()),
            availability_zone: Some(shape.availability_zone.clone()),
            placement: Some(shape.placement.clone()),
            cpu: shape.cpu.clone(),
            ebs_optimized: Some(shape.ebs_optimized),
            metadata: Some(shape.metadata.clone()),
        }
    }

    /// The instance shape, with AWS's defaults for what the Go tool did not store. `volumes` are those of a backend,
    /// for an item without any.
    pub fn shape(&self, availability_zone: &str, volumes: Vec<Volume>) -> Shape {
        let mut security_groups = self.security_groups_ids.clone();
        security_groups.sort();
        let mut volumes = match &self.volumes_info {
            Some(stored) => stored.iter().map(VolumeInfo::volume).collect(),
            None => volumes,
        };
        volumes.sort_by(|one, other| one.device.cmp(&other.device));
        Shape {
            image_id: self.image_id.clone(),
            instance_type: self.instance_type.clone(),
            key_name: self.key_name.clone().filter(|name| !name.is_empty()),
            instance_profile_arn: self.iam_arn.clone(),
            subnet_id: self.subnet.clone(),
            availability_zone: self
                .availability_zone
                .clone()
                .unwrap_or_else(|| availability_zone.to_owned()),
            security_groups,
            volumes,
            placement: self.placement.clone().unwrap_or_default(),
            cpu: self.cpu.clone(),
            ebs_optimized: self.ebs_optimized.unwrap_or(false),
            metadata: self.metadata.clone().unwrap_or_else(|| MetadataOptions {
                http_tokens: self
                    .http_tokens
                    .clone()
                    .unwrap_or_else(|| "optional".to_owned()),
                http_endpoint: "enabled".to_owned(),
                hop_limit: 1,
                http_protocol_ipv6: "disabled".to_owned(),
                instance_metadata_tags: "disabled".to_owned(),
            }),
        }
    }
}

impl VolumeInfo {
    fn of(volume: &Volume) -> Self {
        Self {
            name: volume.device.clone(),
            volume_type: volume.volume_type.clone(),
            size: volume.size,
            iops: volume.iops,
            throughput: volume.throughput,
            encrypted: Some(volume.encrypted),
            kms_key_id: volume.kms_key_id.clone(),
            delete_on_termination: Some(volume.delete_on_termination),
        }
    }

    fn volume(&self) -> Volume {
        Volume {
            device: self.name.clone(),
            size: self.size,
            volume_type: self.volume_type.clone(),
            iops: self.iops,
            throughput: self.throughput,
            encrypted: self.encrypted.unwrap_or(false),
            kms_key_id: self.kms_key_id.clone(),
            delete_on_termination: self.delete_on_termination.unwrap_or(true),
        }
    }
}

/// Reads both items at once, consistently. Without a table both are absent.
///
/// # Errors
/// AWS's failures; items that can not be read, by what is wrong in them.
pub async fn read(aws: &Aws, cluster: &Cluster) -> Result<Stored> {
    let ((settings, raw), credentials) = tokio::try_join!(
        read_settings_item(aws, cluster),
        read_credentials(aws, cluster)
    )?;
    Ok(Stored {
        settings,
        raw,
        credentials,
    })
}

/// Reads the settings alone, parsed and as they are.
async fn read_settings_item(aws: &Aws, cluster: &Cluster) -> Result<(Option<Settings>, Item)> {
    let table = cluster.base();
    let Some(raw) = get(aws, &table, SETTINGS_KEY).await? else {
        return Ok((None, Item::new()));
    };
    let parsed = serde_dynamo::from_item(raw.clone());
    let settings =
        parsed.with_context(|| format!("reading the item {SETTINGS_KEY} of table {table}"))?;
    Ok((Some(settings), raw))
}

/// Reads the settings alone.
///
/// # Errors
/// As [`read`].
pub async fn read_settings(aws: &Aws, cluster: &Cluster) -> Result<Option<Settings>> {
    let (settings, _) = read_settings_item(aws, cluster).await?;
    Ok(settings)
}

/// Reads what Weka gets of each backend; `None` where nothing says so.
///
/// # Errors
/// As [`read`].
pub async fn read_cores(aws: &Aws, cluster: &Cluster) -> Result<Option<Cores>> {
    let settings = read_settings(aws, cluster).await?;
    Ok(settings.and_then(|settings| settings.cores))
}

/// Reads the credentials alone.
///
/// # Errors
/// As [`read`].
pub async fn read_credentials(aws: &Aws, cluster: &Cluster) -> Result<Option<Credentials>> {
    let item = get(aws, &cluster.base(), CREDENTIALS_KEY).await?;
    Ok(item.as_ref().and_then(decode_credentials))
}

/// Stores the settings, if they differ from what is there, and says so.
///
/// # Errors
/// AWS's failures.
pub async fn ensure_settings(
    aws: &Aws,
    cluster: &Cluster,
    stored: &Stored,
    wanted: &Settings,
) -> Result<()> {
    let changes = changes(stored.settings.as_ref(), wanted);
    if changes.is_empty() && stored.settings.is_some() {
        aws.run.unchanged(Kind::Settings, SETTINGS_KEY);
        return Ok(());
    }
    let action = if stored.settings.is_some() {
        Action::Update
    } else {
        Action::Create
    };
    let row = Row {
        changes,
        ..Row::new(Kind::Settings, SETTINGS_KEY, action)
    };
    aws.run
        .step(row, put_settings(aws, cluster, &stored.raw, wanted))
        .await?;
    Ok(())
}

async fn put_settings(aws: &Aws, cluster: &Cluster, raw: &Item, wanted: &Settings) -> Result<()> {
    let mut item = raw.clone();
    item.extend(
        serde_dynamo::to_item::<_, Item>(wanted).context("writing the settings as an item")?,
    );
    item.insert("Key".to_owned(), AttributeValue::S(SETTINGS_KEY.to_owned()));
    aws.dynamodb()
        .put_item()
        .table_name(cluster.base())
        .set_item(Some(item))
        .send()
        .await
        .answer()?;
    Ok(())
}

/// What would change in the settings. The version that wrote them is no difference.
fn changes(stored: Option<&Settings>, wanted: &Settings) -> Vec<Change> {
    let Some(stored) = stored else {
        return Vec::new();
    };
    let document = |settings: &Settings| {
        let mut document = serde_json::to_value(settings).unwrap_or_default();
        if let Some(object) = document.as_object_mut() {
            object.remove("BuildVersion");
        }
        document
    };
    let (stored, wanted) = (document(stored), document(wanted));
    let keys = [&stored, &wanted]
        .into_iter()
        .filter_map(serde_json::Value::as_object)
        .flat_map(|object| object.keys());
    let keys: std::collections::BTreeSet<&String> = keys.collect();
    let shown = |value: Option<&serde_json::Value>| match value {
        None | Some(serde_json::Value::Null) => None,
        Some(serde_json::Value::String(text)) => Some(text.clone()),
        Some(other) => Some(other.to_string()),
    };
    keys.into_iter()
        .fold(Diff::new(), |diff, key| {
            diff.field(key, &shown(stored.get(key)), &shown(wanted.get(key)))
        })
        .done()
}

/// Stores the credentials, if they differ from what is there, and says so without showing them.
///
/// # Errors
/// AWS's failures.
pub async fn ensure_credentials(
    aws: &Aws,
    cluster: &Cluster,
    stored: &Stored,
    given: &GivenCredentials,
) -> Result<()> {
    let action = match &stored.credentials {
        Some(stored) if given.are(stored) => {
            aws.run.unchanged(Kind::Credentials, CREDENTIALS_KEY);
            return Ok(());
        }
        Some(_) => Action::Update,
        None => Action::Create,
    };
    let put = async {
        let encode = |secret: &SecretString| {
            AttributeValue::S(BASE64_STANDARD.encode(secret.expose_secret()))
        };
        let password = given.password.as_ref().context("there is no password")?;
        aws.dynamodb()
            .put_item()
            .table_name(cluster.base())
            .item("Key", AttributeValue::S(CREDENTIALS_KEY.to_owned()))
            .item("Username", encode(&given.username))
            .item("Password", encode(password))
            .send()
            .await
            .answer()?;
        Ok(())
    };
    aws.run
        .step(Row::new(Kind::Credentials, CREDENTIALS_KEY, action), put)
        .await?;
    Ok(())
}

/// Removes from the lease item what the runs have learned with the credentials before: which cluster it is, and that a
/// login was refused. Nothing else in it is touched.
///
/// # Errors
/// AWS's failures.
pub async fn forget_learned(aws: &Aws, cluster: &Cluster) -> Result<()> {
    let table = cluster.base();
    let lease = get(aws, &table, LEASE_ITEM).await?.unwrap_or_default();
    let changes: Vec<Change> = LEARNED
        .into_iter()
        .filter(|attribute| lease.contains_key(*attribute))
        .map(|attribute| Change {
            field: attribute.to_owned(),
            from: Some("(learned)".to_owned()),
            to: None,
        })
        .collect();
    if changes.is_empty() {
        return Ok(());
    }
    let remove = async {
        aws.dynamodb()
            .update_item()
            .table_name(&table)
            .key("Key", AttributeValue::S(LEASE_ITEM.to_owned()))
            .update_expression(format!("REMOVE {}", LEARNED.join(", ")))
            .send()
            .await
            .answer()?;
        Ok(())
    };
    let row = Row {
        changes,
        ..Row::new(Kind::Lease, LEASE_ITEM, Action::Update)
    };
    aws.run.step(row, remove).await?;
    Ok(())
}

async fn get(aws: &Aws, table: &str, key: &str) -> Result<Option<Item>> {
    let answer = aws
        .dynamodb()
        .get_item()
        .table_name(table)
        .key("Key", AttributeValue::S(key.to_owned()))
        .consistent_read(true)
        .send()
        .await
        .if_found(NO_TABLE)
        .with_context(|| format!("reading the item {key} of table {table}"))?;
    Ok(answer.and_then(|answer| answer.item))
}

fn decode_credentials(item: &Item) -> Option<Credentials> {
    let field = |name: &str| {
        let encoded = item.get(name)?.as_s().ok()?;
        let text = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
        Some(SecretString::from(text))
    };
    Some(Credentials {
        username: field("Username")?,
        password: field("Password")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An item as the Go tool wrote it: NULLs, and none of what came later.
    fn go_item() -> Item {
        serde_dynamo::to_item(serde_json::json!({
            "Key": "cluster-settings", "AdditionalSubnet": "subnet-2", "BuildVersion": "1.0",
            "DnsAlias": null, "DnsZoneId": null, "PrivateSubnet": false, "StackId": null, "Subnet": "subnet-1",
            "TagsMap": {"env": "test"}, "UseDynamoDBEndpoint": false, "VpcId": "vpc-1",
            "Backends": {"HttpTokens": "optional", "IamArn": "arn:p", "ImageID": "ami-1", "InstanceType": "i3en.2xlarge",
                "KeyName": "k", "MaxSize": 42, "SecurityGroupsIds": ["sg-2", "sg-1"], "Subnet": "subnet-1",
                "VolumesInfo": [{"Name": "/dev/xvda", "Size": 16, "Type": "gp3"}]},
            "SomethingLater": "kept",
        }))
        .unwrap()
    }

    #[test]
    fn reads_what_the_go_tool_wrote() {
        let settings: Settings = serde_dynamo::from_item(go_item()).unwrap();
        assert_eq!(settings.dns(), None);
        assert!(!settings.are_ours());
        let shape = settings.backends.shape("eu-central-1a", Vec::new());
        assert_eq!(shape.security_groups, ["sg-1", "sg-2"]);
        assert_eq!(shape.metadata.http_tokens, "optional");
        assert!(shape.volumes[0].delete_on_termination);
    }

    #[test]
    fn reads_what_an_early_go_tool_wrote() {
        let mut item = go_item();
        for later in ["VpcId", "AdditionalSubnet", "PrivateSubnet"] {
            item.remove(later).unwrap();
        }
        let Some(AttributeValue::M(backends)) = item.get_mut("Backends") else {
            panic!("a host group")
        };
        backends.remove("VolumesInfo").unwrap();
        let settings: Settings = serde_dynamo::from_item(item).unwrap();
        assert_eq!(
            (&settings.vpc_id, &settings.additional_subnet),
            (&None, &None)
        );
        let volume = VolumeInfo {
            name: "/dev/xvda".into(),
            volume_type: "gp3".into(),
            size: 16,
            iops: None,
            throughput: None,
            encrypted: None,
            kms_key_id: None,
            delete_on_termination: None,
        }
        .volume();
        let shape = settings
            .backends
            .shape("eu-central-1a", vec![volume.clone()]);
        assert_eq!(shape.volumes, [volume]);
    }

    #[test]
    fn the_go_tools_copy_of_the_backends_stays_as_it_wrote_it() {
        let clients = serde_json::json!({"InstanceType": "c5.large", "SecurityGroupsIds": null, "MaxSize": 7});
        let mut item = go_item();
        let value: AttributeValue = serde_dynamo::to_attribute_value(&clients).unwrap();
        item.insert("Clients".into(), value.clone());
        let stored: Settings = serde_dynamo::from_item(item).unwrap();
        let spec = Spec {
            cluster: "prod".parse().unwrap(),
            stack_id: None,
            backends: stored.backends.shape("eu-central-1a", Vec::new()),
            max_size: 42,
            cores: "compute=1,drive=1,frontend=1,memory=2000000000"
                .parse()
                .unwrap(),
            vpc_id: "vpc-1".into(),
            additional_subnet: "subnet-2".into(),
            private_subnet: false,
            dns: None,
            use_dynamodb_endpoint: false,
            user_tags: Tags::new(),
            classic_load_balancer: None,
            keeps_template: false,
        };
        let wanted = Settings::of(&spec, Some(&stored), None);
        let written: Item = serde_dynamo::to_item(&wanted).unwrap();
        assert_eq!(written["Clients"], value);
        // Without one, as for a new cluster, it is a copy.
        let wanted = Settings::of(&spec, None, None);
        assert_eq!(wanted.clients, serde_json::to_value(&wanted.backends).ok());
    }

    #[test]
    fn a_settings_item_reads_back_as_written_and_keeps_its_attribute_names() {
        let settings: Settings = serde_dynamo::from_item(go_item()).unwrap();
        let item: Item = serde_dynamo::to_item(&settings).unwrap();
        for name in [
            "Backends",
            "Clients",
            "StackId",
            "UseDynamoDBEndpoint",
            "DnsZoneId",
            "TagsMap",
            "VpcId",
        ] {
            assert!(item.contains_key(name), "{name}");
        }
        assert_eq!(
            serde_dynamo::from_item::<_, Settings>(item).unwrap(),
            settings
        );
    }

    #[test]
    fn without_a_password_only_the_user_is_compared() {
        let stored = Credentials {
            username: "admin".into(),
            password: "secret".into(),
        };
        for (username, password, same) in [
            ("admin", Some("secret"), true),
            ("admin", Some("other"), false),
            ("other", Some("secret"), false),
            ("admin", None, true),
            ("other", None, false),
        ] {
            let given = GivenCredentials {
                username: username.into(),
                password: password.map(Into::into),
            };
            assert_eq!(given.are(&stored), same, "{username} {password:?}");
        }
    }

    #[test]
    fn the_writing_version_is_no_difference() {
        let one: Settings = serde_dynamo::from_item(go_item()).unwrap();
        let other = Settings {
            build_version: Some("9".into()),
            ..one.clone()
        };
        assert_eq!(changes(Some(&one), &other), []);
        let moved = Settings {
            private_subnet: true,
            ..one.clone()
        };
        assert_eq!(changes(Some(&one), &moved)[0].field, "PrivateSubnet");
    }
}
