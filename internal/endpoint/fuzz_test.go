package endpoint

import (
	"bytes"
	"encoding/json"
	"mime/multipart"
	"slices"
	"strings"
	"testing"
)

// A form counts as received only with its closing boundary and its file; what was received otherwise is left to no one.
func FuzzForm(f *testing.F) {
	const part = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.csv\"\r\n\r\nid\n1\n\r\n"
	f.Add([]byte(part + "--b--\r\n"))
	f.Add([]byte(part + "--b\r\nContent-Disposition: form-data; name=\"metaData\"\r\n\r\n{}\r\n--b--"))
	f.Add([]byte(part + part + "--b--"))
	f.Add([]byte(part + "--b-"))
	f.Add([]byte("--b--"))
	spool, err := openSpool(f.TempDir(), 1<<20, 1<<30)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { spool.close() })
	f.Fuzz(func(t *testing.T, body []byte) {
		whole := &tail{in: bytes.NewReader(body), keep: len("--b--") + maxBlankEnd}
		var received form
		err := received.read(multipart.NewReader(whole, "b"), whole, "--b--", spool)
		if received.file != nil {
			defer received.file.discard()
		}
		if err == nil && (received.file == nil || !strings.HasSuffix(strings.TrimRight(string(body), " \t\r\n"), "--b--")) {
			t.Errorf("%q counts as received", body)
		}
	})
}

// What metaData asks for is something that the endpoint does.
func FuzzMetaData(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"format":"json","action":"Upsert","identifierFieldName":"id"}`, `{"bulkUploadRecordSize":"10"}`, `{"callback-payload":{"token":"t"}}`,
		`{"action":null,"bulkUploadRecordSize":1e9}`, `{"primaryKeyName":"a","identifierFieldName":"b"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		meta := metaData{}
		if json.Unmarshal(text, &meta) != nil || meta == nil {
			return
		}
		var job Job
		if meta.fill(&job) != nil {
			return
		}
		known := slices.Contains([]string{FormatCSV, FormatJSON}, job.Format) && slices.Contains([]string{ActionCreate, ActionUpsert}, job.Action)
		bounded := job.BatchSize >= 0 && job.BatchSize <= maxBatchRows && len(job.Key) <= maxName && len(job.Token) <= maxToken
		if !known || !bounded || job.Action == ActionUpsert && job.Key == "" {
			t.Errorf("%q asks for %+v", text, job)
		}
	})
}

// A where clause compares known fields by known operators, and nothing else.
func FuzzParseWhere(f *testing.F) {
	for _, seed := range []string{"job_direction='UPLOAD'", "object_name = 'it''s' AND record_count>=10", "object_name='x' or 1=1", "record_count<'1' and ", "'"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		where, err := parseWhere(text)
		if err != nil {
			return
		}
		for _, c := range where {
			fields, ops := []string{ByObject, ByState, ByDirection, ByRecords}, []string{"=", "!=", "<", "<=", ">", ">="}
			if !slices.Contains(fields, c.Field) || !slices.Contains(ops, c.Op) || strings.ContainsRune(c.Text, 0) {
				t.Errorf("%q compares %+v", text, c)
			}
		}
	})
}

// Keys fit only whole.
func FuzzKeys(f *testing.F) {
	for _, seed := range []string{"Element e+/=, User u+/=", "User u+/=, Organization 0f, Element e+/=", "Element e+/=,User u+/=,Element x", "Basic e+/=", ", ,"} {
		f.Add(seed)
	}
	k := newKeys(Options{ElementToken: "e+/=", UserSecret: "u+/="})
	f.Fuzz(func(t *testing.T, header string) {
		if k.fit([]string{header}) && (!strings.Contains(header, "e+/=") || !strings.Contains(header, "u+/=")) {
			t.Errorf("%q fits", header)
		}
	})
}
