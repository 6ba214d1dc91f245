package endpoint

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"bulkjob.dev/operator/internal/openconnectors"
)

const (
	maxMetaData   = 64 << 10
	maxOtherPart  = 64 << 10
	maxParts      = 32
	maxBlankEnd   = 64      // blanks after the closing boundary
	maxEnvelope   = 1 << 20 // boundaries, part headers and other parts round a file
	maxLabel      = 1 << 10
	maxName       = 255
	maxToken      = 512
	maxBatchRows  = 1_000_000
	idleTimeout   = 2 * time.Minute
	recordTimeout = 30 * time.Second

	retryUploads = 5 * time.Second
	retrySpool   = time.Minute
	retryAway    = 30 * time.Second
)

// upload takes a file. The job is made after the last byte of the request has been read, and not before.
func (s *Server) upload(w http.ResponseWriter, r *http.Request) error {
	select {
	case s.uploads <- struct{}{}:
		defer func() { <-s.uploads }()
	default:
		return refuse(http.StatusTooManyRequests, "Too many uploads at once; try again later.").after(retryUploads)
	}
	if err := s.connector.Ping(r.Context()); err != nil {
		s.log.Error("Cannot reach the system behind", "error", err)
		return refuse(http.StatusTooManyRequests, "The system behind the connector can't be reached; try again later.").after(retryAway)
	}
	object := r.PathValue("object")
	if len(object) > maxName {
		return badRequest("The name of the object is too long.")
	}
	form, err := s.receive(w, r)
	if err != nil {
		return err
	}
	job, err := form.job(r, object)
	if err != nil {
		form.file.discard()
		return err
	}
	if err := form.file.keep(); err != nil {
		form.file.discard()
		return unspooled(err)
	}
	form.file.close()
	job, err = s.record(r.Context(), job, form.file)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, s.options.Dialect.created(job, s.connector.InstanceID()))
}

// record makes the job, or finds the one that the same token made before.
func (s *Server) record(ctx context.Context, job Job, file *spooled) (Job, error) {
	// The client may have gone, but its upload is complete.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	first, created, err := s.connector.Create(ctx, job)
	switch {
	case errors.Is(err, ErrTokenUsed):
		file.discard()
		return first, refuse(http.StatusConflict, "The token in callback-payload was used before, with another file or object.")
	case err != nil:
		// The job may exist nevertheless, and need its file. If not, the file is swept away later.
		return first, err
	case !created:
		file.discard()
		s.log.Info("Upload repeated", "job", first.ID, "object", first.Object)
		first.State = openconnectors.StateCreated // as the first answer had it
		return first, nil
	}
	s.log.Info("Job created", "job", first.ID, "object", first.Object, "bytes", first.Bytes)
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return first, nil
}

// form is a received upload.
type form struct {
	file     *spooled
	metaData string
	hasMeta  bool
}

// receive reads the whole request. On any error, and that is also a cut connection, nothing is left of it.
func (s *Server) receive(w http.ResponseWriter, r *http.Request) (form, error) {
	limit := s.options.MaxUploadBytes + maxEnvelope
	if r.ContentLength > limit {
		return form{}, tooLarge(s.options.MaxUploadBytes)
	}
	body := &timed{ReadCloser: r.Body, control: http.NewResponseController(w), end: time.Now().Add(s.options.UploadTimeout)}
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" || params["boundary"] == "" {
		return form{}, refuse(http.StatusUnsupportedMediaType, "The request must be multipart/form-data with a boundary.")
	}
	end := "--" + params["boundary"] + "--"
	whole := &tail{in: http.MaxBytesReader(w, body, limit), keep: len(end) + maxBlankEnd}
	var f form
	if err := f.read(multipart.NewReader(whole, params["boundary"]), whole, end, s.spool); err != nil {
		if f.file != nil {
			f.file.discard()
		}
		return form{}, unread(err, s.options.MaxUploadBytes)
	}
	body.done()
	return f, nil
}

func (f *form) read(parts *multipart.Reader, body *tail, end string, spool *spool) error {
	for range maxParts {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return f.complete(body, end)
		}
		if err != nil {
			return err
		}
		switch part.FormName() {
		case openconnectors.PartFile:
			err = f.readFile(part, spool)
		case openconnectors.PartMetaData:
			err = f.readMetaData(part)
		default:
			err = discard(part, maxOtherPart)
		}
		if err != nil {
			return err
		}
	}
	return badRequest("The request has too many parts.")
}

// complete checks that nothing is missing. The reader of parts says EOF also where the closing boundary lacks, so the
// body's last bytes decide: they must have arrived, and be that boundary.
func (f *form) complete(body *tail, end string) error {
	if err := discard(body, maxBlankEnd); err != nil {
		return err
	}
	if !strings.HasSuffix(strings.TrimRight(string(body.last), " \t\r\n"), end) {
		return io.ErrUnexpectedEOF
	}
	if f.file == nil {
		return badRequest("The request has no part named file.")
	}
	return nil
}

// tail remembers the last bytes read.
type tail struct {
	in   io.Reader
	keep int
	last []byte
}

func (t *tail) Read(p []byte) (int, error) {
	n, err := t.in.Read(p)
	t.last = append(t.last, p[max(0, n-t.keep):n]...)
	t.last = t.last[max(0, len(t.last)-t.keep):]
	return n, err
}

func discard(r io.Reader, limit int64) error {
	n, err := io.Copy(io.Discard, io.LimitReader(r, limit+1))
	if err == nil && n > limit {
		return badRequest("The request has an unexpected part that is too long.")
	}
	return err
}

func (f *form) readFile(part io.Reader, spool *spool) (err error) {
	if f.file != nil {
		return badRequest("The request has two parts named file.")
	}
	if f.file, err = spool.create(); err != nil {
		return err
	}
	_, err = f.file.ReadFrom(part)
	return err
}

