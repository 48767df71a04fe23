//! Calls that take many ids: in batches as large as AWS takes, and a batch that is refused for one of its ids is
//! halved until the culprits stand alone.

use anyhow::{Error, Result};

use super::error::{AwsError, Effect};
use super::join_some;
use crate::run::{Run, some_of};

/// Refusals that are no single id's fault: of the halves as many would be refused.
const OF_ALL: &[&str] = &[
    "AccessDenied",
    "AccessDeniedException",
    "AuthFailure",
    "ExpiredToken",
    "InvalidClientTokenId",
    "OptInRequired",
    "RequestExpired",
    "ResourceContention",
    "ResourceInUse",
    "ScalingActivityInProgress",
    "SignatureDoesNotMatch",
    "UnauthorizedOperation",
];

/// Calls for all of the ids, with at most `most` of them in one call and `at_once` calls under way. Returns why it
/// failed for those for which it did: "tagging i-1: …". After Ctrl-C nothing more is called.
pub async fn in_batches<Fut>(
    run: &Run,
    doing: &str,
    ids: &[String],
    (most, at_once): (usize, usize),
    call: impl Fn(Vec<String>) -> Fut,
) -> Vec<Error>
where
    Fut: Future<Output = Result<()>>,
{
    let batches = ids
        .chunks(most)
        .map(|batch| bisect(run, doing, batch.to_vec(), &call));
    let errors = join_some(at_once, batches).await;
    errors.into_iter().flatten().collect()
}

async fn bisect<Fut>(
    run: &Run,
    doing: &str,
    ids: Vec<String>,
    call: impl Fn(Vec<String>) -> Fut,
) -> Vec<Error>
where
    Fut: Future<Output = Result<()>>,
{
    let mut errors = Vec::new();
    let mut batches = vec![ids];
    while let Some(mut batch) = batches.pop() {
        if let Err(interrupted) = run.proceed() {
            errors.push(interrupted.into());
            break;
        }
        let Err(error) = Box::pin(call(batch.clone())).await else {
            continue;
        };
        if batch.len() > 1 && is_fault_of_one(&error) {
            let second = batch.split_off(batch.len() / 2);
            batches.extend([second, batch]);
        } else {
            errors.push(error.context(format!("{doing} {}", some_of(&batch))));
        }
    }
    errors
}

/// Without an answer the halves would get none either.
fn is_fault_of_one(error: &Error) -> bool {
    AwsError::of(error).is_some_and(|cause| cause.effect == Effect::None && !cause.is(OF_ALL))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::future::ready;
    use std::sync::Mutex;

    use super::*;

    fn refusal(code: &str, effect: Effect) -> Error {
        let error = AwsError {
            code: Some(code.into()),
            message: "no".into(),
            request_id: None,
            effect,
        };
        error.into()
    }

    fn ids(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("i-{number}")).collect()
    }

    #[tokio::test]
    async fn culprits_do_not_keep_the_others() {
        let (done, calls) = (Mutex::new(BTreeSet::new()), Mutex::new(0));
        let errors = in_batches(&Run::unwatched(), "ending", &ids(130), (50, 2), |batch| {
            assert!(batch.len() <= 50);
            *calls.lock().unwrap() += 1;
            if batch.iter().any(|id| id == "i-7" || id == "i-33") {
                return ready(Err(refusal("OperationNotPermitted", Effect::None)));
            }
            done.lock().unwrap().extend(batch);
            ready(Ok(()))
        })
        .await;
        let errors: Vec<String> = errors.iter().map(|error| format!("{error:#}")).collect();
        assert_eq!(
            errors,
            [
                "ending i-7: no (OperationNotPermitted)",
                "ending i-33: no (OperationNotPermitted)"
            ]
        );
        assert_eq!(done.lock().unwrap().len(), 128);
        assert!(*calls.lock().unwrap() < 26);
    }

    #[tokio::test]
    async fn what_is_no_single_ids_fault_is_not_called_again_and_again() {
        for (code, effect) in [
            ("InternalError", Effect::Unknown),
            ("UnauthorizedOperation", Effect::None),
            ("RequestLimitExceeded", Effect::NoneYet),
        ] {
            let calls = Mutex::new(0);
            let errors = in_batches(&Run::unwatched(), "ending", &ids(50), (50, 1), |_| {
                *calls.lock().unwrap() += 1;
                ready(Err(refusal(code, effect)))
            })
            .await;
            assert_eq!(*calls.lock().unwrap(), 1, "{code}");
            assert_eq!(
                format!("{:#}", errors[0]),
                format!("ending {} and 40 more: no ({code})", ids(10).join(", "))
            );
        }
    }

    #[tokio::test]
    async fn after_ctrl_c_nothing_more_is_called() {
        let (events, _) = tokio::sync::mpsc::unbounded_channel();
        let (interrupt, interrupted) = tokio::sync::watch::channel(false);
        let run = Run::new(crate::run::Mode::Apply, events, interrupted);
        let calls = Mutex::new(0);
        let errors = in_batches(&run, "ending", &ids(50), (20, 1), |_| {
            *calls.lock().unwrap() += 1;
            interrupt.send(true).expect("the run listens");
            ready(Ok(()))
        })
        .await;
        assert_eq!(*calls.lock().unwrap(), 1);
        assert!(errors.iter().any(Error::is::<crate::run::Interrupted>));
    }
}
