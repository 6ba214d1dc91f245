package postgresql

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// owner holds the lock that makes this process the only one to run the database's jobs: the spool files are on its
// disk alone. Correctness doesn't hang on it, each batch's mark sees to that; it keeps a second process from declaring
// this one's files lost.
type owner struct {
	config  *pgx.ConnConfig
	options Options
	cancel  context.CancelFunc
	done    sync.WaitGroup
	conn    *pgx.Conn
}

func own(ctx context.Context, config *pgx.ConnConfig, o Options) (*owner, error) {
	w := &owner{config: config, options: o}
	if err := w.take(ctx, o.LockWait); err != nil {
		return nil, err
	}
	if err := migrate(ctx, w.conn); err != nil {
		return nil, errors.Join(err, w.conn.Close(ctx))
	}
	ctx, w.cancel = context.WithCancel(context.WithoutCancel(ctx))
	w.done.Go(func() { w.watch(ctx) })
	return w, nil
}

// take connects and waits for the lock.
func (w *owner) take(ctx context.Context, wait time.Duration) error {
	conn, err := pgx.ConnectConfig(ctx, w.config.Copy())
	if err != nil {
		return fmt.Errorf("cannot connect to the database: %w", err)
	}
	deadline := time.Now().Add(wait)
	for {
		var taken bool
		if err = conn.QueryRow(ctx, "select pg_try_advisory_lock($1)", ownerLock).Scan(&taken); err == nil && taken {
			w.conn = conn
			return nil
		}
		if err == nil && time.Now().After(deadline) {
			err = errors.New("another bulk-endpoint runs on it")
		}
		if err != nil {
			return errors.Join(fmt.Errorf("cannot take over the database's jobs: %w", err), conn.Close(ctx))
		}
		select {
		case <-ctx.Done():
		case <-time.After(lockInterval):
		}
	}
}

// watch takes the lock anew after the connection was lost.
func (w *owner) watch(ctx context.Context) {
	ticks := time.NewTicker(watchInterval)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		if w.conn != nil && w.conn.Ping(ctx) == nil {
			continue
		}
		if w.conn != nil {
			_ = w.conn.Close(ctx)
			w.conn = nil
		}
		if err := w.take(ctx, 0); err != nil && ctx.Err() == nil {
			w.options.Log.Error("Cannot keep the database's jobs to this process", "error", err)
		}
	}
}

func (w *owner) close() error {
	w.cancel()
	w.done.Wait()
	if w.conn == nil {
		return nil
	}
	return w.conn.Close(context.Background())
}
