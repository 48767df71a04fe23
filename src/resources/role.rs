//! The roles of the functions, of the state machine and of the event rule.
//!
//! IAM is global: a cluster of the same name in another region has its roles under the same path, and only the
//! region's tag tells them apart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aws_sdk_iam::types::Tag;
use futures::future::try_join_all;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::aws::retry::retry_while;
use crate::aws::{Answer, Aws, AwsError};
use crate::cluster::names::{CLUSTER_TAG, Cluster, REGION_TAG, RolePurpose};
use crate::resource::{Diff, Known, Resource, Settle, Tags, touches};
use crate::run::{Change, Kind};

/// How long IAM may take to hear of its own change.
const PROPAGATION: Duration = Duration::from_secs(60);
const GONE: &[&str] = &["NoSuchEntity"];
/// What the name of every inline policy of the Go tool and of this one begins with.
const POLICY_PREFIX: &str = "wekactl-";
/// Digits of the random end of a name.
const RANDOM_DIGITS: usize = 8;

/// A role with one inline policy.
#[derive(Debug, Clone)]
pub struct Role {
    /// Its name, random end included: the one in use where there is one.
    pub name: String,
    /// `/wekactl/C/`.
    pub path: String,
    /// Whom it is for.
    pub purpose: RolePurpose,
    /// Who may take it on.
    pub trust: Value,
    /// Name of its inline policy.
    pub policy_name: String,
    /// What it allows.
    pub policy: Known<Value>,
    /// Its tags, the region among them.
    pub tags: Tags,
}

/// A role in AWS.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// Whom it is for, as far as its name or its policy's tells.
    pub purpose: Option<RolePurpose>,
    /// It has no region's tag: the Go tool made it, for this region or another.
    pub go: bool,
    /// Seconds since 1970.
    created: i64,
    trust: String,
    /// Inline policies, document by name.
    policies: BTreeMap<String, String>,
    tags: Tags,
}

/// All roles of a cluster in this region, and those of the Go tool in any.
#[derive(Debug, Clone, Default)]
pub struct Roles {
    /// The oldest first.
    pub by_purpose: BTreeMap<RolePurpose, Vec<Observed>>,
    /// Whom they are for can not be told: only names that the Go tool cut short, without a policy.
    pub unknown: Vec<Observed>,
}

impl Role {
    /// A role of a cluster, under the name that the first of `found` has, else under a new one.
    pub fn new(
        cluster: &Cluster,
        purpose: RolePurpose,
        region: &str,
        trust: Value,
        policy: Known<Value>,
        user_tags: &Tags,
        found: &[Observed],
    ) -> Self {
        let name = found.first().map_or_else(
            || {
                let random = uuid::Uuid::new_v4().simple().to_string();
                cluster.role(purpose, &random[..RANDOM_DIGITS])
            },
            |role| role.name.clone(),
        );
        let mut tags = cluster.hostgroup_tags(user_tags);
        tags.insert(REGION_TAG.to_owned(), region.to_owned());
        Self {
            name,
            path: cluster.role_path(),
            purpose,
            trust,
            policy_name: cluster.role_policy(purpose),
            policy,
            tags,
        }
    }

    fn sdk_tags(&self) -> Result<Vec<Tag>> {
        let tag =
            |(key, value): (&String, &String)| Ok(Tag::builder().key(key).value(value).build()?);
        self.tags.iter().map(tag).collect()
    }

    async fn put_policy(&self, aws: &Aws) -> Result<String> {
        let document = self.policy.get()?.to_string();
        let put = || async {
            aws.iam()
                .put_role_policy()
                .role_name(&self.name)
                .policy_name(&self.policy_name)
                .policy_document(&document)
                .send()
                .await
                .answer()
        };
        retry_while(&aws.run, PROPAGATION, |error| error.is(GONE), put)
            .await
            .with_context(|| format!("writing its policy {}", self.policy_name))?;
        Ok(document)
    }
}

impl Roles {
    /// Of all of them.
    pub fn names(&self) -> BTreeSet<String> {
        let all = self.by_purpose.values().flatten().chain(&self.unknown);
        all.map(|role| role.name.clone()).collect()
    }

