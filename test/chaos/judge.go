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
	total     int    // parts of the load; 0: it was sent whole
	parts     []part // that were claimed, in their order
	completed bool   // whatever the end
	stalled   bool
	reason    string
	message   string
}

// A part is one part of a load, by its receipt.
type part struct {
	receipt, id string
	number      int32
	rows        int
}

// files are what was sent: the whole file, or its parts.
func (e *ending) files() []part {
	if e.total == 0 {
		return []part{{receipt: e.receipt, id: e.id, rows: e.load.rows}}
	}
	return e.parts
}

// any is true if one of the endpoint's jobs for the load is in the set.
func (e *ending) any(ids map[string]bool) bool {
	return slices.ContainsFunc(e.files(), func(p part) bool { return ids[p.id] })
}

// canaryMiscounted is true if the others were not sent because of what was said of the first.
func (e *ending) canaryMiscounted(ids map[string]bool) bool {
	return e.load.canary != nil && len(e.parts) > 0 && e.parts[0].number == 1 && ids[e.parts[0].id]
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

// took is true if the endpoint has made a job of what that receipt is for, under that id; of any id, if that is empty.
func (e *evidence) took(receipt, id string) bool {
	return slices.ContainsFunc(e.taken, func(t taken) bool { return t.receipt() == receipt && (id == "" || t.id == id) })
}

// divided is how many files were sent in parts, and how many parts were claimed.
func (e *evidence) divided() (files, parts int) {
	seen := map[string]bool{}
	for i := range e.endings {
		if end := &e.endings[i]; end.total > 0 && !seen[end.receipt] {
			seen[end.receipt] = true
			files, parts = files+1, parts+len(end.parts)
		}
	}
	return files, parts
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
		j.judgeRows(l, e.stocks[l.name], e.due(l))
	}
	return j
}

// countTaken looks for files of which the endpoint made two jobs, or that it got twice without saying that it need not.
func (j *judgement) countTaken(e *evidence) {
	ids, loads := map[string][]string{}, map[string]string{}
	for i := range e.endings {
		for _, file := range e.endings[i].files() {
			loads[file.receipt] = e.endings[i].load.name
		}
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
	known := 0
	for _, file := range end.files() {
		if file.id == "" {
			continue
		}
		if !e.took(file.receipt, file.id) {
			j.lost = append(j.lost, what+"; the endpoint has no job "+file.id+" for it")
			return
		}
		known++
	}
	switch {
	case end.reason == v1alpha1.ReasonComplete || end.reason == v1alpha1.ReasonAlreadyLoaded:
		if known < max(end.total, 1) {
			j.lost = append(j.lost, what+"; the endpoint never took it, or not all of it")
		}
		j.ended[end.reason]++
	case (end.reason == v1alpha1.ReasonCountMismatch || end.reason == v1alpha1.ReasonAlreadyFailed) && end.completed && end.any(e.miscounted),
		end.reason == v1alpha1.ReasonCanaryFailed && end.completed && end.canaryMiscounted(e.miscounted):
		j.ended[end.reason]++
	case end.reason == v1alpha1.ReasonRemoteForgot && end.stalled && end.any(e.vanished):
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

// due is how many rows of a load must be there: those of the parts that the endpoint took. It is -1 for a file that was sent whole.
func (e *evidence) due(l *load) int {
	for i := range e.endings {
		if end := &e.endings[i]; end.load == l && end.total > 0 {
			rows := 0
			for _, p := range end.parts {
				if e.took(p.receipt, "") {
					rows += p.rows
				}
			}
			return rows
		}
	}
	return -1
}

// judgeRows holds a file against the rows of its table: all of them, once, or none; of one that was sent in parts, those that are due.
func (j *judgement) judgeRows(l *load, found stock, due int) {
	switch {
	case found.rows > found.distinct || found.rows > l.rows:
		j.again(l.name, fmt.Sprintf("table %s has %d rows, %d of them different, of %d", l.table, found.rows, found.distinct, l.rows))
	case due >= 0 && found.rows != due:
		j.lost = append(j.lost, fmt.Sprintf("%s: table %s has %d of %d rows, and the parts that the endpoint took have %d",
			l.name, l.table, found.rows, l.rows, due))
	case found.rows > 0 && (due < 0 || due == l.rows) && (found.rows != l.rows || found.digest != l.digest):
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
