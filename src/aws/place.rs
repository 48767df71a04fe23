//! Where calls go: what is no region and no URL is said before the first one.

use std::ffi::OsString;

use hyper::Uri;

/// Begins the names of the variables that send calls elsewhere: of all services, or of one.
const ENDPOINT: &str = "AWS_ENDPOINT_URL";

/// What the environment or the profile says is no place: a usage error, found before any call.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadPlace(String);

/// Whether it has the shape of a region's name, as `eu-west-1` and `us-gov-west-1` have: words, and a number. Which
/// regions there are changes, and is AWS's to say.
pub fn is_region(text: &str) -> bool {
    let Some((words, number)) = text.rsplit_once('-') else {
        return false;
    };
    let is_word = |word: &str| {
        word.len() > 1
            && word.starts_with(|first: char| first.is_ascii_lowercase())
            && word
                .bytes()
                .all(|each| each.is_ascii_lowercase() || each.is_ascii_digit())
    };
    (1..=2).contains(&number.len())
        && number.bytes().all(|each| each.is_ascii_digit())
        && words.contains('-')
        && words.split('-').all(is_word)
}

pub(super) fn check_region(region: &str) -> Result<(), BadPlace> {
    if is_region(region) {
        return Ok(());
    }
    Err(BadPlace(format!(
        "{region:?}, from AWS_REGION or the profile, is no AWS region: one looks like eu-west-1"
    )))
}

/// Where the environment sends calls.
pub(super) fn check_endpoints(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(), BadPlace> {
    for (name, value) in variables {
        if let Some(name) = name.to_str().filter(|name| name.starts_with(ENDPOINT)) {
            check_endpoint(name, &value.to_string_lossy())?;
        }
    }
    Ok(())
}

/// The SDK takes anything for a URL, and fails at the first call, or at once if it is empty.
pub(super) fn check_endpoint(name: &str, value: &str) -> Result<(), BadPlace> {
    let url = value.parse::<Uri>().ok().filter(|url| {
        matches!(url.scheme_str(), Some("http" | "https"))
            && url.host().is_some_and(|host| !host.is_empty())
    });
    match url {
        Some(_) => Ok(()),
        None if value.is_empty() => Err(BadPlace(format!(
            "{name} is empty: give it a URL like http://127.0.0.1:4566, or unset it"
        ))),
        None => Err(BadPlace(format!(
            "{name} is {value:?}, which is no URL: it looks like http://127.0.0.1:4566"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_by_their_shape() {
        for region in [
            "eu-west-1",
            "us-gov-west-1",
            "cn-north-1",
            "us-iso-east-1",
            "us-isob-east-1",
            "eusc-de-east-1",
            "ap-southeast-2",
            "il-central-12",
        ] {
            assert!(is_region(region), "{region}");
        }
        for text in [
            "",
            "x",
            "-",
            "y-run",
            "run",
            "eu-1",
            "eu-west",
            "eu-west-",
            "eu-west-1a",
            "eu--1",
            "EU-west-1",
            "eu-west-1 ",
            "-west-1",
            "1-2-3",
            "eu-west-100",
            "eu.west-1",
        ] {
            assert!(!is_region(text), "{text}");
        }
    }

    #[test]
    fn endpoints_are_urls() {
        let check = |name: &str, value: &str| check_endpoints([(name.into(), value.into())]);
        for url in [
            "http://127.0.0.1:1",
            "https://[::1]:8443/path",
            "http://localhost",
        ] {
            assert!(check(ENDPOINT, url).is_ok(), "{url}");
        }
        for text in [
            "foo",
            "http://",
            "ftp://x",
            "/x",
            "http://a b",
            "localhost:4566",
            "",
        ] {
            let error = check("AWS_ENDPOINT_URL_EC2", text).unwrap_err().to_string();
            assert!(error.starts_with("AWS_ENDPOINT_URL_EC2 is "), "{error}");
        }
        assert!(check("AWS_REGION", "foo").is_ok());
    }
}
