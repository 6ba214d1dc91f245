// Command bulk-endpoint is a self-hosted server of the Bulk API: it loads CSV and JSON files into PostgreSQL or Base
// CRM, or into memory for a first look. See docs/endpoint.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"bulkjob.dev/operator/internal/endpoint"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bulk-endpoint:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, env func(string) string) error {
	c, err := configure(args, env)
	if err != nil {
		return err
	}
	closeConnector, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer closeConnector()
	server, err := endpoint.New(ctx, c.Options)
	if err != nil {
		return err
	}
	handler, err := c.handler(server)
	if err != nil {
		return errors.Join(err, server.Close())
	}
	listener, err := c.listen(ctx)
	if err != nil {
		return errors.Join(err, server.Close())
	}
	return errors.Join(serve(ctx, c, server, handler, listener), server.Close())
}

// serve runs until ctx is done; then it lets requests and batches at hand end.
func serve(ctx context.Context, c *config, server *endpoint.Server, handler http.Handler, listener net.Listener) error {
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group.Go(func() { server.Run(ctx) })

	web := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
	group.Go(func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), c.ShutdownGrace)
		defer cancel()
		if web.Shutdown(grace) != nil {
			_ = web.Close() // cuts uploads, which leave nothing behind
		}
	})
	c.Log.Info("Listening", "address", listener.Addr().String(), "connector", c.Connector.Name(), "dialect", c.Dialect)
	serving := web.Serve
	if c.tlsCert != "" {
		serving = func(l net.Listener) error { return web.ServeTLS(l, c.tlsCert, c.tlsKey) }
	}
	if err := serving(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("cannot serve: %w", err)
	}
	return nil
}
