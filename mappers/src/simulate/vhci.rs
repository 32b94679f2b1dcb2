//! The kernel's door to Bluetooth controllers that are programs: `/dev/vhci`.
//!
//! In: packets for the host. Out: packets of the host, and the name the kernel gave the adapter. The adapter is gone when this
//! is dropped. Must never block: a packet is taken whole or not at all.
//!
//! Source: Linux, `drivers/bluetooth/hci_vhci.c`.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;

use super::SimulateError;

/// `O_NONBLOCK` of Linux on all machines this is built for.
const NONBLOCKING: i32 = 0o4000;
/// A packet that is for the door itself; with a 0 it orders a controller.
const ORDER: [u8; 2] = [0xFF, 0x00];
/// How long the kernel may take for a new adapter.
const BIRTH: Duration = Duration::from_secs(5);

/// An adapter of ours.
#[derive(Debug)]
pub(super) struct Vhci {
    /// Waits for the kernel as it would on a pipe; whole packets come all the same.
    near: pipe::Receiver,
    file: File,
    /// `hci0`.
    pub(super) adapter: String,
}

impl Vhci {
    pub(super) async fn new(path: &Path) -> Result<Self, SimulateError> {
        let failed = |text: String| SimulateError::Controller { path: PathBuf::from(path), text };
        let opened = File::options().read(true).write(true).custom_flags(NONBLOCKING).open(path);
        let mut file = opened.map_err(|error| {
            let help = match error.kind() {
                io::ErrorKind::NotFound => "; modprobe hci_vhci brings it, where the kernel has it",
                io::ErrorKind::PermissionDenied => "; only root may, unless a udev rule says otherwise",
                _ => "",
            };
            failed(format!("{error}{help}"))
        })?;
        let count = file.write(&ORDER).map_err(|error| failed(error.to_string()))?;
        if count != ORDER.len() {
            return Err(failed("it takes no orders".to_owned()));
        }
        let mut own = Self::over(file).map_err(|error| failed(error.to_string()))?;
        let mut answer = [0; 8];
        let read = tokio::time::timeout(BIRTH, own.read(&mut answer)).await;
        match read.map(|read| read.map(|count| answer.get(..count))) {
            Ok(Ok(Some([0xFF, _, low, high]))) => {
                own.adapter = format!("hci{}", u16::from_le_bytes([*low, *high]));
                Ok(own)
            }
            Ok(Err(error)) => Err(failed(error.to_string())),
            _ => Err(failed("the kernel made no adapter".to_owned())),
        }
    }

    fn over(file: File) -> io::Result<Self> {
        let near = pipe::Receiver::from_file_unchecked(file.try_clone()?)?;
        Ok(Self { near, file, adapter: String::new() })
    }
}

impl AsyncRead for Vhci {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // A read gives one packet, so it is tried until there is none: a pipe that gives less than there is room for is believed
        // to be empty, and the packets behind the first would lie there until another one comes.
        loop {
            std::task::ready!(self.near.poll_read_ready(context))?;
            match self.near.try_read(room.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(|count| room.advance(count))),
            }
        }
    }
}

impl AsyncWrite for Vhci {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // The kernel queues a packet at once or refuses it; it never has to be waited for.
        Poll::Ready(self.file.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    /// A read gives one packet, however large the room: more may wait behind it, and nothing tells of them again.
    #[tokio::test]
    async fn packets_that_came_together_are_all_taken() {
        let (kernel, own) = UnixDatagram::pair().unwrap();
        own.set_nonblocking(true).unwrap();
        let mut own = Vhci::over(File::from(OwnedFd::from(own))).unwrap();
        for round in 0..3_u8 {
            for packet in 0..4_u8 {
                kernel.send(&[round, packet]).unwrap();
            }
            for packet in 0..4_u8 {
                let mut room = [0; 64];
                let read = tokio::time::timeout(Duration::from_secs(5), own.read(&mut room)).await;
                assert_eq!(read.expect("it is not forgotten").unwrap(), 2);
                assert_eq!(room[..2], [round, packet]);
            }
        }
    }
}
