#!/usr/bin/env bash
# run.sh BINARY: drives a millrace broker with the clients that people use; see README.md for what is shown.
#
#   SERVER=HOST:PORT run.sh     an already running broker instead, of any make; RESTART_CMD is a shell command that kills
#                               it and starts it again (without it nothing is restarted), DATA_DIR its files if they are here
#   ONLY='java/group-*' run.sh  only the scenarios CLIENT/SCENARIO that the pattern matches
#   ROUNDS=10 run.sh            how many times kill9 kills the broker (3)
#   CI=true run.sh              a toolchain that is absent is a failure
#
# Needs bash 4.4 and GNU timeout. Installs into INTEROP_CACHE, by default .cache/interop of the repository.
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${INTEROP_CACHE:-$(cd "$HERE/../.." && pwd)/.cache/interop}
CLIENTS="tools java sarama kafka-python confluent-kafka franz-go kafka-go kafkajs" # the longest first
LIMIT=60    # seconds for one scenario, twice as long where the broker restarts; the clients give up 10 s earlier
TOTAL=900   # seconds for everything

now() { date +%s%3N; }

# --- the broker ----------------------------------------------------------------------------------------------------

listens() { (exec 3<>"/dev/tcp/${BOOTSTRAP%:*}/${BOOTSTRAP#*:}") 2>/dev/null; }

# start_broker starts BINARY on 127.0.0.1 and PORT (0: any), and waits until it listens. BOOTSTRAP is its address.
start_broker() {
  local detach; detach=$(command -v setsid)
  # A delay of 0 is also what the server.properties that Kafka ships has; 3 s per group would be most of the run.
  $detach "$BINARY" serve --data "$DATA_DIR" --listen "127.0.0.1:$PORT" --set group.initial.rebalance.delay.ms=0 >"$WORK/broker.out" 2>>"$WORK/broker.log" </dev/null &
  echo $! >"$WORK/broker.pid"
  disown
  for _ in $(seq 600); do
    BOOTSTRAP=$(sed -n 's/^ *listening *//p' "$WORK/broker.out")
    [ -n "$BOOTSTRAP" ] && listens && return 0
    kill -0 "$(cat "$WORK/broker.pid")" 2>/dev/null || break
    sleep 0.05
  done
  echo "the broker did not start: $BINARY"
  tail -20 "$WORK/broker.log"
  return 1
}

stop_broker() { # SIGNAL
  local pid; pid=$(cat "$WORK/broker.pid" 2>/dev/null) || return 0
  kill "-$1" "$pid" 2>/dev/null
  for _ in $(seq 300); do kill -0 "$pid" 2>/dev/null || return 0; sleep 0.05; done
  echo "the broker did not end"; kill -9 "$pid"
}

if [ "${1:-}" = --restart ]; then # what RESTART_CMD is for a broker of ours
  stop_broker 9 && start_broker
  exit
fi

# --- toolchains ----------------------------------------------------------------------------------------------------

# needs prints what is missing for a client, if anything.
needs() {
  local programs program
  case $1 in
    franz-go | sarama | kafka-go | kill9) programs=go ;;
    confluent-kafka | kafka-python) programs=python3 ;;
    kafkajs) programs="node npm" ;;
    java | tools) programs="java javac jar mvn" ;;
    segments) programs="go java javac jar mvn" ;; # with the jars of java
  esac
  for program in $programs; do command -v "$program" >/dev/null || { echo "no $program on PATH"; return; }; done
}

# changed STAMP FILE…: whether any of the files differs from when STAMP was written by unchanged.
changed() { local stamp=$1; shift; [ "$(cat "$@" | cksum)" != "$(cat "$stamp" 2>/dev/null)" ]; }
unchanged() { local stamp=$1; shift; cat "$@" | cksum >"$stamp"; }

install_go() { cd "$HERE" && go build -o "$CACHE/bin/" ./franz-go ./sarama ./kafka-go ./kill9 ./segments; }

install_python() {
  local wanted=$HERE/python/requirements.txt
  changed "$CACHE/venv/stamp" "$wanted" || return 0
  python3 -m venv --clear "$CACHE/venv" && "$CACHE/venv/bin/pip" install -q --disable-pip-version-check -r "$wanted" && unchanged "$CACHE/venv/stamp" "$wanted"
}

install_node() {
  local wanted=("$HERE/kafkajs/package.json" "$HERE/kafkajs/package-lock.json")
  changed "$CACHE/node/stamp" "${wanted[@]}" || return 0
  mkdir -p "$CACHE/node" && cp "${wanted[@]}" "$CACHE/node" && npm ci --prefix "$CACHE/node" --no-audit --no-fund && unchanged "$CACHE/node/stamp" "${wanted[@]}"
}

