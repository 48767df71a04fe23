//! What a flag's value has to look like, checked before any call.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;

use icu_properties::CodePointMapData;
use icu_properties::props::{GeneralCategory, GeneralCategoryGroup};
use secrecy::SecretString;

use super::screen::plain;
use crate::aws::is_region;
use crate::cluster::UsageError;
use crate::cluster::names::TAG_PREFIX;
use crate::cluster::spec::Cores;
use crate::resource::Tags;

/// IAM takes 50 tags; the rest is ours.
const MAX_TAGS: usize = 40;
const MAX_TAG_KEY: usize = 128;
const MAX_TAG_VALUE: usize = 256;

/// A value that no error message may repeat.
#[expect(
    clippy::unnecessary_wraps,
    reason = "clap wants a parser that could fail"
)]
pub(super) fn secret(text: &str) -> Result<SecretString, Infallible> {
    Ok(SecretString::from(text))
}

/// A user name.
pub(super) fn user_name(text: &str) -> Result<SecretString, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    Ok(SecretString::from(text))
}

/// A region's name; empty counts as not given, as in scripts that pass a variable.
pub(super) fn region(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || is_region(text) {
        Ok(text.to_owned())
    } else {
        Err("a region looks like eu-west-1")
    }
}

/// A subnet's id; empty counts as not given.
pub(super) fn subnet(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || is_id(text, "subnet-") {
        Ok(text.to_owned())
    } else {
        Err("a subnet's id looks like subnet-0123456789abcdef0")
    }
}

/// A host name, without the dot at its end; empty counts as not given.
pub(super) fn host_name(text: &str) -> Result<String, &'static str> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() || is_host_name(name) {
        Ok(name.to_owned())
    } else {
        Err("a host name looks like weka.example.com")
    }
}

/// A hosted zone's id, with or without the prefix that Route 53 shows; empty counts as not given.
pub(super) fn zone_id(text: &str) -> Result<String, &'static str> {
    let id = text.strip_prefix("/hostedzone/").unwrap_or(text);
    let fits = id.len() <= 32 && id.chars().all(|each| each.is_ascii_alphanumeric());
    if fits {
        Ok(id.to_owned())
    } else {
        Err("a hosted zone's id looks like Z0123456789ABCDEFGHIJ")
    }
}

/// Whether it can stand where a host name is wanted, in a URL or a script, and means nothing else there.
pub(super) fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .chars()
                .all(|each| each.is_ascii_alphanumeric() || each == '-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// `KEY=VALUE`, of which the value may contain `=`, as every kind of resource takes it.
pub(super) fn tag(text: &str) -> Result<(String, String), String> {
    let Some((key, value)) = text.split_once('=') else {
        return Err("a tag looks like key=value".into());
    };
    if key.is_empty() {
        return Err("its key is empty".into());
    }
    for (what, part, most) in [("key", key, MAX_TAG_KEY), ("value", value, MAX_TAG_VALUE)] {
        let length = part.chars().count();
        if length > most {
            return Err(format!(
                "its {what} has {length} characters, at most {most} are possible"
            ));
        }
        if let Some(bad) = part.chars().find(|each| !is_tag_character(*each)) {
            return Err(format!(
                "its {what} contains {bad:?}; letters, digits, spaces and _ . : / = + - @ are possible"
            ));
        }
    }
    let lower = key.to_lowercase();
    if lower.starts_with("aws:") {
        return Err("keys that begin with aws: belong to AWS".into());
    }
    if lower.starts_with(TAG_PREFIX) {
        return Err(format!(
            "keys that begin with {TAG_PREFIX} belong to wekactl"
        ));
    }
    if key == "Name" {
        return Err("wekactl sets the key Name itself".into());
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// `[\p{L}\p{Z}\p{N}_.:/=+\-@]`. Marks are no letters: IAM refuses them.
fn is_tag_character(character: char) -> bool {
    let category = CodePointMapData::<GeneralCategory>::new().get(character);
    "_.:/=+-@".contains(character)
        || [
            GeneralCategoryGroup::Letter,
            GeneralCategoryGroup::Separator,
            GeneralCategoryGroup::Number,
        ]
        .iter()
        .any(|group| group.contains(category))
}

/// All tags of a command line as one map.
///
/// # Errors
/// More than every kind takes; one key with two values, or in two spellings, which IAM takes for one key.
pub(super) fn tags(given: &[(String, String)]) -> Result<Tags, UsageError> {
    let mut by_lower: BTreeMap<String, &(String, String)> = BTreeMap::new();
    for tag in given {
        if let Some(earlier) = by_lower.insert(tag.0.to_lowercase(), tag)
            && earlier != tag
        {
            let ((key, value), (other_key, other_value)) = (earlier, tag);
            return Err(UsageError(format!(
                "the tags {key}={value} and {other_key}={other_value} contradict each other: give one of them"
            )));
        }
    }
    if by_lower.len() > MAX_TAGS {
        return Err(UsageError(format!(
            "{} tags are too many: at most {MAX_TAGS} are possible",
            by_lower.len()
        )));
    }
    Ok(by_lower.into_values().cloned().collect())
}

/// `compute=N,drive=N,frontend=N,memory=BYTES`.
pub(super) fn cores(text: &str) -> Result<Cores, String> {
    const FORM: &str = "it looks like compute=1,drive=1,frontend=1,memory=31796436575";
    let mut parts: BTreeMap<&str, &str> = BTreeMap::new();
    for part in text.split(',') {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| format!("{part:?} is not name=number; {FORM}"))?;
        let key = key.trim();
        if !["compute", "drive", "frontend", "memory"].contains(&key) {
            return Err(format!("{key:?} is unknown; {FORM}"));
        }
        if parts.insert(key, value.trim()).is_some() {
            return Err(format!("{key} is given twice"));
        }
    }
    let part = |key: &str| {
        parts
            .get(key)
            .copied()
            .ok_or_else(|| format!("{key} is missing; {FORM}"))
    };
    let count = |key: &str, least: u32| {
        let value = part(key)?;
        value
            .parse::<u32>()
            .ok()
            .filter(|number| *number >= least)
            .ok_or_else(|| {
                let value = plain(value);
                format!("{key}={value}: a number of cores, at least {least}, is wanted")
            })
    };
    let memory = part("memory")?;
    Ok(Cores {
        compute: count("compute", 1)?,
        drive: count("drive", 1)?,
        frontend: count("frontend", 0)?,
        memory: bytes(memory).filter(|bytes| *bytes > 0).ok_or_else(|| {
            let memory = plain(memory);
            format!("memory={memory}: bytes are wanted, or a size like 32.64GB")
        })?,
    })
}

/// Bytes, or a size as Weka's own tables have it.
fn bytes(text: &str) -> Option<u64> {
    for (unit, factor) in [
        ("GiB", 1_u64 << 30),
        ("MiB", 1 << 20),
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
    ] {
        if let Some(number) = text.strip_suffix(unit) {
            let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
            let digits = format!("{whole}{fraction}");
            let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
            let scaled = only_digits(&digits)?.parse::<u128>().ok()?;
            return u64::try_from(scaled.checked_mul(factor.into())? / scale).ok();
        }
    }
    only_digits(text)?.parse().ok()
}

fn only_digits(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|each| each.is_ascii_digit())).then_some(text)
}

