//! Identifiers, checked once where they enter.
//!
//! In: text from files and topics. Out: types that hold only what the contract, section 1, allows. Must never be
//! built past its check.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest identifier, in bytes.
pub const NAME_BYTES: usize = 64;

/// A text that cannot be an identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is no {what}; {rule}")]
pub struct NameError {
    text: String,
    what: &'static str,
    rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $rule:literal, $first:expr, $rest:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let first: fn(u8) -> bool = $first;
                let rest: fn(u8) -> bool = $rest;
                let bytes = text.as_bytes();
                let fits = (1..=NAME_BYTES).contains(&bytes.len())
                    && bytes.first().is_some_and(|byte| first(*byte))
                    && bytes.iter().skip(1).all(|byte| rest(*byte));
                if fits {
                    Ok(Self(text.into()))
                } else {
                    let text = text.chars().take(80).collect();
                    Err(NameError { text, what: $what, rule: $rule })
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;

                impl serde::de::Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("a ", $what))
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(Text)
            }
        }
    };
}

name!(
    /// A gateway's or a device's id: `[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}`.
    DeviceId,
    "device id",
    "write up to 64 of A-Z a-z 0-9 _ . : - and begin with a letter or digit",
    |byte| byte.is_ascii_alphanumeric(),
    |byte| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte)
);

name!(
    /// A property's name: `[A-Za-z][A-Za-z0-9_.-]{0,63}`.
    PropertyName,
    "property name",
    "write up to 64 of A-Z a-z 0-9 _ . - and begin with a letter",
    |byte| byte.is_ascii_alphabetic(),
    |byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_keep_the_contracts_alphabet() {
        let long = "a".repeat(64);
        let too_long = "a".repeat(65);
        for (text, device, property) in [
            ("meter-1", true, true),
            ("1meter", true, false),
            ("a:b", true, false),
            ("a.b_c", true, true),
            ("", false, false),
            ("-a", false, false),
            ("a/b", false, false),
            ("ä", false, false),
            (long.as_str(), true, true),
            (too_long.as_str(), false, false),
        ] {
            assert_eq!(text.parse::<DeviceId>().is_ok(), device, "{text}");
            assert_eq!(text.parse::<PropertyName>().is_ok(), property, "{text}");
        }
    }
}
