//! TLS libraries are found in real processes. Where a function is, is compared with what the process itself says.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    rc::Rc,
};

use tracer::target::library::{Analysis, FunctionName, Kind, Libraries, Library, Release, analyse};
use tracer_ebpf::ssl::family;

/// A folder that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("conntracer-libraries-{}-{name}", process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process that says something and waits until it is dropped.
struct Process {
    child: Child,
    said: Vec<String>,
}

impl Process {
    /// Its first line is what it says, in words.
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("says something");
        Self { child, said: line.split_whitespace().map(str::to_owned).collect() }
    }

    fn python(script: &str, arguments: &[&Path]) -> Self {
        let script = format!("import sys, ctypes\n{script}\nsys.stdout.flush()\nsys.stdin.read()");
        Self::start(Command::new("/usr/bin/python3").args(["-c", &script]).args(arguments))
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where in its file the code at an address is, by the process's own list of mappings.
    fn offset_of(&self, address: u64) -> u64 {
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid())).expect("readable");
        let hexadecimal = |text: &str| u64::from_str_radix(text, 16).expect("a number");
        let found = maps.lines().find_map(|line| {
            let mut fields = line.split(' ');
            let (start, end) = fields.next()?.split_once('-')?;
            let offset = hexadecimal(fields.nth(1)?);
            let (start, end) = (hexadecimal(start), hexadecimal(end));
            (start..end).contains(&address).then(|| address - start + offset)
        });
        found.expect("the address is mapped")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Prints `what` and the addresses of a library's functions.
fn addresses(functions: &[FunctionName]) -> String {
    let names: Vec<_> = functions.iter().map(|name| name.symbol()).collect();
    format!("print(*[ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in {names:?}])")
}

fn only(libraries: &[Rc<Library>], is_wanted: fn(&Kind) -> bool) -> Rc<Library> {
    let mut wanted = libraries.iter().filter(|library| is_wanted(&library.kind));
    let found = wanted.next().unwrap_or_else(|| panic!("not among {libraries:#?}"));
    assert!(wanted.next().is_none(), "there is one only: {libraries:#?}");
    Rc::clone(found)
}

fn is_openssl(kind: &Kind) -> bool {
    matches!(kind, Kind::OpenSsl { .. })
}

fn offsets(library: &Library, name: FunctionName) -> Vec<u64> {
    library.functions.iter().filter(|function| function.name == name).map(|function| function.offset).collect()
}

/// Compares the offsets found with the addresses that the process said from its word `first` on.
fn assert_where_the_process_says(process: &Process, library: &Library, first: usize, functions: &[FunctionName]) {
    for (name, address) in functions.iter().zip(&process.said[first..]) {
        let offset = process.offset_of(address.parse().expect("an address"));
        assert!(offsets(library, *name).contains(&offset), "{name:?} at {offset:#x}: {library:#?}");
        let found = library.functions.iter().find(|function| function.offset == offset).expect("just seen");
        assert!((1..100_000).contains(&found.size), "{found:?}");
    }
    assert_eq!(process.said.len(), first + functions.len());
}

#[test]
fn the_c_librarys_function_is_found_returns_in_sight_and_is_not_to_be_told_of_again() {
    let python =
        Process::python(&format!("library = ctypes.CDLL(None)\n{}", addresses(&[FunctionName::GetAddrInfo])), &[]);
    let mut libraries = Libraries::default();
    let library = only(&libraries.examine(python.pid()), |kind| *kind == Kind::Libc);
    assert_where_the_process_says(&python, &library, 0, &[FunctionName::GetAddrInfo]);
    let returns = library.returns(&library.functions[0]);
    assert!(returns.is_some_and(|returns| !returns.is_empty()), "else no probe can go there");
    let settled = libraries.take_settled();
    assert!(settled.contains(&library.id), "every process maps it");
    let has_more = |library: &&Rc<Library>| library.kind != Kind::Libc;
    assert!(libraries.in_use().filter(has_more).all(|library| !settled.contains(&library.id)));
    let is_plain = library.id.kernel_key().is_some();
    assert!(!is_plain || library.id.is_mapped_by_any(), "by Python, if by no one else");
}

