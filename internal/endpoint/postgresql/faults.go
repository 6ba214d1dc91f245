package postgresql

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"bulkjob.dev/operator/internal/endpoint"
)

// conditions names the states that rows fail with most, after PostgreSQL's manual, appendix A.
var conditions = map[string]string{
	"21000": "cardinality violation",
	"22000": "data exception",
	"22001": "value too long for its type",
	"22003": "number out of range",
	"22007": "invalid date or time",
	"22008": "date or time out of range",
	"22021": "invalid UTF-8",
	"22P02": "invalid text for its type",
	"22P03": "invalid binary value",
	"22P04": "bad CSV: more or fewer fields than the header",
	"22P05": "character that the database's encoding lacks",
	"23502": "null in a column that needs a value",
	"23503": "foreign key violation",
	"23505": "duplicate key",
	"23514": "check violation",
	"23P01": "exclusion violation",
	"44000": "check option violation",
	"54000": "program limit exceeded",
	"P0001": "refused by a trigger",
}

// classes of SQLSTATE, for the states not named above.
var classes = map[string]string{
	"21": "cardinality violation", "22": "data exception", "23": "integrity constraint violation", "38": "external routine failed",
	"39": "external routine misbehaved", "44": "check option violation", "54": "program limit exceeded", "P0": "refused by a trigger",
}

// passing are classes and states that say nothing of rows or file: the batch is worth another try.
var passing = []string{"08", "40", "53", "57", "55P03", "25006"}

// sort of an error of a batch.
type fault int

const (
	retryable fault = iota // the batch is tried again
	ofRow                  // at least one row of the batch is at fault
	ofJob                  // no row can be loaded
)

func classify(err error) fault {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return retryable
	}
	if _, ok := classes[pg.Code[:2]]; ok {
		return ofRow
	}
	if slices.ContainsFunc(passing, func(prefix string) bool { return strings.HasPrefix(pg.Code, prefix) }) {
		return retryable
	}
	return ofJob
}

// jobFault turns an error of the job into what ends it, and leaves any other as it is.
func jobFault(err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || classify(err) != ofJob {
		return err
	}
	// The message of such an error names tables, columns or rights, and no values.
	return &endpoint.Fault{Reason: pg.Code + ": " + pg.Message}
}

// copyPlace finds line and column in the context that COPY adds to an error. What follows the column is the value.
var copyPlace = regexp.MustCompile(`(?s)^COPY .*?, line (\d+)(?:, column (.*?)(?::|$))?`)

// describe tells a row's error: the status without any value, the response in the server's words.
func describe(err error, columns []string) (status, response string) {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return "", ""
	}
	name := conditions[pg.Code]
	if name == "" {
		name = classes[pg.Code[:2]]
	}
	status = pg.Code + ": " + name
	column := pg.ColumnName
	if place := copyPlace.FindStringSubmatch(pg.Where); column == "" && place != nil && slices.Contains(columns, place[2]) {
		column = place[2]
	}
	if column != "" {
		status += fmt.Sprintf(", column %s", column)
	}
	if pg.ConstraintName != "" {
		status += fmt.Sprintf(", constraint %s", pg.ConstraintName)
	}
	return status, strings.ToValidUTF8(pg.Message, "\uFFFD")
}
