//! Imports of what is not a tidy file, into servers that ask for tokens or take little at once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

#[path = "support/guarded.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared as the support module is")]
mod guarded;
mod support;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use guarded::{Guarded, mint, start};
use serde_json::{Value, json};
use support::imports::{file, import, imported, summary};
use support::{PATIENCE, Server, dramatis, lines_of_json};
use tokio_tungstenite::tungstenite::Message;

/// What a log in a pipe does not tell.
const DEN: [&str; 4] = ["--room", "den", "--date", "2010-03-08"];

/// An import of what is written to its standard input.
fn piped(url: &str, arguments: &[&str]) -> Command {
    let mut command = dramatis();
    command.args(["import", "irc", "/dev/stdin", "--url", url]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn texts(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["data"]["text"].as_str().unwrap()).collect()
}

#[test]
fn a_pipe_goes_in_whole() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    // More than is read at a time, so that a second look would begin in the middle.
    let said: Vec<String> = (0..5_000).map(|number| format!("line {number} of a pipe")).collect();
    let mut log = "=== alice has joined #den\n".repeat(100);
    for text in &said {
        writeln!(log, "[12:00] <alice> {text}").unwrap();
    }
    // Whether its first message is looked for, or need not be.
    for (room, arguments) in [("stdin", &DEN[2..]), ("den", &DEN)] {
        let mut importer = piped(&server.url(), arguments).spawn().unwrap();
        let mut pipe = importer.stdin.take().unwrap();
        let text = log.clone();
        let writes = std::thread::spawn(move || pipe.write_all(text.as_bytes()));
        let output = importer.wait_with_output().unwrap();
        writes.join().unwrap().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        assert_eq!(summary(&output)["lines"], 5_100, "{}", told(&output));
        assert_eq!(texts(&server.events(&["--room", room, "--name", "MessagePosted"])), said);
    }
}

#[test]
fn what_a_pipe_cannot_tell_is_asked_for() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    for (arguments, wanted) in [
        (&DEN[..2], "give one by --date"),
        (&[&["/dev/stdin"], &DEN[..]].concat(), "it can be read only once"),
    ] {
        let mut importer = piped(&server.url(), arguments).spawn().unwrap();
        // It may have ended without reading anything.
        let _ = importer.stdin.take().unwrap().write_all(b"[12:00] <alice> hello\n");
        let output = importer.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        assert!(told(&output).contains(wanted), "{}", told(&output));
    }
}

/// Waits until a message with this text is recorded.
fn posted(server: &Server, text: &str) {
    let started = Instant::now();
    while !texts(&server.events(&["--name", "MessagePosted"])).contains(&text) {
        assert!(started.elapsed() < PATIENCE, "{text} is not recorded");
    }
}

#[test]
fn a_pipe_may_stand_still_while_the_connection_goes_on() {
    let data = tempfile::tempdir().unwrap();
    let heartbeat =
        [("DRAMATIS__SOCKET__HEARTBEAT_MS", "100"), ("DRAMATIS__SOCKET__HEARTBEAT_GRACE_MS", "5000")];
    let server = Server::start_with(data.path(), &[], &heartbeat);
    let mut importer = piped(&server.url(), &DEN).spawn().unwrap();
    let mut pipe = importer.stdin.take().unwrap();
    writeln!(pipe, "[12:00] <alice> before").unwrap();
    posted(&server, "before");
    // Long enough for one who came later and does not answer to be closed.
    let mut mute = server.client("bob", &json!([]));
    while !matches!(mute.socket().read().unwrap(), Message::Close(_)) {}
    writeln!(pipe, "[12:01] <alice> after").unwrap();
    drop(pipe);
    let output = importer.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(texts(&server.events(&["--name", "MessagePosted"])), ["before", "after"]);
}

