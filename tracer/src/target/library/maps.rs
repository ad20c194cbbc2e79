//! What files a process maps executable: `/proc/PID/maps`.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    ops::Range,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use rustix::fs::{Dev, makedev};

/// Most of a list that is read, in bytes: the kernel allows a process 65,530 mappings unless told otherwise.
const LIST_MAX: u64 = 64 << 20;

/// Longest line that is taken, in bytes: a path may have 4,096.
const LINE_MAX: usize = 8_192;

/// What the kernel adds to the path of a file that is no longer there.
const DELETED: &str = " (deleted)";

/// One executable mapping of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where it lies in the process's memory.
    pub addresses: Range<u64>,
    /// The device of its file, as the kernel names it here: some filesystems give `stat` another one.
    pub device: Dev,
    /// The inode number of its file.
    pub inode: u64,
    /// Its file's path as the kernel writes it: line feeds are escaped, and what is deleted is marked.
    written: PathBuf,
}

impl Mapping {
    /// The path for people: as the process sees it, or saw it before the file was deleted.
    pub fn name(&self) -> String {
        let path = unescaped(&self.written).to_string_lossy().into_owned();
        path.strip_suffix(DELETED).map(str::to_owned).unwrap_or(path)
    }

    /// The paths that may be meant, the likeliest first: the kernel's way of writing them is ambiguous.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        let plain = unescaped(&self.written);
        let other = (plain != self.written).then(|| self.written.clone());
        [Some(plain), other].into_iter().flatten().filter(|path| path.is_absolute())
    }
}

/// The files that a process maps executable, each once. A process that has ended has none.
///
/// # Errors
/// If `/proc` does not let us look.
pub fn executable(pid: u32) -> io::Result<Vec<Mapping>> {
    match File::open(format!("/proc/{pid}/maps")) {
        Ok(file) => parse(BufReader::new(file.take(LIST_MAX))).or_else(none_if_gone),
        Err(error) => none_if_gone(error),
    }
}

fn none_if_gone(error: io::Error) -> io::Result<Vec<Mapping>> {
    let is_gone =
        error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error());
    if is_gone { Ok(Vec::new()) } else { Err(error) }
}

/// The file that this process itself has mapped at an address: its device and inode number, as the kernel names them here.
///
/// # Errors
/// If `/proc` does not let us look.
pub fn own_file_at(address: u64) -> io::Result<Option<(Dev, u64)>> {
    let list = std::fs::read("/proc/self/maps")?;
    let lines = list.split(|byte| *byte == b'\n').filter_map(parse_line);
    let mut found = lines.filter(|(mapping, _)| mapping.addresses.contains(&address));
    Ok(found.next().map(|(mapping, _)| (mapping.device, mapping.inode)))
}

/// Lines that are not in the known form are left out, and so is what has no file.
fn parse(mut list: impl BufRead) -> io::Result<Vec<Mapping>> {
    let (mut mappings, mut line) = (Vec::<Mapping>::new(), Vec::new());
    loop {
        line.clear();
        if list.read_until(b'\n', &mut line)? == 0 {
            return Ok(mappings);
        }
        let Some((mapping, true)) = line.strip_suffix(b"\n").and_then(parse_line) else { continue };
        // The mappings of one file lie beside each other.
        let is_known = |known: &Mapping| (known.device, known.inode) == (mapping.device, mapping.inode);
        if !mappings.last().is_some_and(is_known) && !mappings.iter().any(is_known) {
            mappings.push(mapping);
        }
    }
}

/// `START-END PERMISSIONS OFFSET MAJOR:MINOR INODE   PATH`, numbers in hexadecimal but for the inode's. Also tells whether
/// it is executable.
fn parse_line(line: &[u8]) -> Option<(Mapping, bool)> {
    if line.len() > LINE_MAX {
        return None;
    }
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let mut field = || std::str::from_utf8(fields.next()?).ok();
    let (addresses, permissions, _offset, device, inode) = (field()?, field()?, field()?, field()?, field()?);
    let (start, end) = addresses.split_once('-')?;
    let (major, minor) = device.split_once(':')?;
    let mapping = Mapping {
        addresses: hexadecimal(start)?..hexadecimal(end)?,
        device: makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?),
        inode: inode.parse().ok()?,
        written: OsString::from_vec(fields.next()?.trim_ascii_start().to_vec()).into(),
    };
    // Anonymous memory, the heap, the vdso.
    (mapping.inode != 0).then_some((mapping, permissions.as_bytes().get(2) == Some(&b'x')))
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

