//! Privileged tests that run in the VMs.
