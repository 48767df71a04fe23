//! The Auto Scaling group of the backends. It launches; what is removed, and when, is the cluster's to decide,
//! so everything by which Auto Scaling would remove an instance by itself is suspended or off.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use aws_sdk_autoscaling::types::{DeletionProtection, LaunchTemplateSpecification, Tag};

use crate::aws::retry::retry_while;
use crate::aws::{Answer, Aws, AwsError, Probe, in_batches, wait_until};
use crate::cluster::names::{Cluster, DESTROYING_KEEPING, DESTROYING_TAG, VERSION_TAG};
use crate::resource::{Diff, Known, Resource, Tags, gather, touches};
use crate::run::{Change, Kind, some_of};

/// What destroy suspends, besides those that are suspended in any case.
pub const LAUNCH: &str = "Launch";
/// The processes by which Auto Scaling would replace or remove members.
pub const SUSPENDED: [&str; 4] = [
    "AZRebalance",
    "InstanceRefresh",
    "ReplaceUnhealthy",
    "Terminate",
];

const HEALTH_CHECK: &str = "EC2";
const DELETING: &str = "Delete in progress";
/// Ids in a call that attaches or detaches, and calls under way: a group is busy with one.
/// Source: Auto Scaling's API reference, `AttachInstances`, `DetachInstances`, `SetInstanceProtection`.
const ATTACHED: (usize, usize) = (20, 1);
/// The same for one that protects.
const PROTECTED: (usize, usize) = (50, 1);

/// What Auto Scaling says while it is at work on the group itself.
const BUSY: &[&str] = &[
    "ScalingActivityInProgress",
    "ResourceContention",
    "ResourceInUse",
];
const BUSY_DEADLINE: Duration = Duration::from_secs(180);
/// A template or version made a moment ago may not be known to Auto Scaling yet.
const TEMPLATE_DEADLINE: Duration = Duration::from_secs(30);
/// Detaching waits for the targets' deregistration delay, five minutes unless changed.
const EMPTY_DEADLINE: Duration = Duration::from_secs(900);
const GONE_DEADLINE: Duration = Duration::from_secs(1200);

/// `wekactl-C-Backends`.
#[derive(Debug, Clone)]
pub struct AutoScalingGroup {
    /// Its name.
    pub name: String,
    /// Id of the launch template.
    pub template_id: Known<String>,
    /// Version of the launch template, by number.
    pub template_version: Known<i64>,
    /// The subnet members are launched in.
    pub subnet_id: String,
    /// Its largest size, at creation only: later it is the operator's.
    pub max_size: i32,
    /// The target group members are registered in.
    pub target_group_arn: Known<String>,
    /// The stack's classic load balancer, where members are registered too.
    pub classic_load_balancer: Option<String>,
    /// Whether the template and the version it launches from stay, whatever they are.
    pub keeps_template: bool,
    /// Its tags, `Name` included; members get them at launch.
    pub tags: Tags,
}

/// A group in AWS.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// Its smallest size.
    pub min_size: i32,
    /// Its largest size.
    pub max_size: i32,
    /// The size it is to have.
    pub desired_capacity: i32,
    /// Its members, in every lifecycle state.
    pub instances: Vec<Member>,
    /// Suspended processes, sorted.
    pub suspended: Vec<String>,
    /// ARNs of its target groups.
    pub target_group_arns: Vec<String>,
    /// Names of its classic load balancers.
    pub classic_load_balancers: Vec<String>,
    /// Its tags.
    pub tags: Tags,
    /// Keys of the tags that members get at launch.
    pub propagated: BTreeSet<String>,
    /// Id of the launch template.
    pub template_id: Option<String>,
    /// Version of the launch template, as set: a number, `$Latest` or `$Default`.
    pub template_version: Option<String>,
    /// Its subnets, separated by commas.
    pub subnets: String,
    /// `EC2` or `ELB`.
    pub health_check_type: String,
    /// Whether new members are protected from scale-in.
    pub protects_new_instances: bool,
    /// Whether it launches by a mixed instances policy instead of the template alone.
    pub has_mixed_instances: bool,
    /// Seconds after which members are replaced.
    pub max_lifetime: Option<i32>,
    /// Whether spot members are replaced ahead of their interruption.
    pub capacity_rebalance: bool,
    /// `none`, `prevent-force-deletion`, `prevent-all-deletion`; `None` where the API does not offer it.
    pub deletion_protection: Option<String>,
    /// Whether it is being deleted.
    pub is_deleting: bool,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Instance id.
    pub id: String,
    /// Such as `InService`, `Pending`, `Standby`, `Terminating:Wait`.
    pub lifecycle: String,
    /// What the health check says.
    pub is_healthy: bool,
    /// Whether it is protected from scale-in.
    pub is_protected: bool,
    /// Its zone.
    pub availability_zone: String,
    /// The version it was launched from; `None`: it was attached.
    pub template_version: Option<String>,
}

