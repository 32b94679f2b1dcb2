//! Checksums by name or by parameters, and where a message carries its own.
//!
//! In: a message. Out: whether it is whole. Must never find a check where the message is too short to hold one.
//!
//! The CRC engine takes its parameters while the program runs, which those of the `crc` crate cannot; the names and
//! parameters of the catalogue are that crate's, and it is the referee in the tests.

use super::marks;

/// The catalogue's algorithms, by the words of profiles: `CRC-16/ARC` is `crc16_arc`.
macro_rules! catalogue {
    ($($name:ident),* $(,)?) => {
        fn catalogue() -> Vec<(String, Crc)> {
            vec![$((word(stringify!($name)), Crc::new(
                crc::$name.width,
                u64::from(crc::$name.poly),
                u64::from(crc::$name.init),
                (crc::$name.refin, crc::$name.refout),
                u64::from(crc::$name.xorout),
            ))),*]
        }

        #[cfg(test)]
        pub(super) fn referee(message: &[u8]) -> Vec<(String, u64)> {
            use super::tests::Judge as _;

            vec![$((word(stringify!($name)), crc::$name.judge(message))),*]
        }
    };
}

#[rustfmt::skip]
catalogue! {
    CRC_8_AUTOSAR, CRC_8_BLUETOOTH, CRC_8_CDMA2000, CRC_8_DARC, CRC_8_DVB_S2, CRC_8_GSM_A, CRC_8_GSM_B, CRC_8_HITAG,
    CRC_8_I_432_1, CRC_8_I_CODE, CRC_8_LTE, CRC_8_MAXIM_DOW, CRC_8_MIFARE_MAD, CRC_8_NRSC_5, CRC_8_OPENSAFETY,
    CRC_8_ROHC, CRC_8_SAE_J1850, CRC_8_SMBUS, CRC_8_TECH_3250, CRC_8_WCDMA, CRC_16_ARC, CRC_16_CDMA2000, CRC_16_CMS,
    CRC_16_DDS_110, CRC_16_DECT_R, CRC_16_DECT_X, CRC_16_DNP, CRC_16_EN_13757, CRC_16_GENIBUS, CRC_16_GSM,
    CRC_16_IBM_3740, CRC_16_IBM_SDLC, CRC_16_ISO_IEC_14443_3_A, CRC_16_KERMIT, CRC_16_LJ1200, CRC_16_M17,
    CRC_16_MAXIM_DOW, CRC_16_MCRF4XX, CRC_16_MODBUS, CRC_16_NRSC_5, CRC_16_OPENSAFETY_A, CRC_16_OPENSAFETY_B,
    CRC_16_PROFIBUS, CRC_16_RIELLO, CRC_16_SPI_FUJITSU, CRC_16_T10_DIF, CRC_16_TELEDISK, CRC_16_TMS37157, CRC_16_UMTS,
    CRC_16_USB, CRC_16_XMODEM, CRC_24_BLE, CRC_24_FLEXRAY_A, CRC_24_FLEXRAY_B, CRC_24_INTERLAKEN, CRC_24_LTE_A,
    CRC_24_LTE_B, CRC_24_OPENPGP, CRC_24_OS_9, CRC_32_AIXM, CRC_32_AUTOSAR, CRC_32_BASE91_D, CRC_32_BZIP2,
    CRC_32_CD_ROM_EDC, CRC_32_CKSUM, CRC_32_ISCSI, CRC_32_ISO_HDLC, CRC_32_JAMCRC, CRC_32_MEF, CRC_32_MPEG_2,
    CRC_32_XFER, CRC_64_ECMA_182, CRC_64_GO_ISO, CRC_64_MS, CRC_64_REDIS, CRC_64_WE, CRC_64_XZ,
}

/// Other words people know an algorithm by.
const ALIASES: [(&str, &str); 11] = [
    ("crc16_ccitt_false", "crc16_ibm_3740"),
    ("crc16_x25", "crc16_ibm_sdlc"),
    ("crc16_x_25", "crc16_ibm_sdlc"),
    ("crc16", "crc16_arc"),
    ("crc32", "crc32_iso_hdlc"),
    ("crc8", "crc8_smbus"),
    ("crc8_maxim", "crc8_maxim_dow"),
    ("crc8_sensirion", "crc8_nrsc_5"),
    ("lrc", "sum8_neg"),
    ("lrc8", "sum8_neg"),
    ("bcc", "xor8"),
];

