//! Full-text search finds what a plain look through every message finds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use support::imports::{caught_up, chat_log, file, imported};
use support::{Server, irc_logs, skipped};

/// Words that people ask of a help channel, and phrases; some that nobody said.
const QUERIES: [&str; 20] = [
    "ubuntu",
    "kernel",
    "sudo",
    "wireless",
    "nvidia",
    "\"thank you\"",
    "how do i",
    "apt-get",
    "xorg.conf",
    "grub",
    "don't",
    "\"does anyone know\"",
    "Firefox",
    "/etc/fstab",
    "mount ntfs",
    "synaptic",
    "java plugin",
    "café",
    "zyzzyva",
    "\"of the\"",
];

/// A message that holds every part of the query as whole words, told by another rule than the
/// product's: what is no letter or digit separates, as do Chinese characters, which no query has;
/// accents are told apart by a short list.
fn holds(text: &str, query: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        let plain: String = text
            .to_lowercase()
            .chars()
            .map(|letter| match letter {
                'á' | 'à' | 'â' | 'ä' | 'ã' | 'å' => 'a',
                'é' | 'è' | 'ê' | 'ë' => 'e',
                'í' | 'ì' | 'î' | 'ï' => 'i',
                'ó' | 'ò' | 'ô' | 'ö' | 'õ' => 'o',
                'ú' | 'ù' | 'û' | 'ü' => 'u',
                'ç' => 'c',
                'ñ' => 'n',
                other => other,
            })
            .collect();
        let separates = |c: char| !c.is_alphanumeric() || ('\u{4e00}'..='\u{9fff}').contains(&c);
        plain.split(separates).filter(|w| !w.is_empty()).map(str::to_owned).collect()
    };
    let said = words(text);
    let parts: Vec<&str> =
        query.strip_prefix('"').map_or_else(|| query.split(' ').collect(), |quoted| vec![quoted]);
    parts.iter().all(|part| {
        let phrase = words(part);
        said.windows(phrase.len()).any(|window| window == phrase)
    })
}

/// Every message that the search finds, page by page: room and revision.
fn found(server: &Server, query: &str, order: &str) -> Vec<(String, u64)> {
    let mut asked = String::new();
    for byte in query.bytes() {
        write!(asked, "%{byte:02x}").unwrap();
    }
    let mut all = Vec::new();
    loop {
        let path = format!("/api/search?q={asked}&order={order}&limit=500&skip={}", all.len());
        let page = server.get_json(&path);
        let place = |message: &Value| {
            (message["room"].as_str().unwrap().to_owned(), message["revision"].as_u64().unwrap())
        };
        all.extend(page["messages"].as_array().unwrap().iter().map(place));
        if page["more"] == false {
            return all;
        }
    }
}

/// Asks everything both ways; how many messages were found in all.
fn compare(server: &Server) -> usize {
    let posted: Vec<Value> =
        server.events(&[]).into_iter().filter(|event| event["name"] == "MessagePosted").collect();
    let mut hits = 0;
    for query in QUERIES {
        let want: BTreeSet<_> = posted
            .iter()
            .filter(|event| {
                // Who said it is no part of what was said.
                holds(event["data"]["text"].as_str().unwrap(), query)
            })
            .map(|event| {
                let stream = event["stream"].as_str().unwrap();
                (stream.trim_start_matches("room-main.").to_owned(), event["revision"].as_u64().unwrap())
            })
            .collect();
        let listed = found(server, query, "newest");
        let shown: BTreeSet<_> = listed.iter().cloned().collect();
        assert_eq!(shown.len(), listed.len(), "{query}: each once");
        let lost: Vec<_> = want.difference(&shown).take(3).collect();
        let extra: Vec<_> = shown.difference(&want).take(3).collect();
        assert!(lost.is_empty() && extra.is_empty(), "{query}: not found {lost:?}, found too {extra:?}");
        hits += want.len();
    }
    hits
}

#[test]
fn search_finds_what_a_look_through_all_finds() {
    let (data, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(data.path());
    let log = file(logs.path(), "2010-03-08.txt", chat_log(2_000, 11));
    imported(&server, &[log], &["--room", "den"]);
    let mut bob = server.client("bob", &json!([]));
    bob.ask("den", "join", &json!({}));
    for text in ["How do I mount NTFS?", "sudo apt-get install xorg", "thank you, ubuntu", "Un café, please"]
    {
        bob.ask("den", "post_message", &json!({ "text": text }));
    }
    caught_up(&server);
    let hits = compare(&server);
    println!("{hits} messages found");
    assert!(hits >= 6, "{hits}");
}

#[test]
fn edits_and_redactions_change_what_is_found() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    server.open_room("den", "alice");
    let mut alice = server.client("alice", &json!([]));
    let first = alice.ask("den", "post_message", &json!({"text": "the quick brown fox"}))["revision"].clone();
    let second = alice.ask("den", "post_message", &json!({"text": "fox, fox and fox"}))["revision"].clone();
    caught_up(&server);
    let places = |query: &str, order: &str| -> Vec<u64> {
        found(&server, query, order).into_iter().map(|(_, revision)| revision).collect()
    };
    let number = |revision: &Value| revision.as_u64().unwrap();
    assert_eq!(places("fox", "best"), [number(&second), number(&first)], "the best match first");
    alice.ask("den", "edit_message", &json!({"target": first, "text": "the quick brown dog"}));
    alice.ask("den", "redact_message", &json!({"target": second}));
    caught_up(&server);
    assert!(places("fox", "best").is_empty());
    assert_eq!(places("dog", "newest"), [number(&first)]);
    for path in
        ["/api/search", "/api/search?q=%2B%2B", "/api/search?q=dog&skip=10001", "/api/search?q=dog&order=odd"]
    {
        assert_eq!(server.get(path).0, 400, "{path}");
    }
    assert_eq!(server.get("/api/search?q=dog&room=lobby").0, 404, "there is no such room");
    server.open_room("lobby", "alice");
    let elsewhere = server.get_json("/api/search?q=dog&room=lobby");
    assert_eq!(elsewhere, json!({"messages": [], "more": false}));
    let by =
        |query: &str| server.get_json(&format!("/api/search?{query}"))["messages"].as_array().unwrap().len();
    assert_eq!(by("q=dog&by=alice&room=den"), 1);
    assert_eq!(
        (by("q=dog&by=bob"), by("q=alice"), by("q=alice+dog")),
        (0, 0, 0),
        "who said it is asked by `by`"
    );
}

#[test]
fn search_finds_in_the_real_logs_what_a_look_through_all_finds() {
    let Some(logs) = irc_logs() else { return skipped("search in the real logs: they are not there") };
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let lines: usize = logs.iter().map(|log| lines(log)).sum();
    imported(&server, &logs, &[]);
    caught_up(&server);
    let hits = compare(&server);
    println!("{lines} lines, {} queries, {hits} messages found", QUERIES.len());
    assert!(hits > 1_000, "{hits}");
}

fn lines(log: &Path) -> usize {
    String::from_utf8_lossy(&std::fs::read(log).unwrap()).lines().count()
}
