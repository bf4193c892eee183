package batch

// OffsetOfTimestamp finds, in the one batch at the front of b, the first record at or behind the offset from
// whose timestamp is at least timestamp. The last argument bounds decompression (0: DefaultMaxDecompressed).
func OffsetOfTimestamp(b []byte, timestamp, from, max int64) (offset, at int64, found bool, err error) {
	h, err := ReadHeader(b)
	if err != nil || h.MaxTimestamp < timestamp || h.LastOffset() < from {
		return 0, 0, false, err
	}
	for r, err := range Records(b, max) {
		if err != nil {
			return 0, 0, false, err
		}
		if h.Timestamp(&r) >= timestamp && h.Offset(&r) >= from {
			return h.Offset(&r), h.Timestamp(&r), true, nil
		}
	}
	return 0, 0, false, nil
}

// OffsetOfMaxTimestamp finds the first record that has the batch's largest timestamp; found is false
// when no record has one. The last argument bounds decompression (0: DefaultMaxDecompressed).
func OffsetOfMaxTimestamp(b []byte, max int64) (offset, at int64, found bool, err error) {
	h, err := ReadHeader(b)
	if err != nil || h.MaxTimestamp == NoTimestamp {
		return 0, 0, false, err
	}
	for r, err := range Records(b, max) {
		if err != nil {
			return 0, 0, false, err
		}
		if h.Timestamp(&r) == h.MaxTimestamp {
			return h.Offset(&r), h.MaxTimestamp, true, nil
		}
	}
	return 0, 0, false, nil
}
