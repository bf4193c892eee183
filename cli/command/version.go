package command

import (
	"fmt"
	"runtime"

	"github.com/urfave/cli/v2"
)

// KafkaVersion is the Kafka release whose behaviour millrace follows.
const KafkaVersion = "4.3.1"

func versionCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print what this binary is",
		Description: `Examples:
  millrace version
  millrace version --output json`,
		Flags: []cli.Flag{outputFlag("plain")},
		Action: func(c *cli.Context) error {
			asJSON, err := wantsJSON(c)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(e.Out, map[string]string{
					"version": e.Version, "commit": e.Commit, "kafka": KafkaVersion, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
				})
			}
			commit := ""
			if e.Commit != "" {
				commit = " (" + e.Commit + ")"
			}
			_, err = fmt.Fprintf(e.Out, "millrace %s%s, the protocol of Apache Kafka %s, %s %s/%s\n", e.Version, commit, KafkaVersion, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
