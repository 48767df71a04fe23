//! What befalls a cluster in a history.

use std::time::Duration;

use jiff::SignedDuration;
use proptest::prelude::*;
use wekactl::weka::scaling::Ec2State;

use super::run::Dies;
use super::trouble::Trouble;
use super::world::{Join, World};
use crate::support::weka::{Action, DownContainers, Fault, JoinStep, State};

/// Something that happens, and how many minutes pass after it. Machines are given as a place among the members.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) event: Event,
    pub(crate) minutes: u8,
    /// Into the minute after it in which it happens: a run is under way then.
    pub(crate) seconds: u8,
}

#[derive(Debug, Clone)]
pub(crate) enum Event {
    Nothing,
    // Size.
    Target(u32),
    // Instances and group.
    Kill(usize),
    Stop(usize),
    Reboot(usize),
    Purge(usize),
    ConsoleTerminate(usize),
    Detach(usize),
    Standby(usize),
    EndStandby,
    Resume(&'static str),
    // Weka.
    DriveInactive(usize),
    DriveFailed(usize),
    DriveStuck(usize),
    DeactivateDrive(usize),
    DeactivateContainer(usize, usize),
    ManagementDown(usize, u32),
    ManagementUp(usize),
    ComeBack(usize),
    RebuildStuck,
    Fill(f64),
    LeaderMoves,
    Upgrade,
    IoStops,
    Override(bool),
    EndGates,
    DownContainersGoBack,
    RemovalsFail,
    // Identity and reads.
    ClientAt(usize),
    ReuseAddresses,
    ReuseHostIds,
    UnknownWord(usize),
    ModeMissing(usize),
    NullTimes(usize),
    Skew(i64),
    Stem(usize),
    ShortList(usize),
    EmptyList,
    ForeignList,
    FailingList,
    NewVersion,
    // Calls and runs.
    WekaCall(&'static str, WekaTrouble, usize),
    AwsCall(usize, AwsTrouble),
    Dies(u8, usize, bool),
    Twice,
    MissedTicks(u32),
    ChangePassword,
    // Joins.
    JoinFails(u8, bool),
    JoinSlow(u32),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum WekaTrouble {
    Refused,
    Slow(u64),
    Unanswered,
    Lost,
    Busy,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum AwsTrouble {
    Refused,
    Unanswered,
    Slow(u64),
}

/// What an event asks of the runs that follow, besides what it does to the world.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct ForRuns {
    pub(crate) dies: Option<Dies>,
    pub(crate) is_twice: bool,
    pub(crate) missed: u32,
}

const MUTATIONS: [&str; 4] = [
    "cluster_deactivate_drives",
    "cluster_deactivate_hosts",
    "cluster_remove_host",
    "cluster_remove_drives",
];

/// Any history.
pub(crate) fn history() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 1..16)
}

fn step() -> impl Strategy<Value = Step> {
    (event(), prop_oneof![4 => 1_u8..4, 1 => 4_u8..20], 0_u8..40).prop_map(
        |(event, minutes, seconds)| Step {
            event,
            minutes,
            seconds,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let at = 0_usize..12;
    prop_oneof![
        6 => (0_u32..12).prop_map(Event::Target),
        6 => sizes_and_instances(at.clone()),
        6 => weka(at.clone()),
        4 => reads(at),
        6 => calls(),
        2 => joins(),
        2 => Just(Event::Nothing),
    ]
}

fn sizes_and_instances(at: std::ops::Range<usize>) -> impl Strategy<Value = Event> {
    let process = prop_oneof![
        Just("AZRebalance"),
        Just("InstanceRefresh"),
        Just("ReplaceUnhealthy"),
        Just("Terminate")
    ];
    prop_oneof![
        at.clone().prop_map(Event::Kill),
        at.clone().prop_map(Event::Stop),
        at.clone().prop_map(Event::Reboot),
        at.clone().prop_map(Event::Purge),
        at.clone().prop_map(Event::ConsoleTerminate),
        at.clone().prop_map(Event::Detach),
        at.prop_map(Event::Standby),
        Just(Event::EndStandby),
        process.prop_map(Event::Resume),
    ]
}

fn weka(at: std::ops::Range<usize>) -> impl Strategy<Value = Event> {
    let since = prop_oneof![Just(10_u32), Just(119), Just(121), Just(179), Just(181)];
    prop_oneof![
        at.clone().prop_map(Event::DriveInactive),
        at.clone().prop_map(Event::DriveFailed),
        at.clone().prop_map(Event::DriveStuck),
        at.clone().prop_map(Event::DeactivateDrive),
        (at.clone(), 0_usize..3)
            .prop_map(|(machine, part)| Event::DeactivateContainer(machine, part)),
        (at.clone(), since).prop_map(|(machine, since)| Event::ManagementDown(machine, since)),
        at.clone().prop_map(Event::ManagementUp),
        at.prop_map(Event::ComeBack),
        Just(Event::RebuildStuck),
        (0.3_f64..0.95).prop_map(Event::Fill),
        Just(Event::LeaderMoves),
        Just(Event::Upgrade),
        Just(Event::IoStops),
        any::<bool>().prop_map(Event::Override),
        Just(Event::EndGates),
        Just(Event::EndGates),
        Just(Event::DownContainersGoBack),
        Just(Event::RemovalsFail),
    ]
}

fn reads(at: std::ops::Range<usize>) -> impl Strategy<Value = Event> {
    let skew = prop_oneof![Just(-7200_i64), Just(-61), Just(59), Just(7200)];
    prop_oneof![
        at.clone().prop_map(Event::ClientAt),
        Just(Event::ReuseAddresses),
        Just(Event::ReuseHostIds),
        at.clone().prop_map(Event::UnknownWord),
        at.clone().prop_map(Event::ModeMissing),
        at.clone().prop_map(Event::NullTimes),
        skew.prop_map(Event::Skew),
        at.clone().prop_map(Event::Stem),
        at.prop_map(Event::ShortList),
        Just(Event::EmptyList),
        Just(Event::ForeignList),
        Just(Event::FailingList),
        Just(Event::NewVersion),
    ]
}

fn calls() -> impl Strategy<Value = Event> {
    let method = prop_oneof![
        Just("*"),
        proptest::sample::select(MUTATIONS.to_vec()),
        Just("hosts_list"),
        Just("status"),
    ];
    let weka = prop_oneof![
        Just(WekaTrouble::Refused),
        (1_u64..40).prop_map(WekaTrouble::Slow),
        Just(WekaTrouble::Unanswered),
        Just(WekaTrouble::Lost),
        Just(WekaTrouble::Busy),
    ];
    let aws = prop_oneof![
        Just(AwsTrouble::Refused),
        Just(AwsTrouble::Unanswered),
        (1_u64..40).prop_map(AwsTrouble::Slow),
    ];
    prop_oneof![
        2 => (method, weka, 0_usize..6).prop_map(|(method, trouble, after)| Event::WekaCall(method, trouble, after)),
        2 => (0_usize..30, aws).prop_map(|(after, trouble)| Event::AwsCall(after, trouble)),
        3 => (0_u8..3, 0_usize..24, any::<bool>()).prop_map(|(function, call, after)| Event::Dies(function, call, after)),
        1 => Just(Event::Twice),
        2 => (5_u32..200).prop_map(Event::MissedTicks),
        1 => Just(Event::ChangePassword),
    ]
}

fn joins() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_u8..5, prop::bool::weighted(0.8))
            .prop_map(|(step, undoes)| Event::JoinFails(step, undoes)),
        prop_oneof![Just(24_u32), Just(29), Just(31)].prop_map(Event::JoinSlow),
    ]
}

