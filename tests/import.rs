//! Chat logs go in once, whole, and as they were.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;

use serde_json::Value;
use support::imports::{
    assert_each_once, assert_whole, caught_up, chat_log, file, head, import, imported, summary,
};
use support::{Server, dramatis, irc_logs};

/// Midnight of the log below.
const MIDNIGHT_MS: i64 = 1_268_006_400_000;

/// One line of every kind; the é is one byte of Windows-1252.
const DEN: &[u8] = b"=== alice has joined #den\r
=== bob [n=bob@example.org] has joined #den
=== mode/#den [+o alice]  by ChanServ
=== Topic for #den: all kinds
[23:58] <alice> good evening
[23:58] <alice> good evening
[23:58]  * bob waves
[23:59] <carol> caf\xe9
[23:59] <bob>
this is no line
=== bob is now known as bob_
[00:01] <bob_> past midnight
=== alice has left #den [\"bye\"]
=== carol was kicked off #den by alice (noise)
[00:02] <alice> back again
";

const OTHER: &[u8] = b"#ubuntu 2010-03-09 [01:02:03] <dave> the other form
#ubuntu 2010-03-09 [01:02:04]  * dave nods
";

/// An event as `revision by name data`, with the minute it happened at.
fn told(event: &Value) -> String {
    let field = |name: &str| event[name].as_str().unwrap_or("-").to_owned();
    let minute = event["occurred_at"].as_i64().map(|at_ms| (at_ms - MIDNIGHT_MS) / 60_000);
    let minute = minute.map_or_else(|| "-".to_owned(), |minute| minute.to_string());
    format!("{} {minute} {} {} {}", event["revision"], field("by"), field("name"), event["data"])
}

fn room(server: &Server, room: &str) -> Vec<String> {
    server.events(&["--room", room]).iter().map(told).collect()
}

const DEN_EVENTS: [&str; 14] = [
    r#"0 - integration:irc-import RoomOpened {"owner":"integration:irc-import","title":"den-2010-03-08"}"#,
    r#"1 0 alice MemberJoined {"display_name":"alice","member":"alice"}"#,
    r#"2 0 bob MemberJoined {"display_name":"bob","member":"bob"}"#,
    r#"3 1438 alice MessagePosted {"kind":"text","text":"good evening"}"#,
    r#"4 1438 alice MessagePosted {"kind":"text","text":"good evening"}"#,
    r#"5 1438 bob MessagePosted {"kind":"action","text":"waves"}"#,
    r#"6 1439 carol MemberJoined {"display_name":"carol","member":"carol"}"#,
    r#"7 1439 carol MessagePosted {"kind":"text","text":"café"}"#,
    r#"8 1439 bob MemberRenamed {"display_name":"bob_","member":"bob"}"#,
    r#"9 1441 bob MessagePosted {"kind":"text","text":"past midnight"}"#,
    r#"10 1441 alice MemberLeft {"member":"alice","reason":"bye"}"#,
    r#"11 1441 carol MemberLeft {"member":"carol","reason":"kicked by alice (noise)"}"#,
    r#"12 1442 alice MemberJoined {"display_name":"alice","member":"alice"}"#,
    r#"13 1442 alice MessagePosted {"kind":"text","text":"back again"}"#,
];

const OTHER_EVENTS: [&str; 4] = [
    r##"0 - integration:irc-import RoomOpened {"owner":"integration:irc-import","title":"#ubuntu"}"##,
    r#"1 1502 dave MemberJoined {"display_name":"dave","member":"dave"}"#,
    r#"2 1502 dave MessagePosted {"kind":"text","text":"the other form"}"#,
    r#"3 1502 dave MessagePosted {"kind":"action","text":"nods"}"#,
];

