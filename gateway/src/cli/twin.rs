//! `tidegate twin get|set|watch`: reads, writes and follows twins through a running gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::{Args, Subcommand};
use protocols::message::{DesiredOut, DesiredSet, DesiredState, Document, Event, Outcome};
use protocols::value::Value;
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
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Shows a twin, or some of its properties.
    Get {
        /// The device.
        device: String,
        /// Only these properties.
        properties: Vec<String>,
        /// Print the document as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Sets desired values; `name=null` clears one.
    Set(Set),
    /// Prints changes as they happen, until Ctrl-C.
    Watch {
        /// Only these devices; all when none is named.
        devices: Vec<String>,
        /// Print each event as a line of JSON.
        #[arg(long)]
        json: bool,
        /// End after this many events.
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
}

#[derive(Args, Debug)]
struct Set {
    /// The device.
    device: String,
    /// Desired values, such as setpoint=22 mode=eco pump=true. What is no JSON is taken as text.
    #[arg(required = true, value_name = "NAME=VALUE")]
    assignments: Vec<String>,
    /// Wait until the device has it, or has refused it.
    #[arg(long)]
    wait: bool,
    /// How long to wait, such as 90s or 5m.
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = span)]
    timeout: Duration,
    /// Give up wishing after this time, such as 30s or 1h.
    #[arg(long, value_name = "TIME", value_parser = span)]
    ttl: Option<Duration>,
    /// Only if the desired section is still at this version.
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
    /// Who wishes it.
    #[arg(long, default_value = "cli")]
    by: String,
    /// Print the outcome as JSON.
    #[arg(long)]
    json: bool,
}

/// A time as files write it (`90s`, `5m`); a bare number is seconds.
fn span(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map(Duration::from_secs).ok();
    let wrong = || "write a whole number and one of ms, s, m, h, d, such as 90s".to_owned();
    seconds.or_else(|| protocols::profile::duration(text)).ok_or_else(wrong)
}

/// Runs the command.
///
/// # Errors
/// When the gateway is away, refuses, or the values do not end well.
pub(super) async fn run(command: Command, screen: &mut Screen) -> Result<(), Failure> {
    let root = command.root;
    match command.action {
        Action::Get { device, properties, json } => {
            let mut client = command.place.connect().await?;
            let document = document(&mut client, &root, &device).await?;
            client.close().await;
            show(screen, &document, &properties, json)
        }
        Action::Set(set) => write(command.place, &root, set, screen).await,
        Action::Watch { devices, json, count } => {
            let mut client = command.place.connect().await?;
            watch(&mut client, &root, &devices, json, count, screen).await
        }
    }
}

/// Checks a device id before it becomes part of a topic.
pub(super) fn device_id(device: &str) -> Result<&str, Failure> {
    match device.parse::<protocols::name::DeviceId>() {
        Ok(_) => Ok(device),
        Err(error) => Err(Failure::new(Kind::Usage, error.to_string())),
    }
}

/// Asks for a device's document.
///
/// # Errors
/// When there is no such device, or nobody answers.
pub(super) async fn document(client: &mut Client, root: &str, device: &str) -> Result<Document, Failure> {
    let topic = format!("{root}/{}/get", device_id(device)?);
    let payload = client.request(&topic, "{}").await?;
    if let Ok(outcome) = serde_json::from_slice::<Outcome>(&payload)
        && !outcome.ok
    {
        return Err(refused(&outcome));
    }
    serde_json::from_slice(&payload)
        .map_err(|error| Failure::new(Kind::Internal, format!("the gateway's answer is no document: {error}")))
}

fn refused(outcome: &Outcome) -> Failure {
    let kind = match outcome.code {
        Some(403) => Kind::NotAllowed,
        Some(409 | 503) => Kind::TryAgain,
        _ => Kind::Data,
    };
    let errors: Vec<String> = outcome
        .errors
        .iter()
        .map(|(name, why)| if name.is_empty() { why.clone() } else { format!("{name}: {why}") })
        .collect();
    let code = outcome.code.map_or(String::new(), |code| format!(" ({code})"));
    Failure::new(kind, format!("refused{code}: {}", errors.join("; ")))
}

