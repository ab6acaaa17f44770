//! Leases, by the clock that `SQLite` reads.

use std::time::Duration;

use rusqlite::{Connection, params};

use crate::read_models::Lease;

const NOW_MS: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";

/// Takes or renews a lease unless somebody else holds it; answers who does.
pub(super) fn take(
    connection: &mut Connection,
    name: &str,
    holder: &str,
    ttl: Duration,
) -> rusqlite::Result<Lease> {
    let transaction = connection.transaction()?;
    let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX / 2);
    let sql = format!(
        "INSERT INTO leases (name, holder, token, until_ms) VALUES (?1, ?2, 1, {NOW_MS} + ?3)
         ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until_ms = excluded.until_ms,
            token = token + (holder <> excluded.holder)
         WHERE holder = excluded.holder OR until_ms <= {NOW_MS}"
    );
    transaction.prepare_cached(&sql)?.execute(params![name, holder, ttl_ms])?;
    let sql = format!("SELECT holder, token, max(until_ms - {NOW_MS}, 0) FROM leases WHERE name = ?");
    let lease = transaction.prepare_cached(&sql)?.query_row([name], |row| {
        let (token, left_ms): (i64, i64) = (row.get(1)?, row.get(2)?);
        let left = Duration::from_millis(left_ms.unsigned_abs());
        Ok(Lease { holder: row.get(0)?, token: token.unsigned_abs(), left })
    })?;
    transaction.commit()?;
    Ok(lease)
}

/// Gives a lease back. Its row stays, so that its tokens go on rising.
pub(super) fn give_back(connection: &Connection, name: &str, holder: &str) -> rusqlite::Result<()> {
    let sql = "UPDATE leases SET holder = '', until_ms = 0 WHERE name = ? AND holder = ?";
    connection.execute(sql, [name, holder])?;
    Ok(())
}
