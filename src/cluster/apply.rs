//! The order in which a cluster is made: every step begins as soon as what it needs is there.
//!
//! A step hands on what others need. Which order that makes can be read off what each step `need`s.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::join_all;
use secrecy::SecretString;

use super::before::{self, Before};
use super::credentials::try_login;
use super::discovery::{Backend, Discovered};
use super::inventory::Inventory;
use super::names::{BEFORE_TAG, Cluster, DESTROYING_TAG, FunctionKind, RolePurpose};
use super::policies::Policies;
use super::rivals;
use super::seal_keys;
use super::settings::{self, Credentials, GivenCredentials, Settings};
use super::spec::{Dns, Spec};
use super::steps::{Step, Steps, done};
use crate::aws::{Aws, CHANGES_AT_ONCE, Probe, join_some, wait_until};
use crate::bootstrap::{self, UserData};
use crate::resource::{Diff, Known, Settle as _, Tags, ensure};
use crate::resources::api_key::ApiKey;
use crate::resources::auto_scaling_group::{self, AutoScalingGroup};
use crate::resources::classic_load_balancer;
use crate::resources::dns_record::DnsRecord;
use crate::resources::event_rule::{self, EventRule};
use crate::resources::function::{self, Function, Vpc};
use crate::resources::instances;
use crate::resources::kms_key::{self, KmsKey};
use crate::resources::launch_template::{self, LaunchTemplate};
use crate::resources::layer_version::{self, LayerVersion};
use crate::resources::listener::Listener;
use crate::resources::load_balancer::LoadBalancer;
use crate::resources::log_group::LogGroup;
use crate::resources::rest_api::RestApi;
use crate::resources::role::{self, Role};
use crate::resources::state_machine::{self, StateMachine};
use crate::resources::table::Table;
use crate::resources::target_group::TargetGroup;
use crate::resources::usage_plan::UsagePlan;
use crate::run::{Action, Change, Kind, Row, some_of};

/// How long attached instances may take to be in service.
const IN_SERVICE_DEADLINE: Duration = Duration::from_secs(300);

/// What one command wants of it that another does not.
pub(super) struct Goal<'a> {
    /// The credentials to store; `None`: those that are stored stay.
    pub(super) credentials: Option<&'a GivenCredentials>,
    /// The login that is tried on the cluster before the automation begins.
    pub(super) to_try: Option<&'a Credentials>,
    /// Whether the rule that starts the automation is made where it is missing.
    pub(super) starts_automation: bool,
    /// Whether another import may be making the same cluster: as long as one has not come to its end.
    pub(super) has_rivals: bool,
    /// Whether the functions get a new sealing key.
    pub(super) rotates_keys: bool,
}

