//! Observations and decisions as they are saved.

use super::super::{Decision, Observation, ReadError};
use super::fixture::{cluster, down, drain, forget, gateways, out, resize, safe};

/// As an admin saved it: eight machines where seven are wanted, one of them down and one empty, and a client.
const SAVED: &str = include_str!("observation.json");

#[test]
fn a_saved_observation_gives_the_decision_that_it_gave() {
    let observation: Observation = serde_json::from_str(SAVED).unwrap();
    insta::assert_json_snapshot!(safe(&observation));
}

#[test]
fn an_observation_comes_back_as_it_was_saved() {
    let mut unread = cluster(7);
    let text = "no usable backend".to_owned();
    unread.weka = Err(ReadError { text });
    let mut busy = cluster(9);
    down(&mut busy, 3, 200);
    out(&mut busy, 4);
    let mut with_gateways = cluster(7);
    gateways(&mut with_gateways, 2);
    for observation in [cluster(7), unread, busy, with_gateways] {
        let saved = serde_json::to_vec(&observation).unwrap();
        let again: Observation = serde_json::from_slice(&saved).unwrap();
        assert_eq!(again, observation);
        let again: Observation = serde_json::from_reader(saved.as_slice()).unwrap();
        assert_eq!(again, observation);
    }
}

#[test]
fn an_observation_from_before_there_were_gateways_is_saved_as_it_was() {
    let before: serde_json::Value = serde_json::from_str(SAVED).unwrap();
    assert_eq!(before.get("nfs"), None);
    let observation: Observation = serde_json::from_value(before.clone()).unwrap();
    assert_eq!(observation.nfs, None);
    let again = serde_json::to_value(&observation).unwrap();
    assert_eq!(
        again.as_object().unwrap().keys().collect::<Vec<_>>(),
        before.as_object().unwrap().keys().collect::<Vec<_>>()
    );
}

#[test]
fn a_decision_comes_back_as_it_was_saved() {
    let mut observation = cluster(12);
    resize(&mut observation, 9);
    down(&mut observation, 3, 200);
    drain(&mut observation, 4);
    out(&mut observation, 5);
    forget(&mut observation, 6);
    for decision in [
        safe(&observation),
        safe(&{
            resize(&mut observation, 1);
            observation.clone()
        }),
    ] {
        let saved = serde_json::to_string(&decision).unwrap();
        assert_eq!(serde_json::from_str::<Decision>(&saved).unwrap(), decision);
    }
}