func (f *form) readMetaData(part io.Reader) error {
	if f.hasMeta {
		return badRequest("The request has two parts named metaData.")
	}
	f.hasMeta = true
	text, err := io.ReadAll(io.LimitReader(part, maxMetaData+1))
	if err == nil && len(text) > maxMetaData {
		return badRequest("metaData is longer than %d bytes.", maxMetaData)
	}
	f.metaData = string(text)
	return err
}

// job reads what the client wants done.
func (f *form) job(r *http.Request, object string) (Job, error) {
	meta := metaData{}
	if strings.TrimSpace(f.metaData) != "" {
		if err := json.Unmarshal([]byte(f.metaData), &meta); err != nil || meta == nil {
			return Job{}, badRequest("metaData isn't a JSON object.")
		}
	}
	job := Job{
		Object:      object,
		Path:        clip(r.URL.Query().Get("path")),
		CallbackURL: clip(r.Header.Get(openconnectors.HeaderCallbackURL)),
		MetaData:    f.metaData,
		Spool:       f.file.name,
		Digest:      f.file.sum(),
		Bytes:       f.file.bytes,
	}
	if err := meta.fill(&job); err != nil {
		return Job{}, err
	}
	words := job.Object + job.Path + job.CallbackURL + job.MetaData + job.Key + job.Token
	if strings.ContainsRune(words, 0) || !utf8.ValidString(words) {
		return Job{}, badRequest("The request has a NUL character or broken UTF-8 outside of the file.")
	}
	return job, nil
}

// clip bounds a label and makes it fit for any store.
func clip(label string) string {
	return strings.ToValidUTF8(label[:min(len(label), maxLabel)], "")
}

type metaData map[string]json.RawMessage

func (m metaData) fill(job *Job) (err error) {
	job.Format, job.Action = FormatCSV, ActionCreate
	if err := m.choice(openconnectors.KeyFormat, &job.Format, FormatCSV, FormatJSON); err != nil {
		return err
	}
	if err := m.choice(openconnectors.KeyAction, &job.Action, ActionCreate, ActionUpsert); err != nil {
		return err
	}
	if job.Key, err = m.key(); err != nil {
		return err
	}
	if job.Action == ActionUpsert && job.Key == "" {
		return badRequest("An upsert needs %s or %s in metaData.", openconnectors.KeyIdentifierFieldName, openconnectors.KeyPrimaryKeyName)
	}
	if job.BatchSize, err = m.batchSize(); err != nil {
		return err
	}
	job.Token, err = m.token()
	return err
}

// text reads a string; "" if the key is absent or null.
func (m metaData) text(key string) (text string, err error) {
	raw := m[key]
	if raw == nil {
		return "", nil
	}
	if err := json.Unmarshal(raw, &text); err != nil || len(text) > maxName {
		return "", badRequest("%s in metaData must be a short string.", key)
	}
	return text, nil
}

func (m metaData) choice(key string, to *string, allowed ...string) error {
	text, err := m.text(key)
	if err != nil || text == "" {
		return err
	}
	for _, word := range allowed {
		if strings.EqualFold(text, word) {
			*to = word
			return nil
		}
	}
	return badRequest("%s in metaData must be one of %s.", key, strings.Join(allowed, ", "))
}

// key is the upsert's field; both of its names have the same meaning.
func (m metaData) key() (string, error) {
	a, err := m.text(openconnectors.KeyIdentifierFieldName)
	if err != nil {
		return "", err
	}
	b, err := m.text(openconnectors.KeyPrimaryKeyName)
	if err != nil {
		return "", err
	}
	if a != "" && b != "" && a != b {
		return "", badRequest("%s and %s in metaData name different fields.",
			openconnectors.KeyIdentifierFieldName, openconnectors.KeyPrimaryKeyName)
	}
	if a != "" {
		return a, nil
	}
	return b, nil
}

func (m metaData) batchSize() (int, error) {
	raw := m[openconnectors.KeyBatchSize]
	if raw == nil || string(raw) == "null" {
		return 0, nil
	}
	n, err := strconv.Atoi(strings.Trim(string(raw), `"`))
	if err != nil || n < 1 || n > maxBatchRows {
		return 0, badRequest("%s in metaData must be a whole number from 1 to %d.", openconnectors.KeyBatchSize, maxBatchRows)
	}
	return n, nil
}

// token is the callback-payload if that is a string, or its member of that name: what a client repeats to say that it
// sends the same upload again.
func (m metaData) token() (token string, err error) {
	raw := m[openconnectors.KeyCallbackPayload]
	var object struct {
		Token string `json:"token"`
	}
	if json.Unmarshal(raw, &token) != nil && json.Unmarshal(raw, &object) == nil {
		token = object.Token
	}
	if len(token) > maxToken {
		return "", badRequest("The token in callback-payload is longer than %d bytes.", maxToken)
	}
	return token, nil
}

// timed is a body that must keep moving, and end in time.
type timed struct {
	io.ReadCloser
	control *http.ResponseController
	end     time.Time
	renewed time.Time
}

func (t *timed) Read(p []byte) (int, error) {
	now := time.Now()
	if now.Sub(t.renewed) > time.Second {
		t.renewed = now
		deadline := now.Add(idleTimeout)
		if deadline.After(t.end) {
			deadline = t.end
		}
		_ = t.control.SetReadDeadline(deadline) // a writer without deadlines is a test's
	}
	return t.ReadCloser.Read(p)
}

// done lifts the deadline, which would end the connection in the middle of the answer.
func (t *timed) done() { _ = t.control.SetReadDeadline(time.Time{}) }
