//! Chat logs made for a test, importing them, and what is then to be seen.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Instant;

use serde_json::Value;

use super::{PATIENCE, Server};

/// Whether the suites that take long were asked for.
pub fn long_tier() -> bool {
    std::env::var("DRAMATIS_TEST_TIER").is_ok_and(|tier| tier == "long" || tier == "soak")
}

/// Chance that can be had again: `DRAMATIS_TEST_SEED=<printed number>`.
pub struct Chance(u64);

impl Chance {
    /// From the environment, or else from the clock; says which, for when the test fails.
    pub fn new() -> Self {
        let given = std::env::var("DRAMATIS_TEST_SEED").ok();
        let seed = given.map_or_else(Self::from_clock, |text| text.parse().expect("a number"));
        println!("DRAMATIS_TEST_SEED={seed}");
        Self(seed)
    }

    /// From a seed.
    pub const fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed of what is drawn from now on.
    pub const fn seed(&self) -> u64 {
        self.0
    }

    fn from_clock() -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos()) ^ (now.as_secs() << 20)
    }

    /// The next number below `bound`. `SplitMix64`, <https://prng.di.unimi.it/splitmix64.c>.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A chat log of which nearly every line records something: people come, speak, act,
/// change their names and go. The same seed gives the same log.
pub fn chat_log(lines: u64, seed: u64) -> String {
    let mut chance = Chance(seed);
    let mut text = String::new();
    let mut renamed = 0;
    for line in 0..lines {
        let (hour, minute) = (line * 23 / lines, chance.below(60));
        let nick = chance.below(20);
        let said = match chance.below(50) {
            0 => {
                renamed += 1;
                format!(
                    "=== renamer is now known as renamer{renamed}\n[{hour:02}:{minute:02}] <renamer{renamed}> me\n=== renamer{renamed} is now known as renamer"
                )
            }
            1 => format!("[{hour:02}:{minute:02}] <visitor> {line}\n=== visitor has left #den [\"bye\"]"),
            2 => format!("[{hour:02}:{minute:02}]  * nick{nick} waves {line}"),
            3 => format!("[{hour:02}:{minute:02}] <nick{nick}> the same again"),
            _ => format!("[{hour:02}:{minute:02}] <nick{nick}> line {line} with some words to carry"),
        };
        writeln!(text, "{said}").unwrap();
    }
    text
}

/// Writes a file and returns its path.
pub fn file(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Imports these files with further arguments.
pub fn import(server: &Server, files: &[PathBuf], arguments: &[&str]) -> Output {
    let files = files.iter().map(|path| path.to_str().unwrap());
    let all: Vec<&str> =
        ["import", "irc"].into_iter().chain(files).chain(arguments.iter().copied()).collect();
    server.run(&all)
}

/// The same, where it must succeed: the counts of its summary.
pub fn imported(server: &Server, files: &[PathBuf], arguments: &[&str]) -> BTreeMap<String, u64> {
    let output = import(server, files, arguments);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    summary(&output)
}

/// Imports days of a chat log into one room, one after the other, each of them more than a small
/// segment takes: a busy machine may make one batch of an import, and a batch is in one segment.
pub fn imported_by_days(server: &Server, dir: &Path, room: &str, days: u64) {
    for day in 1..=days {
        let log = file(dir, &format!("{room}-2010-03-{day:02}.txt"), chat_log(400, day));
        imported(server, &[log], &["--room", room]);
    }
}

/// The counts of an import's summary by their names.
pub fn summary(output: &Output) -> BTreeMap<String, u64> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let count = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
    };
    text.lines().filter_map(count).collect()
}

/// The position of the log's last event.
pub fn head(server: &Server) -> Option<u64> {
    let standings = server.get_json("/api/projections");
    standings[0]["head"].as_str().map(|head| head.parse().unwrap())
}

/// Waits until every projection that the store can keep has reached the log's head; returns how
/// they stand.
pub fn caught_up(server: &Server) -> Vec<Value> {
    let started = Instant::now();
    loop {
        let (status, body) = server.get("/api/projections");
        if status == 503 && started.elapsed() < PATIENCE {
            // The store is slow or away at present.
            std::thread::yield_now();
            continue;
        }
        assert_eq!(status, 200, "{body}");
        let standings: Vec<Value> = serde_json::from_str(&body).unwrap();
        let there = |standing: &Value| {
            let live = standing["state"] == "live" && standing["position"] == standing["head"];
            live || standing["state"] == "unsupported"
        };
        if standings.iter().all(there) {
            return standings;
        }
        assert!(started.elapsed() < PATIENCE, "the projections do not catch up: {standings:?}");
        // The server's own wait: it answers when it got there, or that it did not yet.
        let head = standings[0]["head"].as_str().unwrap_or("0");
        server.get(&format!("/api/rooms?min_position={head}"));
    }
}

/// Asserts what a log must be whatever happened to it: revisions contiguous in each stream,
/// positions contiguous, the writer's time never running backwards.
pub fn assert_whole(events: &[Value]) {
    let mut next: BTreeMap<&str, u64> = BTreeMap::new();
    for event in events {
        let revision = next.entry(event["stream"].as_str().unwrap()).or_default();
        assert_eq!(event["revision"], *revision, "{event}");
        *revision += 1;
    }
    for pair in events.windows(2) {
        assert_eq!(position(&pair[1]), position(&pair[0]) + 1, "{pair:?}");
        assert!(pair[0]["recorded_at"].as_i64() <= pair[1]["recorded_at"].as_i64(), "{pair:?}");
    }
}

fn position(event: &Value) -> u64 {
    event["position"].as_str().unwrap().parse().unwrap()
}

/// Asserts that each of these commands is in the log, and exactly once.
pub fn assert_each_once(ids: &HashSet<String>, events: &[Value]) {
    let mut times: BTreeMap<&str, u64> = BTreeMap::new();
    for id in events.iter().filter_map(|event| event["command_id"].as_str()) {
        *times.entry(id).or_default() += 1;
    }
    for id in ids {
        assert_eq!(times.get(id.as_str()), Some(&1), "{id} was acknowledged");
    }
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "recorded more than once: {twice:?}");
}
