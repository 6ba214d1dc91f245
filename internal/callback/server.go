package callback

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
)

const (
	headTimeout    = 5 * time.Second // also for the TLS handshake
	answerTimeout  = 15 * time.Second
	idleTimeout    = 30 * time.Second
	stopTimeout    = 10 * time.Second
	maxHead        = 16 << 10 // bytes
	maxConnections = 256
)

// Server serves a handler to the outside: to strangers, who may be slow, many and up to something.
type Server struct {
	Address string      // such as :8444
	TLS     *tls.Config // nil: plain HTTP, for proxies that end TLS themselves
	Handler http.Handler
	Log     logr.Logger
}

// NeedLeaderElection is false: whoever is called tells the one who leads.
func (s *Server) NeedLeaderElection() bool { return false }

// Start listens until the context ends, and lets what is at hand come to its end.
func (s *Server) Start(ctx context.Context) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", s.Address)
	if err != nil {
		return fmt.Errorf("cannot listen for callbacks: %w", err)
	}
	return s.serve(ctx, listener)
}

func (s *Server) serve(ctx context.Context, listener net.Listener) error {
	server := s.server()
	if s.TLS != nil {
		listener = tls.NewListener(listener, s.TLS)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	s.Log.Info("Listening for callbacks", "address", listener.Addr().String(), "tls", s.TLS != nil)
	select {
	case err := <-ended:
		return fmt.Errorf("cannot go on listening for callbacks: %w", err)
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		return fmt.Errorf("cannot end all callbacks: %w", errors.Join(err, server.Close()))
	}
	return nil
}

// server bounds all that a client can take: time, bytes and connections. Without HTTP/2 a connection has one request at once.
func (s *Server) server() *http.Server {
	open := &connections{}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler: s.Handler, Protocols: protocols, ConnState: open.track, MaxHeaderBytes: maxHead,
		ReadHeaderTimeout: headTimeout, ReadTimeout: headTimeout + bodyTimeout, WriteTimeout: headTimeout + bodyTimeout + answerTimeout,
		ErrorLog:    slog.NewLogLogger(logr.ToSlogHandler(s.Log.V(1)), slog.LevelInfo), // scanners make much of it
		IdleTimeout: idleTimeout, DisableGeneralOptionsHandler: true,
	}
}

// connections counts what is open, and ends what is too many.
type connections struct{ open atomic.Int32 }

func (c *connections) track(connection net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if c.open.Add(1) > maxConnections {
			_ = connection.Close() // its server finds that out, and says StateClosed
		}
	case http.StateClosed, http.StateHijacked:
		c.open.Add(-1)
	case http.StateActive, http.StateIdle:
	}
}
