package command

import (
	"context"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/urfave/cli/v2"
)

const (
	defaultBootstrap = "127.0.0.1:9092"
	bootstrapEnv     = "MILLRACE_BOOTSTRAP"
)

// clientFlags are the flags of every command that talks to a broker, after the command's own.
func clientFlags(own ...cli.Flag) []cli.Flag {
	return append(own,
		&cli.StringFlag{Name: "bootstrap", Aliases: []string{"b"}, Value: defaultBootstrap, EnvVars: []string{bootstrapEnv}, Usage: "brokers to ask first, `HOST:PORT[,…]`"},
		&cli.DurationFlag{Name: "timeout", Value: 10 * time.Second, EnvVars: []string{"MILLRACE_TIMEOUT"}, Usage: "how long to wait for the broker before giving up, as in 500ms, 10s"},
	)
}

// bootstrap returns the checked addresses of --bootstrap.
func bootstrap(c *cli.Context) ([]string, error) {
	var addresses []string
	for a := range strings.SplitSeq(c.String("bootstrap"), ",") {
		a = strings.TrimSpace(a)
		if !strings.Contains(a, ":") {
			a += ":9092"
		}
		host, port, err := net.SplitHostPort(a)
		if n, convErr := strconv.Atoi(port); err != nil || convErr != nil || n < 1 || n > 65535 || host == "" {
			return nil, usagef(commandPath(c), "--bootstrap %q is not HOST:PORT", a)
		}
		addresses = append(addresses, a)
	}
	if c.Duration("timeout") <= 0 {
		return nil, usagef(commandPath(c), "--timeout must be greater than zero")
	}
	return addresses, nil
}

// connect returns a client of the broker, after one request has shown that the broker is there.
func (e *env) connect(c *cli.Context, opts ...kgo.Opt) (*kgo.Client, error) {
	addresses, err := bootstrap(c)
	if err != nil {
		return nil, err
	}
	timeout := c.Duration("timeout")
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(addresses...),
		kgo.ClientID("millrace"),
		kgo.SoftwareNameAndVersion("millrace", softwareVersion(e.Version)),
		kgo.DialTimeout(timeout),
		kgo.RetryTimeout(timeout),
		kgo.RequestTimeoutOverhead(min(max(timeout, 100*time.Millisecond), 15*time.Minute)), // the bounds that kgo sets
	}, opts...)...)
	if err != nil {
		return nil, usagef(commandPath(c), "%v", err)
	}
	if err := ping(c.Context, cl, timeout); err != nil {
		cl.Close()
		return nil, err
	}
	return cl, nil
}

// ping asks any broker for an answer within the timeout.
func ping(ctx context.Context, cl *kgo.Client, timeout time.Duration) error {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- cl.Ping(bounded) }() // ends after RequestTimeoutOverhead at the latest: greeting a broker does not heed ctx
	var err error
	select {
	case err = <-answer:
	case <-bounded.Done():
		err = bounded.Err()
	}
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	addresses, _ := cl.OptValue(kgo.SeedBrokers).([]string)
	return &unreachableError{Addresses: addresses, Err: err}
}

// admin connects and returns the client for metadata requests, with a context that ends at --timeout.
func (e *env) admin(c *cli.Context) (*kadm.Client, context.Context, func(), error) {
	cl, err := e.connect(c)
	if err != nil {
		return nil, nil, nil, err
	}
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	adm := kadm.NewClient(cl)
	adm.SetTimeoutMillis(int32(min(c.Duration("timeout").Milliseconds(), 1<<30)))
	return adm, ctx, func() { cancel(); cl.Close() }, nil
}

// softwareVersion keeps the letters that the protocol allows in a client's version.
func softwareVersion(v string) string {
	v = strings.Map(func(r rune) rune {
		if r == '.' || r == '-' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '-'
	}, v)
	if v = strings.Trim(v, ".-"); v == "" {
		return "unknown"
	}
	return v
}

// commandPath returns the words by which the running command is called.
func commandPath(c *cli.Context) string {
	var words []string
	for _, x := range c.Lineage() {
		if x.Command != nil && x.Command.Name != "" && x.Command.Name != "millrace" {
			words = append([]string{x.Command.Name}, words...)
		}
	}
	return strings.Join(append([]string{"millrace"}, words...), " ")
}

// oneTopic returns the single argument of a command that takes one topic.
func oneTopic(c *cli.Context) (string, error) {
	switch c.NArg() {
	case 0:
		return "", usagef(commandPath(c), "which topic? as in '%s demo'", commandPath(c))
	case 1:
		return c.Args().First(), nil
	}
	return "", usagef(commandPath(c), "one topic at a time; what is %q?", c.Args().Get(1))
}

// topicPartitions returns the details of one topic, or that it does not exist.
func topicPartitions(ctx context.Context, adm *kadm.Client, topic string) (kadm.TopicDetail, error) {
	listed, err := adm.ListTopicsWithInternal(ctx, topic)
	if err != nil {
		return kadm.TopicDetail{}, err
	}
	d, ok := listed[topic]
	if !ok {
		return d, &notFoundError{Topic: topic, Partition: -1}
	}
	if d.Err != nil {
		return d, topicError(topic, d.Err, "")
	}
	return d, nil
}

// keyValues parses repeated key=value flags.
func keyValues(c *cli.Context, flag string) ([][2]string, error) {
	var out [][2]string
	for _, kv := range c.StringSlice(flag) {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || strings.TrimSpace(k) == "" {
			return nil, usagef(commandPath(c), "--%s %q is not key=value", flag, kv)
		}
		out = append(out, [2]string{strings.TrimSpace(k), v})
	}
	return out, nil
}
