//! The threads of shards.

use std::io;
use std::thread::JoinHandle;

use super::affinity::{self, NotPinned};

/// Starts a shard's thread: named, kept on processor `cpu` if one is given. `run` learns whether
/// pinning worked; it builds its driver itself, since a ring belongs to the thread that made it.
pub fn spawn_shard<T: Send + 'static>(
    name: String,
    cpu: Option<usize>,
    run: impl FnOnce(Result<(), NotPinned>) -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    std::thread::Builder::new()
        .name(name)
        .spawn(move || run(cpu.map_or(Ok(()), affinity::pin)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_has_its_name_and_knows_its_pinning() {
        let cpu = affinity::cpus()[0];
        let shard = spawn_shard("shard-7".to_owned(), Some(cpu), |pinned| {
            (std::thread::current().name().map(str::to_owned), pinned)
        });
        let (name, pinned) = shard.unwrap().join().unwrap();
        assert_eq!(name.as_deref(), Some("shard-7"));
        assert_eq!(pinned, Ok(()));
    }
}
