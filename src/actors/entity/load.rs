//! Reading a stream into decider state.

use std::sync::Arc;

use dramatis_events::{Event, Revision, StreamId};

use crate::domain::{Decider, IllegalEvent};
use crate::log::{EventLog, LogError, ReadLimit};
use crate::protocol::ErrorCode;

/// A stream's state and where it stands.
pub(super) struct Loaded<D: Decider> {
    pub(super) state: D::State,
    pub(super) head: Option<Revision>,
}

/// Why a stream gives no state.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("revision {revision} does not follow what came before it: {error}")]
    Illegal { revision: Revision, error: IllegalEvent },
}

impl LoadError {
    pub(super) fn code(&self) -> ErrorCode {
        match self {
            Self::Log(LogError::Failure { .. }) => ErrorCode::Unavailable,
            Self::Log(_) | Self::Illegal { .. } => ErrorCode::Internal,
        }
    }
}

/// Events read at a time.
const PAGE: ReadLimit = ReadLimit::events(4_096);

pub(super) async fn load<D: Decider>(
    log: Arc<dyn EventLog>,
    stream: StreamId,
) -> Result<Loaded<D>, LoadError> {
    let mut state = D::State::default();
    let mut head: Option<Revision> = None;
    loop {
        let from = head.map_or(Revision::FIRST, Revision::next);
        let page = log.read_stream(&stream, from, PAGE).await?;
        if page.is_empty() {
            return Ok(Loaded { state, head });
        }
        for recorded in &page {
            D::Event::from_envelope(&recorded.envelope)
                .map_err(IllegalEvent::from)
                .and_then(|event| D::evolve(&mut state, &event))
                .map_err(|error| LoadError::Illegal { revision: recorded.revision, error })?;
            head = Some(recorded.revision);
        }
    }
}
