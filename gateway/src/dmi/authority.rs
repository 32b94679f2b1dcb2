//! HTTP/2 requests whose authority is no authority, put right before the HTTP library sees them.
//!
//! In: what a client sends on its connection. Out: the same, with `:authority` replaced where it is none. Must never
//! change anything else, and never let the header tables of both sides differ.
//!
//! KubeEdge's mappers dial with grpc-go and a dialer of their own, so that the socket's path becomes the request's
//! authority (`%2Fetc%2Fkubeedge%2Fdmi.sock`, or the path itself in older versions); grpc's C core does alike. RFC 9113, section 8.3.1, has no such
//! authority, and the `http` crate's parser ends the stream. The value is replaced by one of the same length, because
//! its length counts in the dynamic table of HPACK (RFC 7541, section 4.1), which both sides have to keep alike.

/// What a client says first (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;

/// Length, type, flags, stream.
const HEAD_BYTES: usize = 9;

/// The largest header block that is looked at; a longer one ends the connection.
const BLOCK_BYTES: usize = 64 * 1024;

/// What fits into one frame on every connection (RFC 9113, section 4.2).
const FRAME_BYTES: usize = 16_384;

const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The index of `:authority` in HPACK's static table.
const AUTHORITY: usize = 1;

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// Longer than anybody's headers.
    #[error("a header block of more than {BLOCK_BYTES} bytes")]
    TooLong,
    /// Not as RFC 9113 has it.
    #[error("a frame that is none")]
    Frame,
    /// Not as RFC 7541 has it.
    #[error("a header block that is none")]
    Block,
}

/// One direction of one connection.
#[derive(Debug, Default)]
pub(super) struct Rewriter {
    preface: usize,
    /// Bytes of a frame that are passed on as they come.
    passing: usize,
    /// A beginning of a frame, or a frame with headers, that is not whole yet.
    waiting: Vec<u8>,
    /// The stream and flags of headers that go on in the next frame, and what there is of them.
    block: Option<(u32, u8, Vec<u8>)>,
}

impl Rewriter {
    /// Takes what came; puts what is to be read behind `out`.
    ///
    /// # Errors
    /// [`Malformed`]; the connection has to end.
    pub(super) fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        let mut pass = |count: usize, bytes: &mut &[u8]| {
            let (now, later) = bytes.split_at(count.min(bytes.len()));
            out.extend_from_slice(now);
            *bytes = later;
            now.len()
        };
        if self.preface < PREFACE_BYTES {
            self.preface += pass(PREFACE_BYTES - self.preface, &mut bytes);
        }
        while !bytes.is_empty() {
            if self.passing > 0 {
                let passed = pass(self.passing, &mut bytes);
                self.passing -= passed;
                continue;
            }
            // One byte at a time only until the head of a frame is whole.
            let wanted = self.wanted();
            let (now, later) = bytes.split_at(wanted.min(bytes.len()));
            self.waiting.extend_from_slice(now);
            bytes = later;
            if now.len() < wanted {
                return Ok(());
            }
            if self.waiting.len() == HEAD_BYTES && self.is_passed()? {
                self.passing = self.length();
                pass(HEAD_BYTES, &mut self.waiting.as_slice());
                self.waiting.clear();
            } else if self.waiting.len() >= HEAD_BYTES && self.wanted() == 0 {
                let frame = std::mem::take(&mut self.waiting);
                let mut whole = Vec::new();
                self.on_headers(&frame, &mut whole)?;
                pass(whole.len(), &mut whole.as_slice());
            }
        }
        Ok(())
    }

    /// Bytes that are missing: of a head, then of a frame with headers.
    fn wanted(&self) -> usize {
        match self.waiting.len() {
            have if have < HEAD_BYTES => HEAD_BYTES - have,
            have => (HEAD_BYTES + self.length()).saturating_sub(have),
        }
    }

    fn length(&self) -> usize {
        let byte = |index: usize| usize::from(self.waiting.get(index).copied().unwrap_or(0));
        byte(0) << 16 | byte(1) << 8 | byte(2)
    }

    /// Whether the frame whose head is there is none with headers.
    fn is_passed(&self) -> Result<bool, Malformed> {
        let kind = self.waiting.get(3).copied().unwrap_or(0);
        match (kind, self.block.is_some()) {
            (HEADERS, false) | (CONTINUATION, true) if self.length() > BLOCK_BYTES => Err(Malformed::TooLong),
            (HEADERS, false) | (CONTINUATION, true) => Ok(false),
            // Nothing may stand between the frames of one block.
            (_, true) | (CONTINUATION, false) => Err(Malformed::Frame),
            _ => Ok(true),
        }
    }

    fn on_headers(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        let (head, payload) = frame.split_at_checked(HEAD_BYTES).ok_or(Malformed::Frame)?;
        let &[_, _, _, kind, flags, s0, s1, s2, s3] = head else { return Err(Malformed::Frame) };
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        if kind == HEADERS {
            self.block = Some((stream, flags & END_STREAM, fragment(payload, flags)?.to_vec()));
        } else if let Some((own, _, block)) = &mut self.block {
            if *own != stream {
                return Err(Malformed::Frame);
            }
            block.extend_from_slice(payload);
            if block.len() > BLOCK_BYTES {
                return Err(Malformed::TooLong);
            }
        }
        if flags & END_HEADERS == 0 {
            return Ok(());
        }
        let Some((stream, kept, block)) = self.block.take() else { return Err(Malformed::Frame) };
        let block = rewritten(&block).ok_or(Malformed::Block)?;
        let mut pieces = block.chunks(FRAME_BYTES).peekable();
        let mut kind = HEADERS;
        let mut flags = kept;
        loop {
            let piece = pieces.next().unwrap_or_default();
            let last = pieces.peek().is_none();
            let length = u32::try_from(piece.len()).map_err(|_| Malformed::TooLong)?.to_be_bytes();
            out.extend_from_slice(length.get(1..).unwrap_or_default());
            out.extend_from_slice(&[kind, flags | if last { END_HEADERS } else { 0 }]);
            out.extend_from_slice(&stream.to_be_bytes());
            out.extend_from_slice(piece);
            if last {
                return Ok(());
            }
            (kind, flags) = (CONTINUATION, 0);
        }
    }
}

