#!/usr/bin/env bash
# tools.sh list | SCENARIO: Kafka's own command-line tools, as a user types them, against BOOTSTRAP.
# KAFKA_JAVA is the java command with the class path of Kafka's jars; DATA_DIR, where known, the broker's files.
set -eEuo pipefail
trap 'echo "FAILED at line $LINENO: $BASH_COMMAND"' ERR
: "${NODES:=1}" "${RUN:=0}" "${WORK:=.}" "${DATA_DIR:=}"

tool() { $KAFKA_JAVA "$@"; }
at() { local class=$1; shift; tool "$class" --bootstrap-server "$BOOTSTRAP" "$@"; }
topics() { at org.apache.kafka.tools.TopicCommand "$@"; }
configs() { at kafka.admin.ConfigCommand "$@"; }
consumer_groups() { at org.apache.kafka.tools.consumer.group.ConsumerGroupCommand "$@"; }
console_producer() { at org.apache.kafka.tools.ConsoleProducer "$@"; }
console_consumer() { at org.apache.kafka.tools.consumer.ConsoleConsumer --timeout-ms 20000 "$@"; }
get_offsets() { at org.apache.kafka.tools.GetOffsetShell "$@"; }
dump_log() { tool org.apache.kafka.tools.DumpLogSegments "$@"; }

name() { echo "tools-$1-$RUN"; }
fail() { echo "FAILED: $*"; exit 1; }

# has TEXT PATTERN…: fails unless every pattern (extended) matches in the text.
has() {
  local text=$1 pattern; shift
  for pattern; do grep -qE -- "$pattern" <<<"$text" || fail "no match for '$pattern' in: $text"; done
}
# lines FROM TO: numbered lines, to produce.
lines() { seq -f '%06g' "$1" "$2"; }

broker_api_versions() {
  local out; out=$(at org.apache.kafka.tools.BrokerApiVersionsCommand)
  has "$out" "^${BOOTSTRAP%%,*} \(id: " 'Produce\(0\): ' 'Fetch\(1\): .*usable: ' 'OffsetDelete\(47\): ' 'DescribeProducers\(61\): '
  out=$(tool org.apache.kafka.tools.ClusterTool cluster-id --bootstrap-server "$BOOTSTRAP")
  has "$out" 'Cluster ID: ..*'
}

topics_tool() {
  local t out; t=$(name topics)
  topics --create --topic "$t" --partitions 3 --replication-factor "$NODES" --config retention.ms=3600000
  out=$(topics --create --topic "$t" 2>&1) && fail "created twice"
  has "$out" 'already exists'
  topics --create --if-not-exists --topic "$t"
  has "$(topics --list)" "^$t\$"
  has "$(topics --describe --topic "$t")" 'PartitionCount: 3' "ReplicationFactor: $NODES" 'retention.ms=3600000' 'Partition: 2.*Leader: [0-9]+.*Isr: [0-9]+'
  topics --alter --topic "$t" --partitions 5
  has "$(topics --describe --topic "$t")" 'PartitionCount: 5'
  [ -z "$(topics --describe --under-replicated-partitions)" ] || fail "under-replicated partitions"
  topics --delete --topic "$t"
  out=$(topics --describe --topic "$t" 2>&1) && fail "described after its deletion"
  has "$out" 'does not exist'
}

configs_tool() {
  local t out id; t=$(name configs)
  topics --create --topic "$t"
  configs --alter --entity-type topics --entity-name "$t" --add-config max.message.bytes=2000000,cleanup.policy=delete
  has "$(configs --describe --entity-type topics --entity-name "$t")" 'max.message.bytes=2000000 .*DYNAMIC_TOPIC_CONFIG:max.message.bytes=2000000'
  configs --alter --entity-type topics --entity-name "$t" --delete-config max.message.bytes
  has "$(configs --describe --all --entity-type topics --entity-name "$t")" 'max.message.bytes=1048588 '
  out=$(configs --alter --entity-type topics --entity-name "$t" --add-config retention.ms=soon 2>&1) && fail "took an invalid value"
  has "$out" 'Invalid value soon for configuration retention.ms'
  id=$(at org.apache.kafka.tools.BrokerApiVersionsCommand | sed -n 's/.*(id: \([0-9]*\) .*/\1/p' | head -1)
  has "$(configs --describe --all --entity-type brokers --entity-name "$id")" 'log.dirs=' 'num.network.threads='
}