/// Makes the cluster as wanted: creates, repairs, or does nothing. Returns the name under which clients reach it,
/// the alias or the load balancer's own; `None` in a dry run that does not know it yet.
///
/// # Errors
/// Every failed step; the command can be run again.
pub(super) async fn apply(aws: &Aws, found: Discovered, goal: &Goal<'_>) -> Result<Option<String>> {
    let addresses = found.addresses();
    let Discovered {
        spec,
        inventory,
        stored,
        backends,
        network_cards,
        classic_load_balancer: classic,
        go_protected,
        dns_records,
        code,
    } = found;
    let (spec, stored, backends, classic, code) =
        (&spec, &stored, &backends, classic.as_ref(), &code);
    let (cluster, tags, identity) = (&spec.cluster, &spec.user_tags, aws.identity().await?);
    let mut before = Before::of(cluster, stored.settings.as_ref(), backends, tags, classic);
    before.go_protected.extend(go_protected);
    let before = &before;
    let seal_keys = seal_keys::phases(&inventory.seal_keys(), goal.rotates_keys);
    // A dry run shows where it ends.
    let (first_keys, later_keys) = match seal_keys.split_last() {
        Some((last, _)) if aws.run.is_plan() => (last, &[][..]),
        _ => (&seal_keys[0], &seal_keys[1..]),
    };
    let last_keys = later_keys.last().unwrap_or(first_keys);
    let referenced = inventory.referenced_roles();
    let members: BTreeSet<String> = inventory.members().collect();
    let half_destroyed = inventory
        .groups
        .iter()
        .any(auto_scaling_group::Observed::is_half_destroyed);
    let unverified = unverified(&inventory, backends);
    let roles_before = inventory.roles.names();
    let has_functions = !inventory.functions.is_empty();
    let join_before = inventory
        .functions
        .get(&FunctionKind::Join)
        .and_then(|found| found.first())
        .cloned();
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

    let steps = Steps::default();
    let name = {
        // Storage.
        let table_key = tables.first().and_then(|table| table.key_arn.clone());
        let mut kms_keys = kms_key::referenced_first(kms_keys, table_key.as_deref());
        let surplus_keys = kms_keys.split_off(kms_keys.len().min(1));
        let key = steps
            .add(async move { ensure(aws, cluster, &KmsKey::new(cluster, tags), kms_keys).await });
        let table = steps.after(&key, async move |key| {
            let table = Table::new(
                cluster,
                key.map(|key| key.arn.clone()),
                spec.stack_id.as_deref(),
                tags,
            );
            ensure(aws, cluster, &table, tables).await
        });
        let surplus_removed = steps.after(&table, async move |_| {
            kms_key::remove_surplus(aws, cluster, surplus_keys).await
        });
        let wanted_settings = Settings::of(
            spec,
            stored.settings.as_ref(),
            Some(before.clone()).filter(|before| !before.is_empty()),
        );
        let settings = steps.after(&table, async move |_| {
            settings::ensure_settings(aws, cluster, stored, &wanted_settings).await
        });

        // What is the stack's and gets changed: remembered twice, then changed.
        let remembered = steps.add(remember(aws, cluster, before, backends, classic));
        let protected = steps.after((&settings, &remembered), async move |_| {
            protect_from_termination(aws, backends).await
        });
        let classic_configured = steps.after((&settings, &remembered), async move |_| {
            configure_classic(aws, classic).await
        });

        // Roles. Only some policies name the key; the others need not wait for it.
        let mut roles = roles.of_this_region(&referenced, !event_rules.is_empty());
        let policies = |key_arn| Policies {
            cluster,
            region: aws.region(),
            identity,
            use_dynamodb_endpoint: spec.use_dynamodb_endpoint,
            key_arn,
        };
        let roles: BTreeMap<RolePurpose, Step<'_, Known<role::Observed>>> = RolePurpose::all()
            .map(|purpose| {
                let found = roles.remove(&purpose).unwrap_or_default();
                let make = async move |policy| {
                    let trust = policies(Known::AfterApply).trust(purpose);
                    let role =
                        Role::new(cluster, purpose, aws.region(), trust, policy, tags, &found);
                    ensure(aws, cluster, &role, found).await
                };
                let step = match policies(Known::AfterApply).permissions(purpose) {
                    policy @ Known::Value(_) => steps.add(make(policy)),
                    Known::AfterApply => steps.after(&key, async move |key| {
                        make(policies(key.map(|key| key.arn.clone())).permissions(purpose)).await
                    }),
                };
                (purpose, step)
            })
            .collect();

        // The way a new instance asks to join.
        let api = steps.add(async move {
            let function = cluster.function(FunctionKind::Join);
            let wanted = RestApi {
                name: cluster.backends(),
                private_vpc: spec.private_subnet.then(|| spec.vpc_id.clone()),
                join_function_arn: aws.arn("lambda", &format!("function:{function}")).await?,
                tags: cluster.hostgroup_tags(tags),
            };
            ensure(aws, cluster, &wanted, rest_apis).await
        });
        let api_key = steps.add(async move {
            let wanted = ApiKey {
                name: cluster.backends(),
                tags: cluster.hostgroup_tags(tags),
            };
            ensure(aws, cluster, &wanted, api_keys).await
        });
        let usage_plan = steps.after((&api, &api_key), async move |(api, key)| {
            let plan = UsagePlan {
                name: cluster.backends(),
                api_id: api.map(|api| api.id.clone()),
                key_id: key.map(|key| key.id.clone()),
                tags: cluster.hostgroup_tags(tags),
            };
            ensure(aws, cluster, &plan, usage_plans).await
        });

        let made_roles: Vec<_> = roles.values().cloned().collect();
        let single = steps.after(
            (&usage_plan, made_roles, (&api, &api_key)),
            async move |(plan, roles, (api, key))| {
                let (Some(plan), Some(api), Some(key), true) =
                    (plan.value(), api.value(), key.value(), goal.has_rivals)
                else {
                    return Ok(());
                };
                let made = roles.iter().filter_map(Known::value);
                let ours = rivals::Ours {
                    roles: roles_before
                        .into_iter()
                        .chain(made.map(|role| role.name.clone()))
                        .collect(),
                    rest_api: api.id.clone(),
                    api_key: key.id.clone(),
                    usage_plan: plan.id.clone(),
                };
                rivals::check_nothing_twice(aws, cluster, &ours).await
            },
        );

        // The way clients reach the cluster.
        let balancer = steps.add(async move {
            let mut subnets = vec![
                spec.backends.subnet_id.clone(),
                spec.additional_subnet.clone(),
            ];
            subnets.sort();
            let mut tags = cluster.tags(tags);
            tags.extend(spec.dns.iter().flat_map(Dns::tags));
            let wanted = LoadBalancer {
                name: cluster.load_balancer(),
                subnets,
                security_groups: spec.backends.security_groups.clone(),
                tags,
            };
            ensure(aws, cluster, &wanted, load_balancers).await
        });
        let target_group = steps.add(async move {
            let wanted = TargetGroup {
                name: cluster.target_group(),
                vpc_id: spec.vpc_id.clone(),
                tags: cluster.tags(tags),
            };
            ensure(aws, cluster, &wanted, target_groups).await
        });
        let listener = steps.after(
            (&balancer, &target_group),
            async move |(balancer, target)| {
                let arns = (
                    balancer.map(|found| found.arn.clone()),
                    target.map(|found| found.arn.clone()),
                );
                ensure(
                    aws,
                    cluster,
                    &Listener::new(cluster, arns.0, arns.1, cluster.tags(tags)),
                    listeners,
                )
                .await
            },
        );
        let dns_record = steps.after((&balancer, &settings), async move |(balancer, _)| {
            let Some(dns) = &spec.dns else { return Ok(()) };
            let target = (
                balancer.map(|found| found.dns_name.clone()),
                balancer.map(|found| found.zone_id.clone()),
            );
            ensure(
                aws,
                cluster,
                &DnsRecord::new(dns, target.0, target.1),
                dns_records,
            )
            .await?;
            Ok(())
        });

        // The group.
        let template = steps.after((&api, &api_key), async move |(api, key)| {
            let user_data = match (api.value(), key.value()) {
                (Some(api), Some(key)) => Known::Value(bootstrap::user_data(&UserData {
                    region: aws.region().to_owned(),
                    subnet_id: spec.backends.subnet_id.clone(),
                    security_groups: spec.backends.security_groups.clone(),
                    interfaces: spec.cores.interfaces(),
                    network_cards,
                    cluster: cluster.name.clone(),
                    join_url: api.url(aws, &cluster.backends()).await?,
                    api_key: key.value.clone(),
                })?),
                _ => Known::AfterApply,
            };
            let wanted = template_of(spec, aws.region(), user_data);
            let made = ensure(aws, cluster, &wanted, launch_templates).await?;
            let version = wanted.version(&made);
            Ok((made, version))
        });
        let group = steps.after(
            (&template, &target_group),
            async move |((template, template_version), target)| {
                let wanted = AutoScalingGroup {
                    name: cluster.backends(),
                    template_id: template.map(|found| found.id.clone()),
                    template_version,
                    subnet_id: spec.backends.subnet_id.clone(),
                    max_size: spec.max_size,
                    target_group_arn: target.map(|found| found.arn.clone()),
                    classic_load_balancer: spec.classic_load_balancer.clone(),
                    keeps_template: spec.keeps_template,
                    tags: instances::instance_tags(cluster, tags),
                };
                ensure(aws, cluster, &wanted, groups).await
            },
        );
        let attached = steps.after((&group, &settings, &remembered), async move |_| {
            attach(aws, cluster, backends, &members).await
        });
        let tagged = steps.after(&attached, async move |()| {
            tag_members(aws, spec, backends).await
        });
        let unmarked = steps.after(&attached, async move |()| {
            if half_destroyed {
                unmark(aws, &cluster.backends()).await?;
            }
            Ok(())
        });

        // The functions. Those that run already change only after the group they act on.
        let layer = steps.add(async move {
            let layer = LayerVersion::new(cluster, code.clone())
                .publish_if_new(aws, layers.clone())
                .await?;
            Ok((layer, layers))
        });
        let first = if has_functions {
            vec![attached.clone(), tagged.clone()]
        } else {
            Vec::new()
        };
        let functions: Vec<Step<'_, (Function, Known<function::Observed>)>> = FunctionKind::ALL
            .into_iter()
            .map(|kind| {
                let log_group = log_groups.remove(&kind).unwrap_or_default();
                let log_group = steps.add(async move {
                    let wanted = LogGroup {
                        name: cluster.log_group(kind),
                        tags: cluster.hostgroup_tags(tags),
                    };
                    ensure(aws, cluster, &wanted, log_group).await
                });
                let found = functions.remove(&kind).unwrap_or_default();
                let role = &roles[&RolePurpose::Function(kind)];
                steps.after(
                    (role, &layer, (&log_group, first.clone())),
                    async move |(role, (layer, _), _)| {
                        let wanted = Function {
                            kind,
                            name: cluster.function(kind),
                            role_arn: role.map(|role| role.arn.clone()),
                            layer_arn: layer.map(|layer| layer.arn.clone()),
                            architecture: code.architecture,
                            environment: function::environment(
                                cluster,
                                aws.region(),
                                kind,
                                spec.use_dynamodb_endpoint,
                                first_keys.get(&kind),
                            ),
                            vpc: (kind == FunctionKind::Scale).then(|| {
                                Vpc::new(&spec.backends.subnet_id, &spec.backends.security_groups)
                            }),
                            log_group: cluster.log_group(kind),
                            tags: cluster.hostgroup_tags(tags),
                        };
                        let made = ensure(aws, cluster, &wanted, found).await?;
                        Ok((wanted, made))
                    },
                )
            })
            .collect();
        let rotated = steps.after(functions.clone(), async move |functions| {
            for (after, keys) in (1..).zip(later_keys) {
                let why = if after == later_keys.len() {
                    let machine = state_machine::arn(aws, &cluster.state_machine()).await?;
                    state_machine::wait_for_runs_under_way(aws, &machine).await?;
                    "nothing sealed with the old key is under way: the functions forget it"
                } else {
                    "every function can open with the new key: they seal with it from now on"
                };
                aws.run.notice(why);
                give_keys(aws, cluster, keys, &functions).await?;
            }
            Ok(())
        });
        let scale = functions.iter().zip(FunctionKind::ALL);
        let scale = scale.filter(|(_, kind)| *kind == FunctionKind::Scale);
        let scale: Vec<_> = scale.map(|(step, _)| step.clone()).collect();
        let tried = steps.after(scale, async move |_| match goal.to_try {
            Some(login) => try_login(aws, cluster, login, addresses).await.map(drop),
            None => Ok(()),
        });
        // Those that are stored may be the ones that Weka takes.
        let first = match stored.credentials {
            Some(_) => vec![tried.clone()],
            None => Vec::new(),
        };
        let stored_credentials =
            steps.after((&table, first), async move |_| match goal.credentials {
                Some(given) => settings::ensure_credentials(aws, cluster, stored, given).await,
                None => Ok(()),
            });
        let permission = steps.after((&functions[0], &api), async move |(_, api)| {
            function::allow_api(
                aws,
                cluster,
                join_before.as_ref(),
                &api.map(|api| api.id.clone()),
            )
            .await
        });
        let versions = steps.after(&layer, async move |(kept, found)| match kept {
            Known::Value(kept) => layer_version::versions(aws, cluster, &kept, found).await,
            Known::AfterApply => Ok(found),
        });
        let pruned = steps.after(
            (&layer, &versions, (functions.clone(), &single)),
            async move |((kept, _), versions, _)| {
                // Every function has the kept one by now.
                match kept.value() {
                    Some(kept) => layer_version::prune(aws, &kept.arn, &versions).await,
                    None => Ok(()),
                }
            },
        );

        // What runs every minute, last: automation never meets a half-made cluster.
        let first = if has_functions {
            functions.clone()
        } else {
            Vec::new()
        };
        let machine = steps.after(
            (&roles[&RolePurpose::StateMachine], first),
            async move |(role, _)| {
                let wanted = StateMachine {
                    name: cluster.state_machine(),
                    role_arn: role.map(|role| role.arn.clone()),
                    functions: function_arns(aws, cluster).await?,
                    tags: cluster.hostgroup_tags(tags),
                };
                ensure(aws, cluster, &wanted, state_machines).await
            },
        );
        let made: Vec<Step<'_, ()>> = [
            surplus_removed,
            settings,
            stored_credentials,
            protected,
            classic_configured,
            done(&usage_plan),
            done(&listener),
            dns_record,
            tagged,
            unmarked,
            permission,
            tried,
            single,
            rotated,
            pruned,
            done(&machine),
        ]
        .into_iter()
        .chain(functions.iter().map(done))
        .collect();
        let rule = steps.after(
            (
                &roles[&RolePurpose::EventRule],
                made.clone(),
                (&key, functions.clone(), &template),
            ),
            async move |(role, _, (key, functions, (template, _)))| {
                if event_rules.is_empty() && !goal.starts_automation {
                    aws.run.warning(format!(
                        "nothing runs the automation of cluster {name}: its event rule {} is missing, because an import \
                         did not end or somebody removed it. Only import makes it: wekactl cluster import --name {name} \
                         --username USER",
                        cluster.event_rule(),
                        name = cluster.name,
                    ));
                    return Ok(());
                }
                if !unverified.is_empty() && !aws.run.is_plan() {
                    verify(aws, cluster, &unverified, event_rules.is_empty()).await?;
                }
                if let (Some(key), Some(template), true) =
                    (key.value(), template.value(), goal.has_rivals)
                {
                    let functions = with_keys(functions, last_keys);
                    let version = template.version;
                    rivals::check_as_made(aws, cluster, &key.arn, version, &functions).await?;
                }
                for notice in event_rules.iter().filter_map(event_rule::Observed::notice) {
                    aws.run.notice(notice);
                }
                let wanted = EventRule {
                    name: cluster.event_rule(),
                    state_machine_arn: state_machine::arn(aws, &cluster.state_machine()).await?,
                    role_arn: role.map(|role| role.arn.clone()),
                    tags: cluster.hostgroup_tags(tags),
                };
                ensure(aws, cluster, &wanted, event_rules).await?;
                Ok(())
            },
        );

        // Everything at once; steps wait for each other, not for their place in a list.
        tokio::join!(rule, join_all(made), join_all(roles.into_values()));
        match &spec.dns {
            Some(dns) => Some(dns.alias.clone()),
            None => balancer
                .await
                .and_then(|found| found.value().map(|found| found.dns_name.clone())),
        }
    };
    steps.result()?;
    Ok(name)
}

