//! The benchmarks of dramatis.
fn main() {}