    /// The roles that an import may change, or remove as duplicates, the one that stays first: one in use of those that
    /// `run` the automation, else the oldest, which is the same one for every import. `referenced_arns` are of the roles
    /// that this region's functions, state machine and rule refer to: of the Go tool's they are the only ones of which
    /// this region is proved.
    pub fn of_this_region(
        self,
        referenced_arns: &[String],
        run: bool,
    ) -> BTreeMap<RolePurpose, Vec<Observed>> {
        let mut roles = self.by_purpose;
        for found in roles.values_mut() {
            let is_in_use = |role: &Observed| referenced_arns.contains(&role.arn);
            found.retain(|role| !role.go || is_in_use(role));
            found.sort_by_key(|role| !(run && is_in_use(role)));
        }
        roles
    }
}

impl Observed {
    /// Whether IAM's answers are of this cluster and of this region, or of the Go tool.
    fn is_of(&self, cluster: &Cluster, region: &str) -> bool {
        self.tags.get(CLUSTER_TAG) == Some(&cluster.name)
            && self.tags.get(REGION_TAG).is_none_or(|tag| tag == region)
    }
}

/// So long a role that IAM does not know may be one that was just made.
const UNHEARD_OF: Duration = Duration::from_secs(10);

/// As [`retry_while`], for a call that AWS refuses while it has not heard of the role. Ends with IAM's words when the role
/// is gone: another import may have removed it.
///
/// # Errors
/// As [`retry_while`]; `NoSuchEntity`.
pub async fn retry_while_new<T, Fut>(
    aws: &Aws,
    arn: &str,
    deadline: Duration,
    is_transient: impl Fn(&AwsError) -> bool,
    mut call: impl FnMut() -> Fut,
) -> Result<T>
where
    Fut: Future<Output = Result<T, AwsError>>,
{
    let (start, is_transient) = (Instant::now(), &is_transient);
    let name = arn.rsplit('/').next().unwrap_or_default();
    retry_while(&aws.run, deadline, is_transient, || {
        let answer = call();
        async move {
            let refusal = match answer.await {
                Err(refusal) if is_transient(&refusal) && start.elapsed() > UNHEARD_OF => refusal,
                answer => return answer,
            };
            match aws.iam().get_role().role_name(name).send().await.answer() {
                Err(gone) if gone.is(GONE) => Err(gone),
                _ => Err(refusal),
            }
        }
    })
    .await
}

/// Everything under the cluster's path that belongs to this region, and what the Go tool made for any.
///
/// # Errors
/// AWS's failures.
pub async fn find_all(aws: &Aws, cluster: &Cluster) -> Result<Roles> {
    let listed = list(aws, cluster).await?;
    let observed = listed.into_iter().map(|role| observe(aws, cluster, role));
    let mut found: Vec<Observed> = try_join_all(observed)
        .await?
        .into_iter()
        .flatten()
        .collect();
    found.retain(|role| role.is_of(cluster, aws.region()));
    found.sort_by(oldest_first);
    let mut roles = Roles::default();
    for role in found {
        match role.purpose {
            Some(purpose) => roles.by_purpose.entry(purpose).or_default().push(role),
            None => roles.unknown.push(role),
        }
    }
    Ok(roles)
}

/// Names of this cluster's and this region's roles, without these.
///
/// # Errors
/// AWS's failures.
pub async fn others(aws: &Aws, cluster: &Cluster, known: &BTreeSet<String>) -> Result<Vec<String>> {
    let listed = list(aws, cluster).await?.into_iter();
    let others = listed.filter(|role| !known.contains(&role.role_name));
    let others = try_join_all(others.map(|role| async {
        let tags = tags_of(aws, &role.role_name).await?.unwrap_or_default();
        let is_ours = tags.get(CLUSTER_TAG) == Some(&cluster.name)
            && tags.get(REGION_TAG).is_some_and(|tag| tag == aws.region());
        anyhow::Ok(is_ours.then_some(role.role_name))
    }))
    .await?;
    Ok(others.into_iter().flatten().collect())
}

async fn list(aws: &Aws, cluster: &Cluster) -> Result<Vec<aws_sdk_iam::types::Role>> {
    let path = cluster.role_path();
    let mut pages = aws
        .iam()
        .list_roles()
        .path_prefix(&path)
        .into_paginator()
        .send();
    let mut listed = Vec::new();
    while let Some(page) = pages.next().await {
        // A prefix is not a path: deeper ones are somebody else's.
        listed.extend(
            page.answer()?
                .roles
                .into_iter()
                .filter(|role| role.path == path),
        );
    }
    Ok(listed)
}

