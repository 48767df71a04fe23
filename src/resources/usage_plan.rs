//! The usage plan, which ties the API key to the API's stage.

use anyhow::{Context, Result};
use aws_sdk_apigateway::config::Config;
use aws_sdk_apigateway::types::{
    ApiStage, Op, PatchOperation, UsagePlan as Plan, UsagePlanKey as PlanKey,
};

use super::rest_api::{GONE, PAGE, STAGE, ours_else_all, tag};
use crate::aws::{Answer, Aws, AwsError, once};
use crate::cluster::names::{CLUSTER_TAG, Cluster};
use crate::resource::{Diff, Known, Resource, Tags, touches};
use crate::run::{Change, Kind};

/// What AWS says of a change of the stages that starts from what no longer is.
const STALE: &[&str] = &["NotFoundException", "ConflictException"];

/// So often the stages are changed, each time from what they have just become.
const ROUNDS: usize = 3;

/// `wekactl-C-Backends`.
#[derive(Debug, Clone)]
pub struct UsagePlan {
    /// Its name.
    pub name: String,
    /// The API whose stage it opens.
    pub api_id: Known<String>,
    /// The key it opens the stage to.
    pub key_id: Known<String>,
    /// Its tags.
    pub tags: Tags,
}

/// A usage plan in AWS.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Its id.
    pub id: String,
    /// `<api id>:<stage>` each.
    stages: Vec<String>,
    key_ids: Vec<String>,
    tags: Tags,
    /// The Go tool gave its plans no tags: such a one is known by the key in it, which has them.
    has_ours: bool,
}

impl UsagePlan {
    fn stage(&self) -> Known<String> {
        self.api_id.map(|id| format!("{id}:{STAGE}"))
    }

    async fn add_key(&self, aws: &Aws, plan_id: &str) -> Result<()> {
        let key_id = self.key_id.get()?;
        let added = aws
            .apigateway()
            .create_usage_plan_key()
            .usage_plan_id(plan_id)
            .key_id(key_id)
            .key_type("API_KEY")
            .send()
            .await
            .answer();
        let Err(error) = added else { return Ok(()) };
        // Sent again after a lost answer, it is refused for what the first one did; but not only for that.
        if error.is(&["ConflictException"])
            && aws
                .apigateway()
                .get_usage_plan_key()
                .usage_plan_id(plan_id)
                .key_id(key_id)
                .send()
                .await
                .if_found(GONE)?
                .is_some()
        {
            return Ok(());
        }
        Err(error).context("adding the API key to it")
    }
}

impl UsagePlan {
    /// Adds the stage to the plan, and takes out those whose API is gone: an API that was made again leaves the stage of
    /// the one before it behind. Returns what the plan has then.
    ///
    /// AWS refuses to add what is there and to remove what is not: what was read is then older than the end of an API
    /// that this run has removed, or than what another run has done to the plan, and it is read again.
    async fn show_stage(&self, aws: &Aws, found: &Observed) -> Result<Vec<String>> {
        let mut shown = self.patch_stages(aws, &found.id, &found.stages).await;
        for _ in 1..ROUNDS {
            match &shown {
                Err(error) if AwsError::of(error).is_some_and(|cause| cause.is(STALE)) => {
                    let plan = aws.apigateway().get_usage_plan();
                    let plan = plan.usage_plan_id(&found.id).send().await.answer()?;
                    let stages = stages(plan.api_stages());
                    shown = self.patch_stages(aws, &found.id, &stages).await;
                }
                _ => break,
            }
        }
        shown
    }

    /// One change from these stages to what they shall be, if there is a difference.
    async fn patch_stages(
        &self,
        aws: &Aws,
        plan_id: &str,
        found: &[String],
    ) -> Result<Vec<String>> {
        let stage = self.stage().get()?.clone();
        let gone = gone(aws, found).await?;
        let mut patches: Vec<PatchOperation> =
            gone.iter().map(|stage| patch(Op::Remove, stage)).collect();
        let mut stages = found.to_vec();
        stages.retain(|stage| !gone.contains(stage));
        if !stages.contains(&stage) {
            patches.push(patch(Op::Add, &stage));
            stages.push(stage);
        }
        if !patches.is_empty() {
            aws.apigateway()
                .update_usage_plan()
                .usage_plan_id(plan_id)
                .set_patch_operations(Some(patches))
                .send()
                .await
                .answer()?;
        }
        Ok(stages)
    }
}

/// As AWS writes them in a change.
fn stages(stages: &[ApiStage]) -> Vec<String> {
    let stages = stages.iter();
    stages
        .map(|stage| {
            let (api, name) = (stage.api_id(), stage.stage());
            format!("{}:{}", api.unwrap_or_default(), name.unwrap_or_default())
        })
        .collect()
}

impl Resource for UsagePlan {
    const KIND: Kind = Kind::UsagePlan;
    type Observed = Observed;

