//! What every AWS resource of a cluster has in common, and the one place that makes it as wanted.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use backon::{BackoffBuilder, ExponentialBuilder};

use crate::aws::error::Effect;
use crate::aws::{Aws, AwsError};
use crate::cluster::names::{CLUSTER_TAG, Cluster, VERSION_TAG};
use crate::run::{Action, Change, Kind, Row};

/// Tags as one map; AWS spells them in six ways.
pub type Tags = BTreeMap<String, String>;

/// How long a call that AWS refuses for now, or never answered, is tried again.
const CREATE_DEADLINE: Duration = Duration::from_secs(180);

/// A value that may become known only when the plan is carried out, such as an id AWS will choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known<T> {
    /// It is known.
    Value(T),
    /// It will be known once this run has made what it belongs to. Only in a dry run.
    AfterApply,
}

impl<T> Known<T> {
    /// The value.
    ///
    /// # Errors
    /// In a dry run, where nothing may ask for it.
    pub fn get(&self) -> Result<&T> {
        match self {
            Self::Value(value) => Ok(value),
            Self::AfterApply => {
                bail!("a value that is known only after apply was needed in a dry run")
            }
        }
    }

    /// A part of the value, or something made from it.
    pub fn map<U>(&self, part: impl FnOnce(&T) -> U) -> Known<U> {
        match self {
            Self::Value(value) => Known::Value(part(value)),
            Self::AfterApply => Known::AfterApply,
        }
    }

    /// The value where it is known.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::AfterApply => None,
        }
    }
}

impl<T: std::fmt::Display> std::fmt::Display for Known<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(value) => value.fmt(formatter),
            Self::AfterApply => formatter.write_str("(known after apply)"),
        }
    }
}

/// One AWS kind. `find` needs only names, so that a plan, a list and destroy need nothing from upstream.
pub trait Resource: Sync {
    /// What it is.
    const KIND: Kind;
    /// What AWS says of it, normalised, in our words.
    type Observed: Send + Sync;

    /// Its name in AWS.
    fn name(&self) -> &str;

    /// What a plan calls it before it is made: with a placeholder for a part of the name that is drawn at random.
    fn planned_name(&self) -> String {
        self.name().to_owned()
    }

    /// All that AWS has under this name (or exact tag) for this cluster, the one to keep first.
    fn find(
        aws: &Aws,
        cluster: &Cluster,
        name: &str,
    ) -> impl Future<Output = Result<Vec<Self::Observed>>> + Send;

    /// Its tags; `None` for a kind that has none, or that `find` looks up by tag anyway.
    fn tags(found: &Self::Observed) -> Option<&Tags>;

    /// What a row calls one that was found by `name`: with what tells it from others of that name, where there can be
    /// such.
    fn row_name(name: &str, _found: &Self::Observed) -> String {
        name.to_owned()
    }

    /// Field by field, what differs from what is wanted. Pure; empty: as wanted.
    fn changes(&self, found: &Self::Observed) -> Vec<Change>;

    /// Makes it, ownership tags in the same call.
    fn create(&self, aws: &Aws) -> impl Future<Output = Result<Self::Observed>> + Send;

    /// Makes what is there as wanted. The tags first: the version among them is not compared, and would stay old where
    /// all but that call has succeeded.
    fn update(
        &self,
        aws: &Aws,
        found: Self::Observed,
        changes: &[Change],
    ) -> impl Future<Output = Result<Self::Observed>> + Send;

    /// Removes it; gone already is a success.
    fn delete(aws: &Aws, found: Self::Observed) -> impl Future<Output = Result<()>> + Send;
}

