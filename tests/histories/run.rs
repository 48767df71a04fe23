//! One run of the state machine, with the functions' own code: the documents between them are the real ones, and a
//! function goes on when its state is given up.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use wekactl::functions::payload::{self, Fetched, Scaled, Start};
use wekactl::functions::ports::Clock;
use wekactl::functions::{Invocation, Setup};
use wekactl::functions::{fetch, scale, terminate};
use wekactl::weka::client::{Reply, Request, Transport, TransportError};

use super::account::Session;
use super::trouble::Death;
use super::world::World;
use crate::support::weka::Exchange;

/// Seconds that a function may take, and its state waits; and the whole machine. As they are made in AWS.
const FETCH: (u64, u64) = (8, 10);
const SCALE: (u64, u64) = (35, 37);
const TERMINATE: (u64, u64) = (12, 14);
const MACHINE: u64 = 58;
/// How long a call to Weka takes that has no trouble.
const ROUND_TRIP: Duration = Duration::from_millis(20);
/// A request without an answer is given up by whoever sent it.
const NO_ANSWER: Duration = Duration::from_secs(60);

/// Which function dies, and at which of its calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dies {
    /// 0, 1, 2: fetch, scale, terminate.
    pub(crate) function: u8,
    pub(crate) call: usize,
    pub(crate) after: bool,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Green.
    Well,
    /// Through the state `Transient`.
    Transient(Vec<String>),
    /// Another run had the lease.
    LeaseLost,
    /// A function failed or took too long.
    Failed(&'static str),
}

/// The time of the world, as a function reads it.
struct Watch(Arc<Mutex<World>>);

impl Clock for Watch {
    fn now(&self) -> Timestamp {
        self.0.lock().expect("no call panics").now()
    }
}

/// The way to the cluster, as one function of one execution has it.
struct Wire {
    world: Arc<Mutex<World>>,
    execution: String,
    death: Death,
}

impl Transport for Wire {
    async fn post(&self, request: Request<'_>) -> Result<Reply, TransportError> {
        let body: Value = serde_json::from_str(request.body.expose_secret()).expect("JSON");
        let method = body["method"].as_str().unwrap_or_default().to_owned();
        tokio::time::sleep(ROUND_TRIP).await;
        self.death.before().await;
        let exchange = {
            let mut world = self.world.lock().expect("no call panics");
            world.synchronise();
            world.before_request(&self.execution, &method, &body["params"]);
            let token = request.token.map(secrecy::SecretString::expose_secret);
            let exchange = world
                .weka
                .exchange(request.address, token, &body.to_string());
            if exchange != Exchange::Refused {
                world.after_request(&self.execution, &method, &body["params"]);
            }
            exchange
        };
        self.death.after().await;
        let wait = |time: Duration| async move {
            tokio::time::sleep(time.min(request.timeout)).await;
            time <= request.timeout
        };
        let reply = |status, body| Reply {
            status,
            body,
            location: None,
        };
        match exchange {
            Exchange::Answered { status, body } => Ok(reply(status, body)),
            Exchange::Slow {
                status,
                body,
                after,
            } if wait(after).await => Ok(reply(status, body)),
            Exchange::Refused => Err(TransportError::NotSent("connection refused".to_owned())),
            Exchange::Slow { .. } => Err(TransportError::Unknown("no answer in time".to_owned())),
            Exchange::Unanswered => {
                wait(NO_ANSWER).await;
                Err(TransportError::Unknown("the connection ended".to_owned()))
            }
        }
    }
}

/// A run from its start to its end. What it leaves running goes on.
pub(crate) async fn run(
    world: Arc<Mutex<World>>,
    setup: Arc<Setup>,
    number: u64,
    dies: Option<Dies>,
) -> Ended {
    let machine = states(world, setup, number, dies);
    match tokio::time::timeout(Duration::from_secs(MACHINE), machine).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(state)) => Ended::Failed(state),
        Err(_) => Ended::Failed("the machine"),
    }
}

async fn states(
    world: Arc<Mutex<World>>,
    setup: Arc<Setup>,
    number: u64,
    dies: Option<Dies>,
) -> Result<Ended, &'static str> {
    let execution = format!("arn:aws:states:eu-central-1:123456789012:execution:prod:{number:08}");
    let death = |function: u8| match dies {
        Some(dies) if dies.function == function => Death::at(dies.call, dies.after),
        _ => Death::default(),
    };
    let session = |death| Session {
        world: Arc::clone(&world),
        execution: execution.clone(),
        death,
    };

    let (cloud, watch, own) = (
        session(death(0)),
        Watch(Arc::clone(&world)),
        Arc::clone(&setup),
    );
    let start = Start {
        execution: execution.clone(),
    };
    let fetched = state("fetch", FETCH, async move {
        let invocation = invocation(&own, &cloud, &watch, FETCH);
        fetch(&invocation, &start).await
    })
    .await?;
    let fetched: Fetched = document(json!(fetched));
    {
        let mut world = world.lock().expect("no call panics");
        world
            .executions
            .entry(execution.clone())
            .or_default()
            .desired = fetched.run.desired_capacity;
    }

    // Death counts the function's calls wherever they go; scale makes none to AWS.
    let wire = Wire {
        world: Arc::clone(&world),
        execution: execution.clone(),
        death: death(1),
    };
    let (cloud, watch, own) = (
        session(Death::default()),
        Watch(Arc::clone(&world)),
        Arc::clone(&setup),
    );
    let scaled = state("scale", SCALE, async move {
        let invocation = invocation(&own, &cloud, &watch, SCALE);
        scale(
            &invocation,
            wire,
            &mut SmallRng::seed_from_u64(number),
            fetched,
        )
        .await
    })
    .await?;
    let scaled: Scaled = document(json!(scaled));

    let (cloud, watch, own) = (session(death(2)), Watch(Arc::clone(&world)), setup);
    let terminated = state("terminate", TERMINATE, async move {
        let invocation = invocation(&own, &cloud, &watch, TERMINATE);
        terminate(&invocation, scaled).await
    })
    .await?;
    let run = terminated.run;
    Ok(match run.transient_errors {
        Some(errors) => Ended::Transient(errors),
        None if run.lease_lost => Ended::LeaseLost,
        None => Ended::Well,
    })
}

fn invocation<'a>(
    setup: &'a Setup,
    cloud: &'a Session,
    clock: &'a Watch,
    (function, _): (u64, u64),
) -> Invocation<'a, Session, Watch> {
    Invocation {
        setup,
        cloud,
        clock,
        deadline: clock.now() + SignedDuration::from_secs(function as i64),
    }
}

fn document<T: serde::de::DeserializeOwned>(value: Value) -> T {
    payload::read(value).expect("what one function writes the next one reads")
}

/// A state waits for its function, and the function goes on without it.
async fn state<T: Send + 'static>(
    name: &'static str,
    (function, state): (u64, u64),
    work: impl Future<Output = anyhow::Result<T>> + Send + 'static,
) -> Result<T, &'static str> {
    let function = tokio::spawn(tokio::time::timeout(Duration::from_secs(function), work));
    match tokio::time::timeout(Duration::from_secs(state), function).await {
        Ok(Ok(Ok(Ok(answer)))) => Ok(answer),
        Ok(Err(panic)) if panic.is_panic() => std::panic::resume_unwind(panic.into_panic()),
        _ => Err(name),
    }
}
