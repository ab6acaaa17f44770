//! Threads and replies: what the read models show is what was sent in, over chance trees and
//! over the real logs' own reply links.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::{Value, json};
use support::imports::Chance;
use support::{Client, Server, irc_logs, skipped};

/// One message to send: its words, and the earlier one it answers.
struct Said {
    text: String,
    answers: Option<usize>,
}

/// Commands on their way at a time.
const IN_FLIGHT_MAX: usize = 256;

/// Opens the room and says all of it; answers the revision of each message and the last position.
fn say(server: &Server, room: &str, said: &[Said]) -> (Vec<u64>, String) {
    server.open_room(room, "alice");
    let mut alice = server.client("alice", &json!([]));
    let (mut revisions, mut position) = (vec![None; said.len()], String::new());
    let mut waiting: HashMap<String, usize> = HashMap::new();
    let mut take = |alice: &mut Client, waiting: &mut HashMap<String, usize>, revisions: &mut [_]| {
        let answer = alice.receive_type("ack");
        let index = waiting.remove(answer["id"].as_str().unwrap()).unwrap();
        revisions[index] = answer["revision"].as_u64();
        answer["position"].as_str().unwrap().clone_into(&mut position);
    };
    for (index, Said { text, answers }) in said.iter().enumerate() {
        let unknown = |revisions: &[Option<u64>]| answers.is_some_and(|to| revisions[to].is_none());
        while waiting.len() >= IN_FLIGHT_MAX || unknown(&revisions) {
            take(&mut alice, &mut waiting, &mut revisions);
        }
        let data = match answers {
            Some(to) => json!({"text": text, "reply_to": revisions[*to].unwrap()}),
            None => json!({"text": text}),
        };
        waiting.insert(alice.command(room, "post_message", &data), index);
    }
    while !waiting.is_empty() {
        take(&mut alice, &mut waiting, &mut revisions);
    }
    (revisions.into_iter().map(Option::unwrap).collect(), position)
}

/// Links (reply, answered) by the revision of a thread's first message.
type Trees = BTreeMap<u64, Vec<(u64, u64)>>;

fn sent(said: &[Said], revisions: &[u64]) -> Trees {
    let mut trees = Trees::new();
    for (index, answers) in said.iter().enumerate().filter_map(|(i, said)| Some((i, said.answers?))) {
        let mut root = answers;
        while let Some(above) = said[root].answers {
            root = above;
        }
        trees.entry(revisions[root]).or_default().push((revisions[index], revisions[answers]));
    }
    trees
}

/// The same, as the API shows it; every page is asked for.
fn shown(server: &Server, room: &str, position: &str) -> Trees {
    let mut trees = Trees::new();
    let mut after = String::new();
    loop {
        let path = format!("/api/rooms/{room}/threads?limit=100&min_position={position}{after}");
        let page = server.get_json(&path);
        for thread in page["threads"].as_array().unwrap() {
            let first = thread["root"].as_u64().unwrap();
            let links = links(server, room, first, position);
            assert_eq!(thread["replies"].as_u64(), u64::try_from(links.len()).ok(), "{thread}");
            assert!(trees.insert(first, links).is_none(), "thread {first} was listed twice");
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return trees,
        }
    }
}

fn links(server: &Server, room: &str, first: u64, position: &str) -> Vec<(u64, u64)> {
    let (mut links, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/rooms/{room}/threads/{first}?limit=50&min_position={position}{after}");
        let page = server.get_json(&path);
        let messages = page["messages"].as_array().unwrap();
        if after.is_empty() {
            assert_eq!(messages[0]["revision"], first, "a thread begins with its first message");
        }
        let of = |message: &Value, field: &str| message[field].as_u64();
        links.extend(messages.iter().filter_map(|m| Some((of(m, "revision")?, of(m, "reply_to")?))));
        if page["more"] == false {
            return links;
        }
        after = format!("&after={}", messages.last().unwrap()["revision"]);
    }
}

#[test]
fn threads_equal_the_links_sent_in() {
    let mut chance = Chance::new();
    let said: Vec<_> = (0..600_u64)
        .map(|index| {
            // Some answer what came long ago, some the last one, most nothing.
            let answers = match chance.below(4) {
                0 if index > 0 => usize::try_from(chance.below(index)).ok(),
                1 if index > 0 => usize::try_from(index - 1).ok(),
                _ => None,
            };
            Said { text: format!("message {index}"), answers }
        })
        .collect();
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let (revisions, position) = say(&server, "trees", &said);
    let trees = sent(&said, &revisions);
    println!("{} threads", trees.len());
    assert!(trees.len() > 20);
    assert_eq!(shown(&server, "trees", &position), trees);

    let alone = revisions[said.iter().position(|said| said.answers.is_none()).unwrap()];
    let alone = revisions.iter().find(|r| !trees.contains_key(r) && **r != alone).unwrap_or(&alone);
    let page = server.get_json(&format!("/api/rooms/trees/threads/{alone}"));
    assert!(page["messages"].as_array().unwrap().len() == 1 || page["thread"].is_object(), "{page}");
    let (status, _) = server.get("/api/rooms/trees/threads/999999");
    assert_eq!(status, 404);
}

