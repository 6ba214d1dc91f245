package cli

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"bulkjob.dev/operator/api/v1alpha1"
)

func TestDividing(t *testing.T) {
	type spec struct {
		Split  *v1alpha1.Split
		Canary *v1alpha1.Canary
	}
	for _, tc := range []struct {
		reason string
		args   []string
		want   *spec // nil: it is refused
	}{
		{"nothing is divided unasked", nil, &spec{}},
		{"by rows", []string{"--split-rows=5"}, &spec{Split: &v1alpha1.Split{MaxRows: new(int64(5))}}},
		{"by bytes", []string{"--split-size=2Ki"}, &spec{Split: &v1alpha1.Split{MaxBytes: new(int64(2048))}}},
		{"a decimal unit", []string{"--split-size=1.5M"}, &spec{Split: &v1alpha1.Split{MaxBytes: new(int64(1_500_000))}}},
		{"a canary alone", []string{"--canary=50"}, &spec{Canary: &v1alpha1.Canary{Rows: 50}}},
		{"all of it", []string{"--split-rows=5", "--split-size=1Gi", "--parallelism=3", "--group-by=account", "--on-failed-part=Continue", "--canary=5"}, &spec{
			Split: &v1alpha1.Split{
				MaxRows: new(int64(5)), MaxBytes: new(int64(1 << 30)), Parallelism: 3, GroupBy: "account", OnFailure: v1alpha1.OnPartFailureContinue,
			},
			Canary: &v1alpha1.Canary{Rows: 5},
		}},
		{"no size", []string{"--split-size=large"}, nil},
		{"a unit that there isn't", []string{"--split-size=100MB"}, nil},
		{"a part has room for a header", []string{"--split-size=1000"}, nil},
		{"not even one row", []string{"--split-rows=-1"}, nil},
		{"not even one part at once", []string{"--split-rows=5", "--parallelism=-1"}, nil},
		{"a canary is a part", []string{"--split-rows=5", "--canary=6"}, nil},
		{"parts that nobody asked for", []string{"--parallelism=3"}, nil},
		{"a canary alone has nothing beside it", []string{"--canary=5", "--group-by=account"}, nil},
		{"neither of both ways", []string{"--split-rows=5", "--on-failed-part=Panic"}, nil},
	} {
		d, cmd := &dividing{}, &cobra.Command{}
		d.flags(cmd)
		err := cmd.ParseFlags(tc.args)
		if err == nil {
			err = d.check()
		}
		if tc.want == nil {
			if codeOf(err) != exitUsage {
				t.Errorf("%s: %v ends with %v", tc.reason, tc.args, err)
			}
			continue
		}
		var got v1alpha1.BulkJobSpec
		d.into(&got)
		if diff := cmp.Diff(*tc.want, spec{got.Split, got.Canary}); diff != "" || err != nil {
			t.Errorf("%s: %v (%v; -want +got):\n%s", tc.reason, tc.args, err, diff)
		}
		if d.asked() != (got.Split != nil || got.Canary != nil) {
			t.Errorf("%s: asked is %t", tc.reason, d.asked())
		}
	}
}

// TestHeldPart finds the part that a load is held for among those that the job shows.
func TestHeldPart(t *testing.T) {
	job := stuck(v1alpha1.ReasonSubmissionUnknown)
	job.Status.Receipt = receiptName
	job.Status.Parts = &v1alpha1.PartsStatus{Shown: []v1alpha1.PartStatus{
		{Number: 2, Receipt: receiptName + "-2", Outcome: v1alpha1.LoadFailed}, {Number: 3, Receipt: receiptName + "-3"}, {Number: 4, Receipt: receiptName + "-4"},
	}}
	whole, runs, held := recorded("", 1), part(3, recorded("", 1)), part(4, recorded(v1alpha1.LoadUnknown, 1))
	for _, tc := range []struct {
		reason  string
		answers []*v1alpha1.BulkReceipt
		want    *v1alpha1.BulkReceipt
	}{
		{"the part that runs is not it", []*v1alpha1.BulkReceipt{whole, runs, held}, held},
		{"it is none of those that are shown", []*v1alpha1.BulkReceipt{whole, runs, runs}, nil},
		{"the whole is held, as its receipt was lost", []*v1alpha1.BulkReceipt{recorded(v1alpha1.LoadUnknown, 1)}, recorded(v1alpha1.LoadUnknown, 1)},
	} {
		s, script, _ := talking(t)
		for _, receipt := range tc.answers {
			receipt.APIVersion, receipt.Kind = v1alpha1.GroupVersion.String(), "BulkReceipt"
			script.answers = append(script.answers, reply(t, receipt))
		}
		got, err := s.receiptOf(t.Context(), job)
		if tc.want != nil {
			tc.want.TypeMeta = got.TypeMeta
		}
		if diff := cmp.Diff(tc.want, got); diff != "" || err != nil || len(script.asked) != len(tc.answers) {
			t.Errorf("%s: asked %v (%v; -want +got):\n%s", tc.reason, script.asked, err, diff)
		}
	}
}

// TestTaken finds a file where it was stored for a job, so that it isn't stored anew, perhaps elsewhere.
func TestTaken(t *testing.T) {
	f := &file{sha256: "5e9d"}
	for _, tc := range []struct {
		reason string
		with   func(*v1alpha1.BulkJob)
		want   bool
	}{
		{"the endpoint took it", func(j *v1alpha1.BulkJob) { j.Status.JobID = "7" }, true},
		{"it is divided: its parts have jobs of their own", func(j *v1alpha1.BulkJob) { j.Status.Parts = &v1alpha1.PartsStatus{Summary: "0/2", Total: 2} }, true},
		{"nothing has left yet", func(*v1alpha1.BulkJob) {}, false},
		{"a job that others made", func(j *v1alpha1.BulkJob) { j.Status.JobID, j.Labels = "7", nil }, false},
		{"another file", func(j *v1alpha1.BulkJob) { j.Status.JobID, j.Spec.Source.SHA256 = "7", "0" }, false},
	} {
		job := numbered(underway(), "7")
		job.Labels = map[string]string{labelManagedBy: manager}
		job.Spec.Source = v1alpha1.BulkJobSource{ConfigMap: &v1alpha1.KeyReference{Name: "contacts", Key: "rows.csv"}, SHA256: f.sha256}
		tc.with(job)
		s, _, _ := talking(t, reply(t, job))
		got, err := s.taken(t.Context(), f, job.Name, &v1alpha1.KeyReference{Name: "contacts-of-now", Key: "rows.csv"})
		if err != nil || (got != nil) != tc.want || got != nil && got.source.ConfigMap.Name != "contacts" {
			t.Errorf("%s: %+v (%v)", tc.reason, got, err)
		}
	}
}
