//! What every protocol machine has in common: where its bytes and its news go.
//!
//! A machine has the methods `handle_*` (something arrived), plain verbs (its owner commands) and
//! `next_timeout` (its owner asks). All of them take `now` and, where they draw random numbers, an
//! [`Entropy`]. What comes out goes to an [`Output`] during the call, so no queue lives in a machine
//! and nothing in it grows.

/// Where a machine sends bytes and tells news.
pub trait Output<E> {
    /// Sends one whole unit of the machine's protocol (an SSTP packet, a PPP frame).
    fn send(&mut self, bytes: &[u8]);
    /// Tells the owner what has come about.
    fn event(&mut self, event: E);
}

/// A source of unpredictable bytes: the system's generator, or a seeded one in tests.
pub trait Entropy {
    /// Fills all of `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);

    /// `N` unpredictable bytes.
    fn array<const N: usize>(&mut self) -> [u8; N]
    where
        Self: Sized,
    {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }
}

/// Keeps everything, for tests and for callers that want it all at once.
#[derive(Debug)]
pub struct Collected<E> {
    /// What was sent, unit by unit.
    pub sent: Vec<Vec<u8>>,
    /// What was told, in order.
    pub events: Vec<E>,
}

impl<E> Default for Collected<E> {
    fn default() -> Self {
        Self {
            sent: Vec::new(),
            events: Vec::new(),
        }
    }
}

impl<E> Output<E> for Collected<E> {
    fn send(&mut self, bytes: &[u8]) {
        self.sent.push(bytes.to_vec());
    }
    fn event(&mut self, event: E) {
        self.events.push(event);
    }
}
