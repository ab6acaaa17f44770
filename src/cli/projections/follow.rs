//! A build followed to its end, over restarts of the server too.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::super::Failure;
use super::{Of, show, told};

/// How often the server is asked.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// How long a server that went away may take to come back.
const COMES_BACK_WITHIN: Duration = Duration::from_mins(1);
/// How long a server may tell of no build, or of another one than was ordered: one that has just started
/// has not looked yet.
const TELLS_WITHIN: Duration = Duration::from_secs(5);

/// Shows the progress of the build that was ordered until it ends, or of whichever is under way.
pub(super) fn follow(of: &Of, ordered: Option<&Value>) -> anyhow::Result<()> {
    let ordered = ordered.and_then(|job| job.get("build"));
    let bar = std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {msg}");
        ProgressBar::new(100).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    });
    let (mut gone_since, mut idle_since): (Option<Instant>, Option<Instant>) = (None, None);
    // One that never answered is not waited for: the address may be wrong.
    let mut has_answered = ordered.is_some();
    loop {
        let standing = match of.get("", &[("counts", "false".to_owned())]) {
            Ok(standing) => standing,
            Err(error) => {
                let restarting =
                    matches!(error.downcast_ref(), Some(Failure::NoServer { .. } | Failure::Silent { .. }));
                let since = *gone_since.get_or_insert_with(Instant::now);
                if !restarting || !has_answered || since.elapsed() > COMES_BACK_WITHIN {
                    return Err(error);
                }
                std::thread::sleep(ASK_EVERY);
                continue;
            }
        };
        (gone_since, has_answered) = (None, true);
        let told = standing.get("job");
        let Some(job) = told.filter(|job| ordered.is_none() || job.get("build") == ordered) else {
            let since = *idle_since.get_or_insert_with(Instant::now);
            anyhow::ensure!(since.elapsed() <= TELLS_WITHIN, none(of, ordered.filter(|_| told.is_some())));
            std::thread::sleep(ASK_EVERY);
            continue;
        };
        idle_since = None;
        if let Some(bar) = &bar {
            bar.set_position(job.get("percent").and_then(Value::as_u64).unwrap_or(0));
            bar.set_message(show::progress(job));
        }
        if let Some(ended) = ended(of, job) {
            if let Some(bar) = &bar {
                bar.finish_and_clear();
            }
            return ended;
        }
        std::thread::sleep(ASK_EVERY);
    }
}

/// That there is nothing to follow, as another build is told of than the ordered one or none at all.
fn none(of: &Of, ordered: Option<&Value>) -> String {
    match ordered {
        Some(build) => format!(
            "{} was ordered, and the server tells of another build of {name} since: `dramatis projections watch \
             {name}` follows that one",
            show::plain(build),
            name = of.name
        ),
        None => format!("{} has no build under way", of.name),
    }
}

