//! `dramatis projections`: the read models of a running server.

use std::borrow::Cow;
use std::fmt::Write as _;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use dramatis_events::EntityId;
use serde_json::Value;

use super::{Target, http, output};

mod follow;
mod show;

/// What is asked for at once: as much as the server gives.
const PAGE: u64 = 500;

/// What to do with the read models.
#[derive(Debug, Subcommand)]
#[command(after_help = "Exit codes: 0 done, 1 refused or failed, 2 no server answers, 3 documents differ,
4 the build was paused or cancelled meanwhile.")]
pub enum Projections {
    /// Lists them: where each stands, how far it is behind, how many documents it keeps
    List {
        /// The server.
        #[command(flatten)]
        target: Target,
        /// Prints the server's JSON
        #[arg(long)]
        json: bool,
    },
    /// Builds one anew beside the live one, proves it, then switches over
    ///
    /// Queries go on being answered from the old build until the new one is complete and shows the
    /// same. If documents differ nothing is switched: they are shown, and `accept` or `cancel`
    /// says what to do. The build goes on without this command, and after a restart.
    #[command(after_help = "Example:
  dramatis projections rebuild timeline")]
    Rebuild {
        /// Which one.
        #[command(flatten)]
        of: Of,
        /// Switches although documents differ, for example after a fix
        #[arg(long)]
        accept: bool,
        /// Events a second at the most; without it the build gives way to live traffic
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
        events_per_second: Option<u64>,
        /// Does not wait for the end
        #[arg(long)]
        detach: bool,
    },
    /// Builds one beside the live one only to tell whether they are the same
    Verify {
        /// Which one.
        #[command(flatten)]
        of: Of,
    },
    /// Follows the build under way until it ends
    Watch {
        /// Which one.
        #[command(flatten)]
        of: Of,
    },
    /// Holds the build under way up
    Pause {
        /// Which one.
        #[command(flatten)]
        of: Of,
    },
    /// Goes on with a build that was held up
    Resume {
        /// Which one.
        #[command(flatten)]
        of: Of,
    },
    /// Drops the build under way
    Cancel {
        /// Which one.
        #[command(flatten)]
        of: Of,
    },
    /// Switches to the build under way although its documents differ
    Accept {
        /// Which one.
        #[command(flatten)]
        of: Of,
    },
    /// Goes back to the build that was live before: at once while that is kept warm
    Rollback {
        /// Which one.
        #[command(flatten)]
        of: Of,
    },
    /// Lists the keys that wait because an event could not be folded
    DeadLetters {
        /// Which one.
        #[command(flatten)]
        of: Of,
    },
    /// Folds a parked key again, after a fix
    Retry {
        /// Which one.
        #[command(flatten)]
        of: Of,
        /// The key, as `dead-letters` shows it
        key: String,
    },
    /// Folds a parked key again without the event that parked it
    ///
    /// Later builds leave that event out, too. Try `verify` first: if a new build has not parked the
    /// key, `rebuild` mends it and nothing is left out.
    ///
    /// What is skipped is noted in the store of the read models, for this history of the log. Once the
    /// store is emptied or exchanged, or the history is cut or restored, the event is folded again, and
    /// parks its key again if it still cannot be folded: skip it again then.
    Skip {
        /// Which one.
        #[command(flatten)]
        of: Of,
        /// The key, as `dead-letters` shows it
        key: String,
    },
    /// Lists the keys of the documents, in their order
    #[command(after_help = keys_help())]
    Keys {
        /// Which one.
        #[command(flatten)]
        of: Of,
        /// Only keys past this one; it need not be there
        #[arg(long, value_name = "KEY")]
        after: Option<String>,
        /// How many at the most
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        limit: Option<u64>,
        /// In this build instead of the live one, such as one that `as-of` made
        #[arg(long, value_name = "BUILD")]
        build: Option<String>,
    },
    /// Shows a document, as it is or as it was
    #[command(after_help = keys_help())]
    Get {
        /// Which one.
        #[command(flatten)]
        of: Of,
        /// The document's key, such as room-main.lobby: see below
        key: String,
        /// As of this position
        #[arg(long, value_name = "POSITION", conflicts_with = "as_of_time")]
        as_of: Option<String>,
        /// As of this time, such as 2024-01-31T12:00:00Z
        #[arg(long, value_name = "TIME")]
        as_of_time: Option<String>,
        /// In this build instead of the live one, such as one that `as-of` made
        #[arg(long, value_name = "BUILD", conflicts_with_all = ["as_of", "as_of_time"])]
        build: Option<String>,
    },
    /// Lists the events that made a document what it is
    #[command(after_help = keys_help())]
    Why {
        /// Which one.
        #[command(flatten)]
        of: Of,
        /// The document's key, such as room-main.lobby: see below
        key: String,
    },
    /// Builds a whole read model as it was, to be read for a while with `get --build`
    AsOf {
        /// Which one.
        #[command(flatten)]
        of: Of,
        /// As of when.
        #[command(flatten)]
        place: Place,
    },
    /// Drops a read model as it was, that `as-of` made, before its time
    Drop {
        /// Which one.
        #[command(flatten)]
        of: Of,
        /// Its build, as `list` shows it
        build: String,
    },
}

