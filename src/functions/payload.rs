//! What one state of a run hands to the next. A person who reads the run's history sees what was decided and why;
//! what is secret or orders a termination is in it under seal.
//!
//! Step Functions takes 256 KiB: members are arrays, and every list that has no limit of its own gets one here.

use std::collections::BTreeMap;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::lease::{Hold, Learned};
use super::seal::Sealed;
use crate::cluster::settings::Credentials;
use crate::weka::scaling::{self, Action, Ec2State, Group, Instance, Order};

/// The layout of the documents: one function of another version is not understood.
pub const VERSION: u32 = 1;
/// Errors that one run reports.
const MAX_ERRORS: usize = 50;
/// Characters of an error.
const MAX_ERROR: usize = 500;
/// Verdicts that are shown, those to do nothing apart.
const MAX_VERDICTS: usize = 50;
/// Calls that are shown.
const MAX_CALLS: usize = 150;
/// Characters of any other text of which Weka or AWS have a say.
const MAX_TEXT: usize = 200;

/// A document that is not one of ours.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// The function before this one is of another version.
    #[error(
        "the input has version {found} and this function reads version {VERSION}: run `wekactl cluster import` again"
    )]
    Version {
        /// What it says.
        found: Value,
    },
    /// It has the version and not the fields.
    #[error("the input can not be read")]
    Unreadable(#[from] serde_json::Error),
}

/// What fetch gets of the state machine.
#[derive(Debug, Clone, Deserialize)]
pub struct Start {
    /// ARN of the execution: the lease is its.
    pub execution: String,
}

/// What fetch hands to scale.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Fetched {
    /// [`VERSION`].
    pub version: u32,
    /// The run.
    #[serde(flatten)]
    pub run: RunInfo,
    /// The cluster this group has always been, if it was ever seen.
    pub guid: Option<String>,
    /// The target that the run before read.
    pub previous_desired: Option<u32>,
    /// The group's processes that are suspended.
    pub suspended: Vec<String>,
    /// Addresses of the members that run.
    pub backend_ips: Vec<String>,
    /// What the arrays below hold.
    pub instance_fields: Vec<String>,
    /// The group's members.
    #[serde(with = "rows")]
    pub instances: Vec<Instance>,
    /// The credentials, unless scale reads them itself.
    pub sealed: Option<Sealed>,
}

/// What scale hands to terminate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Scaled {
    /// [`VERSION`].
    pub version: u32,
    /// The run.
    #[serde(flatten)]
    pub run: RunInfo,
    /// What was decided.
    #[serde(flatten)]
    pub summary: Summary,
    /// The calls to Weka that were to be made, and what became of them.
    pub calls: Vec<Called>,
    /// Requests sent to Weka, reads included.
    pub weka_requests: usize,
    /// What terminate shall do; nothing where the lease was lost.
    pub sealed: Option<Sealed>,
}

/// What terminate ends the run with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Terminated {
    /// [`VERSION`].
    pub version: u32,
    /// The run.
    #[serde(flatten)]
    pub run: RunInfo,
    /// What was decided.
    #[serde(flatten)]
    pub summary: Summary,
    /// What was done in AWS.
    pub done: Done,
}

/// What every state says of the run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunInfo {
    /// Name of the cluster.
    pub cluster: String,
    /// ARN of the execution.
    pub execution: String,
    /// Another run has the lease, or got it: this one does nothing.
    pub lease_lost: bool,
    /// Until when this run has the lease.
    pub lease_expires: Timestamp,
    /// What the group shall have.
    pub desired_capacity: u32,
    /// Why nothing was changed.
    pub gate: Option<String>,
    /// What did not go well. Always present: an absent path would fail the state machine's choice. Null, and not an
    /// empty list, where there is nothing: the choice asks for null.
    pub transient_errors: Option<Vec<String>>,
}

/// What was decided, for a person.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Summary {
    /// How many machines are of each class.
    pub classes: BTreeMap<String, usize>,
    /// What happens to which machine and why; those to which nothing happens are only counted.
    pub verdicts: Vec<Verdict>,
}

