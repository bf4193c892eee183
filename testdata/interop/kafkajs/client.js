// Runs the interop scenarios (see the README) with kafkajs, which has no static members and no cooperative protocol.
'use strict'

const { spawn } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const assert = require('node:assert/strict')
const { once } = require('node:events')
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, logLevel } = require('kafkajs')
const zstd = require('@bokuweb/zstd-wasm')
const lz4 = require('lz4-napi')

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: (encoder) => lz4.compressFrame(encoder.buffer),
  decompress: (buffer) => lz4.decompressFrame(buffer),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from(zstd.compress(encoder.buffer, 3)),
  decompress: async (buffer) => Buffer.from(zstd.decompress(buffer)),
})

const { BOOTSTRAP = '127.0.0.1:9092', NODES = '1', RUN = '0', WORK = '.', RECORDS, RESTART_CMD, SCENARIO_SECONDS = '50' } = process.env
const sessionTimeout = 6000 // the shortest session timeout that a broker allows by default
const deadline = Date.now() + 1000 * Number(SCENARIO_SECONDS)
const kafka = new Kafka({
  brokers: BOOTSTRAP.split(','), clientId: 'the-member', logLevel: logLevel.ERROR,
  retry: { retries: 100, initialRetryTime: 50, maxRetryTime: 500 },
})

const topicName = (name) => `kafkajs-${name}-${RUN}`
const numbered = (i) => String(i).padStart(6, '0')
const sleep = (ms) => new Promise((done) => setTimeout(done, ms))

async function eventually(what, ok) {
  while (!(await ok())) {
    assert(Date.now() < deadline, `never happened: ${what}`)
    await sleep(50)
  }
  console.log('reached:', what)
}

async function withAdmin(use) {
  const admin = kafka.admin({ retry: { retries: 3, initialRetryTime: 50 } })
  await admin.connect()
  try {
    return await use(admin)
  } finally {
    await admin.disconnect()
  }
}

async function create(topic, numPartitions) {
  await withAdmin((a) => a.createTopics({ topics: [{ topic, numPartitions }] }))
  return topic
}

async function withProducer(options, use) {
  const producer = kafka.producer(options)
  await producer.connect()
  try {
    return await use(producer)
  } finally {
    await producer.disconnect()
  }
}

// fill produces numbered records, a second apart from the base on, round robin over the partitions.
async function fill(topic, n, partitions = 1, base = Date.now()) {
  const messages = Array.from({ length: n }, (_, i) => ({ value: numbered(i), partition: i % partitions, timestamp: String(base + 1000 * i) }))
  await withProducer({}, (p) => p.send({ topic, messages }))
}

// Member is a group member that remembers what it reads and holds; at most `max` messages when given.
class Member {
  constructor(topic, group, max = Infinity) {
    Object.assign(this, { topic, max, messages: [], held: [] })
    this.consumer = kafka.consumer({ groupId: group, sessionTimeout, heartbeatInterval: 300, maxWaitTimeInMs: 100, rebalanceTimeout: 10_000 })
    this.consumer.on(this.consumer.events.GROUP_JOIN, ({ payload }) => {
      this.held = payload.memberAssignment[topic] ?? []
      console.log('assigned', this.held)
    })
  }

  async start(offset) {
    await this.consumer.connect()
    await this.consumer.subscribe({ topics: [this.topic], fromBeginning: true })
    await this.consumer.run({
      autoCommit: false,
      eachMessage: async ({ message }) => {
        if (this.messages.length < this.max) this.messages.push(message)
      },
    })
    if (offset !== undefined) this.consumer.seek({ topic: this.topic, partition: 0, offset: String(offset) })
    return this
  }

  async read(n) {
    await eventually(`${n} messages`, () => this.messages.length >= n)
    return this.messages.slice(0, n)
  }

  leave() {
    return this.consumer.disconnect()
  }
}

let readers = 0

async function readFrom(topic, offset, n) {
  const m = await new Member(topic, topicName(`reader-${process.pid}-${readers++}`), n).start(offset)
  const messages = await m.read(n)
  await m.leave()
  return messages
}

const offsetsOf = (messages) => messages.map((m) => Number(m.offset))
const valuesOf = (messages) => messages.map((m) => m.value.toString())
const inOrder = (messages, n) => assert.deepEqual(valuesOf(messages), Array.from({ length: n }, (_, i) => numbered(i)))

