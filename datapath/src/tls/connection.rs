//! The seam: an open connection that seals and opens whole records, whoever does the work.
//!
//! The rules are the same for all variants: one record a call, in place; room of [`Connection::prefix_len`]
//! before and [`Connection::suffix_len`] behind the plaintext; and what [`Connection::pending_output`]
//! gives goes on the wire before any record that is sealed after it.

use super::record::RecordLayer;
use super::reference::Reference;
use super::{Budget, ContentType, Error, ExportedKeys, HEADER_LEN, PAYLOAD_LEN_MAX};

/// The length of the record that begins here, header included, by its header; `None` if the header
/// is not whole yet.
///
/// # Errors
/// [`Error::Malformed`]: no TLS; [`Error::RecordTooLong`]: longer than any version allows.
pub fn record_len(bytes: &[u8]) -> Result<Option<usize>, Error> {
    let Some(&[kind, major, _, high, low]) = bytes.first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    if ContentType::from_byte(kind).is_none() || major != 3 {
        return Err(Error::Malformed("no TLS record".into()));
    }
    let payload_len = usize::from(u16::from_be_bytes([high, low]));
    if payload_len > PAYLOAD_LEN_MAX {
        return Err(Error::RecordTooLong);
    }
    Ok(Some(HEADER_LEN.saturating_add(payload_len)))
}

/// What a record held.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    /// Data, at least one byte, somewhere inside the record's own bytes.
    Data(&'a mut [u8]),
    /// Something for TLS itself; there may be pending output now.
    Handled,
    /// The peer's `close_notify`: it sends nothing more.
    Closed,
}

#[derive(Debug)]
enum Layer {
    Own(Box<RecordLayer>),
    Rustls(Box<Reference>),
    #[cfg(any(test, feature = "testing"))]
    Null(super::null::NullLayer),
}

/// An open TLS connection.
#[derive(Debug)]
pub struct Connection(Layer);

macro_rules! each {
    ($self:expr, $layer:ident => $call:expr) => {
        match $self {
            Layer::Own($layer) => $call,
            Layer::Rustls($layer) => $call,
            #[cfg(any(test, feature = "testing"))]
            Layer::Null($layer) => $call,
        }
    };
}

impl Connection {
    pub(super) fn from_own(layer: RecordLayer) -> Self {
        Self(Layer::Own(Box::new(layer)))
    }

    pub(super) fn from_reference(reference: Reference) -> Self {
        Self(Layer::Rustls(Box::new(reference)))
    }

    pub(super) const fn own(&self) -> Option<&RecordLayer> {
        match &self.0 {
            Layer::Own(layer) => Some(layer),
            _ => None,
        }
    }

    pub(super) const fn own_mut(&mut self) -> Option<&mut RecordLayer> {
        match &mut self.0 {
            Layer::Own(layer) => Some(layer),
            _ => None,
        }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) const fn from_null(layer: super::null::NullLayer) -> Self {
        Self(Layer::Null(layer))
    }

    /// Bytes to leave before the plaintext of a record; at most 13. Constant for a connection, until
    /// the kernel takes over sealing: then 0.
    #[must_use]
    pub fn prefix_len(&self) -> usize {
        each!(&self.0, layer => layer.prefix_len())
    }

    /// Bytes to leave behind the plaintext of a record; at most 17. As constant.
    #[must_use]
    pub fn suffix_len(&self) -> usize {
        each!(&self.0, layer => layer.suffix_len())
    }

    /// Seals `prefix | plaintext | suffix` in place as one record of data; gives the record's length.
    /// `plaintext_len` is 1 to 16384. Allocates nothing (own layer).
    ///
    /// # Errors
    /// [`Error::Room`]: the lengths do not fit, nothing was done. [`Error::OutputPending`]: nothing
    /// was done either. [`Error::KeyBudgetSpent`]: the connection should be closed. All others end it.
    pub fn seal(&mut self, record: &mut [u8], plaintext_len: usize) -> Result<usize, Error> {
        each!(&mut self.0, layer => layer.seal(record, plaintext_len))
    }

    /// Opens exactly one whole record in place. Allocates nothing for data (own layer).
    ///
    /// # Errors
    /// Every error ends the connection; the alert it owes waits in [`Self::pending_output`].
    pub fn open<'a>(&mut self, record: &'a mut [u8]) -> Result<Opened<'a>, Error> {
        each!(&mut self.0, layer => layer.open(record))
    }

    /// As the free function [`record_len`].
    ///
    /// # Errors
    /// As there.
    pub fn record_len(bytes: &[u8]) -> Result<Option<usize>, Error> {
        record_len(bytes)
    }

    /// Whether [`Self::pending_output`] has something; cheap, to be asked before each burst.
    #[must_use]
    pub fn has_pending_output(&self) -> bool {
        each!(&self.0, layer => layer.has_pending_output())
    }

    /// Appends what the connection owes on its own account: answers to `KeyUpdate`, a `KeyUpdate` that
    /// the key budget demands, alerts. It goes on the wire behind the records sealed before this call
    /// and before those sealed after it.
    pub fn pending_output(&mut self, out: &mut Vec<u8>) {
        each!(&mut self.0, layer => layer.pending_output(out));
    }

    /// Appends pending output and `close_notify`; nothing can be sealed after it. Once.
    pub fn close_notify(&mut self, out: &mut Vec<u8>) {
        each!(&mut self.0, layer => layer.close_notify(out));
    }

    /// Changes our key and asks the peer to change its own (TLS 1.3).
    ///
    /// # Errors
    /// [`Error::KeyBudgetSpent`]: TLS 1.2 cannot. [`Error::Closed`].
    pub fn update_keys(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        each!(&mut self.0, layer => layer.update_keys(out))
    }

    /// What the present keys have protected, and what they may.
    #[must_use]
    pub fn budget(&self) -> Budget {
        each!(&self.0, layer => layer.budget())
    }

    /// The keys and counters, for another process or the kernel; `None` where the layer cannot give
    /// them (rustls, a half in the kernel) or the connection is closing. This connection must not seal or open any more.
    #[must_use]
    pub fn export(&self) -> Option<ExportedKeys> {
        match &self.0 {
            Layer::Own(layer) => layer.export(),
            Layer::Rustls(_) => None,
            #[cfg(any(test, feature = "testing"))]
            Layer::Null(layer) => layer.export(),
        }
    }

    /// Carries on a connection that was exported.
    ///
    /// # Errors
    /// [`Error::Setup`], [`Error::Internal`]: keys of another format, or that do not fit together.
    pub fn import(keys: &ExportedKeys) -> Result<Self, Error> {
        #[cfg(any(test, feature = "testing"))]
        if keys.suite == super::Suite::Null {
            return super::null::NullLayer::import(keys).map(Self::from_null);
        }
        RecordLayer::import(keys).map(Self::from_own)
    }
}
