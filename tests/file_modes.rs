//! What people say to each other is readable for the owner of the data alone, also where an
//! administrator has made the directory and left it open.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use support::imports::imported_by_days;
use support::{Server, dramatis};

/// Files below this directory that are not for their owner alone, wherever they are moved to.
fn open_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(dir, true, &mut found);
    let mode = |path: &PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    found.into_iter().map(|(path, _)| path).filter(|path| mode(path) != 0o600).collect()
}

/// A directory that others may read.
fn open_dir(parent: &Path, name: &str) -> PathBuf {
    let dir = parent.join(name);
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
    dir
}

/// Files below this directory, with those that others can get at.
fn files(dir: &Path, reachable: bool, found: &mut Vec<(PathBuf, bool)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        if path.is_dir() {
            files(&path, reachable && mode & 0o011 != 0, found);
        } else {
            found.push((path, reachable && mode & 0o044 != 0));
        }
    }
}

/// All files below this directory, none of which others may read.
fn kept_private(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    files(dir, true, &mut found);
    let open: Vec<_> = found.iter().filter(|(_, open)| *open).map(|(path, _)| path).collect();
    assert!(open.is_empty(), "others may read {open:?}");
    found.iter().map(|(path, _)| path.strip_prefix(dir).unwrap().display().to_string()).collect()
}

fn run(arguments: &[&str]) {
    let output = dramatis().args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn nothing_is_readable_for_others_in_a_directory_that_is() {
    let outer = tempfile::tempdir().unwrap();
    std::fs::set_permissions(outer.path(), Permissions::from_mode(0o755)).unwrap();
    let [data, store, into] = ["data", "store", "into"].map(|name| open_dir(outer.path(), name));
    let [data_text, store_text, into_text] = [&data, &store, &into].map(|dir| dir.to_str().unwrap());

    let server = Server::start_with(&data, &[], &[("DRAMATIS__LOG__SEGMENT_BYTES", "65536")]);
    imported_by_days(&server, outer.path(), "den", 2);
    server.open_room("lobby", "alice");
    let mut alice = server.client("alice", &json!([]));
    assert_eq!(alice.ask("lobby", "invite_member", &json!({"member": "bob"}))["type"], "ack");
    let mut bob = server.client("bob", &json!([{"room": "me"}]));
    while bob.receive_type("event")["name"] != "InvitationReceived" {}
    let kept = kept_private(&data);
    let sqlite = ["read-models.sqlite", "read-models.sqlite-wal", "snapshots.sqlite", "snapshots.sqlite-wal"];
    assert!(sqlite.iter().all(|name| kept.iter().any(|file| file == name)), "{kept:?}");
    assert_eq!(server.terminate(), Some(0));
    assert!(kept_private(&data).contains(&"reactors/invitations.json".to_owned()));

    run(&["backup", "create", "--store", store_text, "--data", data_text]);
    assert!(!kept_private(&store).is_empty());
    run(&["backup", "restore", "--store", store_text, "latest", "--into", into_text]);
    assert!(kept_private(&into).iter().any(|file| file.starts_with("log/")));

    let mut segments: Vec<_> = std::fs::read_dir(data.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "segment"))
        .collect();
    segments.sort();
    let mut bytes = std::fs::read(&segments[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segments[0], bytes).unwrap();
    for dir in [&data, &store, &into] {
        let open = open_files(dir);
        assert!(open.is_empty() && std::fs::read_dir(dir).unwrap().next().is_some(), "{dir:?}: {open:?}");
    }
    // As a log that an administrator copied there may be.
    std::fs::set_permissions(data.join("log"), Permissions::from_mode(0o755)).unwrap();
    run(&["log", "repair", "--cut", "--data", data_text]);
    let cut = std::fs::read_dir(data.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let cut: Vec<_> = cut.filter(|path| path.is_dir()).collect();
    assert_eq!(cut.len(), 1, "{cut:?}");
    assert_eq!(std::fs::metadata(&cut[0]).unwrap().permissions().mode() & 0o777, 0o700);
}
