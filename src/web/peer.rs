//! From which address a request really is: the connection's own, or, where that is a proxy that
//! is trusted, the one the proxy names.
//!
//! A list of addresses is read from its end, since only that was written by somebody known: the
//! first that is no trusted proxy is the client, whatever it wrote before that itself.

use std::net::{IpAddr, SocketAddr};

use actix_http::header::{HeaderMap, HeaderName};

use crate::config::{ForwardedHeader, Network, ProxiesConfig};

/// The address that a request counts for, kept with the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientAddress(pub(super) IpAddr);

/// Which proxies are believed, and by which header.
#[derive(Debug, Clone)]
pub struct Proxies {
    trusted: Vec<Network>,
    header: ForwardedHeader,
}

impl Proxies {
    /// As configured.
    pub fn new(config: &ProxiesConfig) -> Self {
        Self { trusted: config.trusted.clone(), header: config.header }
    }

    /// Whose a request over a connection from `peer` is. What is no address ends the list: then
    /// it counts for the proxy that passed it on.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut nearest = peer;
        for named in self.named(headers).iter().rev() {
            if !self.trusts(nearest) {
                break;
            }
            let Some(address) = address(named) else { break };
            nearest = address;
        }
        nearest
    }

    /// Whether this is the address of a proxy that is believed.
    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }

    /// What the header says, farthest first; several headers are one list.
    fn named<'a>(&self, headers: &'a HeaderMap) -> Vec<&'a str> {
        if self.trusted.is_empty() {
            return Vec::new();
        }
        let (name, read): (_, fn(&str) -> &str) = match self.header {
            ForwardedHeader::XForwardedFor => ("x-forwarded-for", str::trim),
            ForwardedHeader::Forwarded => ("forwarded", forwarded_for),
        };
        let lines = headers.get_all(HeaderName::from_static(name));
        // A line that is no text names nobody, and so ends the list.
        lines.flat_map(|line| line.to_str().unwrap_or_default().split(',')).map(read).collect()
    }
}

/// The `for` of one element of `Forwarded`; empty where there is none.
fn forwarded_for(element: &str) -> &str {
    let pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let named = pairs.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("for"));
    named.map_or("", |(_, value)| value.trim_matches('"'))
}

/// An address, also with a port or in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use actix_http::header::HeaderValue;

    use super::*;

    fn check(header: ForwardedHeader, trusted: &[&str], peer: &str, lines: &[&str], want: &str) {
        let trusted = trusted.iter().map(|text| Network::try_from((*text).to_owned()).unwrap()).collect();
        let name = if header == ForwardedHeader::Forwarded { "forwarded" } else { "x-forwarded-for" };
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(line).unwrap());
        }
        let got = Proxies { trusted, header }.client(peer.parse().unwrap(), &headers);
        assert_eq!(got.to_string(), want, "{peer} {lines:?}");
    }

    #[test]
    fn the_last_address_that_is_no_proxy_is_the_client() {
        let plain = |trusted: &[&str], peer: &str, lines: &[&str], want: &str| {
            check(ForwardedHeader::XForwardedFor, trusted, peer, lines, want);
        };
        let trusted = ["127.0.0.1", "10.0.0.0/8", "fd00::/8"];
        plain(&[], "127.0.0.1", &["203.0.113.9"], "127.0.0.1");
        plain(&trusted, "198.51.100.7", &["203.0.113.9"], "198.51.100.7");
        plain(&trusted, "127.0.0.1", &[], "127.0.0.1");
        plain(&trusted, "127.0.0.1", &["203.0.113.9"], "203.0.113.9");
        plain(&trusted, "127.0.0.1", &["1.2.3.4, 203.0.113.9, 10.1.1.1"], "203.0.113.9");
        plain(&trusted, "127.0.0.1", &["1.2.3.4", "203.0.113.9 , 10.1.1.1"], "203.0.113.9");
        plain(&trusted, "::ffff:10.0.0.2", &["2001:db8::1"], "2001:db8::1");
        plain(&trusted, "127.0.0.1", &["10.1.1.1, 10.1.1.2"], "10.1.1.1");
        plain(&trusted, "127.0.0.1", &["203.0.113.9:5000"], "203.0.113.9");
        plain(&trusted, "127.0.0.1", &["203.0.113.9, unknown"], "127.0.0.1");
        plain(&trusted, "127.0.0.1", &["203.0.113.9, unknown, 10.1.1.1"], "10.1.1.1");
        plain(&trusted, "127.0.0.1", &["203.0.113.9,"], "127.0.0.1");
    }

    #[test]
    fn the_standard_header_names_it_by_its_for() {
        let standard = |lines: &[&str], want: &str| {
            check(ForwardedHeader::Forwarded, &["127.0.0.1", "fd00::/8"], "127.0.0.1", lines, want);
        };
        standard(&["for=203.0.113.9"], "203.0.113.9");
        standard(&["proto=https;For=\"203.0.113.9:47011\";by=1.1.1.1"], "203.0.113.9");
        standard(&["for=1.2.3.4, for=\"[2001:db8::7]\", for=\"[fd00::1]:80\""], "2001:db8::7");
        standard(&["for=203.0.113.9, for=_hidden"], "127.0.0.1");
        standard(&["for=203.0.113.9, proto=https"], "127.0.0.1");
    }
}
