//! What is counted, under the vocabulary's names, in the Prometheus text format.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// A command's outcome: `recorded`, `duplicate`, `no_op`, or the error code.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// What an entity was loaded from: `snapshot` or `start`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoadedFrom {
    from: &'static str,
}

/// A stable word, and of what it was said: a `message` of a session, or a `request`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refusal {
    of: &'static str,
    code: &'static str,
}

/// What became of an ephemeral: `delivered`, `collapsed`, `dropped`, `limited`, `unheard`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EphemeralFate {
    fate: &'static str,
}

/// A close code's number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfClose {
    code: u16,
}

/// A projection's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfProjection {
    /// The name.
    pub projection: String,
}

type OfEach = Family<OfProjection, Gauge<i64, AtomicI64>>;

/// How far projections are behind, what they parked, what is built beside them.
#[derive(Debug, Clone, Default)]
pub struct ProjectionMetrics {
    /// Events that a projection has not looked at.
    pub lag_events: OfEach,
    /// For how long it has not been at the log's end, milliseconds.
    pub lag_ms: OfEach,
    /// Keys that it parked.
    pub parked: OfEach,
    /// How much of a build beside it is done, 0 to 100; -1 while none is made.
    pub build_percent: OfEach,
}

impl ProjectionMetrics {
    fn registered(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let lag = "Events that a projection has not looked at";
        registry.register("projection_lag_events", lag, metrics.lag_events.clone());
        let lag = "Time since a projection was at the log's end, milliseconds";
        registry.register("projection_lag_ms", lag, metrics.lag_ms.clone());
        registry.register("projection_parked_keys", "Keys that a projection parked", metrics.parked.clone());
        let built = "How much of a build beside the live one is done, percent; -1 while none is made";
        registry.register("projection_build_percent", built, metrics.build_percent.clone());
        metrics
    }
}