/// Makes the resource as wanted: creates, updates, or does nothing. `found` is what the inventory has of it.
///
/// Of several found the first is kept and the others, which a lost answer left behind, are removed.
/// After a failure that may have taken effect, and where something of that name is there already,
/// it looks again before it does anything twice.
///
/// # Errors
/// Something of our name that is not this cluster's; AWS's failures.
pub async fn ensure<R: Resource>(
    aws: &Aws,
    cluster: &Cluster,
    wanted: &R,
    found: Vec<R::Observed>,
) -> Result<Known<R::Observed>> {
    let mut found = found.into_iter();
    let kept = found.next();
    for extra in found {
        remove_extra::<R>(aws, cluster, wanted.name(), extra).await?;
    }
    let Some(kept) = kept else {
        let name = match aws.run.is_plan() {
            true => wanted.planned_name(),
            false => wanted.name().to_owned(),
        };
        let row = Row::new(R::KIND, name, Action::Create);
        let made = aws
            .run
            .step(row, create_or_adopt(aws, cluster, wanted))
            .await?;
        return Ok(made.map_or(Known::AfterApply, Known::Value));
    };
    owned::<R>(cluster, wanted.name(), &kept)?;
    let changes = wanted.changes(&kept);
    if changes.is_empty() {
        aws.run.unchanged(R::KIND, wanted.name());
        return Ok(Known::Value(kept));
    }
    let row = Row {
        changes: changes.clone(),
        ..Row::new(R::KIND, wanted.name(), Action::Update)
    };
    if aws.run.is_plan() {
        aws.run.step(row, async { Ok(()) }).await?;
        return Ok(Known::Value(kept));
    }
    let updated = aws
        .run
        .step(row, wanted.update(aws, kept, &changes))
        .await?;
    Ok(updated.map_or(Known::AfterApply, Known::Value))
}

/// Removes one of several of a name, if it is this cluster's.
///
/// # Errors
/// [`NotOurs`]; AWS's failures.
pub async fn remove_extra<R: Resource>(
    aws: &Aws,
    cluster: &Cluster,
    name: &str,
    extra: R::Observed,
) -> Result<()> {
    let name = R::row_name(name, &extra);
    owned::<R>(cluster, &name, &extra)?;
    let row = Row::new(R::KIND, name, Action::Delete);
    aws.run.step(row, R::delete(aws, extra)).await?;
    Ok(())
}

/// Creates; what an earlier, unanswered try of the same call has made is taken instead of making another.
async fn create_or_adopt<R: Resource>(
    aws: &Aws,
    cluster: &Cluster,
    wanted: &R,
) -> Result<R::Observed> {
    let mut pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(300))
        .with_max_delay(Duration::from_secs(15))
        .with_jitter()
        .with_total_delay(Some(CREATE_DEADLINE))
        .without_max_times()
        .build();
    loop {
        let error = match wanted.create(aws).await {
            Ok(made) => return Ok(made),
            Err(error) => error,
        };
        let Some(cause) = AwsError::of(&error) else {
            return Err(error);
        };
        if cause.effect == Effect::None && !is_taken(cause) {
            return Err(error);
        }
        // Also after throttling: it may have struck a later call than the one that makes the resource.
        let found = R::find(aws, cluster, wanted.name()).await?;
        if let Some(kept) = found.into_iter().next() {
            owned::<R>(cluster, wanted.name(), &kept)?;
            let changes = wanted.changes(&kept);
            return if changes.is_empty() {
                Ok(kept)
            } else {
                wanted.update(aws, kept, &changes).await
            };
        }
        if is_taken(cause) {
            return Err(error);
        }
        let Some(pause) = pauses.next() else {
            return Err(error);
        };
        aws.run.pause(pause).await?;
    }
}

/// Whether AWS says that something of this name is there already.
fn is_taken(error: &AwsError) -> bool {
    error.code.as_deref().is_some_and(|code| {
        code.contains("AlreadyExist")
            || code.contains("Duplicate")
            || matches!(
                code,
                "ResourceConflictException"
                    | "ResourceInUseException"
                    | "ConflictException"
                    | "AlreadyExists"
            )
    })
}

