//! Bounded reading and writing of byte slices; it knows no protocol.
//!
//! Every integer of SSTP, PPP, EAP and DHCP is big-endian. A [`Reader`] hands out what is there and
//! never more; [`Reader::sub`] makes it impossible to run over a nested length. A [`Writer`] fills a
//! slice that the caller has sized and refuses what does not fit.

/// Fewer bytes were there (or less room) than asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} bytes wanted, {left} left")]
pub struct TooShort {
    /// Bytes asked for.
    pub wanted: usize,
    /// Bytes that were left.
    pub left: usize,
}

/// Reads a slice from front to back.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of the whole of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Bytes not read yet.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.bytes.len()
    }

    /// Whether everything is read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes all that is left.
    pub const fn rest(&mut self) -> &'a [u8] {
        let rest = self.bytes;
        self.bytes = &[];
        rest
    }

    /// Takes the next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], TooShort> {
        let Some((taken, rest)) = self.bytes.split_at_checked(len) else {
            return Err(TooShort {
                wanted: len,
                left: self.bytes.len(),
            });
        };
        self.bytes = rest;
        Ok(taken)
    }

    /// Takes the next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], TooShort> {
        let Some((taken, rest)) = self.bytes.split_first_chunk::<N>() else {
            return Err(TooShort {
                wanted: N,
                left: self.bytes.len(),
            });
        };
        self.bytes = rest;
        Ok(*taken)
    }

    /// A reader of just the next `len` bytes.
    pub fn sub(&mut self, len: usize) -> Result<Self, TooShort> {
        self.take(len).map(Self::new)
    }

    /// Takes one byte.
    pub fn u8(&mut self) -> Result<u8, TooShort> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Takes a big-endian `u16`.
    pub fn u16(&mut self) -> Result<u16, TooShort> {
        self.array().map(u16::from_be_bytes)
    }

    /// Takes a big-endian `u32`.
    pub fn u32(&mut self) -> Result<u32, TooShort> {
        self.array().map(u32::from_be_bytes)
    }
}

/// Fills a slice from front to back.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    /// A writer over the whole of `bytes`.
    pub const fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, len: 0 }
    }

    /// Bytes written so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is written yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is written so far.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Ends the writing and returns what was written, to be changed at will.
    #[must_use]
    pub fn finish(self) -> &'a mut [u8] {
        let len = self.len;
        self.bytes.get_mut(..len).unwrap_or_default()
    }

    /// Appends `bytes`, whole or not at all.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), TooShort> {
        let left = self.bytes.len().saturating_sub(self.len);
        let too_short = TooShort {
            wanted: bytes.len(),
            left,
        };
        let end = self.len.checked_add(bytes.len()).ok_or(too_short)?;
        self.bytes
            .get_mut(self.len..end)
            .ok_or(too_short)?
            .copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) -> Result<(), TooShort> {
        self.put(&[value])
    }

    /// Appends a big-endian `u16`.
    pub fn u16(&mut self, value: u16) -> Result<(), TooShort> {
        self.put(&value.to_be_bytes())
    }

    /// Appends a big-endian `u32`.
    pub fn u32(&mut self, value: u32) -> Result<(), TooShort> {
        self.put(&value.to_be_bytes())
    }

    /// Overwrites the two bytes at `at`, which must be written already, with a big-endian `u16`.
    pub fn set_u16(&mut self, at: usize, value: u16) -> Result<(), TooShort> {
        let too_short = TooShort {
            wanted: at.saturating_add(2),
            left: self.len,
        };
        let end = at
            .checked_add(2)
            .filter(|&end| end <= self.len)
            .ok_or(too_short)?;
        self.bytes
            .get_mut(at..end)
            .ok_or(too_short)?
            .copy_from_slice(&value.to_be_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_never_reads_past_its_slice() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u16(), Ok(0x0102));
        assert_eq!(reader.u16(), Err(TooShort { wanted: 2, left: 1 }));
        assert_eq!(reader.u8(), Ok(3), "a failed read takes nothing");
        assert!(reader.is_empty());
    }

    #[test]
    fn a_sub_reader_ends_where_its_length_says() {
        let mut reader = Reader::new(&[1, 2, 3]);
        let mut sub = reader.sub(2).unwrap();
        assert_eq!(sub.rest(), [1, 2]);
        assert_eq!(reader.rest(), [3]);
        assert!(reader.sub(usize::MAX).is_err());
    }

    #[test]
    fn a_writer_refuses_what_does_not_fit_and_keeps_the_rest() {
        let mut room = [0; 4];
        let mut writer = Writer::new(&mut room);
        writer.u16(0).unwrap();
        assert!(writer.put(&[1, 2, 3]).is_err());
        writer.u8(9).unwrap();
        writer.set_u16(0, 0xabcd).unwrap();
        assert!(writer.set_u16(2, 1).is_err());
        assert_eq!(writer.finish(), [0xab, 0xcd, 9]);
    }
}
