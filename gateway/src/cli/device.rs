//! `tidegate device list|show|scan|read|write`: looks at and talks to devices through a running gateway.
//!
//! Devices are reached through the owner of their wire (`gateway/connection/C/request`), never around it.

use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use protocols::topic;
use protocols::value::Value;
use serde_json::json;
use tokio::time::Instant;

use super::client::{Client, Where};
use super::failure::{Failure, Kind};
use super::screen::{Cell, Screen, Tone};

/// The command's words.
#[derive(Args, Debug)]
pub(super) struct Command {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    place: Where,
    /// First level of the twin topics, if the gateway uses another.
    #[arg(long, default_value = "twin", global = true)]
    root: String,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lists the devices of the gateway.
    List,
    /// Shows a device: its profile, its wire, and how it is read.
    Show {
        /// The device.
        device: String,
    },
    /// Looks for devices on a wire.
    Scan(Scan),
    /// Reads a property now, or registers and bits as they are.
    Read(Read),
    /// Writes a property past its twin, or registers and bits as they are.
    Write(Write),
}

#[derive(Args, Debug)]
struct Scan {
    /// The connection, as the configuration names it; with --ble the only radio when absent.
    connection: Option<String>,
    /// List what is in the air around a Bluetooth radio, decoded, with the profiles that would fit.
    #[arg(long)]
    ble: bool,
    /// With --ble: how long to listen, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=120))]
    seconds: u32,
    /// The first unit.
    #[arg(long, default_value_t = 1)]
    from: u8,
    /// The last unit.
    #[arg(long, default_value_t = 247)]
    to: u8,
}

#[derive(Args, Debug)]
struct Read {
    /// The device.
    device: String,
    /// A property, or one of coil, discrete, input and holding.
    what: String,
    /// With a table: the protocol address from 0, such as 0x001E or 30.
    #[arg(value_parser = address)]
    address: Option<u16>,
    /// With a table: how many.
    count: Option<u16>,
}

#[derive(Args, Debug)]
struct Write {
    /// The device.
    device: String,
    /// A property, or one of coil and holding.
    what: String,
    /// The property's value; or the protocol address and the values: registers as numbers, coils as 0 and 1.
    #[arg(required = true)]
    values: Vec<String>,
}

impl Read {
    fn request(&self) -> Value {
        match self.address {
            Some(address) => json!({
                "id": "cli", "op": "read", "device": self.device,
                "table": self.what, "address": address, "count": self.count.unwrap_or(1),
            }),
            None => json!({"id": "cli", "op": "read", "device": self.device, "property": self.what}),
        }
    }
}

impl Write {
    fn request(&self) -> Result<Value, Failure> {
        let usage = |text: String| Failure::new(Kind::Usage, text);
        if let [value] = self.values.as_slice() {
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.clone()));
            return Ok(json!({
                "id": "cli", "op": "write", "device": self.device, "property": self.what, "value": value,
            }));
        }
        let numbers: Result<Vec<u16>, String> = self.values.iter().map(|text| address(text)).collect();
        let numbers = numbers.map_err(usage)?;
        let (address, values) = numbers.split_first().ok_or_else(|| usage("nothing is to be written".to_owned()))?;
        Ok(json!({
            "id": "cli", "op": "write", "device": self.device, "table": self.what, "address": address, "values": values,
        }))
    }
}

/// A number from 0 to 65535, decimal or `0x…`.
fn address(text: &str) -> Result<u16, String> {
    let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u16::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| "write a number from 0 to 65535, such as 30 or 0x001E".to_owned())
}

/// Runs the command.
///
/// # Errors
/// When the gateway is away or refuses, or the device does not answer.
pub(super) async fn run(command: Command, screen: &mut Screen) -> Result<(), Failure> {
    let mut client = command.place.connect().await?;
    match command.action {
        Action::List => list(&mut client, command.json, screen).await,
        Action::Show { device } => show(&mut client, &command.root, &device, command.json, screen).await,
        Action::Scan(scan) if scan.ble => {
            super::air::run(&mut client, scan.connection.as_deref(), scan.seconds, command.json, screen).await
        }
        Action::Scan(scan) => look_around(&mut client, &scan, command.json, screen).await,
        Action::Read(read) => {
            let answer = ask(&mut client, &read.device, &read.request()).await?;
            values(&answer, read.address.unwrap_or_default(), command.json, screen)
        }
        Action::Write(write) => {
            let answer = ask(&mut client, &write.device, &write.request()?).await?;
            if command.json { Ok(screen.json(&answer)?) } else { Ok(screen.line("written")?) }
        }
    }
}