#[test]
fn openssls_functions_are_found_where_the_loader_puts_them() {
    use FunctionName::*;
    let ssl = [
        SslRead,
        SslReadEx,
        SslWrite,
        SslWriteEx,
        SslDoHandshake,
        SslConnect,
        SslAccept,
        SslShutdown,
        SslSetFd,
        SslSetBio,
        SslFree,
    ];
    let bio = [BioRead, BioWrite, BioWriteEx];
    for (file, is_kind, functions) in [
        ("libssl.so.3", is_openssl as fn(&Kind) -> bool, &ssl[..]),
        ("libcrypto.so.3", |kind: &Kind| *kind == Kind::Crypto, &bio),
    ] {
        let script = format!(
            "import ssl; print(ssl.OPENSSL_VERSION.split()[1], end=' ')\n\
                              library = ctypes.CDLL('{file}')\n{}",
            addresses(functions)
        );
        let python = Process::python(&script, &[]);
        let library = only(&Libraries::default().examine(python.pid()), is_kind);
        assert_where_the_process_says(&python, &library, 1, functions);
        assert_eq!(library.version.as_deref(), Some(python.said[0].as_str()));
        if let Kind::OpenSsl { release } = library.kind {
            assert_eq!(release, Release::of(&python.said[0]));
        }
        assert!(library.name.ends_with(file), "{}", library.name);
    }
}

#[test]
fn gnutls_functions_are_found_where_the_loader_puts_them() {
    use FunctionName::*;
    let functions = [
        GnuTlsHandshake,
        GnuTlsRecordSend,
        GnuTlsRecordSend2,
        GnuTlsRecordRecv,
        GnuTlsTransportSetInt2,
        GnuTlsTransportSetPtr,
        GnuTlsTransportSetPtr2,
        GnuTlsDeinit,
        GnuTlsBye,
    ];
    let script = format!(
        "library = ctypes.CDLL('libgnutls.so.30')\n\
                          library.gnutls_check_version.restype = ctypes.c_char_p\n\
                          print(library.gnutls_check_version(None).decode(), end=' ')\n{}",
        addresses(&functions)
    );
    let python = Process::python(&script, &[]);
    let library = only(&Libraries::default().examine(python.pid()), |kind| *kind == Kind::GnuTls);
    assert_where_the_process_says(&python, &library, 1, &functions);
    assert_eq!(library.version.as_deref(), Some(python.said[0].as_str()));
    for name in [GnuTlsRecordRecv, GnuTlsRecordRecvSeq] {
        let function = library.functions.iter().find(|function| function.name == name).expect("it is exported");
        let returns = library.returns(function).expect("all ways lead to a return instruction");
        let inside = function.offset..function.offset + function.size;
        assert!(returns.iter().any(|at| !inside.contains(at)), "most in the function that it jumps to: {returns:?}");
    }
}

#[test]
fn nodes_openssl_is_found_wherever_it_was_linked_to() {
    let script = "console.log(process.versions.openssl); process.stdin.resume()";
    let node = Process::start(Command::new("node").args(["-e", script]));
    let library = only(&Libraries::default().examine(node.pid()), is_openssl);
    assert_eq!(library.version.as_deref(), Some(node.said[0].as_str()));
    for name in [FunctionName::SslRead, FunctionName::SslWrite, FunctionName::SslDoHandshake] {
        assert_eq!(offsets(&library, name).len(), 1, "{name:?} in {}", library.name);
    }
}

/// Says the version and where the functions are, and waits.
const GO: &str = r#"
package main

import ("crypto/tls"; "fmt"; "io"; "os"; "reflect"; "runtime"; "strings")

func main() {
	functions := []interface{}{(*tls.Conn).Read, (*tls.Conn).Write, (*tls.Conn).Handshake, (*tls.Conn).HandshakeContext, (*tls.Conn).Close}
	fmt.Print(strings.TrimPrefix(runtime.Version(), "go"))
	for _, function := range functions {
		fmt.Print(" ", runtime.FuncForPC(reflect.ValueOf(function).Pointer()).Entry())
	}
	fmt.Println()
	io.Copy(io.Discard, os.Stdin)
}
"#;

fn build_go(folder: &Folder, name: &str, arguments: &[&str]) -> PathBuf {
    let (source, built) = (folder.file("main.go"), folder.file(name));
    fs::write(&source, GO).expect("written");
    let mut go = Command::new("/usr/bin/go");
    go.arg("build").args(arguments).arg("-o").arg(&built).arg(&source);
    go.env("GO111MODULE", "off").env("GOPROXY", "off").env("GOFLAGS", "");
    // Beside the cache of the clients, which are built likewise.
    go.env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("go-cache"));
    assert!(go.status().expect("go runs").success());
    built
}

