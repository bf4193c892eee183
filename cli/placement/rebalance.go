package placement

import (
	"cmp"
	"reflect"
	"slices"
)

// toleratedPercent is how far a broker's bytes may be above the mean before data is moved because of it.
const toleratedPercent = 10

// Rebalance plans how to spread what is there evenly over the active brokers. In this order, none of which undoes one before it:
//
//	racks        the replicas of a partition stand in as many racks as they can
//	replicas     no broker holds two more than another
//	bytes        no broker holds over a tenth more than the mean, as far as single moves and exchanges get there
//	leaderships  no broker is the preferred leader of two more than another; this moves no data
//
// Brokers that are not active are given nothing and keep what they have.
func Rebalance(c Cluster) []Change {
	s := newState(c)
	if len(s.active()) == 0 {
		return nil
	}
	for range 10 { // an exchange may make way for a move that racks forbade before
		before := s.changes()
		s.spreadRacks()
		s.levelReplicas()
		s.levelBytes()
		if reflect.DeepEqual(before, s.changes()) {
			break
		}
	}
	s.levelLeads()
	return s.changes()
}

// spreadRacks moves replicas that share a rack with another of their partition to racks without one.
func (s *state) spreadRacks() {
	active := s.active()
	for i := range s.parts {
		for n := len(s.parts[i].Replicas) - 1; n >= 0; n-- { // the preferred leader comes last: it had better stay
			r := s.parts[i].Replicas
			if s.crowding(r) == 0 {
				break
			}
			if !slices.Contains(active, r[n]) || s.crowding(r) == s.crowding(without(r, r[n:n+1])) {
				continue // another one is too many in its rack
			}
			if to, err := s.lightest(i, r[n], active); err == nil && s.crowding(replaced(r, r[n], to)) < s.crowding(r) {
				s.move(i, r[n], to)
			}
		}
	}
}

// levelReplicas moves single replicas from who holds more to who holds less, until no two brokers differ by two.
func (s *state) levelReplicas() {
	for s.levelOne() {
	}
}

// levelOne makes one such move, between the two that differ most where racks allow it.
func (s *state) levelOne() bool {
	full := s.active()
	slices.SortFunc(full, func(a, b int32) int {
		return cmp.Or(cmp.Compare(s.load[b].Replicas, s.load[a].Replicas), cmp.Compare(s.load[b].Bytes, s.load[a].Bytes), cmp.Compare(a, b))
	})
	for _, from := range full {
		for _, to := range slices.Backward(full) {
			if s.load[from].Replicas-s.load[to].Replicas < 2 {
				break
			}
			if i := s.bestMove(from, to); i >= 0 {
				s.move(i, from, to)
				return true
			}
		}
	}
	return false
}

// bestMove finds the partition whose move makes the bytes of two brokers most alike; among equals the smallest, then that whose topic the one holds
// most of compared to the other. -1: none may be moved.
func (s *state) bestMove(from, to int32) int {
	best := -1
	var bestKey [3]int64
	gap := s.load[from].Bytes - s.load[to].Bytes
	topic, excess := "", 0
	for i, p := range s.parts {
		if !s.mayMove(i, from, to) {
			continue
		}
		if p.Topic != topic {
			topic, excess = p.Topic, s.ofTopic(p.Topic, from)-s.ofTopic(p.Topic, to)
		}
		key := [3]int64{abs(gap - 2*p.SizeBytes), p.SizeBytes, int64(-excess)}
		if best < 0 || slices.Compare(key[:], bestKey[:]) < 0 {
			best, bestKey = i, key
		}
	}
	return best
}

// mayMove tells whether a partition is on one broker, not on the other, and whether its racks allow it to move.
func (s *state) mayMove(i int, from, to int32) bool {
	holds, leaves, enters := false, false, false // whether another replica stands in the rack that it leaves, in the one that it enters
	for _, id := range s.parts[i].Replicas {
		switch rack := s.rack[id]; {
		case id == to:
			return false
		case id == from:
			holds = true
		case rack != "":
			leaves, enters = leaves || rack == s.rack[from], enters || rack == s.rack[to]
		}
	}
	return holds && (leaves || !enters)
}