/// A value as people read it.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn show(screen: &mut Screen, document: &Document, wanted: &[String], json: bool) -> Result<(), Failure> {
    let known = |name: &String| {
        document.reported.properties.contains_key(name.as_str())
            || document.desired.properties.contains_key(name.as_str())
    };
    if let Some(missing) = wanted.iter().find(|name| !known(name)) {
        return Err(Failure::new(Kind::Data, format!("{} has no value of {missing}", document.device)));
    }
    if json {
        let whole = serde_json::to_value(document).map_err(|error| Failure::new(Kind::Internal, error.to_string()))?;
        return Ok(screen.json(&whole)?);
    }
    let names: BTreeSet<&str> = document
        .reported
        .properties
        .keys()
        .chain(document.desired.properties.keys())
        .map(|name| name.as_str())
        .filter(|name| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name))
        .collect();
    let rows: Vec<Vec<Cell>> = names.into_iter().map(|name| row(document, name)).collect();
    if screen.is_terminal() && wanted.is_empty() {
        let state = format!("{:?}", document.status.state).to_lowercase();
        let state = screen.paint(&state, Tone::of_state(&state));
        screen.line(&format!("{}  {}  {state}", document.device, document.profile))?;
    }
    screen.table(&["PROPERTY", "VALUE", "UNIT", "QUALITY", "AT", "DESIRED", "STATE"], &rows)?;
    Ok(())
}

fn row(document: &Document, name: &str) -> Vec<Cell> {
    let reported = document.reported.properties.get(name);
    let desired = document.desired.properties.get(name);
    let quality = reported.map_or(String::new(), |property| property.quality.to_string());
    let tone = match quality.split(':').next() {
        Some("bad") => Tone::Bad,
        Some("uncertain") => Tone::Doubtful,
        _ => Tone::Plain,
    };
    let state = desired.map_or(String::new(), |desired| match &desired.reason {
        Some(reason) => format!("{}: {reason}", word(desired.state)),
        None => word(desired.state).to_owned(),
    });
    let state_tone = desired.map_or(Tone::Plain, |desired| Tone::of_state(word(desired.state)));
    vec![
        name.into(),
        reported.map_or(String::new(), |property| text(&property.value)).into(),
        reported.and_then(|property| property.unit.clone()).unwrap_or_default().into(),
        Cell::new(quality, tone),
        reported.map_or(String::new(), |property| property.at.to_string()).into(),
        desired.map_or(String::new(), |desired| text(&desired.value)).into(),
        Cell::new(state, state_tone),
    ]
}

fn word(state: DesiredState) -> &'static str {
    match state {
        DesiredState::Pending => "pending",
        DesiredState::Applied => "applied",
        DesiredState::Rejected => "rejected",
        DesiredState::Failed => "failed",
        DesiredState::Superseded => "superseded",
        DesiredState::Expired => "expired",
    }
}

fn patch(assignments: &[String]) -> Result<BTreeMap<String, Value>, Failure> {
    let mut patch = BTreeMap::new();
    for assignment in assignments {
        let (name, value) = assignment.split_once('=').ok_or_else(|| {
            Failure::new(Kind::Usage, format!("\"{assignment}\" has no \"=\"")).hint("write name=value")
        })?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        if patch.insert(name.to_owned(), value).is_some() {
            return Err(Failure::new(Kind::Usage, format!("{name} is set twice")));
        }
    }
    Ok(patch)
}

