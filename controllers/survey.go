package controllers

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/csvstream"
	"bulkjob.dev/operator/internal/openconnectors"
	"bulkjob.dev/operator/internal/preflight"
	"bulkjob.dev/operator/internal/split"
)

// What a plan may hold: see the type.
const (
	maxFindings     = 20
	maxFindingBytes = 512
	maxChecked      = 16
	maxCheckedBytes = 128
	maxSkippedBytes = 256
)

// Reasons of findings that lie neither in the file nor in the reasons that a job's conditions have.
const (
	findingLoadRunning     = "LoadRunning"
	findingDeadlineTooSoon = "DeadlineTooSoon"
	findingUploadTooSlow   = "UploadTooSlow"
	findingMore            = "More"
)

// survey is all that was found out about what a job names. From it a plan is made, without asking anybody.
type survey struct {
	job     *v1alpha1.BulkJob
	refused verdict // why nothing else could be found out; zero: it could

	c        *consignment
	standing *v1alpha1.BulkReceipt  // of this load, if there is one
	fields   []openconnectors.Field // of the object
	unasked  error                  // why they are not known

	division    *split.Division // of a file that would be sent in parts, or could be; nil: it is not known, or not asked for
	indivisible string          // why there is none, if the load would be refused for that

	report *preflight.Report // nil: the file was not read
	whole  bool              // it was read to its end
	cutOff string            // why not, if it may have been sound
	unfit  verdict           // why not, if it is not sound; zero: it may be
	speed  speed
}

// subject is what a plan depends on, but for the content of the file, which the receipt's name stands for.
type subject struct {
	receipt   string
	connector int64 // generation
	instance  string
	listed    bool
	standing  string
	fields    [sha256.Size]byte // what the endpoint tells of the object's
	refused   verdict
}

func (s *survey) subject() subject {
	if s.c == nil {
		return subject{refused: s.refused}
	}
	about := subject{
		receipt: s.c.receipt, connector: s.c.connector.Generation, instance: s.c.connection.fingerprint,
		listed: slices.Contains(s.c.connection.objects, s.job.Spec.Object),
	}
	if s.standing != nil {
		about.standing = string(s.standing.UID) + "/" + s.standing.ResourceVersion
	}
	return about
}

// undescribed is no digest of anything: the endpoint was not asked.
var undescribed [sha256.Size]byte

// told is a digest of what the endpoint tells of the object's fields.
func (s *survey) told() [sha256.Size]byte {
	if s.c == nil {
		return undescribed
	}
	return sha256.Sum256(fmt.Append(nil, s.fields, errorText(s.unasked)))
}

// isShown is true if that is what a plan in a status was about. What the endpoint has said is not in it: it is taken to be the same.
func (a *subject) isShown(plan *v1alpha1.Plan) bool {
	return a.receipt != "" && a.receipt == plan.Receipt && a.connector == plan.ConnectorGeneration
}

// read reads the file through. The error is a *held if it must be waited for.
func (s *survey) read(ctx context.Context, patience Patience) error {
	if s.c == nil || s.c.identity.Format != v1alpha1.FormatCSV || s.c.tooLarge() {
		return nil
	}
	patient := patience.submitTimeout(s.c.most())
	within, cancel := context.WithTimeoutCause(ctx, patient, errSlowPlan)
	defer cancel()
	err := s.readThrough(within)
	var h *held
	switch {
	case err == nil:
		s.whole = true
	case ctx.Err() == nil && errors.Is(context.Cause(within), errSlowPlan):
		s.cutOff = "reading took longer than " + patient.String()
	case errors.As(storeHeld(s.job, changedMeanwhile(err, "the dry run read it")), &h) && h.verdict.phase == phaseStalled:
		s.unfit = h.verdict
	default:
		return storeHeld(s.job, changedMeanwhile(err, "the dry run read it"))
	}
	return nil
}

