//! The kernels conntracer is tested on: Debian's cloud kernels, unpacked in the cache.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
};

use anyhow::{Context, Result, bail};

use crate::{
    architecture::Architecture::{self, Aarch64, X86_64},
    cache::{self, Manifest},
    command::{self, say},
    debian::Suite,
    paths,
};

/// A kernel to test on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// What the user calls it.
    pub name: &'static str,
    /// The Debian suite that ships it.
    pub suite: &'static str,
    /// Further words for its command line.
    pub parameters: &'static str,
    /// The processor that it is for.
    pub architecture: Architecture,
}

/// Oldest first. 5.10 is the floor; sid gives whatever is newest, 7.2 when this was written.
pub const KERNELS: [Kernel; 4] = [
    Kernel { name: "5.10", suite: "bullseye", parameters: "", architecture: X86_64 },
    Kernel { name: "6.1", suite: "bookworm", parameters: "", architecture: X86_64 },
    Kernel { name: "6.12", suite: "trixie", parameters: "", architecture: X86_64 },
    // From 6.18 on the kernel allocates BPF socket storage only from slabs that are updated by cmpxchg16b, which the VM's
    // processor must do without (QEMU 7.2 emulates it wrongly), or from slabs under debugging. Real machines have the
    // instruction; so the slabs are put under debugging, and the same path is taken as there.
    Kernel { name: "7.2", suite: "sid", parameters: "slab_debug=F,kmalloc-*", architecture: X86_64 },
];

/// The same for another processor, by names of their own.
pub const FOREIGN: [Kernel; 2] = [
    Kernel { name: "6.1-aarch64", suite: "bookworm", parameters: "", architecture: Aarch64 },
    Kernel { name: "6.12-aarch64", suite: "trixie", parameters: "", architecture: Aarch64 },
];

/// The kernel image in a kernel's folder.
const VMLINUZ: &str = "vmlinuz";

/// One kernel or all of them, as given on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Every kernel of the table.
    All,
    /// This one.
    One(Kernel),
}

impl Choice {
    fn parse(text: &str, among: &[Kernel]) -> Result<Self> {
        if text == "all" {
            return Ok(Self::All);
        }
        match among.iter().find(|kernel| kernel.name == text || kernel.suite == text) {
            Some(kernel) => Ok(Self::One(*kernel)),
            None => {
                let names: Vec<_> = among.iter().map(|kernel| kernel.name).collect();
                bail!("no such kernel; there are {} and all", names.join(", "))
            }
        }
    }
}

impl FromStr for Choice {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text, &KERNELS)
    }
}

/// The same among those for another processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign(Choice);

impl FromStr for Foreign {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Choice::parse(text, &FOREIGN).map(Self)
    }
}

/// The same among both. All are those for this machine's processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Any(Choice);

impl FromStr for Any {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Choice::parse(text, &[KERNELS.as_slice(), &FOREIGN].concat()).map(Self)
    }
}

/// The chosen kernels, each once, in the table's order.
pub fn chosen(choices: &[Choice]) -> Vec<Kernel> {
    pick(&KERNELS, choices)
}

/// The same of those for another processor.
pub fn chosen_foreign(choices: &[Foreign]) -> Vec<Kernel> {
    pick(&FOREIGN, &choices.iter().map(|Foreign(choice)| *choice).collect::<Vec<_>>())
}

/// The same of both.
pub fn chosen_of_any(choices: &[Any]) -> Vec<Kernel> {
    let (all, named): (Vec<_>, Vec<_>) =
        choices.iter().map(|Any(choice)| *choice).partition(|choice| *choice == Choice::All);
    let native = pick(&KERNELS, &[all, named.clone()].concat());
    [native, pick(&FOREIGN, &named)].concat()
}

fn pick(among: &[Kernel], choices: &[Choice]) -> Vec<Kernel> {
    let is_wanted = |kernel: &&Kernel| choices.contains(&Choice::All) || choices.contains(&Choice::One(**kernel));
    among.iter().filter(is_wanted).copied().collect()
}

