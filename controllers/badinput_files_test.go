package controllers

import (
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"unicode/utf16"

	"github.com/klauspost/compress/zstd"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/dial"
)

const filesAbout = "A file is refused before anything is sent where a look at it suffices: a ConfigMap's or a Secret's is read whole, and of any other\n" +
	"the first 64 KiB. What is wrong further on is found on its way, and the endpoint never gets the end of the upload: it makes no job of it.\n" +
	"Rows are counted from 1, the header and blank lines not among them. A message never holds what is in a row."

const gigabyte = 1_000_000_000

func showFiles(t *testing.T) []sight {
	t.Helper()
	store := newStandIn(t)
	h := newHouse(t, quick, store.reachable)
	d := h.desk()
	jobs := append(append(csvFiles(), packedFiles(t)...), store.files()...)
	h.objects(len(jobs))
	h.ready(unbounded)
	h.smallConnector()
	rows := h.showJobs(d, jobs)
	if n := store.sent.Load(); n > gigabyte/4 {
		t.Errorf("%d bytes were read of lines of 1 GB, which are refused long before their end", n)
	}
	return rows
}

// smallConnector makes a second connector to the same endpoint, which takes 100,000 bytes at most.
func (h *house) smallConnector() {
	h.t.Helper()
	ci := newConnector(h.endpoint.url())
	ci.Name = "small-db"
	ci.Spec.Limits.MaxUploadBytes = 100_000
	h.create(ci)
	h.waitConnector(ci, v1alpha1.ReasonDiscovered)
}

func toSmall(j *v1alpha1.BulkJob) { j.Spec.ConnectorRef.Name = "small-db" }

func packed(by v1alpha1.Compression) func(*v1alpha1.BulkJob) {
	return func(j *v1alpha1.BulkJob) { j.Spec.Source.Compression = by }
}

func inUTF16(text string, bigEndian bool) []byte {
	var out []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		if bigEndian {
			out = append(out, byte(unit>>8), byte(unit))
		} else {
			out = append(out, byte(unit), byte(unit>>8))
		}
	}
	return out
}

// invalid is a file that is refused before it is sent.
func invalid(input, file, says string) badJob {
	return badJob{input: input, stopped: beforeSending, want: v1alpha1.ReasonSourceInvalid, file: []byte(file), says: says}
}

// sound is a file that looks odd, and is sent as it is.
func sound(input, file string) badJob {
	return badJob{input: input, stopped: notStopped, want: v1alpha1.ReasonComplete, file: []byte(file), says: "COMPLETE: "}
}

