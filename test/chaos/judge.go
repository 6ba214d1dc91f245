package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"bulkjob.dev/operator/api/v1alpha1"
)

// An ending is how a BulkJob stood when all was over.
type ending struct {
	load      *load
	job       string // its name
	receipt   string
	id        string // that the receipt holds
	completed bool   // whatever the end
	stalled   bool
	reason    string
	message   string
}

// taken is one job of the endpoint, as its own table has it.
type taken struct {
	id, token string
}

// receipt is the first part of the token that the operator sends.
func (t taken) receipt() string {
	name, _, _ := strings.Cut(t.token, ".")
	return name
}

// stock is what a table holds of one file.
type stock struct {
	rows, distinct int
	digest         string
}

// evidence is all that there is to judge by. The rows and the endpoint's jobs are read in PostgreSQL.
type evidence struct {
	loads                []*load
	endings              []ending
	taken                []taken
	stocks               map[string]stock  // by name of the load
	doubled              map[string]string // a row that is there more than once, in words, by name of the load
	repeated             map[string]int    // uploads that the endpoint recognised by their token, by connector
	vanished, miscounted map[string]bool   // ids
}

// A judgement is what came of it all. The first three must be empty.
type judgement struct {
	twice       map[string]string // how each was seen first, by name of the load
	lost, stuck []string
	held, ended map[string]int // by reason
}

func (j *judgement) good() bool { return len(j.twice)+len(j.lost)+len(j.stuck) == 0 }

func judge(e *evidence) *judgement {
	j := &judgement{twice: maps.Clone(e.doubled), held: map[string]int{}, ended: map[string]int{}}
	if j.twice == nil {
		j.twice = map[string]string{}
	}
	j.countTaken(e)
	for i := range e.endings {
		j.judgeJob(e, &e.endings[i])
	}
	for _, l := range e.loads {
		j.judgeRows(l, e.stocks[l.name])
	}
	return j
}

// countTaken looks for files of which the endpoint made two jobs, or that it got twice without saying that it need not.
func (j *judgement) countTaken(e *evidence) {
	ids, loads := map[string][]string{}, map[string]string{}
	for i := range e.endings {
		loads[e.endings[i].receipt] = e.endings[i].load.name
	}
	for _, t := range e.taken {
		ids[t.receipt()] = append(ids[t.receipt()], t.id+" ("+t.token+")")
	}
	for _, name := range slices.Sorted(maps.Keys(ids)) {
		if len(ids[name]) > 1 {
			j.again(cmp.Or(loads[name], name), "the endpoint has several jobs for one receipt: "+strings.Join(ids[name], ", "))
		}
	}
	for _, of := range connectors {
		if n := e.repeated[of.name]; n > 0 && of.deduplication != v1alpha1.DeduplicationAttempt {
			j.again("connector "+of.name, fmt.Sprintf("%d files came twice with one token, and it does not say that it recognises them", n))
		}
	}
}

func (j *judgement) again(load, how string) {
	if j.twice[load] == "" {
		j.twice[load] = how
	}
}

// judgeJob holds a job's end against what the endpoint has.
func (j *judgement) judgeJob(e *evidence, end *ending) {
	what := fmt.Sprintf("%s (%s): %s: %s", end.job, end.receipt, cmp.Or(end.reason, "no condition"), end.message)
	known := slices.ContainsFunc(e.taken, func(t taken) bool { return t.receipt() == end.receipt && t.id == end.id })
	switch {
	case end.id != "" && !known:
		j.lost = append(j.lost, what+"; the endpoint has no job "+end.id+" for it")
	case end.reason == v1alpha1.ReasonComplete || end.reason == v1alpha1.ReasonAlreadyLoaded:
		if !known {
			j.lost = append(j.lost, what+"; the endpoint never took it")
		}
		j.ended[end.reason]++
	case (end.reason == v1alpha1.ReasonCountMismatch || end.reason == v1alpha1.ReasonAlreadyFailed) && end.completed && e.miscounted[end.id]:
		j.ended[end.reason]++
	case end.reason == v1alpha1.ReasonRemoteForgot && end.stalled && e.vanished[end.id]:
		j.held[end.reason]++
	case end.reason == v1alpha1.ReasonSubmissionUnknown && end.stalled && !end.load.trust.decides():
		j.held[end.reason]++
	case end.reason == v1alpha1.ReasonSubmissionUnknown && end.stalled:
		j.stuck = append(j.stuck, what+"; held, although the endpoint can be asked, or sent to again")
	case end.completed:
		j.lost = append(j.lost, what)
	default:
		j.stuck = append(j.stuck, what)
	}
}

// judgeRows holds a file against the rows of its table: all of them, once, or none.
func (j *judgement) judgeRows(l *load, found stock) {
	switch {
	case found.rows > found.distinct || found.rows > l.rows:
		j.again(l.name, fmt.Sprintf("table %s has %d rows, %d of them different, of %d", l.table, found.rows, found.distinct, l.rows))
	case found.rows > 0 && (found.rows != l.rows || found.digest != l.digest):
		j.lost = append(j.lost, fmt.Sprintf("%s: table %s has %d of %d rows, or others", l.name, l.table, found.rows, l.rows))
	}
}

// counted says numbers by name.
func counted(numbers map[string]int) string {
	words := make([]string, 0, len(numbers))
	for _, name := range slices.Sorted(maps.Keys(numbers)) {
		words = append(words, fmt.Sprintf("%s %d", name, numbers[name]))
	}
	return strings.Join(words, ", ")
}

func sum(numbers map[string]int) (n int) {
	for _, count := range numbers {
		n += count
	}
	return n
}
