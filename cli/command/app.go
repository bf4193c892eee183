package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
)

// Streams are the three standard streams of a run.
type Streams struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// Build says what this binary was built from.
type Build struct {
	Version string
	Commit  string
}

// Main runs one command line (args[0] is the program) and returns its exit code.
func Main(args []string, s Streams, b Build) int {
	app := newApp(s, b)
	ctx, stop := interruptible(args)
	defer stop()
	err := app.RunContext(ctx, reorder(app, args))
	if err == nil {
		return ExitOK
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		fmt.Fprintln(s.Err, "millrace: interrupted")
		return ExitInterrupted
	}
	message, code := explain(err)
	fmt.Fprintf(s.Err, "millrace: %s\n", message)
	return code
}

// interruptible returns a context that ends at Ctrl-C, and gives the signal back to the system at once, so that a second
// Ctrl-C ends a command that does not come to its end. The broker minds its signals itself.
func interruptible(args []string) (context.Context, context.CancelFunc) {
	if len(args) > 1 && args[1] == "serve" {
		return context.WithCancel(context.Background())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

func newApp(s Streams, b Build) *cli.App {
	e := &env{Streams: s, Build: b}
	app := &cli.App{
		Name:                      "millrace",
		Usage:                     "a durable streaming log that speaks the Kafka protocol",
		UsageText:                 "millrace COMMAND [flags] [arguments]",
		Description:               rootDescription,
		HideVersion:               true,
		HideHelpCommand:           true,
		DisableSliceFlagSeparator: true,
		Reader:                    s.In,
		Writer:                    s.Out,
		ErrWriter:                 s.Err,
		ExitErrHandler:            func(*cli.Context, error) {}, // Main decides the exit code
		Commands: []*cli.Command{
			serveCommand(e),
			topicCommand(e),
			clusterCommand(e),
			produceCommand(e),
			consumeCommand(e),
			segmentCommand(e),
			benchCommand(e),
			versionCommand(e),
			completionCommand(e),
			manCommand(e),
			completeCommand(e),
		},
	}
	app.Action = func(c *cli.Context) error { return groupAction(c, app.Commands, "millrace") }
	app.OnUsageError = flagError("millrace", nil)
	prepare(app.Commands, "millrace")
	return app
}

// env is what every command is handed: where to read and write, and what binary this is.
type env struct {
	Streams
	Build
}

// prepare gives each command, and those below it, the same manners for wrong flags and unknown subcommands.
func prepare(commands []*cli.Command, parent string) {
	for _, c := range commands {
		path := parent + " " + c.Name
		c.HideHelpCommand = true
		c.UsageText = strings.TrimSpace(path + " [flags] " + c.ArgsUsage)
		for _, f := range c.Flags {
			if b, ok := f.(*cli.BoolFlag); ok && !b.Value {
				b.DisableDefaultText = true // "(default: false)" says nothing
			}
		}
		c.OnUsageError = flagError(path, c.Flags)
		if len(c.Subcommands) > 0 {
			c.UsageText = path + " COMMAND [flags] [arguments]"
			c.Action = func(ctx *cli.Context) error { return groupAction(ctx, c.Subcommands, path) }
		}
		prepare(c.Subcommands, path)
	}
}

// groupAction runs when a command that only groups others is called without naming one of them.
func groupAction(c *cli.Context, below []*cli.Command, path string) error {
	if c.NArg() == 0 {
		if path == "millrace" {
			return cli.ShowAppHelp(c)
		}
		return cli.ShowSubcommandHelp(c)
	}
	var names []string
	for _, b := range below {
		names = append(names, b.Name)
	}
	return usagef(path, "there is no command %q%s", path+" "+c.Args().First(), didYouMean(c.Args().First(), names))
}

// flagError turns what the flag parser says into a sentence that names the nearest flag.
func flagError(path string, flags []cli.Flag) cli.OnUsageErrorFunc {
	return func(_ *cli.Context, err error, _ bool) error {
		wrong, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: ")
		if !ok {
			return usagef(path, "%v", err)
		}
		var names []string
		for _, f := range flags {
			names = append(names, "--"+f.Names()[0])
		}
		wrong = "--" + strings.TrimLeft(wrong, "-")
		return usagef(path, "there is no flag %s%s", wrong, didYouMean(wrong, names))
	}
}

const rootDescription = `Start a broker:               millrace serve --data ./data
Send a first record:          echo 'hello' | millrace produce demo
Read it back:                 millrace consume demo

Commands other than serve and segment talk to any Kafka broker: --bootstrap HOST:PORT or
MILLRACE_BOOTSTRAP names it, 127.0.0.1:9092 unless told.

Exit codes: 0 ok, 1 failed, 2 wrong usage or configuration, 3 no broker reachable,
4 no such topic or partition, 130 interrupted (Ctrl-C), 143 a broker told twice to end.`
