//! One door to AWS: the service clients, who we are there, and the run they work for.

mod batch;
pub mod error;
mod place;
mod profile;
mod rates;
pub mod retry;
pub mod wait;
mod watch;

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_smithy_http_client::{Builder as HttpClientBuilder, tls};
use futures::FutureExt as _;
use futures::stream::{self, StreamExt as _};
use tokio::sync::OnceCell;

pub use batch::in_batches;
pub use error::{Answer, AwsError};
pub use place::{BadPlace, is_region};
pub use profile::NoProfile;
pub use rates::{BadRates, Metered};
pub use wait::{Probe, wait_until};

use crate::run::{Interrupted, Run};

/// How long one call may take with all its retries: throttling is sat out this long
/// (API Gateway allows, for instance, one `DeleteRestApi` in 30 seconds).
pub const CALL_DEADLINE: Duration = Duration::from_secs(180);
/// How long one try of a call may go without an answer: a connection that has gone silent says nothing ever after. What
/// was sent may have taken effect, as after any lost answer. [`try_timeout`] gives more to calls that need it. Inside a
/// function most calls have less: its own timeout ends them, and the next minute's run begins anew.
const TRY_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest pause between two tries of a call.
const CALL_PAUSE: Duration = Duration::from_secs(15);
/// Only the deadline ends the retries of a call that may be sent again.
const CALL_ATTEMPTS: u32 = 40;

/// Who the credentials belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Twelve digits.
    pub account: String,
    /// `aws`, `aws-cn`, `aws-us-gov`, …: the second part of every ARN.
    pub partition: String,
}

impl Identity {
    /// The domain under which the partition's services answer.
    /// Source: the partitions of the SDKs' endpoint rules.
    pub fn dns_suffix(&self) -> &'static str {
        match self.partition.as_str() {
            "aws-cn" => "amazonaws.com.cn",
            "aws-iso" => "c2s.ic.gov",
            "aws-iso-b" => "sc2s.sgov.gov",
            _ => "amazonaws.com",
        }
    }
}

macro_rules! clients {
    ($($name:ident: $krate:ident),* $(,)?) => {
        #[derive(Default)]
        struct Clients { $($name: OnceLock<$krate::Client>),* }

        impl Aws {
            $(
                #[doc = concat!("The client of `", stringify!($krate), "`, made on first use.")]
                pub fn $name(&self) -> &$krate::Client {
                    self.clients.$name.get_or_init(|| {
                        use $krate::config::retry::{RetryPartition, TokenBucket};
                        // The SDK's own bucket is empty after some dozens of retries; here the deadline decides.
                        let patient = RetryPartition::custom(stringify!($name))
                            .token_bucket(TokenBucket::unlimited())
                            .build();
                        let config = $krate::config::Builder::from(&self.config)
                            .retry_partition(patient)
                            .retry_classifier(retry::QuotasDoNotPass)
                            .interceptor(watch::Watch::new(self.run.clone(), CALL_DEADLINE, CALL_PAUSE))
                            .build();
                        $krate::Client::from_conf(config)
                    })
                }
            )*
        }
    };
}

clients! {
    apigateway: aws_sdk_apigateway,
    autoscaling: aws_sdk_autoscaling,
    cloudformation: aws_sdk_cloudformation,
    dynamodb: aws_sdk_dynamodb,
    ec2: aws_sdk_ec2,
    elb: aws_sdk_elasticloadbalancing,
    elbv2: aws_sdk_elasticloadbalancingv2,
    events: aws_sdk_eventbridge,
    iam: aws_sdk_iam,
    kms: aws_sdk_kms,
    lambda: aws_sdk_lambda,
    logs: aws_sdk_cloudwatchlogs,
    route53: aws_sdk_route53,
    sfn: aws_sdk_sfn,
    sts: aws_sdk_sts,
    tagging: aws_sdk_resourcegroupstagging,
}

/// The AWS of one region and one set of credentials, and the run that uses it.
pub struct Aws {
    config: SdkConfig,
    clients: Clients,
    identity: OnceCell<Identity>,
    region: String,
    rates: rates::Rates,
    /// Where steps are reported, whether they may change anything, and whether to go on at all.
    pub run: Run,
}

