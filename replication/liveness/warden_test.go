package liveness

import (
	"context"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/replication/peer"
)

// warden is that of node 1, whose process is 1; brokers are registered, unfenced, with their id as incarnation.
func warden(t *testing.T, w *world, brokers ...int32) *Warden {
	t.Helper()
	for _, id := range brokers {
		w.register(t, id, byte(id))
	}
	return NewWarden(w, w, 1, incarnation(1), now, quiet)
}

func (w *world) register(t *testing.T, id int32, process byte) {
	t.Helper()
	w.done(t, catalog.RegisterBroker{Broker: catalog.Broker{ID: id, Incarnation: incarnation(process)}})
}

func (w *world) heartbeat(id int32) []byte {
	b, _ := w.Image().Broker(id)
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, uint32(id)), uint64(b.Epoch))
}

func TestWarden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.calls(stranger)
		d := warden(t, w, 1, 2, 3)
		defer d.Close()
		synctest.Wait()
		if err := d.Heard(w.heartbeat(2)); !errors.Is(err, ErrNotLeading) {
			t.Errorf("before it leads: %v", err)
		}
		time.Sleep(time.Minute)
		if w.fenced(t, 2) || w.fenced(t, 3) {
			t.Error("fenced by one that does not lead")
		}
		w.lead(1)
		for range 10 { // 2 is there, 3 is not
			synctest.Wait()
			if err := d.Heard(w.heartbeat(2)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(heartbeatEvery)
		}
		if w.fenced(t, 1) || w.fenced(t, 2) || !w.fenced(t, 3) {
			t.Errorf("fenced: %v %v %v", w.fenced(t, 1), w.fenced(t, 2), w.fenced(t, 3))
		}
		if n := count[catalog.FenceBroker](w); n != 1 {
			t.Errorf("%d times", n)
		}
		if err := d.Heard([]byte("?")); err == nil {
			t.Error("nonsense is taken")
		}
		b, _ := w.Image().Broker(3)
		w.done(t, catalog.UnfenceBroker{ID: 3, Epoch: b.Epoch}) // a new lease
		time.Sleep(Lease / 2)
		if err := d.Heard(w.heartbeat(2)); err != nil || w.fenced(t, 3) {
			t.Errorf("%v, fenced %v", err, w.fenced(t, 3))
		}
		w.lead(2)
		synctest.Wait()
		if err := d.Heard(w.heartbeat(2)); !errors.Is(err, ErrNotLeading) {
			t.Errorf("when another leads: %v", err)
		}
		time.Sleep(time.Minute)
		if w.fenced(t, 2) || w.fenced(t, 3) {
			t.Error("fenced by one that leads no longer")
		}
	})
}

// A connection that is lost has the node asked at once: who is not there any more, or is another process, is fenced without a wait.
func TestWardenAsks(t *testing.T) {
	for name, c := range map[string]struct {
		answer []byte
		err    error
		gone   bool
	}{
		"nobody listens":  {err: peer.ErrNotListening, gone: true},
		"another process": {answer: make([]byte, 16), gone: true},
		"it is there":     {answer: append([]byte{2}, make([]byte, 15)...)},
		"no answer":       {err: context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.calls(func(context.Context, int32, string, []byte) ([]byte, error) {
					return append([]byte{2}, make([]byte, 15)...), nil
				})
				d := warden(t, w, 1, 2)
				defer d.Close()
				d.Lost(2) // it does not lead yet
				w.lead(1)
				synctest.Wait()
				asked := 0
				w.calls(func(_ context.Context, node int32, method string, _ []byte) ([]byte, error) {
					if asked++; node != 2 || method != PingMethod {
						t.Errorf("%s to %d", method, node)
					}
					return c.answer, c.err
				})
				d.Lost(1) // itself
				d.Lost(9) // nobody
				synctest.Wait()
				if asked > 0 {
					t.Error("asked in vain")
				}
				d.Lost(2)
				synctest.Wait()
				if w.fenced(t, 2) != c.gone || asked != 1 {
					t.Errorf("fenced %v, asked %d times", w.fenced(t, 2), asked)
				}
			})
		})
	}
}

// Who begins to lead asks everybody: those who died with the leader before are fenced at once, and so is an earlier start of its own.
func TestWardenBeginsToLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.calls(func(_ context.Context, node int32, _ string, _ []byte) ([]byte, error) {
			if node == 2 {
				return nil, peer.ErrNotListening
			}
			return append([]byte{3}, make([]byte, 15)...), nil
		})
		w.register(t, 1, 77)
		d := warden(t, w, 2, 3)
		defer d.Close()
		w.lead(1)
		synctest.Wait()
		if !w.fenced(t, 1) || !w.fenced(t, 2) || w.fenced(t, 3) {
			t.Errorf("fenced: %v %v %v", w.fenced(t, 1), w.fenced(t, 2), w.fenced(t, 3))
		}
		w.register(t, 1, 1) // this start
		synctest.Wait()
		if w.fenced(t, 1) {
			t.Error("it fences itself")
		}
	})
}

// A broker that could not be fenced is tried again, not too often.
func TestWardenTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.calls(stranger)
		d := warden(t, w, 1, 2)
		defer d.Close()
		w.lead(1)
		synctest.Wait()
		w.refusing(errAway)
		time.Sleep(time.Minute)
		if n := count[catalog.FenceBroker](w); n < 10 || n > 100 {
			t.Errorf("%d times in a minute", n)
		}
		w.refusing(nil)
		time.Sleep(2 * time.Second)
		if !w.fenced(t, 2) {
			t.Error("given up")
		}
	})
}

// Close ends what is being asked, and nobody is asked any more.
func TestWardenCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.calls(stranger)
		d := warden(t, w, 1, 2, 3)
		w.lead(1)
		synctest.Wait()
		d.Lost(2)
		d.Close()
		d.Lost(3)
		w.lead(2)
		if len(w.subscribers) != 0 {
			t.Error("it is still told of changes")
		}
	})
}

// A process that has stood still fences nobody for what it could not hear meanwhile.
func TestWardenWakesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.calls(stranger)
		w.register(t, 1, 1)
		w.register(t, 2, 2)
		var slept atomic.Int64
		d := NewWarden(w, w, 1, incarnation(1), func() time.Time { return time.Now().Add(time.Duration(slept.Load())) }, quiet)
		defer d.Close()
		w.lead(1)
		synctest.Wait()
		slept.Store(int64(10 * time.Second))
		time.Sleep(Lease + Lease/2)
		synctest.Wait()
		if w.fenced(t, 2) {
			t.Error("fenced")
		}
		time.Sleep(Lease)
		synctest.Wait()
		if !w.fenced(t, 2) {
			t.Error("not fenced although it is silent")
		}
	})
}
