//! The order in which a cluster is taken down. What is to be removed is found in AWS, by exact name and by tag;
//! no record of our own is needed, so that it also cleans up after an import that died anywhere.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::future::join_all;

use super::before::{self, Before};
use super::go_roles;
use super::inventory::Inventory;
use super::names::{
    BEFORE_TAG, Cluster, DESTROYING_KEEPING, DESTROYING_TAG, FunctionKind, RolePurpose, TAG_PREFIX,
};
use super::settings::{self, Settings, Stored};
use super::spec::Dns;
use super::stack;
use super::steps::{Step, Steps, done};
use crate::aws::{Aws, AwsError, CHANGES_AT_ONCE, Probe, join_some, wait_until};
use crate::resource::{Diff, Resource as _, Settle as _, Tags, gather, owned, remove};
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
use crate::run::{Action, Change, Interrupted, Kind, Row};

/// `CloudFormation` puts it on what it makes, and removes what has it.
const STACK_ID_TAG: &str = "aws:cloudformation:stack-id";
/// What a row says of a value that is set without a look at it.
const NOT_READ: &str = "(not read)";
/// Where `scale` is among the functions.
const SCALE: usize = 2;
/// A run's longest function is `scale`.
const LONGEST_FUNCTION: Duration =
    Duration::from_secs(function::timeout(FunctionKind::Scale).unsigned_abs() as u64);
/// So many of the backends that a failed destroy leaves are named.
const LEFT_NAMED: usize = 10;
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

/// What there is of a cluster.
pub struct Found {
    inventory: Inventory,
    stored: Stored,
    machines: Machines,
    /// Ids of instances that stay, and that the Go tool has protected from termination.
    go_protected: Vec<String>,
    classic: Option<classic_load_balancer::Observed>,
    dns: Option<(String, Vec<dns_record::Observed>)>,
}

