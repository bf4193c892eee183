package command

import "github.com/urfave/cli/v2"

func segmentCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "segment",
		Usage: "look at, compare and move logs without a server",
		Description: `Examples:
  millrace segment diff /replica-1 /replica-2
  millrace segment stat ./data
  millrace segment export ./data --topic orders > orders.jsonl
  millrace segment import /var/lib/kafka/data --into ./data`,
		Subcommands: segmentMoveCommands(e),
	}
}