impl Event {
    /// Lets it happen.
    pub(crate) fn happens(&self, world: &mut World) -> ForRuns {
        world.synchronise();
        let mut for_runs = ForRuns::default();
        match self {
            Self::Nothing => {}
            Self::Target(target) => world.account.desired = *target,
            Self::Dies(function, call, after) => {
                for_runs.dies = Some(Dies {
                    function: *function,
                    call: *call,
                    after: *after,
                });
            }
            Self::Twice => for_runs.is_twice = true,
            Self::MissedTicks(minutes) => for_runs.missed = *minutes,
            Self::ChangePassword => change_password(world),
            Self::AwsCall(after, trouble) => world.trouble_ahead(*after, aws_trouble(*trouble)),
            Self::JoinFails(step, undoes) => fail_next_join(world, *step, *undoes),
            Self::JoinSlow(minutes) => slow_next_join(world, *minutes),
            Self::EndStandby => end_standby(world),
            Self::Resume(process) => world.account.suspended.retain(|each| each != process),
            Self::Kill(at)
            | Self::Stop(at)
            | Self::Reboot(at)
            | Self::Purge(at)
            | Self::ConsoleTerminate(at)
            | Self::Detach(at)
            | Self::Standby(at)
            | Self::ComeBack(at) => {
                if let Some(id) = member(world, *at) {
                    self.happens_to_instance(world, &id);
                }
            }
            Self::DriveInactive(at)
            | Self::DriveFailed(at)
            | Self::DriveStuck(at)
            | Self::DeactivateDrive(at)
            | Self::DeactivateContainer(at, _)
            | Self::ManagementDown(at, _)
            | Self::ManagementUp(at)
            | Self::UnknownWord(at)
            | Self::ModeMissing(at)
            | Self::NullTimes(at) => {
                if let Some(id) = backend(world, *at) {
                    self.happens_to_backend(world, &id);
                }
            }
            _ => self.happens_to_cluster(world),
        }
        for_runs
    }

