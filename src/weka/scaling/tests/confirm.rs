//! The second look (S5, S19).

use super::super::{
    Confirmed, Decision, Observation, Outcome, ReadError, Reread, Rule, active_members, confirm,
};
use super::fixture::{
    address, client, cluster, container, containers, each_container, forget, id, instance, out,
    reads, resize, safe,
};
use crate::weka::types::{ContainerStatus, State};

/// One that Weka is to release, and one that it does not know.
fn two_to_go() -> (Observation, Decision) {
    let mut observation = cluster(9);
    resize(&mut observation, 8);
    out(&mut observation, 3);
    forget(&mut observation, 5);
    let decision = safe(&observation);
    assert_eq!(
        ids(&Confirmed {
            terminate: decision.terminate.clone(),
            errors: Vec::new(),
        }),
        [id(3), id(5)]
    );
    (observation, decision)
}

fn ids(confirmed: &Confirmed) -> Vec<&str> {
    confirmed
        .terminate
        .iter()
        .map(|kill| kill.id.as_str())
        .collect()
}

fn look(observation: &Observation, change: impl FnOnce(&mut Observation)) -> Reread {
    let mut later = observation.clone();
    change(&mut later);
    let reads = reads(&mut later);
    Reread {
        status: reads.status.clone(),
        containers: reads.containers.clone(),
    }
}

fn confirmed_after(change: impl FnOnce(&mut Observation)) -> Confirmed {
    let (observation, decision) = two_to_go();
    let outcomes = vec![Outcome::Accepted; decision.calls.len()];
    let reread = look(&observation, change);
    confirm(&observation, &decision, &outcomes, Ok(&reread))
}

#[test]
fn what_nothing_speaks_against_goes() {
    let removing = |observation: &mut Observation| {
        each_container(observation, 3, |container| {
            container.state = State::Removing;
        });
    };
    for confirmed in [
        confirmed_after(|_| {}),
        confirmed_after(removing),
        confirmed_after(|observation| forget(observation, 3)),
    ] {
        assert_eq!(ids(&confirmed), [id(3), id(5)]);
        assert_eq!(confirmed.errors, []);
    }
}

#[test]
fn s5_one_call_that_was_not_accepted_keeps_the_instance() {
    let (observation, decision) = two_to_go();
    let reread = look(&observation, |_| {});
    for needed in decision.terminate[0].needs.clone() {
        for outcome in [Outcome::Refused, Outcome::Unknown, Outcome::Skipped] {
            let mut outcomes = vec![Outcome::Accepted; decision.calls.len()];
            outcomes[needed] = outcome;
            let confirmed = confirm(&observation, &decision, &outcomes, Ok(&reread));
            assert_eq!(ids(&confirmed), [id(5)]);
            assert_eq!(confirmed.errors[0].rule, Rule::S5);
        }
    }
    // Nor does it go when nobody says how they ended.
    assert_eq!(
        ids(&confirm(&observation, &decision, &[], Ok(&reread))),
        [id(5)]
    );
}

#[test]
fn s19_a_sign_of_life_keeps_that_instance_alone() {
    let confirmed = confirmed_after(|observation| {
        container(observation, containers(3)[1]).state = State::Active;
    });
    assert_eq!(ids(&confirmed), [id(5)]);
    assert_eq!(
        (confirmed.errors[0].rule, &confirmed.errors[0].subject),
        (Rule::S19, &id(3))
    );
}

#[test]
fn s19_a_sign_of_life_counts_under_another_name_and_address_too() {
    let confirmed = confirmed_after(|observation| {
        let alive = container(observation, containers(3)[1]);
        alive.state = State::Active;
        alive.aws.instance_id = None;
        alive.host_ip = Some("10.9.9.9".into());
        alive.ips.clear();
    });
    assert_eq!(ids(&confirmed), [id(5)]);
}

#[test]
fn s4_an_absent_one_that_is_listed_in_any_state_stays() {
    for state in [
        State::Active,
        State::Inactive,
        State::Other("JOINING".into()),
    ] {
        let confirmed = confirmed_after(|observation| {
            super::fixture::join(observation, 5);
            each_container(observation, 5, |container| container.state = state.clone());
        });
        assert_eq!(ids(&confirmed), [id(3)]);
    }
}

#[test]
fn a_bygone_client_at_its_address_does_not_speak_for_it() {
    let with_client = |timeout, status: ContainerStatus| {
        confirmed_after(|observation| {
            let number = client(observation, 900, &address(5));
            container(observation, number).status = status;
            container(observation, number).auto_remove_timeout = timeout;
        })
    };
    assert_eq!(
        ids(&with_client(Some(60), ContainerStatus::Down)),
        [id(3), id(5)]
    );
    assert_eq!(ids(&with_client(Some(0), ContainerStatus::Down)), [id(3)]);
    assert_eq!(ids(&with_client(None, ContainerStatus::Down)), [id(3)]);
    assert_eq!(ids(&with_client(Some(60), ContainerStatus::Up)), [id(3)]);
}

#[test]
fn s19_a_second_look_that_is_not_whole_empties_the_list() {
    let bad = [
        confirmed_after(|observation| reads(observation).containers.clear()),
        confirmed_after(|observation| reads(observation).status.guid = "other".into()),
        confirmed_after(|observation| {
            reads(observation).containers.remove(&containers(8)[0]);
        }),
    ];
    for confirmed in bad {
        assert_eq!(confirmed.terminate, []);
        assert_eq!(confirmed.errors[0].rule, Rule::S19);
    }
    let (observation, decision) = two_to_go();
    let outcomes = vec![Outcome::Accepted; decision.calls.len()];
    let text = "timed out".to_owned();
    let confirmed = confirm(&observation, &decision, &outcomes, Err(&ReadError { text }));
    assert_eq!(confirmed.terminate, []);
    assert!(confirmed.errors[0].text.contains("timed out"));
}

#[test]
fn s4_members_with_an_active_container_get_the_mark() {
    let mut observation = cluster(8);
    out(&mut observation, 3);
    super::fixture::drain(&mut observation, 4);
    instance(&mut observation, 5).lifecycle = "Standby".into();
    forget(&mut observation, 6);
    assert_eq!(active_members(&observation), [1, 2, 7, 8].map(id));
}
