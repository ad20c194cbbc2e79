//! Names of errors.

use nix::errno::Errno;

/// `ECONNREFUSED`; `E4095` for a number without a name.
pub fn text(number: u32) -> String {
    match i32::try_from(number).map_or(Errno::UnknownErrno, Errno::from_raw) {
        Errno::UnknownErrno => format!("E{number}"),
        named => format!("{named:?}"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn known_errors_have_names_and_others_numbers() {
        assert_eq!(super::text(111), "ECONNREFUSED");
        assert_eq!(super::text(4095), "E4095");
        assert_eq!(super::text(u32::MAX), "E4294967295");
    }
}
