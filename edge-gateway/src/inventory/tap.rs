//! Reads a sensor port's packet socket into the inventory. The socket comes from the helper, bound to its port; what XDP drops
//! never reaches it.
//!
//! The kernel is told which frames to leave out (classic BPF, packet(7) and socket(7)): our own, and of TCP all but the first segment
//! of a connection, so that a sensor's readings cost nothing here.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caregate_host::clock;
use socket2::{SockFilter, Socket};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::frame;
use super::metrics::InventoryMetrics;
use super::table::Inventory;

/// Longest frame read: more than a usual MTU; an announcement that is longer is cut and found faulty.
const FRAME_BYTES_MAX: usize = 2048;
/// Frames read in a row, and the pause after so many: 256 in a second, two and a half times what the kernel's meter lets through.
const BURST: usize = 64;
const BURST_PAUSE: Duration = Duration::from_millis(250);
/// The kernel keeps so much while we pause; what comes on top is dropped.
const BUFFER_BYTES: usize = 128 << 10;
/// Before a socket that failed is given up, so that whoever asks for another one doesn't spin.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// Offsets and values of the filter, by packet(7) and the headers' standards.
const FILTER: [SockFilter; 16] = {
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE_AFTER_X: u16 = 0x50;
    const LOAD_IPV4_LENGTH: u16 = 0xb1;
    const JUMP_EQUAL: u16 = 0x15;
    const JUMP_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    /// SKF_AD_OFF + SKF_AD_PKTTYPE.
    const PACKET_TYPE: u32 = 0xffff_f004;
    const PACKET_OUTGOING: u32 = 4;
    const TCP: u32 = 6;
    const SYN: u32 = 2;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, PACKET_TYPE),
        SockFilter::new(JUMP_EQUAL, 13, 0, PACKET_OUTGOING),
        SockFilter::new(LOAD_HALF, 0, 0, 12),
        SockFilter::new(JUMP_EQUAL, 1, 0, 0x0800),
        SockFilter::new(JUMP_EQUAL, 5, 9, 0x86dd),
        // IPv4: protocol, length of the header, TCP's flags.
        SockFilter::new(LOAD_BYTE, 0, 0, 23),
        SockFilter::new(JUMP_EQUAL, 0, 7, TCP),
        SockFilter::new(LOAD_IPV4_LENGTH, 0, 0, 14),
        SockFilter::new(LOAD_BYTE_AFTER_X, 0, 0, 14 + 13),
        SockFilter::new(JUMP_SET, 4, 5, SYN),
        // IPv6.
        SockFilter::new(LOAD_BYTE, 0, 0, 20),
        SockFilter::new(JUMP_EQUAL, 0, 2, TCP),
        SockFilter::new(LOAD_BYTE, 0, 0, 54 + 13),
        SockFilter::new(JUMP_SET, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 2048),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
};

/// The inventory as taps and pages share it.
#[derive(Debug, Clone)]
pub struct Shared {
    table: Arc<Mutex<Inventory>>,
    metrics: InventoryMetrics,
}

impl Shared {
    /// Begins with what was kept.
    #[must_use]
    pub fn new(inventory: Inventory, metrics: InventoryMetrics) -> Self {
        metrics.devices.set(i64::try_from(inventory.len()).unwrap_or(i64::MAX));
        Self { table: Arc::new(Mutex::new(inventory)), metrics }
    }

    /// The table; held for moments only.
    pub fn lock(&self) -> MutexGuard<'_, Inventory> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one frame from a port.
    pub fn take(&self, port: u32, bytes: &[u8], now_us: i64) {
        let sighting = match frame::read(bytes) {
            Ok(sighting) => sighting,
            Err(fault) => {
                self.metrics.faults.with_label_values(&[fault.reason()]).inc();
                return;
            }
        };
        self.metrics.frames.with_label_values(&[sighting.means.as_str()]).inc();
        if let Some(fault) = sighting.fault {
            self.metrics.faults.with_label_values(&[fault.reason()]).inc();
        }
        let mut table = self.lock();
        let noted = table.note(port, &sighting, now_us);
        self.metrics.devices.set(i64::try_from(table.len()).unwrap_or(i64::MAX));
        drop(table);
        self.metrics.noted.with_label_values(&[noted.as_str()]).inc();
    }
}

/// One port's socket.
#[derive(Debug)]
pub struct Tap {
    socket: AsyncFd<Socket>,
    port: u32,
}

impl Tap {
    /// Takes a packet socket (`AF_PACKET`, `SOCK_RAW`) bound to the interface of `port`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The operating system's.
    #[expect(
        deprecated,
        reason = "sound for a type that owns one descriptor and never names another, as Socket"
    )]
    pub fn new(descriptor: OwnedFd, port: u32) -> io::Result<Self> {
        let socket = Socket::from(descriptor);
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(BUFFER_BYTES)?;
        match socket.attach_filter(&FILTER) {
            // The helper may have locked a filter of its own; what it leaves out, we do without.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            other => other?,
        }
        Ok(Self { socket: AsyncFd::with_interest(socket, Interest::READABLE)?, port })
    }

    /// The port that it hears.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Reads until `stop`, or until the socket fails: its interface went down or away.
    pub async fn run(self, shared: Shared, stop: CancellationToken) {
        loop {
            let read = tokio::select! {
                read = self.burst(&shared) => read,
                () = stop.cancelled() => return,
            };
            let pause = if read.is_ok() { BURST_PAUSE } else { FAILURE_PAUSE };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            if let Err(error) = read {
                info!(port = self.port, %error, "the device inventory hears this port no more");
                return;
            }
        }
    }

    /// Reads [`BURST`] frames.
    async fn burst(&self, shared: &Shared) -> io::Result<()> {
        let mut frame = [0; FRAME_BYTES_MAX];
        for _ in 0..BURST {
            let length =
                self.socket.async_io(Interest::READABLE, |mut socket| socket.read(&mut frame)).await?;
            shared.take(self.port, frame.get(..length).unwrap_or_default(), clock::now_us());
        }
        Ok(())
    }
}
