//! One AWS kind, one file, the same order of methods in each.

pub mod api_key;
pub mod auto_scaling_group;
pub mod classic_load_balancer;
pub mod dns_record;
pub mod event_rule;
pub mod function;
pub mod instances;
pub mod kms_key;
pub mod launch_template;
pub mod layer_version;
pub mod listener;
pub mod load_balancer;
pub mod log_group;
pub mod rest_api;
pub mod role;
pub mod state_machine;
pub mod table;
pub mod target_group;
pub mod usage_plan;

use crate::run::Change;

/// That none of the fields that AWS can not change has changed.
///
/// # Errors
/// The first that has.
pub(crate) fn fixed(changes: &[Change], fields: &[&str]) -> anyhow::Result<()> {
    let found = changes
        .iter()
        .find(|change| fields.contains(&change.field.as_str()));
    found.map_or(Ok(()), |Change { field, from, to }| {
        anyhow::bail!(
            "its {field} is {} and not {}, which AWS can not change: delete it by hand and run this again",
            from.as_deref().unwrap_or("not set"),
            to.as_deref().unwrap_or("not set"),
        )
    })
}
