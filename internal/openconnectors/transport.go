package openconnectors

import (
	"crypto/tls"
	"io"
	"net/http"
	"time"
)

// MaxAnswerBytes bounds every answer's body: 1 MiB.
const MaxAnswerBytes = 1 << 20

// SubmitTransport gives a transport of its own for uploads, like t in how it
// dials and in what it trusts. HTTP/1.1 without kept connections, because Go's
// transport may send a request again on a connection that died under it; and
// patient enough with "Expect: 100-continue" that a refusal comes before the file
// has left. Files leave in larger pieces than net/http's.
func SubmitTransport(t *http.Transport) *http.Transport {
	s := t.Clone()
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true)
	s.ForceAttemptHTTP2 = false
	s.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	if s.TLSClientConfig != nil {
		s.TLSClientConfig.NextProtos = []string{"http/1.1"}
	}
	s.DisableKeepAlives = true
	s.ExpectContinueTimeout = time.Second
	s.ResponseHeaderTimeout = 0 // Upload.AnswerTimeout is the bound
	widen(s)
	return s
}

// bounded ends every answer's body with ErrTooLarge at MaxAnswerBytes, so that no
// caller has to think of it.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = &limited{ReadCloser: resp.Body, left: MaxAnswerBytes}
	return resp, nil
}

type limited struct {
	io.ReadCloser
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	// One byte more than is left tells an answer that just fits from one that doesn't.
	p = p[:min(int64(len(p)), l.left+1)]
	n, err := l.ReadCloser.Read(p)
	if int64(n) > l.left {
		n, l.left = int(l.left), 0
		return n, ErrTooLarge
	}
	l.left -= int64(n)
	return n, err
}
