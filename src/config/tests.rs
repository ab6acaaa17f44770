//! Every way to get a setting wrong, and what is said about it.

use std::io::Write as _;
use std::path::Path;

use toml::Value;

use super::allowed::Allowed;
use super::*;

fn from_file(text: &str) -> Result<Config, ConfigError> {
    let mut layers = Layers::defaults()?;
    layers.file(Path::new("my.toml"), text)?;
    let config: Config = layers.finish()?;
    config.check(&layers)?;
    Ok(config)
}

fn from_environment(name: &str, value: &str) -> Result<Config, ConfigError> {
    Config::load(None, [(name.to_owned(), value.to_owned())], Vec::new())
}

fn listen(value: &str) -> Flag {
    Flag { key: "server.listen", name: "--listen", value: Value::String(value.to_owned()) }
}

#[test]
fn the_defaults_stand() {
    let config = Config::defaults().unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:7400");
    assert_eq!(config.socket.reconnect, ReconnectConfig { base_ms: 250, cap_ms: 15_000 });
    assert_eq!(config.telemetry.format, TelemetryFormat::Auto);
}

#[test]
fn every_key_has_a_comment_that_states_its_range() {
    let (mut section, mut comment) = (String::new(), String::new());
    let mut keys = 0;
    for line in DEFAULTS.lines() {
        if let Some(text) = line.strip_prefix('#') {
            comment.push_str(text);
        } else if let Some(name) = line.strip_prefix('[') {
            name.trim_end_matches(']').clone_into(&mut section);
            comment.clear();
        } else if let Some((name, _)) = line.split_once(" = ") {
            keys += 1;
            let key = format!("{section}.{name}");
            assert!(!comment.is_empty(), "{key} has no comment");
            if let Allowed::Integer(min, max) = Allowed::of(&key).expect(&key) {
                let bare = comment.replace(" (no limit)", "");
                assert!(bare.contains(&format!("{min} to {max}")), "{key}: {min} to {max}");
            }
            comment.clear();
        }
    }
    assert!(keys >= 50, "{keys}");
}

#[test]
fn later_layers_win() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(
        file,
        "[socket]\nheartbeat_ms = 1000\nhello_timeout_ms = 2000\n[server]\nlisten = '127.0.0.1:1'"
    )
    .unwrap();
    let environment = [
        ("DRAMATIS__SOCKET__HEARTBEAT_MS".to_owned(), "3000".to_owned()),
        ("DRAMATIS__SOCKET__RECONNECT__CAP_MS".to_owned(), "900".to_owned()),
        ("DRAMATIS__SERVER__LISTEN".to_owned(), "127.0.0.1:2".to_owned()),
        ("DRAMATIS__SERVER__ALLOWED_HOSTS".to_owned(), "a.example, b.example".to_owned()),
        ("DRAMATIS_URL".to_owned(), "not a setting".to_owned()),
    ];
    let config = Config::load(Some(file.path()), environment, vec![listen("127.0.0.1:3")]).unwrap();
    assert_eq!(config.socket.hello_timeout_ms, 2_000);
    assert_eq!(config.socket.heartbeat_ms, 3_000);
    assert_eq!(config.socket.reconnect.cap_ms, 900);
    assert_eq!(config.server.listen.port(), 3);
    let hosts: Vec<_> = config.server.allowed_hosts.iter().map(HostName::as_str).collect();
    assert_eq!(hosts, ["a.example", "b.example"]);
}

#[test]
fn errors_name_key_value_origin_and_what_is_allowed() {
    let check = |got: Result<Config, ConfigError>, wanted: &str| {
        assert_eq!(got.unwrap_err().to_string(), wanted);
    };
    check(
        from_file("[telemetry]\nlevle = 5"),
        "unknown key telemetry.levle (from file my.toml): [telemetry] has format, level",
    );
    let section = from_file("[sockets]\nheartbeat_ms = 5").unwrap_err().to_string();
    let wanted = "unknown key sockets.heartbeat_ms (from file my.toml): the sections are ";
    assert!(section.starts_with(wanted) && section.contains(", socket, socket."), "{section}");
    check(
        from_file("[socket]\nheartbeat_ms = '5s'"),
        "socket.heartbeat_ms must be a whole number from 100 to 600000; got \"5s\" (from file my.toml)",
    );
    check(
        from_environment("DRAMATIS__ROOM__MEMBERS_MAX", "0"),
        "room.members_max must be a whole number from 1 to 1000000; got 0 (from environment variable \
         DRAMATIS__ROOM__MEMBERS_MAX)",
    );
    check(
        from_environment("DRAMATIS__ENTITY__SIZE", "0"),
        "unknown key entity.size (from environment variable DRAMATIS__ENTITY__SIZE): [entity] has \
         idle_timeout_ms, pending_commands_max, snapshot_every_events",
    );
    check(
        from_environment("DRAMATIS__TELEMETRY__FORMAT", "xml"),
        "telemetry.format must be one of auto, text, json; got \"xml\" (from environment variable \
         DRAMATIS__TELEMETRY__FORMAT)",
    );
    check(
        Config::load(None, [], vec![listen("localhost")]),
        "server.listen must be an IP address and a port, such as 127.0.0.1:7400; got \"localhost\" (from \
         flag --listen)",
    );
    check(
        from_file("entity = 5"),
        "unknown key entity (from file my.toml): [entity] has idle_timeout_ms, pending_commands_max, \
         snapshot_every_events",
    );
    check(
        from_file("[socket]\nmessage_bytes_max = 4096\nframe_bytes_max = 2048"),
        "socket.frame_bytes_max must be at least socket.message_bytes_max; got 2048 (from file my.toml)",
    );
    check(
        from_file("[limits.user]\nbytes_per_s = 6000"),
        "limits.user.bytes_per_s must be 0, or enough that limits.burst_s seconds of it hold a message of \
         socket.message_bytes_max; got 6000 (from file my.toml)",
    );
    let broken = from_file("[server]\nworkers = 2\n[socket").unwrap_err().to_string();
    assert!(broken.starts_with("file my.toml is no valid TOML: line 3, column 8: "), "{broken}");
    let missing = Config::load(Some(Path::new("/nowhere/x.toml")), [], Vec::new()).unwrap_err().to_string();
    assert!(missing.starts_with("the config file /nowhere/x.toml cannot be read: "), "{missing}");
}

