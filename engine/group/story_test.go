package group

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the stories' outcomes anew")

// TestStories plays the scripts of testdata/story: commands, then what came of them. A command is a word, the name
// under which its answer is told, and settings:
//
//	join NAME [id=ID] [instance=I] [protocols=range:meta,sticky:meta] [type=consumer] [session=10s] [rebalance=60s] [known] [skip]
//	sync NAME id=ID gen=N [instance=I] [type=T] [protocol=P] [assign=ID:text,…]
//	heartbeat NAME id=ID gen=N [instance=I]
//	leave NAME [id=ID] [instance=I]
//	commit NAME [id=ID] [gen=N] [instance=I] [retention=1h] [v9] offsets=topic/0:5,topic/1:6 [metadata=text] [topicid=1]
//	forget NAME offsets=topic/0,…        delete NAME         gone topic=topic [topicid=1]
//	durable [all]                        the oldest write (all of them) is durable
//	fail ERROR [all]                     or has failed
//	advance 3s                           time passes, with a tick whenever the group wants one
//	show                                 the group as it is described, and its offsets
//	restart                              the group as it comes back from its durable records, 1 ms later
//	config KEY=VALUE
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/story/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { playFile(t, file) })
	}
}

func playFile(t *testing.T, file string) {
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for i, chapter := range strings.Split(string(want), "\n== ") {
		if i > 0 {
			got.WriteString("\n== ")
		}
		title, script, _ := strings.Cut(chapter, "\n")
		got.WriteString(title + "\n")
		s := newStory(t)
		for line := range strings.Lines(script) {
			if strings.HasPrefix(line, "\t") || strings.TrimSpace(line) == "" {
				continue // what came of the command before
			}
			got.WriteString(line)
			if strings.HasPrefix(line, "#") {
				continue
			}
			for _, out := range s.play(strings.TrimSpace(line)) {
				got.WriteString("\t" + out + "\n")
			}
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if have := strings.TrimSpace(got.String()); have != strings.TrimSpace(string(want)) {
		t.Errorf("the story went another way (see the diff, or -update):\n%s", firstDifference(have, strings.TrimSpace(string(want))))
	}
}

func firstDifference(have, want string) string {
	h, w := strings.Split(have, "\n"), strings.Split(want, "\n")
	for i := range min(len(h), len(w)) {
		if h[i] != w[i] {
			return fmt.Sprintf("line %d\nhave %s\nwant %s", i+1, h[i], w[i])
		}
	}
	return fmt.Sprintf("have %d lines, want %d", len(h), len(w))
}

// story is a group that is being told about.
type story struct {
	t      *testing.T
	cfg    Config
	g      *Group
	now    time.Time
	names  map[Token]string
	writes []Write
	log    []Record
	ids    int
}

func newStory(t *testing.T) *story {
	s := &story{t: t, cfg: DefaultConfig(), now: time.UnixMilli(1_000_000), names: map[Token]string{}}
	s.g = New("g", &s.cfg)
	return s
}

var storyErrors = map[string]error{
	"not-coordinator": errors.New("not coordinator"), "not-available": errors.New("not available"),
}

func (s *story) play(line string) []string {
	words := strings.Fields(line)
	cmd, rest := words[0], words[1:]
	name := cmd
	if len(rest) > 0 && !strings.Contains(rest[0], "=") {
		name, rest = rest[0], rest[1:]
	}
	args := map[string]string{}
	for _, w := range rest {
		k, v, _ := strings.Cut(w, "=")
		args[k] = v
	}
	token := Token(len(s.names) + 1)
	switch cmd {
	case "config":
		return s.configure(args)
	case "durable", "fail":
		return s.outcome(cmd == "durable", name, args)
	case "advance":
		d, err := time.ParseDuration(name)
		s.must(err)
		return s.advance(d)
	case "show":
		return s.show()
	case "restart":
		return s.restart()
	}
	s.names[token] = name
	ev := s.event(cmd, token, args)
	if s.g.fresh && !Creates(ev) || s.g.Gone() && !s.g.fresh {
		if !Creates(ev) {
			return s.tell(Effects{Replies: []Reply{{token, Absent(ev)}}})
		}
		s.g = New("g", &s.cfg)
	}
	return s.tell(s.g.Step(s.now, ev))
}

func (s *story) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *story) event(cmd string, token Token, args map[string]string) Event {
	switch cmd {
	case "join":
		s.ids++
		_, known := args["known"]
		_, skip := args["skip"]
		ev := Join{
			Token: token, MemberID: args["id"], NewID: strconv.Itoa(s.ids), InstanceID: optional(args, "instance"),
			ClientID: s.names[token], ClientHost: "/host", ProtocolType: or(args["type"], "consumer"),
			SessionTimeoutMs:   int32(s.duration(or(args["session"], "10s")).Milliseconds()),
			RebalanceTimeoutMs: int32(s.duration(or(args["rebalance"], "60s")).Milliseconds()),
			KnownIDRequired:    known, CanSkipAssignment: skip, Reason: args["reason"],
		}
		if ev.ProtocolType == "none" {
			ev.ProtocolType = ""
		}
		for _, p := range strings.Split(or(args["protocols"], "range:t"), ",") {
			if name, metadata, ok := strings.Cut(p, ":"); ok {
				ev.Protocols = append(ev.Protocols, Protocol{Name: name, Metadata: storySubscription(metadata)})
			}
		}
		return ev
	case "sync":
		ev := Sync{
			Token: token, MemberID: args["id"], InstanceID: optional(args, "instance"), Generation: s.number(args["gen"]),
			ProtocolType: optional(args, "type"), Protocol: optional(args, "protocol"), Assignments: map[string][]byte{},
		}
		for _, a := range strings.Split(args["assign"], ",") {
			if id, text, ok := strings.Cut(a, ":"); ok {
				ev.Assignments[id] = []byte(text)
			}
		}
		return ev
	case "heartbeat":
		return Heartbeat{Token: token, MemberID: args["id"], InstanceID: optional(args, "instance"), Generation: s.number(args["gen"])}
	case "leave":
		return Leave{Token: token, Members: []LeavingMember{{ID: args["id"], InstanceID: optional(args, "instance")}}}
	case "commit":
		_, v9 := args["v9"]
		ev := Commit{
			Token: token, MemberID: args["id"], InstanceID: optional(args, "instance"), Generation: s.number(or(args["gen"], "-1")),
			RetentionMs: -1, UnknownGroupError: v9,
		}
		if r, ok := args["retention"]; ok {
			ev.RetentionMs = s.duration(r).Milliseconds()
		}
		for _, o := range s.offsets(args["offsets"]) {
			topic := CommitTopic{Topic: o.tp.Topic, TopicID: storyTopicID(args)}
			topic.Partitions = []CommitPartition{{Partition: o.tp.Partition, Offset: o.offset, LeaderEpoch: -1, Metadata: args["metadata"]}}
			ev.Topics = append(ev.Topics, topic)
		}
		return ev
	case "forget":
		ev := DeleteOffsets{Token: token}
		for _, o := range s.offsets(args["offsets"]) {
			ev.Topics = append(ev.Topics, DeleteTopic{Topic: o.tp.Topic, Partitions: []int32{o.tp.Partition}})
		}
		return ev
	case "delete":
		return Delete{Token: token}
	case "gone":
		return TopicsDeleted{Topics: []DeletedTopic{{Name: args["topic"], ID: storyTopicID(args)}}}
	}
	s.t.Fatalf("unknown command %q", cmd)
	return nil
}

// storySubscription is a consumer's metadata that names the topics in text, which are joined by +.
func storySubscription(topics string) []byte {
	names := strings.Split(topics, "+")
	b := []byte{0, 0, 0, 0, 0, byte(len(names))}
	for _, name := range names {
		b = append(b, 0, byte(len(name)))
		b = append(b, name...)
	}
	return b
}

func storyTopicID(args map[string]string) (id [16]byte) {
	id[15] = or(args["topicid"], "0")[0] - '0'
	return id
}

type storyOffset struct {
	tp     TopicPartition
	offset int64
}

func (s *story) offsets(text string) []storyOffset {
	var all []storyOffset
	for _, o := range strings.Split(text, ",") {
		where, offset, _ := strings.Cut(o, ":")
		topic, partition, _ := strings.Cut(where, "/")
		all = append(all, storyOffset{TopicPartition{topic, s.number(partition)}, int64(s.number(or(offset, "0")))})
	}
	return all
}

func optional(args map[string]string, key string) *string {
	if v, ok := args[key]; ok {
		return &v
	}
	return nil
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (s *story) number(text string) int32 {
	n, err := strconv.Atoi(text)
	s.must(err)
	return int32(n)
}

func (s *story) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	s.must(err)
	return d
}

func (s *story) configure(args map[string]string) []string {
	for _, k := range slices.Sorted(maps.Keys(args)) {
		switch k {
		case "max-size":
			s.cfg.MaxSize = int(s.number(args[k]))
		case "initial-delay":
			s.cfg.InitialRebalanceDelay = s.duration(args[k])
		case "retention":
			s.cfg.OffsetsRetention = s.duration(args[k])
		case "check":
			s.cfg.RetentionCheckInterval = s.duration(args[k])
		case "metadata":
			s.cfg.OffsetMetadataMaxBytes = int(s.number(args[k]))
		default:
			s.t.Fatalf("unknown setting %q", k)
		}
	}
	return nil
}

func (s *story) outcome(durable bool, name string, args map[string]string) []string {
	var out []string
	_, all := args["all"]
	for first := true; len(s.writes) > 0 && (first || all || name == "all"); first = false {
		w := s.writes[0]
		s.writes = s.writes[1:]
		ev := Written{Write: w, Err: storyErrors[name]}
		if durable {
			ev.Err = nil
			s.log = append(s.log, w.Records...)
		} else if ev.Err == nil {
			s.t.Fatalf("unknown error %q", name)
		}
		out = append(out, s.tell(s.g.Step(s.now, ev))...)
	}
	return out
}

func (s *story) advance(d time.Duration) []string {
	end := s.now.Add(d)
	var out []string
	for {
		wake := s.g.Wake()
		if wake.IsZero() || wake.After(end) {
			s.now = end
			return out
		}
		s.now = later(wake, s.now)
		for _, line := range s.tell(s.g.Step(s.now, Tick{})) {
			out = append(out, fmt.Sprintf("at %s: %s", s.now.Sub(time.UnixMilli(1_000_000)), line))
		}
	}
}

func (s *story) restart() []string {
	s.g = New("g", &s.cfg)
	s.writes = nil
	for _, r := range s.log {
		back, err := DecodeRecord(r.Key(), r.Value())
		s.must(err)
		s.g.Replay(back)
	}
	s.now = s.now.Add(time.Millisecond)
	if s.g.Gone() {
		return []string{"no group"}
	}
	return s.tell(s.g.Step(s.now, Loaded{}))
}

func (s *story) show() []string {
	d := s.g.Describe()
	out := []string{fmt.Sprintf("%s generation=%d type=%q protocol=%q leader=%q exists=%t pending=%v",
		d.State, s.g.generation, d.ProtocolType, d.Protocol, deref(s.g.leader), s.g.Exists(), slices.Sorted(maps.Keys(s.g.pendingJoin)))}
	for _, m := range d.Members {
		out = append(out, fmt.Sprintf("member %s instance=%q assignment=%q", m.ID, deref(m.InstanceID), m.Assignment))
	}
	for tp, o := range s.g.Offsets {
		out = append(out, fmt.Sprintf("offset %s/%d = %d %q", tp.Topic, tp.Partition, o.Offset, o.Metadata))
	}
	return out
}

func (s *story) tell(e Effects) []string {
	s.writes = append(s.writes, e.Writes...)
	var out []string
	for _, r := range e.Replies {
		out = append(out, s.names[r.Token]+" <- "+tellResponse(r.Response))
	}
	for _, w := range e.Writes {
		var records []string
		for _, r := range w.Records {
			records = append(records, tellRecord(r))
			back, err := DecodeRecord(r.Key(), r.Value())
			s.must(err)
			if !bytes.Equal(back.Value(), r.Value()) {
				s.t.Errorf("a record comes back otherwise: %+v", r)
			}
		}
		out = append(out, "write "+strings.Join(records, "; "))
	}
	s.check()
	return out
}

// check holds what must be true of any group at any time.
func (s *story) check() {
	s.t.Helper()
	checkGroup(s.t, s.g)
}

func tellError(err error) string {
	if err == nil {
		return "ok"
	}
	return strings.TrimPrefix(err.Error(), "group: ")
}

func tellResponse(response any) string {
	switch r := response.(type) {
	case JoinResponse:
		out := "join " + tellError(r.Err) + " id=" + r.MemberID
		if r.Err == nil {
			out += fmt.Sprintf(" generation=%d protocol=%s leader=%s", r.Generation, deref(r.Protocol), r.Leader)
		}
		if r.SkipAssignment {
			out += " skip"
		}
		for _, m := range r.Members {
			out += " member=" + m.ID
		}
		return out
	case SyncResponse:
		return fmt.Sprintf("sync %s assignment=%q", tellError(r.Err), r.Assignment)
	case HeartbeatResponse:
		return "heartbeat " + tellError(r.Err)
	case LeaveResponse:
		out := "leave " + tellError(r.Err)
		for _, m := range r.Members {
			out += fmt.Sprintf(" %s%s:%s", m.ID, deref(m.InstanceID), tellError(m.Err))
		}
		return out
	case CommitResponse:
		out := "commit " + tellError(r.Err)
		for _, t := range r.Topics {
			for _, p := range t.Partitions {
				out += fmt.Sprintf(" %s/%d:%s", t.Topic, p.Partition, tellError(p.Err))
			}
		}
		return out
	case DeleteOffsetsResponse:
		out := "forget " + tellError(r.Err)
		for _, t := range r.Topics {
			for _, p := range t.Partitions {
				out += fmt.Sprintf(" %s/%d:%s", t.Topic, p.Partition, tellError(p.Err))
			}
		}
		return out
	case DeleteResponse:
		return "delete " + tellError(r.Err)
	}
	return fmt.Sprintf("%#v", response)
}

func tellRecord(r Record) string {
	switch {
	case r.Offset != nil:
		return fmt.Sprintf("offset %s/%d=%d", r.Topic, r.Partition, r.Offset.Offset)
	case r.IsOffset():
		return fmt.Sprintf("no offset %s/%d", r.Topic, r.Partition)
	case r.Metadata == nil:
		return "no group"
	}
	m := r.Metadata
	out := fmt.Sprintf("group type=%q generation=%d protocol=%q leader=%q", m.ProtocolType, m.Generation, deref(m.Protocol), deref(m.Leader))
	for _, mm := range m.Members {
		out += fmt.Sprintf(" %s:%q", mm.ID, mm.Assignment)
	}
	return out
}
