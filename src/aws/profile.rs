//! The profile that a person named: it has to be there, and it outranks the keys in the environment.

use aws_config::SdkConfig;
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_types::os_shim_internal::{Env, Fs};

const VARIABLE: &str = "AWS_PROFILE";
/// Every tool takes it for "no profile in particular": it need not be there.
const DEFAULT: &str = "default";

/// The profile that was named is not there: a usage error, found before any call. Whoever named one means its account,
/// and not that of the keys which happen to be in the environment.
#[derive(Debug, thiserror::Error)]
#[error("there is no AWS profile {name}: {}", others(known))]
#[expect(missing_docs, reason = "the message says what they are")]
pub struct NoProfile {
    pub name: String,
    pub known: Vec<String>,
}

fn others(known: &[String]) -> String {
    if known.is_empty() {
        "AWS's configuration files have none".to_owned()
    } else {
        format!(
            "AWS's configuration files have the profiles {}",
            known.join(", ")
        )
    }
}

/// That the profile of `--profile`, or else of `AWS_PROFILE`, is there.
///
/// # Errors
/// [`NoProfile`]. Files that can not be read are left to who reads them for credentials.
pub(super) async fn check(flag: Option<&str>) -> Result<(), NoProfile> {
    let variable = std::env::var(VARIABLE).ok();
    let Some(name) = flag.or(variable.as_deref()).filter(|name| {
        let name = name.trim();
        !name.is_empty() && name != DEFAULT
    }) else {
        return Ok(());
    };
    let files = &Default::default();
    let Ok(profiles) = aws_config::profile::load(&Fs::real(), &Env::real(), files, None).await
    else {
        return Ok(());
    };
    if profiles.get_profile(name).is_some() {
        return Ok(());
    }
    let mut known: Vec<String> = profiles.profiles().map(ToOwned::to_owned).collect();
    known.sort();
    Err(NoProfile {
        name: name.to_owned(),
        known,
    })
}

/// The configuration with the credentials of the profile of `--profile`: like the AWS command line, and unlike the
/// SDK, it passes over the keys in the environment.
pub(super) fn with_credentials_of(config: SdkConfig, profile: &str) -> SdkConfig {
    let mut provider = ProviderConfig::default().with_region(config.region().cloned());
    if let Some(http) = config.http_client() {
        provider = provider.with_http_client(http);
    }
    let credentials = CredentialsProviderChain::first_try(
        "Profile",
        ProfileFileCredentialsProvider::builder()
            .configure(&provider)
            .profile_name(profile)
            .build(),
    )
    .or_else(
        "EcsContainer",
        EcsCredentialsProvider::builder()
            .configure(&provider)
            .build(),
    )
    .or_else(
        "Ec2InstanceMetadata",
        ImdsCredentialsProvider::builder()
            .configure(&provider)
            .build(),
    );
    let credentials = SharedCredentialsProvider::new(credentials);
    config
        .into_builder()
        .credentials_provider(credentials)
        .build()
}