/// The header block inside a HEADERS frame. Priorities are passed over, as RFC 9113 wants it.
fn fragment(payload: &[u8], flags: u8) -> Result<&[u8], Malformed> {
    let mut rest = payload;
    let mut padding = 0;
    if flags & PADDED != 0 {
        let (length, after) = rest.split_first().ok_or(Malformed::Frame)?;
        (padding, rest) = (usize::from(*length), after);
    }
    if flags & PRIORITY != 0 {
        rest = rest.get(5..).ok_or(Malformed::Frame)?;
    }
    rest.get(..rest.len().checked_sub(padding).ok_or(Malformed::Frame)?).ok_or(Malformed::Frame)
}

/// A header block with every `:authority` that is none replaced. `None` when it is no header block.
fn rewritten(block: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(block.len());
    let mut rest = block;
    while let Some(first) = rest.first() {
        let start = rest;
        // RFC 7541, section 6: indexed, literal with indexing, size update, literal without.
        let (bits, is_literal) = match first {
            0x80..=0xff => (7, false),
            0x40..=0x7f => (6, true),
            0x20..=0x3f => (5, false),
            _ => (4, true),
        };
        let index = integer(&mut rest, bits)?;
        if is_literal {
            let mut is_wanted = index == AUTHORITY;
            if index == 0 {
                // grpc's C core writes every name out.
                let (coded, huffman) = string(&mut rest)?;
                is_wanted = decoded(coded, huffman)? == b":authority";
            }
            let before = rest;
            let (coded, huffman) = string(&mut rest)?;
            if is_wanted {
                let value = decoded(coded, huffman)?;
                if !is_authority(&value) {
                    out.extend_from_slice(start.get(..start.len() - before.len())?);
                    put_integer(value.len(), 7, &mut out);
                    out.extend(std::iter::repeat_n(b'x', value.len()));
                    continue;
                }
            }
        }
        out.extend_from_slice(start.get(..start.len() - rest.len())?);
    }
    Some(out)
}

/// What the HTTP library takes for an authority, as far as it matters here.
fn is_authority(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte))
}

fn decoded(coded: &[u8], huffman: bool) -> Option<Vec<u8>> {
    if !huffman {
        return Some(coded.to_vec());
    }
    let mut value = Vec::new();
    httlib_huffman::decode(coded, &mut value, httlib_huffman::DecoderSpeed::FourBits).ok()?;
    Some(value)
}