const adminTopics = () => withAdmin(async (admin) => {
  const topic = topicName('admin')
  const spec = { topics: [{ topic, numPartitions: 3, replicationFactor: Number(NODES), configEntries: [{ name: 'retention.ms', value: '3600000' }] }] }
  assert.equal(await admin.createTopics({ ...spec, validateOnly: true, waitForLeaders: false }), true)
  assert.equal(await admin.createTopics(spec), true)
  assert.equal(await admin.createTopics(spec), false, 'created twice')
  await assert.rejects(admin.createTopics({ topics: [{ topic: 'not/allowed' }] }), /InvalidTopic|INVALID_TOPIC|request contains topics|Topic creation errors/i)
  assert((await admin.listTopics()).includes(topic))
  const partitions = async () => (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions
  assert.deepEqual((await partitions()).map((p) => p.isr.length), Array(3).fill(Number(NODES)))
  await admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] })
  await eventually('five partitions', async () => (await partitions()).length === 5)
  await admin.deleteTopics({ topics: [topic] })
  await eventually('topic gone', async () => !(await admin.listTopics()).includes(topic))
  const cluster = await admin.describeCluster()
  assert(cluster.clusterId && cluster.brokers.length === Number(NODES))
})

const adminConfigs = () => withAdmin(async (admin) => {
  const name = await create(topicName('configs'), 1)
  const entry = async () => (await admin.describeConfigs({
    includeSynonyms: true, resources: [{ type: ConfigResourceTypes.TOPIC, name, configNames: ['max.message.bytes'] }],
  })).resources[0].configEntries[0]
  const alter = (configEntries) => admin.alterConfigs({ validateOnly: false, resources: [{ type: ConfigResourceTypes.TOPIC, name, configEntries }] })
  assert.equal((await entry()).configValue, '1048588')
  await alter([{ name: 'max.message.bytes', value: '2000000' }])
  await eventually('altered', async () => (await entry()).configValue === '2000000')
  assert.equal((await entry()).configSource, 1, 'source is the topic')
  await assert.rejects(alter([{ name: 'max.message.bytes', value: 'many' }]), { type: 'INVALID_CONFIG' })
  await alter([]) // the old AlterConfigs replaces all
  await eventually('default again', async () => (await entry()).configValue === '1048588')
})

const codecs = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy, lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD }

const decode = (text) => (text === null ? null : Buffer.from(text, 'base64'))

// records reads the shared records, in order, headers as a list of pairs; null is null, but as a header's value only
// with nullHeaders: kafkajs reads such a header but cannot write it.
function records(firstTimestamp, nullHeaders) {
  return JSON.parse(fs.readFileSync(RECORDS, 'utf8')).map((r, i) => {
    const value = decode(r.value)
    return {
      key: decode(r.key),
      value: r.repeat ? Buffer.concat(Array(r.repeat).fill(value)) : value,
      headers: (r.headers ?? []).map(([k, v]) => [k, decode(v ?? (nullHeaders ? null : ''))]),
      timestamp: String(firstTimestamp + i),
    }
  })
}

// kafkajs keeps headers as an object in which a repeated name has a list of values.
function toObject(headers) {
  const object = {}
  for (const [k, v] of headers) object[k] = k in object ? [object[k], v].flat() : v
  return object
}

const toPairs = (object) => Object.entries(object ?? {}).flatMap(([k, v]) => (Array.isArray(v) ? v.map((one) => [k, one]) : [[k, v]]))

async function produceCodecs() {
  const topic = await create(topicName('codecs'), 1)
  const firstTimestamp = Date.now() - 3_600_000
  for (const compression of Object.values(codecs)) {
    const messages = records(firstTimestamp, false).map((r) => ({ ...r, headers: toObject(r.headers) }))
    await withProducer({}, (p) => p.send({ topic, messages, compression }))
  }
  fs.writeFileSync(path.join(WORK, 'manifest-kafkajs.json'), JSON.stringify({ topic, codecs: Object.keys(codecs), firstTimestamp, nullHeaders: false }))
}

async function readAll() {
  const files = fs.readdirSync(WORK).filter((f) => /^manifest-.*\.json$/.test(f))
  assert(files.length > 0, 'no manifests: run produce-codecs first')
  await Promise.all(files.map(async (file) => {
    const m = JSON.parse(fs.readFileSync(path.join(WORK, file), 'utf8'))
    const want = m.codecs.flatMap(() => records(m.firstTimestamp, m.nullHeaders))
    const got = (await readFrom(m.topic, 0, want.length)).map(({ key, value, headers, timestamp }) => ({ key, value, headers: toPairs(headers), timestamp }))
    for (let i = 0; i < want.length; i++) assert.deepEqual(got[i], want[i], `${m.topic} offset ${i}`)
    console.log(`${m.topic}: ${got.length} records are the same`)
  }))
}

async function consumePositions() {
  const topic = await create(topicName('positions'), 1)
  const base = Date.now() - 3_600_000
  await fill(topic, 20, 1, base)
  inOrder(await readFrom(topic, undefined, 20), 20)
  assert.deepEqual(offsetsOf(await readFrom(topic, 7, 2)), [7, 8])
  await withAdmin(async (admin) => {
    const found = await admin.fetchTopicOffsetsByTimestamp(topic, base + 5500)
    assert.equal(found[0].offset, '6')
    assert.equal((await readFrom(topic, found[0].offset, 1))[0].timestamp, String(base + 6000))
    assert.equal((await admin.fetchTopicOffsetsByTimestamp(topic, base + 99_000))[0].offset, '20')
    const [{ low, high }] = await admin.fetchTopicOffsets(topic)
    assert.deepEqual([low, high], ['0', '20'])
  })
}