/// The kernel escapes line feeds and nothing else, not even its escape character.
fn unescaped(path: &Path) -> PathBuf {
    const ESCAPED: &[u8] = br"\012";
    let (mut rest, mut plain) = (path.as_os_str().as_bytes(), Vec::new());
    while let Some(at) = memchr::memmem::find(rest, ESCAPED) {
        plain.extend_from_slice(&rest[..at]);
        plain.push(b'\n');
        rest = &rest[at + ESCAPED.len()..];
    }
    plain.extend_from_slice(rest);
    OsString::from_vec(plain).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIST: &str = r"560518cbe000-560518cc0000 r--p 00000000 fe:00 247030                     /usr/bin/cat
560518cc0000-560518cc5000 r-xp 00002000 fe:00 247030                     /usr/bin/cat
560518cc5000-560518cc8000 r-xp 00007000 fe:00 247030                     /usr/bin/cat
560518cc9000-560518cca000 rw-p 0000a000 fe:00 247030                     /usr/bin/cat
56052a000000-56052a021000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000001000 r-xp 00001000 08:11 77                         /srv/my libs/lib\012ssl.so.3 (deleted)
7f0000002000-7f0000003000 rwxp 00000000 00:01 1034                       /memfd:doublemapper (deleted)
7f0000004000-7f0000005000 rwxp 00000000 00:00 0 
7f0000006000-7f0000007000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
7f0000008000-7f0000009000 r-xp 00000000 103:00002 18446744073709551615   /x
not a line
";

    #[test]
    fn each_file_that_is_mapped_executable_is_listed_once() {
        let found = parse(LIST.as_bytes()).expect("in memory");
        let seen: Vec<_> = found.iter().map(|mapping| (mapping.device, mapping.inode, mapping.name())).collect();
        let expected = [
            (makedev(0xfe, 0), 247_030, "/usr/bin/cat"),
            (makedev(8, 0x11), 77, "/srv/my libs/lib\nssl.so.3"),
            (makedev(0, 1), 1034, "/memfd:doublemapper"),
            (makedev(0x103, 2), u64::MAX, "/x"),
        ];
        assert_eq!(seen, expected.map(|(device, inode, name)| (device, inode, name.to_owned())));
        assert_eq!(found[0].addresses, 0x5605_18cc_0000..0x5605_18cc_5000);
    }

    #[test]
    fn a_path_that_is_written_like_another_may_mean_both() {
        let line = br"1-2 r-xp 0 8:1 7 /a\012b";
        let paths: Vec<_> = parse_line(line).expect("well formed").0.paths().collect();
        assert_eq!(paths, [Path::new("/a\nb"), Path::new(r"/a\012b")]);
    }

    #[test]
    fn this_process_maps_its_executable_and_its_libraries() {
        let exe = std::env::current_exe().expect("readable");
        let names: Vec<_> = executable(std::process::id()).expect("readable").iter().map(Mapping::name).collect();
        assert!(names.iter().any(|name| Path::new(name) == exe), "{names:?}");
        assert!(names.iter().any(|name| name.contains("libc.so")), "{names:?}");
        assert!(executable(u32::MAX).expect("no failure").is_empty());
    }

    proptest! {
        #[test]
        fn no_list_makes_it_panic(bytes: Vec<u8>, line in "[0-9a-f]{1,17}-[0-9a-f]{1,17} r.xp [0-9a-f]{1,9} [0-9a-f]{1,9}:[0-9a-f]{1,9} [0-9]{1,21} *\\PC*\n") {
            let _ = parse(bytes.as_slice());
            let _ = parse(line.as_bytes());
        }
    }
}
