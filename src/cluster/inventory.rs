//! What AWS has of a cluster, all found at once, by names alone.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::names::{Cluster, FunctionKind};
use super::seal_keys;
use crate::aws::Aws;
use crate::resource::{Resource, owned};
use crate::resources::{
    api_key, auto_scaling_group, event_rule, function, kms_key, launch_template, layer_version,
    listener, load_balancer, log_group, rest_api, role, state_machine, table, target_group,
    usage_plan,
};
use crate::run::Kind;

/// Everything, each kind as its own type; several of one are duplicates, the one to keep first.
#[derive(Default)]
#[expect(missing_docs, reason = "the fields are the kinds")]
pub struct Inventory {
    pub kms_keys: Vec<kms_key::Observed>,
    pub tables: Vec<table::Observed>,
    pub roles: role::Roles,
    pub log_groups: BTreeMap<FunctionKind, Vec<log_group::Observed>>,
    pub layers: Vec<layer_version::Observed>,
    pub functions: BTreeMap<FunctionKind, Vec<function::Observed>>,
    pub rest_apis: Vec<rest_api::Observed>,
    pub api_keys: Vec<api_key::Observed>,
    pub usage_plans: Vec<usage_plan::Observed>,
    pub launch_templates: Vec<launch_template::Observed>,
    pub groups: Vec<auto_scaling_group::Observed>,
    pub load_balancers: Vec<load_balancer::Observed>,
    pub target_groups: Vec<target_group::Observed>,
    pub listeners: Vec<listener::Observed>,
    pub state_machines: Vec<state_machine::Observed>,
    pub event_rules: Vec<event_rule::Observed>,
}

impl Inventory {
    /// Finds everything but the Auto Scaling group: whoever needs the rest needs that one sooner, for its members.
    ///
    /// # Errors
    /// The first failure: half an inventory would make a plan that is wrong.
    pub async fn read_but_groups(aws: &Aws, cluster: &Cluster) -> Result<Self> {
        let layers = async { Ok((layers(aws, cluster).await?, ())) };
        let (inventory, ()) = Self::read_around(aws, cluster, layers).await?;
        Ok(inventory)
    }

    /// The same, with the [`layers`] from whoever has something to do as soon as they are known, and what came of that.
    ///
    /// # Errors
    /// As [`Inventory::read_but_groups`], and those of `layers`.
    pub async fn read_around<T>(
        aws: &Aws,
        cluster: &Cluster,
        layers: impl Future<Output = Result<(Vec<layer_version::Observed>, T)>>,
    ) -> Result<(Self, T)> {
        let storage = async {
            let (keys, tables) = tokio::try_join!(
                find::<kms_key::KmsKey>(aws, cluster, cluster.kms_alias()),
                find::<table::Table>(aws, cluster, cluster.base()),
            )?;
            let table_key = tables.first().and_then(|table| table.key_arn.as_deref());
            let keys = kms_key::with_the_tables(aws, cluster, keys, table_key)
                .await
                .context("reading the table's KMS key")?;
            anyhow::Ok((keys, tables))
        };
        let roles = async {
            role::find_all(aws, cluster)
                .await
                .context("reading the IAM roles")
        };
        let code = async {
            tokio::try_join!(
                by_function(|kind| find::<log_group::LogGroup>(
                    aws,
                    cluster,
                    cluster.log_group(kind)
                )),
                by_function(|kind| find::<function::Function>(
                    aws,
                    cluster,
                    cluster.function(kind)
                )),
                layers,
            )
        };
        let api = async {
            tokio::try_join!(
                find::<rest_api::RestApi>(aws, cluster, cluster.backends()),
                find::<api_key::ApiKey>(aws, cluster, cluster.backends()),
                find::<usage_plan::UsagePlan>(aws, cluster, cluster.backends()),
            )
        };
        let network = async {
            tokio::try_join!(
                find::<launch_template::LaunchTemplate>(aws, cluster, cluster.launch_template()),
                find::<target_group::TargetGroup>(aws, cluster, cluster.target_group()),
                async {
                    let name = cluster.load_balancer();
                    let listeners = async |arn: &str| {
                        listener::Listener::find_on(aws, cluster, arn)
                            .await
                            .context("reading its listeners")
                    };
                    load_balancer::find_with(aws, &name, listeners)
                        .await
                        .with_context(|| format!("reading load balancer {name}"))
                },
            )
        };
        let schedule = async {
            tokio::try_join!(
                find::<state_machine::StateMachine>(aws, cluster, cluster.state_machine()),
                find::<event_rule::EventRule>(aws, cluster, cluster.event_rule()),
            )
        };
        // Boxed: the futures of sixty calls in one would be moved about as one very large value.
        let (storage, roles, code, api, network, schedule) = tokio::try_join!(
            Box::pin(storage),
            Box::pin(roles),
            Box::pin(code),
            Box::pin(api),
            Box::pin(network),
            Box::pin(schedule)
        )?;
        let (kms_keys, tables) = storage;
        let (log_groups, functions, (layers, more)) = code;
        let (rest_apis, api_keys, usage_plans) = api;
        let (launch_templates, target_groups, (load_balancers, listeners)) = network;
        let (state_machines, event_rules) = schedule;
        let inventory = Self {
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
            groups: Vec::new(),
            load_balancers,
            target_groups,
            listeners,
            state_machines,
            event_rules,
        };
        Ok((inventory, more))
    }

