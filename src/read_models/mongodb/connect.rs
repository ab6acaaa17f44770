//! Reaching the server, and operations with their deadline and retries.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mongodb::bson::{Document, RawDocumentBuf, doc};
use mongodb::options::{ClientOptions, FindOptions, ReadPreference, SelectionCriteria, WriteConcern};
use mongodb::{Client, Database};

use super::errors::{self, Trouble, Written};
use super::{Options, Store};
use futures_util::TryStreamExt as _;

/// The prober's first wait while the server does not answer; it doubles with each further one.
const PROBE_MIN: Duration = Duration::from_millis(250);
/// Its longest wait.
const PROBE_MAX: Duration = Duration::from_secs(5);

/// Raised with every change of how documents and builds are stored.
const FORMAT: i32 = 2;
/// Where that is kept, and under which key.
const FORMATS: &str = "meta.format";
const OURS: &str = "read models";

/// Asks the server now and then whether it is there, and more often while it is not.
pub(super) async fn watch(store: Arc<Store>) {
    let mut wait = PROBE_MIN;
    loop {
        match store.probe().await {
            Ok(latency) => {
                wait = PROBE_MIN;
                store.gate.open(latency);
                tokio::select! {
                    () = tokio::time::sleep(store.options.health_interval) => {}
                    () = store.gate.doubted() => {}
                }
            }
            Err(reason) => {
                store.gate.close(&reason);
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(PROBE_MAX);
            }
        }
    }
}

impl Store {
    /// One question and its answer, and how long that took.
    async fn probe(&self) -> Result<Duration, String> {
        let limit = self.options.operation_timeout;
        let asked = tokio::time::timeout(limit, async {
            let database = match self.database.get() {
                Some(database) => database.clone(),
                None => self.connect().await?,
            };
            let started = Instant::now();
            database.run_command(doc! {"ping": 1}).await.map_err(|error| errors::told(&error))?;
            let latency = started.elapsed();
            if self.database.get().is_none() {
                recognize(&database).await?;
                let _ = self.database.set(database);
            }
            Ok(latency)
        });
        asked.await.unwrap_or_else(|_| Err(no_answer(limit)))
    }

    async fn connect(&self) -> Result<Database, String> {
        let Self { options, .. } = self;
        let said = |error: mongodb::error::Error| errors::told(&error);
        let asked = ClientOptions::parse(options.uri.secret()).await.map_err(said)?;
        let mut client = client_options(asked, options);
        client.cmap_event_handler = Some(self.breaks.handler());
        Ok(Client::with_options(client).map_err(said)?.database(&options.database))
    }

    /// Runs an operation under the deadline, again if its connection broke; tells how often. It
    /// must be one that has the effect of one when made twice.
    pub(super) async fn attempt<T, F>(&self, work: impl Fn(Database) -> F) -> Result<(T, u32), Trouble>
    where
        F: Future<Output = mongodb::error::Result<T>>,
    {
        self.gate.pass().await?;
        let Some(database) = self.database.get() else {
            return Err(Trouble::Unreachable { reason: "it was not reached yet".into(), again: false });
        };
        let limit = self.options.operation_timeout;
        let mut tries = 1;
        loop {
            let trouble = match tokio::time::timeout(limit, work(database.clone())).await {
                Ok(Ok(done)) => return Ok((done, tries)),
                Ok(Err(error)) => errors::sort(&error),
                Err(_) => Trouble::Unreachable { reason: no_answer(limit), again: false },
            };
            if let Trouble::Unreachable { .. } = &trouble {
                // A machine that lost its power closes no connection.
                self.breaks.add();
            }
            match &trouble {
                Trouble::Unreachable { again: true, .. } if tries <= self.options.retries_max => tries += 1,
                Trouble::Unreachable { reason, .. } => {
                    self.gate.doubt(reason);
                    return Err(trouble);
                }
                Trouble::Refused { .. } | Trouble::Said(_) => return Err(trouble),
            }
        }
    }

    /// Runs a command; answers the reply.
    pub(super) async fn command(&self, command: Document) -> Result<Document, Trouble> {
        let run = |database: Database| {
            let command = command.clone();
            async move { database.run_command(command).await }
        };
        Ok(self.attempt(run).await?.0)
    }

    /// Runs a command that writes, acknowledged by a majority and by the journal: a server that
    /// stands alone and dies must keep what it acknowledged, as nobody writes it again. Answers how
    /// many documents it found, and how often it was tried.
    pub(super) async fn change(&self, command: RawDocumentBuf) -> Result<(u64, u32), Trouble> {
        let (written, tries) = self.written(command, true).await?;
        Ok((written.found, tries))
    }

    /// The same, with all that the reply says. What is not `journaled` a server that dies may lose,
    /// unless it is one of several.
    pub(super) async fn written(
        &self,
        mut command: RawDocumentBuf,
        journaled: bool,
    ) -> Result<(Written, u32), Trouble> {
        command.append(mongodb::bson::cstr!("writeConcern"), concern(&self.options, journaled));
        let run = |database: Database| {
            let command = command.clone();
            async move { database.run_raw_command(command).await }
        };
        let (reply, tries) = self.attempt(run).await?;
        Ok((errors::written(&reply)?, tries))
    }

    /// All documents that a filter finds.
    pub(super) async fn found(
        &self,
        collection: &str,
        filter: Document,
        options: FindOptions,
    ) -> Result<Vec<RawDocumentBuf>, Trouble> {
        self.found_within(collection, filter, options, usize::MAX).await
    }

