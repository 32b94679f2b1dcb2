//! Dates in registers: seconds since 1970, and IEC 60870-5 date and time.
//!
//! In: the big-endian number of the registers. Out: an instant — and back. Must never make up a date from fields that
//! hold none. Devices keep local or universal time without saying which; what they say is shown as UTC.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::value::Timestamp;

/// The instant `seconds` after 1970.
pub(super) fn from_epoch(seconds: u32) -> Timestamp {
    Timestamp::from_ms(i64::from(seconds) * 1000)
}

/// The whole seconds of an instant; `None` outside 1970 to 2106.
pub(super) fn to_epoch(at: Timestamp) -> Option<u32> {
    u32::try_from(at.as_ms().div_euclid(1000)).ok()
}

/// IEC 60870-5-4 time in four registers (CP56Time2a of IEC 60870-5-101, 7.2.6.18, turned big-endian):
/// `-- YY | mm dd | HH MM | ms ms`. The year counts from 2000 up to 127; the upper three bits of the day are the day
/// of the week; bit 7 of the minute says that the clock is not set, bit 7 of the hour that it is summer time.
pub(super) fn from_iec(number: u64) -> Option<Timestamp> {
    let byte = |index: u32| (number >> (8 * index)) as u8;
    let (year, month, day) = (byte(6) & 0x7F, byte(5) & 0x0F, byte(4) & 0x1F);
    let (hour, minute, unset) = (byte(3) & 0x1F, byte(2) & 0x3F, byte(2) & 0x80 != 0);
    let (second, ms) = (number as u16 / 1000, i32::from(number as u16 % 1000));
    if unset || second > 59 {
        return None;
    }
    let year = 2000 + i16::from(year);
    let (hour, minute, second) = (hour as i8, minute as i8, second as i8);
    let time = DateTime::new(year, month as i8, day as i8, hour, minute, second, ms * 1_000_000).ok()?;
    Some(Timestamp::from_ms(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond()))
}

/// The number of [`from_iec`], day of the week included (1 = Monday); `None` outside the years 2000 to 2127.
pub(super) fn to_iec(at: Timestamp) -> Option<u64> {
    let time = jiff::Timestamp::from_millisecond(at.as_ms()).ok()?.to_zoned(TimeZone::UTC);
    let year = u64::try_from(time.year() - 2000).ok().filter(|year| *year < 128)?;
    let weekday = time.weekday().to_monday_one_offset() as u64;
    let ms = time.second() as u64 * 1000 + time.millisecond() as u64;
    let (month, day, hour, minute) = (time.month() as u64, time.day() as u64, time.hour() as u64, time.minute() as u64);
    Some(year << 48 | month << 40 | (weekday << 5 | day) << 32 | hour << 24 | minute << 16 | ms)
}
