//! `cargo xtask vm`: a command as root on a real kernel.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};

use crate::{
    kernels::{self, Any, Kernel},
    machine::{self, Machine, Outcome},
    setup,
};

/// What `vm` takes.
#[derive(clap::Args)]
pub struct Args {
    /// Kernel to boot: 5.10, 6.1, 6.12, 7.2 or all, or for another processor 6.1-aarch64, 6.12-aarch64 (repeatable)
    #[arg(long, required = true, value_delimiter = ',', value_name = "VERSION")]
    kernel: Vec<Any>,
    #[command(flatten)]
    hardware: Hardware,
    /// Seconds until the VM is stopped
    #[arg(long, default_value_t = 600, value_name = "S")]
    timeout: u64,
    /// Folder that the VM sees as /host; what is written there stays
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Environment variable of the command (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_variable)]
    env: Vec<(String, String)>,
    /// The command; it starts in the project's top folder, visible in the VM and writable, but written to in vain
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// The virtual hardware.
#[derive(clap::Args, Clone, Debug)]
pub struct Hardware {
    /// Memory of the VM
    #[arg(long, default_value_t = 3072, value_name = "MB")]
    pub memory: u32,
    /// Processors of the VM
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub cpus: u32,
    /// Make the VM's clock count executed instructions, 1 ns each: timings repeat to within 0.2 %
    #[arg(long, conflicts_with_all = ["cpus", "kvm"])]
    pub count_instructions: bool,
    /// Use the processor's own virtualisation instead of emulating one
    #[arg(long)]
    pub kvm: bool,
}

impl Hardware {
    /// A machine with this hardware, about to run a command on a kernel.
    pub fn machine(&self, kernel: Kernel, timeout: Duration, command: Vec<String>) -> Machine {
        Machine {
            kernel,
            memory: self.memory,
            cpus: self.cpus,
            count_instructions: self.count_instructions,
            kvm: self.kvm,
            timeout,
            out: None,
            env: Vec::new(),
            command,
        }
    }
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let valid = |c: char| c == '_' || c.is_ascii_alphanumeric();
    if name.is_empty() || !name.chars().all(valid) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("`{name}` is not a variable's name"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// Runs the command on each chosen kernel, one after the other; ends with the first exit code that is not 0.
pub fn run(args: &Args) -> Result<ExitCode> {
    let kernels = kernels::chosen_of_any(&args.kernel);
    let is_native = kernels.iter().all(|kernel| kernel.architecture.is_native());
    setup::ensure_packages(if is_native { setup::Purpose::Vm } else { setup::Purpose::Foreign })?;
    let mut code = 0;
    for kernel in kernels {
        let outcome = args.machine(kernel)?.run(&mut machine::pass_through);
        let outcome = outcome.with_context(|| format!("vm {}", kernel.name))?;
        eprintln!("{}", verdict(kernel, &outcome));
        if code == 0 {
            code = outcome.code;
        }
    }
    Ok(ExitCode::from(code))
}

impl Args {
    fn machine(&self, kernel: Kernel) -> Result<Machine> {
        let out = self.out.as_ref().map(|dir| {
            std::fs::create_dir_all(dir)
                .and_then(|()| dir.canonicalize())
                .with_context(|| format!("cannot use {} for --out", dir.display()))
        });
        let timeout = Duration::from_secs(self.timeout);
        let machine = self.hardware.machine(kernel, timeout, self.command.clone());
        Ok(Machine { out: out.transpose()?, env: self.env.clone(), ..machine })
    }
}

fn verdict(kernel: Kernel, outcome: &Outcome) -> String {
    let Outcome { release, code, took } = outcome;
    format!("vm {} ({release}): exit {code} in {:.0} s", kernel.name, took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_need_a_name() {
        assert_eq!(parse_variable("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert!(parse_variable("A").is_err());
        assert!(parse_variable("1A=b").is_err());
        assert!(parse_variable("=b").is_err());
    }
}
