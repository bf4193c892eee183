package command

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

func manCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "man",
		Usage:     "print the manual page",
		ArgsUsage: "[COMMAND…]",
		Description: `Examples:
  millrace man | man -l -
  millrace man segment dump | man -l -
  millrace man > /usr/local/share/man/man1/millrace.1

The page is made from what --help says: of all commands, or of the one that is named.`,
		Action: func(c *cli.Context) error {
			p := manPage{title: []string{"millrace"}, version: e.Version}
			commands, flags := c.App.Commands, c.App.Flags
			var of *cli.Command
			for _, word := range c.Args().Slice() {
				if of = find(commands, word); of == nil || of.Hidden {
					var names []string
					for _, below := range commands {
						names = append(names, below.Name)
					}
					return usagef(commandPath(c), "there is no command %q%s", strings.Join(append(p.title, word), " "), didYouMean(word, names))
				}
				p.title = append(p.title, of.Name)
				commands, flags = of.Subcommands, of.Flags
			}
			if of == nil {
				of = &cli.Command{Usage: c.App.Usage, UsageText: c.App.UsageText, Description: c.App.Description, Subcommands: commands, Flags: flags}
			}
			p.write(of)
			_, err := fmt.Fprint(e.Out, p.out.String())
			return err
		},
	}
}

// manPage writes a command as a manual page (man(7)).
type manPage struct {
	title   []string
	version string
	out     strings.Builder
	env     map[string]string // what sets the variable's flag, by variable
}

func (p *manPage) write(c *cli.Command) {
	p.env = map[string]string{}
	name := strings.Join(p.title, "-")
	p.line(".TH %s 1 \"\" \"millrace %s\" \"millrace\"", quoted(strings.ToUpper(name)), roff(p.version))
	p.section("NAME")
	p.line("%s \\- %s", roff(name), roff(c.Usage))
	p.section("SYNOPSIS")
	p.line(".B %s", roff(c.UsageText))
	p.section("DESCRIPTION")
	exits := p.prose(c.Description)
	p.options(c.Flags, ".SH OPTIONS")
	if len(c.Subcommands) > 0 {
		p.section("COMMANDS")
		p.commands(c.Subcommands)
	}
	if len(p.title) == 1 {
		p.section("EXIT STATUS")
		p.prose(exits)
	}
	if len(p.env) > 0 {
		p.section("ENVIRONMENT")
		for _, variable := range slices.Sorted(maps.Keys(p.env)) {
			p.line(".TP\n.B %s\n%s", roff(variable), roff("sets "+p.env[variable]+" where the flag is not given"))
		}
	}
	if len(p.title) > 1 {
		p.section("SEE ALSO")
		p.line(".BR millrace (1)")
	}
}

// commands writes each command that does something, with the words that lead to it.
func (p *manPage) commands(list []*cli.Command) {
	for _, c := range list {
		switch {
		case c.Hidden:
		case len(c.Subcommands) > 0:
			p.commands(c.Subcommands)
		default:
			p.line(".SS %s", quoted(c.UsageText))
			p.line("%s.", roff(strings.ToUpper(c.Usage[:1])+c.Usage[1:]))
			p.line(".PP")
			p.prose(c.Description)
			p.options(c.Flags, "")
		}
	}
}

// prose writes a description: examples as they stand, paragraphs filled. The paragraph about exit codes, which belongs into a
// section of its own, is given back.
func (p *manPage) prose(text string) (exits string) {
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		if strings.HasPrefix(paragraph, "Exit codes: ") && len(p.title) == 1 && exits == "" && p.out.Len() < 4096 {
			exits = strings.TrimPrefix(paragraph, "Exit codes: ")
			continue
		}
		literal := false
		p.line(".PP")
		for line := range strings.SplitSeq(paragraph, "\n") {
			// What is aligned by its writer stays so.
			if asIs := strings.HasPrefix(line, "  ") || strings.Contains(line, ":  "); asIs != literal {
				literal = asIs
				p.line("%s", map[bool]string{true: ".RS 4\n.nf", false: ".fi\n.RE"}[literal])
			}
			p.line("%s", roff(strings.TrimPrefix(line, "  ")))
		}
		if literal {
			p.line(".fi\n.RE")
		}
	}
	return exits
}

func (p *manPage) options(flags []cli.Flag, heading string) {
	if len(flags) == 0 {
		return
	}
	if heading != "" {
		p.line("%s", heading)
	}
	for _, f := range flags {
		d, ok := f.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		placeholder, usage := unquoteUsage(d.GetUsage())
		var names []string
		for _, n := range f.Names() {
			dashes := "--"
			if len(n) == 1 {
				dashes = "-"
			}
			names = append(names, "\\fB"+roff(dashes+n)+"\\fR")
		}
		line := strings.Join(names, ", ")
		if d.TakesValue() {
			line += " \\fI" + roff(cmp.Or(placeholder, "VALUE")) + "\\fR"
		}
		if value := d.GetDefaultText(); value != "" && d.TakesValue() {
			usage += fmt.Sprintf(" (default: %s)", value)
		}
		p.line(".TP\n%s\n%s", line, roff(usage))
		for _, variable := range d.GetEnvVars() {
			p.env[variable] = "--" + f.Names()[0]
		}
	}
}

// unquoteUsage takes the name of a flag's value out of backquotes, as --help does.
func unquoteUsage(usage string) (placeholder, rest string) {
	before, quotedRest, found := strings.Cut(usage, "`")
	name, after, closed := strings.Cut(quotedRest, "`")
	if !found || !closed {
		return "", usage
	}
	return name, before + name + after
}

func (p *manPage) section(name string) { p.line(".SH %s", quoted(name)) }

func (p *manPage) line(format string, args ...any) { fmt.Fprintf(&p.out, format+"\n", args...) }

// roff makes text safe between requests.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", `\&...`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}

// quoted is text as one argument of a request.
func quoted(s string) string { return `"` + strings.ReplaceAll(roff(s), `"`, `\(dq`) + `"` }
