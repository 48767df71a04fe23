//! Makes a decision's calls to Weka: in order, each once, and none that an earlier one speaks against. S3 and S9 of
//! the scaling rules.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::ports::Clock;
use crate::weka::client::{CallError, Client, Transport};
use crate::weka::ids::ContainerId;
use crate::weka::scaling::{Call, CallKind, Decision, Outcome, Purpose};
use crate::weka::types::Container;

/// What became of the calls.
#[derive(Debug, Default)]
pub(super) struct Executed {
    /// One for each call.
    pub(super) outcomes: Vec<Outcome>,
    /// What did not go well.
    pub(super) errors: Vec<String>,
    /// Weka does not take the credentials any more.
    pub(super) login_refused: bool,
}

/// What earlier calls say about later ones.
#[derive(Default)]
struct Progress<'a> {
    /// Machines of which a call failed.
    failed: BTreeSet<&'a str>,
    /// Weka has refused to empty drives: nothing more is emptied for size.
    size_is_over: bool,
    /// Nothing more is sent.
    is_over: bool,
}

/// Makes the calls that may be made, none after `last_start`. Backends whose machines leave are asked no more.
pub(super) async fn execute<T: Transport>(
    client: &Client<T>,
    clock: &impl Clock,
    decision: &Decision,
    containers: &BTreeMap<ContainerId, Container>,
    last_start: Timestamp,
) -> Executed {
    let mut executed = Executed::default();
    let mut progress = Progress::default();
    for call in &decision.calls {
        if !progress.is_over && clock.now() > last_start {
            progress.is_over = true;
            executed.errors.push(format!(
                "no time is left for {} and what follows",
                call.method
            ));
        }
        let outcome = if progress.allows(call) {
            if takes_away(call.kind) {
                forget(client, decision, containers, call).await;
            }
            let answer = client.mutate(&call.method, call.params.clone()).await;
            note(call, answer.map(|_| ()), &mut progress, &mut executed)
        } else {
            Outcome::Skipped
        };
        executed.outcomes.push(outcome);
    }
    executed
}

impl Progress<'_> {
    fn allows(&self, call: &Call) -> bool {
        let is_of_failed = call
            .machine
            .as_deref()
            .is_some_and(|machine| self.failed.contains(machine));
        let is_refused_size = self.size_is_over && call.purpose == Purpose::Size;
        !(self.is_over || is_of_failed || is_refused_size)
    }
}

/// What an answer means for the calls to come.
fn note<'a>(
    call: &'a Call,
    answer: Result<(), CallError>,
    progress: &mut Progress<'a>,
    executed: &mut Executed,
) -> Outcome {
    let machine = call.machine.as_deref();
    let Err(error) = answer else {
        tracing::info!(method = call.method, machine, "Weka accepted");
        return Outcome::Accepted;
    };
    tracing::warn!(method = call.method, machine, %error, "Weka did not accept");
    executed.errors.push(match machine {
        Some(machine) => format!("{machine}: {error}"),
        None => error.to_string(),
    });
    let outcome = match error {
        CallError::Refused { .. }
        | CallError::MethodNotFound { .. }
        | CallError::Rejected { .. } => Outcome::Refused,
        CallError::LoginRefused { .. } => {
            executed.login_refused = true;
            progress.is_over = true;
            Outcome::Skipped
        }
        CallError::NoUsableBackend { .. } | CallError::OutOfTime { .. } => {
            progress.is_over = true;
            Outcome::Skipped
        }
        CallError::Unknown { .. } | CallError::Malformed { .. } => {
            progress.is_over = true;
            Outcome::Unknown
        }
    };
    if call.kind != CallKind::Event {
        progress.failed.extend(machine);
    }
    progress.size_is_over |= call.kind == CallKind::DeactivateDrives;
    outcome
}

fn takes_away(kind: CallKind) -> bool {
    matches!(
        kind,
        CallKind::DeactivateContainers | CallKind::RemoveContainer
    )
}

