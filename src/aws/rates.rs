//! AWS's request rates, kept from here: who calls at the rate that AWS grants is not throttled, and leaves something
//! to whoever else calls in the account. Only for calls of which a large cluster needs many, one for each machine.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::run::{Interrupted, Run};

/// By how much AWS has raised the account's rates.
const VARIABLE: &str = "WEKACTL_EC2_RATES";
/// How much of a full bucket is used: the rest is for others, for the command that follows at once, and for calls that
/// arrive closer together than they were sent.
const USED: f64 = 0.5;

/// A call that is made for every machine of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the variants are EC2's own operations")]
pub enum Metered {
    DescribeInstanceAttribute,
    ModifyInstanceAttribute,
    ModifyNetworkInterfaceAttribute,
    CreateTags,
    DeleteTags,
    TerminateInstances,
}

/// What a bucket counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Unit {
    Calls,
    Instances,
}

impl Metered {
    /// How many at once, and how many a second after that; each operation has a bucket of its own for its calls, and
    /// one that terminates another for the instances in them.
    /// Source: EC2 developer guide, "Request throttling for the Amazon EC2 API".
    fn rates(self) -> &'static [(Unit, f64, f64)] {
        match self {
            Self::DescribeInstanceAttribute => &[(Unit::Calls, 100.0, 20.0)],
            Self::ModifyInstanceAttribute => &[(Unit::Calls, 50.0, 5.0)],
            Self::ModifyNetworkInterfaceAttribute => &[(Unit::Calls, 100.0, 5.0)],
            Self::CreateTags | Self::DeleteTags => &[(Unit::Calls, 100.0, 10.0)],
            Self::TerminateInstances => {
                &[(Unit::Calls, 100.0, 5.0), (Unit::Instances, 1000.0, 20.0)]
            }
        }
    }
}

/// The variable with the rates has no number in it.
#[derive(Debug, thiserror::Error)]
#[error(
    "{VARIABLE}={0:?}: a number is wanted, by which AWS has multiplied EC2's default request rates for the account; \
     without the variable the default rates are kept"
)]
pub struct BadRates(String);

/// What has been taken from the buckets so far.
pub(super) struct Rates {
    factor: f64,
    /// When each bucket is full again.
    full: Mutex<HashMap<(Metered, Unit), Instant>>,
}

impl Rates {
    /// AWS's default rates, or those of the variable.
    pub(super) fn of_environment() -> Result<Self, BadRates> {
        match std::env::var_os(VARIABLE) {
            Some(factor) if !factor.is_empty() => Self::parse(&factor.to_string_lossy()),
            _ => Ok(Self::times(1.0)),
        }
    }

    fn parse(factor: &str) -> Result<Self, BadRates> {
        let number = factor.parse().ok();
        let number = number.filter(|number| (0.01..=1000.0).contains(number));
        number
            .map(Self::times)
            .ok_or_else(|| BadRates(factor.to_owned()))
    }

    fn times(factor: f64) -> Self {
        Self {
            factor,
            full: Mutex::default(),
        }
    }

    /// Waits until a call for so many instances may be made. They come in the order in which they asked.
    pub(super) async fn pass(
        &self,
        run: &Run,
        call: Metered,
        count: usize,
    ) -> Result<(), Interrupted> {
        let (pause, a_second) = self.take(call, count, Instant::now());
        if pause.is_zero() {
            return Ok(());
        }
        let state = format!("{call:?} is kept to {a_second} a second");
        run.waiting("EC2's request rate", &state);
        run.pause(pause).await
    }

    /// How long to wait for what is taken here, and for which rate.
    fn take(&self, call: Metered, count: usize, now: Instant) -> (Duration, f64) {
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        let pauses = call.rates().iter().map(|(unit, burst, a_second)| {
            let (burst, a_second) = (burst * self.factor, a_second * self.factor);
            let taken = match unit {
                Unit::Calls => 1.0,
                Unit::Instances => count as f64,
            };
            let each = Duration::from_secs_f64(1.0 / a_second);
            let full = full.entry((call, *unit)).or_insert(now);
            *full = (*full).max(now) + each.mul_f64(taken);
            let whole = each.mul_f64(burst * USED);
            (full.duration_since(now).saturating_sub(whole), a_second)
        });
        pauses.fold((Duration::ZERO, 0.0), |longest, pause| {
            match pause.0 > longest.0 {
                true => pause,
                false => longest,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_small_cluster_needs_does_not_wait_and_a_large_one_keeps_the_rate() {
        let rates = Rates::times(1.0);
        let (call, begin) = (Metered::ModifyInstanceAttribute, Instant::now());
        let pauses: Vec<Duration> = (0..140).map(|_| rates.take(call, 1, begin).0).collect();
        assert_eq!(pauses[24], Duration::ZERO);
        assert_eq!(pauses[25], Duration::from_millis(200));
        assert_eq!(pauses[124], Duration::from_secs(20));
        // Another operation has another bucket.
        let (other, _) = rates.take(Metered::CreateTags, 1, begin);
        assert_eq!(other, Duration::ZERO);
        // The bucket fills again, and never more than that.
        let later = begin + Duration::from_secs(1000);
        let pauses: Vec<Duration> = (0..26).map(|_| rates.take(call, 1, later).0).collect();
        assert_eq!(pauses[24], Duration::ZERO);
        assert_eq!(pauses[25], Duration::from_millis(200));
    }

    #[test]
    fn several_count_as_many_and_a_raised_rate_is_used() {
        let rates = Rates::parse("2.5").unwrap();
        let begin = Instant::now();
        let call = Metered::TerminateInstances;
        assert_eq!(rates.take(call, 1250, begin).0, Duration::ZERO);
        let second = Duration::from_secs(1);
        assert_eq!(rates.take(call, 50, begin), (second, 50.0));
    }

    #[test]
    fn instances_that_are_terminated_one_by_one_are_kept_to_the_rate_of_calls() {
        let (rates, begin) = (Rates::times(1.0), Instant::now());
        let take = || rates.take(Metered::TerminateInstances, 1, begin);
        let at_once = (0..50).map(|_| take().0).max();
        assert_eq!(at_once, Some(Duration::ZERO));
        assert_eq!(take(), (Duration::from_millis(200), 5.0));
    }

    #[test]
    fn rates_that_are_none_are_refused() {
        for factor in ["fast", "0", "-1", "NaN", "inf", "1e9", "1 "] {
            let error = Rates::parse(factor).err().expect(factor).to_string();
            assert!(error.contains("WEKACTL_EC2_RATES"), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ctrl_c_ends_the_wait() {
        let (events, _) = tokio::sync::mpsc::unbounded_channel();
        let (interrupt, interrupted) = tokio::sync::watch::channel(false);
        let run = Run::new(crate::run::Mode::Apply, events, interrupted);
        let rates = Rates::times(1.0);
        for _ in 0..1000 {
            rates.take(Metered::CreateTags, 1, Instant::now());
        }
        let begin = Instant::now();
        let (passed, ()) = tokio::join!(rates.pass(&run, Metered::CreateTags, 1), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            interrupt.send(true).expect("the run listens");
        });
        passed.expect_err("it is interrupted");
        assert_eq!(begin.elapsed(), Duration::from_secs(1));
    }
}
