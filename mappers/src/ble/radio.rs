//! One adapter kept in order: it scans, pauses the scan for a connection, makes one connection at a time, and begins anew
//! what silently stalls.
//!
//! In: what to listen for and whom to connect to. Out: advertisements, links, and the news that the radio is gone. One task
//! owns the [`Transport`], so that the host may go on while a device takes its time. Must never let a slow host hold up
//! the radio: what it does not take is counted and lost.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocols::ble::{Advertisement, Mac};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::transport::{BleError, Event, Link, Pairing, Scan, ScanMode, ScanWish, Transport};
use super::watchdog::{Cure, Watchdog};

/// Advertisements that may wait for the host, in messages; one more is given up and counted.
const HEARD: usize = 4_096;
/// Orders that may wait for the radio; the host gives one at a time.
const ORDERS: usize = 4;
/// Tries to connect when the radio is busy or the link breaks at once.
const CONNECT_TRIES: u32 = 3;
/// From such a try to the next.
const CONNECT_PAUSE: Duration = Duration::from_millis(500);
/// The first pause before a scan that could not be begun is tried again; doubling.
const RESCAN_MIN: Duration = Duration::from_millis(500);
/// The longest such pause.
const RESCAN_MAX: Duration = Duration::from_secs(30);

/// What the radio has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Advertisements heard.
    pub heard: u64,
    /// Advertisements lost, because they came faster than they were taken.
    pub dropped: u64,
    /// Scans begun anew, because they had ended or stalled.
    pub rescans: u64,
    /// Adapters switched off and on, because new scans did not help.
    pub resets: u64,
    /// Connections made.
    pub connects: u64,
    /// Connections that could not be made.
    pub refused: u64,
}

#[derive(Default)]
struct Counts {
    heard: AtomicU64,
    dropped: AtomicU64,
    dropped_below: AtomicU64,
    rescans: AtomicU64,
    resets: AtomicU64,
    connects: AtomicU64,
    refused: AtomicU64,
    deaf: Mutex<Deaf>,
}

/// How long the scan has been paused for connections.
#[derive(Default)]
struct Deaf {
    total: Duration,
    since: Option<Instant>,
}

