package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"bulkjob.dev/operator/api/v1alpha1"
)

// apiServer plays answers to requests, one after the other; the last one again and again.
type apiServer struct {
	mu      sync.Mutex
	answers []http.HandlerFunc
	asked   []string
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	what := "list"
	if r.URL.Query().Get("watch") != "" {
		what = "watch from " + r.URL.Query().Get("resourceVersion")
	} else if !strings.HasSuffix(r.URL.Path, "/bulkjobs") {
		what = "get"
	}
	a.asked = append(a.asked, what)
	answer := a.answers[0]
	if len(a.answers) > 1 {
		a.answers = a.answers[1:]
	}
	a.mu.Unlock()
	answer(w, r)
}

// talking is a session with a server that plays these answers.
func talking(t *testing.T, answers ...http.HandlerFunc) (*session, *apiServer, *bytes.Buffer) {
	t.Helper()
	script := &apiServer{answers: answers}
	server := httptest.NewServer(script)
	t.Cleanup(server.Close)
	t.Setenv("KUBECONFIG", "/dev/null")
	flags := genericclioptions.NewConfigFlags(false)
	namespace := "crm"
	flags.APIServer, flags.Namespace = &server.URL, &namespace
	streams, _, _, problem := genericiooptions.NewTestIOStreams()
	s, err := newSession(flags, streams)
	if err != nil {
		t.Fatal(err)
	}
	return s, script, problem
}

func numbered(job *v1alpha1.BulkJob, version string) *v1alpha1.BulkJob {
	job.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "BulkJob"}
	job.Namespace, job.UID, job.ResourceVersion = "crm", "u", version
	return job
}

func reply(t *testing.T, value any) http.HandlerFunc {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if _, err := w.Write(text); err != nil {
			t.Error(err)
		}
	}
}

func listing(t *testing.T, version string, jobs ...*v1alpha1.BulkJob) http.HandlerFunc {
	t.Helper()
	list := &v1alpha1.BulkJobList{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "BulkJobList"}}
	list.ResourceVersion = version
	for _, job := range jobs {
		list.Items = append(list.Items, *job)
	}
	return reply(t, list)
}

func event(t *testing.T, kind string, object any) http.HandlerFunc {
	t.Helper()
	return reply(t, map[string]any{"type": kind, "object": object})
}

func refusing(t *testing.T, code int32, reason metav1.StatusReason, message string) http.HandlerFunc {
	t.Helper()
	status := metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Code: code, Reason: reason, Message: message,
		Details: &metav1.StatusDetails{Group: "bulkjob.dev", Kind: "bulkjobs"},
	}
	answer := reply(t, status)
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(int(code))
		answer(w, r)
	}
}

func gibberish(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "404 page not found", http.StatusNotFound)
}

// TestFollow loses sight of a job in every way that an API server has, and sees its end all the same.
func TestFollow(t *testing.T) {
	running, over := numbered(underway(), "7"), numbered(finishedWell(v1alpha1.ReasonComplete), "9")
	other := numbered(finishedWell(v1alpha1.ReasonComplete), "9")
	other.UID = "another"
	gone := refusing(t, http.StatusGone, metav1.StatusReasonExpired, "too old resource version")
	for _, tc := range []struct {
		name, reason string
		answers      []http.HandlerFunc
		asked        []string
		says         string // on the way
		err          string
		code         int
	}{
		{name: "over", reason: "nothing is watched that has ended", answers: []http.HandlerFunc{listing(t, "9", over)}, asked: []string{"list"}},
		{
			name: "seen", reason: "the watch tells the end", asked: []string{"list", "watch from 8"},
			answers: []http.HandlerFunc{listing(t, "8", running), event(t, "MODIFIED", over)},
		},
		{
			name: "watch ends", reason: "a watch that ends is begun again", asked: []string{"list", "watch from 8", "list"},
			answers: []http.HandlerFunc{listing(t, "8", running), event(t, "MODIFIED", running), listing(t, "9", over)},
		},
		{
			name: "watch expires", reason: "an old version is asked for anew", asked: []string{"list", "watch from 8", "list"},
			answers: []http.HandlerFunc{listing(t, "8", running), gone, listing(t, "9", over)},
		},
		{
			name: "server away", reason: "a fault of the server passes", asked: []string{"list", "list"}, says: "Waiting on: ",
			answers: []http.HandlerFunc{refusing(t, http.StatusServiceUnavailable, "ServiceUnavailable", "etcd is away"), listing(t, "9", over)},
		},
		{
			name: "deleted", reason: "there is nothing more to see", asked: []string{"list", "watch from 8"}, code: exitError, err: `BulkJob "contacts" was deleted`,
			answers: []http.HandlerFunc{listing(t, "8", running), event(t, "DELETED", running)},
		},
		{
			name: "deleted unseen", reason: "the list lacks it", asked: []string{"list", "watch from 8", "list"}, code: exitError, err: "was deleted",
			answers: []http.HandlerFunc{listing(t, "8", running), gone, listing(t, "9")},
		},
		{name: "replaced", reason: "another job of that name is not the one", asked: []string{"list"}, code: exitError, err: "was deleted", answers: []http.HandlerFunc{listing(t, "9", other)}},
		{
			name: "right lost", reason: "asking again gives nobody a right", asked: []string{"list"}, code: exitError, err: "you lack the right (list bulkjobs.bulkjob.dev)",
			answers: []http.HandlerFunc{refusing(t, http.StatusForbidden, metav1.StatusReasonForbidden, `User "dana" cannot list resource "bulkjobs"`)},
		},
		{name: "not installed", reason: "nor does it install anything", asked: []string{"list"}, code: exitError, err: "install bulkjob-operator", answers: []http.HandlerFunc{gibberish}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, script, problem := talking(t, tc.answers...)
			_, err := s.follow(t.Context(), running, 20*time.Second)
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) || codeOf(err) != tc.code {
				t.Errorf("%s: error %v, code %d; want %q, %d", tc.reason, err, codeOf(err), tc.err, tc.code)
			}
			if diff := cmp.Diff(tc.asked, script.asked); diff != "" {
				t.Errorf("%s: asked (-want +got):\n%s", tc.reason, diff)
			}
			if !strings.Contains(problem.String(), tc.says) { // all that writes has ended
				t.Errorf("%s: it says %q, want %q", tc.reason, problem, tc.says)
			}
		})
	}
}

