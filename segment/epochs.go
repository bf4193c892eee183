package segment

import (
	"bufio"
	"bytes"
	"fmt"
	"sort"
	"strings"
)

// epochEntry says that a leader epoch began at an offset.
type epochEntry struct {
	epoch int32
	start int64
}

// epochs is the leader epoch cache: entries rising in both fields. A published
// value is never changed; every change makes a new one.
type epochs []epochEntry

// assign notes that offset was appended under epoch.
func (e epochs) assign(epoch int32, offset int64) epochs {
	if epoch < 0 || len(e) > 0 && epoch <= e[len(e)-1].epoch {
		return e
	}
	return append(e[:len(e):len(e)], epochEntry{epoch, offset})
}

// endOffset answers OffsetForLeaderEpoch: the largest known epoch at or below
// the one asked for, and the offset at which it ended, exclusive. An epoch older
// than all that is known ended where the first known one began; one that is
// newer than the last gives (-1, -1).
func (e epochs) endOffset(epoch int32, logEnd int64) (int32, int64) {
	higher := sort.Search(len(e), func(i int) bool { return e[i].epoch > epoch })
	switch {
	case epoch < 0 || len(e) == 0:
		return -1, -1
	case higher == 0:
		return epoch, e[0].start
	case higher < len(e):
		return e[higher-1].epoch, e[higher].start
	case e[higher-1].epoch == epoch:
		return epoch, logEnd
	}
	return -1, -1
}

// at gives the epoch under which offset was appended, -1 when unknown.
func (e epochs) at(offset int64) int32 {
	for i := len(e) - 1; i >= 0; i-- {
		if e[i].start <= offset {
			return e[i].epoch
		}
	}
	return -1
}

// truncateTo forgets epochs that began at or behind end.
func (e epochs) truncateTo(end int64) epochs {
	for len(e) > 0 && e[len(e)-1].start >= end {
		e = e[:len(e)-1]
	}
	return e[:len(e):len(e)]
}

// encode writes Kafka's leader-epoch-checkpoint, version 0: the version, the
// number of entries, then "epoch offset" a line.
func (e epochs) encode() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "0\n%d\n", len(e))
	for _, entry := range e {
		fmt.Fprintf(&b, "%d %d\n", entry.epoch, entry.start)
	}
	return b.Bytes()
}

func decodeEpochs(b []byte) (epochs, error) {
	lines := bufio.NewScanner(bytes.NewReader(b))
	number := func(format string, into ...any) error {
		if !lines.Scan() {
			return fmt.Errorf("%w: leader epoch checkpoint ends early", ErrFormat)
		}
		if _, err := fmt.Fscanf(strings.NewReader(lines.Text()), format, into...); err != nil {
			return fmt.Errorf("%w: leader epoch checkpoint line %q", ErrFormat, lines.Text())
		}
		return nil
	}
	var version, count int
	if err := number("%d", &version); err != nil {
		return nil, err
	}
	if version != 0 {
		return nil, fmt.Errorf("%w: leader epoch checkpoint version %d", ErrFormat, version)
	}
	if err := number("%d", &count); err != nil {
		return nil, err
	}
	var e epochs
	for range count {
		var entry epochEntry
		if err := number("%d %d", &entry.epoch, &entry.start); err != nil {
			return nil, err
		}
		if len(e) > 0 && (entry.epoch <= e[len(e)-1].epoch || entry.start < e[len(e)-1].start) {
			return nil, fmt.Errorf("%w: leader epoch checkpoint entry %v after %v", ErrFormat, entry, e[len(e)-1])
		}
		e = append(e, entry)
	}
	return e, nil
}
