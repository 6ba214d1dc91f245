package preflight

import "hash/maphash"

// keys is a set of texts of bounded size, of which it holds a hash of 64 bits each, seeded anew for each file: nobody can make
// texts that meet. Among all the three million that it may hold, two meet by chance in one of four million files.
type keys struct {
	seed  maphash.Seed
	slots []uint64 // open addressing, a power of two of them; 0: free
	most  int      // slots
	held  int
	full  bool // some key could not be held
}

const firstSlots = 1 << 10

func newKeys(room int64) keys {
	most := firstSlots
	for int64(most)*16 <= room { // a slot has 8 bytes
		most *= 2
	}
	return keys{seed: maphash.MakeSeed(), most: most}
}

// add reports whether the text was there before, as far as it is known.
func (k *keys) add(text string) bool {
	if k.slots == nil {
		k.slots = make([]uint64, firstSlots)
	}
	hash := max(maphash.String(k.seed, text), 1)
	at, found := k.find(hash)
	switch {
	case found:
		return true
	case k.held < len(k.slots)/4*3:
	case len(k.slots) >= k.most:
		k.full = true
		return false
	default:
		k.grow()
		at, _ = k.find(hash)
	}
	k.slots[at] = hash
	k.held++
	return false
}

// find gives the slot of a hash, or the free one where it would stand. There always is a free one.
func (k *keys) find(hash uint64) (at int, found bool) {
	mask := uint64(len(k.slots) - 1) //nolint:gosec // there is always one
	for i := hash & mask; ; i = (i + 1) & mask {
		switch k.slots[i] {
		case hash:
			return int(i), true //nolint:gosec // it is less than their number
		case 0:
			return int(i), false //nolint:gosec // as above
		}
	}
}

func (k *keys) grow() {
	before := k.slots
	k.slots = make([]uint64, 2*len(before))
	for _, hash := range before {
		if hash != 0 {
			at, _ := k.find(hash)
			k.slots[at] = hash
		}
	}
}
