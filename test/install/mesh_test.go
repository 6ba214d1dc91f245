package install_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/test/stage"
)

// proxies are two ways through HAProxy. Like those of meshes both hold a request whole; the first repeats it on a 503.
const proxies = `global
  tune.bufsize 131072
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  retries 2
  retry-on all-retryable-errors
  option http-buffer-request
listen repeating
  bind %s
  server gateway %s
listen told
  bind %s
  http-request disable-l7-retry if METH_POST
  server gateway %s
`

// forgetful is a gateway before an endpoint that loses the answer to its first upload, and says 503 as gateways do.
func forgetful(t *testing.T, endpoint *stage.Endpoint) (address string, uploads *atomic.Int32) {
	t.Helper()
	to, err := url.Parse("http://" + endpoint.Address())
	if err != nil {
		t.Fatal(err)
	}
	uploads = &atomic.Int32{}
	gateway := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ModifyResponse: func(answer *http.Response) error {
			if answer.Request.Method == http.MethodPost && uploads.Add(1) == 1 {
				answer.StatusCode, answer.Status = http.StatusServiceUnavailable, ""
				answer.Body = io.NopCloser(bytes.NewReader(nil))
				answer.Header = http.Header{}
				answer.ContentLength = 0
			}
			return nil
		},
	})
	t.Cleanup(gateway.Close)
	return gateway.Listener.Addr().String(), uploads
}

// TestRetryingProxy has a real proxy repeat an upload whose answer was lost: an endpoint that recognises the token makes one
// job of it. Told to repeat no POST, the proxy hands the 503 on, and the operator knows that it doesn't know.
func TestRetryingProxy(t *testing.T) {
	p, admin := plane(t)
	if err := p.Install(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	type way struct {
		name, address string
		endpoint      *stage.Endpoint
		uploads       *atomic.Int32
	}
	ways := []*way{{name: "repeating"}, {name: "told"}}
	var config []any
	var allowed []string
	for _, w := range ways {
		var err error
		if w.endpoint, err = stage.StartEndpoint(t.Context(), bin, t.TempDir(), ""); err != nil {
			t.Fatal(err)
		}
		stopped(t, w.endpoint.Process)
		if w.address, err = stage.FreeAddress(); err != nil {
			t.Fatal(err)
		}
		var gateway string
		gateway, w.uploads = forgetful(t, w.endpoint)
		config = append(config, w.address, gateway)
		allowed = append(allowed, strings.Replace(w.address, ":", "/32:", 1))
	}
	proxy(t, fmt.Sprintf(proxies, config...), ways[1].address)
	operator, err := p.StartOperator(t.Context(), bin, t.TempDir(), "1", "--allow-private="+strings.Join(allowed, ","))
	if err != nil {
		t.Fatal(err)
	}
	stopped(t, operator.Process)
	for _, w := range ways {
		if err := admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.name}}); err != nil {
			t.Fatal(err)
		}
		samples := stage.Samples{
			Root: root, Namespace: w.name, URL: strings.Replace(w.endpoint.URL(), w.endpoint.Address(), w.address, 1),
			Element: w.endpoint.Element, User: w.endpoint.User,
		}
		folder, err := samples.Write(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		kubectl(t, p, "apply", "--server-side", "-k", folder)
	}
	told := awaitJob(t, admin, "told", "is in doubt", func(job *v1alpha1.BulkJob) bool {
		return job.Status.Receipt != "" && outcome(receiptOf(t, admin, job)) != ""
	})
	if got := outcome(receiptOf(t, admin, told)); got != v1alpha1.AttemptUnknown || ways[1].uploads.Load() != 1 {
		t.Errorf("a proxy that is told not to repeat: %d uploads, outcome %s; want 1, Unknown", ways[1].uploads.Load(), got)
	}
	done := awaitJob(t, admin, "repeating", "has ended", func(job *v1alpha1.BulkJob) bool { return job.Status.CompletionTime != nil })
	receipt := receiptOf(t, admin, done)
	if len(receipt.Record.Attempts) != 1 || outcome(receipt) != v1alpha1.AttemptAccepted {
		t.Errorf("the operator sees %d attempts, the last %s", len(receipt.Record.Attempts), outcome(receipt))
	}
	jobs, err := ways[0].endpoint.Jobs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rows, err := ways[0].endpoint.Rows(t.Context(), "contact")
	if err != nil {
		t.Fatal(err)
	}
	if got := ways[0].uploads.Load(); got != 2 || len(jobs) != 1 || len(rows) != 10 {
		t.Errorf("the proxy sent %d uploads, of which the endpoint made %d jobs and %d rows; want 2, 1 and 10", got, len(jobs), len(rows))
	}
}

// outcome is that of the only attempt, or of the first.
func outcome(receipt *v1alpha1.BulkReceipt) v1alpha1.AttemptOutcome {
	if len(receipt.Record.Attempts) == 0 {
		return ""
	}
	return receipt.Record.Attempts[0].Outcome
}

// proxy runs HAProxy until the test ends, and returns once it listens at an address.
func proxy(t *testing.T, config, address string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	program := strings.TrimSpace(script(t, nil, "hack/haproxy.sh"))
	process, err := stage.StartProcess(filepath.Dir(program), dir, filepath.Base(program), nil, "-db", "-f", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(process.Kill)
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		connection, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err == nil {
			connection.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("HAProxy does not listen: %v: %s", err, process.Tail(20))
		}
	}
}
