//! A DNS name for the load balancer. A record has no tags: it is ours if it points at our load balancer,
//! and one that points elsewhere is taken, never overwritten.

use anyhow::{Context, Result, bail};
use aws_sdk_route53::types::{
    AliasTarget, Change as Edit, ChangeAction, ChangeBatch, ResourceRecordSet, RrType,
};

use crate::aws::{Answer, Aws, AwsError};
use crate::cluster::names::Cluster;
use crate::cluster::spec::Dns;
use crate::resource::{Diff, Known, Resource, Tags};
use crate::run::{Change, Kind};

const NO_ZONE: &[&str] = &["NoSuchHostedZone"];
/// Between the parts of the name that this kind has here.
const IN_ZONE: &str = " in hosted zone ";

/// An A alias to the load balancer.
#[derive(Debug, Clone)]
pub struct DnsRecord {
    name: String,
    dns: Dns,
    load_balancer_dns_name: Known<String>,
    load_balancer_zone_id: Known<String>,
}

/// A record in AWS that has the name.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The zone it is in.
    pub zone_id: String,
    /// As it was read: a deletion has to repeat it.
    record: ResourceRecordSet,
}

/// Why a name can not be had.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "the messages say what they are")]
pub enum DnsError {
    #[error(
        "hosted zone {zone_id} not found: `aws route53 list-hosted-zones` shows those of this account"
    )]
    ZoneNotFound { zone_id: String },
    #[error("{alias} does not lie in hosted zone {zone_id}, which is {zone_name}")]
    Outside {
        alias: String,
        zone_id: String,
        zone_name: String,
    },
    #[error("{alias} is taken: in hosted zone {zone_id} it is {what}")]
    Taken {
        alias: String,
        zone_id: String,
        what: String,
    },
}

impl DnsRecord {
    /// The record for a load balancer.
    pub fn new(
        dns: &Dns,
        load_balancer_dns_name: Known<String>,
        load_balancer_zone_id: Known<String>,
    ) -> Self {
        Self {
            name: Self::name_of(dns),
            dns: dns.clone(),
            load_balancer_dns_name,
            load_balancer_zone_id,
        }
    }

    /// What it is called here: a name may lie in several zones.
    pub fn name_of(dns: &Dns) -> String {
        format!("{}{IN_ZONE}{}", dns.alias, dns.zone_id)
    }

    fn wanted(&self) -> Result<ResourceRecordSet> {
        let target = AliasTarget::builder()
            .dns_name(self.load_balancer_dns_name.get()?)
            .hosted_zone_id(self.load_balancer_zone_id.get()?)
            .evaluate_target_health(false)
            .build()?;
        Ok(ResourceRecordSet::builder()
            .name(&self.dns.alias)
            .r#type(RrType::A)
            .alias_target(target)
            .build()?)
    }

    fn observed(&self, record: ResourceRecordSet) -> Observed {
        Observed {
            zone_id: self.dns.zone_id.clone(),
            record,
        }
    }
}

impl Observed {
    /// Whether it is a plain alias to that name.
    pub fn points_at(&self, dns_name: &str) -> bool {
        let target = self.record.alias_target();
        self.record.r#type() == &RrType::A
            && self.record.set_identifier().is_none()
            && target.is_some_and(|target| same_target(target.dns_name(), dns_name))
    }

    /// What it says, for a person.
    fn what(&self) -> String {
        let kind = self.record.r#type().as_str();
        let several = self
            .record
            .set_identifier()
            .map_or("a", |_| "one of several");
        let records = self.record.resource_records().iter();
        let values: Vec<String> = match self.record.alias_target() {
            Some(target) => vec![normal(target.dns_name())],
            None => records.map(|record| record.value().to_owned()).collect(),
        };
        let whereto = values.join(", ");
        format!("{several} record of type {kind} for {whereto}")
    }

    fn taken(&self) -> DnsError {
        DnsError::Taken {
            alias: normal(self.record.name()),
            zone_id: self.zone_id.clone(),
            what: self.what(),
        }
    }
}

impl Resource for DnsRecord {
    const KIND: Kind = Kind::DnsRecord;
    type Observed = Observed;

    fn name(&self) -> &str {
        &self.name
    }

    async fn find(aws: &Aws, _cluster: &Cluster, name: &str) -> Result<Vec<Observed>> {
        let Some((alias, zone_id)) = name.split_once(IN_ZONE) else {
            bail!("{name} names no zone");
        };
        find_in(aws, alias, zone_id).await
    }

    fn tags(_found: &Observed) -> Option<&Tags> {
        None
    }

