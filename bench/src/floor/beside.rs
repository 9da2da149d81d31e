//! The pumps on a thread of their own, each to be measured when somebody asks for it.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use datapath::sys::affinity;
use datapath::time::Duration;

use super::meter::Sample;
use super::pump;
use super::rig::Rig;

/// Figures by name. The thread sleeps while nobody asks, and ends with this.
#[derive(Debug)]
pub(crate) struct Beside {
    ask: Sender<(String, Duration)>,
    answers: Receiver<io::Result<Sample>>,
}

impl Beside {
    /// Starts the thread on processor `cpu`, in a namespace of its own.
    pub(crate) fn start(cpu: usize) -> io::Result<Self> {
        let (ask, asked) = mpsc::channel::<(String, Duration)>();
        let (answer, answers) = mpsc::channel();
        let serve = move || {
            let _ = affinity::pin(cpu);
            if let Err(error) = serve(cpu, &asked, &answer) {
                let _ = answer.send(Err(error));
            }
        };
        thread::Builder::new()
            .name("floor".to_owned())
            .spawn(serve)?;
        Ok(Self { ask, answers })
    }

    /// Measures the figure `name` for `slice` of wall-clock time.
    pub(crate) fn measure(&self, name: &str, slice: Duration) -> io::Result<Sample> {
        let gone = || io::Error::other("the floor's thread has ended");
        self.ask
            .send((name.to_owned(), slice))
            .map_err(|_| gone())?;
        self.answers.recv().map_err(|_| gone())?
    }
}

fn serve(
    cpu: usize,
    asked: &Receiver<(String, Duration)>,
    answer: &Sender<io::Result<Sample>>,
) -> io::Result<()> {
    let rig = Rig::new()?;
    let mut figures = pump::figures(&rig, cpu)?;
    for (name, slice) in asked {
        let figure = figures.iter_mut().find(|figure| figure.name() == name);
        let measured = match figure {
            Some(figure) => {
                // The first bursts find cold caches and small socket buffers.
                figure
                    .measure(slice / 4)
                    .and_then(|_| figure.measure(slice))
            }
            None => Err(io::Error::other(format!("the floor has no figure {name}"))),
        };
        if answer.send(measured).is_err() {
            break;
        }
    }
    Ok(())
}