impl Observed {
    /// Ids of its members, in whatever lifecycle state.
    pub fn member_ids(&self) -> impl Iterator<Item = String> + '_ {
        self.instances.iter().map(|member| member.id.clone())
    }

    /// Ids of the members that it has launched itself; the others were attached.
    pub fn launched_ids(&self) -> impl Iterator<Item = &str> {
        let launched = self
            .instances
            .iter()
            .filter(|member| member.template_version.is_some());
        launched.map(|member| member.id.as_str())
    }

    /// Ids of the members in service that are not protected from scale-in.
    pub fn unprotected_ids(&self) -> impl Iterator<Item = &str> {
        let unprotected = self
            .instances
            .iter()
            .filter(|member| member.is_in_service() && !member.is_protected);
        unprotected.map(|member| member.id.as_str())
    }

    /// Whether a destroy has begun with it.
    pub fn is_half_destroyed(&self) -> bool {
        self.tags.contains_key(DESTROYING_TAG)
    }

    /// Whether that destroy keeps the instances.
    pub fn is_being_left(&self) -> bool {
        (self.tags.get(DESTROYING_TAG)).is_some_and(|value| value == DESTROYING_KEEPING)
    }
}

impl Member {
    /// Whether it is a full member.
    pub fn is_in_service(&self) -> bool {
        self.lifecycle == "InService"
    }
}

impl AutoScalingGroup {
    fn template(&self) -> Result<LaunchTemplateSpecification> {
        Ok(LaunchTemplateSpecification::builder()
            .launch_template_id(self.template_id.get()?)
            .version(self.template_version.get()?.to_string())
            .build())
    }

    fn aws_tags(&self) -> Vec<Tag> {
        self.tags
            .iter()
            .map(|(key, value)| {
                Tag::builder()
                    .resource_id(&self.name)
                    .resource_type("auto-scaling-group")
                    .key(key)
                    .value(value)
                    .propagate_at_launch(true)
                    .build()
            })
            .collect()
    }
}

impl Resource for AutoScalingGroup {
    const KIND: Kind = Kind::AutoScalingGroup;
    type Observed = Observed;

    fn name(&self) -> &str {
        &self.name
    }

    /// One that is being deleted counts as absent.
    async fn find(aws: &Aws, _cluster: &Cluster, name: &str) -> Result<Vec<Observed>> {
        let found = describe(aws, name).await?;
        Ok(found
            .into_iter()
            .filter(|group| !group.is_deleting)
            .collect())
    }

    fn tags(found: &Observed) -> Option<&Tags> {
        Some(&found.tags)
    }

    fn changes(&self, found: &Observed) -> Vec<Change> {
        let suspended: BTreeSet<&str> = found
            .suspended
            .iter()
            .map(String::as_str)
            .chain(SUSPENDED)
            // An operator's own suspension stays.
            .filter(|process| !(found.is_half_destroyed() && *process == LAUNCH))
            .collect();
        let mut diff = Diff::new();
        if !self.keeps_template {
            diff = diff
                .known(
                    "launchTemplate.id",
                    &found.template_id,
                    &self.template_id.map(|id| Some(id.clone())),
                )
                .known(
                    "launchTemplate.version",
                    &found.template_version,
                    &self
                        .template_version
                        .map(|version| Some(version.to_string())),
                );
        }
        diff = diff
            .field("mixedInstancesPolicy", &found.has_mixed_instances, &false)
            .field("vpcZoneIdentifier", &found.subnets, &self.subnet_id)
            .field(
                "healthCheckType",
                &found.health_check_type.as_str(),
                &HEALTH_CHECK,
            )
            .field(
                "newInstancesProtectedFromScaleIn",
                &found.protects_new_instances,
                &true,
            )
            .field("maxInstanceLifetime", &found.max_lifetime, &None)
            .field("capacityRebalance", &found.capacity_rebalance, &false)
            .field(
                "suspendedProcesses",
                &found
                    .suspended
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>(),
                &suspended.into_iter().collect(),
            );
        // An operator may protect it better than we do.
        if found.deletion_protection.as_deref() == Some(DeletionProtection::None.as_str()) {
            diff = diff.field(
                "deletionProtection",
                &DeletionProtection::None.as_str(),
                &DeletionProtection::PreventForceDeletion.as_str(),
            );
        }
        // Foreign target groups and load balancers stay.
        let is_attached = self
            .target_group_arn
            .value()
            .is_some_and(|arn| found.target_group_arns.contains(arn));
        if !is_attached {
            diff = diff.known(
                "targetGroups",
                &found.target_group_arns,
                &self
                    .target_group_arn
                    .map(|arn| with(&found.target_group_arns, arn)),
            );
        }
        if let Some(name) = &self.classic_load_balancer
            && !found.classic_load_balancers.contains(name)
        {
            diff = diff.field(
                "loadBalancers",
                &found.classic_load_balancers,
                &with(&found.classic_load_balancers, name),
            );
        }
        let mut changes = diff.tags(&found.tags, &self.tags).done();
        for key in self.tags.keys() {
            let is_compared = key != VERSION_TAG && found.tags.contains_key(key);
            if is_compared && !found.propagated.contains(key) {
                changes.push(Change {
                    field: format!("tags.{key}.propagateAtLaunch"),
                    from: Some("false".to_owned()),
                    to: Some("true".to_owned()),
                });
            }
        }
        changes
    }