/// The functions as they are wanted in the end: those that seal with these keys.
fn with_keys(
    functions: Vec<(Function, Known<function::Observed>)>,
    keys: &seal_keys::Phase,
) -> Vec<Function> {
    let wanted = functions.into_iter().map(|(mut wanted, _)| {
        if let Some(keys) = keys.get(&wanted.kind) {
            wanted.environment.seal_key = Some(keys.clone());
        }
        wanted
    });
    wanted.collect()
}

/// Gives the functions that seal other keys: one phase of a rotation.
async fn give_keys(
    aws: &Aws,
    cluster: &Cluster,
    keys: &seal_keys::Phase,
    functions: &[(Function, Known<function::Observed>)],
) -> Result<()> {
    let changed = functions.iter().filter_map(|(wanted, made)| {
        let (keys, found) = (keys.get(&wanted.kind)?, made.value()?);
        let mut wanted = wanted.clone();
        wanted.environment.seal_key = Some(keys.clone());
        Some(async move { ensure(aws, cluster, &wanted, vec![found.clone()]).await })
    });
    join_all(changed).await.settle()?;
    Ok(())
}

/// The launch template of a spec.
fn template_of(spec: &Spec, region: &str, user_data: Known<SecretString>) -> LaunchTemplate {
    let cluster = &spec.cluster;
    let tags = cluster.hostgroup_tags(&spec.user_tags);
    LaunchTemplate {
        name: cluster.launch_template(),
        shape: spec.backends.clone(),
        public_address: !spec.private_subnet,
        has_gp3: launch_template::has_gp3(region),
        stays: spec.keeps_template,
        instance_tags: tags.clone(),
        volume_tags: tags.clone(),
        user_data,
        tags,
    }
}

