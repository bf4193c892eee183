package vfs

import "path"

// Held tells whether the lock is held.
func (m *Mem) Held(name string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.locks[path.Join(split(name)...)], nil
}
