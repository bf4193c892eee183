package command

import (
	"bufio"
	"bytes"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace/segment/inspect"
)

// pipeLeast is the length of a log that is worth goroutines, and pipeMost that of the longest batch that is copied. A test changes them.
var pipeLeast, pipeMost int64 = 1 << 20, 8 << 20

const (
	pipeBlock = 256 << 10 // about how many bytes of batches are handed over at once
	pipeItems = 4096
)

// dumpPipe shows what is read of a log on other goroutines, so that the next batches are read and checked meanwhile: some turn blocks of
// batches into text, each with a dumper of its own, and one writes those texts in order. The dumper's sink is that one's until close has
// returned.
type dumpPipe struct {
	d           *dumper
	work, order chan *pipedBlock // the same blocks
	free        chan *pipedBlock
	formatting  sync.WaitGroup
	done        chan struct{}
	err         error // of the first block that was not shown to its end, until done
	failed      atomic.Bool
	block       *pipedBlock // that is being filled
}

type pipedBlock struct {
	items  []pipedItem
	bytes  []byte
	text   bytes.Buffer
	shown  int64
	damage int
	err    error
	ready  chan struct{} // its text is
	done   chan struct{} // closed when it has been written; nil: nobody waits
}

// pipedItem is a batch, or damage.
type pipedItem struct {
	view     batchView
	from, to int
	damage   *inspect.Damage
}

func (d *dumper) pipe() *dumpPipe {
	formatters := min(runtime.GOMAXPROCS(0), 4)
	if d.o.max > 0 {
		formatters = 1 // which knows how many have been shown
	}
	blocks := 3 + 2*formatters
	p := &dumpPipe{d: d, work: make(chan *pipedBlock, blocks), order: make(chan *pipedBlock, blocks), free: make(chan *pipedBlock, blocks), done: make(chan struct{})}
	for range blocks {
		p.free <- &pipedBlock{ready: make(chan struct{}, 1)}
	}
	p.block = <-p.free
	for range formatters {
		w := bufio.NewWriterSize(nil, 64<<10)
		own := &dumper{o: d.o, sink: newSink(d.o, w), shown: d.shown}
		p.formatting.Go(func() { p.format(own, w) }) // ends with close
	}
	go p.write() // the same
	return p
}

// format turns blocks into text, with a dumper that writes to w.
func (p *dumpPipe) format(d *dumper, w *bufio.Writer) {
	for b := range p.work {
		w.Reset(&b.text)
		shown, damage := d.shown, d.damage
		for i := range b.items {
			item := &b.items[i]
			if item.damage != nil {
				d.sayDamage(item.damage)
				continue
			}
			whole := b.bytes[item.from:item.to]
			if b.err = d.batch(&item.view, func() ([]byte, error) { return whole, nil }); b.err != nil {
				break
			}
		}
		w.Flush() // into memory
		b.shown, b.damage = d.shown-shown, d.damage-damage
		b.ready <- struct{}{}
	}
}

// write writes the texts of blocks, up to the first that was not shown to its end.
func (p *dumpPipe) write() {
	defer close(p.done)
	for b := range p.order {
		<-b.ready
		if p.err == nil {
			p.d.sink.lines(b.text.Bytes())
			p.d.shown, p.d.damage = p.d.shown+b.shown, p.d.damage+b.damage
			if p.err = b.err; p.err != nil {
				p.failed.Store(true)
			}
		}
		if b.done != nil {
			close(b.done)
		}
		b.items, b.bytes, b.done, b.err = b.items[:0], b.bytes[:0], nil, nil
		b.text.Reset()
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
	if p.d.o.max == 0 && int64(len(b)) > pipeMost {
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
	p.hand()
	p.block = <-p.free
}

func (p *dumpPipe) hand() {
	p.order <- p.block
	p.work <- p.block
}

// wait returns when all is shown.
func (p *dumpPipe) wait() {
	done := make(chan struct{})
	p.block.done = done
	p.send()
	<-done
}

// close has the rest shown, ends the goroutines, and says why the dump ended.
func (p *dumpPipe) close() error {
	p.hand()
	close(p.work)
	close(p.order)
	p.formatting.Wait()
	<-p.done
	return p.err
}