/// An integer with a prefix of so many bits (RFC 7541, section 5.1).
fn integer(rest: &mut &[u8], bits: u8) -> Option<usize> {
    let mut next = || {
        let (first, after) = rest.split_first()?;
        *rest = after;
        Some(usize::from(*first))
    };
    let mask = (1_usize << bits) - 1;
    let mut value = next()? & mask;
    if value < mask {
        return Some(value);
    }
    // Three more bytes are enough for a block of this size.
    for shift in [0, 7, 14] {
        let byte = next()?;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put_integer(value: usize, bits: u8, out: &mut Vec<u8>) {
    let mask = (1_usize << bits) - 1;
    // Each is cut to the bits of its place on purpose.
    let byte = |value: usize| (value & 0xff) as u8;
    if value < mask {
        return out.push(byte(value));
    }
    out.push(byte(mask));
    let mut value = value - mask;
    while value >= 0x80 {
        out.push(byte(value & 0x7f | 0x80));
        value >>= 7;
    }
    out.push(byte(value));
}

/// A string, and whether it is Huffman coded (RFC 7541, section 5.2).
fn string<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], bool)> {
    let huffman = rest.first()? & 0x80 != 0;
    let length = integer(rest, 7)?;
    let (now, later) = rest.split_at_checked(length)?;
    *rest = later;
    Some((now, huffman))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    fn literal(index: u8, value: &[u8]) -> Vec<u8> {
        let mut out = vec![0x40 | index];
        put_integer(value.len(), 7, &mut out);
        [out, value.to_vec()].concat()
    }

    fn through(bytes: &[u8], piece: usize) -> Result<Vec<u8>, Malformed> {
        let (mut rewriter, mut out) = (Rewriter::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            rewriter.push(piece, &mut out)?;
        }
        Ok(out)
    }

    #[test]
    fn a_path_becomes_an_authority_of_the_same_length_however_the_bytes_come() {
        let path = b"%2Fetc%2Fkubeedge%2Fdmi.sock";
        let block = |authority: &[u8]| {
            [&[0x83, 0x86][..], &literal(4, b"/a"), &literal(1, authority), &[0x3f, 0xe1, 0x1f]].concat()
        };
        let stream = |authority: &[u8], tail: &[u8]| {
            let settings = frame(4, 0, 0, &[0; 6]);
            let headers = frame(HEADERS, END_HEADERS, 1, &block(authority));
            let data = frame(0, 1, 1, &[0x41; 300]);
            [PREFACE, &settings, &headers, &data, tail].concat()
        };
        let expected = stream(&[b'x'; 28], b"");
        for piece in [1, 2, 7, 9, 10, 64, 4096] {
            assert_eq!(through(&stream(path, b""), piece).unwrap(), expected, "{piece}");
        }
        // A name may be written out, as grpc's C core does it.
        let spelled = [&[0x40, 10][..], b":authority", &[3], b"a/b"].concat();
        assert_eq!(rewritten(&spelled).unwrap(), [&[0x40, 10][..], b":authority", &[3], b"xxx"].concat());
        // One that is sound stays.
        let sound = stream(b"localhost", &frame(8, 0, 1, &[0, 0, 0, 9]));
        assert_eq!(through(&sound, 5).unwrap(), sound);
    }

    /// The bytes are RFC 7541's own: C.4.1, `www.example.com` Huffman coded.
    #[test]
    fn a_coded_authority_is_understood_and_kept() {
        let block =
            [0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(rewritten(&block).unwrap(), block);
        assert_eq!(decoded(&block[5..], true).unwrap(), b"www.example.com");
        let mut coded = Vec::new();
        httlib_huffman::encode(b"/etc/kubeedge/dmi.sock", &mut coded).unwrap();
        let mut path = vec![0x41, 0x80 | u8::try_from(coded.len()).unwrap()];
        path.extend(coded);
        assert_eq!(rewritten(&path).unwrap(), [&[0x41, 22][..], &[b'x'; 22]].concat());
    }

    #[test]
    fn headers_in_several_frames_with_padding_and_priority_are_put_together() {
        let block = [literal(1, b"/a b"), literal(5, &[b'y'; 40])].concat();
        let (first, second) = block.split_at(3);
        let padded = [&[2][..], &[0; 5], first, &[0, 0]].concat();
        let bytes = [
            PREFACE,
            &frame(HEADERS, PADDED | PRIORITY | END_STREAM, 3, &padded),
            &frame(CONTINUATION, END_HEADERS, 3, second),
        ]
        .concat();
        let whole = [literal(1, b"xxxx"), literal(5, &[b'y'; 40])].concat();
        let expected = [PREFACE, &frame(HEADERS, END_HEADERS | END_STREAM, 3, &whole)].concat();
        for piece in [1, 3, 100] {
            assert_eq!(through(&bytes, piece).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_no_http2_ends_the_connection() {
        for (bytes, expected) in [
            (frame(HEADERS, END_HEADERS, 1, &[0x41, 0x05, b'a']), Malformed::Block),
            (frame(HEADERS, END_HEADERS, 1, &[0xff, 0xff, 0xff, 0xff, 0xff]), Malformed::Block),
            (frame(CONTINUATION, END_HEADERS, 1, &[]), Malformed::Frame),
            ([frame(HEADERS, 0, 1, &[]), frame(0, 0, 1, &[])].concat(), Malformed::Frame),
            ([frame(HEADERS, 0, 1, &[]), frame(CONTINUATION, 4, 3, &[])].concat(), Malformed::Frame),
            (frame(HEADERS, PADDED | END_HEADERS, 1, &[9]), Malformed::Frame),
            (vec![0x02, 0, 0, HEADERS, 4, 0, 0, 0, 1], Malformed::TooLong),
        ] {
            assert_eq!(through(&[PREFACE, &bytes].concat(), 4096), Err(expected), "{bytes:?}");
        }
        assert_eq!(through(b"GET / HTTP/1.1\r\n\r\n", 4), Ok(b"GET / HTTP/1.1\r\n\r\n".to_vec()));
    }
}