// readThrough reads the file once, for what is in it and for where its parts would begin.
func (s *survey) readThrough(ctx context.Context) error {
	file, err := s.c.stored(ctx)
	if err != nil {
		return err
	}
	defer file.Close()
	hidden := s.c.pinned.Sensitive
	in := io.Reader(file)
	var parts *alongside
	if s.divided() {
		in, parts = divideAlongside(file, limitsOf(s.job, s.c.connector), csvstream.Options{HideNames: hidden})
	}
	report, err := preflight.File(s.c.asSent(in), s.object(), preflight.Options{HideNames: hidden})
	s.report = &report
	if parts == nil {
		return err
	}
	found, failed := parts.end(err)
	refused, indivisible := errors.AsType[*split.Error](failed)
	switch {
	case err != nil:
	case indivisible:
		s.indivisible = s.c.indivisible(refused)
	case failed == nil && found.Rows > 0:
		s.division = found
	default:
		err = failed
	}
	return err
}

// object is what the rows are for, as the endpoint describes it.
func (s *survey) object() preflight.Object {
	o := preflight.Object{Name: s.job.Spec.Object, Upsert: s.c.identity.Action == v1alpha1.ActionUpsert, Key: s.job.Spec.KeyField}
	for _, f := range s.fields {
		takes := f.Createable || o.Upsert && f.Updateable
		o.Fields = append(o.Fields, preflight.Field{Name: f.Name, Required: f.Required, ReadOnly: f.ReadOnly || !takes})
	}
	return o
}

// plan is what the survey comes to.
func (s *survey) plan(now time.Time) *v1alpha1.Plan {
	p := &v1alpha1.Plan{Time: metav1.NewTime(now.Truncate(time.Second))}
	if s.c != nil {
		p.Receipt, p.ConnectorGeneration = s.c.receipt, s.c.connector.Generation
		p.AlreadyLoaded = s.standing != nil && s.standing.Record.JobID != ""
		p.Source = s.c.sourceStatus()
		s.measure(p)
	}
	p.Findings = fitting(s.findings(p))
	p.Checked, p.NotChecked = lines(s.checked(p), maxCheckedBytes), lines(s.notChecked(p), maxSkippedBytes)
	if before := s.job.Status.Plan; before != nil {
		again := before.DeepCopy()
		again.Time = p.Time
		if equality.Semantic.DeepEqual(again, p) {
			p.Time = before.Time // it says nothing new
		}
	}
	return p
}

// measure tells of the file, and of the time that it will take.
func (s *survey) measure(p *v1alpha1.Plan) {
	if s.report == nil {
		return
	}
	if s.report.Columns > 0 {
		p.Columns = new(int32(min(s.report.Columns, math.MaxInt32)))
	}
	if !s.whole {
		return
	}
	p.Rows, p.Source.Bytes = new(s.report.Rows), new(s.report.Bytes)
	if s.division != nil {
		p.Parts = new(int32(len(s.division.Parts))) //nolint:gosec // 500 at most
	}
	if s.speed.known() && !p.AlreadyLoaded {
		p.EstimatedSeconds = new(max(int64(s.speed.load(s.report.Bytes, s.report.Rows).Seconds()), 1))
	}
}

// findings are all that somebody should know, the worse first.
func (s *survey) findings(p *v1alpha1.Plan) []v1alpha1.PlanFinding {
	if s.c == nil {
		return []v1alpha1.PlanFinding{finding(s.refused)}
	}
	found := s.ofReceipt()
	if object := s.job.Spec.Object; !slices.Contains(s.c.connection.objects, object) {
		unknown := finding(stalled(v1alpha1.ReasonObjectUnknown, unknownObject(object, s.c.connection.objects)))
		if s.job.Spec.ObjectCheck == v1alpha1.ObjectCheckWarn {
			unknown.Severity = v1alpha1.PlanWarning
		}
		found = append(found, unknown)
	}
	if s.c.tooLarge() {
		found = append(found, finding(stalled(v1alpha1.ReasonSourceTooLarge, tooLargeMessage(s.c))))
	}
	if s.unfit != (verdict{}) {
		found = append(found, finding(s.unfit))
	}
	if s.indivisible != "" {
		found = append(found, finding(stalled(v1alpha1.ReasonIndivisible, s.indivisible)))
	}
	if s.report != nil {
		if s.whole && s.report.Rows == 0 {
			found = append(found, finding(stalled(v1alpha1.ReasonSourceInvalid, errNoRows.Error())))
		}
		for _, f := range s.report.Findings {
			said := warning(f.Reason, f.Message)
			if f.Error {
				said.Severity = v1alpha1.PlanError
			}
			found = append(found, said)
		}
	}
	return append(found, s.ofTime(p)...)
}

