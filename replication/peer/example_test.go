package peer_test

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace/millrace/replication/peer"
)

// One node asks another.
func Example() {
	begin := func(node int32) *peer.Hub {
		hub, err := peer.Listen(peer.Options{Address: "127.0.0.1:0", Secret: []byte("shared"), Now: time.Now,
			Self: peer.Identity{ClusterID: "cluster", NodeID: node, Incarnation: [16]byte{byte(node)}}})
		if err != nil {
			panic(err)
		}
		return hub
	}
	one, two := begin(1), begin(2)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	defer one.Shutdown(ctx)
	defer two.Shutdown(ctx)

	two.Register("greet", func(_ context.Context, from peer.Identity, body []byte) ([]byte, error) {
		return fmt.Appendf(nil, "%s, node %d", body, from.NodeID), nil
	})
	answer, err := one.CallAddress(ctx, two.Advertise(), "greet", []byte("hello"))
	fmt.Println(string(answer), err)
	// Output: hello, node 1 <nil>
}
