//! Random histories of a cluster and its group, with the functions' own code over a model of Weka, AWS and the time.
//! Whatever happens, no data is lost by our doing, and once nothing more happens the cluster follows its group.
//!
//! After every call and every minute these have to hold, judged by what is true and not by what was read:
//!
//! 1. Nothing that holds a block of data which is nowhere else is removed or terminated.
//! 2. As long as no more than two machines failed at once, every stripe can be read; and no call of ours makes any
//!    block unreadable, ever.
//! 3. Only members are terminated, the very ones that were decided on, with nothing of them at work in the cluster.
//! 4. At most two machines leave for their health, leftovers included.
//! 5. After a deactivation for size enough members are up, and no fewer stay than the run's target.
//! 6. Behind a closed gate nothing is changed.
//! 7. Every change of Weka is made once in a run, on lists under 20 seconds old.
//! 8. Changes of two runs do not interleave.
//! 9. Auto Scaling ends nobody that holds data, and after a good run every member is protected.
//! 10. No call names a client's container.
//! 11. One run terminates at most fifty instances that it knows, and two that Weka does not know.
//! 12. (The order of lists makes no difference: tested with the decision.)
//! 13. Nothing under ten minutes old is removed or terminated.
//! 14. At most one leader drains for size.
//! 18. Once nothing more happens, and the target is feasible, the group, its members and the target agree, nothing
//!     drains or is left over, and runs are green.
//!
//! (15 to 17 are tested with the real executable.)
//!
//! `WEKACTL_HISTORIES=10000 cargo test histories` makes more of them. A failure prints its seed;
//! `WEKACTL_HISTORY=<seed> cargo test histories` plays that one again and makes it shorter.

mod account;
mod events;
mod run;
mod trouble;
mod world;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use wekactl::functions::Setup;
use wekactl::functions::seal::SealKeys;
use wekactl::weka::scaling::{Ec2State, Settings};

use crate::support::weka::{Layout, State};
use events::{ForRuns, Step, all_ends};
use run::{Ended, run};
use world::World;

/// How many histories are tried where nobody says otherwise.
const HISTORIES: u64 = 200;
/// Machines at the beginning of every history.
const SIZE: u32 = 7;
const MINUTE: Duration = Duration::from_secs(60);
/// How long a cluster may take to follow its group: the longest rules are two and three hours.
const PATIENCE: u32 = 12 * 60;
/// Green runs in a row that are an end.
const GREEN: u32 = 3;

#[test]
fn no_history_loses_data_and_every_one_comes_to_rest() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect("a number"))
    };
    let seeds = match number("WEKACTL_HISTORY") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WEKACTL_HISTORIES").unwrap_or(HISTORIES),
    };
    for seed in seeds {
        if let Err(failure) = try_history(seed) {
            panic!("history {seed} (WEKACTL_HISTORY={seed} plays it again): {failure}");
        }
    }
}

/// One random history; a failing one is made as short as can be.
fn try_history(seed: u64) -> Result<(), String> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config {
        cases: 1,
        failure_persistence: None,
        max_shrink_iters: 400,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let tried = runner.run(&events::history(), |history| {
        play(&history).map_err(|violations| TestCaseError::fail(violations.join("\n")))
    });
    tried.map_err(|error| match error {
        TestError::Fail(reason, history) => format!("{reason}\nafter {history:#?}"),
        abort @ TestError::Abort(_) => abort.to_string(),
    })
}

fn play(history: &[Step]) -> Result<(), Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut play = Play::new();
        for step in history {
            play.step(step).await?;
        }
        play.come_to_rest().await
    })
}

/// A history that goes on.
struct Play {
    world: Arc<Mutex<World>>,
    setup: Arc<Setup>,
    runs: u64,
}

impl Play {
    fn new() -> Self {
        let layout = Layout {
            data: 3,
            protection: 2,
            hot_spare: 1,
            ..Layout::default()
        };
        let mut world = World::new(SIZE, layout);
        world
            .weka
            .api
            .set_user(account::USER, account::PASSWORD, "ClusterAdmin");
        Self {
            world: Arc::new(Mutex::new(world)),
            setup: Arc::new(Setup {
                cluster: "prod".to_owned(),
                group: account::GROUP.to_owned(),
                keys: SealKeys::read(&"0:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".into())
                    .expect("a key"),
                use_dynamodb_endpoint: false,
                settings: Settings::default(),
            }),
            runs: 0,
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.world.lock().expect("no call panics"))
    }

