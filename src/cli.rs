//! The command line: one file a subcommand. `serve` is the server, `backup` and `log` look after its
//! files; the others are clients of a running one, over the same sockets and HTTP that everybody uses.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Flag, is_meant_for_settings};

mod backup;
mod events;
mod failure;
mod http;
mod import;
mod log;
mod output;
mod projections;
pub mod serve;
mod server_url;
mod token;

pub use backup::Backup;
pub use events::Events;
pub use failure::Failure;
pub use import::Import;
pub use log::Log;
pub use projections::Projections;
pub use server_url::ServerUrl;
pub use token::Token;

/// The real-time backend for rooms in which people and AI personas meet.
#[derive(Debug, Parser)]
#[command(
    name = "dramatis",
    version,
    after_help = "Examples:
  dramatis serve                                      start a server on 127.0.0.1:7400
  dramatis import irc 2004-11-15.txt --room lobby     bring a chat log into a room
  dramatis events tail --room lobby                   watch what happens there
  dramatis projections rebuild timeline               rebuild a read model while all goes on

`dramatis <command> --help` says more about each."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts the server
    #[command(after_help = "Examples:
  dramatis serve
  dramatis serve --data /var/lib/dramatis --listen 127.0.0.1:8000
  dramatis serve --config dramatis.toml
  dramatis serve --wait-for-lock                      take over from a running server once it ends
  DRAMATIS__SOCKET__HEARTBEAT_MS=5000 dramatis serve

Settings come from, the later over the earlier: built-in defaults, --config, environment
(DRAMATIS__SECTION__KEY), flags. config/default.toml lists and explains all of them.
RUST_LOG overrides the log level.")]
    Serve(ServeArguments),
    /// Imports history from elsewhere into rooms of a running server
    #[command(subcommand)]
    Import(Import),
    /// Reads the recorded events of a running server, one JSON object a line
    ///
    /// Where the server wants tokens `DRAMATIS_TOKEN` holds that of an integration.
    #[command(subcommand)]
    Events(Events),
    /// Lists and rebuilds the read models of a running server
    ///
    /// Where the server wants tokens `DRAMATIS_TOKEN` holds that of an integration.
    #[command(subcommand)]
    Projections(Projections),
    /// Makes, lists, verifies and restores backups of the log
    #[command(subcommand)]
    Backup(Backup),
    /// Makes a token for a client, or the key that tokens are signed with
    #[command(after_help = "Examples:
  dramatis token --new-key token.key
  DRAMATIS__AUTH__TOKEN_KEY_FILE=token.key dramatis token --user alice --for 1h
  DRAMATIS__AUTH__TOKEN_KEY_FILE=token.key dramatis token --user integration:import --for 10m

It prints the token alone. For development: a product mints the tokens of its people itself.")]
    Token(Token),
    /// Looks after the files of the log: verify them, and mend them while no server runs
    #[command(subcommand)]
    Log(Log),
}

#[derive(Debug, Args)]
struct ServeArguments {
    /// Directory of the log and the read models [default: data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address and port [default: 127.0.0.1:7400]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Settings, TOML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Takes an address other than loopback although there is no key for tokens: whoever
    /// reaches the port may then act as anyone
    #[arg(long)]
    insecure_listen_anywhere: bool,
    /// Waits for a server that has the data still, and takes its place once it has gone
    #[arg(long)]
    wait_for_lock: bool,
}

/// Which data an offline command works on; resolved as `serve` does.
#[derive(Debug, Args)]
pub struct DataArguments {
    /// Directory of the log and the read models [default: data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Settings, TOML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl DataArguments {
    /// The configuration that a server with the same arguments would have.
    fn load(&self) -> anyhow::Result<Config> {
        let serve = ServeArguments {
            data: self.data.clone(),
            listen: None,
            config: self.config.clone(),
            // Nothing listens here, so the address of the settings is nobody's risk.
            insecure_listen_anywhere: true,
            wait_for_lock: false,
        };
        serve.load(std::env::vars_os())
    }
}

/// Which server a client command talks to.
#[derive(Debug, Args)]
pub struct Target {
    /// The server's address
    ///
    /// Where it wants tokens `DRAMATIS_TOKEN` holds that of an integration.
    #[arg(
        long,
        env = "DRAMATIS_URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:7400",
        value_name = "URL",
        value_parser = server_url::Parser
    )]
    url: ServerUrl,
}

/// Runs the process's own command line; errors are printed.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => {
            // Help and the version are told this way too; a bad command line ends with 1 like all
            // errors that have no code of their own.
            let unwritten = told.print().is_err_and(|error| error.kind() != ErrorKind::BrokenPipe);
            return ExitCode::from(u8::from(unwritten || told.use_stderr()));
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let failure = error.downcast_ref::<Failure>();
            if !matches!(failure, Some(Failure::Unread)) {
                output::tell(&format!("dramatis: {error:#}"));
            }
            ExitCode::from(failure.map_or(1, Failure::exit_code))
        }
    }
}