    fn happens_to_instance(&self, world: &mut World, id: &str) {
        match self {
            Self::Kill(_) => world.weka.kill(id),
            Self::Stop(_) => world.stop(id),
            // EC2 refuses to reboot what does not run.
            Self::Reboot(_) if world.account.machines[id].state == Ec2State::Running => {
                world.weka.reboot(id);
            }
            Self::ComeBack(_) => world.start(id),
            Self::ConsoleTerminate(_) => world.end(id),
            Self::Purge(_) => {
                world.end(id);
                world.account.machine_mut(id).state = Ec2State::Absent;
            }
            Self::Detach(_) => {
                world.account.machine_mut(id).member = None;
                world.account.desired = world.account.desired.saturating_sub(1);
            }
            Self::Standby(_) => {
                if let Some(member) = &mut world.account.machine_mut(id).member {
                    member.lifecycle = "Standby";
                    world.account.desired = world.account.desired.saturating_sub(1);
                }
            }
            _ => {}
        }
    }

    fn happens_to_backend(&self, world: &mut World, id: &str) {
        let now = world.weka.now;
        let hosts = world.weka.own_containers(id);
        let host = hosts[0];
        let disk = world.weka.disks_of(id).first().copied();
        match (self, disk) {
            (Self::DriveInactive(_), Some(disk)) => world.weka.drive_inactive(disk),
            (Self::DriveFailed(_), Some(disk)) => world.weka.drive_failed(disk),
            // By hand: what the cluster refuses does not happen.
            (Self::DriveStuck(_), Some(disk)) => world.weka.drive_stuck(disk).unwrap_or(()),
            (Self::DeactivateDrive(_), Some(disk)) => {
                world.weka.deactivate_drives(&[disk]).unwrap_or(());
            }
            (Self::DeactivateContainer(_, part), _) => {
                let host = hosts[part % hosts.len()];
                world.weka.deactivate_hosts(&[host]).unwrap_or(());
            }
            (Self::ManagementDown(_, minutes), _) => {
                let since = now - Duration::from_secs(u64::from(*minutes) * 60);
                world.weka.management_down(host, since);
                world.weka.container_mut(host).state_changed_time = Some(since);
                let process = world.weka.management_mut(host);
                process.up_since = process.up_since.map(|up| up.min(since));
            }
            (Self::ManagementUp(_), _) => world.weka.management_up(host),
            (Self::UnknownWord(_), _) => {
                world.weka.container_mut(host).odd_status = Some("PONDERING".to_owned());
            }
            (Self::ModeMissing(_), _) => world.weka.container_mut(host).mode = None,
            (Self::NullTimes(_), _) => {
                world.weka.container_mut(host).state_changed_time = None;
                let process = world.weka.management_mut(host);
                (process.up_since, process.last_fencing_time) = (None, None);
            }
            _ => {}
        }
    }

