// Package pgtest starts throw-away PostgreSQL clusters from the machine's own binaries, for tests and demos.
package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// account is the cluster's superuser; it needs no password, as only the cluster's owner and root reach the socket.
	account = "test"
	// maxSocketDir leaves room for "/.s.PGSQL.5432" within the 107 bytes of a unix socket's path.
	maxSocketDir  = 90
	startTimeout  = 60 * time.Second
	stopTimeout   = 10 * time.Second
	probeInterval = 20 * time.Millisecond
)

// A Cluster is one running PostgreSQL server, reached through a unix socket only.
type Cluster struct {
	// DSN is a URL of the database "postgres", as its superuser.
	DSN string
	// Bin is the folder of psql and the other client programs.
	Bin string

	root   string // holds everything, removed by Stop
	server *exec.Cmd
	log    *os.File
	exited chan struct{}
	stop   sync.Once
}

// Start makes a new cluster in a folder of its own under dir ("" is the system's temporary folder) and returns once it
// answers. It dies with this process, even if that is killed. Its durability is turned off: a power cut would corrupt
// it, the death of any process doesn't. A root process runs it as postgres, or else as nobody.
func Start(ctx context.Context, dir string) (*Cluster, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	owner, err := serverAccount()
	if err != nil {
		return nil, err
	}
	c := &Cluster{Bin: bin, exited: make(chan struct{})}
	if err := c.prepare(dir, owner); err != nil {
		return nil, errors.Join(err, os.RemoveAll(c.root))
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := c.run(ctx, owner); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

// Stop ends the server, rolls back what is open, and removes its files. It may be called more than once.
func (c *Cluster) Stop() {
	c.stop.Do(func() {
		if c.server != nil && c.server.Process != nil {
			c.end()
		}
		if c.log != nil {
			_ = c.log.Close()
		}
		_ = os.RemoveAll(c.root)
	})
}

func (c *Cluster) end() {
	_ = c.server.Process.Signal(syscall.SIGINT) // "fast": disconnects clients
	select {
	case <-c.exited:
	case <-time.After(stopTimeout):
		_ = c.server.Process.Signal(syscall.SIGQUIT)
		<-c.exited
	}
}

// CreateDatabase makes an empty database and returns its URL.
func (c *Cluster) CreateDatabase(ctx context.Context, name string) (string, error) {
	conn, err := pgx.Connect(ctx, c.DSN)
	if err != nil {
		return "", fmt.Errorf("cannot connect to the cluster: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, "create database "+pgx.Identifier{name}.Sanitize()); err != nil {
		return "", fmt.Errorf("cannot create database %s: %w", name, err)
	}
	return c.url(name), nil
}

func (c *Cluster) url(database string) string {
	query := url.Values{"host": {c.root}, "user": {account}}
	return (&url.URL{Scheme: "postgres", Path: "/" + database, RawQuery: query.Encode()}).String()
}

// binaries finds the folder of initdb and postgres: on PATH, else where Debian keeps the newest.
func binaries() (string, error) {
	if found, err := exec.LookPath("initdb"); err == nil {
		if target, err := filepath.EvalSymlinks(found); err == nil && isFile(filepath.Join(filepath.Dir(target), "postgres")) {
			return filepath.Dir(target), nil
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	sort.Slice(found, func(i, j int) bool { return release(found[i]) > release(found[j]) })
	for _, path := range found {
		if isFile(filepath.Join(filepath.Dir(path), "postgres")) {
			return filepath.Dir(path), nil
		}
	}
	return "", errors.New("cannot find PostgreSQL's initdb and postgres: " +
		"install the package postgresql (apt-get install postgresql), or put its bin folder on PATH")
}

func release(initdb string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(initdb))))
	return n
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// serverAccount is the account that the server runs as, nil for this process's own: PostgreSQL refuses to be root.
func serverAccount() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil //nolint:nilnil // Documented: this process's own account.
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(found.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(found.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("cannot read the ids of account %s: %w", name, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("cannot run PostgreSQL as root, and there is neither an account postgres nor nobody")
}

// prepare makes the folder. Where the server runs as another account, each folder above must let it through; where
// one doesn't (a test's private folder), or the path is too long for a socket, /tmp is used.
func (c *Cluster) prepare(dir string, owner *syscall.Credential) error {
	if dir == "" {
		dir = os.TempDir()
	}
	if len(dir) > maxSocketDir-20 || (owner != nil && !searchable(dir)) {
		dir = "/tmp"
	}
	root, err := os.MkdirTemp(dir, "pg-")
	if err != nil {
		return fmt.Errorf("cannot make a folder for PostgreSQL: %w", err)
	}
	c.root = root
	c.DSN = c.url("postgres")
	if owner != nil {
		if err := os.Chown(root, int(owner.Uid), int(owner.Gid)); err != nil {
			return fmt.Errorf("cannot hand the folder to PostgreSQL's account: %w", err)
		}
	}
	if c.log, err = os.Create(filepath.Join(root, "log")); err != nil {
		return fmt.Errorf("cannot make PostgreSQL's log: %w", err)
	}
	return nil
}

func searchable(dir string) bool {
	dir, err := filepath.Abs(dir)
	for err == nil {
		info, statErr := os.Stat(dir)
		if statErr != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if dir == "/" {
			return true
		}
		dir = filepath.Dir(dir)
	}
	return false
}

func (c *Cluster) run(ctx context.Context, owner *syscall.Credential) error {
	data := filepath.Join(c.root, "data")
	initdb := c.command(ctx, owner, "initdb", "-D", data, "-U", account, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot run initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	c.server = c.command(context.WithoutCancel(ctx), owner, "postgres", "-D", data, "-k", c.root, "-c", "listen_addresses=",
		"-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")
	c.server.Stdout, c.server.Stderr = c.log, c.log
	started := make(chan error)
	go func() {
		// The kernel ties Pdeathsig to the thread that forked, so this thread stays until the server has ended.
		runtime.LockOSThread()
		defer close(c.exited)
		err := c.server.Start()
		started <- err
		if err == nil {
			_ = c.server.Wait()
		}
	}()
	if err := <-started; err != nil {
		c.server = nil
		return fmt.Errorf("cannot start postgres: %w", err)
	}
	return c.await(ctx)
}

func (c *Cluster) command(ctx context.Context, owner *syscall.Credential, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.Bin, name), args...)
	cmd.Dir = c.root
	cmd.Env = []string{"PATH=" + c.Bin + ":/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner, Setpgid: true}
	if name == "postgres" {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	}
	return cmd
}

func (c *Cluster) await(ctx context.Context) error {
	for {
		conn, err := pgx.Connect(ctx, c.DSN)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-c.exited:
			text, _ := os.ReadFile(c.log.Name())
			return fmt.Errorf("cannot keep postgres running: %s", bytes.TrimSpace(text[max(0, len(text)-2000):]))
		case <-ctx.Done():
			return fmt.Errorf("cannot reach the new PostgreSQL server: %w", errors.Join(ctx.Err(), err))
		case <-time.After(probeInterval):
		}
	}
}
