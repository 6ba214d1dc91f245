package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/controllers"
)

const (
	jobName       = "load"
	connectorName = "crm"
	rows          = 4
	// maxProcesses is more than any schedule kills.
	maxProcesses = 6
	// stillMax bounds how long a process stands still.
	stillMax = 25 * time.Second
	// traceMax bounds what is kept of one schedule.
	traceMax = 600
)

// house is a namespace with an endpoint and a job, in which one schedule runs.
type house struct {
	world     *world
	schedule  schedule
	namespace string
	endpoint  *endpoint
	patience  controllers.Patience
	tamper    func(*process) // changes a process before it starts; nil: none

	mu        sync.Mutex
	processes []*process
	counts    map[string]int   // how often each process came to a place
	happened  int              // faults of the schedule
	owners    map[string]claim // by nonce
	claims    []string         // nonces, in their order
	wholes    map[string]bool  // names of receipts of loads in parts
	looked    map[claim]time.Time
	fenced    map[string]time.Time // nonces
	pending   int                  // what must come to its end before the schedule has
	removed   bool                 // somebody deleted the job
	trace     []string
	began     time.Time
	broken    error // of the harness itself
}

// claim is who claimed which load.
type claim struct {
	process int
	receipt string
}

// newHouse makes a namespace and what is in it, but starts no operator.
func newHouse(ctx context.Context, w *world, s schedule) (*house, error) {
	h := &house{
		world: w, schedule: s, patience: patience, began: time.Now(), counts: map[string]int{},
		owners: map[string]claim{}, wholes: map[string]bool{}, looked: map[claim]time.Time{}, fenced: map[string]time.Time{},
	}
	var err error
	if h.endpoint, err = newEndpoint(h, s.dedup == v1alpha1.DeduplicationAttempt); err != nil {
		return nil, err
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "crash-"}}
	if err := w.client.Create(ctx, ns); err != nil {
		return nil, fmt.Errorf("cannot make a namespace: %w", err)
	}
	h.namespace = ns.Name
	for _, object := range []client.Object{
		&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: connectorName, Labels: map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}},
			StringData: map[string]string{"element": "anyone", "user": "anyone"},
		},
		csv("contacts"), csv("others"), h.connector(), h.job(),
	} {
		object.SetNamespace(h.namespace)
		if err := w.client.Create(ctx, object); err != nil {
			return nil, fmt.Errorf("cannot make %T: %w", object, err)
		}
	}
	return h, nil
}

// marks begin each row of a file, and tell it from those of the other.
var marks = map[string]string{"contacts": "a", "others": "b"}

func csv(name string) *corev1.ConfigMap {
	var text strings.Builder
	text.WriteString("contact_id,email\n")
	for i := range rows {
		fmt.Fprintf(&text, "%d,%s%d@example.com\n", i, marks[name], i)
	}
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"sample.csv": text.String()}}
}

func (h *house) connector() *v1alpha1.ConnectorInstance {
	return &v1alpha1.ConnectorInstance{
		ObjectMeta: metav1.ObjectMeta{Name: connectorName},
		Spec: v1alpha1.ConnectorInstanceSpec{
			BaseURL: h.endpoint.url(), CredentialsRef: v1alpha1.LocalReference{Name: connectorName},
			JobListing: h.schedule.listing, Deduplication: h.schedule.dedup,
			Polling: v1alpha1.Polling{MinIntervalSeconds: 1, MaxIntervalSeconds: 2},
			Limits:  v1alpha1.ConnectorLimits{RequestsPerSecond: 100, MaxConcurrentUploads: 4},
		},
	}
}

func (h *house) job() *v1alpha1.BulkJob {
	job := &v1alpha1.BulkJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: jobName},
		Spec: v1alpha1.BulkJobSpec{
			ConnectorRef: v1alpha1.LocalReference{Name: connectorName}, Object: "contact", Action: h.schedule.action,
			Source: v1alpha1.BulkJobSource{ConfigMap: &v1alpha1.KeyReference{Name: "contacts", Key: "sample.csv"}},
		},
	}
	if h.schedule.action == v1alpha1.ActionUpsert {
		job.Spec.KeyField = "contact_id"
	}
	divide(job, h.schedule.shape)
	return job
}

