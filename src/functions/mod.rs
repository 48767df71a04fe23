//! What runs inside AWS Lambda: the same executable, told by the variable `LAMBDA` which function it is.

mod fetch;
mod transient;

use std::str::FromStr as _;

use anyhow::{Context, Result};
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::Value;

use crate::aws::Aws;
use crate::cluster::names::{Cluster, FunctionKind, VERSION};
use crate::run::Run;

/// Set by Lambda in every function, and nowhere else: the address of its runtime API.
pub const RUNTIME_VARIABLE: &str = "AWS_LAMBDA_RUNTIME_API";

/// What a function knows of its cluster: its environment variables.
struct Environment {
    kind: FunctionKind,
    cluster: Cluster,
    /// Name of the Auto Scaling group.
    group: String,
}

impl Environment {
    fn read() -> Result<Self> {
        let variable = |name: &str| {
            std::env::var(name).with_context(|| format!("reading the environment variable {name}"))
        };
        let word = variable("LAMBDA")?;
        Ok(Self {
            kind: FunctionKind::of(&word)
                .with_context(|| format!("there is no function {word:?}: LAMBDA is wrong"))?,
            cluster: Cluster::from_str(&variable("CLUSTER_NAME")?)?,
            group: variable("ASG_NAME")?,
        })
    }
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
        let environment = Environment::read()?;
        let aws = Aws::connect(None, None, Run::unwatched()).await?;
        let (environment, aws) = (&environment, &aws);
        let serve = service_fn(move |event: LambdaEvent<Value>| async move {
            let answer = handle(aws, environment, event.payload).await;
            answer.inspect_err(|error| {
                tracing::error!(kind = error.error_type, "{}", error.error_message);
            })
        });
        // The runtime's error says what went wrong and is no std error that `anyhow` could hold.
        lambda_runtime::run(serve)
            .await
            .map_err(|error| anyhow::anyhow!("serving invocations: {error}"))
    })
}

async fn handle(aws: &Aws, environment: &Environment, input: Value) -> Result<Value, Diagnostic> {
    match environment.kind {
        FunctionKind::Fetch => fetch::handle(aws, environment, &input)
            .await
            .map_err(|error| failed(&error)),
        FunctionKind::Transient => Err(transient::handle(&input)),
        kind @ (FunctionKind::Join | FunctionKind::Scale | FunctionKind::Terminate) => {
            Err(Diagnostic {
                error_type: "NotInThisVersion".to_owned(),
                error_message: format!(
                    "wekactl {VERSION} has no {} function yet: the group's members are safe and stay as they are; \
                 scaling comes with a later version and `wekactl cluster import` run again",
                    kind.word()
                ),
            })
        }
    }
}

fn failed(error: &anyhow::Error) -> Diagnostic {
    Diagnostic {
        error_type: "FunctionFailed".to_owned(),
        error_message: format!("{error:#}"),
    }
}
