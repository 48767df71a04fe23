//! `terminate`: what Weka has released goes, what stays is protected again. The last state of a run.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Invocation;
use super::lease::Hold;
use super::payload::{Done, Orders, RunInfo, Scaled, Terminated, VERSION, transient};
use super::ports::{Clock, Cloud, CloudError};
use super::seal::Direction;
use crate::weka::scaling::{AwsCalls, Order, authorise};

/// Members whose protection from scale-in is changed in one call. Source: the Auto Scaling API reference.
const PROTECTED_AT_ONCE: usize = 50;
/// Members that leave the group in one call. Source: the same.
const DETACHED_AT_ONCE: usize = 20;
/// Instances terminated in one call; EC2 takes more, but a refusal of one fails all.
const TERMINATED_AT_ONCE: usize = 50;
/// Kept of the function's time for the lease and the answer.
const LAST_WORDS: SignedDuration = SignedDuration::from_secs(1);

/// Carries out what scale ordered, as far as it still holds. A gated run changes nothing but the lease.
///
/// # Errors
/// AWS's failures at the lease: whether this run still has it is not known, and nothing was done.
pub async fn terminate<C: Cloud, K: Clock>(
    invocation: &Invocation<'_, C, K>,
    scaled: Scaled,
) -> anyhow::Result<Terminated> {
    if scaled.run.lease_lost {
        return Ok(ended(scaled, Done::default(), Vec::new()));
    }
    let cloud = invocation.cloud;
    let hold = scaled.run.hold();
    let mut errors = Vec::new();
    let orders = open(invocation, &scaled).unwrap_or_else(|why| {
        errors.push(why);
        Orders {
            gated: true,
            ..Orders::default()
        }
    });
    if !cloud.write_lease(&hold, &orders.learned).await? {
        errors.push("another run got the lease: nothing is terminated (S3)".to_owned());
        let mut terminated = ended(scaled, Done::default(), errors);
        terminated.run.lease_lost = true;
        return Ok(terminated);
    }
    let mut work = Work {
        cloud,
        clock: invocation.clock,
        last_start: hold.last_start(invocation.deadline),
        done: Done::default(),
        errors,
    };
    if !orders.gated {
        // A call that hangs must not keep the run from saying what it did, nor the lease from the next one.
        let end = invocation.deadline - LAST_WORDS;
        let left = end.duration_since(invocation.clock.now());
        let left = Duration::try_from(left).unwrap_or_default();
        let in_time = tokio::time::timeout(left, work.carry_out(invocation, &orders.order)).await;
        if in_time.is_err() {
            work.errors
                .push("AWS took too long: the rest is left to the next run".to_owned());
        }
    }
    release(cloud, &hold, &mut work.errors).await;
    let Work { done, errors, .. } = work;
    tracing::info!(
        terminated = ?done.terminated,
        detached = ?done.detached,
        protected = done.protected.len(),
        errors = errors.len(),
        "terminated"
    );
    Ok(ended(scaled, done, errors))
}

fn open<C: Cloud, K: Clock>(
    invocation: &Invocation<'_, C, K>,
    scaled: &Scaled,
) -> Result<Orders, String> {
    let sealed = scaled.sealed.as_ref().ok_or("scale has ordered nothing")?;
    invocation
        .open(Direction::ScaleToTerminate, &scaled.run.execution, sealed)
        .map_err(|error| format!("the order from scale: {error} (S16)"))
}

/// The lease expires by itself, so a failure costs the next run and no more.
async fn release<C: Cloud>(cloud: &C, hold: &Hold, errors: &mut Vec<String>) {
    if let Err(error) = cloud.release_lease(hold).await {
        errors.push(format!("releasing the lease: {error}"));
    }
}

fn ended(scaled: Scaled, done: Done, errors: Vec<String>) -> Terminated {
    let before = scaled.run.transient_errors.into_iter().flatten();
    Terminated {
        version: VERSION,
        run: RunInfo {
            transient_errors: transient(before.chain(errors)),
            ..scaled.run
        },
        summary: scaled.summary,
        done,
    }
}

