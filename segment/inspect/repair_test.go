package inspect_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/segment/inspect"
	"github.com/millrace/millrace/segment/inspect/injure"
	"github.com/millrace/millrace/segment/vfs"
)

func repair(t testing.TB, fsys vfs.FS, salvage bool, stamp string) *inspect.Plan {
	t.Helper()
	plan, err := tryRepair(fsys, salvage, stamp)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func tryRepair(fsys vfs.FS, salvage bool, stamp string) (*inspect.Plan, error) {
	place, err := inspect.Find(fsys, "data")
	if err != nil {
		return nil, err
	}
	plan, err := inspect.PlanRepair(context.Background(), fsys, place, inspect.RepairOptions{Salvage: salvage, Stamp: stamp, IndexInterval: func(*inspect.Partition) int { return injure.Settings().IndexIntervalBytes }})
	if err != nil {
		return nil, err
	}
	return plan, plan.Apply(context.Background(), nil)
}

// contents gives every file below a folder.
func contents(t testing.TB, fsys vfs.FS, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	var walk func(dir string)
	walk = func(dir string) {
		entries, err := fsys.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			name := dir + "/" + e.Name()
			if e.IsDir() {
				walk(name)
				continue
			}
			text, err := vfs.ReadFile(fsys, name)
			if err != nil {
				t.Fatal(err)
			}
			all[name] = string(text)
		}
	}
	walk(dir)
	return all
}

// wellAfter checks that verify finds nothing, that a server says nothing, and that it serves what it should: of whole everything but lost.
func wellAfter(t testing.TB, m *vfs.Mem, whole map[int64]string, mustHave func(offset int64) bool) {
	t.Helper()
	list, _ := verify(t, m, inspect.VerifyOptions{Records: true})
	for _, f := range list {
		if f.Severity != inspect.Note {
			t.Errorf("after the repair: %v", f)
		}
	}
	d, log := serve(t, m.Crash(1, 1))
	defer stop(t, d)
	got := readAll(t, openLog(t, d))
	for _, word := range []string{"level=WARN", "level=ERROR"} {
		if strings.Contains(log.text(), word) {
			t.Errorf("the server says %s", log.text())
		}
	}
	for o, v := range got {
		if whole[o] != v {
			t.Errorf("offset %d: %q is served, %q was written", o, v, whole[o])
		}
	}
	for o := range whole {
		if _, ok := got[o]; !ok && mustHave(o) {
			t.Errorf("offset %d is not served", o)
			return
		}
	}
}

// mustHave tells which offsets a repair must have kept: all that no finding is about; without salvage only those before the first
// finding that has cost some.
func mustHave(list []inspect.Finding, plan *inspect.Plan) func(int64) bool {
	return func(o int64) bool {
		for _, s := range plan.Steps {
			if slices.ContainsFunc(s.Offsets, func(r inspect.OffsetRange) bool { return r.First <= o && o <= r.Last }) {
				return false
			}
		}
		for _, f := range list {
			if f.FirstOffset >= 0 && f.LastOffset < f.FirstOffset && o >= f.FirstOffset {
				return false // the end, and nobody knows how far it went
			}
			if f.What != inspect.SaidOffsetWrong && f.What != inspect.SaidEpochWrong && f.Lost() > 0 && f.FirstOffset <= o && o <= f.LastOffset {
				return false
			}
		}
		return true
	}
}

// After a repair of any injury nothing is found any more, a server has nothing to say, and serves all that was not hit.
func TestRepairOfEveryInjury(t *testing.T) {
	for _, salvage := range []bool{false, true} {
		for _, injury := range injure.All {
			t.Run(fmt.Sprintf("%s salvage=%v", injury.Name, salvage), func(t *testing.T) {
				for seed := range uint64(4) {
					m, whole := healthy(t, injury.From)
					if err := injury.Do(admit(t, m, seed)); err != nil {
						t.Fatal(err)
					}
					list, _ := verify(t, m, inspect.VerifyOptions{})
					plan := repair(t, m, salvage, "1")
					offsets, _ := plan.Lost()
					if salvage && offsets > 12 && !strings.Contains(injury.Name, "journal") && !strings.Contains(injury.Name, "short") {
						t.Errorf("%d offsets are lost", offsets)
					}
					must := mustHave(list, plan)
					if strings.Contains(injury.Name, "-journal") {
						end := int64(len(whole))
						must = func(o int64) bool { return o < end-9 }
					}
					wellAfter(t, m, whole, must)
					if again := repair(t, m, salvage, "2"); len(again.Steps) > 0 {
						t.Errorf("the second repair does %v", again.Steps)
					}
					if t.Failed() {
						t.Fatalf("seed %d: %v\n%v", seed, list, steps(plan))
					}
				}
			})
		}
	}
}

