package e2e_test

import (
	"io"
	"net"
	"sync"
	"testing"
)

// letThrough is how much of one connection's upload passes a shut valve, far more than any other request has.
const letThrough = 256 << 10

// valve stands between operator and endpoint, and holds uploads up while it is shut, which it is at first.
type valve struct {
	listener net.Listener
	to       string
	shut     chan struct{} // closed when an upload is held up
	opened   chan struct{} // closed when it is open
	once     sync.Once
	all      sync.WaitGroup
}

func newValve(t *testing.T, to string) *valve {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v := &valve{listener: listener, to: to, shut: make(chan struct{}), opened: make(chan struct{})}
	v.all.Go(v.accept)
	t.Cleanup(func() {
		listener.Close()
		select {
		case <-v.opened:
		default:
			v.open()
		}
		v.all.Wait()
	})
	return v
}

func (v *valve) open() { close(v.opened) }

func (v *valve) address() string { return v.listener.Addr().String() }

func (v *valve) port() string {
	_, port, _ := net.SplitHostPort(v.address())
	return port
}

func (v *valve) accept() {
	for {
		client, err := v.listener.Accept()
		if err != nil {
			return
		}
		v.all.Go(func() { v.pass(client) })
	}
}

func (v *valve) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", v.to)
	if err != nil {
		return
	}
	defer server.Close()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(client, server)
		client.Close()
	})
	if n, err := io.CopyN(server, client, letThrough); err == nil && n == letThrough {
		v.once.Do(func() { close(v.shut) })
		<-v.opened
		_, _ = io.Copy(server, client)
	}
	server.Close()
	back.Wait()
}