// ofReceipt is what stands against sending what was sent, or tried, before.
func (s *survey) ofReceipt() []v1alpha1.PlanFinding {
	receipt := s.standing
	if receipt == nil {
		return nil
	}
	record := &receipt.Record
	if receipt.Spec.Target != s.c.identity.Target || receipt.Spec.Object != s.c.identity.Object {
		return []v1alpha1.PlanFinding{finding(stalled(v1alpha1.ReasonReceiptConflict, conflictMessage(receipt)))}
	}
	var h *held
	if errors.As(seenUnfit(receipt, s.c), &h) || record.Outcome != v1alpha1.LoadNeverAccepted && errors.As(guardHolds(s.c, receipt), &h) {
		return []v1alpha1.PlanFinding{finding(h.verdict)}
	}
	switch {
	case record.Outcome == v1alpha1.LoadNeverAccepted:
		return nil
	case record.Outcome == v1alpha1.LoadUnknown:
		return []v1alpha1.PlanFinding{finding(stalled(v1alpha1.ReasonSubmissionUnknown,
			"this content may have been taken before, which nobody knows: see BulkReceipt "+receipt.Name+". Nothing would be sent until somebody decides"))}
	case !frozen(receipt):
		return []v1alpha1.PlanFinding{warning(findingLoadRunning,
			"this content is being loaded for BulkJob "+record.ClaimedFor.Name+": this job would follow that load, and nothing would be sent")}
	}
	late := finding(judgeLate(&jobView{job: s.job, receipt: receipt, late: true}))
	if late.Reason == v1alpha1.ReasonAlreadyLoaded {
		late.Severity = v1alpha1.PlanWarning
	}
	return []v1alpha1.PlanFinding{late}
}

// ofTime is what stands against the time that the load would take.
func (s *survey) ofTime(p *v1alpha1.Plan) []v1alpha1.PlanFinding {
	if p.EstimatedSeconds == nil {
		return nil
	}
	var found []v1alpha1.PlanFinding
	if sending := s.speed.upload(s.largestUpload(p)); sending > submitPatienceMax {
		what, then := "the file", "split it"
		if s.division != nil {
			what, then = "the largest part", "lower spec.split.maxRows or spec.split.maxBytes"
		}
		found = append(found, warning(findingUploadTooSlow, fmt.Sprintf(
			"at the rate that the connector has shown, sending %s takes %s, and an upload may take %s: %s",
			what, sending.Round(time.Minute), submitPatienceMax, then)))
	}
	if limit := s.job.Spec.ActiveDeadlineSeconds; limit != nil && *p.EstimatedSeconds > *limit {
		found = append(found, warning(findingDeadlineTooSoon, fmt.Sprintf(
			"at the rate that the connector has shown, the load takes %d seconds; activeDeadlineSeconds is %d", *p.EstimatedSeconds, *limit)))
	}
	return found
}

// finding is a refusal as a plan has it.
func finding(v verdict) v1alpha1.PlanFinding {
	return v1alpha1.PlanFinding{Severity: v1alpha1.PlanError, Reason: v.reason, Message: v.message}
}

func warning(reason, message string) v1alpha1.PlanFinding {
	return v1alpha1.PlanFinding{Severity: v1alpha1.PlanWarning, Reason: reason, Message: message}
}

