package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/test/stage"
)

const (
	peerSpeed  = "peer-jobs-per-second"
	peerWrites = "peer-writes-per-job"
	peerMemory = "peer-memory"
)

// peerScript is what people put into a Job: send the file, then ask until it is done.
const peerScript = `set -eu
ask() { curl -sSf -H "Authorization: Element $ELEMENT, User $SECRET" "$@"; }
id=$(ask -F 'metaData={"format":"csv"};type=application/json' -F file=@rows.csv "$URL/bulk/instant" | sed 's/.*"id":"\([^"]*\)".*/\1/')
while sleep 2; do
  case $(ask "$URL/bulk/$id/status") in
  *'"status":"COMPLETE'*) exit 0 ;;
  *'"status":"ABORTED'* | *'"status":"ERROR'* | *'"status":"CANCEL'*) exit 1 ;;
  esac
done
`

func peerBenchmarks() []benchmark {
	return []benchmark{{name: "peer", rows: []string{peerSpeed, peerWrites, peerMemory}, run: runPeer}}
}

// A cost is what some jobs took.
type cost struct {
	perSecond float64
	writes    float64 // for each
	memory    float64 // bytes, at the peak, beyond what was there before
}

// runPeer sets the operator beside Kubernetes Jobs whose pods call curl.
func runPeer(ctx context.Context, e *env) ([]row, error) {
	w, err := e.newWorld(ctx)
	if err != nil {
		return nil, err
	}
	kind := " Beside it: as many Kubernetes Jobs with a script of curl, by the real Job controller and a node that runs pods as bare processes."
	rows := []row{
		{
			Name: peerSpeed, Unit: "/s", bar: ratioAtLeast(1), What: "500 jobs of one line, applied at once, until the last has ended." + kind,
			Bound: "the API server on our side; on the other, the start of a shell and of two curls for each job as well.",
		},
		{
			Name: peerWrites, bar: notAbove(), What: "Writes to the API server for each, besides the user's own." + kind,
			Bound: "two of ours are events; of a kubelet's and the scheduler's the node leaves out all that it can.",
		},
		{
			Name: peerMemory, Unit: "MiB", bar: notAbove(),
			What: "Memory that the same jobs take at the peak: the growth of the manager's resident memory; beside it, what the pods' processes " +
				"use for themselves (PSS), without any container's overhead, 110 pods at once.",
			Bound: "the garbage collector's rhythm; the other side's shells.",
		},
	}
	for i := range e.size(3, 1) {
		n := e.size(500, 50)
		ours, err := w.byOperator(ctx, "operator-"+strconv.Itoa(i), n)
		if err != nil {
			return nil, err
		}
		theirs, err := w.byJobs(ctx, "curl-"+strconv.Itoa(i), n)
		if err != nil {
			return nil, err
		}
		for j, of := range []func(*cost) float64{
			func(c *cost) float64 { return c.perSecond },
			func(c *cost) float64 { return c.writes },
			func(c *cost) float64 { return c.memory / mib },
		} {
			rows[j].Ours, rows[j].Reference = append(rows[j].Ours, of(ours)), append(rows[j].Reference, of(theirs))
		}
	}
	return rows, nil
}

// byOperator has a manager do the jobs.
func (w *world) byOperator(ctx context.Context, namespace string, n int) (*cost, error) {
	manager, err := w.managed(ctx, namespace)
	if err != nil {
		return nil, err
	}
	defer func() { _ = manager.Stop(stopPatience) }()
	c := &cost{}
	c.memory, err = growthOf(manager.ID(), func() error {
		before, err := w.calm(ctx)
		if err != nil {
			return err
		}
		done, err := w.watchEnds(ctx, namespace, n)
		if err != nil {
			return err
		}
		w.sayf("%d jobs, by the operator", n)
		began := time.Now()
		if err := w.apply(ctx, namespace, n, func(*v1alpha1.BulkJob) {}); err != nil {
			return err
		}
		if err := done(10 * time.Minute); err != nil {
			return err
		}
		c.perSecond = float64(n) / time.Since(began).Seconds()
		after, err := w.calm(ctx)
		total, _ := written(before, after)
		c.writes = float64(total) / float64(n)
		return err
	})
	return c, err
}

