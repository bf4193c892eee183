package catalog

import (
	"cmp"
	"slices"
)

// Broker is a node that has registered itself. Its slices must not be changed.
type Broker struct {
	ID          int32
	Epoch       int64    // version of the image in which this incarnation registered
	Incarnation [16]byte // drawn by the process when it starts: another one is another process, or the next start
	Fenced      bool     // not taken for alive: it leads nothing and is in no in-sync set
	Stopping    bool     // in controlled shutdown: the same, until it registers as another incarnation
	Peer        string   // host:port for other brokers
	Rack        string
	Endpoints   []Endpoint
	Dirs        []DirID        // its log directories that work; empty when it does not tell
	Features    []FeatureRange // what it supports; others it does not
}

// Endpoint is one advertised listener of a broker.
type Endpoint struct {
	Listener string // name, for instance PLAINTEXT
	Host     string
	Port     int32
}

// Active reports whether a broker may lead and be in sync: neither fenced nor stopping (KIP-841).
func (b *Broker) Active() bool { return !b.Fenced && !b.Stopping }

// hasDir reports whether a directory works; one that is not known yet counts as working.
func (b *Broker) hasDir(id DirID) bool {
	return id == (DirID{}) || len(b.Dirs) == 0 || slices.Contains(b.Dirs, id)
}

// Brokers lists the registered brokers by id. The slice must not be changed.
func (img *Image) Brokers() []Broker { return img.brokers }

// Broker finds a registered broker.
func (img *Image) Broker(id int32) (Broker, bool) {
	if b := img.broker(id); b != nil {
		return *b, true
	}
	return Broker{}, false
}

func (img *Image) broker(id int32) *Broker {
	i, found := slices.BinarySearchFunc(img.brokers, id, func(b Broker, id int32) int { return cmp.Compare(b.ID, id) })
	if !found {
		return nil
	}
	return &img.brokers[i]
}

// RegisterBroker makes a broker known. Another incarnation than the registered one gets
// a new epoch and begins as the command says; it is refused with ErrBrokerInUse while
// the registered one is not fenced. The same incarnation keeps its epoch, and stays
// fenced or stopping as it is; what it says of itself is replaced. The epoch is in the
// image that follows.
type RegisterBroker struct {
	Broker Broker
	// Unclean says that this incarnation may lack records that earlier ones acknowledged,
	// for instance on a new disk: it is no longer in sync, nor eligible, anywhere (KIP-966).
	Unclean bool `json:",omitempty"`
}

// FenceBroker takes a broker for dead: it leaves every in-sync set, and all that it led
// is led by others, if there are any, by the same command.
type FenceBroker struct {
	ID    int32
	Epoch int64 // of its registration; else ErrStaleBrokerEpoch
}

// UnfenceBroker takes a broker for alive. It gets those partitions without a leader that
// it is eligible for.
type UnfenceBroker struct {
	ID    int32
	Epoch int64
}

// StopBroker begins a broker's controlled shutdown: others lead from now on, and it
// is in no in-sync set, as if it were fenced. A partition that only it holds in sync has no
// leader any more, as with Kafka.
type StopBroker struct {
	ID    int32
	Epoch int64
}

// UnregisterBroker forgets a broker. It stays among the replicas of its partitions.
type UnregisterBroker struct{ ID int32 }

// nobody is the id of no broker.
const nobody int32 = -1

func (d *draft) registerBroker(c RegisterBroker) error {
	b, have := c.Broker, d.broker(c.Broker.ID)
	if err := d.checkRegistration(b, have); err != nil {
		return err
	}
	b.Endpoints, b.Dirs, b.Features = slices.Clone(b.Endpoints), slices.Clone(b.Dirs), slices.Clone(b.Features)
	if have != nil && have.Incarnation == b.Incarnation {
		d.amendBroker(*have, b)
		return nil
	}
	b.Epoch = int64(d.version)
	joins := !b.Fenced
	b.Fenced = true
	d.putBroker(b)
	d.note(Event{Kind: BrokerRegistered, Broker: b.ID})
	if c.Unclean {
		d.removeBroker(b.ID, b.ID)
	} else {
		d.removeBroker(b.ID, nobody) // from what it led as the only node there was, before it registered
	}
	if joins {
		b.Fenced = false
		d.putBroker(b)
		d.fillLeaderless()
	}
	return nil
}

func (d *draft) checkRegistration(b Broker, have *Broker) error {
	if b.ID < 0 {
		return ErrInvalid
	}
	for i, dir := range b.Dirs {
		if dir == (DirID{}) || slices.Contains(b.Dirs[:i], dir) {
			return ErrInvalid
		}
	}
	if have != nil && have.Incarnation != b.Incarnation && !have.Fenced {
		return ErrBrokerInUse
	}
	for i := range d.brokers {
		other := &d.brokers[i]
		if other.ID != b.ID && slices.ContainsFunc(other.Dirs, func(dir DirID) bool { return slices.Contains(b.Dirs, dir) }) {
			return ErrDirInUse
		}
	}
	for name, level := range d.features {
		if !b.supports(name, level) {
			return ErrUnsupportedFeature
		}
	}
	return nil
}