/// The instance ids of all `--instance-ids`: each a list with commas, or `@FILE` with one id a line, lists with
/// commas and comments that begin with `#`. Each id once, in the order given.
///
/// # Errors
/// A file that can not be read; what is no instance id; none at all.
pub(super) fn instance_ids(given: &[String]) -> Result<Vec<String>, UsageError> {
    let mut ids: Vec<String> = Vec::new();
    for argument in given {
        let (text, origin) = match argument.strip_prefix('@') {
            Some(file) => {
                let text = std::fs::read_to_string(Path::new(file)).map_err(|error| {
                    UsageError(format!(
                        "reading the instance ids from the file {file}: {error}"
                    ))
                })?;
                (text, format!(" in the file {file}"))
            }
            None => (argument.clone(), String::new()),
        };
        let words = text
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default())
            .flat_map(|line| line.split([',', ' ', '\t']))
            .filter(|word| !word.is_empty());
        for id in words {
            if !is_id(id, "i-") {
                return Err(UsageError(format!(
                    "{id:?}{origin} is no instance id: one looks like i-0123456789abcdef0"
                )));
            }
            if !ids.iter().any(|known| known == id) {
                ids.push(id.to_owned());
            }
        }
    }
    if ids.is_empty() {
        return Err(UsageError("--instance-ids names no instance".into()));
    }
    Ok(ids)
}

