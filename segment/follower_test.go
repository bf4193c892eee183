package segment

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/millrace/millrace/segment/batch"
)

// What keeps its CRC is checked before it is queued: a flipped bit comes no further, and neither does half a batch.
func TestAppendKeepsNothingDamaged(t *testing.T) {
	d := openDir(t, newMem(t))
	defer d.close(t)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	good := append(keptBatch(t, 0, 3, 1, -1, 0), keptBatch(t, 3, 3, 1, -1, 0)...)
	for at := batch.ChecksumFrom; at < len(good); at += 7 {
		bad := append([]byte(nil), good...)
		bad[at] ^= 4
		if at >= len(good)/2 && at < len(good)/2+batch.ChecksumFrom { // base offset and epoch of the second
			continue
		}
		if r := l.keep(bad); !errors.Is(r.Err, ErrCorrupt) {
			t.Errorf("byte %d: %+v", at, r)
		}
	}
	if r := l.keep(good[:len(good)-1]); !errors.Is(r.Err, ErrCorrupt) {
		t.Errorf("%+v", r)
	}
	if l.LogEndOffset() != 0 {
		t.Errorf("ends at %d", l.LogEndOffset())
	}
	if r := l.keep(good); r.Err != nil {
		t.Error(r.Err)
	}
}

// A follower's appends go as a leader's do: many logs in one round, by one journal, and the newest bytes stay in memory, since it may lead next.
func TestAppendKeepsInTheTail(t *testing.T) {
	d := openDir(t, newMem(t), byJournal)
	defer d.close(t)
	var logs []*Log
	done := make(chan Result, 100)
	hold, held := make(chan struct{}), make(chan struct{})
	go d.onCommitter(context.Background(), func() { close(held); <-hold })
	<-held
	for p := range int32(50) {
		l := d.open(t, "orders", p, DefaultLogConfig())
		logs = append(logs, l)
		if err := l.Append(context.Background(), &Append{Batches: keptBatch(t, 5, 3, 1, -1, 0), Keep: true, Done: func(r Result) { done <- r }}); err != nil {
			t.Fatal(err)
		}
	}
	close(hold)
	for range logs {
		if r := <-done; r.Err != nil || r.BaseOffset != 5 || r.LastOffset != 7 {
			t.Fatalf("%+v", r)
		}
	}
	var rounds uint64
	if err := d.onCommitter(context.Background(), func() { rounds = d.committer.journal.current.sequence }); err != nil {
		t.Fatal(err)
	}
	if rounds > 2 {
		t.Errorf("%d logs took %d rounds of the journal", len(logs), rounds)
	}
	d.flush(t)
	for _, l := range logs {
		if len(l.active().tailChunks()) == 0 {
			t.Fatalf("%s has left the tail", l.id)
		}
	}
}

// Epochs is a list of its own.
func TestEpochs(t *testing.T) {
	d := openDir(t, newMem(t))
	defer d.close(t)
	l := d.open(t, "orders", 0, DefaultLogConfig())
	fill(t, l, 0, 40)
	list := l.Epochs()
	if fmt.Sprint(list) != "[{0 0} {1 14} {2 28}]" {
		t.Errorf("%v", list)
	}
	list[1].Start = 99
	if l.EpochAt(14) != 1 {
		t.Error("a caller has changed it")
	}
	l.mustTruncate(t, 28)
	if fmt.Sprint(l.Epochs()) != "[{0 0} {1 14}]" {
		t.Errorf("%v", l.Epochs())
	}
	if epoch, end := l.EndOffsetForEpoch(1); epoch != 1 || end != 28 {
		t.Errorf("epoch %d ends at %d", epoch, end)
	}
}

// A follower takes over the leader's log start, be it ever so near its end; where it lies behind that, it begins anew.
func TestFollowerMovesItsStart(t *testing.T) {
	fs := newMem(t)
	d := openDir(t, fs)
	l := d.open(t, "orders", 0, smallSegments())
	l.KeepFrom(func() int64 { return 3 }) // the high watermark
	fill(t, l, 0, 40)
	if err := l.DeleteRecordsBefore(context.Background(), 40); err != nil || l.LogStartOffset() != 40 || l.LogEndOffset() != 40 {
		t.Errorf("%d to %d, %v", l.LogStartOffset(), l.LogEndOffset(), err)
	}
	if err := l.DeleteRecordsBefore(context.Background(), 50); !errors.Is(err, ErrOffsetOutOfRange) {
		t.Errorf("%v", err)
	}
	if err := l.Reset(context.Background(), 0, 50); err != nil {
		t.Fatal(err)
	}
	if r := l.keep(keptBatch(t, 50, 2, 4, -1, 0)); r.Err != nil || l.LogStartOffset() != 50 || l.LogEndOffset() != 52 {
		t.Errorf("%d to %d, %v", l.LogStartOffset(), l.LogEndOffset(), r.Err)
	}
	d.close(t)
}
