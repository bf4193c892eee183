package command

import (
	"io"
	"slices"
	"strings"
	"testing"
)

func TestReorder(t *testing.T) {
	app := newApp(Streams{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard}, Build{})
	tests := []struct{ name, in, want string }{
		{"nothing", "", ""},
		{"flags first stay", "topic create --partitions 3 demo", "topic create --partitions 3 demo"},
		{"flags after the argument", "topic create demo --partitions 3", "topic create --partitions 3 demo"},
		{"with =", "topic create demo --partitions=3", "topic create --partitions=3 demo"},
		{"short", "topic create demo -p 3", "topic create -p 3 demo"},
		{"a bool takes no value", "consume --follow demo --max 3", "consume --follow --max 3 demo"},
		{"negative value", "consume demo --from -5", "consume --from -5 demo"},
		{"several arguments", "topic delete a --if-exists b -b x:1", "topic delete --if-exists -b x:1 a b"},
		{"after -- nothing moves", "topic create a -- --odd", "topic create -- a --odd"},
		{"value that looks like an argument", "produce --key demo demo", "produce --key demo demo"},
		{"a dash alone is an argument", "topic describe - -o json", "topic describe -o json -"},
		{"unknown flag comes first", "topic create demo --nope", "topic create --nope demo"},
		{"help with an argument", "topic create demo --help", "topic create --help"},
		{"help as a command", "help topic create", "topic create --help"},
		{"help alone", "help", "--help"},
		{"group", "topic --help", "topic --help"},
		{"unknown command", "tpoic list --x", "tpoic list --x"},
		{"completion is left alone", "__complete topic create --p", "__complete topic create --p"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := reorder(app, append([]string{"millrace"}, strings.Fields(tt.in)...))
			if want := append([]string{"millrace"}, strings.Fields(tt.want)...); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestDidYouMean(t *testing.T) {
	names := []string{"create", "list", "describe", "delete"}
	for word, want := range map[string]string{"creat": "create", "desribe": "describe", "lst": "list", "delet": "delete", "frobnicate": ""} {
		got := didYouMean(word, names)
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("didYouMean(%q) = %q, want %q", word, got, want)
		}
	}
}

func TestCandidates(t *testing.T) {
	app := newApp(Streams{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard}, Build{})
	tests := []struct {
		name  string
		words []string
		want  []string
	}{
		{"commands", []string{"b"}, []string{"bench"}},
		{"subcommands", []string{"topic", "de"}, []string{"describe", "delete"}},
		{"flags", []string{"topic", "create", "--part"}, []string{"--partitions"}},
		{"values", []string{"produce", "--compression", "z"}, []string{"zstd"}},
		{"value without choices", []string{"produce", "--key", ""}, nil},
		{"shells", []string{"completion", ""}, []string{"bash", "zsh", "fish"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := candidates(t.Context(), app, tt.words); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestEveryCommandHasExamples keeps --help of every command worth reading.
func TestEveryCommandHasExamples(t *testing.T) {
	app := newApp(Streams{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard}, Build{})
	list := app.Commands
	for len(list) > 0 {
		c := list[0]
		list = append(list[1:], c.Subcommands...)
		if !c.Hidden && (c.Usage == "" || !strings.Contains(c.Description, "Examples:\n  ")) {
			t.Errorf("command %q has no usage or no examples", c.Name)
		}
	}
}
