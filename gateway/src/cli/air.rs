//! `tidegate device scan --ble`: what is in the air around a radio, decoded, with the profile that would fit.
//!
//! The radio is asked through its owner (`gateway/connection/C/request`), so that nothing else has to be stopped for it.

use std::time::Duration;

use protocols::topic;
use protocols::value::Value;
use serde_json::json;
use tokio::time::Instant;

use super::client::Client;
use super::device::{devices, field, known_connection, list_of_words, refused};
use super::failure::{Failure, Kind};
use super::screen::{Cell, Screen};

/// An answer that is this much late does not come.
const LATE: Duration = Duration::from_secs(20);

/// Runs the command.
///
/// # Errors
/// When there is no such radio, or it does not answer.
pub(super) async fn run(
    client: &mut Client,
    connection: Option<&str>,
    seconds: u32,
    json: bool,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let connection = match connection {
        Some(name) => name.to_owned(),
        None => only_radio(client).await?,
    };
    known_connection(client, &connection).await?;
    client.listen_for_replies().await?;
    let request = json!({"id": "cli", "op": "scan", "seconds": seconds});
    client.ask(&topic::connection_request(&connection), request.to_string()).await?;
    let until = Instant::now() + Duration::from_secs(seconds.into()) + LATE;
    let found = loop {
        let Some(message) = client.next(until).await? else {
            return Err(Failure::new(Kind::TryAgain, format!("connection {connection} does not answer"))
                .hint("`tidegate status` lists the connections"));
        };
        let Some(answer) =
            client.is_reply(&message).then(|| serde_json::from_slice::<Value>(&message.payload).ok()).flatten()
        else {
            continue;
        };
        if let Some((kind, why)) = refused(&answer) {
            return Err(Failure::new(kind, why.to_owned()));
        }
        if answer.get("progress").is_some() {
            return Err(Failure::new(Kind::Data, format!("{connection} is a wire, not a radio")));
        }
        break answer.pointer("/result/found").and_then(Value::as_array).cloned().unwrap_or_default();
    };
    if json {
        return Ok(screen.json(&json!({"found": found}))?);
    }
    let rows: Vec<Vec<Cell>> = found.iter().map(row).collect();
    Ok(screen.table(&["ADDRESS", "RSSI", "NAME", "SAYS", "PROFILES THAT FIT", "DEVICE"], &rows)?)
}

/// The radio of a gateway that has one.
async fn only_radio(client: &mut Client) -> Result<String, Failure> {
    let all = devices(client).await?;
    let mut radios: Vec<&str> = all
        .iter()
        .filter(|device| device.get("radio") == Some(&Value::Bool(true)))
        .map(|device| field(device, "connection"))
        .collect();
    radios.sort_unstable();
    radios.dedup();
    match radios.as_slice() {
        [one] => Ok((*one).to_owned()),
        _ => Err(Failure::new(Kind::Usage, "name the radio: tidegate device scan --ble CONNECTION".to_owned())),
    }
}

fn row(device: &Value) -> Vec<Cell> {
    let rssi = device.get("rssi").filter(|level| !level.is_null()).map(Value::to_string).unwrap_or_default();
    vec![
        field(device, "address").into(),
        rssi.into(),
        field(device, "name").into(),
        said(device).into(),
        device.get("profiles").map(list_of_words).unwrap_or_default().into(),
        device.get("devices").map(list_of_words).unwrap_or_default().into(),
    ]
}

/// What the device says, in a few words: `bthome2: temperature 23.4 Cel, humidity 50.1 %`.
fn said(device: &Value) -> String {
    let hints = device.get("says").and_then(Value::as_array).into_iter().flatten();
    let hints = hints.map(|hint| {
        if hint.get("encrypted") == Some(&Value::Bool(true)) {
            return format!("{}: encrypted", field(hint, "format"));
        }
        let objects = hint.get("objects").and_then(Value::as_array).into_iter().flatten().map(|object| {
            let value = object.get("value").map(super::twin::text).unwrap_or_default();
            format!("{} {value} {}", field(object, "name"), field(object, "unit")).trim_end().to_owned()
        });
        format!("{}: {}", field(hint, "format"), objects.collect::<Vec<_>>().join(", "))
    });
    hints.collect::<Vec<_>>().join("; ")
}