async fn write(place: Where, root: &str, set: Set, screen: &mut Screen) -> Result<(), Failure> {
    let patch = patch(&set.assignments)?;
    let device = device_id(&set.device)?;
    let mut client = place.connect().await?;
    let wishes: Vec<String> =
        patch.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.clone()).collect();
    let request = DesiredSet {
        id: Some("cli".to_owned()),
        patch,
        if_version: set.if_version,
        ttl_s: set.ttl.map(|ttl| ttl.as_secs().max(1)),
        by: Some(set.by),
    };
    let payload = serde_json::to_vec(&request).map_err(|error| Failure::new(Kind::Internal, error.to_string()))?;
    if set.wait {
        // Before the request, so that even an outcome that is never retained (a pulse) is seen.
        client.subscribe(&[format!("{root}/{device}/event")]).await?;
    }
    let answer = client.request(&format!("{root}/{device}/desired/set"), payload).await?;
    let outcome: Outcome = serde_json::from_slice(&answer)
        .map_err(|error| Failure::new(Kind::Internal, format!("the gateway's answer is no outcome: {error}")))?;
    if !outcome.ok {
        return Err(refused(&outcome));
    }
    let version = outcome.version.unwrap_or_default();
    if !set.wait {
        client.close().await;
        return told(screen, set.json, &serde_json::json!({"ok": true, "version": version}), || {
            format!("accepted as version {version}")
        });
    }
    let until = Instant::now() + set.timeout;
    let ended = wait(&mut client, root, device, (&wishes, version), until).await?;
    client.close().await;
    outcomes(screen, set.json, version, &wishes, &ended)
}

fn told(screen: &mut Screen, json: bool, document: &Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
    if json {
        screen.json(document)?
    } else {
        screen.line(&text())?
    }
    Ok(())
}

/// Follows the wishes until each has ended or the time is over. Retained topics show what happened meanwhile.
async fn wait(
    client: &mut Client,
    root: &str,
    device: &str,
    (wishes, version): (&[String], u64),
    until: Instant,
) -> Result<BTreeMap<String, DesiredOut>, Failure> {
    let mut ended = BTreeMap::new();
    if wishes.is_empty() {
        return Ok(ended);
    }
    let prefix = format!("{root}/{device}/desired/");
    let filters: Vec<String> = wishes.iter().map(|name| format!("{prefix}{name}")).collect();
    client.subscribe(&filters).await?;
    while wishes.iter().any(|name| !ended.get(name).is_some_and(has_ended)) {
        let Some(message) = client.next(until).await? else { break };
        let topic = String::from_utf8_lossy(&message.topic).into_owned();
        if let Some(name) = topic.strip_prefix(&prefix) {
            if let Ok(desired) = serde_json::from_slice::<DesiredOut>(&message.payload) {
                ended.insert(name.to_owned(), desired);
            }
        } else if let Ok(event) = serde_json::from_slice::<Event>(&message.payload) {
            let changes = event.desired.into_iter().filter_map(|(name, desired)| Some((name.to_string(), desired?)));
            // What the new wish replaced ends in the same event; that is not ours.
            let ours = |desired: &DesiredOut| desired.version >= version || desired.state != DesiredState::Superseded;
            ended
                .extend(changes.filter(|(name, desired)| wishes.contains(name) && has_ended(desired) && ours(desired)));
        }
    }
    Ok(ended)
}

fn has_ended(desired: &DesiredOut) -> bool {
    desired.state != DesiredState::Pending
}

fn outcomes(
    screen: &mut Screen,
    json: bool,
    version: u64,
    wishes: &[String],
    ended: &BTreeMap<String, DesiredOut>,
) -> Result<(), Failure> {
    let all_applied =
        wishes.iter().all(|name| ended.get(name).is_some_and(|desired| desired.state == DesiredState::Applied));
    let waiting = wishes.iter().any(|name| !ended.get(name).is_some_and(has_ended));
    if json {
        screen.json(&serde_json::json!({"ok": all_applied, "version": version, "desired": ended}))?;
    } else {
        for name in wishes {
            screen.line(&outcome_line(screen, name, ended.get(name)))?;
        }
    }
    match (all_applied, waiting) {
        (true, _) => Ok(()),
        (false, true) => Err(Failure::told(Kind::TryAgain)),
        (false, false) => Err(Failure::told(Kind::Data)),
    }
}