#[test]
fn a_database_has_a_name_that_servers_take() {
    let key = "DRAMATIS__READ_MODELS__MONGODB__DATABASE";
    let longest = "é".repeat(31) + "x";
    for name in ["dramatis", "my-drama_2", longest.as_str()] {
        assert_eq!(from_environment(key, name).unwrap().read_models.mongodb.database, name);
    }
    let refused =
        ["/", "\\", ".", "\"", "$", "*", "<", ">", ":", "|", "?", " ", "\0"].map(|sign| format!("a{sign}b"));
    let too_long = "é".repeat(32);
    for name in refused.iter().map(String::as_str).chain(["", too_long.as_str()]) {
        let said = from_environment(key, name).unwrap_err().to_string();
        let start = "read_models.mongodb.database must be a name of 1 to 63 bytes with no blank";
        assert!(said.starts_with(start), "{name:?}: {said}");
    }
}

#[test]
fn a_connection_string_is_shown_nowhere() {
    let key = "DRAMATIS__READ_MODELS__MONGODB__URI";
    let config = from_environment(key, "mongodb://anna:s3cret@host/").unwrap();
    assert_eq!(config.read_models.mongodb.uri.reveal(), "mongodb://anna:s3cret@host/");
    assert!(!format!("{config:?}").contains("s3cret"));
    assert!(!toml::to_string(&config).unwrap().contains("s3cret"));
    let refused = from_file("[read_models.mongodb]\nuri = ['s3cret']").unwrap_err().to_string();
    assert!(!refused.contains("s3cret") && refused.contains("read_models.mongodb.uri"), "{refused}");
}

#[test]
fn no_secret_is_shown_because_its_key_is_mistaken_or_its_line_broken() {
    let uri = "mongodb://app:s3cret@db/";
    let of_variables = ["READ_MODELS__MONGODB__URL", "READ_MODELS__MONGODB", "AUTH__TOKEN_KEY"]
        .map(|name| from_environment(&format!("DRAMATIS__{name}"), uri));
    let section = "[read_models.mongodb]";
    let of_files = [
        format!("{section}\nurl = '{uri}'"),
        format!("read_models.mongodb = '{uri}'"),
        format!("{section}\nuri = \"{uri}"),
        format!("{section}\nuri = {uri}"),
        format!("{section}\nuri = '{uri}' s3cret"),
        format!("{section}\nuri '{uri}'"),
        format!("{section}\nuri = '{uri}'\nuri = '{uri}'"),
    ]
    .map(|text| from_file(&text));
    for refused in of_variables.into_iter().chain(of_files) {
        let said = refused.unwrap_err().to_string();
        let says_where = said.contains("(from ") || said.contains(": line ");
        assert!(says_where && !said.contains("s3cret"), "{said}");
    }
}

#[test]
fn an_open_address_needs_a_second_word() {
    let refused = Config::load(None, [], vec![listen("0.0.0.0:7400")]).unwrap_err().to_string();
    assert!(refused.contains("a loopback address"), "{refused}");
    assert!(refused.contains("from flag --listen"), "{refused}");
    let key = ("DRAMATIS__AUTH__TOKEN_KEY_FILE".to_owned(), "key".to_owned());
    Config::load(None, [key], vec![listen("0.0.0.0:7400")]).unwrap();
    let insecure = Flag {
        key: "server.insecure_listen_anywhere",
        name: "--insecure-listen-anywhere",
        value: Value::Boolean(true),
    };
    Config::load(None, [], vec![listen("0.0.0.0:7400"), insecure]).unwrap();
}

#[test]
fn a_setting_with_an_underscore_missing_is_named_and_other_variables_are_left_alone() {
    for name in ["DRAMATIS_SOCKET__HEARTBEAT_MS", "DRAMATIS_SOCKET__NONE", "DRAMATIS_READ_MODELS__ENGINE"] {
        let error = from_environment(name, "1").unwrap_err().to_string();
        let meant = name.replacen("DRAMATIS_", "DRAMATIS__", 1);
        assert!(error.contains(&format!("{name} is no setting: {meant} has two")), "{error}");
    }
    for name in
        ["DRAMATIS_TOKEN", "DRAMATIS_LOG_PORT", "DRAMATIS_TEST__HEARTBEAT_MS", "OTHER_SOCKET__HEARTBEAT_MS"]
    {
        from_environment(name, "1").unwrap();
    }
}
