//! Where and when: revision, position, epoch and time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A place in a stream: 0, 1, 2 …, contiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(u64);

impl Revision {
    /// The first revision of every stream.
    pub const FIRST: Self = Self(0);

    /// From the number.
    pub const fn new(revision: u64) -> Self {
        Self(revision)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The revision after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in the whole log. Ordered; opaque to all but its engine; a string in JSON;
/// comparable only within one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Position(u64);

/// A text that is no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a position must be the decimal text that an earlier answer gave; got {0:?}")]
pub struct ParsePositionError(String);

impl Position {
    /// For engines: wraps the engine's own number.
    pub const fn from_engine(number: u64) -> Self {
        Self(number)
    }

    /// For engines and stores: the engine's own number.
    pub const fn to_engine(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Position {
    type Err = ParsePositionError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| ParsePositionError(text.chars().take(40).collect()))
    }
}

impl TryFrom<String> for Position {
    type Error = ParsePositionError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Position> for String {
    fn from(position: Position) -> String {
        position.0.to_string()
    }
}

/// A log's id and a counter that rises whenever recorded history was cut or replaced.
///
/// Text form: 16 hexadecimal digits, a dot, the counter: `00c0ffee00c0ffee.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Epoch {
    log: u64,
    counter: u32,
}

/// A text that is no epoch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an epoch must be 16 hexadecimal digits, a dot and a number, as the server sent it; got {0:?}")]
pub struct ParseEpochError(String);

impl Epoch {
    /// The first epoch of the log with this id.
    pub const fn first(log: u64) -> Self {
        Self { log, counter: 1 }
    }

    /// From the stored numbers.
    pub const fn new(log: u64, counter: u32) -> Self {
        Self { log, counter }
    }

    /// The log's id.
    pub const fn log(self) -> u64 {
        self.log
    }

    /// The counter.
    pub const fn counter(self) -> u32 {
        self.counter
    }

    /// The epoch after recorded history was cut or replaced.
    #[must_use]
    pub const fn raised(self) -> Self {
        Self { log: self.log, counter: self.counter.saturating_add(1) }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.log, self.counter)
    }
}

impl FromStr for Epoch {
    type Err = ParseEpochError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseEpochError(text.chars().take(40).collect());
        let (log, counter) = text.split_once('.').filter(|(log, _)| log.len() == 16).ok_or_else(error)?;
        Ok(Self {
            log: u64::from_str_radix(log, 16).map_err(|_| error())?,
            counter: counter.parse().map_err(|_| error())?,
        })
    }
}

impl TryFrom<String> for Epoch {
    type Error = ParseEpochError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Epoch> for String {
    fn from(epoch: Epoch) -> String {
        epoch.to_string()
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(i64);

impl UnixMillis {
    /// From the number of milliseconds.
    pub const fn new(millis: i64) -> Self {
        Self(millis)
    }

    /// The number of milliseconds.
    pub const fn get(self) -> i64 {
        self.0
    }
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
    fn text_forms_come_back() {
        let epoch = Epoch::new(0xc0ff_ee00, 7);
        assert_eq!(epoch.to_string().parse::<Epoch>().unwrap(), epoch);
        assert_eq!("42".parse::<Position>().unwrap(), Position::from_engine(42));
        for bad in ["", "7", "zz.1", "00c0ffee00c0ffee.", "00c0ffee00c0ffee.x", "c0ffee.1"] {
            assert!(bad.parse::<Epoch>().is_err(), "{bad}");
        }
        assert!("-1".parse::<Position>().is_err());
    }
}