fn oldest_first(one: &Observed, other: &Observed) -> std::cmp::Ordering {
    (one.created, &one.name).cmp(&(other.created, &other.name))
}

/// `None`: it went away meanwhile.
async fn observe(
    aws: &Aws,
    cluster: &Cluster,
    role: aws_sdk_iam::types::Role,
) -> Result<Option<Observed>> {
    let by_name = purpose_by_name(cluster, &role.role_name);
    let likely = by_name.map(|purpose| cluster.role_policy(purpose));
    let (tags, names, document) = tokio::try_join!(
        tags_of(aws, &role.role_name),
        policy_names(aws, &role.role_name),
        async {
            match &likely {
                Some(policy) => read_policy(aws, &role.role_name, policy).await,
                None => Ok(None),
            }
        },
    )?;
    let (Some(tags), Some(names)) = (tags, names) else {
        return Ok(None);
    };
    let others = names.iter().filter(|name| Some(*name) != likely.as_ref());
    let others = try_join_all(others.map(|name| async {
        let document = read_policy(aws, &role.role_name, name).await?;
        anyhow::Ok(document.map(|document| (name.clone(), document)))
    }))
    .await?;
    let policies: BTreeMap<String, String> = likely
        .zip(document)
        .into_iter()
        .chain(others.into_iter().flatten())
        .collect();
    let trust = role.assume_role_policy_document.as_deref();
    Ok(Some(Observed {
        purpose: by_name.or_else(|| purpose_by_policy(cluster, policies.keys())),
        go: !tags.contains_key(REGION_TAG),
        created: role.create_date.secs(),
        trust: decode(trust.unwrap_or_default()),
        policies,
        tags,
        arn: role.arn,
        name: role.role_name,
    }))
}

/// Ours end with purpose and random digits, the Go tool's have the purpose after the host group, if not cut before it.
fn purpose_by_name(cluster: &Cluster, name: &str) -> Option<RolePurpose> {
    let ours = |purpose: &RolePurpose| {
        name.len() > RANDOM_DIGITS && name.is_char_boundary(name.len() - RANDOM_DIGITS) && {
            let (start, random) = name.split_at(name.len() - RANDOM_DIGITS);
            random.chars().all(|each| each.is_ascii_hexdigit())
                && start.ends_with(&format!("-{}-", purpose.word()))
        }
    };
    let go = |purpose: &RolePurpose| {
        name.starts_with(&format!("{}-{}-", cluster.backends(), purpose.word()))
    };
    RolePurpose::all()
        .find(ours)
        .or_else(|| RolePurpose::all().find(go))
}

fn purpose_by_policy<'a>(
    cluster: &Cluster,
    mut names: impl Iterator<Item = &'a String>,
) -> Option<RolePurpose> {
    names.find_map(|name| {
        RolePurpose::all().find(|purpose| {
            *name == cluster.role_policy(*purpose)
                || *name == format!("wekactl-{}-{}-Backends", cluster.name, purpose.word())
        })
    })
}

async fn tags_of(aws: &Aws, role: &str) -> Result<Option<Tags>> {
    let mut pages = aws
        .iam()
        .list_role_tags()
        .role_name(role)
        .into_paginator()
        .send();
    let mut tags = Tags::new();
    while let Some(page) = pages.next().await {
        let Some(page) = page.if_found(GONE)? else {
            return Ok(None);
        };
        tags.extend(page.tags.into_iter().map(|tag| (tag.key, tag.value)));
    }
    Ok(Some(tags))
}

async fn policy_names(aws: &Aws, role: &str) -> Result<Option<Vec<String>>> {
    let mut pages = aws
        .iam()
        .list_role_policies()
        .role_name(role)
        .into_paginator()
        .send();
    let mut names = Vec::new();
    while let Some(page) = pages.next().await {
        let Some(page) = page.if_found(GONE)? else {
            return Ok(None);
        };
        names.extend(page.policy_names);
    }
    Ok(Some(names))
}

async fn read_policy(aws: &Aws, role: &str, policy: &str) -> Result<Option<String>> {
    let answer = aws
        .iam()
        .get_role_policy()
        .role_name(role)
        .policy_name(policy)
        .send()
        .await
        .if_found(GONE)?;
    Ok(answer.map(|answer| decode(answer.policy_document())))
}

