package coordinator

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/engine/group"
	"github.com/millrace/millrace/segment/batch"
)

// newGrown is a bench whose logs are made small early.
func newGrown(t *testing.T) *bench {
	b := newBench(t, 1)
	b.opts.MinRewrite = 8 << 10
	return b.open()
}

// churn commits until the log has been made small n times.
func (b *bench) churn(n int64) int64 {
	b.t.Helper()
	for i := int64(1); ; i++ {
		if err := b.commit("churn", "t", 0, i); err != nil {
			b.t.Fatal(err)
		}
		if b.c.Stats.Rewrites.Load() >= n {
			return i
		}
		if i > 100_000 {
			b.t.Fatal("the log is not made small")
		}
	}
}

// TestRewrite: a log that is mostly past is made small, with everything that is live behind its start.
func TestRewrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGrown(t)
		member, generation := b.stable("m")
		if err := b.commit("kept", "u", 3, 33); err != nil {
			t.Fatal(err)
		}
		last := b.churn(3)
		if b.log.start == 0 {
			t.Fatal("the log begins where it began")
		}
		live := b.log.records(t, b.log.start)
		if len(live) > 200 {
			t.Errorf("%d records from the start of the log on", len(live))
		}
		b.restart()
		synctest.Wait()
		b.wantOffset("kept", "u", 3, 33)
		b.wantOffset("churn", "t", 0, last)
		if err := b.c.Heartbeat(background, "m", group.Heartbeat{MemberID: member, Generation: generation}); err != nil {
			t.Error(err)
		}
		b.close()
	})
}

// TestRewriteCrash: at whatever record the log ends after a crash, and wherever it begins, what was acknowledged
// before the rewrite is there.
func TestRewriteCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGrown(t)
		b.stable("m")
		for p := range int32(40) {
			if err := b.commit("kept", strings.Repeat("u", 200), p, int64(p)); err != nil {
				t.Fatal(err)
			}
		}
		b.log.keep = true // the crash comes before the start of the log moves
		before := b.log.next
		for i := int64(1); !strings.Contains(b.said.String(), "could not move the start"); i++ {
			if err := b.commit("churn", "t", 0, i); err != nil {
				t.Fatal(err)
			}
		}
		b.close()
		all := b.log.batches
		rewrites := 0
		for _, one := range all {
			if h, _ := batch.ReadHeader(one); h.BaseOffset > before && h.RecordCount > 1 {
				rewrites++
			}
		}
		if rewrites == 0 {
			t.Fatal("no rewrite in the log")
		}
		for end := range len(all) + 1 {
			if h := endOf(all[:end]); h < before {
				continue
			}
			cut := newBench(t, 1)
			cut.log.batches, cut.log.next = all[:end], endOf(all[:end])
			cut.open()
			synctest.Wait()
			for p := range int32(40) {
				cut.wantOffset("kept", strings.Repeat("u", 200), p, int64(p))
			}
			if d, err := cut.c.Describe("m"); err != nil || d.State != group.Stable {
				t.Errorf("after %d of %d batches: %+v %v", end, len(all), d, err)
			}
			cut.close()
		}
	})
}

func endOf(batches [][]byte) int64 {
	if len(batches) == 0 {
		return 0
	}
	h, err := batch.ReadHeader(batches[len(batches)-1])
	if err != nil {
		panic(err)
	}
	return h.NextOffset()
}

// TestRewriteFails: then the log keeps everything, and a later rewrite makes good.
func TestRewriteFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGrown(t)
		for i := range 30 {
			if err := b.commit(fmt.Sprint("g", i), "t", 0, 7); err != nil {
				t.Fatal(err)
			}
		}
		failed := 0
		b.log.fail = func(one []byte) error {
			if h, err := batch.ReadHeader(one); err != nil || h.RecordCount < 10 {
				return nil
			}
			failed++
			return errors.New("disk")
		}
		for i := int64(1); failed < 2; i++ {
			if err := b.commit("churn", "t", 0, i); err != nil {
				t.Fatal(err)
			}
		}
		if b.log.start != 0 || b.c.Stats.Rewrites.Load() != 0 {
			t.Errorf("the log begins at %d", b.log.start)
		}
		b.log.set(func() { b.log.fail = nil })
		b.churn(1)
		b.restart()
		synctest.Wait()
		for i := range 30 {
			b.wantOffset(fmt.Sprint("g", i), "t", 0, 7)
		}
		b.close()
	})
}

