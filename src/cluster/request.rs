//! What a person asks of import, and whether it fits what the cluster already is.

use std::path::PathBuf;

use super::UsageError;
use super::names::Cluster;
pub use super::settings::GivenCredentials;
use super::settings::Settings;
use super::spec::{Cores, Dns};
use crate::resource::Tags;

/// `cluster import` and its flags.
#[derive(Debug, Clone)]
pub struct ImportRequest {
    /// `--name`.
    pub cluster: Cluster,
    /// `--instance-ids`; `None`: the cluster comes from the stack of its name.
    pub instance_ids: Option<Vec<String>>,
    /// `--tags`.
    pub user_tags: Tags,
    /// `--private-subnet`.
    pub private_subnet: bool,
    /// `--additional-alb-subnet`.
    pub additional_subnet: Option<String>,
    /// `--dns-alias` and `--dns-zone-id`.
    pub dns: Option<Dns>,
    /// `--use-dynamodb-endpoint`.
    pub use_dynamodb_endpoint: bool,
    /// `--cores`.
    pub cores: Option<Cores>,
    /// `--lambda-binary`.
    pub lambda_binary: Option<PathBuf>,
    /// Only what is managed already counts: no backends are taken from anywhere.
    pub only_managed: bool,
    /// Whether user name and password are tried on the cluster: not with `--no-verify`.
    pub verify: bool,
}

impl ImportRequest {
    /// What is asked of a cluster that has settings, and is to be as they say.
    pub fn of_managed(cluster: Cluster, lambda_binary: Option<PathBuf>) -> Self {
        Self {
            cluster,
            instance_ids: None,
            user_tags: Tags::new(),
            private_subnet: false,
            additional_subnet: None,
            dns: None,
            use_dynamodb_endpoint: false,
            cores: None,
            lambda_binary,
            only_managed: true,
            verify: false,
        }
    }

    /// That no flag says something else than the settings of a cluster that is managed already.
    ///
    /// # Errors
    /// The first flag that does, with both values.
    pub fn check_against(&self, settings: &Settings) -> Result<(), UsageError> {
        let differs = |flag: &str, given: &str, stored: &str| {
            Err(UsageError(format!(
                "cluster {} is managed already, with {flag} {stored}, and {flag} {given} was given: \
                 leave the flag out, or destroy with --keep-instances and import anew",
                self.cluster.name
            )))
        };
        if self.private_subnet && !settings.private_subnet {
            return differs("--private-subnet", "true", "false");
        }
        if self.use_dynamodb_endpoint && !settings.use_dynamodb_endpoint {
            return differs("--use-dynamodb-endpoint", "true", "false");
        }
        if let (Some(given), Some(stored)) = (&self.additional_subnet, &settings.additional_subnet)
            && given != stored
        {
            return differs("--additional-alb-subnet", given, stored);
        }
        if let Some(given) = &self.dns {
            let stored = settings.dns();
            let part = |part: fn(&Dns) -> &str| stored.as_ref().map_or("(none)", part);
            if given.alias != part(|dns| &dns.alias) {
                return differs("--dns-alias", &given.alias, part(|dns| &dns.alias));
            }
            if given.zone_id != part(|dns| &dns.zone_id) {
                return differs("--dns-zone-id", &given.zone_id, part(|dns| &dns.zone_id));
            }
        }
        let stored_tags = settings.tags_map.as_ref();
        for (key, given) in &self.user_tags {
            let stored = stored_tags.and_then(|tags| tags.get(key));
            if stored != Some(given) {
                let all: Vec<String> = stored_tags
                    .into_iter()
                    .flatten()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect();
                let all = if all.is_empty() {
                    "(none)".to_owned()
                } else {
                    all.join(", ")
                };
                return differs("--tags", &format!("{key}={given}"), &all);
            }
        }
        if let (Some(given), Some(stored)) = (self.cores, settings.cores)
            && given != stored
        {
            return differs("--cores", &given.to_string(), &stored.to_string());
        }
        if let (Some(ids), Some(stack)) = (&self.instance_ids, &settings.stack_id) {
            return differs(
                "--instance-ids",
                &ids.join(","),
                &format!("(none; from stack {stack})"),
            );
        }
        Ok(())
    }
}
