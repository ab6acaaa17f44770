//! The command line.
mod import;
