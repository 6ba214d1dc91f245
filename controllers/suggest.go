package controllers

import (
	"fmt"
	"strings"

	"bulkjob.dev/operator/internal/preflight"
)

// unknownObject says that a connector does not list an object, and which one may have been meant.
func unknownObject(object string, listed []string) string {
	message := fmt.Sprintf("unknown object %s", object)
	if near := preflight.Nearest(object, listed); near != "" {
		return message + "; did you mean " + near + "?"
	}
	if len(listed) == 0 {
		return message + ": the connector lists no objects"
	}
	shown := listed[:min(len(listed), 10)]
	more := ""
	if len(listed) > len(shown) {
		more = fmt.Sprintf(" and %d more", len(listed)-len(shown))
	}
	return message + "; the connector lists " + strings.Join(shown, ", ") + more
}
