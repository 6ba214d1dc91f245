package main

import (
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"strconv"
	"strings"
	"testing"

	"bulkjob.dev/operator/api/v1alpha1"
)

const maxConfigMap = 1 << 20

func TestLoads(t *testing.T) {
	few, many := fair(), fair()
	few.jobs, many.jobs = 20, 80
	all := newLoads(many)
	for i, l := range newLoads(few) {
		if l.text != all[i].text || l.digest != all[i].digest {
			t.Errorf("%s is another file where there are more of them", l.name)
		}
	}
	digests, large, twins, divided, canaries := map[string]bool{}, 0, 0, 0, 0
	for _, l := range all {
		records, err := csv.NewReader(strings.NewReader(l.text)).ReadAll()
		if err != nil || len(records) != l.rows+1 {
			t.Fatalf("%s: %d lines, %v; want %d", l.name, len(records), err, l.rows+1)
		}
		var rows []string
		for i, record := range records[1:] {
			if record[0] != l.name || record[1] != strconv.Itoa(i+1) {
				t.Fatalf("%s: row %d is %v", l.name, i+1, record)
			}
			rows = append(rows, strings.Join(record, ","))
		}
		digest := sha256.Sum256([]byte(strings.Join(rows, "\n")))
		if l.digest != hex.EncodeToString(digest[:]) || digests[l.digest] {
			t.Errorf("%s: the digest is wrong, or another file's", l.name)
		}
		digests[l.digest] = true
		if !l.large && len(l.text) > maxConfigMap {
			t.Errorf("%s: %d bytes go into no ConfigMap", l.name, len(l.text))
		}
		job := l.job(l.name, &v1alpha1.ObjectStoreSource{URL: "s3://chaos/"})
		if l.large {
			large++
			if got := job.Spec.Source.ObjectStore.URL; got != "s3://chaos/"+l.name+".csv" {
				t.Errorf("%s is sought at %s", l.name, got)
			}
		}
		if len(l.names()) == 2 {
			twins++
			if twin := l.job(l.names()[1], &v1alpha1.ObjectStoreSource{}); twin.Spec.Split != nil || twin.Spec.Canary != nil {
				t.Errorf("%s: the second job asks for parts", l.name)
			}
		}
		if split := job.Spec.Split; split != nil {
			divided++
			if *split.MaxRows < 1 || *split.MaxRows >= int64(l.rows) || split.Parallelism < 1 || split.Parallelism > 3 {
				t.Errorf("%s: %d rows in parts of %d, %d at once", l.name, l.rows, *split.MaxRows, split.Parallelism)
			}
		}
		if job.Spec.Canary != nil {
			canaries++
		}
	}
	if large == 0 || twins == 0 || divided < len(all)/partsOfEvery-4 || canaries == 0 {
		t.Errorf("%d large files, %d twins, %d in parts, %d with a canary", large, twins, divided, canaries)
	}
}
