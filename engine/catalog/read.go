package catalog

import (
	"log/slog"
)

// ReadCopy reads the state in a copy of a catalogue's directory, which nobody else uses and which it may change. It blocks on the disk.
func ReadCopy(dir string) (*Image, error) {
	st, img, err := openStore(Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	return img, st.close()
}