/// What the gateway says of its devices: the retained list.
pub(super) async fn devices(client: &mut Client) -> Result<Vec<Value>, Failure> {
    let all = client.retained(&[crate::run::DEVICES_TOPIC.to_owned()]).await?;
    let list = all.first().and_then(|(_, payload)| serde_json::from_slice::<Value>(payload).ok());
    let list = list.and_then(|list| list.get("devices").and_then(Value::as_array).cloned());
    list.ok_or_else(|| Failure::new(Kind::Unreachable, "this broker has no list of devices; is it a Tidegate?"))
}

pub(super) fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or("")
}

async fn list(client: &mut Client, json: bool, screen: &mut Screen) -> Result<(), Failure> {
    let mut devices = devices(client).await?;
    let root = devices.first().map_or("twin", |device| field(device, "root")).to_owned();
    let states = client.retained(&[format!("{root}/+/status")]).await?;
    for device in &mut devices {
        let topic = format!("{root}/{}/status", field(device, "id"));
        let state = states.iter().find(|(name, _)| *name == topic);
        let state = state.and_then(|(_, payload)| serde_json::from_slice::<Value>(payload).ok());
        if let (Some(device), Some(state)) = (device.as_object_mut(), state) {
            device.insert("status".to_owned(), state);
        }
    }
    if json {
        return Ok(screen.json(&json!({"devices": devices}))?);
    }
    let rows: Vec<Vec<Cell>> = devices
        .iter()
        .map(|device| {
            let status = device.get("status").cloned().unwrap_or_default();
            let state = status.get("state").and_then(Value::as_str).unwrap_or("unknown").to_owned();
            let unit = device.get("unit").map(Value::to_string).unwrap_or_default();
            vec![
                field(device, "id").into(),
                Cell::new(state.clone(), Tone::of_state(&state)),
                field(&status, "since").into(),
                field(device, "profile").into(),
                field(device, "connection").into(),
                unit.into(),
                field(&status, "reason").into(),
            ]
        })
        .collect();
    Ok(screen.table(&["DEVICE", "STATE", "SINCE", "PROFILE", "CONNECTION", "UNIT", "REASON"], &rows)?)
}

async fn connection_of(client: &mut Client, device: &str) -> Result<Value, Failure> {
    super::twin::device_id(device)?;
    let devices = devices(client).await?;
    devices.iter().find(|known| field(known, "id") == device).cloned().ok_or_else(|| {
        let names: Vec<&str> = devices.iter().map(|device| field(device, "id")).collect();
        Failure::new(Kind::Data, format!("there is no device {device}"))
            .hint(format!("the gateway has: {}", names.join(", ")))
    })
}

/// Sends a request to the owner of the device's wire.
async fn ask(client: &mut Client, device: &str, request: &Value) -> Result<Value, Failure> {
    let known = connection_of(client, device).await?;
    if let Some(protocol) = external(&known) {
        return Err(Failure::new(
            Kind::Data,
            format!("{device}: only its own mapper ({protocol}) reads and writes it"),
        )
        .hint(format!("`tidegate twin get {device}` shows what it reported, `twin set` wishes something")));
    }
    let topic = topic::connection_request(field(&known, "connection"));
    let answer = client.request(&topic, request.to_string()).await?;
    let answer: Value = serde_json::from_slice(&answer)
        .map_err(|error| Failure::new(Kind::Internal, format!("the answer is no JSON: {error}")))?;
    match refused(&answer) {
        Some((kind, why)) => Err(Failure::new(kind, format!("{device}: {why}"))),
        None => Ok(answer.get("result").cloned().unwrap_or_default()),
    }
}