/// The plain sums.
const SUMS: [(&str, Algorithm); 7] = [
    ("xor8", Algorithm::Xor8),
    ("sum8", Algorithm::Sum8),
    ("sum8_neg", Algorithm::Sum8Negated),
    ("sum8_inv", Algorithm::Sum8Inverted),
    ("sum16", Algorithm::Sum16),
    ("sum16_neg", Algorithm::Sum16Negated),
    ("fletcher16", Algorithm::Fletcher16),
];

/// `CRC_16_ARC` → `crc16_arc`.
fn word(constant: &str) -> String {
    constant.to_ascii_lowercase().replacen("crc_", "crc", 1)
}

/// How a number is made of the bytes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// A cyclic redundancy check.
    Crc(Box<Crc>),
    /// All bytes, exclusive or.
    Xor8,
    /// Their sum, 8 bits of it.
    Sum8,
    /// The two's complement of [`Algorithm::Sum8`], so that message and check sum up to 0.
    Sum8Negated,
    /// The one's complement of [`Algorithm::Sum8`].
    Sum8Inverted,
    /// Their sum, 16 bits of it.
    Sum16,
    /// The two's complement of [`Algorithm::Sum16`].
    Sum16Negated,
    /// Fletcher's, modulo 255.
    Fletcher16,
}

impl Algorithm {
    /// The algorithm of that name.
    pub fn named(name: &str) -> Option<Self> {
        let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, own)| *own);
        let sum = SUMS.iter().find(|(sum, _)| *sum == name).map(|(_, sum)| sum.clone());
        sum.or_else(|| catalogue().into_iter().find(|(own, _)| own == name).map(|(_, crc)| Self::Crc(Box::new(crc))))
    }

    /// All names, for messages and schemas.
    pub fn names() -> Vec<String> {
        let sums = SUMS.iter().map(|(name, _)| (*name).to_owned());
        let aliases = ALIASES.iter().map(|(name, _)| (*name).to_owned());
        sums.chain(aliases).chain(catalogue().into_iter().map(|(name, _)| name)).collect()
    }

    /// The check of a message.
    pub fn digest(&self, message: &[u8]) -> u64 {
        let sum = || message.iter().fold(0_u16, |sum, byte| sum.wrapping_add(u16::from(*byte)));
        match self {
            Self::Crc(crc) => crc.digest(message),
            Self::Xor8 => u64::from(message.iter().fold(0, |xor, byte| xor ^ byte)),
            Self::Sum8 => u64::from(sum() & 0xFF),
            Self::Sum8Negated => u64::from(sum().wrapping_neg() & 0xFF),
            Self::Sum8Inverted => u64::from(!sum() & 0xFF),
            Self::Sum16 => u64::from(sum()),
            Self::Sum16Negated => u64::from(sum().wrapping_neg()),
            Self::Fletcher16 => {
                let (low, high) = message.iter().fold((0_u16, 0_u16), |(low, high), byte| {
                    let low = (low + u16::from(*byte)) % 255;
                    (low, (high + low) % 255)
                });
                u64::from(high << 8 | low)
            }
        }
    }

    /// How many bytes the number takes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Crc(crc) => usize::from(crc.width).div_ceil(8),
            Self::Sum16 | Self::Sum16Negated | Self::Fletcher16 => 2,
            Self::Xor8 | Self::Sum8 | Self::Sum8Negated | Self::Sum8Inverted => 1,
        }
    }
}

/// A cyclic redundancy check in the parameters of Ross Williams' model, with its table.
#[derive(Clone, PartialEq, Eq)]
pub struct Crc {
    width: u8,
    init: u64,
    reflect: (bool, bool),
    xorout: u64,
    table: Box<[u64; 256]>,
}

impl std::fmt::Debug for Crc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crc").field("width", &self.width).field("init", &self.init).finish_non_exhaustive()
    }
}

