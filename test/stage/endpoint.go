package stage

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	basePath  = "/elements/api-v2"
	maxAnswer = 1 << 20
)

// An Endpoint is a running bin/bulk-endpoint.
type Endpoint struct {
	*Process
	// Element and User are the secrets that it asks for, new for each.
	Element, User string

	address string
}

// StartEndpoint runs the endpoint of bin: on the PostgreSQL database at databaseURL, or in memory if that is empty. Its
// log and its spool are in dir. Further args win over those. It is stopped if it does not come to listen.
func StartEndpoint(ctx context.Context, bin, dir, databaseURL string, args ...string) (*Endpoint, error) {
	e := &Endpoint{Element: rand.Text(), User: rand.Text()}
	portFile := filepath.Join(dir, "endpoint.port")
	env := []string{
		"BULK_ENDPOINT_ELEMENT_TOKEN=" + e.Element, "BULK_ENDPOINT_USER_SECRET=" + e.User, "BULK_ENDPOINT_DATABASE_URL=" + databaseURL,
	}
	connector := "memory"
	if databaseURL != "" {
		connector = "postgresql"
	}
	args = append([]string{
		"-connector=" + connector, "-listen=127.0.0.1:0", "-port-file=" + portFile, "-log-format=json", "-spool-dir=" + filepath.Join(dir, "spool"),
	}, args...)
	var err error
	if e.Process, err = StartProcess(bin, dir, "bulk-endpoint", env, args...); err != nil {
		return nil, err
	}
	if err := e.await(ctx, portFile); err != nil {
		e.Kill()
		return nil, err
	}
	return e, nil
}

func (e *Endpoint) await(ctx context.Context, portFile string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if address, err := os.ReadFile(portFile); err == nil {
			e.address = strings.TrimSpace(string(address))
			return nil
		}
		select {
		case <-e.Ended():
			return e.unasked()
		case <-ctx.Done():
			return fmt.Errorf("cannot wait for the endpoint any longer: %w", context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Address is the host and port that it listens on.
func (e *Endpoint) Address() string { return e.address }

// Port that it listens on.
func (e *Endpoint) Port() string {
	_, port, _ := net.SplitHostPort(e.address)
	return port
}

// URL is the base URL of its API.
func (e *Endpoint) URL() string { return "http://" + e.address + basePath }

// Jobs are all that it has made of uploads.
func (e *Endpoint) Jobs(ctx context.Context) ([]map[string]any, error) {
	var jobs []map[string]any
	return jobs, e.get(ctx, "/bulk/jobs?pageSize=200", &jobs)
}

// Rows of an object, the first 200 of them; the memory connector only.
func (e *Endpoint) Rows(ctx context.Context, object string) ([]map[string]string, error) {
	var rows []map[string]string
	return rows, e.get(ctx, "/"+object+"?pageSize=200", &rows)
}

func (e *Endpoint) get(ctx context.Context, path string, to any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.URL()+path, http.NoBody)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Element "+e.Element+", User "+e.User)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("cannot ask the endpoint: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("cannot ask the endpoint: it answered %s", answer.Status)
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxAnswer)).Decode(to); err != nil {
		return fmt.Errorf("cannot read the endpoint's answer: %w", err)
	}
	return nil
}

// Posts counts the uploads that reached it, taken or not, by its own log.
func (e *Endpoint) Posts() (int, error) {
	log, err := os.Open(e.Log)
	if err != nil {
		return 0, fmt.Errorf("cannot read the endpoint's log: %w", err)
	}
	defer log.Close()
	posts := 0
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		var line struct {
			Message string `json:"msg"`
			Method  string `json:"method"`
		}
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Message == "Request" && line.Method == http.MethodPost {
			posts++
		}
	}
	return posts, lines.Err()
}
