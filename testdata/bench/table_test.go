package main

import (
	"strings"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	kafka, own := &server{name: "kafka", ready: 4 * time.Second}, &server{name: "millrace", ready: 100 * time.Millisecond}
	tab := newTable([]*server{kafka, own})
	r := row{"sync", "sync --clients 1", 100, "records/s", rate}
	add := func(s *server, rate, cpu float64, rss int64, failed bool) {
		x := result{RecordsPerSecond: rate, failed: failed}
		x.Server.CPUPerMillion, x.Server.PeakRSSBytes = cpu, rss<<20
		tab.add(r.name, s.name, x)
	}
	for i := range 3 {
		add(kafka, 1000, 40, 800, false)
		add(own, 2000+float64(i)*100, 10, 100+int64(i), false)
	}
	add(kafka, 1000, 40, 800, false)
	add(own, 0, 0, 0, true) // a run that fails is in no ratio
	var b strings.Builder
	tab.print(&b, []row{r})
	for _, want := range []string{
		"| sync (records/s) | 1000 [1000–1000], 40.00 cpu-s/M | 2100 [2000–2200], 10.00 cpu-s/M, 1 FAILED | 2.10 [2.00–2.20], cpu 0.25 [0.25–0.25] |",
		"| peak memory of a node (MB) | 800 | 102 | 0.13 |",
		"| ready after (ms) | 4000 | 100 | 0.03 |",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
