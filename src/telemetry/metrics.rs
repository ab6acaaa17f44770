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

/// A projection's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfProjection {
    /// The name.
    pub projection: String,
}

/// Everything a process counts.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Open client connections.
    pub connections: Gauge<i64, AtomicI64>,
    /// Events handed to followers' outboxes live.
    pub deliveries: Counter<u64, AtomicU64>,
    /// Messages that could not be understood.
    pub malformed: Counter<u64, AtomicU64>,
    /// Entities in memory.
    pub entities: Gauge<i64, AtomicI64>,
    /// The position of the log's last event.
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
    /// Up to which position a projection is done.
    pub projection_position: Family<OfProjection, Gauge<i64, AtomicI64>>,
    commands: Family<Outcome, Counter<u64, AtomicU64>>,
    entity_loads: Family<LoadedFrom, Counter<u64, AtomicU64>>,
    entity_events_read: Counter<u64, AtomicU64>,
    entity_snapshots: Family<Outcome, Counter<u64, AtomicU64>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("dramatis");
        let (connections, entities, log_head) = (Gauge::default(), Gauge::default(), Gauge::default());
        let (deliveries, malformed) = (Counter::default(), Counter::default());
        let (projection_position, commands) = (Family::default(), Family::default());
        registry.register("connections", "Open client connections", connections.clone());
        registry.register("entities", "Entities in memory", entities.clone());
        registry.register("log_head_position", "Position of the log's last event", log_head.clone());
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
        registry.register("deliveries", "Events handed to followers live", deliveries.clone());
        registry.register("malformed_messages", "Messages that could not be understood", malformed.clone());
        registry.register(
            "projection_position",
            "Position up to which a projection is done",
            projection_position.clone(),
        );
        registry.register("commands", "Commands by outcome", commands.clone());
        let (entity_loads, entity_snapshots) = (Family::default(), Family::default());
        let entity_events_read = Counter::default();
        registry.register("entity_loads", "Entities read into memory", entity_loads.clone());
        registry.register("entity_events_read", "Events folded for that", entity_events_read.clone());
        registry.register("entity_snapshots", "Snapshots of entities by outcome", entity_snapshots.clone());
        Self {
            registry: Arc::new(registry),
            connections,
            deliveries,
            malformed,
            entities,
            log_head,
            log_segments,
            log_stored_bytes,
            log_free_bytes,
            log_relaxed,
            log_poisoned,
            projection_position,
            commands,
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

    /// Counts a command or other message refused before any entity saw it, by its stable word.
    pub fn refused(&self, code: &'static str) {
        self.commands.get_or_create(&Outcome { outcome: code }).inc();
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