    async fn create(&self, aws: &Aws) -> Result<Observed> {
        let request = aws
            .autoscaling()
            .create_auto_scaling_group()
            .auto_scaling_group_name(&self.name)
            .launch_template(self.template()?)
            .min_size(0)
            .max_size(self.max_size)
            .desired_capacity(0)
            .new_instances_protected_from_scale_in(true)
            .health_check_type(HEALTH_CHECK)
            .vpc_zone_identifier(&self.subnet_id)
            .target_group_arns(self.target_group_arn.get()?)
            .set_load_balancer_names(
                self.classic_load_balancer
                    .as_ref()
                    .map(|name| vec![name.clone()]),
            )
            .deletion_protection(DeletionProtection::PreventForceDeletion)
            .capacity_rebalance(false)
            .set_tags(Some(self.aws_tags()));
        let create = || {
            retry_while(&aws.run, TEMPLATE_DEADLINE, is_unknown_template, || async {
                request.clone().send().await.answer()
            })
        };
        let mut created = create().await;
        if let Err(error) = &created
            && AwsError::of(error).is_some_and(|cause| cause.is(&["AlreadyExists"]))
            && describe(aws, &self.name)
                .await?
                .is_some_and(|group| group.is_deleting)
        {
            wait_until_gone(aws, &self.name).await?;
            created = create().await;
        }
        created?;
        let (suspended, made) = tokio::join!(
            suspend(aws, &self.name, &SUSPENDED),
            describe(aws, &self.name)
        );
        suspended.context("suspending its processes")?;
        let made = made?.context("AWS does not know the group it has just made")?;
        Ok(Observed {
            suspended: SUSPENDED.map(ToOwned::to_owned).to_vec(),
            ..made
        })
    }

    async fn update(&self, aws: &Aws, found: Observed, changes: &[Change]) -> Result<Observed> {
        let group = &self.name;
        retry_while(&aws.run, BUSY_DEADLINE, is_busy, || async {
            aws.autoscaling()
                .create_or_update_tags()
                .set_tags(Some(self.aws_tags()))
                .send()
                .await
                .answer()
        })
        .await
        .context("tagging it")?;
        let settings = [
            "launchTemplate",
            "mixedInstancesPolicy",
            "vpcZoneIdentifier",
            "healthCheckType",
            "newInstancesProtectedFromScaleIn",
            "maxInstanceLifetime",
            "capacityRebalance",
            "deletionProtection",
        ];
        if settings.iter().any(|setting| touches(changes, setting)) {
            let protect = touches(changes, "deletionProtection")
                .then_some(DeletionProtection::PreventForceDeletion);
            // Named again it would be checked again, and refused without its image.
            let template = match self.keeps_template {
                true => None,
                false => Some(self.template()?),
            };
            let request = aws
                .autoscaling()
                .update_auto_scaling_group()
                .auto_scaling_group_name(group)
                .set_launch_template(template)
                .vpc_zone_identifier(&self.subnet_id)
                .health_check_type(HEALTH_CHECK)
                .new_instances_protected_from_scale_in(true)
                .capacity_rebalance(false)
                // 0 takes a lifetime away; where there is none it is not mentioned.
                .set_max_instance_lifetime(touches(changes, "maxInstanceLifetime").then_some(0))
                .set_deletion_protection(protect);
            retry_while(
                &aws.run,
                BUSY_DEADLINE,
                |error| is_busy(error) || is_unknown_template(error),
                || async { request.clone().send().await.answer() },
            )
            .await
            .context("changing its settings")?;
        }
        if touches(changes, "suspendedProcesses") {
            suspend(aws, group, &SUSPENDED)
                .await
                .context("suspending its processes")?;
            if found.is_half_destroyed() {
                resume(aws, group, LAUNCH)
                    .await
                    .context("letting it launch again")?;
            }
        }
        if touches(changes, "targetGroups") {
            let arn = self.target_group_arn.get()?;
            retry_while(&aws.run, BUSY_DEADLINE, is_busy, || async {
                aws.autoscaling()
                    .attach_load_balancer_target_groups()
                    .auto_scaling_group_name(group)
                    .target_group_arns(arn)
                    .send()
                    .await
                    .answer()
            })
            .await
            .context("attaching its target group")?;
        }
        if touches(changes, "loadBalancers") {
            retry_while(&aws.run, BUSY_DEADLINE, is_busy, || async {
                aws.autoscaling()
                    .attach_load_balancers()
                    .auto_scaling_group_name(group)
                    .set_load_balancer_names(self.classic_load_balancer.clone().map(|it| vec![it]))
                    .send()
                    .await
                    .answer()
            })
            .await
            .context("attaching its classic load balancer")?;
        }
        describe(aws, group)
            .await?
            .context("AWS does not know the group any more")
    }

