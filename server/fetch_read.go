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
		if res.code != codeNone || res.diverging || res.partition == nil {
			continue
		}
		if res.want.offset < res.partition.HighWatermark() {
			n := min(int(max(res.want.maxBytes, 0)), left)
			if err := r.readPartition(res, n, first); err != nil {
				return err
			}
			if res.code != codeNone {
				continue
			}
			left = max(left-len(res.records), 0)
			first = first && len(res.records) == 0
		}
		r.offsets(res)
	}
	r.st.usual = r.limit - left
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

// readPartition reads up to n bytes of one partition straight into a chunk.
func (r *fetchRun) readPartition(res *fetchResult, n int, oneAtLeast bool) error {
	if n == 0 && !oneAtLeast {
		return nil
	}
	c, err := r.chunkFor(res, n, oneAtLeast)
	if err != nil || c == nil {
		return err
	}
	before := len(c.buf.b)
	size := cap(c.buf.b)
	b, err := res.partition.Read(c.buf.b, res.want.offset, n, oneAtLeast)
	if err != nil {
		c.buf.b = c.buf.b[:before]
		r.fail(res, err)
		return nil
	}
	if cap(b) != size && before > 0 {
		// A first batch larger than expected: earlier records stay where they are.
		r.chunks = append(r.chunks, chunk{buf: &buffer{b: b}})
		res.records = b[before:]
		return nil
	}
	c.buf.b = b
	res.records = b[before:len(b):len(b)]
	return nil
}

// chunkFor finds memory for n bytes: what is left of the latest chunk, or a new
// one, sized by what there is to read. It returns nil when the budget is used up and
// the answer has something already.
func (r *fetchRun) chunkFor(res *fetchResult, n int, oneAtLeast bool) (*chunk, error) {
	var c *chunk
	if len(r.chunks) > 0 {
		c = &r.chunks[len(r.chunks)-1]
		if cap(c.buf.b)-len(c.buf.b) >= n {
			return c, nil
		}
	}
	need := n
	if usual := max(2*r.st.usual, 16<<10); n > usual || oneAtLeast && n < 16<<10 {
		there, err := res.partition.AvailableBytes(res.want.offset)
		if err != nil {
			r.fail(res, err)
			return nil, nil
		}
		need = int(min(int64(max(n, 16<<10)), there))
	}
	if c != nil && cap(c.buf.b)-len(c.buf.b) >= need {
		return c, nil
	}
	size := bufferSize(max(need, 4<<10))
	if c != nil && !r.s.responses.has(size) {
		return nil, nil
	}
	paid, err := r.s.responses.take(r.cl.conn.ctx, size, r.s.opts.MemoryTime)
	if err != nil {
		return nil, err
	}
	r.chunks = append(r.chunks, chunk{buf: newBuffer(size), charge: paid})
	return &r.chunks[len(r.chunks)-1], nil
}