console() {
  local t out; t=$(name console)   # created by the producer's first record
  printf 'h1:one,h2:two\tkey 1\tvalue 1\nNULL\tkey 2\tvalue 2\nNULL\tNULL\tNULL\n' | console_producer --topic "$t" --compression-codec zstd --reader-property parse.key=true \
    --reader-property parse.headers=true --reader-property null.marker=NULL
  out=$(console_consumer --topic "$t" --from-beginning --max-messages 3 --formatter-property print.key=true --formatter-property print.headers=true \
    --formatter-property print.offset=true --formatter-property print.partition=true)
  has "$out" 'Partition:0.Offset:0.h1:one,h2:two.key 1.value 1' 'Offset:1.NO_HEADERS.key 2.value 2' 'Offset:2.NO_HEADERS.null.null'
  [ "$(console_consumer --topic "$t" --partition 0 --offset 1 --max-messages 1)" = "value 2" ] || fail "from offset 1"
}

groups_tool() {
  local t g out; t=$(name groups) g=$(name group)
  topics --create --topic "$t"
  lines 0 19 | console_producer --topic "$t"
  out=$(console_consumer --topic "$t" --group "$g" --from-beginning --max-messages 12)
  [ "$out" = "$(lines 0 11)" ] || fail "the first twelve: $out"
  has "$(consumer_groups --list)" "^$g\$"
  has "$(consumer_groups --describe --group "$g")" "$g +$t +0 +12 +20 +8 "
  has "$(consumer_groups --describe --group "$g" --state)" "$g .* Empty"
  has "$(at org.apache.kafka.tools.GroupsCommand --list)" "^$g +Classic +consumer"
  out=$(console_consumer --topic "$t" --group "$g" --max-messages 8)
  [ "$out" = "$(lines 12 19)" ] || fail "the rest: $out"
  has "$(consumer_groups --group "$g" --topic "$t" --reset-offsets --to-offset 5 --execute)" "$t +0 +5"
  [ "$(console_consumer --topic "$t" --group "$g" --max-messages 1)" = "000005" ] || fail "after the reset"
  consumer_groups --group "$g" --delete-offsets --topic "$t"
  consumer_groups --group "$g" --delete
  out=$(consumer_groups --list)
  grep -q "^$g\$" <<<"$out" && fail "still listed"
  return 0
}

live_group() {
  local t g out reader; t=$(name live) g=$(name live)
  topics --create --topic "$t" --partitions 2
  console_consumer --topic "$t" --group "$g" >/dev/null 2>&1 &
  reader=$!
  for _ in $(seq 20); do
    out=$(consumer_groups --describe --group "$g" --members --verbose 2>&1) || true
    grep -qE "$g .*console-consumer.* 2 +.*$t" <<<"$out" && break
    sleep 0.3
  done
  has "$out" "$g .*console-consumer.* 2 +.*$t"
  has "$(consumer_groups --describe --group "$g" --state)" ' Stable +1$'
  out=$(consumer_groups --group "$g" --delete 2>&1) || true
  has "$out" 'GroupNotEmptyException|not empty'
  kill "$reader"; wait "$reader" || true
}

