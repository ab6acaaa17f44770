//! Who may come in, how fast they may be, and how they are told that the process ends.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// The file of the key that tokens are signed with; empty for local mode.
    pub token_key_file: PathBuf,
    /// What a token names that is for this server, if it says whom it is for; empty for nothing.
    pub audience: String,
    /// From the request for a fresh token to the end of the present one, milliseconds.
    pub refresh_ahead_ms: u64,
    /// From the end of a token to the close of its connection, milliseconds.
    pub expired_grace_ms: u64,
    /// Whether metrics are read without a token.
    pub open_metrics: bool,
}

impl AuthConfig {
    /// The key's file, if there is to be one.
    pub fn token_key_file(&self) -> Option<&std::path::Path> {
        Some(self.token_key_file.as_path()).filter(|file| !file.as_os_str().is_empty())
    }
}

/// `[server.proxies]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxiesConfig {
    /// Addresses and networks whose word is taken.
    pub trusted: Vec<Network>,
    /// In which header they give it.
    pub header: ForwardedHeader,
}

/// The header in which a proxy says for whom it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForwardedHeader {
    /// Addresses, comma-separated, the nearest last.
    #[serde(rename = "x-forwarded-for")]
    XForwardedFor,
    /// RFC 7239.
    #[serde(rename = "forwarded")]
    Forwarded,
}

/// An address, or a network such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(IpNet);

impl Network {
    /// Whether the address is one of it; an IPv4 address may be written as IPv6 maps it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let address = text.parse::<IpAddr>().map(IpNet::from);
        let network = address.or_else(|_| text.parse()).map(Self);
        network.map_err(|_| format!("{text:?} is no address and no network such as 10.0.0.0/8"))
    }
}

impl From<Network> for String {
    fn from(Network(network): Network) -> Self {
        network.to_string()
    }
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    /// So many seconds' worth of a rate may come at once.
    pub burst_s: u32,
    /// Refusals in a minute before a connection is closed as abuse.
    pub refused_per_minute_max: u32,
    /// Users, and addresses, remembered at a time.
    pub accounts_max: usize,
    /// One connection of a person or persona.
    pub session: RateConfig,
    /// All connections of a person or persona.
    pub user: UserLimitsConfig,
    /// All connections of an integration.
    pub integration: RateConfig,
    /// All connections from an address.
    pub address: AddressLimitsConfig,
}

/// Messages and bytes a second; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateConfig {
    /// Commands and other messages.
    pub commands_per_s: u32,
    /// Their bytes.
    pub bytes_per_s: u32,
}

/// `[limits.user]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserLimitsConfig {
    /// Commands and other messages a second.
    pub commands_per_s: u32,
    /// Their bytes.
    pub bytes_per_s: u32,
    /// Connections open at a time; 0 is no limit.
    pub connections_max: usize,
    /// Rooms followed by all of them together; 0 is no limit.
    pub rooms_max: usize,
    /// HTTP requests answered at a time; 0 is no limit.
    pub requests_max: usize,
    /// Searches made at a time; 0 is no limit.
    pub searches_max: usize,
}

/// `[limits.address]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressLimitsConfig {
    /// Commands, other messages and HTTP requests a second.
    pub commands_per_s: u32,
    /// Their bytes.
    pub bytes_per_s: u32,
    /// Sockets, streams and polled sessions at a time; 0 is no limit.
    pub connections_max: usize,
    /// HTTP requests without a token answered at a time; 0 is no limit.
    pub requests_max: usize,
    /// Searches without a token made at a time; 0 is no limit.
    pub searches_max: usize,
    /// Connections of HTTP open at a time; 0 is no limit.
    pub http_connections_max: usize,
    /// Whether loopback addresses are limited too.
    pub loopback: bool,
}

impl UserLimitsConfig {
    /// The rates alone.
    pub fn rate(&self) -> RateConfig {
        RateConfig { commands_per_s: self.commands_per_s, bytes_per_s: self.bytes_per_s }
    }
}

impl AddressLimitsConfig {
    /// The rates alone.
    pub fn rate(&self) -> RateConfig {
        RateConfig { commands_per_s: self.commands_per_s, bytes_per_s: self.bytes_per_s }
    }
}

impl LimitsConfig {
    /// Every rate with the name of its section.
    pub(super) fn rates(&self) -> [(&'static str, RateConfig); 4] {
        [
            ("session", self.session),
            ("user", self.user.rate()),
            ("integration", self.integration),
            ("address", self.address.rate()),
        ]
    }
}

/// `[drain]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainConfig {
    /// From telling clients to closing their connections, milliseconds.
    pub notice_ms: u64,
    /// From closing to leaving what is not closed yet, milliseconds.
    pub patience_ms: u64,
    /// From the close to the first client's slot, milliseconds.
    pub successor_ms: u64,
    /// Clients that come back in a second.
    pub reconnects_per_s: u32,
}
