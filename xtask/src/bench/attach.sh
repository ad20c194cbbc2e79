# Runs in a VM that counts instructions: starts each tracer in turn, until it traces, and ends it.
#   attach.sh ROUNDS ATTACH PLAN...      a PLAN is NAME:MARK=SHELL WORDS; a tracer that traces has written its mark
# Prints `attach NAME UNTIL_READY PROCESSOR_UNTIL_READY UNTIL_GONE` for each round but the first, in which files are read.
set -eu
rounds=$1 attach=$2
shift 2
plans=("$@")

sleep 10 # guest seconds: what the boot has left to do
for round in $(seq 0 "$rounds"); do
  for plan in "${plans[@]}"; do
    head=${plan%%=*}
    sleep 5 # until the programs of the one before are gone
    eval "set -- ${plan#*=}"
    figures=$("$attach" "${head#*:}" "$@")
    if [ "$round" != 0 ]; then echo "attach ${head%%:*} $figures"; fi
  done
done