    /// That nothing of the cluster's names is somebody else's. Before the first change: an import that can not end
    /// had better not begin.
    ///
    /// # Errors
    /// The first that is, as [`NotOurs`](crate::resource::NotOurs).
    pub fn check_owned(&self, cluster: &Cluster) -> Result<()> {
        check::<kms_key::KmsKey>(cluster, &cluster.kms_alias(), &self.kms_keys)?;
        check::<table::Table>(cluster, &cluster.base(), &self.tables)?;
        for (kind, found) in &self.log_groups {
            check::<log_group::LogGroup>(cluster, &cluster.log_group(*kind), found)?;
        }
        for (kind, found) in &self.functions {
            check::<function::Function>(cluster, &cluster.function(*kind), found)?;
        }
        check::<rest_api::RestApi>(cluster, &cluster.backends(), &self.rest_apis)?;
        check::<api_key::ApiKey>(cluster, &cluster.backends(), &self.api_keys)?;
        check::<usage_plan::UsagePlan>(cluster, &cluster.backends(), &self.usage_plans)?;
        check::<launch_template::LaunchTemplate>(
            cluster,
            &cluster.launch_template(),
            &self.launch_templates,
        )?;
        check::<auto_scaling_group::AutoScalingGroup>(cluster, &cluster.backends(), &self.groups)?;
        check::<load_balancer::LoadBalancer>(
            cluster,
            &cluster.load_balancer(),
            &self.load_balancers,
        )?;
        check::<listener::Listener>(
            cluster,
            &listener::Listener::name_of(cluster),
            &self.listeners,
        )?;
        check::<target_group::TargetGroup>(cluster, &cluster.target_group(), &self.target_groups)?;
        check::<state_machine::StateMachine>(
            cluster,
            &cluster.state_machine(),
            &self.state_machines,
        )?;
        check::<event_rule::EventRule>(cluster, &cluster.event_rule(), &self.event_rules)
    }

