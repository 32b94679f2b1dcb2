//! TLS around a connection to a device, as MODBUS/TCP Security (specification v21) has it.
//!
//! In: a connected socket, PEM files. Out: a stream whose other side has shown a certificate for the host asked for.
//! Must never trust a certificate that rustls has not verified, and never keep a key longer than the connection.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use protocols::config::TlsWire;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::LinkError;

/// Greets the device on a connected socket. The files are read anew each time: certificates are renewed.
pub(super) async fn greet(wire: &TlsWire, socket: TcpStream) -> Result<TlsStream<TcpStream>, LinkError> {
    let failed = |text: String| LinkError::Tls { address: wire.address.clone(), text };
    let files = wire.clone();
    // A file may lie on a disk that has to wake up first.
    let config =
        tokio::task::spawn_blocking(move || config(&files)).await.map_err(|error| failed(error.to_string()))??;
    let host = wire.address.rsplit_once(':').map_or(wire.address.as_str(), |(host, _)| host);
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    let name = name.map_err(|error| failed(error.to_string()))?;
    TlsConnector::from(config).connect(name, socket).await.map_err(|error| failed(error.to_string()))
}

fn config(wire: &TlsWire) -> Result<Arc<ClientConfig>, LinkError> {
    let failed = |text: String| LinkError::Tls { address: wire.address.clone(), text };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&wire.ca)? {
        roots.add(certificate).map_err(|error| file(&wire.ca, &error))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .with_root_certificates(roots);
    Ok(Arc::new(match &wire.client {
        Some((chain, key)) => {
            let secret = PrivateKeyDer::from_pem_file(Path::new(key)).map_err(|error| file(key, &error))?;
            builder.with_client_auth_cert(certificates(chain)?, secret).map_err(|error| file(chain, &error))?
        }
        None => builder.with_no_client_auth(),
    }))
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, LinkError> {
    let list = CertificateDer::pem_file_iter(Path::new(path)).map_err(|error| file(path, &error))?;
    let list: Vec<_> = list.collect::<Result<_, _>>().map_err(|error| file(path, &error))?;
    if list.is_empty() { Err(file(path, &"there is no certificate in it")) } else { Ok(list) }
}

fn file(path: &str, error: &dyn std::fmt::Display) -> LinkError {
    LinkError::File { path: path.to_owned(), text: error.to_string() }
}

/// Waits for bytes; 0 when the other side is gone, whether it said so or not.
pub(super) async fn read(stream: &mut TlsStream<TcpStream>, room: &mut [u8]) -> io::Result<usize> {
    match stream.read(room).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        other => other,
    }
}

/// Takes what has come already, as the `try_read` of a socket does.
pub(super) fn read_now(stream: &mut TlsStream<TcpStream>, room: &mut [u8]) -> io::Result<usize> {
    let mut buffer = ReadBuf::new(room);
    // Nobody is to be woken: the next read that waits says so itself.
    match Pin::new(stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer) {
        Poll::Ready(result) => result.map(|()| buffer.filled().len()),
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Sends all bytes: what is only encrypted is not sent yet.
pub(super) async fn send(stream: &mut TlsStream<TcpStream>, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}
