//! Names of errors.

use std::io::Write;

use nix::errno::Errno;

/// `ECONNREFUSED`; `E4095` for a number without a name.
pub fn name(number: u32, out: &mut Vec<u8>) {
    let named = i32::try_from(number).map_or(Errno::UnknownErrno, Errno::from_raw);
    // Writing to a vector cannot fail.
    let _ = match named {
        Errno::UnknownErrno => write!(out, "E{number}"),
        named => write!(out, "{named:?}"),
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn known_errors_have_names_and_others_numbers() {
        let name = |number| {
            let mut out = Vec::new();
            super::name(number, &mut out);
            String::from_utf8(out).expect("ASCII")
        };
        assert_eq!(name(111), "ECONNREFUSED");
        assert_eq!(name(4095), "E4095");
        assert_eq!(name(u32::MAX), "E4294967295");
    }
}
