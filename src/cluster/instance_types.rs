//! How many cores and how much memory Weka gets of each instance type.
//!
//! Both tables are data that the vendor published, not law: for another type, or another split, there is `--cores`.
//! Memory is written there in Weka's decimal units (1 GB = 10⁹ bytes) and kept here as that very number of bytes,
//! which Weka is given: nothing is rounded on the way.

use std::str::FromStr;

use super::spec::Cores;

/// The most memory Weka takes for one compute container: 384 GB.
/// Source: `containers_config_map` of the Terraform module `terraform-aws-weka`.
pub const MAX_MEMORY: u64 = 384 * GB;

const GB: u64 = 1_000_000_000;
/// The table writes hundredths of a GB.
const CENTI_GB: u64 = GB / 100;

const fn row(compute: u32, drive: u32, frontend: u32, memory: u64) -> Cores {
    Cores {
        compute,
        drive,
        frontend,
        memory,
    }
}

/// Source: `containers_config_map` of the Terraform module `terraform-aws-weka`; compute, drive, frontend, and the
/// memory that goes with a frontend container. Every row leaves one network interface for management.
const TERRAFORM: &[(&str, Cores)] = &[
    ("i3en.2xlarge", row(1, 1, 1, 3_264 * CENTI_GB)),
    ("i3en.3xlarge", row(1, 1, 1, 6_170 * CENTI_GB)),
    ("i3en.6xlarge", row(4, 2, 1, 13_620 * CENTI_GB)),
    ("i3en.12xlarge", row(4, 2, 1, 31_040 * CENTI_GB)),
    ("i3en.24xlarge", row(9, 4, 1, 384 * GB)),
    ("i8ge.2xlarge", row(1, 1, 1, 3_264 * CENTI_GB)),
    ("i8ge.3xlarge", row(3, 1, 1, 6_170 * CENTI_GB)),
    ("i8ge.6xlarge", row(6, 2, 1, 13_620 * CENTI_GB)),
    ("i8ge.12xlarge", row(6, 4, 1, 31_040 * CENTI_GB)),
    ("i8ge.18xlarge", row(11, 3, 1, 347 * GB)),
    ("i8ge.24xlarge", row(10, 4, 1, 384 * GB)),
    ("i8ge.48xlarge", row(14, 8, 1, 384 * GB)),
];

/// Source: the table pinned in the earlier Go tool; compute, drive, frontend, bytes. It has no newer rows, and the
/// memory of its `i3en.24xlarge` is over the limit that came later.
const GO_TOOL: &[(&str, Cores)] = &[
    ("r3.2xlarge", row(1, 1, 1, 30_905_689_230)),
    ("r3.4xlarge", row(5, 1, 1, 71_507_949_875)),
    ("r3.8xlarge", row(4, 2, 1, 183_542_333_132)),
    ("i3.2xlarge", row(1, 1, 1, 29_646_994_591)),
    ("i3.4xlarge", row(5, 1, 1, 67_592_831_765)),
    ("i3.8xlarge", row(4, 2, 1, 182_925_137_336)),
    ("i3.16xlarge", row(9, 4, 1, 351_188_766_774)),
    ("i3en.2xlarge", row(1, 1, 1, 31_796_436_575)),
    ("i3en.3xlarge", row(1, 1, 1, 55_955_545_954)),
    ("i3en.6xlarge", row(4, 2, 1, 130_433_516_148)),
    ("i3en.12xlarge", row(4, 2, 1, 312_901_542_392)),
    ("i3en.24xlarge", row(9, 4, 1, 602_459_825_769)),
    ("z1d.12xlarge", row(2, 1, 1, 318_122_146_852)),
];

/// What Weka gets of a machine of this type; `None`: nobody published it, and it is not guessed.
pub fn cores_of(instance_type: &str) -> Option<Cores> {
    lookup(TERRAFORM, instance_type).or_else(|| go_tool_cores_of(instance_type))
}

/// What the earlier Go tool gave Weka: a cluster that it made keeps that, so that all its machines are alike.
pub fn go_tool_cores_of(instance_type: &str) -> Option<Cores> {
    lookup(GO_TOOL, instance_type)
}

fn lookup(table: &[(&str, Cores)], instance_type: &str) -> Option<Cores> {
    table
        .iter()
        .find(|(name, _)| *name == instance_type)
        .map(|(_, cores)| *cores)
}

/// Why `--cores` can not be understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{reason}; expected compute=N,drive=N,frontend=N,memory=BYTES")]
pub struct BadCores {
    reason: String,
}

fn bad(reason: impl Into<String>) -> BadCores {
    BadCores {
        reason: reason.into(),
    }
}

