package command

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/urfave/cli/v2"

	"github.com/millrace/millrace/segment/inspect"
	"github.com/millrace/millrace/segment/vfs"
)

// completionTimeout bounds the look-up of topic names while somebody waits for the Tab key.
const completionTimeout = time.Second

// completeName is the hidden command that the shells' scripts call with the words so far; the last one is being typed.
const completeName = "__complete"

var completionScripts = map[string]string{
	"bash": `_millrace() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do COMPREPLY+=("$line"); done < <(millrace ` + completeName + ` "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    [[ ${#COMPREPLY[@]} = 1 && ${COMPREPLY[0]} == */ ]] && compopt -o nospace
}
complete -o default -F _millrace millrace
`,
	"zsh": `#compdef millrace
_millrace() {
    local -a candidates
    candidates=("${(@f)$(millrace ` + completeName + ` "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    compadd -S '' -- ${(M)candidates:#*/}
    compadd -- ${candidates:#(*/|)}
}
compdef _millrace millrace
`,
	"fish": `complete -c millrace -f -a '(millrace ` + completeName + ` (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
`,
}

func completionCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a script that completes commands, flags and topics",
		ArgsUsage: "bash|zsh|fish",
		Description: `Examples:
  source <(millrace completion bash)
  source <(millrace completion zsh)
  millrace completion fish > ~/.config/fish/completions/millrace.fish`,
		Action: func(c *cli.Context) error {
			script, ok := completionScripts[c.Args().First()]
			if !ok || c.NArg() != 1 {
				return usagef(commandPath(c), "for which shell? bash, zsh or fish")
			}
			_, err := fmt.Fprint(e.Out, script)
			return err
		},
	}
}

func completeCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:            completeName,
		Hidden:          true,
		SkipFlagParsing: true,
		Action: func(c *cli.Context) error {
			for _, candidate := range candidates(c.Context, c.App, c.Args().Slice()) {
				fmt.Fprintln(e.Out, candidate)
			}
			return nil
		},
	}
}

// flagChoices are the values of flags that have only a few.
var flagChoices = map[string][]string{
	"--acks":        {"all", "1", "0"},
	"--compression": {"none", "gzip", "snappy", "lz4", "zstd"},
	"--output":      {"table", "plain", "json"},
	"--from":        {"start", "end"},
	"--log-format":  {"text", "json"},
	"--log-level":   {"debug", "info", "warn", "error"},
	"--what":        append(slices.Clone(dumpParts), "all"),
	"--format":      {"text", "hex", "base64", "json"},
	"--sort":        slices.Sorted(maps.Keys(lsOrders)),
	"--state":       {"live", "deleted", "stray", "future"},
	"--by":          {"all", "topic", "partition"},
	"--aborted":     {"drop", "keep"},
	"--open":        {"refuse", "drop", "keep"},
	"--missing":     {"refuse", "empty"},
	"--encoding":    {"text", "base64"},

	"export --format": {"json", "csv", "values", "log"},
	"import --format": {"auto", "json", "csv"},
}

// candidates returns what the last of the words may become.
func candidates(ctx context.Context, app *cli.App, words []string) []string {
	if len(words) == 0 {
		words = []string{""}
	}
	typed := words[len(words)-1]
	commands, flags, topics, paths := app.Commands, app.Flags, false, false
	before := words[:len(words)-1]
	for _, w := range before {
		c := find(commands, w)
		if c == nil {
			break
		}
		commands, flags, topics = c.Subcommands, c.Flags, strings.HasPrefix(c.ArgsUsage, "TOPIC")
		paths = strings.HasPrefix(strings.TrimPrefix(c.ArgsUsage, "["), "PATH")
	}
	var all []string
	switch {
	case paths && before[len(before)-1] == "--topic":
		all = topicsInPaths(before)
	case len(before) > 0 && takesValue(flags, before[len(before)-1]):
		all = flagChoices[before[len(before)-1]]
		if i := slices.IndexFunc(before, func(w string) bool { return flagChoices[w+" "+before[len(before)-1]] != nil }); i >= 0 {
			all = flagChoices[before[i]+" "+before[len(before)-1]]
		}
	case strings.HasPrefix(typed, "-"):
		for _, f := range flags {
			all = append(all, "--"+f.Names()[0])
		}
		if !slices.Contains(all, "--help") { // the parser adds it to the root's flags only
			all = append(all, "--help")
		}
	case len(commands) > 0:
		for _, c := range commands {
			if !c.Hidden {
				all = append(all, c.Name)
			}
		}
	case topics:
		all = topicCandidates(ctx, before)
	case paths:
		all = pathCandidates(typed)
	case slices.Contains(before, "completion"):
		all = []string{"bash", "zsh", "fish"}
	}
	return slices.DeleteFunc(all, func(s string) bool { return !strings.HasPrefix(s, typed) })
}

// pathCandidates lists what a path that is being typed may become; folders end with a slash.
func pathCandidates(typed string) []string {
	folder, base := filepath.Split(typed)
	entries, err := os.ReadDir(cmp.Or(folder, "."))
	if err != nil {
		return nil
	}
	var all []string
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") && !strings.HasPrefix(base, ".") {
			continue
		}
		name := folder + entry.Name()
		if entry.IsDir() {
			name += "/"
		}
		all = append(all, name)
	}
	return all
}

// topicsInPaths lists the topics of the directories that the command line names.
func topicsInPaths(words []string) []string {
	var all []string
	for _, w := range words {
		if info, err := os.Stat(w); err != nil || !info.IsDir() {
			continue
		}
		if p, err := inspect.Find(vfs.OS(), w); err == nil {
			for i := range p.Partitions {
				all = append(all, p.Partitions[i].Topic)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// topicCandidates asks the broker that the command line names for its topics; without an answer there are none.
func topicCandidates(ctx context.Context, words []string) []string {
	address := cmp.Or(os.Getenv(bootstrapEnv), defaultBootstrap)
	for i := 0; i+1 < len(words); i++ {
		if words[i] == "--bootstrap" || words[i] == "-b" {
			address = words[i+1]
		}
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(address, ",")...), kgo.DialTimeout(completionTimeout))
	if err != nil {
		return nil
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	topics, err := kadm.NewClient(cl).ListTopics(ctx)
	if err != nil {
		return nil
	}
	return topics.Names()
}
