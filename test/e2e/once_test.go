package e2e_test

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/test/stage"
)

// sample is config/samples/contacts.csv without its header, in order of the first column.
func sample(t *testing.T) [][]string {
	t.Helper()
	file, err := os.Open(filepath.Join(root, "config", "samples", "contacts.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	records, err := csv.NewReader(file).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(records[1:], slices.Compare)
	return records[1:]
}

// contacts are the rows that PostgreSQL has, in the same form.
func (h *house) contacts() (records [][]string) {
	h.t.Helper()
	h.query(func(conn *pgx.Conn) error {
		found, err := conn.Query(h.t.Context(), `select array["C_EmailAddress", "C_FirstName", "C_LastName", coalesce("C_Title", ''),
			coalesce("C_BusPhone", ''), coalesce("C_Company", ''), coalesce("C_Website1", '')] from contact order by 1`)
		if err != nil {
			return err
		}
		records, err = pgx.CollectRows(found, pgx.RowTo[[]string])
		return err
	})
	return records
}

func TestOnce(t *testing.T) {
	h := newHouse(t, stage.ContactTable)
	h.private = append(h.private, "norm.smith@acme.com", "(333) 333-1234")
	h.start()
	h.apply("")
	job := h.awaitEnd("contacts", v1alpha1.ReasonComplete)
	if job.Status.State != "COMPLETE" || rows(job) != "10/10/0" {
		t.Errorf("state %s, rows sent/processed/failed %s", job.Status.State, rows(job))
	}
	if diff := cmp.Diff(sample(t), h.contacts()); diff != "" {
		t.Errorf("the rows in PostgreSQL (-want +got):\n%s", diff)
	}

	h.apply("")
	for _, tt := range []struct {
		reason, name string
		deleted      []string
	}{
		{"deleted and applied again", "contacts", []string{"contacts"}},
		{"under another name", "renamed", nil},
		{"pruned under the old name, and again under the new one", "renamed", []string{"contacts", "renamed"}},
	} {
		for _, name := range tt.deleted {
			h.kubectl("delete", "bulkjob", name)
		}
		h.apply(tt.name)
		if job := h.awaitEnd(tt.name, v1alpha1.ReasonAlreadyLoaded); rows(job) != "0/-/-" {
			t.Errorf("%s: rows sent/processed/failed %s", tt.reason, rows(job))
		}
	}
	h.takenOnce(1)
	if n := h.count("contact"); n != 10 {
		t.Errorf("PostgreSQL has %d rows", n)
	}
}
