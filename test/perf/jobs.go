package main

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/test/stage"
)

const (
	jobsRow     = "jobs-per-second"
	writesRow   = "writes-per-job"
	requestsRow = "requests-per-job"

	// appliers make jobs at once; managerWorkers is how many of each kind work on them, by the manager's default.
	appliers       = 8
	managerWorkers = 20
	pace           = 5       // jobs a second, where each is to be alone with the operator
	modelName      = "model" // of the job that is watched
)

func jobsBenchmarks() []benchmark {
	return []benchmark{{name: "jobs", rows: []string{jobsRow, writesRow, requestsRow}, run: runJobs}}
}

// runJobs measures how fast tiny jobs come to their end, and what each of them costs.
func runJobs(ctx context.Context, e *env) ([]row, error) {
	w, err := e.newWorld(ctx)
	if err != nil {
		return nil, err
	}
	s, rows, err := w.gentle(ctx, e.size(200, 40))
	if err != nil {
		return nil, err
	}
	throughput := row{
		Name: jobsRow, Unit: "/s", bar: ratioAtLeast(0.8),
		What: "Jobs of one line each, applied all at once, until the last has ended; beside it, as many API writes by a loop of client-go " +
			"with the same contents and rights, and as many workers, that knows all answers before.",
		Bound: "the API server, which spends more CPU on a status patch than the operator on the whole job. Beyond the same writes, the " +
			"operator reads each job, its source and its receipt live before the closing boundary leaves.",
	}
	for i := range e.size(3, 1) {
		n := e.size(2000, 200)
		ours, err := w.operatorRound(ctx, fmt.Sprintf("ours-%d", i), n)
		if err != nil {
			return rows, err
		}
		reference, err := w.referenceRound(ctx, fmt.Sprintf("bare-%d", i), n, s)
		if err != nil {
			return rows, err
		}
		throughput.Ours, throughput.Reference = append(throughput.Ours, ours), append(throughput.Reference, reference)
	}
	return append([]row{throughput}, rows...), nil
}

