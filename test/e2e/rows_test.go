package e2e_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
)

const peopleTable = `create table people (id integer primary key, name text not null)`

// load makes a job for a table, whose content is the key people.csv of a ConfigMap of its own.
func (h *house) load(table string, content *corev1.ConfigMap, compression v1alpha1.Compression) {
	h.t.Helper()
	content.Name = table
	h.create(content)
	h.create(&v1alpha1.BulkJob{
		ObjectMeta: metav1.ObjectMeta{Name: table},
		Spec: v1alpha1.BulkJobSpec{
			ConnectorRef: v1alpha1.LocalReference{Name: "crm-db"}, Object: table,
			Source: v1alpha1.BulkJobSource{
				ConfigMap: &v1alpha1.KeyReference{Name: table, Key: "people.csv"}, Compression: compression,
			},
		},
	})
}

func TestRowFails(t *testing.T) {
	h := newHouse(t, peopleTable)
	const data = "Canary4711" // stands where PostgreSQL wants a number, and PostgreSQL's message quotes it
	h.private = append(h.private, data)
	h.start()
	h.connect(h.endpoint.Address())
	var file strings.Builder
	file.WriteString("id,name\n")
	for i := 1; i <= 10; i++ {
		id := strconv.Itoa(i)
		if i == 4 {
			id = data
		}
		fmt.Fprintf(&file, "%s,Person %d\n", id, i)
	}
	h.load("people", &corev1.ConfigMap{Data: map[string]string{"people.csv": file.String()}}, v1alpha1.CompressionNone)
	job := h.awaitEnd("people", v1alpha1.ReasonRowsFailed)

	if rows(job) != "10/10/1" || job.Status.State != "COMPLETE" {
		t.Errorf("state %s, rows sent/processed/failed %s", job.Status.State, rows(job))
	}
	if errors := job.Status.RowErrors; len(errors) != 1 || errors[0].Row == nil || *errors[0].Row != 4 || !strings.Contains(errors[0].Reason, "invalid text for its type, column id") {
		t.Errorf("row errors: %+v", errors)
	}
	if message := ready(job).Message; !strings.Contains(message, "1 of 10 rows failed; row 4: 22P02") {
		t.Errorf("message: %s", message)
	}
	if n := h.count("people"); n != 9 {
		t.Errorf("PostgreSQL has %d rows, not the nine good ones", n)
	}
	if shown := h.kubectl("get", "bulkjobs,bulkreceipts,connectorinstances,events", "-o", "yaml"); strings.Contains(shown, data) {
		t.Errorf("the row's data is shown:\n%s", shown)
	}
	h.takenOnce(1)
}