async fn function_arns(aws: &Aws, cluster: &Cluster) -> Result<state_machine::Functions> {
    let arn = |kind| async move {
        aws.arn("lambda", &format!("function:{}", cluster.function(kind)))
            .await
    };
    Ok(state_machine::Functions {
        fetch: arn(FunctionKind::Fetch).await?,
        scale: arn(FunctionKind::Scale).await?,
        terminate: arn(FunctionKind::Terminate).await?,
        transient: arn(FunctionKind::Transient).await?,
    })
}

/// Writes what things were like into a tag on themselves, for the day the table is gone.
async fn remember(
    aws: &Aws,
    cluster: &Cluster,
    before: &Before,
    backends: &[Backend],
    classic: Option<&classic_load_balancer::Observed>,
) -> Result<()> {
    let mut by_value: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let untold = backends.iter().filter(|each| {
        let told_by = before::cluster_in_tag(&each.instance.tags);
        before.knows(&each.instance.id) && told_by != Some(cluster.name.as_str())
    });
    for backend in untold {
        let was = before.of_instance(&backend.instance.id);
        by_value
            .entry(was.tag_value(cluster))
            .or_default()
            .push(backend.instance.id.clone());
    }
    let tags = by_value.into_iter().map(|(value, ids)| async move {
        let change = Change {
            field: format!("tags.{BEFORE_TAG}"),
            from: None,
            to: Some(value.clone()),
        };
        let rows = ids.iter().map(|id| Row {
            changes: vec![change.clone()],
            ..Row::new(Kind::Instance, id, Action::Update)
        });
        aws.run
            .step_of(
                rows.collect(),
                instances::tag(aws, &ids, &Tags::from([(BEFORE_TAG.to_owned(), value)])),
            )
            .await
    });
    let classic = async {
        let (Some(classic), Some(before)) = (classic, &before.classic_load_balancer) else {
            return Ok(None);
        };
        if classic.tags.contains_key(BEFORE_TAG) || classic.changes().is_empty() {
            return Ok(None);
        }
        let change = Change {
            field: format!("tags.{BEFORE_TAG}"),
            from: None,
            to: before.health_check.to_tag(),
        };
        let row = Row {
            changes: vec![change],
            ..Row::new(Kind::ClassicLoadBalancer, &classic.name, Action::Update)
        };
        aws.run
            .step(
                row,
                classic_load_balancer::remember(aws, &classic.name, before),
            )
            .await
    };
    let (tags, classic) = tokio::join!(join_all(tags), classic);
    (tags.settle(), classic).settle()?;
    Ok(())
}

