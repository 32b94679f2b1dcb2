//! The command line: one file for each noun, and the tree that holds them.
//!
//! In: words. Out: an exit code; what went wrong is one [`Failure`]. Only `main` prints failures.

mod air;
mod check;
mod client;
mod demo;
mod device;
mod failure;
mod mapper;
mod network;
mod profile;
mod run;
mod schema;
mod screen;
mod shell;
mod simulate;
mod status;
mod twin;
mod user;

use clap::{CommandFactory, Parser, Subcommand};
use protocols::yaml::Complaint;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;

pub use failure::{Failure, Kind};
pub use screen::{Screen, Tone, shows_colour};

/// An MQTT-centric IoT gateway: an embedded broker, device twins, and mappers for Modbus devices.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, about, max_term_width = 100, propagate_version = true)]
pub struct Tidegate {
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// Runs the gateway.
    Run(run::Command),
    /// Runs a gateway with simulated devices and no hardware, and prints what to try.
    Demo(demo::Command),
    /// Checks configuration and profiles, and runs the profiles' own tests.
    Check(check::Command),
    /// Makes profiles out of what other systems have.
    Profile(profile::Command),
    /// Prints a JSON Schema, for editors.
    Schema(schema::Command),
    /// Plays a device of a profile, with faults on request.
    Simulate(simulate::Command),
    /// Runs the mappers of a configuration as a process of its own.
    Mapper(mapper::Command),
    /// Looks at and talks to devices through a running gateway.
    Device(device::Command),
    /// Reads, writes and follows twins.
    Twin(twin::Command),
    /// Shows devices, wires, queues and upstreams on one screen.
    Status(status::Command),
    /// Keeps the users file.
    User(user::Command),
    /// Turns network.yaml of a gateway's card into the files of the system.
    Network(network::Command),
    /// Prints a completion script for a shell.
    Completions(shell::Completions),
    /// Writes the man pages into a folder.
    Man(shell::Man),
}

/// Takes the process's words, does what they say, and gives the exit code's reason.
///
/// # Errors
/// When the command could not do what was asked.
pub fn main() -> Result<(), Failure> {
    let words = Tidegate::parse();
    let mut screen = Screen::stdout();
    if matches!(words.noun, Noun::Run(_) | Noun::Demo(_) | Noun::Simulate(_) | Noun::Mapper(_)) {
        screen.forgive();
    }
    match words.noun {
        Noun::Check(command) => check::run(command, &mut screen),
        Noun::Profile(command) => profile::run(command, &mut screen),
        Noun::Schema(command) => schema::run(&command, &mut screen),
        Noun::User(command) => user::run(command, &mut screen),
        Noun::Network(command) => network::run(&command, &mut screen),
        Noun::Completions(command) => shell::completions(&command, &mut Tidegate::command()),
        Noun::Man(command) => shell::man(&command, Tidegate::command()),
        Noun::Run(command) => served("info", run::run(command, &mut screen)),
        // What a person reads there are values, not a log.
        Noun::Demo(command) => served("error", demo::run(command, &mut screen)),
        Noun::Simulate(command) => served("info", simulate::run(command, &mut screen)),
        Noun::Mapper(command) => served("info", mapper::run(command, &mut screen)),
        Noun::Device(command) => asked(device::run(command, &mut screen)),
        Noun::Twin(command) => asked(twin::run(command, &mut screen)),
        Noun::Status(command) => asked(status::run(command, &mut screen)),
    }
}

/// Runs something that stays: on all cores, with a log.
fn served<F: Future<Output = Result<(), Failure>>>(level: &str, work: F) -> Result<(), Failure> {
    log_to_stderr(level);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(work);
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    ended
}

/// Runs something that asks a running gateway: one thread is enough.
fn asked<F: Future<Output = Result<(), Failure>>>(work: F) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Logs to standard error, from this level on unless `TIDEGATE_LOG` says otherwise.
fn log_to_stderr(level: &str) {
    // `info` or `info,rumqttc=debug`: levels by target, without the regular expressions of an `EnvFilter`, which would be
    // half a megabyte of a small program.
    let wanted = std::env::var("TIDEGATE_LOG").ok().and_then(|text| text.parse::<Targets>().ok());
    let filter = wanted.or_else(|| level.parse().ok()).unwrap_or_default();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        // Standard error may be a pipe that nobody reads any more; that must not end a gateway.
        .log_internal_errors(false)
        .with_ansi(shows_colour(&std::io::stderr()));
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    // A second log of the same process (a test that starts two gateways) keeps the first one.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// A failure that shows every complaint of a configuration.
fn complain(complaints: &[Complaint]) -> Failure {
    let text: Vec<String> = complaints.iter().map(ToString::to_string).collect();
    let count = match complaints.len() {
        1 => "1 error".to_owned(),
        count => format!("{count} errors"),
    };
    Failure::new(Kind::Configuration, format!("the configuration has {count}\n{}", text.join("\n")))
}
