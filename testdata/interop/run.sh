#!/usr/bin/env bash
# run.sh BINARY: drives a millrace broker with the clients that people use; see README.md for what is shown.
#
#   SERVER=HOST:PORT run.sh     an already running broker instead, of any make; RESTART_CMD is a shell command that kills
#                               it and starts it again (without it nothing is restarted), DATA_DIR its files if they are here
#   ONLY='java/group-*' run.sh  only the scenarios CLIENT/SCENARIO that the pattern matches
#   CLIENTS='java kafkajs' run.sh  only these clients
#   INTEROP_NODES=3 run.sh …    a cluster of three, every topic with three replicas; what restarts is another node each time
#   ROUNDS=10 run.sh            how many times kill9 kills the broker (3)
#   CI=true run.sh              a toolchain that is absent is a failure
#
# Needs bash 4.4 and GNU timeout. Installs into INTEROP_CACHE, by default .cache/interop of the repository.
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${INTEROP_CACHE:-$(cd "$HERE/../.." && pwd)/.cache/interop}
CLIENTS=${CLIENTS:-tools java sarama kafka-python confluent-kafka franz-go kafka-go kafkajs} # the longest first
LIMIT=60    # seconds for one scenario, twice as long where the broker restarts; the clients give up 10 s earlier
TOTAL=900   # seconds for everything

now() { date +%s%3N; }

# --- the broker ----------------------------------------------------------------------------------------------------

# listens tells whether any broker of BOOTSTRAP, or of what it is given, takes connections.
listens() {
  local address
  for address in $(tr , ' ' <<<"${1:-$BOOTSTRAP}"); do
    (exec 3<>"/dev/tcp/${address%:*}/${address##*:}") 2>/dev/null && return 0
  done
  return 1
}

# free_port prints a port that nothing listens on.
free_port() {
  local port
  while port=$((20000 + RANDOM % 12000)); listens "127.0.0.1:$port"; do :; done
  echo "$port"
}

# start_node starts BINARY as node I, on 127.0.0.1 and the I-th of PORTS (0: any). Its output tells when it listens.
start_node() { # I
  local detach ports peers flags=(); detach=$(command -v setsid)
  read -ra ports <<<"$PORTS"
  if [ "$NODES" -gt 1 ]; then
    read -ra peers <<<"$PEERS"
    flags=(--cluster --node-id "$1" --peer-listen "127.0.0.1:${peers[$1 - 1]}" --bootstrap-expect "$NODES" --join "$(printf ',127.0.0.1:%s' "${peers[@]}" | cut -c2-)"
      --set "default.replication.factor=$NODES" --set min.insync.replicas=2)
  fi
  # A delay of 0 is also what the server.properties that Kafka ships has; 3 s per group would be most of the run.
  $detach "$BINARY" serve --data "$(data_of "$1")" --listen "127.0.0.1:${ports[$1 - 1]}" "${flags[@]}" --set group.initial.rebalance.delay.ms=0 \
    >"$WORK/broker$1.out" 2>>"$WORK/broker$1.log" </dev/null &
  echo $! >"$WORK/broker$1.pid"
  disown
}

data_of() { [ "$NODES" = 1 ] && echo "$WORK/data" || echo "$WORK/data/$1"; } # I

# await_node waits until node I listens. ADDRESS is where.
await_node() { # I
  for _ in $(seq 600); do
    ADDRESS=$(sed -n 's/^ *listening *//p' "$WORK/broker$1.out")
    [ -n "$ADDRESS" ] && listens "$ADDRESS" && return 0
    kill -0 "$(cat "$WORK/broker$1.pid")" 2>/dev/null || break
    sleep 0.05
  done
  echo "node $1 did not start: $BINARY"
  tail -20 "$WORK/broker$1.log"
  return 1
}

# start_brokers starts all nodes and waits for them. BOOTSTRAP is where they are.
start_brokers() {
  local i
  for i in $(seq "$NODES"); do start_node "$i"; done
  BOOTSTRAP=""
  for i in $(seq "$NODES"); do await_node "$i" || return 1; BOOTSTRAP+=${BOOTSTRAP:+,}$ADDRESS; done
}

stop_node() { # SIGNAL I
  local pid; pid=$(cat "$WORK/broker$2.pid" 2>/dev/null) || return 0
  kill "-$1" "$pid" 2>/dev/null
  for _ in $(seq 300); do kill -0 "$pid" 2>/dev/null || return 0; sleep 0.05; done
  echo "node $2 did not end"; kill -9 "$pid"
}

stop_brokers() { # SIGNAL
  local i
  for i in $(seq "$NODES"); do stop_node "$1" "$i" & done
  wait
}

if [ "${1:-}" = --restart ]; then # what RESTART_CMD is for brokers of ours: of several another one each time
  restarts=$(cat "$WORK/restarts" 2>/dev/null || echo 0)
  echo $((restarts + 1)) >"$WORK/restarts"
  node=$((restarts % NODES + 1))
  stop_node 9 "$node" && start_node "$node" && await_node "$node"
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
    "$(tail -40 "$log" | sed 's/^/    /')" "    --- the broker's last lines:" "$(tail -qn $((15 / NODES)) "$WORK"/broker*.log 2>/dev/null | sed 's/^/    /')"
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
ONLY=${ONLY:-*} ROUNDS=${ROUNDS:-3} RUN=${RUN:-$(date +%s)} NODES=${INTEROP_NODES:-1}
WORK=$(mktemp -d "${TMPDIR:-/tmp}/interop.XXXXXX")
export BINARY WORK RUN NODES RECORDS=$HERE/records.json NODE_PATH=$CACHE/node/node_modules PYTHONDONTWRITEBYTECODE=1 GOFLAGS=-mod=readonly
mkdir -p "$CACHE/bin"
touch "$WORK/results"

if [ -n "${SERVER:-}" ]; then
  BOOTSTRAP=$SERVER
  listens || { echo "nothing listens on $SERVER"; exit 1; }
elif [ -n "$BINARY" ]; then
  DATA_DIR=$(data_of 1) PORTS=0 PEERS=""
  if [ "$NODES" -gt 1 ]; then
    PORTS="" # the nodes must know one another's before they start
    for _ in $(seq "$NODES"); do PORTS+=" $(free_port)" PEERS+=" $(free_port)"; done
  fi
  export PORTS PEERS
  trap 'stop_brokers TERM' EXIT # whatever ends this; at the end they have stopped already
  start_brokers || exit 1
  [ "$NODES" -gt 1 ] || PORTS=${BOOTSTRAP##*:}
  RESTART_CMD="'$HERE/run.sh' --restart"
else
  echo "usage: run.sh BINARY, or SERVER=HOST:PORT run.sh" >&2
  exit 2
fi
export BOOTSTRAP DATA_DIR RESTART_CMD

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
  stop_brokers TERM
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
