//! Accounts of one kind by key, forgotten when that changes nothing.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Account;
use crate::actors::shrink::shrink;

/// Accounts are looked through for those to forget at most this often.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Book<Key> {
    accounts: Mutex<Accounts<Key>>,
    len_max: usize,
    refilled_after: Duration,
}

struct Accounts<Key> {
    by_key: HashMap<Key, Entry>,
    swept: Instant,
    /// Shared by all who come while the book is full.
    newcomers: Option<Arc<Account>>,
}

struct Entry {
    account: Arc<Account>,
    /// Since when nobody else was seen to hold it.
    idle_since: Option<Instant>,
}

impl<Key: Clone + Eq + Hash> Book<Key> {
    /// A book of at most `len_max` accounts, whose rates fill up again within `refilled_after`.
    pub(super) fn new(len_max: usize, refilled_after: Duration) -> Self {
        let accounts = Accounts { by_key: HashMap::new(), swept: Instant::now(), newcomers: None };
        Self { accounts: Mutex::new(accounts), len_max, refilled_after }
    }

    /// The account of this key, found or made.
    pub(super) fn open(&self, key: &Key, make: impl FnOnce() -> Account) -> Arc<Account> {
        self.open_at(key, make, Instant::now())
    }

    fn open_at(&self, key: &Key, make: impl FnOnce() -> Account, now: Instant) -> Arc<Account> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = accounts.by_key.get_mut(key) {
            entry.idle_since = None;
            return entry.account.clone();
        }
        if now.saturating_duration_since(accounts.swept) >= SWEEP_EVERY {
            accounts.sweep(now, self.refilled_after);
        }
        if accounts.by_key.len() >= self.len_max {
            return accounts.newcomers.get_or_insert_with(|| Arc::new(make())).clone();
        }
        let account = Arc::new(make());
        accounts.by_key.insert(key.clone(), Entry { account: account.clone(), idle_since: None });
        account
    }
}

impl<Key: Eq + Hash> Accounts<Key> {
    fn sweep(&mut self, now: Instant, refilled_after: Duration) {
        self.swept = now;
        self.by_key.retain(|_, entry| {
            if Arc::strong_count(&entry.account) > 1 {
                entry.idle_since = None;
                return true;
            }
            let since = *entry.idle_since.get_or_insert(now);
            now.saturating_duration_since(since) < refilled_after
        });
        shrink(&mut self.by_key);
        self.newcomers = self.newcomers.take().filter(|shared| Arc::strong_count(shared) > 1);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::super::{Held, Pace};
    use super::*;
    use crate::config::RateConfig;

    fn account() -> Account {
        let pace = Pace::new(RateConfig { commands_per_s: 1, bytes_per_s: 0 }, 10);
        Account::new(pace, Held::default())
    }

    #[test]
    fn an_account_is_kept_while_it_is_held_or_used_up() {
        let book = Book::new(10, Duration::from_secs(10));
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let held = book.open_at(&"held", account, at(0));
        drop(book.open_at(&"left", account, at(0)));
        let same = book.open_at(&"held", account, at(1));
        assert!(Arc::ptr_eq(&held, &same));
        let known = |seconds: u64, new: &'static str| {
            drop(book.open_at(&new, account, at(seconds)));
            let accounts = book.accounts.lock().unwrap();
            (accounts.by_key.contains_key("held"), accounts.by_key.contains_key("left"))
        };
        assert_eq!(known(5, "a"), (true, true), "what was used up is not forgotten at once");
        assert_eq!(known(14, "b"), (true, true));
        assert_eq!(known(16, "c"), (true, false), "filled up again");
    }

    #[test]
    fn a_full_book_gives_newcomers_one_account() {
        let book = Book::new(3, Duration::from_secs(10));
        let now = Instant::now();
        let held: Vec<_> = (0..5).map(|key| book.open_at(&key, account, now)).collect();
        assert_eq!(book.accounts.lock().unwrap().by_key.len(), 3);
        let [first, .., fourth, fifth] = held.as_slice() else { unreachable!() };
        assert!(Arc::ptr_eq(fourth, fifth) && !Arc::ptr_eq(first, fourth));
    }
}
