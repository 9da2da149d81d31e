//! What is left of the record layer where the kernel seals or opens the records.
//!
//! ```text
//! tx   own ── moved ──▶ plaintext goes to the kernel as it is; alerts and KeyUpdates as controls
//! rx   own ── moved ──▶ plaintext comes from the kernel, each control record with its type
//! ```
//!
//! The layer stays what it was: it counts, keeps the TLS 1.3 secrets, reads control records, owes
//! answers. Only the AEAD and the record's bytes are the kernel's, each direction for itself. A
//! direction does not come back: its record numbers are known to the kernel alone, so the keys can
//! neither be exported nor used here any more.
//!
//! A `KeyUpdate` needs new keys in the kernel. Where it cannot take them (before Linux 6.14) the
//! first one ends the connection, and none is sent.
//!
//! It installs nothing: the session asks for [`Connection::keys_for_kernel`], and the shard's driver
//! makes the call.

use std::collections::VecDeque;

use super::keys::Keys;
use super::record::RecordLayer;
use super::{Connection, Error, ExportedHalf, Opened, Role, Suite, Version};

/// Which half of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// What we send.
    Tx,
    /// What we receive.
    Rx,
}

/// What the kernel is to do of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelUse {
    /// Nothing.
    #[default]
    Never,
    /// Seal or open, where it takes the connection's cipher; else our own layer goes on.
    Prefer,
    /// Seal or open; a connection that it does not take is ended.
    Require,
}

/// What the kernel is to do of every connection, and what it is able to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelPlan {
    /// Sealing.
    pub tx: KernelUse,
    /// Opening.
    pub rx: KernelUse,
    /// It takes new keys on a connection that has some.
    pub rekeys: bool,
}

/// What the kernel is to be given.
#[derive(Debug)]
pub struct KernelKeys {
    /// TLS 1.2 or 1.3.
    pub version: Version,
    /// The AEAD.
    pub suite: Suite,
    /// Key, IV and number of the next record.
    pub half: ExportedHalf,
}

/// A record that is not data, to be sent by the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Its type (RFC 8446 §5.1).
    pub content_type: u8,
    /// Its plaintext.
    pub bytes: Vec<u8>,
}

/// How far one direction has gone over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Direction {
    wanted: KernelUse,
    in_kernel: bool,
    /// The keys changed since the kernel got some.
    renewed: bool,
}

impl Direction {
    const fn owes_keys(self) -> bool {
        self.renewed || (!self.in_kernel && !matches!(self.wanted, KernelUse::Never))
    }
}

/// The kernel's part in one record layer.
#[derive(Debug, Default)]
pub(super) struct Share {
    tx: Direction,
    rx: Direction,
    rekeys: bool,
    controls: VecDeque<Control>,
    last_len: usize,
}

impl Share {
    pub(super) fn new(plan: KernelPlan) -> Self {
        let direction = |wanted| Direction {
            wanted,
            ..Direction::default()
        };
        Self {
            tx: direction(plan.tx),
            rx: direction(plan.rx),
            rekeys: plan.rekeys,
            ..Self::default()
        }
    }

    pub(super) const fn tx(&self) -> bool {
        self.tx.in_kernel
    }

    pub(super) const fn rx(&self) -> bool {
        self.rx.in_kernel
    }

    /// Whether our own key may change.
    pub(super) const fn may_update_tx(&self) -> bool {
        self.rekeys || !self.tx.in_kernel
    }

    /// Whether the peer's may.
    pub(super) const fn may_update_rx(&self) -> bool {
        self.rekeys || !self.rx.in_kernel
    }

    pub(super) fn has_controls(&self) -> bool {
        !self.controls.is_empty()
    }

    pub(super) fn push(&mut self, content_type: u8, bytes: &[u8]) {
        self.controls.push_back(Control {
            content_type,
            bytes: bytes.to_vec(),
        });
    }

    pub(super) const fn sealed(&mut self, plaintext_len: usize) {
        self.last_len = plaintext_len;
    }

    /// The peer's keys changed: the kernel must have the new ones, if it has any. Ours change when
    /// the `KeyUpdate` is on its way ([`Connection::take_control`]).
    pub(super) const fn renew_rx(&mut self) {
        self.rx.renewed = self.rx.in_kernel;
    }

    const fn direction(&mut self, half: Half) -> &mut Direction {
        match half {
            Half::Tx => &mut self.tx,
            Half::Rx => &mut self.rx,
        }
    }
}

