//! How the next connection is made: secrets read anew, TLS files read anew, the version to try.
//!
//! In: an upstream, and what its dialect fixes. Out: a [`Dial`]. Must never keep a secret beyond the connection.

use std::path::{Path, PathBuf};
use std::time::Duration;

use protocols::config::upstream::{Dialect as Kind, Upstream};
use protocols::dialect::Session;
use protocols::value::Timestamp;

use super::link::Dial;
use super::packets::{Hello, Version};
use super::reach::{self, Proxy, Route, TlsFiles};
use super::secrets::{self, SecretError};

/// Why no connection can even be tried.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the TLS files cannot be used: {0}")]
    Tls(String),
    #[error("there is no address to go to")]
    Nowhere,
}

/// What a connection is made of.
pub(super) struct Plan {
    pub(super) upstream: Upstream,
    pub(super) session: Session,
    pub(super) gateway: String,
    pub(super) base: PathBuf,
    pub(super) version: Version,
    pub(super) wall: Timestamp,
}

impl Plan {
    /// Reads files; to be called where that may take a moment. Also tells how long the connection may last: a token ends.
    pub(super) fn dial(self) -> Result<(Dial, Option<Duration>), DialError> {
        let Self { upstream, session, gateway, base, version, wall } = self;
        let path = |written: &String| base.join(written);
        let (host, port) = upstream.address().ok_or(DialError::Nowhere)?;
        let tls = upstream.is_tls().then(|| tls(&upstream, &session, &base)).transpose()?;
        let proxy = upstream.proxy.as_deref().map(|url| proxy(url, &upstream, &base)).transpose()?;
        let mut lasts = None;
        let password = match (&upstream.dialect, &upstream.password_file) {
            (Kind::Azure { hub, device, key_file: Some(key), token_ttl }, _) => {
                // the last tenth is kept for making the next connection
                lasts = Some(*token_ttl * 9 / 10);
                Some(secrets::shared_access_signature(&path(key), hub, device, wall, *token_ttl)?)
            }
            (_, Some(file)) => Some(secrets::first_line(&path(file))?),
            (_, None) => None,
        };
        // a token without a name is the name in MQTT 3.1.1, which has no password without one
        let username = upstream.username.clone().or(session.username);
        let (username, password) = match (username, password, &upstream.dialect) {
            (None, Some(token), Kind::ThingsBoard { .. }) => (Some(token), None),
            (None, Some(password), _) => (upstream.client_id.clone().or(Some(gateway.clone())), Some(password)),
            pair_and_dialect => (pair_and_dialect.0, pair_and_dialect.1),
        };
        let hello = Hello {
            client_id: upstream.client_id.clone().or(session.client_id).unwrap_or(gateway),
            username,
            password,
            keep_alive_s: u16::try_from(upstream.keep_alive.as_secs()).unwrap_or(u16::MAX),
            persistent: session.persistent,
            will: session.will,
        };
        Ok((Dial { route: Route { host, port, tls, proxy }, hello, version }, lasts))
    }
}

fn tls(upstream: &Upstream, session: &Session, base: &Path) -> Result<std::sync::Arc<rustls::ClientConfig>, DialError> {
    let files = &upstream.tls;
    let alpn = if files.alpn.is_empty() { session.alpn.clone() } else { files.alpn.clone() };
    let client = files.cert.as_ref().zip(files.key.as_ref()).map(|(cert, key)| (base.join(cert), base.join(key)));
    let files = TlsFiles { ca: files.ca.as_ref().map(|ca| base.join(ca)), client, alpn };
    reach::tls(&files).map_err(DialError::Tls)
}

/// `http://[user@]host:port`, in the form the configuration has let through.
fn proxy(url: &str, upstream: &Upstream, base: &Path) -> Result<Proxy, DialError> {
    let rest = url.trim_start_matches("http://").trim_end_matches('/');
    let (user, address) = match rest.split_once('@') {
        Some((user, address)) => (Some(user.to_owned()), address),
        None => (None, rest),
    };
    let password =
        upstream.proxy_password_file.as_ref().map(|file| secrets::first_line(&base.join(file))).transpose()?;
    Ok(Proxy { address: address.to_owned(), user: user.map(|user| (user, password.unwrap_or_default())) })
}
