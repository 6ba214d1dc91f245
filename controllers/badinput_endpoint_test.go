package controllers

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"bulkjob.dev/operator/api/v1alpha1"
)

const (
	uploadsAbout = "An answer that proves that the file was refused is a refusal, and is tried again up to `backoffLimit` times (0 here, unless it is told); one that\n" +
		"gives a job's id is an acceptance; and all else leaves open whether the endpoint took the file: nothing is sent again, and a person decides."
	statusesAbout = "Once the endpoint has taken a file, no answer of its ends the load but a word that is known to be an end. Counters and words are read in\n" +
		"every form that an endpoint of this protocol is known to use; what cannot be read is left out rather than guessed."
)

// readWhole reads an upload to its end before it is answered.
func readWhole(answer answerFunc) answerFunc {
	return func(e *fakeEndpoint, w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		answer(e, w, r)
	}
}

// replies answers an upload that was read to its end.
func replies(code int, body string) answers {
	return answers{upload: readWhole(raw(code, "application/json", body))}
}

// takenAs makes a job with an id of the row's choice, and answers with it as it is written.
func takenAs(code int, contentType, id, written string) answers {
	return answers{upload: func(e *fakeEndpoint, w http.ResponseWriter, r *http.Request) {
		job := &fakeJob{id: id, object: strings.TrimPrefix(r.URL.Path, "/elements/api-v2/bulk/")}
		job.read(r)
		e.set(func(e *fakeEndpoint) {
			e.jobs[id] = job
			e.order = append(e.order, id)
		})
		raw(code, contentType, `{"id":`+written+`,"status":"CREATED"}`)(e, w, r)
	}}
}

// read takes the file out of an upload.
func (j *fakeJob) read(r *http.Request) {
	if err := r.ParseMultipartForm(1 << 20); err != nil {
		return
	}
	file, header, err := r.FormFile("file")
	if err != nil {
		return
	}
	text, _ := io.ReadAll(file)
	j.file, j.csv = header.Filename, string(text)
}

// with adds a header to an answer.
func with(name, value string, a answers) answers {
	return answers{upload: header(name, value, a.upload), status: header(name, value, a.status)}
}

func header(name, value string, answer answerFunc) answerFunc {
	if answer == nil {
		return nil
	}
	return func(e *fakeEndpoint, w http.ResponseWriter, r *http.Request) {
		w.Header().Set(name, value)
		answer(e, w, r)
	}
}

// neverRead answers nothing, and reads nothing, until the test has ended.
func neverRead(t *testing.T) answerFunc {
	t.Helper()
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended) })
	return func(*fakeEndpoint, http.ResponseWriter, *http.Request) { <-ended }
}

func once(j *v1alpha1.BulkJob) { j.Spec.BackoffLimit = new(int32(0)) }

func showUploads(t *testing.T) []sight {
	t.Helper()
	store := newStandIn(t)
	h := newHouse(t, quick, store.reachable, func(o *Options) { o.Patience.Submission, o.Patience.Settle = 2*time.Second, time.Second })
	d := h.desk()
	jobs := append(badUploads(), badJob{
		input: "nothing is read, so that the time for one upload passes", stopped: onItsWay, want: v1alpha1.ReasonNotSent, says: "time for one upload",
		edit: store.object("unread.csv", book{begin: "name,email\n", fill: "a,b\n", size: 24_000_003}), answers: answers{upload: neverRead(t)},
	})
	h.objects(len(jobs))
	h.ready(unbounded, func(ci *v1alpha1.ConnectorInstance) { ci.Spec.JobListing = v1alpha1.ListingNone })
	return h.showJobs(d, jobs)
}

