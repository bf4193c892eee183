package engine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/millrace/millrace/engine/catalog"
)

// candidate is a broker that partitions may be put on.
type candidate struct {
	id     int32
	rack   string // "" is a rack like any other
	fenced bool   // used when a rack has no other left, and never as the first replica
}

// candidates are the registered brokers but for those that are stopping; the node itself
// where none has registered.
func candidates(image *catalog.Image, self int32) []candidate {
	brokers := image.Brokers()
	if len(brokers) == 0 {
		return []candidate{{id: self}}
	}
	var all []candidate
	for i := range brokers {
		if b := &brokers[i]; b.Fenced || !b.Stopping {
			all = append(all, candidate{b.ID, b.Rack, b.Fenced})
		}
	}
	return all
}

// ring hands out brokers in turn, beginning one further for each partition.
type ring struct {
	ids         []int32
	start, used int
	partition   int // that used counts for
	turns       int // partitions that it was asked for
	period      int // turns after which the same broker would begin when its rack leads
}

// init is told in how many of the partitions between two that its rack leads the rack is used.
func (r *ring) init(random *rand.Rand, uses int) {
	if n := len(r.ids); n > 0 {
		slices.Sort(r.ids)
		r.start, r.partition = random.IntN(n), -1
		for r.period = n; r.period%uses > 0; {
			r.period += n
		}
	}
}

// next is a broker that this partition does not have yet, or -1.
func (r *ring) next(partition int) int32 {
	if len(r.ids) == 0 {
		return -1
	}
	if r.partition != partition {
		r.partition, r.used = partition, 0
		if r.start++; r.turns%r.period == 0 {
			r.start++
		}
		r.turns++
	}
	if r.used == len(r.ids) {
		return -1
	}
	r.used++
	return r.ids[(r.start+r.used-1)%len(r.ids)]
}

func (r *ring) shuffle(random *rand.Rand) {
	random.Shuffle(len(r.ids), func(i, j int) { r.ids[i], r.ids[j] = r.ids[j], r.ids[i] })
}

type rack struct {
	name            string
	unfenced, other ring
}

func (r *rack) next(partition int) int32 {
	if id := r.unfenced.next(partition); id >= 0 {
		return id
	}
	return r.other.next(partition)
}

// placer stripes partitions over racks, as Kafka does: each partition goes to as many racks as it has
// replicas, the next partition begins one rack further, and within a rack the brokers take turns. Where it
// begins is drawn, and it is shuffled after as many partitions as there are brokers, so that the same
// brokers do not always meet. Beyond what Kafka does the turns skip one now and then; else the same brokers would lead until the
// next shuffle where racks have, say, as many brokers as there are racks.
type placer struct {
	random    *rand.Rand
	factor    int
	racks     []*rack
	total     int
	unfenced  int
	partition int // placed so far
	first     int // rack that the next partition begins with
}

func newPlacer(random *rand.Rand, brokers []candidate, factor int) *placer {
	p := &placer{random: random, factor: factor, total: len(brokers)}
	byName := map[string]*rack{}
	for _, b := range brokers {
		r := byName[b.rack]
		if r == nil {
			r = &rack{name: b.rack}
			byName[b.rack] = r
			p.racks = append(p.racks, r)
		}
		if b.fenced {
			r.other.ids = append(r.other.ids, b.id)
		} else {
			r.unfenced.ids = append(r.unfenced.ids, b.id)
			p.unfenced++
		}
	}
	slices.SortFunc(p.racks, func(x, y *rack) int { return strings.Compare(x.name, y.name) })
	for _, r := range p.racks {
		uses := max(1, min(factor, len(p.racks)))
		r.unfenced.init(random, uses)
		r.other.init(random, uses)
	}
	if len(p.racks) > 0 {
		p.first = random.IntN(len(p.racks))
	}
	return p
}

// check says in Kafka's words why partitions cannot have that many replicas, "" when they can.
func (p *placer) check() string {
	switch factor := p.factor; {
	case factor <= 0:
		return fmt.Sprintf("Invalid replication factor %d: the replication factor must be positive.", factor)
	case p.unfenced == 0:
		return "All brokers are currently fenced, or have all their log directories cordoned."
	case factor > p.total:
		return fmt.Sprintf("The target replication factor of %d cannot be reached because only %d broker(s) are registered or some brokers have all their log directories cordoned.",
			factor, p.total)
	}
	return ""
}

// next places one partition; check has agreed. The first replica is on an unfenced broker.
func (p *placer) next() []int32 {
	if p.partition > 0 && p.unfenced > 1 && p.partition%p.unfenced == 0 {
		p.shuffle()
	}
	replicas := make([]int32, 0, p.factor)
	leading := p.first
	for ; len(replicas) == 0; leading = (leading + 1) % len(p.racks) {
		if id := p.racks[leading].unfenced.next(p.partition); id >= 0 {
			replicas = append(replicas, id)
			break
		}
	}
	passed := false // by the rack of the first replica, whose turn was taken
	for at := p.first; len(replicas) < p.factor; at = (at + 1) % len(p.racks) {
		if at == leading && !passed {
			passed = true
			continue
		}
		if id := p.racks[at].next(p.partition); id >= 0 {
			replicas = append(replicas, id)
		}
	}
	p.partition++
	p.first = (p.first + 1) % len(p.racks)
	return replicas
}

func (p *placer) shuffle() {
	p.random.Shuffle(len(p.racks), func(i, j int) { p.racks[i], p.racks[j] = p.racks[j], p.racks[i] })
	for _, r := range p.racks {
		r.unfenced.shuffle(p.random)
		r.other.shuffle(p.random)
	}
}

// partitionOn is a new partition: those of its replicas that are active are in sync, and the
// first of them leads; nobody when there is none.
func partitionOn(image *catalog.Image, replicas []int32) catalog.Partition {
	isr := slices.DeleteFunc(slices.Clone(replicas), func(id int32) bool {
		b, registered := image.Broker(id)
		return registered && !b.Active()
	})
	leader := int32(-1)
	if len(isr) > 0 {
		leader = isr[0]
	}
	return catalog.Partition{Leader: leader, Replicas: replicas, ISR: isr}
}