/// Why an answer is a refusal, if it is one.
pub(super) fn refused(answer: &Value) -> Option<(Kind, &str)> {
    if answer.get("ok").and_then(Value::as_bool) != Some(false) {
        return None;
    }
    let why = answer.get("error").and_then(Value::as_str).unwrap_or("no reason was given");
    let kind = match answer.get("code").and_then(Value::as_u64) {
        Some(503) if why.starts_with("wire closed") => Kind::Unreachable,
        Some(503 | 504) => Kind::TryAgain,
        _ => Kind::Data,
    };
    Some((kind, why))
}

async fn show(client: &mut Client, root: &str, device: &str, json: bool, screen: &mut Screen) -> Result<(), Failure> {
    let known = connection_of(client, device).await?;
    let document = super::twin::document(client, root, device).await?;
    let plan = match external(&known) {
        Some(_) => Value::Null,
        None => ask(client, device, &json!({"id": "cli", "op": "plan", "device": device})).await?,
    };
    if json {
        return Ok(screen.json(&json!({"device": known, "document": document, "plan": plan}))?);
    }
    let hash = document.profile_hash.as_deref().unwrap_or("");
    screen.line(&format!("{device}  {} {hash}", document.profile))?;
    let connection = field(&known, "connection");
    match external(&known) {
        Some(protocol) => screen.line(&format!("connection {connection}, read by a mapper of its own: {protocol}"))?,
        None => {
            let unit = known.get("unit").map(Value::to_string).unwrap_or_default();
            screen.line(&format!("connection {connection}, unit {unit}"))?;
        }
    }
    let state = serde_json::to_value(document.status.state).unwrap_or_default();
    let reason = document.status.reason.as_deref().map_or(String::new(), |reason| format!(" ({reason})"));
    screen.line(&format!("state {}{reason}", state.as_str().unwrap_or("unknown")))?;
    screen.line(&format!(
        "{} properties reported, version {}; {} desired, version {}",
        document.reported.properties.len(),
        document.reported.version,
        document.desired.properties.len(),
        document.desired.version
    ))?;
    if plan.is_null() { Ok(()) } else { table_of_reads(&plan, screen) }
}

/// What is spoken to a device whose mapper is no part of the gateway.
pub(super) fn external(device: &Value) -> Option<&str> {
    device.get("external").and_then(Value::as_str)
}

/// How a device is read: one row for each request of its plan, then what is left out and why.
fn table_of_reads(plan: &Value, screen: &mut Screen) -> Result<(), Failure> {
    let list = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    for group in list(plan, "groups") {
        for read in list(&group, "reads") {
            let address = read.get("address").and_then(Value::as_u64).unwrap_or_default();
            rows.push(vec![
                field(&group, "group").into(),
                format!("{} ms", number(&group, "interval_ms")).into(),
                field(&read, "table").into(),
                format!("0x{address:04X}").into(),
                number(&read, "count").into(),
                list_of_words(read.get("properties").unwrap_or(&Value::Null)).into(),
            ]);
        }
    }
    screen.table(&["GROUP", "EVERY", "TABLE", "ADDRESS", "COUNT", "PROPERTIES"], &rows)?;
    for parked in list(plan, "parked") {
        let (name, code) = (field(&parked, "property"), number(&parked, "exception"));
        screen.line(&format!("parked: {name}, the device answers exception {code}; it is asked now and then"))?;
    }
    Ok(())
}

fn number(value: &Value, name: &str) -> String {
    value.get(name).map(Value::to_string).unwrap_or_default()
}

fn values(answer: &Value, first: u16, json: bool, screen: &mut Screen) -> Result<(), Failure> {
    if json {
        return Ok(screen.json(answer)?);
    }
    if let Some(value) = answer.get("value") {
        let quality = field(answer, "quality");
        let tone = if quality == "good" { Tone::Good } else { Tone::Bad };
        let row = vec![super::twin::text(value).into(), Cell::new(quality, tone)];
        return Ok(screen.table(&["VALUE", "QUALITY"], &[row])?);
    }
    let values = answer.get("registers").or_else(|| answer.get("bits")).and_then(Value::as_array);
    let values = values.cloned().unwrap_or_default();
    let rows: Vec<Vec<Cell>> = values
        .iter()
        .zip(usize::from(first)..)
        .map(|(value, address)| {
            let hex = value.as_u64().map_or(String::new(), |value| format!("0x{value:04X}"));
            vec![format!("0x{address:04X}").into(), value.to_string().into(), hex.into()]
        })
        .collect();
    Ok(screen.table(&["ADDRESS", "VALUE", "HEX"], &rows)?)
}

