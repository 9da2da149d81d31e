//! What a session and `loadgen reflect` say to each other of a stream of datagrams, beside the stream.

use super::sizes::Sizes;

/// The body of [`Kind::Start`](crate::payload::Kind::Start): what stream a session asks for. It is
/// followed by the sizes, two bytes each, to the end of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamRequest {
    /// When the first is planned, by the asker's clock; the far end may be late.
    pub(crate) start: u64,
    /// Packets in a thousand seconds.
    pub(crate) rate_milli: u64,
    pub(crate) duration_ms: u32,
}

impl StreamRequest {
    pub(crate) fn emit(&self, sizes: &Sizes) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&self.start.to_be_bytes());
        body.extend_from_slice(&self.rate_milli.to_be_bytes());
        body.extend_from_slice(&self.duration_ms.to_be_bytes());
        body.extend(sizes.list().iter().flat_map(|size| size.to_be_bytes()));
        body
    }

    /// Reads a body; `None` if it is not one.
    pub(crate) fn parse(body: &[u8]) -> Option<(Self, Sizes)> {
        let (start, rest) = body.split_first_chunk::<8>()?;
        let (rate_milli, rest) = rest.split_first_chunk::<8>()?;
        let (duration_ms, rest) = rest.split_first_chunk::<4>()?;
        let (sizes, tail) = rest.as_chunks::<2>();
        let sizes = sizes.iter().map(|size| u16::from_be_bytes(*size)).collect();
        let request = Self {
            start: u64::from_be_bytes(*start),
            rate_milli: u64::from_be_bytes(*rate_milli),
            duration_ms: u32::from_be_bytes(*duration_ms),
        };
        tail.is_empty().then_some(())?;
        Some((request, Sizes::new(sizes)?))
    }
}

/// The body of an answer to [`Kind::Tally`](crate::payload::Kind::Tally): seven numbers of eight bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamTally {
    pub(crate) received: u64,
    pub(crate) received_bytes: u64,
    pub(crate) duplicates: u64,
    pub(crate) reordered: u64,
    pub(crate) corrupted: u64,
    pub(crate) sent: u64,
    pub(crate) sent_bytes: u64,
}

impl StreamTally {
    pub(crate) fn emit(&self) -> Vec<u8> {
        [
            self.received,
            self.received_bytes,
            self.duplicates,
            self.reordered,
            self.corrupted,
            self.sent,
            self.sent_bytes,
        ]
        .iter()
        .flat_map(|number| number.to_be_bytes())
        .collect()
    }

    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let (numbers, rest) = body.as_chunks::<8>();
        let &[a, b, c, d, e, f, g] = numbers else {
            return None;
        };
        let [
            received,
            received_bytes,
            duplicates,
            reordered,
            corrupted,
            sent,
            sent_bytes,
        ] = [a, b, c, d, e, f, g].map(u64::from_be_bytes);
        rest.is_empty().then_some(Self {
            received,
            received_bytes,
            duplicates,
            reordered,
            corrupted,
            sent,
            sent_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_tallies_are_read_back() {
        let request = StreamRequest {
            start: 1,
            rate_milli: 2,
            duration_ms: 3,
        };
        let sizes: Sizes = "64,1400".parse().unwrap();
        let body = request.emit(&sizes);
        assert_eq!(StreamRequest::parse(&body), Some((request, sizes)));
        for len in 0..body.len() {
            let cut = StreamRequest::parse(&body[..len]);
            assert!(
                cut.is_none_or(|(_, sizes)| sizes.list() == [64]),
                "{len} bytes"
            );
        }
        let tally = StreamTally {
            received: 1,
            sent_bytes: 7,
            ..StreamTally::default()
        };
        assert_eq!(StreamTally::parse(&tally.emit()), Some(tally));
        assert_eq!(StreamTally::parse(&tally.emit()[1..]), None);
    }
}