// divide has a job sent in a shape.
func divide(job *v1alpha1.BulkJob, as shape) {
	job.Spec.Split, job.Spec.Canary = nil, nil
	switch as { //nolint:exhaustive // a canary alone needs no split
	case inTurn:
		job.Spec.Split = &v1alpha1.Split{MaxRows: new(int64(rows / 2)), Parallelism: 1}
	case abreast:
		job.Spec.Split = &v1alpha1.Split{MaxRows: new(int64(1)), Parallelism: 2}
	case canaryAbreast:
		job.Spec.Split = &v1alpha1.Split{MaxRows: new(int64(rows / 2)), Parallelism: 2}
	}
	if as == canary || as == canaryAbreast {
		job.Spec.Canary = &v1alpha1.Canary{Rows: 1}
	}
}

// start starts the next process.
func (h *house) start() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.processes) == maxProcesses {
		h.broken = errors.New("the schedule takes too many processes")
		return
	}
	number := len(h.processes) + 1
	h.noteLocked(fmt.Sprintf("process %d starts", number))
	p, err := newProcess(h, number)
	if err != nil {
		h.broken = errors.Join(h.broken, err)
		return
	}
	h.processes = append(h.processes, p)
}

// follow starts the next process unless one lives.
func (h *house) follow() {
	h.mu.Lock()
	alive := slices.ContainsFunc(h.processes, func(p *process) bool { return !p.gone() })
	h.mu.Unlock()
	if !alive {
		h.start()
	}
}

// process of that number.
func (h *house) process(number int) *process {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.processes[number-1]
}

func (h *house) youngest() *process {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.processes[len(h.processes)-1]
}

// sender is the process that sends a file with that token; without one, the process that claimed last.
func (h *house) sender(token string) *process {
	h.mu.Lock()
	defer h.mu.Unlock()
	if number := h.owners[token[strings.LastIndexByte(token, '.')+1:]].process; number > 0 {
		return h.processes[number-1]
	}
	if n := len(h.claims); n > 0 {
		return h.processes[h.owners[h.claims[n-1]].process-1]
	}
	return h.processes[len(h.processes)-1]
}

// reach notes that a process has come to a place, and says what happens there.
func (h *house) reach(process int, what string) act {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := fmt.Sprintf("%d:%s", process, what)
	h.counts[key]++
	at := place{process, what, h.counts[key]}
	happens := h.schedule.at(at)
	if happens == "" {
		h.noteLocked(at.String())
		return ""
	}
	h.happened++
	h.noteLocked(at.String() + " = " + string(happens))
	return happens
}

// came is true once a process has come to a kind of place.
func (h *house) came(process int, what string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts[fmt.Sprintf("%d:%s", process, what)] > 0
}

func (h *house) note(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.noteLocked(what)
}

func (h *house) noteLocked(what string) {
	if len(h.trace) < traceMax {
		h.trace = append(h.trace, fmt.Sprintf("%6.3f  %s", time.Since(h.began).Seconds(), what))
	}
}

