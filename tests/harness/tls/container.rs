//! A client in a tree of files of its own, as in a container of a distribution with musl: `xtask/src/musl.rs` makes it.

use std::process::Command;

use super::{Load, numbered::settings};
use crate::client_binary;

/// Goes into a mount namespace where the tree on a filesystem of its own is all that there is. There the client first keeps its library in
/// use for a while in a process that does nothing, then runs.
const SCRIPT: &str = "mount -t tmpfs none /mnt && cp -a \"$1/.\" /mnt && mkdir /mnt/dev /mnt/old && cp -a /dev/null /mnt/dev && cd /mnt || exit 1
pivot_root . old || exit 1
shift
exec /busybox sh -c '/busybox umount -l /old; /client idle=1 & /busybox sleep 8; /client \"$@\"; code=$?; kill $!; exit $code' sh \"$@\"";

/// The words that run a load there.
pub fn in_musl_container(load: &Load) -> Vec<String> {
    let root = client_binary("musl_root");
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", SCRIPT, "sh"]).arg(root).args(settings(load));
    let words = [unshare.get_program()].into_iter().chain(unshare.get_args());
    words.map(|word| word.to_str().expect("UTF-8").to_owned()).collect()
}
