//! Identifiers as Weka writes them: `HostId<9>`, `NodeId<181>`, `DiskId<8>`, and `HostId<INVALID>` for none.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A container has this many process numbers of its own; the first of them is its management process.
/// Source: a process's number is its container's times twenty, plus its slot.
const PROCESSES_PER_CONTAINER: u32 = 20;

/// Text that is no identifier of the kind that was expected.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is no {kind}<number>")]
pub struct BadId {
    kind: &'static str,
    text: String,
}

/// One identifier type: a number behind a prefix. The order is the numbers', `INVALID` first.
macro_rules! id {
    ($(#[$documentation:meta])* $name:ident, $prefix:literal) => {
        $(#[$documentation])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Option<u32>);

        impl $name {
            /// What refers to nothing, such as a drive whose container was removed.
            pub const INVALID: Self = Self(None);

            /// The one of this number.
            pub const fn new(number: u32) -> Self {
                Self(Some(number))
            }

            /// Its number; `None`: it is invalid.
            pub const fn number(self) -> Option<u32> {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    Some(number) => write!(formatter, concat!($prefix, "<{}>"), number),
                    None => formatter.write_str(concat!($prefix, "<INVALID>")),
                }
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let inner = text
                    .strip_prefix(concat!($prefix, "<"))
                    .and_then(|rest| rest.strip_suffix('>'));
                match inner {
                    Some("INVALID") => Ok(Self::INVALID),
                    Some(number) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                        number.parse().map(Self::new).map_err(|_| bad($prefix, text))
                    }
                    _ => Err(bad($prefix, text)),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// A container; the API's word for it is host.
    ContainerId,
    "HostId"
);
id!(
    /// A process of a container; the API's word for it is node.
    ProcessId,
    "NodeId"
);
id!(
    /// A drive; the API's word for it is disk.
    DriveId,
    "DiskId"
);

impl ProcessId {
    /// Whether it is the one that answers for its container.
    pub fn is_management(self) -> bool {
        self.number()
            .is_some_and(|number| number % PROCESSES_PER_CONTAINER == 0)
    }
}

fn bad(kind: &'static str, text: &str) -> BadId {
    BadId {
        kind,
        text: text.chars().take(64).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_read_as_they_are_written() {
        for text in ["HostId<0>", "HostId<4294967295>", "HostId<INVALID>"] {
            assert_eq!(text.parse::<ContainerId>().unwrap().to_string(), text);
        }
        assert_eq!("HostId<9>".parse(), Ok(ContainerId::new(9)));
    }

    #[test]
    fn anything_else_is_none() {
        for text in [
            "",
            "HostId<>",
            "HostId<+9>",
            "HostId<-1>",
            "HostId<4294967296>",
            "DiskId<9>",
            "HostId<9",
            "9",
        ] {
            assert!(text.parse::<ContainerId>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_first_of_twenty_processes_manages() {
        assert!(ProcessId::new(180).is_management());
        assert!(!ProcessId::new(181).is_management());
        assert!(!ProcessId::INVALID.is_management());
    }
}
