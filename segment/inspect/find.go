package inspect

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/vfs"
)

// ErrNothing says that there is nothing at a path that a log consists of.
var ErrNothing = errors.New("neither a data directory, nor a partition's folder, nor a file of one")

// Find tells what lies at a path: a data directory of millrace's (DIR with meta or topics/), a log directory of
// Kafka's, the folder of one partition, or one file. It lists folders and opens only small files (partition.metadata). It fails with
// ErrNothing, or with what the file system says. A partition's folder that goes away meanwhile is left out.
func Find(fsys vfs.FS, path string) (*Place, error) {
	path = filepath.Clean(path)
	info, err := fsys.Stat(path)
	if err != nil {
		return nil, err
	}
	p := &Place{Path: path}
	if !info.IsDir() {
		return p, p.findFile(fsys, file(path, info))
	}
	entries, err := fsys.ReadDir(path)
	if err != nil {
		return nil, err
	}
	switch layout := layoutOf(path, entries); {
	case layout == Millrace:
		err = p.findMillrace(fsys, entries)
	case layout == Kafka:
		err = p.findKafka(fsys, entries)
	case holdsSegments(entries) || isPartition(path):
		p.Kind = WholePartition
		part := namePartition(path)
		if err = part.find(fsys); err == nil {
			p.Partitions, p.Layout = []Partition{part}, part.Layout
			p.findHolder(fsys)
		}
	default:
		return nil, fmt.Errorf("%s: %w", path, ErrNothing)
	}
	if err != nil {
		return nil, err
	}
	if p.Lock != "" {
		p.Held, err = vfs.Held(fsys, p.Lock)
		if errors.Is(err, errors.ErrUnsupported) {
			err = nil
		}
	}
	return p, err
}

func layoutOf(path string, entries []os.DirEntry) Layout {
	folders := 0
	for _, e := range entries {
		switch name := e.Name(); {
		case name == segment.TopicsFolder && e.IsDir(), name == metaFile && !e.IsDir():
			return Millrace
		case name == kafkaMeta, strings.HasSuffix(name, kafkaCheckpoint) && !strings.HasPrefix(name, "leader-epoch") && !e.IsDir():
			return Kafka
		case e.IsDir() && isPartition(filepath.Join(path, name)):
			folders++
		}
	}
	if folders > 0 && !holdsSegments(entries) { // a copy of some partitions' folders
		if filepath.Base(path) == segment.TopicsFolder {
			return Unknown
		}
		return Kafka
	}
	return Unknown
}

func holdsSegments(entries []os.DirEntry) bool {
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		_, suffix, ok := segment.ParseFile(e.Name())
		return ok && !e.IsDir() && strings.HasPrefix(suffix, "log")
	})
}

// The names that millrace gives in a data directory beside segment's.
const (
	metaFile      = "meta"
	lockFile      = "lock"
	catalogFolder = "catalog"
	tempSuffix    = ".tmp"
	probeFile     = "direct-io-probe"
)

func (p *Place) findMillrace(fsys vfs.FS, entries []os.DirEntry) error {
	p.Layout, p.Lock = Millrace, filepath.Join(p.Path, lockFile)
	topics := false
	for _, e := range entries {
		name, path := e.Name(), filepath.Join(p.Path, e.Name())
		if e.IsDir() {
			switch name {
			case segment.TopicsFolder:
				topics = true
			case segment.JournalFolder:
				if err := p.findJournal(fsys, path); err != nil {
					return err
				}
			case catalogFolder:
				p.Catalog = path
			case QuarantineFolder:
			default:
				p.Folders = append(p.Folders, path)
			}
			continue
		}
		f, err := entryFile(path, e)
		if err != nil {
			return err
		}
		switch {
		case name == metaFile:
			p.Meta = f
		case name == segment.CleanMarker:
			p.Clean = f
		case name == lockFile:
		case strings.HasSuffix(name, tempSuffix), name == probeFile:
			p.Leftovers = append(p.Leftovers, f)
		default:
			p.Foreign = append(p.Foreign, f)
		}
	}
	if !topics {
		return nil
	}
	folder := filepath.Join(p.Path, segment.TopicsFolder)
	entries, err := fsys.ReadDir(folder)
	if err != nil {
		return err
	}
	return p.findPartitions(fsys, folder, entries)
}

