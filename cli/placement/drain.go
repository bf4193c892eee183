package placement

import (
	"cmp"
	"errors"
	"slices"
)

// Drain plans how to free a broker, which may be gone already, of all its replicas. The largest go first to whoever has least. Where it was the preferred
// leader, the one of the other replicas that is so the least often becomes it. Replicas with nowhere to go are all named in the error; the plan is
// nil then.
func Drain(c Cluster, node int32) ([]Change, error) {
	s := newState(c)
	others := without(s.active(), []int32{node})
	var mine []int
	for i, p := range s.parts {
		if slices.Contains(p.Replicas, node) {
			mine = append(mine, i)
		}
	}
	slices.SortStableFunc(mine, func(a, b int) int { return cmp.Compare(s.parts[b].SizeBytes, s.parts[a].SizeBytes) })
	var led []int
	var failed []error
	for _, i := range mine {
		to, err := s.lightest(i, node, others)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		if s.parts[i].Replicas[0] == node {
			led = append(led, i)
		}
		s.move(i, node, to)
	}
	if len(failed) > 0 {
		return nil, errors.Join(failed...)
	}
	for _, i := range led {
		s.leadAnew(i)
	}
	return s.changes(), nil
}

// leadAnew puts first the active replica that is so the least often; among equals one that holds the partition already, which needs no copy
// before it can lead.
func (s *state) leadAnew(i int) {
	r := s.parts[i].Replicas
	var able []int32
	for _, id := range append(slices.Clone(r[1:]), r[0]) {
		if slices.Contains(s.active(), id) {
			able = append(able, id)
		}
	}
	leads := func(id int32) int {
		if id == r[0] {
			return s.load[id].Leads - 1 // but for this one
		}
		return s.load[id].Leads
	}
	s.set(i, front(r, slices.MinFunc(able, func(a, b int32) int { return cmp.Compare(leads(a), leads(b)) })))
}
