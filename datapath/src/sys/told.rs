//! What a driver knows and has not yet told its shard.

use crate::io::{Completion, ConnectionId, ReceiveBuffer};

/// Takes what is not yet told of a connection out, but for the end of a send, which is always told.
/// The bytes received are returned, their buffers go to `release`.
pub(super) fn take_back(
    told: &mut Vec<Completion>,
    id: ConnectionId,
    mut release: impl FnMut(ReceiveBuffer),
) -> Vec<u8> {
    let mut received = Vec::new();
    if told.is_empty() {
        return received;
    }
    for completion in std::mem::take(told) {
        match completion {
            Completion::Received { connection, buffer } if connection == id => {
                received.extend_from_slice(buffer.bytes.get(..buffer.len).unwrap_or_default());
                release(buffer);
            }
            // Its record was counted by the kernel: such a connection goes nowhere else.
            Completion::ReceivedControl {
                connection, buffer, ..
            } if connection == id => release(buffer),
            Completion::ReceiveEnded { connection, .. }
            | Completion::Connected { connection, .. }
            | Completion::Accepted { connection, .. }
                if connection == id => {}
            other => told.push(other),
        }
    }
    received
}