// gentle sends jobs one by one, and counts what each costs. The first is watched: what is written for it is the script of the
// loops that the operator is measured against.
func (w *world) gentle(ctx context.Context, n int) (*script, []row, error) {
	const namespace = "gentle"
	if err := w.house(ctx, namespace, nil); err != nil {
		return nil, nil, err
	}
	manager, err := w.startManager(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = manager.Stop(stopPatience) }()
	if err := w.connected(ctx, namespace); err != nil {
		return nil, nil, err
	}
	s, err := w.record(ctx, namespace)
	if err != nil {
		return nil, nil, err
	}
	before, err := w.calm(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := w.resetTally(ctx); err != nil {
		return nil, nil, err
	}
	w.sayf("%d jobs, %d a second, to see what one costs", n, pace)
	if err := w.runPaced(ctx, namespace, n); err != nil {
		return nil, nil, err
	}
	after, err := w.calm(ctx)
	if err != nil {
		return nil, nil, err
	}
	asked, err := w.tally(ctx)
	if err != nil {
		return nil, nil, err
	}
	documented, err := documentedWrites()
	if err != nil {
		return nil, nil, err
	}
	total, each := written(before, after)
	w.sayf("written: %v; read: %v", each, readings(before, after, n))
	return s, []row{
		{
			Name: writesRow, Unit: "", Ours: []float64{float64(total) / float64(n)}, Reference: []float64{float64(documented)}, bar: exactly(),
			What:  "Writes to the API server by its own count, events among them, for a job that is complete at the first look; beside it, what docs/writes.md says.",
			Bound: "the claim must be on record before the file leaves, and what came of it afterwards.",
		},
		{
			Name: requestsRow, Unit: "", Ours: []float64{float64(asked.Posts+asked.Polls) / float64(n)}, Reference: []float64{2}, bar: exactly(),
			What:  "Requests to the endpoint for the same jobs: the file, and the one poll that the schedule has for them.",
			Bound: "nothing: it is the least that there can be without callbacks.",
		},
	}, nil
}

// runPaced applies jobs at the gentle pace, and waits for their end.
func (w *world) runPaced(ctx context.Context, namespace string, n int) error {
	done, err := w.watchEnds(ctx, namespace, n)
	if err != nil {
		return err
	}
	tick := time.NewTicker(time.Second / pace)
	defer tick.Stop()
	for i := range n {
		if err := w.user.Create(ctx, job(namespace, "paced-"+strconv.Itoa(i), instantObject)); err != nil {
			return err
		}
		<-tick.C
	}
	return done(time.Minute)
}

// calm waits until nothing has been written for a while, and gives the count: events are written behind the work.
func (w *world) calm(ctx context.Context) (map[string]int, error) {
	last, err := w.requests(ctx)
	if err != nil {
		return nil, err
	}
	since := time.Now()
	err = w.await(ctx, time.Minute, "nothing more is written", func() (bool, error) {
		time.Sleep(250 * time.Millisecond)
		now, err := w.requests(ctx)
		if n, _ := written(last, now); n > 0 {
			last, since = now, time.Now()
		}
		return time.Since(since) > 2*time.Second, err
	})
	return last, err
}

// readings are the live reads for each job, by kind.
func readings(before, after map[string]int, n int) map[string]string {
	each := map[string]string{}
	for what := range after {
		if got := after[what] - before[what]; strings.HasPrefix(what, "GET ") && got > n/10 {
			each[what] = fmt.Sprintf("%.1f a job", float64(got)/float64(n))
		}
	}
	return each
}

// documentedWrites are all writes of the straight path, by docs/writes.md.
func documentedWrites() (int, error) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "writes.md"))
	if err != nil {
		return 0, err
	}
	var columns []string
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		switch strings.TrimSpace(cells[0]) {
		case "path":
			columns = cells
		case "straight: the endpoint's first word after CREATED is COMPLETE":
			total := 0
			for i, cell := range cells[1:] {
				n, err := strconv.Atoi(strings.TrimSpace(cell))
				if err != nil {
					return 0, fmt.Errorf("cannot read docs/writes.md: %w", err)
				}
				if method, _, _ := strings.Cut(strings.TrimSpace(columns[i+1]), " "); slices.Contains([]string{"POST", "PUT", "PATCH", "DELETE"}, method) {
					total += n
				}
			}
			return total, nil
		}
	}
	return 0, errors.New("cannot find the straight path in docs/writes.md")
}

// operatorRound is how many jobs a second the operator brings to their end.
func (w *world) operatorRound(ctx context.Context, namespace string, n int) (float64, error) {
	manager, err := w.managed(ctx, namespace)
	if err != nil {
		return 0, err
	}
	defer func() { _ = manager.Stop(stopPatience) }()
	before, err := w.calm(ctx)
	if err != nil {
		return 0, err
	}
	done, err := w.watchEnds(ctx, namespace, n)
	if err != nil {
		return 0, err
	}
	w.sayf("%d jobs at once, by the operator", n)
	profiled := w.profile(ctx, namespace)
	began, cpu := time.Now(), childrenUsage()
	if err := w.apply(ctx, namespace, n, func(*v1alpha1.BulkJob) {}); err != nil {
		return 0, err
	}
	w.sayf("all are applied, after %.1f s", time.Since(began).Seconds())
	if err := done(10 * time.Minute); err != nil {
		return 0, fmt.Errorf("%w; the manager's last words: %s", err, manager.Tail(5))
	}
	took := time.Since(began)
	used := childrenUsage().since(cpu, n)
	if err := profiled(); err != nil {
		return 0, err
	}
	after, err := w.calm(ctx)
	if err != nil {
		return 0, err
	}
	_, each := written(before, after)
	w.sayf("%.1f jobs/s; CPU of each: %s; written: %v; read: %v", float64(n)/took.Seconds(), used, each, readings(before, after, n))
	return float64(n) / took.Seconds(), nil
}

// managed makes a namespace whose connector holds nobody up, and starts a manager for it.
func (w *world) managed(ctx context.Context, namespace string) (*stage.Operator, error) {
	if err := w.house(ctx, namespace, fast); err != nil {
		return nil, err
	}
	manager, err := w.startManager(ctx)
	if err != nil {
		return nil, err
	}
	if err := w.connected(ctx, namespace); err != nil {
		return nil, errors.Join(err, manager.Stop(stopPatience))
	}
	return manager, nil
}

