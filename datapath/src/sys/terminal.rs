//! The terminal: reading a password without showing it.

use std::io;
use std::os::fd::AsRawFd as _;

/// While this lives, the terminal on standard input does not show what is typed.
#[derive(Debug)]
pub struct HiddenInput {
    before: Termios,
}

/// `termios`, which has no `Debug` everywhere.
struct Termios(libc::termios);

impl std::fmt::Debug for Termios {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Termios(..)")
    }
}

/// Turns the echo off until the result is dropped; the newline is still shown.
///
/// # Errors
/// When standard input is no terminal.
pub fn hide_input() -> io::Result<HiddenInput> {
    let fd = io::stdin().as_raw_fd();
    let mut before = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: `before` is a termios to be filled.
    if unsafe { libc::tcgetattr(fd, before.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: tcgetattr filled it, as it returned 0.
    let before = unsafe { before.assume_init() };
    let mut hidden = before;
    hidden.c_lflag &= !libc::ECHO;
    hidden.c_lflag |= libc::ECHONL;
    set(&hidden)?;
    Ok(HiddenInput {
        before: Termios(before),
    })
}

fn set(termios: &libc::termios) -> io::Result<()> {
    // SAFETY: `termios` is a whole termios; the call only reads it.
    if unsafe { libc::tcsetattr(io::stdin().as_raw_fd(), libc::TCSAFLUSH, termios) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        // If the terminal is gone there is nothing left to restore.
        let _ = set(&self.before.0);
    }
}
