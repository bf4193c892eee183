package catalog

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// ElectLeaders elects the leaders of partitions anew.
type ElectLeaders struct {
	Kind       ElectionKind
	Partitions []PartitionRef
}

// ElectionKind says who may be elected. The numbers are those of Kafka's protocol.
type ElectionKind int8

// The kinds of elections.
const (
	// PreferredElection elects the first replica if it is in sync. Items are refused with ErrElectionNotNeeded and
	// ErrPreferredLeaderNotAvailable.
	PreferredElection ElectionKind = 0
	// UncleanElection elects any replica that is alive for a partition without a leader, at
	// the price of committed records. Items are refused with ErrElectionNotNeeded and ErrEligibleLeadersNotAvailable.
	UncleanElection ElectionKind = 1
)

// PartitionRef names a partition.
type PartitionRef struct {
	Topic     TopicID
	Partition int32
}

// lookUp finds a partition and its topic.
func (d *draft) lookUp(id TopicID, partition int32) (*Topic, *Partition) {
	t := d.TopicByID(id)
	if t == nil || partition < 0 || int(partition) >= len(t.Partitions) {
		return nil, nil
	}
	return t, &t.Partitions[partition]
}

func (d *draft) electLeader(kind ElectionKind, ref PartitionRef) error {
	t, p := d.lookUp(ref.Topic, ref.Partition)
	if p == nil {
		return ErrUnknownTopic
	}
	w, unavailable := asItIs(p), ErrPreferredLeaderNotAvailable
	switch {
	case kind == PreferredElection && len(p.Replicas) > 0 && p.Leader == p.Replicas[0], kind == UncleanElection && p.Leader != nobody:
		return ErrElectionNotNeeded
	case kind == PreferredElection:
		w.election = preferred
	case kind == UncleanElection:
		w.election, unavailable = unclean, ErrEligibleLeadersNotAvailable
	default:
		return ErrInvalid
	}
	if !d.change(d.rulesOf(t), t, ref.Partition, w) {
		return unavailable
	}
	return nil
}

// election says who may lead when it is held.
type election int8

const (
	online    election = iota // who has all committed records; the present leader stays if it may
	preferred                 // the same, but the first replica comes before the present leader
	unclean                   // the same, and if there is nobody, anyone
)

// rules are what a topic's partitions follow.
type rules struct {
	active  map[int32]*Broker
	elr     bool     // eligible leader replicas are kept (KIP-966)
	minISR  int      // min.insync.replicas, at most the replication factor
	usually election // for what happens without being asked for: online or unclean
}

const (
	minISRKey  = "min.insync.replicas"
	uncleanKey = "unclean.leader.election.enable"
)

// rulesOf is what holds for a topic now: its own configs, else the dynamic default of all brokers, else Kafka's.
func (d *draft) rulesOf(t *Topic) rules {
	defaults := d.Config(ResourceBroker, "")
	value := func(key string) string {
		if v, found := t.Configs[key]; found {
			return v
		}
		return defaults[key]
	}
	r := rules{active: d.activeBrokers(), elr: d.Feature(FeatureELR) > 0, minISR: 1}
	if v := value(minISRKey); v != "" && len(t.Partitions) > 0 {
		if n, err := strconv.Atoi(strings.TrimSpace(v)); err == nil {
			r.minISR = min(n, len(t.Partitions[0].Replicas))
		}
	}
	if strings.EqualFold(strings.TrimSpace(value(uncleanKey)), "true") {
		r.usually = unclean
	}
	return r
}

// mayLead reports whether a broker is active and its copy of a partition in a directory that works.
func (r rules) mayLead(p *Partition, id int32) bool {
	b := r.active[id]
	return b != nil && b.hasDir(p.Dir(id))
}

// wanted is what a partition is to become; who leads it then follows from that.
type wanted struct {
	replicas, isr, adding, removing []int32
	recovering                      bool
	election                        election
	lost                            int32 // whose copy may lack committed records, or nobody
}

func asItIs(p *Partition) wanted {
	return wanted{replicas: p.Replicas, isr: p.ISR, adding: p.Adding, removing: p.Removing, recovering: p.Recovering, lost: nobody}
}

// change makes a partition what is wanted, and reports whether that changes anything.
func (d *draft) change(r rules, t *Topic, partition int32, w wanted) bool {
	next, changed := r.next(&t.Partitions[partition], w)
	if changed {
		t = d.edit(t)
		t.Partitions[partition] = next
		d.note(Event{Kind: PartitionChanged, Topic: t.ID, Name: t.Name, Partition: partition})
	}
	return changed
}

// sweep goes through all partitions and makes those that are touched what is wanted.
// The events come in the order of topics' names.
func (d *draft) sweep(touched func(*Partition) bool, want func(*Partition) wanted) {
	var all []*Topic
	partitions := 0
	for t := range d.EachTopic() {
		before := partitions
		for i := range t.Partitions {
			if touched(&t.Partitions[i]) {
				partitions++
			}
		}
		if partitions > before {
			all = append(all, t)
		}
	}
	d.expect(len(all), partitions)
	slices.SortFunc(all, func(x, y *Topic) int { return cmp.Compare(x.Name, y.Name) })
	for _, t := range all {
		d.sweepTopic(t, touched, want)
	}
}

