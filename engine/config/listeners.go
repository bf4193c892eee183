package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Listener is one address of listeners or advertised.listeners.
type Listener struct {
	Name string // upper case, for instance PLAINTEXT
	Host string // without brackets; "" is every interface
	Port int
}

// String writes the listener as in the properties.
func (l Listener) String() string {
	host := l.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return l.Name + "://" + host + ":" + strconv.Itoa(l.Port)
}

// fillListeners reads listeners and advertised.listeners. Listeners that
// controller.listener.names lists are left out: there is nobody to serve there.
func (b *Broker) fillListeners() error {
	protocols, err := b.listenerProtocols()
	if err != nil {
		return err
	}
	controllers := trimAll(b.list("controller.listener.names"))
	parse := func(key string) ([]Listener, error) {
		var out []Listener
		for _, text := range trimAll(b.list(key)) {
			l, err := parseListener(key, text)
			if err != nil {
				return nil, err
			}
			if slices.ContainsFunc(controllers, func(c string) bool { return strings.EqualFold(c, l.Name) }) {
				continue
			}
			protocol, found := protocols[l.Name]
			if !found {
				return nil, &ConflictError{fmt.Sprintf("No security protocol defined for listener %s", l.Name)}
			}
			if protocol != "PLAINTEXT" {
				return nil, &RefusedError{Key: key, Value: text, Reason: "listener " + l.Name + " uses " + protocol + ", and only PLAINTEXT is served"}
			}
			out = append(out, l)
		}
		return out, nil
	}
	if b.Listeners, err = parse("listeners"); err != nil {
		return err
	}
	if b.Advertised, err = parse("advertised.listeners"); err != nil {
		return err
	}
	for _, a := range b.Advertised {
		if a.Host == "0.0.0.0" || a.Host == "::" {
			return &ConflictError{"advertised.listeners cannot use the nonroutable meta-address " + a.Host + ". Use a routable IP address."}
		}
		if !slices.ContainsFunc(b.Listeners, func(l Listener) bool { return l.Name == a.Name }) {
			return &ConflictError{"advertised.listeners listener names must be equal to or a subset of the ones defined in listeners. Found " + a.Name}
		}
	}
	return nil
}

// listenerProtocols reads listener.security.protocol.map.
func (b *Broker) listenerProtocols() (map[string]string, error) {
	const key = "listener.security.protocol.map"
	text, _ := b.values[key].(string)
	protocols := map[string]string{}
	for _, entry := range trimAll(splitList(text)) {
		name, protocol, found := strings.Cut(entry, ":")
		if !found {
			return nil, &ValueError{Key: key, Value: text, Reason: "expected NAME:PROTOCOL"}
		}
		protocol = strings.ToUpper(strings.TrimSpace(protocol))
		switch protocol {
		case "PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL":
		default:
			return nil, &ValueError{Key: key, Value: text, Reason: "no security protocol is named " + protocol}
		}
		protocols[strings.ToUpper(strings.TrimSpace(name))] = protocol
	}
	return protocols, nil
}

// parseListener reads NAME://HOST:PORT.
func parseListener(key, text string) (Listener, error) {
	bad := func(reason string) (Listener, error) {
		return Listener{}, &ValueError{Key: key, Value: text, Reason: reason}
	}
	name, address, found := strings.Cut(text, "://")
	if !found || name == "" {
		return bad("expected NAME://HOST:PORT")
	}
	colon := strings.LastIndexByte(address, ':')
	if colon < 0 {
		return bad("no port")
	}
	port, err := strconv.ParseUint(address[colon+1:], 10, 16)
	if err != nil {
		return bad("the port is not a number from 0 to 65535")
	}
	host := address[:colon]
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
		if _, err := netip.ParseAddr(host); err != nil {
			return bad("not an IPv6 address")
		}
	} else if strings.ContainsAny(host, ":/[] ") {
		return bad("not a host name")
	}
	return Listener{Name: strings.ToUpper(name), Host: host, Port: int(port)}, nil
}