fn assert_go_is_found(program: &Path) {
    use FunctionName::*;
    let process = Process::start(&mut Command::new(program));
    let library = only(&Libraries::default().examine(process.pid()), |kind| matches!(kind, Kind::Go { .. }));
    assert_where_the_process_says(&process, &library, 1, &[GoRead, GoWrite, GoHandshake, GoHandshakeContext, GoClose]);
    assert_eq!(library.version.as_deref(), Some(process.said[0].as_str()));
    assert_eq!(library.kind, Kind::Go { release: Release::of(&process.said[0]) });
}

#[test]
fn gos_functions_are_found_with_symbols_and_without() {
    let folder = Folder::new("go");
    let plain = build_go(&folder, "plain", &[]);
    assert_go_is_found(&plain);
    assert_go_is_found(&build_go(&folder, "stripped", &["-ldflags=-s -w"]));
    let bare = folder.file("bare");
    let mut bytes = fs::read(build_go(&folder, "stripped", &["-ldflags=-s -w"])).expect("built");
    remove_section_headers(&mut bytes);
    fs::copy(&plain, &bare).expect("copied with its mode");
    fs::write(&bare, bytes).expect("written");
    assert_go_is_found(&bare);
}

#[test]
fn gos_functions_are_found_in_relocatable_programs() {
    let folder = Folder::new("pie");
    assert_go_is_found(&build_go(&folder, "pie", &["-buildmode=pie"]));
    assert_go_is_found(&build_go(&folder, "stripped", &["-buildmode=pie", "-ldflags=-s -w"]));
    assert_go_is_found(&build_go(&folder, "external", &["-buildmode=pie", "-ldflags=-s -w -linkmode=external"]));
}

/// The loader does not need them, and some programs come without.
fn remove_section_headers(elf: &mut [u8]) {
    const PLACE: usize = 0x28;
    const COUNT: usize = 0x3c;
    elf[PLACE..PLACE + 8].fill(0);
    elf[COUNT..COUNT + 4].fill(0);
}

/// A library by name, as the loader finds it. The file's own name may be longer.
pub fn system_library(soname: &str) -> PathBuf {
    let python = Process::python("ctypes.CDLL(sys.argv[1]); print()", &[Path::new(soname)]);
    let maps = fs::read_to_string(format!("/proc/{}/maps", python.pid())).expect("readable");
    let path = maps
        .lines()
        .filter_map(|line| Some(&line[line.find('/')?..]))
        .find(|path| path.rsplit('/').next().is_some_and(|name| name.starts_with(soname)));
    path.expect("it is mapped").into()
}

#[test]
fn a_library_without_section_headers_is_found_all_the_same() {
    let bytes = fs::read(system_library("libssl.so.3")).expect("readable");
    let mut bare = bytes.clone();
    remove_section_headers(&mut bare);
    let (bare, whole) = (analyse(&bare).expect("sound"), analyse(&bytes).expect("sound"));
    assert_eq!(whole.parts.len(), 1);
    assert_eq!(bare, whole);
}

#[test]
fn programs_without_tls_have_none() {
    let folder = Folder::new("static");
    let (source, program) = (folder.file("main.c"), folder.file("main"));
    // It has one of the names, but as a variable.
    fs::write(&source, "int SSL_write; int main() { return SSL_write; }").expect("written");
    let gcc = Command::new("gcc").arg("-static").arg("-o").args([&program, &source]).status();
    assert!(gcc.expect("gcc runs").success());
    for file in [program.as_path(), Path::new("/bin/sh"), &source] {
        assert_eq!(analyse(&fs::read(file).expect("readable")).expect("sound"), Analysis::default(), "{file:?}");
    }
}

/// Loads the library that is its argument.
fn load(library: &Path) -> Process {
    Process::python("ctypes.CDLL(sys.argv[1]); print()", &[library])
}

#[test]
fn a_file_is_one_library_by_whatever_name_and_path() {
    let folder = Folder::new("names");
    let file = folder.file("no ssl\nin (deleted)");
    fs::copy(system_library("libssl.so.3"), &file).expect("copied");
    let (hard, symbolic) = (folder.file("hard"), folder.file("symbolic"));
    fs::hard_link(&file, &hard).expect("linked");
    std::os::unix::fs::symlink(&file, &symbolic).expect("linked");
    let mut libraries = Libraries::default();
    let processes = [&file, &hard, &symbolic].map(|path| load(path));
    let found = processes.each_ref().map(|process| only(&libraries.examine(process.pid()), is_openssl));
    assert!(Rc::ptr_eq(&found[0], &found[1]) && Rc::ptr_eq(&found[0], &found[2]));
    assert_eq!(Path::new(&found[0].name), file.with_file_name("no ssl\nin"));
    assert_eq!(libraries.in_use().filter(|library| is_openssl(&library.kind)).count(), 1);
    assert_eq!(libraries.take_unreadable(), []);
}