impl Deaf {
    fn begin(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    fn end(&mut self) {
        self.total += self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
    }

    fn so_far(&self) -> Duration {
        self.total + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Counts {
    fn deaf(&self) -> MutexGuard<'_, Deaf> {
        // A panic under the lock leaves a sum, and that is never half written.
        self.deaf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn one_more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// A link of the radio's; as long as it is held, the adapter is not reset.
pub struct Held<L> {
    link: L,
    _token: Arc<()>,
}

impl<L> Deref for Held<L> {
    type Target = L;

    fn deref(&self) -> &L {
        &self.link
    }
}

impl<L> DerefMut for Held<L> {
    fn deref_mut(&mut self) -> &mut L {
        &mut self.link
    }
}

impl<L: Link> Held<L> {
    /// Ends the link.
    pub async fn disconnect(self) {
        self.link.disconnect().await;
    }
}

enum Order<L> {
    Open(Scan, oneshot::Sender<Result<ScanMode, BleError>>),
    Scan(Scan),
    Connect { address: Mac, pairing: Pairing, limit: Duration, made: oneshot::Sender<Result<Held<L>, BleError>> },
    Close(oneshot::Sender<()>),
}

async fn give<L, A>(
    orders: &mpsc::Sender<Order<L>>,
    order: impl FnOnce(oneshot::Sender<A>) -> Order<L>,
) -> Result<A, BleError> {
    let (answer, answered) = oneshot::channel();
    let gone = || BleError::NoBus("the radio's task has ended".to_owned());
    orders.send(order(answer)).await.map_err(|_| gone())?;
    answered.await.map_err(|_| gone())
}

/// A way to connect to the devices around an adapter. Orders wait for one another: one connection is made at a time.
pub struct Connector<L> {
    orders: mpsc::Sender<Order<L>>,
}

impl<L: Link> Connector<L> {
    /// Connects to a device; at most `limit` is spent, the time until it is heard included.
    ///
    /// # Errors
    /// [`BleError`].
    pub async fn connect(&self, address: Mac, pairing: Pairing, limit: Duration) -> Result<Held<L>, BleError> {
        give(&self.orders, |made| Order::Connect { address, pairing, limit, made }).await?
    }
}

/// An adapter, as its host holds it. It is given up when this is dropped.
pub struct Radio<L> {
    orders: mpsc::Sender<Order<L>>,
    heard: mpsc::Receiver<Advertisement>,
    lost: watch::Receiver<Option<String>>,
    counts: Arc<Counts>,
}

impl<L: Link> Radio<L> {
    /// Gives the transport to a task of its own.
    pub fn start<T: Transport<Link = L>>(transport: T) -> Self {
        let (orders, received) = mpsc::channel(ORDERS);
        let (said, heard) = mpsc::channel(HEARD);
        let (loss, lost) = watch::channel(None);
        let counts = Arc::new(Counts::default());
        let keeper = Keeper {
            transport,
            orders: received,
            said,
            loss,
            counts: Arc::clone(&counts),
            scan: Scan::default(),
            is_open: false,
            mode: None,
            watchdog: Watchdog::new(Instant::now()),
            rescan_at: None,
            rescan_pause: RESCAN_MIN,
            token: Arc::new(()),
        };
        tokio::spawn(keeper.run());
        Self { orders, heard, lost, counts }
    }

    /// Opens the adapter and begins to scan.
    ///
    /// # Errors
    /// When there is no adapter to be had.
    pub async fn open(&mut self, scan: Scan) -> Result<ScanMode, BleError> {
        while self.heard.try_recv().is_ok() {}
        self.order(|done| Order::Open(scan, done)).await?
    }

    /// From now on something else is listened for; `false` when the radio is too busy to be told, and has to be told
    /// again.
    pub fn scan(&mut self, scan: Scan) -> bool {
        self.orders.try_send(Order::Scan(scan)).is_ok()
    }

    /// A way to connect that does not need the radio itself.
    pub fn connector(&self) -> Connector<L> {
        Connector { orders: self.orders.clone() }
    }

    /// Lets the adapter go.
    pub async fn close(&mut self) {
        let _ = self.order(Order::Close).await;
    }

    async fn order<A>(&mut self, order: impl FnOnce(oneshot::Sender<A>) -> Order<L>) -> Result<A, BleError> {
        give(&self.orders, order).await
    }

    /// Waits for the next advertisement, or for the reason why there will be none. Dropping the wait loses nothing.
    ///
    /// # Errors
    /// The reason why the radio is gone.
    pub async fn next(&mut self) -> Result<Advertisement, String> {
        tokio::select! {
            biased;
            heard = self.heard.recv() => heard.ok_or_else(|| "the radio's task has ended".to_owned()),
            lost = self.lost.wait_for(Option::is_some) => {
                Err(lost.ok().and_then(|lost| lost.clone()).unwrap_or_else(|| "the radio's task has ended".to_owned()))
            }
        }
    }

    /// An advertisement that is there already.
    pub fn take(&mut self) -> Option<Advertisement> {
        self.heard.try_recv().ok()
    }

    /// How long the scan has been paused for connections, all together.
    pub fn deaf(&self) -> Duration {
        self.counts.deaf().so_far()
    }

    /// What was counted since the program started.
    pub fn tally(&self) -> Tally {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Tally {
            heard: of(&self.counts.heard),
            dropped: of(&self.counts.dropped) + of(&self.counts.dropped_below),
            rescans: of(&self.counts.rescans),
            resets: of(&self.counts.resets),
            connects: of(&self.counts.connects),
            refused: of(&self.counts.refused),
        }
    }
}

/// The task that owns the transport.
struct Keeper<T: Transport> {
    transport: T,
    orders: mpsc::Receiver<Order<T::Link>>,
    said: mpsc::Sender<Advertisement>,
    loss: watch::Sender<Option<String>>,
    counts: Arc<Counts>,
    scan: Scan,
    is_open: bool,
    mode: Option<ScanMode>,
    watchdog: Watchdog,
    rescan_at: Option<Instant>,
    rescan_pause: Duration,
    token: Arc<()>,
}

impl<T: Transport> Keeper<T> {
    async fn run(mut self) {
        loop {
            let due = self.rescan_at.unwrap_or_else(|| self.watchdog.due());
            // What the other branches had to say, they say again when they are asked again.
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(order) => self.on_order(order).await,
                    None => break,
                },
                event = self.transport.event(), if self.is_open => self.on_event(event).await,
                () = sleep_until(due), if self.is_open => self.on_due().await,
            }
        }
        self.transport.close().await;
    }

    async fn on_order(&mut self, order: Order<T::Link>) {
        match order {
            Order::Open(scan, done) => {
                let opened = self.open(scan).await;
                let _ = done.send(opened);
            }
            Order::Scan(scan) => {
                if scan != self.scan {
                    self.scan = scan;
                    self.listen().await;
                }
            }
            Order::Connect { address, pairing, limit, made } => {
                let link = self.connect(address, pairing, limit).await;
                one_more(if link.is_ok() { &self.counts.connects } else { &self.counts.refused });
                // Who asked is gone: the link is nobody's.
                if let Err(Ok(link)) = made.send(link) {
                    link.disconnect().await;
                }
            }
            Order::Close(done) => {
                self.is_open = false;
                self.transport.close().await;
                let _ = done.send(());
            }
        }
    }

    async fn open(&mut self, scan: Scan) -> Result<ScanMode, BleError> {
        self.is_open = false;
        self.scan = scan;
        self.transport.open().await?;
        self.loss.send_replace(None);
        let mode = self.transport.scan(&self.scan).await;
        if mode.is_err() {
            self.transport.close().await;
        }
        let mode = mode?;
        self.is_open = true;
        self.mode = Some(mode);
        self.rescan_at = None;
        self.rescan_pause = RESCAN_MIN;
        self.watchdog = Watchdog::new(Instant::now());
        Ok(mode)
    }

    async fn on_event(&mut self, event: Event) {
        match event {
            Event::Heard(heard) => self.on_heard(heard),
            Event::ScanEnded(reason) => {
                tracing::debug!(error = reason, "the scan ended");
                one_more(&self.counts.rescans);
                self.mode = None;
                self.rescan_at = Some(Instant::now() + self.rescan_pause);
            }
            Event::Lost(reason) => self.lose(reason).await,
        }
    }

    fn on_heard(&mut self, heard: Advertisement) {
        one_more(&self.counts.heard);
        self.watchdog.on_heard(Instant::now());
        self.rescan_pause = RESCAN_MIN;
        if self.said.try_send(heard).is_err() {
            one_more(&self.counts.dropped);
        }
        self.counts.dropped_below.store(self.transport.dropped(), Ordering::Relaxed);
    }

    async fn lose(&mut self, reason: String) {
        self.is_open = false;
        self.mode = None;
        self.transport.close().await;
        self.loss.send_replace(Some(reason));
    }

    async fn on_due(&mut self) {
        if self.rescan_at.take().is_some() {
            return self.listen().await;
        }
        let cure = self.watchdog.on_due(Instant::now());
        match cure {
            Cure::Reset if Arc::strong_count(&self.token) == 1 => {
                tracing::warn!("nothing is heard any more: the adapter is switched off and on");
                one_more(&self.counts.resets);
                if let Err(error) = self.transport.reset().await {
                    return self.lose(format!("the adapter does not come back: {error}")).await;
                }
            }
            Cure::Reset | Cure::Rescan => {
                tracing::debug!("nothing is heard: the scan is begun anew");
                one_more(&self.counts.rescans);
            }
        }
        self.listen().await;
    }

    /// Scans as the host wishes; what cannot be begun is tried again later.
    async fn listen(&mut self) {
        if !self.is_open {
            return;
        }
        match self.transport.scan(&self.scan).await {
            Ok(mode) => {
                self.mode = Some(mode);
                self.rescan_at = None;
            }
            Err(error) if error.is_radio() => self.lose(error.to_string()).await,
            Err(error) => {
                tracing::debug!(%error, "cannot scan");
                self.mode = None;
                self.rescan_at = Some(Instant::now() + self.rescan_pause);
                self.rescan_pause = (self.rescan_pause * 2).min(RESCAN_MAX);
            }
        }
    }

    async fn connect(&mut self, address: Mac, pairing: Pairing, limit: Duration) -> Result<Held<T::Link>, BleError> {
        let end = Instant::now() + limit;
        let mut tries = 1;
        loop {
            if !self.is_open {
                return Err(BleError::NoBus("the radio is closed".to_owned()));
            }
            // Most controllers cannot scan and open a connection at one time.
            self.counts.deaf().begin();
            self.transport.quiet().await;
            let left = end.saturating_duration_since(Instant::now());
            let made = self.transport.connect(address, pairing, left).await;
            self.counts.deaf().end();
            let error = match made {
                Ok(link) => {
                    self.listen().await;
                    return Ok(Held { link, _token: Arc::clone(&self.token) });
                }
                Err(error) => error,
            };
            if error.is_radio() {
                self.lose(error.to_string()).await;
                return Err(error);
            }
            let is_heard = match &error {
                BleError::NotFound(_) => self.hear_until(Some(address), end).await,
                BleError::Busy(_) | BleError::Disconnected(_) if tries < CONNECT_TRIES => {
                    tries += 1;
                    let until = Instant::now() + CONNECT_PAUSE;
                    self.hear_until(None, until.min(end)).await;
                    until < end
                }
                _ => false,
            };
            if !is_heard {
                self.listen().await;
                return Err(error);
            }
        }
    }

    /// Goes on hearing until then, or until the wanted device is heard, which is told.
    async fn hear_until(&mut self, wanted: Option<Mac>, until: Instant) -> bool {
        if Instant::now() >= until {
            return false;
        }
        let scan = match wanted {
            // A passive scan may not let it through.
            Some(_) => Scan { wish: ScanWish::Active, patterns: Vec::new() },
            None => self.scan.clone(),
        };
        if let Err(error) = self.transport.scan(&scan).await {
            tracing::debug!(%error, "cannot scan");
        }
        while self.is_open {
            let event = tokio::select! {
                event = self.transport.event() => event,
                () = sleep_until(until) => return false,
            };
            let is_wanted = matches!(&event, Event::Heard(heard) if wanted.is_some() && heard.address == wanted);
            self.on_event(event).await;
            if is_wanted {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests;