#[test]
fn every_kind_of_line_becomes_what_it_says() {
    let (data, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    let files = [file(logs.path(), "den-2010-03-08.txt", DEN), file(logs.path(), "other.txt", OTHER)];
    let ledger = logs.path().join("ledger");
    let with_ledger = ["--ledger", ledger.to_str().unwrap()];

    let output = import(&server, &files, &with_ledger);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert_eq!(told.lines().count(), 2, "{told}");
    let den = files[0].display();
    assert!(told.contains(&format!("{den}:9: refused: text_empty: ")), "{told}");
    assert!(told.contains(&format!("{den}:10: not understood: expected `[HH:MM] <nick> text`")), "{told}");
    assert!(told.contains("got \"this is no line\""), "{told}");

    let counts = summary(&output);
    for (name, count) in [
        ("files", 2),
        ("lines", 17),
        ("messages", 7),
        ("actions", 2),
        ("system", 7),
        ("sent", 19),
        ("recorded", 18),
        ("duplicates", 0),
        ("refused", 1),
        ("unparsed", 1),
        ("warned", 0),
    ] {
        assert_eq!(counts[name], count, "{name}");
    }
    assert_eq!(room(&server, "den-2010-03-08"), DEN_EVENTS);
    assert_eq!(room(&server, "#ubuntu"), OTHER_EVENTS);

    let events = server.events(&[]);
    assert_whole(&events);
    let noted = std::fs::read_to_string(&ledger).unwrap();
    let ids: HashSet<String> = noted.lines().map(str::to_owned).collect();
    assert_eq!((noted.lines().count(), ids.len()), (18, 18));
    assert_each_once(&ids, &events);

    let again = imported(&server, &files, &with_ledger);
    assert_eq!((again["recorded"], again["duplicates"], again["refused"]), (0, 18, 1));
    assert_eq!(server.events(&[]), events);
    // Rooms are independent: which of two is answered first is open.
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let noted_twice = std::fs::read_to_string(&ledger).unwrap();
    assert_eq!(sorted(&noted_twice), sorted(&noted.repeat(2)), "an answer is noted whenever it comes");
}

#[test]
fn a_clock_that_runs_back_is_told_and_one_of_twelve_hours_is_understood() {
    let (data, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    let files = [
        file(logs.path(), "of-12-2010-03-08.txt", "[12:59] <alice> one\n[01:00] <alice> two\n"),
        file(logs.path(), "set-2010-03-08.txt", "[14:00] <alice> one\n[10:00] <alice> two\n"),
    ];
    let output = import(&server, &files, &[]);
    let told_of = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), summary(&output)["warned"]), (Some(0), 2), "{told_of}");
    for (file, wanted) in [
        (&files[0], "the clock runs back from 12:59 to 01:00, and never shows 13:00 or later: taken for"),
        (&files[1], "the clock runs back from 14:00 to 10:00, which is less than at midnight"),
    ] {
        assert!(told_of.contains(&format!("{}:2: {wanted}", file.display())), "{told_of}");
    }
    let minutes = |of: &str| {
        let events = server.events(&["--room", of, "--name", "MessagePosted"]);
        let minute = |event: &Value| (event["occurred_at"].as_i64().unwrap() - MIDNIGHT_MS) / 60_000;
        events.iter().map(minute).collect::<Vec<_>>()
    };
    assert_eq!((minutes("of-12-2010-03-08"), minutes("set-2010-03-08")), (vec![779, 780], vec![840, 600]));
}

