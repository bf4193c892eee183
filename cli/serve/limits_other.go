//go:build !unix

package serve

// otherFileLimit is assumed where the system has no limit to ask for.
const otherFileLimit = 8192

func raiseFileLimit() (uint64, error) { return otherFileLimit, nil }