// levelBytes moves and exchanges replicas between brokers with more bytes and brokers with fewer, without making the numbers of replicas
// uneven. Every step brings two brokers closer, by a hundredth of the mean at least, so it ends.
func (s *state) levelBytes() {
	active := s.active()
	for range 10*len(s.parts) + 10 {
		var total int64
		for _, id := range active {
			total += s.load[id].Bytes
		}
		mean := total / int64(len(active))
		slices.SortFunc(active, func(a, b int32) int {
			return cmp.Or(cmp.Compare(s.load[b].Bytes, s.load[a].Bytes), cmp.Compare(a, b))
		})
		if !s.levelPair(active, mean) {
			return
		}
	}
}

func (s *state) levelPair(byBytes []int32, mean int64) bool {
	for _, from := range byBytes {
		if s.load[from].Bytes <= mean+mean*toleratedPercent/100 {
			return false
		}
		for _, to := range slices.Backward(byBytes) {
			gap := s.load[from].Bytes - s.load[to].Bytes
			if s.load[to].Bytes >= mean || gap <= 0 {
				break
			}
			give, take := s.bestExchange(from, to, gap)
			if give < 0 {
				continue
			}
			shifted := s.parts[give].SizeBytes
			if take >= 0 {
				shifted -= s.parts[take].SizeBytes
			}
			if gap-abs(gap-2*shifted) < max(1, mean/100) {
				continue // not worth the copy
			}
			s.move(give, from, to)
			if take >= 0 {
				s.move(take, to, from)
			}
			return true
		}
	}
	return false
}

// bestExchange finds what one broker should give to another, and what it should take for it (-1: nothing, where it holds more replicas), so that a gap
// between their bytes becomes smallest; among equals that with the fewest bytes to copy.
func (s *state) bestExchange(from, to int32, gap int64) (give, take int) {
	var gives, takes []int
	for i := range s.parts {
		if s.parts[i].SizeBytes > 0 && s.mayMove(i, from, to) {
			gives = append(gives, i)
		} else if s.mayMove(i, to, from) {
			takes = append(takes, i)
		}
	}
	size := func(i int) int64 { return s.parts[i].SizeBytes }
	slices.SortStableFunc(takes, func(a, b int) int { return cmp.Compare(size(a), size(b)) })
	give, take = -1, -1
	var bestKey [2]int64
	offer := func(g, t int) {
		shifted, copied := size(g), size(g)
		if t >= 0 {
			shifted, copied = shifted-size(t), copied+size(t)
		}
		if key := [2]int64{abs(gap - 2*shifted), copied}; shifted > 0 && (give < 0 || slices.Compare(key[:], bestKey[:]) < 0) {
			give, take, bestKey = g, t, key
		}
	}
	for _, g := range gives {
		if s.load[from].Replicas > s.load[to].Replicas {
			offer(g, -1)
		}
		// The one that would be exactly right is between these two.
		at, _ := slices.BinarySearchFunc(takes, size(g)-gap/2, func(t int, wanted int64) int { return cmp.Compare(size(t), wanted) })
		for _, n := range []int{at - 1, at} {
			if n >= 0 && n < len(takes) {
				offer(g, takes[n])
			}
		}
	}
	return give, take
}

// levelLeads has preferred leaderships handed on, from who has most over others to who has two fewer or less, by putting another replica first. It
// moves no data.
func (s *state) levelLeads() {
	for range len(s.parts) {
		order := s.active()
		slices.SortFunc(order, func(a, b int32) int {
			return cmp.Or(cmp.Compare(s.load[b].Leads, s.load[a].Leads), cmp.Compare(a, b))
		})
		handed := false
		for _, from := range order {
			if handed = s.handOn(from); handed {
				break
			}
		}
		if !handed {
			return
		}
	}
}

// handOn looks for the shortest chain of partitions by which one leadership gets from a broker to one with two fewer or less.
func (s *state) handOn(from int32) bool {
	type step struct {
		by   int32 // who hands on
		part int
	}
	reached := map[int32]step{from: {}}
	active := s.active()
	for queue := []int32{from}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if s.load[at].Leads <= s.load[from].Leads-2 {
			for at != from {
				st := reached[at]
				s.set(st.part, front(s.parts[st.part].Replicas, at))
				at = st.by
			}
			return true
		}
		for i, p := range s.parts {
			if len(p.Replicas) == 0 || p.Replicas[0] != at {
				continue
			}
			for _, id := range p.Replicas[1:] {
				if _, seen := reached[id]; !seen && slices.Contains(active, id) {
					reached[id] = step{at, i}
					queue = append(queue, id)
				}
			}
		}
	}
	return false
}

func abs(n int64) int64 { return max(n, -n) }
