//! `tidegate status`: one screen with devices, wires, queues and upstreams of a running gateway.

use clap::Args;
use protocols::topic;
use protocols::value::Value;
use serde_json::{Map, json};

use super::client::Where;
use super::failure::{Failure, Kind};
use super::screen::{Cell, Screen, Tone};

/// The command's words.
#[derive(Args, Debug)]
pub(super) struct Command {
    #[command(flatten)]
    place: Where,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// When no gateway can be reached.
pub(super) async fn run(command: Command, screen: &mut Screen) -> Result<(), Failure> {
    let mut client = command.place.connect().await?;
    let filters = [
        topic::GATEWAY_STATUS.to_owned(),
        topic::connection_status("+"),
        crate::run::DEVICES_TOPIC.to_owned(),
        "+/+/status".to_owned(),
    ];
    let all = client.retained(&filters).await?;
    client.close().await;
    let find = |wanted: &str| {
        let found = all.iter().find(|(topic, _)| topic == wanted);
        found.and_then(|(_, payload)| serde_json::from_slice::<Value>(payload).ok())
    };
    let gateway = find(topic::GATEWAY_STATUS)
        .ok_or_else(|| Failure::new(Kind::Unreachable, "this broker has no gateway/status; is it a Tidegate?"))?;
    let mut connections = Map::new();
    for (topic, payload) in &all {
        let name = topic.strip_prefix("gateway/connection/").and_then(|rest| rest.strip_suffix("/status"));
        if let (Some(name), Ok(status)) = (name, serde_json::from_slice::<Value>(payload)) {
            connections.insert(name.to_owned(), status);
        }
    }
    let devices = find(crate::run::DEVICES_TOPIC).and_then(|list| list.get("devices").cloned()).unwrap_or_default();
    let mut states = Map::new();
    for device in devices.as_array().into_iter().flatten() {
        let word = |name: &str| device.get(name).and_then(Value::as_str).unwrap_or("");
        let status = find(&format!("{}/{}/status", word("root"), word("id"))).unwrap_or(json!({"state": "unknown"}));
        states.insert(word("id").to_owned(), status);
        if let Some(protocol) = super::device::external(device)
            && !connections.contains_key(word("connection"))
        {
            let reason = format!("held by a mapper of its own: {protocol}");
            connections.insert(word("connection").to_owned(), json!({"state": "external", "reason": reason}));
        }
    }
    if command.json {
        let whole = json!({"gateway": gateway, "connections": connections, "devices": states});
        return Ok(screen.json(&whole)?);
    }
    overview(&gateway, screen)?;
    upstreams(&gateway, screen)?;
    wires(&connections, screen)?;
    list(&states, screen)
}

fn word<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or("")
}

fn number(value: &Value, path: &str) -> String {
    value.pointer(path).map(Value::to_string).unwrap_or_default()
}

fn overview(gateway: &Value, screen: &mut Screen) -> Result<(), Failure> {
    let state = word(gateway, "state");
    let painted = screen.paint(state, Tone::of_state(state));
    screen.line(&format!(
        "gateway {} {painted} since {}, version {}, {} devices",
        word(gateway, "gateway"),
        word(gateway, "since"),
        word(gateway, "version"),
        number(gateway, "/devices")
    ))?;
    screen.line(&format!(
        "broker: {} clients, {} retained, {} bytes queued, {} dropped, {} faults",
        number(gateway, "/broker/clients"),
        number(gateway, "/broker/retained"),
        number(gateway, "/broker/queued_bytes"),
        number(gateway, "/broker/dropped"),
        number(gateway, "/broker/faults")
    ))?;
    screen.line(&format!(
        "store: {} bytes written, {} bytes waiting, {}",
        number(gateway, "/store/bytes_written"),
        number(gateway, "/store/waiting_bytes"),
        gateway.pointer("/store/state").and_then(Value::as_str).unwrap_or("unknown")
    ))?;
    if gateway.pointer("/reload/state").and_then(Value::as_str) == Some("refused") {
        let errors = gateway.pointer("/reload/errors").and_then(Value::as_array).map_or(0, Vec::len);
        let first = gateway
            .pointer("/reload/errors/0")
            .map(|error| format!("{}:{}: {}", word(error, "file"), number(error, "/line"), word(error, "message")));
        screen.line(&format!(
            "configuration: {}, {errors} errors since {}; the one before is in force; first: {}",
            screen.paint("refused", Tone::Bad),
            gateway.pointer("/reload/at").and_then(Value::as_str).unwrap_or("?"),
            first.unwrap_or_default()
        ))?;
    }
    Ok(())
}

