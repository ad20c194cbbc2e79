# Runs in a VM that counts instructions: each loop without a tracer and beside each tracer in turn.
#   guest.sh ROUNDS PLAN...      a PLAN is NAME:LOOP,LOOP...=SHELL WORDS
# {} in the words stands for the tracer's output file, {pid} for a process that has nothing to do with the loops. Without words it
# is no tracer.
# Needs LOOPS, the folder of the built loops. Prints lines for `cargo xtask bench` (the counts also to stderr, as they come):
#   count NAME LOOP INSTRUCTIONS OF_THESE_BY_THE_TRACER
#   lines NAME LOOP KIND WRITTEN ITERATIONS      lines in the tracer's file; iterations that it saw of the loop
#   failed NAME                                  the tracer had ended before it was told to; its complaints went to stderr
#   lost NAME                                    it reported losses
set -u
rounds=$1
shift

# Iterations before counting, and counted.
declare -A WARM_UP=([churn]=500 [rr]=500 [tls-rr]=500 [tls-churn]=50 [bulk]=500)
declare -A COUNT=([churn]=4000 [rr]=8000 [tls-rr]=4000 [tls-churn]=200 [bulk]=2000)
SETTLE=10          # guest seconds; a guest that sleeps costs no time
START=40           # for a tracer to start
TIME_WAIT=61       # until the closed connections of the loop before are forgotten: they make connects dearer

loops() { # NAME LOOPS [PID]
  local loop
  for loop in ${2//,/ }; do
    sleep $TIME_WAIT
    echo "count $1 $loop $("$LOOPS/$loop" "${WARM_UP[$loop]}" "${COUNT[$loop]}" ${3:-})" | tee /dev/stderr
  done
}

lines() { # NAME LOOP KIND PATTERN...
  local name=$1 loop=$2 kind=$3
  shift 3
  echo "lines $name $loop $kind $(cat "/run/$name.out" "/run/$name.stdout" | grep -c "$@") $((WARM_UP[$loop] + COUNT[$loop]))"
}

traced() { # NAME LOOPS COMMAND
  local file=/run/$1.out
  local command=${3//\{\}/$file}
  : > "$file"
  eval "${command//\{pid\}/$bystander} > /run/$1.stdout 2> /run/$1.err &"
  local pid=$!
  sleep $START
  if ! kill -0 $pid; then
    cat "/run/$1.stdout" "/run/$1.err" >&2
    echo "failed $1"
    return
  fi
  loops "$1" "$2" $pid
  kill -INT $pid
  wait $pid
  for loop in ${2//,/ }; do
    lines "$1" "$loop" connection -e "\"type\":\"connection\".*\"comm\":\"$loop\"" -e "^[^{].*$loop"
    lines "$1" "$loop" exchange -e "\"type\":\"exchange\".*\"comm\":\"$loop\""
  done
  grep '"type":"loss"' "$file" >&2 && echo "lost $1"
  rm -f "$file"
}

sleep 1000000000 &
bystander=$!
sleep $SETTLE
"$LOOPS/churn" 500 500 > /dev/null
for _ in $(seq "$rounds"); do
  for plan in "$@"; do
    words=${plan#*=} head=${plan%%=*}
    if [ -z "$words" ]; then
      loops "${head%%:*}" "${head#*:}"
    else
      traced "${head%%:*}" "${head#*:}" "$words"
    fi
  done
done
kill $bystander