    fn name(&self) -> &str {
        &self.name
    }

    async fn find(aws: &Aws, cluster: &Cluster, name: &str) -> Result<Vec<Observed>> {
        let ours = named(aws, cluster, name).await?;
        let mut found = futures::future::try_join_all(
            ours.iter().map(|plan| observe(aws, cluster, name, plan)),
        )
        .await?;
        // Plans do not tell their age; the one in use is the one that has everything.
        found.sort_by_key(|plan| {
            (
                plan.key_ids.is_empty(),
                plan.stages.is_empty(),
                plan.id.clone(),
            )
        });
        Ok(found)
    }

    fn tags(found: &Observed) -> Option<&Tags> {
        (!found.has_ours).then_some(&found.tags)
    }

    fn row_name(name: &str, found: &Observed) -> String {
        format!("{name} id {}", found.id)
    }

    fn changes(&self, found: &Observed) -> Vec<Change> {
        // What others have added stays.
        let with = |list: &[String], item: &String| {
            let mut list = list.to_vec();
            if !list.contains(item) {
                list.push(item.clone());
            }
            list
        };
        let stages = self.stage().map(|stage| with(&found.stages, stage));
        let keys = self.key_id.map(|key| with(&found.key_ids, key));
        Diff::new()
            .known("apiStages", &found.stages, &stages)
            .known("keys", &found.key_ids, &keys)
            .tags(&found.tags, &self.tags)
            .done()
    }

    async fn create(&self, aws: &Aws) -> Result<Observed> {
        let once = Config::builder().retry_config(once());
        let made = aws
            .apigateway()
            .create_usage_plan()
            .name(&self.name)
            .api_stages(
                ApiStage::builder()
                    .api_id(self.api_id.get()?)
                    .stage(STAGE)
                    .build(),
            )
            .set_tags(Some(self.tags.clone().into_iter().collect()))
            .customize()
            .config_override(once)
            .send()
            .await
            .answer()?;
        let id = made.id.unwrap_or_default();
        self.add_key(aws, &id).await?;
        Ok(Observed {
            id,
            stages: vec![self.stage().get()?.clone()],
            key_ids: vec![self.key_id.get()?.clone()],
            tags: self.tags.clone(),
            has_ours: false,
        })
    }

    async fn update(&self, aws: &Aws, mut found: Observed, changes: &[Change]) -> Result<Observed> {
        tag(aws, &format!("/usageplans/{}", found.id), &self.tags).await?;
        if touches(changes, "apiStages") {
            found.stages = self.show_stage(aws, &found).await?;
        }
        if touches(changes, "keys") {
            self.add_key(aws, &found.id).await?;
            found.key_ids.push(self.key_id.get()?.clone());
        }
        found.tags.extend(self.tags.clone());
        Ok(found)
    }

    /// AWS deletes no plan that has a stage, so the stages are taken out of it first, with one call (one in
    /// twenty seconds is allowed). Destroy removes the plan before, or at once with, its API and its key:
    /// a stage that went with its API is refused there, and then it is the deletion that decides.
    async fn delete(aws: &Aws, found: Observed) -> Result<()> {
        if !found.stages.is_empty() {
            let patches = found
                .stages
                .iter()
                .map(|stage| patch(Op::Remove, stage))
                .collect();
            aws.apigateway()
                .update_usage_plan()
                .usage_plan_id(&found.id)
                .set_patch_operations(Some(patches))
                .send()
                .await
                .if_found(&["NotFoundException", "BadRequestException"])?;
        }
        aws.apigateway()
            .delete_usage_plan()
            .usage_plan_id(&found.id)
            .send()
            .await
            .if_found(GONE)?;
        Ok(())
    }
}

fn patch(op: Op, stage: &str) -> PatchOperation {
    PatchOperation::builder()
        .op(op)
        .path("/apiStages")
        .value(stage)
        .build()
}

async fn observe(aws: &Aws, cluster: &Cluster, name: &str, plan: &Plan) -> Result<Observed> {
    let id = plan.id().unwrap_or_default();
    let keys = aws
        .apigateway()
        .get_usage_plan_keys()
        .usage_plan_id(id)
        .limit(PAGE)
        .into_paginator()
        .items()
        .send()
        .try_collect()
        .await
        .if_found(GONE)?
        .unwrap_or_default();
    let tags: Tags = plan
        .tags()
        .cloned()
        .unwrap_or_default()
        .into_iter()
        .collect();
    let is_ours = async || {
        let (key, stage) = tokio::try_join!(
            has_key_of(aws, cluster, name, &keys),
            has_stage_of(aws, cluster, plan.api_stages()),
        )?;
        anyhow::Ok(key || stage)
    };
    let has_ours = !tags.contains_key(CLUSTER_TAG) && is_ours().await?;
    Ok(Observed {
        id: id.to_owned(),
        stages: stages(plan.api_stages()),
        key_ids: keys.into_iter().filter_map(|key| key.id).collect(),
        tags,
        has_ours,
    })
}

