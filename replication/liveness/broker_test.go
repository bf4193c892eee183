package liveness

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/engine/catalog"
)

var errAway = errors.New("away")

// life makes the part of broker 1.
func life(w *world, process byte, fresh bool) *Broker {
	return NewBroker(w, w, catalog.Broker{ID: 1, Incarnation: incarnation(process), Peer: "one:1"}, fresh, now, quiet)
}

func answers(context.Context, int32, string, []byte) ([]byte, error) { return nil, nil }

func TestLifeOfABroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		type heartbeat struct {
			to int32
			at time.Time
		}
		var mu sync.Mutex
		var all []heartbeat
		heard := func() []heartbeat {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(all)
		}
		w.calls(func(_ context.Context, node int32, method string, body []byte) ([]byte, error) {
			b, err := decodeHeartbeat(body)
			if me, _ := w.Image().Broker(1); err != nil || method != HeartbeatMethod || b != (Standing{1, me.Epoch}) {
				t.Errorf("%s of %v: %v", method, b, err)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, heartbeat{node, time.Now()})
			return nil, nil
		})
		b := life(w, 1, true)
		if err := b.Leave(t.Context()); err != nil {
			t.Errorf("before it serves: %v", err)
		}
		if err := b.Register(t.Context()); err != nil {
			t.Fatal(err)
		}
		if register := w.proposed[0].(catalog.RegisterBroker); !register.Unclean || !w.fenced(t, 1) {
			t.Errorf("registered as %+v", register)
		}
		me, _ := w.Image().Broker(1)
		if b.Epoch() != me.Epoch || b.Alive() {
			t.Errorf("epoch %d, alive %v", b.Epoch(), b.Alive())
		}
		if err := b.Serve(t.Context()); err != nil || w.fenced(t, 1) {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if n := len(heard()); n > 0 || b.Alive() {
			t.Errorf("%d heartbeats while nobody leads", n)
		}
		w.lead(7)
		synctest.Wait()
		if beats := heard(); len(beats) != 1 || beats[0].to != 7 || !b.Alive() {
			t.Errorf("%v as soon as somebody leads", beats)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := len(heard()); n < 18 || n > 22 {
			t.Errorf("%d heartbeats in 10 s", n)
		}
		w.calls(func(ctx context.Context, _ int32, _ string, _ []byte) ([]byte, error) { return nil, errAway })
		time.Sleep(Lease + time.Second)
		synctest.Wait()
		if b.Alive() {
			t.Error("alive although nobody answers")
		}
		w.calls(stranger) // and who does not even refuse
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if err := b.Leave(t.Context()); err != nil {
			t.Error(err)
		}
		if me, _ := w.Image().Broker(1); !me.Stopping {
			t.Error("it has not said so")
		}
		if len(w.subscribers) != 0 {
			t.Error("it is still told of changes")
		}
	})
}

// Who is fenced although it is there takes part again, whatever comes in between, and however often.
func TestFencedAlthoughThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.calls(answers)
		b := life(w, 1, false)
		if err := b.Register(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.Serve(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			w.done(t, catalog.FenceBroker{ID: 1, Epoch: b.Epoch()})
			synctest.Wait()
			if w.fenced(t, 1) {
				t.Fatal("it stays fenced")
			}
		}
		before := count[catalog.UnfenceBroker](w)
		w.done(t, catalog.FenceBroker{ID: 1, Epoch: b.Epoch()})
		w.refusing(errAway)
		time.Sleep(time.Minute)
		w.refusing(nil)
		time.Sleep(2 * lastPause)
		if w.fenced(t, 1) {
			t.Error("it stays fenced after proposals have failed")
		}
		if n := count[catalog.UnfenceBroker](w) - before; n > 70 {
			t.Errorf("%d proposals in a minute", n)
		}
		if err := b.Leave(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A process whose id another has taken does not unfence it, and says so when it leaves.
func TestSucceededProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.calls(answers)
		old, next := life(w, 1, false), life(w, 2, false)
		if err := old.Register(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := old.Serve(t.Context()); err != nil {
			t.Fatal(err)
		}
		soon, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := next.Register(soon); !errors.Is(err, catalog.ErrBrokerInUse) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("beside the other: %v", err)
		}
		old.cancel() // it is frozen
		old.done.Wait()
		w.done(t, catalog.FenceBroker{ID: 1, Epoch: old.Epoch()})
		if err := next.Register(t.Context()); err != nil || next.Epoch() <= old.Epoch() {
			t.Fatal(err)
		}
		synctest.Wait()
		if !w.fenced(t, 1) {
			t.Error("the other one was unfenced")
		}
		if err := old.unfence(t.Context()); !errors.Is(err, catalog.ErrStaleBrokerEpoch) {
			t.Errorf("%v", err)
		}
		if err := old.Leave(t.Context()); !errors.Is(err, catalog.ErrStaleBrokerEpoch) {
			t.Errorf("%v", err)
		}
	})
}

// What trying again does not help against ends a registration, and all waits have an end.
func TestRegistrationsThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.calls(answers)
		w.done(t, catalog.RegisterBroker{Broker: catalog.Broker{ID: 2, Incarnation: incarnation(9), Dirs: []catalog.DirID{{1}}}})
		b := NewBroker(w, w, catalog.Broker{ID: 1, Incarnation: incarnation(1), Dirs: []catalog.DirID{{1}}}, false, now, quiet)
		if err := b.Register(t.Context()); !errors.Is(err, catalog.ErrDirInUse) {
			t.Errorf("%v", err)
		}
		w.refusing(errAway)
		begun := time.Now()
		soon, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := life(w, 1, false).Register(soon); !errors.Is(err, errAway) || time.Since(begun) > 10*time.Second {
			t.Errorf("after %s: %v", time.Since(begun), err)
		}
		w.refusing(nil)
		b = life(w, 1, false)
		if err := b.Register(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.refusing(errAway)
		late, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := b.Serve(late); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if err := b.Leave(t.Context()); !errors.Is(err, errAway) { // ends its goroutines all the same
			t.Errorf("%v", err)
		}
	})
}

func TestDecodeHeartbeat(t *testing.T) {
	body := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, 7), 9)
	if b, err := decodeHeartbeat(body); err != nil || b != (Standing{7, 9}) {
		t.Errorf("%v, %v", b, err)
	}
	for _, bad := range [][]byte{nil, body[:11], append(body, 0)} {
		if _, err := decodeHeartbeat(bad); err == nil {
			t.Errorf("%d bytes are taken", len(bad))
		}
	}
}
