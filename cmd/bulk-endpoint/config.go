package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"bulkjob.dev/operator/internal/endpoint"
	"bulkjob.dev/operator/internal/endpoint/basecrm"
	"bulkjob.dev/operator/internal/endpoint/memory"
	"bulkjob.dev/operator/internal/endpoint/postgresql"
	"bulkjob.dev/operator/internal/endpoint/ui"
	"bulkjob.dev/operator/internal/openconnectors"
)

const maxSecretBytes = 64 << 10

// config is what flags, environment and mounted files say.
type config struct {
	endpoint.Options

	connector   string
	objects     []string
	databaseURL string
	schema      string
	memoryRows  int
	maxErrors   int
	instanceID  int64

	crm        basecrm.Options
	crmObjects string // file that describes objects

	address         string
	portFile        string
	tlsCert, tlsKey string
	ui              bool
	uiPassword      string
}

// secrets are read from the environment or from files, never from flags, which every user of a machine can read.
var secrets = []struct {
	name, usage string
	to          func(*config) *string
}{
	{"element-token", "the element token that clients must send (required)", func(c *config) *string { return &c.ElementToken }},
	{"user-secret", "the user secret that clients must send (required)", func(c *config) *string { return &c.UserSecret }},
	{"organization-secret", "the organization secret, compared if sent", func(c *config) *string { return &c.OrganizationSecret }},
	{"signature-key", "the key that signs notifications", func(c *config) *string { return &c.SignatureKey }},
	{"database-url", "the URL of the PostgreSQL database", func(c *config) *string { return &c.databaseURL }},
	{"basecrm-token", "the access token of Base CRM", func(c *config) *string { return &c.crm.Token }},
	{"ui-password", "the password of the status page, with which nothing but that page can be read", func(c *config) *string { return &c.uiPassword }},
}

func variable(name string) string {
	return "BULK_ENDPOINT_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

func configure(args []string, env func(string) string) (*config, error) {
	c := &config{}
	flags := flag.NewFlagSet("bulk-endpoint", flag.ContinueOnError)
	c.bind(flags)
	logFormat := flags.String("log-format", "text", "text or json")
	files := make([]*string, len(secrets))
	for i, secret := range secrets {
		files[i] = flags.String(secret.name+"-file", "", "`file` with "+secret.usage+"; else $"+variable(secret.name))
	}
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("cannot understand the argument %q", flags.Arg(0))
	}
	for i, secret := range secrets {
		value, err := readSecret(*files[i], env(variable(secret.name)))
		if err != nil {
			return nil, err
		}
		*secret.to(c) = value
	}
	log, err := newLog(*logFormat)
	c.Log = log
	return c, errors.Join(err, c.check())
}

func (c *config) bind(flags *flag.FlagSet) {
	flags.StringVar(&c.connector, "connector", "memory", "memory, postgresql or basecrm")
	flags.Func("objects", "comma-separated `names` of the objects (default: the vendor's five, all tables, or all of Base CRM's)", list(&c.objects))
	flags.StringVar(&c.schema, "postgresql-schema", "public", "schema whose tables are the objects")
	flags.IntVar(&c.memoryRows, "memory-max-rows", 100_000, "rows that the memory connector holds in all")
	flags.Int64Var(&c.instanceID, "memory-instance-id", 0, "instance id of the memory connector; 0 picks a new one at each start")
	flags.StringVar(&c.crm.BaseURL, "basecrm-url", "https://api.getbase.com", "URL of Base CRM (Zendesk Sell)")
	flags.Float64Var(&c.crm.Rate, "basecrm-rate", 10, "requests a second to Base CRM; its limit is 36,000 an hour for each token")
	flags.StringVar(&c.crmObjects, "basecrm-objects-file", "", "`file` of JSON that names objects and columns otherwise than Base CRM does")
	flags.IntVar(&c.maxErrors, "max-row-errors", 10_000, "row errors kept per job; all are counted")

	flags.StringVar(&c.address, "listen", "127.0.0.1:8080", "address to listen on; port 0 picks one")
	flags.StringVar(&c.portFile, "port-file", "", "`file` to write the actual address to once listening")
	flags.StringVar(&c.tlsCert, "tls-cert", "", "`file` with the certificate chain; plain HTTP without one")
	flags.StringVar(&c.tlsKey, "tls-key", "", "`file` with the certificate's key")
	flags.BoolVar(&c.ui, "ui", false, "show a status page at "+ui.Path+", to who has its password")
	flags.StringVar(&c.BasePath, "base-path", "/elements/api-v2", "path before all routes")
	flags.StringVar((*string)(&c.Dialect), "dialect", string(endpoint.DialectSeed),
		fmt.Sprintf("spelling of jobs, one of %v", endpoint.Dialects))
	flags.Func("callback-hosts", "comma-separated `hosts` (host or host:port) that may be notified; by default none", list(&c.CallbackHosts))

	flags.StringVar(&c.SpoolDir, "spool-dir", "", "`folder` for uploads until they are loaded (postgresql and basecrm: required; must survive restarts)")
	flags.Int64Var(&c.MaxUploadBytes, "max-upload-bytes", openconnectors.MaxUploadBytes, "size of one file; beyond it 429")
	flags.Int64Var(&c.MaxSpoolBytes, "max-spool-bytes", 20_000_000_000, "size of all files in the spool folder; beyond it 429")
	flags.IntVar(&c.MaxUploads, "max-uploads", 8, "uploads received at once; beyond it 429")
	flags.DurationVar(&c.UploadTimeout, "upload-timeout", time.Hour, "time for one upload")
	flags.IntVar(&c.Workers, "workers", 2, "jobs loaded at once, each of another object")
	flags.DurationVar(&c.ProcessingDelay, "processing-delay", 0, "time spent in CREATED and again in RUNNING before rows are loaded")
	flags.DurationVar(&c.Retention, "retention", 0, "time after which ended jobs, their errors and tokens are forgotten; 0 keeps them")
	flags.DurationVar(&c.ShutdownGrace, "shutdown-grace", 20*time.Second, "time for batches and requests at hand when told to stop")
}

