# Runs in the VM after the init script; the launcher puts this run's variables above it:
#   built: the share that has this machine's root where the guest has another; modules: the kernel's module folder;
#   visible: folders to keep when /tmp is emptied; directory, command.
port() { # the device of a named virtio port
  for name in /sys/class/virtio-ports/*/name; do
    if [ "$(cat "$name")" = "$1" ]; then echo "/dev/$(basename "$(dirname "$name")")"; fi
  done
}

# A clean /tmp, as on a machine that has just started. A checkout or a cache that lives in the host's /tmp stays.
mkdir -p /run/old-tmp
mount --bind /tmp /run/old-tmp
mount -t tmpfs -o mode=1777 tmpfs /tmp
for folder in "${visible[@]}"; do
  [ -z "$built" ] || break # it has nothing of this machine yet
  case $folder in
    /tmp/*) mkdir -p "$folder" && mount --bind "/run/old-tmp/${folder#/tmp/}" "$folder" ;;
  esac
done

# What was built on this machine, at the same paths.
if [ -n "$built" ]; then
  mkdir -p /run/built
  mount -t virtiofs -o ro "$built" /run/built
  for folder in "${visible[@]}"; do
    mkdir -p "$folder" && mount --bind "/run/built$folder" "$folder"
  done
fi

mkdir -p /lib/modules # so that modprobe works
ln -sfn "$modules" "/lib/modules/$(basename "$modules")"

# A port can be opened only once. Behind a pipe, programs may open /dev/stdout as often as they like.
mkfifo /run/stdout /run/stderr
cat /run/stdout > "$(port stdout)" & out=$!
cat /run/stderr > "$(port stderr)" & err=$!

uname -r > /run/control/release # the sign of life
(cd "$directory" && exec "${command[@]}") > /run/stdout 2> /run/stderr < /dev/null
status=$?

# What the command left running may hold the pipes open: do not wait for it for ever.
for _ in {1..30}; do
  kill -0 $out 2>/dev/null || kill -0 $err 2>/dev/null || break
  sleep 0.1
done
echo $status > /run/control/status
sync
echo o > /proc/sysrq-trigger
sleep 5
