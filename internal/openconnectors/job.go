package openconnectors

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	maxState = 64  // runes of a state word, a direction or an instance's id
	maxError = 256 // runes of a job's failure text
	maxID    = 256 // bytes of a job's id or an object's name
)

// Job is what the endpoint tells about one job, whatever generation of the
// protocol it speaks. A fact that it doesn't tell is nil or empty.
type Job struct {
	ID        string // decimal digits from the platform, but any text will do
	State     string // the endpoint's own word, at most 64 printable characters
	Object    string
	Direction string // UPLOAD or DOWNLOAD

	// Records counts the rows that were read, Failed those that were refused.
	// Records includes the failed ones, by the vendor's own tests.
	Records, Failed *int64

	// Error says why the job failed, without values of rows: on one line of at
	// most 256 characters, empty if the job didn't fail.
	Error string

	NotificationURL string          // where a callback was asked for
	Metadata        json.RawMessage // the upload's metaData, unwrapped if it came as a string
	InstanceID      string
	Created         *time.Time
	Finished        *time.Time
}

// DecodeJob reads one job from an answer's or a callback's body, in any of the
// spellings the platform has used: names differ by generation, ids come as
// strings or numbers, counters as numbers or strings, metadata as text or an
// object. Only what isn't a JSON object is an error, and it is an ErrAnswer.
func DecodeJob(body []byte) (Job, error) {
	return decodeJob(body, func(text string) string { return text })
}

// decodeJob is DecodeJob; scrub takes our own secrets out of the failure's text.
func decodeJob(body []byte, scrub func(string) string) (Job, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil || fields == nil {
		return Job{}, misreading(body, "an object")
	}
	job := Job{
		ID:              identifier(first(fields, "id", "job_id")),
		State:           printable(text(first(fields, "status", "job_status", "bulk_status", "jobStatus")), maxState),
		Object:          printable(text(first(fields, "object_name", "objectName")), maxID),
		Direction:       printable(text(first(fields, "job_direction", "jobDirection")), maxState),
		Records:         count(first(fields, "recordsCount", "record_count", "recordCount")),
		Failed:          count(first(fields, "recordsFailedCount", "error_count", "errorCount", "numOfRowsFailed")),
		NotificationURL: text(first(fields, "notification_url", "notificationUrl")),
		Metadata:        embedded(first(fields, "metadata", "metaData")),
		InstanceID:      printable(identifier(first(fields, "instanceId", "instance_id")), maxState),
		Created:         moment(first(fields, "createdDate")),
		Finished:        moment(first(fields, "bulk_finish_time", "completion_time", "completionTime")),
	}
	job.Error = failure(fields, job.State, scrub)
	if payload := first(fields, KeyCallbackPayload); payload != nil && job.Metadata == nil {
		// A callback passes the payload back beside the job's other fields.
		job.Metadata = json.RawMessage(`{"` + KeyCallbackPayload + `":` + string(payload) + `}`)
	}
	return job, nil
}

// failure gives the words of a failed job. "message" and "statusMessage" tell
// of successes too, so they count only once the job has failed.
func failure(fields map[string]json.RawMessage, state string, scrub func(string) string) string {
	raw := first(fields, "error")
	if raw == nil && Terminal(state) && !Succeeded(state) {
		raw = first(fields, "message", "statusMessage")
	}
	words := text(raw)
	if words == "" && len(raw) > 0 && raw[0] == '{' {
		words = jsonErrorText(raw)
	}
	return reduce(scrub(words), maxError)
}

// decodeJobs reads a list of jobs; the vendor's schema calls it one job, and
// an array is what is sent.
func decodeJobs(body []byte) ([]Job, error) {
	body = bytes.TrimSpace(body)
	items := []json.RawMessage{body}
	if len(body) == 0 || body[0] != '{' {
		if err := json.Unmarshal(body, &items); err != nil {
			return nil, misreading(body, "a list")
		}
	}
	jobs := make([]Job, 0, len(items))
	for _, item := range items {
		job, err := DecodeJob(item)
		if err != nil {
			return nil, err
		}
		if err := checkName(job.ID); err != nil {
			return nil, fmt.Errorf("cannot use a listed job's id: %w", err)
		}
		jobs = append(jobs, job)
	}
	return jobs, nil
}

// CallbackPayload gives the callback-payload of the job's metaData: a string's
// value, or else its JSON; empty if there is none.
func (j Job) CallbackPayload() string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(j.Metadata, &fields) != nil {
		return ""
	}
	payload := first(fields, KeyCallbackPayload)
	if len(payload) > 0 && payload[0] == '"' {
		return text(payload)
	}
	return string(payload)
}

// Carries reports whether the job was submitted with this token: as a whole
// segment or query value of its notification URL, as its callback-payload, or as
// that payload's "token".
func (j Job) Carries(token string) bool {
	return token != "" && slices.Contains(j.marks(), token)
}

// CarriesAny reports whether the job was submitted with a token that begins so.
func (j Job) CarriesAny(prefix string) bool {
	return prefix != "" && slices.ContainsFunc(j.marks(), func(mark string) bool { return strings.HasPrefix(mark, prefix) })
}

// marks are all that may be a token.
func (j Job) marks() []string {
	var marks []string
	for _, piece := range strings.FieldsFunc(j.NotificationURL, separatesURL) {
		if plain, err := url.PathUnescape(piece); err == nil {
			marks = append(marks, plain)
		}
	}
	payload := j.CallbackPayload()
	var fields map[string]json.RawMessage
	if json.Unmarshal([]byte(payload), &fields) == nil {
		payload = text(fields["token"])
	}
	return append(marks, payload)
}

func separatesURL(r rune) bool { return strings.ContainsRune("/?&=#", r) }