#[test]
fn a_library_that_was_replaced_while_in_use_is_two() {
    let folder = Folder::new("upgrade");
    let (file, next) = (folder.file("libssl.so.3"), folder.file("next"));
    let source = system_library("libssl.so.3");
    fs::copy(&source, &file).expect("copied");
    let old = load(&file);
    fs::copy(&source, &next).expect("copied");
    fs::rename(&next, &file).expect("replaced");
    let new = load(&file);
    let mut libraries = Libraries::default();
    let before = only(&libraries.examine(old.pid()), is_openssl);
    let after = only(&libraries.examine(new.pid()), is_openssl);
    assert_ne!(before.id, after.id);
    assert_eq!(before.name, after.name);
    assert_eq!(before.functions, after.functions);
    assert_eq!(libraries.take_unreadable(), []);
    // Probes get to each of them, deleted or not.
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).expect("readable"));
    assert_ne!(inode(&before.probe_path()), inode(&file));
    assert_eq!(inode(&after.probe_path()), inode(&file));
}

#[test]
fn a_library_goes_with_the_last_process_that_uses_it() {
    let folder = Folder::new("count");
    let file = folder.file("library");
    fs::copy(system_library("libssl.so.3"), &file).expect("copied");
    let mut libraries = Libraries::default();
    let processes = [(); 3].map(|()| load(&file));
    for process in &processes {
        assert_eq!(Path::new(&only(&libraries.examine(process.pid()), is_openssl).name), file);
        libraries.examine(process.pid());
    }
    let names =
        |released: Vec<Rc<Library>>| -> Vec<_> { released.iter().map(|library| library.name.clone()).collect() };
    let [first, second, third] = processes;
    libraries.forget(first.pid());
    libraries.forget(first.pid());
    assert_eq!(names(libraries.take_released()), [""; 0]);
    let ended = second.pid();
    drop(second);
    assert!(libraries.examine(ended).is_empty(), "it has ended");
    assert_eq!(names(libraries.take_released()), [""; 0]);
    libraries.retain(|pid| pid != third.pid());
    let released = names(libraries.take_released());
    assert!(released.iter().any(|name| Path::new(name) == file), "{released:?}");
    assert_eq!(libraries.in_use().count(), 0);
    assert_eq!(names(libraries.take_released()), [""; 0]);
}

#[test]
fn a_process_that_has_ended_used_the_only_library_that_it_can_have_used() {
    let folder = Folder::new("ended");
    let file = folder.file("other");
    let source = system_library("libgnutls.so.30");
    let mut bytes = fs::read(&source).expect("readable");
    let mut libraries = Libraries::default();
    let of_ended = |libraries: &mut Libraries, path: &Path| {
        let process = load(path);
        let version = only(&libraries.examine(process.pid()), |kind| *kind == Kind::GnuTls).product();
        libraries.forget(process.pid());
        let pid = process.pid();
        drop(process);
        (version, libraries.name(pid, family::GNUTLS, 0))
    };
    let (system, named) = of_ended(&mut libraries, &source);
    assert_eq!(named.as_deref(), Some(system.as_str()));
    assert_eq!(libraries.name(process::id(), family::OPENSSL, 0), None, "there was none");
    // Another version of the same length.
    let version = system.rsplit(' ').next().expect("a version").as_bytes();
    let last = version.len() - 1;
    for at in memchr::memmem::find_iter(&bytes.clone(), version) {
        bytes[at + last] ^= 1;
    }
    fs::write(&file, bytes).expect("written");
    let (other, named) = of_ended(&mut libraries, &file);
    assert_ne!(other, system);
    assert_eq!(named, None, "it may have been either");
}