// fast is the connector that holds nobody up.
func fast(spec *v1alpha1.ConnectorInstanceSpec) {
	spec.Limits = v1alpha1.ConnectorLimits{MaxConcurrentUploads: 100, RequestsPerSecond: 1000}
}

// apply makes n jobs for the instant object, several at once.
func (w *world) apply(ctx context.Context, namespace string, n int, made func(*v1alpha1.BulkJob)) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(appliers)
	for i := range n {
		group.Go(func() error {
			one := job(namespace, "job-"+strconv.Itoa(i), instantObject)
			if err := w.user.Create(ctx, one); err != nil {
				return fmt.Errorf("cannot make a job: %w", err)
			}
			made(one)
			return nil
		})
	}
	return group.Wait()
}

// watchEnds watches the jobs of a namespace; what it returns waits until n of them have ended.
func (w *world) watchEnds(ctx context.Context, namespace string, n int) (func(patience time.Duration) error, error) {
	ended := map[string]bool{modelName: true}
	return w.follow(ctx, &v1alpha1.BulkJobList{}, namespace, func(o runtime.Object) (bool, error) {
		if j, ok := o.(*v1alpha1.BulkJob); ok && j.Status.CompletionTime != nil {
			ended[j.Name] = true
		}
		return len(ended) > n, nil
	})
}

// follow shows each object of a kind in a namespace, and each change of one, until enough was seen; what it returns waits for that.
func (w *world) follow(
	ctx context.Context, kind client.ObjectList, namespace string, enough func(runtime.Object) (bool, error),
) (func(patience time.Duration) error, error) {
	ctx, cancel := context.WithCancel(ctx)
	watcher, err := w.user.Watch(ctx, kind, client.InNamespace(namespace))
	if err != nil {
		cancel()
		return nil, fmt.Errorf("cannot watch: %w", err)
	}
	seen := make(chan error, 1)
	go func() {
		for {
			for e := range watcher.ResultChan() {
				if done, err := enough(e.Object); done || err != nil {
					watcher.Stop()
					seen <- err
					return
				}
			}
			// A server may end a watch at any time; the next one begins with all that is there.
			if watcher, err = w.user.Watch(ctx, kind, client.InNamespace(namespace)); err != nil {
				seen <- fmt.Errorf("cannot go on watching: %w", err)
				return
			}
		}
	}()
	return func(patience time.Duration) error {
		defer cancel()
		select {
		case err := <-seen:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(patience):
			return errors.New("cannot wait any longer for the jobs' end")
		}
	}, nil
}

// A script is what the operator writes for one job, in order.
type script struct {
	receipts []*v1alpha1.BulkReceipt
	statuses []v1alpha1.BulkJobStatus
	events   []eventsv1.Event
}

// record has the operator write a script.
func (w *world) record(ctx context.Context, namespace string) (*script, error) {
	jobs, err := w.user.Watch(ctx, &v1alpha1.BulkJobList{}, client.InNamespace(namespace))
	if err != nil {
		return nil, err
	}
	defer jobs.Stop()
	receipts, err := w.user.Watch(ctx, &v1alpha1.BulkReceiptList{}, client.InNamespace(namespace))
	if err != nil {
		return nil, err
	}
	defer receipts.Stop()
	if err := w.user.Create(ctx, job(namespace, modelName, instantObject)); err != nil {
		return nil, err
	}
	s := &script{}
	late := time.After(time.Minute)
	for len(s.receipts) < 3 || len(s.statuses) < 2 {
		var e watch.Event
		select {
		case e = <-jobs.ResultChan():
		case e = <-receipts.ResultChan():
		case <-late:
			return nil, fmt.Errorf("cannot record what the operator writes: %d receipts and %d statuses were seen", len(s.receipts), len(s.statuses))
		}
		switch o := e.Object.(type) {
		case *v1alpha1.BulkJob:
			if e.Type == watch.Modified {
				s.statuses = append(s.statuses, o.Status)
			}
		case *v1alpha1.BulkReceipt:
			s.receipts = append(s.receipts, o)
		}
	}
	return s, w.await(ctx, time.Minute, "both events are there", func() (bool, error) {
		list := &eventsv1.EventList{}
		err := w.user.List(ctx, list, client.InNamespace(namespace))
		s.events = list.Items
		return len(list.Items) == 2, err
	})
}

