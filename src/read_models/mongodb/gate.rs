//! Whether the server answers. While it does not, nobody waits for it: operations fail at once,
//! queries can say so, and only the prober asks on.

use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::read_models::{ReadModelError, StoreHealth};

pub(super) struct Gate {
    state: watch::Sender<State>,
    doubted: Notify,
}

#[derive(Debug, Clone)]
enum State {
    /// Nobody knows yet.
    Starting,
    Open {
        latency: Duration,
    },
    Closed {
        reason: String,
    },
}

impl Gate {
    pub(super) fn new() -> Self {
        Self { state: watch::Sender::new(State::Starting), doubted: Notify::new() }
    }

    /// Lets an operation pass if the server answered when it was last asked; the first ones wait
    /// until it was.
    pub(super) async fn pass(&self) -> Result<(), ReadModelError> {
        let mut state = self.state.subscribe();
        let known = state.wait_for(|state| !matches!(state, State::Starting)).await;
        match known.as_deref() {
            Ok(State::Closed { reason }) => Err(ReadModelError::Failure { reason: reason.clone() }),
            _ => Ok(()),
        }
    }

    /// An operation got no answer: closes the gate until the prober gets one.
    pub(super) fn doubt(&self, reason: &str) {
        self.close(reason);
        self.doubted.notify_one();
    }

    /// Waits until somebody got no answer.
    pub(super) async fn doubted(&self) {
        self.doubted.notified().await;
    }

    /// The server answered.
    pub(super) fn open(&self, latency: Duration) {
        if let State::Closed { .. } = self.state.send_replace(State::Open { latency }) {
            tracing::info!(?latency, "the read-model store answers again");
        }
    }

    /// The server did not answer.
    pub(super) fn close(&self, reason: &str) {
        let before = self.state.send_replace(State::Closed { reason: reason.to_owned() });
        if !matches!(before, State::Closed { reason: said } if said == reason) {
            tracing::warn!(reason, "the read-model store does not answer; asking on");
        }
    }

    pub(super) fn health(&self) -> StoreHealth {
        match &*self.state.borrow() {
            State::Starting => {
                StoreHealth { latency: None, trouble: Some("it was not reached yet".to_owned()) }
            }
            State::Open { latency } => StoreHealth { latency: Some(*latency), trouble: None },
            State::Closed { reason } => StoreHealth { latency: None, trouble: Some(reason.clone()) },
        }
    }
}
