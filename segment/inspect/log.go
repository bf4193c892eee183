package inspect

import (
	"errors"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// LogOptions say how to read a partition.
type LogOptions struct {
	// Start is the log start offset, see Partition.StartOffset: the log ends there or later.
	Start int64
	// From is the first offset that is asked for: segments that end before it are passed over, batches in the first
	// of the others are not.
	From int64
	// Structure leaves the CRC out.
	Structure bool
	// Read is told how many bytes have been read since it was told last; may be nil.
	Read func(bytes int64)
}

// Log steps through the batches of a partition, from one segment to the next, in constant memory. Damage does not end it: it goes on
// with the next whole batch, and Damage and Tail say what it met. Not for concurrent use.
type Log struct {
	fs   vfs.FS
	part *Partition
	opts LogOptions

	segment int      // the next one
	at      *Batches // nil: between two
	last    bool     // at is the last segment
	told    int64

	header   batch.Header
	file     string
	position int64

	next    int64 // the least offset that may follow
	damage  []*Damage
	damaged int
	tail    *Damage
	err     error
}

// keptDamage bounds Log.Damage.
const keptDamage = 20

// OpenLog begins with the first segment. The caller closes it.
func OpenLog(fsys vfs.FS, p *Partition, o LogOptions) *Log {
	l := &Log{fs: fsys, part: p, opts: o}
	if o.Read == nil {
		l.opts.Read = func(int64) {}
	}
	for l.segment+1 < len(p.Segments) && p.Segments[l.segment+1].Base <= o.From {
		l.segment++
	}
	return l
}

// StartOffset is where reading a partition begins: with its first segment, or where its log start offset says. starts are those that
// lie beside it (KafkaStarts). A damaged file of it counts for nothing, as for the server.
func (p *Partition) StartOffset(fsys vfs.FS, starts map[string]int64) (int64, error) {
	start := starts[p.Name()]
	if len(p.Segments) > 0 {
		start = max(start, p.Segments[0].Base)
	}
	if !p.LogStart.There() {
		return start, nil
	}
	text, err := vfs.ReadFile(fsys, p.LogStart.Path)
	if err != nil {
		return 0, err
	}
	if offset, err := segment.DecodeLogStart(text); err == nil {
		start = max(start, offset)
	}
	return start, nil
}

// Header is that of the batch that Next has gone to.
func (l *Log) Header() batch.Header { return l.header }

// File is the .log file that the batch is in, and Position where in it.
func (l *Log) File() string { return l.file }

// Position is where in File the batch begins.
func (l *Log) Position() int64 { return l.position }

// Bytes is the batch; it holds until the next call of Next.
func (l *Log) Bytes() ([]byte, error) {
	return l.at.Bytes()
}

// NextOffset is where the log ends, once Next has answered false: behind the last batch, or where an empty last segment begins.
func (l *Log) NextOffset() int64 {
	if n := len(l.part.Segments); n > 0 {
		return max(l.next, l.part.Segments[n-1].Base, l.opts.Start)
	}
	return max(l.next, l.opts.Start)
}

// Damage is what was met so far, but for what Torn gives: the first of it, and Damaged is how much of it there was.
func (l *Log) Damage() []*Damage { return l.damage }

// Damaged counts what was met.
func (l *Log) Damaged() int { return l.damaged }

// Tail is what follows the last whole batch when nothing intact lies behind it: whoever recovers the log would cut it off.
func (l *Log) Tail() *Damage { return l.tail }

// Torn is Tail when the file ends in the middle of a batch, as a crash leaves it. That is not among Damage.
func (l *Log) Torn() *Damage {
	if l.tail != nil && l.tail.Torn {
		return l.tail
	}
	return nil
}

// Err is what the file system says; nil at the end of the log.
func (l *Log) Err() error { return l.err }

// Close lets go of the file that is open.
func (l *Log) Close() error {
	if l.at == nil {
		return nil
	}
	err := l.at.Close()
	l.at = nil
	return err
}

// Next goes to the next batch; false at the end, and when the file system fails.
func (l *Log) Next() bool {
	for l.err == nil {
		switch {
		case l.at != nil:
			if l.inFile() {
				return true
			}
		case l.segment < len(l.part.Segments):
			l.openNext()
		default:
			return false
		}
	}
	return false
}

func (l *Log) openNext() {
	s := &l.part.Segments[l.segment]
	l.segment++
	if !s.Log.There() {
		return
	}
	l.last, l.told = l.segment == len(l.part.Segments), 0
	l.file = s.Log.Path
	l.at, l.err = OpenBatches(l.fs, s.Log.Path, Options{Base: max(s.Base, l.next), Structure: l.opts.Structure})
}

func (l *Log) inFile() bool {
	if l.at.Next() {
		l.header, l.position = l.at.Header(), l.at.Position()
		l.next = l.header.NextOffset()
		if l.position-l.told > 1<<20 {
			l.opts.Read(l.position - l.told)
			l.told = l.position
		}
		return true
	}
	if l.at.Err() != nil && l.pass() {
		return false // Next tries again
	}
	if l.err == nil {
		l.opts.Read(l.at.Size() - l.told)
		l.err = l.Close()
	}
	return false
}

// pass notes what was met, and goes on behind it when there is something.
func (l *Log) pass() (more bool) {
	var damage *Damage
	if !errors.As(l.at.Err(), &damage) {
		l.err = l.at.Err()
		return false
	}
	more = l.at.Resume()
	if err := l.at.Err(); !more && !errors.As(err, new(*Damage)) {
		l.err = err
		return false
	}
	if l.last && !more {
		l.tail = damage
		if damage.Torn {
			return false
		}
	}
	l.damaged++
	if len(l.damage) < keptDamage {
		l.damage = append(l.damage, damage)
	}
	return more
}