async fn look_around(client: &mut Client, scan: &Scan, json: bool, screen: &mut Screen) -> Result<(), Failure> {
    /// A scan that is silent for so long has lost its wire.
    const SILENCE: Duration = Duration::from_secs(30);
    if scan.from > scan.to {
        let text = format!("there is nothing from unit {} to unit {}", scan.from, scan.to);
        return Err(Failure::new(Kind::Usage, text));
    }
    let Some(connection) = &scan.connection else {
        return Err(Failure::new(Kind::Usage, "name the connection, or say --ble for a radio".to_owned()));
    };
    known_connection(client, connection).await?;
    let target = if screen.is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let units = u64::from(scan.to.saturating_sub(scan.from)) + 1;
    let style = ProgressStyle::with_template("{bar:30} unit {pos} of {len}, {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(units), target).with_style(style).with_message("nothing found yet");
    client.listen_for_replies().await?;
    let request = json!({"id": "cli", "op": "scan", "from": scan.from, "to": scan.to});
    client.ask(&topic::connection_request(connection), request.to_string()).await?;
    let mut found = Vec::new();
    loop {
        let Some(message) = client.next(Instant::now() + SILENCE).await? else {
            return Err(Failure::new(Kind::TryAgain, format!("connection {connection} does not answer"))
                .hint("`tidegate status` lists the connections"));
        };
        if !client.is_reply(&message) {
            continue;
        }
        let Ok(answer) = serde_json::from_slice::<Value>(&message.payload) else { continue };
        if let Some((kind, why)) = refused(&answer) {
            bar.finish_and_clear();
            return Err(Failure::new(kind, why.to_owned()));
        }
        let answered = answer.get("result").unwrap_or(&answer);
        if let Some(list) = answered.get("found").and_then(Value::as_array) {
            found.clone_from(list);
            bar.set_message(format!("{} found", found.len()));
        }
        match answer.pointer("/progress/address").and_then(Value::as_u64) {
            Some(unit) => bar.set_position(unit.saturating_sub(u64::from(scan.from)) + 1),
            None => break,
        }
    }
    bar.finish_and_clear();
    if json {
        return Ok(screen.json(&json!({"found": found}))?);
    }
    let rows: Vec<Vec<Cell>> = found
        .iter()
        .map(|device| {
            let fits = device.get("profiles").map(list_of_words).unwrap_or_default();
            vec![number(device, "address").into(), identity(device).into(), fits.into()]
        })
        .collect();
    Ok(screen.table(&["UNIT", "IDENTITY", "PROFILES THAT FIT"], &rows)?)
}

/// Whether the gateway has a connection of that name.
///
/// # Errors
/// With the names it has, when not.
pub(super) async fn known_connection(client: &mut Client, name: &str) -> Result<(), Failure> {
    let statuses = client.retained(&[topic::connection_status("+")]).await?;
    let names: Vec<&str> = statuses.iter().filter_map(|(topic, _)| topic.split('/').nth(2)).collect();
    if names.contains(&name) {
        return Ok(());
    }
    let devices = devices(client).await?;
    if devices.iter().any(|device| field(device, "connection") == name && external(device).is_some()) {
        return Err(Failure::new(Kind::Data, format!("{name} is held by a mapper that is no part of the gateway"))
            .hint("look around with that mapper's own means"));
    }
    Err(Failure::new(Kind::Data, format!("there is no connection {name}"))
        .hint(format!("the gateway has: {}", names.join(", "))))
}

/// Vendor, product and whatever else the device says of itself.
fn identity(device: &Value) -> String {
    let objects = device.pointer("/identity/objects").and_then(Value::as_object);
    let words = objects.into_iter().flatten().filter_map(|(_, text)| text.as_str());
    words.collect::<Vec<_>>().join(" ")
}

pub(super) fn list_of_words(value: &Value) -> String {
    let words = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn addresses_are_decimal_or_hexadecimal() {
        assert_eq!(super::address("30"), Ok(30));
        assert_eq!(super::address("0x001E"), Ok(30));
        for text in ["", "-1", "65536", "0xG", "40001x"] {
            assert!(super::address(text).is_err(), "{text}");
        }
    }
}
