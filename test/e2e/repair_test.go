package e2e_test

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/minio/minio-go/v7"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/source/storetest"
)

// scoresTable refuses rows in four ways. A row's line tells it from all others, whatever else is wrong with it.
const scoresTable = `create table scores (line integer not null, id integer primary key, name text not null, score integer check (score >= 0))`

const (
	scoreRows = 100_000
	badEvery  = 725
	badRows   = scoreRows / badEvery // 137
)

// goodScore is a row as it should be.
func goodScore(line int) string {
	return fmt.Sprintf("%d,%d,\"Person, %d\",%d\n", line, line, line, line%100)
}

// badScore is the same row with one of four faults. What Canary4711 stands for is nobody's business.
func badScore(line int) string {
	switch line / badEvery % 4 {
	case 0:
		return fmt.Sprintf("%d,Canary4711,\"Person, %d\",1\n", line, line)
	case 1:
		return fmt.Sprintf("%d,%d,\"Person, %d\",1\n", line, line-1, line)
	case 2:
		return fmt.Sprintf("%d,%d,,1\n", line, line)
	default:
		return fmt.Sprintf("%d,%d,\"Person, %d\",-4711\n", line, line, line)
	}
}

func isBad(line int) bool { return line%badEvery == 0 }

// scores is the file with its faults, and what a report and a repair file must have of it.
func scores() (file, bad []byte) {
	var all, wrong bytes.Buffer
	all.WriteString("line,id,name,score\n")
	for line := 1; line <= scoreRows; line++ {
		if !isBad(line) {
			all.WriteString(goodScore(line))
			continue
		}
		all.WriteString(badScore(line))
		wrong.WriteString(badScore(line))
	}
	return all.Bytes(), wrong.Bytes()
}

