//! Letters and keys as usages of HID's keyboard page, as a keyboard of the US has them.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, Result, bail};

/// Left Shift, among the modifiers of a report.
pub const SHIFT: u8 = 0x02;

/// Caps Lock.
pub const CAPS_LOCK: u8 = 0x39;

/// As many as `hid.bpf.c` has place for.
pub const LONGEST_TEXT: usize = 64;

const F1: u8 = 0x3a;

/// From usage 0x04 on: as they are, and with Shift.
const PLAIN: &str = "abcdefghijklmnopqrstuvwxyz1234567890\n\0\x08\t -=[]\\\0;'`,./";
const SHIFTED: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ!@#$%^&*()\0\0\0\0\0_+{}|\0:\"~<>?";

/// A text, as a keyboard types it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Modifiers and usage of each letter.
    pub keys: Vec<(u8, u8)>,
    text: String,
}

impl FromStr for Text {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let keys: Vec<_> = text.chars().map(key).collect::<Result<_>>()?;
        if keys.is_empty() || keys.len() > LONGEST_TEXT {
            bail!("a text has 1 to {LONGEST_TEXT} letters, and this one {}", keys.len());
        }
        Ok(Self { keys, text: text.to_owned() })
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn key(letter: char) -> Result<(u8, u8)> {
    let found = |row: &str| row.chars().position(|c| c == letter && c != '\0');
    let usage = |place: usize| 4 + u8::try_from(place).expect("a short row");
    match (found(PLAIN), found(SHIFTED)) {
        (Some(place), _) => Ok((0, usage(place))),
        (_, Some(place)) => Ok((SHIFT, usage(place))),
        _ => bail!("no key of a US keyboard types {letter:?}"),
    }
}

/// The usage of a letter's key.
///
/// # Errors
///
/// If there is none.
pub fn usage(letter: char) -> Result<u8> {
    key(letter).map(|(_, usage)| usage)
}

/// A key that types nothing by itself: F1 to F12.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionKey(u8);

impl FunctionKey {
    /// The first one.
    pub const F1: Self = Self(1);

    /// Its usage.
    pub fn usage(self) -> u8 {
        F1 + self.0 - 1
    }
}

impl FromStr for FunctionKey {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let number = name.strip_prefix(['F', 'f']).and_then(|number| number.parse().ok());
        match number {
            Some(number @ 1..=12) => Ok(Self(number)),
            _ => bail!("it is one of F1 to F12"),
        }
    }
}

impl fmt::Display for FunctionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "F{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_where_the_standard_has_them() {
        // HID Usage Tables, keyboard page.
        let expected = [('a', 0x04), ('z', 0x1d), ('1', 0x1e), ('0', 0x27), ('\n', 0x28)];
        let more = [('\t', 0x2b), (' ', 0x2c), ('-', 0x2d), ('\\', 0x31), (';', 0x33), ('/', 0x38)];
        for (letter, usage) in expected.into_iter().chain(more) {
            assert_eq!(key(letter).expect("a key"), (0, usage), "{letter:?}");
        }
        for (letter, usage) in [('A', 0x04), ('!', 0x1e), (')', 0x27), ('_', 0x2d), ('?', 0x38)] {
            assert_eq!(key(letter).expect("a key"), (SHIFT, usage), "{letter:?}");
        }
        assert!(key('é').is_err() && key('\0').is_err());
        assert!("".parse::<Text>().is_err() && "a".repeat(65).parse::<Text>().is_err());
    }

    #[test]
    fn function_keys_have_names() {
        assert_eq!("F1".parse::<FunctionKey>().expect("F1").usage(), 0x3a);
        assert_eq!("f12".parse::<FunctionKey>().expect("F12").usage(), 0x45);
        for wrong in ["F0", "F13", "F", "1", "Fx"] {
            assert!(wrong.parse::<FunctionKey>().is_err(), "{wrong}");
        }
    }
}
