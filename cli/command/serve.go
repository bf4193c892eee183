package command

import (
	"errors"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/millrace/millrace/cli/serve"
)

func serveCommand(e *env) *cli.Command {
	fromEnv := func(name string) []string {
		return []string{"MILLRACE_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))}
	}
	text := func(name, value, usage string) *cli.StringFlag {
		return &cli.StringFlag{Name: name, Value: value, Usage: usage, EnvVars: fromEnv(name)}
	}
	data := text("data", "", "keep everything in this `DIR`")
	data.DefaultText = serve.DefaultData
	listen := text("listen", "", "`HOST:PORT` for clients; port 0 chooses a free one; 0.0.0.0 is every address of this machine")
	listen.DefaultText = serve.DefaultListen
	advertise := text("advertise", "", "`HOST:PORT` that clients are told to use")
	advertise.DefaultText = "the address that each client reached"
	peerListen := text("peer-listen", "", "`HOST:PORT` for other nodes, TCP and UDP")
	peerListen.DefaultText = serve.DefaultPeerListen
	return &cli.Command{
		Name:  "serve",
		Usage: "run a broker",
		Description: `Examples:
  millrace serve
  millrace serve --data /var/lib/millrace --listen 0.0.0.0:9092
  millrace serve --config server.properties --set num.partitions=6 --set message.max.bytes=4194304
  millrace serve --cluster --node-id 1 --data n1 --listen 127.0.0.1:9092 --peer-listen 127.0.0.1:9192
  millrace serve --cluster --node-id 2 --data n2 --listen 127.0.0.1:9093 --peer-listen 127.0.0.1:9193 --join 127.0.0.1:9192
  MILLRACE_DATA=/data MILLRACE_LOG_FORMAT=json millrace serve

A record is acknowledged (acks=1 or all) once it is on the disk. The file and --set
take the keys of Kafka's server.properties; --set wins over the file, and a flag over
both. SIGTERM or SIGINT ends the broker: no new clients, requests in flight finish
within --shutdown-timeout. A second one ends it at once, with exit code 143 or 130.

With --cluster the node is one of several: the first one begins the cluster, those with
--join come to it, and with --bootstrap-expect N the first N begin it together. A node
that was alone takes what it has into the cluster that it begins.

GOMEMLIMIT bounds the memory that the Go runtime takes.`,
		Flags: []cli.Flag{
			data, listen, advertise,
			&cli.BoolFlag{Name: "cluster", Usage: "be one node of several", EnvVars: fromEnv("cluster")},
			peerListen,
			text("peer-advertise", "", "`HOST:PORT` that other nodes are told to use"),
			text("peer-secret-file", "", "`FILE` with the secret that all nodes share"),
			text("join", "", "`HOST:PORT,…`: peer addresses of nodes of the cluster to join"),
			text("node-id", "", "number of this node, `N`; 1 unless given"),
			text("rack", "", "where this node stands, `NAME`; replicas are spread over racks"),
			text("bootstrap-expect", "", "`N` new nodes begin a cluster together"),
			text("http", "", "`HOST:PORT` for /livez, /readyz and /debug/pprof/; off unless given, and open to all who reach it"),
			text("config", "", "`FILE` with keys of Kafka's server.properties"),
			&cli.StringSliceFlag{Name: "set", Usage: "a setting, `KEY=VALUE`; may be repeated; in the environment one a line", EnvVars: fromEnv("set")},
			&cli.DurationFlag{Name: "shutdown-timeout", Value: 10 * time.Second, Usage: "how long requests in flight may take to finish at the end", EnvVars: fromEnv("shutdown-timeout")},
			text("log-format", "text", "text or json, to standard error"),
			text("log-level", "info", "debug, info, warn or error"),
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef(commandPath(c), "takes no argument; what is %q?", c.Args().First())
			}
			if c.Duration("shutdown-timeout") < 0 {
				return usagef(commandPath(c), "--shutdown-timeout must not be negative")
			}
			s := serve.Settings{
				Data: c.String("data"), Listen: c.String("listen"), Advertise: c.String("advertise"), HTTP: c.String("http"), ConfigFile: c.String("config"), Set: settings(c.StringSlice("set")),
				Cluster: c.Bool("cluster"), PeerListen: c.String("peer-listen"), PeerAdvertise: c.String("peer-advertise"), PeerSecretFile: c.String("peer-secret-file"),
				Join: c.String("join"), NodeID: c.String("node-id"), Rack: c.String("rack"), BootstrapExpect: c.String("bootstrap-expect"),
				LogFormat: c.String("log-format"), LogLevel: c.String("log-level"), ShutdownTimeout: c.Duration("shutdown-timeout"),
			}
			err := serve.Run(s, e.Out, e.Err, e.Version)
			var wrong *serve.ConfigError
			if errors.As(err, &wrong) {
				return usagef(commandPath(c), "%v", err)
			}
			return err
		},
	}
}

// settings splits the values of --set into lines, as MILLRACE_SET has them.
func settings(values []string) []string {
	var out []string
	for _, v := range values {
		for line := range strings.Lines(v) {
			if line = strings.TrimSpace(line); line != "" {
				out = append(out, line)
			}
		}
	}
	return out
}