    fn happens_to_cluster(&self, world: &mut World) {
        match self {
            Self::RebuildStuck => world.weka.behaviour.rebuild_stuck = true,
            Self::Fill(fraction) => world.weka.fill(*fraction),
            Self::LeaderMoves => world.weka.move_leader(),
            Self::Upgrade => {
                world.weka.upgrade = Some("RUNNING".to_owned());
                world.gate_since.get_or_insert(world.now());
            }
            Self::IoStops => {
                world.weka.io_status = "STOPPED".to_owned();
                world.gate_since.get_or_insert(world.now());
            }
            Self::Override(true) => {
                world.weka.set_override("skip_scale_down", true);
                world.gate_since.get_or_insert(world.now());
            }
            Self::Override(false) => world.weka.set_override("another", true),
            Self::EndGates => end_gates(world),
            Self::DownContainersGoBack => {
                world.weka.behaviour.down_containers = DownContainers::GoBackToActive;
            }
            Self::RemovalsFail => world.weka.behaviour.removals_fail = true,
            Self::ClientAt(at) => {
                if let Some(id) = member(world, *at) {
                    let address = world.account.machines[&id].private_ip.clone();
                    let client = format!("i-c{}", &id[3..]);
                    if !world.weka.machines.contains_key(&client) {
                        world.weka.add_client(&client, &address);
                    }
                }
            }
            Self::ReuseAddresses => world.account.reuses_addresses = true,
            Self::ReuseHostIds => world.weka.behaviour.reuses_host_ids = true,
            Self::Skew(seconds) => world.weka.skew = *seconds,
            Self::Stem(at) => {
                if let Some(id) = member(world, *at) {
                    let address = world.account.machines[&id].private_ip.clone();
                    world.weka.api.fault(Fault::stem(&address).times(6));
                }
            }
            Self::ShortList(at) => {
                if let Some(id) = backend(world, *at) {
                    let short = world.weka.hosts_without(&id);
                    world
                        .weka
                        .api
                        .fault(Fault::of("hosts_list", Action::Reply(short)).times(3));
                }
            }
            Self::EmptyList => {
                let empty = Action::Reply(serde_json::json!({}));
                world
                    .weka
                    .api
                    .fault(Fault::of("hosts_list", empty).times(2));
            }
            Self::ForeignList => world
                .weka
                .api
                .fault(Fault::of("hosts_list", Action::Foreign).times(2)),
            Self::FailingList => world
                .weka
                .api
                .fault(Fault::refusal("hosts_list", "internal").times(2)),
            Self::NewVersion => world.weka.shape = crate::support::weka::Shape::New,
            Self::WekaCall(method, trouble, after) => {
                let fault = Fault::of(method, weka_trouble(*trouble));
                world.weka.api.fault(fault.after(*after).times(1));
            }
            _ => {}
        }
    }
}

fn member(world: &World, at: usize) -> Option<String> {
    let members = world.account.members();
    let known: Vec<&String> = members
        .iter()
        .filter(|id| world.weka.machines.contains_key(*id))
        .collect();
    (!known.is_empty()).then(|| known[at % known.len()].clone())
}

