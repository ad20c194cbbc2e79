//! Cuts a kernel's BTF down to what conntracer asks for, to check it in as a test fixture:
//!
//!     cargo run -p tracer --example reduce_btf -- /sys/kernel/btf/vmlinux tracer/tests/fixtures/btf/6.1.btf
//!
//! Kept are the structs of the offset table with all that they contain, the enumerations of its enumerators, and the
//! prototypes of hooked functions. A pointer keeps the name of the struct it points to, and nothing else.

use std::{collections::HashMap, path::Path};

use anyhow::{Context, Result, bail};
use tracer::kernel::btf::{
    Btf,
    encoding::{Kind, Record, encode},
};
use tracer_ebpf::Offsets;

const FUNCTIONS: &[&str] = &["inet_csk_accept", "tcp_connect", "tcp_close", "tcp_retransmit_skb", "tcp_done"];

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [from, to] = args.as_slice() else { bail!("usage: reduce_btf FROM TO") };
    let btf = Btf::from_file(Path::new(from))?;
    let mut reducer = Reducer {
        btf: &btf,
        types: Vec::new(),
        strings: vec![0],
        ids: HashMap::new(),
        names: HashMap::new(),
        count: 0,
    };
    for root in roots(&btf) {
        reducer.copy(root);
    }
    let bytes = reducer.finish();
    std::fs::write(to, &bytes).with_context(|| format!("cannot write {to}"))?;
    println!("{to}: {} bytes", bytes.len());
    Ok(())
}

fn roots(btf: &Btf) -> Vec<u32> {
    let structs = Offsets::FIELDS.iter().filter_map(|field| btf.struct_id(field.of));
    let enums = Offsets::ENUMERATORS.iter().filter_map(|one| btf.enum_id_with(one.value));
    let functions = FUNCTIONS.iter().filter_map(|name| btf.function_id(name));
    structs.chain(enums).chain(functions).collect()
}

struct Reducer<'a> {
    btf: &'a Btf,
    types: Vec<Vec<u32>>,
    strings: Vec<u8>,
    /// New id of each copied type.
    ids: HashMap<u32, u32>,
    names: HashMap<Vec<u8>, u32>,
    count: u32,
}

impl Reducer<'_> {
    /// Copies a type with what it contains, once; returns its new id.
    fn copy(&mut self, id: u32) -> u32 {
        if let Some(new) = self.ids.get(&id) {
            return *new;
        }
        let Some(record) = self.btf.encoded().record(id) else {
            return 0;
        };
        self.count += 1;
        let new = self.count;
        self.ids.insert(id, new);
        self.types.push(Vec::new());
        let words = self.rewrite(&record);
        self.types[new as usize - 1] = words;
        new
    }

    fn rewrite(&mut self, record: &Record<'_>) -> Vec<u32> {
        let name = self.name(record.name);
        let (target, list, count) = match record.kind {
            Kind::Struct | Kind::Union => {
                let list = record.entries().flat_map(|[name, id, at]| [self.name(name), self.copy(id), at]).collect();
                (record.size_or_type, list, record.list.len() / 12)
            }
            Kind::Prototype => {
                let list: Vec<u32> = record.entries().flat_map(|[name, id]| [self.name(name), self.copy(id)]).collect();
                (self.copy(record.size_or_type), list, record.list.len() / 8)
            }
            Kind::Enum => {
                let list = record.entries().flat_map(|[name, value]| [self.name(name), value]).collect();
                (record.size_or_type, list, record.list.len() / 8)
            }
            Kind::Enum64 => {
                let list = record.entries().flat_map(|[name, low, high]| [self.name(name), low, high]).collect();
                (record.size_or_type, list, record.list.len() / 12)
            }
            Kind::Array => {
                let list =
                    record.entries().flat_map(|[of, index, count]| [self.copy(of), self.copy(index), count]).collect();
                (0, list, 0)
            }
            Kind::Pointer => (self.pointee(record.size_or_type), Vec::new(), 0),
            Kind::Int => (record.size_or_type, record.entries::<1>().flatten().collect(), 0),
            Kind::Float => (record.size_or_type, Vec::new(), 0),
            // A function's linkage stands in the count.
            Kind::Function => (self.copy(record.size_or_type), Vec::new(), 1),
            Kind::Forward => (0, Vec::new(), 0),
            _ => (self.copy(record.size_or_type), Vec::new(), 0),
        };
        let info = u32::from(record.flag) << 31 | (record.kind as u32) << 24 | count as u32;
        [name, info, target].into_iter().chain(list).collect()
    }

    /// What a pointer may still say of its target: the name of a struct or union.
    fn pointee(&mut self, id: u32) -> u32 {
        let Some(record) = self.btf.encoded().record(id) else {
            return 0;
        };
        match record.kind {
            Kind::Struct | Kind::Union | Kind::Forward => {
                // An id of its own, apart from that of the full struct, if that is kept too.
                let key = id | 1 << 31;
                if let Some(new) = self.ids.get(&key) {
                    return *new;
                }
                self.count += 1;
                self.ids.insert(key, self.count);
                let is_union = record.kind == Kind::Union || record.kind == Kind::Forward && record.flag;
                let words = vec![self.name(record.name), u32::from(is_union) << 31 | (Kind::Forward as u32) << 24, 0];
                self.types.push(words);
                self.count
            }
            Kind::Const => {
                let target = self.pointee(record.size_or_type);
                self.count += 1;
                self.types.push(vec![0, (Kind::Const as u32) << 24, target]);
                self.count
            }
            Kind::Int => self.copy(id),
            _ => 0,
        }
    }

    fn name(&mut self, offset: u32) -> u32 {
        let name = self.btf.encoded().string(offset);
        if name.is_empty() {
            return 0;
        }
        *self.names.entry(name.to_vec()).or_insert_with(|| {
            let at = self.strings.len() as u32;
            self.strings.extend_from_slice(name);
            self.strings.push(0);
            at
        })
    }

    fn finish(self) -> Vec<u8> {
        encode(&self.types.concat(), &self.strings)
    }
}
