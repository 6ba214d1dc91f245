package endpoint_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"bulkjob.dev/operator/internal/endpoint"
)

// chunked frames a body in chunks, ended by the last, empty one.
func chunked(body []byte) []byte {
	var b bytes.Buffer
	for len(body) > 0 {
		n := min(len(body), 10_000)
		fmt.Fprintf(&b, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	b.WriteString("0\r\n\r\n")
	return b.Bytes()
}

// send writes raw bytes over a connection of its own and cuts it, or reads the answer's status if the bytes are all.
func (r *rig) send(head string, body []byte, whole bool) int {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, head); err != nil {
		r.t.Fatal(err)
	}
	if _, err := conn.Write(body); err != nil {
		r.t.Fatal(err)
	}
	if !whole {
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			r.t.Fatal(err)
		}
	}
	// The answer to a cut request, if any, comes when the server is done with it.
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// A cut upload leaves nothing, wherever it is cut: no job, no row, no file.
func TestCut(t *testing.T) {
	const step = 64 << 10
	file := contacts(28_000)
	body, contentType := multipartBody(file, `{"callback-payload":"cut"}`, false)
	plain := body.Bytes()
	framings := map[string]struct {
		header string
		body   []byte
	}{
		"Content-Length": {fmt.Sprintf("Content-Length: %d", len(plain)), plain},
		"chunked":        {"Transfer-Encoding: chunked", chunked(plain)},
	}
	head := func(framing string) string {
		return fmt.Sprintf("POST /elements/api-v2/bulk/contact HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Type: %s\r\n%s\r\n\r\n",
			authorization, contentType, framing)
	}
	each(t, func(t *testing.T, c endpoint.Connector) {
		t.Helper()
		r := start(t, endpoint.Options{Connector: c})
		for name, framing := range framings {
			length := len(framing.body)
			cuts := []int{0, 1, length - 1, length - 2, length - 3, length - 5, length - 7, length - 8, length - 60}
			for at := step; at < length; at += step {
				cuts = append(cuts, at)
			}
			for _, at := range cuts {
				if status := r.send(head(framing.header), framing.body[:at], false); status/100 == 2 {
					t.Errorf("%s cut at %d of %d: answered %d", name, at, length, status)
				}
			}
			t.Logf("%s: %d bytes cut at %d places", name, length, len(cuts))
		}
		if n := r.jobs(); n > 0 {
			t.Errorf("cut uploads left %d jobs", n)
		}
		r.spoolEmpties()
		for name, framing := range framings {
			if status := r.send(head(framing.header), framing.body, true); status != 200 {
				t.Errorf("%s whole: answered %d", name, status)
			}
		}
		if n := r.jobs(); n != 1 {
			t.Errorf("two whole uploads of one token made %d jobs", n)
		}
	})
}
