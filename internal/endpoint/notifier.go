package endpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"bulkjob.dev/operator/internal/openconnectors"
)

const (
	notifyTries    = 3
	notifyTimeout  = 10 * time.Second
	notifyInterval = time.Second // doubled twice each time
	maxNotifying   = 32
)

// notifier tells clients of a job's end, at hosts that the administrator has allowed and nowhere else: the URL comes
// from the client, and this process may reach what the client can't.
type notifier struct {
	hosts  []string
	key    []byte
	log    *slog.Logger
	client *http.Client
	slots  chan struct{}
	group  sync.WaitGroup
}

func newNotifier(o Options) *notifier {
	return &notifier{
		hosts: o.CallbackHosts,
		key:   []byte(o.SignatureKey),
		log:   o.Log,
		slots: make(chan struct{}, maxNotifying),
		client: &http.Client{
			Timeout:       notifyTimeout,
			Transport:     &http.Transport{DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// notify sends in the background. A notification is a hint, not a promise: it is lost if the process dies, and dropped
// if too many are on their way.
func (n *notifier) notify(j Job, body map[string]any) {
	if j.CallbackURL == "" {
		return
	}
	if !n.allowed(j.CallbackURL) {
		n.log.Info("Notification not sent: its host isn't allowed", "job", j.ID)
		return
	}
	if payload := j.callbackPayload(); payload != nil {
		body[openconnectors.KeyCallbackPayload] = payload
	}
	text, err := json.Marshal(body)
	if err != nil {
		n.log.Error("Cannot encode a notification", "job", j.ID, "error", err)
		return
	}
	select {
	case n.slots <- struct{}{}:
	default:
		n.log.Error("Notification dropped: too many are on their way", "job", j.ID)
		return
	}
	n.group.Go(func() {
		defer func() { <-n.slots }()
		n.deliver(j, text)
	})
}

func (n *notifier) allowed(address string) bool {
	target, err := url.Parse(address)
	if err != nil || (target.Scheme != "http" && target.Scheme != "https") || target.Hostname() == "" {
		return false
	}
	return slices.Contains(n.hosts, target.Host) || slices.Contains(n.hosts, target.Hostname())
}

func (n *notifier) deliver(j Job, text []byte) {
	wait := notifyInterval
	for try := 1; ; try++ {
		err := n.post(j.CallbackURL, text)
		if err == nil {
			return
		}
		if try == notifyTries {
			n.log.Error("Cannot notify", "job", j.ID, "tries", try, "error", err)
			return
		}
		time.Sleep(wait)
		wait *= 4
	}
}

func (n *notifier) post(address string, text []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), notifyTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("cannot make the request: %w", plain(err))
	}
	req.Header.Set("Content-Type", "application/json")
	if len(n.key) > 0 {
		req.Header.Set(openconnectors.HeaderWebhookSignature, openconnectors.Sign(n.key, text))
	}
	resp, err := n.client.Do(req)
	if err != nil {
		return fmt.Errorf("cannot reach the host: %w", plain(err))
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("cannot deliver: the host answered %d", resp.StatusCode)
	}
	return nil
}

// plain takes the URL, whose query may be secret, out of an error.
func plain(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}

// wait returns once nothing is on its way.
func (n *notifier) wait() { n.group.Wait() }