    /// Without force: a group that still has members is not deleted, but waited for.
    async fn delete(aws: &Aws, found: Observed) -> Result<()> {
        delete_group(aws, &found.name, false).await
    }
}

/// The group, also while it is being deleted.
///
/// # Errors
/// AWS's failures.
pub async fn describe(aws: &Aws, name: &str) -> Result<Option<Observed>> {
    let answer = aws
        .autoscaling()
        .describe_auto_scaling_groups()
        .auto_scaling_group_names(name)
        .send()
        .await
        .answer()?;
    Ok(answer.auto_scaling_groups().first().map(observed))
}

/// Makes the group launch nothing any more. A group that is gone launches nothing either.
///
/// # Errors
/// AWS's failures.
pub async fn suspend_launch(aws: &Aws, name: &str) -> Result<()> {
    gone_is_fine(suspend(aws, name, &[LAUNCH]).await)
}

/// Writes on the group that destroy has begun with it: should that be interrupted, an import knows whose the
/// suspension of `Launch` is. A group that is gone needs no mark.
///
/// # Errors
/// AWS's failures.
pub async fn mark_as_destroying(aws: &Aws, name: &str, mark: &str) -> Result<()> {
    let tag = Tag::builder()
        .resource_type("auto-scaling-group")
        .resource_id(name)
        .key(DESTROYING_TAG)
        .value(mark)
        .propagate_at_launch(false)
        .build();
    gone_is_fine(
        retry_while(&aws.run, BUSY_DEADLINE, is_busy, async || {
            let request = aws.autoscaling().create_or_update_tags().tags(tag.clone());
            request.send().await.answer().map(|_| ())
        })
        .await,
    )
}

/// Takes that back, once the group has its members again: as long as the mark is there, an import looks for them.
///
/// # Errors
/// AWS's failures.
pub async fn unmark_as_destroying(aws: &Aws, name: &str) -> Result<()> {
    let tag = Tag::builder()
        .resource_type("auto-scaling-group")
        .resource_id(name)
        .key(DESTROYING_TAG)
        .build();
    retry_while(&aws.run, BUSY_DEADLINE, is_busy, async || {
        let request = aws.autoscaling().delete_tags().tags(tag.clone());
        request.send().await.answer().map(drop)
    })
    .await
}

/// Lets the group become empty, and be deleted: its smallest size becomes 0, its deletion protection ends.
///
/// # Errors
/// AWS's failures.
pub async fn release(aws: &Aws, group: &Observed) -> Result<()> {
    let lift = group
        .deletion_protection
        .as_deref()
        .filter(|protection| *protection != DeletionProtection::None.as_str())
        .map(|_| DeletionProtection::None);
    let request = aws
        .autoscaling()
        .update_auto_scaling_group()
        .auto_scaling_group_name(&group.name)
        .min_size(0)
        .set_deletion_protection(lift);
    gone_is_fine(
        retry_while(&aws.run, BUSY_DEADLINE, is_busy, || async {
            request.clone().send().await.answer().map(|_| ())
        })
        .await,
    )
}