func list(to *[]string) func(string) error {
	return func(text string) error {
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				*to = append(*to, item)
			}
		}
		return nil
	}
}

// readSecret prefers the file, and takes one line end off it.
func readSecret(path, fromEnv string) (string, error) {
	if path == "" {
		return fromEnv, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("cannot read a secret: %w", err)
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxSecretBytes))
	if err != nil {
		return "", fmt.Errorf("cannot read a secret: %w", err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r"), nil
}

func newLog(format string) (*slog.Logger, error) {
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, nil)), nil
	}
	return nil, fmt.Errorf("cannot log as %q: -log-format is text or json", format)
}

func (c *config) check() error {
	missing := map[string]string{"postgresql": "database-url", "basecrm": "basecrm-token"}[c.connector]
	switch {
	case missing == "" && c.connector != "memory":
		return fmt.Errorf("cannot use connector %q: it is memory, postgresql or basecrm", c.connector)
	case c.connector == "postgresql" && c.databaseURL == "", c.connector == "basecrm" && c.crm.Token == "":
		return fmt.Errorf("cannot use %s without $%s or -%s-file", c.connector, variable(missing), missing)
	case c.connector != "memory" && c.SpoolDir == "":
		return fmt.Errorf("cannot use %s without -spool-dir: jobs resume from it after a crash", c.connector)
	case (c.tlsCert == "") != (c.tlsKey == ""):
		return errors.New("cannot serve TLS with only one of -tls-cert and -tls-key")
	case min(c.MaxUploadBytes, c.MaxSpoolBytes, int64(c.MaxUploads), int64(c.Workers), int64(c.memoryRows), int64(c.maxErrors)) < 1:
		return errors.New("cannot use a limit below 1")
	case c.ui && c.uiPassword == "":
		return fmt.Errorf("cannot use -ui without $%s or -ui-password-file", variable("ui-password"))
	case c.ui && (c.BasePath == ui.Path || strings.HasPrefix(c.BasePath, ui.Path+"/")):
		return fmt.Errorf("cannot show a status page at %s: the routes of -base-path are there", ui.Path)
	case c.crm.Rate <= 0:
		return errors.New("cannot use a rate of 0 or below")
	}
	return nil
}

// connect opens the connector, and returns what closes it.
func (c *config) connect(ctx context.Context) (func(), error) {
	switch c.connector {
	case "postgresql":
		return c.connectPostgreSQL(ctx)
	case "basecrm":
		return c.connectBaseCRM(ctx)
	}
	c.Connector = memory.New(memory.Options{
		Objects: c.objects, MaxRows: c.memoryRows, MaxErrors: c.maxErrors, InstanceID: c.instanceID,
	})
	if c.SpoolDir != "" {
		return func() {}, nil
	}
	dir, err := os.MkdirTemp("", "bulk-endpoint-")
	if err != nil {
		return nil, fmt.Errorf("cannot make a spool folder: %w", err)
	}
	c.SpoolDir = dir
	return func() { _ = os.RemoveAll(dir) }, nil
}

func (c *config) connectPostgreSQL(ctx context.Context) (func(), error) {
	opened, err := postgresql.Open(ctx, postgresql.Options{
		URL: c.databaseURL, Schema: c.schema, Objects: c.objects, Loads: c.Workers, MaxErrors: c.maxErrors, Log: c.Log,
	})
	if err != nil {
		return nil, err
	}
	c.Connector = opened
	return opened.Close, nil
}

// connectBaseCRM keeps the jobs beside the files that they load.
func (c *config) connectBaseCRM(ctx context.Context) (func(), error) {
	o := c.crm
	o.Dir, o.Objects, o.MaxErrors = filepath.Join(c.SpoolDir, "jobs"), c.objects, c.maxErrors
	if c.crmObjects != "" {
		file, err := os.Open(c.crmObjects) //nolint:gosec // The administrator names it.
		if err != nil {
			return nil, fmt.Errorf("cannot read the objects: %w", err)
		}
		defer func() { _ = file.Close() }()
		if o.Described, err = basecrm.ReadObjects(file); err != nil {
			return nil, err
		}
	}
	opened, err := basecrm.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	c.Connector = opened
	return opened.Close, nil
}

// handler is the server, with the status page beside it where one is asked for. The server knows nothing of that page,
// and neither takes the other's credentials.
func (c *config) handler(server http.Handler) (http.Handler, error) {
	if !c.ui {
		return server, nil
	}
	page, err := ui.New(ui.Options{Jobs: c.Connector, Name: c.Connector.Name(), Dialect: c.Dialect, Password: c.uiPassword, Log: c.Log})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/", server)
	mux.Handle(ui.Path, page)
	mux.Handle(ui.Path+"/", page)
	return mux, nil
}

// listen opens the port, and only then writes its address, as a whole, for those who wait for it.
func (c *config) listen(ctx context.Context) (net.Listener, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen: %w", err)
	}
	if c.portFile == "" {
		return listener, nil
	}
	fresh := filepath.Clean(c.portFile) + ".new"
	err = os.WriteFile(fresh, []byte(listener.Addr().String()+"\n"), 0o644) //nolint:gosec // Others wait for it.
	if err == nil {
		err = os.Rename(fresh, c.portFile) //nolint:gosec // The administrator names it.
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot write the port file: %w", err), listener.Close())
	}
	return listener, nil
}
