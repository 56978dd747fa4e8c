//! Names of maps, programs and links as names of files: bpffs allows no dot.

/// As a file's name, from which [`unescape`] makes `name` again.
pub(crate) fn escape(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'_' | b'-' => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02x}")),
        }
    }
    escaped
}

/// `None` if [`escape`] makes no such name.
pub(crate) fn unescape(escaped: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = escaped.as_bytes();
    while let [first, after @ ..] = rest {
        let (byte, left) = match (first, after) {
            (b'%', [high, low, left @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).ok()?;
                (u8::from_str_radix(digits, 16).ok()?, left)
            }
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = left;
    }
    let name = String::from_utf8(bytes).ok()?;
    (escape(&name) == escaped).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_back() {
        for (name, escaped) in [
            ("jobs_gate", "jobs_gate"),
            (".rodata.str1.1", "%2erodata%2estr1%2e1"),
            ("100%/é", "100%25%2f%c3%a9"),
            ("", ""),
        ] {
            assert_eq!(escape(name), escaped);
            assert_eq!(unescape(escaped).as_deref(), Some(name));
        }
    }

    #[test]
    fn another_name_is_recognised() {
        for other in ["a.b", "%", "%2", "%zz", "%2E", "%61", "%ff", "%+1"] {
            assert_eq!(unescape(other), None, "{other}");
        }
    }
}
