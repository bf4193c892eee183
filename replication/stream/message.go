package stream

import (
	"encoding/binary"
	"fmt"

	"github.com/millrace/millrace/segment"
)

var order = binary.BigEndian

// hello is the first frame of each side.
type hello struct {
	version     uint16
	bulk        bool
	broker      int32
	brokerEpoch int64
	window      int64 // of the follower
	cluster     string
}

func (m *hello) append(dst []byte) []byte {
	dst = order.AppendUint16(dst, m.version)
	dst = append(dst, boolByte(m.bulk), 0)
	dst = order.AppendUint32(dst, uint32(m.broker))
	dst = order.AppendUint64(dst, uint64(m.brokerEpoch))
	dst = order.AppendUint64(dst, uint64(m.window))
	return append(dst, m.cluster[:min(len(m.cluster), maxText)]...)
}

func (m *hello) read(b []byte) error {
	*m = hello{
		version:     order.Uint16(b),
		bulk:        b[2] != 0,
		broker:      int32(order.Uint32(b[4:])),
		brokerEpoch: int64(order.Uint64(b[8:])),
		window:      int64(order.Uint64(b[16:])),
		cluster:     string(b[helloHead:]),
	}
	if b[2] > 1 || b[3] != 0 || m.window < 0 {
		return fmt.Errorf("%w: HELLO", ErrProtocol)
	}
	return nil
}

// open asks for a partition.
type open struct {
	key      Key
	logStart int64
}

func (m *open) append(dst []byte) []byte {
	dst = append(dst, m.key.TopicID[:]...)
	dst = order.AppendUint32(dst, uint32(m.key.Partition))
	return order.AppendUint64(dst, uint64(m.logStart))
}

func (m *open) read(b []byte) error {
	copy(m.key.TopicID[:], b)
	m.key.Partition = int32(order.Uint32(b[16:]))
	m.logStart = int64(order.Uint64(b[20:]))
	if m.key.Partition < 0 || m.logStart < 0 {
		return fmt.Errorf("%w: OPEN", ErrProtocol)
	}
	return nil
}

// state is where a follower's log stands.
type state struct {
	status     status
	laterEpoch int32 // with statusLaterEpoch
	start, end int64
	epochs     []segment.EpochEntry // rising; the last ones of those that were asked for
	more       bool                 // there are earlier ones
	reason     string
}

func (m *state) append(dst []byte) []byte {
	dst = append(dst, byte(m.status), boolByte(m.more))
	dst = order.AppendUint16(dst, uint16(len(m.epochs)))
	dst = order.AppendUint32(dst, uint32(m.laterEpoch))
	dst = order.AppendUint64(dst, uint64(m.start))
	dst = order.AppendUint64(dst, uint64(m.end))
	for _, e := range m.epochs {
		dst = order.AppendUint32(dst, uint32(e.Epoch))
		dst = order.AppendUint64(dst, uint64(e.Start))
	}
	return append(dst, m.reason[:min(len(m.reason), maxText)]...)
}

func (m *state) read(b []byte) error {
	n := int(order.Uint16(b[2:]))
	*m = state{
		status:     status(b[0]),
		more:       b[1] != 0,
		laterEpoch: int32(order.Uint32(b[4:])),
		start:      int64(order.Uint64(b[8:])),
		end:        int64(order.Uint64(b[16:])),
	}
	bad := m.status >= statusEnd || b[1] > 1 || n > maxEpochs || len(b) < stateHead+n*epochSize || m.start < 0 || m.end < m.start || m.more && n == 0
	if bad {
		return fmt.Errorf("%w: STATE", ErrProtocol)
	}
	m.epochs = make([]segment.EpochEntry, n)
	for i := range m.epochs {
		at := b[stateHead+i*epochSize:]
		m.epochs[i] = segment.EpochEntry{Epoch: int32(order.Uint32(at)), Start: int64(order.Uint64(at[4:]))}
		if i > 0 && (m.epochs[i].Epoch <= m.epochs[i-1].Epoch || m.epochs[i].Start < m.epochs[i-1].Start) {
			return fmt.Errorf("%w: STATE with epochs out of order", ErrProtocol)
		}
	}
	m.reason = string(b[stateHead+n*epochSize:])
	return nil
}

// watermark is one entry of WATERMARKS.
type watermark struct {
	number                  uint32
	epoch                   int32
	highWatermark, logStart int64
}

func (m *watermark) append(dst []byte) []byte {
	dst = order.AppendUint32(dst, m.number)
	dst = order.AppendUint32(dst, uint32(m.epoch))
	dst = order.AppendUint64(dst, uint64(m.highWatermark))
	return order.AppendUint64(dst, uint64(m.logStart))
}

// readWatermarks calls each for every entry of a body.
func readWatermarks(b []byte, each func(watermark) error) error {
	if len(b)%watermarkSize != 0 {
		return fmt.Errorf("%w: WATERMARKS", ErrProtocol)
	}
	for ; len(b) > 0; b = b[watermarkSize:] {
		err := each(watermark{order.Uint32(b), int32(order.Uint32(b[4:])), int64(order.Uint64(b[8:])), int64(order.Uint64(b[16:]))})
		if err != nil {
			return err
		}
	}
	return nil
}

// ack is one entry of ACK.
type ack struct {
	number uint32
	epoch  int32
	end    int64
}

func (m *ack) append(dst []byte) []byte {
	dst = order.AppendUint32(dst, m.number)
	dst = order.AppendUint32(dst, uint32(m.epoch))
	return order.AppendUint64(dst, uint64(m.end))
}

// readAcks calls each for every entry of a body.
func readAcks(b []byte, each func(ack)) error {
	if len(b)%ackSize != 0 {
		return fmt.Errorf("%w: ACK", ErrProtocol)
	}
	for ; len(b) > 0; b = b[ackSize:] {
		each(ack{order.Uint32(b), int32(order.Uint32(b[4:])), int64(order.Uint64(b[8:]))})
	}
	return nil
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}
