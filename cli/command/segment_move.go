package command

import "github.com/urfave/cli/v2"

// segmentMoveCommands are those that compare, measure and move logs.
func segmentMoveCommands(e *env) []*cli.Command {
	return []*cli.Command{segmentDiff(e), segmentImport(e)}
}
