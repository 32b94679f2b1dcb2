//! `tidegate check`: checks configuration and profiles, and runs the profiles' own tests.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::failure::{Failure, Kind};
use super::screen::{Screen, Tone};

/// The command's words.
#[derive(Args, Debug)]
pub(super) struct Command {
    /// Files and folders; without any, gateway.yaml here and the profiles it names, or the built-in profiles.
    paths: Vec<PathBuf>,
    /// How to say it.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Human,
    /// For programs.
    Json,
}

/// Runs the command.
///
/// # Errors
/// When something is wrong with what was checked, with exit code 78.
pub(super) fn run(command: Command, screen: &mut Screen) -> Result<(), Failure> {
    let report = crate::config::check_paths(&command.paths);
    if command.format == Format::Json {
        screen.json(&report.to_json())?;
    } else {
        for line in report.to_text().lines() {
            let tone = if line.starts_with(' ') { Tone::Faint } else { Tone::Plain };
            let line = screen.paint(line, tone);
            screen.line(&line)?;
        }
    }
    if report.is_ok() { Ok(()) } else { Err(Failure::told(Kind::Configuration)) }
}
