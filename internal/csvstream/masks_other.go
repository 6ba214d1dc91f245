//go:build !amd64

package csvstream

// find fills one set of masks for each block of p.
func find(p []byte, into []masks) { findPortably(p, into) }