    fn changes(&self, found: &Observed) -> Vec<Change> {
        let target = found.record.alias_target();
        Diff::new()
            .field("type", &found.record.r#type().as_str(), &RrType::A.as_str())
            .field("setIdentifier", &found.record.set_identifier(), &None)
            .known(
                "aliasTarget.dnsName",
                &target.map(|target| bare(target.dns_name())),
                &self.load_balancer_dns_name.map(|name| Some(bare(name))),
            )
            .field(
                "aliasTarget.evaluateTargetHealth",
                &target.map(AliasTarget::evaluate_target_health),
                &Some(false),
            )
            .done()
    }

    async fn create(&self, aws: &Aws) -> Result<Observed> {
        let record = self.wanted()?;
        let batch = batch(vec![edit(ChangeAction::Create, &record)?])?;
        let Err(error) = change(aws, &self.dns.zone_id, batch).await else {
            return Ok(self.observed(record));
        };
        // So AWS refuses a record that is there already: somebody else's, or, after a lost answer, our own.
        if error.is(&["InvalidChangeBatch"])
            && let Some(found) = find_in(aws, &self.dns.alias, &self.dns.zone_id)
                .await?
                .pop()
        {
            if found.points_at(self.load_balancer_dns_name.get()?) {
                return Ok(found);
            }
            return Err(found.taken().into());
        }
        Err(error.into())
    }

    /// Only a record that is ours by where it points; the two edits are one change.
    async fn update(&self, aws: &Aws, found: Observed, _changes: &[Change]) -> Result<Observed> {
        if !found.points_at(self.load_balancer_dns_name.get()?) {
            return Err(found.taken().into());
        }
        let record = self.wanted()?;
        let edits = vec![
            edit(ChangeAction::Delete, &found.record)?,
            edit(ChangeAction::Create, &record)?,
        ];
        change(aws, &self.dns.zone_id, batch(edits)?).await?;
        Ok(self.observed(record))
    }

    /// The caller makes sure that it points at this cluster's load balancer: [`Observed::points_at`].
    async fn delete(aws: &Aws, found: Observed) -> Result<()> {
        let batch = batch(vec![edit(ChangeAction::Delete, &found.record)?])?;
        let Err(error) = change(aws, &found.zone_id, batch).await else {
            return Ok(());
        };
        let gone = error.is(NO_ZONE)
            || error.is(&["InvalidChangeBatch"])
                && find_in(aws, found.record.name(), &found.zone_id)
                    .await?
                    .is_empty();
        if gone { Ok(()) } else { Err(error.into()) }
    }
}

/// That the zone exists and the name lies in it.
///
/// # Errors
/// [`DnsError`]; AWS's failures.
pub async fn check_zone(aws: &Aws, dns: &Dns) -> Result<()> {
    let zone = aws
        .route53()
        .get_hosted_zone()
        .id(&dns.zone_id)
        .send()
        .await
        .if_found(&["NoSuchHostedZone", "InvalidInput"])
        .with_context(|| format!("reading hosted zone {}", dns.zone_id))?;
    let Some(zone) = zone.and_then(|answer| answer.hosted_zone) else {
        return Err(DnsError::ZoneNotFound {
            zone_id: dns.zone_id.clone(),
        }
        .into());
    };
    if lies_in(&dns.alias, zone.name()) {
        return Ok(());
    }
    Err(DnsError::Outside {
        alias: dns.alias.clone(),
        zone_id: dns.zone_id.clone(),
        zone_name: normal(zone.name()),
    }
    .into())
}

/// That the name is free, or points at the load balancer already. `found` is what [`Resource::find`] gave;
/// without a load balancer yet, whatever there is takes the name.
///
/// # Errors
/// [`DnsError::Taken`].
pub fn check_free(
    found: &[Observed],
    load_balancer_dns_name: Option<&str>,
) -> Result<(), DnsError> {
    let taken = found
        .iter()
        .find(|record| !load_balancer_dns_name.is_some_and(|name| record.points_at(name)));
    taken.map_or(Ok(()), |record| Err(record.taken()))
}

/// What would stand in the way of an A record: an A record, or a CNAME, which allows no other beside it.
async fn find_in(aws: &Aws, alias: &str, zone_id: &str) -> Result<Vec<Observed>> {
    // Records are ordered by name and type, and A sorts before CNAME: the first one is the answer.
    let answer = aws
        .route53()
        .list_resource_record_sets()
        .hosted_zone_id(zone_id)
        .start_record_name(alias)
        .start_record_type(RrType::A)
        .max_items(1)
        .send()
        .await
        .if_found(NO_ZONE)?;
    Ok(answer
        .map(|answer| answer.resource_record_sets)
        .unwrap_or_default()
        .into_iter()
        .filter(|record| {
            normal(record.name()) == normal(alias)
                && matches!(record.r#type(), RrType::A | RrType::Cname)
        })
        .map(|record| Observed {
            zone_id: zone_id.to_owned(),
            record,
        })
        .collect())
}

fn edit(action: ChangeAction, record: &ResourceRecordSet) -> Result<Edit> {
    Ok(Edit::builder()
        .action(action)
        .resource_record_set(record.clone())
        .build()?)
}

fn batch(edits: Vec<Edit>) -> Result<ChangeBatch> {
    Ok(ChangeBatch::builder().set_changes(Some(edits)).build()?)
}

async fn change(aws: &Aws, zone_id: &str, batch: ChangeBatch) -> Result<(), AwsError> {
    aws.route53()
        .change_resource_record_sets()
        .hosted_zone_id(zone_id)
        .change_batch(batch)
        .send()
        .await
        .answer()?;
    Ok(())
}

fn lies_in(alias: &str, zone_name: &str) -> bool {
    let (alias, zone) = (normal(alias), normal(zone_name));
    alias == zone
        || alias
            .strip_suffix(&zone)
            .is_some_and(|rest| rest.ends_with('.'))
}

fn same_target(one: &str, other: &str) -> bool {
    bare(one) == bare(other)
}

/// A load balancer's name without what AWS's console puts before it.
fn bare(name: &str) -> String {
    let name = normal(name);
    name.strip_prefix("dualstack.")
        .map(ToOwned::to_owned)
        .unwrap_or(name)
}

/// A name as a person writes it: AWS gives it in lower case, with a dot at its end, and with octal escapes
/// (`\052`) for everything but letters, digits, hyphens and underscores.
fn normal(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let code = after
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok())
            .filter(u8::is_ascii);
        if let Some(code) = code {
            text.push(char::from(code));
            rest = &after[3..];
        } else {
            text.push('\\');
            rest = after;
        }
    }
    text.push_str(rest);
    let text = text.to_lowercase();
    text.strip_suffix('.')
        .map(ToOwned::to_owned)
        .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use aws_sdk_route53::types::ResourceRecord;

