#!/bin/busybox sh
# First process of the VM: lays a tmpfs over the host's root, mounts what a node has, and hands over to the run script.
# Shares (virtiofs): rootfs = the host's root, control = the run's own files, host = what comes back to the host.
b=/bin/busybox
fail() { echo "VM_FAIL $1"; $b poweroff -f; }

$b mount -t proc none /proc
$b mount -t sysfs none /sys
$b mount -t devtmpfs none /dev
for module in /mods/*.ko; do $b insmod "$module" || echo "insmod $module failed"; done

$b mount -t virtiofs rootfs /host-root || fail virtiofs
$b mount -t tmpfs -o size=75% tmpfs /overlay
$b mkdir -p /overlay/upper /overlay/work
$b mount -t overlay -o lowerdir=/host-root,upperdir=/overlay/upper,workdir=/overlay/work overlay /newroot || fail overlay

for dir in proc sys dev; do $b mkdir -p /newroot/$dir; $b mount --move /$dir /newroot/$dir; done
$b ln -s /proc/self/fd /newroot/dev/fd # udev's work, and there is none
for stream in 0:stdin 1:stdout 2:stderr; do $b ln -s "fd/${stream%:*}" "/newroot/dev/${stream#*:}"; done
$b mkdir -p /newroot/run /newroot/dev/pts /newroot/dev/shm
$b mount -t tmpfs tmpfs /newroot/run
$b mount -t devpts none /newroot/dev/pts
$b mount -t tmpfs none /newroot/dev/shm
$b mount -t tracefs none /newroot/sys/kernel/tracing
$b mount -t debugfs none /newroot/sys/kernel/debug
$b mount -t bpf none /newroot/sys/fs/bpf
$b mkdir -p /newroot/sys/fs/cgroup
$b mount -t cgroup2 none /newroot/sys/fs/cgroup
$b mkdir -p /newroot/run/control /newroot/host
$b mount -t virtiofs control /newroot/run/control || fail control
$b mount -t virtiofs host /newroot/host || fail host
$b ip link set lo up
exec $b switch_root /newroot /bin/bash /run/control/run.sh