/// Calls to AWS, and what came of them so far.
struct Work<'a, C, K> {
    cloud: &'a C,
    clock: &'a K,
    /// When the last call that changes something may begin.
    last_start: Timestamp,
    done: Done,
    errors: Vec<String>,
}

impl<C: Cloud, K: Clock> Work<'_, C, K> {
    async fn carry_out(&mut self, invocation: &Invocation<'_, C, K>, order: &Order) {
        let fresh = match self.cloud.group().await {
            Ok(fresh) => fresh,
            Err(error) => return self.errors.push(error.to_string()),
        };
        let settings = &invocation.setup.settings;
        let calls = authorise(order, &fresh, self.clock.now(), settings);
        let AwsCalls {
            protect,
            check_termination_protection,
            mark_joined,
            release,
            detach,
            errors,
        } = calls;
        self.errors.extend(errors.iter().map(ToString::to_string));

        let all_protected = self.protect(&protect).await;
        self.protect_from_termination(&check_termination_protection)
            .await;
        self.mark_joined(mark_joined).await;
        if all_protected {
            for batch in release.chunks(TERMINATED_AT_ONCE) {
                self.release(batch).await;
            }
        } else if !release.is_empty() {
            // With one member unprotected, Auto Scaling could end that one in place of one of these (S13).
            self.errors.push(
                "nothing is terminated while a member that stays is not protected (S13)".to_owned(),
            );
        }
        self.detach(&detach).await;
    }

    /// Whether a change may still begin. Says so once where it may not.
    fn has_time(&mut self) -> bool {
        const TOO_LATE: &str = "no time is left: the rest is left to the next run";
        let has_time = self.clock.now() <= self.last_start;
        if !has_time && !self.errors.iter().any(|error| error == TOO_LATE) {
            self.errors.push(TOO_LATE.to_owned());
        }
        has_time
    }

    /// Whether it went well; what did not is an error of the run.
    fn note(&mut self, what: &str, result: &Result<(), CloudError>) -> bool {
        if let Err(error) = result {
            tracing::warn!(%error, "{what}");
            self.errors.push(format!("{what}: {error}"));
        }
        result.is_ok()
    }

    async fn protect(&mut self, ids: &[String]) -> bool {
        let mut all = true;
        for batch in ids.chunks(PROTECTED_AT_ONCE) {
            let protected = self.has_time() && {
                let result = self.cloud.set_scale_in_protection(batch, true).await;
                self.note(
                    &format!("protecting {} from scale-in", list(batch)),
                    &result,
                )
            };
            if protected {
                self.done.protected.extend_from_slice(batch);
            }
            all &= protected;
        }
        all
    }

    async fn protect_from_termination(&mut self, ids: &[String]) {
        let cloud = self.cloud;
        let reads = ids.iter().map(|id| cloud.termination_protection(id));
        let reads = futures::future::join_all(reads).await;
        for (id, read) in ids.iter().zip(reads) {
            let result = match read {
                Ok(true) => continue,
                Ok(false) if !self.has_time() => return,
                Ok(false) => self.cloud.set_termination_protection(id, true).await,
                Err(error) => Err(error),
            };
            if self.note(&format!("protecting {id} from termination"), &result) {
                self.done.termination_protected.push(id.clone());
            }
        }
    }

    async fn mark_joined(&mut self, ids: Vec<String>) {
        if !ids.is_empty() && self.has_time() {
            let result = self.cloud.mark_joined(&ids).await;
            if self.note(&format!("marking {} as joined", list(&ids)), &result) {
                self.done.marked_joined = ids;
            }
        }
    }

    /// Terminates what can be terminated, and protects the others again.
    async fn release(&mut self, ids: &[String]) {
        let mut ready = Vec::new();
        for id in ids {
            if !self.has_time() {
                break;
            }
            let result = self.cloud.set_termination_protection(id, false).await;
            // One that is still protected would fail all that go with it (S15).
            if self.note(
                &format!("lifting the termination protection of {id}"),
                &result,
            ) {
                ready.push(id.clone());
            }
        }
        if ready.is_empty() {
            return;
        }
        let what = format!("lifting the scale-in protection of {}", list(&ready));
        let left = if self.has_time() {
            let lifted = self.cloud.set_scale_in_protection(&ready, false).await;
            if self.note(&what, &lifted) {
                self.end(ready).await
            } else {
                ready
            }
        } else {
            ready
        };
        if !left.is_empty() {
            self.protect(&left).await;
            for id in &left {
                let result = self.cloud.set_termination_protection(id, true).await;
                self.note(&format!("protecting {id} from termination again"), &result);
            }
        }
    }

    /// Orders the termination, and returns those that are not terminated. A batch that is refused is halved until
    /// the culprits stand alone.
    async fn end(&mut self, ids: Vec<String>) -> Vec<String> {
        let mut left = Vec::new();
        let mut batches = vec![ids];
        while let Some(mut batch) = batches.pop() {
            if !self.has_time() {
                left.extend(batch);
                continue;
            }
            match self.cloud.terminate(&batch).await {
                Ok(()) => self.done.terminated.extend(batch),
                Err(error) if error.refused && batch.len() > 1 => {
                    let second = batch.split_off(batch.len() / 2);
                    batches.extend([second, batch]);
                }
                Err(error) => {
                    self.note(&format!("terminating {}", list(&batch)), &Err(error));
                    left.extend(batch);
                }
            }
        }
        left
    }

    async fn detach(&mut self, ids: &[String]) {
        for batch in ids.chunks(DETACHED_AT_ONCE) {
            if !self.has_time() {
                return;
            }
            let result = self.cloud.detach(batch).await;
            if self.note(&format!("detaching {}", list(batch)), &result) {
                self.done.detached.extend_from_slice(batch);
            }
        }
    }
}

