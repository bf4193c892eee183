package peer

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// mostAddresses of one name are returned.
const mostAddresses = 16

// Resolve looks a host:port up and returns what it stands for as ip:port, IPv4 first: "localhost" is both. There is at
// least one, and are at most 16. It blocks for as long as the context allows.
func Resolve(ctx context.Context, hostPort string) ([]string, error) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil, err
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	if len(ips) == 0 {
		return nil, fmt.Errorf("peer: %s has no address", host)
	}
	slices.SortStableFunc(ips, func(a, b netip.Addr) int { return a.Unmap().BitLen() - b.Unmap().BitLen() })
	var addresses []string
	for _, ip := range ips[:min(len(ips), mostAddresses)] {
		addresses = append(addresses, net.JoinHostPort(ip.Unmap().String(), port))
	}
	return addresses, nil
}
