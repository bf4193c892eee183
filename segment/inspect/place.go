package inspect

import (
	"time"
)

// Layout says whose directory something is.
type Layout int

// The layouts. Unknown is that of files which lie by themselves.
const (
	Unknown Layout = iota
	Millrace
	Kafka
)

// String is the layout's name.
func (l Layout) String() string { return [...]string{"unknown", "millrace", "kafka"}[l] }

// State says what has become of a partition's folder.
type State int

// The states of a folder.
const (
	Live    State = iota
	Deleted       // waits for its removal
	Stray         // belongs to no topic that the server knew
	Future        // Kafka's: a copy that is being made in another log directory
)

// String is the state's name.
func (s State) String() string { return [...]string{"live", "deleted", "stray", "future"}[s] }

// File is one file. A zero one is not there.
type File struct {
	Path     string
	Size     int64
	Modified time.Time
}

// There tells whether there is such a file.
func (f File) There() bool { return f.Path != "" }

// Segment is a .log file and what lies beside it under the same number.
type Segment struct {
	Base       int64
	Log        File
	Index      File
	TimeIndex  File
	TxnIndex   File
	Sealed     File // what the log held when it was left; millrace's
	Checkpoint File // what the log held at some time; millrace's
}

// Snapshot is a file with the producers as of an offset.
type Snapshot struct {
	Offset int64
	File
}

// Partition is the folder of one partition.
type Partition struct {
	Path     string
	Topic    string   // in millrace's folders, a long name is cut
	TopicID  [16]byte // zero when unknown
	Number   int32    // -1 when the folder's name does not say it
	Layout   Layout
	State    State
	Segments []Segment // by base offset; one without its .log has a zero Log
	// Snapshots are those of producers, by offset.
	Snapshots []Snapshot
	Epochs    File     // leader-epoch-checkpoint
	LogStart  File     // log-start-offset; millrace's
	Metadata  File     // partition.metadata; Kafka's
	Images    []File   // of Kafka's __cluster_metadata: NUMBER-EPOCH.checkpoint, which are batches
	Quorum    File     // quorum-state, of the same
	Leftovers []File   // of the server's own making and about to go: ….deleted, .tmp, .cleaned, .swap
	Foreign   []File   // under no name that the server gives
	Folders   []string // folders, of which it makes none here
}

// Name is TOPIC-PARTITION.
func (p *Partition) Name() string {
	if p.Number < 0 {
		return p.Topic
	}
	return topicPartition(p.Topic, p.Number)
}

// Bytes is the size of the .log files together.
func (p *Partition) Bytes() (n int64) {
	for i := range p.Segments {
		n += p.Segments[i].Log.Size
	}
	return n
}

// Place is what lies at a path.
type Place struct {
	Path   string
	Layout Layout
	Kind   Kind
	// Partitions by topic and number; the one of a WholePartition; for OneFile, one with that file alone when it is a partition's.
	Partitions []Partition
	File       File // of OneFile

	// Of a WholeDirectory:
	Lock        string   // the lock file, whether it is there or not
	Meta        File     // millrace's meta, Kafka's meta.properties
	Clean       File     // the mark of a clean close
	Journal     []File   // by number; millrace's
	Catalog     string   // the folder of the catalogue, "" when there is none; millrace's
	Checkpoints []File   // Kafka's …-offset-checkpoint
	Leftovers   []File   // .tmp files and the like
	Foreign     []File   // under no name that the server gives
	Folders     []string // the same, folders
	Held        bool     // a running server holds the directory
}

// Kind says how much a Place is.
type Kind int

// The kinds.
const (
	WholeDirectory Kind = iota // a data directory, or one of a server's log directories
	WholePartition             // the folder of a partition
	OneFile
)