    /// Everything that is provably this cluster's and this region's, by kind and name; duplicates once each.
    pub fn names(&self, cluster: &Cluster) -> Vec<(Kind, String)> {
        let mut names = Vec::new();
        add::<kms_key::KmsKey>(&mut names, cluster, &cluster.kms_alias(), &self.kms_keys);
        add::<table::Table>(&mut names, cluster, &cluster.base(), &self.tables);
        for role in self
            .roles
            .by_purpose
            .values()
            .flatten()
            .chain(&self.roles.unknown)
        {
            if !role.go {
                names.push((Kind::Role, role.name.clone()));
            }
        }
        for (kind, found) in &self.log_groups {
            if found.iter().any(log_group::Observed::is_tagged) {
                add::<log_group::LogGroup>(&mut names, cluster, &cluster.log_group(*kind), found);
            }
        }
        add::<layer_version::LayerVersion>(&mut names, cluster, &cluster.layer(), &self.layers);
        for (kind, found) in &self.functions {
            add::<function::Function>(&mut names, cluster, &cluster.function(*kind), found);
        }
        let backends = cluster.backends();
        add::<rest_api::RestApi>(&mut names, cluster, &backends, &self.rest_apis);
        add::<api_key::ApiKey>(&mut names, cluster, &backends, &self.api_keys);
        add::<usage_plan::UsagePlan>(&mut names, cluster, &backends, &self.usage_plans);
        let template = cluster.launch_template();
        add::<launch_template::LaunchTemplate>(
            &mut names,
            cluster,
            &template,
            &self.launch_templates,
        );
        add::<auto_scaling_group::AutoScalingGroup>(&mut names, cluster, &backends, &self.groups);
        let balancer = cluster.load_balancer();
        add::<load_balancer::LoadBalancer>(&mut names, cluster, &balancer, &self.load_balancers);
        let target_group = cluster.target_group();
        add::<target_group::TargetGroup>(&mut names, cluster, &target_group, &self.target_groups);
        let machine = cluster.state_machine();
        add::<state_machine::StateMachine>(&mut names, cluster, &machine, &self.state_machines);
        add::<event_rule::EventRule>(
            &mut names,
            cluster,
            &cluster.event_rule(),
            &self.event_rules,
        );
        names
    }

    /// Ids of the group's members.
    pub fn members(&self) -> impl Iterator<Item = String> + '_ {
        self.groups
            .iter()
            .flat_map(auto_scaling_group::Observed::member_ids)
    }

    /// The sealing keys of the functions there are.
    pub fn seal_keys(&self) -> seal_keys::Phase {
        let first = |(kind, found): (&FunctionKind, &Vec<function::Observed>)| {
            let keys = found.first()?.environment.seal_key.clone()?;
            Some((*kind, keys))
        };
        self.functions.iter().filter_map(first).collect()
    }

    /// ARNs of the roles that functions, state machine and rule refer to.
    pub fn referenced_roles(&self) -> Vec<String> {
        let functions = self
            .functions
            .values()
            .flatten()
            .map(|function| function.role_arn.clone());
        let machines = self
            .state_machines
            .iter()
            .map(|machine| machine.role_arn.clone());
        functions
            .chain(machines)
            .chain(
                self.event_rules
                    .iter()
                    .flat_map(event_rule::Observed::role_arns),
            )
            .collect()
    }
}

fn check<R: Resource>(cluster: &Cluster, name: &str, found: &[R::Observed]) -> Result<()> {
    found
        .iter()
        .try_for_each(|found| owned::<R>(cluster, name, found))
}

fn add<R: Resource>(
    names: &mut Vec<(Kind, String)>,
    cluster: &Cluster,
    name: &str,
    found: &[R::Observed],
) {
    let ours = found
        .iter()
        .filter(|found| owned::<R>(cluster, name, found).is_ok());
    names.extend(ours.map(|_| (R::KIND, name.to_owned())));
}

/// The versions of the cluster's layer.
///
/// # Errors
/// AWS's failures.
pub async fn layers(aws: &Aws, cluster: &Cluster) -> Result<Vec<layer_version::Observed>> {
    find::<layer_version::LayerVersion>(aws, cluster, cluster.layer()).await
}

async fn find<R: Resource>(aws: &Aws, cluster: &Cluster, name: String) -> Result<Vec<R::Observed>> {
    R::find(aws, cluster, &name)
        .await
        .with_context(|| format!("reading {} {name}", R::KIND))
}

/// The same for each of the five functions, at once; those that have none are left out.
async fn by_function<T, F, Fut>(find: F) -> Result<BTreeMap<FunctionKind, Vec<T>>>
where
    F: Fn(FunctionKind) -> Fut,
    Fut: Future<Output = Result<Vec<T>>>,
{
    let found = FunctionKind::ALL.map(|kind| {
        let found = find(kind);
        async move { anyhow::Ok((kind, found.await?)) }
    });
    let found = futures::future::try_join_all(found).await?;
    Ok(found
        .into_iter()
        .filter(|(_, found)| !found.is_empty())
        .collect())
}
