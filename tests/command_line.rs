//! What goes wrong is said plainly: what it is, where it came from, what to do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Output, Stdio};

use support::imports::{caught_up, file, imported};
use support::{Server, dramatis, nobody};

fn told(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn no_server_is_said_with_what_to_do() {
    let (logs, (_held, url)) = (tempfile::tempdir().unwrap(), nobody());
    let log = file(logs.path(), "2010-03-08.txt", "[12:00] <alice> hello\n");
    let log = log.to_str().unwrap();
    for command in [
        ["import", "irc", log].as_slice(),
        &["events", "read"],
        &["events", "tail"],
        &["projections", "list"],
        &["projections", "rebuild", "timeline"],
        &["projections", "watch", "timeline"],
    ] {
        let output = dramatis().args(command).args(["--url", &url]).output().unwrap();
        let told = told(&output);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {told}");
        assert!(told.starts_with(&format!("dramatis: no dramatis server answers at {url}")), "{told}");
        assert!(told.contains("start one with `dramatis serve`, or name another with --url"), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(output.stdout.is_empty(), "{command:?}");
    }
}

#[test]
fn a_password_is_not_told_in_a_mistake() {
    let (_held, url) = nobody();
    let place = tempfile::tempdir().unwrap();
    let with_password = url.replace("http://", "http://me:s3cret@");
    let secure = with_password.replace("http:", "https:");
    let config = file(place.path(), "my.toml", "[read_models.mongodb]\nuri = \"mongodb://app:s3cret@db/\n");
    let config = config.to_str().unwrap();
    for (command, part) in [
        (["events", "read", "--url", with_password.as_str()].as_slice(), url.as_str()),
        (&["events", "read", "--url", secure.as_str()], "expected http://host:port"),
        (&["serve"], "unknown key read_models.mongodb.url (from environment variable"),
        (&["log", "info"], "unknown key read_models.mongodb.url (from environment variable"),
        (&["log", "info", "--config", config], "my.toml is no valid TOML: line 2, column "),
        (&["events", "read", "--help"], "[env: DRAMATIS_URL]"),
    ] {
        let mut process = dramatis();
        process.args(command).current_dir(place.path()).env("DRAMATIS_URL", &with_password);
        process.env("DRAMATIS__READ_MODELS__MONGODB__URL", "mongodb://app:s3cret@db/");
        let output = process.output().unwrap();
        let said = told(&output) + &String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(part) && !said.contains("s3cret"), "{command:?}: {said}");
    }
}

/// It takes connections, as the kernel does for whoever listens, and reads none.
#[test]
fn a_port_that_says_nothing_is_no_server() {
    let (logs, silent) = (tempfile::tempdir().unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let url = format!("http://{}", silent.local_addr().unwrap());
    let log = file(logs.path(), "2010-03-08.txt", "[12:00] <alice> hello\n");
    let import = ["import", "irc", log.to_str().unwrap()];
    let commands = [
        import.as_slice(),
        &["events", "tail"],
        &["projections", "list"],
        &["projections", "watch", "timeline"],
        &["projections", "rebuild", "timeline"],
    ];
    let started = commands.map(|command| {
        let mut process = dramatis();
        process.args(command).args(["--url", &url]).stdout(Stdio::null()).stderr(Stdio::piped());
        (command, process.spawn().unwrap())
    });
    for (command, process) in started {
        let output = process.wait_with_output().unwrap();
        let told = told(&output);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {told}");
        assert!(told.contains(&format!("dramatis: no dramatis server answers at {url}")), "{told}");
    }
}

#[test]
fn a_path_that_is_not_text_opens_no_other() {
    use std::os::unix::ffi::OsStrExt as _;
    let place = tempfile::tempdir().unwrap();
    let odd = place.path().join(std::ffi::OsStr::from_bytes(b"d\xff"));
    for command in [&["serve"][..], &["log", "info"], &["backup", "create", "--store", "store"]] {
        let output =
            dramatis().args(command).arg("--data").arg(&odd).current_dir(place.path()).output().unwrap();
        let told = told(&output);
        assert!(output.status.code() == Some(1) && told.contains("--data: expected text in UTF-8"), "{told}");
    }
    let output = dramatis().arg("serve").env("DRAMATIS__DATA__DIR", &odd).output().unwrap();
    assert!(told(&output).contains("DRAMATIS__DATA__DIR: expected text in UTF-8"), "{}", told(&output));
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn what_is_on_this_machine_is_reached_past_any_proxy() {
    let (data, logs, (_held, proxy)) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), nobody());
    let server = Server::start(data.path());
    let log = file(logs.path(), "2010-03-08.txt", "[12:00] <alice> hello\n");
    let localhost = format!("http://localhost:{}", server.address.port());
    for variable in ["http_proxy", "HTTP_PROXY", "ALL_PROXY"] {
        for command in
            [&["import", "irc", log.to_str().unwrap()][..], &["events", "read"], &["projections", "list"]]
        {
            for url in [&server.url(), &localhost] {
                let output =
                    dramatis().args(command).args(["--url", url]).env(variable, &proxy).output().unwrap();
                assert_eq!(output.status.code(), Some(0), "{variable} {command:?}: {}", told(&output));
            }
        }
    }
}

/// A `serve` that must end with code 1 before it listens: what it says.
fn refused(data: &Path, listen: &str, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let mut serve = dramatis()
        .args(["serve", "--listen", listen, "--data"])
        .arg(data)
        .args(arguments)
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(serve.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if !line.is_empty() {
        serve.kill().unwrap();
    }
    let output = serve.wait_with_output().unwrap();
    assert_eq!(line, "", "it serves");
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    told(&output)
}

#[test]
fn bad_settings_are_named_with_value_origin_and_what_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let serve = |arguments: &[&str], environment: &[(&str, &str)]| {
        refused(&data, "127.0.0.1:0", arguments, environment)
    };
    let range = "socket.heartbeat_ms must be a whole number from 100 to 600000; got";
    let out_of_range = file(dir.path(), "a.toml", "[socket]\nheartbeat_ms = 5\n");
    let path = out_of_range.to_str().unwrap();
    assert_eq!(serve(&["--config", path], &[]), format!("dramatis: {range} 5 (from file {path})\n"));

    let name = "DRAMATIS__SOCKET__HEARTBEAT_MS";
    let from_environment = serve(&[], &[(name, "often")]);
    assert_eq!(from_environment, format!("dramatis: {range} \"often\" (from environment variable {name})\n"));

    let unknown = file(dir.path(), "b.toml", "[socket]\nheart_beat_ms = 5000\n");
    let path = unknown.to_str().unwrap();
    let told = serve(&["--config", path], &[]);
    assert!(told.starts_with(&format!("dramatis: unknown key socket.heart_beat_ms (from file {path}): ")));
    assert!(told.contains(" heartbeat_ms"), "{told}");

    let missing = dir.path().join("missing.toml");
    let told = serve(&["--config", missing.to_str().unwrap()], &[]);
    assert!(told.contains(&format!("the config file {} cannot be read", missing.display())), "{told}");
    assert!(!data.exists(), "nothing is touched before the settings are right");
}

#[test]
fn what_looks_like_a_setting_and_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let serve = |name| refused(&dir.path().join("data"), "127.0.0.1:0", &[], &[(name, "loud=,")]);
    let told = serve("DRAMATIS_SOCKET__HEARTBEAT_MS");
    assert!(
        told.contains("DRAMATIS_SOCKET__HEARTBEAT_MS is no setting: DRAMATIS__SOCKET__HEARTBEAT_MS has"),
        "{told}"
    );
    let told = serve("RUST_LOG");
    assert!(told.contains("RUST_LOG must be a level"), "{told}");
}

