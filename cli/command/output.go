package command

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"
)

// outputFlag is --output of the commands that answer once; human names the form for people.
func outputFlag(human string) cli.Flag {
	return &cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: human, EnvVars: []string{"MILLRACE_OUTPUT"}, Usage: human + " or json"}
}

// wantsJSON checks --output and reports whether it asks for JSON. MILLRACE_OUTPUT=table and =plain both mean "for people".
func wantsJSON(c *cli.Context) (bool, error) {
	switch o := c.String("output"); o {
	case "json":
		return true, nil
	case "table", "plain":
		return false, nil
	default:
		return false, usagef(commandPath(c), "--output %q is not one of table, plain, json", o)
	}
}

// writeJSON writes v as one indented document.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// formFlag is --output of the commands whose table and plain forms differ; plain says what the plain one is.
func formFlag(plain string) cli.Flag {
	return &cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table", EnvVars: []string{"MILLRACE_OUTPUT"}, Usage: "table, plain (" + plain + ") or json"}
}

// outputForm is what formFlag says: table, plain or json.
func outputForm(c *cli.Context) (string, error) {
	if _, err := wantsJSON(c); err != nil {
		return "", err
	}
	return c.String("output"), nil
}

// writeTabs writes rows for other programs: tabs between the cells, no heading.
func writeTabs(w io.Writer, rows [][]string) error {
	out := bufio.NewWriter(w)
	for _, r := range rows {
		fmt.Fprintln(out, strings.Join(r, "\t"))
	}
	return out.Flush()
}

// writeTable writes rows in aligned columns under a heading.
func writeTable(w io.Writer, heading []string, rows [][]string) error {
	out := bufio.NewWriter(w) // a tabwriter writes cell by cell
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(heading, "\t"))
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(r, "\t"))
	}
	return errors.Join(t.Flush(), out.Flush())
}

// isTerminal reports whether a stream is a terminal: a character device other than the null device.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// progress rewrites one line on a terminal twice a second with what line returns, beginning after the first second.
// The returned function ends it and clears the line. Anywhere but on a terminal nothing is written.
func (e *env) progress(line func() string) (done func()) {
	if !isTerminal(e.Err) {
		return func() {}
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // ends at done
		next := time.NewTimer(time.Second)
		defer next.Stop()
		for {
			select {
			case <-stop:
				fmt.Fprint(e.Err, "\r\x1b[K")
				return
			case <-next.C:
				fmt.Fprint(e.Err, "\r\x1b[K"+line())
				next.Reset(500 * time.Millisecond)
			}
		}
	})
	return sync.OnceFunc(func() { close(stop); wg.Wait() })
}

// count writes n with its noun: "1 record", "2 records".
func count[N int | int32 | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
