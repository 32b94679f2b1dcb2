//! The way to the other side: name, socket, proxy, TLS.
//!
//! In: a [`Route`]. Out: a stream of bytes. Must never trust a certificate that rustls has not verified, and never put a
//! password into an error.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The longest head of a proxy's answer, in bytes; a longer one is no answer.
const PROXY_HEAD_BYTES: usize = 16 * 1024;
/// How long one address may take to answer a SYN before the next one is tried.
const ADDRESS_WITHIN: Duration = Duration::from_secs(10);

/// Bytes both ways.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// How to get there.
pub(super) struct Route {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) proxy: Option<Proxy>,
}

/// An HTTP proxy that knows CONNECT.
pub(super) struct Proxy {
    /// `host:port`
    pub(super) address: String,
    pub(super) user: Option<(String, String)>,
}

/// Why there is no way.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReachError {
    #[error("cannot reach {place}: {error}")]
    Socket { place: String, error: std::io::Error },
    #[error("the proxy {place} refuses: {answer}")]
    Proxy { place: String, answer: String },
    #[error("TLS with {place}: {error}")]
    Tls { place: String, error: String },
}

/// Goes the whole way.
pub(super) async fn open(route: &Route) -> Result<Box<dyn Stream>, ReachError> {
    let place = format!("{}:{}", route.host, route.port);
    let socket = match &route.proxy {
        None => socket(&place).await?,
        Some(proxy) => through(proxy, &authority(&route.host, route.port)).await?,
    };
    let Some(config) = &route.tls else { return Ok(Box::new(socket)) };
    let wrong = |error: String| ReachError::Tls { place: place.clone(), error };
    let name = ServerName::try_from(route.host.clone()).map_err(|error| wrong(error.to_string()))?;
    let stream = TlsConnector::from(Arc::clone(config)).connect(name, socket).await;
    Ok(Box::new(stream.map_err(|error| wrong(error.to_string()))?))
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

async fn socket(place: &str) -> Result<TcpStream, ReachError> {
    let wrong = |error| ReachError::Socket { place: place.to_owned(), error };
    let unbracketed = place
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse::<u16>().ok()?)));
    let Some((host, port)) = unbracketed else { return Err(wrong(std::io::ErrorKind::InvalidInput.into())) };
    let mut last = std::io::ErrorKind::NotFound.into();
    for address in tokio::net::lookup_host((host, port)).await.map_err(wrong)? {
        match tokio::time::timeout(ADDRESS_WITHIN, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                // small packets must not wait for one another; a socket that cannot be told works all the same
                let _ = socket.set_nodelay(true);
                return Ok(socket);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = std::io::ErrorKind::TimedOut.into(),
        }
    }
    Err(wrong(last))
}

/// RFC 9110, 9.3.6.
async fn through(proxy: &Proxy, authority: &str) -> Result<TcpStream, ReachError> {
    let place = &proxy.address;
    let mut socket = socket(place).await?;
    let broken = |error| ReachError::Socket { place: place.clone(), error };
    let credentials = match &proxy.user {
        Some((user, password)) => {
            format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{password}")))
        }
        None => String::new(),
    };
    let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{credentials}\r\n");
    socket.write_all(request.as_bytes()).await.map_err(broken)?;
    // byte by byte: what comes after the head belongs to the other side
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < PROXY_HEAD_BYTES {
        head.push(socket.read_u8().await.map_err(broken)?);
    }
    let head = String::from_utf8_lossy(&head);
    let status = head.lines().next().unwrap_or("");
    let code = status.split(' ').nth(1).unwrap_or("");
    if status.starts_with("HTTP/1.") && code.len() == 3 && code.starts_with('2') {
        return Ok(socket);
    }
    Err(ReachError::Proxy { place: place.clone(), answer: status.chars().take(100).collect() })
}

/// Files of a TLS client, found.
pub(super) struct TlsFiles {
    pub(super) ca: Option<PathBuf>,
    pub(super) client: Option<(PathBuf, PathBuf)>,
    pub(super) alpn: Vec<String>,
}

/// Reads the files, which may have been renewed since the last time. Without an authority of its own the system's are
/// trusted: they come with the system's updates, and an administrator's own are among them.
pub(super) fn tls(files: &TlsFiles) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match &files.ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err("there is no authority to trust; name one: tls: {ca: …}".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let mut config = match &files.client {
        Some((chain, key)) => {
            let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("{}: {error}", key.display()))?;
            builder
                .with_client_auth_cert(certificates(chain)?, key_der)
                .map_err(|error| format!("{}: {error}", chain.display()))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = files.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let list: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?.collect();
    let list = list.map_err(|error| wrong(&error))?;
    if list.is_empty() { Err(wrong(&"no certificate in it")) } else { Ok(list) }
}
