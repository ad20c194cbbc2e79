//! Untrusted strings: names that processes give themselves may hold control characters, escape sequences, and marks
//! that turn the direction of the text around. None of these reaches a terminal or breaks a line.

use std::io::Write;

/// Whether a character acts on a terminal or hides what the text says.
fn acts(character: char) -> bool {
    character.is_control()
        || matches!(character,
            // Line and paragraph separators, bidirectional marks, embeddings, overrides and isolates, zero-width
            // space and byte order mark.
            '\u{2028}' | '\u{2029}' | '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A JSON string with its quotes.
pub fn json_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        // As most names are.
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    let mut utf8 = [0; 4];
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(br#"\""#),
            '\\' => out.extend_from_slice(br"\\"),
            // All characters that act lie in the plane that four digits reach.
            _ if acts(character) => {
                // Writing to a vector cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ => out.extend_from_slice(character.encode_utf8(&mut utf8).as_bytes()),
        }
    }
    out.push(b'"');
}

/// For people: `\n`, `\x1b`, `\u{202e}`; a backslash is doubled, so that nothing can pose as an escape.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' | '\n' | '\r' | '\t' => out.extend(character.escape_default()),
            _ if acts(character) && u32::from(character) < 0x100 => {
                out.push_str(&format!("\\x{:02x}", u32::from(character)));
            }
            _ if acts(character) => out.extend(character.escape_unicode()),
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_that_acts_gets_through() {
        assert_eq!(plain("a\x1b[31m\nb\\c\u{9b}\u{202e}é"), r"a\x1b[31m\nb\\c\x9b\u{202e}é");
    }

    proptest! {
        #[test]
        fn json_strings_say_what_was_said(text in any::<String>()) {
            let mut out = Vec::new();
            json_string(&text, &mut out);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).expect("JSON"), text);
            let line = String::from_utf8(out).expect("UTF-8");
            prop_assert!(!line.chars().any(acts));
        }

        #[test]
        fn plain_text_has_nothing_that_acts(text in any::<String>()) {
            prop_assert!(!plain(&text).chars().any(acts));
        }
    }
}
