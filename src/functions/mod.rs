//! What runs inside AWS Lambda: the same executable, told by the variable `LAMBDA` which function it is.
//!
//! What a function does is written against [`ports`], so that it runs in memory as well; [`aws`] connects it to AWS.

mod aws;
mod execute;
#[cfg(test)]
mod fakes;
mod fetch;
mod invocation;
pub mod join;
pub mod lease;
mod observe;
pub mod payload;
pub mod ports;
pub mod probe;
pub mod reads;
mod scale;
pub mod seal;
mod terminate;
mod transient;

use std::str::FromStr as _;

use anyhow::{Context, Result};
use jiff::Timestamp;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use secrecy::SecretString;
use serde_json::Value;
use tracing::Instrument as _;

pub use fetch::fetch;
pub use invocation::{Invocation, Setup};
pub use join::join;
pub use observe::{OutOfReach, next_join_script, observe};
pub use scale::scale;
pub use terminate::terminate;
pub use transient::transient;

use crate::aws::Aws;
use crate::cluster::names::{Cluster, FunctionKind};
use crate::resources::function::{
    CLUSTER_VARIABLE, ENDPOINT_VARIABLE, GROUP_VARIABLE, KIND_VARIABLE, SEAL_KEY_VARIABLE,
    TABLE_VARIABLE,
};
use crate::run::Run;
use crate::weka::client::MANAGEMENT_PORT;
use crate::weka::http::{HttpTransport, Trust};
use crate::weka::scaling::Settings;
use aws::{AwsCloud, SystemClock};

/// Set by Lambda in every function, and nowhere else: the address of its runtime API.
pub const RUNTIME_VARIABLE: &str = "AWS_LAMBDA_RUNTIME_API";

/// A function, with what it needs and no more: none starts slower for what another one does.
enum Function {
    Join(AwsCloud),
    Run(Step, AwsCloud, Setup),
    Transient,
}

/// Those that work on a run, one after the other.
#[derive(Debug, Clone, Copy)]
enum Step {
    Fetch,
    Scale,
    Terminate,
}

impl Function {
    /// As the environment says.
    async fn read() -> Result<Self> {
        let word = variable(KIND_VARIABLE)?;
        let kind = FunctionKind::of(&word)
            .with_context(|| format!("there is no function {word:?}: LAMBDA is wrong"))?;
        let step = match kind {
            FunctionKind::Join => return Ok(Self::Join(connect().await?)),
            FunctionKind::Transient => return Ok(Self::Transient),
            FunctionKind::Fetch => Step::Fetch,
            FunctionKind::Scale => Step::Scale,
            FunctionKind::Terminate => Step::Terminate,
        };
        let keys = SecretString::from(variable(SEAL_KEY_VARIABLE)?);
        let setup = Setup {
            cluster: variable(CLUSTER_VARIABLE)?,
            group: variable(GROUP_VARIABLE)?,
            keys: seal::SealKeys::read(&keys)
                .with_context(|| format!("reading the environment variable {SEAL_KEY_VARIABLE}"))?,
            use_dynamodb_endpoint: variable(ENDPOINT_VARIABLE)? == "true",
            settings: Settings::default(),
        };
        Ok(Self::Run(step, connect().await?, setup))
    }
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("reading the environment variable {name}"))
}

/// No call is made.
async fn connect() -> Result<AwsCloud> {
    Ok(AwsCloud {
        cluster: Cluster::from_str(&variable(CLUSTER_VARIABLE)?)?,
        group: variable(GROUP_VARIABLE)?,
        table: variable(TABLE_VARIABLE)?,
        aws: Aws::connect(None, None, Run::unwatched()).await?,
    })
}

/// Serves invocations until Lambda ends the process.
///
/// # Errors
/// A wrong environment; a runtime API that does not answer.
pub fn run() -> Result<()> {
    // Lambda gives a fraction of a core: one thread starts faster and loses nothing.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tracing_subscriber::fmt()
            .json()
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO)
            .init();
        let function = &Function::read().await?;
        let serve = service_fn(move |event: LambdaEvent<Value>| {
            let execution = execution(&event.payload).unwrap_or_default();
            let span = tracing::info_span!("run", execution);
            let answer = async move {
                handle(function, event).await.inspect_err(|error| {
                    tracing::error!(kind = error.error_type, "{}", error.error_message);
                })
            };
            answer.instrument(span)
        });
        // The runtime's error says what went wrong and is no std error that `anyhow` could hold.
        lambda_runtime::run(serve)
            .await
            .map_err(|error| anyhow::anyhow!("serving invocations: {error}"))
    })
}

/// Which execution an input is of.
fn execution(input: &Value) -> Option<String> {
    let execution = input.get("execution").or_else(|| input.get("Execution"))?;
    execution.as_str().map(ToOwned::to_owned)
}

async fn handle(function: &Function, event: LambdaEvent<Value>) -> Result<Value, Diagnostic> {
    let input = event.payload;
    let answer = match function {
        Function::Transient => return Err(transient(&input)),
        Function::Join(cloud) => {
            let response = join(cloud, &SystemClock, &cloud.cluster.name, input);
            let response = Box::pin(response).await;
            serde_json::to_value(response).map_err(Into::into)
        }
        Function::Run(step, cloud, setup) => {
            let deadline = i64::try_from(event.context.deadline).unwrap_or(i64::MAX);
            let invocation = Invocation {
                setup,
                cloud,
                clock: &SystemClock,
                deadline: Timestamp::from_millisecond(deadline).unwrap_or(Timestamp::MAX),
            };
            take(*step, &invocation, input).await
        }
    };
    answer.map_err(|error: anyhow::Error| Diagnostic {
        error_type: "FunctionFailed".to_owned(),
        error_message: format!("{error:#}"),
    })
}

/// Each in a box of its own: one type that holds all three is more than the compiler wants to look into.
async fn take(
    step: Step,
    invocation: &Invocation<'_, AwsCloud, SystemClock>,
    input: Value,
) -> Result<Value> {
    let output = match step {
        Step::Fetch => {
            let start = serde_json::from_value(input).context("the input names no execution")?;
            serde_json::to_value(Box::pin(fetch(invocation, &start)).await?)
        }
        Step::Scale => {
            // What was open in an invocation before this one is closed by now, or was another run's.
            let transport = HttpTransport::new(MANAGEMENT_PORT, &Trust::Any)?;
            let mut rng = StdRng::from_os_rng();
            if probe::is_question(&input) {
                let request = payload::read(input)?;
                let answer = Box::pin(probe::probe(invocation, transport, &mut rng, request));
                return Ok(serde_json::to_value(answer.await?)?);
            }
            let fetched = payload::read(input)?;
            let scaled = Box::pin(scale(invocation, transport, &mut rng, fetched)).await?;
            serde_json::to_value(scaled)
        }
        Step::Terminate => {
            let scaled = payload::read(input)?;
            serde_json::to_value(Box::pin(terminate(invocation, scaled)).await?)
        }
    };
    Ok(output?)
}
