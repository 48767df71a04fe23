//! The order in which a cluster is taken down. What is to be removed is found in AWS, by exact name and by tag;
//! no record of our own is needed, so that it also cleans up after an import that died anywhere.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use futures::future::join_all;

use super::before::{self, Before};
use super::inventory::Inventory;
use super::names::{Cluster, FunctionKind, RolePurpose, TAG_PREFIX};
use super::settings::{self, Settings, Stored};
use super::steps::Steps;
use crate::aws::{Aws, Probe, wait_until};
use crate::resource::{Resource as _, Settle as _, Tags, gather, owned, remove};
use crate::resources::api_key::ApiKey;
use crate::resources::auto_scaling_group::{self, AutoScalingGroup};
use crate::resources::classic_load_balancer;
use crate::resources::dns_record::{self, DnsRecord};
use crate::resources::event_rule::EventRule;
use crate::resources::function::{self, Function};
use crate::resources::instances::{self, Instance, Interface};
use crate::resources::kms_key::KmsKey;
use crate::resources::launch_template::LaunchTemplate;
use crate::resources::layer_version::LayerVersion;
use crate::resources::listener::Listener;
use crate::resources::load_balancer::LoadBalancer;
use crate::resources::log_group::{self, LogGroup};
use crate::resources::rest_api::RestApi;
use crate::resources::role::{self, Role};
use crate::resources::state_machine::{self, StateMachine};
use crate::resources::table::Table;
use crate::resources::target_group::TargetGroup;
use crate::resources::usage_plan::UsagePlan;
use crate::run::{Action, Change, Kind, Row};

/// `CloudFormation` puts it on what it makes, and removes what has it.
const STACK_ID_TAG: &str = "aws:cloudformation:stack-id";
/// A run's longest function is `scale`.
const LONGEST_FUNCTION: Duration =
    Duration::from_secs(function::timeout(FunctionKind::Scale).unsigned_abs() as u64);
/// Lambda removes a function's network interfaces some time after the function. Source: Lambda developer guide,
/// "Giving Lambda functions access to resources in an Amazon VPC": up to 20 minutes.
const INTERFACES_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// `cluster destroy` and its flags.
#[derive(Debug, Clone)]
pub struct DestroyRequest {
    /// `--name`.
    pub cluster: Cluster,
    /// `--keep-instances`.
    pub keep_instances: bool,
    /// Not `--no-wait`.
    pub wait: bool,
}

/// That somebody who may wants this cluster gone. Only the ways to confirm make one.
#[derive(Debug)]
pub struct Confirmed(());

impl Confirmed {
    /// The cluster's name was typed.
    pub fn by_name(cluster: &Cluster, typed: &str) -> Option<Self> {
        (typed.trim() == cluster.name).then_some(Self(()))
    }