fn upstreams(gateway: &Value, screen: &mut Screen) -> Result<(), Failure> {
    let columns = ["dirty", "spool_rows", "spool_bytes", "oldest_unsent_s", "reconnects", "conflicts", "gaps"];
    let rows: Vec<Vec<Cell>> = gateway
        .get("upstream")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(name, state)| {
            let state = state.as_str().unwrap_or("unknown");
            let details = gateway.pointer(&format!("/upstreams/{name}")).cloned().unwrap_or_default();
            let mut row: Vec<Cell> = vec![name.as_str().into(), Cell::new(state, Tone::of_state(state))];
            row.push(word(&details, "last_contact").into());
            row.extend(columns.iter().map(|column| match details.get(*column) {
                Some(Value::Null) | None => Cell::from("-"),
                Some(value) => Cell::from(value.to_string()),
            }));
            row.push(word(&details, "last_error").into());
            row
        })
        .collect();
    if screen.is_terminal() && !rows.is_empty() {
        screen.line("")?;
    }
    let heading = [
        "UPSTREAM",
        "STATE",
        "LAST CONTACT",
        "DIRTY",
        "SPOOLED",
        "SPOOL BYTES",
        "UNSENT S",
        "RECONNECTS",
        "CONFLICTS",
        "GAPS",
        "LAST ERROR",
    ];
    if rows.is_empty() { Ok(()) } else { Ok(screen.table(&heading, &rows)?) }
}

fn wires(connections: &Map<String, Value>, screen: &mut Screen) -> Result<(), Failure> {
    let columns = ["requests", "answers", "timeouts", "exceptions", "dropped", "retries", "reopened"];
    let rows: Vec<Vec<Cell>> = connections
        .iter()
        .map(|(name, status)| {
            let state = word(status, "state");
            let mut row: Vec<Cell> = vec![name.as_str().into(), Cell::new(state, Tone::of_state(state))];
            row.extend(columns.iter().map(|column| Cell::from(number(status, &format!("/{column}")))));
            row.push(word(status, "reason").into());
            row
        })
        .collect();
    if screen.is_terminal() && !rows.is_empty() {
        screen.line("")?;
    }
    let heading = [
        "CONNECTION",
        "STATE",
        "REQUESTS",
        "ANSWERS",
        "TIMEOUTS",
        "EXCEPTIONS",
        "DROPPED",
        "RETRIES",
        "REOPENED",
        "REASON",
    ];
    if rows.is_empty() { Ok(()) } else { Ok(screen.table(&heading, &rows)?) }
}

fn list(states: &Map<String, Value>, screen: &mut Screen) -> Result<(), Failure> {
    let rows: Vec<Vec<Cell>> = states
        .iter()
        .map(|(name, status)| {
            let state = word(status, "state");
            let state_cell = Cell::new(state, Tone::of_state(state));
            vec![name.as_str().into(), state_cell, word(status, "since").into(), word(status, "reason").into()]
        })
        .collect();
    if screen.is_terminal() && !rows.is_empty() {
        screen.line("")?;
    }
    if rows.is_empty() { Ok(()) } else { Ok(screen.table(&["DEVICE", "STATE", "SINCE", "REASON"], &rows)?) }
}
