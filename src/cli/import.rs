//! `dramatis import`.
mod parse;
