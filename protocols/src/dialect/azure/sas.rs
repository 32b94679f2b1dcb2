//! The password of a hub device that has a symmetric key: a shared access signature.
//!
//! In: hub, device, its key, until when. Out: the token. Must never show the key.
//!
//! Source: Microsoft documentation, "Control access to IoT Hub by using shared access signatures", "SAS token structure":
//! the URL-encoded resource and the expiry, a line feed between them, signed with HMAC-SHA256 and the decoded key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A key that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is not base64.
    #[error("the key is no base64; copy the primary key of the device as the portal shows it")]
    NotBase64,
    /// HMAC takes any length but none.
    #[error("the key is empty")]
    Empty,
}

/// The token for a hub device, good until `expires_unix_s`.
///
/// # Errors
/// [`KeyError`] where the key is not one that the portal shows.
pub fn sas_token(hub: &str, device: &str, key_base64: &str, expires_unix_s: i64) -> Result<String, KeyError> {
    let key = STANDARD.decode(key_base64.trim()).map_err(|_| KeyError::NotBase64)?;
    if key.is_empty() {
        return Err(KeyError::Empty);
    }
    let resource = encoded(&format!("{hub}/devices/{device}"));
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&key).map_err(|_| KeyError::Empty)?;
    mac.update(format!("{resource}\n{expires_unix_s}").as_bytes());
    let signature = encoded(&STANDARD.encode(mac.finalize().into_bytes()));
    Ok(format!("SharedAccessSignature sr={resource}&sig={signature}&se={expires_unix_s}"))
}

/// Percent-encoding of everything but the unreserved characters (RFC 3986, section 2.3).
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
