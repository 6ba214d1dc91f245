package endpoint

import (
	"encoding/json"
	"time"

	"bulkjob.dev/operator/internal/openconnectors"
)

// Formats of a file and actions of a job, as metaData names them.
const (
	FormatCSV    = "csv"
	FormatJSON   = "json"
	ActionCreate = "create"
	ActionUpsert = "upsert"
)

// A Job is one accepted upload and how far it has come.
type Job struct {
	ID          int64
	Object      string
	Format      string // FormatCSV or FormatJSON
	Action      string // ActionCreate or ActionUpsert
	Key         string // the field that an upsert matches by
	BatchSize   int    // rows sent to the system at once; 0 leaves it to the connector
	Path        string // the client's label
	MetaData    string // as sent
	Token       string // names this upload across repetitions; may be empty
	Digest      string // SHA-256 of the file, in hex
	Spool       string // name of the file in the spool folder
	Bytes       int64  // size of the file
	CallbackURL string

	State   string // one of the platform's words; a finished load is always COMPLETED here
	Records int64  // rows done, failed ones included: the progress mark
	Failed  int64
	Error   string // why it was ABORTED

	Created, Started, Finished time.Time
}

// Ended reports whether the job will change no more.
func (j Job) Ended() bool { return !j.Finished.IsZero() }

// Cancelling reports whether someone asked the running job to end.
func (j Job) Cancelling() bool { return j.State == openconnectors.StateCancellationPending }

// callbackPayload is the part of metaData that is passed back in the notification; nil if there is none.
func (j Job) callbackPayload() json.RawMessage {
	var meta map[string]json.RawMessage
	if json.Unmarshal([]byte(j.MetaData), &meta) != nil {
		return nil
	}
	return meta[openconnectors.KeyCallbackPayload]
}

// A RowError says why one row wasn't loaded.
type RowError struct {
	Row      int64  // 1 is the first row after the header
	Status   string // the reason, without any value of the row
	Response string // the system's own words, which may quote a value
}

// A Query selects jobs.
type Query struct {
	Where  []Condition // all must hold
	Before int64       // only smaller ids; 0 for no bound
	Limit  int
}

// Fields that jobs can be searched by.
const (
	ByObject    = "object"
	ByState     = "state"
	ByRecords   = "records"
	ByDirection = "direction"
)

// DirectionUpload is the direction of every job of this endpoint.
const DirectionUpload = "UPLOAD"

// A Condition compares one field of jobs with a value.
type Condition struct {
	Field  string // ByObject, ByState, ByRecords or ByDirection
	Op     string // =, !=, and for ByRecords also <, <=, >, >=
	Text   string
	Number int64 // used with ByRecords
}
