//go:build !linux

package main

import (
	"errors"
	"os"
)

type port struct{ file *os.File }

func noNetwork() string { return "network namespaces are Linux's" }

func (w *network) prefix(int) []string { return nil }
func (w *network) close() error        { return nil }

func openNetwork(int) (*network, error) { return nil, errors.ErrUnsupported }