// TestRepair has 137 of 100,000 rows fail in four ways. The report lists exactly these, the repair file has them, and once it is
// corrected and loaded every row is there once.
func TestRepair(t *testing.T) {
	h := newHouse(t, scoresTable)
	s3 := storetest.S3(t)
	file, bad := scores()
	s3.Put(t, "imports", "scores.csv", file)
	s3.Put(t, "reports", "there", []byte("a bucket"))
	endpoint, err := url.Parse(s3.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	h.private = append(h.private, s3.SecretAccessKey, "Canary4711", "Person, ")
	h.start("--allow-private=127.0.0.1/32:" + h.port + ",127.0.0.1/32:" + endpoint.Port())
	h.connect(h.endpoint.Address())
	h.edit(func(ci *v1alpha1.ConnectorInstance) { ci.Spec.RowNumbers = v1alpha1.RowNumbersFromOne })
	h.secret("s3", map[string]string{"accessKeyID": s3.AccessKeyID, "secretAccessKey": s3.SecretAccessKey})

	h.create(scoresJob("scores", s3.Endpoint, &v1alpha1.Report{RepairFile: true, ObjectStore: &v1alpha1.ObjectStoreTarget{
		URL: "s3://reports/scores/", Endpoint: s3.Endpoint, CredentialsRef: v1alpha1.LocalReference{Name: "s3"},
	}}))
	job := h.awaitEnd("scores", v1alpha1.ReasonRowsFailed)
	h.showsReasons(job)
	folder := "scores/" + job.Status.Receipt + "/"
	want := v1alpha1.ReportStatus{
		Location: "s3://reports/" + folder, Rows: new(int64(badRows)), Complete: true, RepairFile: true, CompletionTime: job.Status.Report.CompletionTime,
	}
	if diff := cmp.Diff(want, *job.Status.Report); diff != "" {
		t.Errorf("status.report, -want +got:\n%s", diff)
	}
	listsBadRows(t, get(t, s3, folder+"errors.csv"))
	repair := get(t, s3, folder+"repair.csv")
	if got := withoutLastColumn(t, repair); got != "line,id,name,score\n"+string(bad) {
		t.Errorf("the repair file has other rows than those that failed:\n%.2000s", got)
	}

	h.reportsToAConfigMap(s3.Endpoint, string(repair))
	h.loads(s3, folder, repair)
	h.everyRowOnce()
	if shown := h.kubectl("get", "bulkjobs,bulkreceipts,connectorinstances,events", "-o", "yaml"); strings.Contains(shown, "4711") {
		t.Errorf("a row's data is shown:\n%s", shown)
	}
}

func scoresJob(name, endpoint string, wish *v1alpha1.Report) *v1alpha1.BulkJob {
	return &v1alpha1.BulkJob{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.BulkJobSpec{
			ConnectorRef: v1alpha1.LocalReference{Name: "crm-db"}, Object: "scores", Report: wish,
			Source: v1alpha1.BulkJobSource{ObjectStore: &v1alpha1.ObjectStoreSource{
				URL: "s3://imports/scores.csv", Endpoint: endpoint, CredentialsRef: &v1alpha1.LocalReference{Name: "s3"},
			}},
		},
	}
}

// edit changes the connector.
func (h *house) edit(change func(*v1alpha1.ConnectorInstance)) {
	h.t.Helper()
	ci := &v1alpha1.ConnectorInstance{}
	if err := admin.Get(h.t.Context(), client.ObjectKey{Namespace: h.namespace, Name: "crm-db"}, ci); err != nil {
		h.t.Fatal(err)
	}
	before := ci.DeepCopy()
	change(ci)
	if err := admin.Patch(h.t.Context(), ci, client.MergeFrom(before)); err != nil {
		h.t.Fatal(err)
	}
}

// get reads an object of the bucket reports whole.
func get(t *testing.T, s3 *storetest.S3Server, key string) []byte {
	t.Helper()
	object, err := s3.Client.GetObject(t.Context(), "reports", key, minio.GetObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer object.Close()
	content, err := io.ReadAll(object)
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return content
}

// showsReasons looks at what is told of the rows that failed without a report.
func (h *house) showsReasons(job *v1alpha1.BulkJob) {
	h.t.Helper()
	if want := fmt.Sprintf("%d/%[1]d/%d", scoreRows, badRows); rows(job) != want || *job.Status.Rows.Unaccounted != 0 {
		h.t.Errorf("rows sent/processed/failed %s, want %s; %d unaccounted for", rows(job), want, *job.Status.Rows.Unaccounted)
	}
	counts := map[int64]int{}
	for _, reason := range job.Status.FailureReasons {
		counts[reason.Rows]++
	}
	if diff := cmp.Diff(map[int64]int{35: 1, 34: 3}, counts); diff != "" {
		h.t.Errorf("reasons: %v", job.Status.FailureReasons)
	}
	if message := ready(job).Message; !strings.Contains(message, "137 of 100000 rows failed: ") || !strings.Contains(message, ": 35 rows; ") {
		h.t.Errorf("message: %s", message)
	}
}

func listsBadRows(t *testing.T, list []byte) {
	t.Helper()
	lines, err := csv.NewReader(bytes.NewReader(list)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, line := range lines[1:] {
		got = append(got, line[0])
		if line[1] == "" {
			t.Errorf("row %s failed for no reason", line[0])
		}
	}
	for line := badEvery; line <= scoreRows; line += badEvery {
		want = append(want, strconv.Itoa(line))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows in errors.csv, -want +got:\n%s", diff)
	}
}

// withoutLastColumn takes the reasons, which hold neither commas nor quotes of rows, out of a repair file.
func withoutLastColumn(t *testing.T, repair []byte) string {
	t.Helper()
	var text strings.Builder
	for line := range strings.Lines(string(repair)) {
		end := strings.LastIndex(line, ",\"")
		if text.Len() == 0 {
			end = strings.LastIndex(line, ",bulkjob_error")
		}
		if end < 0 {
			t.Fatalf("no reason in %q", line)
		}
		text.WriteString(line[:end] + "\n")
	}
	return text.String()
}

// reportsToAConfigMap asks for the report of the same load again, for a ConfigMap that the operator may not write at first.
func (h *house) reportsToAConfigMap(endpoint, repair string) {
	h.t.Helper()
	h.create(scoresJob("again", endpoint, &v1alpha1.Report{RepairFile: true, ConfigMap: &v1alpha1.LocalReference{Name: "failed-scores"}}))
	h.await("again", "says what is in the way of its report", func(job *v1alpha1.BulkJob) bool {
		c := ready(job)
		return c.Reason == v1alpha1.ReasonWritingReport && strings.Contains(c.Message, "the operator has no right to write ConfigMaps in this namespace: see docs/reports.md")
	})
	h.mayReport()
	job := h.awaitEnd("again", v1alpha1.ReasonAlreadyFailed)
	files := &corev1.ConfigMap{}
	if err := admin.Get(h.t.Context(), client.ObjectKey{Namespace: h.namespace, Name: "failed-scores"}, files); err != nil {
		h.t.Fatal(err)
	}
	if got := job.Status.Report; got.Location != "configmap/failed-scores" || !got.Complete || !got.RepairFile || files.Data["repair.csv"] != repair {
		h.t.Errorf("%+v, %d files", got, len(files.Data))
	}
	listsBadRows(h.t, []byte(files.Data["errors.csv"]))
	if n := h.count("scores"); n != scoreRows-badRows {
		h.t.Errorf("%d rows after the first load", n)
	}
}

// mayReport lets the operator write ConfigMaps in the namespace, as docs/reports.md says.
func (h *house) mayReport() {
	h.t.Helper()
	dir := h.t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "config", "report", "team"))); err != nil {
		h.t.Fatal(err)
	}
	path := filepath.Join(dir, "kustomization.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		h.t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("namespace: team-a"), []byte("namespace: "+h.namespace), 1)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		h.t.Fatal(err)
	}
	h.kubectl("apply", "--server-side", "-k", dir)
}

