package engine

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment/vfs"
)

// The file DIR/meta says whose data directory this is. It is two lines of text:
//
//	millrace-data 1 CRC        magic, format version, CRC-32C of the second line, 8 hex digits
//	{"cluster_id":"…","node_id":1,"dir_id":"…"}
//
// DIR/lock beside it is held while a process has the directory open.
const (
	metaFile    = "meta"
	lockFile    = "lock"
	metaMagic   = "millrace-data"
	metaVersion = 1
)

// meta is the identity of a data directory.
type meta struct {
	ClusterID string        `json:"cluster_id"` // 22 characters, URL-safe base64 of 16 random bytes
	NodeID    int32         `json:"node_id"`
	DirID     catalog.DirID `json:"dir_id"` // Kafka's directory.id (KIP-858)
}

// loadMeta reads the identity of a log directory, or gives an empty directory one: of
// a new cluster when clusterID is "".
func loadMeta(fs vfs.FS, dir string, nodeID int32, clusterID string) (meta, error) {
	name := filepath.Join(dir, metaFile)
	text, err := vfs.ReadFile(fs, name)
	if errors.Is(err, os.ErrNotExist) {
		m := meta{ClusterID: clusterID, NodeID: nodeID, DirID: newDirID()}
		if clusterID == "" {
			m.ClusterID = newClusterID()
		}
		return m, vfs.WriteFileAtomic(fs, name, m.encode())
	}
	if err != nil {
		return meta{}, err
	}
	m, err := decodeMeta(text)
	if err != nil {
		return meta{}, fmt.Errorf("%s: %w", name, err)
	}
	if m.NodeID != nodeID {
		return meta{}, fmt.Errorf("%w: %s was made by node %d, this is node %d (node.id)", ErrIdentity, dir, m.NodeID, nodeID)
	}
	if clusterID != "" && m.ClusterID != clusterID {
		return meta{}, fmt.Errorf("%w: %s is of the cluster %s, the catalogue of %s", ErrIdentity, dir, m.ClusterID, clusterID)
	}
	if m.DirID == (catalog.DirID{}) { // made before directories had an id
		m.DirID = newDirID()
		return m, vfs.WriteFileAtomic(fs, name, m.encode())
	}
	return m, nil
}

func newDirID() (id catalog.DirID) {
	for id[0] == 0 { // Kafka has reserved ids that begin with zeros
		rand.Read(id[:]) // never fails
	}
	return id
}

func newClusterID() string {
	var id [16]byte
	for {
		rand.Read(id[:]) // never fails
		if s := base64.RawURLEncoding.EncodeToString(id[:]); s[0] != '-' {
			return s // a leading dash would look like a flag on a command line
		}
	}
}

func (m meta) encode() []byte {
	body, err := json.Marshal(m)
	if err != nil {
		panic(err) // a string and a number
	}
	return fmt.Appendf(nil, "%s %d %08x\n%s\n", metaMagic, metaVersion, checksum(body), body)
}

func decodeMeta(text []byte) (meta, error) {
	head, body, _ := strings.Cut(strings.TrimSuffix(string(text), "\n"), "\n")
	var version int
	var sum uint32
	if n, err := fmt.Sscanf(head, metaMagic+" %d %08x", &version, &sum); n < 1 || err != nil && version == metaVersion {
		return meta{}, fmt.Errorf("%w: first line %q", ErrFormat, head)
	}
	if version != metaVersion {
		return meta{}, fmt.Errorf("%w: version %d, this program knows %d", ErrFormat, version, metaVersion)
	}
	if checksum([]byte(body)) != sum {
		return meta{}, fmt.Errorf("%w: checksum mismatch", ErrFormat)
	}
	var m meta
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		return meta{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return m, nil
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// CheckMeta tells what is wrong with the contents of a data directory's file meta: an ErrFormat, as Open gives, or nil.
func CheckMeta(text []byte) error {
	_, err := decodeMeta(text)
	return err
}
