package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

// tally is what the storm has done.
type tally struct {
	mu           sync.Mutex
	kills, stops int
	made         int // jobs
}

func (t *tally) add(to *int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	*to++
}

// A weather is a storm over a world.
type weather struct {
	*world
	tally

	loads  []*load
	making chan event // in the order in which jobs are to be made
	diary  *slog.Logger
}

// newWeather has each deed written down, for those who read the logs of the struck.
func newWeather(w *world) (*weather, error) {
	file, err := os.OpenFile(filepath.Join(w.dir, "storm.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot keep a diary: %w", err)
	}
	w.atEnd(file.Close)
	return &weather{world: w, loads: newLoads(w.settings), diary: slog.New(slog.NewTextHandler(file, nil))}, nil
}

// rage carries the plan out. Jobs are made beside it, since that waits while kube-apiserver is away.
func (w *weather) rage(ctx context.Context) error {
	events := plan(w.settings)
	w.making = make(chan event, len(events))
	failed := make(chan error, 1)
	go func() { failed <- w.makeJobs(ctx) }()
	w.proxy.storm(true)
	began := time.Now()
	for _, e := range events {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(began.Add(e.at))):
		}
		if e.deed == makeJob || e.deed == remakeJob {
			w.making <- e
			continue
		}
		w.diary.Info(string(e.deed), "planned", e.at, "pause", e.pause)
		if err := w.do(ctx, e); err != nil {
			return err
		}
	}
	close(w.making)
	w.proxy.storm(false)
	return <-failed
}

// do does one deed. Killing goes on until there was something to kill.
func (w *weather) do(ctx context.Context, e event) error {
	if _, killing := strings.CutPrefix(string(e.deed), "kill"); killing {
		err := w.insist(ctx, func() bool { return w.kill(ctx, e.deed) })
		if err == nil {
			w.add(&w.kills)
		}
		return err
	}
	var done bool
	switch e.deed {
	case stopLeader:
		done = w.leader().stop(e.pause)
	case stopEndpoint:
		done = w.endpoint.stop(e.pause)
	case stopAPIServer:
		done = w.apiServer.stop(e.pause)
	case stopEtcd:
		done = w.etcd.stop(e.pause)
	case stopDatabase:
		done = w.stopDatabase(ctx, e.pause)
	case endLeader:
		done = w.leader().signal(syscall.SIGTERM)
	case refuseKeys:
		w.proxy.refuse(e.pause)
		return nil
	default:
		return fmt.Errorf("cannot %s: nobody knows how", e.deed)
	}
	if done {
		w.add(&w.stops)
	}
	return nil
}

func (w *weather) kill(ctx context.Context, what deed) bool {
	switch what {
	case killLeader:
		return w.leader().kill()
	case killFollower:
		return w.managers[1-slices.Index(w.managers[:], w.leader())].kill()
	case killEndpoint:
		return w.endpoint.kill()
	case killAPIServer:
		return w.apiServer.kill()
	case killEtcd:
		return w.etcd.kill()
	default:
		return w.signalDatabase(ctx, syscall.SIGKILL) != 0
	}
}

// insist tries until it is done.
func (w *weather) insist(ctx context.Context, do func() bool) error {
	for !do() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

// leader is the manager that was elected last. It may have died meanwhile.
func (w *weather) leader() *program {
	text, err := os.ReadFile(filepath.Join(w.dir, leaderFile))
	if err == nil {
		for _, m := range w.managers {
			if strconv.Itoa(m.current().ID()) == string(text) {
				return m
			}
		}
	}
	return w.managers[0]
}

// signalDatabase sends a signal to a process that serves one of the endpoint's connections. If that kills it, PostgreSQL
// ends all others, and starts anew from its log. The id is 0 if there was none.
func (w *weather) signalDatabase(ctx context.Context, s syscall.Signal) (id int) {
	ctx, cancel := context.WithTimeout(ctx, answerIn)
	defer cancel()
	conn, err := pgx.Connect(ctx, w.database)
	if err != nil {
		return 0
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = conn.QueryRow(ctx, "select pid from pg_stat_activity where application_name = 'bulk-endpoint' order by random() limit 1").Scan(&id)
	if err != nil || syscall.Kill(id, s) != nil {
		return 0
	}
	return id
}

// stopDatabase has one of the endpoint's connections hang for that long.
func (w *weather) stopDatabase(ctx context.Context, pause time.Duration) bool {
	id := w.signalDatabase(ctx, syscall.SIGSTOP)
	if id != 0 {
		time.AfterFunc(pause, func() { _ = syscall.Kill(id, syscall.SIGCONT) })
	}
	return id != 0
}

// makeJobs makes the jobs, and makes some of them again, in their turn.
func (w *weather) makeJobs(ctx context.Context) error {
	for e := range w.making {
		l := w.loads[e.index]
		if e.deed == remakeJob {
			if err := w.persist(ctx, w.remove(l)); err != nil {
				return err
			}
		} else if !l.large {
			if err := w.persist(ctx, w.creation(l.configMap())); err != nil {
				return err
			}
		}
		for _, name := range l.names() {
			if err := w.persist(ctx, w.creation(l.job(name, w.objectStore()))); err != nil {
				return err
			}
			if e.deed == makeJob {
				w.add(&w.made)
			}
		}
	}
	return nil
}

// creation of an object, which may be there already from a try whose answer was lost.
func (w *weather) creation(o client.Object) func(context.Context) error {
	return func(ctx context.Context) error {
		err := w.admin.Create(ctx, o.DeepCopyObject().(client.Object)) //nolint:forcetypeassert // the copy of one is one
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	}
}

// remove deletes a load's first job, and is done once it is gone.
func (w *weather) remove(l *load) func(context.Context) error {
	return func(ctx context.Context) error {
		job := &v1alpha1.BulkJob{}
		job.Namespace, job.Name = namespace, l.name
		if err := client.IgnoreNotFound(w.admin.Delete(ctx, job)); err != nil {
			return err
		}
		err := w.admin.Get(ctx, client.ObjectKeyFromObject(job), job)
		if err == nil {
			return errors.New("cannot make a job again that is still there")
		}
		return client.IgnoreNotFound(err)
	}
}

// persist does what kube-apiserver may be away for. What it finds invalid stays invalid.
func (w *weather) persist(ctx context.Context, do func(context.Context) error) error {
	for {
		once, cancel := context.WithTimeout(ctx, answerIn)
		err := do(once)
		cancel()
		if err == nil || apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// putLarge puts the large files into the object store, before the storm.
func (w *weather) putLarge() error {
	for _, l := range w.loads {
		if !l.large {
			continue
		}
		path := filepath.Join(w.dir, l.name+".csv")
		if err := os.WriteFile(path, []byte(l.text), 0o644); err != nil { //nolint:gosec // the server has an account of its own
			return err
		}
		if err := w.store.PutFile(bucket, l.name+".csv", path, ""); err != nil {
			return err
		}
	}
	return nil
}
