package server

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// TestConnectionLimitsChangeWhileRunning: an operator lowers and raises the limits with
// kafka-configs, of one broker or of all, and they hold from the next connection on.
func TestConnectionLimitsChangeWhileRunning(t *testing.T) {
	for _, test := range []struct {
		name, key string
		brokers   []int32
	}{
		{"in all of this broker", "max.connections", []int32{1}},
		{"in all of every broker", "max.connections", nil},
		{"of one address of this broker", "max.connections.per.ip", []int32{1}},
		{"of one address of every broker", "max.connections.per.ip", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, addr := startServer(t, nil, test.key, "20")
			admin := kadm.NewClient(newClient(t, addr))
			alter := func(op kadm.IncrementalOp, value string) error {
				answers, err := admin.AlterBrokerConfigs(t.Context(), []kadm.AlterConfig{{Op: op, Name: test.key, Value: &value}}, test.brokers...)
				if err != nil {
					t.Fatal(err)
				}
				return answers[0].Err
			}
			for _, step := range []struct {
				op    kadm.IncrementalOp
				value string
				want  int64 // connections when no more are let in
			}{
				{kadm.SetConfig, "21", 21}, // the admin client has its connections before the limit is reached
				{kadm.SetConfig, "10", 21}, // those who are in stay
				{kadm.SetConfig, "25", 25},
				{kadm.DeleteConfig, "", 25}, // 20 again, as in the properties
			} {
				if err := alter(step.op, step.value); err != nil {
					t.Fatalf("%s=%s: %v", test.key, step.value, err)
				}
				for range 30 {
					c, err := net.Dial("tcp", addr)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { c.Close() })
					c.SetDeadline(time.Now().Add(10 * time.Second))
					c.Write(request(18, 0, 1))
					if _, err := io.ReadFull(c, make([]byte, 20)); err != nil {
						break // closed at once
					}
				}
				if have := s.Stats().Connections; int64(have) != step.want {
					t.Errorf("%s=%q: %d connections, want %d", test.key, step.value, have, step.want)
				}
			}
			if err := alter(kadm.SetConfig, "0"); err == nil {
				t.Error("a limit of 0 is taken")
			}
		})
	}
}
