package csvstream

import (
	"encoding/binary"
	"math/bits"
)

// blockBytes is what one set of masks speaks of.
const blockBytes = 64

// masks says where in a block the bytes stand that matter: bit i is byte i.
type masks struct {
	quotes, commas, feeds, returns uint64
}

const (
	eachByte = 0x0101010101010101
	lowBits  = 0x7f * eachByte
	gather   = 0x0102040810204080 // brings the lowest bits of eight bytes together in the topmost byte
)

// findPortably fills one set of masks for each block of p, eight bytes at a time.
func findPortably(p []byte, into []masks) {
	for i := range into {
		block := p[i*blockBytes:][:blockBytes]
		var m masks
		for at := 0; at < blockBytes; at += 8 {
			word := binary.LittleEndian.Uint64(block[at:])
			m.quotes |= equal(word, '"') << at
			m.commas |= equal(word, ',') << at
			m.feeds |= equal(word, '\n') << at
			m.returns |= equal(word, '\r') << at
		}
		into[i] = m
	}
}

// equal says which of a word's bytes are b, the first in the lowest bit.
func equal(word uint64, b byte) uint64 {
	word ^= uint64(b) * eachByte
	zero := ^((word&lowBits + lowBits) | word | lowBits) // 0x80 where a byte is zero, exactly
	return (zero >> 7) * gather >> 56
}

// parity gives for each bit whether the number of bits up to and with it is odd.
func parity(x uint64) uint64 {
	for shift := 1; shift < bits.UintSize; shift <<= 1 {
		x ^= x << shift
	}
	return x
}
