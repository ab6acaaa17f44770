//! Where the store of a test is: a file in a temporary folder, or, if `DRAMATIS_TEST_STORE` is
//! `mongodb`, a database of its own on the server that `DRAMATIS_TEST_MONGODB_URI` names.

use tempfile::TempDir;

use super::*;
use crate::read_models::mongodb::{self, MongoReadModels, MongoUri};
use crate::read_models::sqlite::SqliteReadModels;

/// It is dropped with all that is in it.
pub(super) struct Place {
    folder: TempDir,
    database: Option<Database>,
}

struct Database {
    uri: String,
    name: String,
}

impl Place {
    pub(super) fn new() -> Self {
        let database = on_mongodb().then(|| Database {
            uri: std::env::var("DRAMATIS_TEST_MONGODB_URI").expect("the server's address"),
            name: format!("dramatis_test_{}", uuid::Uuid::new_v4().simple()),
        });
        Self { folder: tempfile::tempdir().unwrap(), database }
    }

    /// Takes away what the documents of a build are kept in, behind the store's back.
    pub(super) async fn take_away(&self, collection: &str) {
        if let Some(Database { uri, name }) = &self.database {
            let client = ::mongodb::Client::with_uri_str(uri).await.unwrap();
            client.database(name).collection::<::mongodb::bson::Document>(collection).drop().await.unwrap();
            return;
        }
        let connection = rusqlite::Connection::open(self.folder.path().join("read.db")).unwrap();
        connection.busy_timeout(LONG).unwrap();
        connection.execute_batch(&format!("DROP TABLE \"documents {collection}\"")).unwrap();
    }

    /// The store that is there, anew as after a restart.
    pub(super) fn store(&self) -> Arc<dyn ReadModels> {
        let Some(Database { uri, .. }) = &self.database else {
            return Arc::new(SqliteReadModels::open(self.folder.path().join("read.db")).unwrap());
        };
        self.store_at(uri)
    }

    /// The host and the port of the server, if the store is on one.
    pub(super) fn server(&self) -> Option<&str> {
        let Database { uri, .. } = self.database.as_ref()?;
        uri.split("//").nth(1).unwrap().split('/').next()
    }

    /// Does something to the database beside the store, in a time of its own.
    pub(super) fn with<T: Send, F: Future<Output = T>>(
        &self,
        job: impl FnOnce(::mongodb::Database) -> F + Send,
    ) -> T {
        self.database.as_ref().expect("it is on a server").with(job)
    }

    /// The same store, reached on another way.
    pub(super) fn store_at(&self, uri: &str) -> Arc<dyn ReadModels> {
        let Database { name, .. } = self.database.as_ref().expect("it is on a server");
        let options = mongodb::Options {
            uri: MongoUri::parse(uri).unwrap(),
            database: name.clone(),
            pool_min: 0,
            pool_max: 20,
            connect_timeout: LONG,
            operation_timeout: LONG,
            retries_max: 1,
            health_interval: Duration::from_mins(1),
        };
        Arc::new(MongoReadModels::open(options).unwrap())
    }
}

/// Whether these tests run on a server.
pub(super) fn on_mongodb() -> bool {
    std::env::var("DRAMATIS_TEST_STORE").is_ok_and(|store| store == "mongodb")
}

impl Database {
    fn with<T: Send, F: Future<Output = T>>(&self, job: impl FnOnce(::mongodb::Database) -> F + Send) -> T {
        let done = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let client = ::mongodb::Client::with_uri_str(&self.uri).await.unwrap();
                job(client.database(&self.name)).await
            })
        };
        // A test may be inside a runtime, which cannot wait for another.
        std::thread::scope(|scope| scope.spawn(done).join().unwrap())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = self.with(|database| async move { database.drop().await });
    }
}