/// A member that is in the cluster.
fn backend(world: &World, at: usize) -> Option<String> {
    let members = world.account.members();
    let backends: Vec<&String> = members
        .iter()
        .filter(|id| !world.weka.own_containers(id).is_empty())
        .collect();
    (!backends.is_empty()).then(|| backends[at % backends.len()].clone())
}

fn change_password(world: &mut World) {
    let password = format!("{} and longer", world.account.password);
    world
        .weka
        .api
        .set_user(super::account::USER, &password, "ClusterAdmin");
    world.weka.api.expire_tokens();
    world.account.password = password;
}

fn fail_next_join(world: &mut World, step: u8, undoes: bool) {
    let steps = [
        JoinStep::Drives,
        JoinStep::Compute,
        JoinStep::Frontend,
        JoinStep::Sign,
        JoinStep::Scan,
    ];
    world.next_join = Some(Join {
        due: world.now(),
        fails_at: Some(steps[step as usize % steps.len()]),
        undoes,
    });
}

fn slow_next_join(world: &mut World, minutes: u32) {
    world.next_join = Some(Join {
        due: world.now() + SignedDuration::from_mins(i64::from(minutes)),
        // The join script gives up after 25 minutes.
        fails_at: (minutes > 25).then_some(JoinStep::Scan),
        undoes: true,
    });
}

pub(crate) fn end_standby(world: &mut World) {
    for machine in world.account.machines.values_mut() {
        if let Some(member) = &mut machine.member
            && member.lifecycle == "Standby"
        {
            member.lifecycle = "InService";
            world.account.desired += 1;
        }
    }
}

pub(crate) fn end_gates(world: &mut World) {
    world.weka.upgrade = None;
    world.weka.io_status = "STARTED".to_owned();
    world.weka.clear_override("skip_scale_down");
    world.gate_since = None;
}

/// Everything that does not pass by itself is mended by whoever did it; a machine that is dead stays so, and one that
/// somebody has taken out of the group is ended by them.
pub(crate) fn all_ends(world: &mut World) {
    world.synchronise();
    let machines = world.account.machines.iter();
    let detached: Vec<String> = machines
        .filter(|(_, machine)| machine.member.is_none())
        .map(|(id, _)| id.clone())
        .collect();
    detached.iter().for_each(|id| world.end(id));
    end_gates(world);
    end_standby(world);
    world.troubles.clear();
    world.next_join = None;
    world.account.suspended = super::account::SUSPENDED.map(ToOwned::to_owned).into();
    world.weka.api.end_faults();
    world.weka.skew = 0;
    world.weka.fill(0.3);
    let behaviour = &mut world.weka.behaviour;
    behaviour.rebuild_stuck = false;
    behaviour.removals_fail = false;
    behaviour.down_containers = crate::support::weka::Behaviour::default().down_containers;
    let now = world.weka.now;
    for container in world.weka.containers.values_mut() {
        container.odd_status = None;
        let is_client = container.name == "client";
        container.mode = Some(if is_client { "client" } else { "backend" }.to_owned());
        if container.state == State::Active {
            container.state_changed_time.get_or_insert(now);
        }
        for process in &mut container.processes {
            process.up_since.get_or_insert(now);
        }
    }
    for drive in world.weka.drives.values_mut() {
        drive.stuck = false;
    }
}

fn weka_trouble(trouble: WekaTrouble) -> Action {
    match trouble {
        WekaTrouble::Refused => Action::Error(-32603, "not now".to_owned()),
        WekaTrouble::Slow(seconds) => Action::Slow(Duration::from_secs(seconds)),
        WekaTrouble::Unanswered => Action::Unanswered,
        WekaTrouble::Lost => Action::Lost,
        WekaTrouble::Busy => Action::Status(503),
    }
}

fn aws_trouble(trouble: AwsTrouble) -> Trouble {
    match trouble {
        AwsTrouble::Refused => Trouble::Refused,
        AwsTrouble::Unanswered => Trouble::Unanswered,
        AwsTrouble::Slow(seconds) => Trouble::Slow(Duration::from_secs(seconds)),
    }
}