func (d *draft) sweepTopic(t *Topic, touched func(*Partition) bool, want func(*Partition) wanted) {
	r := d.rulesOf(t)
	for i := range t.Partitions {
		if p := &t.Partitions[i]; touched(p) {
			w := want(p)
			w.election = r.usually
			d.change(r, t, int32(i), w)
		}
	}
}

// followConfigs does what a change of configs means for leaders: with another
// min.insync.replicas the eligible replicas are others, and where an unclean election is
// allowed from now on it is held.
func (d *draft) followConfigs(ch ConfigChange) {
	touched := func(p *Partition) bool { return p.Leader == nobody || len(p.ELR) > 0 }
	switch {
	case ch.Type == ResourceTopic:
		d.sweepTopic(d.Topic(ch.Name), touched, asItIs)
	case ch.Type == ResourceBroker && ch.Name == "":
		d.sweep(touched, asItIs)
	}
}

// next is the partition that follows from what is wanted, with its epochs: a reassignment that can be
// completed is, a leader is elected, and who is eligible noted. It reports whether anything changes.
func (r rules) next(p *Partition, w wanted) (Partition, bool) {
	w.complete()
	if !r.elr && len(w.isr) == 0 {
		w.isr = common(p.ISR, w.replicas) // the last one stays
		if len(w.isr) == 0 {
			w.isr = common(p.ELR, w.replicas) // of the time when there were eligible replicas
		}
	}
	isr, elr := w.isr, r.eligible(p, w)
	leader, forced := r.elect(p, w, elr)
	if leader != p.Leader && slices.Contains(elr, leader) {
		isr, elr = []int32{leader}, without(elr, leader)
	}
	if forced {
		isr, elr, w.recovering = []int32{leader}, nil, true
	}
	next := *p
	next.Leader, next.ISR, next.ELR = leader, isr, elr
	next.Replicas, next.Adding, next.Removing, next.Recovering = w.replicas, w.adding, w.removing, w.recovering
	if leader != p.Leader || !containsAll(w.replicas, p.Replicas) {
		next.LeaderEpoch++
	}
	switch {
	case leader != nobody:
		next.LastKnownELR = nil
	case len(isr) == 0 && p.Leader != nobody:
		next.LastKnownELR = []int32{p.Leader}
	case len(isr) == 0 && len(p.ISR) > 0 && len(p.LastKnownELR) == 0: // leaderless since before there were eligible replicas
		next.LastKnownELR = p.ISR[:1:1]
	}
	if !slices.Equal(w.replicas, p.Replicas) {
		next.Dirs, next.Futures = dirsFor(w.replicas, p.Dir), dirsFor(w.replicas, p.Future)
	}
	if equalLeadership(&next, p) && equalDirs(&next, p) {
		return *p, false
	}
	for _, ids := range []*[]int32{&next.ISR, &next.Adding, &next.Removing, &next.ELR} {
		if len(*ids) == 0 {
			*ids = nil // as it is when it is read again, so that equal images have equal bytes
		}
	}
	next.PartitionEpoch++
	return next, true
}

// eligible is who has all committed records without being in sync: while fewer are in
// sync than an acknowledgement needs nothing new is committed, so who was in sync when that began stays eligible.
func (r rules) eligible(p *Partition, w wanted) []int32 {
	if !r.elr || len(w.isr) >= r.minISR {
		return nil
	}
	var elr []int32
	for _, ids := range [2][]int32{p.ELR, p.ISR} {
		for _, id := range ids {
			if id != w.lost && !slices.Contains(w.isr, id) && !slices.Contains(elr, id) && slices.Contains(w.replicas, id) {
				elr = append(elr, id)
			}
		}
	}
	slices.Sort(elr)
	return elr
}

// elect chooses the leader; forced means that it may lack committed records.
func (r rules) elect(p *Partition, w wanted, elr []int32) (leader int32, forced bool) {
	clean := func(id int32) bool {
		return r.mayLead(p, id) && (slices.Contains(w.isr, id) || len(w.isr) == 0 && slices.Contains(elr, id))
	}
	if w.election == preferred && len(w.replicas) > 0 && clean(w.replicas[0]) {
		return w.replicas[0], false
	}
	if clean(p.Leader) {
		return p.Leader, false
	}
	if i := slices.IndexFunc(w.replicas, clean); i >= 0 {
		return w.replicas[i], false
	}
	alive := func(id int32) bool { return id != w.lost && r.mayLead(p, id) }
	if len(w.isr) == 0 && len(elr) == 0 && len(p.LastKnownELR) == 1 {
		if last := p.LastKnownELR[0]; alive(last) && slices.Contains(w.replicas, last) {
			return last, true
		}
	}
	if w.election == unclean {
		if i := slices.IndexFunc(w.replicas, alive); i >= 0 {
			return w.replicas[i], true
		}
	}
	return nobody, false
}

// without is ids with one of them left out.
func without(ids []int32, id int32) []int32 {
	if !slices.Contains(ids, id) {
		return ids
	}
	return slices.DeleteFunc(slices.Clone(ids), func(have int32) bool { return have == id })
}

// minus is ids with all of some others left out.
func minus(ids, out []int32) []int32 {
	for _, id := range out {
		ids = without(ids, id)
	}
	return ids
}

// common is ids that others contain too.
func common(ids, others []int32) []int32 {
	return slices.DeleteFunc(slices.Clone(ids), func(id int32) bool { return !slices.Contains(others, id) })
}

func containsAll(ids, all []int32) bool {
	return !slices.ContainsFunc(all, func(id int32) bool { return !slices.Contains(ids, id) })
}
