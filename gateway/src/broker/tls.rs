//! TLS of a listener: server certificate, and client certificates where an authority for them is named.
//!
//! In: PEM files. Out: an acceptor; the subject of a client's certificate. Must never accept a client certificate that
//! rustls has not verified.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocols::config::Tls;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Why a listener cannot speak TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file cannot be read or holds nothing of its kind.
    #[error("cannot read {path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
    },
    /// Certificate, key and authority do not make a server.
    #[error("certificate and key cannot be used: {0}")]
    Config(String),
}

/// Makes an acceptor; relative paths start at `base`.
///
/// # Errors
/// When a file cannot be read or used.
pub(super) fn acceptor(tls: &Tls, base: &Path) -> Result<TlsAcceptor, TlsError> {
    let chain = certificates(&base.join(&tls.cert))?;
    let path = base.join(&tls.key);
    let key = PrivateKeyDer::from_pem_file(&path)
        .map_err(|error| TlsError::File { path: path.clone(), error: error.to_string() })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Config(error.to_string()))?;
    let config = match &tls.client_ca {
        None => config.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(&base.join(path))? {
                roots.add(certificate).map_err(|error| TlsError::Config(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| TlsError::Config(error.to_string()))?;
            config.with_client_cert_verifier(verifier)
        }
    };
    let config = config.with_single_cert(chain, key).map_err(|error| TlsError::Config(error.to_string()))?;
    Ok(Arc::new(config).into())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |error: String| TlsError::File { path: path.to_owned(), error };
    let list: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?.collect();
    let list = list.map_err(|error| wrong(error.to_string()))?;
    if list.is_empty() { Err(wrong("no certificate in it".to_owned())) } else { Ok(list) }
}

/// What a person can do about an error of rustls that does not say it.
pub(super) fn hint(error: &str) -> Option<&'static str> {
    // A certificate that openssl signs without a file of extensions.
    let is_first_version = error.contains("UnsupportedCertVersion");
    is_first_version.then_some(
        "this is an X.509 version 1 certificate; sign it as version 3: openssl x509 -req … -extfile FILE, where FILE \
         says basicConstraints=CA:FALSE",
    )
}

/// The common name of a verified certificate's subject, as `CN=…`.
pub(super) fn subject(certificate: &[u8]) -> Option<String> {
    // RFC 5280, 4.1: Certificate → TBSCertificate → [0] version, serial, signature, issuer, validity, subject
    let mut certificate = Der(certificate).next(0x30)?;
    let mut body = certificate.next(0x30)?;
    if body.tag() == Some(0xa0) {
        body.next(0xa0)?;
    }
    body.next(0x02)?;
    body.next(0x30)?;
    body.next(0x30)?;
    body.next(0x30)?;
    let mut names = body.next(0x30)?;
    while let Some(mut set) = names.next(0x31) {
        while let Some(mut pair) = set.next(0x30) {
            // 2.5.4.3, commonName
            if pair.next(0x06)?.0 == [0x55, 0x04, 0x03] {
                let tag = pair.tag()?;
                let text = std::str::from_utf8(pair.next(tag)?.0).ok()?;
                return Some(format!("CN={text}"));
            }
        }
    }
    None
}

/// Walks through DER: tag, length, contents.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn tag(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn next(&mut self, tag: u8) -> Option<Der<'a>> {
        let (&found, rest) = self.0.split_first()?;
        if found != tag {
            return None;
        }
        let (&short, mut rest) = rest.split_first()?;
        let mut length = usize::from(short);
        if short >= 0x80 {
            let count = usize::from(short & 0x7f);
            if count > 4 {
                return None;
            }
            let (digits, after) = rest.split_at_checked(count)?;
            length = digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit));
            rest = after;
        }
        let (contents, after) = rest.split_at_checked(length)?;
        self.0 = after;
        Some(Der(contents))
    }
}
