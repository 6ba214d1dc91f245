package e2e_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/test/stage"
)

// ask gets a page and its status, with a bearer token unless that is empty.
func ask(t *testing.T, url, token string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	// The manager makes a certificate for itself where it is given none.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 4<<20))
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

func TestServing(t *testing.T) {
	h := newHouse(t, stage.ContactTable)
	address, err := stage.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	h.start("--metrics-bind-address=" + address)
	h.apply("")
	h.awaitEnd("contacts", v1alpha1.ReasonComplete)

	for _, account := range []string{"nobody", "scraper"} {
		h.kubectl("create", "serviceaccount", account)
	}
	h.kubectl("create", "clusterrolebinding", h.namespace, "--clusterrole=bulkjob-metrics-reader", "--serviceaccount="+h.namespace+":scraper")
	for _, tt := range []struct {
		reason, url, account string
		status               int
	}{
		{"a cluster asks whether the process lives", "http://" + h.operator.Probes + "/healthz", "", http.StatusOK},
		{"and whether it can work", "http://" + h.operator.Probes + "/readyz", "", http.StatusOK},
		{"metrics are not for strangers", "https://" + address + "/metrics", "", http.StatusUnauthorized},
		{"nor for everybody with an account", "https://" + address + "/metrics", "nobody", http.StatusForbidden},
		{"but for whom the administrator lets read them", "https://" + address + "/metrics", "scraper", http.StatusOK},
	} {
		token := ""
		if tt.account != "" {
			if token, err = cluster.Token(t.Context(), h.namespace, tt.account); err != nil {
				t.Fatal(err)
			}
		}
		status, text := ask(t, tt.url, token)
		if status != tt.status {
			t.Errorf("%s: %s answered %d, not %d", tt.reason, tt.url, status, tt.status)
		}
		if tt.account != "scraper" {
			continue
		}
		for _, line := range []string{
			`bulkjob_finished_total{reason="Complete",result="Complete"} 1`,
			`bulkjob_attempts_total{outcome="Accepted"} 1`,
			`bulkjob_endpoint_requests_total{action="submit",code="200",endpoint="` + h.endpoint.Address() + `"} 1`,
			`bulkjob_jobs{state="Finished"} 1`,
		} {
			if !strings.Contains(text, line+"\n") {
				t.Errorf("the metrics have no line %s", line)
			}
		}
	}
}
