//! The only `unsafe` here: a ring whose memory cannot be taken from under the kernel, and descriptors in
//! the hands of runtimes that have no safe way to take one.
//!
//! [`Ring`] is io_uring with receive buffers of its own ([`Buffers`]), which may also be written from.
//! A buffer goes back to the kernel when nobody uses it any more: neither the pump, which has one use of
//! it from its completion to [`Ring::release`], nor a write. What is sent belongs to the ring until it is
//! sent. A ring that is dropped leaks its memory: the kernel may still use it.
#![expect(unsafe_code, reason = "see above")]

use std::alloc::{Layout, alloc_zeroed};
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd, IntoRawFd as _, OwnedFd};
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::squeue::Entry;
use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, cqueue, opcode};
use tokio::io::unix::AsyncFd;

/// The descriptor as a `T`.
pub(crate) fn adopt<T: FromRawFd>(descriptor: OwnedFd) -> T {
    let raw = descriptor.into_raw_fd();
    // SAFETY: it is open, and `into_raw_fd` gave up its ownership to us.
    unsafe { T::from_raw_fd(raw) }
}

/// The file, with the readiness that tokio's epoll tells.
pub(crate) fn register(file: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: a file owns its descriptor and always answers with the same one.
    let registered = unsafe { AsyncFd::register(file) };
    registered.map_err(Into::into)
}

/// Bytes to send.
pub(crate) type Bytes = Box<[u8]>;

/// What happened to a request, by the key it was made with.
#[derive(Debug)]
pub(crate) enum Done {
    /// Bytes lie in a buffer. `is_last`: the request is over and must be made again.
    Received {
        key: u32,
        result: io::Result<(u16, usize)>,
        is_last: bool,
    },
    Sent {
        key: u32,
        bytes: Bytes,
        result: io::Result<()>,
    },
    WriteFailed(io::Error),
}

const PAGE: usize = 4096;

/// Memory that the kernel receives into, a group of equal buffers.
#[derive(Debug)]
struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    buffer_len: usize,
    count: u16,
    tail: u16,
    /// By buffer: who uses it. 0: the kernel has it.
    uses: Vec<u32>,
}

impl Buffers {
    /// Memory for `count` buffers, a power of two.
    fn new(count: u16, buffer_len: usize) -> Self {
        assert!(
            count.is_power_of_two() && buffer_len > 0,
            "a group that makes sense"
        );
        let memory = vec![0; usize::from(count) * buffer_len].leak();
        Self {
            entries: entries(count),
            memory: NonNull::from(memory).cast(),
            buffer_len,
            count,
            tail: 0,
            uses: vec![0; usize::from(count)],
        }
    }

    fn start(&self, id: u16) -> NonNull<u8> {
        assert!(id < self.count, "a buffer of the group");
        // SAFETY: there is memory for `count` buffers, and `id` is less.
        unsafe { self.memory.add(usize::from(id) * self.buffer_len) }
    }

    /// Gives the kernel buffer `id`, which nobody uses.
    fn give(&mut self, id: u16) {
        let address = self.start(id).as_ptr().expose_provenance() as u64;
        let index = usize::from(self.tail & (self.count - 1));
        // SAFETY: the index is masked, so it lies among the `count` entries.
        let mut entry = unsafe { self.entries.add(index) };
        // SAFETY: zeroed memory is an entry; the kernel does not read it before the tail moves on.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(address);
        entry.set_len(u32::try_from(self.buffer_len).unwrap_or(u32::MAX));
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `entries` is the base of the ring, which is what is asked for.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: it lies in the memory, is aligned, and is only accessed atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    fn release(&mut self, id: u16) {
        let uses = &mut self.uses[usize::from(id)];
        *uses -= 1;
        if *uses == 0 {
            self.give(id);
        }
    }
}

/// Page-aligned and zeroed, as the kernel wants it.
fn entries(count: u16) -> NonNull<BufRingEntry> {
    let layout = Layout::array::<BufRingEntry>(usize::from(count));
    let layout = layout.and_then(|layout| layout.align_to(PAGE));
    let layout = layout.expect("at most 64 K entries of 16 bytes");
    // SAFETY: it is not empty: a power of two is at least 1.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory.cast()).unwrap_or_else(|| std::alloc::handle_alloc_error(layout))
}

/// A ring with groups of buffers; see the module. Must be used by one thread only.
pub(crate) struct Ring {
    ring: IoUring,
    groups: Vec<Buffers>,
    /// What is being sent, by key; behind them what is being written that lies in no buffer.
    lent: ManuallyDrop<Vec<Option<Bytes>>>,
    /// Keys behind those of the sends that are free.
    free: Vec<u32>,
}

// `user_data`: kind, group, buffer, key. In a `Received` the buffer is in the flags of the completion.
const RECEIVE: u64 = 1;
const SEND: u64 = 2;
const WRITE: u64 = 3;
const WRITE_COPY: u64 = 4;

const fn tag(kind: u64, group: u16, id: u16, key: u32) -> u64 {
    kind << 60 | (group as u64) << 48 | (id as u64) << 32 | key as u64
}

impl Ring {
    /// A ring with a group for each of `groups`: how many buffers of how many bytes; for `keys` sends at
    /// once.
    pub(crate) fn new(
        submissions: u32,
        completions: u32,
        groups: &[(u16, usize)],
        keys: usize,
    ) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(completions)
            .build(submissions)?;
        let mut made = Self {
            ring,
            groups: Vec::new(),
            lent: ManuallyDrop::new((0..keys).map(|_| None).collect()),
            free: Vec::new(),
        };
        for (group, &(count, buffer_len)) in (0..).zip(groups) {
            let mut buffers = Buffers::new(count, buffer_len);
            let address = buffers.entries.as_ptr().expose_provenance() as u64;
            let submitter = made.ring.submitter();
            // SAFETY: there are `count` entries, and they are never freed.
            unsafe { submitter.register_buf_ring_with_flags(address, count, group, 0) }?;
            (0..count).for_each(|id| buffers.give(id));
            made.groups.push(buffers);
        }
        Ok(made)
    }

