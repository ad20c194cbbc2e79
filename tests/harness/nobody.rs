//! The tracer as a user who is not root, with chosen rights.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    time::Duration,
};

use crate::{
    commands::{output_within, run},
    tracer::{Exit, tracer_path},
};

/// To start, to trace for a moment and to end.
const SHORT: Duration = Duration::from_secs(120);

/// A copy of the tracer that everybody may run: folders above the original may be root's alone.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| copy("conntracer"));

/// A user without any right of their own, who runs the tracer.
pub struct Nobody {
    /// Capabilities, without `CAP_`, in small letters.
    capabilities: Vec<&'static str>,
    /// The bounding set; all if `None`.
    bound: Option<Vec<&'static str>>,
    /// Bytes of memory that may be locked; without bound if `None`.
    locked: Option<u64>,
    program: PathBuf,
}

impl Nobody {
    /// With these capabilities and no other, on this side of any bound on memory.
    pub fn with(capabilities: &[&'static str]) -> Self {
        Self { capabilities: capabilities.to_vec(), bound: None, locked: None, program: PROGRAM.clone() }
    }

    /// With none, and a program whose file gives these.
    pub fn with_file_capabilities(capabilities: &[&str]) -> Self {
        Self::with_file(capabilities, "ep")
    }

    /// With none, and a program whose file would give these without putting them in effect, as that of the image, in a container that has
    /// only `granted`.
    pub fn with_image(capabilities: &[&str], granted: &[&'static str]) -> Self {
        Self { bound: Some(granted.to_vec()), ..Self::with_file(capabilities, "p") }
    }

    fn with_file(capabilities: &[&str], sets: &str) -> Self {
        let program = copy("conntracer-with-rights");
        let names: Vec<_> = capabilities.iter().map(|name| format!("cap_{name}")).collect();
        run(&format!("setcap {}={sets} {}", names.join(","), program.display()));
        Self { capabilities: Vec::new(), bound: None, locked: None, program }
    }

    /// May lock so many bytes of memory only.
    pub fn locking(mut self, bytes: u64) -> Self {
        self.locked = Some(bytes);
        self
    }

    /// The tracer that this user may run.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// `conntracer ARGS`, about to run.
    pub fn command(&self, args: &[impl AsRef<OsStr>]) -> Command {
        let mut command = self.wrap(&self.program);
        command.args(args);
        command
    }

    /// Any program, about to run as this user.
    pub fn wrap(&self, program: impl AsRef<OsStr>) -> Command {
        let locked = self.locked.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
        let listed = |names: &[&str]| names.iter().map(|name| format!(",+{name}")).collect::<String>();
        let given = listed(&self.capabilities);
        let mut command = Command::new("prlimit");
        command.args([&format!("--memlock={locked}:{locked}"), "--", "setpriv"]);
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.args(["--inh-caps", "--ambient-caps"].map(|set| format!("{set}=-all{given}")));
        command.args(self.bound.iter().map(|bound| format!("--bounding-set=-all{}", listed(bound))));
        command.arg("--").arg(program);
        command
    }

    /// `conntracer ARGS`, to its end.
    #[track_caller]
    pub fn conntracer(&self, args: &[&str]) -> Exit {
        let output = output_within(&mut self.command(args), None, SHORT);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Exit { status: output.status, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

/// A copy of the tracer of this name, where everybody may look.
fn copy(name: &str) -> PathBuf {
    let folder = public_folder();
    let copy = folder.join(name);
    fs::copy(tracer_path(), &copy).expect("a copy of the tracer");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("a program for all");
    copy
}

/// A folder that everybody may look into. The machine is thrown away, and it with it.
pub fn public_folder() -> PathBuf {
    let folder = tempfile::tempdir().expect("a folder").keep();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("a folder for all");
    folder
}

/// What the kernel says of the rights of a task: `/proc/PID/status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
    pub bounding: u64,
    pub no_new_privs: bool,
}

impl Rights {
    /// Those of each thread of a process, by the threads' names.
    #[track_caller]
    pub fn of_threads(pid: u32) -> Vec<(String, Self)> {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads").flatten();
        let of = |thread: fs::DirEntry| {
            let name = read(&thread.path().join("comm")).trim_end().to_owned();
            (name, Self::in_status(&read(&thread.path().join("status"))))
        };
        threads.map(of).collect()
    }

    /// Those that the text of a `/proc/PID/status` tells.
    #[track_caller]
    pub fn in_status(text: &str) -> Self {
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
        };
        let set = |name: &str| u64::from_str_radix(&field(name), 16).expect("a set of capabilities");
        Self {
            effective: set("CapEff"),
            permitted: set("CapPrm"),
            inheritable: set("CapInh"),
            ambient: set("CapAmb"),
            bounding: set("CapBnd"),
            no_new_privs: field("NoNewPrivs") == "1",
        }
    }
}

#[track_caller]
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
