package endpoint

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"bulkjob.dev/operator/internal/openconnectors"
)

// A Dialect is the spelling of jobs in answers. The platform has many, by age of connector and of API.
type Dialect string

const (
	// DialectSeed says COMPLETE as the vendor's PostgreSQL and Base CRM pages do, with the counters of v2.
	DialectSeed Dialect = "seed"
	// DialectV2 is what the vendor's own tests meet: string ids, COMPLETED, recordsCount.
	DialectV2 Dialect = "v2"
	// DialectV3 is that of the "bulk v3" page: number ids, jobStatus, recordCount, CANCELED.
	DialectV3 Dialect = "v3"
	// DialectList0, 1 and 2 are v2 with GET /bulk/jobs as the three generations of the vendor's OpenAPI files have it.
	DialectList0 Dialect = "list0"
	DialectList1 Dialect = "list1"
	DialectList2 Dialect = "list2"
)

// Dialects are all that there are.
var Dialects = []Dialect{DialectSeed, DialectV2, DialectV3, DialectList0, DialectList1, DialectList2}

func (d Dialect) known() bool { return slices.Contains(Dialects, d) }

// State is the dialect's word for a state.
func (d Dialect) State(state string) string {
	switch {
	case d == DialectSeed && state == openconnectors.StateCompleted:
		return openconnectors.StateComplete
	case d == DialectV3 && state == openconnectors.StateCancelled:
		return openconnectors.StateCanceled
	}
	return state
}

// plainState undoes State, whatever the dialect.
func plainState(word string) string {
	switch word = strings.ToUpper(word); word {
	case openconnectors.StateComplete:
		return openconnectors.StateCompleted
	case openconnectors.StateCanceled:
		return openconnectors.StateCancelled
	}
	return word
}

func (d Dialect) id(id int64) any {
	if d == DialectV3 || d == DialectList0 || d == DialectList1 {
		return id
	}
	return strconv.FormatInt(id, 10)
}

// created answers an upload.
func (d Dialect) created(j Job, instance int64) map[string]any {
	body := map[string]any{"id": d.id(j.ID), "status": j.State}
	if d == DialectV2 || d == DialectList2 {
		body["instanceId"] = instance
	}
	return body
}

// status answers GET /bulk/{id}/status, and is the body of a notification.
func (d Dialect) status(j Job, instance int64) map[string]any {
	if d == DialectV3 {
		return d.statusV3(j)
	}
	body := map[string]any{
		"id": d.id(j.ID), "instanceId": instance, "status": d.State(j.State), "object_name": j.Object,
		"job_direction": DirectionUpload, "recordsCount": j.Records, "recordsFailedCount": j.Failed,
		"fileFormat": j.Format, "fileSize": j.Bytes, "vendorJobId": nil, "metadata": j.MetaData,
	}
	setTime(body, "bulk_start_time", j.Started)
	setTime(body, "bulk_finish_time", j.Finished)
	if j.Error != "" {
		body["error"] = j.Error
	}
	return body
}

func (d Dialect) statusV3(j Job) map[string]any {
	meta := json.RawMessage("{}")
	if json.Valid([]byte(j.MetaData)) {
		meta = json.RawMessage(j.MetaData)
	}
	body := map[string]any{
		"id": j.ID, "jobStatus": d.State(j.State), "recordCount": j.Records, "errorCount": j.Failed, "objectName": j.Object,
		"metaData": meta, "jobDirection": DirectionUpload, "createdDate": j.Created.UnixMilli(), "vendorJobId": nil,
		"notificationUrl": j.CallbackURL, "fileFormat": strings.ToUpper(j.Format), "native": false,
		"statusMessage": "Uploaded " + strconv.FormatInt(j.Records-j.Failed, 10) + " records",
	}
	setTime(body, "completionTime", j.Finished)
	if j.Error != "" {
		body["statusMessage"] = j.Error
	}
	return body
}

// listed is one item of GET /bulk/jobs.
func (d Dialect) listed(j Job, instance int64) map[string]any {
	item := map[string]any{
		"object_name": j.Object, "job_direction": DirectionUpload, "record_count": j.Records, "error_count": j.Failed,
		"fileFormat": j.Format, "notification_url": j.CallbackURL, "createdDate": j.Created.UnixMilli(), "job_reset_attempt": 0,
	}
	setTime(item, "completion_time", j.Finished)
	if metadata := j.listedMetaData(); metadata != "" {
		item["metadata"] = metadata
	}
	switch d {
	case DialectList0:
		item["job_id"], item["bulk_status"] = j.ID, d.State(j.State)
	case DialectList1:
		item["job_id"], item["job_status"] = j.ID, d.State(j.State)
	default:
		item["id"], item["status"], item["instanceId"] = j.ID, d.State(j.State), instance
	}
	return item
}

// listedMetaData is what a list tells of an upload's metaData: its token, by which a client that lost the answer finds its
// job again. It is a string of JSON under the name that a status has for it. The rest would make long lists too long.
func (j Job) listedMetaData() string {
	if j.Token == "" {
		return ""
	}
	text, err := json.Marshal(map[string]string{openconnectors.KeyCallbackPayload: j.Token})
	if err != nil {
		panic(err) // a string always has a JSON form
	}
	return string(text)
}

// setTime writes a time as milliseconds since 1970, if it has come.
func setTime(body map[string]any, key string, t time.Time) {
	if !t.IsZero() {
		body[key] = t.UnixMilli()
	}
}
