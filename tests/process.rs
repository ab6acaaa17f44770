//! The process and what is around it: signals, standard streams, how many files it may have open.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod support;

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use support::imports::caught_up;
use support::{Client, PATIENCE, Server, serve, skipped};

fn send(id: u32, signal: Signal) {
    kill_process(Pid::from_raw(id.try_into().unwrap()).unwrap(), signal).unwrap();
}

/// A server that a shell becomes once it has done something.
fn serve_after(first: &str, data: &Path, environment: &[(&str, &str)]) -> Server {
    let plain = serve(data);
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{first}; exec \"$0\" \"$@\"")])
        .arg(plain.get_program())
        .args(plain.get_args());
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let child = command.envs(environment.iter().copied()).stdout(Stdio::piped()).spawn().unwrap();
    Server::once_it_listens(child).unwrap()
}

fn post(client: &mut support::Client, text: &str) {
    let answer = client.ask("lobby", "post_message", &json!({"text": text}));
    assert_eq!(answer["type"], "ack", "{answer}");
}

/// Those that end a server; SIGHUP is none of them where whoever runs the tests has it ignored, which
/// a server then does, too.
fn ending_signals() -> Vec<Signal> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    if u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 0 {
        return vec![Signal::TERM, Signal::INT, Signal::HUP];
    }
    skipped("SIGHUP, which is ignored here");
    vec![Signal::TERM, Signal::INT]
}

#[test]
fn a_signal_is_heard_from_the_first_word_on() {
    let data = tempfile::tempdir().unwrap();
    for signal in ending_signals().into_iter().cycle().take(9) {
        let server = Server::start(data.path());
        send(server.process_id(), signal);
        assert_eq!(server.ended(), Some(0), "{signal:?}");
    }
}

#[test]
fn signals_that_come_together_are_one_wish() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[], &[("DRAMATIS__DRAIN__NOTICE_MS", "1500")]);
    let mut client = server.client("alice", &json!([]));
    // It stands still meanwhile: however long this takes, they reach it together.
    for signal in [Signal::STOP, Signal::TERM, Signal::INT, Signal::HUP, Signal::TERM, Signal::CONT] {
        send(server.process_id(), signal);
    }
    assert_eq!(client.receive_type("drain")["in_ms"], 1_500);
    drop(client);
    assert_eq!(server.ended(), Some(0));
}

#[test]
fn a_later_signal_ends_the_process_at_once() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[], &[("DRAMATIS__DRAIN__NOTICE_MS", "60000")]);
    let mut client = server.client("alice", &json!([]));
    send(server.process_id(), Signal::TERM);
    let drain = client.receive_type("drain");
    assert_eq!(drain["in_ms"], 60_000);
    assert!(drain["slot_ms"].is_u64(), "{drain}");
    let (id, asked) = (server.process_id(), Instant::now());
    let ending = std::thread::spawn(move || server.ended());
    while !ending.is_finished() {
        assert!(asked.elapsed() < PATIENCE, "it does not end");
        send(id, Signal::TERM);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(ending.join().unwrap(), Some(1));
}

#[test]
fn a_server_that_was_to_outlive_its_terminal_does() {
    let data = tempfile::tempdir().unwrap();
    let server = serve_after("trap '' HUP", data.path(), &[]);
    send(server.process_id(), Signal::HUP);
    server.open_room("lobby", "alice");
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn a_successor_that_waits_is_told_to_end() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let mut waiting = serve(data.path());
    waiting.arg("--wait-for-lock").env("RUST_LOG", "info").stderr(Stdio::piped());
    let mut waiting = waiting.spawn().unwrap();
    let mut said = BufReader::new(waiting.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("waiting for the log's lock")));
    send(waiting.id(), Signal::TERM);
    assert_eq!(waiting.wait().unwrap().code(), Some(0));
    server.open_room("lobby", "alice");
}

/// The reader of a pipe may go, and a disk may be full: neither ends what the process is there for.
#[test]
fn log_lines_that_nobody_takes_end_nothing() {
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap().into();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    for stderr in [Stdio::from(writer), full()] {
        let data = tempfile::tempdir().unwrap();
        let mut command = serve(data.path());
        let child = command.env("RUST_LOG", "debug").stderr(stderr).spawn().unwrap();
        let server = Server::once_it_listens(child).expect("it starts");
        server.open_room("lobby", "alice");
        post(&mut server.client("alice", &json!([])), "hello");
        assert_eq!(server.get_json("/api/health")["status"], "ok");
        assert_eq!(server.terminate(), Some(0));
    }
}

