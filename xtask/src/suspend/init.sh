#!/bin/busybox sh
# First process of a machine that is put to sleep: traces an echo over a connection that lasts through it, and prints what was told.
b=/bin/busybox
$b mount -t proc none /proc
$b mount -t sysfs none /sys
$b mount -t devtmpfs none /dev
$b --install -s /bin
dmesg -n 1 # or the kernel writes into our lines
ip link set lo up

fail() {
  echo "failed: $1"
  sed 's/^/said: /' /err
  dmesg | tail -20
  reboot -f
}
# WHAT COMMAND: until the command succeeds, two minutes at most.
await() {
  for _ in $(seq 1200); do
    eval "$2" && return
    sleep 0.1
  done
  fail "no $1"
}

nc -ll -p 9000 -e cat &
conntracer trace --port 9000 --format ndjson --output /out --no-findings 2>/err &
tracer=$!
await "trace" 'grep -q tracing /err'

(
  echo before
  while [ ! -e /awake ]; do sleep 0.1; done
  echo after
  while [ ! -e /done ]; do sleep 0.1; done
) | nc 127.0.0.1 9000 >/answers &
client=$!
await "first answer" 'grep -q before /answers'

clock=/sys/class/rtc/rtc0
echo enabled >$clock/device/power/wakeup
echo 0 >$clock/wakealarm
echo +8 >$clock/wakealarm || fail "no alarm could be set"
read -r asleep_at _ </proc/uptime
echo mem >/sys/power/state || fail "the machine does not sleep"
read -r awake_at _ </proc/uptime
touch /awake
await "second answer" 'grep -q after /answers'
touch /done
wait $client
sleep 1

stop_after=$(date -u +%FT%T)
kill -INT $tracer
wait $tracer || fail "the trace ended with an error"
echo "slept: $asleep_at $awake_at"
echo "stopped: $stop_after $(date -u +%FT%T)"
sed 's/^/told: /' /out
sed 's/^/said: /' /err
reboot -f # the machine is told to end there: switching off hangs after a sleep