/// IAM gives documents back URL-encoded.
fn decode(document: &str) -> String {
    percent_decode_str(document)
        .decode_utf8_lossy()
        .into_owned()
}

async fn delete_policy(aws: &Aws, role: &str, policy: &str) -> Result<()> {
    aws.iam()
        .delete_role_policy()
        .role_name(role)
        .policy_name(policy)
        .send()
        .await
        .if_found(GONE)
        .with_context(|| format!("removing its policy {policy}"))?;
    Ok(())
}

/// An operator's managed policies would keep the role from being deleted.
async fn detach_policies(aws: &Aws, role: &str) -> Result<()> {
    let mut pages = aws
        .iam()
        .list_attached_role_policies()
        .role_name(role)
        .into_paginator()
        .send();
    while let Some(page) = pages.next().await {
        let Some(page) = page.if_found(GONE)? else {
            return Ok(());
        };
        for policy in page.attached_policies() {
            let arn = policy.policy_arn().unwrap_or_default();
            aws.iam()
                .detach_role_policy()
                .role_name(role)
                .policy_arn(arn)
                .send()
                .await
                .if_found(GONE)
                .with_context(|| format!("detaching policy {arn}"))?;
        }
    }
    Ok(())
}

impl Resource for Role {
    const KIND: Kind = Kind::Role;
    type Observed = Observed;

    fn name(&self) -> &str {
        &self.name
    }

    /// The one of this very name. Which names there are says [`find_all`].
    fn planned_name(&self) -> String {
        let random = self.name.len().saturating_sub(RANDOM_DIGITS);
        format!("{}<random>", &self.name[..random])
    }

    async fn find(aws: &Aws, cluster: &Cluster, name: &str) -> Result<Vec<Observed>> {
        let answer = aws.iam().get_role().role_name(name).send().await;
        let Some(role) = answer.if_found(GONE)?.and_then(|answer| answer.role) else {
            return Ok(Vec::new());
        };
        Ok(observe(aws, cluster, role).await?.into_iter().collect())
    }

    fn tags(found: &Observed) -> Option<&Tags> {
        Some(&found.tags)
    }

    fn row_name(_name: &str, found: &Observed) -> String {
        found.name.clone()
    }

    /// The path is not compared: nothing under another one is found, and none can be changed.
    fn changes(&self, found: &Observed) -> Vec<Change> {
        let field = format!("policies.{}", self.policy_name);
        let document = found.policies.get(&self.policy_name);
        let diff = Diff::new().json("assumeRolePolicyDocument", Some(&found.trust), &self.trust);
        let diff = match &self.policy {
            Known::Value(wanted) => diff.json(&field, document.map(String::as_str), wanted),
            Known::AfterApply => diff.known(&field, &document.cloned(), &Known::AfterApply),
        };
        let mut changes = diff.tags(&found.tags, &self.tags).done();
        // Other policies of ours or of the Go tool would add to what this version allows; an operator's stay.
        let stale = found
            .policies
            .iter()
            .filter(|(name, _)| **name != self.policy_name && name.starts_with(POLICY_PREFIX));
        changes.extend(stale.map(|(name, document)| Change {
            field: format!("policies.{name}"),
            from: Some(document.clone()),
            to: None,
        }));
        changes
    }

    async fn create(&self, aws: &Aws) -> Result<Observed> {
        let made = aws
            .iam()
            .create_role()
            .role_name(&self.name)
            .path(&self.path)
            .assume_role_policy_document(self.trust.to_string())
            .set_tags(Some(self.sdk_tags()?))
            .send()
            .await
            .answer()?
            .role
            .context("AWS made a role and did not say which")?;
        let document = self.put_policy(aws).await?;
        Ok(Observed {
            name: self.name.clone(),
            arn: made.arn,
            purpose: Some(self.purpose),
            go: false,
            created: made.create_date.secs(),
            trust: self.trust.to_string(),
            policies: BTreeMap::from([(self.policy_name.clone(), document)]),
            tags: self.tags.clone(),
        })
    }

