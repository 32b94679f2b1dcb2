//! Datagrams to one device: nothing says that they arrive, or that anybody is there.
//!
//! In: an address, requests. Out: what the device sends back, one datagram at a time. Must never take a refusal for the
//! end of the link: the device may be back for the next request.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{UdpSocket, lookup_host};

use super::{LinkError, network_error};

/// Datagrams without a byte and refusals that are passed over in one look.
const PASSED: usize = 16;

/// A socket that hears this address alone.
pub(super) async fn open(address: &str) -> Result<UdpSocket, LinkError> {
    let unknown = |text: String| LinkError::UnknownHost { address: address.to_owned(), text };
    let mut last = unknown("it has no address".to_owned());
    for there in lookup_host(address).await.map_err(|error| unknown(error.to_string()))? {
        match connect(there).await {
            Ok(socket) => return Ok(socket),
            Err(error) => last = network_error(address, &error),
        }
    }
    Err(last)
}

async fn connect(there: SocketAddr) -> io::Result<UdpSocket> {
    let here: SocketAddr =
        if there.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(here).await?;
    socket.connect(there).await?;
    Ok(socket)
}

/// Waits for a datagram with something in it. Losing the future loses none.
pub(super) async fn read(socket: &UdpSocket, room: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.recv(room).await {
            Ok(0) => {}
            Err(error) if is_refusal(&error) => {}
            other => return other,
        }
    }
}

/// As `try_read` of a stream.
pub(super) fn read_now(socket: &UdpSocket, room: &mut [u8]) -> io::Result<usize> {
    for _ in 0..PASSED {
        match socket.try_recv(room) {
            Ok(0) => {}
            Err(error) if is_refusal(&error) => {}
            other => return other,
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// Sends one datagram. The refusal of an earlier one may be told here; this one has not been sent then.
pub(super) async fn send(socket: &UdpSocket, bytes: &[u8]) -> io::Result<()> {
    match socket.send(bytes).await {
        Err(error) if is_refusal(&error) => match socket.send(bytes).await {
            Err(error) if !is_refusal(&error) => Err(error),
            _ => Ok(()),
        },
        sent => sent.map(drop),
    }
}

/// The system tells that nothing listens there; the request is as good as lost.
fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}
