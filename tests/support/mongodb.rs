//! Databases for tests on a `MongoDB` server, and such servers.
#![allow(unreachable_pub, reason = "as all that tests share")]
#![allow(dead_code, reason = "not every suite has all that may go wrong")]
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::support::store_proxy::StoreProxy;
use crate::support::{Server, skipped};

/// A database of this test's own, reached through a proxy; dropped at the end.
pub struct Database {
    uri: String,
    name: String,
    /// The way to the server.
    pub proxy: StoreProxy,
    environment: Vec<(&'static str, String)>,
}

impl Database {
    /// On the server that the environment names; says that this is skipped if it names none.
    pub fn new(what: &str) -> Option<Self> {
        let Ok(uri) = std::env::var("DRAMATIS_TEST_MONGODB_URI") else {
            skipped(&format!("{what}: DRAMATIS_TEST_MONGODB_URI names no MongoDB server"));
            return None;
        };
        Some(Self::at(uri))
    }

    /// On this server.
    pub fn at(uri: String) -> Self {
        let (scheme, rest) = uri.split_once("://").unwrap();
        let (authority, options) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let first = hosts.split(',').next().unwrap();
        let server = if first.contains(':') { first.to_owned() } else { format!("{first}:27017") };
        let proxy = StoreProxy::before(server);
        let user = if user.is_empty() { String::new() } else { format!("{user}@") };
        let direct = if options.contains("directConnection") { "" } else { "directConnection=true" };
        let options = options.trim_start_matches('?');
        let through = format!("{scheme}://{user}{}/?{options}{direct}", proxy.address);
        let name = format!("dramatis_test_{}", uuid::Uuid::new_v4().simple());
        let environment = vec![
            ("DRAMATIS__READ_MODELS__ENGINE", "mongodb".to_owned()),
            ("DRAMATIS__READ_MODELS__MONGODB__URI", through),
            ("DRAMATIS__READ_MODELS__MONGODB__DATABASE", name.clone()),
        ];
        Self { uri, name, proxy, environment }
    }

    /// Starts a server that keeps its read models there.
    pub fn serve(&self, data: &Path) -> Server {
        self.serve_with(data, &[])
    }

    /// The same with further environment.
    pub fn serve_with(&self, data: &Path, environment: &[(&str, &str)]) -> Server {
        let ours = self.environment.iter().map(|(key, value)| (*key, value.as_str()));
        let all: Vec<_> = ours.chain(environment.iter().copied()).collect();
        Server::start_with(data, &[], &all)
    }

    /// Drops the database.
    pub fn dropped(&self) {
        self.with(|database| async move { database.drop().await }).unwrap();
    }

    /// Does something to the database beside the server.
    pub fn with<T, F: Future<Output = T>>(&self, job: impl FnOnce(mongodb::Database) -> F) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = mongodb::Client::with_uri_str(&self.uri).await.unwrap();
            job(client.database(&self.name)).await
        })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = self.with(|database| async move { database.drop().await });
    }
}

/// A `MongoDB` server of a test's own, so that it can be stopped. Killed when dropped.
pub struct Mongod {
    child: Child,
    folder: TempDir,
    port: u16,
}

impl Mongod {
    /// Starts one by `tests/servers/mongodb/run`; says that this is skipped if that was never run.
    pub fn start(what: &str) -> Option<Self> {
        let tools = std::env::var_os("DRAMATIS_TEST_SERVERS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers"),
            std::path::PathBuf::from,
        );
        if !tools.join("mongodb/node_modules").exists() {
            skipped(&format!("{what}: tests/servers/mongodb/run has never been run here"));
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let (child, port) = run_server(folder.path(), 0);
        Some(Self { child, folder, port })
    }

    /// Its address.
    pub fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port)
    }

    /// Sends its process a signal.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again after a kill, where it was and with what it has.
    pub fn start_again(&mut self) {
        (self.child, self.port) = run_server(self.folder.path(), self.port);
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run_server(folder: &Path, port: u16) -> (Child, u16) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/mongodb/run");
    let mut command = Command::new(script);
    let mut child =
        command.arg(folder.join("data")).arg(port.to_string()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("listening on ") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "the server ended before it listened");
    }
    let port = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split('/').next());
    (child, port.unwrap().parse().unwrap())
}