    async fn update(&self, aws: &Aws, mut found: Observed, changes: &[Change]) -> Result<Observed> {
        aws.iam()
            .tag_role()
            .role_name(&self.name)
            .set_tags(Some(self.sdk_tags()?))
            .send()
            .await
            .answer()?;
        if touches(changes, "assumeRolePolicyDocument") {
            aws.iam()
                .update_assume_role_policy()
                .role_name(&self.name)
                .policy_document(self.trust.to_string())
                .send()
                .await
                .answer()?;
            found.trust = self.trust.to_string();
        }
        if touches(changes, &format!("policies.{}", self.policy_name)) {
            let document = self.put_policy(aws).await?;
            found.policies.insert(self.policy_name.clone(), document);
        }
        let stale = changes.iter().filter(|change| change.to.is_none());
        for policy in stale.filter_map(|change| change.field.strip_prefix("policies.")) {
            delete_policy(aws, &self.name, policy).await?;
            found.policies.remove(policy);
        }
        found.tags.extend(self.tags.clone());
        found.go = false;
        Ok(found)
    }

    async fn delete(aws: &Aws, found: Observed) -> Result<()> {
        let role = &found.name;
        let inline = async {
            for policy in found.policies.keys() {
                delete_policy(aws, role, policy).await?;
            }
            anyhow::Ok(())
        };
        tokio::join!(inline, detach_policies(aws, role)).settle()?;
        let delete = || async {
            let answer = aws.iam().delete_role().role_name(role).send().await;
            answer.if_found(GONE).map(drop)
        };
        let passes = |error: &AwsError| error.is(&["DeleteConflict", "ConcurrentModification"]);
        retry_while(&aws.run, PROPAGATION, passes, delete).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::names::FunctionKind;
    use serde_json::json;

    const FETCH: RolePurpose = RolePurpose::Function(FunctionKind::Fetch);

    fn prod() -> Cluster {
        "prod".parse().unwrap()
    }

    fn wanted() -> Role {
        Role::new(
            &prod(),
            FETCH,
            "eu-central-1",
            json!({"Version": "2012-10-17", "Statement": ["trust"]}),
            Known::Value(json!({"Version": "2012-10-17", "Statement": ["policy"]})),
            &Tags::from([("owner".to_owned(), "me".to_owned())]),
            &[],
        )
    }

    /// As IAM gives it back: other white space, other order.
    fn as_created() -> Observed {
        Observed {
            name: "wekactl-prod-Backends-fetch-1a2b3c4d".into(),
            arn: "arn:aws:iam::123456789012:role/wekactl/prod/wekactl-prod-Backends-fetch-1a2b3c4d"
                .into(),
            purpose: Some(FETCH),
            go: false,
            created: 1,
            trust: decode(
                "%7B%22Statement%22%3A%20%5B%22trust%22%5D%2C%20%22Version%22%3A%20%222012-10-17%22%7D",
            ),
            policies: BTreeMap::from([(
                "wekactl-prod-fetch-Backends".to_owned(),
                r#"{ "Statement": ["policy"], "Version": "2012-10-17" }"#.to_owned(),
            )]),
            tags: wanted().tags,
        }
    }

    /// The field that a drift shows in, and the drift.
    type Drift = (&'static str, fn(&mut Observed));

    #[test]
    fn every_drift_is_seen() {
        assert_eq!(wanted().changes(&as_created()), []);
        let drifts: [Drift; 6] = [
            ("assumeRolePolicyDocument", |role| role.trust = "{}".into()),
            ("policies.wekactl-prod-fetch-Backends", |role| {
                role.policies.clear();
            }),
            ("policies.wekactl-prod-fetch-Backends", |role| {
                for document in role.policies.values_mut() {
                    *document = "{}".into();
                }
            }),
            ("policies.wekactl-prod-old-Backends", |role| {
                role.policies
                    .insert("wekactl-prod-old-Backends".into(), "{}".into());
            }),
            ("tags.wekactl.io/region", |role| {
                role.tags.remove(REGION_TAG);
            }),
            ("tags.owner", |role| drop(role.tags.remove("owner"))),
        ];
        for (field, drift) in drifts {
            let mut found = as_created();
            drift(&mut found);
            let changes = wanted().changes(&found);
            let fields: Vec<_> = changes.iter().map(|change| &change.field).collect();
            assert_eq!(fields, [field]);
        }
    }

    #[test]
    fn an_operators_policy_stays() {
        let mut found = as_created();
        found.policies.insert("audit".into(), "{}".into());
        assert_eq!(wanted().changes(&found), []);
    }

    #[test]
    fn a_policy_that_is_not_known_yet_is_a_change() {
        let wanted = Role {
            policy: Known::AfterApply,
            ..wanted()
        };
        let changes = wanted.changes(&as_created());
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].to.as_deref(), Some("(known after apply)"));
    }