#[test]
fn a_library_that_is_loaded_later_is_found_then() {
    let mut python =
        Process::python("print()\nsys.stdout.flush()\nsys.stdin.readline()\nctypes.CDLL('libssl.so.3')\nprint()", &[]);
    let mut libraries = Libraries::default();
    assert!(!libraries.examine(python.pid()).iter().any(|library| is_openssl(&library.kind)));
    std::io::Write::write_all(python.child.stdin.as_mut().expect("piped"), b"\n").expect("written");
    std::io::Read::read_exact(python.child.stdout.as_mut().expect("piped"), &mut [0]).expect("loaded");
    only(&libraries.examine(python.pid()), is_openssl);
}

#[test]
fn a_damaged_library_is_named_once_however_many_processes_map_it() {
    let folder = Folder::new("damaged");
    let file = folder.file("damaged.so");
    let mut bytes = fs::read(system_library("libssl.so.3")).expect("readable");
    bytes.truncate(8_192);
    fs::write(&file, bytes).expect("written");
    // Such a file cannot be loaded, but mapped.
    let script = "import mmap; file = open(sys.argv[1], 'rb')\n\
                  area = mmap.mmap(file.fileno(), 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)\nprint()";
    let processes = [(); 2].map(|()| Process::python(script, &[&file]));
    let mut libraries = Libraries::default();
    processes.iter().for_each(|process| drop(libraries.examine(process.pid())));
    let named: HashMap<_, _> = libraries.take_unreadable().into_iter().map(|file| (file.name, file.why)).collect();
    assert_eq!(named.len(), 1, "{named:?}");
    assert_eq!(named[file.to_str().expect("text")], "is cut short, or damaged");
    assert!(libraries.take_unreadable().is_empty());
}

/// Loads the library `file` of a folder that is mounted over another one where only the process sees it: `mount` mounts
/// it, at `$1`, from `$2`.
fn load_elsewhere(mount: &str, at: &Path, from: &Path, file: &str) -> Process {
    const SCRIPT: &str = "import sys, ctypes; ctypes.CDLL(sys.argv[1]); print(flush=True); sys.stdin.read()";
    let shell = format!("{mount} && exec /usr/bin/python3 -c '{SCRIPT}' \"$1/{file}\"");
    let mut command = Command::new("unshare");
    // Whoever is not root may do so as the root of a user namespace.
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", &shell, "sh"]).args([at, from]);
    Process::start(&mut command)
}

#[test]
fn a_container_has_its_own_library_at_the_same_path() {
    let folder = Folder::new("container");
    let (outside, inside) = (folder.file("outside"), folder.file("inside"));
    for folder in [&outside, &inside] {
        fs::create_dir(folder).expect("a folder");
        fs::copy(system_library("libssl.so.3"), folder.join("ssl")).expect("copied");
    }
    let processes =
        [load(&outside.join("ssl")), load_elsewhere("mount --bind \"$2\" \"$1\"", &outside, &inside, "ssl")];
    let mut libraries = Libraries::default();
    let [hosts, containers] = processes.each_ref().map(|process| only(&libraries.examine(process.pid()), is_openssl));
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).expect("readable"));
    assert_eq!(inode(&hosts.probe_path()), inode(&outside.join("ssl")));
    assert_eq!(inode(&containers.probe_path()), inode(&inside.join("ssl")));
    assert_eq!(libraries.take_unreadable(), []);
}

#[test]
fn containers_of_one_image_share_its_library_and_those_that_changed_it_do_not() {
    let folder = Folder::new("image");
    let (image, mount) = (folder.file("image"), folder.file("mount"));
    for folder in [&image, &mount] {
        fs::create_dir(folder).expect("a folder");
    }
    fs::copy(system_library("libssl.so.3"), image.join("ssl")).expect("copied");
    let overlay = "mount -t tmpfs tmpfs \"$1\" && mkdir \"$1/upper\" \"$1/work\" \"$1/merged\" && \
                   mount -t overlay -o \"lowerdir=$2,upperdir=$1/upper,workdir=$1/work\" overlay \"$1/merged\"";
    let changing = format!("{overlay} && touch \"$1/merged/ssl\"");
    let processes = [overlay, overlay, &changing].map(|how| load_elsewhere(how, &mount, &image, "merged/ssl"));
    let mut libraries = Libraries::default();
    let [first, second, changed] =
        processes.each_ref().map(|process| only(&libraries.examine(process.pid()), is_openssl));
    assert!(Rc::ptr_eq(&first, &second), "{first:?} {second:?}");
    assert_ne!(first.id, changed.id);
    assert_eq!(first.functions, changed.functions);
    assert_eq!(libraries.take_unreadable(), []);
}
