//! The BPF object: module list and licence, no logic.
#![no_std]
#![no_main]
