//! `tidegate schema`: prints the JSON Schemas of the files, made from the types that read them.

use clap::{Args, ValueEnum};

use super::failure::Failure;
use super::screen::Screen;

/// The command's words.
#[derive(Args, Debug)]
pub(super) struct Command {
    /// Of which file.
    of: Of,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Of {
    /// gateway.yaml
    Gateway,
    /// A device profile.
    Profile,
    /// The users file.
    Users,
    /// network.yaml of a card
    Network,
}

/// Runs the command.
///
/// # Errors
/// When standard output is closed.
pub(super) fn run(command: &Command, screen: &mut Screen) -> Result<(), Failure> {
    let schema = match command.of {
        Of::Gateway => protocols::config::raw::gateway_schema(),
        Of::Profile => protocols::profile::schema(),
        Of::Users => protocols::config::raw::users_schema(),
        Of::Network => protocols::config::network::schema(),
    };
    Ok(screen.line(&format!("{schema:#}"))?)
}
