//! As much of HTTP/1.1 as Weka's API and the sandbox need: whole bodies of known length, connections that go on.

use std::io::{self, BufRead, Read, Write};

/// Larger requests are nobody's.
const LARGEST_BODY: u64 = 1 << 22;

#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Without the query.
    pub(crate) path: String,
    /// Of `Authorization: Bearer`.
    pub(crate) token: Option<String>,
    pub(crate) body: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn json(status: u16, body: String) -> Self {
        Self {
            status,
            content_type: "application/json",
            body,
        }
    }

    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self {
            status,
            content_type: "text/plain",
            body: body.to_owned(),
        }
    }
}

/// The next request of a connection; `None` at its end.
pub(crate) fn read(stream: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let mut request = Request {
        method: words.next().unwrap_or_default().to_owned(),
        ..Request::default()
    };
    let target = words.next().unwrap_or_default();
    target
        .split('?')
        .next()
        .unwrap_or_default()
        .clone_into(&mut request.path);
    let mut length = 0;
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        match (name.to_ascii_lowercase().as_str(), value.trim()) {
            ("content-length", value) => length = value.parse().map_err(io::Error::other)?,
            ("authorization", value) => {
                request.token = value.strip_prefix("Bearer ").map(ToOwned::to_owned);
            }
            _ => {}
        }
    }
    if length > LARGEST_BODY {
        return Err(io::Error::other("too large"));
    }
    stream.take(length).read_to_string(&mut request.body)?;
    Ok(Some(request))
}

pub(crate) fn write(stream: &mut impl Write, response: &Response) -> io::Result<()> {
    let Response {
        status,
        content_type,
        body,
    } = response;
    let length = body.len();
    // In one piece, as the reader may not wait for a second one.
    let whole = format!(
        "HTTP/1.1 {status} -\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(whole.as_bytes())?;
    stream.flush()
}