impl Crc {
    /// A CRC of `width` bits, 8 to 64 (held inside). `reflect` is refin and refout.
    pub fn new(width: u8, poly: u64, init: u64, reflect: (bool, bool), xorout: u64) -> Self {
        let width = width.clamp(8, 64);
        let mask = mask(width);
        let mut table = Box::new([0; 256]);
        for (byte, entry) in (0_u64..).zip(table.iter_mut()) {
            *entry = if reflect.0 {
                (0..8).fold(byte, |rest, _| (rest >> 1) ^ if rest & 1 == 1 { reversed(poly & mask, width) } else { 0 })
            } else {
                let top = 1_u64 << (width - 1);
                (0..8)
                    .fold(byte << (width - 8), |rest, _| ((rest << 1) ^ if rest & top != 0 { poly } else { 0 }) & mask)
            };
        }
        Self { width, init: init & mask, reflect, xorout: xorout & mask, table }
    }

    fn digest(&self, message: &[u8]) -> u64 {
        let entry = |index: u64| self.table.get((index & 0xFF) as usize).copied().unwrap_or_default();
        let register = if self.reflect.0 {
            let init = reversed(self.init, self.width);
            message.iter().fold(init, |rest, byte| (rest >> 8) ^ entry(rest ^ u64::from(*byte)))
        } else {
            let shift = self.width - 8;
            message.iter().fold(self.init, |rest, byte| {
                ((rest.wrapping_shl(8)) ^ entry((rest >> shift) ^ u64::from(*byte))) & mask(self.width)
            })
        };
        let turned = self.reflect.0 != self.reflect.1;
        (if turned { reversed(register, self.width) } else { register }) ^ self.xorout
    }
}

fn mask(width: u8) -> u64 {
    u64::MAX >> (64 - u32::from(width.clamp(1, 64)))
}

/// The lowest `width` bits in the opposite order.
fn reversed(bits: u64, width: u8) -> u64 {
    bits.reverse_bits() >> (64 - u32::from(width.clamp(1, 64)))
}

/// One end of what is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edge {
    /// So many bytes from the beginning, or from the end when negative.
    At(i64),
    /// At these bytes: behind the first of them as a beginning, before the last of them as an end.
    Mark(Vec<u8>),
    /// The message's own beginning or end, its end mark included.
    Whole,
}

/// Where the check stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spot {
    /// So many bytes from the beginning, or from the end when negative.
    At(i64),
    /// Behind the last of these bytes.
    After(Vec<u8>),
}

/// How the check is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    /// As a number of so many bytes.
    Binary {
        /// 1 to 8.
        bytes: usize,
        /// The least significant byte first.
        little: bool,
    },
    /// As so many hexadecimal digits. Four and more may lack their zeros: a meter in the field does that.
    Hex(usize),
    /// As a decimal number.
    Decimal,
}

impl Notation {
    /// The notation of that name: `u8`, `u16be`, `u32le`, `hex4`, `dec`.
    pub fn named(name: &str) -> Option<Self> {
        let (bits, little) = match name {
            "dec" => return Some(Self::Decimal),
            "u8" => return Some(Self::Binary { bytes: 1, little: false }),
            _ => match (name.strip_prefix("hex"), name.strip_prefix('u')) {
                (Some(digits), _) => {
                    return digits.parse().ok().filter(|digits| (1..=16).contains(digits)).map(Self::Hex);
                }
                (_, Some(rest)) => (rest.get(..rest.len().checked_sub(2)?)?, rest.ends_with("le")),
                _ => return None,
            },
        };
        let known = name.ends_with("be") || little;
        let bytes = bits.parse::<usize>().ok().filter(|bits| bits % 8 == 0 && (8..=64).contains(bits) && known)? / 8;
        Some(Self::Binary { bytes, little })
    }

    /// Whether it is text.
    pub fn is_text(self) -> bool {
        !matches!(self, Self::Binary { .. })
    }

    /// The check as it travels.
    pub fn write(self, digest: u64) -> Vec<u8> {
        match self {
            Self::Binary { bytes, little } => {
                let all = digest.to_be_bytes();
                let mut number = all.get(all.len().saturating_sub(bytes)..).unwrap_or_default().to_vec();
                if little {
                    number.reverse();
                }
                number
            }
            Self::Hex(digits) => format!("{digest:0digits$X}").into_bytes(),
            Self::Decimal => digest.to_string().into_bytes(),
        }
    }
}

