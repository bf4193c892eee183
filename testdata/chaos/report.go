package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is what was measured, in the order in which it came up.
type report struct {
	rows  []*row
	fails []string
}

type row struct {
	scenario, what string
	took           []time.Duration
}

func (r *report) note(scenario, what string, took time.Duration) {
	for _, have := range r.rows {
		if have.scenario == scenario && have.what == what {
			have.took = append(have.took, took)
			return
		}
	}
	r.rows = append(r.rows, &row{scenario, what, []time.Duration{took}})
}

func (r *report) failed(scenario string) { r.fails = append(r.fails, scenario) }

func (r *report) print(to io.Writer) {
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "scenario\twhat\ttimes\tmedian s\tmax s")
	for _, one := range r.rows {
		slices.Sort(one.took)
		fmt.Fprintf(table, "%s\t%s\t%d\t%.2f\t%.2f\n", one.scenario, one.what, len(one.took), one.took[len(one.took)/2].Seconds(), one.took[len(one.took)-1].Seconds())
	}
	table.Flush()
	fmt.Fprintf(to, "load of the machine at the end: %s; failed: %v\n", machineLoad(), r.fails)
}

// machineLoad is the load average, as it explains the numbers.
func machineLoad() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(text))[:2], " ")
}
