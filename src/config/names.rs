//! The names by which a server and the pages that use it are called, in the form in which browsers
//! send them. What no browser ever sends is refused: it would stand in a file and never match.

use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

/// A web origin such as `https://app.example.org`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WebOrigin(String);

/// A host without its port, such as `dramatis.example.org` or `[::1]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

/// Ports that browsers leave out.
const DEFAULT_PORTS: [(&str, u16); 2] = [("http", 80), ("https", 443)];

impl WebOrigin {
    /// As a browser sends it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Lower case, without the slash at its end and a port that goes without saying.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        // Of pages that have no other, such as files.
        if text == "null" {
            return Some(Self(text));
        }
        let (scheme, authority) = text.split_once("://")?;
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse::<u16>().ok()?)),
            _ => (authority, None),
        };
        if !is_scheme || !is_host(host) {
            return None;
        }
        let port = port.filter(|port| !DEFAULT_PORTS.contains(&(scheme, *port)));
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        Some(Self(format!("{scheme}://{host}{port}")))
    }
}

impl HostName {
    /// In lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Lower case, an IPv6 address in its brackets.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Some(Self(format!("[{address}]")));
        }
        is_host(&text).then_some(Self(text))
    }
}

/// Letters of other alphabets come as `xn--…`; there are no wildcards.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    }
}

impl TryFrom<String> for WebOrigin {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is no web origin such as https://app.example.org"))
    }
}

impl TryFrom<String> for HostName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is no host name such as dramatis.example.org"))
    }
}

impl From<WebOrigin> for String {
    fn from(WebOrigin(origin): WebOrigin) -> Self {
        origin
    }
}

impl From<HostName> for String {
    fn from(HostName(host): HostName) -> Self {
        host
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for (text, want) in [
            ("https://app.example.org", Some("https://app.example.org")),
            ("HTTPS://App.Example.ORG/", Some("https://app.example.org")),
            ("https://app.example.org:443", Some("https://app.example.org")),
            ("http://localhost:3000", Some("http://localhost:3000")),
            ("http://localhost:80/", Some("http://localhost")),
            ("https://localhost:80", Some("https://localhost:80")),
            ("http://[::1]:7400", Some("http://[::1]:7400")),
            ("http://[::1]", Some("http://[::1]")),
            ("capacitor://localhost", Some("capacitor://localhost")),
            ("null", Some("null")),
            ("*", None),
            ("https://*.example.org", None),
            ("app.example.org", None),
            ("https://", None),
            ("https://app.example.org/chat", None),
            ("https://app.example.org//", None),
            ("https://app.example.org?x", None),
            ("https://alice@app.example.org", None),
            ("https://app.example.org:port", None),
            ("https://bücher.example", None),
            ("://app.example.org", None),
        ] {
            assert_eq!(WebOrigin::parse(text).as_ref().map(WebOrigin::as_str), want, "{text}");
        }
    }

    #[test]
    fn a_host_has_no_port_and_nothing_before_or_behind_it() {
        for (text, want) in [
            ("dramatis.example.org", Some("dramatis.example.org")),
            ("Dramatis.Example.ORG", Some("dramatis.example.org")),
            ("192.0.2.7", Some("192.0.2.7")),
            ("[2001:DB8::7]", Some("[2001:db8::7]")),
            ("2001:db8::7", Some("[2001:db8::7]")),
            ("example.org:8080", None),
            ("[::1]:8080", None),
            ("https://example.org", None),
            ("example.org/", None),
            ("*", None),
            ("*.example.org", None),
            ("", None),
        ] {
            assert_eq!(HostName::parse(text).as_ref().map(HostName::as_str), want, "{text}");
        }
    }
}
