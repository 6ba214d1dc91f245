package main

import (
	"bytes"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTellerKeepsCount(t *testing.T) {
	told := &teller{}
	server := httptest.NewServer(told.routes())
	defer server.Close()
	for _, tc := range []struct {
		reason, method, path, body, want string
	}{
		{"what is sent becomes a job that tells of its rows", http.MethodPost, "/bulk/instant", "a,b\n1,2\n3,4\n", `{"id":"instant-2-1","status":"CREATED"}`},
		{"an instant job is complete at the first look", http.MethodGet, "/bulk/instant-2-1/status", "", `"recordsCount":2,"recordsFailedCount":0,"status":"COMPLETE"`},
		{"an endless one runs, though it was never sent", http.MethodGet, "/bulk/endless-1-7/status", "", `"status":"RUNNING"`},
		{"an ended one should not be asked for", http.MethodGet, "/bulk/ended-1-7/status", "", `"status":"COMPLETE"`},
		{"no other job is known", http.MethodGet, "/bulk/1234/status", "", "no such job"},
		{"a connector asks who is there", http.MethodGet, "/objects", "", `["instant","endless","ended"]`},
	} {
		if got := ask(t, tc.method, server.URL+tellerBase+tc.path, tc.body); !strings.Contains(got, tc.want) {
			t.Errorf("%s: %s %s answered %q, want %q", tc.reason, tc.method, tc.path, got, tc.want)
		}
	}
	now := told.read()
	if now.First.IsZero() || now.Sent["br-x"].IsZero() {
		t.Errorf("it does not know when things came: %+v", now)
	}
	if got, want := []int{now.Posts, now.Polls, now.Needless}, []int{1, 4, 1}; !cmp.Equal(got, want) {
		t.Errorf("it counted %v POSTs, polls and needless polls, want %v", got, want)
	}
	ask(t, http.MethodDelete, server.URL+"/tally", "")
	if now := told.read(); now.Posts != 0 || now.Polls != 0 || !now.First.IsZero() {
		t.Errorf("it does not forget: %+v", now)
	}
}

// ask sends a request; a body becomes the file of a form.
func ask(t *testing.T, method, url, body string) string {
	t.Helper()
	var form bytes.Buffer
	parts := multipart.NewWriter(&form)
	if body != "" {
		part, err := parts.CreateFormFile("file", "br-x.1.abc.csv")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(part, body); err != nil {
			t.Fatal(err)
		}
	}
	parts.Close()
	request, err := http.NewRequestWithContext(t.Context(), method, url, &form)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", parts.FormDataContentType())
	request.Header.Set("Authorization", "Element "+tellerElement+", User "+tellerUser)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestRequestCounts(t *testing.T) {
	const metrics = `# TYPE apiserver_request_total counter
apiserver_request_total{code="201",group="bulkjob.dev",resource="bulkreceipts",scope="resource",subresource="",verb="POST",version="v1alpha1"} 3
apiserver_request_total{code="409",group="bulkjob.dev",resource="bulkreceipts",scope="resource",subresource="",verb="POST",version="v1alpha1"} 1
apiserver_request_total{code="200",group="bulkjob.dev",resource="bulkjobs",scope="resource",subresource="status",verb="PATCH",version="v1alpha1"} 2e+06
apiserver_response_sizes_count{resource="bulkjobs",verb="GET"} 7
`
	got, err := countRequests(metrics)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"POST bulkreceipts": 4, "PATCH bulkjobs/status": 2000000}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("counts of requests (-want +got):\n%s", diff)
	}
	later := maps.Clone(got)
	later["POST bulkreceipts"] += 2
	later["GET bulkreceipts"] += 9
	if total, each := written(got, later); total != 2 || each["POST bulkreceipts"] != 2 {
		t.Errorf("written are %d: %v, want the 2 POSTs alone", total, each)
	}
}

func TestPairFits(t *testing.T) {
	m := &model{
		namespace: many, object: endlessObject,
		job: map[string]any{
			"metadata": map[string]any{"name": "model-job", "uid": "uid-of-job"},
			"status":   map[string]any{"receipt": "br-model", "state": "RUNNING", "message": "taken as endless-1-1"},
		},
		receipt: map[string]any{
			"metadata": map[string]any{"name": "br-model", "uid": "uid-of-receipt"},
			"record":   map[string]any{"claimedFor": map[string]any{"name": "model-job", "uid": "uid-of-job"}, "jobID": "endless-1-1", "state": "CREATED"},
		},
	}
	puts, err := m.pair()
	if err != nil {
		t.Fatal(err)
	}
	job, receipt := string(puts[0].Value), string(puts[1].Value)
	name := regexp.MustCompile(`br-[a-z2-7]{52}`).FindString(job)
	uid := regexp.MustCompile(`"uid":"([0-9a-f-]{36})"`).FindStringSubmatch(job)
	id := regexp.MustCompile(`taken as (endless-1-[0-9]+)`).FindStringSubmatch(job)
	switch {
	case name == "" || !strings.HasSuffix(string(puts[1].Key), "/bulkreceipts/many/"+name):
		t.Errorf("the job %s does not name the receipt at %s", job, puts[1].Key)
	case uid == nil || !strings.Contains(receipt, uid[1]):
		t.Errorf("the receipt %s was not claimed for the job %s", receipt, job)
	case id == nil || id[1] == "endless-1-1" || !strings.Contains(receipt, id[1]):
		t.Errorf("the receipt %s and the job %s speak of two jobs at the endpoint", receipt, job)
	case !strings.Contains(job, `"state":"RUNNING"`) || !strings.Contains(receipt, `"state":"CREATED"`):
		t.Errorf("what isn't changed is lost: %s, %s", job, receipt)
	}
	if strings.Contains(job+receipt, "model") || strings.Contains(job+receipt, "uid-of") {
		t.Errorf("something of the model is left: %s, %s", job, receipt)
	}
}

func TestQuantile(t *testing.T) {
	list := make([]float64, 200)
	for i := range list {
		list[i] = float64(i + 1)
	}
	for q, want := range map[float64]float64{0.99: 198, 0.5: 100, 1: 200, 0: 1} {
		if got := quantile(list, q); got != want {
			t.Errorf("quantile %v of 1 to 200 is %v, want %v", q, got, want)
		}
	}
}
