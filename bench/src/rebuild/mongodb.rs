//! `MongoDB`: the product's store, and the driver alone that writes the same documents.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use dramatis::log::EventLog;
use dramatis::read_models::mongodb::{MongoReadModels, MongoUri, Options as StoreOptions};
use futures_util::TryStreamExt as _;
use mongodb::bson::{Document, RawDocumentBuf, doc, rawdoc};
use mongodb::{Client, Database, IndexModel};

use super::Options;
use super::product::{self, BULK, BulkWrite, Measured, Sorted};

/// Measures in databases of this process's own.
pub(super) async fn measure(
    options: &Options,
    log: &Arc<dyn EventLog>,
    uri: &str,
) -> anyhow::Result<Measured> {
    let client = Client::with_uri_str(uri).await?;
    let database = |what: &str| format!("dramatis_bench_{what}_{}", std::process::id());
    let (product, limit) = (database("product"), database("limit"));
    let (product, limit) = (client.database(&product), client.database(&limit));
    let store = MongoReadModels::open(StoreOptions {
        uri: MongoUri::parse(uri).context("the address of the server")?,
        database: product.name().to_owned(),
        pool_min: 1,
        pool_max: 10,
        connect_timeout: Duration::from_secs(10),
        operation_timeout: Duration::from_mins(1),
        retries_max: 1,
        health_interval: Duration::from_secs(10),
    })?;
    let plain = async |collection: String| Plain::of(&product, &limit, &collection).await;
    let measured = product::measure(options, log, Arc::new(store), plain).await;
    product.drop().await?;
    limit.drop().await?;
    measured
}

struct Plain {
    database: Database,
    collection: String,
    indexes: Vec<IndexModel>,
    /// Guarded replacements, as commands have them.
    by_key: Vec<RawDocumentBuf>,
    as_in_the_log: Vec<RawDocumentBuf>,
}

impl Plain {
    /// Takes indexes and documents of a collection of the product's, to write them into another
    /// database.
    async fn of(product: &Database, limit: &Database, collection: &str) -> anyhow::Result<Self> {
        let theirs = product.collection::<RawDocumentBuf>(collection);
        let indexes: Vec<IndexModel> = theirs.list_indexes().await?.try_collect().await?;
        let own = |index: &IndexModel| !index.keys.keys().eq(["_id"]);
        let indexes = indexes.into_iter().filter(own).collect();
        let mut found = theirs.find(doc! {"latest.body": {"$exists": true}}).sort(doc! {"_id": 1}).await?;
        let mut writes = Vec::new();
        while let Some(document) = found.try_next().await? {
            let key = document.get_str("_id")?.to_owned();
            let position = document.get_document("latest")?.get_i64("position")?;
            let guard = rawdoc! {"_id": key, "latest.position": {"$lt": position}};
            writes.push((position, rawdoc! {"q": guard, "u": document, "upsert": true}));
        }
        let by_key = writes.iter().map(|(_, write)| write.clone()).collect();
        writes.sort_by_key(|(position, _)| *position);
        let as_in_the_log = writes.into_iter().map(|(_, write)| write).collect();
        let (database, collection) = (limit.clone(), collection.to_owned());
        Ok(Self { database, collection, indexes, by_key, as_in_the_log })
    }
}

impl BulkWrite for Plain {
    async fn write(&mut self, sorted: Sorted) -> anyhow::Result<Duration> {
        let Self { database, collection, indexes, by_key, as_in_the_log } = self;
        let writes = if sorted == Sorted::ByKey { by_key } else { as_in_the_log };
        let name = collection.as_str();
        database.create_collection(name).await?;
        if !indexes.is_empty() {
            database.collection::<Document>(name).create_indexes(indexes.clone()).await?;
        }
        let commands = writes.chunks(BULK).map(|some| {
            let mut updates = mongodb::bson::RawArrayBuf::new();
            for write in some {
                updates.push(write.as_ref());
            }
            rawdoc! {"update": name, "ordered": false, "updates": updates, "writeConcern": {"w": "majority", "j": true}}
        });
        let commands: Vec<RawDocumentBuf> = commands.collect();
        let (started, mut written) = (Instant::now(), 0);
        for command in commands {
            let answer = database.run_raw_command(command).await?;
            written += answer.get_i32("n").map_or(0, i64::from);
        }
        let took = started.elapsed();
        ensure!(
            usize::try_from(written)? == writes.len(),
            "expected {} writes, it were {written}",
            writes.len()
        );
        database.collection::<Document>(name).drop().await?;
        Ok(took)
    }
}