/// Nothing but the automation, and destroy, may terminate a backend.
async fn protect_from_termination(aws: &Aws, backends: &[Backend]) -> Result<()> {
    let unprotected = backends.iter().filter(|backend| !backend.protected);
    let protections = unprotected.map(|backend| async move {
        let id = &backend.instance.id;
        let change = Change {
            field: "disableApiTermination".to_owned(),
            from: Some("false".to_owned()),
            to: Some("true".to_owned()),
        };
        let row = Row {
            changes: vec![change],
            ..Row::new(Kind::Instance, id, Action::Update)
        };
        aws.run
            .step(row, instances::set_termination_protection(aws, id, true))
            .await
    });
    join_some(CHANGES_AT_ONCE, protections).await.settle()?;
    Ok(())
}

async fn configure_classic(
    aws: &Aws,
    classic: Option<&classic_load_balancer::Observed>,
) -> Result<()> {
    let Some(classic) = classic else {
        return Ok(());
    };
    let changes = classic.changes();
    if changes.is_empty() {
        aws.run.unchanged(Kind::ClassicLoadBalancer, &classic.name);
        return Ok(());
    }
    let row = Row {
        changes,
        ..Row::new(Kind::ClassicLoadBalancer, &classic.name, Action::Update)
    };
    aws.run
        .step(row, classic_load_balancer::configure(aws, &classic.name))
        .await?;
    Ok(())
}