// referenceRound is how many jobs a second a loop brings to their end that only writes what the operator writes.
func (w *world) referenceRound(ctx context.Context, namespace string, n int, s *script) (float64, error) {
	if err := w.house(ctx, namespace, nil); err != nil {
		return 0, err
	}
	done, err := w.watchEnds(ctx, namespace, n)
	if err != nil {
		return 0, err
	}
	w.sayf("the writes of %d jobs, by a bare loop", n)
	before, err := w.requests(ctx)
	if err != nil {
		return 0, err
	}
	profiled := w.profile(ctx, namespace)
	began, cpu := time.Now(), childrenUsage()
	made := make(chan *v1alpha1.BulkJob, n)
	group, inner := errgroup.WithContext(ctx)
	for range managerWorkers {
		group.Go(func() error {
			for j := range made {
				if err := s.replay(inner, w.operator, j); err != nil {
					return fmt.Errorf("cannot write what the operator writes: %w", err)
				}
			}
			return nil
		})
	}
	err = w.apply(ctx, namespace, n, func(j *v1alpha1.BulkJob) { made <- j })
	close(made)
	if err := errors.Join(err, group.Wait(), done(time.Minute)); err != nil {
		return 0, err
	}
	took, used := time.Since(began), childrenUsage().since(cpu, n)
	if err := profiled(); err != nil {
		return 0, err
	}
	after, err := w.requests(ctx)
	if err != nil {
		return 0, err
	}
	_, each := written(before, after)
	w.sayf("%.1f jobs/s; CPU of each: %s; written: %v", float64(n)/took.Seconds(), used, each)
	return float64(n) / took.Seconds(), nil
}

// replay writes the script for one job.
func (s *script) replay(ctx context.Context, c client.Client, j *v1alpha1.BulkJob) error {
	receipt := &v1alpha1.BulkReceipt{
		ObjectMeta: metav1.ObjectMeta{Namespace: j.Namespace, Name: receiptName()},
		Spec:       s.receipts[0].Spec, Record: s.record(0, j),
	}
	receipt.Spec.SendToken = j.Spec.SendToken
	if err := c.Create(ctx, receipt); err != nil {
		return err
	}
	for i, status := range s.statuses {
		receipt.Record = s.record(i+1, j)
		if err := c.Update(ctx, receipt); err != nil {
			return err
		}
		after := j.DeepCopy()
		after.Status = *status.DeepCopy()
		after.Status.Receipt = receipt.Name
		if err := c.Status().Patch(ctx, after, client.MergeFromWithOptions(j, client.MergeFromWithOptimisticLock{})); err != nil {
			return err
		}
		j = after
		if err := c.Create(ctx, s.event(i, j)); err != nil {
			return err
		}
	}
	return nil
}

func (s *script) record(i int, j *v1alpha1.BulkJob) v1alpha1.BulkReceiptRecord {
	record := *s.receipts[i].Record.DeepCopy()
	record.ClaimedFor = v1alpha1.JobReference{Name: j.Name, UID: string(j.UID)}
	return record
}

func (s *script) event(i int, j *v1alpha1.BulkJob) *eventsv1.Event {
	e := s.events[i].DeepCopy()
	e.ObjectMeta = metav1.ObjectMeta{Namespace: j.Namespace, Name: j.Name + "." + strings.ToLower(rand.Text())}
	e.Regarding.Namespace, e.Regarding.Name, e.Regarding.UID = j.Namespace, j.Name, j.UID
	return e
}

// receiptName is one that no load has: names of receipts are base32 of 32 bytes.
func receiptName() string {
	digest := make([]byte, 32)
	rand.Read(digest) // it never fails: it crashes the process instead
	return "br-" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(digest))
}