/// What happens to a machine and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Verdict {
    /// Address and instance.
    pub machine: String,
    /// How it does.
    pub class: String,
    /// What happens to it.
    pub action: String,
    /// By which rule.
    pub rule: String,
    /// Why.
    pub detail: String,
}

/// A call to Weka and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Called {
    /// Weka's method.
    pub method: String,
    /// For which machine.
    pub machine: Option<String>,
    /// `Accepted`, `Refused`, `Unknown` or `Skipped`.
    pub outcome: String,
}

/// What was done in AWS: instance ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Done {
    /// Protected from scale-in again.
    pub protected: Vec<String>,
    /// Protected from termination again.
    pub termination_protected: Vec<String>,
    /// Marked as backends that were active once.
    pub marked_joined: Vec<String>,
    /// Terminated.
    pub terminated: Vec<String>,
    /// Taken out of the group.
    pub detached: Vec<String>,
}

/// What fetch seals for scale.
#[derive(Serialize, Deserialize)]
pub(super) struct Secrets {
    #[serde(with = "exposed")]
    username: SecretString,
    #[serde(with = "exposed")]
    password: SecretString,
}

/// What scale seals for terminate.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Orders {
    /// Nothing in AWS is to be changed.
    pub(super) gated: bool,
    /// What is to be done.
    pub(super) order: Order,
    /// What the next run shall know.
    pub(super) learned: Learned,
}

impl RunInfo {
    /// The lease, as it is held.
    pub(super) fn hold(&self) -> Hold {
        Hold {
            execution: self.execution.clone(),
            expires: self.lease_expires,
        }
    }
}

impl Fetched {
    /// With an empty group.
    pub(super) fn new(run: RunInfo) -> Self {
        Self {
            version: VERSION,
            run,
            guid: None,
            previous_desired: None,
            suspended: Vec::new(),
            backend_ips: Vec::new(),
            instance_fields: rows::FIELDS.map(ToOwned::to_owned).into(),
            instances: Vec::new(),
            sealed: None,
        }
    }

    /// The group of that name.
    pub(super) fn group(&self, name: String) -> Group {
        Group {
            name,
            desired: self.run.desired_capacity,
            suspended: self.suspended.clone(),
            instances: self.instances.clone(),
        }
    }
}

impl Scaled {
    /// A run in which nothing was asked of Weka.
    pub(super) fn new(run: RunInfo) -> Self {
        Self {
            version: VERSION,
            run,
            summary: Summary::default(),
            calls: Vec::new(),
            weka_requests: 0,
            sealed: None,
        }
    }
}

impl Summary {
    /// Of these verdicts.
    pub(super) fn of(machines: &[scaling::Verdict]) -> Self {
        let mut classes = BTreeMap::new();
        for machine in machines {
            *classes.entry(format!("{:?}", machine.class)).or_default() += 1;
        }
        let verdicts = machines
            .iter()
            .filter(|machine| machine.action != Action::Leave)
            .take(MAX_VERDICTS)
            .map(|machine| Verdict {
                machine: clean(&machine.key, MAX_TEXT),
                class: format!("{:?}", machine.class),
                action: format!("{:?}", machine.action),
                rule: machine.rule.to_string(),
                detail: clean(&machine.detail, MAX_TEXT),
            })
            .collect();
        Self { classes, verdicts }
    }
}

/// What is shown of calls and their outcomes.
pub(super) fn called(calls: &[scaling::Call], outcomes: &[scaling::Outcome]) -> Vec<Called> {
    calls
        .iter()
        .zip(outcomes)
        .take(MAX_CALLS)
        .map(|(call, outcome)| Called {
            method: call.method.clone(),
            machine: call.machine.as_ref().map(|key| clean(key, MAX_TEXT)),
            outcome: format!("{outcome:?}"),
        })
        .collect()
}

impl Secrets {
    pub(super) fn of(credentials: &Credentials) -> Self {
        Self {
            username: credentials.username.clone(),
            password: credentials.password.clone(),
        }
    }

    pub(super) fn credentials(self) -> Credentials {
        Credentials {
            username: self.username,
            password: self.password,
        }
    }
}

