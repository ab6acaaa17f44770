//! Builds: made, listed, dropped.

use std::sync::Arc;

use dramatis_events::Epoch;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use mongodb::options::FindOptions;

use super::Store;
use super::errors::{Trouble, number};
use super::letters::LETTERS;
use crate::read_models::{Build, Checkpoint, NewBuild, ReadModelError, names};

pub(super) const BUILDS: &str = "meta.builds";

/// A build that is neither being made nor being dropped.
pub(super) fn standing(collection: &str) -> Document {
    doc! {"_id": collection, "making": {"$exists": false}, "dropping": {"$exists": false}}
}

fn stands(build: &Document) -> bool {
    !build.contains_key("making") && !build.contains_key("dropping")
}

/// What a step needs to know of a build.
#[derive(Clone)]
pub(super) struct Standing {
    pub(super) epoch: Epoch,
    pub(super) position: Option<i64>,
    /// The fields whose words are kept.
    pub(super) text: Vec<String>,
}

impl Store {
    pub(super) async fn create(&self, build: &NewBuild) -> Result<(), Trouble> {
        let collection = names::collection(&build.collection)?;
        let (indexes, words) = (indexes(build)?, words_index(build)?);
        self.mark().await?;
        self.forget_standing(collection);
        if !self.build_document(collection).await?.as_ref().is_some_and(stands) {
            self.begin(build).await?;
        }
        match self.command(doc! {"create": collection}).await {
            Err(trouble) if trouble.collection_exists() => {}
            created => drop(created?),
        }
        for index in indexes {
            self.create_index(collection, index).await?;
        }
        if let Some(index) = words {
            let made = self.create_index(collection, index).await;
            if let Err(trouble) = made.map_err(|trouble| trouble.or_unsupported("full-text search")) {
                if matches!(trouble, Trouble::Said(ReadModelError::Unsupported { .. })) {
                    self.drop_build(collection).await?;
                }
                return Err(trouble);
            }
        }
        let made = doc! {"$unset": {"making": ""}};
        self.update(BUILDS, doc! {"_id": collection, "dropping": {"$exists": false}}, made, false).await?;
        // Another process may have taken what is made here for what was left behind.
        self.standing(collection).await.map(drop)
    }

    /// Records a build before it is made, so that what is cut off is known for that: it is dropped when
    /// the next one of its projection is begun.
    async fn begin(&self, build: &NewBuild) -> Result<(), Trouble> {
        let left = doc! {"projection": &build.projection, "making": true};
        for left in self.found(BUILDS, left, FindOptions::default()).await? {
            let left = Document::try_from(left.as_ref()).map_err(|error| damaged("", &error))?;
            self.drop_build(left.get_str("_id").unwrap_or_default()).await?;
        }
        // A drop or a write that was cut off may have left something under this name.
        self.drop_build(&build.collection).await?;
        let text: Vec<_> = build.text.iter().map(|field| field.name).collect();
        let first = doc! {"$setOnInsert": {
            "projection": &build.projection, "version": i64::from(build.version),
            "epoch": build.epoch.to_string(), "text": text, "making": true,
        }};
        self.update(BUILDS, doc! {"_id": &build.collection}, first, true).await.map(drop)
    }

    /// What is searched is left alone: documents that are there have no words for it. What takes long is made
    /// on beside the steps of the build, which do without.
    pub(super) async fn index_build(self: &Arc<Self>, build: &NewBuild) -> Result<(), Trouble> {
        let collection = names::collection(&build.collection)?;
        self.go_on_from_checkpoint(collection).await?;
        if self.indexed(build).await? {
            return Ok(());
        }
        tracing::warn!(collection, "an index is being made still: what is asked by it takes long until then");
        let (store, build) = (self.clone(), build.clone());
        tokio::spawn(async move { store.index_on(&build).await });
        Ok(())
    }

    /// Makes the indexes of a build on, for as long as that takes.
    async fn index_on(&self, build: &NewBuild) {
        let collection = &build.collection;
        loop {
            let made = match self.standing(collection).await {
                Ok(_) => self.indexed(build).await,
                Err(trouble) => Err(trouble),
            };
            match made {
                Ok(true) => return tracing::info!(collection, "its indexes are made"),
                Ok(false) => {}
                Err(Trouble::Said(ReadModelError::NoBuild { .. })) => return,
                Err(Trouble::Refused { code, reason }) => {
                    return tracing::warn!(collection, code, reason, "it is left without an index");
                }
                // The server is gone for a moment.
                Err(_) => tokio::time::sleep(self.options.operation_timeout).await,
            }
        }
    }