// fitting are the findings that a plan has room for, errors first.
func fitting(found []v1alpha1.PlanFinding) []v1alpha1.PlanFinding {
	slices.SortStableFunc(found, func(a, b v1alpha1.PlanFinding) int { return strings.Compare(string(a.Severity), string(b.Severity)) })
	if more := len(found) - maxFindings + 1; more > 1 {
		last := found[maxFindings-1]
		found = append(found[:maxFindings-1:maxFindings-1], v1alpha1.PlanFinding{
			Severity: last.Severity, Reason: findingMore, Message: fmt.Sprintf("and %d more, which find no place here", more),
		})
	}
	for i := range found {
		found[i].Message = truncate(found[i].Message, maxFindingBytes)
	}
	return found
}

// lines are those that a plan has room for.
func lines(all []string, most int) []string {
	all = all[:min(len(all), maxChecked)]
	for i := range all {
		all[i] = truncate(all[i], most)
	}
	return all
}

// checked says what was looked at, each thing whatever came of it.
func (s *survey) checked(p *v1alpha1.Plan) []string {
	if s.c == nil {
		return nil
	}
	said := []string{
		fmt.Sprintf("connector: %s answers, and lists %s", s.c.connector.Name, plural(int64(len(s.c.connection.objects)), "object")),
		"receipt: whether this content was loaded before",
	}
	if p.Source.Bytes != nil {
		most := "at most "
		if s.c.inParts {
			most = "any number, in parts of at most "
		}
		said = append(said, fmt.Sprintf("size: %s of %s%s", plural(*p.Source.Bytes, "byte"), most, grouped(maxUploadBytes(s.c.connector))))
	}
	if s.report == nil {
		return said
	}
	if s.whole {
		said = append(said, fmt.Sprintf("dialect: UTF-8, commas, quotes, as many fields in each of %s", plural(s.report.Rows, "row")))
	} else if s.report.Rows > 0 {
		said = append(said, fmt.Sprintf("dialect: %s, and no further", plural(s.report.Rows, "row")))
	}
	said = append(said, s.ofParts(p)...)
	if s.report.Columns > 0 && len(s.fields) > 0 {
		said = append(said, fmt.Sprintf("header: %s against %s of %s",
			plural(int64(s.report.Columns), "column"), plural(int64(len(s.fields)), "field"), s.job.Spec.Object))
	}
	if s.c.identity.Action == v1alpha1.ActionUpsert && s.report.Keys > 0 {
		said = append(said, fmt.Sprintf("keys: %s that differ as text", grouped(s.report.Keys)))
	}
	if p.EstimatedSeconds != nil {
		said = append(said, "time: at the rate that the connector's last loads have shown")
	}
	return said
}

// notChecked says what was not looked at. What a plan leaves unsaid is taken for sound.
func (s *survey) notChecked(p *v1alpha1.Plan) []string {
	if s.c == nil {
		return []string{"all else: nothing could be looked at before that is put right"}
	}
	said := s.unread()
	switch {
	case s.unasked != nil:
		said = append(said, "header: which fields "+s.job.Spec.Object+" has could not be asked: "+s.unasked.Error())
	case len(s.fields) == 0:
		said = append(said, "header: the endpoint does not say which fields "+s.job.Spec.Object+" has; it may take any")
	}
	said = append(said,
		"values: whether they have the types and lengths, and keep the rules, of the system behind; rows may fail all the same",
		"rights: whether the connector's account may write to "+s.job.Spec.Object)
	if s.c.identity.Action == v1alpha1.ActionUpsert {
		said = append(said, "key: whether the system behind can match by "+s.job.Spec.KeyField+", and which rows are there already")
	} else {
		said = append(said, "doubles: whether these rows are there already; a create makes them all the same")
	}
	if len(s.job.Spec.Parameters) > 0 {
		said = append(said, "parameters: whether the connector knows them")
	}
	if s.c.connector.Spec.CheckBeforeSend && s.standing == nil {
		said = append(said, "the endpoint's list of jobs: checkBeforeSend looks through it when the load is to begin")
	}
	if p.EstimatedSeconds == nil && !p.AlreadyLoaded {
		said = append(said, s.untimed())
	}
	return said
}