fn open_files(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.process_id())).unwrap().count()
}

/// Of the few files that are left to the process the next segment may take the last one.
#[test]
fn a_segment_is_begun_with_the_last_file_or_later() {
    let settings =
        [("DRAMATIS__LOG__SEGMENT_BYTES", "65536"), ("DRAMATIS__SOCKET__HELLO_TIMEOUT_MS", "600000")];
    let begun = |first: &str| {
        let data = tempfile::tempdir().unwrap();
        let server = serve_after(first, data.path(), &settings);
        server.open_room("lobby", "alice");
        let alice = server.client("alice", &json!([]));
        caught_up(&server);
        (data, server, alice)
    };
    let (_data, server, _alice) = begun(":");
    let files = open_files(&server) + 16;
    drop(server);
    for left in 0..4 {
        let (_data, server, mut alice) = begun(&format!("ulimit -n {files}"));
        let (mut held, started) = (Vec::new(), Instant::now());
        while open_files(&server) < files - left {
            assert!(started.elapsed() < PATIENCE, "{} of {files} files are open", open_files(&server));
            held.push(Client::connect(server.address));
        }
        let text = "words ".repeat(300);
        for _ in 0..100 {
            let answer = alice.ask("lobby", "post_message", &json!({"text": text}));
            assert!(answer["type"] == "ack" || answer["code"] == "unavailable", "{left} left: {answer}");
        }
        drop(held);
        // Nothing is over for good.
        let started = Instant::now();
        while alice.ask("lobby", "post_message", &json!({"text": text}))["type"] != "ack" {
            assert!(started.elapsed() < PATIENCE, "{left} left: no appends are taken");
        }
        assert_eq!(server.terminate(), Some(0));
    }
}

#[test]
fn a_process_that_may_open_too_few_files_says_so_and_ends() {
    let data = tempfile::tempdir().unwrap();
    let serve = format!("ulimit -n 48; exec {} serve --listen 127.0.0.1:0", env!("CARGO_BIN_EXE_dramatis"));
    let ended =
        Command::new("sh").args(["-c", &serve]).env("DRAMATIS__DATA__DIR", data.path()).output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(!ended.status.success() && said.contains("may have 48 files open"), "{said}");
    assert!(said.contains("ulimit -n"), "{said}");
}

#[test]
fn a_segment_that_could_not_be_made_is_tried_again_though_nobody_appends() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[], &[("DRAMATIS__LOG__SEGMENT_BYTES", "65536")]);
    server.open_room("lobby", "alice");
    let mut alice = server.client("alice", &json!([]));
    // Wherever the next one begins, something else stands there.
    let in_the_way: Vec<_> =
        (1..200).map(|first| data.path().join("log").join(format!("{first:020}.segment"))).collect();
    for dir in &in_the_way {
        std::fs::create_dir(dir).unwrap();
    }
    let text = "words ".repeat(300);
    let refused = loop {
        let answer = alice.ask("lobby", "post_message", &json!({"text": text}));
        if answer["type"] != "ack" {
            break answer;
        }
    };
    assert_eq!(refused["code"], "unavailable", "{refused}");
    let health = server.get_json("/api/health").to_string();
    assert!(health.contains("next segment cannot be made"), "{health}");
    for dir in &in_the_way {
        std::fs::remove_dir(dir).unwrap();
    }
    let started = Instant::now();
    while server.get_json("/api/health")["status"] != "ok" {
        assert!(started.elapsed() < PATIENCE, "it is not tried again");
    }
    post(&mut alice, &text);
}

#[test]
fn more_connections_than_files_leave_the_log_its_own() {
    let data = tempfile::tempdir().unwrap();
    let small = [("DRAMATIS__LOG__SEGMENT_BYTES", "65536")];
    let server = serve_after("ulimit -n 256", data.path(), &small);
    server.open_room("lobby", "alice");
    let mut alice = server.client("alice", &json!([]));
    let held: Vec<_> = (0..300).map(|_| TcpStream::connect(server.address)).collect();
    for _ in 0..200 {
        post(&mut alice, &"words ".repeat(300));
    }
    let segments = std::fs::read_dir(data.path().join("log")).unwrap();
    let is_segment = |name: &str| name.ends_with(".segment");
    let segments =
        segments.filter(|entry| is_segment(entry.as_ref().unwrap().file_name().to_str().unwrap())).count();
    assert!(segments > 3, "{segments}");
    drop((held, alice));
    assert_eq!(server.terminate(), Some(0));
}
