//! One keep-alive connection: sends a request's bytes, reads one answer. Does not know what is asked.

use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::failure::{Failure, UNREACHABLE};

/// Most bytes of an answer: a token takes less than a thousandth of it.
const MAX_ANSWER: usize = 1 << 20;

/// Where a server listens.
#[derive(Debug, Clone)]
pub(super) struct Server {
    /// `host:port`.
    authority: String,
}

impl Server {
    /// From `http://host:port`.
    pub(super) fn parse(url: &str) -> Result<Self, Failure> {
        let wrong = || Failure::new(format!("{url} is no address of a server; give http://HOST:PORT"));
        let url = Url::parse(url).map_err(|_| wrong())?;
        match (url.scheme(), url.host_str(), url.port_or_known_default()) {
            ("http", Some(host), Some(port)) => Ok(Self { authority: format!("{host}:{port}") }),
            _ => Err(wrong()),
        }
    }

    /// The bytes of a request for what lies at `path`.
    pub(super) fn get(&self, path: &str) -> Vec<u8> {
        format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.authority).into_bytes()
    }

    /// The bytes of a request with a JSON body.
    pub(super) fn post(&self, path: &str, key: Option<&str>, body: &str) -> Vec<u8> {
        let authorization = key.map_or_else(String::new, |key| format!("authorization: Bearer {key}\r\n"));
        format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\n{authorization}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.authority,
            body.len()
        )
        .into_bytes()
    }
}

/// A connection that is opened when it is needed and kept while the server keeps it.
pub(super) struct Connection<'a> {
    server: &'a Server,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

/// What the head of an answer says.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Bytes of the body; `None`: it comes in chunks.
    length: Option<usize>,
    closes: bool,
    /// Bytes of the head itself.
    bytes: usize,
}

impl<'a> Connection<'a> {
    pub(super) fn new(server: &'a Server) -> Self {
        Self { server, stream: None, buffer: Vec::new() }
    }

    /// Sends a request; gives the answer's body.
    pub(super) async fn ask(&mut self, request: &[u8]) -> Result<Vec<u8>, Failure> {
        let kept = self.stream.is_some();
        let (status, body) = match self.exchange(request).await {
            // A server may close a kept connection at any time between two requests.
            Err(_) if kept => self.exchange(request).await?,
            answer => answer?,
        };
        if status == 200 {
            return Ok(body);
        }
        let limited = if status == 429 { " (start it with a higher --requests-per-minute)" } else { "" };
        Err(Failure::new(format!("{} answered {status}{limited}: {}", self.server.authority, String::from_utf8_lossy(&body))))
    }

    /// Status and body.
    async fn exchange(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>), Failure> {
        let unreachable = |e: std::io::Error| Failure { code: UNREACHABLE, ..Failure::because(&self.server.authority, e) };
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(&self.server.authority).await.map_err(unreachable)?;
                stream.set_nodelay(true).map_err(unreachable)?;
                stream
            }
        };
        stream.write_all(request).await.map_err(unreachable)?;
        self.buffer.clear();
        let (head, body) = loop {
            let read = stream.read_buf(&mut self.buffer).await.map_err(unreachable)?;
            if read == 0 || self.buffer.len() > MAX_ANSWER {
                return Err(Failure { code: UNREACHABLE, ..Failure::new(format!("{} broke off its answer", self.server.authority)) });
            }
            let Some(head) = head(&self.buffer) else { continue };
            let rest = &self.buffer[head.bytes..];
            let body = match head.length {
                Some(length) => rest.get(..length).map(<[u8]>::to_vec),
                None => chunks(rest),
            };
            if let Some(body) = body {
                break (head, body);
            }
        };
        if !head.closes {
            self.stream = Some(stream);
        }
        Ok((head.status, body))
    }
}

/// The head, once it is there whole.
fn head(bytes: &[u8]) -> Option<Head> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut head = Head { status, length: Some(0), closes: false, bytes: end + 4 };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            head.length = Some(value.parse().ok()?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
            head.length = None;
        } else if name.eq_ignore_ascii_case("connection") {
            head.closes = value.eq_ignore_ascii_case("close");
        }
    }
    Some(head)
}

/// A body in chunks, once it is there whole.
fn chunks(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|w| w == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).ok()?.trim(), 16).ok()?;
        let data = bytes.get(end + 2..)?;
        if size == 0 {
            return data.starts_with(b"\r\n").then_some(body);
        }
        body.extend_from_slice(data.get(..size)?);
        bytes = data.get(size.checked_add(2)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_when_they_are_whole() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        assert_eq!(head(&whole[..40]), None);
        assert_eq!(head(whole), Some(Head { status: 200, length: Some(5), closes: true, bytes: whole.len() - 5 }));
        let chunked = b"HTTP/1.1 429 Too Many\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(head(chunked), Some(Head { status: 429, length: None, closes: false, bytes: chunked.len() }));
        let body = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        for cut in 0..body.len() {
            assert_eq!(chunks(&body[..cut]), None, "{cut}");
        }
        assert_eq!(chunks(body), Some(b"abcde".to_vec()));
        assert_eq!(chunks(b"ffffffffffffffff\r\nab"), None);
    }

    #[test]
    fn addresses_are_checked() {
        assert_eq!(Server::parse("http://127.0.0.1:8080/").expect("address").authority, "127.0.0.1:8080");
        for wrong in ["localhost:80", "https://localhost", "", "http://"] {
            assert!(Server::parse(wrong).is_err(), "{wrong}");
        }
    }
}