func badUploads() []badJob {
	doubt := func(input string, a answers) badJob {
		return badJob{input: input, stopped: atEndpoint, want: v1alpha1.ReasonSubmissionUnknown, says: "cannot be known", answers: a}
	}
	refusal := func(input, says string, a answers) badJob {
		return badJob{input: input, stopped: atEndpoint, want: v1alpha1.ReasonBackoffLimit, says: says, answers: a, edit: once}
	}
	good := func(input string, a answers) badJob {
		return badJob{input: input, stopped: notStopped, want: v1alpha1.ReasonComplete, says: "COMPLETE", answers: a}
	}
	gossip := fmt.Sprintf(`{"message":"row 1 ('%s', '%s@example.com') at https://host/x?token=abc is bad, request 53dbca9430045c016b46566c"}`, canaryValue, canaryValue)
	page := "<html><head><title>413 Request Entity Too Large</title></head></html>"
	return []badJob{
		doubt("200 and a web page", answers{upload: readWhole(raw(200, "text/html", "<html><title>Welcome</title></html>"))}),
		doubt("200 and nothing", replies(200, "")),
		doubt("204", answers{upload: readWhole(func(_ *fakeEndpoint, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })}),
		doubt("200 and an array", replies(200, `[{"id":"42114492","status":"CREATED"}]`)),
		doubt("200 and null", replies(200, "null")),
		doubt("200 and JSON that is cut off", replies(200, `{"id":"42114492","status":"CRE`)),
		doubt("200, and the connection ends within the answer", with("Content-Length", "500", replies(200, `{"id":"42114492"`))),
		doubt("200 and 10 MB of JSON", replies(200, `{"id":"42114492","note":"`+strings.Repeat("x", 10<<20)+`"}`)),
		doubt("200 and no id", replies(200, `{"status":"CREATED"}`)),
		doubt("an id that is empty", replies(200, `{"id":"","status":"CREATED"}`)),
		doubt("an id that is null", replies(200, `{"id":null,"status":"CREATED"}`)),
		doubt("an id that is an object", replies(200, `{"id":{"value":7},"status":"CREATED"}`)),
		doubt("an id that is a way up the path", replies(200, `{"id":"..","status":"CREATED"}`)),
		doubt("an id of 300 characters", replies(200, `{"id":"`+strings.Repeat("7", 300)+`","status":"CREATED"}`)),
		doubt("an id with a line break", replies(200, `{"id":"42\n43","status":"CREATED"}`)),
		doubt("an id of 1.5", replies(200, `{"id":1.5,"status":"CREATED"}`)),
		good("an id that is a number", takenAs(200, "application/json", "700001", "700001")),
		good("an id of more digits than a float has", takenAs(200, "application/json", "900719925474099312345", "900719925474099312345")),
		good("an id with a slash", takenAs(200, "application/json", "a/b", `"a/b"`)),
		good("201 instead of 200, and another content type", takenAs(201, "text/plain", "700002", `"700002"`)),
		refusal("400 and the platform's message", "No file", replies(400, `{"message":"No file was given"}`)),
		refusal("400, and what it says of a row", "400 Bad Request", replies(400, gossip)),
		refusal("401", "401", replies(401, `{"message":"Invalid Organization or User secret, or invalid Element token provided."}`)),
		refusal("403", "403", replies(403, `{"message":"Bulk upload is disabled for this resource"}`)),
		refusal("404", "404", replies(404, `{"message":"No such resource"}`)),
		refusal("405 and nothing", "405", replies(405, "")),
		refusal("413 and a proxy's page", "413", answers{upload: readWhole(raw(413, "text/html", page))}),
		refusal("415", "415", replies(415, `{"message":"Unsupported file"}`)),
		refusal("429 without Retry-After", "429", replies(429, `{"message":"File too large"}`)),
		{
			input: "429 with Retry-After: 3600, which is waited for", stopped: atEndpoint, want: v1alpha1.ReasonRejected, says: "1 of 7 times",
			answers: with("Retry-After", "3600", replies(429, `{"message":"Too many requests"}`)),
		},
		{
			input: "500, and spec.resolve for another attempt", stopped: atEndpoint, want: v1alpha1.ReasonSubmissionUnknown, says: "is ignored",
			answers: replies(500, ""), edit: func(j *v1alpha1.BulkJob) {
				j.Spec.Resolve = &v1alpha1.Resolve{Attempt: "br-" + strings.Repeat("a", 52) + ".1", Action: v1alpha1.ResolveResend}
			},
		},
		{
			input: "401 before the file was read", stopped: onItsWay, want: v1alpha1.ReasonBackoffLimit, says: "401",
			answers: answers{upload: refusing(401, "Invalid Organization or User secret, or invalid Element token provided.")}, edit: once,
		},
		{
			input: "503 before the file was read", stopped: onItsWay, want: v1alpha1.ReasonNotSent, says: "503",
			answers: answers{upload: header("Retry-After", "3600", refusing(503, "try later"))},
		},
		doubt("302 to a login page", answers{upload: readWhole(redirected)}),
		doubt("408", replies(408, "")),
		doubt("409", replies(409, `{"message":"There is such a job already"}`)),
		doubt("500", replies(500, `{"message":"internal error"}`)),
		doubt("500, and what it says of a row", replies(500, gossip)),
		doubt("502 and a proxy's page", answers{upload: readWhole(raw(502, "text/html", "<html><head><title>502 Bad Gateway</title></head></html>"))}),
		doubt("503 with Retry-After", with("Retry-After", "1", replies(503, ""))),
		doubt("the connection ends when all was read", answers{upload: readWhole(hangUp)}),
		doubt("what is not HTTP, when all was read", answers{upload: readWhole(gibberish)}),
	}
}