// unread says what of the file was not read, and why.
func (s *survey) unread() []string {
	var said []string
	switch {
	case s.c.identity.Format != v1alpha1.FormatCSV:
		said = append(said, "file: a JSON file is not read through; neither its rows nor its fields were looked at")
	case s.c.tooLarge():
		said = append(said, "file: it is too large to be sent, and was not read")
	case s.unfit != (verdict{}):
		said = append(said, "file: what comes after the place where it cannot be read")
	case s.cutOff != "" && s.report != nil:
		said = append(said, fmt.Sprintf("file: what comes after row %s: %s", grouped(s.report.Rows), s.cutOff))
	case s.cutOff != "":
		said = append(said, "file: "+s.cutOff)
	}
	if s.divided() && !s.whole && !s.c.tooLarge() {
		said = append(said, "parts: how many there would be")
	}
	if s.report != nil && !s.report.AllKeys {
		said = append(said, fmt.Sprintf("keys: beyond the first %s different ones, each was compared with these only", grouped(s.report.Keys)))
	}
	return said
}

func (s *survey) untimed() string {
	if !s.speed.known() {
		return "time: no load of this connector has ended since the operator started, so its rate is not known"
	}
	return "time: how many rows there are is not known"
}

// judgePlan says how a job stands by its plan.
func judgePlan(job *v1alpha1.BulkJob, plan *v1alpha1.Plan) verdict {
	var errorsFound, warnings int64
	for _, f := range plan.Findings {
		if f.Severity == v1alpha1.PlanError {
			errorsFound++
		} else {
			warnings++
		}
	}
	const untouched = "nothing was sent"
	if errorsFound > 0 {
		return verdict{phaseRejected, v1alpha1.ReasonPlanRejected, fmt.Sprintf("dry run: %s in status.plan, %s first: %s; %s",
			plural(errorsFound, "error"), plan.Findings[0].Reason, truncate(plan.Findings[0].Message, maxFindingBytes), untouched)}
	}
	parts := []string{"dry run: " + wouldSend(job, plan)}
	if warnings > 0 {
		parts = append(parts, plural(warnings, "warning")+" in status.plan")
	}
	return verdict{phasePlanned, v1alpha1.ReasonPlanned, strings.Join(append(parts, untouched), "; ")}
}

func wouldSend(job *v1alpha1.BulkJob, plan *v1alpha1.Plan) string {
	if plan.AlreadyLoaded {
		return "would send nothing, since BulkReceipt " + plan.Receipt + " has this content"
	}
	var what []string
	if plan.Rows != nil {
		what = append(what, plural(*plan.Rows, "row"))
	}
	if plan.Source != nil && plan.Source.Bytes != nil {
		what = append(what, plural(*plan.Source.Bytes, "byte"))
	}
	if len(what) == 0 {
		what = append(what, "the file")
	}
	if plan.Parts != nil && *plan.Parts > 1 {
		what[len(what)-1] += " in " + plural(int64(*plan.Parts), "part")
	}
	would := fmt.Sprintf("would send %s to %s", strings.Join(what, ", "), job.Spec.Object)
	if plan.EstimatedSeconds != nil {
		would += " in some " + (time.Duration(*plan.EstimatedSeconds) * time.Second).String()
	}
	return would
}

// plural is a number of things in words: "1 row", "1,234 rows".
func plural(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return grouped(n) + " " + thing + "s"
}

// grouped is a number with its thousands apart.
func grouped(n int64) string {
	digits := strconv.FormatInt(n, 10)
	for at := len(digits) - 3; at > 0 && digits[at-1] != '-'; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}
