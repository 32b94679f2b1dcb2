//! What the twin store costs a flash card, and how fast a desired value is safe.
//!
//! First table: the store alone, in a process of its own, against plain SQLite rows in the same run. 10,000 devices of
//! 10 properties; every update is one property, drawn evenly. Tidegate gathers what changes within a flush, as its
//! twins do: 20,000 updates a flush stand for 20,000/s at `flush: 1s`; in the 30 s case every property changes once a
//! second and reaches the disk every thirtieth time. Flushes follow one another without a pause, so updates/s is what
//! the store takes, not a rate that was set. Bytes are `write_bytes` of `/proc/PID/io`, closing included.
//!
//! Second table: the whole gateway. Readings come over MQTT as a mapper's would, 20,000 a second; desired values are set over
//! MQTT at QoS 1, and their PUBACK means that they are on disk: the gateway is killed at the end and asked again.
//! Beside it the least that is as safe: SQLite rows, one transaction each, `synchronous=FULL`.

mod alone;
mod model;
mod whole;

use tests::support::table::say;
use tests::support::{Run, child};

fn main() {
    match child().as_deref() {
        Some([kind, rest @ ..]) if kind == "ours" => return alone::ours(rest),
        Some([kind, rest @ ..]) if kind == "sqlite" => return alone::sqlite(rest),
        Some(words) => panic!("no such helper: {words:?}"),
        None => {}
    }
    let run = Run::new("store");
    run.head();
    say(&format!("SQLite {} through rusqlite, in both", rusqlite::version()));
    if run.wants("rows") {
        alone::rows(&run);
    }
    if run.wants("readings") {
        whole::readings(&run);
    }
    if run.wants("desired") {
        whole::desired(&run);
    }
}
