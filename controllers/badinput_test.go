package controllers

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
)

// What is hostile or broken is a row of a table, with what its user sees. docs/bad-input.md is made of what the rows were
// seen to come to, so that it cannot say anything else.

var writePage = flag.Bool("update", false, "write docs/bad-input.md anew instead of comparing it")

const badInputPage = "../docs/bad-input.md"

// Where bad input is stopped.
const (
	beforeSending = "before sending"
	onItsWay      = "on its way"
	atEndpoint    = "at the endpoint"
	notStopped    = "not stopped"
)

// canaryValue is in the rows of every bad file, and in what the endpoint says of them. Nobody else may say it.
const canaryValue = "Quagmire"

// badJob is a job with which something is wrong that the API server cannot see.
type badJob struct {
	input   string // in words of the page
	stopped string
	want    string // Ready's reason
	says    string // a part of the message, which tells what is wrong or what to do
	file    []byte // of the job's ConfigMap; nil: a sound one
	edit    func(*v1alpha1.BulkJob)
	answers answers // of the endpoint, to this job alone
}

// answers are an endpoint's to one job, where they are not as they should be; nil: as they should be.
type answers struct {
	upload, status, errors answerFunc
}

type answerFunc func(e *fakeEndpoint, w http.ResponseWriter, r *http.Request)

// sight is one row of the page.
type sight struct {
	input, stopped, state, ready, reason, message string
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	groups := []struct {
		title, about string
		show         func(*testing.T) []sight
		rows         []sight
	}{
		{title: "Files", about: filesAbout, show: showFiles},
		{title: "Manifests that the API server refuses", about: refusedAbout, show: showRefused},
		{title: "Manifests that name what is not there", about: manifestsAbout, show: showManifests},
		{title: "Connectors", about: connectorsAbout, show: showConnectors},
		{title: "What the endpoint answers to an upload", about: uploadsAbout, show: showUploads},
		{title: "What the endpoint says of a job", about: statusesAbout, show: showStatuses},
	}
	t.Run("rows", func(t *testing.T) {
		for i := range groups {
			t.Run(groups[i].title, func(t *testing.T) {
				t.Parallel()
				groups[i].rows = groups[i].show(t)
			})
		}
	})
	if t.Failed() {
		return
	}
	var page strings.Builder
	total := 0
	for _, group := range groups {
		total += len(group.rows)
		writeGroup(&page, group.title, group.about, group.rows)
	}
	comparePage(t, fmt.Sprintf(pageHead, total)+page.String())
}

const pageHead = `# Bad input

%d hostile or broken inputs, and what their user sees. Every line was seen to happen: ` + "`go test ./controllers -run TestBadInput -update`" + `
feeds them to an operator with a real API server and an endpoint, and writes this page; without ` + "`-update`" + ` it fails where the page
says anything else. Names of objects, addresses, times, digests and ids of jobs are made alike here.

STATE, READY and REASON are columns of ` + "`kubectl get bj`" + ` and ` + "`kubectl get ci`" + `; the message is that of the condition Ready, which
` + "`kubectl describe`" + ` shows. What a reason means, and what to do, is in the [runbook](operations.md#runbook).
`

// writeGroup writes one table. Where nothing but messages was seen, the other columns are left out.
func writeGroup(page *strings.Builder, title, about string, rows []sight) {
	fmt.Fprintf(page, "\n## %s\n\n%s\n\n", title, about)
	refused := len(rows) > 0 && rows[0].ready == ""
	if refused {
		page.WriteString("| input | message |\n|---|---|\n")
	} else {
		page.WriteString("| input | stopped | STATE | READY | REASON | message |\n|---|---|---|---|---|---|\n")
	}
	for _, r := range rows {
		if refused {
			fmt.Fprintf(page, "| %s | %s |\n", cell(r.input), code(r.message))
			continue
		}
		fmt.Fprintf(page, "| %s | %s | %s | %s | %s | %s |\n", cell(r.input), r.stopped, cell(r.state), r.ready, r.reason, code(r.message))
	}
}

// cell keeps a text within its cell, and what looks like a tag in sight.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(text)
}

