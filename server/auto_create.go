package server

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// autoCreateTime bounds how long a metadata request waits for topics to be created.
const autoCreateTime = 5 * time.Second

// autoCreate creates topics that a client has asked about, and answers that they are
// unknown, or what prevented them.
func (s *Server) autoCreate(ctx context.Context, names []string, resp *kmsg.MetadataResponse) {
	ctx, cancel := context.WithTimeout(ctx, autoCreateTime)
	defer cancel()
	created := s.engine.Topics().AutoCreate(ctx, names)
	img := s.engine.Image()
	for _, c := range created {
		code := errorCode(c.Err)
		switch code {
		case codeNone:
			code = codeUnknownTopicOrPartition
		case codeTopicAlreadyExists: // somebody else was faster
			if t := img.Topic(c.Name); t != nil {
				resp.Topics = append(resp.Topics, s.describeTopic(t))
				continue
			}
			code = codeLeaderNotAvailable // the client asks again
		case codeRequestTimedOut:
			code = codeLeaderNotAvailable
		}
		resp.Topics = append(resp.Topics, missingTopic(code, c.Name))
	}
}
