package command

import "github.com/urfave/cli/v2"

func segmentCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "segment",
		Usage: "look at logs on the disk, without a server",
		Description: `Examples:
  millrace segment ls ./data
  millrace segment ls /var/lib/kafka/data --sort size --reverse
  millrace segment dump ./data --topic orders --offsets 100..200
  millrace segment verify ./data
  millrace segment repair ./data
  millrace segment import /var/lib/kafka/data --into ./data

The commands read millrace's data directories, log directories of Apache Kafka's, the folder
of one partition, and single files. They change nothing, but for repair, which shows its
plan and asks, and import. A directory that a running server holds is read as it is at that
moment, which is said on standard error; repair and import refuse it.`,
		Subcommands: append([]*cli.Command{segmentLs(e), segmentDump(e), segmentVerify(e), segmentRepair(e)}, segmentMoveCommands(e)...),
	}
}
