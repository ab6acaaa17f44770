//! `dramatis import`.
mod parse;
mod plan;
mod window;