// findPartitions lists the folders that are called as partitions are, several side by side.
func (p *Place) findPartitions(fsys vfs.FS, folder string, entries []os.DirEntry) error {
	var parts []Partition
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		switch {
		case !e.IsDir():
			f, err := entryFile(path, e)
			if err != nil {
				return err
			}
			p.Foreign = append(p.Foreign, f)
		case isPartition(path):
			parts = append(parts, namePartition(path))
		default:
			p.Folders = append(p.Folders, path)
		}
	}
	gone := make([]bool, len(parts))
	var group errgroup.Group
	workers := 2 * runtime.GOMAXPROCS(0)
	for w := range workers {
		group.Go(func() error {
			for i := w; i < len(parts); i += workers {
				err := parts[i].find(fsys)
				if gone[i] = errors.Is(err, fs.ErrNotExist); err != nil && !gone[i] {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i := range parts {
		if !gone[i] {
			p.Partitions = append(p.Partitions, parts[i])
		}
	}
	p.sort()
	return nil
}

func (p *Place) sort() {
	slices.SortStableFunc(p.Partitions, func(a, b Partition) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Number, b.Number))
	})
}

func (p *Place) findJournal(fsys vfs.FS, folder string) error {
	entries, err := fsys.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		if e.IsDir() {
			p.Folders = append(p.Folders, path)
			continue
		}
		f, err := entryFile(path, e)
		switch {
		case err != nil:
			return err
		case segment.JournalNumber(e.Name()) > 0:
			p.Journal = append(p.Journal, f)
		default:
			p.Foreign = append(p.Foreign, f)
		}
	}
	slices.SortFunc(p.Journal, func(a, b File) int {
		return cmp.Compare(segment.JournalNumber(filepath.Base(a.Path)), segment.JournalNumber(filepath.Base(b.Path)))
	})
	return nil
}

// findHolder looks for the directory that a partition or a file lies in, by its lock, or, as a broker of Kafka's takes that away when it
// ends, by other files that it has.
func (p *Place) findHolder(fsys vfs.FS) {
	for dir := filepath.Dir(p.Path); ; dir = filepath.Dir(dir) {
		for _, mark := range []struct{ name, lock string }{{lockFile, lockFile}, {kafkaLock, kafkaLock}, {kafkaMeta, kafkaLock}, {kafkaClean, kafkaLock}} {
			if _, err := fsys.Stat(filepath.Join(dir, mark.name)); err == nil {
				p.Lock = filepath.Join(dir, mark.lock)
				return
			}
		}
		base := filepath.Base(dir)
		if base != segment.TopicsFolder && base != segment.JournalFolder && dir != filepath.Dir(p.Path) || dir == filepath.Dir(dir) {
			return
		}
		if base == segment.TopicsFolder && p.Layout == Millrace { // a copy that no server has opened
			p.Lock = filepath.Join(filepath.Dir(dir), lockFile)
			return
		}
	}
}

// findFile makes a place of one file.
func (p *Place) findFile(fsys vfs.FS, f File) error {
	p.Kind, p.File = OneFile, f
	folder := filepath.Dir(f.Path)
	part := namePartition(folder)
	part.add(f)
	p.Layout = part.Layout
	if len(part.Foreign) == 0 {
		p.Partitions = []Partition{part}
	}
	p.findHolder(fsys)
	if p.Lock == "" {
		return nil
	}
	held, err := vfs.Held(fsys, p.Lock)
	if p.Held = held; errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// find lists the folder of p.
func (p *Partition) find(fsys vfs.FS) error {
	entries, err := fsys.ReadDir(p.Path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(p.Path, e.Name())
		if e.IsDir() {
			p.Folders = append(p.Folders, path)
			continue
		}
		f, err := entryFile(path, e)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a running server has removed it since
		}
		if err != nil {
			return err
		}
		p.add(f)
	}
	if p.Metadata.There() {
		p.Layout = Kafka
		text, err := vfs.ReadFile(fsys, p.Metadata.Path)
		if err != nil {
			return err
		}
		if id, ok := kafkaTopicID(text); ok {
			p.TopicID = id
		}
	}
	return nil
}

var metadataImage = regexp.MustCompile(`^\d{20}-\d{10}\.checkpoint$`)

// add puts a file where it belongs.
func (p *Partition) add(f File) {
	name := filepath.Base(f.Path)
	offset, suffix, numbered := segment.ParseFile(name)
	switch {
	case name == segment.EpochsFile:
		p.Epochs = f
	case name == segment.LogStartFile:
		p.LogStart = f
	case name == segment.JournalVoidFile: // what it says is for a replay
	case name == segment.TruncationFile:
		p.Leftovers = append(p.Leftovers, f)
	case name == kafkaPartitionMeta:
		p.Metadata = f
	case name == kafkaQuorum:
		p.Quorum = f
	case metadataImage.MatchString(name):
		p.Images = append(p.Images, f)
	case strings.HasSuffix(name, tempSuffix), strings.HasSuffix(name, segment.DeletedSuffix),
		strings.HasSuffix(name, ".cleaned"), strings.HasSuffix(name, ".swap"):
		p.Leftovers = append(p.Leftovers, f)
	case !numbered:
		p.Foreign = append(p.Foreign, f)
	case suffix == "snapshot":
		p.Snapshots = append(p.Snapshots, Snapshot{offset, f})
	default:
		s := p.segment(offset)
		switch "." + suffix {
		case ".log":
			s.Log = f
		case ".index":
			s.Index = f
		case ".timeindex":
			s.TimeIndex = f
		case ".txnindex":
			s.TxnIndex = f
		case segment.SealedSuffix:
			s.Sealed = f
		case segment.CheckpointSuffix:
			s.Checkpoint = f
		default:
			p.Foreign = append(p.Foreign, f)
			if *s == (Segment{Base: offset}) {
				p.Segments = p.Segments[:len(p.Segments)-1]
			}
		}
	}
}

