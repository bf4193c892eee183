package bench

import (
	"os"
	"strconv"
	"strings"
)

// Latency holds percentiles in milliseconds.
type Latency struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99.9"`
	Max  float64 `json:"max"`
}

// Server is what the broker's processes used while a workload was measured.
type Server struct {
	CPUSeconds           float64 `json:"cpu_seconds"`
	CPUSecondsPerMillion float64 `json:"cpu_seconds_per_million_records,omitempty"`
	PeakRSSBytes         int64   `json:"peak_rss_bytes"` // since the process started
}

// ticksPerSecond is the unit of CPU times in /proc on every Linux that Go runs on.
const ticksPerSecond = 100

// usage remembers the CPU time of processes at the start of a measurement.
type usage struct {
	pids []int
	cpu  float64
}

func measure(pids []int) usage { return usage{pids, cpuSeconds(pids)} }

// since returns what was used since measure, or nil when no process was named.
func (u usage) since(records int) *Server {
	if len(u.pids) == 0 {
		return nil
	}
	s := &Server{CPUSeconds: cpuSeconds(u.pids) - u.cpu, PeakRSSBytes: peakRSS(u.pids)}
	if records > 0 {
		s.CPUSecondsPerMillion = s.CPUSeconds / float64(records) * 1e6
	}
	return s
}

// cpuSeconds adds up user and system time from /proc/PID/stat; a process that is gone counts nothing.
func cpuSeconds(pids []int) float64 {
	var ticks float64
	for _, pid := range pids {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			continue
		}
		stat := string(b)
		fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:]) // the name may hold anything, also spaces
		for _, i := range []int{11, 12} {
			if i < len(fields) {
				t, _ := strconv.ParseFloat(fields[i], 64)
				ticks += t
			}
		}
	}
	return ticks / ticksPerSecond
}

// peakRSS adds up the high-water marks of the processes' memory.
func peakRSS(pids []int) int64 {
	var total int64
	for _, pid := range pids {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
				kb, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				total += kb << 10
			}
		}
	}
	return total
}