/// Makes instances members; those that are members of this very group already stay so.
///
/// # Errors
/// AWS's failures: an instance that is not running, in another zone or in another group; the largest size. One such
/// instance does not keep the others.
pub async fn attach(aws: &Aws, name: &str, ids: &[String]) -> Result<()> {
    let errors = in_batches(&aws.run, "attaching", ids, ATTACHED, |batch| async move {
        let mut missing = batch;
        loop {
            let request = aws
                .autoscaling()
                .attach_instances()
                .auto_scaling_group_name(name)
                .set_instance_ids(Some(missing.clone()));
            let attached = retry_while(&aws.run, BUSY_DEADLINE, is_busy, || async {
                request.clone().send().await.answer()
            })
            .await;
            let Err(error) = attached else { break };
            if !refuses(&error, "already part of") {
                return Err(error);
            }
            // The answer to an earlier try was lost: what is missing now decides.
            let members = member_ids(aws, name).await?;
            let before = missing.len();
            missing.retain(|id| !members.contains(id));
            if missing.is_empty() {
                break;
            }
            if missing.len() == before {
                return Err(error);
            }
        }
        Ok(())
    });
    gather(errors.await)
}

/// Protects members from scale-in, or ends that.
///
/// # Errors
/// AWS's failures: a member that is neither in service nor standby, which does not keep the others.
pub async fn protect(aws: &Aws, name: &str, ids: &[String], is_protected: bool) -> Result<()> {
    let errors = in_batches(&aws.run, "protecting", ids, PROTECTED, |batch| async move {
        retry_while(&aws.run, BUSY_DEADLINE, is_busy, || async {
            aws.autoscaling()
                .set_instance_protection()
                .auto_scaling_group_name(name)
                .set_instance_ids(Some(batch.clone()))
                .protected_from_scale_in(is_protected)
                .send()
                .await
                .answer()
                .map(drop)
        })
        .await
    });
    gather(errors.await)
}

/// Takes members out of the group, which launches none in their place; those that are no members are out.
/// Those that are only about to become members, or to leave, are waited for: one of them would fail all that go with
/// it. Returns when AWS has taken the order: use [`wait_until_empty`] for the end.
///
/// # Errors
/// AWS's failures; the deadline.
pub async fn detach(aws: &Aws, name: &str, ids: &[String]) -> Result<()> {
    let what = format!("Auto Scaling group {name} to let its members go");
    wait_until(&aws.run, &what, EMPTY_DEADLINE, async || {
        let group = describe(aws, name).await?.unwrap_or_default();
        let (ready, mut waiting) = departing(&group.instances, ids);
        let mut errors = in_batches(
            &aws.run,
            "detaching",
            &ready,
            ATTACHED,
            |batch| async move { gone_is_fine(detach_batch(aws, name, &batch).await) },
        )
        .await;
        // What the members are now decides.
        let has_moved = |error: &mut anyhow::Error| {
            refuses(error, "not part of") || refuses(error, "is not in")
        };
        waiting.extend(
            errors
                .extract_if(.., has_moved)
                .map(|error| format!("{error:#}")),
        );
        gather(errors)?;
        Ok(if waiting.is_empty() {
            Probe::Ready(())
        } else {
            Probe::Pending(some_of(&waiting))
        })
    })
    .await
}

/// Of the members that are to go: ids of those that can be detached now, and what the others are like that can not.
/// Those that are detaching already are neither.
fn departing(members: &[Member], ids: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut ready, mut waiting) = (Vec::new(), Vec::new());
    for member in members.iter().filter(|member| ids.contains(&member.id)) {
        match member.lifecycle.as_str() {
            // Source: Auto Scaling user guide, on the lifecycle: from no other state they leave by that way.
            "InService" | "Standby" => ready.push(member.id.clone()),
            "Detaching" | "Detached" => {}
            other => waiting.push(format!("{} is {other}", member.id)),
        }
    }
    (ready, waiting)
}

async fn detach_batch(aws: &Aws, name: &str, ids: &[String]) -> Result<()> {
    let request = aws
        .autoscaling()
        .detach_instances()
        .auto_scaling_group_name(name)
        .set_instance_ids(Some(ids.to_vec()))
        .should_decrement_desired_capacity(true);
    retry_while(&aws.run, BUSY_DEADLINE, is_busy, || async {
        request.clone().send().await.answer().map(|_| ())
    })
    .await
}

/// Waits until the group has no members, in whatever lifecycle state.
///
/// # Errors
/// AWS's failures; the deadline.
pub async fn wait_until_empty(aws: &Aws, name: &str) -> Result<()> {
    let what = format!("Auto Scaling group {name} to be empty");
    wait_until(&aws.run, &what, EMPTY_DEADLINE, || async {
        let members = describe(aws, name)
            .await?
            .map_or(0, |group| group.instances.len());
        Ok(if members == 0 {
            Probe::Ready(())
        } else {
            Probe::Pending(format!("{members} members"))
        })
    })
    .await
}

