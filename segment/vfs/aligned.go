package vfs

import "unsafe"

// Aligned gives n zeroed bytes, n being a multiple of BlockSize, that begin at a multiple of
// BlockSize: memory for files opened with Direct. Where the system can, it lies outside the
// collector's heap and free gives it back; nothing may use it after that.
func Aligned(n int) (b []byte, free func()) {
	if b, free := mapped(n); b != nil {
		return b, free
	}
	b = make([]byte, n+BlockSize)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (BlockSize - 1) // the collector does not move it
	return b[skip : skip+n : skip+n], func() {}
}

// aligned tells whether direct I/O may be done with these buffers at off.
func aligned(off int64, bufs ...[]byte) bool {
	bits := uintptr(off)
	for _, b := range bufs {
		bits |= uintptr(len(b)) | uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	}
	return bits&(BlockSize-1) == 0
}