/// How it ended, if it has.
fn ended(of: &Of, job: &Value) -> Option<anyhow::Result<()>> {
    let state = job.get("state").and_then(Value::as_str).unwrap_or_default();
    let differs = job.get("difference").filter(|difference| !difference.is_null());
    let differ = || {
        let count = |what| differs.and_then(|d| d.get(what)).and_then(Value::as_u64).unwrap_or(0);
        let (documents, parked) = (count("documents"), count("parked"));
        Err(Failure::Differs { projection: of.name.clone(), documents, parked }.into())
    };
    if matches!(state, "done" | "differs") {
        told(of, job, &show::job(&of.name, job));
    }
    match state {
        "building" | "proving" => None,
        "done" => {
            let verified = job.get("purpose") == Some(&Value::from("verify"));
            Some(if verified && differs.is_some() { differ() } else { Ok(()) })
        }
        "differs" => Some(differ()),
        "paused" | "cancelled" => {
            let (projection, state) = (of.name.clone(), state.to_owned());
            Some(Err(Failure::HeldUp { projection, state }.into()))
        }
        _ => {
            let why = job.get("error").and_then(Value::as_str).unwrap_or("see the server's log");
            Some(Err(anyhow::anyhow!(
                "the build of {} came to nothing and the live build stays: {why}",
                of.name
            )))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may fail loudly")]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::cli::Target;

    /// Serves these answers, one a connection; a number is the status of one without a body.
    fn serving(
        answers: impl IntoIterator<Item = &'static str> + Send + 'static,
    ) -> (Of, std::thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let serves = std::thread::spawn(move || {
            for answer in answers {
                let (mut client, _) = listener.accept().unwrap();
                let head = BufReader::new(client.try_clone().unwrap());
                for line in head.lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
                    drop(line);
                }
                // As one does that is being stopped.
                if answer.is_empty() {
                    continue;
                }
                let (status, body) = answer.parse().map_or((200, answer), |status: u16| (status, ""));
                let length = body.len();
                write!(
                    client,
                    "HTTP/1.1 {status} \r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
                )
                .unwrap();
            }
        });
        (Of { name: "rooms".into(), target: Target { url }, json: false }, serves)
    }

    #[test]
    fn a_server_that_has_just_started_may_not_know_of_the_build_yet() {
        let (of, serves) = serving([
            r#"{"state":"catching_up"}"#,
            r#"{"state":"live"}"#,
            r#"{"state":"live","job":{"state":"building"}}"#,
            r#"{"state":"live"}"#,
            r#"{"state":"live","job":{"state":"done"}}"#,
        ]);
        follow(&of, None).unwrap();
        serves.join().unwrap();
    }

    #[test]
    fn a_check_whose_parked_keys_alone_differ_names_them() {
        let (of, serves) = serving([
            r#"{"job":{"purpose":"verify","state":"done","difference":{"documents":0,"parked":2}}}"#,
        ]);
        let error = follow(&of, None).unwrap_err();
        let told = "2 keys of rooms are not parked alike in the live build and the new one";
        assert_eq!(error.to_string(), told);
        serves.join().unwrap();
    }

    #[test]
    fn a_server_that_never_answered_is_not_waited_for() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let target = Target { url: format!("http://{free}").parse().unwrap() };
        let of = Of { name: "rooms".into(), target, json: false };
        let began = Instant::now();
        let error = follow(&of, None).unwrap_err();
        assert_eq!(error.downcast_ref::<Failure>().unwrap().exit_code(), 2);
        assert!(began.elapsed() < COMES_BACK_WITHIN / 4);
    }

    #[test]
    fn a_server_that_answered_may_go_and_come_back() {
        // By itself, and behind a proxy that says so.
        for gone in ["", "502", "503", "504"] {
            let building = r#"{"job":{"state":"building"}}"#;
            let (of, serves) = serving([building, gone, r#"{"job":{"state":"done"}}"#]);
            follow(&of, None).unwrap();
            serves.join().unwrap();
        }
    }

    #[test]
    fn the_causes_of_a_document_are_asked_for_to_the_end_of_its_history() {
        let cause = r#"{"events":[{"position":"41"}],"more":false}"#;
        let (of, serves) = serving([
            r#"{"events":[],"more":true,"next":"20"}"#,
            r#"{"events":[],"more":true,"next":"40"}"#,
            cause,
        ]);
        super::super::why(&of, "room-main.den").unwrap();
        serves.join().unwrap();
        let (of, serves) =
            serving([r#"{"events":[],"more":true,"next":"20"}"#, r#"{"events":[],"more":false}"#]);
        let error = super::super::why(&of, "room-main.den").unwrap_err();
        assert!(error.to_string().starts_with("no event has made a document"), "{error}");
        serves.join().unwrap();
    }

    #[test]
    fn what_was_ordered_is_followed_and_no_build_before_it() {
        let (of, serves) = serving([
            r#"{"job":{"build":"rooms@2","state":"cancelled"}}"#,
            r#"{"job":{"build":"rooms@3","state":"building"}}"#,
            r#"{"job":{"build":"rooms@3","state":"done"}}"#,
        ]);
        follow(&of, Some(&serde_json::json!({"build": "rooms@3"}))).unwrap();
        serves.join().unwrap();
    }
}