/// A backend on its way out answers for a cluster that it is no part of.
async fn forget<T: Transport>(
    client: &Client<T>,
    decision: &Decision,
    containers: &BTreeMap<ContainerId, Container>,
    call: &Call,
) {
    let machines = decision.machines.iter();
    let addresses: BTreeSet<&String> = machines
        .filter(|machine| Some(&machine.key) == call.machine.as_ref())
        .flat_map(|machine| &machine.containers)
        .filter_map(|id| containers.get(id))
        .flat_map(|container| container.host_ip.iter().chain(&container.ips))
        .collect();
    for address in addresses {
        client.forget(address).await;
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;
    use serde_json::json;
    use tokio::time::{Duration, Instant};

    use super::super::fakes::{Answer, World};
    use super::*;
    use crate::weka::client::{Credentials, Deadlines};

    fn call(machine: &str, kind: CallKind, purpose: Purpose, method: &str) -> Call {
        Call {
            machine: Some(machine.into()),
            kind,
            purpose,
            method: method.into(),
            params: json!({"of": machine}),
        }
    }

    /// What takes a machine out.
    fn drain(machine: &str, purpose: Purpose) -> [Call; 3] {
        use CallKind::{DeactivateContainers, DeactivateDrives, Event};
        [
            call(
                machine,
                DeactivateDrives,
                purpose,
                "cluster_deactivate_drives",
            ),
            call(machine, Event, purpose, "events_trigger_custom"),
            call(
                machine,
                DeactivateContainers,
                purpose,
                "cluster_deactivate_hosts",
            ),
        ]
    }

    async fn run(world: &World, calls: Vec<Call>, seconds: i64) -> Executed {
        let client = Client::in_order(
            world.weka.clone(),
            vec!["10.0.0.1".into(), "10.0.0.2".into()],
            Credentials {
                user: "admin".into(),
                password: SecretString::from("secret"),
            },
            Deadlines::until(Instant::now() + Duration::from_secs(30)),
        );
        let decision = Decision {
            calls,
            ..Decision::default()
        };
        let last_start = world.clock.now() + jiff::SignedDuration::from_secs(seconds);
        execute(
            &client,
            &world.clock,
            &decision,
            &BTreeMap::new(),
            last_start,
        )
        .await
    }

    use Outcome::{Accepted, Refused, Skipped, Unknown};

    #[tokio::test]
    async fn every_call_is_made_once_and_in_order() {
        let world = World::of(6);
        let calls = drain("one", Purpose::Size);
        let executed = run(&world, calls.to_vec(), 20).await;
        assert_eq!(executed.outcomes, [Accepted; 3]);
        assert_eq!(executed.errors, [""; 0]);
        let made: Vec<_> = calls
            .into_iter()
            .map(|call| (call.method, call.params))
            .collect();
        assert_eq!(world.weka.mutations(), made);
    }

    #[tokio::test]
    async fn drives_that_may_not_go_end_their_machine_and_all_that_goes_for_size() {
        let world = World::of(6);
        world.weka.answers(
            "cluster_deactivate_drives",
            &[
                Answer::Error(-32000, "not enough capacity"),
                Answer::Result(json!(null)),
            ],
        );
        let calls = [
            drain("one", Purpose::Health),
            drain("two", Purpose::Size),
            drain("three", Purpose::Leftover),
        ];
        let executed = run(&world, calls.concat(), 20).await;
        let outcomes = [[Refused, Skipped, Skipped], [Skipped; 3], [Accepted; 3]];
        assert_eq!(executed.outcomes, outcomes.concat());
        assert_eq!(executed.errors.len(), 1);
        let text = &executed.errors[0];
        assert!(text.starts_with("one: ") && text.contains("not enough capacity"));
    }

    #[tokio::test]
    async fn a_failed_event_skips_nothing() {
        let world = World::of(6);
        world
            .weka
            .answers("events_trigger_custom", &[Answer::Error(-32001, "no")]);
        let executed = run(&world, drain("one", Purpose::Size).to_vec(), 20).await;
        assert_eq!(executed.outcomes, [Accepted, Refused, Accepted]);
        assert_eq!(executed.errors.len(), 1);
    }

    #[tokio::test]
    async fn a_call_that_may_have_been_made_is_the_last() {
        for answer in [Answer::Silence, Answer::Status(503)] {
            let world = World::of(6);
            world.weka.answers("cluster_deactivate_hosts", &[answer]);
            let calls = [drain("one", Purpose::Health), drain("two", Purpose::Health)];
            let executed = run(&world, calls.concat(), 20).await;
            let outcomes = [[Accepted, Accepted, Unknown], [Skipped; 3]];
            assert_eq!(executed.outcomes, outcomes.concat());
            assert_eq!(world.weka.methods().len(), 3);
        }
    }

    #[tokio::test]
    async fn a_refused_login_sends_nothing() {
        let world = World::of(6);
        world.weka.answers("user_login", &[Answer::Status(401)]);
        let executed = run(&world, drain("one", Purpose::Health).to_vec(), 20).await;
        assert_eq!(executed.outcomes, [Skipped; 3]);
        assert!(executed.login_refused);
        assert_eq!(world.weka.asked("user_login").len(), 1);
    }

    #[tokio::test]
    async fn nothing_begins_when_time_is_up() {
        let world = World::of(6);
        world.weka.takes("cluster_deactivate_drives", 15);
        world.weka.takes("events_trigger_custom", 6);
        let calls = [drain("one", Purpose::Health), drain("two", Purpose::Health)];
        let executed = run(&world, calls.concat(), 20).await;
        let outcomes = [[Accepted, Accepted, Skipped], [Skipped; 3]];
        assert_eq!(executed.outcomes, outcomes.concat());
        assert_eq!(executed.errors.len(), 1, "{:?}", executed.errors);
        assert_eq!(world.weka.methods().len(), 2);
    }
}
