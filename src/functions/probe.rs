//! One read of Weka for a person, or for a command that wants to know whether a login works: asked of `scale`, which
//! reaches the backends where the person's machine does not. Question and answer travel in Lambda's own connection; the
//! question is sealed with the cluster's key, so that whoever may invoke the function and no more can ask nothing.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Invocation;
use super::payload::{Secrets, VERSION};
use super::ports::{Clock, Cloud};
use super::seal::{Direction, Parties, SealKeys, Sealed};
use crate::aws::Aws;
use crate::cluster::names::{Cluster, FunctionKind};
use crate::cluster::settings::Credentials;
use crate::resource::{Resource as _, owned};
use crate::resources::function::{self, Function};
use crate::weka::client::{self, CallError, Client, Deadlines, Transport};

/// Left of the function's time for the answer itself.
const MARGIN: SignedDuration = SignedDuration::from_secs(2);
/// The methods that may be asked for: they change nothing, and tell no secret of the cluster.
const METHODS: &[&str] = &[
    "alerts_list",
    "client_query_backend",
    "directory_quota_list",
    "disks_list",
    "filesystems_get_capacity",
    "hosts_list",
    "interface_group_list",
    "manual_override_list",
    "nodes_list",
    "obs_capacities_list",
    "stats_show",
    "status",
    "system_get_rebuild_status",
];

/// What is asked.
pub struct Question {
    /// As whom.
    pub credentials: Credentials,
    /// Whom: addresses of backends. The first that is of use answers.
    pub addresses: Vec<String>,
    /// One of the methods that change nothing.
    pub method: String,
    /// Its parameters.
    pub params: Value,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "Outcome",
    rename_all = "PascalCase",
    rename_all_fields = "PascalCase"
)]
pub enum Answer {
    /// Weka has answered.
    Result {
        /// With this.
        result: Value,
    },
    /// Weka has taken the login, and refused the method.
    Refused {
        /// In its own words.
        why: String,
    },
    /// Weka has refused the login.
    LoginRefused {
        /// In its own words.
        why: String,
    },
    /// No backend was of use, or none in time.
    Unreachable {
        /// Which, and why.
        why: String,
    },
}

/// The function can not be asked now, whatever the question.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotReady(String);

/// What the function gets. Nobody reads in it what is asked, or as whom.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Request {
    version: u32,
    /// Drawn for this question: what was sealed for one opens for no other.
    probe: String,
    sealed: Sealed,
}

/// What is sealed in it.
#[derive(Serialize, Deserialize)]
struct Open {
    credentials: Secrets,
    addresses: Vec<String>,
    method: String,
    params: Value,
}

impl Question {
    /// The shortest question to which only a user of the cluster gets an answer.
    pub fn login(credentials: Credentials, addresses: Vec<String>) -> Self {
        Self {
            credentials,
            addresses,
            method: "status".to_owned(),
            params: json!({}),
        }
    }

    fn check(&self) -> Result<()> {
        ensure!(
            METHODS.contains(&self.method.as_str()),
            "{} is not among the methods that are known to change nothing: {}",
            self.method,
            METHODS.join(", ")
        );
        Ok(())
    }

    fn seal(&self, keys: &SealKeys, cluster: &str, probe: String) -> Result<Request> {
        let parties = Parties {
            cluster,
            execution: &probe,
            direction: Direction::AskerToScale,
        };
        let open = Open {
            credentials: Secrets::of(&self.credentials),
            addresses: self.addresses.clone(),
            method: self.method.clone(),
            params: self.params.clone(),
        };
        let sealed = keys.seal(parties, Timestamp::now(), &open)?;
        Ok(Request {
            version: VERSION,
            probe,
            sealed,
        })
    }
}

/// Whether an input of `scale` is a question, and not a run.
pub(super) fn is_question(input: &Value) -> bool {
    input.get("Probe").is_some()
}

/// Answers a question that was asked of the function.
///
/// # Errors
/// It is sealed for somebody else, or asks for a method that is not known to change nothing.
pub(super) async fn probe<C: Cloud, K: Clock, T: Transport>(
    invocation: &Invocation<'_, C, K>,
    transport: T,
    rng: &mut impl Rng,
    request: Request,
) -> Result<Answer> {
    let open: Open = invocation
        .open(Direction::AskerToScale, &request.probe, &request.sealed)
        .context("the question")?;
    let question = Question {
        credentials: open.credentials.credentials(),
        addresses: open.addresses,
        method: open.method,
        params: open.params,
    };
    let left = invocation
        .deadline
        .duration_since(invocation.clock.now())
        .saturating_sub(MARGIN);
    let left = Duration::try_from(left).unwrap_or_default();
    let answer = ask(transport, rng, &question, left).await?;
    tracing::info!(method = question.method, "answered a question");
    Ok(answer)
}

/// Asks Weka itself.
///
/// # Errors
/// A method that is not known to change nothing.
pub async fn ask<T: Transport>(
    transport: T,
    rng: &mut impl Rng,
    question: &Question,
    time: Duration,
) -> Result<Answer> {
    question.check()?;
    let client = Client::new(
        transport,
        question.addresses.clone(),
        client::Credentials {
            user: question.credentials.username.expose_secret().to_owned(),
            password: question.credentials.password.clone(),
        },
        Deadlines::until(Instant::now() + time),
        rng,
    );
    let answer = client.read(&question.method, question.params.clone()).await;
    Ok(answer.map_or_else(
        |error| {
            let why = error.to_string();
            match error {
                CallError::LoginRefused { .. } => Answer::LoginRefused { why },
                // A read is rejected with the token of a new login.
                CallError::Refused { .. }
                | CallError::MethodNotFound { .. }
                | CallError::Rejected { .. } => Answer::Refused { why },
                CallError::NoUsableBackend { .. }
                | CallError::Unknown { .. }
                | CallError::OutOfTime { .. }
                | CallError::Malformed { .. } => Answer::Unreachable { why },
            }
        },
        |result| Answer::Result { result },
    ))
}

