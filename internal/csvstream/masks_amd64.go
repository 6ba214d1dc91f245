package csvstream

import "golang.org/x/sys/cpu"

// find fills one set of masks for each block of p.
func find(p []byte, into []masks) {
	if !cpu.X86.HasAVX2 {
		findPortably(p, into)
		return
	}
	if len(into) > 0 {
		_ = p[len(into)*blockBytes-1]
		findAVX2(&p[0], &into[0], len(into))
	}
}

// findAVX2 fills n sets of masks from n blocks that begin at p; n is 1 or more.
//
//go:noescape
func findAVX2(p *byte, into *masks, n int)
