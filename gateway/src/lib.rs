//! The gateway: broker, store, twins, and the command line in front of them.
//!
//! Rooms import only what stands before them: `config, watch → broker → store → twin | bridge | kubeedge | dmi → gone, supervisor → run, demo → cli`.

pub mod bridge;
pub mod broker;
pub mod cli;
pub mod config;
pub mod demo;
#[cfg(feature = "dmi")]
pub mod dmi;
mod gone;
pub mod kubeedge;
pub mod run;
pub mod store;
mod supervisor;
pub mod twin;
mod watch;