// amendBroker replaces what an incarnation said of itself when it registered before.
func (d *draft) amendBroker(have, b Broker) {
	b.Epoch, b.Fenced, b.Stopping = have.Epoch, have.Fenced, have.Stopping
	if equalBrokers(have, b) {
		return
	}
	d.putBroker(b)
	d.note(Event{Kind: BrokerRegistered, Broker: b.ID})
	if slices.Equal(have.Dirs, b.Dirs) {
		return
	}
	lost := func(p *Partition) bool { return slices.Contains(p.ISR, b.ID) && !b.hasDir(p.Dir(b.ID)) }
	d.sweep(func(p *Partition) bool { return p.Leader == nobody || lost(p) }, func(p *Partition) wanted {
		w := asItIs(p)
		if lost(p) {
			w.isr = without(p.ISR, b.ID)
		}
		return w
	})
}

// registered finds the registration that a command is about.
func (d *draft) registered(id int32, epoch int64) (Broker, error) {
	b := d.broker(id)
	switch {
	case b == nil:
		return Broker{}, ErrUnknownBroker
	case b.Epoch != epoch:
		return Broker{}, ErrStaleBrokerEpoch
	}
	return *b, nil
}

func (d *draft) fenceBroker(c FenceBroker) error {
	b, err := d.registered(c.ID, c.Epoch)
	if err != nil || b.Fenced {
		return err
	}
	b.Fenced = true
	d.putBroker(b)
	d.note(Event{Kind: BrokerChanged, Broker: b.ID})
	d.removeBroker(b.ID, nobody)
	return nil
}

func (d *draft) unfenceBroker(c UnfenceBroker) error {
	b, err := d.registered(c.ID, c.Epoch)
	if err != nil || !b.Fenced {
		return err
	}
	b.Fenced = false
	d.putBroker(b)
	d.note(Event{Kind: BrokerChanged, Broker: b.ID})
	d.fillLeaderless()
	return nil
}

func (d *draft) stopBroker(c StopBroker) error {
	b, err := d.registered(c.ID, c.Epoch)
	if err != nil || b.Stopping {
		return err
	}
	b.Stopping = true
	d.putBroker(b)
	d.note(Event{Kind: BrokerChanged, Broker: b.ID})
	d.removeBroker(b.ID, nobody)
	return nil
}

// unregisterBroker also ends the broker's eligibility: whoever takes the id next may have another disk.
func (d *draft) unregisterBroker(c UnregisterBroker) error {
	if d.broker(c.ID) == nil {
		return ErrUnknownBroker
	}
	d.setBrokers(slices.DeleteFunc(slices.Clone(d.brokers), func(b Broker) bool { return b.ID == c.ID }))
	d.note(Event{Kind: BrokerChanged, Broker: c.ID})
	d.removeBroker(c.ID, c.ID)
	return nil
}

// removeBroker takes a broker, which is not active any more, out of all in-sync sets and
// leaderships; unless lost is nobody, out of the eligible replicas too.
func (d *draft) removeBroker(id, lost int32) {
	d.sweep(func(p *Partition) bool {
		return p.Leader == id || slices.Contains(p.ISR, id) || lost == id && slices.Contains(p.ELR, id)
	}, func(p *Partition) wanted {
		w := asItIs(p)
		w.isr, w.lost = without(p.ISR, id), lost
		return w
	})
}

// fillLeaderless elects leaders where there is none.
func (d *draft) fillLeaderless() {
	d.sweep(func(p *Partition) bool { return p.Leader == nobody }, asItIs)
}

// admit makes new partitions, which were placed on an earlier image, fit the brokers of this
// one: only active ones are in sync. Where none has registered, there is one node and no cluster.
func (d *draft) admit(partitions []Partition) error {
	if len(d.brokers) == 0 {
		return nil
	}
	active := d.activeBrokers()
	for i := range partitions {
		p := &partitions[i]
		if slices.ContainsFunc(p.Replicas, func(id int32) bool { return d.broker(id) == nil }) {
			return ErrConflict
		}
		p.ISR = slices.DeleteFunc(p.ISR, func(id int32) bool { return active[id] == nil || !slices.Contains(p.Replicas, id) })
		if len(p.ISR) == 0 {
			return ErrConflict
		}
		if !slices.Contains(p.ISR, p.Leader) {
			p.Leader = p.ISR[0]
		}
	}
	return nil
}

// putBroker adds or replaces a broker.
func (d *draft) putBroker(b Broker) {
	brokers := slices.DeleteFunc(slices.Clone(d.brokers), func(have Broker) bool { return have.ID == b.ID })
	brokers = append(brokers, b)
	slices.SortFunc(brokers, func(x, y Broker) int { return cmp.Compare(x.ID, y.ID) })
	d.setBrokers(brokers)
}

func (d *draft) setBrokers(brokers []Broker) { d.brokers, d.active = brokers, nil }

// activeBrokers are those that may lead, by id.
func (d *draft) activeBrokers() map[int32]*Broker {
	if d.active == nil {
		d.active = map[int32]*Broker{}
		for i := range d.brokers {
			if b := &d.brokers[i]; b.Active() {
				d.active[b.ID] = b
			}
		}
	}
	return d.active
}

func equalBrokers(a, b Broker) bool {
	return a.Fenced == b.Fenced && a.Stopping == b.Stopping && equalRegistrations(a, b)
}

func equalRegistrations(a, b Broker) bool {
	return a.ID == b.ID && a.Epoch == b.Epoch && a.Incarnation == b.Incarnation && a.Peer == b.Peer && a.Rack == b.Rack &&
		slices.Equal(a.Endpoints, b.Endpoints) && slices.Equal(a.Dirs, b.Dirs) && slices.Equal(a.Features, b.Features)
}