func csvFiles() []badJob {
	const row = canaryValue + ",q@example.com\n"
	wide := strings.Repeat("column_00001,", 10_000)
	return []badJob{
		invalid("nothing: 0 bytes", "", "is empty"),
		invalid("one byte order mark", "\ufeff", "is empty"),
		invalid("blank lines only", "\n\r\n\n", "first line is empty"),
		invalid("a blank line before the header", "\nname,email\n"+row, "first line is empty"),
		invalid("a header and no rows", "name,email\n", "no rows"),
		invalid("a header and blank lines", "name,email\n\n\n", "no rows"),
		sound("UTF-8 with a byte order mark", "\ufeffname,email\n"+row),
		sound("CRLF line ends, and none behind the last row", "name,email\r\n"+strings.TrimSuffix(row, "\n")),
		sound("commas and quotes in quoted fields", "name,email\n\""+canaryValue+", \"\"Q\"\"\",q@example.com\n"),
		{
			input: "line breaks in quoted fields", stopped: notStopped, want: v1alpha1.ReasonComplete, says: "1 rows, 0 failed",
			file: []byte("name,email\n\"" + canaryValue + ",\nQ\",\"q@example.com\n\"\n"), answers: says(`{"status":"COMPLETE","recordsCount":1,"recordsFailedCount":0}`),
		},
		sound("control characters in a value", "name,email\n"+canaryValue+"\x1b[31m\x07,q@example.com\n"),
		sound("a formula in a value", "name,email\n=1+1,q@example.com\n"),
		sound("blank lines behind the rows", "name,email\n"+row+row+"\n\n"),
		invalid("UTF-16 as Excel saves it (little-endian)", string(inUTF16("\ufeffname\temail\r\n", false)), "UTF-16"),
		invalid("UTF-16, big-endian", string(inUTF16("\ufeffname,email\n"+row, true)), "UTF-16"),
		invalid("UTF-16 without a byte order mark", string(inUTF16("name,email\n"+row, false)), "NUL"),
		invalid("a NUL in a row", "name,email\n"+row+canaryValue+"\x00,q@example.com\n", "row 2"),
		invalid("ISO 8859-1 in a row", "name,email\n"+row+canaryValue+" Andr\xe9,q@example.com\n", "row 2"),
		invalid("the end in the middle of a character", "name,email\n"+row+canaryValue+",\xe2\x82", "row 2"),
		invalid("a quote that is never closed", "name,email\n"+row+"\""+canaryValue+",q@example.com\n"+row, "never closed"),
		invalid("a quote in the middle of a field", "name,email\n5\" "+canaryValue+",q@example.com\n", "row 1"),
		invalid("text behind a closing quote", "name,email\n\""+canaryValue+"\" jr,q@example.com\n", "row 1"),
		invalid("a row with a field too few", "name,email\n"+row+canaryValue+"\n", "row 2: has 1 field"),
		invalid("a row with a field too many", "name,email\n"+canaryValue+",q@example.com,42\n", "row 1: has 3 fields"),
		invalid("row 1,001 of 1,001 cut off", "name,email\n"+strings.Repeat(row, 1000)+canaryValue, "row 1001"),
		invalid("a comma at the end of each row, but not of the header", "name,email\n"+canaryValue+",q@example.com,\n", "row 1"),
		invalid("semicolons", "name;email\n"+canaryValue+";q@example.com\n", "';'"),
		invalid("semicolons and quotes", "\"name\";\"email\"\n\""+canaryValue+"\";\"q@example.com\"\n", "';'"),
		invalid("Excel's sep= line", "sep=;\nname;email\n"+canaryValue+";q@example.com\n", "';'"),
		invalid("tabs", "name\temail\n"+canaryValue+"\tq@example.com\n", "tab"),
		invalid("vertical bars", "name|email\n"+canaryValue+"|q@example.com\n", "'|'"),
		invalid("two columns of one name", "name,email,name\n"+canaryValue+",q@example.com,x\n", `("name")`),
		invalid("a column without a name", "name,,email\n"+canaryValue+",x,q@example.com\n", "column 2 of 3"),
		invalid("a comma at the end of the header", "name,email,\n"+canaryValue+",q@example.com,\n", "column 3 of 3"),
		invalid("a column whose name is blanks", "name,\" \",email\n"+canaryValue+",x,q@example.com\n", "column 2 of 3"),
		invalid("carriage returns alone as line ends", "name,email\r"+canaryValue+",q@example.com\r", "carriage return"),
		invalid("a carriage return in a field", "name,email\n"+canaryValue+"\rQ,q@example.com\n", "row 1"),
		invalid("control characters in a column's name", "name,e\x1bmail\n"+row, "column 2 of 2"),
		invalid("a byte order mark twice", "\ufeff\ufeffname,email\n"+row, "column 1 of 2"),
		invalid("a header of 10,000 columns and 130 KB", wide+"email\n"+wide+"x\n", "65536 bytes"),
		invalid("a quote that is never closed, 600 KB before the end", "name,email\n\""+strings.Repeat("x", 600_000), "never closed"),
		invalid("a workbook (.xlsx) under the name of a CSV", "PK\x03\x04\x14\x00\x06\x00[Content_Types].xml", "spreadsheet"),
		invalid("a PDF under the name of a CSV", "%PDF-1.7\n"+row, "PDF"),
		invalid("a web page, such as a store's login", "<!DOCTYPE html>\n<html><body>"+canaryValue+"</body></html>\n", "web page"),
		invalid("an error's XML, as stores answer", "<?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code></Error>\n", "XML"),
		invalid("JSON, without format: JSON", "[{\"name\":\""+canaryValue+"\"}]\n", "spec.format"),
		{
			input: "format: JSON, and a file that is no JSON: only the endpoint looks at it", stopped: notStopped, want: v1alpha1.ReasonComplete, says: "COMPLETE",
			edit: func(j *v1alpha1.BulkJob) { j.Spec.Format = v1alpha1.FormatJSON },
		},
		{
			input: "another digest than spec.source.sha256", stopped: beforeSending, want: v1alpha1.ReasonContentMismatch, says: "spec.source.sha256",
			edit: func(j *v1alpha1.BulkJob) { j.Spec.Source.SHA256 = digest("another file") },
		},
		{
			input: "more bytes than limits.maxUploadBytes", stopped: beforeSending, want: v1alpha1.ReasonSourceTooLarge, says: "limits.maxUploadBytes",
			file: []byte("name,email\n" + strings.Repeat(row, 5000)), edit: toSmall,
		},
		indivisible("split, and a row larger than maxBytes", "row 2 alone", row+strings.Repeat("x", 2000)+",q@example.com\n", v1alpha1.Split{MaxBytes: new(int64(1024))}),
		indivisible("split, and groupBy names no column", `no column "company"`, row+row, v1alpha1.Split{MaxRows: new(int64(1)), GroupBy: "company"}),
		indivisible("split, and a group larger than maxRows", "which spec.split.groupBy keeps together", row+row, v1alpha1.Split{MaxRows: new(int64(1)), GroupBy: "email"}),
		indivisible("split into more than 500 parts", "there may be 500 parts", strings.Repeat(row, 501), v1alpha1.Split{MaxRows: new(int64(1))}),
		{
			input: "split, and a row with too many fields in the last part", stopped: beforeSending, want: v1alpha1.ReasonSourceInvalid, says: "row 5",
			file: []byte("name,email\n" + strings.Repeat(row, 4) + "a,b,c\n"),
			edit: func(j *v1alpha1.BulkJob) { j.Spec.Split = &v1alpha1.Split{MaxRows: new(int64(2))} },
		},
	}
}