/// Deletes the group and waits until it is gone. With force AWS terminates the members; without, it must become
/// empty first.
///
/// # Errors
/// AWS's failures; the deadlines.
pub async fn delete_group(aws: &Aws, name: &str, force: bool) -> Result<()> {
    if !force {
        wait_until_empty(aws, name).await?;
    }
    gone_is_fine(
        retry_while(&aws.run, BUSY_DEADLINE, is_busy, || async {
            aws.autoscaling()
                .delete_auto_scaling_group()
                .auto_scaling_group_name(name)
                .force_delete(force)
                .send()
                .await
                .answer()
                .map(|_| ())
        })
        .await,
    )?;
    wait_until_gone(aws, name).await
}

async fn wait_until_gone(aws: &Aws, name: &str) -> Result<()> {
    let what = format!("Auto Scaling group {name} to be gone");
    wait_until(&aws.run, &what, GONE_DEADLINE, || async {
        Ok(match describe(aws, name).await? {
            None => Probe::Ready(()),
            Some(group) => Probe::Pending(format!("{} members", group.instances.len())),
        })
    })
    .await
}

async fn suspend(aws: &Aws, name: &str, processes: &[&str]) -> Result<()> {
    retry_while(&aws.run, BUSY_DEADLINE, is_busy, || async {
        aws.autoscaling()
            .suspend_processes()
            .auto_scaling_group_name(name)
            .set_scaling_processes(Some(processes.iter().map(ToString::to_string).collect()))
            .send()
            .await
            .answer()
            .map(|_| ())
    })
    .await
}

async fn resume(aws: &Aws, name: &str, process: &str) -> Result<()> {
    retry_while(&aws.run, BUSY_DEADLINE, is_busy, || async {
        aws.autoscaling()
            .resume_processes()
            .auto_scaling_group_name(name)
            .scaling_processes(process)
            .send()
            .await
            .answer()
            .map(drop)
    })
    .await
}

async fn member_ids(aws: &Aws, name: &str) -> Result<BTreeSet<String>> {
    let group = describe(aws, name).await?.unwrap_or_default();
    Ok(group
        .instances
        .into_iter()
        .map(|member| member.id)
        .collect())
}

fn with(list: &[String], one_more: &str) -> Vec<String> {
    let mut list = list.to_vec();
    list.push(one_more.to_owned());
    list
}

fn is_busy(error: &AwsError) -> bool {
    error.is(BUSY)
}

fn is_unknown_template(error: &AwsError) -> bool {
    error.says("ValidationError", "launch template")
        && ["not exist", "n't exist", "not found"]
            .iter()
            .any(|words| error.says("ValidationError", words))
}

fn refuses(error: &anyhow::Error, words: &str) -> bool {
    AwsError::of(error).is_some_and(|cause| cause.says("ValidationError", words))
}

fn gone_is_fine(done: Result<()>) -> Result<()> {
    match done {
        Err(error) if refuses(&error, "not found") => Ok(()),
        done => done,
    }
}

fn observed(group: &aws_sdk_autoscaling::types::AutoScalingGroup) -> Observed {
    let tags = || group.tags().iter().filter(|tag| tag.key().is_some());
    let mut suspended: Vec<String> = group
        .suspended_processes()
        .iter()
        .filter_map(|process| process.process_name().map(ToOwned::to_owned))
        .collect();
    suspended.sort();
    let template = group.launch_template();
    Observed {
        name: group
            .auto_scaling_group_name()
            .unwrap_or_default()
            .to_owned(),
        arn: group
            .auto_scaling_group_arn()
            .unwrap_or_default()
            .to_owned(),
        min_size: group.min_size().unwrap_or_default(),
        max_size: group.max_size().unwrap_or_default(),
        desired_capacity: group.desired_capacity().unwrap_or_default(),
        instances: group.instances().iter().map(member).collect(),
        suspended,
        target_group_arns: group.target_group_arns().to_vec(),
        classic_load_balancers: group.load_balancer_names().to_vec(),
        tags: tags()
            .map(|tag| {
                (
                    tag.key().unwrap_or_default().to_owned(),
                    tag.value().unwrap_or_default().to_owned(),
                )
            })
            .collect(),
        propagated: tags()
            .filter(|tag| tag.propagate_at_launch() == Some(true))
            .filter_map(|tag| tag.key().map(ToOwned::to_owned))
            .collect(),
        template_id: template.and_then(|it| it.launch_template_id().map(ToOwned::to_owned)),
        template_version: template.and_then(|it| it.version().map(ToOwned::to_owned)),
        subnets: group.vpc_zone_identifier().unwrap_or_default().to_owned(),
        health_check_type: group.health_check_type().unwrap_or_default().to_owned(),
        protects_new_instances: group
            .new_instances_protected_from_scale_in()
            .unwrap_or(false),
        has_mixed_instances: group.mixed_instances_policy().is_some(),
        // 0 is what takes a lifetime away.
        max_lifetime: group.max_instance_lifetime().filter(|seconds| *seconds > 0),
        capacity_rebalance: group.capacity_rebalance().unwrap_or(false),
        deletion_protection: group.deletion_protection().map(ToString::to_string),
        is_deleting: group
            .status()
            .is_some_and(|status| status.eq_ignore_ascii_case(DELETING)),
    }
}

