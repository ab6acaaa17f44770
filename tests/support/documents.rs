//! The documents of the embedded read models, read beside the server.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// Key, position and body of every document of a projection; a deleted one has no body.
pub type Documents = Vec<(String, i64, Option<String>)>;

/// Every document of the live builds, read beside the server.
pub fn documents(data: &Path) -> BTreeMap<String, Documents> {
    let file = data.join("read-models.sqlite");
    let store = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut aliases = store.prepare("SELECT projection, collection FROM aliases").unwrap();
    let pairs = aliases.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    pairs
        .map(|pair: rusqlite::Result<(String, String)>| {
            let (projection, collection) = pair.unwrap();
            let sql = format!("SELECT key, position, body FROM \"documents {collection}\" ORDER BY key");
            let mut rows = store.prepare(&sql).unwrap();
            let rows = rows.query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
            (projection, rows.map(Result::unwrap).collect())
        })
        .collect()
}
