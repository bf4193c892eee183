package serve

// minimumFiles are kept for the log's files even when few descriptors are allowed.
const minimumFiles = 64

// connectionBound says how many client connections may be open when the process may have limit files: half of them, because the
// log needs descriptors to roll a segment at the moment when clients want most.
func connectionBound(limit uint64) int {
	if limit <= minimumFiles {
		return 1
	}
	return int(min(max(limit/2, 1), limit-minimumFiles, 1<<30))
}

// logFileBound says how many log files may be kept open when the process may have limit files: a quarter, so that with the half
// that clients may take another quarter remains for the catalogue, new files and directories.
func logFileBound(limit uint64) int { return int(min(max(limit/4, 8), 1<<14)) }
