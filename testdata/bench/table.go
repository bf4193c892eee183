package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// table collects the results of the rounds that count, by row and server.
type table struct {
	servers []*server
	results map[string]map[string][]result
	peak    map[string]int64
}

func newTable(servers []*server) *table {
	return &table{servers: servers, results: map[string]map[string][]result{}, peak: map[string]int64{}}
}

func (t *table) add(row, server string, r result) {
	if t.results[row] == nil {
		t.results[row] = map[string][]result{}
	}
	t.results[row][server] = append(t.results[row][server], r)
	t.peak[server] = max(t.peak[server], r.Server.PeakRSSBytes)
}

// print writes the table: for each server the median [lowest–highest] and its CPU seconds per million records, then millrace
// divided by each of the others: the median of the ratios of the same round, with their spread, and the same of the server's CPU.
// The last row is the largest memory that each server ever had, over all rows.
func (t *table) print(w io.Writer, rows []row) {
	if len(t.results) == 0 {
		return
	}
	subject := t.servers[len(t.servers)-1].name
	head := []string{"row"}
	for _, s := range t.servers {
		head = append(head, s.name)
	}
	for _, s := range t.servers[:len(t.servers)-1] {
		head = append(head, subject+" / "+s.name)
	}
	fmt.Fprintf(w, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, r := range rows {
		got := t.results[r.name]
		if got == nil {
			continue
		}
		cells := []string{r.name + " (" + r.unit + ")"}
		for _, s := range t.servers {
			cells = append(cells, cell(r, got[s.name]))
		}
		for _, s := range t.servers[:len(t.servers)-1] {
			cells = append(cells, comparison(r, got[subject], got[s.name]))
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
	}
	memory, ready := []string{"peak memory of a node (MB)"}, []string{"ready after (ms)"}
	for _, s := range t.servers {
		memory = append(memory, fmt.Sprint(t.peak[s.name]>>20))
		ready = append(ready, fmt.Sprint(s.ready.Milliseconds()))
	}
	own, last := float64(t.peak[subject]), t.servers[len(t.servers)-1]
	for _, s := range t.servers[:len(t.servers)-1] {
		memory = append(memory, quotient(own, float64(t.peak[s.name])))
		ready = append(ready, quotient(last.ready.Seconds(), s.ready.Seconds()))
	}
	fmt.Fprintf(w, "| %s |\n| %s |\n", strings.Join(memory, " | "), strings.Join(ready, " | "))
}

func cell(r row, results []result) string {
	var figures, cpu []float64
	failed := 0
	for _, x := range results {
		if x.failed {
			failed++
			continue
		}
		figures = append(figures, r.figure(x))
		if x.Server.CPUPerMillion > 0 {
			cpu = append(cpu, x.Server.CPUPerMillion)
		}
	}
	var parts []string
	if len(figures) > 0 {
		parts = append(parts, spread(figures, "%.4g"))
	}
	if len(cpu) > 0 && r.args != "" {
		parts = append(parts, fmt.Sprintf("%.2f cpu-s/M", median(cpu)))
	}
	if failed > 0 {
		parts = append(parts, fmt.Sprintf("%d FAILED", failed))
	}
	return strings.Join(parts, ", ")
}

// none stands where there is nothing to compare.
const none = "–"

// comparison is the ratio of the row's figures, and that of the CPU seconds that the servers took for each record.
func comparison(r row, subject, other []result) string {
	text := ratios(r.figure, subject, other)
	if r.args == "" {
		return text // the CPU stands in the row before
	}
	if cpu := ratios(func(x result) float64 { return x.Server.CPUPerMillion }, subject, other); cpu != none {
		text += ", cpu " + cpu
	}
	return text
}

// ratios divides the results of the same round.
func ratios(figure func(result) float64, subject, other []result) string {
	var q []float64
	for i := range min(len(subject), len(other)) {
		if a, b := figure(subject[i]), figure(other[i]); !subject[i].failed && !other[i].failed && a > 0 && b > 0 {
			q = append(q, a/b)
		}
	}
	if len(q) == 0 {
		return none
	}
	return spread(q, "%.2f")
}

func quotient(a, b float64) string {
	if a <= 0 || b <= 0 {
		return none
	}
	return fmt.Sprintf("%.2f", a/b)
}

// spread writes the median with the lowest and the highest; figures of a thousand and more without a fraction.
func spread(figures []float64, format string) string {
	write := func(f float64) string {
		if math.Abs(f) >= 1000 {
			return fmt.Sprintf("%.0f", f)
		}
		return fmt.Sprintf(format, f)
	}
	return fmt.Sprintf("%s [%s–%s]", write(median(figures)), write(slices.Min(figures)), write(slices.Max(figures)))
}

func median(figures []float64) float64 {
	sorted := slices.Sorted(slices.Values(figures))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}