impl Aws {
    /// Reads the environment, the profile and the region. No call is made.
    ///
    /// # Errors
    /// [`NoProfile`] when a profile is named that is not there; [`NoRegion`] when neither the argument nor the
    /// environment nor the profile names a region; [`BadPlace`] when what they name is none, or no URL; [`BadRates`].
    pub async fn connect(
        region: Option<String>,
        profile: Option<String>,
        run: Run,
    ) -> Result<Self> {
        place::check_endpoints(std::env::vars_os())?;
        let rates = rates::Rates::of_environment()?;
        profile::check(profile.as_deref()).await?;
        let http = HttpClientBuilder::new()
            .tls_provider(tls::Provider::Rustls(
                tls::rustls_provider::CryptoMode::Ring,
            ))
            .build_https();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(CALL_ATTEMPTS)
                    .with_initial_backoff(Duration::from_millis(400))
                    .with_max_backoff(CALL_PAUSE),
            )
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(Duration::from_secs(5))
                    .operation_attempt_timeout(TRY_TIMEOUT)
                    .operation_timeout(CALL_DEADLINE)
                    .build(),
            );
        if let Some(region) = region {
            loader = loader.region(Region::new(region));
        }
        if let Some(profile) = &profile {
            loader = loader.profile_name(profile);
        }
        let mut config = loader.load().await;
        if let Some(profile) = &profile {
            config = profile::with_credentials_of(config, profile);
        }
        let region = config
            .region()
            .map(ToString::to_string)
            .filter(|region| !region.is_empty())
            .ok_or(NoRegion)?;
        place::check_region(&region)?;
        if let Some(url) = config.endpoint_url() {
            place::check_endpoint("endpoint_url of the profile", url)?;
        }
        Ok(Self {
            config,
            clients: Clients::default(),
            identity: OnceCell::new(),
            region,
            rates,
            run,
        })
    }

    /// The same account in another region.
    ///
    /// # Errors
    /// As [`Aws::identity`].
    pub async fn in_region(&self, region: &str) -> Result<Self> {
        let identity = self.identity().await?.clone();
        let config = self.config.to_builder();
        Ok(Self {
            config: config.region(Region::new(region.to_owned())).build(),
            clients: Clients::default(),
            identity: OnceCell::new_with(Some(identity)),
            region: region.to_owned(),
            // They are a region's.
            rates: rates::Rates::of_environment()?,
            run: self.run.clone(),
        })
    }

    /// The region every call goes to (IAM and Route 53 are global and ignore it).
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Waits until AWS's rate lets such a call through. For so many instances: with [`Metered::TerminateInstances`] they
    /// count as well.
    ///
    /// # Errors
    /// [`Interrupted`] after Ctrl-C, at once.
    pub async fn pace(&self, call: Metered, count: usize) -> Result<(), Interrupted> {
        self.rates.pass(&self.run, call, count).await
    }

    /// Whether the calls go to another place than AWS itself (`AWS_ENDPOINT_URL`).
    pub fn has_endpoint_override(&self) -> bool {
        self.config.endpoint_url().is_some()
    }

    /// The caller's account and partition: asked once, however many need it.
    ///
    /// # Errors
    /// Missing, expired or refused credentials; no way to reach AWS. Few attempts: this is the
    /// first call of every command, and without network nobody wants to wait out the retries.
    pub async fn identity(&self) -> Result<&Identity> {
        self.identity
            .get_or_try_init(|| async {
                let few = aws_sdk_sts::config::Config::builder()
                    .retry_config(RetryConfig::standard().with_max_attempts(4));
                let caller = self
                    .sts()
                    .get_caller_identity()
                    .customize()
                    .config_override(few)
                    .send()
                    .await
                    .answer()
                    .context("asking AWS who the credentials belong to")?;
                let account = caller.account().unwrap_or_default().to_owned();
                let partition = caller
                    .arn()
                    .and_then(|arn| arn.split(':').nth(1))
                    .unwrap_or("aws")
                    .to_owned();
                Ok(Identity { account, partition })
            })
            .await
    }

    /// `arn:<partition>:<service>:<region>:<account>:<resource>`.
    ///
    /// # Errors
    /// As [`Aws::identity`].
    pub async fn arn(&self, service: &str, resource: &str) -> Result<String> {
        let Identity { account, partition } = self.identity().await?;
        Ok(format!(
            "arn:{partition}:{service}:{}:{account}:{resource}",
            self.region
        ))
    }
}

/// No region is known: a usage error, found before any call.
#[derive(Debug, thiserror::Error)]
#[error("no AWS region: give --region, set AWS_REGION, or set a region in the profile")]
pub struct NoRegion;

/// How many calls that change something may be under way for the members of one cluster: the services let that
/// many through at once, and throttle those that send hundreds.
pub const CHANGES_AT_ONCE: usize = 8;

/// Waits for all of them, never for more than `limit` at once. The results are in their order. All of them exist from
/// the beginning: where they are many they should be small, and box what they wait for.
pub fn join_some<F: Future>(
    limit: usize,
    futures: impl IntoIterator<Item = F>,
) -> impl Future<Output = Vec<F::Output>> {
    let numbered: Vec<_> = futures
        .into_iter()
        .enumerate()
        .map(|(number, future)| future.map(move |result| (number, result)))
        .collect();
    async move {
        let mut results: Vec<_> = stream::iter(numbered)
            .buffer_unordered(limit)
            .collect()
            .await;
        results.sort_by_key(|(number, _)| *number);
        results.into_iter().map(|(_, result)| result).collect()
    }
}

/// A retry policy for calls that would make a second resource when sent twice: none.
/// What follows a lost answer is a look, then another try: see [`crate::resource::ensure`].
pub fn once() -> RetryConfig {
    RetryConfig::disabled()
}

/// For a call of which one try may take longer than others: what it sends is much, or what it starts is slow.
pub fn try_timeout(time: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .operation_attempt_timeout(time)
        .build()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn some_at_once_and_all_in_order() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let squares = (0..20_u64).map(|number| {
            let (now, most) = (&now, &most);
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                // The later ones are ready sooner.
                tokio::time::sleep(Duration::from_millis(20 - number)).await;
                now.fetch_sub(1, Ordering::Relaxed);
                number * number
            }
        });
        let squares = join_some(8, squares).await;
        assert_eq!(squares, (0..20).map(|it| it * it).collect::<Vec<u64>>());
        assert_eq!(most.into_inner(), 8);
    }
}