/// Makes the backends members of the group.
async fn attach(
    aws: &Aws,
    cluster: &Cluster,
    backends: &[Backend],
    members: &BTreeSet<String>,
) -> Result<()> {
    let ids: Vec<String> = backends
        .iter()
        .map(|backend| backend.instance.id.clone())
        .filter(|id| !members.contains(id))
        .collect();
    let group = cluster.backends();
    if ids.is_empty() {
        aws.run.unchanged(Kind::GroupMembers, &group);
        return Ok(());
    }
    let change = Change {
        field: "instances".to_owned(),
        from: None,
        to: Some(ids.join(", ")),
    };
    let row = Row {
        changes: vec![change],
        ..Row::new(Kind::GroupMembers, &group, Action::Update)
    };
    aws.run
        .step(row, auto_scaling_group::attach(aws, &group, &ids))
        .await?;
    Ok(())
}

/// The group is whole again: what destroy has written on it goes.
async fn unmark(aws: &Aws, group: &str) -> Result<()> {
    let change = Change {
        field: format!("tags.{DESTROYING_TAG}"),
        from: Some("true".to_owned()),
        to: None,
    };
    let row = Row {
        changes: vec![change],
        ..Row::new(Kind::AutoScalingGroup, group, Action::Update)
    };
    aws.run
        .step(row, auto_scaling_group::unmark_as_destroying(aws, group))
        .await?;
    Ok(())
}