    /// The same, up to the one with which they come to so many bytes.
    pub(super) async fn found_within(
        &self,
        collection: &str,
        filter: Document,
        options: FindOptions,
        bytes_max: usize,
    ) -> Result<Vec<RawDocumentBuf>, Trouble> {
        let find = |database: Database| {
            let collection = database.collection::<RawDocumentBuf>(collection);
            let (filter, options) = (filter.clone(), options.clone());
            async move {
                let mut cursor = collection.find(filter).with_options(options).await?;
                let (mut found, mut bytes) = (Vec::new(), 0_usize);
                while bytes < bytes_max
                    && let Some(document) = cursor.try_next().await?
                {
                    bytes = bytes.saturating_add(document.as_bytes().len());
                    found.push(document);
                }
                Ok(found)
            }
        };
        Ok(self.attempt(find).await?.0)
    }
}

/// How long something within an operation may take: less than that, so that it can say why it ended.
fn within(options: &Options) -> Duration {
    options.operation_timeout * 4 / 5
}

/// How a write is to be acknowledged.
fn concern(options: &Options, journaled: bool) -> RawDocumentBuf {
    let limit_ms = i64::try_from(within(options).as_millis()).unwrap_or(i64::MAX);
    mongodb::bson::rawdoc! {"w": "majority", "j": journaled, "wtimeout": limit_ms}
}

/// What the connection string leaves open, and what it does not decide.
fn client_options(mut client: ClientOptions, options: &Options) -> ClientOptions {
    client.app_name.get_or_insert_with(|| "dramatis".to_owned());
    client.max_pool_size.get_or_insert(options.pool_max);
    client.min_pool_size.get_or_insert(options.pool_min.min(options.pool_max));
    client.connect_timeout.get_or_insert(options.connect_timeout);
    client.server_selection_timeout.get_or_insert(within(options));
    client.write_concern.get_or_insert_with(WriteConcern::majority);
    // What a projection folds next stands on what it wrote last: a server that lags would have it
    // write wrong documents, and queries would not see what they waited for.
    let primary = SelectionCriteria::ReadPreference(ReadPreference::Primary);
    if let Some(asked) = client.selection_criteria.replace(primary.clone()).filter(|asked| *asked != primary)
    {
        tracing::warn!(
            ?asked,
            "the connection string's readPreference is not followed: read models are read from the primary"
        );
    }
    client
}

/// Marks a new database as ours, and refuses one of another release or application: builds are
/// dropped by their names, and what is called so must be ours.
async fn recognize(database: &Database) -> Result<(), String> {
    let said = |error: mongodb::error::Error| errors::told(&error);
    let name = database.name();
    let mut found = format_of(database).await?;
    if found.is_none() {
        let mut others = database.list_collection_names().await.map_err(said)?;
        // The server's own, such as its profiler's, are in no application's way.
        others.retain(|other| !other.starts_with("system."));
        // Another process may have begun it meanwhile.
        found = format_of(database).await?;
        if let (None, Some(other)) = (found, others.first()) {
            return Err(format!(
                "database {name:?} holds what is not ours, such as the collection {other:?}: name a database for \
                 this dramatis alone"
            ));
        }
    }
    match found {
        Some(FORMAT) => Ok(()),
        Some(found) => Err(format!(
            "database {name:?} holds read models of format {found}, this release writes {FORMAT}: name another \
             database, or drop this one; it is rebuilt from the log"
        )),
        None => {
            let formats = database.collection::<Document>(FORMATS);
            formats.update_one(ours(), first()).upsert(true).await.map(drop).map_err(said)
        }
    }
}

fn ours() -> Document {
    doc! {"_id": OURS}
}

fn first() -> Document {
    doc! {"$setOnInsert": {"format": FORMAT}}
}

impl Store {
    /// Marks the database as ours, should it have been emptied since it was found to be.
    pub(super) async fn mark(&self) -> Result<(), Trouble> {
        self.update(FORMATS, ours(), first(), true).await.map(drop)
    }
}

async fn format_of(database: &Database) -> Result<Option<i32>, String> {
    let found = database.collection::<Document>(FORMATS).find_one(ours()).await;
    let found = found.map_err(|error| errors::told(&error))?;
    Ok(found.map(|found| errors::number(&found, "format")))
}

fn no_answer(limit: Duration) -> String {
    format!("the server did not answer within {} ms", limit.as_millis())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;
    use crate::read_models::mongodb::tests::options;

    #[tokio::test]
    async fn reads_go_to_the_primary_whatever_the_connection_string_says() {
        for preference in ["", "?readPreference=secondaryPreferred", "?readPreference=nearest&maxPoolSize=3"]
        {
            let uri = format!("mongodb://127.0.0.1:9/{preference}");
            let asked = ClientOptions::parse(&uri).await.unwrap();
            let client = client_options(asked, &options(&uri, "none"));
            let primary = SelectionCriteria::ReadPreference(ReadPreference::Primary);
            assert_eq!(client.selection_criteria, Some(primary), "{uri}");
            let pool = if preference.contains("maxPoolSize") { 3 } else { 10 };
            assert_eq!(client.max_pool_size, Some(pool), "the rest is followed");
        }
    }

    #[test]
    fn a_majority_that_is_missing_is_told_of_before_the_operation_is_given_up() {
        let options = options("mongodb://127.0.0.1:9/", "none");
        let wait = concern(&options, true).get_i64("wtimeout").unwrap();
        let limit = i64::try_from(options.operation_timeout.as_millis()).unwrap();
        assert!(wait > limit / 2 && wait < limit, "{wait} of {limit} ms");
    }
}
