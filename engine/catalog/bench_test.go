package catalog

import (
	"context"
	"fmt"
	"testing"
)

func benchTopic(i, partitions int) NewTopic {
	n := NewTopic{Name: fmt.Sprintf("topic-%06d", i), Partitions: make([]Partition, partitions)}
	n.ID[0], n.ID[1], n.ID[2], n.ID[3] = byte(i), byte(i>>8), byte(i>>16), 1
	for p := range n.Partitions {
		n.Partitions[p] = Partition{Leader: 1, Replicas: []int32{1}, ISR: []int32{1}}
	}
	return n
}

func BenchmarkOpenEmpty(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		dir := b.TempDir()
		b.StartTimer()
		c, err := Open(Options{Dir: dir, ClusterID: "x"})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		c.Close()
		b.StartTimer()
	}
}

func BenchmarkReopen10000Topics(b *testing.B) {
	dir := b.TempDir()
	c, err := Open(Options{Dir: dir, ClusterID: "x"})
	if err != nil {
		b.Fatal(err)
	}
	for i := range 10 {
		var cmd CreateTopics
		for j := range 1000 {
			cmd.Topics = append(cmd.Topics, benchTopic(i*1000+j, 1))
		}
		if _, err := c.Propose(context.Background(), cmd); err != nil {
			b.Fatal(err)
		}
	}
	c.Close()
	for b.Loop() {
		c, err := Open(Options{Dir: dir, ClusterID: "x"})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if c.Image().TopicCount() != 10000 {
			b.Fatal(c.Image().TopicCount())
		}
		c.Close()
		b.StartTimer()
	}
}

func BenchmarkCreateTopic(b *testing.B) {
	for _, partitions := range []int{1, 100, 1000, 10000} {
		b.Run(fmt.Sprintf("partitions=%d", partitions), func(b *testing.B) {
			c, err := Open(Options{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			i := 0
			for b.Loop() {
				i++
				res, err := c.Propose(context.Background(), CreateTopics{[]NewTopic{benchTopic(i, partitions)}})
				if err != nil || res.Errors[0] != nil {
					b.Fatal(err, res.Errors)
				}
			}
		})
	}
}

func BenchmarkApplyAmong10000Topics(b *testing.B) {
	img := NewImage()
	var cmd CreateTopics
	for i := range 10000 {
		cmd.Topics = append(cmd.Topics, benchTopic(i, 1))
	}
	res, _ := Apply(img, cmd)
	img = res.Image
	one := CreateTopics{[]NewTopic{benchTopic(10001, 1)}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Apply(img, one); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFence10000: a broker that leads a third of 10,000 partitions, and follows in the others, is fenced.
func BenchmarkFence10000(b *testing.B) {
	for _, perTopic := range []int{1, 10, 1000} {
		b.Run(fmt.Sprintf("partitions=%d", perTopic), func(b *testing.B) {
			img := NewImage()
			apply := func(cmd Command) {
				res, err := Apply(img, cmd)
				if err != nil || res.Errors[0] != nil {
					b.Fatal(err, res.Errors)
				}
				img = res.Image
			}
			for id := range int32(3) {
				apply(RegisterBroker{Broker: Broker{ID: id}})
			}
			var cmd CreateTopics
			for i := range 10000 / perTopic {
				n := benchTopic(i, perTopic)
				for p := range n.Partitions {
					first := int32(i+p) % 3
					n.Partitions[p].Replicas = []int32{first, (first + 1) % 3, (first + 2) % 3}
					n.Partitions[p].ISR, n.Partitions[p].Leader = n.Partitions[p].Replicas, first
				}
				cmd.Topics = append(cmd.Topics, n)
			}
			apply(cmd)
			fence := FenceBroker{0, 1}
			b.ReportAllocs()
			for b.Loop() {
				if res, err := Apply(img, fence); err != nil || len(res.Image.Events()) != 10001 {
					b.Fatal(err)
				}
			}
		})
	}
}