// indivisible is a file that cannot be sent in such parts.
func indivisible(input, says, rows string, split v1alpha1.Split) badJob {
	return badJob{
		input: input, stopped: beforeSending, want: v1alpha1.ReasonIndivisible, says: says, file: []byte("name,email\n" + rows),
		edit: func(j *v1alpha1.BulkJob) { j.Spec.Split = &split },
	}
}

func gzipOf(t *testing.T, file []byte) []byte { t.Helper(); return pack(t, string(file)) }

func zstdOf(t *testing.T, file []byte, options ...zstd.EOption) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, options...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(file); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bomb is a small file that becomes 256 MB of sound rows.
func bomb(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "name,email\n")
	for part, n := bytes.Repeat([]byte("a,b\n"), 256<<10), 0; n < 256; n++ {
		w.Write(part)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func packedFiles(t *testing.T) []badJob {
	t.Helper()
	gzipped, zstandard := packed(v1alpha1.CompressionGzip), packed(v1alpha1.CompressionZstd)
	whole := gzipOf(t, []byte("name,email\n"+strings.Repeat(canaryValue+",q@example.com\n", 1000)))
	broken := bytes.Clone(whole)
	broken[len(broken)-6] ^= 0xff // of the checksum
	long := "name,email\n" + strings.Repeat("a,b\n", 3<<20)
	unreadable := func(input, says string, file []byte, edit func(*v1alpha1.BulkJob)) badJob {
		return badJob{input: input, stopped: beforeSending, want: v1alpha1.ReasonSourceUnreadable, says: says, file: file, edit: edit}
	}
	return []badJob{
		unreadable("compression: Gzip, and a plain file", "isn't Gzip data", []byte(soundCSV), gzipped),
		unreadable("a gzip file, and no compression in the spec", "set spec.source.compression to Gzip", whole, nil),
		unreadable("compression: Zstd, and a gzip file", "isn't Zstd data", whole, zstandard),
		unreadable("a gzip file that is cut off", "is cut off", whole[:len(whole)/2], gzipped),
		unreadable("a gzip file with a wrong checksum", "faulty", broken, gzipped),
		unreadable("a gzip file with bytes behind its end", "behind the end", append(bytes.Clone(whole), "and more"...), gzipped),
		unreadable("a zstd file that is cut off", "is cut off", zstdOf(t, []byte(soundCSV))[:20], zstandard),
		unreadable("a zstd file that needs a window of 64 MiB", "window", zstdOf(t, []byte(long), zstd.WithWindowSize(64<<20)), zstandard),
		{
			input: "a gzip file within a gzip file", stopped: beforeSending, want: v1alpha1.ReasonSourceInvalid, says: "compressed twice",
			file: gzipOf(t, whole), edit: gzipped,
		},
		{
			input: "a gzip file with a header and no rows", stopped: beforeSending, want: v1alpha1.ReasonSourceInvalid, says: "no rows",
			file: gzipOf(t, []byte("name,email\n")), edit: gzipped,
		},
		{
			input: "a gzip bomb: 1 MB that becomes 256 MB, for a connector that takes 100,000 bytes", stopped: onItsWay,
			want: v1alpha1.ReasonSourceTooLarge, says: "larger than 100000 bytes", file: bomb(t),
			edit: func(j *v1alpha1.BulkJob) { gzipped(j); toSmall(j) },
		},
		{
			input: "a zstd bomb: 1 KB that becomes 12 MB, for a connector that takes 100,000 bytes", stopped: onItsWay,
			want: v1alpha1.ReasonSourceTooLarge, says: "larger than 100000 bytes", file: zstdOf(t, []byte(long)),
			edit: func(j *v1alpha1.BulkJob) { zstandard(j); toSmall(j) },
		},
	}
}

// standIn is an object store that makes its files while they are read, so that they may have any size.
type standIn struct {
	server *httptest.Server
	sent   atomic.Int64
	books  map[string]book
}

// book is one of its objects: a beginning, and a filling that is repeated up to its size.
type book struct {
	begin, fill string
	size        int64
	status      int    // 0: 200
	etag        string // "": one of its name; "-": none
}

func newStandIn(t *testing.T) *standIn {
	t.Helper()
	s := &standIn{books: map[string]book{}}
	s.server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.server.Close)
	return s
}