    /// Receives from a socket into buffers of `group`, again and again.
    pub(crate) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        group: u16,
        key: u32,
    ) -> io::Result<()> {
        let receive = opcode::RecvMulti::new(Fd(socket.as_raw_fd()), group).build();
        self.push(receive.user_data(tag(RECEIVE, group, 0, key)))
    }

    /// Reads from a file into buffers of `group`, again and again.
    pub(crate) fn read(&mut self, file: BorrowedFd<'_>, group: u16, key: u32) -> io::Result<()> {
        let read = opcode::ReadMulti::new(Fd(file.as_raw_fd()), 0, group).build();
        self.push(read.user_data(tag(RECEIVE, group, 0, key)))
    }

    /// What lies in a buffer that was received into and not released.
    pub(crate) fn bytes(&self, group: u16, id: u16, range: Range<usize>) -> &[u8] {
        let buffers = &self.groups[usize::from(group)];
        assert!(buffers.uses[usize::from(id)] > 0, "a buffer in use");
        let start = buffers.start(id);
        // SAFETY: there are so many initialised bytes, and while the buffer is in use the kernel does not
        // write them: releasing it takes `self` exclusively.
        let all = unsafe { slice::from_raw_parts(start.as_ptr(), buffers.buffer_len) };
        &all[range]
    }

    /// Writes a part of such a buffer to a file.
    pub(crate) fn write(
        &mut self,
        file: BorrowedFd<'_>,
        group: u16,
        id: u16,
        range: Range<usize>,
    ) -> io::Result<()> {
        let bytes = self.bytes(group, id, range);
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let write = opcode::Write::new(Fd(file.as_raw_fd()), bytes.as_ptr(), len).build();
        self.groups[usize::from(group)].uses[usize::from(id)] += 1;
        self.push(write.user_data(tag(WRITE, group, id, 0)))
    }

    /// Writes a copy of `bytes` to a file.
    pub(crate) fn write_copy(&mut self, file: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
        let key = self.free.pop().unwrap_or_else(|| {
            self.lent.push(None);
            u32::try_from(self.lent.len() - 1).unwrap_or(u32::MAX)
        });
        let copy = self.lent[key as usize].insert(bytes.into());
        let len = u32::try_from(copy.len()).unwrap_or(u32::MAX);
        let write = opcode::Write::new(Fd(file.as_raw_fd()), copy.as_ptr(), len).build();
        self.push(write.user_data(tag(WRITE_COPY, 0, 0, key)))
    }

    /// Ends the use that a [`Done::Received`] began.
    pub(crate) fn release(&mut self, group: u16, id: u16) {
        self.groups[usize::from(group)].release(id);
    }

    /// Sends the first `len` of `bytes`; nothing may be under way with this key.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        bytes: Bytes,
        len: usize,
        key: u32,
    ) -> io::Result<()> {
        let part = &bytes[..len];
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let send = opcode::Send::new(Fd(socket.as_raw_fd()), part.as_ptr(), len)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        let place = &mut self.lent[key as usize];
        assert!(place.is_none(), "one send at a time");
        *place = Some(bytes);
        self.push(send.user_data(tag(SEND, 0, 0, key)))
    }

    fn push(&mut self, entry: Entry) -> io::Result<()> {
        loop {
            // SAFETY: what the entry points to is the ring's: a buffer in use, or lent.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }

    /// Submits, waits for something to happen if `waits`, and tells it.
    pub(crate) fn turn(&mut self, waits: bool, done: &mut Vec<Done>) -> io::Result<()> {
        match self.ring.submit_and_wait(usize::from(waits)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let Self {
            ring,
            groups,
            lent,
            free,
        } = self;
        for entry in ring.completion() {
            let tag = entry.user_data();
            let key = (tag & 0xffff_ffff) as u32;
            let group = &mut groups[(tag >> 48 & 0xfff) as usize];
            let result = match usize::try_from(entry.result()) {
                Ok(len) => Ok(len),
                Err(_) => Err(io::Error::from_raw_os_error(-entry.result())),
            };
            match tag >> 60 {
                RECEIVE => done.push(received(&entry, key, result, group)),
                SEND => {
                    let bytes = lent[key as usize].take().unwrap_or_default();
                    let result = result.map(|_| ());
                    done.push(Done::Sent { key, bytes, result });
                }
                // Nobody has to hear of a write that went well.
                WRITE => {
                    group.release((tag >> 32 & 0xffff) as u16);
                    done.extend(result.err().map(Done::WriteFailed));
                }
                _ => {
                    lent[key as usize] = None;
                    free.push(key);
                    done.extend(result.err().map(Done::WriteFailed));
                }
            }
        }
        Ok(())
    }
}

fn received(
    entry: &cqueue::Entry,
    key: u32,
    result: io::Result<usize>,
    group: &mut Buffers,
) -> Done {
    let id = cqueue::buffer_select(entry.flags());
    if let Some(id) = id {
        group.uses[usize::from(id)] = 1;
    }
    // No error and no buffer: the peer closed.
    let result = result.and_then(|len| Ok((id.ok_or(io::ErrorKind::UnexpectedEof)?, len)));
    Done::Received {
        key,
        result,
        is_last: !cqueue::more(entry.flags()),
    }
}
