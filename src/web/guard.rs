//! Loopback is not trust: a web page elsewhere must not drive a local server, directly
//! (`Origin`) or by a name that resolves here (`Host`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use actix_http::header::{self, HeaderMap, HeaderValue};

use crate::config::{HostName, WebOrigin};

/// Which `Host` and `Origin` headers may come in.
#[derive(Debug, Clone)]
pub struct Guard {
    hosts: Vec<String>,
    origins: Vec<WebOrigin>,
    others: Others,
}

/// By what the server may be called besides the hosts that it knows.
#[derive(Debug, Clone, Copy)]
enum Others {
    None,
    Addresses,
    All,
}

impl Guard {
    /// Lets in loopback names, the address listened on, and what is configured besides. A server that
    /// listens beyond loopback is let in to by any address, since a page elsewhere can lead here by names
    /// alone, and by any name too while none is configured. Origins are checked always.
    pub fn new(listen: IpAddr, hosts: &[HostName], origins: &[WebOrigin]) -> Self {
        let others = match (listen.is_loopback(), hosts.is_empty()) {
            (true, _) => Others::None,
            (false, true) => Others::All,
            (false, false) => Others::Addresses,
        };
        let listen = match listen {
            IpAddr::V6(v6) => format!("[{v6}]"),
            IpAddr::V4(v4) => v4.to_string(),
        };
        let loopback = ["localhost", "127.0.0.1", "[::1]", listen.as_str()];
        let hosts =
            loopback.into_iter().chain(hosts.iter().map(HostName::as_str)).map(str::to_owned).collect();
        Self { hosts, origins: origins.to_vec(), others }
    }

    fn is_called(&self, name: &str) -> bool {
        let is_let_in = match self.others {
            Others::None => false,
            Others::Addresses => is_address(name),
            Others::All => true,
        };
        is_let_in || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    /// The origin of a page elsewhere that is let in by name.
    pub fn page_elsewhere(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        self.origins.iter().any(|known| origin == known.as_str()).then(|| origin.clone())
    }

    /// Checks a request's headers; `authority` is that of an absolute request target.
    pub fn check(&self, headers: &HeaderMap, authority: Option<&str>) -> Result<(), &'static str> {
        let mut named = headers.get_all(header::HOST);
        let host = named.next().and_then(|host| host.to_str().ok()).or(authority);
        let Some(host) = host.filter(|_| named.next().is_none()) else {
            return Err("the Host header must be there once");
        };
        if !self.is_called(name_of(host)) {
            return Err("this server is not called by that Host: name it in server.allowed_hosts");
        }
        let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or("null"));
        match origin {
            None => Ok(()),
            Some(origin)
                if same_host(origin, host) || self.origins.iter().any(|known| known.as_str() == origin) =>
            {
                Ok(())
            }
            Some(_) => Err("pages of that Origin may not use this server: name it in server.allowed_origins"),
        }
    }
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

/// Whether this is an address and no name.
fn is_address(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok(),
    }
}

fn same_host(origin: &str, host: &str) -> bool {
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn only_known_hosts_and_own_pages_come_in() {
        let hosts = [HostName::try_from("Chat.Example".to_owned()).unwrap()];
        let origins = [WebOrigin::try_from("https://App.Example/".to_owned()).unwrap()];
        let guard = Guard::new(Ipv4Addr::LOCALHOST.into(), &hosts, &origins);
        for (host, origin, allowed) in [
            ("127.0.0.1:7400", None, true),
            ("LOCALHOST:7400", None, true),
            ("[::1]:7400", None, true),
            ("chat.example", Some("https://chat.example"), true),
            ("localhost:7400", Some("http://localhost:7400"), true),
            ("localhost:7400", Some("https://app.example"), true),
            ("localhost:7400", Some("http://localhost:9999"), false),
            ("localhost:7400", Some("https://evil.example"), false),
            ("localhost:7400", Some("null"), false),
            ("192.0.2.7:7400", None, false),
            ("evil.example:7400", None, false),
            ("evil.example", Some("http://evil.example"), false),
        ] {
            let mut headers = of_host(host);
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
            }
            assert_eq!(guard.check(&headers, None).is_ok(), allowed, "{host} {origin:?}");
        }
        assert!(guard.check(&HeaderMap::new(), None).is_err());
    }

    fn of_host(host: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        headers
    }

    #[test]
    fn names_that_are_set_bind_beyond_loopback_too() {
        let hosts = [HostName::try_from("chat.example".to_owned()).unwrap()];
        let listen = "0.0.0.0".parse().unwrap();
        let (bound, open) = (Guard::new(listen, &hosts, &[]), Guard::new(listen, &[], &[]));
        for (host, allowed) in [
            ("chat.example:7400", true),
            ("localhost:7400", true),
            ("192.0.2.7:7400", true),
            ("[2001:db8::7]:7400", true),
            ("evil.example:7400", false),
            ("127.1:7400", false),
            ("2130706433", false),
            ("[evil.example]:7400", false),
            ("192.0.2.7.evil.example", false),
        ] {
            assert_eq!(bound.check(&of_host(host), None).is_ok(), allowed, "{host}");
            assert!(open.check(&of_host(host), None).is_ok(), "{host}");
        }
    }
}
