package report

import (
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"

	"bulkjob.dev/operator/api/v1alpha1"
)

const (
	repairSuffix = "-repair"
	maxName      = 253 // of an object in Kubernetes
)

// manifest has the fields of a BulkJob that a person writes.
type manifest struct {
	APIVersion string               `json:"apiVersion"`
	Kind       string               `json:"kind"`
	Metadata   metadata             `json:"metadata"`
	Spec       v1alpha1.BulkJobSpec `json:"spec"`
}

type metadata struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace,omitempty"`
	Annotations map[string]string `json:"annotations"`
}

const instructions = `# The rows of BulkJob %s that failed, or were not sent, are in the file that spec.source names, as they were in the job's own, with
# the reasons in the last column, %s.
#
# 1. Correct the rows, and take out those that are not to be loaded. The last column must stay: omitColumn says that it isn't sent.
# 2. Store the file again where it was, or elsewhere and correct spec.source.
# 3. Apply this manifest.
`

// Manifest is the YAML of a BulkJob that loads a repair file, stored at file, into where the job loads. The receipt is that of the load
// whose rows they are. Of the job's spec it takes what says where the rows go and how, and none of what was decided for the one load.
func Manifest(job *v1alpha1.BulkJob, receipt string, file v1alpha1.BulkJobSource) ([]byte, error) {
	spec := job.Spec.DeepCopy()
	file.OmitColumn = Column
	repair := manifest{
		APIVersion: v1alpha1.GroupVersion.String(),
		Kind:       "BulkJob",
		Metadata:   metadata{Name: repairName(job.Name), Namespace: job.Namespace, Annotations: map[string]string{RepairOf: receipt}},
		Spec: v1alpha1.BulkJobSpec{
			ConnectorRef: spec.ConnectorRef,
			Object:       spec.Object,
			Source:       file,
			Action:       spec.Action,
			KeyField:     spec.KeyField,
			Parameters:   spec.Parameters,
			BatchSize:    spec.BatchSize,
			ObjectCheck:  spec.ObjectCheck,
			OnUnknown:    spec.OnUnknown,
			Split:        spec.Split,
			Canary:       spec.Canary,
			Report:       repairReport(spec.Report),
		},
	}
	text, err := yaml.Marshal(repair)
	if err != nil {
		return nil, fmt.Errorf("cannot write the manifest of a repair: %w", err)
	}
	return append(fmt.Appendf(nil, instructions, job.Name, Column), text...), nil
}

func repairName(name string) string {
	return strings.TrimRight(name[:min(len(name), maxName-len(repairSuffix))], ".-") + repairSuffix
}

// repairReport is the report that the repair asks for: the same, in a ConfigMap of its own.
func repairReport(r *v1alpha1.Report) *v1alpha1.Report {
	if r != nil && r.ConfigMap != nil {
		r.ConfigMap.Name = repairName(r.ConfigMap.Name)
	}
	return r
}
