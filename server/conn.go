package server

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// readBufferBytes is what a connection holds while it is idle. Larger frames are
// read past it, straight into their own memory.
const readBufferBytes = 2 << 10

// conn is one client connection. Its reader goroutine reads requests one after
// the other and answers them, but for produce requests, which it hands to the
// engine and to the pipeline; so it may read the next ones meanwhile.
type conn struct {
	s  *Server
	nc net.Conn

	remoteHost string
	localHost  string
	localPort  int32

	ctx    context.Context // ends with the connection
	cancel context.CancelFunc

	in       *bufio.Reader
	frames   frameReader
	clientID string        // of the latest request
	begun    time.Duration // when the first byte of the latest request was there
	pipe     pipeline
	fetching fetchState
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{s: s, nc: nc}
	c.remoteHost, _ = splitAddress(nc.RemoteAddr())
	c.localHost, c.localPort = splitAddress(nc.LocalAddr())
	return c
}

func splitAddress(a net.Addr) (host string, port int32) {
	host, text, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String(), 0
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return host, 0
	}
	return host, int32(n)
}

// serve runs the connection to its end, on the reader goroutine.
func (c *conn) serve() {
	c.ctx, c.cancel = context.WithCancel(c.s.ctx)
	c.in = bufio.NewReaderSize(c.nc, readBufferBytes)
	c.frames = frameReader{
		src:       c.in,
		maxBytes:  c.s.opts.RequestMaxBytes,
		budget:    c.s.requests,
		patience:  c.s.opts.MemoryTime,
		chunkTime: c.s.opts.FrameTime,
		deadline:  c.setReadDeadline,
		produces:  func(version int16) *api { return c.s.registry.find(produce.key, version) },
		sizes:     produceDefaults,
	}
	c.pipe.init(c)
	if tcp, ok := c.nc.(*net.TCPConn); ok {
		tcp.SetNoDelay(true) // Go's default, but latency hangs on it
	}
	err := c.readRequests()
	c.farewell(err)
	c.pipe.close(err)
	c.cancel()
	c.nc.Close()
}

// interrupt makes the reader stop before its next request. What has been read
// is still answered.
func (c *conn) interrupt() { c.nc.SetReadDeadline(time.Unix(1, 0)) }

func (c *conn) setReadDeadline(in time.Duration) {
	c.nc.SetReadDeadline(c.s.opts.Now().Add(in))
	select {
	case <-c.s.serving.Done(): // interrupt came first
		c.interrupt()
	default:
	}
}

// readRequests returns why the connection ends.
func (c *conn) readRequests() error {
	for {
		if err := c.awaitFrame(); err != nil {
			return err
		}
		size, err := c.frames.announced()
		if err != nil {
			return err
		}
		key, err := c.in.Peek(2)
		if err != nil {
			return fmt.Errorf("%w: %w", errHalfFrame, err)
		}
		if int16(binary.BigEndian.Uint16(key)) == produce.key {
			if err := c.serveProduce(size); err != nil {
				return err
			}
			continue
		}
		f, err := c.frames.next(c.ctx, size)
		if err != nil {
			return err
		}
		c.s.stats.requests.Add(1)
		c.s.stats.received.Add(int64(len(c.frames.sizeField) + len(f.buf.b)))
		if err := c.serveFrame(f); err != nil {
			return err
		}
	}
}

// errClosing says that the connection ends without anybody's fault.
var errClosing = errors.New("closing")

// awaitFrame reads the size field of the next frame.
func (c *conn) awaitFrame() error {
	for {
		c.setReadDeadline(c.s.opts.MaxIdle)
		_, err := c.in.Peek(1)
		if err == nil {
			break
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && c.s.isDraining():
			return errClosing
		case errors.Is(err, os.ErrDeadlineExceeded) && c.pipe.busy():
			continue // it waits for us
		case errors.Is(err, os.ErrDeadlineExceeded):
			return errIdle
		}
		return errClosing
	}
	c.begun = c.s.opts.Metrics.now()
	c.setReadDeadline(c.s.opts.FrameTime)
	if _, err := io.ReadFull(c.in, c.frames.sizeField[:]); err != nil {
		return fmt.Errorf("%w: %w", errHalfFrame, err)
	}
	return nil
}

func (s *Server) isDraining() bool { return s.serving.Err() != nil }

