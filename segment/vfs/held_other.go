//go:build !linux

package vfs

import (
	"errors"
	"io/fs"
)

// Held takes the lock for a moment.
func (o osFS) Held(name string) (bool, error) {
	if _, err := o.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	l, err := o.Lock(name)
	if errors.Is(err, ErrLocked) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, l.Close()
}
