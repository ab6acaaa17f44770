//! `dramatis token`: makes a token, or the key that tokens are signed with.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::Args;
use dramatis_events::{EntityId, MemberId};
use jiff::SignedDuration;

use super::{DataArguments, output};
use crate::auth::{Claims, Keys, Kind};
use crate::protocol::TOKEN_BYTES_MAX;

/// Where the client commands find the token that they show.
const SHOWN: &str = "DRAMATIS_TOKEN";

/// Which token, or which key.
#[derive(Debug, Args)]
pub struct Token {
    /// Whose token: alice, persona:NAME or integration:NAME
    #[arg(long, value_name = "MEMBER", value_parser = member, requires = "lasts")]
    #[arg(required_unless_present = "new_key")]
    user: Option<MemberId>,
    /// How long it lasts, such as 30m, 1h, 7d
    #[arg(long = "for", id = "lasts", value_name = "TIME", value_parser = duration)]
    lasts: Option<Duration>,
    /// A room that it opens, or `me`, again for more; all if left out
    #[arg(long = "room", value_name = "ROOM", value_parser = room)]
    rooms: Vec<EntityId>,
    /// Writes a new key into a file that is not there yet, readable for its owner only
    #[arg(long, value_name = "FILE", conflicts_with_all = ["user", "lasts", "rooms"])]
    new_key: Option<PathBuf>,
    /// Settings, TOML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn member(text: &str) -> Result<MemberId, String> {
    let member = MemberId::parse(text).map_err(|error| error.to_string())?;
    if Kind::of(&member).is_none() { Err("the platform itself has no tokens".to_owned()) } else { Ok(member) }
}

fn room(text: &str) -> Result<EntityId, String> {
    EntityId::parse(text).map_err(|error| error.to_string())
}

fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("expected a time such as 30m, 1h or 7d, got {text:?}");
    let span: jiff::Span = text.parse().map_err(|_| expected())?;
    // A day here has 24 hours, whatever clocks are set to.
    let hours = i64::from(span.get_hours()) + 24 * i64::from(span.get_days());
    let in_hours = span.days(0).try_hours(hours).map_err(|_| expected())?;
    let duration = SignedDuration::try_from(in_hours).ok().and_then(|duration| duration.try_into().ok());
    duration.filter(|duration: &Duration| !duration.is_zero()).ok_or_else(expected)
}

/// Runs the command.
pub(super) fn run(token: &Token) -> anyhow::Result<()> {
    if let Some(file) = &token.new_key {
        return new_key(file);
    }
    let config = DataArguments { data: None, config: token.config.clone() }.load()?;
    let Some(file) = config.auth.token_key_file() else {
        anyhow::bail!("auth.token_key_file must name a key: `dramatis token --new-key FILE` makes one");
    };
    let (Some(user), Some(lasts)) = (&token.user, token.lasts) else {
        anyhow::bail!("expected --user and --for");
    };
    let keys = Keys::read(file)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let claims = Claims {
        sub: user.clone(),
        exp: whole_seconds(now.saturating_add(lasts)),
        kind: Kind::of(user),
        rooms: (!token.rooms.is_empty()).then(|| token.rooms.clone()),
    };
    let token = keys.mint(&claims)?;
    if token.len() > TOKEN_BYTES_MAX {
        anyhow::bail!(
            "a session takes tokens of up to {TOKEN_BYTES_MAX} bytes, and this one has {}: name fewer rooms",
            token.len()
        );
    }
    output::show(&format!("{token}\n"))
}

/// Counted up: a token lasts for as long as was asked for.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

/// 64 hexadecimal digits: 244 bits by chance.
fn new_key(path: &Path) -> anyhow::Result<()> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("the key {} cannot be made", path.display()))?;
    let (a, b) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    writeln!(file, "{}{}", a.simple(), b.simple())?;
    file.sync_all()?;
    Ok(())
}

/// The token that a client command shows, if the environment has one.
pub(super) fn shown() -> Option<String> {
    std::env::var(SHOWN).ok().filter(|token| !token.is_empty())
}

/// What to do where the server did not take the token that was shown, or wants one.
pub(super) fn remedy(was_shown: bool) -> &'static str {
    if was_shown {
        "That was the token in DRAMATIS_TOKEN: put a fresh one of an integration there (see `dramatis token --help`)"
    } else {
        "No token was shown, as DRAMATIS_TOKEN is not set: put the token of an integration there (see `dramatis \
         token --help`)"
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn a_token_lasts_no_shorter_than_asked_for() {
        for (millis, seconds) in [(1_000, 1), (1_001, 2), (1_999, 2), (2_000, 2)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds, "{millis}");
        }
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, seconds) in [("30m", 1_800), ("1h", 3_600), ("7d", 604_800), ("1d 2h", 93_600), ("5s", 5)]
        {
            assert_eq!(duration(text).unwrap().as_secs(), seconds, "{text}");
        }
        for text in ["", "soon", "0s", "-1h", "5"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
