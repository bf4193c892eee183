package main

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// network joins the nodes, each in a network namespace of its own, and the clients, outside, by TUN devices between
// which this process carries the packets: so it can lose and delay them as it likes, in one direction or both, and
// needs neither a firewall nor a queueing discipline of the kernel. Station 0 is the clients, the others are nodes.
type network struct {
	ports []*port

	mu    sync.Mutex // guards rules
	rules map[[2]int]rule
}

// rule is what happens to packets of one direction.
type rule struct {
	cut   bool
	loss  float64
	delay time.Duration
}

// parcel is a packet on its way.
type parcel struct {
	data []byte
	due  time.Time
}

const subnet = "10.59.0"

func (w *network) host(station int) string {
	if station == 0 {
		return subnet + ".254"
	}
	return fmt.Sprintf("%s.%d", subnet, station)
}

// set rules one direction, from one station to another.
func (w *network) set(from, to int, r rule) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rules[[2]int{from, to}] = r
}

// between rules both directions.
func (w *network) between(a, b int, r rule) {
	w.set(a, b, r)
	w.set(b, a, r)
}

// apart rules both directions between one node and the other nodes; clients are not concerned.
func (w *network) apart(node int, r rule) {
	for other := 1; other < len(w.ports); other++ {
		if other != node {
			w.between(node, other, r)
		}
	}
}

// heal lets everything through again.
func (w *network) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.rules)
}

// carry reads what a station sends, and takes it where it is to go. It ends when the port is closed.
func (w *network) carry(from int) {
	lanes := make([]chan parcel, len(w.ports))
	var carrying sync.WaitGroup
	for to := range lanes {
		lanes[to] = make(chan parcel, 4096)
		carrying.Go(func() {
			for p := range lanes[to] {
				time.Sleep(time.Until(p.due))
				w.ports[to].file.Write(p.data) // what cannot be written is lost, as on any wire
			}
		})
	}
	defer carrying.Wait()
	buffer := make([]byte, 1<<16)
	for {
		n, err := w.ports[from].file.Read(buffer)
		if err != nil {
			for _, lane := range lanes {
				close(lane)
			}
			return
		}
		to := w.station(buffer[:n])
		if to < 0 || to == from {
			continue
		}
		w.mu.Lock()
		r := w.rules[[2]int{from, to}]
		w.mu.Unlock()
		if r.cut || r.loss > 0 && rand.Float64() < r.loss {
			continue
		}
		select {
		case lanes[to] <- parcel{append([]byte(nil), buffer[:n]...), time.Now().Add(r.delay)}:
		default: // full
		}
	}
}

// station is where an IPv4 packet is to go, -1 when nowhere.
func (w *network) station(packet []byte) int {
	if len(packet) < 20 || packet[0]>>4 != 4 || packet[16] != 10 || packet[17] != 59 || packet[18] != 0 {
		return -1
	}
	switch last := int(packet[19]); {
	case last == 254:
		return 0
	case last < len(w.ports):
		return last
	}
	return -1
}