/// Asks Weka through the cluster's `scale`. One read of the function, and one invocation.
///
/// # Errors
/// [`NotReady`]: there is no such function, it is not active, or the earlier tool made it. It is not this cluster's; a
/// method that is not known to change nothing; AWS's failures; a function that fails.
pub async fn ask_scale(aws: &Aws, cluster: &Cluster, question: &Question) -> Result<Answer> {
    question.check()?;
    let name = cluster.function(FunctionKind::Scale);
    let found = Function::find(aws, cluster, &name)
        .await
        .with_context(|| format!("reading Lambda function {name}"))?;
    let not_ready = |why: String| NotReady(format!("Lambda function {name} {why}"));
    let found = found.into_iter().next();
    let found = found.ok_or_else(|| not_ready("does not exist".to_owned()))?;
    // Whoever's function it is could open what is sealed with its key.
    owned::<Function>(cluster, &name, &found)?;
    let key = found.environment.seal_key.ok_or_else(|| {
        not_ready("has no sealing key: it is the earlier tool's, which can not be asked".to_owned())
    })?;
    if found.state != "Active" {
        return Err(not_ready(format!("is {}", found.state)).into());
    }
    let keys = SealKeys::read(&key)
        .with_context(|| format!("reading the sealing key of Lambda function {name}"))?;
    let request = question.seal(&keys, &cluster.name, uuid::Uuid::new_v4().to_string())?;
    let answer = function::invoke(aws, &name, &serde_json::to_value(request)?)
        .await
        .with_context(|| format!("asking Lambda function {name}"))?;
    serde_json::from_value(answer)
        .with_context(|| format!("Lambda function {name} answers something else than was asked"))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::super::fakes::{self, PASSWORD, World, address};
    use super::super::payload;
    use super::*;

    fn question(method: &str) -> Question {
        let credentials = Credentials {
            username: "admin".into(),
            password: PASSWORD.into(),
        };
        Question {
            method: method.to_owned(),
            ..Question::login(credentials, vec![address(0), address(1)])
        }
    }

    /// As the function gets it: sealed now, by the clock of whoever asks.
    fn sealed(world: &World, question: &Question) -> Value {
        world.clock.set(Timestamp::now());
        let request = question.seal(&world.setup.keys, "prod", "one".to_owned());
        let input = serde_json::to_value(request.unwrap()).unwrap();
        assert!(is_question(&input));
        assert!(!input.to_string().contains(PASSWORD));
        input
    }

    async fn answer(world: &World, input: Value) -> Result<Answer> {
        let mut rng = StdRng::seed_from_u64(1);
        let request = payload::read(input)?;
        probe(&world.invocation(35), world.weka.clone(), &mut rng, request).await
    }

    #[tokio::test]
    async fn a_question_has_one_of_four_answers() {
        let world = World::of(6);
        let asked = answer(&world, sealed(&world, &question("hosts_list"))).await;
        let Answer::Result { result } = asked.unwrap() else {
            panic!("no result");
        };
        assert_eq!(result.as_object().map(serde_json::Map::len), Some(18));
        assert_eq!(world.weka.methods(), [""; 0]);

        for (method, says, outcome) in [
            (
                "alerts_list",
                fakes::Answer::Error(-32001, "not for you"),
                "Refused",
            ),
            ("alerts_list", fakes::Answer::Status(401), "Refused"),
            ("user_login", fakes::Answer::Status(401), "LoginRefused"),
            ("user_login", fakes::Answer::Silence, "Unreachable"),
        ] {
            world.weka.answers(method, &[says]);
            let asked = answer(&world, sealed(&world, &question("alerts_list"))).await;
            let asked = serde_json::to_value(asked.unwrap()).unwrap();
            assert_eq!(asked["Outcome"], outcome, "{asked}");
            assert!(asked["Why"].is_string(), "{asked}");
        }
    }

    #[tokio::test]
    async fn what_changes_something_is_not_asked_and_a_seal_opens_once_and_here() {
        let world = World::of(6);
        for method in [
            "cluster_deactivate_hosts",
            "cluster_remove_host",
            "events_trigger_custom",
            "user_login",
            "",
        ] {
            let refused = answer(&world, sealed(&world, &question(method))).await;
            let error = format!("{:#}", refused.unwrap_err());
            assert!(error.contains("known to change nothing: "), "{error}");
        }
        let input = sealed(&world, &question("status"));
        let mut other = input.clone();
        other["Probe"] = json!("two");
        let error = answer(&world, other).await.unwrap_err();
        assert!(format!("{error:#}").contains("seal is broken"), "{error:#}");
        world.clock.advance(61);
        let error = answer(&world, input).await.unwrap_err();
        assert!(
            format!("{error:#}").contains("too far from now"),
            "{error:#}"
        );
        assert_eq!(world.weka.asked("status"), [""; 0]);
    }
}
