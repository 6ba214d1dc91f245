package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/source/storetest"
	"bulkjob.dev/operator/test/stage"
)

// numbersTable takes a row any number of times: one that was sent twice is there twice.
const numbersTable = `create table numbers (n bigint not null)`

const (
	numbers    = 1_000_000
	partRows   = 50_000
	parts      = numbers / partRows
	killings   = 12
	perPart    = 3 * time.Second // that the endpoint takes for one: all of them take a minute, and so do the killings
	shortLife  = 1500 * time.Millisecond
	longLife   = 9 * time.Second
	allPatient = 5 * time.Minute
)

// numbersFile has the numbers from 1 to n, a word instead of those up to bad.
func numbersFile(n, bad int) []byte {
	var file bytes.Buffer
	file.WriteString("n\n")
	for i := 1; i <= n; i++ {
		if i <= bad {
			file.WriteString("number ")
		}
		file.WriteString(strconv.Itoa(i) + "\n")
	}
	return file.Bytes()
}

// numbersJob loads a file of the bucket imports.
func numbersJob(key string, s3 *storetest.S3Server, maxRows int64, canary *v1alpha1.Canary) *v1alpha1.BulkJob {
	return &v1alpha1.BulkJob{
		ObjectMeta: metav1.ObjectMeta{Name: "numbers"},
		Spec: v1alpha1.BulkJobSpec{
			ConnectorRef: v1alpha1.LocalReference{Name: "crm-db"}, Object: "numbers",
			Source: v1alpha1.BulkJobSource{ObjectStore: &v1alpha1.ObjectStoreSource{
				URL: "s3://imports/" + key, Endpoint: s3.Endpoint, CredentialsRef: &v1alpha1.LocalReference{Name: "s3"},
			}},
			Split: &v1alpha1.Split{MaxRows: &maxRows, Parallelism: 3}, Canary: canary,
		},
	}
}

// store starts an S3 server with a bucket, and returns the port that the operator is to dial.
func (h *house) store() (s3 *storetest.S3Server, port string) {
	h.t.Helper()
	s3 = storetest.S3(h.t)
	endpoint, err := url.Parse(s3.Endpoint)
	if err != nil {
		h.t.Fatal(err)
	}
	h.private = append(h.private, s3.SecretAccessKey)
	h.secret("s3", map[string]string{"accessKeyID": s3.AccessKeyID, "secretAccessKey": s3.SecretAccessKey})
	return s3, endpoint.Port()
}

// killer ends the operator, and sometimes the endpoint, with -9, at moments that a seed gives.
type killer struct {
	*house
	bin    string // its manager is that of test/chaos, whose waits are seconds instead of minutes
	ports  string
	chance *rand.Rand
	kills  int
	others int // of the endpoint
}

func newKiller(h *house, ports string) *killer {
	h.t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			h.t.Fatalf("cannot read SEED: %v", err)
		}
	}
	h.t.Logf("SEED=%d", seed)
	k := &killer{house: h, bin: h.t.TempDir(), ports: ports, chance: rand.New(rand.NewPCG(seed, 1))}
	if err := os.Symlink(bin+"chaos", filepath.Join(k.bin, "manager")); err != nil {
		h.t.Fatal(err)
	}
	return k
}

// begin starts a manager, and returns once it leads. The lease of the one that was killed is not waited for.
func (k *killer) begin() {
	k.t.Helper()
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: stage.OperatorNamespace, Name: "bulkjob-operator.bulkjob.dev"}}
	if err := admin.Delete(k.t.Context(), lease); client.IgnoreNotFound(err) != nil {
		k.t.Fatal(err)
	}
	kubeconfig, err := cluster.OperatorKubeconfig(k.t.Context())
	if err != nil {
		k.t.Fatal(err)
	}
	env := []string{"KUBECONFIG=" + kubeconfig, "HOME=" + k.dir, "PATH=" + os.Getenv("PATH")}
	process, err := stage.StartProcess(k.bin, k.dir, "manager", env, "manager", "--leader-dir="+k.dir, "--ports="+k.ports)
	if err != nil {
		k.t.Fatal(err)
	}
	k.operator = &stage.Operator{Process: process}
	k.until("the manager leads", func() bool {
		leader, err := os.ReadFile(filepath.Join(k.dir, "leader"))
		return err == nil && string(leader) == strconv.Itoa(process.ID())
	})
}

