//! Every parser of the management client and of the functions, and what they do with what they have read: for tests
//! that say anything to them. Used by `cargo test` and by the fuzz target.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};
use wekactl::cluster::settings::Credentials;
use wekactl::cluster::spec::Cores;
use wekactl::functions::lease::{Hold, Learned, Lease};
use wekactl::functions::payload::{self, Fetched, Scaled, Start};
use wekactl::functions::ports::{Backend, Clock, Cloud, CloudError};
use wekactl::functions::probe::{self, Answer};
use wekactl::functions::seal::{Direction, Parties, SealKeys};
use wekactl::functions::{Invocation, Setup, fetch, join, reads, scale, terminate, transient};
use wekactl::weka::client::{self, Client, Deadlines, Reply, Request, Transport, TransportError};
use wekactl::weka::ids::{ContainerId, DriveId, ProcessId};
use wekactl::weka::scaling::{Group, Observation, Order, RuleSet, Settings, authorise, decide};
use wekactl::weka::types::{Container, Drive, InterfaceGroup, Override, Process, Reads, Status};

const CLUSTER: &str = "prod";
const KEYS: &str = "0:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const LOGIN: &str = r#"{"jsonrpc": "2.0", "id": "1", "result": {"access_token": "token"}}"#;
/// What a run has, in seconds.
const RUN: i64 = 35;

/// The parsers that understood something of this text. Those that work on a document take the same one, each the
/// fields that it knows.
pub(crate) fn understood(text: &str) -> BTreeSet<&'static str> {
    let mut names = BTreeSet::new();
    let mut note = |name, is_understood: bool| {
        if is_understood {
            names.insert(name);
        }
    };
    note("container id", text.parse::<ContainerId>().is_ok());
    note("process id", text.parse::<ProcessId>().is_ok());
    note("drive id", text.parse::<DriveId>().is_ok());
    note("seal keys", SealKeys::read(&text.into()).is_ok());
    for (name, is_understood) in [
        ("status", is::<Status>(text)),
        ("containers", is::<BTreeMap<ContainerId, Container>>(text)),
        ("drives", is::<BTreeMap<DriveId, Drive>>(text)),
        ("processes", is::<BTreeMap<ProcessId, Process>>(text)),
        ("interface groups", is::<Vec<InterfaceGroup>>(text)),
        ("overrides", is::<BTreeMap<String, Override>>(text)),
        ("reads", is::<Reads>(text)),
        ("question", is::<probe::Request>(text)),
        ("answer to a question", is::<Answer>(text)),
    ] {
        note(name, is_understood);
    }
    let observation = serde_json::from_str::<Observation>(text);
    note("observation", observation.is_ok());
    if let Ok(observation) = observation {
        decided(&observation);
    }

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        says(text, None).await;
        says(text, Some(&Value::Null)).await;
        if let Ok(document) = serde_json::from_str::<Value>(text) {
            note("answers", says(text, Some(&document)).await);
            let run = Run::new(text, &document);
            note("join", run.join().await == 200);
            note("fetch", run.fetch().await);
            note("scale", run.scale().await);
            note("terminate", run.terminate().await);
            transient(&document);
        }
    });
    names
}

fn is<T: DeserializeOwned>(text: &str) -> bool {
    serde_json::from_str::<T>(text).is_ok()
}

/// By every rule set; and what is decided is authorised for the group as it was seen.
fn decided(observation: &Observation) {
    for rules in [RuleSet::Safe, RuleSet::Upstream] {
        let settings = Settings {
            rules,
            ..Settings::default()
        };
        let decision = decide(observation, &settings);
        let order = Order {
            terminate: decision.terminate,
            detach: decision.detach,
            active: Vec::new(),
        };
        authorise(&order, &observation.group, observation.now, &settings);
    }
}

/// Whether Weka was read by a client that hears this.
async fn says(text: &str, document: Option<&Value>) -> bool {
    let client = Client::in_order(
        Weka { text, document },
        vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()],
        client::Credentials {
            user: "admin".to_owned(),
            password: SecretString::from("secret"),
        },
        Deadlines::until(Instant::now() + Duration::from_secs(RUN.unsigned_abs())),
    );
    let read = reads::read(&client, &Noon).await;
    let mutated = client.mutate("cluster_deactivate_hosts", json!({})).await;
    read.is_ok() && mutated.is_ok()
}

/// Backends that answer with the text; where there is a document, with its entry for the method if it has one, and a
/// login succeeds if it says nothing of logins.
struct Weka<'a> {
    text: &'a str,
    document: Option<&'a Value>,
}

impl Transport for Weka<'_> {
    async fn post(&self, request: Request<'_>) -> Result<Reply, TransportError> {
        let asked: Value = serde_json::from_str(request.body.expose_secret()).expect("JSON");
        let method = asked["method"].as_str().expect("a method");
        let field = |name: &str| self.document.and_then(|document| document.get(name));
        let status = field("http_status").and_then(Value::as_u64);
        let location = field("location").and_then(Value::as_str);
        let body = match (field(method), self.document, method) {
            (Some(reply), ..) => reply.to_string(),
            (None, Some(_), "user_login") => LOGIN.to_owned(),
            (None, ..) => self.text.to_owned(),
        };
        Ok(Reply {
            status: status
                .and_then(|status| status.try_into().ok())
                .unwrap_or(200),
            body,
            location: location.map(ToOwned::to_owned),
        })
    }
}

