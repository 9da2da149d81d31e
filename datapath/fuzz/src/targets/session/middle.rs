//! Either side of the man in the middle: TLS without keys, so that he may say what he likes.

use datapath::tls;

/// One side of the man in the middle.
pub(super) struct Middle {
    pub(super) handshake: Option<tls::Handshake>,
    pub(super) connection: Option<tls::Connection>,
    pub(super) unread: Vec<u8>,
}

impl Middle {
    pub(super) fn new(handshake: tls::Handshake) -> Self {
        Self {
            handshake: Some(handshake),
            connection: None,
            unread: Vec::new(),
        }
    }

    /// Takes bytes off the wire: `(what TLS answers, what was inside)`.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut answer, mut plaintext) = (Vec::new(), Vec::new());
        if let Some(mut handshake) = self.handshake.take() {
            match handshake.handle_bytes(bytes, &mut answer) {
                Ok(tls::Progress::Done) => {
                    if let Ok(finished) = handshake.finish() {
                        self.connection = Some(finished.connection);
                        self.unread = finished.rest;
                        plaintext = finished.plaintext;
                    }
                }
                Ok(_) => self.handshake = Some(handshake),
                Err(_) => {}
            }
        } else {
            self.unread.extend_from_slice(bytes);
        }
        let Some(connection) = self.connection.as_mut() else {
            return (answer, plaintext);
        };
        while let Ok(Some(len)) = tls::record_len(&self.unread) {
            if len > self.unread.len() {
                break;
            }
            let mut record: Vec<u8> = self.unread.drain(..len).collect();
            match connection.open(&mut record) {
                Ok(tls::Opened::Data(bytes)) => plaintext.extend_from_slice(bytes),
                Ok(tls::Opened::Handled) => {}
                Ok(tls::Opened::Closed) | Err(_) => break,
            }
        }
        connection.pending_output(&mut answer);
        (answer, plaintext)
    }

    /// One record around `plaintext`; nothing while the keys are missing.
    pub(super) fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let Some(connection) = self.connection.as_mut() else {
            return Vec::new();
        };
        let (prefix, suffix) = (connection.prefix_len(), connection.suffix_len());
        let mut record = [&vec![0; prefix][..], plaintext, &vec![0; suffix]].concat();
        let len = connection.seal(&mut record, plaintext.len()).unwrap_or(0);
        record.truncate(len);
        record
    }
}
