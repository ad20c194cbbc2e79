# Runs in a VM that counts instructions: each loop without a tracer and beside each tracer in turn.
#   guest.sh ROUNDS PLAN...      a PLAN is NAME=SHELL WORDS; {} in the words stands for the tracer's output file
# Needs LOOPS, the folder of the built loops. Prints lines for `cargo xtask bench`:
#   count NAME LOOP INSTRUCTIONS OF_THESE_BY_THE_TRACER
#   lines NAME WRITTEN ITERATIONS                            lines in the tracer's file, iterations of churn it saw
set -u
rounds=$1
shift

WARM_UP=500        # iterations before counting
CHURN=4000         # iterations counted
RR=8000
SETTLE=10          # guest seconds; a guest that sleeps costs no time
START=40           # for a tracer to start
TIME_WAIT=61       # until the closed connections of the loop before are forgotten: they make connects dearer

measure() { # NAME LOOP COUNT [PID]
  sleep $TIME_WAIT
  echo "count $1 $2 $("$LOOPS/$2" $WARM_UP "$3" ${4:-})"
}

loops() { # NAME [PID]
  measure "$1" churn $CHURN "${2:-}"
  measure "$1" rr $RR "${2:-}"
}

traced() { # NAME COMMAND
  local file=/run/$1.out
  eval "${2//\{\}/$file} > /run/$1.stdout 2> /run/$1.err &"
  local pid=$!
  sleep $START
  loops "$1" $pid
  kill -INT $pid
  wait $pid
  [ -e "$file" ] || file=/run/$1.stdout
  # The connections of the loops, warm-up included, and rr's one.
  echo "lines $1 $(grep -c -e '"type":"connection".*"comm":"churn"' -e '^[^{].*churn' "$file") $((WARM_UP + CHURN))"
  grep '"type":"loss"' "$file" >&2 && echo "lost $1"
  rm -f "$file"
}

sleep $SETTLE
"$LOOPS/churn" $WARM_UP $WARM_UP > /dev/null
for _ in $(seq "$rounds"); do
  loops none
  for plan in "$@"; do
    traced "${plan%%=*}" "${plan#*=}"
  done
done
