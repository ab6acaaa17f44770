//! The dramatis binary: a thin door to the library's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    dramatis::cli::main()
}
