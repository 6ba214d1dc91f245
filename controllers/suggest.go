package controllers

import (
	"fmt"
	"strings"
)

// unknownObject says that a connector does not list an object, and which one may have been meant.
func unknownObject(object string, listed []string) string {
	message := fmt.Sprintf("unknown object %s", object)
	if near := nearest(object, listed); near != "" {
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

// nearest is the listed name that is at most a third of the wanted one's
// letters away from it; empty if none is.
func nearest(wanted string, listed []string) string {
	best, distance := "", max(len(wanted)/3, 1)+1
	for _, name := range listed {
		if len(name) > 256 {
			continue
		}
		if d := editDistance(strings.ToLower(wanted), strings.ToLower(name)); d < distance {
			best, distance = name, d
		}
	}
	return best
}

// editDistance is the number of insertions, deletions and replacements of bytes that turn a into b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
