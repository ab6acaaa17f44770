//! Stub.

pub mod metrics;