fn member(instance: &aws_sdk_autoscaling::types::Instance) -> Member {
    Member {
        id: instance.instance_id().unwrap_or_default().to_owned(),
        lifecycle: instance
            .lifecycle_state()
            .map_or_else(String::new, ToString::to_string),
        is_healthy: instance
            .health_status()
            .is_some_and(|status| status.eq_ignore_ascii_case("healthy")),
        is_protected: instance.protected_from_scale_in().unwrap_or(false),
        availability_zone: instance.availability_zone().unwrap_or_default().to_owned(),
        template_version: instance
            .launch_template()
            .and_then(|template| template.version().map(ToOwned::to_owned)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::error::Effect;
    use crate::cluster::names::CLUSTER_TAG;

    fn wanted() -> AutoScalingGroup {
        AutoScalingGroup {
            name: "wekactl-prod-Backends".into(),
            template_id: Known::Value("lt-1".into()),
            template_version: Known::Value(2),
            subnet_id: "subnet-1".into(),
            max_size: 42,
            target_group_arn: Known::Value("arn:tg".into()),
            classic_load_balancer: Some("prod-elb".into()),
            keeps_template: false,
            tags: Tags::from([
                (CLUSTER_TAG.into(), "prod".into()),
                (VERSION_TAG.into(), "2".into()),
            ]),
        }
    }

    #[test]
    fn only_full_members_are_detached_and_the_others_waited_for() {
        let member = |id: &str, lifecycle: &str| Member {
            id: id.into(),
            lifecycle: lifecycle.into(),
            is_healthy: true,
            is_protected: true,
            availability_zone: "a".into(),
            template_version: None,
        };
        let members = [
            member("i-1", "InService"),
            member("i-2", "Pending:Wait"),
            member("i-3", "Detaching"),
            member("i-4", "Standby"),
            member("i-5", "InService"),
            member("i-6", "Terminating"),
        ];
        let ids = ["i-1", "i-2", "i-3", "i-4", "i-6", "i-7"].map(ToOwned::to_owned);
        let (ready, waiting) = departing(&members, &ids);
        assert_eq!(ready, ["i-1", "i-4"]);
        assert_eq!(waiting, ["i-2 is Pending:Wait", "i-6 is Terminating"]);
    }

    fn found() -> Observed {
        Observed {
            name: "wekactl-prod-Backends".into(),
            // An operator's sizes, process, target group and tag.
            min_size: 3,
            max_size: 9,
            desired_capacity: 6,
            suspended: [
                "AZRebalance",
                "AlarmNotification",
                "InstanceRefresh",
                "ReplaceUnhealthy",
                "Terminate",
            ]
            .map(Into::into)
            .to_vec(),
            target_group_arns: vec!["arn:other".into(), "arn:tg".into()],
            classic_load_balancers: vec!["prod-elb".into()],
            tags: Tags::from([
                (CLUSTER_TAG.into(), "prod".into()),
                (VERSION_TAG.into(), "1".into()),
                ("team".into(), "storage".into()),
            ]),
            propagated: BTreeSet::from([CLUSTER_TAG.into()]),
            template_id: Some("lt-1".into()),
            template_version: Some("2".into()),
            subnets: "subnet-1".into(),
            health_check_type: "EC2".into(),
            protects_new_instances: true,
            deletion_protection: Some("prevent-force-deletion".into()),
            ..Observed::default()
        }
    }

    #[test]
    fn what_is_the_operators_is_no_difference() {
        assert_eq!(wanted().changes(&found()), []);
        for protection in [None, Some("prevent-all-deletion".into())] {
            let found = Observed {
                deletion_protection: protection,
                ..found()
            };
            assert_eq!(wanted().changes(&found), []);
        }
    }

    #[test]
    fn every_field_that_drifts_is_reported() {
        type Drift = fn(&mut Observed);
        let drifts: &[(&str, Drift)] = &[
            ("launchTemplate.id", |found| {
                found.template_id = Some("lt-2".into());
            }),
            ("launchTemplate.version", |found| {
                found.template_version = Some("$Latest".into());
            }),
            ("mixedInstancesPolicy", |found| {
                found.has_mixed_instances = true;
            }),
            ("vpcZoneIdentifier", |found| {
                found.subnets = "subnet-1,subnet-2".into();
            }),
            ("healthCheckType", |found| {
                found.health_check_type = "ELB".into();
            }),
            ("newInstancesProtectedFromScaleIn", |found| {
                found.protects_new_instances = false;
            }),
            ("maxInstanceLifetime", |found| {
                found.max_lifetime = Some(86_400);
            }),
            ("capacityRebalance", |found| {
                found.capacity_rebalance = true;
            }),
            ("deletionProtection", |found| {
                found.deletion_protection = Some("none".into());
            }),
            ("suspendedProcesses", |found| {
                found.suspended.retain(|process| process != "Terminate");
            }),
            ("targetGroups", |found| {
                found.target_group_arns.truncate(1);
            }),
            ("loadBalancers", |found| {
                found.classic_load_balancers.clear();
            }),
            ("tags.wekactl.io/cluster_name", |found| {
                found.tags.insert(CLUSTER_TAG.into(), "other".into());
            }),
            ("tags.wekactl.io/cluster_name", |found| {
                found.tags.remove(CLUSTER_TAG);
            }),
            ("tags.wekactl.io/cluster_name.propagateAtLaunch", |found| {
                found.propagated.clear();
            }),
        ];
        for (field, drift) in drifts {
            let mut found = found();
            drift(&mut found);
            let changes = wanted().changes(&found);
            assert_eq!(changes.len(), 1, "{field}: {changes:?}");
            assert_eq!(changes[0].field, *field);
        }
    }

    #[test]
    fn foreign_processes_and_target_groups_stay() {
        let mut found = found();
        found.suspended = vec!["AlarmNotification".into()];
        found.target_group_arns = vec!["arn:other".into()];
        let to: Vec<_> = wanted()
            .changes(&found)
            .into_iter()
            .filter_map(|change| change.to)
            .collect();
        assert_eq!(
            to,
            [
                r#"["AZRebalance", "AlarmNotification", "InstanceRefresh", "ReplaceUnhealthy", "Terminate"]"#,
                r#"["arn:other", "arn:tg"]"#,
            ]
        );
    }

    #[test]
    fn a_suspended_launch_is_an_operators_unless_destroy_has_begun() {
        let mut found = found();
        found.suspended.push(LAUNCH.into());
        found.suspended.sort();
        assert_eq!(wanted().changes(&found), []);
        found.tags.insert(DESTROYING_TAG.into(), "true".into());
        let changes = wanted().changes(&found);
        let to: Vec<_> = changes
            .iter()
            .filter_map(|change| change.to.as_deref())
            .collect();
        assert_eq!(
            to,
            [
                r#"["AZRebalance", "AlarmNotification", "InstanceRefresh", "ReplaceUnhealthy", "Terminate"]"#
            ]
        );
    }

    #[test]
    fn what_this_run_decides_is_different() {
        let wanted = AutoScalingGroup {
            template_version: Known::AfterApply,
            target_group_arn: Known::AfterApply,
            ..wanted()
        };
        let changes = wanted.changes(&found());
        let fields: Vec<_> = changes.iter().map(|change| change.field.as_str()).collect();
        assert_eq!(fields, ["launchTemplate.version", "targetGroups"]);
        assert_eq!(changes[1].to.as_deref(), Some("(known after apply)"));
    }

    #[test]
    fn a_template_that_stays_is_not_compared() {
        let wanted = AutoScalingGroup {
            template_version: Known::Value(3),
            ..wanted()
        };
        assert_eq!(wanted.changes(&found()).len(), 1);
        let keeps = AutoScalingGroup {
            keeps_template: true,
            ..wanted
        };
        assert_eq!(keeps.changes(&found()), []);
    }

    #[test]
    fn only_a_template_that_is_not_known_yet_is_waited_for() {
        let error = |message: &str| AwsError {
            code: Some("ValidationError".into()),
            message: message.into(),
            request_id: None,
            effect: Effect::None,
        };
        let valid = "You must use a valid fully-formed launch template. ";
        for (message, passes) in [
            (
                "The specified launch template, with template ID lt-1, does not exist.",
                true,
            ),
            (
                "Could not find the specified version 2 for the launch template with ID lt-1: it doesn't exist.",
                true,
            ),
            (
                "The requested configuration is currently not supported.",
                false,
            ),
            ("The image id '[ami-1]' is not permitted", false),
        ] {
            let error = error(&format!("{valid}{message}"));
            assert_eq!(is_unknown_template(&error), passes, "{message}");
        }
    }
}