fn outcome_line(screen: &Screen, name: &str, desired: Option<&DesiredOut>) -> String {
    let Some(desired) = desired else { return format!("{name}: no word yet") };
    let state = screen.paint(word(desired.state), Tone::of_state(word(desired.state)));
    let reason = desired.reason.as_deref().map_or(String::new(), |reason| format!(" ({reason})"));
    format!("{name} = {}: {state}{reason}", text(&desired.value))
}

async fn watch(
    client: &mut Client,
    root: &str,
    devices: &[String],
    json: bool,
    count: Option<u64>,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let names: Vec<&str> = if devices.is_empty() { vec!["+"] } else { devices.iter().map(String::as_str).collect() };
    for device in devices {
        // A name that nobody has would be watched for ever.
        document(client, root, device).await?;
    }
    let filters: Vec<String> =
        names.iter().flat_map(|name| [format!("{root}/{name}/event"), format!("{root}/{name}/status")]).collect();
    client.subscribe(&filters).await?;
    let mut seen = 0;
    let mut stop = std::pin::pin!(tokio::signal::ctrl_c());
    while count.is_none_or(|count| seen < count) {
        let message = tokio::select! {
            // Nothing is lost when this branch wins: the command ends.
            _ = &mut stop => return Ok(()),
            message = client.next(Instant::now() + Duration::from_secs(3600)) => message?,
        };
        let Some(message) = message else { continue };
        let topic = String::from_utf8_lossy(&message.topic).into_owned();
        seen += u64::from(topic.ends_with("/event"));
        let Ok(payload) = serde_json::from_slice::<Value>(&message.payload) else { continue };
        if json {
            screen.json(&serde_json::json!({"topic": topic, "payload": payload}))?;
        } else {
            for line in lines(screen, root, &topic, &payload) {
                screen.line(&line)?;
            }
        }
    }
    Ok(())
}

fn lines(screen: &Screen, root: &str, topic: &str, payload: &Value) -> Vec<String> {
    let device = topic.strip_prefix(root).unwrap_or(topic).trim_start_matches('/').split('/').next().unwrap_or("");
    let at = payload.get("at").or_else(|| payload.get("since")).and_then(Value::as_str).unwrap_or("");
    let at = screen.paint(at, Tone::Faint);
    if topic.ends_with("/status") {
        let state = payload.get("state").and_then(Value::as_str).unwrap_or("unknown");
        return vec![format!("{at} {device} is {}", screen.paint(state, Tone::of_state(state)))];
    }
    let mut lines = Vec::new();
    for (name, change) in payload.get("reported").and_then(Value::as_object).into_iter().flatten() {
        let value = change.get("value").map(text).unwrap_or_default();
        let quality = change.get("quality").and_then(Value::as_str).unwrap_or("good");
        let doubt = if quality == "good" { String::new() } else { format!(" ({})", screen.paint(quality, Tone::Bad)) };
        lines.push(format!("{at} {device} {name} = {value}{doubt}"));
    }
    for (name, change) in payload.get("desired").and_then(Value::as_object).into_iter().flatten() {
        let line = match change.get("state").and_then(Value::as_str) {
            Some(state) => {
                let value = change.get("value").map(text).unwrap_or_default();
                format!("{at} {device} {name} wants {value}: {}", screen.paint(state, Tone::of_state(state)))
            }
            None => format!("{at} {device} {name} wants nothing any more"),
        };
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_json_or_text() {
        let patch = patch(&["a=1".into(), "b=eco".into(), "c=null".into(), "d=\"7\"".into(), "e=x=y".into()]).unwrap();
        let expected = serde_json::json!({"a": 1, "b": "eco", "c": null, "d": "7", "e": "x=y"});
        assert_eq!(serde_json::to_value(patch).unwrap(), expected);
    }

    #[test]
    fn an_assignment_without_a_value_or_made_twice_is_a_usage_error() {
        for words in [vec!["a"], vec!["a=1", "a=2"]] {
            let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
            assert_eq!(patch(&words).unwrap_err().code(), 2);
        }
    }
}
