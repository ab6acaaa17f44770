//! How fast clients may be: messages and bytes a second, by session, user and address, and what
//! a user or an address may hold at a time.
//!
//! A user's account is shared by all of their connections, an address's by all that come from
//! it; who comes back finds what was used up. An account leaves memory once nobody holds it and
//! its rates have filled up again, so that forgetting it changes nothing.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dramatis_events::{MemberId, MemberKind};
use governor::clock::MonotonicClock;
use governor::state::{InMemoryState, NotKeyed};
use governor::{InsufficientCapacity, Quota, RateLimiter};

use crate::config::{AddressLimitsConfig, LimitsConfig, RateConfig, UserLimitsConfig};

mod account;
mod book;
mod toll;

pub use account::{Account, Permit, Seat, SessionSeat};
use account::{Held, Pace, UNLIMITED};
use book::Book;
pub use toll::{Taken, Toll};

type Limiter = RateLimiter<NotKeyed, InMemoryState, MonotonicClock>;

/// Messages and bytes a second.
pub struct Meter {
    messages: Option<Limiter>,
    bytes: Option<Limiter>,
}

impl Meter {
    /// A meter that has its whole burst left: `burst_s` seconds' worth of each rate.
    pub fn new(rate: RateConfig, burst_s: u32) -> Self {
        let limiter = |per_s: u32| {
            let per_s = NonZeroU32::new(per_s)?;
            let burst = NonZeroU32::new(per_s.get().saturating_mul(burst_s)).unwrap_or(per_s);
            let quota = Quota::per_second(per_s).allow_burst(burst);
            Some(RateLimiter::direct_with_clock(quota, MonotonicClock))
        };
        Self { messages: limiter(rate.commands_per_s), bytes: limiter(rate.bytes_per_s) }
    }

    /// Takes one message of so many bytes; else says when it would be taken.
    pub fn take(&self, bytes: usize) -> Result<(), Duration> {
        let bytes = u32::try_from(bytes).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        take(self.messages.as_ref(), NonZeroU32::MIN)?;
        take(self.bytes.as_ref(), bytes)
    }

    /// Takes so many bytes more of a message that was taken; else says when they would be.
    pub fn take_more(&self, bytes: usize) -> Result<(), Duration> {
        let bytes = u32::try_from(bytes).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        take(self.bytes.as_ref(), bytes)
    }
}

/// What is larger than the whole burst takes all of that: it would never be taken else.
fn take(limiter: Option<&Limiter>, cells: NonZeroU32) -> Result<(), Duration> {
    let Some(limiter) = limiter else { return Ok(()) };
    let taken = limiter.check_n(cells).or_else(|InsufficientCapacity(burst)| {
        limiter.check_n(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN))
    });
    match taken {
        Ok(taken) => taken.map_err(|until| until.wait_time_from(Instant::now())),
        Err(_) => Err(Duration::from_secs(1)),
    }
}

/// Every account of the process.
pub struct Meters {
    config: LimitsConfig,
    users: Book<MemberId>,
    integrations: Book<MemberId>,
    addresses: Book<IpAddr>,
}

impl Meters {
    /// No account yet.
    pub fn new(config: LimitsConfig) -> Self {
        let refilled_after = Duration::from_secs(u64::from(config.burst_s));
        let book_len_max = config.accounts_max;
        Self {
            config,
            users: Book::new(book_len_max, refilled_after),
            integrations: Book::new(book_len_max, refilled_after),
            addresses: Book::new(book_len_max, refilled_after),
        }
    }

    /// The account of a user, of any kind.
    pub fn user(&self, user: &MemberId) -> Arc<Account> {
        let LimitsConfig { user: of_user, integration, burst_s, .. } = &self.config;
        let (book, rate, held) = if user.kind() == MemberKind::Integration {
            (&self.integrations, *integration, Held::default())
        } else {
            let UserLimitsConfig { connections_max, rooms_max, requests_max, searches_max, .. } = *of_user;
            (
                &self.users,
                of_user.rate(),
                Held {
                    connections: connections_max,
                    rooms: rooms_max,
                    requests: requests_max,
                    searches: searches_max,
                    http: 0,
                },
            )
        };
        book.open(user, || Account::new(Pace::new(rate, *burst_s), held))
    }

    /// The account of an address; none of one that is not limited. Whoever has an IPv6 network
    /// has 2^64 addresses of it, so those share one.
    pub fn address(&self, address: IpAddr) -> Option<Arc<Account>> {
        let LimitsConfig { address: of_address, burst_s, .. } = &self.config;
        if address.to_canonical().is_loopback() && !of_address.loopback {
            return None;
        }
        let AddressLimitsConfig { connections_max, requests_max, searches_max, http_connections_max, .. } =
            *of_address;
        let held = Held {
            connections: connections_max,
            rooms: 0,
            requests: requests_max,
            searches: searches_max,
            http: http_connections_max,
        };
        let account = || Account::new(Pace::new(of_address.rate(), *burst_s), held);
        Some(self.addresses.open(&network(address), account))
    }

    /// What a session pays with.
    pub fn toll(&self, user: &MemberId, address: Option<Arc<Account>>) -> Toll {
        let rate = match user.kind() {
            MemberKind::Integration => UNLIMITED,
            _ => self.config.session,
        };
        Toll::new(rate, self.user(user), address, &self.config)
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_meter_takes_its_burst_and_then_says_when() {
        let rate = RateConfig { commands_per_s: 1, bytes_per_s: 1_000 };
        let meter = Meter::new(rate, 10);
        for _ in 0..10 {
            meter.take(10).unwrap();
        }
        let wait = meter.take(10).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        let meter = Meter::new(RateConfig { commands_per_s: 1_000, ..rate }, 10);
        meter.take(9_000).unwrap();
        let wait = meter.take(2_000).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        let meter = Meter::new(rate, 10);
        meter.take(50_000).unwrap();
        let wait = meter.take(50_000).unwrap_err();
        assert!(wait > Duration::from_secs(9) && wait <= Duration::from_secs(10), "{wait:?}");
        let free = Meter::new(RateConfig { commands_per_s: 0, bytes_per_s: 0 }, 10);
        assert!((0..10_000).all(|_| free.take(1_000_000).is_ok()));
    }

    #[test]
    fn newcomers_past_a_full_book_share_an_account_of_their_kind() {
        let limits = Config::defaults().unwrap().limits;
        let meters = Meters::new(LimitsConfig { accounts_max: 1, ..limits });
        let of = |user: &str| meters.user(&MemberId::parse(user).unwrap());
        let _held = [of("alice"), of("integration:import")];
        let (user, integration) = (of("bob"), of("integration:search"));
        assert!(Arc::ptr_eq(&user, &of("carol")) && Arc::ptr_eq(&integration, &of("integration:export")));
        assert!(!Arc::ptr_eq(&user, &integration));
    }

    #[test]
    fn the_addresses_of_a_network_are_one() {
        let of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::9"));
        assert_ne!(of("2001:db8:1:2::9"), of("2001:db8:1:3::9"));
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_ne!(of("192.0.2.7"), of("192.0.2.8"));
    }
}