    async fn step(&mut self, step: &Step) -> Result<(), Vec<String>> {
        self.minute(Some(step), ForRuns::default()).await?;
        for _ in 1..step.minutes {
            self.minute(None, ForRuns::default()).await?;
        }
        Ok(())
    }

    /// A minute with its run, and what happens in the midst of it.
    async fn minute(
        &mut self,
        step: Option<&Step>,
        mut for_runs: ForRuns,
    ) -> Result<Ended, Vec<String>> {
        let end = tokio::time::Instant::now() + MINUTE;
        self.with(World::minute);
        if let Some(step) = step.filter(|step| step.seconds == 0 || is_for_runs(step)) {
            for_runs = self.with(|world| step.event.happens(world));
        }
        for _ in 0..for_runs.missed {
            tokio::time::sleep(MINUTE).await;
            self.with(World::minute);
        }
        let end = end.max(tokio::time::Instant::now() + MINUTE);
        let first = tokio::spawn(self.run(for_runs));
        let second = for_runs
            .is_twice
            .then(|| tokio::spawn(self.run(ForRuns::default())));
        if let Some(step) = step.filter(|step| step.seconds > 0 && !is_for_runs(step)) {
            tokio::time::sleep(Duration::from_secs(step.seconds.into())).await;
            self.with(|world| step.event.happens(world));
        }
        let ended = first.await.expect("no run panics");
        if let Some(second) = second {
            second.await.expect("no run panics");
        }
        tokio::time::sleep_until(end).await;
        if ended == Ended::Well {
            self.with(World::check_protection);
        }
        let violations = self.with(|world| std::mem::take(&mut world.violations));
        if violations.is_empty() {
            Ok(ended)
        } else {
            Err(violations)
        }
    }

    fn run(&mut self, for_runs: ForRuns) -> impl Future<Output = Ended> + use<> {
        self.runs += 1;
        run(
            Arc::clone(&self.world),
            Arc::clone(&self.setup),
            self.runs,
            for_runs.dies,
        )
    }

    /// 18
    async fn come_to_rest(&mut self) -> Result<(), Vec<String>> {
        self.with(|world| {
            all_ends(world);
            world.account.desired = world.account.desired.clamp(SIZE, 10);
        });
        let (mut green, mut latest) = (0, Ended::Well);
        for minute in 0..PATIENCE {
            // Runs are missed without harm, and most of the time there is nothing to do.
            let missed = if minute % 30 < 10 { 0 } else { 4 };
            latest = self
                .minute(
                    None,
                    ForRuns {
                        missed,
                        ..ForRuns::default()
                    },
                )
                .await?;
            let is_calm = latest == Ended::Well && self.with(|world| unrest(world).is_empty());
            green = if is_calm { green + 1 } else { 0 };
            if green == GREEN {
                return Ok(());
            }
            if !self.with(|world| world.weka.is_tolerable()) {
                // With data lost there may be no way to rest. That nothing was made worse was checked.
                return Ok(());
            }
        }
        let unrest = self.with(|world| unrest(world));
        Err(vec![format!(
            "invariant 18: no rest: {unrest:?}, the last run: {latest:?}"
        )])
    }
}

/// What keeps a history from its end.
fn unrest(world: &World) -> Vec<String> {
    let mut unrest = Vec::new();
    let members = world.account.members();
    if members.len() != world.account.desired as usize {
        unrest.push(format!(
            "{} members, the target is {}",
            members.len(),
            world.account.desired
        ));
    }
    for id in &members {
        let state = world.account.machines[id].state;
        let hosts = world.weka.own_containers(id);
        let is_active = |host: &u32| world.weka.containers[host].state == State::Active;
        if state != Ec2State::Running || hosts.is_empty() || !hosts.iter().all(is_active) {
            unrest.push(format!("{id} is {state:?} with containers {hosts:?}"));
        }
    }
    for (host, container) in &world.weka.containers {
        if container.is_backend() && !members.contains(&container.instance_id) {
            unrest.push(format!(
                "HostId<{host}> of {} is left over",
                container.instance_id
            ));
        }
    }
    unrest
}

/// Whether it has to be known before the run begins.
fn is_for_runs(step: &Step) -> bool {
    matches!(
        step.event,
        events::Event::Dies(..) | events::Event::Twice | events::Event::MissedTicks(_)
    )
}
