//! Decides whether this is the command line or, inside AWS Lambda, one of a cluster's functions.

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    if std::env::var_os(wekactl::functions::RUNTIME_VARIABLE).is_some() {
        wekactl::functions::run()?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(wekactl::cli::main())
}
