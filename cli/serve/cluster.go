package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/engine/config"
	"github.com/millrace/millrace/replication"
)

// openNode listens to other nodes, when this one is one of several; nil when it is alone.
func openNode(broker *config.Broker, listeners []net.Listener, logger *slog.Logger) (*replication.Node, error) {
	if !broker.Cluster {
		return nil, nil
	}
	endpoints, err := told(broker, listeners)
	if err != nil {
		return nil, err
	}
	secret, err := peerSecret(broker)
	if err != nil {
		return nil, err
	}
	certificates, err := peerTLS(broker)
	if err != nil {
		return nil, err
	}
	node, err := replication.New(replication.Options{Config: broker, Endpoints: endpoints, Secret: secret, TLS: certificates, Now: time.Now, Logger: logger})
	if err != nil {
		return nil, fmt.Errorf("--peer-listen %s: %w", broker.PeerListener, err)
	}
	return node, nil
}

// told are the addresses that clients are told by other nodes.
func told(broker *config.Broker, listeners []net.Listener) ([]catalog.Endpoint, error) {
	var endpoints []catalog.Endpoint
	for i, l := range broker.Listeners {
		e := catalog.Endpoint{Listener: l.Name, Host: l.Host, Port: int32(listeners[i].Addr().(*net.TCPAddr).Port)}
		for _, a := range broker.Advertised {
			if a.Name == l.Name {
				e.Host, e.Port = a.Host, int32(a.Port)
			}
		}
		if ip := net.ParseIP(e.Host); e.Host == "" || ip != nil && ip.IsUnspecified() {
			return nil, &ConfigError{fmt.Errorf("%s is no address that other nodes could tell clients: say one with --advertise", l.Name+"://"+e.Host)}
		}
		endpoints = append(endpoints, e)
	}
	return endpoints, nil
}

// cluster is what the engine is told of node; a nil node is no cluster.
func cluster(node *replication.Node) engine.Cluster {
	if node == nil {
		return nil
	}
	return node
}

// farewell is how long clients are still answered when others lead: those that are at work are told who does, and need not find
// out from a closed connection, after which many wait for seconds before they ask again.
const farewell = 500 * time.Millisecond

// leave has others lead what this node leads, before clients are sent away. It is best effort: if it fails they notice by themselves.
func leave(node *replication.Node, timeout time.Duration, logger *slog.Logger) {
	if node == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), max(timeout, time.Second))
	defer cancel()
	defer node.StopCopying() // before the log is closed beneath it
	if err := node.Leave(ctx); err != nil {
		logger.Warn("leaderships could not be handed over: others will take them when they miss this node", "error", err)
		return
	}
	time.Sleep(min(farewell, timeout/2)) // no event tells that every client has asked
}

// closeNode ends this node's part, when the engine is closed.
func closeNode(node *replication.Node, timeout time.Duration) error {
	if node == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), max(timeout, time.Second))
	defer cancel()
	if err := node.Close(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("leaving the cluster: %w", err)
	}
	return nil
}
