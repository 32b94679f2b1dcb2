//! `tidegate`: takes the command line and prints what went wrong.

use std::io::Write;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};

fn main() -> ExitCode {
    match gateway::cli::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_silent() {
                let mut stderr = std::io::stderr();
                let red = match gateway::cli::shows_colour(&stderr) {
                    true => AnsiColor::Red.on_default().bold(),
                    false => Style::new(),
                };
                // Where nobody listens, the exit code says it.
                let _ = writeln!(stderr, "{}error{}: {failure}", red.render(), red.render_reset());
            }
            ExitCode::from(failure.code())
        }
    }
}