// about names what is asked of the API server as places do: the receipt of a load in parts is a whole.
func (h *house) about(r *http.Request, what string, body []byte) string {
	verb, resource, _ := strings.Cut(what, ".")
	if resource != "bulkreceipts" || verb == "LIST" || verb == "WATCH" {
		return what
	}
	receipt := v1alpha1.BulkReceipt{ObjectMeta: metav1.ObjectMeta{Name: path.Base(r.URL.Path)}}
	if body != nil && json.Unmarshal(body, &receipt) != nil {
		return what
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if receipt.Record.Division != nil {
		h.wholes[receipt.Name] = true
	}
	if h.wholes[receipt.Name] {
		return verb + ".whole"
	}
	return what
}

// noteClaim keeps who claimed which attempt.
func (h *house) noteClaim(p *process, body []byte) {
	var receipt v1alpha1.BulkReceipt
	if json.Unmarshal(body, &receipt) != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, attempt := range receipt.Record.Attempts {
		if h.owners[attempt.Nonce].process == 0 {
			h.owners[attempt.Nonce] = claim{p.number, receipt.Name}
			h.claims = append(h.claims, attempt.Nonce)
		}
	}
}

// noteAnswer keeps when a process looked at its claim last, and which attempts were fenced.
func (h *house) noteAnswer(p *process, r *http.Request, status int, sent []byte) {
	what := asked(r)
	h.mu.Lock()
	defer h.mu.Unlock()
	if status >= 300 {
		h.noteLocked(fmt.Sprintf("%d:%s answered with %d", p.number, what, status))
		return
	}
	switch what {
	case "GET.bulkreceipts":
		h.looked[claim{p.number, path.Base(r.URL.Path)}] = time.Now()
	case "PUT.bulkreceipts":
		var receipt v1alpha1.BulkReceipt
		if json.Unmarshal(sent, &receipt) != nil {
			return
		}
		for _, attempt := range receipt.Record.Attempts {
			if attempt.FencedBy != "" && h.fenced[attempt.Nonce].IsZero() {
				h.fenced[attempt.Nonce] = time.Now()
				h.noteLocked(fmt.Sprintf("process %d has fenced attempt %d", p.number, attempt.Number))
			}
		}
	}
}

// late is true if an attempt has been fenced, and its sender looked at its claim before, but no more since.
func (h *house) late(nonce string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	fenced := h.fenced[nonce]
	return !fenced.IsZero() && h.looked[h.owners[nonce]].Before(fenced)
}

// kill ends a process at once, and starts the next one.
func (h *house) kill(p *process) {
	if p.gone() {
		return
	}
	p.kill()
	h.endpoint.drop(p.number)
	h.note(fmt.Sprintf("process %d is dead", p.number))
	h.follow()
}

// meanwhile does what happens beside a request.
func (h *house) meanwhile(p *process, happens act) {
	job := h.job()
	switch happens { //nolint:exhaustive // the others happen to the request
	case term:
		h.wait(1)
		p.stop()
		go func() {
			defer h.wait(-1)
			<-p.ended
			h.kill(p)
		}()
	case rival:
		h.start()
	case remove, reapply, reshape:
		h.must(h.world.client.Delete(context.Background(), job))
		if happens != remove {
			h.must(h.world.client.Create(context.Background(), h.again(happens)))
			return
		}
		h.mu.Lock()
		h.removed = true
		h.mu.Unlock()
	case suspend:
		h.patch(`{"spec":{"suspend":true}}`)
	case cancel:
		h.patch(`{"spec":{"cancel":true}}`)
	case revert:
		h.patch(`{"spec":{"source":{"configMap":{"name":"contacts"}},"split":null,"canary":null}}`)
	case wake:
		h.mu.Lock()
		for _, p := range h.processes {
			p.thaw()
		}
		h.mu.Unlock()
	case change:
		h.patch(`{"spec":{"source":{"configMap":{"name":"others"}}}}`)
	}
}

// again is the job that is applied once more.
func (h *house) again(how act) *v1alpha1.BulkJob {
	job := h.job()
	switch {
	case how == reshape && h.schedule.shape == "":
		divide(job, inTurn)
	case how == reshape:
		divide(job, "")
	}
	return job
}

func (h *house) patch(text string) {
	h.must(h.world.client.Patch(context.Background(), h.job(), client.RawPatch(types.MergePatchType, []byte(text))))
}

// must keeps an error that is the harness's own.
func (h *house) must(err error) {
	if err == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.broken = errors.Join(h.broken, err)
}

func (h *house) wait(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pending += n
}

// standStill lets a process stand still until another, which starts now, has overtaken it.
func (h *house) standStill(p *process, how act) {
	h.wait(1)
	defer h.wait(-1)
	p.freeze()
	before := h.standing()
	h.start()
	overtaken := func() bool { return h.standing() != before }
	if how == sleep {
		overtaken = h.decided
	}
	for end := time.Now().Add(stillMax); time.Now().Before(end) && !overtaken() && !p.gone() && p.stands(); {
		time.Sleep(20 * time.Millisecond)
	}
	h.note(fmt.Sprintf("process %d goes on", p.number))
	p.thaw()
}

// standing is how far the loads are: it changes when somebody claims, fences, or learns of something.
func (h *house) standing() string {
	var text strings.Builder
	_, receipts := h.seen()
	for i := range receipts {
		record := &receipts[i].Record
		fmt.Fprint(&text, record.JobID, " ", record.Outcome, " ")
		for _, a := range record.Attempts {
			fmt.Fprint(&text, a.Nonce, " ", a.FencedBy, " ", a.Outcome, " ")
		}
	}
	return text.String()
}

// seen are the jobs and the receipts of the house, as they are or were a moment ago, the receipts by name.
func (h *house) seen() ([]v1alpha1.BulkJob, []v1alpha1.BulkReceipt) {
	jobs, receipts := &v1alpha1.BulkJobList{}, &v1alpha1.BulkReceiptList{}
	ctx, here := context.Background(), client.InNamespace(h.namespace)
	h.must(errors.Join(h.world.seen.List(ctx, jobs, here), h.world.seen.List(ctx, receipts, here)))
	slices.SortFunc(receipts.Items, func(a, b v1alpha1.BulkReceipt) int { return strings.Compare(a.Name, b.Name) })
	return jobs.Items, receipts.Items
}

// close ends all processes and the endpoint.
func (h *house) close() {
	h.mu.Lock()
	all := slices.Clone(h.processes)
	h.mu.Unlock()
	for _, p := range all {
		p.kill()
	}
	h.endpoint.close()
}