func (k *killer) until(what string, holds func() bool) {
	k.t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			k.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// killEndpoint ends it, and starts it again where it was, with its spool folder.
func (k *killer) killEndpoint(args ...string) {
	k.t.Helper()
	k.others++
	e := k.endpoint
	e.Kill()
	env := []string{
		"BULK_ENDPOINT_ELEMENT_TOKEN=" + e.Element, "BULK_ENDPOINT_USER_SECRET=" + e.User, "BULK_ENDPOINT_DATABASE_URL=" + k.database,
	}
	args = append([]string{"-connector=postgresql", "-listen=" + e.Address(), "-log-format=json", "-spool-dir=" + filepath.Join(k.dir, "spool")}, args...)
	var err error
	if e.Process, err = stage.StartProcess(bin, k.dir, "bulk-endpoint", env, args...); err != nil {
		k.t.Fatal(err)
	}
	k.until("the endpoint listens", func() bool {
		connection, err := net.Dial("tcp", e.Address())
		if err == nil {
			connection.Close()
		}
		return err == nil
	})
}

// life is how long the next manager is to live: short while more was loaded than was killed, so that neither ends long before the other.
func (k *killer) life(job *v1alpha1.BulkJob) time.Duration {
	longest := longLife
	switch p := job.Status.Parts; {
	case k.kills >= killings:
		longest = allPatient
	case p != nil && int(p.Succeeded) > k.kills:
		longest = shortLife
	}
	if longest == allPatient {
		return longest
	}
	return time.Duration(k.chance.Int64N(int64(longest)))
}

// ended waits for that long, or until the job has ended.
func (k *killer) ended(name string, within time.Duration) (*v1alpha1.BulkJob, bool) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), within)
	defer cancel()
	job := &v1alpha1.BulkJob{}
	for {
		if err := admin.Get(k.t.Context(), client.ObjectKey{Namespace: k.namespace, Name: name}, job); err != nil {
			k.t.Fatal(err)
		}
		if job.Status.CompletionTime != nil {
			return job, true
		}
		select {
		case <-ctx.Done():
			return job, false
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// TestPartsOfAKilledOperator sends a million rows in twenty parts, kills the operator at any moment, and the endpoint now and then:
// each row is there once in the end. SEED=… repeats the moments. An answer that is lost is looked for in the endpoint's list, or the
// part is sent again under the same token, as the seed has it.
func TestPartsOfAKilledOperator(t *testing.T) {
	delay := "-processing-delay=" + (perPart / 2).String()
	h := newHouse(t, numbersTable, delay)
	s3, port := h.store()
	s3.Put(t, "imports", "numbers.csv", numbersFile(numbers, 0))
	h.connect(h.endpoint.Address())
	k := newKiller(h, h.port+","+port)
	listing, deduplication := v1alpha1.ListingAuthoritative, v1alpha1.DeduplicationNone
	if k.chance.IntN(2) == 0 {
		listing, deduplication = v1alpha1.ListingNone, v1alpha1.DeduplicationAttempt
	}
	h.edit(func(ci *v1alpha1.ConnectorInstance) {
		ci.Spec.JobListing, ci.Spec.Deduplication = listing, deduplication
	})
	t.Cleanup(func() {
		if h.operator != nil {
			h.stop(h.operator.Process)
		}
	})
	began := time.Now()
	k.begin()
	job := numbersJob("numbers.csv", s3, partRows, nil)
	h.create(job)
	for {
		var done bool
		if job, done = k.ended("numbers", k.life(job)); done {
			break
		}
		if k.kills == killings {
			t.Fatalf("the job has not ended: %+v, %s", job.Status.Parts, ready(job).Message)
		}
		if k.chance.IntN(4) == 0 {
			k.killEndpoint(delay)
		}
		h.operator.Kill()
		h.operator = nil
		k.kills++
		k.begin()
	}
	t.Logf("%v; the operator was killed %d times, the endpoint %d times; %s, %s",
		time.Since(began).Round(time.Second), k.kills, k.others, listing, deduplication)
	if k.kills < 10 {
		t.Errorf("the operator was killed %d times only: the test shows little", k.kills)
	}
	h.millionOnce(job)
}

// millionOnce looks at what the job shows, what PostgreSQL has, and what the endpoint made of it.
func (h *house) millionOnce(job *v1alpha1.BulkJob) {
	h.t.Helper()
	if c := ready(job); c.Reason != v1alpha1.ReasonComplete || rows(job) != fmt.Sprintf("%d/%[1]d/0", numbers) {
		h.t.Errorf("the job is %s (%s), rows sent/processed/failed %s", c.Reason, c.Message, rows(job))
	}
	want := &v1alpha1.PartsStatus{Summary: fmt.Sprintf("%d/%[1]d", parts), Total: parts, Succeeded: parts}
	if diff := cmp.Diff(want, job.Status.Parts); diff != "" {
		h.t.Errorf("status.parts, -want +got:\n%s", diff)
	}
	h.eachNumberOnce(numbers)
	jobs, err := h.endpoint.Jobs(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	if len(jobs) != parts {
		h.t.Errorf("the endpoint made %d jobs, want %d", len(jobs), parts)
	}
}

// eachNumberOnce looks at what PostgreSQL has.
func (h *house) eachNumberOnce(n int64) {
	h.t.Helper()
	var all, distinct, sum int64
	h.query(func(conn *pgx.Conn) error {
		return conn.QueryRow(h.t.Context(), "select count(*), count(distinct n), sum(n)::bigint from numbers").Scan(&all, &distinct, &sum)
	})
	if all != n || distinct != n || sum != n*(n+1)/2 {
		h.t.Errorf("%d rows, %d of them different, %d in sum; want each from 1 to %d once", all, distinct, sum, n)
	}
}

// TestCanaryBeforeAll has the first rows of a file fail: nothing else is sent. Once the file is corrected it is loaded, all of it.
func TestCanaryBeforeAll(t *testing.T) {
	const all = 10_000
	h := newHouse(t, numbersTable)
	s3, port := h.store()
	s3.Put(t, "imports", "wrong.csv", numbersFile(all, all))
	s3.Put(t, "imports", "right.csv", numbersFile(all, 0))
	h.start("--allow-private=127.0.0.1/32:" + h.port + ",127.0.0.1/32:" + port)
	h.connect(h.endpoint.Address())
	job := numbersJob("wrong.csv", s3, 4_000, &v1alpha1.Canary{Rows: 50})
	h.create(job)
	job = h.awaitEnd("numbers", v1alpha1.ReasonCanaryFailed)
	if message := ready(job).Message; !strings.Contains(message, "50 rows of the canary's 50 failed") || job.Status.Parts.Summary != "1/4" {
		t.Errorf("message %q, parts %+v", message, job.Status.Parts)
	}
	h.takenOnce(1)
	before := job.DeepCopy()
	job.Spec.Source.ObjectStore.URL = "s3://imports/right.csv"
	if err := admin.Patch(t.Context(), job, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	job = h.await("numbers", "is loaded", func(job *v1alpha1.BulkJob) bool { return ready(job).Reason == v1alpha1.ReasonComplete })
	if job.Status.Parts.Summary != "4/4" || rows(job) != fmt.Sprintf("%d/%[1]d/0", all) {
		t.Errorf("parts %+v, rows %s", job.Status.Parts, rows(job))
	}
	h.eachNumberOnce(all)
	if posts, err := h.endpoint.Posts(); err != nil || posts != 5 {
		t.Errorf("%d uploads, %v; want the canary, and four parts of the corrected file", posts, err)
	}
}

// TestRepairOfACanary has five rows of a canary fail, which stops a load of ten thousand: the repair file has these five and all that were
// not sent, and once it is corrected and loaded each row is there once.
func TestRepairOfACanary(t *testing.T) {
	const all, bad, canary = 10_000, 5, 50
	h := newHouse(t, numbersTable)
	s3, port := h.store()
	s3.Put(t, "imports", "numbers.csv", numbersFile(all, bad))
	s3.Put(t, "reports", "there", []byte("a bucket"))
	h.start("--allow-private=127.0.0.1/32:" + h.port + ",127.0.0.1/32:" + port)
	h.connect(h.endpoint.Address())
	h.edit(func(ci *v1alpha1.ConnectorInstance) { ci.Spec.RowNumbers = v1alpha1.RowNumbersFromOne })
	job := numbersJob("numbers.csv", s3, 4_000, &v1alpha1.Canary{Rows: canary})
	job.Spec.Report = &v1alpha1.Report{RepairFile: true, ObjectStore: &v1alpha1.ObjectStoreTarget{
		URL: "s3://reports/", Endpoint: s3.Endpoint, CredentialsRef: v1alpha1.LocalReference{Name: "s3"},
	}}
	h.create(job)
	job = h.awaitEnd("numbers", v1alpha1.ReasonCanaryFailed)
	folder := job.Status.Receipt + "/"
	want := v1alpha1.ReportStatus{
		Location: "s3://reports/" + folder, Rows: new(int64(bad)), Complete: true, RepairFile: true, CompletionTime: job.Status.Report.CompletionTime,
		Message: fmt.Sprintf("repair.csv has %d rows that were not sent", all-canary),
	}
	if diff := cmp.Diff(want, *job.Status.Report); diff != "" {
		t.Errorf("status.report, -want +got:\n%s", diff)
	}
	repair := string(get(t, s3, folder+"repair.csv"))
	if lines := strings.Count(repair, "\n"); lines != 1+bad+all-canary || !strings.HasSuffix(repair, "\n10000,\"not sent\"\n") {
		t.Errorf("repair.csv has %d lines, and ends with %q", lines, repair[max(0, len(repair)-40):])
	}
	s3.Put(t, "reports", folder+"repair.csv", []byte(strings.ReplaceAll(repair, "number ", "")))
	manifest := filepath.Join(h.dir, "repair.yaml")
	if err := os.WriteFile(manifest, get(t, s3, folder+"repair.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.kubectl("apply", "--server-side", "-f", manifest)
	job = h.awaitEnd("numbers-repair", v1alpha1.ReasonComplete)
	if want := fmt.Sprintf("%d/%[1]d/0", bad+all-canary); rows(job) != want || job.Status.Parts.Summary != "4/4" {
		t.Errorf("rows of the repair: %s, want %s; parts %+v", rows(job), want, job.Status.Parts)
	}
	h.eachNumberOnce(all)
}
