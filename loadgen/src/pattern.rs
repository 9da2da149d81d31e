//! What a bulk transfer over TCP carries: a request, bytes that say where they belong, and a verdict.
//!
//! ```text
//!   upload     client ─▶ request │ pattern …, end      far end ─▶ verdict, end
//!   download   client ─▶ request                        far end ─▶ pattern …, end
//!   request    header of payload (32) │ bytes (8) │ milliseconds (4)
//!   verdict    header of payload (32) │ received (8) │ damaged (8)
//! ```
//!
//! The pattern is eight bytes by eight a function of run, session, direction and place, so that a
//! byte that is changed, missing, doubled or another session's is seen. Numbers are big-endian, the
//! pattern's little-endian. Shared by the clients and by `loadgen reflect`.

use crate::payload::{HEADER_LEN, Header, Kind, Payload};

/// Bytes of a request, and of a verdict.
pub(crate) const REQUEST_LEN: usize = HEADER_LEN + 12;
pub(crate) const VERDICT_LEN: usize = HEADER_LEN + 16;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// [`Kind::Upload`] or [`Kind::Download`].
    pub(crate) kind: Kind,
    pub(crate) run: u32,
    pub(crate) session: u32,
    /// A download ends after so many bytes, or so many milliseconds; 0 is no bound.
    pub(crate) bytes: u64,
    pub(crate) duration_ms: u32,
}

impl Request {
    pub(crate) fn emit(&self) -> [u8; REQUEST_LEN] {
        let mut message = [0; REQUEST_LEN];
        message[HEADER_LEN..HEADER_LEN + 8].copy_from_slice(&self.bytes.to_be_bytes());
        message[HEADER_LEN + 8..].copy_from_slice(&self.duration_ms.to_be_bytes());
        header(self.kind, self.run, self.session).seal(&mut message);
        message
    }

    /// Reads a request; `None` if it is none.
    pub(crate) fn parse(message: &[u8; REQUEST_LEN]) -> Option<Self> {
        let Payload::Ours(header) = Header::open(message) else {
            return None;
        };
        let (bytes, rest) = message.get(HEADER_LEN..)?.split_first_chunk()?;
        let (duration_ms, _) = rest.split_first_chunk()?;
        matches!(header.kind, Kind::Upload | Kind::Download).then_some(Self {
            kind: header.kind,
            run: header.run,
            session: header.session,
            bytes: u64::from_be_bytes(*bytes),
            duration_ms: u32::from_be_bytes(*duration_ms),
        })
    }

    /// The bytes that are moved for it.
    pub(crate) const fn pattern(&self) -> Pattern {
        Pattern::new(self.run, self.session, self.kind)
    }
}

/// What the far end says of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) run: u32,
    pub(crate) session: u32,
    /// Bytes of pattern.
    pub(crate) received: u64,
    /// Of these, from the first damaged one on; 0 if none was.
    pub(crate) damaged: u64,
}

impl Verdict {
    pub(crate) fn emit(&self) -> [u8; VERDICT_LEN] {
        let mut message = [0; VERDICT_LEN];
        message[HEADER_LEN..HEADER_LEN + 8].copy_from_slice(&self.received.to_be_bytes());
        message[HEADER_LEN + 8..].copy_from_slice(&self.damaged.to_be_bytes());
        header(Kind::Tally, self.run, self.session).seal(&mut message);
        message
    }

    /// Reads a verdict; `None` if it is none.
    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        let message: &[u8; VERDICT_LEN] = message.try_into().ok()?;
        let Payload::Ours(header) = Header::open(message) else {
            return None;
        };
        let (received, rest) = message.get(HEADER_LEN..)?.split_first_chunk()?;
        let (damaged, _) = rest.split_first_chunk()?;
        (header.kind == Kind::Tally).then_some(Self {
            run: header.run,
            session: header.session,
            received: u64::from_be_bytes(*received),
            damaged: u64::from_be_bytes(*damaged),
        })
    }
}

const fn header(kind: Kind, run: u32, session: u32) -> Header {
    Header {
        kind,
        run,
        session,
        sequence: 0,
        planned: 0,
    }
}

/// The bytes of one transfer, from a place on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    key: u64,
    at: u64,
}

