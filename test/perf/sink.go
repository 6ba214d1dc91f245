package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/big"
	"mime"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	sinkBase   = "/elements/api-v2"
	sinkObject = "contact"
	sinkBuffer = 256 << 10
	maxPrefix  = 64 << 10 // of what stands before the file
	// What the sink leaves in its folder once it listens.
	sinkPlaceFile = "sink.json"
	sinkCAFile    = "sink-ca.pem"
)

// A sinkPlace is where a sink listens.
type sinkPlace struct {
	HTTP  string `json:"http"` // host:port
	HTTPS string `json:"https"`
}

// An arrival is one upload, as the sink saw it.
type arrival struct {
	Bytes int64         `json:"bytes"` // of the file alone
	Rows  int64         `json:"rows"`  // lines of the file, the header aside
	Begin time.Duration `json:"begin"` // when the first byte of the body was read, since the sink began
	End   time.Duration `json:"end"`   // when the last was
}

// A sink speaks the Bulk API of the protocol page, and throws away what it is sent, as fast as it can or as slowly as it
// is told. A job is complete as soon as it is there.
type sink struct {
	began time.Time
	rate  rate.Limit // bytes a second for each upload; 0 is no limit

	mu       sync.Mutex
	arrivals []arrival
}

// runSink serves http and https on free ports of the loopback until ctx ends.
func runSink(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("sink", flag.ContinueOnError)
	dir := flags.String("dir", ".", "where to leave the addresses and the certificate")
	bytesPerSecond := flags.Int("rate", 0, "bytes a second of each upload; 0: all that come")
	if err := flags.Parse(args); err != nil {
		return err
	}
	certificate, authority, err := selfSigned()
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: (&sink{began: time.Now(), rate: rate.Limit(*bytesPerSecond)}).routes(), ReadHeaderTimeout: time.Minute,
		ErrorLog: log.New(io.Discard, "", 0), // clients that hang up early
		// HTTP/1.1 for everybody: Go's HTTP/2 would be to curl's disadvantage.
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}},
		Protocols: new(http.Protocols),
	}
	server.Protocols.SetHTTP1(true)
	place, ended := sinkPlace{}, make(chan error, 2)
	for _, each := range []struct {
		address *string
		serve   func(net.Listener) error
	}{
		{&place.HTTP, server.Serve},
		{&place.HTTPS, func(l net.Listener) error { return server.ServeTLS(l, "", "") }},
	} {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("cannot listen: %w", err)
		}
		*each.address = listener.Addr().String()
		go func() { ended <- each.serve(listener) }()
	}
	if err := place.leave(*dir, authority); err != nil {
		return err
	}
	select {
	case err := <-ended:
		return fmt.Errorf("cannot go on serving: %w", err)
	case <-ctx.Done():
		return server.Close()
	}
}

// leave writes the certificate first: who finds the addresses finds it too.
func (p *sinkPlace) leave(dir string, authority []byte) error {
	if err := os.WriteFile(filepath.Join(dir, sinkCAFile), authority, 0o600); err != nil {
		return err
	}
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, sinkPlaceFile)
	return errors.Join(os.WriteFile(path+".new", text, 0o600), os.Rename(path+".new", path))
}

func (s *sink) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+sinkBase+"/ping", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]any{"endpoint": "sink", "valid": true})
	})
	mux.HandleFunc("GET "+sinkBase+"/objects", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, []string{sinkObject})
	})
	mux.HandleFunc("GET "+sinkBase+"/bulk/{id}/status", s.status)
	mux.HandleFunc("GET "+sinkBase+"/bulk/{id}/errors", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, []string{})
	})
	mux.HandleFunc("POST "+sinkBase+"/bulk/{object}", s.upload)
	mux.HandleFunc("GET /arrivals", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, s.list()) })
	return mux
}

func (s *sink) list() []arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]arrival{}, s.arrivals...)
}

func (s *sink) status(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.Atoi(r.PathValue("id"))
	all := s.list()
	if err != nil || id < 1 || id > len(all) {
		reply(w, http.StatusNotFound, map[string]any{"message": "no such job"})
		return
	}
	reply(w, http.StatusOK, map[string]any{
		"id": r.PathValue("id"), "status": "COMPLETE", "recordsCount": all[id-1].Rows, "recordsFailedCount": 0,
	})
}

func (s *sink) upload(w http.ResponseWriter, r *http.Request) {
	got, err := s.swallow(r)
	if err != nil {
		reply(w, http.StatusBadRequest, map[string]any{"message": err.Error()})
		return
	}
	s.mu.Lock()
	s.arrivals = append(s.arrivals, got)
	id := len(s.arrivals)
	s.mu.Unlock()
	reply(w, http.StatusOK, map[string]any{"id": strconv.Itoa(id), "status": "CREATED"})
}

// swallow reads a body to its end. Of the multipart form it looks at the beginning and at the end only: a parser would
// have to search all of it for the boundary, and would be what is measured.
func (s *sink) swallow(r *http.Request) (arrival, error) {
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || params["boundary"] == "" {
		return arrival{}, errors.New("this is no multipart form")
	}
	closing := []byte("\r\n--" + params["boundary"] + "--\r\n")
	limiter := rate.NewLimiter(s.rate, sinkBuffer)
	var got arrival
	var head, tail []byte // the first bytes and the last, as long as they may matter
	var total, lines int64
	for buf := make([]byte, sinkBuffer); ; {
		n, err := r.Body.Read(buf)
		if n > 0 && total == 0 {
			got.Begin = time.Since(s.began)
		}
		got.End = time.Since(s.began)
		total += int64(n)
		lines += int64(bytes.Count(buf[:n], []byte{'\n'}))
		head = append(head, buf[:min(n, maxPrefix-len(head))]...)
		tail = append(tail, buf[max(0, n-len(closing)):n]...)
		tail = tail[max(0, len(tail)-len(closing)):]
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return arrival{}, err
		}
		if s.rate > 0 {
			if err := limiter.WaitN(r.Context(), n); err != nil {
				return arrival{}, err
			}
		}
	}
	prefix := beforeFile(head)
	if prefix == nil || !bytes.Equal(tail, closing) {
		return arrival{}, errors.New("the form has no file, or no end")
	}
	got.Bytes = total - int64(len(prefix)) - int64(len(closing))
	got.Rows = lines - int64(bytes.Count(prefix, []byte{'\n'})) - 2 - 1 // of the closing boundary, of the header
	return got, nil
}

// beforeFile is all that stands before the file's first byte, nil if there is no file.
func beforeFile(head []byte) []byte {
	at := bytes.Index(head, []byte(`name="file"`))
	if at < 0 {
		return nil
	}
	blank := bytes.Index(head[at:], []byte("\r\n\r\n"))
	if blank < 0 {
		return nil
	}
	return head[:at+blank+4]
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) //nolint:errchkjson // who has hung up gets no answer
}

// selfSigned makes a certificate for the loopback, good for a day, and its own authority in PEM.
func selfSigned() (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("cannot make a key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench sink"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("cannot make a certificate: %w", err)
	}
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, authority, nil
}