/// Runs a command line.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Serve(arguments) => {
            let wait_for_lock = arguments.wait_for_lock;
            let config = arguments.load(std::env::vars_os())?;
            crate::telemetry::init(&config.telemetry)?;
            if !config.server.listen.ip().is_loopback() && config.auth.token_key_file().is_none() {
                tracing::warn!(
                    listen = %config.server.listen,
                    "listening beyond loopback without tokens: whoever reaches the port may act as anyone"
                );
            }
            serve::run(config, wait_for_lock)
        }
        Command::Import(command) => import::run(command),
        Command::Events(command) => events::run(command),
        Command::Projections(command) => projections::run(command),
        Command::Backup(command) => backup::run(command),
        Command::Log(command) => log::run(command),
        Command::Token(token) => token::run(&token),
    }
}

impl ServeArguments {
    fn load(self, environment: impl Iterator<Item = (OsString, OsString)>) -> anyhow::Result<Config> {
        use toml::Value;
        let mut flags = Vec::new();
        if let Some(dir) = self.data {
            let value = Value::String(utf8("--data", dir.into_os_string())?);
            flags.push(Flag { key: "data.dir", name: "--data", value });
        }
        if let Some(listen) = self.listen {
            flags.push(Flag { key: "server.listen", name: "--listen", value: Value::String(listen) });
        }
        if self.insecure_listen_anywhere {
            let (key, name) = ("server.insecure_listen_anywhere", "--insecure-listen-anywhere");
            flags.push(Flag { key, name, value: Value::Boolean(true) });
        }
        // What is no setting may be anything.
        let settings = environment.filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| is_meant_for_settings(name))?;
            Some(utf8(&name, value).map(|value| (name.clone(), value)))
        });
        let environment = settings.collect::<anyhow::Result<Vec<_>>>()?.into_iter();
        Ok(Config::load(self.config.as_deref(), environment, flags)?)
    }
}

/// A setting's text. What stands for other bytes would name something else, such as another directory.
fn utf8(name: &str, value: OsString) -> anyhow::Result<String> {
    value
        .into_string()
        .map_err(|value| anyhow::anyhow!("{name}: expected text in UTF-8, got {}", value.display()))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_flags_win_over_the_environment() {
        let flags = ["dramatis", "serve", "--listen", "127.0.0.1:3", "--data", "/srv/d"];
        let Command::Serve(arguments) = Cli::try_parse_from(flags).unwrap().command else { panic!() };
        let environment = [("DRAMATIS__SERVER__LISTEN", "127.0.0.1:2"), ("DRAMATIS__SERVER__WORKERS", "2")];
        let config =
            arguments.load(environment.map(|(name, value)| (name.into(), value.into())).into_iter()).unwrap();
        assert_eq!(config.server.listen.port(), 3);
        assert_eq!(config.server.workers, 2);
        assert_eq!(config.data.dir, PathBuf::from("/srv/d"));
    }

    #[test]
    fn client_commands_are_understood() {
        for line in [
            "import irc a.txt b.txt --room den --date 2010-03-08 --ledger l --in-flight 10 --retry-for 5",
            "events read --room den --name MessagePosted --name MessageEdited --from 7 --limit 3",
            "events tail --url http://localhost:1",
            "projections list",
            "projections list --json",
            "projections rebuild timeline",
            "projections rebuild timeline --accept --events-per-second 1000 --detach --json",
            "projections verify rooms",
            "projections watch rooms",
            "projections pause rooms --url http://localhost:1",
            "projections resume rooms",
            "projections cancel rooms",
            "projections accept rooms",
            "projections rollback rooms",
            "projections dead-letters rooms --json",
            "projections retry rooms room-main.lobby",
            "projections skip rooms room-main.lobby",
            "projections get rooms room-main.lobby --as-of 7",
            "projections get rooms room-main.lobby --as-of-time 2024-01-31T12:00:00Z",
            "projections why rooms room-main.lobby",
            "projections keys rooms --after room-main.lobby --limit 3",
            "projections as-of rooms --position 7",
            "projections drop rooms rooms@2",
            "backup create --store b --data d --name n",
            "backup list --store b --json",
            "backup verify --store b n",
            "backup restore --store b latest --into d --until-time 2024-01-31T12:00:00Z",
            "backup restore --store b latest --into d --until-position 7",
            "log verify --data d --config c.toml --json",
            "log info --full --json",
            "log reindex --accept-chain",
            "log repair --cut",
            "token --user alice --for 1h --room lobby --room den",
            "token --new-key k",
        ] {
            Cli::try_parse_from(format!("dramatis {line}").split(' ')).unwrap();
        }
        for line in [
            "import irc",
            "import irc a --date tomorrow",
            "events read --url localhost",
            "events",
            "token --user alice",
        ] {
            assert!(Cli::try_parse_from(format!("dramatis {line}").split(' ')).is_err(), "{line}");
        }
    }
}
