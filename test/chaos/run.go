package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

const watchInterval = 5 * time.Second

var errBad = errors.New("the promise was not kept")

// run is one run, from nothing to nothing: only the folder of logs is left, and that only if it is needed.
func run(ctx context.Context, s settings) (err error) {
	dir, err := os.MkdirTemp("", "bulkjob-chaos-")
	if err != nil {
		return fmt.Errorf("cannot make a folder: %w", err)
	}
	began := time.Now()
	fmt.Fprintf(os.Stdout, "chaos: seed %d  jobs %d  kills %d  storm %v  logs in %s\n", s.seed, s.jobs, s.kills, s.storm, dir)
	w, err := newWorld(ctx, &s, dir)
	defer func() {
		err = errors.Join(err, w.end())
		if err == nil && !s.keep {
			err = os.RemoveAll(dir)
		} else {
			fmt.Fprintln(os.Stdout, "chaos: logs are in", dir)
		}
		fmt.Fprintf(os.Stdout, "chaos: %.0f s in all\n", time.Since(began).Seconds())
	}()
	if err != nil {
		return err
	}
	storm, err := newWeather(w)
	if err != nil {
		return err
	}
	if err := storm.putLarge(); err != nil {
		return err
	}
	w.sayf("the storm begins")
	watching, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		storm.watch(watching)
	}()
	err = storm.rage(ctx)
	if err == nil {
		w.sayf("the storm is over; up to %v of calm begin", s.calm)
		err = storm.settle(ctx)
	}
	stop()
	<-done
	if err != nil {
		return err
	}
	return storm.conclude(ctx)
}

// snapshot is what the cluster says of all jobs and receipts.
func (w *weather) snapshot(ctx context.Context) (map[string]*v1alpha1.BulkJob, map[string]*v1alpha1.BulkReceipt, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*answerIn)
	defer cancel()
	jobs, receipts := &v1alpha1.BulkJobList{}, &v1alpha1.BulkReceiptList{}
	if err := w.admin.List(ctx, jobs, client.InNamespace(namespace)); err != nil {
		return nil, nil, fmt.Errorf("cannot list the jobs: %w", err)
	}
	if err := w.admin.List(ctx, receipts, client.InNamespace(namespace)); err != nil {
		return nil, nil, fmt.Errorf("cannot list the receipts: %w", err)
	}
	job, receipt := map[string]*v1alpha1.BulkJob{}, map[string]*v1alpha1.BulkReceipt{}
	for i := range jobs.Items {
		job[jobs.Items[i].Name] = &jobs.Items[i]
	}
	for i := range receipts.Items {
		receipt[receipts.Items[i].Name] = &receipts.Items[i]
	}
	return job, receipt, nil
}

// watch says how things stand, and tells the proxy which jobs may vanish.
func (w *weather) watch(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(watchInterval):
		}
		jobs, receipts, err := w.snapshot(ctx)
		if err != nil {
			w.report("kube-apiserver does not answer")
			continue
		}
		var ids []string
		for _, receipt := range receipts {
			if receipt.Record.JobID != "" {
				ids = append(ids, receipt.Record.JobID)
			}
		}
		w.proxy.know(ids)
		stands := map[string]int{}
		for _, job := range jobs {
			_, reason, _ := standing(job)
			stands[reason]++
		}
		w.report(counted(stands))
	}
}

func (w *weather) report(stands string) {
	faults, _ := w.proxy.count()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sayf("jobs %d  kills %d  stops %d  faults %d  (%s)", w.made, w.kills, w.stops, faults, stands)
}

// standing is a job's state in a word: whether it has ended or is stalled, and its reason.
func standing(job *v1alpha1.BulkJob) (settled bool, reason, message string) {
	reason = "new"
	if ready := meta.FindStatusCondition(job.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		reason, message = ready.Reason, ready.Message
	}
	if stalled(job) {
		told := meta.FindStatusCondition(job.Status.Conditions, v1alpha1.ConditionStalled)
		reason, message = told.Reason, told.Message
	}
	return stalled(job) || job.Status.CompletionTime != nil, reason, message
}

func stalled(job *v1alpha1.BulkJob) bool {
	return meta.IsStatusConditionTrue(job.Status.Conditions, v1alpha1.ConditionStalled)
}

