//! What a fast serial line costs: 1 MB/s of NMEA and of DSMR telegrams through a framer to twins.
//!
//! The line is a TCP socket, because no serial port here is that fast. Every message differs from the one before. First the
//! framers and readers alone, then the whole gateway, which tells what the built-in profiles let through, with one subscriber to
//! all. A bench fails when a message is lost or dropped.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use protocols::profile::{Library, Wish};
use protocols::serial::checksum::Algorithm;
use protocols::yaml::{Complaints, Place};
use serde_json::Value;
use tests::gateway::Home;
use tests::mqtt::Watch;
use tests::support::table::{Table, figure, mib, note};
use tests::support::{Run, process};
use tests::within;

/// Bytes a second on the line.
const RATE: usize = 1_000_000;
/// How often a part of that is sent.
const TICK: Duration = Duration::from_millis(20);

fn main() {
    let run = Run::new("serial");
    run.head();
    if run.wants("framer") {
        framer(&run);
    }
    if run.wants("twins") {
        twins(&run);
    }
}

/// `count` sentences or telegrams that all differ.
fn messages(kind: &str, count: usize) -> Vec<Vec<u8>> {
    let xor = Algorithm::named("xor8").expect("the catalogue has it");
    let crc = Algorithm::named("crc16_arc").expect("the catalogue has it");
    let message = |number: usize| match kind {
        "nmea" => {
            let altitude = number % 5_000;
            let body =
                format!("GPGGA,123519,4807.{:03},N,01131.000,E,1,08,0.9,{altitude}.4,M,46.9,M,,", number % 1_000);
            format!("${body}*{:02X}\r\n", xor.digest(body.as_bytes())).into_bytes()
        }
        _ => {
            let mut text = String::from("/ISk5\\2MT382-1000\r\n\r\n1-3:0.2.8(50)\r\n0-0:1.0.0(170102192002W)\r\n");
            for code in ["1.8.1", "1.8.2", "2.8.1", "2.8.2"] {
                let _ = write!(text, "1-0:{code}({:06}.{:03}*kWh)\r\n", number / 1_000, number % 1_000);
            }
            for code in ["1.7.0", "2.7.0", "21.7.0", "41.7.0", "61.7.0", "22.7.0", "42.7.0", "62.7.0"] {
                let _ = write!(text, "1-0:{code}({:02}.{:03}*kW)\r\n", number / 1_000 % 100, number % 1_000);
            }
            for code in ["32.7.0", "52.7.0", "72.7.0"] {
                let _ = write!(text, "1-0:{code}({:03}.{}*V)\r\n", 220 + number % 20, number % 10);
            }
            text.push_str("0-1:24.2.1(170102161005W)(00000.107*m3)\r\n!");
            let sum = crc.digest(text.as_bytes());
            let _ = write!(text, "{sum:04X}\r\n");
            text.into_bytes()
        }
    };
    (0..count).map(message).collect()
}

const KINDS: [(&str, &str); 2] = [("nmea", "generic.nmea0183-gps"), ("dsmr", "dsmr.p1")];

/// Framer and extraction alone, on one core.
fn framer(run: &Run) {
    let mut table =
        Table::new("framing, checking and reading, one core", &["stream", "MB/s", "messages/s", "values/s"]);
    for (kind, id) in KINDS {
        let mut library = Library::new();
        let mut complaints = Complaints::new();
        for (name, text) in gateway::config::PROFILES {
            library.add(name, text, true, &mut complaints);
        }
        let place = Place { file: "bench".into(), line: 1, column: 1 };
        let wish = Wish { profile: id, place: &place, params: None, over: None, is_unsafe: false };
        let profile = library.resolve(&wish, &mut complaints).expect("a built-in profile resolves").profile;
        let messages = messages(kind, run.count(20_000));
        let stream = messages.concat();
        let mut framer = profile.serial.as_ref().expect("it is a serial profile").framer();
        let (mut frames, mut found, mut values) = (Vec::new(), 0, 0);
        let began = Instant::now();
        // Pieces of the size that a fast line's driver gives.
        for piece in stream.chunks(1_021) {
            framer.feed(piece, &mut frames);
            for frame in frames.drain(..) {
                found += 1;
                values += profile.hear(&frame.bytes).values.len();
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        assert_eq!((found, framer.counts().dropped()), (messages.len(), 0), "{kind}");
        table.row(&[
            kind.to_owned(),
            figure(stream.len() as f64 / 1e6 / seconds),
            figure(found as f64 / seconds),
            figure(values as f64 / seconds),
        ]);
    }
    table.print();
}

/// The whole gateway: bytes in at 1 MB/s, twins out.
fn twins(run: &Run) {
    let columns = ["stream", "MB/s", "messages/s", "CPU of one core", "RSS MiB", "dropped", "reports/s"];
    let mut table = Table::new("1 MB/s through the gateway to twins", &columns);
    for (kind, id) in KINDS {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let home = Home::with(&format!(
            "schema: 1\ngateway: {{id: bench, data: data}}\n\
             broker: {{listeners: [{{name: local, bind: \"127.0.0.1:0\"}}]}}\n\
             connections: {{line: {{serial: {{tcp: \"127.0.0.1:{port}\"}}}}}}\n\
             devices: [{{id: d, profile: {id}, connection: line}}]\n"
        ));
        let gateway = home.start();
        let (mut line, _) = listener.accept().expect("the gateway connects");
        let watch = Watch::plain(gateway.port(), &["twin/d/reported/+"]);
        let watched = run.watched(20);
        let one = messages(kind, 1).concat().len();
        let all = messages(kind, RATE * (watched.as_secs() as usize + 1) / one);
        let (sent, cpu) = (all.len(), process::cpu(gateway.pid()));
        let began = Instant::now();
        let feeder = spawn(move || {
            let mut due = 0;
            let mut bytes = 0;
            for message in all {
                line.write_all(&message).expect("the gateway reads");
                bytes += message.len();
                due += message.len();
                if due >= RATE / 50 {
                    due = 0;
                    let ahead = Duration::from_secs_f64(bytes as f64 / RATE as f64).saturating_sub(began.elapsed());
                    sleep(ahead.min(TICK * 2));
                }
            }
            (line, bytes)
        });
        let (open, bytes) = feeder.join().expect("the feeder ends");
        let seconds = began.elapsed().as_secs_f64();
        let cpu = (process::cpu(gateway.pid()) - cpu).as_secs_f64() / seconds;
        let rss = process::rss(gateway.pid());
        let shown = within(Duration::from_secs(60), "every message to be read", || {
            let shown = home.tidegate(&["device", "show", "d", "--json", "--broker", &gateway.url()]);
            let shown: Value = serde_json::from_slice(&shown.stdout).ok()?;
            let frames = shown.pointer("/plan/frames")?.clone();
            (frames["whole"].as_u64() == Some(sent as u64)).then_some(frames)
        });
        let dropped = ["bad_checks", "too_long", "malformed", "interrupted"];
        let dropped: u64 = dropped.iter().filter_map(|key| shown[key].as_u64()).sum();
        assert_eq!(dropped, 0, "{shown}");
        note(&format!("{kind}: {sent} messages in {seconds:.1} s"));
        table.row(&[
            kind.to_owned(),
            figure(bytes as f64 / 1e6 / seconds),
            figure(sent as f64 / seconds),
            format!("{:.0} %", cpu * 100.0),
            figure(mib(rss)),
            dropped.to_string(),
            figure(watch.all().len() as f64 / seconds),
        ]);
        drop(open);
        gateway.stop();
    }
    table.print();
}