// A repair that is cut short at any operation, by a kill or a power cut, and begun anew comes to the same end.
func TestRepairCutShort(t *testing.T) {
	for _, salvage := range []bool{false, true} {
		for _, injury := range injure.All {
			if testing.Short() && injury.Name != "bit-in-payload" && injury.Name != "damaged-journal" {
				continue
			}
			t.Run(fmt.Sprintf("%s salvage=%v", injury.Name, salvage), func(t *testing.T) {
				m, _ := healthy(t, injury.From)
				if err := injury.Do(admit(t, m, 3)); err != nil {
					t.Fatal(err)
				}
				m = m.Crash(1, 1)
				m.Record()
				repair(t, m, salvage, "1")
				want := contents(t, m, "data/topics")
				if got := contents(t, m.Crash(1, 0), "data/topics"); !maps.Equal(got, want) {
					t.Fatalf("a power cut after the repair takes some of it: %s", difference(got, want))
				}
				for n := range m.Ops() {
					for _, keep := range []float64{1, 0, 0.5} {
						cut := m.Replay(n).Crash(uint64(n), keep)
						plan, err := tryRepair(cut, salvage, "2")
						if err != nil {
							t.Fatalf("cut short after %d operations: %v", n, err)
						}
						got := contents(t, cut, "data/topics")
						if !maps.Equal(got, want) {
							t.Fatalf("cut short after %d operations (%s), keep %v: %s\n%v", n, m.Op(max(n, 1)), keep, difference(got, want), steps(plan))
						}
					}
				}
			})
		}
	}
}

func difference(got, want map[string]string) string {
	var text []string
	for name := range got {
		if _, ok := want[name]; !ok {
			text = append(text, name+" should not be there")
		} else if got[name] != want[name] {
			text = append(text, fmt.Sprintf("%s has %d bytes, not %d", name, len(got[name]), len(want[name])))
		}
	}
	for name := range want {
		if _, ok := got[name]; !ok {
			text = append(text, name+" is missing")
		}
	}
	slices.Sort(text)
	return strings.Join(text, "; ")
}

// What a repair removes is in the quarantine, byte for byte.
func TestRepairKeepsWhatItRemoves(t *testing.T) {
	m, _ := healthy(t, injure.Killed)
	if err := injure.All[1].Do(admit(t, m, 5)); err != nil {
		t.Fatal(err)
	}
	before := contents(t, m, "data/topics")
	plan := repair(t, m, false, "1")
	kept := contents(t, m, "data/quarantine/1")
	after := contents(t, m, "data/topics")
	if !strings.Contains(kept["data/quarantine/1/plan.txt"], plan.Findings[0].What) {
		t.Error("the plan is not written down")
	}
	for name, was := range before {
		in := strings.Replace(name, "data/", "data/quarantine/1/", 1)
		now := after[name]
		if now == was || kept[in] == was {
			continue
		}
		if rest := kept[fmt.Sprintf("%s@%d-%d", in, len(now), len(was))]; now+rest != was {
			t.Errorf("%s: %d of %d bytes are left, %d are kept", name, len(now), len(was), len(rest))
		}
	}
}

func steps(p *inspect.Plan) (text string) {
	for _, s := range p.Steps {
		text += fmt.Sprintf("%s %s at %d: %d bytes, offsets %v, %s\n", s.Do, s.File[strings.LastIndexByte(s.File, '/'):], s.Position, s.Bytes, s.Offsets, s.Why)
	}
	return text
}

// Whatever bit is flipped in whatever file: after a repair nothing wrong is served, and all that was not hit is.
func TestRandomInjuriesAreMended(t *testing.T) {
	seeds := uint64(400)
	if testing.Short() {
		seeds = 40
	}
	for seed := range seeds {
		from := injure.From(seed % 3)
		m, whole := healthy(t, from)
		var hit []string
		for range 1 + seed%3 {
			p := admit(t, m, seed+uint64(len(hit))*1000)
			if i := injure.All[p.Random.IntN(len(injure.All))]; i.From == from && !strings.HasSuffix(i.Name, "-journal") {
				if err := i.Do(p); err == nil { // what an earlier one has hit may not be there
					hit = append(hit, i.Name)
					continue
				}
				p = admit(t, m, seed)
			}
			what, err := injure.FlipAnywhere(p)
			if err != nil {
				t.Fatal(err)
			}
			hit = append(hit, what)
		}
		list, _ := verify(t, m, inspect.VerifyOptions{})
		if len(list) == 0 && !strings.Contains(hit[0], "leader-epoch") { // where one kind of white space is as good as another
			t.Errorf("seed %d: %v is not found", seed, hit)
		}
		salvage := seed%2 == 0
		plan := repair(t, m, salvage, "1")
		wellAfter(t, m, whole, mustHave(list, plan))
		if t.Failed() {
			t.Fatalf("seed %d, from %d, salvage %v: %v\n%v\n%v", seed, from, salvage, hit, list, steps(plan))
		}
	}
}
