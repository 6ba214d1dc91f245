package csvstream

import "math/bits"

// batch is how many blocks are searched in one go.
const batch = 64

// scan moves the state over p. Blocks in which everything is as it should be are skimmed; the walk, which knows every case
// and what to say of it, takes the others, and the header, and what is left at the end.
func (r *Reader) scan(p []byte) *SyntaxError {
	for r.columns == 0 && len(p) >= blockBytes {
		if fault := r.walk(p[:blockBytes]); fault != nil {
			return fault
		}
		p = p[blockBytes:]
	}
	var found [batch]masks
	for len(p) >= blockBytes {
		n := min(len(p)/blockBytes, batch)
		find(p, found[:n])
		for i := r.skim(found[:n]); i < n; i += r.skim(found[i:n]) {
			if fault := r.walk(p[i*blockBytes:][:blockBytes]); fault != nil {
				return fault
			}
			i++
		}
		p = p[n*blockBytes:]
	}
	return r.walk(p)
}

// A margin is where the scan stands between two blocks: each is one bit, the lowest, or for quoted all of them.
type margin struct {
	quoted   uint64 // between quotes
	mayOpen  uint64 // a quote may begin a field here, or be the second half of an escaped one
	closed   uint64 // just after a quote that ends a field, or is the first half of an escaped one
	returned uint64 // just after a carriage return outside quotes
	rowStart uint64
	comma    uint64 // just after one between fields
}

// marginOf is the same as the state, which has a name for each case.
func marginOf(s state) margin {
	switch s {
	case rowStart:
		return margin{mayOpen: 1, rowStart: 1}
	case fieldStart:
		return margin{mayOpen: 1, comma: 1}
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
	case m.comma != 0:
		return fieldStart
	default:
		return bare
	}
}

// skim takes blocks as long as nothing in them needs a second look, and returns how many. All of a block is decided at
// once: by the parity of the quotes up to each byte, everything is known to be within quotes or without.
func (r *Reader) skim(blocks []masks) (taken int) {
	at, commas, length := marginOf(r.state), r.commas, r.length
	for i := range blocks {
		m := &blocks[i]
		within := parity(m.quotes) ^ at.quoted
		opens, closes := m.quotes&within, m.quotes&^within
		between, feeds, returns := m.commas&^within, m.feeds&^within, m.returns&^within
		faults := opens&^((between|feeds|closes)<<1|at.mayOpen) |
			(closes<<1|at.closed)&^(m.quotes|m.commas|m.feeds|m.returns) |
			(returns<<1|at.returned)&^feeds
		blank := (feeds | returns) & (feeds<<1 | at.rowStart)
		if faults|blank != 0 || length+blockBytes > r.opts.MaxRowBytes {
			break
		}
		ended, rest, even := r.rowsOf(feeds, between, commas)
		if !even {
			break
		}
		if ended > 0 {
			length = int64(bits.LeadingZeros64(feeds))
		} else {
			length += blockBytes
		}
		at = margin{
			quoted: -(within >> 63), mayOpen: (between | feeds | closes) >> 63, closed: closes >> 63,
			returned: returns >> 63, rowStart: feeds >> 63, comma: between >> 63,
		}
		length -= int64(at.returned) //nolint:gosec // one bit
		commas = rest
		r.row += int64(ended)
		taken++
	}
	if taken > 0 {
		r.state, r.commas, r.length = at.state(), commas, length
	}
	return taken
}

// rowsOf counts the rows that end in a block, and the commas after the last of them; even says that each row has as many
// fields as the header. commas are those of the first row that stand before the block.
func (r *Reader) rowsOf(feeds, between uint64, commas int) (ended, rest int, even bool) {
	before := -commas
	for left := feeds; left != 0; left &= left - 1 {
		upTo := bits.OnesCount64(between & (left&-left - 1))
		if upTo-before != r.columns-1 {
			return 0, 0, false
		}
		before = upTo
		ended++
	}
	return ended, bits.OnesCount64(between) - before, true
}