offsets_and_deletion() {
  local t; t=$(name offsets)
  topics --create --topic "$t"
  lines 0 19 | console_producer --topic "$t"
  [ "$(get_offsets --topic "$t")" = "$t:0:20" ] || fail "latest"
  [ "$(get_offsets --topic "$t" --time max-timestamp | sed 's/:[0-9]*$//')" = "$t:0" ] || fail "max-timestamp"
  [ "$(get_offsets --topic "$t" --time 1000)" = "$t:0:0" ] || fail "by time"
  echo '{"version":1,"partitions":[{"topic":"'"$t"'","partition":0,"offset":12}]}' >"$WORK/delete-$t.json"
  has "$(at org.apache.kafka.tools.DeleteRecordsCommand --offset-json-file "$WORK/delete-$t.json")" 'low_watermark: 12'
  [ "$(get_offsets --topic "$t" --time earliest)" = "$t:0:12" ] || fail "earliest"
  [ "$(console_consumer --topic "$t" --from-beginning --max-messages 8)" = "$(lines 12 19)" ] || fail "what is left"
  has "$(at org.apache.kafka.tools.LogDirsCommand --describe --topic-list "$t")" '"partition":"'"$t"'-0"' '"size":[1-9]' '"error":null'
}

perf() {
  local t; t=$(name perf)
  topics --create --topic "$t" --partitions 3
  has "$(at org.apache.kafka.tools.ProducerPerformance --topic "$t" --num-records 20000 --record-size 256 --throughput -1 --command-property acks=all)" '^20000 records sent, '
  has "$(at org.apache.kafka.tools.ConsumerPerformance --topic "$t" --num-records 20000 --group "$(name perf)" --timeout 20000)" 'start.time, end.time, data.consumed.in.MB' ', 20000, '
}

latency() {
  has "$(at org.apache.kafka.tools.EndToEndLatency --topic "$(name latency)" --num-records 200 --producer-acks all --record-size 100)" 'Avg latency: [0-9.]+ ms' '50th = [0-9]+'
}

# The segment files themselves: the clients' topics hold batches of the codecs that their manifests name.
dump_segments() {
  [ -n "$DATA_DIR" ] || { echo "the broker's files are not here"; return 0; }
  local m t codec files=() out one
  for m in "$WORK"/manifest-*.json; do
    t=$(sed 's/.*"topic": *"\([^"]*\)".*/\1/' "$m")
    files+=("$(find "$DATA_DIR" -path "*/$t-0*" -name '*.log' -print -quit)")
  done
  out=$(dump_log --deep-iteration --files "$(IFS=,; echo "${files[*]}")")
  for m in "$WORK"/manifest-*.json; do
    t=$(sed 's/.*"topic": *"\([^"]*\)".*/\1/' "$m")
    one=$(awk -v "t=/$t-0" '/^Dumping /{mine = index($0, t)} mine' <<<"$out")
    for codec in $(sed 's/.*"codecs": *\[\([^]]*\)\].*/\1/; s/[",]/ /g' "$m"); do has "$one" "compresscodec: $codec .*isvalid: true"; done
    has "$one" '\| offset: [0-9]+ '
  done
  ! grep 'isvalid: false' <<<"$out" || fail "an invalid batch"
}

# After a clean stop, which trims what a log has reserved: indexes are sound, and so are groups and their offsets.
dump_stopped() {
  local log out
  log=$(find "$DATA_DIR" -path "*/$(name perf)-0*" -name '*.log' -print -quit)
  out=$(dump_log --index-sanity-check --files "${log%.log}.index,${log%.log}.timeindex" 2>&1)
  has "$out" '[.]index passed sanity check' '[.]timeindex passed sanity check'
  out=$(dump_log --offsets-decoder --files "$(find "$DATA_DIR" -path '*/__consumer_offsets-*' -name '*.log' -size +0 | paste -sd, -)")
  has "$out" '"group":"'"$(name perf)"'".*payload: .*"offset":[0-9]+' 'payload: .*"protocolType":"consumer"'
}

scenarios="broker_api_versions topics_tool configs_tool console groups_tool live_group offsets_and_deletion perf latency dump_segments dump_stopped"
if [ "$1" = list ]; then tr ' _' '\n-' <<<"$scenarios"; else "${1//-/_}"; fi
