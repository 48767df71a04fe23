//! `scale`: reads Weka, decides, and makes the calls to Weka. The second state of a run.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use secrecy::ExposeSecret as _;
use tokio::time::Instant;

use super::Invocation;
use super::execute::{Executed, execute};
use super::lease::{self, Learned, RefusedLogin};
use super::payload::{Fetched, Orders, RunInfo, Scaled, Secrets, Summary, called, transient};
use super::ports::{Clock, Cloud};
use super::reads::{read, read_again};
use super::seal::Direction;
use crate::cluster::settings::Credentials;
use crate::weka::client::{self, CallError, Client, Deadlines, Transport};
use crate::weka::scaling::{
    Confirmed, Decision, Finding, Observation, Order, Outcome, ReadError, active_members, confirm,
    decide,
};

/// A mutation rests on a list of containers that is no older. S3 of the scaling rules.
const READS_LAST: SignedDuration = SignedDuration::from_secs(20);

/// What one run has seen and done.
struct Outline {
    decision: Decision,
    outcomes: Vec<Outcome>,
    errors: Vec<String>,
    orders: Orders,
}

/// Reads Weka, decides and acts. Whatever keeps it from reading Weka is a gate: nothing is changed, and the run ends
/// with a transient error.
///
/// # Errors
/// A value that can not be sealed; no other.
pub async fn scale<C: Cloud, K: Clock, T: Transport>(
    invocation: &Invocation<'_, C, K>,
    transport: T,
    rng: &mut impl Rng,
    fetched: Fetched,
) -> anyhow::Result<Scaled> {
    if fetched.run.lease_lost {
        return Ok(Scaled::new(fetched.run));
    }
    let run = fetched.run.clone();
    if let Some(why) = run.gate.clone() {
        return closed(invocation, run, why);
    }
    let credentials = match credentials(invocation, &fetched).await {
        Ok(credentials) => credentials,
        Err(why) => return closed(invocation, run, why),
    };
    let fingerprint = lease::fingerprint(&credentials);
    let client = connect(invocation, transport, rng, &fetched, credentials);
    let outline = observe_and_act(invocation, &client, &fetched, fingerprint).await;

    let gate = outline.decision.gate.as_ref();
    let mut scaled = Scaled::new(RunInfo {
        gate: gate.map(|gate| format!("{} ({})", gate.text, gate.rule)),
        transient_errors: transient(outline.errors),
        ..run
    });
    scaled.summary = Summary::of(&outline.decision.machines);
    scaled.calls = called(&outline.decision.calls, &outline.outcomes);
    scaled.weka_requests = client.calls();
    tracing::info!(
        gate = scaled.run.gate,
        calls = scaled.calls.len(),
        requests = scaled.weka_requests,
        terminate = outline.orders.order.terminate.len(),
        errors = scaled.run.transient_errors.as_ref().map_or(0, Vec::len),
        "scaled"
    );
    seal(invocation, scaled, &outline.orders)
}

/// A run that asks nothing of Weka, or could not.
fn closed<C: Cloud, K: Clock>(
    invocation: &Invocation<'_, C, K>,
    run: RunInfo,
    why: String,
) -> anyhow::Result<Scaled> {
    tracing::warn!(gate = why, "nothing is changed");
    let orders = Orders {
        gated: true,
        order: Order::default(),
        learned: Learned {
            previous_desired: Some(run.desired_capacity),
            ..Learned::default()
        },
    };
    let scaled = Scaled::new(RunInfo {
        transient_errors: run
            .transient_errors
            .clone()
            .or_else(|| transient([why.clone()])),
        gate: Some(why),
        ..run
    });
    seal(invocation, scaled, &orders)
}

fn seal<C: Cloud, K: Clock>(
    invocation: &Invocation<'_, C, K>,
    mut scaled: Scaled,
    orders: &Orders,
) -> anyhow::Result<Scaled> {
    let execution = &scaled.run.execution;
    scaled.sealed = Some(invocation.seal(Direction::ScaleToTerminate, execution, orders)?);
    Ok(scaled)
}

/// From fetch, or from the table where this function may reach it.
async fn credentials<C: Cloud, K: Clock>(
    invocation: &Invocation<'_, C, K>,
    fetched: &Fetched,
) -> Result<Credentials, String> {
    if invocation.setup.use_dynamodb_endpoint {
        let stored = invocation.cloud.credentials().await;
        return stored
            .map_err(|error| error.to_string())?
            .filter(lease::are_complete)
            .ok_or_else(|| "no credentials of a Weka user are stored".to_owned());
    }
    let sealed = fetched
        .sealed
        .as_ref()
        .ok_or("fetch has handed over no credentials")?;
    invocation
        .open(Direction::FetchToScale, &fetched.run.execution, sealed)
        .map(Secrets::credentials)
        .map_err(|error| format!("the credentials from fetch: {error} (S16)"))
}

