package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/millrace/millrace/cli/command"
)

// TestReadme runs the commands that README.md shows with what they print: a line "    $ millrace …", and the lines that follow it up to
// one that is empty. A line "    …" stands for any number of lines. Commands run at the top of the repository.
func TestReadme(t *testing.T) {
	t.Chdir("../..")
	t.Setenv("TZ", "UTC")
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	lines := strings.Split(string(text), "\n")
	for i := 0; i < len(lines); i++ {
		line, found := strings.CutPrefix(lines[i], "    $ millrace ")
		if !found {
			continue
		}
		var want []string
		for i+1 < len(lines) && strings.HasPrefix(lines[i+1], "    ") && !strings.HasPrefix(lines[i+1], "    $ ") {
			i++
			want = append(want, strings.TrimPrefix(lines[i], "    "))
		}
		shown++
		var out bytes.Buffer
		command.Main(append([]string{"millrace"}, words(line)...), command.Streams{In: strings.NewReader(""), Out: &out, Err: &out}, command.Build{})
		if got := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n"); !alike(got, want) {
			t.Errorf("millrace %s\nprints\n%s\nREADME.md says\n%s", line, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	if shown == 0 {
		t.Error("README.md shows no run")
	}
}

// words splits a command line at spaces, but for what stands in single quotes.
func words(line string) (out []string) {
	for i, piece := range strings.Split(line, "'") {
		if i%2 == 1 {
			out = append(out, piece)
		} else {
			out = append(out, strings.Fields(piece)...)
		}
	}
	return out
}

// alike compares lines; "…" in want stands for any number of them.
func alike(got, want []string) bool {
	for i, w := range want {
		if w == "…" {
			for skip := range len(got) - i + 1 {
				if alike(got[i+skip:], want[i+1:]) {
					return true
				}
			}
			return false
		}
		if i >= len(got) || strings.TrimRight(got[i], " ") != w {
			return false
		}
	}
	return len(got) == len(want)
}
