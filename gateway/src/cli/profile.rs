//! `tidegate profile`: profiles out of what other systems have.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use protocols::kubeedge::import::{Imported, import};
use serde_json::json;

use super::failure::{Failure, Kind};
use super::screen::{Screen, Tone};

/// The list of connections and devices that an import writes beside the profiles.
const LIST: &str = "devices.kubeedge.yaml";

/// The command's words.
#[derive(Args, Debug)]
pub(super) struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Makes profiles and a list of devices out of another system's files; says what has no counterpart.
    Import(Import),
}

#[derive(Args, Debug)]
struct Import {
    /// Whose files they are.
    from: From,
    /// The files; Device and DeviceModel objects belong together in one import.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The folder for what is made.
    #[arg(long, default_value = "profiles")]
    out: PathBuf,
    /// Writes over files of an earlier import.
    #[arg(long)]
    force: bool,
    /// Prints what was made and noted as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum From {
    /// Kubernetes YAML with Device and DeviceModel (devices.kubeedge.io/v1alpha2, v1beta1).
    #[value(name = "kubeedge")]
    KubeEdge,
}

/// Runs the command.
///
/// # Errors
/// When a file cannot be read or written, or is none of the other system's.
pub(super) fn run(command: Command, screen: &mut Screen) -> Result<(), Failure> {
    let Verb::Import(words) = command.verb;
    let From::KubeEdge = words.from;
    let mut files = Vec::new();
    for path in &words.files {
        let text = fs::read_to_string(path)
            .map_err(|error| Failure::new(Kind::Io, format!("{} cannot be read: {error}", path.display())))?;
        files.push((path.display().to_string(), text));
    }
    let imported = import(&files).map_err(|complaints| {
        let text: Vec<String> = complaints.into_sorted().iter().map(ToString::to_string).collect();
        Failure::new(Kind::Data, text.join("\n"))
    })?;
    let written = write(&words, &imported)?;
    if words.json {
        let notes: Vec<_> = imported
            .notes
            .iter()
            .map(|note| json!({"file": note.place.file.as_ref(), "line": note.place.line, "column": note.place.column, "note": note.text}))
            .collect();
        screen.json(&json!({"written": written, "devices": imported.devices, "notes": notes}))?;
        return Ok(());
    }
    for note in &imported.notes {
        let line = screen.paint(&note.to_string(), Tone::Faint);
        screen.line(&line)?;
    }
    for file in &written {
        screen.line(&format!("wrote {}", file.display()))?;
    }
    let (devices, notes) = (imported.devices, imported.notes.len());
    screen.line(&format!("{devices} devices, {} profiles, {notes} notes", imported.profiles.len()))?;
    if devices > 0 {
        screen.line(&format!("next: put what {LIST} holds into gateway.yaml, then tidegate check"))?;
    }
    Ok(())
}

/// Writes everything or, if a file is there already, nothing.
fn write(words: &Import, imported: &Imported) -> Result<Vec<PathBuf>, Failure> {
    let profile = |(id, text): &(String, String)| (words.out.join(format!("{id}.yaml")), text.clone());
    let mut files: Vec<(PathBuf, String)> = imported.profiles.iter().map(profile).collect();
    if imported.devices > 0 {
        // Not among the profiles: a folder of profiles holds nothing else.
        let beside = words.out.parent().unwrap_or(Path::new("")).join(LIST);
        files.push((beside, imported.gateway.clone()));
    }
    if let Some((there, _)) = files.iter().find(|(path, _)| !words.force && path.exists()) {
        let text = format!("{} is there already; --force writes over it", there.display());
        return Err(Failure::new(Kind::Io, text));
    }
    let failed = |path: &Path, error: std::io::Error| {
        Failure::new(Kind::Io, format!("{} cannot be written: {error}", path.display()))
    };
    fs::create_dir_all(&words.out).map_err(|error| failed(&words.out, error))?;
    for (path, text) in &files {
        fs::write(path, text).map_err(|error| failed(path, error))?;
    }
    Ok(files.into_iter().map(|(path, _)| path).collect())
}
