//! What the task of a live build does when a step fails: it says so, waits and tries again.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Health;
use super::run::RunError;
use super::worker::Worker;
use crate::read_models::{ReadModelError, ReadModels};

/// How often a store that did not answer is looked at: what waits for it goes on at once then.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a store that cannot keep a read model is taken at its word. Another server at its
/// address, or another version, is found out then, or at the next start.
const UNSUPPORTED_FOR: Duration = Duration::from_mins(5);

/// Waits until the store answers again; for ever if it does answer.
pub(super) async fn answers_again(store: &dyn ReadModels) {
    if store.health().trouble.is_none() {
        return std::future::pending().await;
    }
    while store.health().trouble.is_some() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Worker {
    /// Says that steps succeed again, if it was said that they did not.
    pub(super) fn recovered(&mut self) {
        if let Some(failures) = self.backoff.reset() {
            tracing::info!(projection = self.projection.name(), failures, "it goes on");
        }
    }

    /// Waits after a failed step. Who asks for something meanwhile is told rather than held up.
    pub(super) async fn wait_after(&mut self, error: RunError, stop: &mut watch::Receiver<bool>) {
        let wait = match &error {
            RunError::Store(ReadModelError::Unsupported { .. }) => self.cannot(&error),
            RunError::Store(ReadModelError::SetBack { .. }) => self.goes_back(&error),
            _ => {
                self.show_as_it_is().await;
                self.failed(&error)
            }
        };
        let (until, store) = (Instant::now() + wait, self.shared.store.clone());
        let answers = answers_again(store.as_ref());
        tokio::pin!(answers);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                () = &mut answers => return,
                Some(ask) = self.asks.recv() => ask.fail(error.clone()),
                _ = stop.changed() => return,
            }
        }
    }

    fn failed(&mut self, error: &RunError) -> Duration {
        let wait = self.backoff.fail();
        let failures = self.backoff.failures();
        // A store that does not answer says so itself, once for all who use it.
        if self.shared.store.health().trouble.is_none() && self.backoff.is_worth_saying() {
            tracing::warn!(projection = self.projection.name(), %error, failures, "a step failed, trying on");
        }
        self.publish(Some(Health::Retrying { error: error.to_string(), failures }));
        wait
    }

    /// It is no failure to go on from: the wait is there for a store that is set back again and again. What is
    /// in memory stands on what is lost.
    fn goes_back(&mut self, error: &RunError) -> Duration {
        self.look_again();
        if self.backoff.is_worth_saying() {
            tracing::warn!(projection = self.projection.name(), %error, "folding again what may be lost");
        }
        self.publish(None);
        self.shared.options.backoff_min
    }

    fn cannot(&mut self, error: &RunError) -> Duration {
        let reason = error.to_string();
        if !matches!(self.health(), Health::Unsupported { .. }) {
            tracing::warn!(projection = self.projection.name(), reason, "not kept; all others are");
        }
        self.backoff.reset();
        self.publish(Some(Health::Unsupported { reason }));
        UNSUPPORTED_FOR
    }
}