fn connect<C: Cloud, K: Clock, T: Transport>(
    invocation: &Invocation<'_, C, K>,
    transport: T,
    rng: &mut impl Rng,
    fetched: &Fetched,
    credentials: Credentials,
) -> Client<T> {
    let left = invocation.deadline.duration_since(invocation.clock.now());
    let left = Duration::try_from(left).unwrap_or_default();
    Client::new(
        transport,
        fetched.backend_ips.clone(),
        client::Credentials {
            user: credentials.username.expose_secret().to_owned(),
            password: credentials.password,
        },
        Deadlines::until(Instant::now() + left),
        rng,
    )
}

async fn observe_and_act<C: Cloud, K: Clock, T: Transport>(
    invocation: &Invocation<'_, C, K>,
    client: &Client<T>,
    fetched: &Fetched,
    fingerprint: String,
) -> Outline {
    let clock = invocation.clock;
    let settings = &invocation.setup.settings;
    let refused = |is_refused: bool| {
        is_refused.then(|| RefusedLogin {
            time: clock.now(),
            fingerprint: fingerprint.clone(),
        })
    };
    let mut learned = Learned {
        previous_desired: Some(fetched.run.desired_capacity),
        ..Learned::default()
    };
    let (weka, since) = match read(client, clock).await {
        Ok((reads, since)) => (Ok(reads), since),
        Err(error) => {
            learned.refused_login = refused(is_refused_login(&error));
            let text = error.to_string();
            (Err(ReadError { text }), clock.now())
        }
    };
    let observation = Observation {
        now: clock.now(),
        pinned_guid: fetched.guid.clone(),
        previous_desired: fetched.previous_desired,
        group: fetched.group(invocation.setup.group.clone()),
        nfs: None,
        weka,
    };
    let decision = decide(&observation, settings);
    let mut errors = texts(&decision.errors);
    let Some(reads) = observation.reads().filter(|_| decision.gate.is_none()) else {
        return Outline {
            decision,
            outcomes: Vec::new(),
            errors,
            orders: Orders {
                gated: true,
                learned,
                ..Orders::default()
            },
        };
    };
    learned.guid = Some(reads.status.guid.clone());

    let last_start = last_start(invocation, fetched, since);
    let Executed {
        outcomes,
        errors: failures,
        login_refused,
    } = execute(client, clock, &decision, &reads.containers, last_start).await;
    errors.extend(failures);
    learned.refused_login = refused(login_refused);

    let confirmed = look_again(client, &observation, &decision, &outcomes).await;
    errors.extend(texts(&confirmed.errors));
    let order = Order {
        terminate: confirmed.terminate,
        detach: decision.detach.clone(),
        active: active_members(&observation),
    };
    Outline {
        decision,
        outcomes,
        errors,
        orders: Orders {
            gated: false,
            order,
            learned,
        },
    }
}

/// The second look, where it matters.
async fn look_again<T: Transport>(
    client: &Client<T>,
    observation: &Observation,
    decision: &Decision,
    outcomes: &[Outcome],
) -> Confirmed {
    if decision.terminate.is_empty() {
        return Confirmed::default();
    }
    let reread = read_again(client).await.map_err(|error| ReadError {
        text: error.to_string(),
    });
    confirm(observation, decision, outcomes, reread.as_ref())
}

/// When the last mutation may begin: by what it rests on, by the lease, and by this function's own end.
fn last_start<C: Cloud, K: Clock>(
    invocation: &Invocation<'_, C, K>,
    fetched: &Fetched,
    since: Timestamp,
) -> Timestamp {
    let hold = fetched.run.hold();
    hold.last_start(invocation.deadline).min(since + READS_LAST)
}

fn is_refused_login(error: &CallError) -> bool {
    matches!(error, CallError::LoginRefused { .. })
}

