//! The SQLite file: how it is opened, checked and brought up to date.

use super::StoreError;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::path::Path;
use std::time::Duration;

/// Marks the file as ours (`PRAGMA application_id`): "BATN".
const APPLICATION_ID: i64 = 0x4241_544e;
/// How long to wait for another program that has the file open, such as the `sqlite3` shell.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// One step each, from schema `n` to `n + 1`. Steps are only ever added.
const MIGRATIONS: [&str; 1] = [
    // `key` is compared by its bytes (BINARY is the default collation), as the trait promises for `list`.
    "CREATE TABLE record (key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL);
     CREATE TABLE counter (id INTEGER PRIMARY KEY CHECK (id = 1), last INTEGER NOT NULL);
     INSERT INTO counter (id, last) VALUES (1, 0);",
];

/// Opens the file for writing, makes or migrates its schema, and checks that it is whole.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let mut connection = Connection::open(path).map_err(|error| opening(path, &error))?;
    prepare(&mut connection, path)?;
    Ok(connection)
}

/// Opens a second connection that only reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| opening(path, &error))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|error| opening(path, &error))?;
    Ok(connection)
}

fn prepare(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| opening(path, &error);
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, version) =
        (number("application_id").map_err(failed)?, number("user_version").map_err(failed)?);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    let fresh = application == 0 && version == 0 && tables == 0;
    if !fresh && application != APPLICATION_ID {
        let detail = "it is an SQLite file of another program; give another path".to_owned();
        return Err(StoreError::Open { path: shown(path), detail });
    }
    let known = MIGRATIONS.len();
    let Some(done) = usize::try_from(version).ok().filter(|done| *done <= known) else {
        return Err(StoreError::Newer { path: shown(path), found: version, known: known as i64 });
    };
    let verdict: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if verdict != "ok" {
        return Err(StoreError::Corrupt { path: shown(path), detail: verdict });
    }
    // FULL: a commit is on the disk before it is answered, also in WAL mode, where NORMAL would not sync it
    // (https://sqlite.org/pragma.html#pragma_synchronous).
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    let transaction = connection.transaction().map_err(failed)?;
    for step in &MIGRATIONS[done..] {
        transaction.execute_batch(step).map_err(failed)?;
    }
    if done < known {
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
        transaction.pragma_update(None, "user_version", known as i64).map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}

pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn opening(path: &Path, error: &rusqlite::Error) -> StoreError {
    match explain(path, error) {
        StoreError::Failed { path, detail } => StoreError::Open {
            path,
            detail: format!("{detail}; check that the folder exists and that this user may write there"),
        },
        other => other,
    }
}

/// Says in our words what an error of SQLite means.
pub(super) fn explain(path: &Path, error: &rusqlite::Error) -> StoreError {
    let path = shown(path);
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Locked { path },
        Some(ErrorCode::DiskFull) => StoreError::Full { path },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Corrupt { path, detail: error.to_string() }
        }
        None if matches!(error, rusqlite::Error::IntegralValueOutOfRange(..)) => {
            StoreError::Corrupt { path, detail: error.to_string() }
        }
        // A foreign enum with a hundred kinds; the rest is said as SQLite says it.
        Some(_) | None => StoreError::Failed { path, detail: error.to_string() },
    }
}
