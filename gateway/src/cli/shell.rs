//! `tidegate completions` and `tidegate man`: what shells and manuals need, made from the command tree itself.

use std::path::PathBuf;

use clap::Args;

use super::failure::{Failure, Kind};

/// The words of `completions`.
#[derive(Args, Debug)]
pub(super) struct Completions {
    /// bash, zsh, fish, elvish or powershell.
    shell: clap_complete::Shell,
}

/// The words of `man`.
#[derive(Args, Debug)]
pub(super) struct Man {
    /// The folder; it is made if it is not there.
    folder: PathBuf,
}

/// Prints the completion script.
///
/// # Errors
/// Never; the signature is that of its neighbours.
pub(super) fn completions(command: &Completions, tree: &mut clap::Command) -> Result<(), Failure> {
    clap_complete::generate(command.shell, tree, "tidegate", &mut std::io::stdout());
    Ok(())
}

/// Writes one page for the program and one for each command.
///
/// # Errors
/// When the folder cannot be written to.
pub(super) fn man(command: &Man, tree: clap::Command) -> Result<(), Failure> {
    let folder = &command.folder;
    let told = |error| Failure::new(Kind::Io, format!("cannot write man pages to {}: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(told)?;
    clap_mangen::generate_to(tree, folder).map_err(told)
}
