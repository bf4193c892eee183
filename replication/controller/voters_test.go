package controller

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// m writes a member: racks and states as letters, V voter, d dead, b behind.
func m(id int32, rack string, flags string) Member {
	has := func(r rune) bool {
		for _, f := range flags {
			if f == r {
				return true
			}
		}
		return false
	}
	return Member{ID: id, Rack: rack, Voter: has('V'), Alive: !has('d'), CaughtUp: !has('b') && !has('d')}
}

func TestPlanVoters(t *testing.T) {
	for _, tt := range []struct {
		name    string
		members []Member
		want    Step
	}{
		{"alone", []Member{m(1, "", "V")}, Step{}},
		{"two: one more vote would make either one's end that of both", []Member{m(1, "", "V"), m(2, "", "")}, Step{}},
		{"three", []Member{m(1, "", "V"), m(2, "", ""), m(3, "", "")}, Step{Promote, 2}},
		{"three, half way", []Member{m(1, "", "V"), m(2, "", "V"), m(3, "", "")}, Step{Promote, 3}},
		{"half way, and the third is gone", []Member{m(1, "", "V"), m(2, "", "V"), m(3, "", "d")}, Step{Demote, 2}},
		{"those behind wait", []Member{m(1, "", "V"), m(2, "", "b"), m(3, "", "")}, Step{}},
		{"other racks first", []Member{m(1, "a", "V"), m(2, "a", ""), m(3, "b", "")}, Step{Promote, 3}},
		{"five of six", []Member{m(1, "", "V"), m(2, "", "V"), m(3, "", "V"), m(4, "", "V"), m(5, "", "V"), m(6, "", "")}, Step{}},
		{"a dead voter without a substitute", []Member{m(1, "", "V"), m(2, "", "V"), m(3, "", "Vd")}, Step{}},
		{"a dead voter with one", []Member{m(1, "", "V"), m(2, "", "V"), m(3, "", "Vd"), m(4, "", "")}, Step{Demote, 3}},
		{"no majority", []Member{m(1, "", "V"), m(2, "", "Vd"), m(3, "", "Vd"), m(4, "", ""), m(5, "", "")}, Step{}},
		{"a crowded rack", []Member{m(1, "a", "V"), m(2, "a", "V"), m(3, "a", "V"), m(4, "b", "")}, Step{Promote, 4}},
		{"one too many there", []Member{m(1, "a", "V"), m(2, "a", "V"), m(3, "a", "V"), m(4, "b", "V")}, Step{Demote, 3}},
		{"not the leader", []Member{m(2, "a", "V"), m(3, "b", "V"), m(4, "c", "V"), m(1, "a", "V")}, Step{Demote, 2}},
	} {
		if have := PlanVoters(tt.members, 1, 5); have != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, have, tt.want)
		}
	}
}

// TestPlanVotersSettles: from whatever state, each step keeps a majority alive, the steps come to an end, and then the voters are
// as many as they should be, and as spread over racks as a search of all choices finds.
func TestPlanVotersSettles(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 20000 {
		var members []Member
		voters := 0
		for id := range 1 + r.Int32N(8) {
			x := m(id+1, fmt.Sprint(r.IntN(3)), []string{"", "V", "V", "Vd", "d", "b"}[r.IntN(6)])
			if id == 0 {
				x.Voter, x.Alive, x.CaughtUp = true, true, true
			}
			members = append(members, x)
		}
		for steps := 0; ; steps++ {
			step := PlanVoters(members, 1, 5)
			alive, was := 0, 0
			for i := range members {
				if members[i].Voter {
					was++
				}
				if step.Kind != Stay && members[i].ID == step.ID {
					if members[i].Voter == (step.Kind == Promote) || step.Kind == Promote && !members[i].CaughtUp || step.Kind == Demote && step.ID == 1 {
						t.Fatalf("%+v of %+v", step, members)
					}
					members[i].Voter = step.Kind == Promote
				}
			}
			voters = 0
			for _, x := range members {
				if x.Voter {
					voters++
					if x.Alive {
						alive++
					}
				}
			}
			if step.Kind == Stay {
				if alive >= voters/2+1 {
					settled(t, members, voters)
				}
				break
			}
			if alive < voters/2+1 {
				t.Fatalf("%+v leaves %d of %d alive: %+v", step, alive, voters, members)
			}
			if steps > 20 {
				t.Fatalf("no end: %+v", members)
			}
		}
	}
}

func settled(t *testing.T, members []Member, voters int) {
	t.Helper()
	able, dead, racks, all := 0, 0, map[string]int{}, map[string]int{}
	for _, x := range members {
		switch {
		case x.Voter && !x.Alive:
			dead++
		case x.Voter:
			racks[x.Rack]++
			all[x.Rack]++
		case x.CaughtUp:
			able++
			all[x.Rack]++
		}
	}
	want := min(voters+able, 5)
	if want%2 == 0 {
		want--
	}
	if voters != want || dead > 0 && able > 0 {
		t.Fatalf("%d voters, %d dead, want %d: %+v", voters, dead, want, members)
	}
	leaders := ""
	for _, x := range members {
		if x.ID == 1 {
			leaders = x.Rack
		}
	}
	for rack, n := range racks {
		for other, most := range all {
			if dead == 0 && n >= racks[other]+2 && racks[other] < most && (rack != leaders || n > 1) {
				t.Fatalf("rack %s has %d, %s %d of %d: %+v", rack, n, other, racks[other], most, members)
			}
		}
	}
}