/// The functions, in an account whose group is the document's.
struct Run<'a> {
    text: &'a str,
    document: &'a Value,
    setup: Setup,
    account: Account,
}

impl<'a> Run<'a> {
    fn new(text: &'a str, document: &'a Value) -> Self {
        let group = document.get("group").cloned().unwrap_or_default();
        Self {
            text,
            document,
            setup: Setup {
                cluster: CLUSTER.to_owned(),
                group: "backends".to_owned(),
                keys: SealKeys::read(&KEYS.into()).expect("a key"),
                use_dynamodb_endpoint: true,
                settings: Settings::default(),
            },
            account: Account {
                group: serde_json::from_value(group).ok(),
            },
        }
    }

    fn invocation(&self) -> Invocation<'_, Account, Noon> {
        Invocation {
            setup: &self.setup,
            cloud: &self.account,
            clock: &Noon,
            deadline: Noon.now() + SignedDuration::from_secs(RUN),
        }
    }

    async fn join(&self) -> u16 {
        let response = join(&self.account, &Noon, CLUSTER, self.document.clone());
        response.await.status_code
    }

    async fn fetch(&self) -> bool {
        match serde_json::from_value::<Start>(self.document.clone()) {
            Ok(start) => fetch(&self.invocation(), &start).await.is_ok(),
            Err(_) => false,
        }
    }

    async fn scale(&self) -> bool {
        let Ok(fetched) = payload::read::<Fetched>(self.document.clone()) else {
            return false;
        };
        let weka = Weka {
            text: self.text,
            document: Some(self.document),
        };
        let mut rng = SmallRng::seed_from_u64(1);
        let scaled = scale(&self.invocation(), weka, &mut rng, fetched).await;
        scaled.is_ok_and(|scaled| scaled.run.gate.is_none())
    }

    /// Once with what is sealed in the document, and once with what its orders are when sealed.
    async fn terminate(&self) -> bool {
        let Ok(scaled) = payload::read::<Scaled>(self.document.clone()) else {
            return false;
        };
        let parties = Parties {
            cluster: CLUSTER,
            execution: &scaled.run.execution,
            direction: Direction::ScaleToTerminate,
        };
        let orders = self.document.get("orders");
        let sealed = self.setup.keys.seal(parties, Noon.now(), &orders);
        let ordered = Scaled {
            sealed: sealed.ok(),
            ..scaled.clone()
        };
        let invocation = self.invocation();
        let _ = terminate(&invocation, scaled).await;
        let terminated = terminate(&invocation, ordered).await;
        terminated.is_ok_and(|terminated| !terminated.done.terminated.is_empty())
    }
}

/// Its time stands still.
struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        Timestamp::constant(1_772_366_400, 0)
    }
}

/// An account that does whatever it is asked, if there is a group.
struct Account {
    group: Option<Group>,
}

impl Cloud for Account {
    async fn group(&self) -> Result<Group, CloudError> {
        self.group.clone().ok_or_else(|| CloudError {
            text: "no such group".to_owned(),
            refused: true,
        })
    }

    async fn credentials(&self) -> Result<Option<Credentials>, CloudError> {
        Ok(Some(Credentials {
            username: "admin".into(),
            password: "secret".into(),
        }))
    }

    async fn take_lease(&self, _: &Hold, _: Timestamp) -> Result<Option<Lease>, CloudError> {
        Ok(Some(Lease::default()))
    }

    async fn write_lease(&self, _: &Hold, _: &Learned) -> Result<bool, CloudError> {
        Ok(true)
    }

    async fn release_lease(&self, _: &Hold) -> Result<(), CloudError> {
        Ok(())
    }

    async fn set_scale_in_protection(&self, _: &[String], _: bool) -> Result<(), CloudError> {
        Ok(())
    }

    async fn termination_protection(&self, _: &str) -> Result<bool, CloudError> {
        Ok(false)
    }

    async fn set_termination_protection(&self, _: &str, _: bool) -> Result<(), CloudError> {
        Ok(())
    }

    async fn terminate(&self, _: &[String]) -> Result<(), CloudError> {
        Ok(())
    }

    async fn detach(&self, _: &[String]) -> Result<(), CloudError> {
        Ok(())
    }

    async fn mark_joined(&self, _: &[String]) -> Result<(), CloudError> {
        Ok(())
    }

    async fn running_backends(&self) -> Result<Vec<Backend>, CloudError> {
        let group = self.group().await?;
        let backends = group.instances.into_iter().map(|instance| Backend {
            private_ip: instance.private_ip.unwrap_or_default(),
            launched: instance.launched,
        });
        Ok(backends.collect())
    }

    async fn cores(&self) -> Result<Option<Cores>, CloudError> {
        Ok(Some(Cores {
            compute: 1,
            drive: 1,
            frontend: 1,
            memory: 1 << 33,
        }))
    }
}
