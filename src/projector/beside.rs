//! What is done beside the steps of a projection: who waits for a document does not wait for that too.

use tokio::sync::oneshot;

use super::run::RunError;
use crate::read_models::ReadModelError;

/// Work on its way, or what came of it. It goes on if it is dropped.
pub(super) struct Beside<T> {
    answer: oneshot::Receiver<Result<T, RunError>>,
    come: Option<Result<T, RunError>>,
}

impl<T: Send + 'static> Beside<T> {
    /// Begins it.
    pub(super) fn begin(work: impl Future<Output = Result<T, RunError>> + Send + 'static) -> Self {
        let (tell, answer) = oneshot::channel();
        tokio::spawn(async move {
            let _ = tell.send(work.await);
        });
        Self { answer, come: None }
    }

    /// Waits until it is over.
    pub(super) async fn over(&mut self) {
        if self.come.is_none() {
            self.come = Some((&mut self.answer).await.unwrap_or_else(|_| Err(broke())));
        }
    }

    /// What came of it, once, if it is over.
    pub(super) fn take(of: &mut Option<Self>) -> Option<Result<T, RunError>> {
        let beside = of.as_mut()?;
        let come = beside.come.take().or_else(|| match beside.answer.try_recv() {
            Ok(come) => Some(come),
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(broke())),
            Err(oneshot::error::TryRecvError::Empty) => None,
        })?;
        *of = None;
        Some(come)
    }
}

fn broke() -> RunError {
    ReadModelError::Failure { reason: "work beside the steps of a projection broke off".to_owned() }.into()
}
