//! Numbers as devices write them in text.
//!
//! In: text of a field. Out: a raw number. Must never make a number of a text that only begins with one.

use crate::codec::Raw;

/// The longest number, in characters; a longer text is none.
const DIGITS: usize = 40;

/// A decimal number: a sign, spaces around it, a dot or a comma, an exponent. Whole ones stay exact.
pub(super) fn decimal(text: &str) -> Option<Raw> {
    let plain = plain(text)?;
    if plain.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'+')) {
        return plain.parse().ok().map(Raw::Int);
    }
    let number: f64 = plain.parse().ok()?;
    number.is_finite().then_some(Raw::Float(number))
}

/// A number times another, exact in decimals: 12.34 × 0.001 is 0.01234.
pub(super) fn product(text: &str, factor: &str) -> Option<Raw> {
    let (left, right) = (parts(&plain(text)?)?, parts(&plain(factor)?)?);
    scaled(left.0.checked_mul(right.0)?, left.1.checked_add(right.1)?)
}

/// `mantissa × 10^exponent`.
pub(super) fn scaled(mantissa: i128, exponent: i32) -> Option<Raw> {
    if exponent == 0 {
        return Some(Raw::Int(mantissa));
    }
    // The standard library reads decimals correctly rounded, which multiplying would not be.
    let number: f64 = format!("{mantissa}e{exponent}").parse().ok()?;
    number.is_finite().then_some(Raw::Float(number))
}

/// A number in hexadecimal digits, with `0x` or without.
pub(super) fn hexadecimal(text: &str) -> Option<Raw> {
    let text = text.trim();
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let is_hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16).ok().filter(|_| is_hex).map(|number| Raw::Int(i128::from(number)))
}

/// Degrees and minutes in one, as navigation writes them: `4916.45` is 49° 16.45'.
pub(super) fn degrees(text: &str) -> Option<f64> {
    let text = text.trim();
    let (whole, _) = text.split_once('.').unwrap_or((text, ""));
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if !is_plain || text.len() > DIGITS || whole.len() < 3 {
        return None;
    }
    let (degrees, minutes) = text.split_at_checked(whole.len() - 2)?;
    let minutes: f64 = minutes.parse().ok().filter(|minutes| *minutes < 60.0)?;
    Some(degrees.parse::<f64>().ok()? + minutes / 60.0)
}

/// The number in the notation of this language: no spaces, a dot.
fn plain(text: &str) -> Option<String> {
    let text = text.trim();
    if text.len() > DIGITS {
        return None;
    }
    let (sign, rest) = match text.strip_prefix(['+', '-']) {
        Some(rest) => (if text.starts_with('-') { "-" } else { "" }, rest.trim_start()),
        None => ("", text),
    };
    // A comma is a decimal sign only where it is the only sign.
    let rest = if rest.contains('.') { rest.to_owned() } else { rest.replacen(',', ".", 1) };
    let first = rest.bytes().next()?;
    let is_number = (first.is_ascii_digit() || first == b'.')
        && rest.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    is_number.then(|| format!("{sign}{rest}"))
}

/// Mantissa and exponent.
fn parts(plain: &str) -> Option<(i128, i32)> {
    let (digits, exponent) = match plain.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok().filter(|power| power.abs() < 300)?),
        None => (plain, 0),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let places = i32::try_from(fraction.len()).ok()?;
    Some((format!("{whole}{fraction}").parse().ok()?, exponent - places))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_and_devices_write_them() {
        for (text, expected) in [
            ("001581.123", Some(Raw::Float(1581.123))),
            ("000.5", Some(Raw::Float(0.5))),
            ("+  12.34", Some(Raw::Float(12.34))),
            ("-12,5", Some(Raw::Float(-12.5))),
            (" 42 ", Some(Raw::Int(42))),
            ("-7", Some(Raw::Int(-7))),
            ("18446744073709551615", Some(Raw::Int(18_446_744_073_709_551_615))),
            ("1.5E+3", Some(Raw::Float(1500.0))),
            (".5", Some(Raw::Float(0.5))),
            ("1,234.5", None),
            ("1.2.3", None),
            ("--5", None),
            ("12x", None),
            ("", None),
            ("nan", None),
            ("inf", None),
            ("1e999", None),
        ] {
            assert_eq!(decimal(text), expected, "{text}");
        }
        assert_eq!(product("12.34", "0.001"), Some(Raw::Float(0.01234)));
        assert_eq!(product("5", "1"), Some(Raw::Int(5)));
        assert_eq!(product("2", "0.45359237"), Some(Raw::Float(0.907_184_74)));
        assert_eq!(scaled(147_981_129, -1), Some(Raw::Float(14_798_112.9)));
        assert_eq!(hexadecimal("0x1F"), Some(Raw::Int(31)));
        assert_eq!(hexadecimal("+1F"), None);
    }

    #[test]
    fn coordinates_are_degrees_and_minutes_in_one() {
        for (text, expected) in [
            ("4916.45", Some(49.0 + 16.45 / 60.0)),
            ("12311.12", Some(123.0 + 11.12 / 60.0)),
            ("0000.000", Some(0.0)),
            ("16.45", None),
            ("4960.00", None),
            ("-4916.45", None),
            ("", None),
        ] {
            assert_eq!(degrees(text), expected, "{text}");
        }
    }
}