#[test]
fn an_address_beyond_this_machine_is_taken_only_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let told = refused(&dir.path().join("data"), "0.0.0.0:0", &[], &[]);
    assert!(told.contains("insecure_listen_anywhere") || told.contains("insecure-listen-anywhere"), "{told}");
}

#[test]
fn a_data_directory_in_use_names_its_owner() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let told = refused(data.path(), "127.0.0.1:0", &[], &[]);
    assert!(told.contains(data.path().to_str().unwrap()), "{told}");
    assert!(told.contains(&server.process_id().to_string()), "{told}");
    server.open_room("den", "alice");
}

#[test]
fn a_port_in_use_is_said_with_what_to_do() {
    let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    let address = server.address.to_string();
    let told = refused(other.path(), &address, &[], &[]);
    assert!(
        told.contains(&format!("cannot listen on {address}: choose another address with --listen")),
        "{told}"
    );
}

#[test]
fn a_store_that_does_not_open_is_told_once() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("read-models.sqlite");
    std::fs::create_dir(&file).unwrap();
    let told = refused(data.path(), "127.0.0.1:0", &[], &[]);
    assert_eq!(told.matches(file.to_str().unwrap()).count(), 1, "{told}");
}

#[test]
fn a_long_history_is_not_read_on_once_nobody_reads_what_is_printed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // There is always more.
    let event = r#"{"position":"1","stream":"room-main.den","revision":0,"name":"RoomOpened","author":"a","data":{}}"#;
    let page = format!(r#"{{"events":[{event}],"more":true}}"#);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let head = BufReader::new(client.try_clone().unwrap());
            head.lines().map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
            let length = page.len();
            let _ = write!(
                client,
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{page}"
            );
        }
    });
    let mut why = dramatis()
        .args(["projections", "why", "rooms", "room-main.den", "--url", &url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(why.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("RoomOpened"), "{line}");
    let began = std::time::Instant::now();
    let ended = loop {
        match why.try_wait().unwrap() {
            Some(ended) => break ended,
            None if began.elapsed() > support::PATIENCE => {
                why.kill().unwrap();
                panic!("it reads on");
            }
            None => std::thread::yield_now(),
        }
    };
    assert!(ended.success(), "{ended}");
}

#[test]
fn keys_are_listed_and_read_with_or_without_their_zeros() {
    let (data, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    let log = file(logs.path(), "2010-03-08.txt", "[12:00] <alice> one\n[12:00] <alice> two\n");
    imported(&server, &[log], &["--room", "den"]);
    caught_up(&server);
    let run = |arguments: &[&str]| {
        let output = server.run(&[&["projections"], arguments].concat());
        (output.status.code(), String::from_utf8(output.stdout.clone()).unwrap(), told(&output))
    };
    let keys = ["room-main.den/00000000000000000002", "room-main.den/00000000000000000003"];
    let listed = |arguments: &[&str]| run(&[&["keys", "timeline"], arguments].concat()).1;
    assert_eq!(listed(&[]), format!("{}\n{}\n", keys[0], keys[1]));
    assert_eq!(listed(&["--limit", "1"]), format!("{}\n", keys[0]));
    assert_eq!(listed(&["--after", "room-main.den/2"]), format!("{}\n", keys[1]));
    assert_eq!(listed(&["--after", keys[1]]), "");
    for what in ["get", "why"] {
        let (code, shown, _) = run(&[what, "timeline", "room-main.den/2"]);
        assert!(code == Some(0) && !shown.is_empty(), "{what}");
        assert_eq!(shown, run(&[what, "timeline", keys[0]]).1, "{what}");
        let (code, shown, told) = run(&[what, "timeline", "room-main.den/9"]);
        assert_eq!((code, &*shown), (Some(1), ""), "{what}: {told}");
        assert!(told.contains("room-main.den/00000000000000000009"), "{what}: {told}");
        let (_, help, _) = run(&[what, "--help"]);
        assert!(help.contains("timeline      room-main.ROOM/MESSAGE"), "{help}");
    }
}

#[test]
fn large_documents_and_their_events_are_read_in_pages_that_are_not() {
    const MESSAGES: usize = 200;
    let (data, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start_with(data.path(), &[], &[("DRAMATIS__ROOM__TEXT_CHARS_MAX", "60000")]);
    let line = format!("[12:00] <alice> {}\n", "x".repeat(60_000));
    let log = file(logs.path(), "2010-03-08.txt", line.repeat(MESSAGES));
    imported(&server, &[log], &["--room", "den"]);
    caught_up(&server);
    let lines = |arguments: &[&str]| {
        let output = server.run(&[&["projections"], arguments].concat());
        assert!(output.status.success(), "{}", told(&output));
        output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count()
    };
    assert_eq!(lines(&["keys", "timeline"]), MESSAGES);
    assert_eq!(lines(&["keys", "timeline", "--json"]), MESSAGES);
    assert_eq!(lines(&["keys", "timeline", "--limit", "150"]), 150);
    assert_eq!(lines(&["why", "rooms", "room-main.den", "--json"]), MESSAGES + 2);
    let page = |query: &str| {
        let (status, body) = server.get(&format!("/api/projections/timeline/documents?limit=500{query}"));
        assert_eq!(status, 200, "{body}");
        (body.len(), serde_json::from_str::<serde_json::Value>(&body).unwrap())
    };
    let (bytes, first) = page("");
    assert!(bytes < 5 * 1024 * 1024 && first["more"] == true, "{bytes} bytes");
    let (bytes, bare) = page("&bodies=false");
    assert!(bytes < line.len() && bare["more"] == true, "{bytes} bytes");
    let count = |page: &serde_json::Value| page["documents"].as_array().unwrap().len();
    assert_eq!(count(&bare), count(&first));
}

#[test]
fn what_cannot_be_selected_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    server.open_room("den", "alice");
    for (arguments, wanted) in [
        (&["--name", "Nope"][..], "unknown event \"Nope\": there are RoomOpened"),
        (&["--category", "nope"], "unknown category \"nope\": there are room, user"),
        (&["--limit", "0"], "--limit"),
        (&["--room", "den", "--from", "9"], "from is past the room's end: the last revision of den is 1"),
    ] {
        for what in ["read", "tail"] {
            let output = server.run(&[&["events", what], arguments].concat());
            assert!(output.status.code() == Some(1) && told(&output).contains(wanted), "{}", told(&output));
        }
    }
    let output = server.run(&["projections", "as-of", "rooms"]);
    assert!(told(&output).contains("--position <POSITION>|--time <TIME>"), "{}", told(&output));
}
