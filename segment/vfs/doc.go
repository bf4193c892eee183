// Package vfs is the only door to the disk: a file system that is handed in, so that a test can hand
// in one that fails, stalls or loses power.
//
// Three implementations:
//
//   - OS is the real thing.
//   - Mem lives in memory and knows what a power cut would take. Crash gives the file system as it
//     would be found afterwards; Dirty and Unsynced tell what is not yet safe, so that a test can
//     prove that the sync came before the acknowledgement; Record and Replay give the state after
//     any number of the operations that were made.
//   - Faulty wraps either, makes chosen operations fail, fall short or stall, and counts them all.
//
// What a caller has to do for its bytes to be safe, and what Mem holds it to:
//
//	contents and length of a file        File.Sync
//	creation, rename, removal of a name  FS.SyncDir of its directory
//	a new directory                      FS.SyncDir of its parent, all the way up (MkdirAllDurable)
//	replacing a small file as a whole    WriteFileAtomic
//
// After a failed Sync the bytes that it should have saved may be gone although a second Sync
// succeeds: the kernel reports such an error once. Mem under Faulty behaves so as well. Whoever
// sees the error must stop acknowledging and not try again.
package vfs
