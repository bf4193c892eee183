// Command millrace is a durable streaming log that speaks the Kafka protocol: the broker, and the tools to use it with.
package main

import (
	"os"
	"runtime/debug"

	"github.com/millrace/millrace/cli/command"
)

// version is set by the Makefile with -ldflags "-X main.version=…".
var version = "0.1.0-dev"

func main() {
	streams := command.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	os.Exit(command.Main(os.Args, streams, command.Build{Version: version, Commit: commit()}))
}

// commit returns the revision that the Go tool noted in the binary, if it did.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	revision, changed := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(len(s.Value), 12)]
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = ", changed"
		}
	}
	if revision == "" {
		return ""
	}
	return revision + changed
}
