//! Values of a scenario file that are written as words: `"50/s"`, `"5m"`, `"20k"`, or plain numbers.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// What can be read from a word.
pub(super) trait FromWord: Sized {
    /// What it is, for the message that something else was there.
    const WHAT: &'static str;

    fn from_word(word: &str) -> Result<Self, String>;
}

/// A value that is a word, or a number that reads as one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Word<T>(pub(super) T);

impl<'de, T: FromWord> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);

        impl<T: FromWord> Visitor<'_> for Reader<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::WHAT)
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<T, E> {
                T::from_word(word).map_err(|why| E::custom(format!("{word:?}: {why}")))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
                self.visit_str(&number.to_string())
            }
        }

        from.deserialize_any(Reader(PhantomData)).map(Word)
    }
}

/// A text that a flag takes too, checked as the flag checks it and kept as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checked<T> {
    pub(super) text: String,
    kind: PhantomData<T>,
}

impl<T: FromStr<Err = String>> FromWord for Checked<T> {
    const WHAT: &'static str = "a text or a number";

    fn from_word(word: &str) -> Result<Self, String> {
        word.parse::<T>()?;
        Ok(Self {
            text: word.to_owned(),
            kind: PhantomData,
        })
    }
}

/// A time: a number of seconds, or one with ms, s, m or h behind it; at most a week.
impl FromWord for Duration {
    const WHAT: &'static str = "a time, such as 30, \"500ms\" or \"5m\"";

    fn from_word(word: &str) -> Result<Self, String> {
        let units = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
        let (digits, unit) = units
            .iter()
            .find_map(|(name, unit)| Some((word.strip_suffix(name)?, *unit)))
            .unwrap_or((word, 1.0));
        let number: f64 = digits
            .trim()
            .parse()
            .map_err(|_| format!("not {}", Self::WHAT))?;
        let seconds = number * unit;
        if (0.0..=604_800.0).contains(&seconds) {
            Ok(Self::from_secs_f64(seconds))
        } else {
            Err("not between 0 and a week".to_owned())
        }
    }
}

/// Events a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate(pub(super) f64);

impl FromWord for Rate {
    const WHAT: &'static str = "a rate, such as 50, 0.5 or \"50/s\"";

    fn from_word(word: &str) -> Result<Self, String> {
        let digits = word.strip_suffix("/s").unwrap_or(word);
        // A ramp may begin or end at none.
        match digits.parse() {
            Ok(0.0) => Ok(Self(0.0)),
            _ => crate::flags::rate(word).map(Self),
        }
    }
}

/// Packets or bits a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Amount(pub(super) f64);

impl FromWord for Amount {
    const WHAT: &'static str = "an amount, such as 20000 or \"20k\"";

    fn from_word(word: &str) -> Result<Self, String> {
        crate::flags::amount(word).map(Self)
    }
}

/// The far end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FarEnd(pub(super) std::net::SocketAddr);

impl FromWord for FarEnd {
    const WHAT: &'static str = "an address with or without a port";

    fn from_word(word: &str) -> Result<Self, String> {
        crate::flags::far_end(word).map(Self)
    }
}

/// Bytes that a TCP connection may have under way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Window(pub(super) usize);

impl FromWord for Window {
    const WHAT: &'static str = "bytes, such as 65536 or \"256K\"";

    fn from_word(word: &str) -> Result<Self, String> {
        crate::flags::window(word).map(Self)
    }
}

impl FromWord for crate::fleet::sizes::Sizes {
    const WHAT: &'static str = "sizes, such as 1400, \"64,1400\" or \"imix\"";

    fn from_word(word: &str) -> Result<Self, String> {
        word.parse()
    }
}

/// A password: nothing of it is in any message.
#[derive(Clone)]
pub(super) struct Secret(pub(super) zeroize::Zeroizing<String>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(from) {
            Ok(toml::Value::String(text)) => Ok(Self(text.into())),
            _ => Err(D::Error::custom("a password is a text in quotes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (word, millis) in [
            ("30", 30_000),
            ("1.5", 1_500),
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(Duration::from_word(word), Ok(Duration::from_millis(millis)));
        }
        for bad in ["", "s", "-1", "5 days", "200h", "nan"] {
            assert!(Duration::from_word(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_may_be_none() {
        assert_eq!(Rate::from_word("50/s"), Ok(Rate(50.0)));
        assert_eq!(Rate::from_word("0"), Ok(Rate(0.0)));
        assert!(Rate::from_word("-1").is_err() && Rate::from_word("50/m").is_err());
    }
}
