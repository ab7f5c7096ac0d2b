//! Rows that can't be read. Each is set aside, with one alarm, and harms nothing but itself.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use sea_orm::{
    ConnectionTrait, FromQueryResult, QueryResult, QueryTrait, sea_query::SelectStatement,
};
use uuid::Uuid;

use super::error::{Corrupt, Error};

/// How many rows are remembered at most.
const REMEMBERED_MAX: usize = 10_000;

/// The rows that this process has met and can't read. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Aside(Arc<Inner>);

/// What a row belongs to: the table of its kind, and its key there.
type Owner = (&'static str, String);

#[derive(Debug, Default)]
struct Rows {
    /// The table of each row, by what the row belongs to.
    tables: BTreeMap<Owner, &'static str>,
    /// How many rows each table has here; 0 where there were some.
    counts: BTreeMap<&'static str, u64>,
}

impl Rows {
    fn count(&mut self) -> usize {
        self.counts.values_mut().for_each(|count| *count = 0);
        for table in self.tables.values() {
            *self.counts.entry(table).or_default() += 1;
        }
        self.tables.len()
    }
}

#[derive(Debug, Default)]
struct Inner {
    rows: Mutex<Rows>,
    /// How many there are, to pass over the lock where there are none.
    count: AtomicUsize,
}

impl Aside {
    /// Notes whether what has this key in a table could be read, with the rows that belong to it. The
    /// first time that it can't is an alarm.
    pub(super) fn note<T>(
        &self,
        table: &'static str,
        key: impl FnOnce() -> String,
        read: &Result<T, Corrupt>,
    ) {
        match read {
            Ok(_) if self.0.count.load(Ordering::Relaxed) == 0 => {}
            Ok(_) => self.forget(&(table, key())),
            Err(corrupt) => self.remember((table, key()), corrupt),
        }
    }

    /// Notes what could be read and what could not, and leaves the latter out.
    pub(super) fn leave_out<T>(
        &self,
        table: &'static str,
        rows: Vec<Result<T, Corrupt>>,
        key: impl Fn(&T) -> String,
    ) -> Vec<T> {
        let noted = rows.into_iter().filter_map(|row| {
            match &row {
                Ok(value) => self.note(table, || key(value), &row),
                Err(corrupt) => self.note(table, || corrupt.key.clone(), &row),
            }
            row.ok()
        });
        noted.collect()
    }

    /// How many rows are set aside, by table; 0 for a table where there were some.
    pub(super) fn by_table(&self) -> BTreeMap<&'static str, u64> {
        self.rows().counts.clone()
    }

    fn remember(&self, owner: Owner, corrupt: &Corrupt) {
        let mut rows = self.rows();
        let is_known = rows.tables.get(&owner) == Some(&corrupt.table);
        if is_known || rows.tables.len() >= REMEMBERED_MAX {
            return;
        }
        rows.tables.insert(owner, corrupt.table);
        self.0.count.store(rows.count(), Ordering::Relaxed);
        drop(rows);
        tracing::error!(
            table = corrupt.table,
            key = corrupt.key,
            what = corrupt.what,
            "a row can't be read and is set aside; put it right in the database, and work on it goes on \
             by itself (docs/operations.md, rows that can't be read)"
        );
    }

    fn forget(&self, owner: &Owner) {
        let mut rows = self.rows();
        if let Some(table) = rows.tables.remove(owner) {
            self.0.count.store(rows.count(), Ordering::Relaxed);
            let key = &owner.1;
            tracing::info!(table, key, "a row that was set aside can be read again");
        }
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How rows of a table are read one by one.
pub(super) struct Each {
    pub(super) table: &'static str,
    /// The columns that name a row.
    pub(super) key: &'static [&'static str],
}

impl Each {
    /// The rows of a query, each by itself. A database may hold what a column is not for, as SQLite
    /// does; of what is asked for at once such a row would fail all.
    pub(super) async fn read<M, T, C>(
        &self,
        db: &C,
        query: impl QueryTrait<QueryStatement = SelectStatement>,
        read: impl Fn(M) -> Result<T, String>,
    ) -> Result<Vec<Result<T, Corrupt>>, Error>
    where
        M: FromQueryResult,
        C: ConnectionTrait,
    {
        let rows = db.query_all(query.as_query()).await?;
        let read = |row: &QueryResult| {
            M::from_query_result(row, "")
                .map_err(|error| error.to_string())
                .and_then(&read)
                .map_err(|what| self.corrupt(row, "", what))
        };
        Ok(rows.iter().map(read).collect())
    }

    /// A row that can't be read, for this reason.
    pub(super) fn corrupt(&self, row: &QueryResult, prefix: &str, what: String) -> Corrupt {
        let name = |column: &&str| {
            let id = row.try_get::<Uuid>(prefix, column).map(|id| id.to_string());
            let text = id.or_else(|_| row.try_get::<String>(prefix, column));
            text.unwrap_or_else(|_| "(no key that can be read)".to_owned())
        };
        let names: Vec<_> = self.key.iter().map(name).collect();
        Corrupt {
            table: self.table,
            key: names.join(" in "),
            what,
        }
    }
}