// Whoever no longer waits is told that the load goes on.
func TestFollowNoLonger(t *testing.T) {
	running := numbered(underway(), "7")
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	s, _, _ := talking(t, listing(t, "8", running), hang)
	_, err := s.follow(t.Context(), running, 100*time.Millisecond)
	if codeOf(err) != exitTimeout || !strings.Contains(err.Error(), "The load goes on") {
		t.Errorf("after a timeout: %d, %v", codeOf(err), err)
	}
	s, _, _ = talking(t, listing(t, "8", running), hang)
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(100*time.Millisecond, func() { cancel(errInterrupted) })
	if _, err := s.follow(ctx, running, 0); codeOf(err) != exitInterrupted || !strings.Contains(err.Error(), "The load goes on") {
		t.Errorf("after Ctrl-C: %d, %v", codeOf(err), err)
	}
}

func TestExplained(t *testing.T) {
	conflict := func(w http.ResponseWriter, r *http.Request) {
		status := metav1.Status{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Code: 409, Reason: metav1.StatusReasonConflict,
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{
				{Type: metav1.CauseTypeFieldManagerConflict, Message: `conflict with "argocd-controller"`},
				{Type: metav1.CauseTypeFieldManagerConflict, Message: `conflict with "argocd-controller"`},
			}},
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusConflict)
		reply(t, status)(w, r)
	}
	for _, tc := range []struct {
		reason string
		answer http.HandlerFunc
		want   string
	}{
		{"no such path", gibberish, "does not know the kinds of bulkjob.dev"},
		{"not known", refusing(t, 401, metav1.StatusReasonUnauthorized, "Unauthorized"), "log in again"},
		{"a policy's own words", refusing(t, 403, metav1.StatusReasonForbidden, "quota\nexceeded"), "quota exceeded"},
		{"kept by another", conflict, `it is kept by "argocd-controller", with other values`},
		{"changed meanwhile", refusing(t, 409, metav1.StatusReasonConflict, "the object has been modified"), "it was changed meanwhile"},
		{"refused by the API's rules", refusing(t, 422, metav1.StatusReasonInvalid, "spec.object: too long"), "spec.object: too long"},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			s, _, _ := talking(t, tc.answer)
			err := s.client.Get(t.Context(), s.key("contacts"), &v1alpha1.BulkJob{})
			got := s.explained("get it", err)
			if got == nil || !strings.Contains(got.Error(), tc.want) || !strings.HasPrefix(got.Error(), `cannot get it in namespace "crm": `) {
				t.Errorf("it says %v, want %q", got, tc.want)
			}
			if !errors.Is(got, err) {
				t.Error("the words have lost their cause")
			}
			_, raw := s.read(t.Context(), resourceJobs, "contacts", tables)
			if raw == nil || !strings.Contains(raw.Error(), tc.want) {
				t.Errorf("for a table it says %v, want %q", raw, tc.want)
			}
		})
	}
	if got := missing("BulkJob", "x", "crm", nil, "").Error(); got != `there is no BulkJob "x" in namespace "crm"; there is none at all` {
		t.Error(got)
	}
	many := strings.Split(strings.Repeat("a ", 25)+"a", " ")
	if got := listed(many); !strings.HasSuffix(got, "a and 6 more") {
		t.Error(got)
	}
}
