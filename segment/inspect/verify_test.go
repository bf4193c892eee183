package inspect_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/inspect"
	"github.com/millrace/millrace/segment/inspect/injure"
	"github.com/millrace/millrace/segment/vfs"
)

// What is well is found well, closed, killed, and with records that are in the journal alone.
func TestVerifyOfTheHealthy(t *testing.T) {
	for _, from := range []injure.From{injure.Killed, injure.Closed, injure.Journaled} {
		m, whole := healthy(t, from)
		for _, o := range []inspect.VerifyOptions{{}, {Fast: true}, {Records: true}} {
			list, counts := verify(t, m, o)
			if len(list) > 0 || counts.Records != int64(len(whole)) || counts.Segments < 4 {
				t.Errorf("from %d: %v; %+v, want %d records", from, list, counts, len(whole))
			}
		}
	}
}

// Every injury that has a name is found by verify, and by a server that opens the directory, in the same words.
func TestInjuriesAreFoundAndSaid(t *testing.T) {
	for _, injury := range injure.All {
		t.Run(injury.Name, func(t *testing.T) {
			for seed := range uint64(5) {
				m, _ := healthy(t, injury.From)
				if err := injury.Do(admit(t, m, seed)); err != nil {
					t.Fatal(err)
				}
				list, counts := verify(t, m, inspect.VerifyOptions{})
				found := slices.ContainsFunc(list, func(f inspect.Finding) bool { return f.What == injury.What && f.Severity == inspect.Harm })
				if !found || counts.Damage == 0 {
					t.Errorf("seed %d: verify finds %v", seed, list)
				}
				served := m.Crash(1, 1)
				d, log := serve(t, served)
				opened := log.text()
				if injury.AtStart != strings.Contains(opened, injury.What) {
					t.Errorf("seed %d: the server says %s", seed, opened)
				}
				l := openLog(t, d)
				readAll(t, l)
				for i := range int64(150) {
					_, _, _ = l.OffsetForTimestamp(1_700_000_000_000+i, l.LogEndOffset())
				}
				if (injury.AtStart || injury.WhenRead) != strings.Contains(log.text(), injury.What) {
					t.Errorf("seed %d: a server that has read all says %s", seed, log.text())
				}
				stop(t, d)
				if t.Failed() {
					return
				}
			}
		})
	}
}

// Nothing is written by a look.
func TestVerifyWritesNothing(t *testing.T) {
	m, _ := healthy(t, injure.Journaled)
	if err := injure.All[0].Do(admit(t, m, 1)); err != nil {
		t.Fatal(err)
	}
	m.Record()
	verify(t, m, inspect.VerifyOptions{})
	for n := range m.Ops() {
		t.Error(fmt.Sprint("verify: ", m.Op(n+1)))
	}
}

// What the disk does not give is neither well nor damaged, and nothing around it is taken for damage.
func TestVerifyOfTheUnreadable(t *testing.T) {
	m, _ := healthy(t, injure.Closed)
	faulty := vfs.NewFaulty(m)
	faulty.Inject(vfs.Fault{Op: vfs.OpRead, Path: "*39.log", Err: syscall.EIO})
	list, counts := verify(t, faulty, inspect.VerifyOptions{})
	if counts.Untold == 0 || counts.Damage > 0 {
		t.Errorf("%+v: %v", counts, list)
	}
	if plan := repair(t, faulty, false, "1"); len(plan.Steps) > 0 || len(plan.Left) == 0 {
		t.Errorf("a repair would do %v", steps(plan))
	}
}

// Records that a producer has sent twice, or left out, are found, and not where others are missing.
func TestVerifyOfSequences(t *testing.T) {
	m, _ := healthy(t, injure.Killed)
	d, _ := serve(t, m)
	l := openLog(t, d)
	for _, sequence := range []int32{5000, 5001, 7} { // what is kept is not checked
		b := batch.NewBuilder(batch.BuilderOptions{Idempotent: true, ProducerID: 7, BaseSequence: sequence, BaseOffset: l.LogEndOffset(), LeaderEpoch: 3})
		b.Append(1_700_000_000_500, nil, []byte("x"), nil)
		built, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan segment.Result, 1)
		if err := l.Append(context.Background(), &segment.Append{Batches: built, Keep: true, Done: func(r segment.Result) { done <- r }}); err != nil {
			t.Fatal(err)
		}
		if r := <-done; r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	stop(t, d)
	list, _ := verify(t, m, inspect.VerifyOptions{})
	n := 0
	for _, f := range list {
		if f.What == inspect.SaidSequence {
			n++
		}
	}
	if n != 2 || len(list) != 2 {
		t.Errorf("%v", list)
	}
}

// DESIGN.md lists which injury is found by whom.
func TestWhoFindsWhat(t *testing.T) {
	text, err := os.ReadFile("../../DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	design := strings.Join(strings.Fields(string(text)), " ")
	for who, takes := range map[string]func(i *injure.Injury) bool{
		"a start says: ": func(i *injure.Injury) bool { return i.AtStart },
		"a server says when what is hurt is first read (records by a consumer, an index by the first search): ": func(i *injure.Injury) bool { return i.WhenRead },
		"verify alone: ": func(i *injure.Injury) bool { return !i.AtStart && !i.WhenRead },
	} {
		var names []string
		for i := range injure.All {
			if takes(&injure.All[i]) {
				names = append(names, "`"+injure.All[i].Name+"`")
			}
		}
		if list := who + strings.Join(names, ", "); !strings.Contains(design, list+" -") && !strings.Contains(design, list+".") {
			t.Errorf("DESIGN.md does not say: %s", list)
		}
	}
}
