package stream

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
)

// A frame is a header and a body. All integers are big-endian.
//
//	 0            4        5       8            12           16             20             24
//	+------------+--------+-------+------------+------------+--------------+--------------+--------
//	| body bytes | kind   | 0 0 0 | number     | leader     | CRC-32C of   | CRC-32C of   | body …
//	| u4         | u1     |       | u4         | epoch i4   | the body u4  | bytes 0..19  |
//	+------------+--------+-------+------------+------------+--------------+--------------+--------
//
// The header's own checksum is looked at before its length is believed. The body's covers all of it, but of record batches
// only the first 21 bytes each: the rest is covered by the batch's own CRC. number stands for a partition; the leader gives
// a new one with every OPEN, so that what is still on its way for an earlier one is known as such. It is 0 where a
// frame is about no partition or about many.
//
//	leader → follower
//	HELLO       version u2 | bulk u1 | 0 | broker i4 | its epoch i8 | 0 i8 | cluster id          first, from both sides
//	OPEN        topic id 16 | partition i4 | log start i8                                        → STATE
//	MORE        below i4: epochs before this one are wanted                                      → STATE
//	TRUNCATE    to i8                                                                            → STATE
//	RESET       to i8: delete everything, and begin there                                        → STATE
//	APPEND      from i8 | high watermark i8 | log start i8 | batches: the follower's log must end at from
//	WATERMARKS  { number u4 | epoch i4 | high watermark i8 | log start i8 } …
//	CLOSE       (none): the partition is no longer pushed here
//
//	follower → leader
//	HELLO       the same; instead of the zero, bytes of APPENDs that may be under way
//	STATE       status u1 | more u1 | epochs u2 | later epoch i4 | log start i8 | log end i8 | { epoch i4 | start i8 } … | reason
//	ACK         { number u4 | epoch i4 | durable end i8 } …
//	CREDIT      bytes i8 that are no longer under way
//
//	HEARTBEAT   (none)                                                                           both
const (
	headerSize = 24
	version    = 1

	openSize      = 28
	appendHead    = 24
	watermarkSize = 24
	ackSize       = 16
	stateHead     = 24
	epochSize     = 12
	helloHead     = 24

	prefixSize = 21 // of a batch: what its own CRC does not cover, and that CRC

	maxList   = 4096 // entries of WATERMARKS and ACK
	maxEpochs = 64   // entries of STATE; more on demand
	maxText   = 512  // bytes of a reason or a cluster id
)

type kind uint8

const (
	kindHello kind = 1 + iota
	kindOpen
	kindMore
	kindTruncate
	kindReset
	kindAppend
	kindWatermarks
	kindClose
	kindState
	kindAck
	kindCredit
	kindHeartbeat
)

// status is what a STATE says.
type status uint8

const (
	statusOpen        status = iota // follows from the log end on
	statusNotFollower               // not, or not yet
	statusUnknown                   // no such partition
	statusStorage                   // the log does not take it
	statusLaterEpoch                // there is a later leader
	statusSuperseded                // opened on another connection
	statusEnd
)

type header struct {
	length int // of the body
	kind   kind
	number uint32
	epoch  int32
	sum    uint32 // of the body
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(sum uint32, b []byte) uint32 { return crc32.Update(sum, castagnoli, b) }

// putHeader writes a header into the first bytes of dst.
func putHeader(dst []byte, h header) {
	binary.BigEndian.PutUint32(dst, uint32(h.length))
	binary.BigEndian.PutUint32(dst[4:], uint32(h.kind)<<24)
	binary.BigEndian.PutUint32(dst[8:], h.number)
	binary.BigEndian.PutUint32(dst[12:], uint32(h.epoch))
	binary.BigEndian.PutUint32(dst[16:], h.sum)
	binary.BigEndian.PutUint32(dst[20:], checksum(0, dst[:20]))
}

// readHeader reads a header and refuses a body that is larger than its kind may be; batches of up to maxBatch bytes are.
func readHeader(src []byte, maxBatch int) (header, error) {
	if sum := checksum(0, src[:20]); sum != binary.BigEndian.Uint32(src[20:]) {
		return header{}, fmt.Errorf("%w: damaged header", ErrProtocol)
	}
	h := header{
		kind:   kind(src[4]),
		number: binary.BigEndian.Uint32(src[8:]),
		epoch:  int32(binary.BigEndian.Uint32(src[12:])),
		sum:    binary.BigEndian.Uint32(src[16:]),
	}
	length := binary.BigEndian.Uint32(src)
	least, most := bodyBounds(h.kind, maxBatch)
	if int64(length) < int64(least) || int64(length) > int64(most) {
		return header{}, fmt.Errorf("%w: frame of kind %d with %d bytes", ErrProtocol, h.kind, length)
	}
	h.length = int(length)
	return h, nil
}

func bodyBounds(k kind, maxBatch int) (least, most int) {
	switch k {
	case kindHello:
		return helloHead, helloHead + maxText
	case kindOpen:
		return openSize, openSize
	case kindMore:
		return 4, 4
	case kindTruncate, kindReset, kindCredit:
		return 8, 8
	case kindAppend:
		return appendHead + 61, appendHead + max(maxBatch, frameBytes)
	case kindWatermarks:
		return watermarkSize, watermarkSize * maxList
	case kindAck:
		return ackSize, ackSize * maxList
	case kindState:
		return stateHead, stateHead + epochSize*maxEpochs + maxText
	case kindClose, kindHeartbeat:
		return 0, 0
	}
	return math.MaxInt, 0 // unknown: no length is right
}

// frameBytes is what the batches of one APPEND come to at most, unless one alone is larger.
const frameBytes = 1 << 20

// appendFrame appends a whole frame whose body is written by put, but for APPEND.
func appendFrame(dst []byte, h header, body func(dst []byte) []byte) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, headerSize)...)
	if body != nil {
		dst = body(dst)
	}
	h.length = len(dst) - at - headerSize
	h.sum = checksum(0, dst[at+headerSize:])
	putHeader(dst[at:], h)
	return dst
}