/// A place in the log: one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Place {
    /// The position
    #[arg(long, value_name = "POSITION")]
    position: Option<String>,
    /// The time, such as 2024-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    time: Option<String>,
}

/// Which projection, of which server.
#[derive(Debug, Args)]
pub struct Of {
    /// The projection's name, as `list` shows it
    name: String,
    /// The server.
    #[command(flatten)]
    target: Target,
    /// Prints the server's JSON
    #[arg(long)]
    json: bool,
}

impl Of {
    /// The path of something of this projection.
    fn path(&self, what: &str) -> anyhow::Result<String> {
        // A projection's name has the characters of an entity id, none of which needs escaping here
        // but these two.
        EntityId::parse(&self.name)
            .context("expected a projection's name, as `dramatis projections list` shows it")?;
        anyhow::ensure!(!self.name.contains(['?', '#']), "expected a projection's name, got {:?}", self.name);
        Ok(format!("/api/projections/{}{what}", self.name))
    }

    /// The key that is meant, as far as this release knows the read model.
    fn whole_key<'a>(&self, key: &'a str) -> Cow<'a, str> {
        match dramatis_projections::named(&self.name) {
            Some(projection) => projection.whole_key(key),
            None => Cow::Borrowed(key),
        }
    }

    fn get(&self, what: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        parsed(&http::get(&self.target.url, &self.path(what)?, query)?)
    }

    fn post(&self, what: &str, query: &[(&str, String)]) -> anyhow::Result<Value> {
        parsed(&http::post(&self.target.url, &self.path(what)?, query)?)
    }
}

/// The forms of keys, as help tells them.
fn keys_help() -> String {
    let mut help = "Keys, by read model:\n".to_owned();
    for projection in dramatis_projections::all() {
        // Writing to a String cannot fail.
        let _ = writeln!(help, "  {:<13} {}", projection.name(), projection.key_form());
    }
    help.push_str(
        "MESSAGE, ROOT and REPLY are revisions of the room, of 20 digits: for \
         room-main.lobby/00000000000000000002
room-main.lobby/2 may be written here. `dramatis projections keys NAME` lists the keys there are.",
    );
    help
}

fn parsed(text: &str) -> anyhow::Result<Value> {
    serde_json::from_str(text).context("expected JSON from the server")
}

/// Runs the subcommand.
pub(super) fn run(command: Projections) -> anyhow::Result<()> {
    match command {
        Projections::List { target, json } => {
            let rows = parsed(&http::get(&target.url, "/api/projections", &[])?)?;
            output::show(&if json { show::json(&rows) } else { show::list(&rows) })
        }
        Projections::Rebuild { of, accept, events_per_second, detach } => {
            let mut query = vec![("accept", accept.to_string())];
            query.extend(events_per_second.map(|max| ("events_per_second", max.to_string())));
            let job = of.post("/rebuild", &query)?;
            if !detach {
                return follow::follow(&of, Some(&job));
            }
            told(&of, &job, &show::job(&of.name, &job));
            Ok(())
        }
        Projections::Verify { of } => {
            let job = of.post("/verify", &[])?;
            follow::follow(&of, Some(&job))
        }
        Projections::AsOf { of, place: Place { position, time } } => {
            let position = position.map(|position| ("position", position));
            let query: Vec<_> = position.into_iter().chain(time.map(|time| ("time", time))).collect();
            let job = of.post("/as_of", &query)?;
            follow::follow(&of, Some(&job))
        }
        Projections::Watch { of } => follow::follow(&of, None),
        Projections::Pause { of } => wish(&of, "/pause"),
        Projections::Resume { of } => wish(&of, "/resume"),
        Projections::Cancel { of } => wish(&of, "/cancel"),
        Projections::Accept { of } => {
            let job = of.post("/accept", &[])?;
            follow::follow(&of, Some(&job))
        }
        Projections::Rollback { of } => {
            let back = of.post("/rollback", &[])?;
            told(&of, &back, &show::rolled_back(&of.name, &back));
            Ok(())
        }
        Projections::Drop { of, build } => {
            let dropped = of.post("/drop", &[("build", build)])?;
            told(&of, &dropped, &show::dropped(&of.name, &dropped));
            Ok(())
        }
        Projections::DeadLetters { of } => {
            let letters = dead_letters(&of)?;
            output::show(&if of.json { show::json(&letters) } else { show::dead_letters(&letters) })
        }
        Projections::Retry { of, key } => mend(&of, key, false),
        Projections::Skip { of, key } => mend(&of, key, true),
        Projections::Get { of, key, as_of, as_of_time, build } => {
            let mut query = vec![("key", of.whole_key(&key).into_owned())];
            query.extend(as_of.map(|position| ("as_of", position)));
            query.extend(as_of_time.map(|time| ("as_of_time", time)));
            query.extend(build.map(|build| ("build", build)));
            let found = of.get("/document", &query)?;
            if of.json {
                return output::show(&show::json(&found));
            }
            if let Some(parked) = found.get("parked") {
                output::tell(&show::waits(parked));
            }
            output::show(&show::json(found.get("document").unwrap_or(&Value::Null)))
        }
        Projections::Keys { of, after, limit, build } => keys(&of, after, limit, build.as_deref()),
        Projections::Why { of, key } => why(&of, &of.whole_key(&key)),
    }
}