// loads corrects the repair file, stores it where it was, and applies its manifest, twice.
func (h *house) loads(s3 *storetest.S3Server, folder string, repair []byte) {
	h.t.Helper()
	lines, err := csv.NewReader(bytes.NewReader(repair)).ReadAll()
	if err != nil {
		h.t.Fatal(err)
	}
	var corrected bytes.Buffer
	out := csv.NewWriter(&corrected)
	for i, line := range lines {
		if i > 0 {
			line[1], line[2], line[3] = line[0], "Person, "+line[0], "1"
		}
		if err := out.Write(line); err != nil {
			h.t.Fatal(err)
		}
	}
	out.Flush()
	s3.Put(h.t, "reports", folder+"repair.csv", corrected.Bytes())
	manifest := filepath.Join(h.dir, "repair.yaml")
	if err := os.WriteFile(manifest, get(h.t, s3, folder+"repair.yaml"), 0o600); err != nil {
		h.t.Fatal(err)
	}
	h.kubectl("apply", "--server-side", "-f", manifest)
	job := h.awaitEnd("scores-repair", v1alpha1.ReasonComplete)
	if want := fmt.Sprintf("%d/%[1]d/0", badRows); rows(job) != want || job.Annotations["bulkjob.dev/repair-of"] == "" {
		h.t.Errorf("rows of the repair: %s, want %s; annotations %v", rows(job), want, job.Annotations)
	}
	h.kubectl("delete", "bulkjob", "scores-repair")
	h.kubectl("apply", "--server-side", "-f", manifest)
	h.awaitEnd("scores-repair", v1alpha1.ReasonAlreadyLoaded)
}

// everyRowOnce looks at what PostgreSQL has.
func (h *house) everyRowOnce() {
	h.t.Helper()
	var all, distinct, wrong int
	h.query(func(conn *pgx.Conn) error {
		return conn.QueryRow(h.t.Context(), "select count(*), count(distinct line), count(*) filter (where id <> line) from scores").Scan(&all, &distinct, &wrong)
	})
	if all != scoreRows || distinct != scoreRows || wrong != 0 {
		h.t.Errorf("%d rows, %d of them different, %d wrong; want each of %d once", all, distinct, wrong, scoreRows)
	}
	posts, err := h.endpoint.Posts()
	if err != nil || posts != 2 {
		h.t.Errorf("%d uploads, %v; want the load and its repair", posts, err)
	}
}

// TestReportOfAKilledOperator kills the operator, with -9, while it writes a report: the next one writes it, whole.
func TestReportOfAKilledOperator(t *testing.T) {
	h := newHouse(t, peopleTable)
	h.start()
	h.connect(h.endpoint.Address())
	h.mayReport()
	h.edit(func(ci *v1alpha1.ConnectorInstance) { ci.Spec.Limits.RequestsPerSecond = 1 }) // a page a second
	var file strings.Builder
	file.WriteString("id,name\n")
	const wrong = 3_000
	for i := range wrong {
		fmt.Fprintf(&file, "x%d,Person %d\n", i, i)
	}
	h.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "people"}, Data: map[string]string{"people.csv": file.String()}})
	h.create(&v1alpha1.BulkJob{ObjectMeta: metav1.ObjectMeta{Name: "people"}, Spec: v1alpha1.BulkJobSpec{
		ConnectorRef: v1alpha1.LocalReference{Name: "crm-db"}, Object: "people",
		Source: v1alpha1.BulkJobSource{ConfigMap: &v1alpha1.KeyReference{Name: "people", Key: "people.csv"}},
		Report: &v1alpha1.Report{ConfigMap: &v1alpha1.LocalReference{Name: "failed-people"}},
	}})
	h.await("people", "has its report written", func(job *v1alpha1.BulkJob) bool { return ready(job).Reason == v1alpha1.ReasonWritingReport })
	h.operator.Kill()
	h.operator = nil
	files := &corev1.ConfigMap{}
	key := client.ObjectKey{Namespace: h.namespace, Name: "failed-people"}
	if err := admin.Get(t.Context(), key, files); err == nil {
		t.Fatal("the report was written before the operator was killed: the test shows nothing")
	}
	h.start()
	job := h.awaitEnd("people", v1alpha1.ReasonRowsFailed)
	if err := admin.Get(t.Context(), key, files); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(files.Data["errors.csv"], "\n"); lines != wrong+1 || !job.Status.Report.Complete || *job.Status.Report.Rows != wrong {
		t.Errorf("%d lines, %+v", lines, job.Status.Report)
	}
	h.takenOnce(1)
}
