//! The broker's shelf as rows: retained messages, sessions, subscriptions, waiting messages, received packet ids.

use std::collections::BTreeMap;

use bytes::Bytes;
use rusqlite::{Connection, Row, params};

use super::open::Fault;
use crate::broker::shelf::{Change, Inventory, Kept, KeptSession, KeptSubscription, KeptWill};

/// The columns of a kept message, in the order of [`kept`].
const KEPT: &str = "topic, payload, qos, retain, properties, subscription_ids, expires_ms, at_ms";

/// The number of a client's delayed will in its queue; those of waiting messages begin at 1. Its row has the moment it is
/// due in `at_ms`, and in `expires_ms` the seconds it lives from then on.
const WILL: u64 = 0;

/// Carries out one change inside the current transaction.
pub(super) fn apply(connection: &Connection, change: &Change) -> Result<(), rusqlite::Error> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| connection.prepare_cached(sql)?.execute(values).map(drop);
    match change {
        Change::Retain(message) => {
            let sql = format!("INSERT OR REPLACE INTO retained ({KEPT}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)");
            connection.prepare_cached(&sql)?.execute(params![
                message.topic,
                message.payload.as_ref(),
                message.qos,
                message.retain,
                message.properties.as_ref(),
                ids(message),
                message.expires_ms,
                message.at_ms
            ])?;
            Ok(())
        }
        Change::Unretain(topic) => run("DELETE FROM retained WHERE topic = ?1", &[topic]),
        Change::Session(session) => run(
            "INSERT OR REPLACE INTO session (client, user, expiry_s, absent_since_ms) VALUES (?1, ?2, ?3, ?4)",
            &[&session.client, &session.user, &session.expiry_s, &session.absent_since_ms],
        ),
        Change::EndSession(client) => {
            for table in ["session", "subscription", "queue", "received"] {
                run(&format!("DELETE FROM {table} WHERE client = ?1"), &[client])?;
            }
            Ok(())
        }
        Change::Subscribe(client, subscription) => run(
            "INSERT OR REPLACE INTO subscription (client, filter, options, subscription_id) VALUES (?1, ?2, ?3, ?4)",
            &[client, &subscription.filter, &subscription.options, &subscription.id],
        ),
        Change::Unsubscribe(client, filter) => {
            run("DELETE FROM subscription WHERE client = ?1 AND filter = ?2", &[client, filter])
        }
        Change::Enqueue(client, seq, message) => enqueue(connection, client, *seq, message),
        Change::Dequeue(client, seq) => {
            run("DELETE FROM queue WHERE client = ?1 AND seq = ?2", &[client, &(*seq as i64)])
        }
        Change::Received(client, id) => {
            run("INSERT OR IGNORE INTO received (client, packet_id) VALUES (?1, ?2)", &[client, id])
        }
        Change::Released(client, id) => run("DELETE FROM received WHERE client = ?1 AND packet_id = ?2", &[client, id]),
        Change::Will(client, Some(will)) => {
            let KeptWill { message, due_ms, expiry_s } = will;
            let message = Kept { at_ms: *due_ms, expires_ms: expiry_s.map(i64::from), ..message.clone() };
            enqueue(connection, client, WILL, &message)
        }
        Change::Will(client, None) => {
            run("DELETE FROM queue WHERE client = ?1 AND seq = ?2", &[client, &(WILL as i64)])
        }
    }
}

fn enqueue(connection: &Connection, client: &str, seq: u64, message: &Kept) -> Result<(), rusqlite::Error> {
    let values = "?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10";
    let sql = format!("INSERT OR REPLACE INTO queue (client, seq, {KEPT}) VALUES ({values})");
    connection.prepare_cached(&sql)?.execute(params![
        client,
        seq as i64,
        message.topic,
        message.payload.as_ref(),
        message.qos,
        message.retain,
        message.properties.as_ref(),
        ids(message),
        message.expires_ms,
        message.at_ms
    ])?;
    Ok(())
}

/// What [`enqueue`] made of a will.
fn will(row: Kept) -> KeptWill {
    let expiry_s = row.expires_ms.and_then(|seconds| u32::try_from(seconds).ok());
    KeptWill { due_ms: row.at_ms, expiry_s, message: Kept { at_ms: 0, expires_ms: None, ..row } }
}