fn wish(of: &Of, what: &str) -> anyhow::Result<()> {
    let job = of.post(what, &[])?;
    told(of, &job, &show::job(&of.name, &job));
    Ok(())
}

fn mend(of: &Of, key: String, skip: bool) -> anyhow::Result<()> {
    let mended = of.post(if skip { "/skip" } else { "/retry" }, &[("key", key)])?;
    let skipped = if skip { show::skipped(&of.name) } else { String::new() };
    told(of, &mended, &(show::mended(&mended) + &skipped));
    match mended.get("parked").and_then(Value::as_str) {
        None => Ok(()),
        Some(why) => anyhow::bail!("it is parked still: {why}"),
    }
}

fn dead_letters(of: &Of) -> anyhow::Result<Value> {
    let (mut letters, limit) = (Vec::new(), ("limit", PAGE.to_string()));
    let mut query = vec![limit.clone()];
    loop {
        let page = of.get("/dead_letters", &query)?;
        letters.extend(page.get("letters").and_then(Value::as_array).into_iter().flatten().cloned());
        let Some(next) = page.get("next").and_then(Value::as_str) else { return Ok(letters.into()) };
        query = vec![limit.clone(), ("after", next.to_owned())];
    }
}

fn keys(of: &Of, after: Option<String>, limit: Option<u64>, build: Option<&str>) -> anyhow::Result<()> {
    let mut left = limit.unwrap_or(u64::MAX);
    let mut after = after.map(|key| of.whole_key(&key).into_owned());
    loop {
        // JSON shows the documents, too.
        let mut query = vec![("limit", left.min(PAGE).to_string()), ("bodies", of.json.to_string())];
        query.extend(after.take().map(|after| ("after", after)));
        query.extend(build.map(|build| ("build", build.to_owned())));
        let page = of.get("/documents", &query)?;
        let documents =
            page.get("documents").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let mut text = String::new();
        for document in documents {
            let key =
                document.get("key").and_then(Value::as_str).context("expected a key of each document")?;
            if of.json {
                let _ = writeln!(text, "{document}");
            } else {
                let _ = writeln!(text, "{key}");
            }
            after = Some(key.to_owned());
            left = left.saturating_sub(1);
        }
        output::show(&text)?;
        if left == 0 || after.is_none() || page.get("more") != Some(&Value::Bool(true)) {
            return Ok(());
        }
    }
}

fn why(of: &Of, key: &str) -> anyhow::Result<()> {
    let (mut after, mut any) = (None::<Value>, false);
    loop {
        let mut query = vec![("key", key.to_owned()), ("limit", PAGE.to_string())];
        query.extend(after.iter().map(|after| ("after", show::plain(after))));
        let page = of.get("/why", &query)?;
        let events = page.get("events").and_then(Value::as_array).cloned().unwrap_or_default();
        any |= !events.is_empty();
        for event in &events {
            output::show(&if of.json { format!("{event}\n") } else { show::cause(event) })?;
        }
        // Of a long history a page may tell nothing.
        after = page.get("next").cloned();
        if after.is_some() {
            continue;
        }
        anyhow::ensure!(
            any,
            "no event has made a document {key:?} of {name}: `dramatis projections keys {name}` lists those there \
             are, and `dramatis projections why --help` tells the form of keys",
            name = of.name
        );
        return Ok(());
    }
}

/// What came of a wish that the server has granted already.
fn told(of: &Of, answer: &Value, text: &str) {
    if of.json { output::report(&show::json(answer)) } else { output::report(text) }
}
