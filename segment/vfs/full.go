package vfs

import (
	"errors"
	"syscall"
)

// Full tells whether an operation failed since the disk, or a quota, is used up.
func Full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