/// Everything a process counts.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Open client connections.
    pub connections: Gauge<i64, AtomicI64>,
    /// Events handed to followers' outboxes live.
    pub deliveries: Counter<u64, AtomicU64>,
    /// Followers for whom too much waited, and who read the log instead.
    pub fell_behind: Counter<u64, AtomicU64>,
    /// Bytes that wait for clients.
    pub outbox_bytes: Gauge<i64, AtomicI64>,
    /// The most bytes that ever waited for one of them.
    pub outbox_bytes_most: Gauge<i64, AtomicI64>,
    /// Bytes of messages that are not handled yet.
    pub unfinished_bytes: Gauge<i64, AtomicI64>,
    /// Ephemerals by what became of them.
    pub ephemerals: EphemeralMetrics,
    /// Presence messages handed to followers.
    pub presence_deliveries: Counter<u64, AtomicU64>,
    closes: Family<OfClose, Counter<u64, AtomicU64>>,
    /// Messages that could not be understood.
    pub malformed: Counter<u64, AtomicU64>,
    /// Rooms in memory.
    pub entities: Gauge<i64, AtomicI64>,
    /// The position of the log's last event, -1 while there is none.
    pub log_head: Gauge<i64, AtomicI64>,
    /// Segment files of the log.
    pub log_segments: Gauge<i64, AtomicI64>,
    /// Bytes that the log holds.
    pub log_stored_bytes: Gauge<i64, AtomicI64>,
    /// Bytes that the log's disk has free.
    pub log_free_bytes: Gauge<i64, AtomicI64>,
    /// 1 while an append may be answered before it is durable.
    pub log_relaxed: Gauge<i64, AtomicI64>,
    /// 1 once a write has failed and appends wait for a restart.
    pub log_poisoned: Gauge<i64, AtomicI64>,
    /// 1 while the store of the read models answers.
    pub read_models_up: Gauge<i64, AtomicI64>,
    /// How long its answer took when it was last asked.
    pub read_models_latency_microseconds: Gauge<i64, AtomicI64>,
    /// Up to which position a projection is done.
    pub projection_position: Family<OfProjection, Gauge<i64, AtomicI64>>,
    /// What else is known of projections.
    pub projections: ProjectionMetrics,
    commands: Family<Outcome, Counter<u64, AtomicU64>>,
    refusals: Family<Refusal, Counter<u64, AtomicU64>>,
    entity_loads: Family<LoadedFrom, Counter<u64, AtomicU64>>,
    entity_events_read: Counter<u64, AtomicU64>,
    entity_snapshots: Family<Outcome, Counter<u64, AtomicU64>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("dramatis");
        let (connections, entities) = (Gauge::default(), Gauge::default());
        let log_head = Gauge::<i64, AtomicI64>::default();
        let (deliveries, malformed) = (Counter::default(), Counter::default());
        let (projection_position, commands, refusals) =
            (Family::default(), Family::default(), Family::default());
        registry.register("connections", "Open client connections", connections.clone());
        log_head.set(-1);
        registry.register("entities", "Rooms in memory", entities.clone());
        let help = "Position of the log's last event, -1 while there is none";
        registry.register("log_head_position", help, log_head.clone());
        let mut gauge = |name, help| {
            let gauge = Gauge::<i64, AtomicI64>::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let log_segments = gauge("log_segments", "Segment files of the log");
        let log_stored_bytes = gauge("log_stored_bytes", "Bytes that the log holds");
        let log_free_bytes = gauge("log_free_bytes", "Bytes that the log's disk has free");
        let log_relaxed = gauge("log_relaxed", "1 while an append may be answered before it is durable");
        let log_poisoned = gauge("log_poisoned", "1 once a write has failed and appends wait for a restart");
        let read_models_up = gauge("read_models_up", "1 while the store of the read models answers");
        let read_models_latency_microseconds = gauge(
            "read_models_latency_microseconds",
            "How long it took that store to answer when last asked",
        );
        registry.register("deliveries", "Events handed to followers live", deliveries.clone());
        registry.register("malformed_messages", "Messages of sessions not understood", malformed.clone());
        let help = "Position up to which a projection is done";
        registry.register("projection_position", help, projection_position.clone());
        let projections = ProjectionMetrics::registered(&mut registry);
        registry.register("commands", "Commands that were decided, by outcome", commands.clone());
        registry.register("refusals", "Messages and requests that were refused, by code", refusals.clone());
        let live = LiveMetrics::register(&mut registry);
        let (entity_loads, entity_snapshots) = (Family::default(), Family::default());
        let entity_events_read = Counter::default();
        registry.register("entity_loads", "Entities read into memory", entity_loads.clone());
        registry.register("entity_events_read", "Events folded for that", entity_events_read.clone());
        registry.register("entity_snapshots", "Snapshots of entities by outcome", entity_snapshots.clone());
        Self {
            registry: Arc::new(registry),
            connections,
            deliveries,
            fell_behind: live.fell_behind,
            outbox_bytes: live.outbox_bytes,
            outbox_bytes_most: live.outbox_bytes_most,
            unfinished_bytes: live.unfinished_bytes,
            ephemerals: live.ephemerals,
            presence_deliveries: live.presence_deliveries,
            closes: live.closes,
            malformed,
            entities,
            log_head,
            log_segments,
            log_stored_bytes,
            log_free_bytes,
            log_relaxed,
            log_poisoned,
            read_models_up,
            read_models_latency_microseconds,
            projection_position,
            projections,
            commands,
            refusals,
            entity_loads,
            entity_events_read,
            entity_snapshots,
        }
    }
}

impl Metrics {
    /// The Prometheus text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Counts a message of a session that was refused, by its stable word.
    pub fn message_refused(&self, code: &'static str) {
        self.refusals.get_or_create(&Refusal { of: "message", code }).inc();
    }

    /// The same of a request.
    pub fn request_refused(&self, code: &'static str) {
        self.refusals.get_or_create(&Refusal { of: "request", code }).inc();
    }

    /// Counts a connection that ended, by the code it was closed with.
    pub fn closed(&self, code: u16) {
        self.closes.get_or_create(&OfClose { code }).inc();
    }

    /// What entities count.
    pub fn entity(&self) -> EntityMetrics {
        let of = |outcome| self.commands.get_or_create(&Outcome { outcome }).clone();
        let from = |from| self.entity_loads.get_or_create(&LoadedFrom { from }).clone();
        let snapshots = |outcome| self.entity_snapshots.get_or_create(&Outcome { outcome }).clone();
        EntityMetrics {
            recorded: of("recorded"),
            duplicate: of("duplicate"),
            no_op: of("no_op"),
            refused: self.commands.clone(),
            loaded_from_snapshot: from("snapshot"),
            loaded_from_start: from("start"),
            events_read: self.entity_events_read.clone(),
            snapshots_saved: snapshots("saved"),
            snapshots_dropped: snapshots("dropped"),
        }
    }
}

