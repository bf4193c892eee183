package serve

import (
	"net"
	"strings"
	"testing"
)

func TestGreet(t *testing.T) {
	tests := []struct {
		name, address, listening string
		try                      string // what follows "produce demo"
	}{
		{"default", "127.0.0.1:9092", "listening  127.0.0.1:9092", ""},
		{"another port", "127.0.0.1:19092", "listening  127.0.0.1:19092", " --bootstrap 127.0.0.1:19092"},
		{"every IPv4 address", "0.0.0.0:9092", "listening  0.0.0.0:9092", ""},
		{"every address", "[::]:19092", "listening  [::]:19092", " --bootstrap 127.0.0.1:19092"},
		{"IPv6", "[::1]:9092", "listening  [::1]:9092", " --bootstrap [::1]:9092"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			at, err := net.ResolveTCPAddr("tcp", tt.address)
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			greet(&b, "millrace", "1.2.3", at, "/data")
			for _, want := range []string{"millrace 1.2.3", tt.listening, "data       /data", "produce demo" + tt.try + "\n", "consume demo" + tt.try + "\n"} {
				if !strings.Contains(b.String(), want) {
					t.Errorf("no %q in\n%s", want, b.String())
				}
			}
		})
	}
}

func TestNetwork(t *testing.T) {
	for host, want := range map[string]string{"0.0.0.0": "tcp4", "127.0.0.1": "tcp4", "::": "tcp", "::1": "tcp", "": "tcp", "localhost": "tcp"} {
		if got := network(host); got != want {
			t.Errorf("network(%q) = %s, want %s", host, got, want)
		}
	}
}
