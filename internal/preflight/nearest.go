package preflight

import "strings"

// maxNearBytes is the longest name that is compared.
const maxNearBytes = 256

// Nearest is the listed name that is at most a third of the wanted one's letters away from it, whatever the case; empty if
// none is.
func Nearest(wanted string, listed []string) string {
	if len(wanted) > maxNearBytes {
		return ""
	}
	best, distance := "", max(len(wanted)/3, 1)+1
	for _, name := range listed {
		if len(name) > maxNearBytes {
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