    #[test]
    fn the_name_in_use_is_kept() {
        let again = Role::new(
            &prod(),
            FETCH,
            "eu-central-1",
            Value::Null,
            Known::AfterApply,
            &Tags::new(),
            &[as_created()],
        );
        assert_eq!(again.name, as_created().name);
        assert_ne!(wanted().name, again.name);
        assert_eq!(purpose_by_name(&prod(), &wanted().name), Some(FETCH));
    }

    /// Names from the field.
    #[test]
    fn the_purpose_is_read_from_names() {
        let state_machine = Some(RolePurpose::StateMachine);
        for (name, purpose) in [
            (
                "wekactl-prod-Backends-fetch-31a75e76-eeba-4609-aa57-d5-185326777",
                Some(FETCH),
            ),
            (
                "wekactl-prod-Backends-sm-5259b809-be8e-48ce-833d-7d90d1209a89",
                state_machine,
            ),
            ("wekactl-prod-Backends-sm-1a2b3c4d", state_machine),
            ("wekactl-prod-Backends-sm", None),
            (
                "wekactl-prod2-Backends-sm-5259b809-be8e-48ce-833d-7d90d1209a89",
                None,
            ),
        ] {
            assert_eq!(purpose_by_name(&prod(), name), purpose, "{name}");
        }
        for length in 1..=128 {
            let cluster: Cluster = "a".repeat(length).parse().unwrap();
            for purpose in RolePurpose::all() {
                let name = cluster.role(purpose, "1a2b3c4d");
                assert_eq!(purpose_by_name(&cluster, &name), Some(purpose), "{name}");
            }
        }
        let long: Cluster = "a".repeat(60).parse().unwrap();
        let policy = format!("wekactl-{}-sm-Backends", long.name);
        assert_eq!(purpose_by_policy(&long, [policy].iter()), state_machine);
    }

    #[test]
    fn another_regions_role_is_not_ours() {
        let cluster = prod();
        assert!(as_created().is_of(&cluster, "eu-central-1"));
        assert!(!as_created().is_of(&cluster, "eu-west-1"));
        assert!(!as_created().is_of(&"prod2".parse().unwrap(), "eu-central-1"));
        let mut go = as_created();
        go.tags.remove(REGION_TAG);
        assert!(go.is_of(&cluster, "eu-west-1"));
    }

    #[test]
    fn the_role_in_use_is_kept_where_the_automation_runs() {
        let newer = Observed {
            name: "newer".into(),
            arn: "newer".into(),
            created: 2,
            ..as_created()
        };
        let first = |arns: &[String], run| {
            let found = vec![as_created(), newer.clone()];
            of_this_region(found, arns, run)[0].name.clone()
        };
        assert_eq!(first(&[], true), as_created().name);
        assert_eq!(first(&["newer".into()], true), "newer");
        // Two imports that look at different moments agree.
        assert_eq!(first(&["newer".into()], false), as_created().name);
    }

    /// Those that no region's tag is on may be another region's: to update one, or to remove it as a duplicate, would
    /// break that cluster.
    #[test]
    fn of_the_go_tools_roles_only_those_in_use_here_are_ours() {
        let go = |arn: &str| Observed {
            arn: arn.into(),
            go: true,
            ..as_created()
        };
        let found = || vec![go("theirs"), go("ours")];
        let arns = |arns: &[String]| -> Vec<String> {
            let kept = of_this_region(found(), arns, true);
            kept.into_iter().map(|role| role.arn).collect()
        };
        assert_eq!(arns(&[]), [""; 0]);
        assert_eq!(arns(&["ours".into()]), ["ours"]);
    }

    fn of_this_region(found: Vec<Observed>, referenced: &[String], run: bool) -> Vec<Observed> {
        let roles = Roles {
            by_purpose: BTreeMap::from([(FETCH, found)]),
            unknown: Vec::new(),
        };
        roles
            .of_this_region(referenced, run)
            .remove(&FETCH)
            .unwrap_or_default()
    }
}