    /// `--yes`, no terminal to ask on, or a dry run, which changes nothing.
    pub fn without_asking() -> Self {
        Self(())
    }
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Destroyed {
    /// Whether there was anything.
    pub found: bool,
    /// What `--no-wait` left for a later destroy.
    pub left: Vec<(Kind, String)>,
}

/// Removes the cluster.
///
/// # Errors
/// Before the first change: what can not be read. After it: every failed step, and with it what was not begun
/// because of it; the command can be run again.
pub async fn destroy(
    aws: &Aws,
    request: DestroyRequest,
    _confirmed: &Confirmed,
) -> Result<Destroyed> {
    let cluster = &request.cluster;
    let (_, inventory, stored, tagged, begun) = tokio::try_join!(
        aws.identity(),
        Inventory::read(aws, cluster),
        settings::read(aws, cluster),
        async {
            instances::describe_by_tag(aws, cluster)
                .await
                .context("reading the cluster's instances")
        },
        before::instances_with_tag(aws, cluster),
    )?;
    let tagged: Vec<Instance> = tagged.into_iter().chain(begun).collect();
    let (machines, classic, dns) = tokio::try_join!(
        machines(aws, cluster, &inventory, tagged),
        classic_of(aws, stored.settings.as_ref()),
        dns_of(aws, cluster, stored.settings.as_ref()),
    )?;
    if !inventory.has_any_of(cluster) && machines.instances.is_empty() {
        return Ok(Destroyed::default());
    }
    let left = take_down(
        aws,
        &request,
        inventory,
        &stored,
        &machines,
        classic.as_ref(),
        dns,
    )
    .await?;
    Ok(Destroyed { found: true, left })
}

/// The instances of a cluster, and what would outlive them.
struct Machines {
    /// Not terminated; sorted by id.
    instances: Vec<Instance>,
    /// Network interfaces that neither EC2 nor a stack will remove: those that user data made.
    interfaces: Vec<Interface>,
}

/// Every instance that belongs to the cluster and is not terminated: those with its tags and the group's members.
async fn machines(
    aws: &Aws,
    cluster: &Cluster,
    inventory: &Inventory,
    tagged: Vec<Instance>,
) -> Result<Machines> {
    let mut found = tagged;
    let ours = inventory
        .groups
        .iter()
        .filter(|group| owned::<AutoScalingGroup>(cluster, &group.name, group).is_ok());
    let untagged: Vec<String> = ours
        .flat_map(auto_scaling_group::Observed::member_ids)
        .filter(|id| !found.iter().any(|each| each.id == *id))
        .collect();
    if !untagged.is_empty() {
        found.extend(
            instances::describe(aws, &untagged)
                .await
                .context("reading the group's members")?,
        );
    }
    found.retain(|each| !each.is_terminated());
    found.sort_by(|one, other| one.id.cmp(&other.id));
    found.dedup_by(|one, other| one.id == other.id);
    let ids: Vec<String> = found.iter().map(|each| each.id.clone()).collect();
    let interfaces = instances::interfaces(aws, &ids)
        .await
        .context("reading the instances' network interfaces")?;
    let outliving = interfaces.into_iter().filter(|each| {
        !each.is_managed
            && !each.interface.delete_on_termination
            && !each.tags.contains_key(STACK_ID_TAG)
    });
    Ok(Machines {
        instances: found,
        interfaces: outliving.map(|each| each.interface).collect(),
    })
}

async fn classic_of(
    aws: &Aws,
    settings: Option<&Settings>,
) -> Result<Option<classic_load_balancer::Observed>> {
    match settings.and_then(|settings| settings.classic_load_balancer.as_ref()) {
        Some(name) => classic_load_balancer::describe(aws, name)
            .await
            .context("reading the classic load balancer"),
        None => Ok(None),
    }
}

/// The cluster's DNS record, if its settings tell of one.
async fn dns_of(
    aws: &Aws,
    cluster: &Cluster,
    settings: Option<&Settings>,
) -> Result<Option<(String, Vec<dns_record::Observed>)>> {
    let Some(dns) = settings.and_then(Settings::dns) else {
        return Ok(None);
    };
    let name = DnsRecord::name_of(&dns);
    let found = DnsRecord::find(aws, cluster, &name)
        .await
        .context("reading the DNS record")?;
    Ok(Some((name, found)))
}

async fn take_down(
    aws: &Aws,
    request: &DestroyRequest,
    inventory: Inventory,
    stored: &Stored,
    machines: &Machines,
    classic: Option<&classic_load_balancer::Observed>,
    dns: Option<(String, Vec<dns_record::Observed>)>,
) -> Result<Vec<(Kind, String)>> {
    let cluster = &request.cluster;
    let before = stored
        .settings
        .as_ref()
        .and_then(|settings| settings.before.as_ref());
    let Inventory {
        kms_keys,
        tables,
        roles,
        log_groups,
        layers,
        functions,
        rest_apis,
        api_keys,
        usage_plans,
        launch_templates,
        groups,
        load_balancers,
        target_groups,
        listeners,
        state_machines,
        event_rules,
    } = inventory;
    let machine_arns: Vec<String> = state_machines
        .iter()
        .map(|machine| machine.arn.clone())
        .collect();
    let balancer_dns: Vec<String> = load_balancers
        .iter()
        .map(|balancer| balancer.dns_name.clone())
        .collect();
    let role::Roles {
        by_purpose: mut roles,
        unknown,
    } = roles;

    let steps = Steps::default();
    let left = {
        // First nothing starts any more, then nothing runs any more.
        let quiet = steps.add(async move {
            remove::<EventRule>(aws, cluster, &cluster.event_rule(), event_rules).await?;
            for arn in machine_arns {
                quiesce(aws, &arn).await?;
            }
            Ok(())
        });

        // Then the instances: what happens to the data is decided here.
        let empty = steps.after(&quiet, async move |()| {
            let ours = |group: &auto_scaling_group::Observed| {
                owned::<AutoScalingGroup>(cluster, &group.name, group).is_ok()
            };
            let groups: Vec<_> = groups.into_iter().filter(ours).collect();
            for group in &groups {
                freeze(aws, group).await?;
            }
            if request.keep_instances {
                keep(aws, cluster, &groups, &machines.instances, before).await?;
            } else {
                terminate(aws, machines).await?;
            }
            for group in groups {
                let row = Row::new(Kind::AutoScalingGroup, &group.name, Action::Delete);
                // Without --keep-instances its members are terminated; with it, it has none.
                let force = !request.keep_instances;
                aws.run
                    .step(
                        row,
                        auto_scaling_group::delete_group(aws, &group.name, force),
                    )
                    .await?;
            }
            Ok(())
        });

        // Then the rest, at once.
        let classic_restored = steps.after(&empty, async move |()| {
            let kept = request
                .keep_instances
                .then_some(machines.instances.as_slice());
            restore_classic(aws, classic, before, kept).await
        });
        let templates = steps.after(&empty, async move |()| {
            remove::<LaunchTemplate>(aws, cluster, &cluster.launch_template(), launch_templates)
                .await
        });
        let api = steps.after(&empty, async move |()| {
            // The plan first: it is what refers to the other two.
            remove::<UsagePlan>(aws, cluster, &cluster.backends(), usage_plans).await?;
            let name = cluster.backends();
            let api = remove::<RestApi>(aws, cluster, &name, rest_apis);
            let key = remove::<ApiKey>(aws, cluster, &name, api_keys);
            tokio::join!(api, key).settle()?;
            Ok(())
        });
        let network = steps.after(&empty, async move |()| {
            if let Some((name, found)) = dns {
                let ours = found
                    .into_iter()
                    .filter(|record| balancer_dns.iter().any(|dns| record.points_at(dns)));
                remove::<DnsRecord>(aws, cluster, &name, ours.collect()).await?;
            }
            remove::<Listener>(aws, cluster, &Listener::name_of(cluster), listeners).await?;
            remove::<LoadBalancer>(aws, cluster, &cluster.load_balancer(), load_balancers).await?;
            remove::<TargetGroup>(aws, cluster, &cluster.target_group(), target_groups).await
        });
        let machine = steps.after(&empty, async move |()| {
            remove::<StateMachine>(aws, cluster, &cluster.state_machine(), state_machines).await
        });
        let functions = steps.after(&empty, async move |()| {
            let removals = functions.into_iter().map(async |(kind, found)| {
                remove::<Function>(aws, cluster, &cluster.function(kind), found).await
            });
            join_all(removals).await.settle()?;
            Ok(())
        });
        let logs = steps.after(&functions, async move |()| {
            // After the functions, which could still write.
            let removals = log_groups.into_iter().map(async |(kind, found)| {
                // What carries no tag of ours was made by Lambda itself, for whom can not be proved.
                let found = found
                    .into_iter()
                    .filter(log_group::Observed::is_tagged)
                    .collect();
                remove::<LogGroup>(aws, cluster, &cluster.log_group(kind), found).await
            });
            join_all(removals).await.settle()?;
            Ok(())
        });
        let layer = steps.after(&functions, async move |()| {
            remove::<LayerVersion>(aws, cluster, &cluster.layer(), layers).await
        });
        let scale_roles = roles
            .remove(&RolePurpose::Function(FunctionKind::Scale))
            .unwrap_or_default();
        let scale_role = steps.after(&functions, async move |()| {
            remove_scale_role(aws, request, scale_roles).await
        });
        let other_roles = steps.after((&functions, &machine), async move |_| {
            remove_roles(
                aws,
                cluster,
                roles.into_values().flatten().chain(unknown).collect(),
            )
            .await
        });

        // Table and key last: until here a failed destroy finds in the table what to give back.
        let rest = vec![
            classic_restored,
            templates,
            api,
            network,
            machine,
            logs,
            layer,
            other_roles,
        ];
        let storage = steps.after(rest.clone(), async move |_| {
            remove::<Table>(aws, cluster, &cluster.base(), tables).await?;
            remove::<KmsKey>(aws, cluster, &cluster.kms_alias(), kms_keys).await
        });
        let (left, ..) = tokio::join!(scale_role, storage, join_all(rest));
        left.unwrap_or_default()
    };
    steps.result()?;
    Ok(left)
}

/// Ends the executions under way, and waits until no function of an earlier one can still be running: a state's
/// end does not stop its function.
async fn quiesce(aws: &Aws, machine_arn: &str) -> Result<()> {
    let Some(last) = state_machine::last_run(aws, machine_arn).await? else {
        return Ok(());
    };
    if aws.run.is_plan() {
        return Ok(());
    }
    aws.run.proceed()?;
    if last.ended.is_none() {
        state_machine::stop_executions(aws, machine_arn).await?;
    }
    let ended = last.ended.unwrap_or_else(SystemTime::now);
    let what = "the last run's functions to end";
    wait_until(&aws.run, what, 2 * LONGEST_FUNCTION, || async move {
        // A clock that is ahead of AWS's gives no time at all, which only means waiting longer.
        let past = ended.elapsed().unwrap_or_default();
        Ok(match LONGEST_FUNCTION.checked_sub(past) {
            None | Some(Duration::ZERO) => Probe::Ready(()),
            Some(rest) => Probe::Pending(format!("{} s to go", rest.as_secs() + 1)),
        })
    })
    .await
}

/// Makes the group launch and require nothing.
async fn freeze(aws: &Aws, group: &auto_scaling_group::Observed) -> Result<()> {
    let changes = vec![set("suspendedProcesses", "Launch"), set("minSize", "0")];
    let row = Row {
        changes,
        ..Row::new(Kind::AutoScalingGroup, &group.name, Action::Update)
    };
    let work = async {
        let suspended = async { auto_scaling_group::suspend_launch(aws, &group.name).await };
        let released = async { auto_scaling_group::release(aws, group).await };
        tokio::join!(suspended, released).settle()?;
        Ok(())
    };
    aws.run.step(row, work).await?;
    Ok(())
}

/// Sets the instances free: out of the group, without our tags, protected from termination as they were before.
async fn keep(
    aws: &Aws,
    cluster: &Cluster,
    groups: &[auto_scaling_group::Observed],
    machines: &[Instance],
    before: Option<&Before>,
) -> Result<()> {
    for group in groups {
        let ids: Vec<String> = group.member_ids().collect();
        if !ids.is_empty() {
            let change = Change {
                field: "instances".to_owned(),
                from: Some(ids.join(", ")),
                to: None,
            };
            let row = Row {
                changes: vec![change],
                ..Row::new(Kind::GroupMembers, &group.name, Action::Update)
            };
            aws.run
                .step(row, auto_scaling_group::detach(aws, &group.name, &ids))
                .await?;
        }
    }
    let freed = machines.iter().map(|machine| async move {
        let was = before::was_protected(cluster, before, machine);
        if was.is_none() {
            aws.run.notice(format!(
                "nothing tells whether instance {} was protected from termination before: it is not protected now",
                machine.id
            ));
        }
        let was = was.unwrap_or(false);
        let ours: Vec<String> = machine.tags.keys().filter(|key| key.starts_with(TAG_PREFIX)).cloned().collect();
        let name = before.and_then(|before| before.names.get(&machine.id));
        let untagged = Change { field: "tags".to_owned(), from: Some(ours.join(", ")), to: None };
        let changes = vec![set("disableApiTermination", if was { "true" } else { "false" }), untagged];
        let row = Row { changes, ..Row::new(Kind::Instance, &machine.id, Action::Update) };
        let work = async {
            // The tags last: while they are there a later destroy still finds the instance.
            instances::set_termination_protection(aws, &machine.id, was).await?;
            if let Some(name) = name {
                let tags = Tags::from([("Name".to_owned(), name.clone())]);
                instances::tag(aws, std::slice::from_ref(&machine.id), &tags).await?;
            }
            instances::untag(aws, std::slice::from_ref(&machine.id), &ours).await
        };
        aws.run.step(row, work).await
    });
    join_all(freed).await.settle()?;
    Ok(())
}

/// Terminates every instance, in whatever state, and with it the interfaces that nobody else would take away.
async fn terminate(aws: &Aws, machines: &Machines) -> Result<()> {
    let Machines {
        instances,
        interfaces,
    } = machines;
    if instances.is_empty() {
        return Ok(());
    }
    let unprotected = instances.iter().map(|machine| async move {
        let row = Row {
            changes: vec![set("disableApiTermination", "false")],
            ..Row::new(Kind::Instance, &machine.id, Action::Update)
        };
        aws.run
            .step(
                row,
                instances::set_termination_protection(aws, &machine.id, false),
            )
            .await
    });
    let released = async {
        if interfaces.is_empty() {
            return Ok(None);
        }
        let ids: Vec<&str> = interfaces.iter().map(|each| each.id.as_str()).collect();
        let changes = vec![set("deleteOnTermination", "true")];
        let row = Row {
            changes,
            ..Row::new(Kind::NetworkInterface, ids.join(", "), Action::Update)
        };
        aws.run
            .step(row, instances::set_delete_on_termination(aws, interfaces))
            .await
    };
    let (unprotected, released) = tokio::join!(join_all(unprotected), released);
    released?;
    let ids: Vec<String> = instances.iter().map(|machine| machine.id.clone()).collect();
    let row = Row::new(Kind::Instance, ids.join(", "), Action::Delete);
    let work = async {
        let refused = instances::terminate(aws, &ids).await;
        let errors = refused.into_iter().map(|refused| {
            anyhow::Error::from(refused.error)
                .context(format!("terminating instance {}", refused.id))
        });
        gather(errors.collect()).map_or(Ok(()), Err)
    };
    let terminated = aws.run.step(row, work).await.map(|_| ());
    // One that could not be unprotected does not keep the others alive; the failure of either is told.
    (unprotected.settle().map(|_| ()), terminated).settle()?;
    if !aws.run.is_plan() {
        instances::wait_until_terminated(aws, &ids).await?;
    }
    Ok(())
}

fn set(field: &str, to: &str) -> Change {
    Change {
        field: field.to_owned(),
        from: None,
        to: Some(to.to_owned()),
    }
}

/// Gives the stack's classic load balancer its health check back, and its members if there still are some.
async fn restore_classic(
    aws: &Aws,
    classic: Option<&classic_load_balancer::Observed>,
    before: Option<&Before>,
    kept: Option<&[Instance]>,
) -> Result<()> {
    let Some(classic) = classic else {
        return Ok(());
    };
    let stored = before.and_then(|before| before.classic_load_balancer.clone());
    let remembered = || {
        let health_check = classic.remembered()?;
        Some(classic_load_balancer::Before {
            health_check,
            members: Vec::new(),
        })
    };
    let Some(before) = stored.or_else(remembered) else {
        aws.run.notice(format!(
            "nothing tells what health check the classic load balancer {} had before: it stays as it is",
            classic.name
        ));
        return Ok(());
    };
    let kept: Vec<String> = kept
        .unwrap_or_default()
        .iter()
        .map(|machine| machine.id.clone())
        .collect();
    let change = Change {
        field: "healthCheck.target".to_owned(),
        from: Some(classic.health_check.target.clone()),
        to: Some(before.health_check.target.clone()),
    };
    let row = Row {
        changes: vec![change],
        ..Row::new(Kind::ClassicLoadBalancer, &classic.name, Action::Update)
    };
    let work = async {
        classic_load_balancer::restore(aws, &classic.name, &before, &kept).await?;
        classic_load_balancer::forget(aws, &classic.name).await
    };
    aws.run.step(row, work).await?;
    Ok(())
}

/// Removes roles at once, each under its own name.
async fn remove_roles(aws: &Aws, cluster: &Cluster, roles: Vec<role::Observed>) -> Result<()> {
    let removals = roles.into_iter().map(|found| async move {
        let name = found.name.clone();
        if found.go {
            aws.run.notice(format!(
                "IAM role {name} has no region's tag and may be another region's: it is left alone"
            ));
            return Ok(());
        }
        remove::<Role>(aws, cluster, &name, vec![found]).await
    });
    join_all(removals).await.settle()?;
    Ok(())
}

/// Removes the role of `scale` once Lambda, which does that with this role, has removed the function's interfaces.
/// Returns what `--no-wait` leaves.
async fn remove_scale_role(
    aws: &Aws,
    request: &DestroyRequest,
    roles: Vec<role::Observed>,
) -> Result<Vec<(Kind, String)>> {
    if roles.is_empty() || aws.run.is_plan() {
        remove_roles(aws, &request.cluster, roles).await?;
        return Ok(Vec::new());
    }
    let function = request.cluster.function(FunctionKind::Scale);
    let interfaces = async || {
        instances::interfaces_of_function(aws, &function)
            .await
            .context("reading the function's network interfaces")
    };
    if !request.wait {
        let there = interfaces().await?;
        if !there.is_empty() {
            return Ok(roles
                .into_iter()
                .map(|role| (Kind::Role, role.name))
                .collect());
        }
    }
    wait_until(
        &aws.run,
        "Lambda to remove its network interfaces",
        INTERFACES_DEADLINE,
        || async {
            let there = interfaces().await?;
            Ok(if there.is_empty() {
                Probe::Ready(())
            } else {
                Probe::Pending(there.join(", "))
            })
        },
    )
    .await?;
    remove_roles(aws, &request.cluster, roles).await?;
    Ok(Vec::new())
}
