package controller

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"github.com/millrace/millrace/engine/catalog"
)

// A proposal is what lies in an entry of raft's log, and what is handed on to the leader:
//
//	version(1) kind(1) id(16) base(8, big endian) command as catalog.EncodeCommand writes it
//
// The id is drawn once per proposal and stays when it is sent again. The base is the log's index up to which the
// proposer had applied when it drew the id.
const (
	proposalVersion = 1
	proposalHeader  = 1 + 1 + len(proposalID{}) + 8
)

// MaxProposalBytes bounds one command. A topic with 10,000 partitions and three replicas takes 1.7 MB.
const MaxProposalBytes = 4 << 20

type proposalKind byte

const (
	kindCommand proposalKind = 1 + iota
	kindNothing              // changes nothing: to learn what is committed
)

type proposalID [16]byte

type proposal struct {
	kind proposalKind
	id   proposalID
	base uint64
	body []byte
}

// newProposal draws an id. crypto/rand does not fail.
func newProposal(kind proposalKind, base uint64, body []byte) proposal {
	p := proposal{kind: kind, base: base, body: body}
	rand.Read(p.id[:]) // never fails
	return p
}

func (p *proposal) encode() []byte {
	b := append(make([]byte, 0, proposalHeader+len(p.body)), proposalVersion, byte(p.kind))
	b = binary.BigEndian.AppendUint64(append(b, p.id[:]...), p.base)
	return append(b, p.body...)
}

// decodeProposal reads what encode wrote; the proposal keeps b.
func decodeProposal(b []byte) (p proposal, err error) {
	if len(b) < proposalHeader || b[0] != proposalVersion {
		return p, fmt.Errorf("%w: %d bytes", ErrRefused, len(b))
	}
	p.kind = proposalKind(b[1])
	copy(p.id[:], b[2:])
	p.base = binary.BigEndian.Uint64(b[2+len(p.id):])
	p.body = b[proposalHeader:]
	if p.kind != kindCommand && (p.kind != kindNothing || len(p.body) > 0) {
		return p, fmt.Errorf("%w: kind %d", ErrRefused, p.kind)
	}
	return p, nil
}

// command is what a proposal is to change, nil for nothing.
func (p *proposal) command() (catalog.Command, error) {
	if p.kind == kindNothing {
		return nil, nil
	}
	return catalog.DecodeCommand(p.body)
}
