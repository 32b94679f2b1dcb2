//! The sign-on of IEC 62056-21 mode C: who the meter is, and how fast it may go on.
//!
//! In: the meter's identification line. Out: what to answer, and the line's new speed. Must never agree on a speed the line
//! cannot have.

/// Speeds by their identification character in mode C, in bits a second (IEC 62056-21, 6.3.14).
const SPEEDS: [(u8, u32); 7] =
    [(b'0', 300), (b'1', 600), (b'2', 1_200), (b'3', 2_400), (b'4', 4_800), (b'5', 9_600), (b'6', 19_200)];

/// What a meter says of itself: `/EMH5\@01LZQJL0013` is EMH's, and may speak at 9,600 bits a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identification {
    /// Three letters of the maker.
    pub maker: String,
    /// The fastest speed it offers, by its character.
    pub speed: u8,
    /// The rest: model and version.
    pub model: String,
}

/// The request that makes a meter identify itself; an empty address asks whoever is there.
pub fn sign_on(address: &str) -> Vec<u8> {
    format!("/?{address}!\r\n").into_bytes()
}

/// Reads an identification line.
pub fn identification(line: &[u8]) -> Option<Identification> {
    let line = std::str::from_utf8(line.strip_prefix(b"/")?).ok()?;
    let (maker, rest) = line.split_at_checked(3)?;
    let speed = rest.bytes().next()?;
    let letters = maker.bytes().all(|byte| byte.is_ascii_alphabetic());
    letters.then(|| Identification {
        maker: maker.to_owned(),
        speed,
        model: rest.get(1..).unwrap_or_default().trim_end().to_owned(),
    })
}

/// What to answer an identification, and the speed from then on: the fastest that the meter offers and that is not above
/// `fastest`. With `None` the line cannot change its speed, and all goes on at 300.
pub fn acknowledgement(meter: &Identification, fastest: Option<u32>) -> (Vec<u8>, u32) {
    let offered = SPEEDS.iter().find(|(letter, _)| *letter == meter.speed).map_or(300, |(_, baud)| *baud);
    let limit = fastest.map_or(300, |fastest| fastest.min(offered));
    let (letter, baud) = SPEEDS.iter().rev().find(|(_, baud)| *baud <= limit).copied().unwrap_or((b'0', 300));
    (vec![0x06, b'0', letter, b'0', b'\r', b'\n'], baud)
}
