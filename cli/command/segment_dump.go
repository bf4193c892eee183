package command

import "github.com/urfave/cli/v2"

func segmentDump(e *env) *cli.Command { return &cli.Command{Name: "dump"} }
