package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/config"
	"github.com/millrace/millrace/segment/vfs"
)

// testLog writes the server's log into the test's.
type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Log(string(b))
	return len(b), nil
}

// startServer runs a broker on a free port of the loopback for the length of a test.
func startServer(t *testing.T, change func(*Options), props ...string) (*Server, string) {
	t.Helper()
	return startServerOn(t, vfs.OS(), change, props...)
}

func startServerOn(t *testing.T, fs vfs.FS, change func(*Options), props ...string) (*Server, string) {
	t.Helper()
	return startServerWith(t, fs, nil, change, props...)
}

// startServerIn runs a broker of a cluster.
func startServerIn(t *testing.T, cluster engine.Cluster, change func(*Options), props ...string) (*Server, string) {
	t.Helper()
	return startServerWith(t, vfs.OS(), cluster, change, props...)
}

func startServerWith(t *testing.T, fs vfs.FS, cluster engine.Cluster, change func(*Options), props ...string) (*Server, string) {
	t.Helper()
	settings := map[string]string{"node.id": "1", "log.dirs": t.TempDir(), "num.partitions": "3", "group.initial.rebalance.delay.ms": "0"}
	for i := 0; i+1 < len(props); i += 2 {
		settings[props[i]] = props[i+1]
	}
	cfg, _, err := config.ParseBroker(settings)
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	e, err := engine.Open(t.Context(), engine.Options{FS: fs, Config: cfg, Now: time.Now, Logger: logger, Cluster: cluster})
	if err != nil {
		t.Fatal(err)
	}
	opts := OptionsFor(cfg)
	opts.Now, opts.Logger = time.Now, logger
	if change != nil {
		change(&opts)
	}
	s, err := New(e, opts)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		if err := e.Close(ctx); err != nil {
			t.Errorf("close engine: %v", err)
		}
	})
	return s, l.Addr().String()
}

func newClient(t *testing.T, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(addr), kgo.AllowAutoTopicCreation()}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

func TestProduceAndConsume(t *testing.T) {
	_, addr := startServer(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cl := newClient(t, addr, kgo.DefaultProduceTopic("first"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	const records = 3000
	for i := range records {
		r := &kgo.Record{Partition: int32(i % 3), Value: []byte{byte(i), byte(i >> 8)}}
		cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("record %d: %v", i, err)
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	consumer := newClient(t, addr, kgo.ConsumeTopics("first"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	next := map[int32]int64{}
	for got := 0; got < records; {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset != next[r.Partition] {
				t.Fatalf("partition %d: offset %d, expected %d", r.Partition, r.Offset, next[r.Partition])
			}
			next[r.Partition]++
			if n := int(r.Value[0]) | int(r.Value[1])<<8; n != int(r.Offset)*3+int(r.Partition) {
				t.Fatalf("partition %d offset %d holds record %d", r.Partition, r.Offset, n)
			}
			got++
		})
	}
}

// TestClientsAreToldTheAddressTheyReached asks on two addresses of the loopback.
func TestClientsAreToldTheAddressTheyReached(t *testing.T) {
	for _, test := range []struct {
		name, advertised, want string
		port                   int32
	}{
		{"the address reached", "", "127.0.0.1", 0},
		{"the advertised address", "broker.example", "broker.example", 9999},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, addr := startServer(t, func(o *Options) { o.AdvertisedHost, o.AdvertisedPort = test.advertised, test.port })
			_, own, err := net.SplitHostPort(addr)
			if err != nil {
				t.Fatal(err)
			}
			if test.port != 0 {
				own = fmt.Sprint(test.port)
			}
			c := dialRaw(t, addr)
			meta := c.ask(kmsg.NewPtrMetadataRequest()).(*kmsg.MetadataResponse).Brokers[0]
			cluster := c.ask(kmsg.NewPtrDescribeClusterRequest()).(*kmsg.DescribeClusterResponse).Brokers[0]
			if meta.Host != test.want || fmt.Sprint(meta.Port) != own {
				t.Errorf("Metadata: %s:%d", meta.Host, meta.Port)
			}
			if cluster.Host != test.want || fmt.Sprint(cluster.Port) != own {
				t.Errorf("DescribeCluster: %s:%d", cluster.Host, cluster.Port)
			}
		})
	}
}
