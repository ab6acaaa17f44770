//! How often what a server acknowledged may have been lost with it: counted, so that whoever wrote to it finds
//! out whether that was so since.

use std::sync::{Arc, Mutex, PoisonError};

use mongodb::event::EventHandler;
use mongodb::event::cmap::CmapEvent;
use mongodb::options::ServerAddress;
use tokio::sync::watch;

pub(super) struct Breaks {
    count: watch::Sender<u64>,
    /// The servers that operations went to since their connections broke last. What others of a replica set
    /// hold was not acknowledged by them alone.
    used: Mutex<Vec<ServerAddress>>,
}

impl Breaks {
    pub(super) fn new() -> Self {
        Self { count: watch::Sender::new(0), used: Mutex::default() }
    }

    /// How often it was so.
    pub(super) fn count(&self) -> u64 {
        *self.count.borrow()
    }

    /// Something got no answer: nobody knows what has become of the server.
    pub(super) fn add(&self) {
        self.count.send_modify(|count| *count += 1);
    }

    /// Follows the connections. The driver clears the pool of a server before it lets operations find that one
    /// again, so nothing is sent to a server that began anew before this has counted.
    pub(super) fn handler(self: &Arc<Self>) -> EventHandler<CmapEvent> {
        let breaks = self.clone();
        EventHandler::callback(move |event| match event {
            CmapEvent::ConnectionCheckedOut(event) => breaks.uses(event.address),
            CmapEvent::PoolCleared(event) => breaks.cleared(&event.address),
            _ => {}
        })
    }

    fn uses(&self, server: ServerAddress) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if !used.contains(&server) {
            used.push(server);
        }
    }

    fn cleared(&self, server: &ServerAddress) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = used.iter().position(|used| used == server) {
            used.swap_remove(at);
            self.add();
        }
    }

    /// Does work for as long as it was not so since it was so often; `None` if it was. The driver's tasks run on
    /// the one thread of the store as well: between the look here and what the work sends then nothing breaks.
    pub(super) async fn unbroken<T>(&self, count: u64, work: impl Future<Output = T>) -> Option<T> {
        let mut now = self.count.subscribe();
        tokio::select! {
            biased;
            _ = now.wait_for(|now| *now != count) => None,
            done = work => Some(done),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use mongodb::event::cmap::{ConnectionCheckedOutEvent, PoolClearedEvent};

    use super::*;

    /// Events of the driver are made by reading them alone.
    fn of<E: serde::de::DeserializeOwned>() -> E {
        serde_json::from_str("{}").unwrap()
    }

    #[test]
    fn a_server_that_nothing_was_asked_of_loses_nothing() {
        let breaks = Arc::new(Breaks::new());
        let handler = breaks.handler();
        let EventHandler::Callback(tell) = &handler else { unreachable!("it is a callback") };
        let [primary, secondary] = ["one:27017", "other:27017"].map(|of| ServerAddress::parse(of).unwrap());
        let asked = |server: &ServerAddress| {
            let mut event: ConnectionCheckedOutEvent = of();
            event.address = server.clone();
            tell(CmapEvent::ConnectionCheckedOut(event));
        };
        let cleared = |server: &ServerAddress| {
            let mut event: PoolClearedEvent = of();
            event.address = server.clone();
            tell(CmapEvent::PoolCleared(event));
            breaks.count()
        };
        asked(&primary);
        assert_eq!(cleared(&secondary), 0, "a secondary has gone");
        assert_eq!(cleared(&primary), 1);
        assert_eq!(cleared(&primary), 1, "nothing was asked of it since");
        asked(&secondary);
        assert_eq!(cleared(&secondary), 2, "it has become the primary");
    }

    #[tokio::test]
    async fn work_ends_where_something_broke() {
        let breaks = Breaks::new();
        assert_eq!(breaks.unbroken(0, async { 7 }).await, Some(7));
        let breaking = async {
            breaks.add();
            std::future::pending::<u8>().await
        };
        assert_eq!(breaks.unbroken(0, breaking).await, None);
        assert_eq!(breaks.unbroken(0, async { 7 }).await, None, "not even begun");
    }
}
