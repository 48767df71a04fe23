//! The VPC the backends live in: where the load balancer gets its second subnet, and whether
//! the backends can reach the API.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use aws_sdk_ec2::types::Filter;

use super::UsageError;
use crate::aws::{Answer, Aws};

/// What import needs to know of a VPC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// The VPC's id.
    pub vpc_id: String,
    /// By id.
    subnets: BTreeMap<String, Subnet>,
    /// Route table by subnet id, where one is associated with the subnet itself.
    route_tables: BTreeMap<String, String>,
    /// The route table of all other subnets.
    main_route_table: Option<String>,
    /// The `execute-api` endpoint whose private DNS names hide the public API, if there is one.
    api_endpoint: Option<String>,
}

/// A subnet of the VPC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Subnet {
    zone: String,
    /// Whether it is in the region itself: not in a Local or Wavelength Zone, and on no Outpost.
    is_regional: bool,
}

/// Reads it: three calls at once.
///
/// # Errors
/// AWS's failures.
pub async fn read(aws: &Aws, vpc_id: &str) -> Result<Network> {
    let of_vpc = || Filter::builder().name("vpc-id").values(vpc_id).build();
    let subnets = async {
        let mut pages = aws
            .ec2()
            .describe_subnets()
            .filters(of_vpc())
            .into_paginator()
            .send();
        let mut subnets = BTreeMap::new();
        while let Some(page) = pages.next().await {
            for subnet in page
                .answer()
                .context("reading the VPC's subnets")?
                .subnets()
            {
                let zone = Subnet {
                    zone: owned(subnet.availability_zone()),
                    is_regional: subnet.outpost_arn().is_none()
                        && subnet.availability_zone_id().is_none_or(is_regional),
                };
                subnets.insert(owned(subnet.subnet_id()), zone);
            }
        }
        anyhow::Ok(subnets)
    };
    let routes = async {
        let mut pages = aws
            .ec2()
            .describe_route_tables()
            .filters(of_vpc())
            .into_paginator()
            .send();
        let (mut tables, mut main) = (BTreeMap::new(), None);
        while let Some(page) = pages.next().await {
            for table in page
                .answer()
                .context("reading the VPC's route tables")?
                .route_tables()
            {
                for association in table.associations() {
                    if association.main() == Some(true) {
                        main = Some(owned(table.route_table_id()));
                    }
                    if let Some(subnet) = association.subnet_id() {
                        tables.insert(subnet.to_owned(), owned(table.route_table_id()));
                    }
                }
            }
        }
        anyhow::Ok((tables, main))
    };
    let endpoints = async {
        let mut pages = aws
            .ec2()
            .describe_vpc_endpoints()
            .filters(of_vpc())
            .into_paginator()
            .send();
        let mut found = None;
        while let Some(page) = pages.next().await {
            for endpoint in page
                .answer()
                .context("reading the VPC's endpoints")?
                .vpc_endpoints()
            {
                let is_api = endpoint
                    .service_name()
                    .is_some_and(|name| name.ends_with(".execute-api"));
                let is_up = endpoint
                    .state()
                    .is_none_or(|state| state.as_str().eq_ignore_ascii_case("available"));
                if is_api && is_up && endpoint.private_dns_enabled() == Some(true) {
                    found = endpoint.vpc_endpoint_id().map(ToOwned::to_owned);
                }
            }
        }
        anyhow::Ok(found)
    };
    let (subnets, (route_tables, main_route_table), api_endpoint) =
        tokio::try_join!(subnets, routes, endpoints)?;
    Ok(Network {
        vpc_id: vpc_id.to_owned(),
        subnets,
        route_tables,
        main_route_table,
        api_endpoint,
    })
}

/// The id of an Availability Zone has two parts, as `usw2-az1`; those of Local and Wavelength Zones have more, as
/// `usw2-lax1-az1` and `usw2-wl1-las-wlz1`. So no further call has to ask for the zones' types.
fn is_regional(zone_id: &str) -> bool {
    zone_id.split('-').count() <= 2
}

impl Network {
    /// The zone of a subnet of this VPC.
    pub fn zone(&self, subnet: &str) -> Option<&str> {
        self.subnets.get(subnet).map(|subnet| subnet.zone.as_str())
    }

