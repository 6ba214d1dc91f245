package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"

	"bulkjob.dev/operator/api/v1alpha1"
)

// minPart is the least number of bytes that a part may have, as the API has it.
const minPart = 1024

// dividing is what the flags say about the parts that a file is sent in.
type dividing struct {
	rows, canary int64 // 0: not asked for
	size         string
	groupBy      string
	parallelism  int32
	onFailure    string
}

func (d *dividing) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Int64Var(&d.rows, "split-rows", 0, "Send the file in parts of so many rows at most")
	f.StringVar(&d.size, "split-size", "", "Send the file in parts of that size at most, such as 100Mi")
	f.Int32Var(&d.parallelism, "parallelism", 0, "Parts under way at once (default: 1, in the order of the file)")
	f.StringVar(&d.groupBy, "group-by", "", "Column: neighbours with the same value in it stay in one part")
	f.StringVar(&d.onFailure, "on-failed-part", "", "Stop or Continue with the other parts when one has failed (default: Stop)")
	f.Int64Var(&d.canary, "canary", 0, "Send so many rows first, and the others only if none of them fails")
	_ = cmd.RegisterFlagCompletionFunc("on-failed-part", cobra.FixedCompletions( // the flag is there
		[]string{string(v1alpha1.OnPartFailureStop), string(v1alpha1.OnPartFailureContinue)}, cobra.ShellCompDirectiveNoFileComp))
}

// asked is true if the file is to be divided.
func (d *dividing) asked() bool { return d.split() || d.canary != 0 }

func (d *dividing) split() bool { return d.rows != 0 || d.size != "" }

func (d *dividing) check() error {
	switch {
	case d.rows < 0 || d.canary < 0 || d.parallelism < 0:
		return misused("cannot use a negative number for --split-rows, --canary or --parallelism; 0 stands for none")
	case !d.split() && (d.parallelism != 0 || d.groupBy != "" || d.onFailure != ""):
		return misused("cannot use --parallelism, --group-by or --on-failed-part without --split-rows or --split-size: they are about parts")
	case d.rows != 0 && d.canary > d.rows:
		return misused("cannot make the canary larger than --split-rows: it is a part")
	case d.onFailure != "" && d.onFailure != string(v1alpha1.OnPartFailureStop) && d.onFailure != string(v1alpha1.OnPartFailureContinue):
		return misused("cannot use %q for --on-failed-part: it is Stop or Continue", d.onFailure)
	}
	_, err := d.bytes()
	return err
}

// bytes of a part at most; nil if that wasn't given.
func (d *dividing) bytes() (*int64, error) {
	if d.size == "" {
		return nil, nil //nolint:nilnil // not to be given is no error
	}
	size, err := resource.ParseQuantity(d.size)
	if err != nil || size.Value() < minPart {
		return nil, misused("cannot use %q for --split-size: it is 1Ki or more, such as 100Mi", d.size)
	}
	bytes := size.Value()
	return &bytes, nil
}

// into writes into a job's spec what the flags, which were checked, ask for.
func (d *dividing) into(spec *v1alpha1.BulkJobSpec) {
	if d.canary != 0 {
		spec.Canary = &v1alpha1.Canary{Rows: d.canary}
	}
	if !d.split() {
		return
	}
	spec.Split = &v1alpha1.Split{GroupBy: d.groupBy, Parallelism: d.parallelism, OnFailure: v1alpha1.OnPartFailure(d.onFailure)}
	if d.rows != 0 {
		spec.Split.MaxRows = &d.rows
	}
	spec.Split.MaxBytes, _ = d.bytes()
}

// heldPart is the receipt of the part for which a load in parts is held; nil if it is none of those that the job shows.
func (s *session) heldPart(ctx context.Context, job *v1alpha1.BulkJob) (*v1alpha1.BulkReceipt, error) {
	for _, part := range job.Status.Parts.Shown {
		if part.Outcome != "" {
			continue // it has ended
		}
		receipt := &v1alpha1.BulkReceipt{}
		if err := s.client.Get(ctx, s.key(part.Receipt), receipt); err != nil {
			return nil, s.explained(fmt.Sprintf("get BulkReceipt %q", part.Receipt), err)
		}
		if receipt.Record.Outcome == v1alpha1.LoadUnknown {
			return receipt, nil
		}
	}
	return nil, nil //nolint:nilnil // that none is found is no error
}