/// A document of the function before: of the same version, with whatever fields besides.
///
/// # Errors
/// Every [`PayloadError`].
pub fn read<T: DeserializeOwned>(document: Value) -> Result<T, PayloadError> {
    let found = document.get("Version").cloned().unwrap_or_default();
    if found != VERSION {
        return Err(PayloadError::Version { found });
    }
    Ok(serde_json::from_value(document)?)
}

/// As they are reported: none is null; not too many, not too long, one line each.
pub(super) fn transient(errors: impl IntoIterator<Item = String>) -> Option<Vec<String>> {
    let mut errors: Vec<String> = errors
        .into_iter()
        .map(|error| clean(&error, MAX_ERROR))
        .collect();
    if errors.len() > MAX_ERRORS {
        let more = errors.len() - (MAX_ERRORS - 1);
        errors.truncate(MAX_ERRORS - 1);
        errors.push(format!("and {more} more"));
    }
    (!errors.is_empty()).then_some(errors)
}

/// One line of at most so many characters.
pub(super) fn clean(text: &str, most: usize) -> String {
    let mut line: String = text
        .chars()
        .map(|each| if each.is_control() { ' ' } else { each })
        .take(most + 1)
        .collect();
    if let Some((cut, _)) = line.char_indices().nth(most) {
        line.truncate(cut);
        line.pop();
        line.push('…');
    }
    line
}

/// Members as arrays: a thousand of them have to fit.
mod rows {
    use super::{Deserialize as _, Deserializer, Ec2State, Instance, Serializer, Timestamp};

    /// What an array holds, in its order.
    pub(super) const FIELDS: [&str; 9] = [
        "Id",
        "PrivateIp",
        "Launched",
        "State",
        "Lifecycle",
        "Healthy",
        "Protected",
        "Attached",
        "Joined",
    ];

    type Row = (
        String,
        Option<String>,
        Option<Timestamp>,
        Ec2State,
        String,
        bool,
        bool,
        bool,
        bool,
    );

