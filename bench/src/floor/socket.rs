//! `send`: loopback TCP by the size of what is sent at a time; and the connections of the pumps.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

use datapath::sys::affinity;
use datapath::time::Duration;

use super::Figure;
use super::meter::Sample;

/// One packet as a record, one record, four.
const LENS: [usize; 3] = [1_430, 16_406, 65_624];

/// Bytes between two looks at the clock.
const PIECE_LEN: usize = 512 << 10;

pub(super) fn figures<'a>(receiver_cpu: usize) -> io::Result<Vec<Box<dyn Figure + 'a>>> {
    let mut figures: Vec<Box<dyn Figure>> = Vec::new();
    for len in LENS {
        figures.push(Box::new(Send {
            name: format!("send/loopback/{len}"),
            stream: drained(receiver_cpu)?,
            bytes: vec![0x5a; len],
        }));
    }
    Ok(figures)
}

struct Send {
    name: String,
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Figure for Send {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn measure(&mut self, slice: Duration) -> io::Result<Sample> {
        let mut sample = Sample::default();
        let count = PIECE_LEN.div_ceil(self.bytes.len());
        while sample.wall < slice {
            sample.time(|| {
                for _ in 0..count {
                    self.stream.write_all(&self.bytes)?;
                }
                Ok((count * self.bytes.len(), count))
            })?;
        }
        Ok(sample)
    }
}

/// Both ends of a connection over loopback.
pub(super) fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

/// A connection whose other end is read, by a thread on processor `cpu`, until it is closed.
pub(super) fn drained(cpu: usize) -> io::Result<TcpStream> {
    let (near, mut far) = pair()?;
    let drain = move || {
        // Where it is not allowed, figures vary more; the pump has said so.
        let _ = affinity::pin(cpu);
        let mut buffer = vec![0; 1 << 20];
        while matches!(far.read(&mut buffer), Ok(len) if len > 0) {}
    };
    thread::Builder::new()
        .name("drain".to_owned())
        .spawn(drain)?;
    Ok(near)
}
