//! The lease of a projection: one projector at a time keeps it. It only saves work, as what is written is
//! guarded by position; so it is renewed long before it ends, beside the steps.

use dramatis_events::Position;
use tokio::time::Instant;

use super::beside::Beside;
use super::keeper::note_event;
use super::record::Ledger;
use super::run::RunError;
use super::worker::Worker;
use super::{Health, Shared};
use crate::read_models::Lease;

/// A lease that was asked for again.
pub(super) struct Renewed {
    asked: Instant,
    lease: Lease,
    /// The event that was noted of this log along with it.
    marked: Option<Position>,
}

impl Worker {
    /// Keeps the lease, or tries to get it.
    pub(super) async fn leads(&mut self) -> Result<bool, RunError> {
        if let Some(renewed) = Beside::take(&mut self.renewing) {
            return self.led(renewed?).await;
        }
        let left = self.leads_until.map(|until| until.saturating_duration_since(Instant::now()));
        if let Some(left) = left.filter(|left| !left.is_zero()) {
            if self.renewing.is_none() && left <= self.shared.options.lease / 3 {
                self.renewing = Some(Beside::begin(self.renewal()));
            }
            return Ok(true);
        }
        self.end_renewing().await;
        let renewed = self.renewal().await?;
        self.led(renewed).await
    }

    /// Asks for the lease, and notes an event of this log if it is still held.
    fn renewal(&self) -> impl Future<Output = Result<Renewed, RunError>> + Send + 'static {
        let (shared, name, token) = (self.shared.clone(), self.lease_name(), self.token);
        let ledger = Ledger::new(shared.store.clone(), self.projection.name());
        let (position, marked) = (self.run.as_ref().and_then(|run| run.position), self.marked);
        async move {
            let (asked, Shared { store, holder, options, .. }) = (Instant::now(), &shared);
            let lease = store.lease(&name, holder, options.lease).await?;
            let is_held = *lease.holder == **holder && lease.token == token;
            let unmarked = position.filter(|position| is_held && marked != Some(*position));
            let noted = match unmarked {
                Some(position) => note_event(&shared, &ledger, position, false).await?,
                None => false,
            };
            Ok(Renewed { asked, lease, marked: if noted { position } else { marked } })
        }
    }

    /// Whether it has the lease.
    async fn led(&mut self, Renewed { asked, lease, marked }: Renewed) -> Result<bool, RunError> {
        if *lease.holder != *self.shared.holder {
            self.leads_until = None;
            self.publish(Some(Health::Standby { holder: lease.holder }));
            return Ok(false);
        }
        if self.token == lease.token {
            self.marked = marked;
        } else {
            // Somebody else may have held it meanwhile: nothing in memory is sure.
            self.look_again();
            self.cleaned = false;
            self.become_keeper().await?;
            self.token = lease.token;
        }
        // Well before it ends, so that it is renewed when a third of it is over.
        self.leads_until = Some(asked + self.shared.options.lease / 3 * 2);
        Ok(true)
    }

    /// Waits for what is asked of the lease: it would be taken again after it was given back.
    pub(super) async fn end_renewing(&mut self) {
        if let Some(mut renewing) = self.renewing.take() {
            renewing.over().await;
        }
    }

    pub(super) fn lease_name(&self) -> String {
        format!("projection/{}", self.projection.name())
    }
}
