package csvstream

import "math/bits"

// batch is how many blocks are searched in one go.
const batch = 32

// scan moves the state over p. Blocks in which everything is as it should be are skimmed; the walk, which knows every case
// and what to say of it, takes the others, and the header, and what is left at the end.
func (r *Reader) scan(p []byte) *SyntaxError {
	for r.columns == 0 && len(p) >= blockBytes {
		if fault := r.walk(p[:blockBytes]); fault != nil {
			return fault
		}
		p = p[blockBytes:]
	}
	for len(p) >= blockBytes {
		n := min(len(p)/blockBytes, batch)
		find(p, r.found[:n])
		for i := r.skim(r.found[:n]); i < n; i += r.skim(r.found[i:n]) {
			if fault := r.walk(p[i*blockBytes:][:blockBytes]); fault != nil {
				return fault
			}
			i++
		}
		p = p[n*blockBytes:]
	}
	return r.walk(p)
}

// A margin is where the scan stands between two blocks. Each field is one bit, the lowest; quoted is all of them.
type margin struct {
	quoted   uint64 // between quotes
	mayOpen  uint64 // a quote may begin a field here, or be the second half of an escaped one
	closed   uint64 // just after a quote that ends a field, or is the first half of an escaped one
	returned uint64 // just after a carriage return outside quotes
	rowStart uint64
}

// marginOf is the same as the state, which has a name for each case.
func marginOf(s state) margin {
	switch s {
	case rowStart:
		return margin{mayOpen: 1, rowStart: 1}
	case fieldStart:
		return margin{mayOpen: 1}
	case quoted:
		return margin{quoted: ^uint64(0)}
	case closing:
		return margin{mayOpen: 1, closed: 1}
	case afterCR:
		return margin{returned: 1}
	default:
		return margin{}
	}
}

func (m *margin) state() state {
	switch {
	case m.quoted != 0:
		return quoted
	case m.closed != 0:
		return closing
	case m.returned != 0:
		return afterCR
	case m.rowStart != 0:
		return rowStart
	case m.mayOpen != 0:
		return fieldStart
	default:
		return bare
	}
}

// skim takes blocks as long as nothing in them needs a second look, and returns how many. All of a block is decided at
// once: by the parity of the quotes up to each byte, everything is known to be within quotes or without. What passes from
// block to block are plain variables, and the common case has no branch that depends on the data: that makes it fast.
func (r *Reader) skim(blocks []masks) (taken int) {
	at := marginOf(r.state)
	quoted, mayOpen, closed, returned, rowStart := at.quoted, at.mayOpen, at.closed, at.returned, at.rowStart
	length, tally := r.length, tally{want: r.columns - 1, commas: r.commas}
	for i := range blocks {
		m := &blocks[i]
		within := parity(m.quotes) ^ quoted
		opens, closes := m.quotes&within, m.quotes&^within
		between, feeds, returns := m.commas&^within, m.feeds&^within, m.returns&^within
		faults := opens&^((between|feeds|closes)<<1|mayOpen) |
			(closes<<1|closed)&^(m.quotes|m.commas|m.feeds|m.returns) |
			(returns<<1|returned)&^feeds
		blank := (feeds | returns) & (feeds<<1 | rowStart)
		next := tally.add(between, feeds)
		if faults|blank != 0 || next.uneven != 0 || length+blockBytes > r.opts.MaxRowBytes {
			break
		}
		tally = next
		quoted, mayOpen = -(within >> 63), (between|feeds|closes)>>63
		closed, returned, rowStart = closes>>63, returns>>63, feeds>>63
		if feeds != 0 {
			length = 0
		}
		length += int64(bits.LeadingZeros64(feeds)) - int64(returned)
		taken++
	}
	if taken > 0 {
		at = margin{quoted: quoted, mayOpen: mayOpen, closed: closed, returned: returned, rowStart: rowStart}
		r.state, r.commas, r.length = at.state(), tally.commas, length
		r.row += int64(tally.rows)
	}
	return taken
}

// A tally counts rows, and the fields in them.
type tally struct {
	want   int // commas of each row
	commas int // of the row that hasn't ended
	rows   int
	uneven int // not 0: a row had more or fewer
}

// add counts one block, by its commas and its line feeds between fields and rows.
func (t tally) add(between, feeds uint64) tally {
	if feeds&(feeds-1) != 0 {
		return t.addRows(between, feeds)
	}
	// One row ends, or none, in which case all commas stand before its end. Computed, as it can't be foreseen which.
	before, ends := bits.OnesCount64(between&(feeds-1)), int((feeds|-feeds)>>63)
	t.uneven = (t.commas + before - t.want) & -ends
	t.commas = bits.OnesCount64(between) - before + (t.commas+before)&(ends-1)
	t.rows += ends
	return t
}

func (t tally) addRows(between, feeds uint64) tally {
	for left := feeds; left != 0; left &= left - 1 {
		before := bits.OnesCount64(between & (left&-left - 1))
		t.uneven |= t.commas + before - t.want
		t.commas = -before
		t.rows++
	}
	t.commas += bits.OnesCount64(between)
	return t
}