    use super::*;

    const BALANCER: &str = "internal-wekactl-prod-1.eu-central-1.elb.amazonaws.com";

    fn wanted() -> DnsRecord {
        DnsRecord::new(
            &Dns {
                alias: "Weka.example.com".into(),
                zone_id: "Z1".into(),
            },
            Known::Value(BALANCER.into()),
            Known::Value("ZELB".into()),
        )
    }

    fn alias(to: &str, evaluate: bool) -> Observed {
        let target = AliasTarget::builder()
            .dns_name(to)
            .hosted_zone_id("ZELB")
            .evaluate_target_health(evaluate)
            .build()
            .expect("complete");
        let record = ResourceRecordSet::builder()
            .name("weka.example.com.")
            .r#type(RrType::A)
            .alias_target(target);
        wanted().observed(record.build().expect("complete"))
    }

    fn cname() -> Observed {
        let value = ResourceRecord::builder().value("a.example.org");
        let record = ResourceRecordSet::builder()
            .name("weka.example.com.")
            .r#type(RrType::Cname)
            .ttl(60)
            .resource_records(value.build().expect("complete"));
        wanted().observed(record.build().expect("complete"))
    }

    fn changed(found: &Observed) -> Vec<String> {
        wanted()
            .changes(found)
            .into_iter()
            .map(|change| change.field)
            .collect()
    }

    #[test]
    fn ours_is_as_wanted_in_all_spellings() {
        for to in [
            BALANCER.to_owned(),
            format!("{BALANCER}."),
            format!("dualstack.{}.", BALANCER.to_uppercase().to_lowercase()),
            BALANCER.to_uppercase(),
        ] {
            let found = alias(&to, false);
            assert_eq!(changed(&found), Vec::<String>::new(), "{to}");
            assert!(found.points_at(BALANCER), "{to}");
            assert_eq!(check_free(&[found], Some(BALANCER)), Ok(()));
        }
    }

    #[test]
    fn drift_is_seen() {
        assert_eq!(
            changed(&alias(BALANCER, true)),
            ["aliasTarget.evaluateTargetHealth"]
        );
        assert_eq!(
            changed(&alias("other.elb.amazonaws.com", false)),
            ["aliasTarget.dnsName"]
        );
        assert_eq!(
            changed(&cname()),
            [
                "type",
                "aliasTarget.dnsName",
                "aliasTarget.evaluateTargetHealth"
            ]
        );
    }

    #[test]
    fn what_points_elsewhere_is_taken() {
        let other = alias("other.elb.amazonaws.com.", false);
        let message = |error: DnsError| error.to_string();
        assert_eq!(
            check_free(&[other], Some(BALANCER)).map_err(message),
            Err(
                "weka.example.com is taken: in hosted zone Z1 it is a record of type A for \
                 other.elb.amazonaws.com"
                    .into()
            )
        );
        assert_eq!(
            check_free(&[cname()], None).map_err(message),
            Err(
                "weka.example.com is taken: in hosted zone Z1 it is a record of type CNAME for \
                 a.example.org"
                    .into()
            )
        );
        assert!(check_free(&[alias(BALANCER, false)], None).is_err());
        assert_eq!(check_free(&[], None), Ok(()));
    }

    #[test]
    fn names_compare_as_people_write_them() {
        assert_eq!(normal("\\052.Example.com."), "*.example.com");
        assert_eq!(normal("a\\\\b\\9"), "a\\\\b\\9");
        for (alias, zone, inside) in [
            ("weka.example.com", "example.com.", true),
            ("WEKA.Example.com.", "example.com.", true),
            ("example.com", "example.com.", true),
            ("weka.badexample.com", "example.com.", false),
            ("example.com", "weka.example.com.", false),
        ] {
            assert_eq!(lies_in(alias, zone), inside, "{alias} in {zone}");
        }
    }
}