// segment gives the segment of a base offset: files come by name, so it is the last one or a new one.
func (p *Partition) segment(base int64) *Segment {
	if n := len(p.Segments); n == 0 || p.Segments[n-1].Base != base {
		p.Segments = append(p.Segments, Segment{Base: base})
	}
	return &p.Segments[len(p.Segments)-1]
}

// namePartition takes the name of a folder apart.
func namePartition(path string) Partition {
	name := filepath.Base(path)
	p := Partition{Path: path, Topic: name, Number: -1}
	unmarked, deleted := strings.CutSuffix(name, segment.DeletedSuffix)
	unmarked, stray := strings.CutSuffix(unmarked, segment.StraySuffix)
	if id, ok := segment.ParseFolder(unmarked); ok {
		p.Topic, p.TopicID, p.Number, p.Layout = id.Topic, id.TopicID, id.Partition, Millrace
		switch {
		case deleted:
			p.State = Deleted
		case stray:
			p.State = Stray
		}
		return p
	}
	if topic, number, state, ok := parseKafkaFolder(name); ok {
		p.Topic, p.Number, p.State, p.Layout = topic, number, state, Kafka
	}
	return p
}

func isPartition(path string) bool { return namePartition(path).Number >= 0 }

// The names that Kafka gives.
const (
	kafkaMeta          = "meta.properties"
	kafkaLock          = ".lock"
	kafkaClean         = ".kafka_cleanshutdown"
	kafkaCheckpoint    = "-checkpoint"
	kafkaPartitionMeta = "partition.metadata"
	kafkaQuorum        = "quorum-state"
)

var (
	kafkaFolder = regexp.MustCompile(`^([a-zA-Z0-9._-]{1,249})-(\d{1,10})$`)
	kafkaMarked = regexp.MustCompile(`^(.+-\d{1,10})\.([0-9a-f]{32})-(delete|future|stray)$`)
)

// parseKafkaFolder reads TOPIC-PARTITION, or TOPIC-PARTITION.UUID-delete and the like, whose topic may be cut.
func parseKafkaFolder(name string) (topic string, number int32, state State, ok bool) {
	if m := kafkaMarked.FindStringSubmatch(name); m != nil {
		name, state = m[1], map[string]State{"delete": Deleted, "future": Future, "stray": Stray}[m[3]]
	}
	m := kafkaFolder.FindStringSubmatch(name)
	if m == nil {
		return "", 0, 0, false
	}
	n, err := strconv.ParseInt(m[2], 10, 32)
	return m[1], int32(n), state, err == nil
}

// kafkaTopicID reads partition.metadata: "version: 0\ntopic_id: …\n".
func kafkaTopicID(text []byte) (id [16]byte, ok bool) {
	for line := range bytes.Lines(text) {
		if v, found := bytes.CutPrefix(bytes.TrimSpace(line), []byte("topic_id: ")); found {
			raw, err := base64.RawURLEncoding.DecodeString(string(v))
			return id, err == nil && copy(id[:], raw) == len(id)
		}
	}
	return id, false
}

func (p *Place) findKafka(fsys vfs.FS, entries []os.DirEntry) error {
	p.Layout, p.Lock = Kafka, filepath.Join(p.Path, kafkaLock)
	var folders []os.DirEntry
	for _, e := range entries {
		if e.IsDir() {
			folders = append(folders, e)
			continue
		}
		f, err := entryFile(filepath.Join(p.Path, e.Name()), e)
		if err != nil {
			return err
		}
		switch name := e.Name(); {
		case name == kafkaMeta:
			p.Meta = f
		case name == kafkaClean:
			p.Clean = f
		case name == kafkaLock:
		case strings.HasSuffix(name, kafkaCheckpoint), name == "bootstrap.checkpoint":
			p.Checkpoints = append(p.Checkpoints, f)
		case strings.HasSuffix(name, tempSuffix):
			p.Leftovers = append(p.Leftovers, f)
		default:
			p.Foreign = append(p.Foreign, f)
		}
	}
	return p.findPartitions(fsys, p.Path, folders)
}

func topicPartition(topic string, number int32) string {
	return topic + "-" + strconv.Itoa(int(number))
}

func entryFile(path string, e os.DirEntry) (File, error) {
	info, err := e.Info()
	if err != nil {
		return File{}, err
	}
	return file(path, info), nil
}

func file(path string, info os.FileInfo) File {
	return File{Path: path, Size: info.Size(), Modified: info.ModTime()}
}