// serveFrame answers one request. It takes over the frame.
func (c *conn) serveFrame(f frame) (err error) {
	began := c.s.opts.Metrics.now()
	a, h, elements, err := c.s.registry.open(f.buf.b)
	if c.clientID != string(h.clientID) {
		c.clientID = string(h.clientID)
	}
	if a == nil && h.key == apiVersions.key && errors.Is(err, errUnknownAPI) {
		f.release()
		if err := c.pipe.drain(); err != nil {
			return err
		}
		return c.respond(h.correlationID, false, unsupportedAPIVersions())
	}
	if err == nil && elements > fewElements {
		f.details, err = c.s.requests.take(c.ctx, elements*elementBytes, c.s.opts.MemoryTime)
	}
	if err != nil {
		f.release()
		return err
	}
	cl := call{conn: c, key: h.key, version: h.version, correlationID: h.correlationID, clientID: c.clientID, received: c.s.opts.Now(), began: began}
	defer f.release()
	if err := c.pipe.drain(); err != nil {
		return err
	}
	defer c.survive(&cl, &err)
	err = c.answer(a, &cl, h.body)
	c.s.opts.Metrics.elapsed(a.latency, began, c.s.opts.Metrics.now())
	return err
}

// survive turns the panic of a handler that defers it into the end of this
// connection alone.
func (c *conn) survive(cl *call, err *error) {
	if p := recover(); p != nil {
		c.s.stats.panics.Add(1)
		c.s.log.Error("panic in a request handler", "api", kmsg.NameForKey(cl.key), "version", cl.version,
			"client", c.remoteHost, "client_id", cl.clientID, "panic", p, "stack", string(debug.Stack()))
		*err = errClosing
	}
}

// answer decodes a request, has its handler answer it and writes the response.
func (c *conn) answer(a *api, cl *call, body []byte) error {
	if a.key == fetch.key {
		return c.s.fetch(cl, body)
	}
	req, err := a.decode(cl.version, body)
	if err != nil {
		return err
	}
	resp, err := a.serve(c.s, c.ctx, cl, req)
	if err != nil {
		return fmt.Errorf("%s v%d: %w", kmsg.NameForKey(a.key), cl.version, err)
	}
	resp.SetVersion(cl.version)
	c.s.countErrors(a, resp)
	return c.respond(cl.correlationID, resp.IsFlexible() && a.key != apiVersions.key, resp)
}

// respond writes one response. Only the reader calls it, when the pipeline is empty.
func (c *conn) respond(correlationID int32, flexible bool, resp kmsg.Response) error {
	out := newBuffer(1 << 10)
	defer func() { out.release() }()
	out.b = beginResponse(out.b, correlationID, flexible)
	out.b = resp.AppendTo(out.b)
	return c.write(endResponse(out.b, 0))
}

// beginResponse appends a response's header, whose size endResponse fills in:
//
//	+---------+----------------+- - - - - - - - - - - - - - -+------+
//	| size    | correlation id | no tagged fields, 0         | body |
//	| int32   | int32          | flexible versions only      |      |
//	+---------+----------------+- - - - - - - - - - - - - - -+------+
func beginResponse(dst []byte, correlationID int32, flexible bool) []byte {
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(correlationID))
	if flexible {
		dst = append(dst, 0)
	}
	return dst
}

// endResponse completes the response that begins at start.
func endResponse(dst []byte, start int) []byte {
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	return dst
}

// writeChunk is how much a client must take within the write time; a client that
// is slow but steady is not cut off in the middle of a large response.
const writeChunk = 1 << 20

func (c *conn) write(b []byte) error {
	for len(b) > 0 {
		c.nc.SetWriteDeadline(c.s.opts.Now().Add(c.s.opts.WriteTime))
		n, err := c.nc.Write(b[:min(len(b), writeChunk)])
		c.s.stats.sent.Add(int64(n))
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		b = b[n:]
	}
	return nil
}

// writePieces writes several pieces as one, without copying them together. It
// uses up the slice.
func (c *conn) writePieces(pieces net.Buffers) error {
	for len(pieces) > 0 {
		n, size := 0, 0
		for n < len(pieces) && size < writeChunk {
			size += len(pieces[n])
			n++
		}
		now := pieces[:n:n]
		pieces = pieces[n:]
		if size > 2*writeChunk { // its last piece is large
			large := now[n-1]
			now = now[:n-1]
			if err := c.writePieces(now); err != nil {
				return err
			}
			if err := c.write(large); err != nil {
				return err
			}
			continue
		}
		c.nc.SetWriteDeadline(c.s.opts.Now().Add(c.s.opts.WriteTime))
		n64, err := now.WriteTo(c.nc)
		c.s.stats.sent.Add(n64)
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}

// farewell logs why a connection ends when that may interest somebody.
func (c *conn) farewell(err error) {
	switch {
	case errors.Is(err, errClosing) || c.s.isDraining():
		return
	case errors.Is(err, errFrameSize), errors.Is(err, errHeader), errors.Is(err, errUnknownAPI), errors.Is(err, errMalformed), errors.Is(err, errTooDetailed):
		c.s.stats.malformed.Add(1)
	case errors.Is(err, errIdle) || hungUp(err):
		c.s.log.Debug("closed a connection", "reason", err, "client", c.remoteHost, "client_id", c.clientID)
		return
	}
	c.s.warn.warn("closed a connection", slog.Any("reason", err), slog.String("client", c.remoteHost), slog.String("client_id", c.clientID))
}

// hungUp tells whether an error only says that the client has gone.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
