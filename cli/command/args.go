package command

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// reorder moves the flags of the command that is named to the front of its arguments, because the flag parser stops at the first
// argument and "millrace topic create demo --partitions 6" is how people write. It also turns "help X" into "X --help".
func reorder(app *cli.App, args []string) []string {
	if len(args) < 2 || args[1] == completeName {
		return args
	}
	rest := args[1:]
	if rest[0] == "help" {
		rest = append(slices.Clone(rest[1:]), "--help")
	}
	out := []string{args[0]}
	commands, flags := app.Commands, app.Flags
	for len(rest) > 0 {
		c := find(commands, rest[0])
		if c == nil {
			break
		}
		out, rest = append(out, rest[0]), rest[1:]
		commands, flags = c.Subcommands, c.Flags
	}
	if len(commands) > 0 { // not a command that takes arguments
		return append(out, rest...)
	}
	rest = flagsFirst(flags, rest)
	if i := slices.IndexFunc(rest, func(a string) bool { return a == "--help" || a == "-h" || a == "--" }); i >= 0 && rest[i] != "--" {
		return append(out, "--help") // with arguments the parser would look for help on them
	}
	return append(out, rest...)
}

// flagsFirst returns args with every flag, and its value, before the first argument. What follows "--" is left where it is.
func flagsFirst(flags []cli.Flag, args []string) []string {
	var front, back []string
	for i := 0; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			back = append(back, args[i+1:]...)
			return append(append(front, "--"), back...)
		}
		if len(a) < 2 || a[0] != '-' {
			back = append(back, a)
			continue
		}
		front = append(front, a)
		if i+1 < len(args) && takesValue(flags, a) {
			i++
			front = append(front, args[i])
		}
	}
	return append(front, back...)
}

// takesValue reports whether the flag as written has its value in the next argument.
func takesValue(flags []cli.Flag, written string) bool {
	name := strings.TrimLeft(written, "-")
	if strings.Contains(name, "=") {
		return false
	}
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			d, ok := f.(cli.DocGenerationFlag)
			return ok && d.TakesValue()
		}
	}
	return false
}

func find(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

// didYouMean returns `; did you mean "…"?` for the nearest of the candidates, or nothing when none is near.
func didYouMean(word string, candidates []string) string {
	best, bestDistance := "", len(word)/3+2
	for _, c := range candidates {
		if d := distance(word, c); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	if best == "" {
		return ""
	}
	return `; did you mean "` + best + `"?`
}

// distance counts the letters to insert, delete or replace on the way from a to b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
