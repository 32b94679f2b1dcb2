//! Keys of 128 bits, and what is done with them: AES-CCM of sensors, AES of resolvable addresses.
//!
//! In: a key as hexadecimal text; ciphertext with its nonce and tag. Out: plain bytes that are proved, or nothing. Must
//! never show a key, and never give out bytes whose tag does not fit.

use std::fmt;

use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use ccm::aead::AeadInOut;
use ccm::aead::inout::InOutBuf;
use ccm::consts::{U4, U11, U12, U13};
use ccm::{Ccm, Tag};

/// Bytes of the message integrity code of BTHome and MiBeacon.
const TAG_BYTES: usize = 4;

/// A secret of 128 bits. It never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 16]);

/// A text that is no key; it is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key is not 32 hexadecimal digits")]
pub struct KeyError;

impl Key {
    /// Reads 32 hexadecimal digits.
    ///
    /// # Errors
    /// [`KeyError`], without the text.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        hex(text.as_bytes()).and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(KeyError)
    }

    pub(super) fn encrypt(&self, block: [u8; 16]) -> [u8; 16] {
        let mut block = Array::from(block);
        Aes128::new(&Array::from(self.0)).encrypt_block(&mut block);
        block.into()
    }

    /// AES-128-CCM with a nonce of 13 bytes: the ciphertext, and a tag of 4.
    pub(super) fn seal_13(&self, nonce: [u8; 13], aad: &[u8], plain: &[u8]) -> (Vec<u8>, Vec<u8>) {
        seal(&Ccm::<Aes128, U4, U13>::new(&Array::from(self.0)), &Array::from(nonce), aad, plain)
    }

    /// The same with a nonce of 11 bytes.
    pub(super) fn seal_11(&self, nonce: [u8; 11], aad: &[u8], plain: &[u8]) -> (Vec<u8>, Vec<u8>) {
        seal(&Ccm::<Aes128, U4, U11>::new(&Array::from(self.0)), &Array::from(nonce), aad, plain)
    }

    /// The same with a nonce of 12 bytes.
    pub(super) fn seal_12(&self, nonce: [u8; 12], aad: &[u8], plain: &[u8]) -> (Vec<u8>, Vec<u8>) {
        seal(&Ccm::<Aes128, U4, U12>::new(&Array::from(self.0)), &Array::from(nonce), aad, plain)
    }

    /// AES-128-CCM with a nonce of 13 bytes and a tag of 4; `None` when the tag does not fit.
    pub(super) fn open_13(&self, nonce: [u8; 13], aad: &[u8], text: &[u8], tag: &[u8]) -> Option<Vec<u8>> {
        let cipher = Ccm::<Aes128, U4, U13>::new(&Array::from(self.0));
        open(&cipher, &Array::from(nonce), aad, text, tag)
    }

    /// The same with a nonce of 11 bytes.
    pub(super) fn open_11(&self, nonce: [u8; 11], aad: &[u8], text: &[u8], tag: &[u8]) -> Option<Vec<u8>> {
        let cipher = Ccm::<Aes128, U4, U11>::new(&Array::from(self.0));
        open(&cipher, &Array::from(nonce), aad, text, tag)
    }

    /// The same with a nonce of 12 bytes.
    pub(super) fn open_12(&self, nonce: [u8; 12], aad: &[u8], text: &[u8], tag: &[u8]) -> Option<Vec<u8>> {
        let cipher = Ccm::<Aes128, U4, U12>::new(&Array::from(self.0));
        open(&cipher, &Array::from(nonce), aad, text, tag)
    }
}

fn seal<C: AeadInOut<TagSize = U4>>(
    cipher: &C,
    nonce: &ccm::aead::Nonce<C>,
    aad: &[u8],
    plain: &[u8],
) -> (Vec<u8>, Vec<u8>) {
    let mut text = plain.to_vec();
    let tag = cipher.encrypt_inout_detached(nonce, aad, InOutBuf::from(text.as_mut_slice()));
    let tag: Tag<U4> = tag.expect("an advertisement is shorter than what a counter of two bytes can count");
    (text, tag.to_vec())
}

fn open<C: AeadInOut<TagSize = U4>>(
    cipher: &C,
    nonce: &ccm::aead::Nonce<C>,
    aad: &[u8],
    text: &[u8],
    tag: &[u8],
) -> Option<Vec<u8>> {
    let tag: [u8; TAG_BYTES] = tag.try_into().ok()?;
    let mut plain = text.to_vec();
    let tag: Tag<U4> = Array::from(tag);
    cipher.decrypt_inout_detached(nonce, aad, InOutBuf::from(plain.as_mut_slice()), &tag).ok()?;
    Some(plain)
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// The bytes of hexadecimal digits; `None` for anything else, an odd number included.
pub(crate) fn hex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    digits.chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_shows_itself() {
        let key = Key::from_hex("231d39c1d7cc1ab1aee224cd096db932").unwrap();
        assert_eq!(format!("{key:?}"), "Key(…)");
        for text in ["", "231d", "231d39c1d7cc1ab1aee224cd096db93", "231d39c1d7cc1ab1aee224cd096db93g"] {
            let error = Key::from_hex(text).unwrap_err().to_string();
            assert!(!error.contains("231d"), "{error}");
        }
    }

    /// The vector of FIPS 197, appendix B.
    #[test]
    fn the_block_cipher_is_aes() {
        let key = Key::from_hex("2b7e151628aed2a6abf7158809cf4f3c").unwrap();
        let block = hex(b"3243f6a8885a308d313198a2e0370734").unwrap().try_into().unwrap();
        assert_eq!(key.encrypt(block).to_vec(), hex(b"3925841d02dc09fbdc118597196a0b32").unwrap());
    }
}
