// Package progress shows how far a load is: as a bar that is drawn again and again on a terminal, or as a line for each thing that is
// new. It knows nothing of where the news come from.
package progress

import (
	"cmp"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/cli/render"
)

const (
	barCells = 24
	// minWidth of a terminal, in columns, at which a line is cut; anything narrower is not believed.
	minWidth = 20
	// quiet is how long nothing but counters must have been told before a line is worth it.
	quiet = 10 * time.Second
)

// Meter makes lines of what has been seen of one job. The zero value has seen nothing.
type Meter struct {
	job   *v1alpha1.BulkJob
	first sample // of the rows, while one job of the endpoint's is followed
	last  sample
	told  string    // the last line's subject
	at    time.Time // of the last line
}

// sample is a number of rows and when it was told.
type sample struct {
	rows int64
	at   time.Time
}

// See notes how a job stood at a moment.
func (m *Meter) See(job *v1alpha1.BulkJob, now time.Time) {
	if m.job != nil && m.job.Status.JobID != job.Status.JobID {
		m.first, m.last = sample{}, sample{}
	}
	m.job = job
	rows, ok := processed(job)
	if !ok || !m.last.at.IsZero() && rows == m.last.rows {
		return
	}
	m.last = sample{rows, now}
	if m.first.at.IsZero() {
		m.first = m.last
	}
}

// processed is how many rows the endpoint is through with. Whether the failed ones are among the processed ones differs.
func processed(job *v1alpha1.BulkJob) (int64, bool) {
	counts := job.Status.Rows
	if counts == nil || counts.Processed == nil {
		return 0, false
	}
	return max(*counts.Processed, value(counts.Failed)), true
}

func value(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

// rate in rows per second; 0 if it cannot be told.
func (m *Meter) rate() float64 {
	if m.last.rows > m.first.rows && m.last.at.After(m.first.at) {
		return float64(m.last.rows-m.first.rows) / m.last.at.Sub(m.first.at).Seconds()
	}
	submitted := m.job.Status.SubmitTime
	if submitted == nil || m.last.rows == 0 || !m.last.at.After(submitted.Time) {
		return 0
	}
	return float64(m.last.rows) / m.last.at.Sub(submitted.Time).Seconds()
}

// Bar is one line for a terminal of so many columns, without a line end.
func (m *Meter) Bar(now time.Time, columns int) string {
	if m.job == nil {
		return ""
	}
	words := []string{m.word()}
	if done, total := m.measure(); total > 0 {
		words = append(words, bar(done, total))
	}
	words = append(words, m.figures()...)
	if left := m.left(now); left != "" {
		words = append(words, "ETA "+left)
	}
	if len(words) == 1 {
		words = append(words, render.Plain(m.ready().Message))
	}
	return cut(strings.Join(words, "  "), max(columns-1, minWidth))
}

// Line is a line for a log, without a line end; empty if there is nothing new to say.
func (m *Meter) Line(now time.Time) string {
	if m.job == nil {
		return ""
	}
	condition := m.ready()
	subject := condition.Reason + " " + m.job.Status.State + " " + condition.Message
	line := strings.Join(append([]string{m.word()}, m.figures()...), ", ")
	if len(m.figures()) == 0 && condition.Message != "" {
		line += ": " + render.Plain(condition.Message)
	}
	if left := m.left(now); left != "" {
		line += ", ETA " + left
	}
	switch {
	case subject != m.told:
	case line == "" || now.Sub(m.at) < quiet || m.last.at.Before(m.at):
		return ""
	}
	m.told, m.at = subject, now
	return line
}

// word says what the job is about: the endpoint's word once it has one, the operator's reason where that tells more.
func (m *Meter) word() string {
	reason, state := m.ready().Reason, m.job.Status.State
	switch {
	case reason == v1alpha1.ReasonSubmitted && state != "":
		return render.Plain(state)
	default:
		return cmp.Or(reason, "Waiting for the operator")
	}
}

func (m *Meter) ready() metav1.Condition {
	if c := meta.FindStatusCondition(m.job.Status.Conditions, v1alpha1.ConditionReady); c != nil && m.job.Status.ObservedGeneration >= m.job.Generation {
		return *c
	}
	return metav1.Condition{}
}

// measure is how much of how much is done: parts that have ended, or rows at the endpoint, or bytes on their way there; 0 of 0 where none
// is known. The rows of a load in parts tell nothing of its whole, since those of parts to come are not among them.
func (m *Meter) measure() (done, total int64) {
	upload := m.job.Status.Upload
	rows, known := processed(m.job)
	switch parts := m.job.Status.Parts; {
	case parts != nil:
		return int64(parts.Succeeded) + int64(parts.Failed), int64(parts.Total)
	case known && m.job.Status.Rows.Sent != nil:
		return rows, *m.job.Status.Rows.Sent
	case m.uploads() && upload.BytesTotal != nil:
		return upload.BytesSent, *upload.BytesTotal
	}
	return 0, 0
}

// uploads is true while the file is on its way.
func (m *Meter) uploads() bool { return m.job.Status.Upload != nil && m.job.Status.SubmitTime == nil }

// figures are the numbers that are known.
func (m *Meter) figures() []string {
	var all []string
	rows, known := processed(m.job)
	parts := m.job.Status.Parts
	if parts != nil {
		all = append(all, "parts "+parts.Summary)
	}
	switch {
	case known && parts == nil && m.job.Status.Rows.Sent != nil:
		all = append(all, fmt.Sprintf("%s of %s rows", render.Count(rows), render.Count(*m.job.Status.Rows.Sent)))
	case known:
		all = append(all, render.Count(rows)+" rows")
	case m.uploads() && m.job.Status.Upload.BytesTotal != nil:
		all = append(all, fmt.Sprintf("%s of %s sent", render.Bytes(m.job.Status.Upload.BytesSent), render.Bytes(*m.job.Status.Upload.BytesTotal)))
	case m.uploads():
		all = append(all, render.Bytes(m.job.Status.Upload.BytesSent)+" sent")
	}
	if known {
		if failed := value(m.job.Status.Rows.Failed); failed > 0 {
			all = append(all, render.Count(failed)+" failed")
		}
		if rate := m.rate(); rate > 0 {
			all = append(all, render.Rate(rate))
		}
	}
	return all
}

// left is the time until all is done; empty if it cannot be told.
func (m *Meter) left(now time.Time) string {
	at := m.job.Status.EstimatedCompletionTime
	if m.uploads() {
		at = m.job.Status.Upload.EstimatedCompletionTime
	}
	if at == nil && m.job.Status.Parts == nil && m.rate() > 0 {
		if done, total := m.measure(); done < total {
			at = &metav1.Time{Time: m.last.at.Add(time.Duration(float64(total-done) / m.rate() * float64(time.Second)))}
		}
	}
	if at == nil || !at.After(now) {
		return ""
	}
	return render.Duration(at.Sub(now))
}

func bar(done, total int64) string {
	share := min(max(float64(done)/float64(total), 0), 1)
	full := int(share * barCells)
	cells := strings.Repeat("=", full)
	if full < barCells {
		cells += ">" + strings.Repeat(" ", barCells-full-1)
	}
	return fmt.Sprintf("[%s] %3.f %%", cells, 100*float64(int(share*100))/100)
}

// cut shortens a text to so many characters.
func cut(text string, columns int) string {
	if utf8.RuneCountInString(text) <= columns {
		return text
	}
	runes := []rune(text)
	return string(runes[:columns-1]) + "…"
}