impl Pattern {
    pub(crate) const fn new(run: u32, session: u32, kind: Kind) -> Self {
        let names = ((run as u64) << 32) | session as u64;
        Self {
            key: (names ^ kind as u64).wrapping_mul(0xd6e8_feb8_6659_fd93),
            at: 0,
        }
    }

    /// How many were made or compared.
    pub(crate) const fn at(&self) -> u64 {
        self.at
    }

    fn word(&self, index: u64) -> [u8; 8] {
        let mixed = (self.key ^ index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 32)).to_le_bytes()
    }

    /// Fills `bytes` with the next ones.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        let (head, rest) = bytes.split_at_mut(self.to_boundary(bytes.len()));
        self.fill_part(head);
        let (words, tail) = rest.as_chunks_mut::<8>();
        let first = self.at / 8;
        for (word, index) in words.iter_mut().zip(first..) {
            *word = self.word(index);
        }
        self.at += (words.len() * 8) as u64;
        self.fill_part(tail);
    }

    /// Whether `bytes` are the next ones.
    pub(crate) fn check(&mut self, bytes: &[u8]) -> bool {
        let (head, rest) = bytes.split_at(self.to_boundary(bytes.len()));
        let mut is_right = self.check_part(head);
        let (words, tail) = rest.as_chunks::<8>();
        let first = self.at / 8;
        let wrong = words.iter().zip(first..).fold(0, |wrong, (word, index)| {
            wrong | (u64::from_le_bytes(*word) ^ u64::from_le_bytes(self.word(index)))
        });
        is_right &= wrong == 0;
        self.at += (words.len() * 8) as u64;
        is_right & self.check_part(tail)
    }

    /// Bytes until the next whole word, `len` at most.
    fn to_boundary(self, len: usize) -> usize {
        let missing = (8 - self.at % 8) % 8;
        usize::try_from(missing).unwrap_or(0).min(len)
    }

    fn fill_part(&mut self, part: &mut [u8]) {
        for place in part {
            *place = self.byte();
        }
    }

    fn check_part(&mut self, part: &[u8]) -> bool {
        part.iter()
            .fold(true, |is_right, byte| is_right & (*byte == self.byte()))
    }

    fn byte(&mut self) -> u8 {
        let word = self.word(self.at / 8);
        let offset = usize::try_from(self.at % 8).unwrap_or(0);
        self.at += 1;
        word.get(offset).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Request = Request {
        kind: Kind::Upload,
        run: 7,
        session: 9,
        bytes: 1 << 40,
        duration_ms: 10_000,
    };

    #[test]
    fn messages_are_read_back_and_damage_is_seen() {
        let message = REQUEST.emit();
        assert_eq!(Request::parse(&message), Some(REQUEST));
        let verdict = Verdict {
            run: 7,
            session: 9,
            received: 1 << 33,
            damaged: 5,
        };
        let answer = verdict.emit();
        assert_eq!(Verdict::parse(&answer), Some(verdict));
        assert_eq!(Verdict::parse(&answer[1..]), None);
        assert_eq!(Verdict::parse(&message), None);
        for bit in 0..message.len() * 8 {
            let mut damaged = message;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Request::parse(&damaged), None, "bit {bit}");
        }
    }

    #[test]
    fn a_pattern_is_the_same_however_it_is_cut() {
        let mut whole = [0; 1000];
        REQUEST.pattern().fill(&mut whole);
        for step in [1, 3, 8, 13, 64, 999] {
            let (mut maker, mut checker) = (REQUEST.pattern(), REQUEST.pattern());
            let mut made = [0; 1000];
            for part in made.chunks_mut(step) {
                maker.fill(part);
            }
            assert_eq!(made, whole);
            assert!(made.chunks(step).all(|part| checker.check(part)));
            assert_eq!(checker.at(), 1000);
        }
    }

    #[test]
    fn what_does_not_belong_is_seen() {
        let mut whole = [0; 100];
        REQUEST.pattern().fill(&mut whole);
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!REQUEST.pattern().check(&damaged), "bit {bit}");
        }
        // A word is missing.
        assert!(!REQUEST.pattern().check(&whole[8..]));
        // Another session's, run's, direction's.
        let session = Request {
            session: 8,
            ..REQUEST
        };
        let run = Request { run: 8, ..REQUEST };
        let kind = Request {
            kind: Kind::Download,
            ..REQUEST
        };
        for other in [session, run, kind] {
            assert!(!other.pattern().check(&whole), "{other:?}");
        }
    }
}
