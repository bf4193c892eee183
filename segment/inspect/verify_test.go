package inspect_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/segment/inspect"
	"github.com/millrace/millrace/segment/inspect/injure"
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
				if injury.AtStart && !strings.Contains(opened, injury.What) {
					t.Errorf("seed %d: the server says %s", seed, opened)
				}
				l := openLog(t, d)
				readAll(t, l)
				for i := range int64(150) {
					_, _, _ = l.OffsetForTimestamp(1_700_000_000_000+i, l.LogEndOffset())
				}
				if injury.WhenRead && !strings.Contains(log.text(), injury.What) {
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