func (s *standIn) reachable(o *Options) {
	address := netip.MustParseAddrPort(strings.TrimPrefix(s.server.URL, "http://"))
	o.Dial.Private = append(o.Dial.Private, dial.Allowance{Prefix: netip.PrefixFrom(address.Addr(), 32), Port: address.Port()})
}

func (s *standIn) serve(w http.ResponseWriter, r *http.Request) {
	b, ok := s.books[strings.TrimPrefix(r.URL.Path, "/"+bucket+"/")]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if b.status != 0 {
		w.WriteHeader(b.status)
		return
	}
	sum := md5.Sum([]byte(r.URL.Path))
	if b.etag == "" {
		w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
	} else if b.etag != "-" {
		w.Header().Set("ETag", b.etag)
	}
	w.Header().Set("Last-Modified", "Fri, 02 Jan 2026 03:04:05 GMT")
	var from int64
	if part := r.Header.Get("Range"); part != "" {
		from, _ = strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(part, "bytes="), "-"), 10, 64)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, b.size-1, b.size))
	}
	w.Header().Set("Content-Length", strconv.FormatInt(b.size-from, 10))
	if from > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	if r.Method == http.MethodHead {
		return
	}
	text := io.MultiReader(strings.NewReader(b.begin), &repeated{text: b.fill})
	io.CopyN(io.Discard, text, from)
	n, _ := io.CopyN(w, text, b.size-from)
	s.sent.Add(n)
}

// repeated is a text again and again.
type repeated struct {
	text string
	at   int
}

