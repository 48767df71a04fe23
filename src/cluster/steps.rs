//! Steps that run at once and hand their results to each other: plain async code, of which every
//! branch finishes and every failure is reported.

use std::sync::Mutex;

use anyhow::Result;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, join_all};

use crate::resource::gather;

/// A step's result, for as many as need it; `None` when the step failed.
pub(super) type Step<'a, T> = Shared<BoxFuture<'a, Option<T>>>;

/// A step that did not begin because one it needs failed. That one is reported, this is not.
#[derive(Debug, thiserror::Error)]
#[error("a step that this one needs failed")]
struct Skipped;

/// Collects the failures of steps.
#[derive(Default)]
pub(super) struct Steps {
    failures: Mutex<Vec<anyhow::Error>>,
}

impl Steps {
    /// A step. It runs when it is first awaited, once, however many await it.
    pub(super) fn add<'a, T: Clone + Send + Sync + 'a>(
        &'a self,
        work: impl Future<Output = Result<T>> + Send + 'a,
    ) -> Step<'a, T> {
        async move {
            match work.await {
                Ok(value) => Some(value),
                Err(error) => {
                    if !error.is::<Skipped>() {
                        self.failures
                            .lock()
                            .unwrap_or_else(std::sync::PoisonError::into_inner)
                            .push(error);
                    }
                    None
                }
            }
        }
        .boxed()
        .shared()
    }

    /// A step that begins, with their results, once the steps it needs have succeeded.
    pub(super) fn after<
        'a,
        N: Needs<'a>,
        T: Clone + Send + Sync + 'a,
        W: Future<Output = Result<T>> + Send + 'a,
    >(
        &'a self,
        needs: N,
        work: impl FnOnce(N::Values) -> W + Send + 'a,
    ) -> Step<'a, T> {
        let values = needs.values();
        self.add(async move { work(values.await?).await })
    }

    /// A step that is done when these have ended, well or not.
    pub(super) fn tried<'a>(&'a self, steps: Vec<Step<'a, ()>>) -> Step<'a, ()> {
        self.add(async move {
            join_all(steps).await;
            Ok(())
        })
    }

    /// # Errors
    /// Every failure of every step that has run.
    pub(super) fn result(self) -> Result<()> {
        let failures = self
            .failures
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        gather(failures)
    }
}

/// A step for who only wants to know that it is done.
pub(super) fn done<'a, T: Clone + Send + Sync + 'a>(step: &Step<'a, T>) -> Step<'a, ()> {
    step.clone().map(|value| value.map(drop)).boxed().shared()
}

/// Steps that another one needs: one, several of different kinds, or any number of one kind.
pub(super) trait Needs<'a> {
    /// Their results.
    type Values: Send + 'a;
    /// Waits for all of them, also when one has failed.
    fn values(self) -> BoxFuture<'a, Result<Self::Values>>;
}

async fn need<T: Clone>(step: Step<'_, T>) -> Result<T> {
    Ok(step.await.ok_or(Skipped)?)
}

impl<'a, T: Clone + Send + Sync + 'a> Needs<'a> for &Step<'a, T> {
    type Values = T;
    fn values(self) -> BoxFuture<'a, Result<T>> {
        need(self.clone()).boxed()
    }
}

impl<'a, T: Clone + Send + Sync + 'a> Needs<'a> for Vec<Step<'a, T>> {
    type Values = Vec<T>;
    fn values(self) -> BoxFuture<'a, Result<Vec<T>>> {
        async move {
            join_all(self.into_iter().map(need))
                .await
                .into_iter()
                .collect()
        }
        .boxed()
    }
}

macro_rules! needs_tuple {
    ($($t:ident $v:ident),+) => {
        impl<'a, $($t: Needs<'a>),+> Needs<'a> for ($($t,)+)
        {
            type Values = ($($t::Values,)+);
            fn values(self) -> BoxFuture<'a, Result<Self::Values>> {
                let ($($v,)+) = self;
                $(let $v = $v.values();)+
                async move {
                    let ($($v,)+) = tokio::join!($($v),+);
                    Ok(($($v?,)+))
                }
                .boxed()
            }
        }
    };
}
needs_tuple!(A a, B b);
needs_tuple!(A a, B b, C c);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reports_each_failure_once_and_nothing_that_only_followed() {
        let steps = Steps::default();
        let broken = steps.add(async { anyhow::Result::<u8>::Err(anyhow::anyhow!("broken")) });
        let fine = steps.add(async { Ok(1) });
        let one = steps.after(&broken, async |value| Ok(value));
        let other = steps.after((&fine, &broken), async |(_, value)| Ok(value));
        let (one, other, fine) = tokio::join!(one, other, fine);
        assert_eq!((one, other, fine), (None, None, Some(1)));
        drop(broken);
        assert_eq!(steps.result().unwrap_err().to_string(), "broken");
    }
}