impl Found {
    /// How many instances will be terminated, or set free.
    pub fn backends(&self) -> usize {
        self.machines.instances.len()
    }
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Destroyed {
    /// How many instances were terminated, or set free.
    pub backends: usize,
    /// What `--no-wait` left for a later destroy.
    pub left: Vec<(Kind, String)>,
}

/// Looks for all that is the cluster's; `None`: nothing is.
///
/// # Errors
/// What can not be read.
pub async fn look(aws: &Aws, request: &DestroyRequest) -> Result<Option<Found>> {
    let cluster = &request.cluster;
    // What refers to the instances, and what the settings refer to, is read while the rest still is.
    let machines = async {
        let name = cluster.backends();
        let (groups, tagged, begun) = tokio::try_join!(
            async {
                AutoScalingGroup::find(aws, cluster, &name)
                    .await
                    .with_context(|| format!("reading Auto Scaling group {name}"))
            },
            async {
                instances::describe_by_tag(aws, cluster)
                    .await
                    .context("reading the cluster's instances")
            },
            before::instances_with_tag(aws, cluster),
        )?;
        check_not_left(request, &groups)?;
        let tagged = tagged.into_iter().chain(begun).collect();
        let machines = machines(aws, cluster, &groups, tagged).await?;
        let machines = with_interfaces(aws, cluster, machines).await?;
        anyhow::Ok((groups, machines))
    };
    let stored = async {
        let stored = stored_or_nothing(aws, cluster).await?;
        let (classic, dns) = tokio::try_join!(
            classic_of(aws, stored.settings.as_ref()),
            dns_of(
                aws,
                cluster,
                stored.settings.as_ref().and_then(Settings::dns)
            ),
        )?;
        anyhow::Ok((stored, classic, dns))
    };
    let (_, inventory, (groups, machines), (stored, classic, dns)) = tokio::try_join!(
        aws.identity(),
        Inventory::read_but_groups(aws, cluster),
        Box::pin(machines),
        Box::pin(stored),
    )?;
    let mut inventory = Inventory {
        groups,
        ..inventory
    };
    go_roles::claim(aws, cluster, &mut inventory.roles).await?;
    let (classic, dns) = if let Some(settings) = &stored.settings {
        let classic = match settings.are_ours() {
            true => classic,
            // The Go tool's settings do not tell of it.
            false => classic_without_settings(aws, cluster, &inventory.groups).await?,
        };
        (classic, dns)
    } else {
        // The table is gone, or an import died before it wrote there.
        let in_tags = inventory.load_balancers.first();
        let in_tags = in_tags.and_then(LoadBalancer::tags).and_then(Dns::in_tags);
        tokio::try_join!(
            classic_without_settings(aws, cluster, &inventory.groups),
            dns_of(aws, cluster, in_tags),
        )?
    };
    let go_protected = go_protected(aws, cluster, stored.settings.as_ref(), &machines).await?;
    if inventory.names(cluster).is_empty() && machines.instances.is_empty() && classic.is_none() {
        return Ok(None);
    }
    Ok(Some(Found {
        inventory,
        stored,
        machines,
        go_protected,
        classic,
        dns,
    }))
}

/// That no destroy has begun that keeps the instances, where this one does not: whoever ends it forgets the flag easily.
fn check_not_left(request: &DestroyRequest, groups: &[auto_scaling_group::Observed]) -> Result<()> {
    let is_being_left = groups
        .iter()
        .any(auto_scaling_group::Observed::is_being_left);
    if is_being_left && !request.keep_instances {
        bail!(
            "a destroy of cluster {name} with --keep-instances has begun and did not end, and this one would terminate \
             the backends that it has not set free yet. End it with wekactl cluster destroy --name {name} \
             --keep-instances; or, if they shall be terminated, undo it first with wekactl cluster import --name {name} \
             --username USER",
            name = request.cluster.name
        );
    }
    Ok(())
}

/// Those of the instances that stay which the Go tool has protected: noted when its cluster was taken over, or, where it
/// was not, every one of the stack's.
async fn go_protected(
    aws: &Aws,
    cluster: &Cluster,
    settings: Option<&Settings>,
    machines: &Machines,
) -> Result<Vec<String>> {
    let Some(settings) = settings else {
        return Ok(Vec::new());
    };
    let noted = settings.before.as_ref();
    let ids = match settings.are_ours() {
        true => noted.map_or_else(Vec::new, |before| before.go_protected.clone()),
        false => stack::read(aws, cluster)
            .await?
            .map_or_else(Vec::new, |stack| stack.instance_ids),
    };
    if ids.is_empty() {
        return Ok(ids);
    }
    let own = machines.instances.iter().map(|each| each.id.clone());
    before::go_protected(aws, &ids, &own.collect()).await
}

/// What the Go tool has protected and never freed can be terminated by whom it belongs to.
async fn free_from_go(aws: &Aws, ids: &[String]) -> Result<()> {
    let lifted = ids.iter().map(|id| {
        let change = Change {
            field: "disableApiTermination".to_owned(),
            from: Some("true".to_owned()),
            to: Some("false".to_owned()),
        };
        let row = Row {
            changes: vec![change],
            ..Row::new(Kind::Instance, id, Action::Update)
        };
        aws.run
            .step(row, instances::set_termination_protection(aws, id, false))
    });
    join_some(CHANGES_AT_ONCE, lifted).await.settle()?;
    Ok(())
}

/// What the table has. Items that can not be read, for what is in them or for a key that is disabled, keep nobody
/// from taking the cluster down: destroy needs no record. Whatever else fails may succeed the next time, and what the
/// settings say, such as which machines were protected before, is not given up for it.
async fn stored_or_nothing(aws: &Aws, cluster: &Cluster) -> Result<Stored> {
    let error = match settings::read(aws, cluster).await {
        Ok(stored) => return Ok(stored),
        Err(error) => error,
    };
    let is_unreadable = match AwsError::of(&error) {
        Some(cause) => cause.to_string().contains("KMS"),
        None => !error.is::<Interrupted>(),
    };
    if !is_unreadable {
        return Err(error);
    }
    aws.run.warning(format!(
        "{error:#}: going on without the settings, with what the things themselves tell"
    ));
    Ok(Stored::default())
}

/// The instances of a cluster, and what would outlive them.
#[derive(Default)]
struct Machines {
    /// Not terminated; sorted by id.
    instances: Vec<Instance>,
    /// Which of them are protected from termination. Read for a plan only, which has to tell: otherwise a call for
    /// every instance just to show it would be a call too many.
    protected: Option<BTreeMap<String, bool>>,
    /// Network interfaces that neither EC2 nor a stack will remove: those that user data made.
    interfaces: Vec<Interface>,
}

/// Every instance that belongs to the cluster and is not terminated: those with its tags, `tagged`, and the members
/// of its groups.
async fn machines(
    aws: &Aws,
    cluster: &Cluster,
    groups: &[auto_scaling_group::Observed],
    tagged: Vec<Instance>,
) -> Result<Vec<Instance>> {
    let mut found = tagged;
    let ours = groups.iter().filter(|group| is_ours(cluster, group));
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
    Ok(found)
}

/// The instances, and the interfaces that would outlive them.
async fn with_interfaces(
    aws: &Aws,
    cluster: &Cluster,
    instances: Vec<Instance>,
) -> Result<Machines> {
    let ids: Vec<String> = instances.iter().map(|each| each.id.clone()).collect();
    let (interfaces, protected) = tokio::try_join!(
        async {
            instances::interfaces(aws, &ids)
                .await
                .context("reading the instances' network interfaces")
        },
        async {
            match aws.run.is_plan() {
                true => instances::termination_protected(aws, &ids)
                    .await
                    .context("reading the instances' protection from termination")
                    .map(Some),
                false => Ok(None),
            }
        },
    )?;
    let (ours, others): (Vec<_>, Vec<_>) = interfaces
        .into_iter()
        .filter(|each| {
            !each.is_managed
                && !each.interface.delete_on_termination
                && !each.tags.contains_key(STACK_ID_TAG)
        })
        .partition(|each| is_of_user_data(cluster, &each.interface));
    for other in others {
        aws.run.notice(format!(
            "network interface {} of instance {} outlives it and was not made by wekactl: it is left alone",
            other.interface.id, other.interface.instance_id
        ));
    }
    Ok(Machines {
        instances,
        protected,
        interfaces: ours.into_iter().map(|each| each.interface).collect(),
    })
}

/// Those that were launched between the first look and the moment the group was frozen: from then on there are no more.
async fn latecomers(aws: &Aws, cluster: &Cluster, known: &Machines) -> Result<Machines> {
    if aws.run.is_plan() {
        return Ok(Machines::default());
    }
    let name = cluster.backends();
    let (groups, tagged) = tokio::try_join!(
        async {
            AutoScalingGroup::find(aws, cluster, &name)
                .await
                .with_context(|| format!("reading Auto Scaling group {name}"))
        },
        async {
            instances::describe_by_tag(aws, cluster)
                .await
                .context("reading the cluster's instances")
        },
    )?;
    let mut late = machines(aws, cluster, &groups, tagged).await?;
    late.retain(|each| !known.instances.iter().any(|one| one.id == each.id));
    if late.is_empty() {
        return Ok(Machines::default());
    }
    with_interfaces(aws, cluster, late).await
}

impl Machines {
    /// What setting an instance's protection changes, as far as that is known; `None`: nothing.
    fn protection(&self, id: &str, to: bool) -> Option<Change> {
        let from = self
            .protected
            .as_ref()
            .map(|known| known.get(id) == Some(&true));
        (from != Some(to)).then(|| Change {
            field: "disableApiTermination".to_owned(),
            from: Some(from.map_or_else(|| NOT_READ.to_owned(), |from| from.to_string())),
            to: Some(to.to_string()),
        })
    }
}

fn is_ours(cluster: &Cluster, group: &auto_scaling_group::Observed) -> bool {
    owned::<AutoScalingGroup>(cluster, &group.name, group).is_ok()
}

/// Whether user data made the interface: ours says so, the Go tool's says nothing and is never the first.
fn is_of_user_data(cluster: &Cluster, interface: &Interface) -> bool {
    let ours = format!("wekactl {}", cluster.name);
    interface.description == ours
        || (interface.description.is_empty() && interface.device_index > 0)
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

/// The same where no settings tell of it: the stack's, if import has begun to change it.
async fn classic_without_settings(
    aws: &Aws,
    cluster: &Cluster,
    groups: &[auto_scaling_group::Observed],
) -> Result<Option<classic_load_balancer::Observed>> {
    let stack = stack::read(aws, cluster).await?;
    let Some(name) = stack.and_then(|stack| stack.classic_load_balancers.into_iter().next()) else {
        return Ok(None);
    };
    let is_attached = groups
        .iter()
        .any(|group| group.classic_load_balancers.contains(&name));
    let found = classic_load_balancer::describe(aws, &name)
        .await
        .context("reading the classic load balancer")?;
    Ok(found.filter(|found| is_attached || found.tags.contains_key(BEFORE_TAG)))
}

/// What there is of the cluster's alias, if it has one.
async fn dns_of(
    aws: &Aws,
    cluster: &Cluster,
    dns: Option<Dns>,
) -> Result<Option<(String, Vec<dns_record::Observed>)>> {
    let Some(dns) = dns else {
        return Ok(None);
    };
    let name = DnsRecord::name_of(&dns);
    let found = DnsRecord::find(aws, cluster, &name)
        .await
        .context("reading the DNS record")?;
    Ok(Some((name, found)))
}

/// Removes what was found.
///
/// # Errors
/// Every failed step, and with it what was not begun because of it; the command can be run again.
pub async fn take_down(
    aws: &Aws,
    request: &DestroyRequest,
    found: Found,
    _confirmed: &Confirmed,
) -> Result<Destroyed> {
    let Found {
        inventory,
        stored,
        machines,
        go_protected,
        classic,
        dns,
    } = found;
    let (machines, classic) = (&machines, classic.as_ref());
    let cluster = &request.cluster;
    let settings = stored.settings.as_ref();
    let before = settings.and_then(|settings| settings.before.as_ref());
    let Inventory {
        kms_keys,
        tables,
        roles,
        mut log_groups,
        layers,
        mut functions,
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
        .filter(|machine| owned::<StateMachine>(cluster, &machine.arn, machine).is_ok())
        .map(|machine| machine.arn.clone())
        .collect();
    let balancer_dns: Vec<String> = load_balancers
        .iter()
        .filter(|balancer| owned::<LoadBalancer>(cluster, &balancer.arn, balancer).is_ok())
        .map(|balancer| balancer.dns_name.clone())
        .collect();
    let role::Roles {
        by_purpose: mut roles,
        unknown,
    } = roles;

    let groups: Vec<_> = groups
        .into_iter()
        .filter(|group| is_ours(cluster, group))
        .collect();
    let groups = &groups;

    let steps = Steps::default();
    let destroyed = {
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
            let keeps = request.keep_instances;
            let frozen = groups.iter().map(|group| freeze(aws, group, keeps));
            let frozen = async { join_all(frozen).await.settle().map(drop) };
            if request.keep_instances {
                frozen.await?;
                keep(aws, cluster, groups, machines, settings).await
            } else {
                terminate(aws, cluster, machines, frozen).await
            }
        });
        let group = steps.after(&empty, async move |ids| {
            // Kept instances are out of it; the others go down, which takes minutes that the rest need not wait for.
            let force = !request.keep_instances;
            if force && !aws.run.is_plan() && !ids.is_empty() {
                instances::wait_until_terminated(aws, &ids).await?;
            }
            for group in groups {
                let row = Row::new(Kind::AutoScalingGroup, &group.name, Action::Delete);
                let work = auto_scaling_group::delete_group(aws, &group.name, force);
                aws.run.step(row, work).await?;
            }
            Ok(())
        });
        let ids = empty.clone();
        let empty = done(&empty);

        // Then the rest, at once.
        let apart = if request.keep_instances {
            &group
        } else {
            &empty
        };
        let classic_restored = steps.after(apart, async move |()| {
            let keep = request.keep_instances;
            restore_classic(aws, cluster, classic, before, keep, &machines.instances).await
        });
        let freed = steps.after(&quiet, async move |()| {
            free_from_go(aws, &go_protected).await
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
            // The listener is what refers to the other two.
            remove::<Listener>(aws, cluster, &Listener::name_of(cluster), listeners).await?;
            let balancer_name = cluster.load_balancer();
            let balancer = remove::<LoadBalancer>(aws, cluster, &balancer_name, load_balancers);
            let target_name = cluster.target_group();
            let target_group = remove::<TargetGroup>(aws, cluster, &target_name, target_groups);
            tokio::join!(balancer, target_group).settle()?;
            Ok(())
        });
        let machine = steps.after(&empty, async move |()| {
            remove::<StateMachine>(aws, cluster, &cluster.state_machine(), state_machines).await
        });
        // Each function with what only it uses, so that one that stays keeps only its own.
        let scale_roles = roles
            .remove(&RolePurpose::Function(FunctionKind::Scale))
            .unwrap_or_default();
        let each_function: Vec<(FunctionKind, Step<'_, ()>)> = FunctionKind::ALL
            .into_iter()
            .map(|kind| {
                let found = functions.remove(&kind).unwrap_or_default();
                let step = steps.after(&empty, async move |()| {
                    remove::<Function>(aws, cluster, &cluster.function(kind), found).await
                });
                (kind, step)
            })
            .collect();
        let logs_and_roles: Vec<Step<'_, ()>> = each_function
            .iter()
            .map(|(kind, function)| {
                let kind = *kind;
                // What carries no tag of ours was made by Lambda itself, for whom can not be proved.
                let logs = log_groups.remove(&kind).unwrap_or_default();
                let logs: Vec<_> = logs
                    .into_iter()
                    .filter(log_group::Observed::is_tagged)
                    .collect();
                let roles = roles
                    .remove(&RolePurpose::Function(kind))
                    .unwrap_or_default();
                steps.after(function, async move |()| {
                    let name = cluster.log_group(kind);
                    let logs = remove::<LogGroup>(aws, cluster, &name, logs);
                    tokio::join!(logs, remove_roles(aws, cluster, roles)).settle()?;
                    Ok(())
                })
            })
            .collect();
        let functions: Vec<Step<'_, ()>> =
            each_function.into_iter().map(|(_, step)| step).collect();
        let layer = steps.after(functions.clone(), async move |_| {
            remove::<LayerVersion>(aws, cluster, &cluster.layer(), layers).await
        });
        let scale = functions[SCALE].clone();
        let scale_role = steps.after(&scale, async move |()| {
            remove_scale_role(aws, request, scale_roles).await
        });
        let other_roles = steps.after((&machine, &empty), async move |_| {
            let roles = roles.into_values().flatten().chain(unknown).collect();
            remove_roles(aws, cluster, roles).await
        });

        // Table and key last: until here a failed destroy finds in the table what to give back.
        let rest: Vec<Step<'_, ()>> = [templates, api, network, machine, layer, other_roles]
            .into_iter()
            .chain(functions)
            .chain(logs_and_roles)
            .collect();
        let tried = steps.tried(rest.clone());
        let given_back = (&classic_restored, &freed);
        let storage = steps.after((&group, given_back, &tried), async move |_| {
            remove::<Table>(aws, cluster, &cluster.base(), tables).await?;
            remove::<KmsKey>(aws, cluster, &cluster.kms_alias(), kms_keys).await
        });
        let (left, ..) = tokio::join!(scale_role, storage, join_all(rest));
        Destroyed {
            backends: ids.await.map_or(0, |ids| ids.len()),
            left: left.unwrap_or_default(),
        }
    };
    match steps.result() {
        Ok(()) => Ok(destroyed),
        Err(error) => {
            tell_what_is_left(aws, cluster).await;
            Err(error)
        }
    }
}

/// After a failure: what a look at AWS finds of the cluster now, the backends first.
async fn tell_what_is_left(aws: &Aws, cluster: &Cluster) {
    let name = cluster.backends();
    let left = async {
        let (inventory, groups, tagged) = tokio::try_join!(
            Inventory::read_but_groups(aws, cluster),
            AutoScalingGroup::find(aws, cluster, &name),
            instances::describe_by_tag(aws, cluster),
        )?;
        let backends = machines(aws, cluster, &groups, tagged).await?;
        let inventory = Inventory {
            groups,
            ..inventory
        };
        anyhow::Ok((backends, inventory.names(cluster)))
    };
    match left.await {
        Ok((backends, others)) => {
            let backends: Vec<&str> = backends.iter().map(|each| each.id.as_str()).collect();
            if let Some(left) = left_of(&backends, &others) {
                aws.run.warning(left);
            }
        }
        // The failure that is told already says more than this second one.
        Err(error) => aws
            .run
            .warning(format!("what is left can not be told: {error:#}")),
    }
}

/// "left: 2 backends (i-1, i-2) and 7 other things: IAM role x and 6 more; `… --dry-run` lists them".
fn left_of(backends: &[&str], others: &[(Kind, String)]) -> Option<String> {
    let mut parts = Vec::new();
    if !backends.is_empty() {
        let named = backends.iter().take(LEFT_NAMED).copied();
        let more = (backends.len() > LEFT_NAMED).then_some("…");
        let named: Vec<&str> = named.chain(more).collect();
        let noun = if backends.len() == 1 {
            "backend"
        } else {
            "backends"
        };
        parts.push(format!("{} {noun} ({})", backends.len(), named.join(", ")));
    }
    match others {
        [] => {}
        [(kind, name)] => parts.push(format!("{kind} {name}")),
        _ => parts.push(format!("{} other things", others.len())),
    }
    (!parts.is_empty()).then(|| {
        format!(
            "left: {}; the same command with --dry-run lists all of it",
            parts.join(" and ")
        )
    })
}

/// Ends the executions under way, and waits until no function of an earlier one can still be running: a state's
/// end does not stop its function. Looks again after the wait, for a run that began with the rule's last breath.
async fn quiesce(aws: &Aws, machine_arn: &str) -> Result<()> {
    if aws.run.is_plan() {
        return Ok(());
    }
    loop {
        aws.run.begin()?;
        let (stopped, last) = tokio::try_join!(
            state_machine::stop_executions(aws, machine_arn),
            state_machine::last_run(aws, machine_arn),
        )?;
        let Some(last) = last else { return Ok(()) };
        let past = match last.ended {
            Some(ended) if stopped == 0 => ended.elapsed().unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let rest = LONGEST_FUNCTION.saturating_sub(past);
        if rest.is_zero() {
            return Ok(());
        }
        // Counted from here, not by AWS's clock: the two may differ.
        let begin = Instant::now();
        let what = "the last run's functions to end";
        wait_until(&aws.run, what, 2 * LONGEST_FUNCTION, || async move {
            Ok(match rest.checked_sub(begin.elapsed()) {
                None | Some(Duration::ZERO) => Probe::Ready(()),
                Some(rest) => Probe::Pending(format!("{} s to go", rest.as_secs() + 1)),
            })
        })
        .await?;
    }
}

/// Makes the group launch and require nothing, and marks what is being done.
async fn freeze(aws: &Aws, group: &auto_scaling_group::Observed, keeps: bool) -> Result<()> {
    let mark = if keeps { DESTROYING_KEEPING } else { "true" };
    let before: Vec<&str> = group.suspended.iter().map(String::as_str).collect();
    let mut suspended = before.clone();
    if !suspended.contains(&auto_scaling_group::LAUNCH) {
        suspended.push(auto_scaling_group::LAUNCH);
        suspended.sort_unstable();
    }
    let changes = Diff::new()
        .field("suspendedProcesses", &before, &suspended)
        .field("minSize", &group.min_size, &0)
        .field(
            &format!("tags.{DESTROYING_TAG}"),
            &group.tags.get(DESTROYING_TAG).map(String::as_str),
            &Some(mark),
        )
        .done();
    let row = Row {
        changes,
        ..Row::new(Kind::AutoScalingGroup, &group.name, Action::Update)
    };
    if aws.run.is_plan() && row.changes.is_empty() {
        return Ok(());
    }
    let work = async {
        let suspended = async { auto_scaling_group::suspend_launch(aws, &group.name).await };
        let released = async { auto_scaling_group::release(aws, group).await };
        // Tells an import after a destroy that was interrupted that the suspension is not an operator's.
        let marked = async { auto_scaling_group::mark_as_destroying(aws, &group.name, mark).await };
        tokio::join!(suspended, released, marked).settle()?;
        Ok(())
    };
    aws.run.step(row, work).await?;
    Ok(())
}

/// Sets the instances free: out of the group, without our tags, protected from termination as they were before.
/// Returns their ids.
async fn keep(
    aws: &Aws,
    cluster: &Cluster,
    groups: &[auto_scaling_group::Observed],
    machines: &Machines,
    settings: Option<&Settings>,
) -> Result<Vec<String>> {
    let before = settings.and_then(|settings| settings.before.as_ref());
    let late = latecomers(aws, cluster, machines).await?;
    let of_both = machines.instances.iter().chain(&late.instances);
    let all: Vec<&Instance> = of_both.collect();
    for group in groups {
        let late = late.instances.iter().map(|each| each.id.clone());
        let ids: Vec<String> = group.member_ids().chain(late).collect();
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
    let user_tags = settings.and_then(|settings| settings.tags_map.as_ref());
    let mut written = instances::instance_tags(cluster, user_tags.unwrap_or(&Tags::new()));
    written.retain(|key, _| !key.starts_with(TAG_PREFIX));
    let written = &written;
    let freed = all.iter().map(|&machine| async move {
        let was = before::was_protected(cluster, before, machine);
        if was.is_none() {
            aws.run.notice(format!(
                "nothing tells whether instance {} was protected from termination before: it is not protected now",
                machine.id
            ));
        }
        let was = was.unwrap_or(false);
        let (back, mut ours) = before.map(|before| before.tags_of(machine, written)).unwrap_or_default();
        ours.extend(machine.tags.keys().filter(|key| key.starts_with(TAG_PREFIX)).cloned());
        let to = back.iter().map(|(key, value)| (key, Some(value.clone())));
        let tags = to.chain(ours.iter().map(|key| (key, None))).map(|(key, to)| Change {
            field: format!("tags.{key}"),
            from: machine.tags.get(key).cloned(),
            to,
        });
        let changes = machines.protection(&machine.id, was).into_iter().chain(tags).collect();
        let row = Row { changes, ..Row::new(Kind::Instance, &machine.id, Action::Update) };
        let work = async {
            // The tags last: while they are there a later destroy still finds the instance.
            instances::set_termination_protection(aws, &machine.id, was).await?;
            if !back.is_empty() {
                instances::tag(aws, std::slice::from_ref(&machine.id), &back).await?;
            }
            instances::untag(aws, std::slice::from_ref(&machine.id), &ours).await
        };
        aws.run.step(row, work).await
    });
    join_some(CHANGES_AT_ONCE, freed).await.settle()?;
    Ok(all.iter().map(|machine| machine.id.clone()).collect())
}

/// Terminates every instance, in whatever state, and with it the interfaces that nobody else would take away; but
/// not before its group is frozen. Returns the instances' ids.
async fn terminate(
    aws: &Aws,
    cluster: &Cluster,
    machines: &Machines,
    frozen: impl Future<Output = Result<()>>,
) -> Result<Vec<String>> {
    let (frozen, (unprotected, released)) = tokio::join!(frozen, unbind(aws, machines));
    frozen?;
    released?;
    let late = latecomers(aws, cluster, machines).await?;
    let (late_unprotected, late_released) = unbind(aws, &late).await;
    late_released?;
    let all = machines.instances.iter().chain(&late.instances);
    let ids: Vec<String> = all.map(|machine| machine.id.clone()).collect();
    if ids.is_empty() {
        return Ok(ids);
    }
    let rows = ids
        .iter()
        .map(|id| Row::new(Kind::Instance, id, Action::Delete))
        .collect();
    let work = async { gather(instances::terminate(aws, &ids).await) };
    let terminated = aws.run.step_of(rows, work).await.map(drop);
    // One that could not be unprotected does not keep the others alive; the failure of either is told.
    (unprotected, late_unprotected, terminated).settle()?;
    Ok(ids)
}

/// Lifts what would keep instances alive, and what would outlive them.
async fn unbind(aws: &Aws, machines: &Machines) -> (Result<()>, Result<()>) {
    let interfaces = &machines.interfaces;
    let unprotected = machines.instances.iter().filter_map(|machine| {
        let row = Row {
            changes: vec![machines.protection(&machine.id, false)?],
            ..Row::new(Kind::Instance, &machine.id, Action::Update)
        };
        let work = instances::set_termination_protection(aws, &machine.id, false);
        Some(aws.run.step(row, work))
    });
    let released = async {
        let rows = interfaces.iter().map(|each| Row {
            changes: vec![Change {
                field: "deleteOnTermination".to_owned(),
                from: Some("false".to_owned()),
                to: Some("true".to_owned()),
            }],
            ..Row::new(Kind::NetworkInterface, &each.id, Action::Update)
        });
        let work = instances::set_delete_on_termination(aws, interfaces);
        aws.run.step_of(rows.collect(), work).await.map(drop)
    };
    let (unprotected, released) = tokio::join!(join_some(CHANGES_AT_ONCE, unprotected), released);
    (unprotected.settle().map(drop), released)
}

/// Gives the stack's classic load balancer its health check back, and its members if there still are some.
async fn restore_classic(
    aws: &Aws,
    cluster: &Cluster,
    classic: Option<&classic_load_balancer::Observed>,
    before: Option<&Before>,
    keep: bool,
    machines: &[Instance],
) -> Result<()> {
    let Some(classic) = classic else {
        return Ok(());
    };
    let stored = before.and_then(|before| before.classic_load_balancer.clone());
    let before = stored.unwrap_or_else(|| {
        let mut members: Vec<String> = before::members_in_tags(cluster, machines).collect();
        let health_check = classic.remembered().unwrap_or_else(|| {
            aws.run.notice(format!(
                "nothing tells what health check and members the classic load balancer {} had before: they stay as \
                 they are",
                classic.name
            ));
            // Leaving the group takes them out of it.
            let ours = machines.iter().map(|machine| &machine.id);
            members.extend(ours.filter(|id| classic.members.contains(id)).cloned());
            classic.health_check.clone()
        });
        classic_load_balancer::Before {
            health_check,
            members,
        }
    });
    // Also those that an earlier, interrupted destroy has set free: they carry no tag of ours any more.
    let kept: Vec<String> = if keep {
        let members = instances::describe(aws, &before.members).await?;
        members
            .into_iter()
            .filter(|each| !each.is_terminated())
            .map(|each| each.id)
            .collect()
    } else {
        Vec::new()
    };
    let mut changes = classic.changes_to(&before.health_check);
    changes.extend(classic.tags.get(BEFORE_TAG).map(|value| Change {
        field: format!("tags.{BEFORE_TAG}"),
        from: Some(value.clone()),
        to: None,
    }));
    let gone: Vec<&str> = kept
        .iter()
        .map(String::as_str)
        .filter(|id| !classic.members.iter().any(|member| member == id))
        .collect();
    changes.extend((!gone.is_empty()).then(|| Change {
        field: "instances".to_owned(),
        from: None,
        to: Some(gone.join(", ")),
    }));
    let row = Row {
        changes,
        ..Row::new(Kind::ClassicLoadBalancer, &classic.name, Action::Update)
    };
    if aws.run.is_plan() && row.changes.is_empty() {
        return Ok(());
    }
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
                "IAM role {name} is of the earlier tool, and a cluster of this name in another region uses it, or may: it \
                 is left alone"
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
        function::interfaces(aws, &function)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_one_short_line_and_the_backends_are_named() {
        let role = |name: &str| (Kind::Role, name.to_owned());
        let end = "; the same command with --dry-run lists all of it";
        for (backends, others, said) in [
            (&[][..], &[][..], None),
            (&["i-1"], &[], Some("left: 1 backend (i-1)")),
            (&[], &[role("x")], Some("left: IAM role x")),
            (
                &["i-1", "i-2"],
                &[role("x"), role("y")],
                Some("left: 2 backends (i-1, i-2) and 2 other things"),
            ),
        ] {
            let said = said.map(|said| format!("{said}{end}"));
            assert_eq!(left_of(backends, others), said);
        }
        let many = ["i-1"; 11];
        let said = left_of(&many, &[]).unwrap();
        assert!(said.starts_with("left: 11 backends (i-1, ") && said.contains(", …)"));
    }
}