/// Attaching gives an instance none of the group's tags: they are written on it, once it is a member.
/// That they are there says ever after that it was one.
async fn tag_members(aws: &Aws, spec: &Spec, backends: &[Backend]) -> Result<()> {
    let wanted = instances::instance_tags(&spec.cluster, &spec.user_tags);
    let rows: Vec<Row> = backends
        .iter()
        .map(|backend| Row {
            changes: Diff::new().tags(&backend.instance.tags, &wanted).done(),
            ..Row::new(Kind::Instance, &backend.instance.id, Action::Update)
        })
        .filter(|row| !row.changes.is_empty())
        .collect();
    let lacking: Vec<String> = rows.iter().map(|row| row.name.clone()).collect();
    aws.run
        .step_of(rows, instances::tag(aws, &lacking, &wanted))
        .await?;
    Ok(())
}

/// Ids of the backends of which nothing shows yet that they are in service and protected: of all, before the
/// automation begins; later of those that this run attaches, and of those that are seen not to be.
fn unverified(inventory: &Inventory, backends: &[Backend]) -> Vec<String> {
    let members: BTreeSet<String> = inventory.members().collect();
    let unprotected: BTreeSet<&str> = inventory
        .groups
        .iter()
        .flat_map(auto_scaling_group::Observed::unprotected_ids)
        .collect();
    let ids = backends.iter().map(|backend| &backend.instance.id);
    ids.filter(|id| {
        inventory.event_rules.is_empty()
            || !members.contains(*id)
            || unprotected.contains(id.as_str())
    })
    .cloned()
    .collect()
}

/// That these backends are in service and protected and, before the automation begins, counted. Members that are not
/// protected, as attached ones may not be, are protected.
async fn verify(aws: &Aws, cluster: &Cluster, ids: &[String], is_first: bool) -> Result<()> {
    let group = cluster.backends();
    let what = format!("the backends to be in service and protected in group {group}");
    wait_until(&aws.run, &what, IN_SERVICE_DEADLINE, || async {
        let found = auto_scaling_group::describe(aws, &group)
            .await
            .with_context(|| format!("reading group {group}"))?;
        let Some(found) = found else {
            return Ok(Probe::Failed("the group is gone".to_owned()));
        };
        let mut waiting = Vec::new();
        let mut unprotected = Vec::new();
        for id in ids {
            match found.instances.iter().find(|member| member.id == *id) {
                None => waiting.push(format!("{id} is no member")),
                Some(member) if !member.is_in_service() => {
                    waiting.push(format!("{id} is {}", member.lifecycle));
                }
                Some(member) if !member.is_protected => unprotected.push(id.clone()),
                Some(_) => {}
            }
        }
        if !unprotected.is_empty() {
            let change = Change {
                field: "protectedFromScaleIn".to_owned(),
                from: Some("false".to_owned()),
                to: Some("true".to_owned()),
            };
            let rows = unprotected.iter().map(|id| Row {
                changes: vec![change.clone()],
                ..Row::new(Kind::GroupMembers, id, Action::Update)
            });
            aws.run
                .step_of(
                    rows.collect(),
                    auto_scaling_group::protect(aws, &group, &unprotected, true),
                )
                .await?;
            return Ok(Probe::Pending(
                "members have just been protected".to_owned(),
            ));
        }
        let in_service = found
            .instances
            .iter()
            .filter(|member| member.is_in_service())
            .count();
        // Later, fewer may be wanted than there are: an operator's shrinking that is under way.
        if is_first
            && i32::try_from(in_service).is_ok_and(|in_service| found.desired_capacity < in_service)
        {
            waiting.push(format!(
                "{in_service} members are in service, {} are wanted",
                found.desired_capacity
            ));
        }
        Ok(if waiting.is_empty() {
            Probe::Ready(())
        } else {
            Probe::Pending(some_of(&waiting))
        })
    })
    .await
}
