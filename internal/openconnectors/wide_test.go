package openconnectors

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"
)

// tapped counts what is written to the connections that a transport dials.
type tapped struct {
	net.Conn

	writes *atomic.Int64
}

func (t tapped) Write(p []byte) (int, error) {
	t.writes.Add(1)
	return t.Conn.Write(p)
}

func tappedTransport(config *tls.Config) (*http.Transport, *atomic.Int64) {
	writes := new(atomic.Int64)
	return &http.Transport{
		TLSClientConfig: config, TLSHandshakeTimeout: 10 * time.Second,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			return tapped{conn, writes}, err
		},
	}, writes
}

func TestBodiesLeaveInLargePieces(t *testing.T) {
	file := make([]byte, 3<<20+17)
	rand.Read(file)
	want := sha256.Sum256(file)
	arrived := make(chan [sha256.Size]byte, 1)
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		io.Copy(h, r.Body)
		arrived <- [sha256.Size]byte(h.Sum(nil))
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	cases := []struct {
		reason string
		url    string
		body   io.Reader
		writes int64 // at most; 0 is any number
	}{
		{"in clear, a piece each", plain.URL, bytes.NewReader(file), 3<<20/largePieceBytes + 40},
		{"over TLS, a piece each", secure.URL, bytes.NewReader(file), 3<<20/(largePieceBytes/2-recordOverhead) + 40},
		{"what the body gives in halves is no less whole", plain.URL, iotest.HalfReader(bytes.NewReader(file)), 0},
		{"nor over TLS", secure.URL, iotest.HalfReader(bytes.NewReader(file)), 0},
		{"data may come with the end", secure.URL, iotest.DataErrReader(bytes.NewReader(file)), 0},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			base, writes := tappedTransport(&tls.Config{RootCAs: roots})
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, tc.url, tc.body)
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = int64(len(file))
			req.Header.Set("Expect", "100-continue")
			resp, err := SubmitTransport(base).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK || <-arrived != want {
				t.Errorf("status %d, or other bytes arrived", resp.StatusCode)
			}
			if got := writes.Load(); tc.writes > 0 && got > tc.writes {
				t.Errorf("%d writes, want at most %d", got, tc.writes)
			}
		})
	}
}

// TestBrokenBodyStopsThere wants every byte that was handed out before a fault to leave, and none after it.
func TestBrokenBodyStopsThere(t *testing.T) {
	broken := errors.New("broken")
	got := make(chan int64, 1)
	server := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		got <- n
	}))
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	base, _ := tappedTransport(&tls.Config{RootCAs: roots})
	body := io.MultiReader(bytes.NewReader(make([]byte, 200_000)), iotest.ErrReader(broken))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, body)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = 300_000
	req.Header.Set("Expect", "100-continue")
	if _, err := SubmitTransport(base).RoundTrip(req); !errors.Is(err, broken) {
		t.Errorf("got %v, want the body's own error", err)
	}
	if n := <-got; n != 200_000 {
		t.Errorf("%d bytes arrived, want 200,000", n)
	}
}

func TestHandshakeFails(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	cases := []struct {
		reason string
		url    string
		config *tls.Config
		want   func(error) bool
	}{
		{"a stranger's certificate", server.URL, nil, func(err error) bool { return errors.As(err, new(x509.UnknownAuthorityError)) }},
		{
			"another's name", server.URL, &tls.Config{RootCAs: roots, ServerName: "elsewhere.test"},
			func(err error) bool { return errors.As(err, new(x509.HostnameError)) },
		},
		{"nobody speaks", "https://" + silent.Addr().String(), nil, func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			base, _ := tappedTransport(tc.config)
			if strings.Contains(tc.url, silent.Addr().String()) {
				base.TLSHandshakeTimeout = 100 * time.Millisecond
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, tc.url, bytes.NewReader([]byte("x")))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := SubmitTransport(base).RoundTrip(req); err == nil || !tc.want(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestCutDoesNotWait cuts an upload that the other side has stopped to take, over TLS: TLS's own goodbye would wait.
func TestCutDoesNotWait(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.ReadFull(r.Body, make([]byte, 1))
		<-release
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(release) })
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	base, writes := tappedTransport(&tls.Config{RootCAs: roots})
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL, io.LimitReader(rand.Reader, 1<<30))
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = 1 << 30
	ended := make(chan error, 1)
	go func() {
		_, err := SubmitTransport(base).RoundTrip(req)
		ended <- err
	}()
	for before := int64(-1); before != writes.Load() || before < 3; time.Sleep(200 * time.Millisecond) { // until it is stuck
		before = writes.Load()
	}
	began := time.Now()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the cut", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestPiecesAreNobodyElses(t *testing.T) {
	const many = smallPieces + 5
	owners := map[*byte]int{}
	var back []func()
	for i := range many {
		piece, giveBack := takePiece()
		if other, taken := owners[&piece[0]]; taken {
			t.Fatalf("uploads %d and %d have the same piece", other, i)
		}
		owners[&piece[0]] = i
		back = append(back, giveBack)
		if want := map[bool]int{true: largePieceBytes, false: smallPieceBytes}[i == 0]; len(piece) != want {
			t.Errorf("piece %d has %d bytes, want %d", i, len(piece), want)
		}
	}
	for _, giveBack := range back {
		giveBack()
	}
	for range 3 { // one upload after another touches no more than one piece
		piece, giveBack := takePiece()
		if owners[&piece[0]] != 0 {
			t.Errorf("got piece %d though the first is free", owners[&piece[0]])
		}
		giveBack()
	}
}
