//! What survives the end of one broker and the beginning of the next.

use super::*;
use crate::broker::Own;
use crate::broker::shelf::{Change, Done, Inventory, ShelfError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retained_messages_and_sessions_are_there_after_a_restart() {
    let shelf = Arc::new(Memory::default());
    let stage = stage_on(shelf.clone()).await;
    let mut writer = Raw::new(stage.address, 5, "w").await;
    writer.publish1(true, "kept", "value").await;
    writer.publish1(true, "cleared", "value").await;
    writer.publish1(true, "cleared", "").await;
    stage.broker.publish(crate::broker::Own {
        topic: "derived".to_owned(),
        payload: "x".into(),
        retain: true,
        ..Default::default()
    });
    let hello = Hello::keeping(4, "r");
    let mut reader = Raw::enter(stage.address, &hello).await.0;
    reader.subscribe("q/#", 2).await;
    reader.subscribe("gone", 2).await;
    reader.send(&packet(0xa2, &[&[0, 1][..], &text("gone")].concat())).await;
    reader.next().await;
    writer.publish1(false, "q/1", "seen, not acknowledged").await;
    let unanswered = reader.message().await;
    reader.leave().await;
    // times on the shelf are in milliseconds
    tokio::time::sleep(Duration::from_millis(5)).await;
    let mut properties = vec![3];
    properties.extend(text("type"));
    for at in 0..50 {
        writer.publish_with(2, 1, &properties, "q/1", &at.to_string()).await;
        writer.expect(0x40, &[0, 1]).await;
    }
    // QoS 2 of a session that stays, received and not released
    let mut two = Raw::enter(stage.address, &Hello::keeping(4, "two")).await.0;
    two.publish_with(4, 9, &[], "q/2", "once").await;
    two.expect(0x50, &[0, 9]).await;
    stage.broker.shutdown().await;

    let stage = stage_on(shelf).await;
    let mut late = Raw::new(stage.address, 4, "late").await;
    late.subscribe("#", 0).await;
    assert_eq!(late.message().await.topic, "kept");
    late.silent().await;
    let (mut two, present) = Raw::enter(stage.address, &Hello::keeping(4, "two")).await;
    assert!(present);
    two.publish_with(0x0c, 9, &[], "q/2", "once").await;
    two.expect(0x50, &[0, 9]).await;
    two.send(&packet(0x62, &[0, 9])).await;
    two.expect(0x70, &[0, 9]).await;
    late.silent().await;
    let (mut reader, present) = Raw::enter(stage.address, &hello).await;
    assert!(present);
    let again = reader.take().await;
    assert_eq!((again.id, again.dup, again.payload), (unanswered.id, true, unanswered.payload));
    for at in 0..50 {
        let got = reader.take().await;
        assert_eq!((got.dup, got.payload), (false, at.to_string().into_bytes()));
    }
    assert_eq!(reader.take().await.payload, b"once");
    reader.silent().await;
    late.publish_with(0, 0, &[], "gone", "x").await;
    late.publish_with(0, 0, &[], "q/9", "subscribed").await;
    assert_eq!(reader.message().await.payload, b"subscribed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_session_that_ended_stays_on_the_shelf() {
    let shelf = Arc::new(Memory::default());
    let stage = stage_on(shelf.clone()).await;
    let mut raw = Raw::enter(stage.address, &Hello::keeping(4, "r")).await.0;
    raw.subscribe("t", 1).await;
    raw.publish1_to_self("t").await;
    raw.leave().await;
    assert_eq!(shelf.load().unwrap().sessions.len(), 1);
    Raw::new(stage.address, 4, "r").await.leave().await;
    assert_eq!(shelf.load().unwrap(), Inventory::default());
}

/// A shelf that writes when it is told to, or fails.
#[derive(Default)]
struct Slow {
    waiting: std::sync::Mutex<Vec<Done>>,
}

impl Shelf for Slow {
    fn load(&self) -> Result<Inventory, ShelfError> {
        Ok(Inventory::default())
    }

    fn keep(&self, _changes: Vec<Change>, done: Option<Done>) {
        self.waiting.lock().unwrap().extend(done);
    }
}

impl Slow {
    fn answer(&self, result: &Result<(), ShelfError>) {
        for done in std::mem::take(&mut *self.waiting.lock().unwrap()) {
            done(result.clone());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_that_is_kept_is_acknowledged_when_it_is_on_disk_and_not_before() {
    let shelf = Arc::new(Slow::default());
    let stage = stage_on(shelf.clone()).await;
    Raw::enter(stage.address, &Hello { clean: false, ..Hello::new(4, "absent") }).await.0.subscribe("t", 1).await;
    let mut writer = Raw::new(stage.address, 4, "w").await;
    writer.publish_with(3, 1, &[], "kept", "x").await;
    writer.publish_with(2, 2, &[], "t", "queued").await;
    writer.publish_with(4, 3, &[], "t", "queued").await;
    // this one is safe at once, but its turn comes after the others
    writer.publish_with(2, 4, &[], "nobody", "x").await;
    writer.silent().await;
    shelf.answer(&Ok(()));
    for (first, id) in [(0x40, 1), (0x40, 2), (0x50, 3), (0x40, 4)] {
        writer.expect(first, &[0, id]).await;
    }
    writer.publish_with(2, 5, &[], "nobody", "x").await;
    writer.expect(0x40, &[0, 5]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_that_cannot_be_kept_is_never_acknowledged() {
    let shelf = Arc::new(Slow::default());
    let stage = stage_on(shelf.clone()).await;
    for version in [4, 5] {
        let mut writer = Raw::new(stage.address, version, "w").await;
        writer.publish_with(3, 1, &[], "kept", "x").await;
        writer.silent().await;
        shelf.answer(&Err(ShelfError::Store("disk full".to_owned())));
        if version == 4 {
            assert_eq!(writer.ends().await, 0);
        } else {
            let (first, body) = writer.next().await.unwrap();
            assert_eq!((first, &body[..3]), (0x40, &[0, 1, 0x83][..]));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_hears_whether_its_own_word_is_on_disk_once_that_is_known() {
    let shelf = Arc::new(Slow::default());
    let stage = stage_on(shelf.clone()).await;
    let word = |kept| Own { topic: "own".into(), payload: "x".into(), qos: 1, retain: true, kept, ..Own::default() };
    for (result, is_stored) in [(Ok(()), true), (Err(ShelfError::Store("disk full".to_owned())), false)] {
        let mut told = stage.broker.publish_then(word(true));
        assert!(told.try_recv().is_err(), "nothing is known yet");
        shelf.answer(&result);
        assert_eq!(told.await, Ok(is_stored));
    }
    assert!(stage.broker.publish_then(word(false)).await.is_err(), "of what is kept nowhere nothing is told");
}

impl Raw {
    /// Publishes with QoS 1 to a topic it subscribed to, and acknowledges nothing.
    async fn publish1_to_self(&mut self, topic: &str) {
        self.publish_with(2, 1, &[], topic, "x").await;
        self.next().await;
        self.next().await;
    }
}
