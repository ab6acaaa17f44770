//! The write side and the process of dramatis: deciders, the log, actors, transports,
//! projector and command line. The binary is a thin door to [`cli`].

pub mod actors;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dirs;
pub mod domain;
pub mod engines;
pub mod log;
mod priority;
pub mod projector;
pub mod protocol;
pub mod reactors;
pub mod read_models;
pub mod snapshots;
pub mod telemetry;
pub mod web;
