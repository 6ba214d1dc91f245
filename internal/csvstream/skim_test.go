package csvstream

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// soundRows are rows of two fields; files made of them are longer than a block, with marks on every side of its borders.
var soundRows = []string{
	"1,2\n", "1,2\r\n", "a longer field, and it is bare\n", "\"quoted\",\"2\"\n", "\"a, b\",\"c\"\"d\"\r\n", "\"\",\"\"\"\"\n", ",\n", "\"\n\r\n,\",x\n",
	"\"\",\n", "\r\n", "\n", "Müller,\"Zoë\"\n", "\"" + strings.Repeat("long, ", 30) + "\",\"\r\"\n", "2,\"\"\"\"\"\"\r\n",
}

func mixed(random *rand.Rand, rows int) []byte {
	file := []byte("a,b\n")
	for range rows {
		file = append(file, soundRows[random.IntN(len(soundRows))]...)
	}
	return file
}

// TestSkimmedIsWalked sets the fast way beside the exact one, on files with a fault anywhere or none: bytes that come one
// by one are never skimmed.
func TestSkimmedIsWalked(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	sound := 0
	for range 20_000 {
		file := mixed(random, 1+random.IntN(40))
		if random.IntN(4) > 0 {
			const marks = "\",\n\r\x00x\xff"
			file[random.IntN(len(file))] = marks[random.IntN(len(marks))]
		}
		opts := Options{MaxRowBytes: int64(random.IntN(3) * 150)} // the default, 150 or 300
		skimmed, err := pass(bytes.NewReader(file), opts)
		if err != nil {
			t.Fatal(err)
		}
		walked, err := pass(&pieces{file: string(file), size: 1 + random.IntN(blockBytes-1)}, opts)
		if err != nil {
			t.Fatal(err)
		}
		if walked.Fault == nil {
			sound++
		} else {
			skimmed.Out = walked.Out // how much was handed out before the fault depends on the pieces
		}
		if f := skimmed.Fault; f != nil && walked.Fault != nil && opts.MaxRowBytes > 0 {
			f.Problem = walked.Fault.Problem // and of two faults in a row, so does which one is seen first
		}
		if diff := cmp.Diff(walked, skimmed); diff != "" {
			t.Fatalf("%q with %+v: walked, skimmed:\n%s", file, opts, diff)
		}
	}
	if sound < 4000 || sound > 16_000 {
		t.Errorf("%d of 20,000 files were sound: the others prove nothing, or these don't", sound)
	}
}

func TestMasks(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	const alphabet = "\",\n\r\x00\x0b\x0c!#+-\x7f\x80\x8a\x8d\xa2\xac\xff" // the marks, their neighbours, and the same with the highest bit
	file := make([]byte, 5*blockBytes)
	for range 2000 {
		for i := range file {
			file[i] = alphabet[random.IntN(len(alphabet))]
		}
		want := make([]masks, 5)
		for i, b := range file {
			m, bit := &want[i/blockBytes], uint64(1)<<(i%blockBytes)
			switch b {
			case '"':
				m.quotes |= bit
			case ',':
				m.commas |= bit
			case '\n':
				m.feeds |= bit
			case '\r':
				m.returns |= bit
			}
		}
		for name, search := range map[string]func([]byte, []masks){"this machine's": find, "portable": findPortably} {
			got := make([]masks, 5)
			search(file, got)
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(masks{})); diff != "" {
				t.Fatalf("%s, %q:\n%s", name, file, diff)
			}
		}
	}
}

// TestSkimDoesTheWork keeps the fast way fast: it must take sound rows, not leave them to the walk.
func TestSkimDoesTheWork(t *testing.T) {
	file := []byte("a,b\n" + strings.Repeat("\"quoted, \"\"it\"\" is\",\"2\"\r\nbare,\n", 1000))
	r := NewReader(bytes.NewReader(nil), Options{})
	if fault := r.take(file[:4]); fault != nil {
		t.Fatal(fault)
	}
	body := file[4:]
	blocks := make([]masks, len(body)/blockBytes)
	find(body, blocks)
	if taken := r.skim(blocks); taken != len(blocks) {
		t.Errorf("%d of %d blocks were skimmed", taken, len(blocks))
	}
}

func BenchmarkFind(b *testing.B) {
	file := bytes.Repeat([]byte("\"quoted, \"\"it\"\" is\",\"2\"\r\nbare,\n"), 1000)
	file = file[:len(file)/blockBytes*blockBytes]
	into := make([]masks, len(file)/blockBytes)
	for _, way := range []struct {
		name   string
		search func([]byte, []masks)
	}{{"machine", find}, {"portable", findPortably}} {
		b.Run(way.name, func(b *testing.B) {
			b.SetBytes(int64(len(file)))
			for b.Loop() {
				way.search(file, into)
			}
		})
	}
}