// code shows a text as it is.
func code(text string) string {
	if text == "" {
		return ""
	}
	return "`` " + strings.ReplaceAll(text, "|", `\|`) + " ``"
}

func comparePage(t *testing.T, page string) {
	t.Helper()
	if *writePage {
		if err := os.WriteFile(badInputPage, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	before, err := os.ReadFile(badInputPage)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(before), "\n"), strings.Split(page, "\n")); diff != "" {
		t.Errorf("docs/bad-input.md says something else than what is seen (-page +seen); go test ./controllers -run TestBadInput -update writes it anew:\n%s", diff)
	}
}

// alias is the name of a row's objects. It is as long as the name that the page gives them, so that messages are cut alike.
func alias(i int) string { return fmt.Sprintf("case-%03d", i) }

// sameAlways are what differs from run to run, and what the page has instead.
var sameAlways = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`case-\d{3}`), "contacts"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "127.0.0.1:8443"},
	{regexp.MustCompile(`attempt: br-[a-z2-7]{52}\.\d+`), "attempt: br-….1"}, // a slow machine may have needed two to come so far
	{regexp.MustCompile(`br-[a-z2-7]{52}`), "br-…"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`), "2026-01-02T03:04:05Z"},
	{regexp.MustCompile(`\b42114\d{3}\b`), "42114492"},
	{regexp.MustCompile(`\b([0-9a-f]{8})[0-9a-f]{56}\b`), "$1…"},
}

func alike(text string) string {
	for _, same := range sameAlways {
		text = same.pattern.ReplaceAllString(text, same.instead)
	}
	return text
}

// wellTold fails the test if a message is none for people, or tells what it may not.
func wellTold(t *testing.T, input, message string) {
	t.Helper()
	switch {
	case message == "":
		t.Errorf("%s: there is no message", input)
	case len(message) > maxMessage:
		t.Errorf("%s: the message has %d bytes", input, len(message))
	case strings.Contains(message, canaryValue):
		t.Errorf("%s: the message holds what is in a row: %s", input, message)
	case strings.Contains(message, "%!") || strings.Contains(message, "0x") || strings.Contains(message, "goroutine"):
		t.Errorf("%s: the message is a programmer's: %s", input, message)
	case strings.ContainsFunc(message, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }):
		t.Errorf("%s: the message holds what cannot be shown: %q", input, message)
	}
}

// desk is where the endpoint's bad answers are: each is for the jobs of one object, or for one connector.
type desk struct {
	endpoint *fakeEndpoint

	mu         sync.Mutex
	answers    map[string]answers    // by object
	connectors map[string]answerFunc // by the first segment of their paths
	whole      map[string]int        // uploads that came to their end, by object
}

// desk puts one before the house's endpoint.
func (h *house) desk() *desk {
	d := &desk{endpoint: h.endpoint, answers: map[string]answers{}, connectors: map[string]answerFunc{}, whole: map[string]int{}}
	h.endpoint.set(func(e *fakeEndpoint) { e.before = d.serve })
	return d
}

func (d *desk) serve(w http.ResponseWriter, r *http.Request) bool {
	if answer := d.find(r); answer != nil {
		answer(d.endpoint, w, r)
		return true
	}
	return false
}

func (d *desk) find(r *http.Request) answerFunc {
	path := strings.TrimPrefix(r.URL.Path, "/")
	name, _, _ := strings.Cut(path, "/")
	d.mu.Lock()
	defer d.mu.Unlock()
	if answer := d.connectors[name]; answer != nil {
		return answer
	}
	_, rest, found := strings.Cut(path, "/bulk/")
	if !found {
		return nil
	}
	if r.Method == http.MethodPost {
		object := rest
		r.Body = &toTheEnd{ReadCloser: r.Body, ended: func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.whole[object]++
		}}
		return d.answers[object].upload
	}
	if id, found := strings.CutSuffix(rest, "/status"); found {
		return d.answers[d.object(id)].status
	}
	if id, found := strings.CutSuffix(rest, "/errors"); found {
		return d.answers[d.object(id)].errors
	}
	return nil
}

// object that a job is for.
func (d *desk) object(id string) string {
	d.endpoint.mu.Lock()
	defer d.endpoint.mu.Unlock()
	if job := d.endpoint.jobs[id]; job != nil {
		return job.object
	}
	return ""
}

// toTheEnd tells of an upload that was read to its end.
type toTheEnd struct {
	io.ReadCloser

	ended func()
	once  sync.Once
}

func (c *toTheEnd) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if err == io.EOF {
		c.once.Do(c.ended)
	}
	return n, err
}

// stopped tells where the input of an object's job was stopped.
func (d *desk) stopped(object, reason string) string {
	d.mu.Lock()
	whole := d.whole[object]
	d.mu.Unlock()
	switch {
	case d.endpoint.count("POST /bulk/"+object) == 0:
		return beforeSending
	case whole == 0:
		return onItsWay
	case reason == v1alpha1.ReasonComplete:
		return notStopped
	}
	return atEndpoint
}

// soundCSV is what is sent where the file is not what is wrong.
const soundCSV = "name,email\nAnn " + canaryValue + ",ann@example.com\nBo " + canaryValue + ",bo@example.com\n"

// showJobs makes all jobs, each with an object and a file of its own, and waits until each shows what it should. Then a
// sound one still goes through.
func (h *house) showJobs(d *desk, jobs []badJob) []sight {
	h.t.Helper()
	d.mu.Lock()
	for i := range jobs {
		d.answers[alias(i)] = jobs[i].answers
	}
	d.mu.Unlock()
	made := make([]*v1alpha1.BulkJob, len(jobs))
	for i := range jobs {
		made[i] = h.bad(alias(i), &jobs[i])
	}
	rows := make([]sight, len(jobs))
	for i := range jobs {
		rows[i] = h.shownOf(d, made[i], &jobs[i])
	}
	sound := h.bad("case-999", &badJob{edit: func(j *v1alpha1.BulkJob) { j.Spec.Object = "account" }})
	h.waitReason(sound, v1alpha1.ReasonComplete)
	return rows
}

// bad makes a job and its file.
func (h *house) bad(name string, b *badJob) *v1alpha1.BulkJob {
	h.t.Helper()
	file := b.file
	if file == nil {
		file = []byte(soundCSV)
	}
	h.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, BinaryData: map[string][]byte{"sample.csv": file}})
	return h.job(name, func(j *v1alpha1.BulkJob) {
		j.Spec.Object, j.Spec.Source.ConfigMap.Name = name, name
		if b.edit != nil {
			b.edit(j)
		}
	})
}

func (h *house) shownOf(d *desk, job *v1alpha1.BulkJob, b *badJob) sight {
	h.t.Helper()
	ready := &metav1.Condition{}
	for end := time.Now().Add(patience); ready.Reason != b.want || !strings.Contains(ready.Message, b.says); time.Sleep(25 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Errorf("%s: %s: %s, want %s: … %s …", b.input, ready.Reason, ready.Message, b.want, b.says)
			break
		}
		h.get(job)
		if c := meta.FindStatusCondition(job.Status.Conditions, v1alpha1.ConditionReady); c != nil {
			ready = c
		}
	}
	message := ready.Message
	wellTold(h.t, b.input, message)
	for _, e := range job.Status.RowErrors {
		wellTold(h.t, b.input, e.Reason)
	}
	stopped := d.stopped(job.Spec.Object, b.want)
	if stopped != b.stopped {
		h.t.Errorf("%s: stopped %s, want %s", b.input, stopped, b.stopped)
	}
	return sight{b.input, stopped, job.Status.State, string(ready.Status), ready.Reason, alike(message)}
}

// objects makes the endpoint list the rows' objects, beside those that it has.
func (h *house) objects(n int) {
	h.endpoint.set(func(e *fakeEndpoint) {
		for i := range n {
			e.objects = append(e.objects, alias(i))
		}
	})
}

// quick lets many rows run at once.
func quick(o *Options) { o.MaxUploads, o.Workers = 32, 16 }

func unbounded(ci *v1alpha1.ConnectorInstance) {
	ci.Spec.Limits.MaxConcurrentUploads, ci.Spec.Limits.RequestsPerSecond = 100, 1000
}