// settle waits until every job has ended or is stalled, and that twice in a row: who is stalled may go on. What has not
// come to rest when the calm is over is stuck, and judged so.
func (w *weather) settle(ctx context.Context) error {
	end, quiet := time.Now().Add(w.calm), 0
	for time.Now().Before(end) && quiet < 2 {
		for _, p := range append(w.managers[:], w.endpoint, w.apiServer, w.etcd) {
			if err := p.healthy(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
		if jobs, receipts, err := w.snapshot(ctx); err == nil && w.settled(jobs) && !w.partsRun(receipts) {
			quiet++
		} else {
			quiet = 0
		}
	}
	return nil
}

// settled is true if every job has ended or is stalled.
func (w *weather) settled(jobs map[string]*v1alpha1.BulkJob) bool {
	for _, l := range w.loads {
		for _, name := range l.names() {
			if jobs[name] == nil {
				return false
			}
			if settled, _, _ := standing(jobs[name]); !settled {
				return false
			}
		}
	}
	return true
}

// partsRun is true while the endpoint works on any part: the job may say before that another one is held.
func (w *weather) partsRun(receipts map[string]*v1alpha1.BulkReceipt) bool {
	vanished, _ := w.proxy.spoilt()
	for _, receipt := range receipts {
		if record := &receipt.Record; receipt.Spec.Part != nil && record.JobID != "" && record.Outcome == "" && !vanished[record.JobID] {
			return true
		}
	}
	return false
}

// conclude judges, and says so in one line.
func (w *weather) conclude(ctx context.Context) error {
	e, err := w.gather(ctx)
	if err != nil {
		return err
	}
	j := judge(e)
	faults, kinds := w.proxy.count()
	panics, err := w.panics()
	if err != nil {
		return err
	}
	w.sayf("faults: %s", counted(kinds))
	files, parts := e.divided()
	w.sayf("in parts: %d files, %d parts of them claimed", files, parts)
	w.sayf("ends by themselves: managers %d, endpoint %d, kube-apiserver %d, etcd %d",
		w.managers[0].unasked()+w.managers[1].unasked(), w.endpoint.unasked(), w.apiServer.unasked(), w.etcd.unasked())
	w.sayf("ended: %s; repeated to the endpoint and recognised: %s", counted(j.ended), counted(e.repeated))
	for _, name := range slices.Sorted(maps.Keys(j.twice)) {
		w.sayf("accepted twice: %s: %s", name, j.twice[name])
	}
	for name, list := range map[string][]string{"lost": j.lost, "stuck": j.stuck, "panic": panics} {
		for _, line := range list {
			w.sayf("%s: %s", name, line)
		}
	}
	held := ""
	if len(j.held) > 0 {
		held = " (" + counted(j.held) + ")"
	}
	fmt.Fprintf(os.Stdout, "chaos: seed %d  jobs %d  kills %d  stops %d  faults %d  accepted twice: %d  lost: %d  stuck: %d  held: %d%s\n",
		w.seed, w.made, w.kills, w.stops, faults, len(j.twice), len(j.lost), len(j.stuck), sum(j.held), held)
	if j.good() && len(panics) == 0 {
		return nil
	}
	return errors.Join(errBad, w.dump(ctx))
}

// gather reads the evidence.
func (w *weather) gather(ctx context.Context) (*evidence, error) {
	jobs, receipts, err := w.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	e := &evidence{loads: w.loads, stocks: map[string]stock{}, doubled: map[string]string{}}
	e.vanished, e.miscounted = w.proxy.spoilt()
	for _, l := range w.loads {
		for _, name := range l.names() {
			end := ending{load: l, job: name, reason: "no such job"}
			if job := jobs[name]; job != nil {
				_, end.reason, end.message = standing(job)
				end.completed, end.stalled, end.receipt = job.Status.CompletionTime != nil, stalled(job), job.Status.Receipt
			}
			if receipt := receipts[end.receipt]; receipt != nil {
				end.id = receipt.Record.JobID
				end.total, end.parts = partsOf(receipt, receipts)
			}
			e.endings = append(e.endings, end)
		}
	}
	if err := w.query(ctx, e); err != nil {
		return nil, err
	}
	e.repeated, err = w.repeats()
	return e, err
}

// partsOf are the parts of a load that were claimed, by number, of how many.
func partsOf(whole *v1alpha1.BulkReceipt, receipts map[string]*v1alpha1.BulkReceipt) (total int, parts []part) {
	division := whole.Record.Division
	if division == nil {
		return 0, nil
	}
	for name, receipt := range receipts {
		if receipt.Spec.Part == nil || receipt.Spec.Part.Of != whole.Name {
			continue
		}
		number, end := receipt.Spec.Part.Number, division.Rows+1
		if int(number) < len(division.Parts) {
			end = division.Parts[number].Row
		}
		parts = append(parts, part{
			receipt: name, id: receipt.Record.JobID, number: number, rows: int(end - division.Parts[number-1].Row),
		})
	}
	slices.SortFunc(parts, func(a, b part) int { return cmp.Compare(a.number, b.number) })
	return len(division.Parts), parts
}

// query asks PostgreSQL.
func (w *weather) query(ctx context.Context, e *evidence) error {
	conn, err := pgx.Connect(ctx, w.database)
	if err != nil {
		return fmt.Errorf("cannot connect to PostgreSQL: %w", err)
	}
	defer conn.Close(ctx)
	found, err := conn.Query(ctx, "select id::text, coalesce(token, '') from bulk_endpoint.jobs order by id")
	if err != nil {
		return fmt.Errorf("cannot read the endpoint's jobs: %w", err)
	}
	e.taken, err = pgx.CollectRows(found, func(row pgx.CollectableRow) (t taken, err error) {
		err = row.Scan(&t.id, &t.token)
		return t, err
	})
	if err != nil {
		return fmt.Errorf("cannot read the endpoint's jobs: %w", err)
	}
	for _, table := range tables() {
		found, err := conn.Query(ctx, digestSQL(table))
		if err != nil {
			return fmt.Errorf("cannot read table %s: %w", table, err)
		}
		var name string
		var s stock
		_, err = pgx.ForEachRow(found, []any{&name, &s.rows, &s.distinct, &s.digest}, func() error {
			e.stocks[name] = s
			return nil
		})
		if err != nil {
			return fmt.Errorf("cannot read table %s: %w", table, err)
		}
		var row, times int
		if found, err = conn.Query(ctx, repeatedSQL(table)); err == nil {
			_, err = pgx.ForEachRow(found, []any{&name, &row, &times}, func() error {
				e.doubled[name] = fmt.Sprintf("row %d is %d times in table %s", row, times, table)
				return nil
			})
		}
		if err != nil {
			return fmt.Errorf("cannot read table %s: %w", table, err)
		}
	}
	return nil
}

// lines hands each line of a log on.
func lines(path string, to func(line []byte)) error {
	log, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cannot read a log: %w", err)
	}
	defer log.Close()
	scanner := bufio.NewScanner(log)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		to(scanner.Bytes())
	}
	return scanner.Err()
}

