//! A server process of our own: started on an empty directory, ended when dropped.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;

use crate::link::{Address, Dialect};
use crate::pinning::Pinning;

/// What stands before the address in the line that tells it.
pub(crate) const READY: &str = "listens on http://";

/// How long nginx may take until it listens.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);

/// Who serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    /// The `dramatis` server.
    Dramatis,
    /// The npm package `ws`.
    Ws,
    /// Socket.IO 4.
    SocketIo,
    /// nginx with the module nchan.
    Nchan,
}

/// Where distributions put the module.
const NCHAN_MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

impl Who {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Dramatis, Self::Ws, Self::SocketIo, Self::Nchan];

    /// What its variants begin with.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Dramatis => "",
            Self::Ws => "ws-",
            Self::SocketIo => "socketio-",
            Self::Nchan => "nchan-",
        }
    }

    fn script(self) -> &'static str {
        if self == Self::SocketIo { "socketio.mjs" } else { "ws.mjs" }
    }
}

/// How the server is run.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerOptions {
    /// The `dramatis` binary; the one beside this binary by default.
    #[arg(long)]
    server_bin: Option<PathBuf>,
    /// Let server and driver share all cores.
    #[arg(long)]
    no_pin: bool,
    /// Worker threads of the server; its own default, one for each core, if left out.
    #[arg(long)]
    server_workers: Option<usize>,
    /// Where the peers for Node are, after `npm ci` there; without them they are left out.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/peers"))]
    peers: PathBuf,
}

/// The driver's clients are faster than people: their pace is metered all the same, and not cut.
const FAST_CLIENTS: [(&str, &str); 4] = [
    ("DRAMATIS__LIMITS__SESSION__COMMANDS_PER_S", "1000000"),
    ("DRAMATIS__LIMITS__SESSION__BYTES_PER_S", "1000000000"),
    ("DRAMATIS__LIMITS__USER__COMMANDS_PER_S", "1000000"),
    ("DRAMATIS__LIMITS__USER__BYTES_PER_S", "1000000000"),
];

impl ServerOptions {
    /// Pins this process, if it is to be pinned.
    pub(crate) fn pin(&self) -> Pinning {
        Pinning::take(!self.no_pin)
    }

    /// The worker threads as a condition.
    pub(crate) fn describe_workers(&self) -> String {
        self.server_workers.map_or_else(|| "default".to_owned(), |workers| workers.to_string())
    }

    /// Who can be measured here: the peers need Node and their packages, or nginx and its module.
    pub(crate) fn who(&self) -> Vec<Who> {
        let node = self.peers.join("node_modules").is_dir();
        if !node {
            eprintln!("ws and Socket.IO are left out: run `npm ci` in {}", self.peers.display());
        }
        let nchan = Path::new(NCHAN_MODULE).exists();
        if !nchan {
            eprintln!("nchan is left out: install nginx and libnginx-mod-nchan");
        }
        let is_there = |who: &Who| match who {
            Who::Dramatis => true,
            Who::Ws | Who::SocketIo => node,
            Who::Nchan => nchan,
        };
        Who::ALL.into_iter().filter(is_there).collect()
    }

    /// Starts a server, ours or a peer, and waits until it listens.
    pub(crate) fn start_one(&self, who: Who, pinning: Pinning, dir: &Path) -> anyhow::Result<Server> {
        if who == Who::Dramatis {
            return self.start(pinning, dir);
        }
        if who == Who::Nchan {
            return self.start_nchan(pinning, dir);
        }
        let mut command = pinning.server_command(OsStr::new("node"));
        command.arg(self.peers.join(who.script()));
        let mut server = Server::spawn(command, dir)?;
        if who == Who::SocketIo {
            server.address.dialect = Dialect::SocketIo;
        }
        Ok(server)
    }

