package command

import (
	"sync/atomic"

	"github.com/millrace/millrace/segment/inspect"
)

// pipeLeast is the length of a log that is worth a goroutine, and pipeMost that of the longest batch that is copied. A test changes them.
var pipeLeast, pipeMost int64 = 1 << 20, 8 << 20

const (
	pipeBlock = 256 << 10 // about how many bytes of batches are handed over at once
	pipeItems = 4096
)

// dumpPipe shows what is read of a log on a goroutine of its own, in order, so that the next batches are read and checked meanwhile. That
// goroutine has the dumper's sink and counts to itself until close has returned.
type dumpPipe struct {
	d          *dumper
	full, free chan *pipedBlock
	done       chan struct{}
	err        error // of the goroutine, until done
	failed     atomic.Bool
	block      *pipedBlock // that is being filled
}

type pipedBlock struct {
	items []pipedItem
	bytes []byte
	done  chan struct{} // nil: nobody waits
}

// pipedItem is a batch, or damage.
type pipedItem struct {
	view     batchView
	from, to int
	damage   *inspect.Damage
}

func (d *dumper) pipe() *dumpPipe {
	p := &dumpPipe{d: d, full: make(chan *pipedBlock, 2), free: make(chan *pipedBlock, 4), done: make(chan struct{}), block: new(pipedBlock)}
	for range 3 {
		p.free <- new(pipedBlock)
	}
	go p.run() // ends with close
	return p
}

func (p *dumpPipe) run() {
	defer close(p.done)
	for b := range p.full {
		for i := range b.items {
			if p.err != nil {
				break
			}
			item := &b.items[i]
			if item.damage != nil {
				p.d.sayDamage(item.damage)
				continue
			}
			whole := b.bytes[item.from:item.to]
			if p.err = p.d.batch(&item.view, func() ([]byte, error) { return whole, nil }); p.err != nil {
				p.failed.Store(true)
			}
		}
		if b.done != nil {
			close(b.done)
		}
		b.items, b.bytes, b.done = b.items[:0], b.bytes[:0], nil
		p.free <- b
	}
}

// batch has a batch shown; false when the dump has ended.
func (p *dumpPipe) batch(v *batchView, bytes func() ([]byte, error)) (bool, error) {
	if p.failed.Load() {
		return false, nil
	}
	b, err := bytes()
	if err != nil {
		return false, err
	}
	if int64(len(b)) > pipeMost {
		p.wait()
		if p.failed.Load() {
			return false, nil
		}
		return true, p.d.batch(v, func() ([]byte, error) { return b, nil })
	}
	from := len(p.block.bytes)
	p.block.bytes = append(p.block.bytes, b...)
	p.block.items = append(p.block.items, pipedItem{view: *v, from: from, to: len(p.block.bytes)})
	if len(p.block.bytes) >= pipeBlock || len(p.block.items) >= pipeItems {
		p.send()
	}
	return true, nil
}

func (p *dumpPipe) damage(d *inspect.Damage) {
	p.block.items = append(p.block.items, pipedItem{damage: d})
}

func (p *dumpPipe) send() {
	p.full <- p.block
	p.block = <-p.free
}

// wait returns when all is shown.
func (p *dumpPipe) wait() {
	done := make(chan struct{})
	p.block.done = done
	p.send()
	<-done
}

// close has the rest shown, ends the goroutine, and says why it ended.
func (p *dumpPipe) close() error {
	p.full <- p.block
	close(p.full)
	<-p.done
	return p.err
}
