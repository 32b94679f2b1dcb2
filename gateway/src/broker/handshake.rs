//! From a CONNECT to a client that is in, or a refusal.
//!
//! In: the first packet and what the transport knows. Out: a [`Client`] and its CONNACK. Must never take a session up
//! before it is clear who is there.

use std::collections::HashMap;
use std::sync::Arc;

use protocols::config::Anonymous;
use ulid::Ulid;

use super::access::Access;
use super::client::{ALIASES_IN, ALIASES_OUT, Client};
use super::codec::connect::{Connect, Refusal, connect};
use super::codec::write::{self, Reader, Welcome};
use super::codec::{V4, V5};
use super::connection::Peer;
use super::core::{Arrival, AttachError};
use super::desk::Claim;
use super::inbound::{Door, RECEIVE_MAXIMUM};
use super::message::Message;
use super::session::{Connected, Will};
use super::shared::Shared;

/// The longest client id, in bytes; it is kept with every message that waits on the shelf.
const CLIENT_ID_BYTES: usize = 256;
/// The longest keep-alive a version 5 client gets, in seconds: one that vanished without a word is noticed, and its will
/// published, within a minute and a half. What is given up: a sleepy client has to ping once a minute, or ask for 0.
const KEEP_ALIVE_MAX_S: u16 = 60;