    /// Starts nginx on a port that was free a moment ago, since it tells nobody which it takes.
    fn start_nchan(&self, pinning: Pinning, dir: &Path) -> anyhow::Result<Server> {
        let socket = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = std::fs::read_to_string(self.peers.join("nchan.conf"))?
            .replace("${MODULE}", NCHAN_MODULE)
            .replace("${LISTEN}", &socket.to_string());
        std::fs::write(dir.join("nginx.conf"), config)?;
        let mut command = pinning.server_command(OsStr::new("nginx"));
        command.arg("-p").arg(dir).args(["-c", "nginx.conf"]).stdin(Stdio::null());
        let child =
            command.stderr(File::create(dir.join("stderr.txt"))?).spawn().context("nginx does not start")?;
        let server = Server { child, address: Address::new(socket, Dialect::Nchan) };
        let asked = Instant::now();
        while TcpStream::connect(socket).is_err() {
            if asked.elapsed() > LISTENS_WITHIN {
                bail!("nginx does not listen: {}", std::fs::read_to_string(dir.join("stderr.txt"))?);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Starts `dramatis serve` and waits until it listens.
    pub(crate) fn start(&self, pinning: Pinning, dir: &Path) -> anyhow::Result<Server> {
        self.start_with(pinning, dir, &[])
    }

    /// The same with settings of its own, by the names that they have in the environment.
    pub(crate) fn start_with(
        &self,
        pinning: Pinning,
        dir: &Path,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Server> {
        let program = match &self.server_bin {
            Some(program) => program.clone(),
            None => std::env::current_exe()?.with_file_name("dramatis"),
        };
        if !program.exists() {
            bail!(
                "expected the server at {}: build it (cargo build --release) or name it with --server-bin",
                program.display()
            );
        }
        let mut command = pinning.server_command(program.as_os_str());
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(dir.join("data"));
        command.envs(FAST_CLIENTS).envs(settings.iter().copied());
        if let Some(workers) = self.server_workers {
            command.env("DRAMATIS__SERVER__WORKERS", workers.to_string());
        }
        Server::spawn(command, dir)
    }
}

/// A running process that listens.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Where it listens.
    pub(crate) address: Address,
}

impl Server {
    /// Starts this very binary with other arguments, on the server's core.
    pub(crate) fn start_own(pinning: Pinning, arguments: &[String], dir: &Path) -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        let mut command = pinning.server_command(OsStr::new(&own));
        command.args(arguments);
        Self::spawn(command, dir)
    }

    fn spawn(mut command: std::process::Command, dir: &Path) -> anyhow::Result<Self> {
        let stderr = dir.join("stderr.txt");
        command.env("RUST_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child =
            command.stderr(File::create(&stderr)?).spawn().context("the server does not start")?;
        let stdout = child.stdout.take().context("the server has no output")?;
        let mut lines = BufReader::new(stdout).lines();
        let socket = loop {
            let Some(line) = lines.next().transpose()? else {
                let _ = child.wait();
                let said = std::fs::read_to_string(&stderr).unwrap_or_default();
                bail!("expected a line with {READY:?} from the server, but it ended: {said}");
            };
            if let Some(address) = line.split_once(READY).map(|(_, address)| address) {
                break address.trim().parse().with_context(|| format!("an address in {line:?}"))?;
            }
        };
        // Read on, so that the server never waits for room in the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, address: Address::new(socket, Dialect::Plain) })
    }

    /// Time on a processor so far.
    pub(crate) fn busy(&self) -> anyhow::Result<Duration> {
        crate::memory::busy(self.child.id())
    }

    /// A figure that the server tells of itself, by its whole name.
    pub(crate) fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let host = self.address.socket;
        let mut stream = TcpStream::connect(host).context("the server takes no connection")?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let figure = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        answer.lines().find_map(figure).with_context(|| format!("expected {name} in the server's metrics"))
    }

    /// Resident memory, KiB.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<f64> {
        crate::memory::kib(&self.child.id().to_string(), "VmRSS")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