/// `compute=N,drive=N,frontend=N,memory=BYTES`, in any order; `frontend=0` is no frontend container.
impl FromStr for Cores {
    type Err = BadCores;

    fn from_str(text: &str) -> Result<Self, BadCores> {
        let (mut compute, mut drive, mut frontend, mut memory) = (None, None, None, None);
        for part in text.split(',').map(str::trim) {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| bad(format!("{part:?} is not KEY=NUMBER")))?;
            let slot = match key {
                "compute" => &mut compute,
                "drive" => &mut drive,
                "frontend" => &mut frontend,
                "memory" => &mut memory,
                _ => return Err(bad(format!("unknown key {key:?}"))),
            };
            let number = value
                .parse::<u64>()
                .map_err(|_| bad(format!("{key}={value}: {value:?} is not a whole number")))?;
            if slot.replace(number).is_some() {
                return Err(bad(format!("{key} is given twice")));
            }
        }
        let count = |key, value: Option<u64>, least| {
            let number = value.ok_or_else(|| bad(format!("{key} is missing")))?;
            u32::try_from(number)
                .ok()
                .filter(|number| (least..=MAX_CORES).contains(number))
                .ok_or_else(|| {
                    bad(format!(
                        "{key}={number} is not between {least} and {MAX_CORES}"
                    ))
                })
        };
        let (compute, drive, frontend) = (
            count("compute", compute, 1)?,
            count("drive", drive, 1)?,
            count("frontend", frontend, 0)?,
        );
        let memory = memory.ok_or_else(|| bad("memory is missing"))?;
        if !(GB..=MAX_MEMORY).contains(&memory) {
            return Err(bad(format!(
                "memory={memory} is not between {GB} and {MAX_MEMORY} bytes"
            )));
        }
        Ok(Self {
            compute,
            drive,
            frontend,
            memory,
        })
    }
}

/// More than any machine has: catches bytes where cores belong.
const MAX_CORES: u32 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_table_comes_first() {
        assert_eq!(cores_of("i3en.2xlarge"), Some(row(1, 1, 1, 32_640_000_000)));
        assert_eq!(
            go_tool_cores_of("i3en.2xlarge"),
            Some(row(1, 1, 1, 31_796_436_575))
        );
        assert_eq!(cores_of("i3.8xlarge"), Some(row(4, 2, 1, 182_925_137_336)));
        assert_eq!(cores_of("i4i.2xlarge"), None);
        assert_eq!(go_tool_cores_of("i8ge.2xlarge"), None);
    }

    /// The interfaces that the vendor's table allows each type (its column `nics`) are enough for every core and management.
    #[test]
    fn every_row_leaves_an_interface_for_management() {
        let nics = [4, 4, 8, 8, 15, 4, 6, 10, 12, 16, 16, 24];
        for ((name, cores), nics) in TERRAFORM.iter().zip(nics) {
            assert!(cores.interfaces() < nics, "{name}");
            assert!(cores.memory <= MAX_MEMORY, "{name}");
        }
    }

    #[test]
    fn the_flag_is_read_in_any_order() {
        let wanted = row(2, 1, 0, 40 * GB);
        assert_eq!(
            "compute=2,drive=1,frontend=0,memory=40000000000".parse(),
            Ok(wanted)
        );
        assert_eq!(
            "memory=40000000000, frontend=0, drive=1, compute=2".parse(),
            Ok(wanted)
        );
    }

    #[test]
    fn what_is_wrong_with_the_flag_is_said() {
        for (text, reason) in [
            ("", r#""" is not KEY=NUMBER"#),
            ("compute", r#""compute" is not KEY=NUMBER"#),
            ("cpu=1", r#"unknown key "cpu""#),
            ("compute=two", r#"compute=two: "two" is not a whole number"#),
            ("compute=-1", r#"compute=-1: "-1" is not a whole number"#),
            ("compute=1,compute=1", "compute is given twice"),
            (
                "compute=1,drive=1,memory=40000000000",
                "frontend is missing",
            ),
            ("compute=1,drive=1,frontend=1", "memory is missing"),
            (
                "compute=0,drive=1,frontend=1,memory=40000000000",
                "compute=0 is not between 1 and 512",
            ),
            (
                "compute=1,drive=40000000000,frontend=1,memory=1",
                "drive=40000000000 is not between 1 and 512",
            ),
            (
                "compute=1,drive=1,frontend=1,memory=32",
                "memory=32 is not between 1000000000 and 384000000000 bytes",
            ),
        ] {
            let error = text.parse::<Cores>().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("{reason}; expected compute=N,drive=N,frontend=N,memory=BYTES")
            );
        }
    }
}