    /// Asks for the indexes of a build; tells whether they are there.
    async fn indexed(&self, build: &NewBuild) -> Result<bool, Trouble> {
        for index in indexes(build)? {
            let within = self.options.operation_timeout / 2;
            // The server goes on with it meanwhile; that it is slow says nothing about its health.
            match tokio::time::timeout(within, self.create_index(&build.collection, index)).await {
                Ok(made) => made?,
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    /// One a command: not every server takes those that are there among several.
    async fn create_index(&self, collection: &str, index: Document) -> Result<(), Trouble> {
        let (name, key) = (index.get("name").cloned(), index.get("key").cloned());
        let create = raw(&doc! {"createIndexes": collection, "indexes": [index]})?;
        let in_the_way = match self.change(create.clone()).await {
            Err(trouble) if trouble.index_has_other_fields() => name,
            Err(trouble) if trouble.index_has_other_options() => key,
            made => return made.map(drop),
        };
        self.command(doc! {"dropIndexes": collection, "index": in_the_way}).await?;
        self.change(create).await.map(drop)
    }

    pub(super) async fn builds(&self) -> Result<Vec<Build>, Trouble> {
        let options = FindOptions::builder().sort(doc! {"_id": 1}).build();
        let found = self.found(BUILDS, doc! {"making": {"$exists": false}}, options).await?;
        let builds = found.iter().map(|raw| {
            let document = Document::try_from(raw.as_ref()).map_err(|error| damaged("", &error))?;
            let collection = document.get_str("_id").unwrap_or_default();
            build(collection, &document).map_err(Trouble::from)
        });
        builds.collect()
    }

    /// A collection that a write made, because there was none, has none of a build's indexes.
    pub(super) async fn is_whole(&self, collection: &str) -> Result<bool, Trouble> {
        let listed = match self.command(doc! {"listIndexes": collection}).await {
            Err(trouble) if trouble.no_collection() => return Ok(false),
            listed => listed?,
        };
        let indexes = listed.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        let names =
            indexes.into_iter().flatten().filter_map(|index| index.as_document()?.get_str("name").ok());
        Ok(names.into_iter().any(|name| name != "_id_"))
    }

    /// Marks a build first, so that no writer takes it up again, and forgets it last, so that a
    /// drop that is cut off can be made again.
    pub(super) async fn drop_build(&self, collection: &str) -> Result<(), Trouble> {
        let mark = doc! {"$set": {"dropping": true}};
        self.update(BUILDS, doc! {"_id": collection}, mark, false).await?;
        self.forget_standing(collection);
        match self.command(doc! {"drop": collection}).await {
            Err(trouble) if trouble.no_collection() => {}
            dropped => drop(dropped?),
        }
        self.delete(LETTERS, doc! {"collection": collection}).await?;
        self.delete(BUILDS, doc! {"_id": collection}).await.map(drop)
    }

    /// The build of a collection.
    pub(super) async fn standing(&self, collection: &str) -> Result<Standing, Trouble> {
        let found = self.build_document(collection).await?;
        let document = found
            .filter(stands)
            .ok_or_else(|| ReadModelError::NoBuild { collection: collection.to_owned() })?;
        let Build { checkpoint: Checkpoint { epoch, .. }, .. } = build(collection, &document)?;
        let text = document.get_array("text").into_iter().flatten();
        let text = text.filter_map(|name| name.as_str().map(str::to_owned)).collect();
        Ok(Standing { epoch, position: document.get_i64("position").ok(), text })
    }

    async fn build_document(&self, collection: &str) -> Result<Option<Document>, Trouble> {
        let found = self.found(BUILDS, doc! {"_id": collection}, FindOptions::default()).await?;
        let Some(raw) = found.first() else { return Ok(None) };
        let document = Document::try_from(raw.as_ref());
        Ok(Some(document.map_err(|error| damaged(collection, &error))?))
    }
}

pub(super) fn raw(document: &Document) -> Result<RawDocumentBuf, Trouble> {
    RawDocumentBuf::try_from(document)
        .map_err(|error| ReadModelError::Failure { reason: error.to_string() }.into())
}

fn build(collection: &str, document: &Document) -> Result<Build, ReadModelError> {
    let text = |field: &str| document.get_str(field).map_err(|error| damaged(collection, &error));
    let epoch = text("epoch")?.parse().map_err(|error| damaged(collection, &error))?;
    let position = document.get_i64("position").ok();
    let place = place(collection);
    let position = position.map(|position| names::from_stored(&place, position)).transpose()?;
    Ok(Build {
        collection: collection.to_owned(),
        projection: text("projection")?.to_owned(),
        version: u32::try_from(number(document, "version")).unwrap_or_default(),
        checkpoint: Checkpoint { epoch, position },
    })
}

fn damaged(collection: &str, error: &dyn std::fmt::Display) -> ReadModelError {
    ReadModelError::Damaged { place: place(collection), reason: error.to_string() }
}

fn place(collection: &str) -> String {
    format!("{collection:?} in {BUILDS}")
}

/// What `createIndexes` takes.
fn indexes(build: &NewBuild) -> Result<Vec<Document>, ReadModelError> {
    // Only tombstones have the field, so only they are in this index.
    let mut indexes = vec![doc! {"name": "tombstones", "key": {"latest.deleted": 1}, "sparse": true}];
    for index in build.indexes {
        let mut key = Document::new();
        for field in index.fields {
            key.insert(format!("latest.body.{}", names::field(field.name)?), 1);
        }
        key.insert("_id", 1);
        indexes.push(doc! {"name": names::field(index.name)?, "key": key});
    }
    Ok(indexes)
}

/// The same for what is searched. Words are cut before they are stored: the server knows no language.
fn words_index(build: &NewBuild) -> Result<Option<Document>, ReadModelError> {
    if build.text.is_empty() {
        return Ok(None);
    }
    let (mut key, mut weights) = (Document::new(), Document::new());
    for field in build.text {
        let path = format!("latest.words.{}", names::field(field.name)?);
        key.insert(&path, "text");
        weights.insert(path, i64::from(field.weight));
    }
    Ok(Some(doc! {
        "name": "words of all", "key": key, "weights": weights,
        "default_language": "none", "language_override": "no language",
    }))
}