fn ids(message: &Kept) -> String {
    let ids: Vec<String> = message.subscription_ids.iter().map(u32::to_string).collect();
    ids.join(",")
}

/// Reads a kept message whose columns begin at `first`.
fn kept(row: &Row<'_>, first: usize) -> Result<Kept, rusqlite::Error> {
    let ids: String = row.get(first + 5)?;
    Ok(Kept {
        topic: row.get(first)?,
        payload: Bytes::from(row.get::<_, Vec<u8>>(first + 1)?),
        qos: row.get(first + 2)?,
        retain: row.get(first + 3)?,
        properties: Bytes::from(row.get::<_, Vec<u8>>(first + 4)?),
        subscription_ids: ids.split(',').filter_map(|id| id.parse().ok()).collect(),
        expires_ms: row.get(first + 6)?,
        at_ms: row.get(first + 7)?,
    })
}

/// Reads everything.
pub(super) fn load(connection: &Connection) -> Result<Inventory, Fault> {
    let mut sessions: BTreeMap<String, KeptSession> = BTreeMap::new();
    each(connection, "SELECT client, user, expiry_s, absent_since_ms FROM session", |row| {
        let client: String = row.get(0)?;
        let (user, expiry_s, absent_since_ms) = (row.get(1)?, row.get(2)?, row.get(3)?);
        let session = KeptSession { client: client.clone(), user, expiry_s, absent_since_ms, ..KeptSession::default() };
        sessions.insert(client, session);
        Ok(())
    })?;
    each(
        connection,
        "SELECT client, filter, options, subscription_id FROM subscription ORDER BY client, filter",
        |row| {
            if let Some(session) = sessions.get_mut(row.get_ref(0)?.as_str()?) {
                let subscription = KeptSubscription { filter: row.get(1)?, options: row.get(2)?, id: row.get(3)? };
                session.subscriptions.push(subscription);
            }
            Ok(())
        },
    )?;
    each(connection, &format!("SELECT client, seq, {KEPT} FROM queue ORDER BY client, seq"), |row| {
        if let Some(session) = sessions.get_mut(row.get_ref(0)?.as_str()?) {
            match row.get::<_, i64>(1)? as u64 {
                WILL => session.will = Some(will(kept(row, 2)?)),
                seq => session.queue.push((seq, kept(row, 2)?)),
            }
        }
        Ok(())
    })?;
    each(connection, "SELECT client, packet_id FROM received ORDER BY client, packet_id", |row| {
        if let Some(session) = sessions.get_mut(row.get_ref(0)?.as_str()?) {
            session.received.push(row.get(1)?);
        }
        Ok(())
    })?;
    let mut retained = Vec::new();
    each(connection, &format!("SELECT {KEPT} FROM retained ORDER BY topic"), |row| {
        retained.push(kept(row, 0)?);
        Ok(())
    })?;
    Ok(Inventory { retained, sessions: sessions.into_values().collect() })
}

fn each(
    connection: &Connection,
    sql: &str,
    mut take: impl FnMut(&Row<'_>) -> Result<(), rusqlite::Error>,
) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        take(row)?;
    }
    Ok(())
}

/// About how much memory a change holds.
pub(super) fn weight(change: &Change) -> usize {
    let message = |kept: &Kept| kept.topic.len() + kept.payload.len() + kept.properties.len();
    64 + match change {
        Change::Retain(kept) => message(kept),
        Change::Enqueue(client, _, kept) => client.len() + message(kept),
        Change::Session(session) => session.client.len(),
        Change::Will(client, will) => client.len() + will.as_ref().map_or(0, |will| message(&will.message)),
        Change::Subscribe(client, subscription) => client.len() + subscription.filter.len(),
        Change::Unsubscribe(client, text) => client.len() + text.len(),
        Change::Unretain(text)
        | Change::EndSession(text)
        | Change::Dequeue(text, _)
        | Change::Received(text, _)
        | Change::Released(text, _) => text.len(),
    }
}
