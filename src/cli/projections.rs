//! `dramatis projections`: the read models of a running server.

use std::io::{BufReader, ErrorKind, IsTerminal as _, Write as _};

use anyhow::Context as _;
use clap::Subcommand;
use dramatis_events::EntityId;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::Value;

use super::{Target, http};

/// What to do with the read models.
#[derive(Debug, Subcommand)]
pub enum Projections {
    /// Lists them: where each stands, and how many documents it keeps
    List {
        /// The server.
        #[command(flatten)]
        target: Target,
    },
    /// Builds one anew beside the live one, then switches over
    ///
    /// Queries go on being answered from the old build until the new one has caught up.
    #[command(after_help = "Example:
  dramatis projections rebuild timeline")]
    Rebuild {
        /// The projection's name, as `list` shows it
        name: String,
        /// The server.
        #[command(flatten)]
        target: Target,
    },
}

/// The columns of the list: the field of the answer is the heading.
const COLUMNS: [&str; 8] = ["name", "version", "build", "position", "head", "state", "documents", "parked"];

/// One line of a rebuild's progress.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Step {
    position: Value,
    head: Value,
    percent: f64,
    events_per_second: f64,
    documents: u64,
    eta_ms: Option<f64>,
    done: bool,
    error: Option<String>,
}

/// Runs the subcommand.
pub(super) fn run(command: Projections) -> anyhow::Result<()> {
    match command {
        Projections::List { target } => {
            let mut body = http::get(&target.url, "/api/projections", &[])?;
            let text = body.read_to_string().context("cannot read the answer")?;
            let rows: Vec<Value> = serde_json::from_str(&text)
                .with_context(|| format!("expected a JSON array of projections from {}", target.url))?;
            match std::io::stdout().write_all(table(&rows).as_bytes()) {
                Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
                _ => Ok(()),
            }
        }
        Projections::Rebuild { name, target } => {
            // A projection's name has the characters of an entity id, none of which needs escaping here
            // but these two.
            EntityId::parse(&name)
                .context("expected a projection's name, as `dramatis projections list` shows it")?;
            anyhow::ensure!(!name.contains(['?', '#']), "expected a projection's name, got {name:?}");
            let body = http::post(&target.url, &format!("/api/projections/{name}/rebuild"))?;
            follow(&name, BufReader::new(body.into_reader()))
        }
    }
}

fn table(rows: &[Value]) -> String {
    let cell = |row: &Value, column: &str| match row.get(column) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items.len().to_string(),
        Some(value) => value.to_string(),
    };
    let mut lines = vec![COLUMNS.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(|row| COLUMNS.map(|column| cell(row, column)).to_vec()));
    let width =
        |index: usize| lines.iter().filter_map(|line| line.get(index)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..COLUMNS.len()).map(|index| width(index).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Shows a rebuild's progress until it is done or fails.
fn follow(name: &str, lines: impl std::io::BufRead) -> anyhow::Result<()> {
    let bar = std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {msg}");
        ProgressBar::new(10_000).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    });
    for line in lines.lines() {
        let line = line.context("the server stopped before the rebuild was done")?;
        if line.trim().is_empty() {
            continue;
        }
        let step: Step =
            serde_json::from_str(&line).with_context(|| format!("expected progress, got {line}"))?;
        match &bar {
            Some(bar) => {
                bar.set_position(hundredths(step.percent));
                bar.set_message(shown(&step));
            }
            None => eprintln!("{:.1} %  {}", step.percent, shown(&step)),
        }
        if let Some(error) = step.error {
            anyhow::bail!("the rebuild of {name} failed and the live build stays: {error}");
        }
        if step.done {
            if let Some(bar) = &bar {
                bar.finish_and_clear();
            }
            let position = plain(&step.position);
            // The rebuild is done, whoever reads this or not.
            let _ = writeln!(
                std::io::stdout(),
                "{name} is rebuilt: {} documents at position {position}",
                step.documents
            );
            return Ok(());
        }
    }
    anyhow::bail!(
        "the server ended its report before the rebuild of {name} was done: see `dramatis projections list`"
    )
}

/// A percentage as the bar counts it; out of range is held to the ends.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=10000 before")]
fn hundredths(percent: f64) -> u64 {
    (percent * 100.0).clamp(0.0, 10_000.0) as u64
}

fn shown(step: &Step) -> String {
    let eta = step.eta_ms.map(|eta_ms| format!(", eta {:.1} s", eta_ms / 1_000.0)).unwrap_or_default();
    format!(
        "position {} of {}, {} documents, {:.0} events/s{eta}",
        plain(&step.position),
        plain(&step.head),
        step.documents,
        step.events_per_second,
    )
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly"
)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_list_is_a_table() {
        let rows = [
            json!({"name": "timeline", "version": 1, "build": "1-a", "position": "41", "head": "42", "state": "live",
                   "documents": 1_234, "parked": 0}),
            json!({"name": "members", "position": null, "parked": ["x"]}),
        ];
        assert_eq!(
            table(&rows),
            "name      version  build  position  head  state  documents  parked\n\
             timeline  1        1-a    41        42    live   1234       0\n\
             members   -        -      -         -     -      -          1\n"
        );
    }

    #[test]
    fn a_rebuild_ends_done_or_failed_or_cut_off() {
        let step =
            r#"{"position":"5","head":"10","percent":50,"events_per_second":9.5,"documents":3,"eta_ms":20}"#;
        let run = |last: &str| follow("timeline", format!("{step}\n{last}\n").as_bytes());
        run(r#"{"position":"10","head":"10","percent":100,"events_per_second":9,"documents":3,"eta_ms":0,"done":true}"#)
            .unwrap();
        assert!(
            run(r#"{"error":"disk full"}"#)
                .unwrap_err()
                .to_string()
                .ends_with("the live build stays: disk full")
        );
        assert!(run("").unwrap_err().to_string().contains("before the rebuild of timeline was done"));
        assert!(run("x").unwrap_err().to_string().contains("expected progress, got x"));
    }
}