func showStatuses(t *testing.T) []sight {
	t.Helper()
	h := newHouse(t, quick)
	d := h.desk()
	jobs := badStatuses()
	h.objects(len(jobs))
	h.ready(unbounded)
	return h.showJobs(d, jobs)
}

// says is the endpoint's word of a job.
func says(body string) answers { return answers{status: raw(200, "application/json", body)} }

// failing is the endpoint's word of a job of which one row failed, and what it says of that.
func failing(errors answerFunc) answers {
	return answers{
		status: raw(200, "application/json", `{"status":"COMPLETED","recordsCount":2,"recordsFailedCount":1}`),
		errors: errors,
	}
}

func list(body string) answers { return failing(raw(200, "application/json", body)) }

// endless lists the same page for ever.
func endless(_ *fakeEndpoint, w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Elements-Next-Page-Token", "again")
	raw(200, "application/json", "[]")(nil, w, r)
}

func badStatuses() []badJob {
	row := func(want string) func(input, says string, a answers) badJob {
		return func(input, says string, a answers) badJob {
			stopped := atEndpoint
			if want == v1alpha1.ReasonComplete {
				stopped = notStopped
			}
			return badJob{input: input, stopped: stopped, want: want, says: says, answers: a}
		}
	}
	unread, good := row(v1alpha1.ReasonPollFailed), row(v1alpha1.ReasonComplete)
	odd, miscounted := row(v1alpha1.ReasonUnknownState), row(v1alpha1.ReasonCountMismatch)
	aborted, rows := row(v1alpha1.ReasonRemoteFailed), row(v1alpha1.ReasonRowsFailed)
	return []badJob{
		unread("200 and a web page", "a web page", answers{status: raw(200, "text/html", "<html><title>Sign in</title></html>")}),
		unread("200 and nothing", "is empty", says("")),
		unread("200 and an array", "not an object", says("[]")),
		unread("JSON that is cut off", "cut off", says(`{"status":"COMPLE`)),
		unread("10 MB of JSON", "1 MiB", says(`{"status":"COMPLETE","note":"`+strings.Repeat("x", 10<<20)+`"}`)),
		unread("another job's status", "another job", says(`{"id":"7","status":"COMPLETE"}`)),
		unread("no status", "tells no state", says(`{"recordsCount":2}`)),
		unread("a status that is null", "tells no state", says(`{"status":null}`)),
		unread("a status that is an object", "tells no state", says(`{"status":{"word":"COMPLETE"}}`)),
		unread("302", "redirects aren't followed", answers{status: redirected}),
		unread("401", "401", answers{status: refusing(401, "Invalid Organization or User secret, or invalid Element token provided.")}),
		unread("403", "403", answers{status: refusing(403, "the element instance is disabled")}),
		unread("500", "500", answers{status: refusing(500, "internal error")}),
		unread("503, and a page that names the server", "503", answers{status: raw(503, "text/html", "<html><title>Down for maintenance until 6 pm</title></html>")}),
		unread("a connection that ends without an answer", "connection ended", answers{status: hangUp}),
		row(v1alpha1.ReasonRemoteForgot)("404", "no longer knows its job", answers{status: refusing(404, "no such job")}),
		odd("an unknown word", "PONDERING", says(`{"status":"PONDERING"}`)),
		odd("a word with control characters", "RUN", says(`{"status":"RUN\u001b[31m\u0000\nNING"}`)),
		odd("a word of 10,000 characters", "x", says(`{"status":"`+strings.Repeat("x", 10_000)+`"}`)),
		odd("a word that is a number", "7", says(`{"status":7}`)),
		good("a word in lower case, with blanks", "completed", says(`{"status":" completed ","recordsCount":2,"recordsFailedCount":0}`)),
		good("counters that are text", "2 rows, 0 failed", says(`{"status":"COMPLETE","recordsCount":"2","recordsFailedCount":"0"}`)),
		good("counters that are 2.0 and 0.0", "2 rows, 0 failed", says(`{"status":"COMPLETE","recordsCount":2.0,"recordsFailedCount":0.0}`)),
		good("counters below 0, which are left out", "COMPLETE", says(`{"status":"COMPLETE","recordsCount":-2,"recordsFailedCount":-1}`)),
		good("counters that are words, which are left out", "COMPLETE", says(`{"status":"COMPLETE","recordsCount":"two","recordsFailedCount":"none"}`)),
		good("a counter beyond 64 bits, which is left out", "COMPLETE", says(`{"status":"COMPLETE","recordsCount":99999999999999999999}`)),
		good("no counters", "COMPLETE", says(`{"status":"COMPLETE"}`)),
		good("names of the third generation", "2 rows, 0 failed", says(`{"jobStatus":"COMPLETED","recordCount":2,"errorCount":0}`)),
		miscounted("fewer rows than were sent", "2 rows were sent", says(`{"status":"COMPLETE","recordsCount":1,"recordsFailedCount":0}`)),
		miscounted("more rows than were sent", "2 rows were sent", says(`{"status":"COMPLETE","recordsCount":5,"recordsFailedCount":0}`)),
		miscounted("no rows at all", "2 rows were sent", says(`{"status":"COMPLETE","recordsCount":0,"recordsFailedCount":0}`)),
		rows("more failed rows than there are", "7 of 2 rows failed", answers{status: says(`{"status":"COMPLETE","recordsCount":2,"recordsFailedCount":7}`).status, errors: raw(200, "application/json", "[]")}),
		aborted("ABORTED without a word why", "ABORTED", says(`{"status":"ABORTED"}`)),
		aborted("ERROR, and what it says of a row", "ERROR", says(`{"status":"ERROR","error":"duplicate key value: Key (email)=(`+canaryValue+`@example.com) already exists"}`)),
		aborted("ERROR with an object for its reason", "ERROR", says(`{"status":"ERROR","error":{"message":"no such column \"x\""}}`)),
		aborted("ERROR, and a reason with control characters and 10,000 letters", "ERROR", says(`{"status":"ERROR","error":"bad\u0007 \u001b[31m`+strings.Repeat("word ", 2000)+`"}`)),
		rows("row errors as objects", "row 1: null value", list(`[{"rowNum":1,"status":"null value in column \"email\"","response":"`+canaryValue+`"}]`)),
		rows("row errors as plain text", "1 of 2 rows failed", list(`["the email is missing"]`)),
		rows("row errors without a row's number", "value too long", list(`[{"status":"ERROR","error":"value too long for type character varying(20)"}]`)),
		rows("row errors that quote the row", "row 2: Key (email)=", list(`[{"rowNum":"2","error":"Key (email)=(`+canaryValue+`@example.com) already exists."}]`)),
		rows("row errors with a row's number below 0", "1 of 2 rows failed", list(`[{"rowNum":-3,"status":"rejected"}]`)),
		rows("row errors with nothing but the row itself", "see the endpoint", list(`[{"rowNum":1,"response":{"name":"`+canaryValue+`"}}]`)),
		rows("row errors with control characters", "1 of 2 rows failed", list(`[{"rowNum":1,"status":"bad\u001b[31m\u0000 value\r\nX: y"}]`)),
		rows("row errors of 100,000 letters", "1 of 2 rows failed", list(`[{"rowNum":1,"status":"`+strings.Repeat("long ", 20_000)+`"}]`)),
		rows("row errors that are null, a number, a list", "1 of 2 rows failed", list(`[null,7,[]]`)),
		rows("an object where the list of row errors should be", "1 of 2 rows failed", list(`{"errors":[]}`)),
		rows("a web page where the list of row errors should be", "1 of 2 rows failed", failing(raw(200, "text/html", "<html></html>"))),
		rows("404 where the list of row errors should be", "1 of 2 rows failed", failing(refusing(404, "no such job"))),
		rows("pages of row errors that never end", "1 of 2 rows failed", failing(endless)),
		rows("10 MB of row errors", "1 of 2 rows failed", list(`["`+strings.Repeat("x", 10<<20)+`"]`)),
	}
}