#[test]
fn a_message_that_is_missing_is_passed_over() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let said: Vec<_> =
        (0..7_usize).map(|at| Said { text: format!("m{at}"), answers: (at > 0).then_some(0) }).collect();
    let (revisions, position) = say(&server, "den", &said);
    for projection in ["threads", "replies", "timeline"] {
        let path = format!("/api/projections/{projection}/documents?min_position={position}");
        server.get_json(&path);
    }
    assert_eq!(server.terminate(), Some(0));
    // As where its key is parked.
    let store = rusqlite::Connection::open(data.path().join("read-models.sqlite")).unwrap();
    let missing = [revisions[2], revisions[3], revisions[6]];
    for revision in missing {
        let key = format!("room-main.den/{revision:020}");
        assert_eq!(store.execute("DELETE FROM \"documents timeline@1\" WHERE key = ?", [key]).unwrap(), 1);
    }
    drop(store);
    let server = Server::start(data.path());
    let first = revisions[0];
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = server.get_json(&format!("/api/rooms/den/threads/{first}?limit=2{after}"));
        let messages = page["messages"].as_array().unwrap();
        assert!(!messages.is_empty(), "a page that was said to be there has something: {page}");
        seen.extend(messages.iter().map(|message| message["revision"].as_u64().unwrap()));
        if page["more"] == false {
            break;
        }
        after = format!("&after={}", seen.last().unwrap());
    }
    let expected: Vec<_> = revisions.iter().copied().filter(|at| !missing.contains(at)).collect();
    assert_eq!(seen, expected);
}

#[test]
fn threads_equal_the_reply_links_of_the_real_logs() {
    let Some(logs) = irc_logs() else { return skipped("threads of the real logs: they are not there") };
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let (mut lines, mut replies, mut threads) = (0, 0, 0);
    for log in &logs {
        let name = log.file_name().unwrap().to_str().unwrap();
        let said = real(log);
        let room = name.trim_end_matches(".raw.txt").to_owned();
        let (revisions, position) = say(&server, &room, &said);
        let trees = sent(&said, &revisions);
        assert_eq!(shown(&server, &room, &position), trees, "{room}");
        lines += said.len();
        replies += trees.values().map(Vec::len).sum::<usize>();
        threads += trees.len();
    }
    println!("{lines} lines, {replies} reply links in {threads} threads");
    assert!(replies > 1_000, "{replies}");
}

/// A real log, each line a message; which answers which is in the file beside it, if there is one.
fn real(log: &Path) -> Vec<Said> {
    let bytes = std::fs::read(log).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let line =
        |line: &str| Said { text: if line.trim().is_empty() { "-" } else { line }.to_owned(), answers: None };
    let mut said: Vec<_> = text.lines().map(line).collect();
    let annotation = log.to_str().unwrap().replace(".raw.txt", ".annotation.txt");
    for link in std::fs::read_to_string(annotation).unwrap_or_default().lines() {
        let numbers: Vec<usize> = link.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [first, second] = numbers[..] else { panic!("not a link: {link}") };
        let (answered, answer) = (first.min(second), first.max(second));
        if answered != answer && said[answer].answers.is_none() {
            said[answer].answers = Some(answered);
        }
    }
    said
}

#[test]
fn the_first_message_of_a_thread_comes_with_whatever_page_it_is_past() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let said = |text: &str, answers| Said { text: text.to_owned(), answers };
    let talk = [said("before", None), said("first", None), said("second", Some(1)), said("third", Some(2))];
    let (revisions, position) = say(&server, "den", &talk);
    let root = revisions[1];
    let page = |after: u64, limit: u64| -> Vec<u64> {
        let path =
            format!("/api/rooms/den/threads/{root}?after={after}&limit={limit}&min_position={position}");
        let page = server.get_json(&path);
        page["messages"].as_array().unwrap().iter().map(|m| m["revision"].as_u64().unwrap()).collect()
    };
    assert_eq!(page(revisions[0], 9), revisions[1..], "past a revision before the thread");
    assert_eq!(page(0, 1), revisions[1..3], "its first message, and a reply");
    assert_eq!(page(root, 9), revisions[2..]);
    assert_eq!(page(revisions[2], 9), revisions[3..]);
    assert_eq!(page(revisions[3], 9), [] as [u64; 0]);
}
