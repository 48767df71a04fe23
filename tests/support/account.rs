//! Whole accounts, compared: what is there, what is new, and what has changed.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::REGION;

/// In what is expected: anything but nothing. What AWS chooses by itself.
pub(crate) const ANYTHING: &str = "*";

/// Everything of one kind in the region of the test, by name or id.
pub(crate) fn kind<'a>(inventory: &'a Value, kind: &str) -> &'a Map<String, Value> {
    static NOTHING: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    inventory[REGION][kind].as_object().unwrap_or(&NOTHING)
}

/// The one thing of a kind for which `is` holds.
#[track_caller]
pub(crate) fn one<'a>(
    inventory: &'a Value,
    of_kind: &str,
    is: impl Fn(&Value) -> bool,
) -> &'a Value {
    let found: Vec<&Value> = kind(inventory, of_kind)
        .values()
        .filter(|thing| is(thing))
        .collect();
    assert_eq!(found.len(), 1, "{of_kind}: {found:#?}");
    found[0]
}

/// Where two values differ, a line each; lists are compared without their order.
pub(crate) fn differences(expected: &Value, found: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    compare("", expected, found, &mut lines);
    lines
}

/// Fails the test with every difference there is.
#[track_caller]
pub(crate) fn assert_same(expected: &Value, found: &Value, what: &str) {
    let differences = differences(expected, found);
    assert!(
        differences.is_empty(),
        "{what}:\n{}",
        differences.join("\n")
    );
}

fn compare(path: &str, expected: &Value, found: &Value, lines: &mut Vec<String>) {
    match (expected, found) {
        (Value::String(any), found) if any == ANYTHING && !found.is_null() => {}
        (Value::Object(expected), Value::Object(found)) => {
            for (key, value) in expected {
                let path = format!("{path} / {key}");
                match found.get(key) {
                    Some(found) => compare(&path, value, found, lines),
                    None => lines.push(format!("{path}: is missing, expected {value}")),
                }
            }
            for (key, value) in found {
                if !expected.contains_key(key) {
                    lines.push(format!("{path} / {key}: is not expected, found {value}"));
                }
            }
        }
        (Value::Array(expected), Value::Array(found)) => {
            let mut rest: Vec<&Value> = found.iter().collect();
            let mut missing = Vec::new();
            for wanted in expected {
                match rest
                    .iter()
                    .position(|found| differences(wanted, found).is_empty())
                {
                    Some(place) => drop(rest.remove(place)),
                    None => missing.push(wanted),
                }
            }
            match (missing.as_slice(), rest.as_slice()) {
                ([], []) => {}
                ([wanted], [found]) => compare(&format!("{path} / []"), wanted, found, lines),
                _ => lines.push(format!(
                    "{path}: expected also {missing:?}, found also {rest:?}"
                )),
            }
        }
        (expected, found) if expected == found => {}
        (expected, found) => lines.push(format!("{path}: expected {expected}, found {found}")),
    }
}

/// The account without some instances, and without the volumes and network interfaces attached to them.
pub(crate) fn without_instances(inventory: &Value, ids: &[String]) -> Value {
    let of_them = |id: &Value| ids.iter().any(|each| *id == **each);
    let mut inventory = inventory.clone();
    let mut keep = |kind: &str, is_kept: &dyn Fn(&Value) -> bool| {
        if let Some(things) = things_mut(&mut inventory, kind) {
            things.retain(|_, thing| is_kept(thing));
        }
    };
    keep("instances", &|thing| !of_them(&thing["InstanceId"]));
    keep("network_interfaces", &|thing| {
        !of_them(&thing["Attachment"]["InstanceId"])
    });
    keep("volumes", &|thing| {
        let attached = thing["Attachments"].as_array();
        !attached.is_some_and(|attached| attached.iter().any(|each| of_them(&each["InstanceId"])))
    });
    if let Some(balancers) = things_mut(&mut inventory, "classic_load_balancers") {
        for balancer in balancers.values_mut() {
            if let Some(members) = balancer["Instances"].as_array_mut() {
                members.retain(|member| !of_them(&member["InstanceId"]));
            }
        }
    }
    drop_empty_kinds(&mut inventory);
    inventory
}

/// The account without the KMS keys that are pending deletion, and these.
pub(crate) fn without_dying_keys(inventory: &Value) -> (Value, Vec<Value>) {
    let mut inventory = inventory.clone();
    let mut dying = Vec::new();
    if let Some(keys) = things_mut(&mut inventory, "kms_keys") {
        keys.retain(|_, key| {
            let is_dying = key["KeyState"] == "PendingDeletion";
            if is_dying {
                dying.push(key.clone());
            }
            !is_dying
        });
    }
    drop_empty_kinds(&mut inventory);
    (inventory, dying)
}

fn things_mut<'a>(inventory: &'a mut Value, kind: &str) -> Option<&'a mut Map<String, Value>> {
    inventory.get_mut(REGION)?.get_mut(kind)?.as_object_mut()
}

/// The sandbox leaves out a kind of which there is nothing.
fn drop_empty_kinds(inventory: &mut Value) {
    if let Some(kinds) = inventory[REGION].as_object_mut() {
        kinds.retain(|_, things| things.as_object().is_none_or(|things| !things.is_empty()));
    }
}

