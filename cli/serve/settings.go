// Package serve runs the broker: it turns flags, environment and file into one configuration, builds the rooms from the bottom
// up, introduces them to each other, waits for a signal, and closes them in the reverse order.
package serve

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// DefaultListen and DefaultData hold where neither flag, environment, --set nor file says otherwise.
const (
	DefaultListen     = "127.0.0.1:9092"
	DefaultPeerListen = "127.0.0.1:9192"
	DefaultData       = "./data"
)

// Settings is what the flags and the environment of "millrace serve" say; an empty string is a flag that was not given.
type Settings struct {
	Data            string        // directories of everything that is kept, separated by commas (log.dirs)
	Listen          string        // host:port for clients (listeners)
	Advertise       string        // host:port told to clients (advertised.listeners)
	HTTP            string        // host:port for health and profiles; empty: none
	Cluster         bool          // this node is one of several (cluster.enable)
	PeerListen      string        // host:port for other nodes (peer.listener)
	PeerAdvertise   string        // host:port told to other nodes (peer.advertised.listener)
	PeerSecretFile  string        // file with the secret that the nodes share (peer.secret.file)
	Join            string        // peer addresses of nodes to join, separated by commas (cluster.join)
	NodeID          string        // number of this node (node.id)
	Rack            string        // where it stands (broker.rack)
	BootstrapExpect string        // how many new nodes begin a cluster (cluster.bootstrap.expect)
	ConfigFile      string        // a file of Kafka's server.properties keys
	Set             []string      // key=value, each wins over the file
	LogFormat       string        // text or json
	LogLevel        string        // debug, info, warn or error
	ShutdownTimeout time.Duration // how long requests in flight may take to finish once told to end
}

// ConfigError is a configuration that cannot be used: nothing was started.
type ConfigError struct{ Err error }

func (e *ConfigError) Error() string { return e.Err.Error() }
func (e *ConfigError) Unwrap() error { return e.Err }

// Properties merges the sources under Kafka's own keys: the file, then --set, then the flags; the later wins, but that --set
// and a flag must not name different data directories.
func (s Settings) Properties() (map[string]string, error) {
	props := map[string]string{"log.dirs": DefaultData, "listeners": plaintext(DefaultListen)}
	if s.ConfigFile != "" {
		text, err := os.ReadFile(s.ConfigFile)
		if err != nil {
			return nil, &ConfigError{fmt.Errorf("the configuration file cannot be read: %w", err)}
		}
		if err := parseProperties(string(text), props); err != nil {
			return nil, &ConfigError{fmt.Errorf("%s: %w", s.ConfigFile, err)}
		}
	}
	for _, kv := range s.Set {
		key, value, ok := strings.Cut(kv, "=")
		if key = strings.TrimSpace(key); !ok || key == "" {
			return nil, &ConfigError{fmt.Errorf("--set %q is not key=value", kv)}
		}
		value = strings.TrimSpace(value)
		// Whoever is wrong about where the data is may not notice for long.
		if (key == "log.dirs" || key == "log.dir") && s.Data != "" && s.Data != value {
			return nil, &ConfigError{fmt.Errorf("--set %s=%s and --data (MILLRACE_DATA) %s name different data directories", key, value, s.Data)}
		}
		setProperty(props, key, value)
	}
	if s.Data != "" {
		setProperty(props, "log.dirs", s.Data)
	}
	for _, f := range []struct{ flag, value, key string }{{"--listen", s.Listen, "listeners"}, {"--advertise", s.Advertise, "advertised.listeners"}} {
		if f.value == "" {
			continue
		}
		if err := checkAddress(f.value); err != nil {
			return nil, &ConfigError{fmt.Errorf("%s %q: %w", f.flag, f.value, err)}
		}
		props[f.key] = plaintext(f.value)
	}
	for _, f := range []struct{ flag, value, key string }{{"--peer-listen", s.PeerListen, "peer.listener"}, {"--peer-advertise", s.PeerAdvertise, "peer.advertised.listener"}} {
		if f.value == "" {
			continue
		}
		if err := checkAddress(f.value); err != nil {
			return nil, &ConfigError{fmt.Errorf("%s %q: %w", f.flag, f.value, err)}
		}
		props[f.key] = f.value
	}
	for _, f := range []struct{ value, key string }{
		{s.PeerSecretFile, "peer.secret.file"}, {s.Join, "cluster.join"}, {s.NodeID, "node.id"}, {s.Rack, "broker.rack"}, {s.BootstrapExpect, "cluster.bootstrap.expect"},
	} {
		if f.value != "" {
			props[f.key] = f.value
		}
	}
	if s.Cluster {
		props["cluster.enable"] = "true"
	}
	if err := s.checkCluster(props); err != nil {
		return nil, err
	}
	if s.HTTP != "" {
		if err := checkAddress(s.HTTP); err != nil {
			return nil, &ConfigError{fmt.Errorf("--http %q: %w", s.HTTP, err)}
		}
	}
	var dirs []string
	for dir := range strings.SplitSeq(props["log.dirs"], ",") {
		if dir = strings.TrimSpace(dir); dir == "" {
			continue
		}
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, &ConfigError{fmt.Errorf("data directory: %w", err)}
		}
		dirs = append(dirs, abs)
	}
	if len(dirs) == 0 {
		return nil, &ConfigError{errors.New("log.dirs names no directory")}
	}
	props["log.dirs"] = strings.Join(dirs, ",")
	return props, nil
}

// checkCluster refuses flags that mean something to one node of several only, where this one is to be alone: it would not be found by those
// that look for it.
func (s Settings) checkCluster(props map[string]string) error {
	if props["cluster.enable"] == "true" {
		return nil
	}
	for _, f := range []struct{ flag, value string }{
		{"--peer-listen", s.PeerListen}, {"--peer-advertise", s.PeerAdvertise}, {"--peer-secret-file", s.PeerSecretFile}, {"--join", s.Join}, {"--bootstrap-expect", s.BootstrapExpect},
	} {
		if f.value != "" {
			return &ConfigError{fmt.Errorf("%s is for one node of several: say --cluster too", f.flag)}
		}
	}
	return nil
}

// setProperty sets a key. log.dir and log.dirs are two names of one thing, of which the later given must win.
func setProperty(props map[string]string, key, value string) {
	if key == "log.dir" {
		key = "log.dirs"
	}
	props[key] = value
}

func plaintext(address string) string { return "PLAINTEXT://" + address }

func checkAddress(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("not HOST:PORT, as in %s", DefaultListen)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("the port must be a number from 0 to 65535")
	}
	return nil
}
