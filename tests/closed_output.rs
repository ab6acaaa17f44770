//! Commands whose output nobody reads, or whose output cannot be written, do their work all the same.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::fs::File;
use std::process::{Output, Stdio};

use support::imports::{caught_up, file, imported};
use support::{Server, dramatis, lines_of_json, nobody};

/// A pipe that nobody reads.
fn closed() -> Stdio {
    let (_, writer) = std::io::pipe().unwrap();
    writer.into()
}

/// A disk on which no byte has room.
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The exit code of a command, with standard output and error like this.
fn code(command: &[&str], output: Stdio, error: Stdio) -> Option<i32> {
    dramatis().args(command).stdout(output).stderr(error).status().unwrap().code()
}

#[test]
fn backups_are_made_and_restored() {
    let dir = tempfile::tempdir().unwrap();
    let [data, store, logs] = ["data", "store", "logs"].map(|name| dir.path().join(name));
    std::fs::create_dir(&logs).unwrap();
    let server = Server::start(&data);
    imported(&server, &[file(&logs, "den-2010-03-08.txt", "[12:00] <alice> hello\n")], &[]);
    let (data, store) = (data.to_str().unwrap(), store.to_str().unwrap());
    for (number, output) in [closed as fn() -> Stdio, full].into_iter().enumerate() {
        let (name, into) = (format!("backup-{number}"), dir.path().join(format!("restored-{number}")));
        let create = ["backup", "create", "--store", store, "--data", data, "--name", &name];
        assert_eq!(code(&create, output(), output()), Some(0));
        let restore = ["backup", "restore", "--store", store, &name, "--into", into.to_str().unwrap()];
        assert_eq!(code(&restore, output(), output()), Some(0));
        assert_eq!(code(&["backup", "verify", "--store", store], output(), output()), Some(0));
        let restored = Server::start(&into);
        assert_eq!(restored.events(&[]).len(), server.events(&[]).len());
    }
    let list = ["backup", "list", "--store", store];
    assert_eq!(code(&list, closed(), Stdio::inherit()), Some(0));
    let output = dramatis().args(list).stdout(full()).stderr(Stdio::piped()).spawn().unwrap();
    let output = output.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).starts_with("dramatis: cannot write to standard output: "), "{}", told(&output));
}

#[test]
fn damage_is_told_by_the_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let [data, store, logs] = ["data", "store", "logs"].map(|name| dir.path().join(name));
    std::fs::create_dir(&logs).unwrap();
    let server = Server::start(&data);
    // What is damaged in the last batch of all would be taken for its unfinished end.
    for day in ["2010-03-08.txt", "2010-03-09.txt"] {
        imported(&server, &[file(&logs, day, "[12:00] <alice> hello\n")], &["--room", "den"]);
    }
    assert_eq!(server.terminate(), Some(0));
    let (data_text, store_text) = (data.to_str().unwrap(), store.to_str().unwrap());
    let create = ["backup", "create", "--store", store_text, "--data", data_text];
    assert_eq!(code(&create, closed(), closed()), Some(0));
    for command in ["verify", "info", "reindex", "repair"] {
        assert_eq!(code(&["log", command, "--data", data_text], closed(), closed()), Some(0), "{command}");
    }
    for dir in [data.join("log"), store.clone()] {
        flip_a_byte_of_every_segment(&dir);
    }
    for command in [
        &["log", "verify", "--data", data_text][..],
        &["log", "repair", "--data", data_text],
        &["backup", "verify", "--store", store_text],
    ] {
        assert_eq!(code(command, closed(), closed()), Some(2), "{command:?}");
    }
    assert_eq!(code(&["log", "repair", "--cut", "--data", data_text], closed(), closed()), Some(0));
    assert_eq!(code(&["log", "verify", "--data", data_text], closed(), closed()), Some(0));
}

fn flip_a_byte_of_every_segment(dir: &std::path::Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            flip_a_byte_of_every_segment(&path);
        } else if path.to_string_lossy().contains(".segment") {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[200] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
}

#[test]
fn an_import_goes_on() {
    let (data, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    let noise = "this is no line\n".repeat(100);
    for (name, output) in [("closed", closed as fn() -> Stdio), ("full", full)] {
        let log = file(logs.path(), "2010-03-08.txt", format!("{noise}[12:00] <alice> hello\n"));
        let url = server.url();
        let import = ["import", "irc", log.to_str().unwrap(), "--room", name, "--url", &url];
        assert_eq!(code(&import, output(), output()), Some(0));
        assert_eq!(server.events(&["--room", name, "--name", "MessagePosted"]).len(), 1);
    }
}

#[test]
fn what_is_only_shown_ends_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data"));
    server.open_room("den", "alice");
    caught_up(&server);
    let (key, url) = (dir.path().join("key"), server.url());
    let key_text = key.to_str().unwrap();
    assert_eq!(code(&["token", "--new-key", key_text], closed(), closed()), Some(0));
    for command in [
        &["events", "read", "--url", &url][..],
        &["projections", "list", "--url", &url],
        &["projections", "get", "rooms", "room-main.den", "--url", &url],
        &["projections", "why", "rooms", "room-main.den", "--url", &url],
        &["projections", "dead-letters", "rooms", "--url", &url],
        &["token", "--user", "alice", "--for", "1h"],
        &["--help"],
        &["--version"],
    ] {
        for (output, wanted) in [(closed as fn() -> Stdio, 0), (full, 1)] {
            let mut shown = dramatis();
            shown.args(command).env("DRAMATIS__AUTH__TOKEN_KEY_FILE", key_text);
            let shown = shown.stdout(output()).stderr(Stdio::piped()).spawn().unwrap();
            let shown = shown.wait_with_output().unwrap();
            assert_eq!(shown.status.code(), Some(wanted), "{command:?}: {}", told(&shown));
            assert!(wanted != 0 || told(&shown).is_empty(), "{command:?}: {}", told(&shown));
        }
    }
}

#[test]
fn builds_are_followed_to_their_end() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    server.open_room("den", "alice");
    caught_up(&server);
    let url = server.url();
    for what in ["rebuild", "verify"] {
        let command = ["projections", what, "rooms", "--url", &url];
        assert_eq!(code(&command, closed(), closed()), Some(0), "{what}");
    }
    assert_eq!(code(&["projections", "rollback", "rooms", "--url", &url], full(), full()), Some(0));
    let listed = lines_of_json(&server.run(&["events", "read"]).stdout);
    assert!(!listed.is_empty());
}

#[test]
fn a_failure_has_its_exit_code_though_nobody_hears_it() {
    let (_held, nobody) = nobody();
    for error in [closed as fn() -> Stdio, full] {
        assert_eq!(code(&["events", "read", "--url", &nobody], closed(), error()), Some(2));
        assert_eq!(code(&["no", "such", "command"], closed(), error()), Some(1));
    }
}
