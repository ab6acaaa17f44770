//! Where a server is, and what is said when none is there.

use std::ffi::OsStr;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;

/// The address of a running server: `http://host:port`, perhaps with a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl(String);

impl ServerUrl {
    /// The URL of a path below the server's, such as `/api/events`.
    pub fn http(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    /// Whether it is an address of this machine alone.
    pub(super) fn is_loopback(&self) -> bool {
        let authority = self.0.trim_start_matches("http://").split('/').next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next(),
            None => host.split(':').next(),
        };
        let name = name.unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        let is_address = |address: IpAddr| address.to_canonical().is_loopback();
        name == "localhost" || name.ends_with(".localhost") || name.parse().is_ok_and(is_address)
    }

    /// The URL of the socket.
    pub fn socket(&self) -> String {
        format!("ws{}/socket", self.0.trim_start_matches("http"))
    }
}

/// As it is told: without the name and the password that it may hold.
impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = self.0.trim_start_matches("http://");
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        write!(f, "http://{}{path}", authority.rsplit('@').next().unwrap_or_default())
    }
}

/// Reads the argument; a password in what is no URL is not told either.
#[derive(Debug, Clone)]
pub(super) struct Parser;

impl TypedValueParser for Parser {
    type Value = ServerUrl;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<ServerUrl, clap::Error> {
        value.to_string_lossy().parse::<ServerUrl>().map_err(|reason| {
            let message = format!("invalid value for '--url <URL>': {reason}\n");
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}

impl FromStr for ServerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || {
            let scheme = text.find("://").map_or("", |end| text.get(..end + 3).unwrap_or_default());
            // Of what is no URL nobody knows where a password begins and ends.
            let shown =
                text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, host)| format!("{scheme}{host}"));
            format!(
                "expected http://host:port, as http://127.0.0.1:7400 (plain http only: for a server behind \
                 https name its own address); got {shown:?}"
            )
        };
        let rest = text.strip_prefix("http://").ok_or_else(error)?.trim_end_matches('/');
        let valid = !rest.is_empty()
            && !rest.starts_with('/')
            && rest.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'))
            && has_valid_port(rest.split('/').next().unwrap_or_default());
        if valid { Ok(Self(format!("http://{rest}"))) } else { Err(error()) }
    }
}

/// Whether what an authority has for a port is one: a library that is given another may ask the usual one.
fn has_valid_port(authority: &str) -> bool {
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = host.rsplit(']').next().unwrap_or_default();
    host.split_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_api_and_socket() {
        let url: ServerUrl = "http://localhost:7400/".parse().unwrap();
        assert_eq!(url.http("/api/events"), "http://localhost:7400/api/events");
        assert_eq!(url.socket(), "ws://localhost:7400/socket");
        for bad in ["", "localhost:7400", "https://x", "http://", "http:///x", "http://a b", "http://x?y"] {
            let error = bad.parse::<ServerUrl>().unwrap_err();
            assert!(error.contains("expected http://host:port"), "{error}");
        }
        for port in ["", "0", "65536", "99999", "7400x", "-1", "74:00"] {
            for host in ["localhost", "[::1]", "me:secret@localhost"] {
                format!("http://{host}:{port}/").parse::<ServerUrl>().unwrap_err();
            }
        }
        let url: ServerUrl = "http://me:s3@cret@[::1]:7400/below".parse().unwrap();
        assert_eq!(url.to_string(), "http://[::1]:7400/below");
        assert_eq!(url.http("/api"), "http://me:s3@cret@[::1]:7400/below/api");
        let below: ServerUrl = "http://[::1]:7400/a@b".parse().unwrap();
        assert_eq!(below.to_string(), "http://[::1]:7400/a@b");
        for bad in ["https://me:s3cret@host", "http://me:s3/cret@host?", "me:s3cret@host:80"] {
            let error = bad.parse::<ServerUrl>().unwrap_err();
            assert!(error.contains("host") && !error.contains("cret"), "{error}");
        }
    }

    #[test]
    fn addresses_of_this_machine_are_told_from_others() {
        let loopback = |text: &str| text.parse::<ServerUrl>().unwrap().is_loopback();
        for url in [
            "http://127.0.0.1:7400",
            "http://127.1.2.3/path",
            "http://localhost:7400",
            "http://a.LOCALHOST.",
            "http://[::1]:7400",
            "http://[::ffff:127.0.0.1]",
            "http://me@localhost",
        ] {
            assert!(loopback(url), "{url}");
        }
        for url in
            ["http://10.0.0.1:7400", "http://localhost.example.org", "http://[fe80::1]", "http://localhost@x"]
        {
            assert!(!loopback(url), "{url}");
        }
    }
}