// repeats counts the uploads that the endpoint took for ones that it had, by its own log.
func (w *weather) repeats() (map[string]int, error) {
	repeated := map[string]int{}
	return repeated, lines(w.endpoint.current().Log, func(text []byte) {
		var line struct {
			Message string `json:"msg"`
			Object  string `json:"object"`
		}
		if json.Unmarshal(text, &line) == nil && line.Message == "Upload repeated" {
			connector, _, _ := strings.Cut(line.Object, "_")
			repeated[connector]++
		}
	})
}

// panics are the lines of the logs that tell of one.
func (w *weather) panics() ([]string, error) {
	var found []string
	for _, p := range append(w.managers[:], w.endpoint) {
		path := p.current().Log
		err := lines(path, func(text []byte) {
			if line := string(text); strings.HasPrefix(line, "panic:") || strings.Contains(line, "bserved a panic") {
				found = append(found, filepath.Base(filepath.Dir(path))+": "+line)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// dump writes what the cluster has beside the logs.
func (w *weather) dump(ctx context.Context) error {
	out, err := w.cluster.Kubectl(ctx, "get", "bulkjobs,bulkreceipts,connectorinstances", "--namespace="+namespace, "-o", "yaml")
	return errors.Join(err, os.WriteFile(filepath.Join(w.dir, "cluster.yaml"), []byte(out), 0o600))
}
