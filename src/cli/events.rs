//! `dramatis events`: recorded events as newline-delimited JSON on standard output.

use std::io::{ErrorKind, Read, Write};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use dramatis_events::UnixMillis;
use serde::Deserialize;

use super::{Failure, ServerUrl, Target, http, output};
use crate::auth::Claims;
use crate::clock::{Clock as _, SystemClock, parse_time};

/// What to do with the events.
#[derive(Debug, Subcommand)]
pub enum Events {
    /// Prints the events recorded so far and ends
    #[command(after_help = "Examples:
  dramatis events read > all.ndjson
  dramatis events read --room lobby --from 120 --limit 10
  dramatis events read --since 2024-01-31T12:00:00Z --before 2024-02-01T00:00:00Z
  dramatis events read --name MessagePosted --name MessageEdited | jq .data.text")]
    Read(Selection),
    /// Prints the events recorded so far, then each new one as it happens
    ///
    /// It ends once the log has gone past what --to, --before or --limit name.
    #[command(after_help = "Examples:
  dramatis events tail --room lobby
  dramatis events tail --from 100000 --name MemberJoined")]
    Tail(Selection),
}

/// Which events.
#[derive(Debug, Args)]
pub struct Selection {
    /// Only this room
    #[arg(long, value_name = "ROOM")]
    room: Option<String>,
    /// Only streams of this category: room or user
    #[arg(long, value_name = "CATEGORY")]
    category: Option<String>,
    /// Only events of this name, such as `MessagePosted`; may be given more than once
    #[arg(long, value_name = "EVENT")]
    name: Vec<String>,
    /// The first to print: with --room a revision, otherwise a position
    #[arg(long, value_name = "NUMBER")]
    from: Option<u64>,
    /// The last to print: with --room a revision, otherwise a position
    #[arg(long, value_name = "NUMBER")]
    to: Option<u64>,
    /// Only what was recorded at this time or after it: RFC 3339, or Unix milliseconds
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<UnixMillis>,
    /// Only what was recorded before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    before: Option<UnixMillis>,
    /// How many at the most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    target: Target,
}

/// Runs the subcommand.
pub(super) fn run(command: Events) -> anyhow::Result<()> {
    let (selection, follow) = match command {
        Events::Read(selection) => (selection, false),
        Events::Tail(selection) => (selection, true),
    };
    let url = &selection.target.url;
    let asked = http::stream(url, "/api/events", &query(&selection, follow));
    let copied = asked.and_then(|body| copy(&mut body.into_reader(), output::stdout()));
    copied.map_err(|error| {
        let cut_short = match (error.downcast_ref::<Cut>(), error.downcast_ref()) {
            (Some(_), _) if token_ran_out() => return anyhow::anyhow!(RAN_OUT),
            (Some(cut), _) => cut.0.to_string(),
            // What is cut short before its first byte has left looks as if nobody were there.
            (_, Some(Failure::NoServer { reason, .. })) => reason.clone(),
            _ => return error,
        };
        let said = |reasons: String| match reasons.as_str() {
            "" => anyhow::anyhow!("{CUT_SHORT} ({cut_short}): {MAY_HAVE_ENDED}"),
            reasons => anyhow::anyhow!("{CUT_SHORT} ({cut_short}); the server's health says: {reasons}"),
        };
        reasons(url).map_or(error, said)
    })
}

/// What a server that still answers says is wrong with it.
fn reasons(url: &ServerUrl) -> Option<String> {
    #[derive(Deserialize)]
    struct Health {
        /// Left out by one that has none.
        #[serde(default)]
        reasons: Vec<String>,
    }
    let health: Health = serde_json::from_str(&http::get(url, "/api/health", &[]).ok()?).ok()?;
    Some(health.reasons.join("; "))
}

/// What is said of that.
const CUT_SHORT: &str = "the server stopped before the end of the events";

/// The same where the server is well.
const MAY_HAVE_ENDED: &str = "it may have been started anew meanwhile; go on with --from";

/// The same where it had to.
const RAN_OUT: &str = "the token has run out, and what is followed ends by that: go on with a fresh one, and \
                       with --from";

fn token_ran_out() -> bool {
    let claims = super::token::shown().and_then(|token| Claims::unverified(&token));
    let now = u64::try_from(SystemClock.now().get() / 1_000).unwrap_or(0);
    claims.is_some_and(|claims| claims.exp <= now)
}

/// An answer that ended before it was whole.
#[derive(Debug, thiserror::Error)]
#[error("{CUT_SHORT}")]
struct Cut(#[source] std::io::Error);

fn query(selection: &Selection, follow: bool) -> Vec<(&'static str, String)> {
    let mut query = Vec::new();
    query.extend(selection.room.iter().map(|room| ("room", room.clone())));
    query.extend(selection.category.iter().map(|category| ("category", category.clone())));
    query.extend(selection.name.iter().map(|name| ("name", name.clone())));
    query.extend(selection.from.map(|from| ("from", from.to_string())));
    query.extend(selection.to.map(|to| ("to", to.to_string())));
    query.extend(selection.since.map(|time| ("since", time.get().to_string())));
    query.extend(selection.before.map(|time| ("before", time.get().to_string())));
    query.extend(selection.limit.map(|limit| ("limit", limit.to_string())));
    query.push(("follow", follow.to_string()));
    query
}

/// Copies as it comes, so that a tail shows each event at once. Who closes the pipe has seen
/// enough: that is no error.
fn copy(mut from: impl Read, mut to: impl Write) -> anyhow::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(Cut(error).into()),
        };
        let written = to.write_all(buffer.get(..count).unwrap_or_default()).and_then(|()| to.flush());
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("cannot write to standard output")?,
        }
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
    use std::io;

    use super::*;

    struct Closed(ErrorKind);

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_ends_quietly_and_a_full_disk_does_not() {
        copy(&b"{}\n"[..], Closed(ErrorKind::BrokenPipe)).unwrap();
        assert!(copy(&b"{}\n"[..], Closed(ErrorKind::StorageFull)).is_err());
        let mut copied = Vec::new();
        copy(&b"{}\n{}\n"[..], &mut copied).unwrap();
        assert_eq!(copied, b"{}\n{}\n");
    }

    #[test]
    fn the_query_says_what_was_selected() {
        let target = Target { url: "http://localhost:1".parse().unwrap() };
        let name = vec!["A".into(), "B".into()];
        let selection = Selection {
            room: Some("den".into()),
            category: None,
            name,
            from: Some(7),
            to: Some(9),
            since: Some(UnixMillis::new(5)),
            before: None,
            limit: None,
            target,
        };
        let got: Vec<String> = query(&selection, true).iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(got.join("&"), "room=den&name=A&name=B&from=7&to=9&since=5&follow=true");
    }
}
