//! A connection for one HTTP query after the other.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The longest answer.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// One kept-alive connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    host: SocketAddr,
    answer: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub(super) async fn open(host: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(host).await.context("the server takes no connection")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, host, answer: Vec::new() })
    }

    /// Reads the whole answer to a query; any but 200 is an error.
    pub(super) async fn get(&mut self, path: &str) -> anyhow::Result<()> {
        self.ask("GET", path).await?;
        let said = || String::from_utf8_lossy(&self.answer);
        ensure!(self.answer.starts_with(b"HTTP/1.1 200"), "expected 200 to {path}, got: {}", said());
        Ok(())
    }

    /// Has a read model built anew, unless that is under way.
    pub(super) async fn rebuild(&mut self, projection: &str) -> anyhow::Result<()> {
        let path = format!("/api/projections/{projection}/rebuild");
        self.ask("POST", &path).await?;
        let said = || String::from_utf8_lossy(&self.answer);
        let (begun, busy) =
            (self.answer.starts_with(b"HTTP/1.1 2"), self.answer.starts_with(b"HTTP/1.1 409"));
        ensure!(begun || busy, "expected {path} to be begun or under way, got: {}", said());
        Ok(())
    }

    async fn ask(&mut self, method: &str, path: &str) -> anyhow::Result<()> {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\r\n", self.host);
        self.stream.write_all(request.as_bytes()).await?;
        self.answer.clear();
        while !is_whole(&self.answer)? {
            let read = self.stream.read_buf(&mut self.answer).await?;
            ensure!(read > 0, "the server closed a connection within its answer to {path}");
            ensure!(self.answer.len() <= ANSWER_BYTES_MAX, "the answer to {path} is too long");
        }
        Ok(())
    }
}

/// Whether an answer has its head and as many bytes of body as that tells.
fn is_whole(answer: &[u8]) -> anyhow::Result<bool> {
    let Some(head) = memmem::find(answer, b"\r\n\r\n") else { return Ok(false) };
    let text = std::str::from_utf8(answer.get(..head).unwrap_or_default())?;
    let mut lines = text.lines().filter_map(|line| line.split_once(": "));
    let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let (_, length) = length.with_context(|| format!("expected a content-length in {text:?}"))?;
    Ok(answer.len() >= head + 4 + length.trim().parse::<usize>()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_last_byte() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        for cut in 0..answer.len() {
            assert!(!is_whole(answer.get(..cut).unwrap()).unwrap(), "{cut}");
        }
        assert!(is_whole(answer).unwrap());
        assert!(is_whole(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