/// That what was found by name is this cluster's.
///
/// # Errors
/// [`NotOurs`].
pub fn owned<R: Resource>(cluster: &Cluster, name: &str, found: &R::Observed) -> Result<()> {
    match R::tags(found).map(|tags| tags.get(CLUSTER_TAG)) {
        None => Ok(()),
        Some(Some(owner)) if *owner == cluster.name => Ok(()),
        Some(owner) => Err(NotOurs {
            kind: R::KIND,
            name: name.to_owned(),
            owner: owner.cloned(),
            cluster: cluster.name.clone(),
        }
        .into()),
    }
}

/// Removes what was found of a resource, all at once. What is not this cluster's is left, with a notice.
///
/// # Errors
/// Every failure, after every removal was tried.
pub async fn remove<R: Resource>(
    aws: &Aws,
    cluster: &Cluster,
    name: &str,
    found: Vec<R::Observed>,
) -> Result<()> {
    let removals = found.into_iter().map(|each| async {
        if let Err(foreign) = owned::<R>(cluster, name, &each) {
            aws.run.notice(format!("{foreign}: it is left alone"));
            return Ok(());
        }
        aws.run
            .step(
                Row::new(R::KIND, R::row_name(name, &each), Action::Delete),
                R::delete(aws, each),
            )
            .await?;
        Ok(())
    });
    futures::future::join_all(removals).await.settle()?;
    Ok(())
}

/// Something has our name and not our tag: it is somebody else's, and stays as it is.
#[derive(Debug, thiserror::Error)]
#[error("{kind} {name} exists and does not belong to cluster {cluster}: {}",
    owner.as_ref().map_or_else(|| format!("it has no tag {CLUSTER_TAG}"), |owner| format!("its tag {CLUSTER_TAG} says {owner}")))]
#[expect(missing_docs, reason = "the message says what they are")]
pub struct NotOurs {
    pub kind: Kind,
    pub name: String,
    pub owner: Option<String>,
    pub cluster: String,
}

/// Collects changes field by field.
#[derive(Default)]
pub struct Diff(Vec<Change>);

impl Diff {
    /// Nothing differs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One plain value.
    pub fn field<T: PartialEq + std::fmt::Debug>(
        mut self,
        field: &str,
        found: &T,
        wanted: &T,
    ) -> Self {
        if found != wanted {
            self.0.push(Change {
                field: field.to_owned(),
                from: plain(found),
                to: plain(wanted),
            });
        }
        self
    }

    /// A value that another resource of this run decides: not known is different.
    pub fn known<T: PartialEq + std::fmt::Debug>(
        mut self,
        field: &str,
        found: &T,
        wanted: &Known<T>,
    ) -> Self {
        match wanted {
            Known::Value(wanted) => self.field(field, found, wanted),
            Known::AfterApply => {
                self.0.push(Change {
                    field: field.to_owned(),
                    from: plain(found),
                    to: Some("(known after apply)".to_owned()),
                });
                self
            }
        }
    }

    /// A value that must not be shown.
    pub fn secret<T: PartialEq>(mut self, field: &str, found: &T, wanted: &T) -> Self {
        if found != wanted {
            self.0.push(Change {
                field: field.to_owned(),
                from: Some("(hidden)".into()),
                to: Some("(hidden)".into()),
            });
        }
        self
    }

    /// A JSON document, compared as parsed JSON and not as text.
    pub fn json(mut self, field: &str, found: Option<&str>, wanted: &serde_json::Value) -> Self {
        let parsed = found.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
        if parsed.as_ref() != Some(wanted) {
            self.0.push(Change {
                field: field.to_owned(),
                from: found.map(ToOwned::to_owned),
                to: Some(wanted.to_string()),
            });
        }
        self
    }