// byJobs has the Job controller and a node do them.
func (w *world) byJobs(ctx context.Context, namespace string, n int) (*cost, error) {
	if err := w.house(ctx, namespace, nil); err != nil {
		return nil, err
	}
	peer, err := stage.StartProcess(os.Getenv("BULKJOB_PEER"), w.dir, "peer",
		[]string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + w.dir}, "--kubeconfig="+w.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("%w (BULKJOB_PEER is the folder that hack/peer.sh prints)", err)
	}
	defer func() { _ = peer.Stop(stopPatience) }()
	before, err := w.requests(ctx)
	if err != nil {
		return nil, err
	}
	done, err := w.watchJobs(ctx, namespace, n)
	if err != nil {
		return nil, err
	}
	stop := make(chan struct{})
	peak := make(chan float64, 1)
	go func() { peak <- peakOf(peer.ID(), stop) }()
	w.sayf("%d Kubernetes Jobs that call curl", n)
	began := time.Now()
	if err := w.applyJobs(ctx, namespace, n); err != nil {
		return nil, err
	}
	err = done(10 * time.Minute)
	took := time.Since(began)
	close(stop)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, peer.Tail(5))
	}
	total, err := w.writtenForJobs(ctx, before)
	return &cost{perSecond: float64(n) / took.Seconds(), writes: float64(total) / float64(n), memory: <-peak}, err
}

// writtenForJobs are all writes since before for Jobs and their pods, but the user's own.
func (w *world) writtenForJobs(ctx context.Context, before map[string]int) (int, error) {
	time.Sleep(2 * time.Second) // events are written behind the work
	after, err := w.requests(ctx)
	total, each := 0, map[string]int{}
	for what, n := range after {
		method, resource, _ := strings.Cut(what, " ")
		resource, _, _ = strings.Cut(resource, "/")
		mine := resource == "jobs" || resource == "pods" || resource == "events"
		if n -= before[what]; n > 0 && mine && what != "POST jobs" && method != "GET" && method != "LIST" && method != "WATCH" {
			each[what] = n
			total += n
		}
	}
	w.sayf("written: %v", each)
	return total, err
}

// applyJobs makes n Jobs, several at once.
func (w *world) applyJobs(ctx context.Context, namespace string, n int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(appliers)
	for i := range n {
		group.Go(func() error {
			if err := w.user.Create(ctx, w.curlJob(namespace, "job-"+strconv.Itoa(i))); err != nil {
				return fmt.Errorf("cannot make a Job: %w", err)
			}
			return nil
		})
	}
	return group.Wait()
}

func (w *world) curlJob(namespace, name string) *batchv1.Job {
	rows := corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "crm"}}}
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: batchv1.JobSpec{
			BackoffLimit: new(int32(0)),
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever,
				Volumes:       []corev1.Volume{{Name: "rows", VolumeSource: rows}},
				Containers: []corev1.Container{{
					Name: "curl", Image: "curl", Command: []string{"bash", "-c", peerScript},
					Env: []corev1.EnvVar{
						{Name: "URL", Value: "http://" + w.address + tellerBase},
						{Name: "ELEMENT", Value: tellerElement},
						{Name: "SECRET", Value: tellerUser},
					},
				}},
			}},
		},
	}
}

// watchJobs is watchEnds for Jobs; one that fails ends the wait.
func (w *world) watchJobs(ctx context.Context, namespace string, n int) (func(patience time.Duration) error, error) {
	complete := map[string]bool{}
	return w.follow(ctx, &batchv1.JobList{}, namespace, func(o runtime.Object) (bool, error) {
		j, ok := o.(*batchv1.Job)
		if !ok {
			return false, nil
		}
		for _, c := range j.Status.Conditions {
			switch {
			case c.Type == batchv1.JobFailed && c.Status == corev1.ConditionTrue:
				return false, fmt.Errorf("cannot go on: Job %s failed", j.Name)
			case c.Type == batchv1.JobComplete && c.Status == corev1.ConditionTrue:
				complete[j.Name] = true
			}
		}
		return len(complete) == n, nil
	})
}

// peakOf is the most memory that the descendants of a process use at any time until stop, in bytes. What they share with
// others counts in part.
func peakOf(parent int, stop <-chan struct{}) float64 {
	var peak int64
	for {
		peak = max(peak, descendantsMemory(parent))
		select {
		case <-stop:
			return float64(peak)
		case <-time.After(250 * time.Millisecond):
		}
	}
}

func descendantsMemory(parent int) int64 {
	children := map[string][]string{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is a good one
	for _, path := range stats {
		if _, fields := processStat(path); len(fields) > 1 {
			children[fields[1]] = append(children[fields[1]], filepath.Base(filepath.Dir(path)))
		}
	}
	var total int64
	for next := children[strconv.Itoa(parent)]; len(next) > 0; next = next[1:] {
		id := next[0]
		kilobytes, err := strconv.ParseInt(strings.TrimSuffix(field("/proc/"+id+"/smaps_rollup", "Pss"), " kB"), 10, 64)
		if err == nil {
			total += kilobytes * kib
		}
		next = append(next, children[id]...)
	}
	return total
}