    pub(super) fn serialize<S: Serializer>(
        instances: &[Instance],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(instances.iter().map(|each| {
            (
                &each.id,
                &each.private_ip,
                each.launched,
                each.ec2,
                &each.lifecycle,
                each.healthy,
                each.protected,
                each.attached,
                each.joined,
            )
        }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Instance>, D::Error> {
        let rows = Vec::<Row>::deserialize(deserializer)?;
        Ok(rows
            .into_iter()
            .map(
                |(
                    id,
                    private_ip,
                    launched,
                    ec2,
                    lifecycle,
                    healthy,
                    protected,
                    attached,
                    joined,
                )| Instance {
                    id,
                    private_ip,
                    launched,
                    ec2,
                    lifecycle,
                    healthy,
                    protected,
                    attached,
                    joined,
                },
            )
            .collect())
    }
}

/// Secrets, for what is sealed and nothing else.
mod exposed {
    use super::{Deserialize as _, Deserializer, ExposeSecret as _, SecretString, Serializer};

    pub(super) fn serialize<S: Serializer>(
        secret: &SecretString,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose_secret())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SecretString, D::Error> {
        String::deserialize(deserializer).map(SecretString::from)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fakes::{EXECUTION, id, instance, start};
    use super::*;
    use crate::weka::scaling::{Class, Outcome, Purpose, Rule};

    /// Step Functions' limit for what one state hands to the next. Source: Step Functions Developer Guide, "Quotas".
    const MAX_PAYLOAD: usize = 256 * 1024;

    fn run_info() -> RunInfo {
        RunInfo {
            cluster: "c".repeat(128),
            execution: EXECUTION.repeat(5),
            lease_expires: start(),
            transient_errors: transient(vec!["\u{1f600}".repeat(600); 60]),
            ..RunInfo::default()
        }
    }

    fn size(document: &impl Serialize) -> usize {
        serde_json::to_string(document).unwrap().len()
    }

    #[test]
    fn a_thousand_members_fit_and_come_back() {
        let mut fetched = Fetched::new(run_info());
        fetched.instances = (0..1000).map(instance).collect();
        fetched.backend_ips = vec!["100.100.100.100".into(); 1000];
        assert!(size(&fetched) < MAX_PAYLOAD, "{}", size(&fetched));
        let mut document = serde_json::to_value(&fetched).unwrap();
        assert_eq!(document["Instances"][1][0], json!(id(1)));
        assert_eq!(
            document["InstanceFields"].as_array().map(Vec::len),
            document["Instances"][1].as_array().map(Vec::len)
        );
        document["OfALaterVersion"] = json!(1);
        assert_eq!(read::<Fetched>(document).unwrap(), fetched);
    }

    #[test]
    fn what_was_decided_fits_however_much_it_is() {
        let verdicts = vec![
            scaling::Verdict {
                key: "k".repeat(300),
                instance: None,
                containers: Vec::new(),
                class: Class::Unhealthy,
                action: Action::Deactivate,
                rule: Rule::S8,
                detail: "\u{1f600}".repeat(900),
            };
            1000
        ];
        let calls = vec![
            scaling::Call {
                machine: Some("k".repeat(300)),
                kind: scaling::CallKind::Event,
                purpose: Purpose::Health,
                method: "cluster_deactivate_drives".into(),
                params: json!({}),
            };
            1000
        ];
        let mut scaled = Scaled::new(run_info());
        scaled.summary = Summary::of(&verdicts);
        scaled.calls = called(&calls, &[Outcome::Accepted; 1000]);
        assert_eq!(scaled.summary.classes["Unhealthy"], 1000);
        assert_eq!(scaled.summary.verdicts.len(), 50);
        assert!(size(&scaled) < MAX_PAYLOAD, "{}", size(&scaled));
    }

    #[test]
    fn only_machines_to_which_something_happens_are_shown() {
        let verdict = |key: &str, action| scaling::Verdict {
            key: key.into(),
            instance: None,
            containers: Vec::new(),
            class: Class::Healthy,
            action,
            rule: Rule::U,
            detail: "because\nof it".into(),
        };
        let summary = Summary::of(&[
            verdict("one", Action::Leave),
            verdict("two", Action::Deactivate),
        ]);
        assert_eq!(summary.classes["Healthy"], 2);
        let shown = serde_json::to_value(&summary.verdicts).unwrap();
        assert_eq!(
            shown,
            json!([{
                "Machine": "two", "Class": "Healthy", "Action": "Deactivate", "Rule": "U", "Detail": "because of it",
            }])
        );
    }

    #[test]
    fn errors_are_null_or_few_and_short() {
        assert_eq!(transient([]), None);
        let document = serde_json::to_value(Fetched::new(RunInfo::default())).unwrap();
        assert_eq!(document.get("TransientErrors"), Some(&Value::Null));
        let many = transient((0..60).map(|number| format!("{number}"))).unwrap();
        assert_eq!(many.len(), 50);
        assert_eq!(many[49], "and 11 more");
        assert_eq!(transient(vec![String::new(); 50]).unwrap()[49], "");
        let long = transient(["ü".repeat(501)]).unwrap();
        assert_eq!(long[0], format!("{}…", "ü".repeat(499)));
        let exact = transient(["ü".repeat(500)]).unwrap();
        assert_eq!(exact[0], "ü".repeat(500));
        let line = transient(["a\u{1b}[31m\r\nb\u{85}".into()]).unwrap();
        assert_eq!(line[0], "a [31m  b ");
    }

    #[test]
    fn another_version_is_not_understood() {
        let document = serde_json::to_value(Scaled::new(RunInfo::default())).unwrap();
        assert!(read::<Scaled>(document.clone()).is_ok());
        for version in [json!(2), json!("1"), Value::Null] {
            let mut other = document.clone();
            other["Version"] = version.clone();
            let error = read::<Scaled>(other).unwrap_err().to_string();
            assert!(error.contains("version"), "{error}");
        }
        assert!(read::<Scaled>(json!({"Version": 1})).is_err());
    }

    #[test]
    fn secrets_come_back() {
        let secrets = Secrets::of(&Credentials {
            username: "admin".into(),
            password: "pass".into(),
        });
        let text = serde_json::to_string(&secrets).unwrap();
        let read: Secrets = serde_json::from_str(&text).unwrap();
        assert_eq!(read.credentials().password.expose_secret(), "pass");
    }
}
