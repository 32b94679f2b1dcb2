//! What a scalar means: the core schema of YAML 1.2, section 10.3.2.
//!
//! In: the text of a plain scalar. Out: null, boolean, number or text. Must never read `off`, `yes` or `12:30` as
//! anything but text, and never lose a digit of a 64-bit integer.

use serde_json::Number;

use super::Data;

/// A number that is none of the 64-bit ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// Reads a plain scalar.
pub(super) fn plain(text: &str) -> Result<Data, TooLarge> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Data::Null),
        "true" | "True" | "TRUE" => return Ok(Data::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Data::Bool(false)),
        ".nan" | ".NaN" | ".NAN" => return Ok(Data::NotFinite("nan")),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Ok(Data::NotFinite("inf")),
        "-.inf" | "-.Inf" | "-.INF" => return Ok(Data::NotFinite("-inf")),
        _ => {}
    }
    if let Some(whole) = integer(text) {
        return whole;
    }
    if is_float(text) {
        let number: f64 = text.parse().map_err(|_| TooLarge)?;
        let number = Number::from_f64(number).ok_or(TooLarge)?;
        return Ok(Data::Number { number, hex: false });
    }
    Ok(Data::Text(text.to_owned()))
}

fn integer(text: &str) -> Option<Result<Data, TooLarge>> {
    let (digits, radix) = match (text.strip_prefix("0x"), text.strip_prefix("0o")) {
        (Some(digits), _) => (digits, 16),
        (_, Some(digits)) => (digits, 8),
        _ => (text.strip_prefix(['+', '-']).unwrap_or(text), 10),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    let signed = if text.starts_with('-') { format!("-{digits}") } else { digits.to_owned() };
    let number = u64::from_str_radix(&signed, radix)
        .map(Number::from)
        .or_else(|_| i64::from_str_radix(&signed, radix).map(Number::from));
    Some(number.map(|number| Data::Number { number, hex: radix == 16 }).map_err(|_| TooLarge))
}

/// `[-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_float(text: &str) -> bool {
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (text, None),
    };
    let mantissa_fits = match mantissa.split_once('.') {
        Some(("", decimals)) => !decimals.is_empty() && is_digits(decimals),
        Some((whole, decimals)) => is_digits(whole) && is_digits(decimals),
        None => !mantissa.is_empty() && is_digits(mantissa),
    };
    mantissa_fits && exponent.is_none_or(|exponent| !exponent.is_empty() && is_digits(exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected meanings are those of YAML 1.2.2, section 10.3.2 and example 10.9.
    #[test]
    fn a_plain_scalar_means_what_yaml_1_2_says() {
        for (text, expected) in [
            ("off", "\"off\""),
            ("on", "\"on\""),
            ("yes", "\"yes\""),
            ("no", "\"no\""),
            ("y", "\"y\""),
            ("12:30", "\"12:30\""),
            ("54:48:E6:8F:80:A5", "\"54:48:E6:8F:80:A5\""),
            ("2001-12-14", "\"2001-12-14\""),
            ("1_000", "\"1_000\""),
            ("0b11", "\"0b11\""),
            ("0x", "\"0x\""),
            ("0xG", "\"0xG\""),
            ("-0x10", "\"-0x10\""),
            ("1.2.3", "\"1.2.3\""),
            (".", "\".\""),
            ("e3", "\"e3\""),
            ("1e", "\"1e\""),
            ("nan", "\"nan\""),
            ("tRUE", "\"tRUE\""),
            ("true", "true"),
            ("FALSE", "false"),
            ("~", "null"),
            ("Null", "null"),
            ("", "null"),
            ("0x10", "16"),
            ("0x3A", "58"),
            ("0o17", "15"),
            ("010", "10"),
            ("+12", "12"),
            ("-19", "-19"),
            ("18446744073709551615", "18446744073709551615"),
            ("0xFFFFFFFFFFFFFFFF", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("0.", "0.0"),
            (".5", "0.5"),
            ("-0.0", "-0.0"),
            ("+12e03", "12000.0"),
            ("-2E+05", "-200000.0"),
            (".inf", "\"inf\""),
            ("-.Inf", "\"-inf\""),
            (".NAN", "\"nan\""),
        ] {
            let place = super::super::Place { file: "x".into(), line: 1, column: 1 };
            let node = super::super::Node { place, data: plain(text).unwrap() };
            assert_eq!(node.to_json().to_string(), expected, "{text}");
        }
        for text in ["18446744073709551616", "-9223372036854775809", "0x10000000000000000", "1e999"] {
            assert!(plain(text).is_err(), "{text}");
        }
    }
}