// TestRewriteOfNothing: when nothing is live, the log becomes empty, but not of what comes meanwhile.
func TestRewriteOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGrown(t)
		for i := 0; b.c.Stats.Rewrites.Load() < 2; i++ {
			id := fmt.Sprint("g", i)
			if err := b.commit(id, "t", 0, 1); err != nil {
				t.Fatal(err)
			}
			if errs := b.c.DeleteGroups(background, []string{id}); errs[0] != nil {
				t.Fatal(errs[0])
			}
			if i > 100_000 {
				t.Fatal("the log is not made small")
			}
		}
		if err := b.commit("after", "t", 0, 9); err != nil {
			t.Fatal(err)
		}
		b.restart()
		synctest.Wait()
		b.wantOffset("after", "t", 0, 9)
		if left := len(b.log.records(t, b.log.start)); left > 120 {
			t.Errorf("%d records are left", left)
		}
		b.close()
	})
}

// TestRewriteUnderLoad: with commits always on their way, the live state written again is never older than a commit
// that stands before it in the log.
func TestRewriteUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newGrown(t)
		const clients = 32
		done := make(chan struct{})
		last := make([]int64, clients)
		finished := make(chan int, clients)
		for i := range clients {
			go func() {
				defer func() { finished <- i }()
				for n := int64(1); ; n++ {
					select {
					case <-done:
						return
					default:
					}
					if err := b.commit(fmt.Sprint("g", i), "t", 0, n); err != nil {
						t.Error(err)
						return
					}
					last[i] = n
					time.Sleep(time.Duration(i*37+int(n)*11) % 1000 * time.Microsecond)
				}
			}()
		}
		for b.c.Stats.Rewrites.Load() < 5 {
			time.Sleep(time.Millisecond)
		}
		close(done)
		for range clients {
			<-finished
		}
		synctest.Wait()
		// Records of one group never step back, wherever in the log one begins to read.
		newest := map[string]int64{}
		for _, r := range b.log.records(t, 0) {
			if r.Offset.Offset < newest[r.Group] {
				t.Fatalf("%s steps back from %d to %d", r.Group, newest[r.Group], r.Offset.Offset)
			}
			newest[r.Group] = r.Offset.Offset
		}
		b.restart()
		synctest.Wait()
		for i := range clients {
			b.wantOffset(fmt.Sprint("g", i), "t", 0, last[i])
		}
		b.close()
	})
}

// TestLoadedLogIsMadeSmall: a log that has grown is made small after it was loaded, without waiting for more.
func TestLoadedLogIsMadeSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1).open()
		for i := range int64(200) {
			if err := b.commit("g", "t", 0, i); err != nil {
				t.Fatal(err)
			}
		}
		b.close()
		b.opts.MinRewrite = 8 << 10
		b.open()
		time.Sleep(time.Second)
		if b.c.Stats.Rewrites.Load() != 1 || len(b.log.records(t, b.log.start)) != 1 {
			t.Errorf("%d rewrites, the log begins at %d of %d", b.c.Stats.Rewrites.Load(), b.log.start, b.log.next)
		}
		b.restart()
		synctest.Wait()
		b.wantOffset("g", "t", 0, 199)
		b.close()
	})
}

// TestLargeRewriteIsManyBatches: no batch is larger than what any log takes.
func TestLargeRewriteIsManyBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1)
		b.opts.MinRewrite = 1
		b.open()
		topic := strings.Repeat("u", 249)
		ev := simpleCommit(topic, 0, 1)
		for range 5 {
			for part := range 8 {
				ev.Topics[0].Partitions = nil
				for p := range 400 {
					ev.Topics[0].Partitions = append(ev.Topics[0].Partitions,
						group.CommitPartition{Partition: int32(part*400 + p), Offset: 1, Metadata: strings.Repeat("m", 100)})
				}
				if err := commitErr(b.c.Commit(background, "g", ev)); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(time.Second)
		if b.c.Stats.Rewrites.Load() == 0 {
			t.Fatal("no rewrite")
		}
		largest := slices.MaxFunc(b.log.appends, func(x, y []byte) int { return len(x) - len(y) })
		if len(largest) > 1<<19 {
			t.Errorf("a batch of %d bytes", len(largest))
		}
		b.restart()
		synctest.Wait()
		all, err := b.c.FetchOffsets(background, "g", nil, true, false)
		if err != nil || len(all) != 1 || len(all[0].Offsets) != 3200 {
			t.Errorf("%d offsets are left (%v)", len(all[0].Offsets), err)
		}
		b.close()
	})
}
