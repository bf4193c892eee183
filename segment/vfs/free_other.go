//go:build !darwin && !dragonfly && !freebsd && !linux && !windows

package vfs

import "errors"

func freeBytes(string) (uint64, error) { return 0, errors.ErrUnsupported }