    /// The load balancer's second subnet: the one given, if it is in another zone of this VPC; else, of those
    /// in another zone that share the first one's route table, the one with the smallest id. It is in the region
    /// itself: a load balancer spans no zones of other kinds.
    ///
    /// # Errors
    /// The given one does not fit; none does. The error names the flag.
    pub fn second_subnet(&self, first: &str, given: Option<&str>) -> Result<String> {
        let zone = self.zone(first);
        if let Some(given) = given {
            return match self.subnets.get(given) {
                None => Err(UsageError(format!(
                    "--additional-alb-subnet {given} is no subnet of the backends' VPC {}",
                    self.vpc_id
                ))
                .into()),
                Some(other) if !other.is_regional => Err(UsageError(format!(
                    "--additional-alb-subnet {given} is in a Local Zone, in a Wavelength Zone or on an Outpost ({}): a \
                     load balancer needs two Availability Zones",
                    other.zone
                ))
                .into()),
                Some(other) if Some(other.zone.as_str()) == zone => Err(UsageError(format!(
                    "--additional-alb-subnet {given} is in {}, as the backends' subnet {first}: \
                     a load balancer needs two zones",
                    zone.unwrap_or_default()
                ))
                .into()),
                Some(_) => Ok(given.to_owned()),
            };
        }
        let second = self.subnets.iter().find(|(subnet, other)| {
            other.is_regional
                && Some(other.zone.as_str()) != zone
                && self.route_table(subnet) == self.route_table(first)
        });
        match second {
            Some((subnet, _)) => Ok(subnet.clone()),
            None => bail!(
                "the load balancer needs a second subnet in another zone than {}, and VPC {} has none with the \
                 route table of {first}: name one with --additional-alb-subnet",
                zone.unwrap_or("the first"),
                self.vpc_id
            ),
        }
    }

    /// Whether new backends will reach the API: a public one is hidden by an endpoint with private DNS,
    /// and a private one needs such an endpoint.
    ///
    /// # Errors
    /// They will not. The error names the flag.
    pub fn check_api(&self, private: bool) -> Result<()> {
        match (&self.api_endpoint, private) {
            (Some(endpoint), false) => bail!(
                "VPC {} has the execute-api endpoint {endpoint} with private DNS names, \
                 through which its instances can not reach a public API: import with --private-subnet",
                self.vpc_id
            ),
            (None, true) => bail!(
                "--private-subnet makes a private API, and VPC {} has no execute-api endpoint with private DNS names \
                 through which its instances could reach it: make one, or import without --private-subnet",
                self.vpc_id
            ),
            _ => Ok(()),
        }
    }

    fn route_table(&self, subnet: &str) -> Option<&String> {
        self.route_tables
            .get(subnet)
            .or(self.main_route_table.as_ref())
    }
}

fn owned(text: Option<&str>) -> String {
    text.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        let subnet = |(id, zone, is_regional): (&str, &str, bool)| {
            let zone = zone.to_owned();
            (id.to_owned(), Subnet { zone, is_regional })
        };
        Network {
            vpc_id: "vpc-1".into(),
            subnets: BTreeMap::from(
                [
                    ("subnet-0", "lax-1a", false),
                    ("subnet-1", "a", true),
                    ("subnet-2", "a", true),
                    ("subnet-3", "b", true),
                    ("subnet-4", "b", true),
                    ("subnet-5", "c", true),
                ]
                .map(subnet),
            ),
            route_tables: BTreeMap::from([("subnet-3".into(), "rtb-other".into())]),
            main_route_table: Some("rtb-main".into()),
            api_endpoint: None,
        }
    }

    #[test]
    fn picks_the_smallest_in_another_zone_behind_the_same_routes() {
        assert_eq!(
            network().second_subnet("subnet-1", None).unwrap(),
            "subnet-4"
        );
        // The only one of its own route table.
        let error = network()
            .second_subnet("subnet-3", None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("--additional-alb-subnet"), "{error}");
    }

    #[test]
    fn takes_the_given_one_only_if_it_fits() {
        assert_eq!(
            network()
                .second_subnet("subnet-1", Some("subnet-5"))
                .unwrap(),
            "subnet-5"
        );
        for wrong in ["subnet-0", "subnet-2", "subnet-9"] {
            assert!(
                network()
                    .second_subnet("subnet-1", Some(wrong))
                    .unwrap_err()
                    .is::<UsageError>(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_zones_id_says_of_what_kind_it_is() {
        for (id, regional) in [
            ("usw2-az1", true),
            ("euc1-az3", true),
            ("usw2-lax1-az1", false),
            ("usw2-wl1-las-wlz1", false),
        ] {
            assert_eq!(is_regional(id), regional, "{id}");
        }
    }

    #[test]
    fn an_endpoint_and_the_flag_belong_together() {
        let with = Network {
            api_endpoint: Some("vpce-1".into()),
            ..network()
        };
        assert!(with.check_api(true).is_ok() && network().check_api(false).is_ok());
        assert!(
            with.check_api(false)
                .unwrap_err()
                .to_string()
                .contains("--private-subnet")
        );
        assert!(
            network()
                .check_api(true)
                .unwrap_err()
                .to_string()
                .contains("--private-subnet")
        );
    }
}