#[test]
fn several_files_make_one_room() {
    let (data, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    // The second file goes on where the first ends: alice is still there, and says the same again.
    let files = [
        file(logs.path(), "2010-03-08.txt", "[12:00] <alice> hello\n[12:00] <bob> hello\n"),
        file(logs.path(), "2010-03-09.txt", "[12:00] <alice> hello\n=== bob has left #den\n"),
        file(logs.path(), "again-2010-03-09.txt", "[12:00] <alice> hello\n"),
    ];
    let first = imported(&server, &files, &["--room", "one"]);
    assert_eq!((first["recorded"], first["refused"], first["unparsed"]), (8, 0, 0));
    let events = server.events(&[]);
    assert!(events.iter().all(|event| event["stream"] == "room-main.one"), "{events:?}");
    let names: Vec<_> = events.iter().map(|event| event["name"].as_str().unwrap()).collect();
    let (joined, posted) = ("MemberJoined", "MessagePosted");
    assert_eq!(names, ["RoomOpened", joined, posted, joined, posted, posted, "MemberLeft", posted]);
    assert_eq!(imported(&server, &files, &["--room", "one"])["recorded"], 0);
    assert_eq!(server.events(&[]), events);
}

#[test]
fn a_longer_log_is_continued_where_a_shorter_one_ended() {
    let (data, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    let whole = chat_log(300, 7);
    let half: String = whole.split_inclusive('\n').take(150).collect();
    let earlier = imported(&server, &[file(logs.path(), "den-2010-03-08.txt", half)], &[]);
    let later = imported(&server, &[file(logs.path(), "den-2010-03-08.txt", &whole)], &[]);
    assert_eq!(later["duplicates"], earlier["recorded"]);

    let fresh_data = tempfile::tempdir().unwrap();
    let fresh = Server::start(fresh_data.path());
    let at_once = imported(&fresh, &[logs.path().join("den-2010-03-08.txt")], &[]);
    assert_eq!(at_once["recorded"], earlier["recorded"] + later["recorded"]);
    assert_eq!(room(&server, "den-2010-03-08"), room(&fresh, "den-2010-03-08"));
}

#[test]
fn a_proxy_whose_server_is_away_is_asked_again() {
    let (data, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    let (proxy, behind) = (TcpListener::bind("127.0.0.1:0").unwrap(), server.address);
    let url = format!("http://{}", proxy.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut away = ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"].into_iter();
        for client in proxy.incoming() {
            let mut client = client.unwrap();
            if let Some(status) = away.next() {
                let head = BufReader::new(client.try_clone().unwrap());
                head.lines().map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
                write!(client, "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                    .unwrap();
                continue;
            }
            let server = TcpStream::connect(behind).unwrap();
            for (mut from, mut to) in
                [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
            {
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        }
    });
    let log = file(logs.path(), "den-2010-03-08.log", DEN);
    let import = |more: &[&str]| {
        let arguments = ["import", "irc", log.to_str().unwrap(), "--url", &url];
        dramatis().args(arguments).args(more).output().unwrap()
    };
    let output = import(&[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("502 Bad Gateway"), "{said}");
    let output = import(&["--retry-for", "60"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(room(&server, "den-2010-03-08"), DEN_EVENTS);
}

#[test]
fn the_public_logs_go_in_whole_and_once() {
    let Some(files) = irc_logs() else {
        println!("skipped: the chat logs do not lie beside the checkout");
        return;
    };
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let output = import(&server, &files, &[]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let counts = summary(&output);
    let counted = ["lines", "messages", "actions", "system", "refused", "unparsed"].map(|name| counts[name]);
    // Eight lines say nothing, or only spaces.
    assert_eq!(counted, [57_226, 51_147, 109, 5_970, 8, 0]);
    let refused: Vec<_> = told.lines().filter(|line| line.contains(": refused: ")).collect();
    assert_eq!(refused.len(), 8);
    assert!(refused.iter().all(|line| line.contains(": refused: text_empty: ")), "{refused:?}");

    let posted = server.events(&["--name", "MessagePosted"]);
    let actions = posted.iter().filter(|event| event["data"]["kind"] == "action").count();
    assert_eq!((posted.len() - actions, actions), (51_147 - 8, 109));
    let standings = caught_up(&server);
    let documents = |name: &str| {
        let standing = standings.iter().find(|standing| standing["name"] == name).unwrap();
        assert_eq!(standing["parked"], 0);
        standing["documents"].as_u64().unwrap()
    };
    assert_eq!(documents("timeline"), 51_248);
    assert_eq!(documents("rooms"), u64::try_from(files.len()).unwrap());
    let events = server.events(&[]);
    assert_whole(&events);
    assert_eq!(u64::try_from(events.len()).unwrap(), counts["recorded"]);

    let before = head(&server);
    // The files in another order: rooms do not depend on each other.
    let reversed: Vec<PathBuf> = files.into_iter().rev().collect();
    let again = imported(&server, &reversed, &[]);
    assert_eq!((again["recorded"], again["duplicates"], again["refused"]), (0, counts["recorded"], 8));
    assert_eq!(head(&server), before);
}
