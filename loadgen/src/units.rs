//! Numbers as people read them.

/// A number with no more digits than it needs.
pub(crate) fn plain(value: f64) -> String {
    let text = if value.abs() >= 100.0 || value.fract().abs() < 1e-9 {
        format!("{value:.0}")
    } else if value.abs() >= 1.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    };
    match text.split_once('.') {
        Some((whole, digits)) if digits.trim_end_matches('0').is_empty() => whole.to_owned(),
        Some((whole, digits)) => format!("{whole}.{}", digits.trim_end_matches('0')),
        None => text,
    }
}

/// A large number with k, M or G.
pub(crate) fn scaled(value: f64) -> String {
    for (factor, unit) in [(1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if value.abs() >= factor {
            return format!("{}{unit}", plain(value / factor));
        }
    }
    plain(value)
}

/// A large number with a unit that has a k, M or G before it.
pub(crate) fn with_unit(value: f64, unit: &str) -> String {
    let number = scaled(value);
    match number.strip_suffix(['k', 'M', 'G']) {
        Some(digits) => format!("{digits} {}{unit}", number.trim_start_matches(digits)),
        None => format!("{number} {unit}"),
    }
}

/// Microseconds with a unit that fits.
pub(crate) fn time(us: f64) -> String {
    if us >= 1e6 {
        format!("{} s", plain(us / 1e6))
    } else if us >= 1e3 {
        format!("{} ms", plain(us / 1e3))
    } else {
        format!("{} µs", plain(us))
    }
}

/// A share as a percentage.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 0.001 {
        "<0.001 %".to_owned()
    } else {
        format!("{} %", plain(percent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(time(1_234.0), "1.2 ms");
        assert_eq!(time(250.0), "250 µs");
        assert_eq!(scaled(12_500.0), "12.5k");
        assert_eq!(with_unit(12_500.0, "bit/s"), "12.5 kbit/s");
        assert_eq!(with_unit(12.0, "B"), "12 B");
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(0.000_001), "<0.001 %");
        assert_eq!(plain(0.05), "0.05");
    }
}
