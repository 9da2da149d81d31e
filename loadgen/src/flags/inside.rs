//! The flags of what `loadgen traffic` sends besides datagrams: TCP and pings.

use clap::Args;

use super::seconds;
use datapath::time::Duration;

/// Bytes of a TCP window: what smoltcp and a scaled window can do, and one packet at least.
const WINDOW_MIN: usize = 2048;
const WINDOW_MAX: usize = 64 << 20;

/// The window unless another is asked for.
pub(crate) const TCP_WINDOW: &str = "256K";

/// TCP and pings inside the tunnels.
#[derive(Clone, Debug, Args)]
pub(crate) struct Inside {
    /// Each session sends over TCP as much as goes, for --duration seconds, to the port of --to; the
    /// far end is `loadgen reflect`, which compares every byte.
    #[arg(long, requires = "to")]
    pub(crate) tcp_up: bool,

    /// Each session receives over TCP as much as goes; may be given with --tcp-up.
    #[arg(long, requires = "to")]
    pub(crate) tcp_down: bool,

    /// Bytes that a TCP connection may have under way; K and M are good. A connection carries no more
    /// than this in one round trip.
    #[arg(long, value_name = "BYTES", default_value = TCP_WINDOW, value_parser = window)]
    pub(crate) tcp_window: usize,

    /// The far end of TCP is any server that discards (--tcp-up) or sends without being asked
    /// (--tcp-down), such as RFC 863 and 864 on ports 9 and 19: no byte is compared.
    #[arg(long)]
    pub(crate) tcp_raw: bool,

    /// Each session pings --to, or the gateway, every so many seconds, for the round trip beside the
    /// rest of the load.
    #[arg(long, value_name = "SECONDS", value_parser = interval)]
    pub(crate) ping_interval: Option<Duration>,
}

/// Of a TCP connection, as [`Inside::tcp_window`].
pub(crate) fn window(text: &str) -> Result<usize, String> {
    let (digits, shift) = match text.strip_suffix(['k', 'K', 'M']) {
        Some(digits) if text.ends_with('M') => (digits, 20),
        Some(digits) => (digits, 10),
        None => (text, 0),
    };
    let number: usize = digits.parse().map_err(|_| "not a number".to_owned())?;
    let window = number.checked_mul(1 << shift);
    window
        .filter(|window| (WINDOW_MIN..=WINDOW_MAX).contains(window))
        .ok_or_else(|| "not between 2K and 64M".to_owned())
}

fn interval(text: &str) -> Result<Duration, String> {
    seconds(text).and_then(|interval| {
        if interval < Duration::from_millis(1) {
            return Err("not at least a millisecond".to_owned());
        }
        Ok(interval)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_and_intervals_have_bounds() {
        assert_eq!(window("64K"), Ok(65_536));
        assert_eq!(window("1M"), Ok(1 << 20));
        assert_eq!(window("4096"), Ok(4096));
        for bad in ["", "K", "1", "65M", "-1", "99999999999999999999M"] {
            assert!(window(bad).is_err(), "{bad}");
        }
        assert!(interval("0").is_err() && interval("0.2").is_ok());
    }
}
