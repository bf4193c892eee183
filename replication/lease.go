package replication

import "time"

// keepLease has nobody wait for a leader that is cut off: when the metadata's leader does not hear this node, and the high watermark of a partition stands
// still too, another probably leads, and whoever waits is told to look for it. While followers still answer nobody notices
// that the metadata has no leader for a moment. It ends with close.
func (r *replicator) keepLease() {
	const often = 250 * time.Millisecond
	stuck := map[*leading]int64{} // those that somebody waited for at the last look, and how far they were
	for sleep(r.ctx, max(often, r.broker.LeaseLeft())) {
		if r.broker.Alive() {
			clear(stuck)
			continue
		}
		r.led.Range(func(_, v any) bool {
			l := v.(*leading)
			before, was := stuck[l]
			delete(stuck, l)
			switch now := l.p.HighWatermark(); {
			case !l.p.Waits():
			case was && before == now:
				l.p.EndWaits()
			default:
				stuck[l] = now
			}
			return true
		})
	}
}
