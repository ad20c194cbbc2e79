//! `struct file` and the table of a process's open files.

use core::marker::PhantomData;

use super::{
    access::{Access, Pointer},
    task::Task,
};
use crate::maps::offset;

/// Kind of a file in its mode (`include/uapi/linux/stat.h`).
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;

/// An open file, read by `A`.
#[derive(Clone, Copy)]
pub struct File<A> {
    pointer: Pointer,
    access: PhantomData<A>,
}

impl<A: Access> File<A> {
    #[inline(always)]
    pub fn new(pointer: Pointer) -> Self {
        Self { pointer, access: PhantomData }
    }

    /// The current process's open file with this descriptor.
    #[inline(always)]
    pub fn of_descriptor(descriptor: i32) -> Option<Self> {
        let files: Pointer = Task::<A>::current().files()?;
        let table: Pointer = A::read(files, offset!(files_table))?;
        let length: u32 = A::read(table, offset!(table_length))?;
        let descriptor = u32::try_from(descriptor).ok()?;
        if descriptor >= length {
            return None;
        }
        let files: Pointer = A::read(table, offset!(table_files))?;
        let file: Pointer = A::read(files.wrapping_byte_add(descriptor as usize * size_of::<Pointer>()), 0)?;
        if file.is_null() { None } else { Some(Self::new(file)) }
    }

    /// The `struct sock` behind a socket's file.
    #[inline(always)]
    pub fn sock(self) -> Option<Pointer> {
        let inode: Pointer = A::read(self.pointer, offset!(file_inode))?;
        let mode: u16 = A::read(inode, offset!(inode_mode))?;
        if mode & S_IFMT != S_IFSOCK {
            return None;
        }
        let socket: Pointer = A::read(self.pointer, offset!(file_private))?;
        A::read(socket, offset!(socket_sk))
    }

    /// Inode number and device.
    #[inline(always)]
    pub fn identity(self) -> Option<(u64, u32)> {
        let inode: Pointer = A::read(self.pointer, offset!(file_inode))?;
        let super_block: Pointer = A::read(inode, offset!(inode_sb))?;
        Some((A::read(inode, offset!(inode_number))?, A::read(super_block, offset!(sb_device))?))
    }
}
