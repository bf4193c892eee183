package catalog

import "time"

// Metrics is what a catalogue measures. What is nil is not told.
type Metrics struct {
	Clock           func() time.Duration          // monotonic; nil: no seconds are measured
	ProposalSeconds interface{ Observe(float64) } // from the call of Propose until it returns
}

func (m *Metrics) now() time.Duration {
	if m.Clock == nil {
		return 0
	}
	return m.Clock()
}

func (m *Metrics) proposed(begun time.Duration) {
	if m.ProposalSeconds != nil && m.Clock != nil {
		m.ProposalSeconds.Observe((m.Clock() - begun).Seconds())
	}
}