impl RecordLayer {
    fn keys_for_kernel(&self, half: Half) -> Option<KernelKeys> {
        let direction = match half {
            Half::Tx => self.kernel.tx,
            Half::Rx => self.kernel.rx,
        };
        if direction.renewed {
            return Some(self.half_for_kernel(half));
        }
        // What is owed already is for our own layer to seal.
        let is_whole = half == Half::Rx || !self.has_pending_output();
        (direction.owes_keys() && is_whole && self.may_move(half))
            .then(|| self.half_for_kernel(half))
    }
}

/// Everything here is for our own record layer; of the others the kernel gets nothing.
impl Connection {
    /// A connection with one key for both directions, known to whoever asks, so that it opens what
    /// another one sealed: to measure the record layer with. It protects nothing.
    ///
    /// # Errors
    /// [`Error::Internal`]: key or IV of the wrong length for the suite.
    pub fn with_known_keys(
        version: Version,
        suite: Suite,
        key: &[u8],
        iv: &[u8],
    ) -> Result<Self, Error> {
        let keys = || Keys::from_parts(suite, key, iv, None);
        let layer = RecordLayer::new(Role::Server, version, (0, keys()?), (0, keys()?), None)?;
        Ok(Self::from_own(layer))
    }

    /// What the kernel is to be given for `half` as things stand, if anything.
    ///
    /// Before it is: nothing sealed may be unsent ([`Half::Tx`]), and nothing received unopened
    /// ([`Half::Rx`]).
    #[must_use]
    pub fn keys_for_kernel(&self, half: Half) -> Option<KernelKeys> {
        self.own()?.keys_for_kernel(half)
    }

    /// Whether [`Self::keys_for_kernel`] is worth asking; cheap.
    #[must_use]
    pub fn owes_kernel_keys(&self) -> bool {
        self.own()
            .is_some_and(|layer| layer.kernel.tx.owes_keys() || layer.kernel.rx.owes_keys())
    }

    /// The kernel has taken the keys of [`Self::keys_for_kernel`]: it seals or opens from here on.
    pub fn moved_to_kernel(&mut self, half: Half) {
        if let Some(layer) = self.own_mut() {
            let direction = layer.kernel.direction(half);
            direction.in_kernel = true;
            direction.renewed = false;
        }
    }

    /// The kernel has refused the keys; `why` is its reason.
    ///
    /// # Errors
    /// [`Error::KernelTls`]: the connection cannot go on; it is over.
    pub fn refused_by_kernel(&mut self, half: Half, why: &str) -> Result<(), Error> {
        let Some(layer) = self.own_mut() else {
            return Ok(());
        };
        let direction = layer.kernel.direction(half);
        let is_fatal = direction.renewed || direction.wanted == KernelUse::Require;
        direction.renewed = false;
        direction.wanted = KernelUse::Never;
        if !is_fatal {
            return Ok(());
        }
        let what = match half {
            Half::Tx => "for sending",
            Half::Rx => "for receiving",
        };
        let text = format!("this host's kernel refused the keys {what}: {why}");
        Err(layer.fail(Error::KernelTls(text.into())))
    }

    /// Whether the kernel has `half`.
    #[must_use]
    pub fn is_in_kernel(&self, half: Half) -> bool {
        self.own().is_some_and(|layer| match half {
            Half::Tx => layer.kernel.tx(),
            Half::Rx => layer.kernel.rx(),
        })
    }

    /// The next record that is not data, to go out before anything that is sealed from here on.
    pub fn take_control(&mut self) -> Option<Control> {
        const HANDSHAKE: u8 = 22; // RFC 8446 §5.1
        let kernel = &mut self.own_mut()?.kernel;
        let control = kernel.controls.pop_front()?;
        // A KeyUpdate is sealed under the old keys, all behind it under the new ones.
        kernel.tx.renewed = control.content_type == HANDSHAKE;
        Some(control)
    }

    /// The length of what was sealed last: the kernel does not keep our records apart.
    #[must_use]
    pub fn last_sealed_len(&self) -> usize {
        self.own().map_or(0, |layer| layer.kernel.last_len)
    }

    /// Takes what the kernel opened: data, or one record of another type.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_by_kernel<'a>(
        &mut self,
        content_type: u8,
        plaintext: &'a mut [u8],
    ) -> Result<Opened<'a>, Error> {
        match self.own_mut() {
            Some(layer) => layer.open_by_kernel(content_type, plaintext),
            None => Err(Error::Internal("the kernel opened nothing here".into())),
        }
    }

    /// The kernel could not open a record; the error ends the connection, and the alert it owes waits.
    pub fn failed_in_kernel(&mut self, error: Error) -> Error {
        match self.own_mut() {
            Some(layer) => layer.fail(error),
            None => error,
        }
    }
}