fn texts(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fakes::{Answer, EXECUTION, PASSWORD, World, address, drained, id};
    use super::super::seal::Parties;
    use super::*;

    fn orders(world: &World, scaled: &Scaled) -> Orders {
        let parties = Parties {
            cluster: "prod",
            execution: EXECUTION,
            direction: Direction::ScaleToTerminate,
        };
        let sealed = scaled.sealed.as_ref().unwrap();
        world
            .setup
            .keys
            .open(parties, world.clock.now(), sealed)
            .unwrap()
    }

    fn is_gated(world: &World, scaled: &Scaled) -> bool {
        let orders = orders(world, scaled);
        assert_eq!(orders.gated, scaled.run.gate.is_some());
        if orders.gated {
            assert_eq!(orders.order, Order::default());
            assert_eq!(world.weka.methods(), [""; 0]);
            assert_eq!(orders.learned.guid, None);
            assert!(scaled.run.transient_errors.is_some());
        }
        orders.gated
    }

    #[tokio::test]
    async fn a_cluster_as_wanted_is_left_alone() {
        let world = World::of(6);
        let scaled = world.run().await;
        assert_eq!(scaled.run.gate, None);
        assert_eq!(scaled.run.transient_errors, None);
        assert_eq!(world.weka.methods(), [""; 0]);
        assert_eq!(scaled.summary.classes["Healthy"], 6);
        let orders = orders(&world, &scaled);
        assert!(!orders.gated && orders.order.terminate.is_empty());
        assert_eq!(orders.order.active.len(), 6);
        assert_eq!(orders.learned.guid.as_deref(), Some("guid-1"));
        assert_eq!(orders.learned.previous_desired, Some(6));
        assert!(scaled.weka_requests <= 7, "{}", scaled.weka_requests);
    }

    #[tokio::test]
    async fn a_machine_too_many_is_drained_and_asked_no_more() {
        let world = World::of(7);
        world.desire(6);
        let scaled = world.run().await;
        assert_eq!(scaled.run.transient_errors, None);
        assert_eq!(
            world.weka.methods(),
            [
                "cluster_deactivate_drives",
                "events_trigger_custom",
                "cluster_deactivate_hosts"
            ]
        );
        assert_eq!(scaled.summary.verdicts.len(), 1);
        assert_eq!(scaled.calls.len(), 3);
        assert!(scaled.calls.iter().all(|call| call.outcome == "Accepted"));
        // The oldest goes first.
        let machine = &scaled.summary.verdicts[0].machine;
        assert!(machine.contains(&address(0)), "{machine}");
        let asked = world.weka.asked("cluster_deactivate_hosts");
        assert!(asked != [address(0)], "{asked:?}");
    }

    #[tokio::test]
    async fn what_weka_has_released_is_ordered_to_terminate_after_a_look_elsewhere() {
        let world = World::of(7);
        world.desire(6);
        drained(&world.weka, 1);
        let scaled = world.run().await;
        assert_eq!(scaled.run.transient_errors, None);
        let removed = world.weka.methods();
        let removed = removed.iter().filter(|it| *it == "cluster_remove_host");
        assert_eq!(removed.count(), 3);
        let kills = orders(&world, &scaled).order.terminate;
        assert_eq!(kills.len(), 1);
        assert_eq!(kills[0].id, id(1));
        let looks = world.weka.asked("hosts_list");
        assert_eq!(looks.len(), 2);
        assert_ne!(
            looks[0],
            address(1),
            "one that leaves is asked no more anyway"
        );
        assert_ne!(looks[0], looks[1], "another backend");
        assert_eq!(world.weka.asked("status")[1], looks[1]);
    }

    #[tokio::test]
    async fn a_machine_that_was_not_removed_is_not_terminated() {
        let world = World::of(7);
        world.desire(6);
        drained(&world.weka, 0);
        world
            .weka
            .answers("cluster_remove_host", &[Answer::Error(-32001, "not yet")]);
        let scaled = world.run().await;
        assert_eq!(orders(&world, &scaled).order.terminate, []);
        let errors = scaled.run.transient_errors.unwrap();
        assert!(errors.iter().any(|it| it.contains("not yet")), "{errors:?}");
    }

    #[tokio::test]
    async fn without_a_second_look_nothing_is_terminated() {
        let world = World::of(7);
        world.desire(6);
        drained(&world.weka, 0);
        let mut whole = None;
        world
            .weka
            .change("hosts_list", |list| whole = Some(list.clone()));
        let answers = [Answer::Result(whole.unwrap()), Answer::Error(-32001, "no")];
        world.weka.answers("hosts_list", &answers);
        let scaled = world.run().await;
        assert_eq!(orders(&world, &scaled).order.terminate, []);
        assert!(scaled.run.transient_errors.is_some());
    }

    #[tokio::test]
    async fn without_the_lease_nothing_is_asked() {
        let world = World::of(7);
        let mut fetched = world.fetch().await.unwrap();
        fetched.run.lease_lost = true;
        let scaled = world.scale(fetched).await;
        assert!(scaled.run.lease_lost && scaled.sealed.is_none());
        assert_eq!(scaled.run.transient_errors, None);
        assert_eq!(world.weka.asked("user_login"), [""; 0]);
    }

    #[tokio::test]
    async fn fetchs_gate_stays_closed() {
        let world = World::of(7);
        world.desire(6);
        let mut fetched = world.fetch().await.unwrap();
        fetched.run.gate = Some("no credentials".into());
        fetched.run.transient_errors = transient(["no credentials".to_owned()]);
        let scaled = world.scale(fetched).await;
        assert!(is_gated(&world, &scaled));
        assert_eq!(world.weka.asked("user_login"), [""; 0]);
    }

    #[tokio::test]
    async fn whatever_can_not_be_read_is_a_gate() {
        for method in ["status", "hosts_list", "disks_list", "nodes_list"] {
            for answer in [
                Answer::Error(-32001, "no"),
                Answer::Result(json!(null)),
                Answer::Result(json!({})),
                Answer::Result(json!({"HostId<x>": 1})),
            ] {
                let world = World::of(7);
                world.desire(6);
                world.weka.answers(method, &[answer]);
                let scaled = world.run().await;
                assert!(is_gated(&world, &scaled), "{method}");
            }
        }
        // What old versions lack is empty, and what goes wrong is not.
        for method in ["interface_group_list", "manual_override_list"] {
            for (answer, closes) in [
                (Answer::Error(-32601, "Method not found"), false),
                (Answer::Error(-32001, "no"), true),
            ] {
                let world = World::of(6);
                world.weka.answers(method, &[answer]);
                let scaled = world.run().await;
                assert_eq!(is_gated(&world, &scaled), closes, "{method}");
            }
        }
    }

    #[tokio::test]
    async fn a_list_that_is_not_whole_is_read_once_more() {
        let world = World::of(6);
        let mut whole = json!(null);
        world.weka.change("hosts_list", |list| whole = list.clone());
        let mut short = whole.clone();
        short.as_object_mut().unwrap().remove("HostId<17>");
        let [whole, short] = [whole, short].map(Answer::Result);
        world.weka.answers("hosts_list", &[short.clone(), whole]);
        assert_eq!(world.run().await.run.gate, None);
        assert_eq!(world.weka.asked("hosts_list").len(), 2);
        assert_eq!(world.weka.asked("status").len(), 2);

        let world = World::of(6);
        world.weka.answers("hosts_list", &[short]);
        let scaled = world.run().await;
        assert!(is_gated(&world, &scaled));
        assert_eq!(world.weka.asked("hosts_list").len(), 2);
    }

    #[tokio::test]
    async fn a_refused_login_is_remembered_and_told_without_the_password() {
        let world = World::of(6);
        world.weka.answers("user_login", &[Answer::Status(401)]);
        let scaled = world.run().await;
        assert!(is_gated(&world, &scaled));
        assert_eq!(world.weka.asked("user_login").len(), 1);
        let learned = orders(&world, &scaled).learned.refused_login.unwrap();
        let credentials = world.cloud.credentials.clone().unwrap();
        assert!(learned.speaks_against(&credentials, world.clock.now()));
        let text = serde_json::to_string(&scaled).unwrap();
        assert!(!text.contains(PASSWORD) && !text.contains(&learned.fingerprint));
    }

    #[tokio::test]
    async fn old_reads_an_old_lease_and_a_late_function_change_nothing() {
        // Seconds: before scale begins, that its reads take, and that it may take.
        for (before, reads, limit, changes) in [
            (0, 20, 35, true),
            (0, 21, 35, false),
            (50, 13, 35, true),
            (50, 14, 35, false),
            (0, 14, 16, true),
            (0, 15, 16, false),
        ] {
            let world = World::of(7);
            world.desire(6);
            world.weka.change("status", |status| {
                status.as_object_mut().unwrap().remove("time");
            });
            world.weka.takes("status", reads);
            let fetched = world.fetch().await.unwrap();
            world.clock.advance(before);
            let scaled = world.scale_within(limit, fetched).await;
            assert_eq!(scaled.run.gate, None);
            assert_eq!(
                !world.weka.methods().is_empty(),
                changes,
                "{before} {reads}"
            );
            let errors = scaled.run.transient_errors.unwrap_or_default();
            let too_late = errors.iter().any(|it| it.contains("no time is left"));
            assert_eq!(too_late, !changes, "{errors:?}");
        }
    }

    #[tokio::test]
    async fn credentials_of_another_run_open_nothing() {
        let world = World::of(7);
        world.desire(6);
        let mut fetched = world.fetch().await.unwrap();
        fetched.run.execution = "arn:other".into();
        let scaled = world.scale(fetched).await;
        assert!(scaled.run.gate.unwrap().contains("S16"));
        assert_eq!(world.weka.asked("user_login"), [""; 0]);
    }

    #[tokio::test]
    async fn with_an_endpoint_it_reads_the_credentials_itself() {
        let mut world = World::of(6);
        world.setup.use_dynamodb_endpoint = true;
        let fetched = world.fetch().await.unwrap();
        assert_eq!(fetched.sealed, None);
        let scaled = world.scale(fetched.clone()).await;
        assert_eq!(scaled.run.gate, None);
        world.cloud.credentials = None;
        let scaled = world.scale(fetched).await;
        assert!(scaled.run.gate.unwrap().contains("no credentials"));
    }
}