/// How a message is proved whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The sum.
    pub algorithm: Algorithm,
    /// Where the checked bytes begin.
    pub from: Edge,
    /// Where they end; that byte is not among them.
    pub until: Edge,
    /// Where the check stands.
    pub spot: Spot,
    /// How it is written.
    pub notation: Notation,
    /// A message without a check passes.
    pub optional: bool,
}

/// What a check says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is whole.
    Whole,
    /// It carries no check, and need not.
    Unchecked,
    /// It is damaged.
    Damaged,
}

impl Check {
    /// Checks a message; `end` is where it ends with its end mark, before a trailer.
    pub fn verify(&self, message: &[u8], end: usize) -> Verdict {
        let absent = if self.optional { Verdict::Unchecked } else { Verdict::Damaged };
        let Some((checked, rest)) = self.parts(message, end) else { return Verdict::Damaged };
        let found = match self.notation {
            Notation::Binary { bytes, little } => rest.get(..bytes).map(|bytes| number(bytes, little)),
            Notation::Hex(digits) => match text(rest) {
                "" => return absent,
                text if text.len() > digits || (text.len() < digits && digits < 4) => None,
                text => u64::from_str_radix(text, 16).ok(),
            },
            Notation::Decimal => match text(rest) {
                "" => return absent,
                text => text.parse().ok(),
            },
        };
        match found {
            Some(found) if found == self.algorithm.digest(checked) => Verdict::Whole,
            None if rest.is_empty() => absent,
            _ => Verdict::Damaged,
        }
    }

    /// The checked bytes, and those that begin with the check.
    fn parts<'a>(&self, message: &'a [u8], end: usize) -> Option<(&'a [u8], &'a [u8])> {
        let spot = match &self.spot {
            Spot::At(at) => index(message, *at)?,
            Spot::After(mark) => match marks::last(message, mark) {
                Some(at) => at + mark.len(),
                None => message.len(),
            },
        };
        Some((self.checked(message, end)?, message.get(spot..)?))
    }

    fn checked<'a>(&self, message: &'a [u8], end: usize) -> Option<&'a [u8]> {
        let from = match &self.from {
            Edge::At(at) => index(message, *at)?,
            Edge::Mark(mark) => marks::first(message, mark)? + mark.len(),
            Edge::Whole => 0,
        };
        let until = match &self.until {
            Edge::At(at) => index(message, *at)?,
            // A message that lacks the mark is checked to its end; whether it may lack the check is said elsewhere.
            Edge::Mark(mark) => marks::last(message, mark).unwrap_or(message.len()),
            Edge::Whole => end,
        };
        message.get(from..until)
    }

    /// Writes the check of a message into the place where it carries one; `end` is as in [`Check::verify`]. A message that
    /// may lack its check, and does, is left as it is; `None` where there is no place for it.
    pub(super) fn stamp(&self, message: &mut Vec<u8>, end: usize) -> Option<()> {
        let (checked, rest) = self.parts(message, end)?;
        let own = self.notation.write(self.algorithm.digest(checked));
        let width = match self.notation {
            Notation::Binary { bytes, .. } => rest.get(..bytes)?.len(),
            Notation::Hex(_) => rest.iter().take_while(|byte| byte.is_ascii_hexdigit()).count().min(own.len()),
            Notation::Decimal => rest.iter().take_while(|byte| byte.is_ascii_digit()).count(),
        };
        if width == 0 {
            return self.optional.then_some(());
        }
        let at = message.len() - rest.len();
        message.splice(at..at + width, own);
        Some(())
    }

    /// The check of a message that is about to be sent, in which the check's own place holds anything.
    pub fn of(&self, message: &[u8]) -> Option<Vec<u8>> {
        Some(self.notation.write(self.algorithm.digest(self.checked(message, message.len())?)))
    }
}

fn index(message: &[u8], at: i64) -> Option<usize> {
    let length = i64::try_from(message.len()).ok()?;
    usize::try_from(if at < 0 { length + at } else { at }).ok().filter(|at| *at <= message.len())
}

fn number(bytes: &[u8], little: bool) -> u64 {
    let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    if little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) }
}

fn text(bytes: &[u8]) -> &str {
    // What is no text is no number either.
    std::str::from_utf8(bytes).map_or("?", |text| text.trim_end_matches(['\r', '\n', ' ', '\0']))
}
