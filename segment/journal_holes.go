package segment

import (
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"path/filepath"

	"github.com/millrace/millrace/segment/vfs"
)

// findHoles looks for whole rounds behind what is none. Where there are some, what lies before them was
// durable once: the next round is written after the sync of the one before it, but for the pieces of a
// round that was split, each of which is at least journalRound long.
func (file *scannedFile) findHoles(f vfs.File) error {
	for {
		at, sequence, err := walkRounds(f, *file, func(uint64, journalEntry) error { return nil })
		if err != nil || at+roundHeader > file.size {
			return err
		}
		to, next, err := file.nextRound(f, at+vfs.BlockSize, sequence)
		if err != nil {
			return err
		}
		if to < 0 || to-at >= journalRound {
			var head [roundHeader]byte
			if _, err := f.ReadAt(head[:], at); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if file.numbered(head[:]) && binary.BigEndian.Uint64(head[24:]) == sequence {
				file.torn = at
			}
			return nil
		}
		file.holes = append(file.holes, journalHole{from: at, to: to, sequence: next})
	}
}

// numbered tells whether the header of a round is of this use of the file.
func (file *scannedFile) numbered(head []byte) bool {
	return roundLength(head) > 0 && binary.BigEndian.Uint64(head[16:]) == file.generation
}

// nextRound finds the first whole round at or behind a position whose number is larger than sequence; -1 when
// there is none.
func (file *scannedFile) nextRound(f vfs.File, from int64, sequence uint64) (at int64, number uint64, err error) {
	window := make([]byte, 64*vfs.BlockSize)
	var round []byte
	for at = from; at+roundHeader <= file.size; at += int64(len(window)) {
		n, err := f.ReadAt(window, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return -1, 0, err
		}
		for i := 0; i+roundHeader <= n; i += vfs.BlockSize {
			head := window[i:n]
			if !file.numbered(head) || binary.BigEndian.Uint64(head[24:]) <= sequence {
				continue
			}
			if round, err = readRound(f, at+int64(i), file.size, round); err != nil {
				return -1, 0, err
			}
			number = binary.BigEndian.Uint64(head[24:])
			if decodeRound(round, file.generation, number, func(uint64, journalEntry) {}) {
				return at + int64(i), number, nil
			}
		}
	}
	return -1, 0, nil
}

// sayJournal says what is wrong with a file of the journal.
func (d *Dir) sayJournal(f scannedFile) {
	for _, hole := range f.holes {
		d.log.Error(SaidJournalDamaged, "file", f.name, "position", hole.from, "bytes", hole.to-hole.from)
	}
	if f.torn >= 0 {
		d.log.Warn(SaidJournalTorn, "file", f.name, "position", f.torn)
	}
}

// ReplayJournal does with the journal of a log directory what an open does: it brings into the segments what they
// lack, on whatever file system it is given, and says in the log what is wrong. It leaves the journal's files where they
// are. known tells how far it has filled which files. After a clean close it does nothing.
func ReplayJournal(fs vfs.FS, path string, log *slog.Logger) (known map[string]int64, err error) {
	opts := DirOptions{FS: fs, Path: path, Logger: log}
	opts.setDefaults()
	d := &Dir{opts: opts, fs: fs, topics: filepath.Join(path, topicsFolder), log: log, known: map[string]int64{}}
	if _, err := fs.Stat(filepath.Join(path, cleanMarker)); err == nil {
		return d.known, nil
	}
	names, err := d.journalNames()
	if err != nil || len(names) == 0 {
		return d.known, err
	}
	return d.known, d.replay(names)
}