func (r *repeated) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		copied := copy(p[n:], r.text[r.at:])
		n, r.at = n+copied, (r.at+copied)%len(r.text)
	}
	return n, nil
}

// object puts a book on the standIn, and makes it a job's source.
func (s *standIn) object(name string, b book) func(*v1alpha1.BulkJob) {
	s.books[name] = b
	return s.named(name)
}

func (s *standIn) named(name string) func(*v1alpha1.BulkJob) {
	return func(j *v1alpha1.BulkJob) {
		j.Spec.Source = v1alpha1.BulkJobSource{ObjectStore: &v1alpha1.ObjectStoreSource{
			URL: "s3://" + bucket + "/" + name, Endpoint: s.server.URL, Region: "eu-central-1",
		}}
	}
}

func (s *standIn) files() []badJob {
	rows := strings.Repeat(canaryValue+",q@example.com\n", 4000)
	line := strings.Repeat("x", 4096)
	late := "name,email\n" + rows + canaryValue + "\n"
	guarded := s.object("guarded.csv", book{begin: "name,email\n" + rows, fill: "\n", size: int64(len("name,email\n" + rows))})
	bad := func(input, stopped, want, says string, edit func(*v1alpha1.BulkJob)) badJob {
		return badJob{input: input, stopped: stopped, want: want, says: says, edit: edit}
	}
	return []badJob{
		bad("a line of 1 GB where the header should be", beforeSending, v1alpha1.ReasonSourceInvalid, "header: is longer than",
			s.object("header.csv", book{fill: line, size: gigabyte})),
		bad("a row of 1 GB", onItsWay, v1alpha1.ReasonSourceInvalid, "row 1: is longer than",
			s.object("line.csv", book{begin: "name,email\n", fill: line, size: gigabyte})),
		bad("a quoted field of 1 GB, since its quote is never closed", onItsWay, v1alpha1.ReasonSourceInvalid, "row 3: is longer than",
			s.object("quote.csv", book{begin: "name,email\na,b\nc,d\n\"", fill: "x,y\n", size: gigabyte})),
		bad("a row with a field too few, 100 KB into a stored file", onItsWay, v1alpha1.ReasonSourceInvalid, "row 4001: has 1 field",
			s.object("late.csv", book{begin: late, fill: "a,b\n", size: int64(len(late)) + 4000})),
		bad("a stored file with another digest than spec.source.sha256", onItsWay, v1alpha1.ReasonContentMismatch, "spec.source.sha256",
			func(j *v1alpha1.BulkJob) { guarded(j); j.Spec.Source.SHA256 = digest("another file") }),
		bad("a stored file with a header and no rows", beforeSending, v1alpha1.ReasonSourceInvalid, "no rows",
			s.object("rowless.csv", book{begin: "name,email\n", fill: "\n", size: int64(len("name,email\n"))})),
		bad("a stored file that is empty", beforeSending, v1alpha1.ReasonSourceInvalid, "is empty",
			s.object("empty.csv", book{fill: "x"})),
		bad("a stored file of 7 GB, where the connector takes 6", beforeSending, v1alpha1.ReasonSourceTooLarge, "limits.maxUploadBytes",
			s.object("large.csv", book{fill: line, size: 7 * gigabyte})),
		bad("a stored file that is not there", beforeSending, v1alpha1.ReasonSourceNotFound, "missing.csv", s.named("missing.csv")),
		bad("a stored file that its store won't show", beforeSending, v1alpha1.ReasonSourceNotPermitted, "forbidden.csv",
			s.object("forbidden.csv", book{status: http.StatusForbidden})),
		bad("a stored file without an ETag", beforeSending, v1alpha1.ReasonSourceNotSupported, "ETag",
			s.object("untagged.csv", book{fill: "name\n", size: 10, etag: "-"})),
		bad("a store that answers 503", beforeSending, v1alpha1.ReasonSourceUnreachable, "503",
			s.object("busy.csv", book{status: http.StatusServiceUnavailable})),
	}
}
