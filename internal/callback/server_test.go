package callback

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
)

// pipes is a listener whose connections need no network, so that their time can be the bubble's.
type pipes struct {
	net.Listener
	news   chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.news:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	close(p.closed)
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.news <- theirs
	return ours
}

// served runs a server in the bubble; stop ends it, and is what Start returns.
func served(t *testing.T, handler http.Handler) (p *pipes, stop func() error) {
	t.Helper()
	p = &pipes{news: make(chan net.Conn), closed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	server := &Server{Handler: handler, Log: logr.Discard()}
	go func() { ended <- server.serve(ctx, p) }()
	return p, func() error {
		cancel()
		return <-ended
	}
}

// until is how long the other side keeps a connection open, and what it says meanwhile.
func until(c net.Conn) (time.Duration, string) {
	start := time.Now()
	said, _ := io.ReadAll(c)
	return time.Since(start), string(said)
}

func TestSlowClients(t *testing.T) {
	for _, tc := range []struct {
		name, reason string
		head         string
		drip         time.Duration // between single bytes after the head
		most         time.Duration
		says         string
	}{
		{"Silent", "who says nothing goes", "", 0, headTimeout, ""},
		{"SlowHead", "who takes his time over the head goes", "POST /x HTTP/1.1\r\nHost: x\r\nX: ", time.Second, headTimeout + time.Second, ""},
		{
			"SlowBody", "who takes his time over the body goes",
			"POST " + known.Path() + " HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", time.Second, bodyTimeout + time.Second, "400 Bad Request",
		},
		{
			"NoEnd", "a body without an end ends",
			"POST " + known.Path() + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n", time.Second, bodyTimeout + time.Second, "400 Bad Request",
		},
		{"HTTP2", "one connection asks for one thing at once", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0, headTimeout, "HTTP/1.1 405 Method Not Allowed"},
		{"Idle", "who has no more to ask goes", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 0, idleTimeout, "405 Method Not Allowed"},
		{"LongHead", "a head has an end", "POST / HTTP/1.1\r\nX: " + strings.Repeat("x", maxHead+8<<10), 0, headTimeout, "431 Request Header Fields Too Large"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &hints{}
				p, stop := served(t, NewReceiver(h, "", logr.Discard()))
				c := p.dial()
				var writing sync.WaitGroup
				writing.Go(func() {
					_, err := io.WriteString(c, tc.head)
					for tc.drip > 0 && err == nil {
						time.Sleep(tc.drip)
						_, err = c.Write([]byte("1"))
					}
				})
				took, said := until(c)
				if took > tc.most || !strings.Contains(said, tc.says) {
					t.Errorf("%s: it was kept for %v, at most %v are meant; it was told %q", tc.reason, took, tc.most, said)
				}
				c.Close()
				writing.Wait()
				if err := stop(); err != nil {
					t.Error(err)
				}
				if len(h.heard) > 0 || h.asked > 0 {
					t.Errorf("%s: it was listened to", tc.reason)
				}
			})
		})
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, stop := served(t, NewReceiver(&hints{}, "", logr.Discard()))
		for range maxConnections {
			go until(p.dial())
		}
		synctest.Wait()
		if took, _ := until(p.dial()); took != 0 {
			t.Errorf("one too many was kept for %v", took)
		}
		time.Sleep(headTimeout + time.Second) // the silent ones have gone
		late := p.dial()
		go io.WriteString(late, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if _, said := until(late); !strings.Contains(said, "405") {
			t.Errorf("there is no room again: %q", said)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestStop asserts that what is at hand when the server is stopped is answered.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hints{block: make(chan struct{})}
		p, stop := served(t, NewReceiver(h, "", logr.Discard()))
		c := p.dial()
		body := done("1", "")
		go signed(known.Path(), body).Write(c)
		synctest.Wait()
		ended := make(chan error, 1)
		go func() { ended <- stop() }()
		synctest.Wait()
		close(h.block)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 200 || len(h.heard) != 1 {
			t.Errorf("answered %v, %v, heard %v", resp, err, h.heard)
		}
		c.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestStartRefused(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	server := &Server{Address: taken.Addr().String(), Handler: http.NotFoundHandler(), Log: logr.Discard()}
	if err := server.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot listen for callbacks") {
		t.Errorf("got %v", err)
	}
}
