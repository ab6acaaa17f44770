//! Loopback is not trust: a web page elsewhere must not drive a local server, directly
//! (`Origin`) or by a name that resolves here (`Host`).

use actix_http::header::{self, HeaderMap, HeaderValue};

use crate::config::{HostName, WebOrigin};

/// Which `Host` and `Origin` headers may come in.
#[derive(Debug, Clone)]
pub struct Guard {
    hosts: Vec<String>,
    origins: Vec<WebOrigin>,
    any_host: bool,
}

impl Guard {
    /// Lets in loopback names, the address listened on, and what is configured besides. With
    /// `any_host`, for a server bound openly, every `Host` is let in; origins are checked still.
    pub fn new(listen_host: &str, hosts: &[HostName], origins: &[WebOrigin], any_host: bool) -> Self {
        let loopback = ["localhost", "127.0.0.1", "[::1]", listen_host];
        let hosts =
            loopback.into_iter().chain(hosts.iter().map(HostName::as_str)).map(str::to_owned).collect();
        Self { hosts, origins: origins.to_vec(), any_host }
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
        if !self.any_host && !self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name_of(host))) {
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
        let guard = Guard::new("127.0.0.1", &hosts, &origins, false);
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
            ("evil.example:7400", None, false),
            ("evil.example", Some("http://evil.example"), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
            }
            assert_eq!(guard.check(&headers, None).is_ok(), allowed, "{host} {origin:?}");
        }
        assert!(guard.check(&HeaderMap::new(), None).is_err());
    }
}