/// Whether it is the prefix and 8 or 17 hexadecimal digits: EC2's ids before and since 2016.
fn is_id(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|digits| {
        matches!(digits.len(), 8 | 17)
            && digits
                .bytes()
                .all(|each| matches!(each, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn good_tags() {
        for (text, key, value) in [
            ("owner=storage", "owner", "storage"),
            ("query=a=b=c", "query", "a=b=c"),
            ("empty=", "empty", ""),
            ("Größe=二 ٣", "Größe", "二 ٣"),
            ("a.b:c/d+e-f@g_h=1", "a.b:c/d+e-f@g_h", "1"),
            ("name=x", "name", "x"),
            ("aws=x", "aws", "x"),
        ] {
            assert_eq!(tag(text), Ok((key.to_owned(), value.to_owned())), "{text}");
        }
        let longest = format!("{}={}", "k".repeat(128), "ä".repeat(256));
        assert!(tag(&longest).is_ok());
    }

    #[test]
    fn bad_tags_and_why() {
        for (text, why) in [
            ("owner", "key=value"),
            ("", "key=value"),
            ("=x", "key is empty"),
            ("aws:x=1", "belong to AWS"),
            ("AWS:x=1", "belong to AWS"),
            ("wekactl.io/managed=false", "belong to wekactl"),
            ("Wekactl.IO/x=1", "belong to wekactl"),
            ("Name=x", "sets the key Name"),
            ("a*=1", "'*'"),
            ("a=b;c", "';'"),
            ("a=b,c", "','"),
            ("a=\u{1f980}", "possible"),
            // A vowel sign is a mark and no letter.
            ("a=\u{939}\u{93f}", "possible"),
            ("a=x\ny", "'\\n'"),
            (&format!("{}=1", "k".repeat(129)), "129 characters"),
            (&format!("k={}", "v".repeat(257)), "257 characters"),
        ] {
            let error = tag(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    fn pairs(texts: &[&str]) -> Vec<(String, String)> {
        texts.iter().map(|text| tag(text).unwrap()).collect()
    }

    #[test]
    fn tags_together() {
        let same = tags(&pairs(&["a=1", "b=2", "a=1"])).unwrap();
        assert_eq!(same.len(), 2);
        for contradiction in [["a=1", "a=2"], ["a=1", "A=1"]] {
            let error = tags(&pairs(&contradiction)).unwrap_err();
            assert!(error.to_string().contains("contradict"), "{error}");
        }
        let many = |count: usize| {
            (0..count)
                .map(|number| (format!("k{number}"), String::new()))
                .collect::<Vec<_>>()
        };
        assert_eq!(tags(&many(40)).unwrap().len(), 40);
        assert!(
            tags(&many(41))
                .unwrap_err()
                .to_string()
                .contains("41 tags are too many")
        );
    }

    #[test]
    fn cores_and_memory() {
        assert_eq!(
            cores("compute=4,drive=2,frontend=0,memory=130433516148"),
            Ok(Cores {
                compute: 4,
                drive: 2,
                frontend: 0,
                memory: 130_433_516_148
            })
        );
        for (size, expected) in [
            ("32.64GB", 32_640_000_000),
            ("384GB", 384_000_000_000),
            ("1.5GiB", 1_610_612_736),
            ("512MiB", 536_870_912),
        ] {
            let text = format!("memory={size}, frontend=1, drive=1, compute=1");
            assert_eq!(cores(&text).map(|cores| cores.memory), Ok(expected));
        }
        for (text, why) in [
            ("", "looks like"),
            ("compute=1,drive=1,frontend=1", "memory is missing"),
            ("compute=0,drive=1,frontend=1,memory=1", "at least 1"),
            ("compute=1,drive=x,frontend=1,memory=1", "drive=x"),
            ("compute=1,drive=1,frontend=-1,memory=1", "frontend=-1"),
            ("compute=1,drive=1,frontend=1,memory=0", "memory=0"),
            ("compute=1,drive=1,frontend=1,memory=1.5", "memory=1.5"),
            (
                "compute=1,drive=1,frontend=1,memory=99999999999GB",
                "memory=",
            ),
            ("compute=1,compute=2,drive=1,frontend=1,memory=1", "twice"),
            ("computes=1,drive=1,frontend=1,memory=1", "\"computes\""),
        ] {
            let error = cores(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn instance_ids_from_lists_and_files() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(
            file,
            "# the backends\r\ni-00000000000000001, i-0000000a # first\n\ni-00000000000000002\r\n"
        )
        .unwrap();
        let given = [
            "i-00000000000000003,i-00000000000000001".to_owned(),
            format!("@{}", file.path().display()),
        ];
        assert_eq!(
            instance_ids(&given).unwrap(),
            [
                "i-00000000000000003",
                "i-00000000000000001",
                "i-0000000a",
                "i-00000000000000002"
            ]
        );
        for (given, why) in [
            ("", "names no instance"),
            ("i-123", "\"i-123\" is no instance id"),
            ("I-00000000000000001", "is no instance id"),
            ("i-0000000000000000g", "is no instance id"),
            ("@/nowhere/ids", "reading the instance ids"),
        ] {
            let error = instance_ids(&[given.to_owned()]).expect_err(given);
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn names_in_the_network() {
        assert_eq!(
            host_name("weka.example.com."),
            Ok("weka.example.com".into())
        );
        assert_eq!(zone_id("/hostedzone/Z1ABC"), Ok("Z1ABC".into()));
        for good in [
            "internal-wekactl-prod-1.us-east-1.elb.amazonaws.com",
            "127.0.0.9",
            "a",
        ] {
            assert!(is_host_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "a..b",
            "-a.b",
            "a-.b",
            "a b",
            "a;b",
            "a$(b)",
            "a/b",
            "a:1",
            "ä.de",
            &"a".repeat(64),
            &"a.".repeat(127),
        ] {
            assert!(!is_host_name(bad), "{bad}");
        }
        assert!(zone_id("Z/../x").is_err());
        assert!(region("y-run").is_err() && region("us-gov-west-1").is_ok());
        assert!(subnet("subnet-0123456789abcdef0").is_ok() && subnet("subnet-x").is_err());
        for empty_is_not_given in [region(""), subnet(""), host_name(""), zone_id("")] {
            assert_eq!(empty_is_not_given, Ok(String::new()));
        }
    }
}