/// What entities count: settled commands by outcome, what it took to load, snapshots.
#[derive(Clone)]
pub struct EntityMetrics {
    /// Commands that recorded something.
    pub recorded: Counter<u64, AtomicU64>,
    /// Commands that had been recorded before.
    pub duplicate: Counter<u64, AtomicU64>,
    /// Commands for which nothing was to be done.
    pub no_op: Counter<u64, AtomicU64>,
    refused: Family<Outcome, Counter<u64, AtomicU64>>,
    /// Entities loaded from a snapshot and what came after it.
    pub loaded_from_snapshot: Counter<u64, AtomicU64>,
    /// Entities loaded from the start of their stream.
    pub loaded_from_start: Counter<u64, AtomicU64>,
    /// Events folded to load entities.
    pub events_read: Counter<u64, AtomicU64>,
    /// Snapshots that were kept.
    pub snapshots_saved: Counter<u64, AtomicU64>,
    /// Snapshots that were not.
    pub snapshots_dropped: Counter<u64, AtomicU64>,
}

impl EntityMetrics {
    /// Counts an entity that was loaded and the events folded for it.
    pub fn loaded(&self, from_snapshot: bool, events: u64) {
        if from_snapshot { &self.loaded_from_snapshot } else { &self.loaded_from_start }.inc();
        self.events_read.inc_by(events);
    }

    /// Counts a snapshot that was kept or was not.
    pub fn snapshot(&self, kept: bool) {
        if kept { &self.snapshots_saved } else { &self.snapshots_dropped }.inc();
    }

    /// Counts a refused command by its stable word.
    pub fn refused(&self, code: &'static str) {
        self.refused.get_or_create(&Outcome { outcome: code }).inc();
    }
}

/// What sessions and hubs count besides.
struct LiveMetrics {
    fell_behind: Counter<u64, AtomicU64>,
    outbox_bytes: Gauge<i64, AtomicI64>,
    outbox_bytes_most: Gauge<i64, AtomicI64>,
    unfinished_bytes: Gauge<i64, AtomicI64>,
    ephemerals: EphemeralMetrics,
    presence_deliveries: Counter<u64, AtomicU64>,
    closes: Family<OfClose, Counter<u64, AtomicU64>>,
}

impl LiveMetrics {
    fn register(registry: &mut Registry) -> Self {
        let (fell_behind, presence_deliveries) = (Counter::default(), Counter::default());
        let (outbox_bytes, outbox_bytes_most, unfinished_bytes) =
            (Gauge::default(), Gauge::default(), Gauge::default());
        let (closes, fates) = (Family::default(), Family::default());
        registry.register("fell_behind", "Times a follower had to read the log", fell_behind.clone());
        registry.register("outbox_bytes", "Bytes that wait for clients", outbox_bytes.clone());
        let most = "The most bytes that ever waited for one client";
        registry.register("outbox_bytes_most", most, outbox_bytes_most.clone());
        let unfinished = "Bytes of clients' messages that are not handled yet";
        registry.register("unfinished_bytes", unfinished, unfinished_bytes.clone());
        registry.register("ephemerals", "Ephemerals by what became of them", fates.clone());
        registry.register("presence_deliveries", "Presence messages handed on", presence_deliveries.clone());
        registry.register("closes", "Connections that ended, by close code", closes.clone());
        let ephemerals = EphemeralMetrics::of(&fates);
        Self {
            fell_behind,
            outbox_bytes,
            outbox_bytes_most,
            unfinished_bytes,
            ephemerals,
            presence_deliveries,
            closes,
        }
    }
}

/// Ephemerals by what became of them.
#[derive(Clone)]
pub struct EphemeralMetrics {
    /// Handed to a follower.
    pub delivered: Counter<u64, AtomicU64>,
    /// Took the place of an older one that still waited.
    pub collapsed: Counter<u64, AtomicU64>,
    /// Given up, since there was no room.
    pub dropped: Counter<u64, AtomicU64>,
    /// Not taken: their sender was too fast.
    pub limited: Counter<u64, AtomicU64>,
    /// Not taken: their sender may not speak in the room, or nobody may any more.
    pub unheard: Counter<u64, AtomicU64>,
}

impl EphemeralMetrics {
    fn of(fates: &Family<EphemeralFate, Counter<u64, AtomicU64>>) -> Self {
        let of = |fate| fates.get_or_create(&EphemeralFate { fate }).clone();
        Self {
            delivered: of("delivered"),
            collapsed: of("collapsed"),
            dropped: of("dropped"),
            limited: of("limited"),
            unheard: of("unheard"),
        }
    }
}
