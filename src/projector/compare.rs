//! Whether two builds show the same.

use dramatis_projections::Digest;

use crate::read_models::{Document, FIND_MAX, ReadModelError, ReadModels};

/// The digest of a build, and how many documents it has.
pub(super) async fn digest(
    store: &dyn ReadModels,
    collection: &str,
) -> Result<(Digest, u64), ReadModelError> {
    let (mut digest, mut count, mut after) = (Digest::default(), 0, None);
    loop {
        let documents = store.scan(collection, after, FIND_MAX).await?;
        for document in &documents {
            digest.add(&document.key, document.body.as_bytes());
            count += 1;
        }
        match documents.into_iter().next_back() {
            Some(last) => after = Some(last.key),
            None => return Ok((digest, count)),
        }
    }
}

/// The first keys, in key order from each side, whose documents differ.
pub(super) async fn differences(
    store: &dyn ReadModels,
    old: &str,
    new: &str,
    keys_max: usize,
) -> Result<Vec<String>, ReadModelError> {
    let mut keys = Vec::new();
    for (here, there) in [(old, new), (new, old)] {
        let mut after = None;
        while keys.len() < keys_max {
            let documents = store.scan(here, after, FIND_MAX).await?;
            let Some(last) = documents.last() else { break };
            after = Some(last.key.clone());
            keys.extend(other_than(store, there, documents).await?);
        }
    }
    keys.sort();
    keys.dedup();
    keys.truncate(keys_max);
    Ok(keys)
}

async fn other_than(
    store: &dyn ReadModels,
    there: &str,
    documents: Vec<Document>,
) -> Result<Vec<String>, ReadModelError> {
    let keys = documents.iter().map(|document| document.key.clone()).collect();
    let stored = store.load(there, keys).await?;
    let mut bodies: std::collections::HashMap<_, _> =
        stored.into_iter().map(|stored| (stored.key, stored.body)).collect();
    let mut differs =
        |document: &Document| bodies.remove(&document.key).flatten().as_ref() != Some(&document.body);
    Ok(documents.into_iter().filter(|document| differs(document)).map(|document| document.key).collect())
}
