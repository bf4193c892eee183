package server

import "slices"

// read fills the results with records, as many as fit. The first partition that
// has any gives at least one batch.
func (r *fetchRun) read() error {
	left, first, unknown := r.limit, true, 0
	for i := range r.st.results {
		res := &r.st.results[i]
		if res.unknown {
			unknown++
		}
		if res.code != codeNone || res.diverging || res.elsewhere || res.partition == nil {
			continue
		}
		if res.want.offset < res.partition.HighWatermark() {
			n := min(int(max(res.want.maxBytes, 0)), left)
			if n == 0 && !first {
				r.offsets(res)
				continue
			}
			if err := r.readPartition(res, n, first); err != nil {
				return err
			}
			if res.code != codeNone {
				continue
			}
			left = max(left-res.size, 0)
			first = first && res.size == 0
		}
		r.offsets(res)
	}
	r.charge.keep(r.used)
	if unknown > 0 {
		r.unknownLast()
	}
	return nil
}

// unknownLast puts the partitions that the catalogue does not have behind the
// others, as Kafka does.
func (r *fetchRun) unknownLast() {
	slices.SortStableFunc(r.st.results, func(a, b fetchResult) int {
		switch {
		case a.unknown == b.unknown:
			return 0
		case b.unknown:
			return -1
		}
		return 1
	})
}

// readPartition adds up to n bytes of one partition to the view.
func (r *fetchRun) readPartition(res *fetchResult, n int, oneAtLeast bool) error {
	n, err := r.afford(res, n, oneAtLeast)
	if err != nil || n == 0 {
		return err
	}
	v := &r.st.view
	before := len(v.Pieces)
	got, err := res.partition.View(v, res.want.offset, n, oneAtLeast)
	if err != nil {
		r.fail(res, err)
		return nil
	}
	res.size, res.first, res.last = got, before, len(v.Pieces)
	r.used += got
	return nil
}

// leastCharge is what the first records of an answer are charged at least.
const leastCharge = 16 << 10

// afford charges the memory for up to n bytes more. It returns how many may be read;
// 0 when the budget is used up and the answer has something already.
func (r *fetchRun) afford(res *fetchResult, n int, oneAtLeast bool) (int, error) {
	n = max(n, 0)
	if oneAtLeast {
		n = max(n, 1)
	}
	there := int(res.partition.AtMostBytes(res.want.offset, int64(r.limit)))
	need := r.used + max(min(n, there), 1)
	if r.charge.bytes == 0 {
		need = max(need, leastCharge)
	}
	if more := need - int(r.charge.bytes); more > 0 {
		if r.charge.bytes > 0 {
			if r.s.responses.more(&r.charge, more) {
				return n, nil
			}
			return min(n, int(r.charge.bytes)-r.used), nil
		}
		var err error
		if r.charge, err = r.s.responses.take(r.cl.conn.ctx, more, r.s.opts.MemoryTime); err != nil {
			return 0, err
		}
	}
	return n, nil
}