/// Ids of the plans of this name that are the cluster's.
///
/// # Errors
/// AWS's failures.
pub async fn ids(aws: &Aws, cluster: &Cluster, name: &str) -> Result<Vec<String>> {
    let found = named(aws, cluster, name).await?;
    Ok(found.into_iter().filter_map(|plan| plan.id).collect())
}

async fn named(aws: &Aws, cluster: &Cluster, name: &str) -> Result<Vec<Plan>> {
    let plans = aws
        .apigateway()
        .get_usage_plans()
        .limit(PAGE)
        .into_paginator()
        .items()
        .send()
        .try_collect()
        .await
        .answer()?;
    let named = plans.into_iter().filter(|plan| plan.name() == Some(name));
    Ok(ours_else_all(cluster, named, Plan::tags))
}

/// Whether a key of our name in the plan has the cluster's tag.
async fn has_key_of(aws: &Aws, cluster: &Cluster, name: &str, keys: &[PlanKey]) -> Result<bool> {
    let named = keys
        .iter()
        .filter(|key| key.name() == Some(name))
        .filter_map(PlanKey::id);
    let owners = futures::future::try_join_all(named.map(|id| async move {
        let key = aws.apigateway().get_api_key().api_key(id).send().await;
        anyhow::Ok(
            key.if_found(GONE)?
                .and_then(|key| key.tags.and_then(|mut tags| tags.remove(CLUSTER_TAG))),
        )
    }))
    .await?;
    Ok(owners.contains(&Some(cluster.name.clone())))
}

/// Whether an API in the plan has the cluster's tag: the Go tool may have died before it added its key.
async fn has_stage_of(aws: &Aws, cluster: &Cluster, stages: &[ApiStage]) -> Result<bool> {
    let apis = stages.iter().filter_map(ApiStage::api_id);
    let owners = futures::future::try_join_all(apis.map(|id| async move {
        let api = aws.apigateway().get_rest_api().rest_api_id(id).send().await;
        anyhow::Ok(
            api.if_found(GONE)?
                .and_then(|api| api.tags.and_then(|mut tags| tags.remove(CLUSTER_TAG))),
        )
    }))
    .await?;
    Ok(owners.contains(&Some(cluster.name.clone())))
}

/// Those of the stages whose API is gone.
async fn gone(aws: &Aws, stages: &[String]) -> Result<Vec<String>> {
    let looks = futures::future::try_join_all(stages.iter().map(|stage| async move {
        let api = stage.split(':').next().unwrap_or_default();
        let found = aws
            .apigateway()
            .get_rest_api()
            .rest_api_id(api)
            .send()
            .await;
        anyhow::Ok(found.if_found(GONE)?.is_none().then(|| stage.clone()))
    }))
    .await?;
    Ok(looks.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> UsagePlan {
        UsagePlan {
            name: "wekactl-prod-Backends".into(),
            api_id: Known::Value("a1".into()),
            key_id: Known::Value("k1".into()),
            tags: Tags::from([("wekactl.io/cluster_name".into(), "prod".into())]),
        }
    }

    fn made() -> Observed {
        Observed {
            id: "p1".into(),
            stages: vec!["a1:default".into()],
            key_ids: vec!["k1".into()],
            tags: wanted().tags,
            has_ours: false,
        }
    }

    fn changed(plan: &UsagePlan, found: &Observed) -> Vec<String> {
        plan.changes(found)
            .into_iter()
            .map(|change| change.field)
            .collect()
    }

    #[test]
    fn every_drift_is_seen() {
        assert_eq!(changed(&wanted(), &made()), Vec::<String>::new());
        let drifted = Observed {
            stages: vec!["a0:default".into()],
            key_ids: Vec::new(),
            tags: Tags::new(),
            ..made()
        };
        assert_eq!(
            changed(&wanted(), &drifted),
            ["apiStages", "keys", "tags.wekactl.io/cluster_name"]
        );
    }

    #[test]
    fn what_others_added_is_no_difference_and_what_is_not_known_is() {
        let found = Observed {
            stages: vec!["b1:live".into(), "a1:default".into()],
            key_ids: vec!["k0".into(), "k1".into()],
            ..made()
        };
        assert_eq!(changed(&wanted(), &found), Vec::<String>::new());
        let plan = UsagePlan {
            api_id: Known::AfterApply,
            ..wanted()
        };
        assert_eq!(changed(&plan, &found), ["apiStages"]);
    }

    #[test]
    fn an_untagged_plan_of_the_go_tool_is_ours_by_its_key() {
        let untagged = Observed {
            tags: Tags::new(),
            ..made()
        };
        assert_eq!(UsagePlan::tags(&untagged), Some(&Tags::new()));
        let by_key = Observed {
            has_ours: true,
            ..untagged
        };
        assert_eq!(UsagePlan::tags(&by_key), None);
    }
}
