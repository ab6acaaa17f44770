//! What one client may hold, and who may fill it: rooms three quarters, so that they alone never keep
//! a client from being read; the rest is for answers, which are promised a place before anything is
//! done for them, and a little for what is fleeting.

use super::Outbox;
use crate::actors::share::LEAST_BYTES;

/// The most bytes, and the most requests.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    bytes: u32,
    in_flight: u32,
}

impl Bounds {
    pub(super) fn new(bytes: usize, in_flight: usize) -> Self {
        Self { bytes: count(bytes), in_flight: count(in_flight) }
    }
}

impl Outbox {
    /// The bytes that may wait now: few while the process holds too much in all.
    pub fn bytes_max_now(&self) -> usize {
        let max = size(self.bounds.bytes);
        if self.share.is_over() { max.min(LEAST_BYTES) } else { max }
    }

    /// What may wait of rooms, a part of all: so rooms alone never keep a client from being read, and
    /// what it has asked for has a place, and a little what is fleeting.
    fn rooms_max_now(&self) -> usize {
        let max = self.bytes_max_now();
        if self.share.is_over() { max } else { max.saturating_sub(max / 4) }
    }

    /// The bytes that wait, without what is fleeting.
    pub(in crate::actors) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Whether so much waits that the client is not read, and nothing more done for it.
    pub fn is_full(&self) -> bool {
        self.bytes.get() >= self.rooms_max_now()
    }

    /// Whether so many more bytes of a room may be pushed.
    pub fn takes(&self, bytes: usize) -> bool {
        bytes <= self.room()
    }

    /// The bytes of rooms that may be pushed now.
    pub fn room(&self) -> usize {
        self.rooms_max_now().saturating_sub(self.bytes.get())
    }

    /// What may wait beside what waits and is asked for.
    pub(super) fn left(&self) -> usize {
        let held = self.bytes.get().saturating_add(size(self.reserved.get()));
        self.bytes_max_now().saturating_sub(held)
    }

    /// Whether there is room for reading rooms from the log.
    pub(super) fn is_low(&self) -> bool {
        self.bytes.get() <= self.bytes_max_now() / 2
    }

    /// For the session: one more request is in flight, whose answer may take so many bytes.
    pub fn begin(&self, answer_bytes: usize) {
        self.in_flight.set(self.in_flight.get().saturating_add(1));
        self.reserved.set(self.reserved.get().saturating_add(count(answer_bytes)));
    }

    /// For the session: so many requests are answered, for which so many bytes were kept.
    pub fn end(&self, requests: usize, answer_bytes: usize) {
        self.in_flight.set(self.in_flight.get().saturating_sub(count(requests)));
        self.reserved.set(self.reserved.get().saturating_sub(count(answer_bytes)));
        self.let_read();
        self.leave_once_answered();
    }

    /// Whether as many requests are in flight as may be: for their answers most of what rooms may not
    /// take is kept.
    pub fn is_busy(&self) -> bool {
        let (in_flight, reserved) = (self.in_flight.get(), size(self.reserved.get()));
        in_flight >= self.bounds.in_flight || (in_flight > 0 && reserved >= self.bytes_max_now() / 16 * 3)
    }
}

fn count(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

fn size(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