/// The account as sorted lines, one a plain value, with everything that AWS draws by lot made alike: two accounts
/// with the same history in different order are the same.
pub(crate) fn lines(inventory: &Value) -> Vec<String> {
    let mut ids = BTreeMap::new();
    for kind in ["rest_apis", "api_keys", "usage_plans"] {
        collect_ids(&inventory[REGION][kind], kind, &mut ids);
    }
    let mut lines = Vec::new();
    flatten("", inventory, &ids, &mut lines);
    lines.sort();
    // The sandbox counts a load balancer again for a listener that is made again.
    lines.dedup_by(|one, other| one == other && one.contains("/ LoadBalancerArns / []"));
    lines
}

/// What only one of two accounts has, as [`lines`] tells: `-` for what is missing, `+` for what is new.
pub(crate) fn unlike(expected: &Value, found: &Value) -> Vec<String> {
    let (expected, found) = (lines(expected), lines(found));
    let missing = without(&expected, &found).into_iter();
    let new = without(&found, &expected).into_iter();
    missing
        .map(|line| format!("- {line}"))
        .chain(new.map(|line| format!("+ {line}")))
        .collect()
}

fn without(all: &[String], others: &[String]) -> Vec<String> {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for line in others {
        *count.entry(line).or_default() += 1;
    }
    let mut is_more = |line: &String| match count.get_mut(line.as_str()) {
        Some(left) if *left > 0 => {
            *left -= 1;
            false
        }
        _ => true,
    };
    all.iter().filter(|line| is_more(line)).cloned().collect()
}

/// API Gateway's ids look like words; they are known by their fields.
fn collect_ids(value: &Value, kind: &str, ids: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                match value.as_str() {
                    Some(text) if matches!(field.as_str(), "id" | "value" | "deploymentId") => {
                        ids.insert(text.to_owned(), format!("<{kind} {field}>"));
                    }
                    _ => collect_ids(value, kind, ids),
                }
            }
        }
        Value::Array(values) => values
            .iter()
            .for_each(|value| collect_ids(value, kind, ids)),
        _ => {}
    }
}

/// Fields that say nothing but what was drawn.
const DRAWN: [&str; 6] = [
    "KeyFingerprint",
    "MacAddress",
    "PrivateDnsName",
    "PrivateIpAddress",
    "PrivateIpAddresses",
    "SEAL_KEY",
];

fn flatten(path: &str, value: &Value, ids: &BTreeMap<String, String>, lines: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                if !DRAWN.contains(&field.as_str()) {
                    flatten(
                        &format!("{path} / {}", alike(field, ids)),
                        value,
                        ids,
                        lines,
                    );
                }
            }
        }
        Value::Array(values) => {
            for value in values {
                flatten(&format!("{path} / []"), value, ids, lines);
            }
        }
        Value::String(text) if path.ends_with("/ UserData") => {
            lines.push(format!("{path} = {}", alike(&decoded(text), ids)));
        }
        Value::String(text) => lines.push(format!("{path} = {}", alike(text, ids))),
        other => lines.push(format!("{path} = {other}")),
    }
}

/// The text with each word that is drawn by lot replaced.
fn alike(text: &str, ids: &BTreeMap<String, String>) -> String {
    let text = &without_uuids(text);
    let mut result = String::new();
    let mut word = String::new();
    for letter in text.chars().chain([' ']) {
        if letter.is_ascii_alphanumeric() {
            word.push(letter);
            continue;
        }
        match ids.get(&word) {
            Some(known) => result.push_str(known),
            None if is_drawn(&word) => result.push('#'),
            None => result.push_str(&word),
        }
        word.clear();
        result.push(letter);
    }
    result.pop();
    result
}

/// The text with `#` for each UUID: some of its words look as if they were not drawn.
fn without_uuids(text: &str) -> String {
    const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
    let is_uuid = |text: &str| {
        let groups: Vec<&str> = text.split('-').collect();
        groups.len() == GROUPS.len()
            && groups.iter().zip(GROUPS).all(|(group, length)| {
                group.len() == length && group.bytes().all(|byte| byte.is_ascii_hexdigit())
            })
    };
    let mut text = text.to_owned();
    let mut start = 0;
    while start + 36 <= text.len() {
        let end = start + 36;
        if text.get(start..end).is_some_and(is_uuid) {
            text.replace_range(start..end, "#");
        }
        start += 1;
    }
    text
}

fn is_drawn(word: &str) -> bool {
    let all = |is: fn(&u8) -> bool| word.bytes().all(|byte| is(&byte));
    (word.len() >= 4 && all(u8::is_ascii_digit) && word != "14000")
        || (word.len() >= 8 && all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte)))
        || (word.len() >= 12 && all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()))
}

/// User data, as a launch template or an instance has it.
pub(crate) fn decoded(base64: &str) -> String {
    use base64::Engine as _;
    let bytes = base64::prelude::BASE64_STANDARD.decode(base64);
    String::from_utf8(bytes.expect("base64")).expect("text")
}

/// Tags as the inventory has them.
pub(crate) fn with(tags: &Value, more: &Value) -> Value {
    let mut tags = tags.clone();
    for (key, value) in more.as_object().into_iter().flatten() {
        tags[key] = value.clone();
    }
    tags
}

/// What every resource of a cluster carries.
pub(crate) fn common_tags(cluster: &str) -> Value {
    json!({
        "wekactl.io/managed": "true",
        "wekactl.io/api_version": "v1",
        "wekactl.io/version": env!("CARGO_PKG_VERSION"),
        "wekactl.io/cluster_name": cluster,
    })
}