type No = (u8, &'static str);

/// Reads the CONNECT in `body` and appends a CONNACK; `None` if the client is not let in.
pub(super) async fn enter(
    shared: &Arc<Shared>,
    first: u8,
    body: &[u8],
    peer: &Peer,
    out: &mut Vec<u8>,
) -> Option<Client> {
    let connect = match connect(first, body) {
        Ok(connect) => connect,
        Err(refusal) => {
            refuse_form(refusal, peer, out);
            return None;
        }
    };
    let reader = Reader {
        version: connect.version,
        reasons: connect.problem_information,
        maximum_bytes: connect.maximum_packet_size.unwrap_or(u32::MAX),
    };
    let result = match form(&connect) {
        Ok(()) => admit(shared, &connect, reader, peer, out).await,
        Err(no) => Err(no),
    };
    match result {
        Ok(client) => Some(client),
        Err((reason, text)) => {
            tracing::info!(client = connect.client_id, peer = %peer.address, reason, "refused: {text}");
            write::refusal(out, reader, reason, text);
            None
        }
    }
}

fn refuse_form(refusal: Refusal, peer: &Peer, out: &mut Vec<u8>) {
    let anybody = |version| Reader { version, reasons: true, maximum_bytes: u32::MAX };
    match refusal {
        Refusal::Silent(text) => tracing::info!(peer = %peer.address, "refused: {text}"),
        Refusal::Version { answer } => {
            tracing::info!(peer = %peer.address, "refused: another version of MQTT");
            write::refusal(out, anybody(answer), 0x84, "this broker speaks MQTT 3.1.1 and 5");
        }
        Refusal::Fault(version, fault) => {
            tracing::info!(peer = %peer.address, "refused: {}", fault.text);
            // 3.1.1 has no code for it: the connection is closed without a CONNACK
            if version == V5 {
                write::refusal(out, anybody(V5), fault.reason, fault.text);
            }
        }
    }
}

/// What can be said without knowing who it is.
fn form(connect: &Connect<'_>) -> Result<(), No> {
    if connect.authentication_method {
        return Err((0x8c, "enhanced authentication is not offered"));
    }
    if connect.client_id.len() > CLIENT_ID_BYTES {
        return Err((0x85, "a client id longer than 256 bytes"));
    }
    if connect.client_id.is_empty() && connect.version == V4 && !connect.clean {
        return Err((0x85, "a session that is to be kept needs a client id"));
    }
    Ok(())
}

async fn admit(
    shared: &Arc<Shared>,
    connect: &Connect<'_>,
    reader: Reader,
    peer: &Peer,
    out: &mut Vec<u8>,
) -> Result<Client, No> {
    let assigned = connect.client_id.is_empty().then(|| format!("auto-{}", Ulid::generate()));
    let id = assigned.as_deref().unwrap_or(connect.client_id);
    let access = Arc::new(authenticate(shared, connect, id, peer).await?);
    let will = will(shared, connect, &access)?;
    let door = Arc::new(Door::default());
    let expiry_s = match (connect.version, connect.clean) {
        (V5, _) => connect.session_expiry_s.unwrap_or(0),
        (_, true) => 0,
        (_, false) => u32::MAX,
    };
    let arrival = Arrival {
        client: id.to_owned(),
        access: Arc::clone(&access),
        clean: connect.clean,
        expiry_s,
        will,
        connected: Connected {
            generation: 0,
            door: Arc::clone(&door),
            version: connect.version,
            window: connect.receive_maximum.unwrap_or(u16::MAX).min(shared.limits.inflight.max(1)),
            packet_bytes: reader.maximum_bytes,
            local: false,
        },
    };
    if shared.stop.is_cancelled() {
        return Err((0x8b, "the gateway stops"));
    }
    let attached = match shared.act(|core, fx| core.attach(arrival, fx)).value {
        Some(Ok(attached)) => attached,
        Some(Err(AttachError::Full)) => return Err((0x97, "as many clients as this broker takes are connected")),
        Some(Err(AttachError::NotYours)) => return Err((0x87, "this client id belongs to another user")),
        None => return Err((0x83, "a fault inside the broker")),
    };
    let keep_alive_s =
        if connect.version == V5 { connect.keep_alive_s.min(KEEP_ALIVE_MAX_S) } else { connect.keep_alive_s };
    let welcome = Welcome {
        assigned_client_id: assigned.clone(),
        keep_alive_s: (keep_alive_s != connect.keep_alive_s).then_some(keep_alive_s),
        receive_maximum: RECEIVE_MAXIMUM,
        maximum_packet_size: shared.limits.packet_bytes,
        topic_alias_maximum: ALIASES_IN,
    };
    write::welcome(out, connect.version, attached.session_present, &welcome);
    Ok(Client {
        shared: Arc::clone(shared),
        id: id.into(),
        hold: attached.hold,
        serial: attached.serial,
        door,
        inbound: attached.inbound,
        access,
        reader,
        keep_alive_s,
        expiry_s,
        aliases_in: Vec::new(),
        aliases_out: HashMap::new(),
        aliases_out_max: connect.topic_alias_maximum.min(ALIASES_OUT),
        with_desk: Vec::new(),
        refusal_logged: false,
    })
}

/// Who it is: by password, else by certificate, else nobody — if nobody may come in from there.
async fn authenticate(shared: &Shared, connect: &Connect<'_>, id: &str, peer: &Peer) -> Result<Access, No> {
    let users = shared.users();
    if let (Some(users), Some(name)) = (&users, connect.user) {
        let user = users.find(name);
        let hash = user.and_then(|user| user.password.as_deref());
        let by_certificate =
            user.is_some_and(|user| user.certificate.is_some() && user.certificate == peer.certificate);
        if by_certificate && hash.is_none() || shared.passwords.fits(hash, connect.password.unwrap_or_default()).await {
            return user.map(|user| Access::of(users, user, id, &shared.root)).ok_or((0x86, "unknown"));
        }
        return Err((0x86, "the user name or the password is wrong"));
    }
    if let (Some(users), Some(subject)) = (&users, &peer.certificate)
        && let Some(user) = users.by_certificate(subject)
    {
        return Ok(Access::of(users, user, id, &shared.root));
    }
    let local = peer.address.ip().to_canonical().is_loopback();
    match shared.anonymous {
        Anonymous::Always => {}
        Anonymous::LocalOnly if local => {}
        Anonymous::LocalOnly => return Err((0x87, "clients without a name are served on this machine only")),
        Anonymous::Never => return Err((0x87, "a user name is needed")),
    }
    Ok(Access::anonymous(users.as_deref(), id, &shared.root))
}

fn will(shared: &Shared, connect: &Connect<'_>, access: &Access) -> Result<Option<Will>, No> {
    let Some(will) = &connect.will else { return Ok(None) };
    let claim = shared.desk.claim(will.topic);
    if !access.may_publish(will.topic) || claim == Claim::Reserved || claim == Claim::Mapper && !access.mapper {
        return Err((0x87, "this client may not publish to the topic of its will"));
    }
    let mut message = Message::new(will.topic, &will.properties, will.payload);
    message.qos = will.qos;
    message.retain = will.retain;
    Ok(Some(Will { message, delay_s: will.delay_s, expiry_s: will.expiry_s }))
}