    /// Our tags: each that is missing or has another value. Foreign tags stay, and the version tag,
    /// which is written with every other change, is no difference of its own.
    pub fn tags(mut self, found: &Tags, wanted: &Tags) -> Self {
        for (key, value) in wanted {
            if key != VERSION_TAG && found.get(key) != Some(value) {
                self.0.push(Change {
                    field: format!("tags.{key}"),
                    from: found.get(key).cloned(),
                    to: Some(value.clone()),
                });
            }
        }
        self
    }

    /// All that differs.
    pub fn done(self) -> Vec<Change> {
        self.0
    }
}

/// `Debug` without the quotes around a bare string and without `Some(…)`; nothing for `None`.
fn plain<T: std::fmt::Debug>(value: &T) -> Option<String> {
    let text = format!("{value:?}");
    if text == "None" {
        return None;
    }
    let text = text
        .strip_prefix("Some(")
        .and_then(|inner| inner.strip_suffix(')'))
        .unwrap_or(&text);
    let bare = text
        .strip_prefix('"')
        .and_then(|inner| inner.strip_suffix('"'));
    Some(bare.unwrap_or(text).to_owned())
}

/// Whether one of the changes is in `field` or below it.
pub fn touches(changes: &[Change], field: &str) -> bool {
    changes.iter().any(|change| {
        change.field == field
            || change
                .field
                .strip_prefix(field)
                .is_some_and(|rest| rest.starts_with('.'))
    })
}

/// Several failures of steps that ran at once.
#[derive(Debug)]
pub struct Failures(pub Vec<anyhow::Error>);

impl std::fmt::Display for Failures {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines: Vec<String> = self.0.iter().map(|error| format!("{error:#}")).collect();
        formatter.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Failures {}

/// One result from what has failed.
///
/// # Errors
/// The failure where there is one, else [`Failures`], flat.
pub fn gather(errors: Vec<anyhow::Error>) -> Result<()> {
    let mut flat = Vec::new();
    for error in errors {
        match error.downcast::<Failures>() {
            Ok(failures) => flat.extend(failures.0),
            Err(error) => flat.push(error),
        }
    }
    match flat.len() {
        0 | 1 => flat.pop().map_or(Ok(()), Err),
        _ => Err(Failures(flat).into()),
    }
}

/// Turns what `tokio::join!` gives into one result, after every branch has finished.
pub trait Settle {
    /// All the values.
    type Values;
    /// # Errors
    /// Every failure, not just the first.
    fn settle(self) -> Result<Self::Values>;
}

impl<T> Settle for Vec<Result<T>> {
    type Values = Vec<T>;
    fn settle(self) -> Result<Vec<T>> {
        let (mut values, mut errors) = (Vec::with_capacity(self.len()), Vec::new());
        for result in self {
            match result {
                Ok(value) => values.push(value),
                Err(error) => errors.push(error),
            }
        }
        gather(errors).map(|()| values)
    }
}

macro_rules! settle_tuple {
    ($($t:ident $v:ident),+) => {
        impl<$($t),+> Settle for ($(Result<$t>,)+) {
            type Values = ($($t,)+);
            fn settle(self) -> Result<Self::Values> {
                let ($($v,)+) = self;
                match ($($v,)+) {
                    ($(Ok($v),)+) => Ok(($($v,)+)),
                    ($($v,)+) => {
                        let errors = [$($v.err()),+].into_iter().flatten().collect();
                        gather(errors)?;
                        Err(anyhow::anyhow!("nothing failed"))
                    }
                }
            }
        }
    };
}
settle_tuple!(A a, B b);
settle_tuple!(A a, B b, C c);
settle_tuple!(A a, B b, C c, D d);
settle_tuple!(A a, B b, C c, D d, E e);
settle_tuple!(A a, B b, C c, D d, E e, F f);
settle_tuple!(A a, B b, C c, D d, E e, F f, G g);
settle_tuple!(A a, B b, C c, D d, E e, F f, G g, H h);
settle_tuple!(A a, B b, C c, D d, E e, F f, G g, H h, I i);