/// Some ids, for a message.
fn list(ids: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = ids.iter().take(SHOWN).cloned().collect::<Vec<_>>();
    match ids.len().checked_sub(SHOWN) {
        None | Some(0) => shown.join(", "),
        Some(more) => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fakes::{EXECUTION, World, id};
    use super::super::lease::{Learned, Lease};
    use super::super::seal::Parties;
    use super::*;
    use crate::weka::scaling::{Ec2State, Kill, Reason};

    /// What scale hands over when it orders this.
    async fn ordered(world: &World, order: Order) -> Scaled {
        sealed(
            world,
            &Orders {
                gated: false,
                order,
                learned: Learned {
                    guid: Some("guid-1".into()),
                    previous_desired: Some(6),
                    refused_login: None,
                },
            },
        )
        .await
    }

    async fn sealed(world: &World, orders: &Orders) -> Scaled {
        let fetched = world.fetch().await.unwrap();
        let mut scaled = Scaled::new(fetched.run);
        let parties = Parties {
            cluster: "prod",
            execution: EXECUTION,
            direction: Direction::ScaleToTerminate,
        };
        let sealed = world.setup.keys.seal(parties, world.clock.now(), orders);
        scaled.sealed = Some(sealed.unwrap());
        scaled
    }

    fn kills(world: &World, numbers: impl IntoIterator<Item = u32>) -> Order {
        let group = world.cloud.group.lock().unwrap();
        let kills = numbers.into_iter().map(|number| {
            let instance = &group.instances[number as usize];
            Kill {
                id: instance.id.clone(),
                group: group.name.clone(),
                private_ip: instance.private_ip.clone(),
                launched: instance.launched,
                reason: Reason::Removed,
                needs: Vec::new(),
            }
        });
        Order {
            terminate: kills.collect(),
            ..Order::default()
        }
    }

    async fn run(world: &World, scaled: Scaled) -> Terminated {
        terminate(&world.invocation(12), scaled).await.unwrap()
    }

    fn lease(world: &World) -> (Hold, Lease) {
        world.cloud.lease.lock().unwrap().clone().unwrap()
    }

    fn ids(numbers: std::ops::Range<u32>) -> String {
        numbers.map(id).collect::<Vec<_>>().join(",")
    }

    #[tokio::test]
    async fn what_stays_is_protected_before_what_goes_is_released() {
        let mut world = World::of(8);
        {
            let mut group = world.cloud.group.lock().unwrap();
            group.instances[1].protected = false;
            group.instances[2].joined = false;
            group.instances[7].ec2 = Ec2State::Terminated;
            group.instances[7].healthy = false;
        }
        world.cloud.unprotected.insert(id(3));
        let mut order = kills(&world, [0]);
        order.active = vec![id(2), id(3)];
        order.detach = vec![id(7)];
        let scaled = ordered(&world, order).await;
        let terminated = run(&world, scaled).await;
        let calls = [
            format!("protect {}", id(1)),
            format!("lock {}", id(3)),
            format!("mark {}", id(2)),
            format!("unlock {}", id(0)),
            format!("unprotect {}", id(0)),
            format!("terminate {}", id(0)),
            format!("detach {}", id(7)),
        ];
        assert_eq!(world.cloud.calls(), calls);
        assert_eq!(terminated.run.transient_errors, None);
        let done = Done {
            protected: vec![id(1)],
            termination_protected: vec![id(3)],
            marked_joined: vec![id(2)],
            terminated: vec![id(0)],
            detached: vec![id(7)],
        };
        assert_eq!(terminated.done, done);
        let (hold, left) = lease(&world);
        assert_eq!(hold.expires, Timestamp::UNIX_EPOCH);
        assert_eq!(left.guid.as_deref(), Some("guid-1"));
        assert_eq!(left.previous_desired, Some(6));
    }

    #[tokio::test]
    async fn batches_are_as_large_as_aws_takes() {
        let world = World::of(150);
        {
            let mut group = world.cloud.group.lock().unwrap();
            for member in &mut group.instances[60..] {
                member.protected = false;
            }
            for gone in &mut group.instances[..45] {
                gone.ec2 = Ec2State::Absent;
                gone.healthy = false;
            }
        }
        let order = Order {
            detach: (0..45).map(id).collect(),
            ..Order::default()
        };
        let scaled = ordered(&world, order).await;
        let terminated = run(&world, scaled).await;
        assert_eq!(terminated.run.transient_errors, None);
        let calls = [
            format!("protect {}", ids(60..110)),
            format!("protect {}", ids(110..150)),
            format!("detach {}", ids(0..20)),
            format!("detach {}", ids(20..40)),
            format!("detach {}", ids(40..45)),
        ];
        assert_eq!(world.cloud.calls(), calls);
    }

    #[tokio::test]
    async fn one_whose_protection_stays_leaves_the_batch() {
        let mut world = World::of(9);
        world.cloud.refused.insert(format!("unlock {}", id(1)));
        let scaled = ordered(&world, kills(&world, 0..3)).await;
        let terminated = run(&world, scaled).await;
        assert_eq!(terminated.done.terminated, [id(0), id(2)]);
        let errors = terminated.run.transient_errors.unwrap();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains(&id(1)));
    }

    #[tokio::test]
    async fn one_that_aws_will_not_end_does_not_hold_up_the_others_and_is_protected_again() {
        let mut world = World::of(12);
        world.cloud.refused.insert(format!("terminate {}", id(2)));
        let scaled = ordered(&world, kills(&world, 0..4)).await;
        let terminated = run(&world, scaled).await;
        assert_eq!(terminated.done.terminated, [id(0), id(1), id(3)]);
        let tried = world.cloud.calls();
        let tried: Vec<_> = tried
            .iter()
            .filter(|call| call.starts_with("terminate"))
            .collect();
        assert_eq!(tried.len(), 5, "{tried:?}");
        let calls = world.cloud.calls();
        let again = [format!("protect {}", id(2)), format!("lock {}", id(2))];
        assert_eq!(calls[calls.len() - 2..], again);
        assert_eq!(terminated.run.transient_errors.map(|it| it.len()), Some(1));
    }

    #[tokio::test]
    async fn without_an_answer_nothing_is_tried_in_parts() {
        let mut world = World::of(9);
        world.cloud.unanswered.insert("terminate".into());
        let scaled = ordered(&world, kills(&world, 0..3)).await;
        let terminated = run(&world, scaled).await;
        let calls = world.cloud.calls();
        let tried = calls.iter().filter(|call| call.starts_with("terminate"));
        assert_eq!(tried.count(), 1);
        assert_eq!(terminated.done.terminated, [""; 0]);
        assert!(terminated.run.transient_errors.is_some());
    }

    #[tokio::test]
    async fn while_one_that_stays_is_not_protected_nothing_goes() {
        let mut world = World::of(9);
        world.cloud.group.lock().unwrap().instances[5].protected = false;
        world.cloud.refused.insert("protect".into());
        let scaled = ordered(&world, kills(&world, [0])).await;
        let terminated = run(&world, scaled).await;
        assert_eq!(world.cloud.calls(), [format!("protect {}", id(5))]);
        let errors = terminated.run.transient_errors.unwrap();
        assert!(errors.iter().any(|it| it.contains("S13")), "{errors:?}");
    }

    #[tokio::test]
    async fn a_gated_run_writes_the_lease_and_nothing_else() {
        let world = World::of(6);
        world.cloud.group.lock().unwrap().instances[5].protected = false;
        let orders = Orders {
            gated: true,
            order: kills(&world, [0]),
            learned: Learned {
                previous_desired: Some(4),
                ..Learned::default()
            },
        };
        let scaled = sealed(&world, &orders).await;
        run(&world, scaled).await;
        assert_eq!(world.cloud.calls(), [""; 0]);
        let (hold, left) = lease(&world);
        assert_eq!(hold.expires, Timestamp::UNIX_EPOCH);
        assert_eq!(left.previous_desired, Some(4));
    }

    #[tokio::test]
    async fn an_order_that_does_not_open_is_none() {
        let world = World::of(6);
        let scaled = ordered(&world, kills(&world, [0])).await;
        world.clock.advance(61);
        let terminated = run(&world, scaled).await;
        assert_eq!(world.cloud.calls(), [""; 0]);
        assert!(terminated.run.transient_errors.unwrap()[0].contains("S16"));
        assert_eq!(lease(&world).0.expires, Timestamp::UNIX_EPOCH);
    }

    #[tokio::test]
    async fn without_the_lease_nothing_is_done() {
        let world = World::of(6);
        let scaled = ordered(&world, kills(&world, [0])).await;
        let mut lost = scaled.clone();
        lost.run.lease_lost = true;
        lost.sealed = None;
        let terminated = run(&world, lost).await;
        assert!(terminated.run.lease_lost);
        assert_eq!(terminated.run.transient_errors, None);

        let other = Hold::from("arn:other", world.clock.now());
        *world.cloud.lease.lock().unwrap() = Some((other.clone(), Lease::default()));
        let terminated = run(&world, scaled).await;
        assert!(terminated.run.lease_lost);
        assert!(terminated.run.transient_errors.unwrap()[0].contains("S3"));
        assert_eq!(lease(&world), (other, Lease::default()));
        assert_eq!(world.cloud.calls(), [""; 0]);
    }

    #[tokio::test]
    async fn nothing_begins_shortly_before_the_lease_or_the_function_ends() {
        for (seconds, left) in [(0, 1), (64, 12)] {
            let world = World::of(9);
            world.cloud.group.lock().unwrap().instances[5].protected = false;
            let mut scaled = ordered(&world, kills(&world, [0])).await;
            world.clock.advance(seconds);
            // Sealed just now: it is the lease alone that is old.
            let orders = Orders {
                order: kills(&world, [0]),
                ..Orders::default()
            };
            let lease_expires = scaled.run.lease_expires;
            let held = lease(&world);
            scaled = sealed(&world, &orders).await;
            scaled.run.lease_expires = lease_expires;
            *world.cloud.lease.lock().unwrap() = Some(held);
            let invocation = world.invocation(left);
            let terminated = terminate(&invocation, scaled).await.unwrap();
            assert_eq!(world.cloud.calls(), [""; 0]);
            assert!(terminated.run.transient_errors.is_some());
        }
    }

    #[tokio::test]
    async fn errors_of_scale_are_told_too() {
        let world = World::of(6);
        let mut scaled = ordered(&world, Order::default()).await;
        scaled.run.transient_errors = transient(["Weka refused".to_owned()]);
        let terminated = run(&world, scaled).await;
        assert_eq!(
            terminated.run.transient_errors,
            Some(vec!["Weka refused".into()])
        );
    }
}
