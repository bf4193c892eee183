package inspect

import (
	"bytes"
	"cmp"
	"math"
	"math/bits"
	"slices"
	"strings"
)

// Talkers finds the keys with the most records among any number of them: it counts a thousand, and who is new takes the
// place, and the count, of the smallest (Metwally's space saving). A count may thus be too large, by what Over says; it is never too small.
type Talkers struct {
	keys  map[string]*Talker
	order []*Talker // by count, a heap with the smallest first
	seen  [distinctRegisters]uint8
}

// Talker is a key.
type Talker struct {
	Key   string // its first bytes, when it is long
	Count int64
	Over  int64 // of Count, perhaps of others
	Bytes int64 // of records that were seen since the key was counted

	at int // in the heap
}

const (
	keptTalkers = 1000
	// keptKey is how much of a key is kept, and tells it from others.
	keptKey = 256
	// distinctRegisters are those of a HyperLogLog: to 1.6 % in most cases.
	distinctBits      = 12
	distinctRegisters = 1 << distinctBits
)

func (t *Talkers) add(key []byte, size int64) {
	key = key[:min(len(key), keptKey)]
	h := hash(key)
	if zeros := uint8(bits.LeadingZeros64(h<<distinctBits|1<<(distinctBits-1)) + 1); zeros > t.seen[h>>(64-distinctBits)] {
		t.seen[h>>(64-distinctBits)] = zeros
	}
	if t.keys == nil {
		t.keys = make(map[string]*Talker)
	}
	x := t.keys[string(key)]
	if x == nil {
		x = t.admit(string(bytes.Clone(key)))
	}
	x.Count++
	x.Bytes += size
	t.sink(x.at)
}

// admit gives a new key a place.
func (t *Talkers) admit(key string) *Talker {
	if len(t.order) < keptTalkers {
		x := &Talker{Key: key, at: len(t.order)}
		t.order = append(t.order, x)
		t.rise(x.at)
		t.keys[key] = x
		return x
	}
	x := t.order[0]
	delete(t.keys, x.Key)
	x.Key, x.Over, x.Bytes = key, x.Count, 0
	t.keys[key] = x
	return x
}

func (t *Talkers) swap(i, j int) {
	t.order[i], t.order[j] = t.order[j], t.order[i]
	t.order[i].at, t.order[j].at = i, j
}

func (t *Talkers) rise(i int) {
	for i > 0 && t.order[i].Count < t.order[(i-1)/2].Count {
		t.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (t *Talkers) sink(i int) {
	for {
		least := i
		for _, child := range []int{2*i + 1, 2*i + 2} {
			if child < len(t.order) && t.order[child].Count < t.order[least].Count {
				least = child
			}
		}
		if least == i {
			return
		}
		t.swap(i, least)
		i = least
	}
}

// merge adds what another has counted: the largest of both together.
func (t *Talkers) merge(o *Talkers) {
	for i, zeros := range o.seen {
		t.seen[i] = max(t.seen[i], zeros)
	}
	least := func(x *Talkers) int64 { // what a key that is not counted may have at most
		if len(x.order) < keptTalkers {
			return 0
		}
		return x.order[0].Count
	}
	mine, others := least(t), least(o)
	var all []*Talker
	for _, x := range t.order {
		sum := *x
		if y := o.keys[x.Key]; y != nil {
			sum.Count, sum.Over, sum.Bytes = sum.Count+y.Count, sum.Over+y.Over, sum.Bytes+y.Bytes
		} else {
			sum.Count, sum.Over = sum.Count+others, sum.Over+others
		}
		all = append(all, &sum)
	}
	for _, y := range o.order {
		if t.keys[y.Key] == nil {
			sum := *y
			sum.Count, sum.Over = sum.Count+mine, sum.Over+mine
			all = append(all, &sum)
		}
	}
	sortTalkers(all)
	t.order, t.keys = all[:min(len(all), keptTalkers)], map[string]*Talker{}
	slices.Reverse(t.order) // the smallest first is a heap
	for i, x := range t.order {
		x.at = i
		t.keys[x.Key] = x
	}
}

func sortTalkers(all []*Talker) {
	slices.SortFunc(all, func(a, b *Talker) int { return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Key, b.Key)) })
}

// Top gives the n keys with the most records.
func (t *Talkers) Top(n int) []*Talker {
	all := slices.Clone(t.order)
	sortTalkers(all)
	return all[:min(n, len(all))]
}

// Distinct is about how many keys there are: exactly, up to a thousand; else to a few percent.
func (t *Talkers) Distinct() int64 {
	if len(t.order) < keptTalkers {
		return int64(len(t.order))
	}
	sum, empty := 0.0, 0
	for _, zeros := range t.seen {
		sum += math.Ldexp(1, -int(zeros))
		if zeros == 0 {
			empty++
		}
	}
	const m = distinctRegisters
	estimate := 0.7213 / (1 + 1.079/m) * m * m / sum
	if estimate <= 2.5*m && empty > 0 {
		estimate = m * math.Log(float64(m)/float64(empty))
	}
	return int64(math.Round(estimate))
}

// hash is FNV-1a, stirred: the same on every run, so that the same files give the same answer.
func hash(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
