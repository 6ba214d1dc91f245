package split

import (
	"bytes"
	"io"

	"bulkjob.dev/operator/internal/csvstream"
)

// ReadHeader is a CSV's header row as each part begins with it: without a byte order mark, and with its line end, or a line feed
// if it is all there is of the file. Of r, it reads no more than a buffer beyond it (64 KiB). The error is a *csvstream.SyntaxError
// for a file that isn't sound as far as it was read, or r's own.
func ReadHeader(r io.Reader, o csvstream.Options) ([]byte, error) {
	return nextHeader(csvstream.NewRecords(r, o))
}

// nextHeader takes the header, which comes first.
func nextHeader(records *csvstream.Records) ([]byte, error) {
	row, err := records.Next()
	if err != nil {
		return nil, err
	}
	header := bytes.Clone(row)
	if !bytes.HasSuffix(header, []byte{'\n'}) {
		header = append(header, '\n')
	}
	return header, nil
}

// Reader reads the part as it is sent: the header, and p.Bytes of rest, which begins at p.Offset of the file. A rest that is shorter
// is io.ErrUnexpectedEOF.
func (p *Part) Reader(header []byte, rest io.Reader) io.Reader {
	return io.MultiReader(bytes.NewReader(header), &exactly{rest, p.Bytes})
}

// exactly reads so many bytes of r, no more and no fewer.
type exactly struct {
	r    io.Reader
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	switch {
	case e.left == 0:
		return n, nil // whatever happens behind the part
	case err == io.EOF: // a wrapped EOF is a broken stream, not its end
		return n, io.ErrUnexpectedEOF
	default:
		return n, err
	}
}