install_java() {
  local dir=$CACHE/java sources=("$HERE"/java/*.java "$HERE/java/pom.xml")
  changed "$dir/stamp" "${sources[@]}" || return 0
  rm -rf "$dir" && mkdir -p "$dir/classes" && mvn -q -B -f "$HERE/java/pom.xml" dependency:copy-dependencies -DoutputDirectory="$dir/libs" &&
    javac -d "$dir/classes" -cp "$dir/libs/*" "$HERE"/java/*.java && jar cf "$dir/libs/interop.jar" -C "$dir/classes" . || return 1
  # An archive of loaded classes halves the start of each of the many Java processes; they do without it too.
  java_command && $KAFKA_JAVA -XX:ArchiveClassesAtExit="$dir/classes.jsa" org.apache.kafka.tools.TopicCommand --bootstrap-server "$BOOTSTRAP" --list >/dev/null
  unchanged "$dir/stamp" "${sources[@]}"
}

java_command() {
  KAFKA_JAVA="java -Xmx256M -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xlog:cds=off -Xlog:cds+dynamic=off -Dlog4j2.configurationFile=$HERE/java/log4j2.properties"
  [ -f "$CACHE/java/classes.jsa" ] && KAFKA_JAVA+=" -XX:SharedArchiveFile=$CACHE/java/classes.jsa"
  KAFKA_JAVA+=" -cp $(printf '%s:' "$CACHE"/java/libs/*.jar)"
  export KAFKA_JAVA
}

# command_of sets COMMAND to what runs a client.
command_of() {
  case $1 in
    franz-go | sarama | kafka-go) COMMAND=("$CACHE/bin/$1") ;;
    kill9) COMMAND=("$CACHE/bin/kill9" -rounds "$ROUNDS") ;;
    segments) COMMAND=("$CACHE/bin/segments" -millrace "$BINARY" -libs "$CACHE/java/libs") ;;
    confluent-kafka) COMMAND=("$CACHE/venv/bin/python" "$HERE/python/confluent.py") ;;
    kafka-python) COMMAND=("$CACHE/venv/bin/python" "$HERE/python/kafka_python.py") ;;
    kafkajs) COMMAND=(node "$HERE/kafkajs/client.js") ;;
    java) java_command; read -ra COMMAND <<<"$KAFKA_JAVA Interop" ;;
    tools) java_command; COMMAND=(bash "$HERE/tools/tools.sh") ;;
  esac
}

# --- scenarios -----------------------------------------------------------------------------------------------------

# say prints a result line, with what follows it, in one piece, and counts it.
say() {
  printf '%s\n' "$@"
  echo "${1%% *}" >>"$WORK/results"
}

run_scenario() { # CLIENT SCENARIO
  local log=$WORK/$1-$2.log begun status limit=$LIMIT seconds
  [ "$(phase_of "$2")" = 3 ] && limit=$((LIMIT * 2))
  [ "$1" = kill9 ] && limit=$((LIMIT * (ROUNDS + 1)))
  [ "$1" = segments ] && limit=$((LIMIT * 2)) # it starts a Kafka
  if [ "$(phase_of "$2")" != 4 ] && ! listens; then say "FAIL $1 $2: the broker is gone"; return; fi
  if [ "$SECONDS" -gt "$TOTAL" ]; then say "FAIL $1 $2: no time left"; return; fi
  begun=$(now)
  SCENARIO_SECONDS=$((limit - 10)) timeout -k 5 "$limit" "${COMMAND[@]}" "$2" >"$log" 2>&1 </dev/null
  status=$?
  seconds=$(awk "BEGIN{printf \"%.1f\", ($(now)-$begun)/1000}")
  if [ "$status" = 0 ]; then say "PASS $1 $2 ${seconds}s"; return; fi
  say "FAIL $1 $2 ${seconds}s$([ "$status" = 124 ] && echo ": no end after ${limit}s")" \
    "$(tail -40 "$log" | sed 's/^/    /')" "    --- the broker's last lines:" "$(tail -15 "$WORK/broker.log" 2>/dev/null | sed 's/^/    /')"
}

# phase_of sorts scenarios: 1 what a client does alone, 2 what needs the others' topics, 3 what restarts the broker,
# 4 what reads its files after a clean stop.
phase_of() { case $1 in read-all | dump-segments) echo 2 ;; restart-* | *-rounds) echo 3 ;; dump-stopped | both-brokers) echo 4 ;; *) echo 1 ;; esac; }

run_client() { # CLIENT PHASE
  local scenario scenarios
  command_of "$1"
  scenarios=$("${COMMAND[@]}" list 2>"$WORK/$1.log") || { say "FAIL $1: it cannot list its scenarios" "$(cat "$WORK/$1.log")"; return; }
  for scenario in $scenarios; do
    [ "$(phase_of "$scenario")" = "$2" ] && [[ "$1/$scenario" == $ONLY ]] && run_scenario "$1" "$scenario"
  done
}

# each runs a function for all usable clients, so many at a time.
each() { # AT_ONCE FUNCTION ARGUMENT…
  local at_once=$1 client; shift
  for client in $usable; do
    while [ "$(jobs -rp | wc -l)" -ge "$at_once" ]; do wait -n; done
    "$1" "$client" "${@:2}" &
  done
  wait
}

# --- the run -------------------------------------------------------------------------------------------------------

BINARY=${1:-}
ONLY=${ONLY:-*} ROUNDS=${ROUNDS:-3} RUN=${RUN:-$(date +%s)} PORT=0
WORK=$(mktemp -d "${TMPDIR:-/tmp}/interop.XXXXXX")
export BINARY WORK RUN RECORDS=$HERE/records.json NODE_PATH=$CACHE/node/node_modules PYTHONDONTWRITEBYTECODE=1 GOFLAGS=-mod=readonly
mkdir -p "$CACHE/bin"
touch "$WORK/results"

if [ -n "${SERVER:-}" ]; then
  BOOTSTRAP=$SERVER
  listens || { echo "nothing listens on $SERVER"; exit 1; }
elif [ -n "$BINARY" ]; then
  DATA_DIR=$WORK/data
  trap 'stop_broker TERM' EXIT # whatever ends this; at the end it has stopped already
  start_broker || exit 1
  PORT=${BOOTSTRAP##*:} RESTART_CMD="'$HERE/run.sh' --restart"
else
  echo "usage: run.sh BINARY, or SERVER=HOST:PORT run.sh" >&2
  exit 2
fi
export BOOTSTRAP DATA_DIR PORT RESTART_CMD

usable=""
for client in $CLIENTS kill9 segments; do
  missing=$(needs "$client")
  if [ -z "$missing" ]; then
    [ "$client" = kill9 ] || [ "$client" = segments ] || usable+=" $client"
  elif [ "${CI:-}" = true ]; then
    say "FAIL $client: $missing"
  else
    say "SKIP $client: $missing"
  fi
done


install() { # FUNCTION FOR_WHOM…
  local log=$WORK/$1.log begun; begun=$(now)
  if "$1" >"$log" 2>&1; then
    printf 'installed in %d ms: %s\n' $(($(now) - begun)) "${*:2}"
    return
  fi
  say "FAIL ${*:2}: the installation" "$(tail -30 "$log" | sed 's/^/    /')"
  printf '%s\n' "${@:2}" >>"$WORK/broken"
}

wanted() { grep -qwE -- "$1" <<<"$usable"; }
touch "$WORK/broken"
if wanted 'franz-go'; then install install_go franz-go sarama kafka-go kill9 segments & fi
if wanted 'confluent-kafka'; then install install_python confluent-kafka kafka-python & fi
if wanted 'kafkajs'; then install install_node kafkajs & fi
if wanted 'java'; then install install_java java tools & fi
wait
for client in $(cat "$WORK/broken"); do usable=$(sed "s/ $client\b//" <<<"$usable"); done

each 2 run_client 1
each 2 run_client 2
if [ -n "${RESTART_CMD:-}" ]; then
  each 1 run_client 3
  if wanted 'franz-go' && [[ "kill9/$ROUNDS-rounds" == $ONLY ]]; then
    command_of kill9
    run_scenario kill9 "$ROUNDS-rounds"
  fi
else
  say "SKIP restart: no RESTART_CMD"
fi
if [ -z "${SERVER:-}" ]; then
  stop_broker TERM
  each 1 run_client 4
  if wanted 'franz-go' && wanted 'java' && [[ segments/both-brokers == $ONLY ]]; then
    command_of segments
    run_scenario segments both-brokers
  fi
fi

count() { grep -c "^$1" "$WORK/results"; }
echo "$(count PASS) passed, $(count FAIL) failed, $(count SKIP) skipped in ${SECONDS}s"
if [ "$(count FAIL)" != 0 ]; then
  echo "logs and the broker's data are kept in $WORK"
  exit 1
fi
rm -rf "$WORK"
