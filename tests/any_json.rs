//! Whatever Weka, the state machine or a request say, nothing panics: a function that does says nothing of what went
//! wrong, and leaves its run half done.
//!
//! `PROPTEST_CASES=100000 cargo test any_json` tries more. The fuzz target does the same with texts of its own.

#[path = "fuzz/parsers.rs"]
mod parsers;

use std::collections::BTreeSet;

use jiff::Timestamp;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value;

use parsers::understood;

/// Texts that are understood, of every kind.
const SEEDS: [&str; 6] = [
    include_str!("fuzz/seeds/run.json"),
    include_str!("fuzz/seeds/observation.json"),
    include_str!("fuzz/seeds/container_id"),
    include_str!("fuzz/seeds/process_id"),
    include_str!("fuzz/seeds/drive_id"),
    include_str!("fuzz/seeds/seal_keys"),
];
/// The parsers, by name.
const PARSERS: [&str; 19] = [
    "container id",
    "process id",
    "drive id",
    "seal keys",
    "status",
    "containers",
    "drives",
    "processes",
    "interface groups",
    "overrides",
    "reads",
    "question",
    "answer to a question",
    "observation",
    "answers",
    "join",
    "fetch",
    "scale",
    "terminate",
];
/// At the edge of what fits, or next to it.
const NUMBERS: [&str; 8] = [
    "-9223372036854775808",
    "-1",
    "0",
    "1e308",
    "4294967294",
    "4294967295",
    "4294967296",
    "18446744073709551615",
];
/// The same of times: the first and the last that there is, and others around the seeds' own.
const TIMES: [&str; 5] = [
    "-009999-01-02T01:59:59Z",
    "1970-01-01T00:00:00Z",
    "2026-03-01T11:59:59Z",
    "2026-03-01T12:01:01Z",
    "9999-12-30T22:00:00.999999999Z",
];
/// Words, identifiers and addresses that mean something, and texts that mean nothing.
const TEXTS: [&str; 16] = [
    "",
    "HostId<4294967295>",
    "HostId<INVALID>",
    "NodeId<4294967295>",
    "ACTIVE",
    "DEACTIVATING",
    "INACTIVE",
    "DOWN",
    "DRAINED",
    "PHASING_OUT",
    "backend",
    "client",
    "stopped",
    "i-00000000000000001",
    "::1",
    "\u{0}\u{202e}\u{1f600}",
];

/// What comes to a place in a document.
#[derive(Debug, Clone)]
enum Put {
    /// Nothing.
    Nothing,
    /// Something of the same kind, from the edge.
    Edge(Index),
    /// Whatever else.
    Anything(Value),
}

/// Any JSON.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        2 => select(&NUMBERS[..]).prop_map(number),
        2 => select([&TIMES[..], &TEXTS[..]].concat()).prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            btree_map(any::<String>(), inner, 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// What is understood, with changes in it.
fn almost_understood() -> impl Strategy<Value = Value> {
    let put = prop_oneof![
        1 => Just(Put::Nothing),
        4 => any::<Index>().prop_map(Put::Edge),
        2 => anything().prop_map(Put::Anything),
    ];
    let change = (vec(any::<Index>(), 1..7), put);
    let (whole, answers) = documents();
    let document = prop_oneof![3 => select(whole), 1 => select(answers)];
    (document, vec(change, 1..5)).prop_map(|(mut document, changes)| {
        for (path, put) in &changes {
            apply(&mut document, path, put);
        }
        document
    })
}

fn number(text: &str) -> Value {
    serde_json::from_str(text).expect("a number")
}

/// The seeds that are JSON, and what Weka answers alone.
fn documents() -> (Vec<Value>, Vec<Value>) {
    let seeds = SEEDS.iter();
    let whole: Vec<Value> = seeds
        .filter_map(|text| serde_json::from_str(text).ok())
        .collect();
    let reads = whole
        .iter()
        .find_map(|document| document.pointer("/weka/Ok"))
        .expect("one is an observation");
    let answers = reads.as_object().expect("an object").values();
    let answers = answers.chain([reads]).cloned().collect();
    (whole, answers)
}

/// Each step goes one deeper, as far as there is something.
fn apply(document: &mut Value, path: &[Index], put: &Put) {
    let Some((step, rest)) = path.split_first() else {
        return change(document, put);
    };
    match document {
        Value::Object(fields) if !fields.is_empty() => {
            let key = step.index(fields.len());
            let key = fields.keys().nth(key).expect("it is one").clone();
            if rest.is_empty() && matches!(put, Put::Nothing) {
                fields.remove(&key);
            } else {
                apply(&mut fields[&key], rest, put);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let item = step.index(items.len());
            apply(&mut items[item], rest, put);
        }
        _ => change(document, put),
    }
}

fn change(value: &mut Value, put: &Put) {
    *value = match (put, &*value) {
        (Put::Nothing, _) => Value::Null,
        (Put::Anything(other), _) => other.clone(),
        (Put::Edge(edge), Value::Number(_)) => number(NUMBERS[edge.index(NUMBERS.len())]),
        (Put::Edge(edge), Value::String(text)) if text.parse::<Timestamp>().is_ok() => {
            Value::from(TIMES[edge.index(TIMES.len())])
        }
        (Put::Edge(edge), Value::String(_)) => Value::from(TEXTS[edge.index(TEXTS.len())]),
        (Put::Edge(_), Value::Bool(is_so)) => Value::from(!is_so),
        (Put::Edge(_), Value::Array(_)) => Value::Array(Vec::new()),
        (Put::Edge(_), Value::Object(_)) => Value::Object(serde_json::Map::new()),
        (Put::Edge(_), Value::Null) => Value::from(0),
    };
}

/// Otherwise the others would prove nothing.
#[test]
fn every_parser_understands_a_seed() {
    let (whole, answers) = documents();
    let texts = whole.iter().chain(&answers).map(Value::to_string);
    let understood: BTreeSet<&str> = texts
        .chain(SEEDS.map(ToOwned::to_owned))
        .flat_map(|text| understood(&text))
        .collect();
    assert_eq!(understood, BTreeSet::from(PARSERS));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_parser_panics_on_any_json(document in prop_oneof![1 => anything(), 3 => almost_understood()]) {
        understood(&document.to_string());
    }

    #[test]
    fn no_parser_panics_on_any_text(seed in select(&SEEDS[..]), at in any::<Index>(), text in any::<String>()) {
        let (before, after) = seed.split_at(at.index(seed.len() + 1));
        understood(&text);
        understood(&format!("{before}{text}{after}"));
    }
}