#[test]
fn a_long_line_is_told_and_the_rest_goes_on() {
    let (data, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    let mut log = String::new();
    for (number, bytes) in [4, 60_000, 4, 900_000, 4, 3_000_000, 4].into_iter().enumerate() {
        writeln!(log, "[12:0{number}] <alice> {}", "x".repeat(bytes)).unwrap();
    }
    let log = file(logs.path(), "den-2010-03-08.txt", log);
    let output = import(&server, std::slice::from_ref(&log), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let (counts, told) = (summary(&output), told(&output));
    let counted = ["lines", "recorded", "refused", "unparsed", "sent"].map(|name| counts[name]);
    assert_eq!(counted, [7, 6, 2, 1, 7], "{told}");
    let log = log.display();
    assert!(told.contains(&format!("{log}:2: refused: text_too_long")), "{told}");
    let large = format!("{log}:4: refused: its command has 900");
    assert!(told.contains(&large) && told.contains("the server takes 65536 at the most"), "{told}");
    let skipped =
        format!("{log}:6: not understood: expected a line of less than 1048576 bytes, got one of 3000");
    assert!(told.contains(&skipped), "{told}");
    assert_eq!(texts(&server.events(&["--name", "MessagePosted"])), ["xxxx"; 4]);
}

#[test]
fn a_room_that_is_full_is_told_once_and_what_is_lost_by_it_counted() {
    let (data, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start_with(data.path(), &[], &[("DRAMATIS__ROOM__MEMBERS_MAX", "2")]);
    let mut log = String::new();
    for number in 0..40 {
        writeln!(log, "[12:00] <nick{}> said {number}", number % 4).unwrap();
    }
    let log = file(logs.path(), "den-2010-03-08.txt", log);
    let output = import(&server, std::slice::from_ref(&log), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let (counts, told) = (summary(&output), told(&output));
    assert_eq!(["refused", "excluded"].map(|name| counts[name]), [2, 20], "{told}");
    assert_eq!(told.matches("refused: ").count(), 2, "{told}");
    let summed_up = String::from_utf8_lossy(&output.stdout);
    assert!(
        summed_up.contains("room.members_max") && summed_up.contains("full rooms: den-2010-03-08;"),
        "{summed_up}"
    );
    assert_eq!(texts(&server.events(&["--name", "MessagePosted"])).len(), 20);
}

#[test]
fn what_is_no_log_at_all_is_no_success() {
    let (data, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    let packed = file(logs.path(), "den-2010-03-08.gz", [0x1f, 0x8b, b'\n', 0xff, 0xfe, b'\n']);
    let output = import(&server, &[packed], &[]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(told(&output).contains("not one line is understood"), "{}", told(&output));
    assert_eq!(summary(&output)["unparsed"], 2);
}

#[test]
fn frames_are_as_small_as_the_server_asks() {
    let (data, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let small =
        [("DRAMATIS__SOCKET__MESSAGE_BYTES_MAX", "1024"), ("DRAMATIS__SOCKET__FRAME_BYTES_MAX", "1024")];
    let server = Server::start_with(data.path(), &[], &small);
    let log: String = "[12:00] <alice> REST\n".replace("REST", &"x".repeat(300)).repeat(50);
    let counts = imported(&server, &[file(logs.path(), "den-2010-03-08.txt", log)], &[]);
    assert_eq!((counts["recorded"], counts["refused"]), (52, 0));
}

#[test]
fn a_room_that_takes_one_command_at_a_time_gets_them_one_by_one() {
    let (data, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start_with(data.path(), &[], &[("DRAMATIS__ENTITY__PENDING_COMMANDS_MAX", "1")]);
    let said: Vec<String> = (0..300).map(|number| format!("line {number}")).collect();
    let log = format!("[12:00] <alice> {}\n", said.join("\n[12:00] <alice> "));
    let counts = imported(&server, &[file(logs.path(), "den-2010-03-08.txt", log)], &[]);
    assert_eq!((counts["recorded"], counts["refused"]), (302, 0));
    assert_eq!(texts(&server.events(&["--name", "MessagePosted"])), said);
}

fn integration(guarded: &Guarded, name: &str, lasts: &str) -> String {
    mint(&guarded.key, &["--user", name, "--for", lasts])
}

fn events(guarded: &Guarded, arguments: &[&str]) -> Vec<Value> {
    let output = dramatis()
        .args(["events", "read", "--url", &guarded.server.url()])
        .args(arguments)
        .env("DRAMATIS_TOKEN", integration(guarded, "integration:ops", "1h"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", told(&output));
    lines_of_json(&output.stdout)
}

#[test]
fn whoever_the_token_names_imports() {
    let guarded = start(&[]);
    let logs = tempfile::tempdir().unwrap();
    let log = file(logs.path(), "den-2010-03-08.txt", "[12:00] <alice> hello\n");
    let importing = |token: Option<String>| {
        let mut command = dramatis();
        command
            .args(["import", "irc", "--url", &guarded.server.url()])
            .arg(&log)
            .env_remove("DRAMATIS_TOKEN");
        command.envs(token.map(|token| ("DRAMATIS_TOKEN", token))).output().unwrap()
    };
    let output = importing(Some(integration(&guarded, "integration:import", "1h")));
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let events = events(&guarded, &["--room", "den-2010-03-08"]);
    let by: Vec<_> = events.iter().map(|event| event["by"].as_str().unwrap()).collect();
    assert_eq!(by, ["integration:import", "alice", "alice"]);

    let good = integration(&guarded, "integration:import", "1h");
    let (head, _) = good.rsplit_once('.').unwrap();
    for (token, wanted) in [
        (None, "4501 the token is missing, bad or has run out"),
        (Some(format!("{head}.c2lnbmVkIGJ5IG5vYm9keQ")), "4501 the token is missing, bad or has run out"),
        (
            Some(mint(&guarded.key, &["--user", "alice", "--for", "1h"])),
            "expected the token of an integration",
        ),
        (Some("no token".to_owned()), "expected the token of an integration"),
    ] {
        let output = importing(token);
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        assert!(
            told(&output).contains(wanted) && told(&output).contains("DRAMATIS_TOKEN"),
            "{}",
            told(&output)
        );
    }
}

#[test]
fn where_no_tokens_are_wanted_none_is_in_the_way() {
    let (data, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (server, guarded) = (Server::start(data.path()), start(&[]));
    for (number, token) in [
        "garbage".to_owned(),
        mint(&guarded.key, &["--user", "alice", "--for", "1h"]),
        integration(&guarded, "integration:ops", "1h"),
    ]
    .into_iter()
    .enumerate()
    {
        let (room, name) = (format!("den-{number}"), format!("den-{number}.txt"));
        let log = file(logs.path(), &name, "[12:00] <alice> hello\n");
        let output = dramatis()
            .args(["import", "irc", "--date", "2010-03-08", "--url", &server.url()])
            .arg(&log)
            .env("DRAMATIS_TOKEN", &token)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        assert_eq!(server.events(&["--room", &room])[0]["by"], "integration:irc-import");
    }
}

/// An import that has recorded one message with a token of so many seconds, if it came to that.
fn importing_for(guarded: &Guarded, seconds: u32) -> Option<(Child, String)> {
    let token = integration(guarded, "integration:import", &format!("{seconds}s"));
    let mut importer = piped(&guarded.server.url(), &DEN).env("DRAMATIS_TOKEN", &token).spawn().unwrap();
    writeln!(importer.stdin.as_mut().unwrap(), "[12:00] <alice> for {seconds} s").unwrap();
    let text = format!("for {seconds} s");
    while importer.try_wait().unwrap().is_none() {
        if guarded.request("GET /api/rooms/den", &token, "").0 == 200
            && texts(&events(guarded, &["--room", "den", "--name", "MessagePosted"])).contains(&text.as_str())
        {
            return Some((importer, token));
        }
        if guarded.request("GET /api/me", &token, "").0 == 401 {
            importer.kill().unwrap();
        }
    }
    None
}

#[test]
fn a_token_that_runs_out_ends_the_import() {
    let guarded = start(&[]);
    // On a busy machine a short one has run out before anything is recorded.
    let (mut importer, token) =
        [2, 4, 8, 16, 32].into_iter().find_map(|s| importing_for(&guarded, s)).unwrap();
    while guarded.request("GET /api/rooms/den", &token, "").0 != 401 {
        std::thread::yield_now();
    }
    // It may have ended by itself already.
    let _ = writeln!(importer.stdin.take().unwrap(), "[12:01] <alice> too late");
    let output = importer.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(
        told(&output).contains("put a fresh token of the same integration into DRAMATIS_TOKEN"),
        "{}",
        told(&output)
    );
    assert!(told(&output).contains("3 commands were acknowledged and are safe"), "{}", told(&output));
    let events = events(&guarded, &["--room", "den"]);
    assert!(events.iter().all(|event| event["data"]["text"] != "too late"));
}
