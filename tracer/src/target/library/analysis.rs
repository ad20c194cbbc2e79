//! What one file holds.

use std::sync::LazyLock;

use super::{
    elf::Elf,
    function::{Family, Function, FunctionName},
    go,
    kind::{self, Kind, Marker, Release},
    reader::{Damage, ReadAt, Reader},
    symbols::{Names, Symbol},
    version::{self, Product},
};

/// What one file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Analysis {
    /// The libraries in it: mostly none, more than one if an executable was linked with several.
    pub parts: Vec<Part>,
}

/// A TLS library in a file, or a C library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which.
    pub kind: Kind,
    /// The version it states, such as `3.0.19`.
    pub version: Option<String>,
    /// Its functions, in the order of their names; several of one name if a library keeps old forms of it.
    pub functions: Vec<Function>,
}

/// What a name that is searched for means.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    Function(FunctionName),
    Marker(Marker),
}

static NAMES: LazyLock<Names<Wanted>> = LazyLock::new(|| {
    let functions = FunctionName::ALL.iter().map(|name| (name.symbol(), Wanted::Function(*name)));
    let markers = Marker::ALL.iter().map(|(symbol, marker)| (*symbol, Wanted::Marker(*marker)));
    Names::new(functions.chain(markers))
});

/// Finds the TLS and C libraries in a file. A file that is no program or library has none.
///
/// # Errors
/// If it cannot be read, is damaged or for another machine.
pub fn analyse(file: &dyn ReadAt) -> Result<Analysis, Damage> {
    let reader = Reader::new(file)?;
    let Some(elf) = Elf::open(&reader)? else { return Ok(Analysis::default()) };
    let go = go::program(&elf)?;
    let found = Found::of(&elf, symbols(&elf, go.is_some())?);
    let mut parts = Vec::new();
    parts.extend(found.openssl(&elf));
    parts.extend(found.gnutls(&elf));
    parts.extend(go.and_then(|program| found.go(program)));
    parts.extend(found.libc());
    Ok(Analysis { parts })
}

/// The full table is looked into only if the dynamic one tells of no TLS library: it is much larger.
fn symbols(elf: &Elf<'_>, is_go: bool) -> Result<Vec<Symbol<Wanted>>, Damage> {
    let mut found = Vec::new();
    if let Some(table) = elf.dynamic_symbols()? {
        found.extend(NAMES.find(elf.reader, &table)?);
    }
    let is_of_libc = |symbol: &Symbol<Wanted>| symbol.name.family() == Some(Family::Libc);
    if (found.iter().all(is_of_libc) || is_go)
        && let Some(table) = elf.full_symbols()
    {
        found.extend(NAMES.find(elf.reader, &table)?);
    }
    if is_go && !found.iter().any(|symbol| symbol.name.family() == Some(Family::Go)) {
        found.extend(go::functions(elf, &NAMES)?);
    }
    Ok(found)
}

impl Wanted {
    fn family(self) -> Option<Family> {
        match self {
            Self::Function(name) => Some(name.family()),
            Self::Marker(_) => None,
        }
    }
}

/// The functions that a file has, and what else its symbols tell.
struct Found {
    functions: Vec<Function>,
    is_boring: bool,
}

impl Found {
    fn of(elf: &Elf<'_>, symbols: Vec<Symbol<Wanted>>) -> Self {
        let mut found = Self { functions: Vec::new(), is_boring: false };
        for symbol in symbols {
            match symbol.name {
                Wanted::Marker(Marker::Boring) => found.is_boring = true,
                Wanted::Function(name) => {
                    let offset = elf.code_offset(symbol.address);
                    found.functions.extend(offset.map(|(offset, segment)| {
                        let segment = [segment.start, segment.end];
                        Function { name, offset, size: symbol.size, segment }
                    }));
                }
            }
        }
        found.functions.sort_unstable_by_key(|function| (function.name, function.offset));
        found.functions.dedup_by_key(|function| (function.name, function.offset));
        found
    }

    fn has(&self, name: FunctionName) -> bool {
        self.functions.iter().any(|function| function.name == name)
    }

    fn part(&self, kind: Kind, version: Option<String>, families: &[Family]) -> Part {
        let is_part = |function: &&Function| families.contains(&function.name.family());
        Part { kind, version, functions: self.functions.iter().filter(is_part).copied().collect() }
    }

    /// A wrapper of another library with some of the names is not one: it has no handshake.
    fn openssl(&self, elf: &Elf<'_>) -> Option<Part> {
        let is_ssl = self.has(FunctionName::SslDoHandshake) && self.has(FunctionName::SslWrite);
        if !is_ssl && !self.has(FunctionName::BioWrite) {
            return None;
        }
        let stated = version::find(elf).filter(|(product, _)| *product != Product::GnuTls);
        let kind = if is_ssl {
            kind::with_openssls_interface(self.is_boring, stated.as_ref(), elf.soname().as_deref())
        } else {
            Kind::Crypto
        };
        // BoringSSL has none, and states the OpenSSL that it has the interface of.
        let version = stated.map(|(_, version)| version).filter(|_| kind != Kind::BoringSsl);
        Some(self.part(kind, version, &[Family::Ssl, Family::Bio]))
    }

    fn gnutls(&self, elf: &Elf<'_>) -> Option<Part> {
        if !self.has(FunctionName::GnuTlsHandshake) {
            return None;
        }
        let stated = version::find(elf).filter(|(product, _)| *product == Product::GnuTls);
        Some(self.part(Kind::GnuTls, stated.map(|(_, version)| version), &[Family::GnuTls]))
    }

    fn go(&self, program: go::Program) -> Option<Part> {
        let release = program.version.as_deref().and_then(Release::of);
        let part = self.part(Kind::Go { release }, program.version, &[Family::Go]);
        (!part.functions.is_empty()).then_some(part)
    }

    fn libc(&self) -> Option<Part> {
        self.has(FunctionName::GetAddrInfo).then(|| self.part(Kind::Libc, None, &[Family::Libc]))
    }
}