impl Kernel {
    /// The kernel's folder in the cache, fetched if it is not there or damaged.
    pub fn ensure(self) -> Result<Unpacked> {
        let folder = match self.architecture {
            X86_64 => self.suite.to_owned(),
            other => format!("{}-{}", self.suite, other.debian()),
        };
        let dir = paths::cache_dir()?.join("kernels").join(folder);
        let manifest = cache::ensure(&dir, |dir| self.fetch(dir))
            .with_context(|| format!("cannot fetch the {} kernel", self.name))?;
        let checksum = manifest.files.get(VMLINUZ).cloned().unwrap_or_default();
        Ok(Unpacked { dir, checksum })
    }

    /// apt checks the signatures; what is written down is what it let through.
    fn fetch(self, dir: &Path) -> Result<Manifest> {
        // Names the image of the day.
        let meta_package = format!("linux-image-cloud-{}", self.architecture.debian());
        say(format!("fetching the {} kernel (Debian {}, {meta_package})", self.name, self.suite));
        let suite = Suite::open(self.suite, self.architecture)?;
        let packages = suite.unpack(&image_packages(&suite, &meta_package)?, dir)?;
        let release = link_modules(dir)?;
        command::output(Command::new("depmod").arg("-b").arg(dir).arg(&release))?;
        link_image(dir, &release)?;
        Manifest::describe(dir, packages, &[VMLINUZ])
    }
}

/// A kernel in the cache.
pub struct Unpacked {
    dir: PathBuf,
    /// The image's SHA-256.
    pub checksum: String,
}

impl Unpacked {
    /// The bootable image.
    pub fn image(&self) -> PathBuf {
        self.dir.join(VMLINUZ)
    }

    /// The folder of modules, named after the kernel's release.
    pub fn modules(&self) -> Result<PathBuf> {
        let mut entries = fs::read_dir(self.dir.join("lib/modules"))?;
        let entry = entries.next().context("a kernel without modules")??;
        Ok(entry.path())
    }
}

/// The image and its modules: one package up to 6.x; from 7.x on the image names `-binary` and `-modules`.
fn image_packages(suite: &Suite, meta_package: &str) -> Result<Vec<String>> {
    let is_image = |name: &&String| name.strip_prefix("linux-image-").is_some_and(starts_with_digit);
    let is_part = |name: &String| {
        let rest = name.strip_prefix("linux-binary-").or_else(|| name.strip_prefix("linux-modules-"));
        rest.is_some_and(starts_with_digit)
    };
    let meta = suite.depends(meta_package)?;
    let image = meta.iter().find(is_image).with_context(|| format!("{meta_package} names no image"))?;
    let mut packages = vec![image.clone()];
    let mut next = 0;
    while let Some(package) = packages.get(next).cloned() {
        for part in suite.depends(&package)?.into_iter().filter(is_part) {
            if !packages.contains(&part) {
                packages.push(part);
            }
        }
        next += 1;
    }
    Ok(packages)
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit())
}

/// Puts the modules under lib/modules whatever the suite, where depmod and modprobe look; returns the release.
fn link_modules(dir: &Path) -> Result<String> {
    let (home, other) = (dir.join("lib/modules"), dir.join("usr/lib/modules"));
    let source = if home.is_dir() { &home } else { &other };
    let entry = fs::read_dir(source).context("the kernel package holds no modules")?.next().context("no modules")??;
    let release = entry.file_name().to_string_lossy().into_owned();
    if *source == other {
        fs::create_dir_all(&home)?;
        symlink(Path::new("../../usr/lib/modules").join(&release), home.join(&release))?;
    }
    Ok(release)
}

/// Gives the image one name whatever the suite.
fn link_image(dir: &Path, release: &str) -> Result<()> {
    let candidates = [format!("boot/vmlinuz-{release}"), format!("usr/lib/modules/{release}/vmlinuz")];
    let image =
        candidates.iter().find(|image| dir.join(image).is_file()).context("the kernel package holds no image")?;
    symlink(image, dir.join(VMLINUZ)).context("cannot link the kernel image")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_goes_by_version_or_suite() -> Result<()> {
        assert_eq!(Choice::from_str("6.12")?, Choice::from_str("trixie")?);
        assert!(Choice::from_str("4.19").is_err());
        Ok(())
    }

    #[test]
    fn all_covers_every_kernel_once() -> Result<()> {
        assert_eq!(chosen(&[Choice::from_str("6.1")?, Choice::All]), KERNELS);
        assert_eq!(chosen(&[Choice::from_str("7.2")?, Choice::from_str("5.10")?]), [KERNELS[0], KERNELS[3]]);
        Ok(())
    }
}