async function commitResume() {
  const topic = await create(topicName('commit'), 1)
  const group = topicName('commit')
  await fill(topic, 20)
  const one = await new Member(topic, group).start()
  assert.equal((await one.read(10))[9].offset, '9')
  await one.consumer.commitOffsets([{ topic, partition: 0, offset: '10', metadata: 'half way' }])
  await one.leave()
  const [committed] = await withAdmin((a) => a.fetchOffsets({ groupId: group, topics: [topic] }))
  assert.deepEqual(committed.partitions, [{ partition: 0, offset: '10', metadata: 'half way' }])
  const two = await new Member(topic, group).start()
  assert.equal((await two.read(10))[0].offset, '10', 'resumed at the commit')
  await two.leave()
}

const describe = async (admin, group) => (await admin.describeGroups([group])).groups[0]

const adminGroups = () => withAdmin(async (admin) => {
  const topic = await create(topicName('groups'), 2)
  const group = topicName('groups')
  await fill(topic, 2, 2)
  const m = await new Member(topic, group).start()
  await m.read(2)
  const live = await describe(admin, group)
  assert.equal(live.state, 'Stable')
  assert.deepEqual([live.members.length, live.members[0].clientId], [1, 'the-member'])
  assert((await admin.listGroups()).groups.some((g) => g.groupId === group && g.protocolType === 'consumer'))
  await assert.rejects(admin.deleteGroups([group]), (e) => e.groups[0].error.type === 'NON_EMPTY_GROUP')
  await m.leave()
  await eventually('group empty', async () => (await describe(admin, group)).state === 'Empty')
  await admin.deleteGroups([group])
  assert(!(await admin.listGroups()).groups.some((g) => g.groupId === group), 'still listed')
})

async function deleteRecords() {
  const topic = await create(topicName('delete-records'), 1)
  await fill(topic, 20)
  await withAdmin(async (admin) => {
    assert.equal((await admin.fetchTopicOffsets(topic))[0].low, '0') // loads the metadata that the next call needs
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '12' }] })
    assert.equal((await admin.fetchTopicOffsets(topic))[0].low, '12')
  })
  assert.equal((await readFrom(topic, undefined, 8))[0].offset, '12')
}

async function groupRebalance() {
  const topic = await create(topicName('rebalance'), 4)
  const group = topicName('rebalance')
  await fill(topic, 40, 4)
  const m = await new Member(topic, group).start()
  await eventually('alone with four partitions', () => m.held.length === 4)
  const other = spawn(process.execPath, [process.argv[1], 'member', topic, group], { stdio: 'inherit' })
  await eventually('two of four after the second joined', () => m.held.length === 2)
  await withAdmin((admin) => eventually('stable with two members', async () => {
    const g = await describe(admin, group)
    return g.state === 'Stable' && g.members.length === 2
  }))
  console.log('kill -9 of the second member')
  other.kill('SIGKILL')
  await fill(topic, 80, 4)
  await eventually('four again after the second was killed', () => m.held.length === 4)
  await eventually('every value read', () => new Set(valuesOf(m.messages)).size === 80)
  await m.leave()
}

async function runMember(topic, group) {
  await new Member(topic, group).start()
  await sleep(50_000)
}

async function restartIdempotent() {
  const n = 600
  const topic = await create(topicName('restart'), 1)
  let restarted
  await withProducer({ idempotent: true, maxInFlightRequests: 1 }, async (p) => {
    for (let i = 0; i < n; i += 2) {
      if (i === n / 3) restarted = once(spawn('sh', ['-c', RESTART_CMD], { stdio: 'inherit' }), 'exit')
      const [{ baseOffset }] = await p.send({ topic, acks: -1, messages: [{ value: numbered(i) }, { value: numbered(i + 1) }] })
      assert.equal(baseOffset, String(i))
    }
  })
  assert.equal((await restarted)[0], 0, 'the restart failed')
  inOrder(await readFrom(topic, 0, n), n)
}

const scenarios = {
  'admin-topics': adminTopics,
  'admin-configs': adminConfigs,
  'produce-codecs': produceCodecs,
  'consume-positions': consumePositions,
  'commit-resume': commitResume,
  'admin-groups': adminGroups,
  'delete-records': deleteRecords,
  'group-rebalance': groupRebalance,
  'read-all': readAll,
  'restart-idempotent': restartIdempotent,
}

async function main([what, ...rest]) {
  if (what === 'list') return console.log(Object.keys(scenarios).join('\n'))
  await zstd.init()
  await (what === 'member' ? runMember(...rest) : scenarios[what]())
}

main(process.argv.slice(2)).then(() => process.exit(0), (e) => {
  console.error('FAILED:', e)
  process.exit(1)
})
