//! The outside half of a session: the connection as it goes out, and what arrived of it only in part.

use super::shaper::Shaper;
use super::transmit::Transmit;
use super::{Edge, QueueLimits, kernel_tls};
use crate::http;
use crate::io::SendBuffer;
use crate::io::kernel_tls::KernelSend;
use crate::tls;

/// The outside half: the connection's keys, what waits to be sent, what arrived only in part.
#[derive(Debug, Default)]
pub(super) struct Outside {
    pub(super) tls: Option<tls::Connection>,
    /// How far the HTTP head is looked through.
    pub(super) scan: http::Scan,
    /// Hashes of the certificate that the server showed in this very handshake.
    pub(super) certificate: Option<tls::CertHashes>,
    pub(super) transmit: Transmit,
    pub(super) shaper: Shaper,
    /// Bytes of TLS itself that go out before anything else: a flight, an answer, an alert.
    pub(super) flight: Vec<u8>,
    /// How the buffer handed out last is to be sent, where the kernel seals.
    pub(super) kernel_send: Option<KernelSend>,
    /// A record of which only a part has arrived.
    pub(super) partial_record: Vec<u8>,
    /// The HTTP head, or an SSTP packet, of which only a part has arrived.
    pub(super) partial: Vec<u8>,
}

impl Outside {
    /// What goes out next: TLS's own bytes before any data.
    pub(super) fn next_buffer<E: Edge>(
        &mut self,
        limits: &QueueLimits,
        edge: &mut E,
    ) -> Result<Option<SendBuffer>, tls::Error> {
        if let Some(tls) = self.tls.as_mut()
            && tls.has_pending_output()
        {
            tls.pending_output(&mut self.flight);
        }
        self.kernel_send = None;
        if self.has_controls() {
            return Ok(self.next_control());
        }
        if !self.flight.is_empty() {
            let bytes = std::mem::take(&mut self.flight).into_boxed_slice();
            self.transmit.started();
            return Ok(Some(SendBuffer {
                start: 0,
                end: bytes.len(),
                bytes,
            }));
        }
        match self.tls.as_mut() {
            Some(tls) if self.transmit.has_pending() => {
                let buffer = self.transmit.flush(tls, limits, edge)?;
                self.kernel_send = kernel_tls::data(tls);
                Ok(buffer)
            }
            _ => Ok(None),
        }
    }
    /// Whether the kernel is to have keys before anything else is sealed, or as soon as it may. It gets
    /// them at the end of a turn.
    pub(super) fn awaits_keys(&self) -> bool {
        let tls = self.tls.as_ref();
        tls.is_some_and(tls::Connection::owes_kernel_keys)
    }

    pub(super) fn has_controls(&self) -> bool {
        let tls = self.tls.as_ref();
        tls.is_some_and(|tls| tls.is_in_kernel(tls::Half::Tx) && tls.has_pending_output())
    }

    /// The next record that is not data, as a buffer of its own.
    pub(super) fn next_control(&mut self) -> Option<SendBuffer> {
        let control = self.tls.as_mut()?.take_control()?;
        self.kernel_send = Some(KernelSend::Control {
            content_type: control.content_type,
        });
        self.transmit.started();
        let bytes = control.bytes.into_boxed_slice();
        Some(SendBuffer {
            start: 0,
            end: bytes.len(),
            bytes,
        })
    }
}
