package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
)

const (
	namespace     = "chaos"
	sourceKey     = "rows.csv"
	bucket        = "chaos"
	storeSecret   = "store"
	tablesOfEach  = 6 // connectors: a table takes one file after the other
	twinOfEvery   = 13
	partsOfEvery  = 4
	largeRows     = 30_000 // two and a half MB
	fillerSymbols = "abcdefghijklmnopqrstuvwxyz0123456789"
)

// trust is what a connector says of the endpoint, and so what the operator may do about a doubt.
type trust struct {
	name          string
	listing       v1alpha1.JobListing
	deduplication v1alpha1.Deduplication
}

// Connectors, each with tables of its own. All lead to the same endpoint; the proxy tells them by their hub.
var connectors = []trust{
	{"repeats", v1alpha1.ListingAuthoritative, v1alpha1.DeduplicationAttempt},
	{"lists", v1alpha1.ListingAuthoritative, v1alpha1.DeduplicationNone},
	{"advises", v1alpha1.ListingAdvisory, v1alpha1.DeduplicationNone},
	{"blind", v1alpha1.ListingNone, v1alpha1.DeduplicationAttempt},
}

// decides is true where every doubt can be resolved without a person.
func (t *trust) decides() bool {
	return t.listing == v1alpha1.ListingAuthoritative || t.deduplication == v1alpha1.DeduplicationAttempt
}

// A load is one file, and where it belongs.
type load struct {
	name   string // of the job, and in each row
	trust  trust
	table  string
	rows   int
	digest string // of the rows, in order; see digestSQL
	large  bool   // in the object store
	twin   bool   // a second job asks for it
	split  *v1alpha1.Split
	canary *v1alpha1.Canary
	text   string
}

// newLoads makes all files. What one holds does not depend on how many there are.
func newLoads(s *settings) []*load {
	all := make([]*load, s.jobs)
	for i := range all {
		all[i] = newLoad(i, s.chance(chanceOfFiles+uint64(i)))
	}
	return all
}

func newLoad(i int, chance *rand.Rand) *load {
	of := connectors[i%len(connectors)]
	l := &load{
		name: fmt.Sprintf("load-%04d", i), trust: of, twin: i%twinOfEvery == 5,
		table: fmt.Sprintf("%s_%d", of.name, i/len(connectors)%tablesOfEach),
	}
	switch n := chance.IntN(20); {
	case n == 0:
		l.large, l.rows = true, largeRows
	case n < 3:
		l.rows = 4000 + chance.IntN(4000)
	case n < 8:
		l.rows = 500 + chance.IntN(2500)
	default:
		l.rows = 1 + chance.IntN(50)
	}
	var file strings.Builder
	file.WriteString("job,row,filler\n")
	rows := sha256.New()
	filler := make([]byte, 60)
	for row := 1; row <= l.rows; row++ {
		for i := range filler {
			filler[i] = fillerSymbols[chance.IntN(len(fillerSymbols))]
		}
		line := l.name + "," + strconv.Itoa(row) + "," + string(filler)
		file.WriteString(line + "\n")
		if row > 1 {
			rows.Write([]byte{'\n'})
		}
		rows.Write([]byte(line))
	}
	l.text, l.digest = file.String(), hex.EncodeToString(rows.Sum(nil))
	if i/len(connectors)%partsOfEvery == 1 && l.rows > 1 {
		l.divide(chance)
	}
	return l
}

// divide has the file sent in two to five parts, one to three at once; one in three files with a canary before them.
func (l *load) divide(chance *rand.Rand) {
	parts := 2 + chance.IntN(4)
	l.split = &v1alpha1.Split{MaxRows: new(int64((l.rows + parts - 1) / parts)), Parallelism: 1 + chance.Int32N(3)}
	if chance.IntN(3) == 0 {
		l.canary = &v1alpha1.Canary{Rows: int64(1 + l.rows/10)}
	}
}

// tableSQL makes a table that takes any row any number of times.
func tableSQL(name string) string {
	return "create table " + name + " (job text not null, row integer not null, filler text not null)"
}

// digestSQL says, for each job of a table, how many rows there are, how many different ones, and their digest in order.
func digestSQL(table string) string {
	return `select job, count(*), count(distinct row), encode(sha256(convert_to(
		string_agg(job || ',' || row || ',' || filler, chr(10) order by row), 'UTF8')), 'hex') from ` + table + ` group by job`
}

// repeatedSQL names the rows of a table that are there more than once.
func repeatedSQL(table string) string {
	return "select job, row, count(*) from " + table + " group by job, row having count(*) <> 1 order by 1, 2 limit 1000"
}

// tables are all tables.
func tables() []string {
	var names []string
	for _, of := range connectors {
		for i := range tablesOfEach {
			names = append(names, fmt.Sprintf("%s_%d", of.name, i))
		}
	}
	return names
}

// configMap holds the file, unless it is in the object store.
func (l *load) configMap() *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: l.name}, Data: map[string]string{sourceKey: l.text},
	}
}

// job asks for the load, under a name of its own. Refusals are the storm's, and never mean the file. The second job asks for the
// whole file, and gets what the first one has begun.
func (l *load) job(name string, store *v1alpha1.ObjectStoreSource) *v1alpha1.BulkJob {
	job := &v1alpha1.BulkJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.BulkJobSpec{
			ConnectorRef: v1alpha1.LocalReference{Name: l.trust.name}, Object: l.table, BackoffLimit: new(int32(100)),
		},
	}
	if name == l.name {
		job.Spec.Split, job.Spec.Canary = l.split, l.canary
	}
	if l.large {
		from := *store
		from.URL += l.name + ".csv"
		job.Spec.Source.ObjectStore = &from
	} else {
		job.Spec.Source.ConfigMap = &v1alpha1.KeyReference{Name: l.name, Key: sourceKey}
	}
	return job
}

// names are those of the jobs that ask for the load.
func (l *load) names() []string {
	if l.twin {
		return []string{l.name, l.name + "-twin"}
	}
	return []string{l.name}
}
