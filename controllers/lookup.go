package controllers

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/openconnectors"
	"bulkjob.dev/operator/internal/upload"
)

const (
	// lookupTimeout bounds one look through the endpoint's list of jobs.
	lookupTimeout = time.Minute

	// maxLookups go on at once at one host.
	maxLookups = 2

	listPatience   = 10 * time.Minute
	answerPatience = time.Hour

	// maxListed jobs are looked through; beyond them it is not known who else is there.
	maxListed = 50_000

	// lookupLimit is how many jobs that do not tell in the list what they were made of are asked one by one.
	lookupLimit = 100

	// listingSlack is by how much the endpoint's clock may be behind.
	listingSlack = 24 * time.Hour

	// clockSlack is by how much the clocks of two processes of the operator may differ.
	clockSlack = 2 * time.Minute

	// maxOtherJobs are named in a receipt.
	maxOtherJobs = 10
)

// sighting is what the endpoint's list has of a load.
type sighting struct {
	jobs []openconnectors.Job // that came of it
	sure bool                 // all others are known not to have come of it
}

// search says what is looked for.
type search struct {
	ours     func(*openconnectors.Job) bool
	identity string // of the load: what a job was sent for that carries it, is loaded
	object   string
	objects  []string  // all that the connector has
	since    time.Time // older jobs are others; zero: none is too old
}

// searchFor says how to find the attempts at a load that are in doubt.
func searchFor(receipt *v1alpha1.BulkReceipt, connection *connection) search {
	s := search{ours: carries(receipt), identity: receipt.Name, object: receipt.Spec.Object, objects: connection.objects, since: receipt.CreationTimestamp.Time}
	for _, a := range doubts(receipt) {
		if a.Nonce == restoredNonce {
			s.since = time.Time{} // nobody knows when it was made
		} else if a.At.Time.Before(s.since) {
			s.since = a.At.Time
		}
	}
	return s
}

// tells is true for a job that names what it came of, so that one that does not name the load is known to be another's. Metadata
// without a token tells nothing: who echoes which keys is not documented.
func tells(job *openconnectors.Job) bool { return job.CallbackPayload() != "" || job.CarriesAny("br-") }

// bare is what is needed of a job that was found.
func bare(job *openconnectors.Job) openconnectors.Job {
	return openconnectors.Job{ID: job.ID, State: job.State, Created: job.Created}
}

// errSlowList says that the time of a look-up did not suffice.
var errSlowList = errors.New("the endpoint's list of jobs could not be read through in time")

// lookUp reads the endpoint's list of jobs through.
func lookUp(ctx context.Context, c *connection, s search, perSecond int32) (sighting, error) {
	pace := rate.NewLimiter(rate.Limit(max(perSecond, 1)), 1)
	within, cancel := context.WithTimeout(ctx, lookupTimeout+time.Duration(lookupLimit/max(perSecond, 1))*time.Second)
	defer cancel()
	seen, mute, err := read(within, c, s)
	if err == nil && len(seen.jobs) == 0 && seen.sure {
		seen, err = ask(within, c, s, mute, pace)
	}
	if err != nil && within.Err() != nil && ctx.Err() == nil {
		err = errSlowList
	}
	return seen, err
}

// read finds those in the list that tell that they came of the load, or of another attempt with its identity; mute are those that tell
// nothing.
func read(ctx context.Context, c *connection, s search) (seen sighting, mute []string, err error) {
	seen.sure = true
	var akin []openconnectors.Job
	listed := 0
	for job, err := range c.client.Jobs(ctx, "") {
		if err != nil {
			return seen, nil, err
		}
		switch {
		case s.ours(&job):
			seen.jobs = append(seen.jobs, bare(&job))
		case job.CarriesAny(s.identity + "."):
			akin = append(akin, bare(&job))
		case tells(&job), s.another(&job):
		case len(mute) < lookupLimit:
			mute = append(mute, job.ID)
		default:
			seen.sure = false
		}
		if listed++; listed >= maxListed || len(seen.jobs) > maxOtherJobs || len(akin) > maxOtherJobs {
			seen.sure = false
			break
		}
	}
	if len(seen.jobs) == 0 {
		seen.jobs = akin
	}
	return seen, mute, nil
}

// ask asks for jobs one by one that do not tell in the list what they were made of.
func ask(ctx context.Context, c *connection, s search, ids []string, pace *rate.Limiter) (sighting, error) {
	seen := sighting{sure: true}
	for _, id := range ids {
		if err := pace.Wait(ctx); err != nil {
			return seen, errSlowList // it says so before the time is over
		}
		job, err := c.client.Status(ctx, id)
		refused, answered := errors.AsType[*openconnectors.APIError](err)
		switch {
		case answered && !refused.Temporary():
			seen.sure = false
		case err != nil:
			return seen, err
		case s.ours(&job), job.CarriesAny(s.identity + "."):
			seen.jobs = append(seen.jobs, bare(&job))
		case !tells(&job):
			seen.sure = false
		}
	}
	return seen, nil
}

// confirm asks for the job that a callback told of. One that is another's, or that the endpoint does not know, counts for nothing.
func confirm(ctx context.Context, c *connection, s search, id string) (sighting, error) {
	job, err := c.client.Status(ctx, id)
	if refused, ok := errors.AsType[*openconnectors.APIError](err); ok && refused.StatusCode == http.StatusNotFound {
		return sighting{}, nil
	}
	if err != nil || s.another(&job) || tells(&job) && !s.ours(&job) {
		return sighting{}, err
	}
	return sighting{jobs: []openconnectors.Job{job}}, nil
}

// another is true for a job that cannot have come of the load, whatever it was submitted with. The list may call an object by its
// vendor's name: only a name that the connector has for another object tells.
func (s *search) another(job *openconnectors.Job) bool {
	named := func(name string) bool { return strings.EqualFold(name, job.Object) }
	return strings.EqualFold(job.Direction, "DOWNLOAD") || !named(s.object) && slices.ContainsFunc(s.objects, named) ||
		!s.since.IsZero() && job.Created != nil && job.Created.Before(s.since.Add(-listingSlack))
}

// lookUp asks the endpoint whether it took a load that is in doubt, and records what it says.
func (r *ReceiptReconciler) lookUp(ctx context.Context, v *loadView, connection *connection, next step) (ctrl.Result, error) {
	done, ok := r.operator.lookups.take(connection.host, maxLookups)
	if !ok {
		return requeue(time.Second, priorityFollow), nil
	}
	defer done()
	ctx, span := r.operator.tracing.phase(ctx, journeyFrom(v.receipt), spanLookUp)
	s, told := searchFor(v.receipt, connection), toldJob(v.receipt)
	var seen sighting
	var err error
	if next.reason == byCallback {
		seen, err = confirm(ctx, connection, s, told)
	} else {
		seen, err = lookUp(ctx, connection, s, v.connector.perSecond)
	}
	endSpan(span, err)
	receipt := v.receipt.DeepCopy()
	switch {
	case len(seen.jobs) > 0: // whatever else could not be read
		settleAttempts(receipt, doubts(receipt), v.now, func(a *v1alpha1.Attempt) {
			a.Outcome, a.Message = v1alpha1.AttemptAccepted, "found among the endpoint's jobs"
		})
		adopt(receipt, seen.jobs, v.now)
		return r.settled(ctx, receipt)
	case err != nil && !r.tellsNothing(v, err):
		result := requeue(recheckDelay, priorityFollow)
		if !isHeld(&receipt.Record) { // what is held says so, whoever was called back
			result = r.trouble(v, progressing(v1alpha1.ReasonLookingUp, lookingUpMessage(receipt)+"; it could not be asked: "+err.Error()))
		}
		if refused, ok := errors.AsType[*openconnectors.APIError](err); ok {
			result.RequeueAfter = max(result.RequeueAfter, refused.RetryAfter)
		}
		return result, nil
	case seen.sure && v.connector.listing == v1alpha1.ListingAuthoritative:
		settleAttempts(receipt, doubts(receipt), v.now, func(a *v1alpha1.Attempt) {
			a.Outcome, a.Message = v1alpha1.AttemptNotSent, "the endpoint's list of jobs does not have it"
			a.FencedBy = orDefault(a.FencedBy, r.operator.process.holder) // should it still come, it comes too late, or under a token that is repeated
		})
		unhold(receipt)
		return r.settled(ctx, receipt)
	}
	r.operator.process.with(client.ObjectKeyFromObject(receipt), func(l *load) {
		l.trouble = nil
		if next.reason == byCallback {
			l.confirmed = hint(receipt)
		} else {
			l.lookedUp = lastAttempt(receipt).Nonce
		}
	})
	return requeue(0, priorityFollow), nil
}

// tellsNothing is true of an endpoint that has been asked for long, and answers, but not what it was asked for.
func (r *ReceiptReconciler) tellsNothing(v *loadView, err error) bool {
	long := r.operator.patience.Answer
	refused, answered := errors.AsType[*openconnectors.APIError](err)
	if answered && v.connector.listing != v1alpha1.ListingAuthoritative &&
		slices.Contains([]int{http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusForbidden}, refused.StatusCode) {
		long = r.operator.patience.List // it has no list, or does not let this account see it; so says an ingress without its endpoint, too
	}
	answered = answered || errors.Is(err, openconnectors.ErrAnswer) || errors.Is(err, errSlowList)
	return answered && v.now.Sub(v.known.lastSince) >= long
}

// settled records what was found out, or decided, about the attempts in doubt.
func (r *ReceiptReconciler) settled(ctx context.Context, receipt *v1alpha1.BulkReceipt) (ctrl.Result, error) {
	if err := r.Update(ctx, receipt); err != nil {
		return ctrl.Result{}, staleOnConflict(err)
	}
	r.operator.process.with(client.ObjectKeyFromObject(receipt), func(l *load) { l.trouble = nil })
	if len(receipt.Record.OtherJobIDs) > 0 {
		r.operator.metrics.sentTwice.Inc()
	}
	return requeue(0, priorityFollow), nil
}

// resolve records what a job decides about a load that is in doubt.
func (r *ReceiptReconciler) resolve(ctx context.Context, v *loadView, connection *connection, next step) (ctrl.Result, error) {
	receipt, action := v.receipt.DeepCopy(), v1alpha1.ResolveAction(next.reason)
	person := strings.HasPrefix(next.message, byPerson)
	if !person {
		if later, err := r.operator.laterClaim(ctx, receipt); err != nil || later != "" {
			return r.holdFor(ctx, v, later, err)
		}
	}
	var adopted []openconnectors.Job
	if action == v1alpha1.ResolveAdopt {
		job, err := r.adoptable(ctx, v, connection, next.job.Spec.Resolve.JobID)
		if err != nil {
			return ctrl.Result{}, err
		}
		adopted = append(adopted, job)
	}
	settleAttempts(receipt, suspects(receipt), v.now, func(a *v1alpha1.Attempt) {
		a.Resolution, a.Message, a.Outcome = action, next.message, v1alpha1.AttemptUnknown
		if person && action == v1alpha1.ResolveResend {
			a.Outcome = v1alpha1.AttemptNotSent // who looked says that nothing arrived
		}
	})
	record := &receipt.Record
	record.Outcome, record.Reason, record.Message, record.CompletionTime = "", "", "", nil
	if person {
		record.Rejections = 0
	}
	switch action { //nolint:exhaustive // what is to be sent again is as it was before
	case v1alpha1.ResolveAdopt:
		adopt(receipt, adopted, v.now)
	case v1alpha1.ResolveAbandon:
		end(record, v1alpha1.LoadAbandoned, v1alpha1.ReasonAbandoned,
			next.message+": nobody knows whether the endpoint took the file, and it is not followed any further", v.now)
	}
	return r.settled(ctx, receipt)
}

// adoptable is the endpoint's job of that id, if a load can be followed as it. The error is a *held if it cannot.
func (r *ReceiptReconciler) adoptable(ctx context.Context, v *loadView, connection *connection, id string) (openconnectors.Job, error) {
	done, _ := r.ask(v, connection, upload.Submit)
	if done == nil {
		return openconnectors.Job{}, errStale
	}
	defer done()
	job, err := connection.client.Status(ctx, id)
	refused, answered := errors.AsType[*openconnectors.APIError](err)
	named := search{object: v.receipt.Spec.Object, objects: connection.objects}
	switch {
	case answered && refused.StatusCode == http.StatusNotFound:
		return job, refusal(v1alpha1.ReasonSubmissionUnknown, "spec.resolve names the endpoint's job "+id+", which the endpoint does not know: correct jobID")
	case err != nil:
		return job, &held{progressing(v1alpha1.ReasonLookingUp, "spec.resolve names the endpoint's job "+id+", which could not be asked for: "+err.Error())}
	case named.another(&job):
		return job, refusal(v1alpha1.ReasonSubmissionUnknown,
			"spec.resolve names the endpoint's job "+id+", which is no upload to object "+named.object+": correct jobID")
	case job.CarriesAny("br-") && !job.CarriesAny(v.receipt.Name+"."):
		return job, refusal(v1alpha1.ReasonSubmissionUnknown, "spec.resolve names the endpoint's job "+id+", which came of another load: correct jobID")
	}
	job.ID = id
	return job, nil
}

// holdFor holds a load that a later one overtook.
func (r *ReceiptReconciler) holdFor(ctx context.Context, v *loadView, later string, err error) (ctrl.Result, error) {
	if err != nil {
		return ctrl.Result{}, err
	}
	return r.write(ctx, v, step{do: doHold, reason: v1alpha1.ReasonRunningLoad, message: "onUnknown: Resend is not acted on, since " + later +
		" was claimed later for the same object: its rows would be overwritten by older ones"})
}

// laterClaim is a receipt of the same connector and object with a claim after the first that may have been taken, by clocks that may
// differ a little; empty if there is none.
func (o *operator) laterClaim(ctx context.Context, receipt *v1alpha1.BulkReceipt) (string, error) {
	mine := firstSuspect(receipt).At.Add(-clockSlack)
	next := ""
	for more := true; more; more = next != "" {
		list := &v1alpha1.BulkReceiptList{}
		err := o.live.List(ctx, list, client.InNamespace(receipt.Namespace), client.MatchingFields{"spec.object": receipt.Spec.Object},
			client.Limit(500), client.Continue(next))
		if err != nil {
			return "", err
		}
		next = list.Continue
		for i := range list.Items {
			other := &list.Items[i]
			if wholeName(other) != wholeName(receipt) && other.Record.ConnectorRef == receipt.Record.ConnectorRef &&
				(lastAttempt(other).At.After(mine) || other.CreationTimestamp.After(mine)) {
				return other.Name, nil
			}
		}
	}
	return "", nil
}

// carriesPart is true for a job of the endpoint's that came of a part of the content, if the consignment is the whole.
func (c *consignment) carriesPart(job *openconnectors.Job) bool {
	if c.part != nil {
		return false
	}
	if c.firstParts == nil {
		for number := int32(1); number <= maxParallelism; number++ {
			c.firstParts = append(c.firstParts, partName(c.receipt, number)+".")
		}
	}
	return slices.ContainsFunc(c.firstParts, job.CarriesAny)
}

// maxParallelism is how many parts may be sent at once: one of so many is the first.
const maxParallelism = 100

// checkBefore looks a load up at the endpoint that no receipt tells of. If the endpoint took it before, the receipt is made
// anew, and is to be followed.
func (o *operator) checkBefore(ctx context.Context, c *consignment) error {
	done, ok := o.lookups.take(c.connection.host, maxLookups)
	if !ok {
		return &held{progressing(v1alpha1.ReasonLookingUp, "checkBeforeSend: waits until other looks through the endpoint's jobs have ended")}
	}
	defer done()
	inParts := false
	seen, err := lookUp(ctx, c.connection, search{
		ours: func(job *openconnectors.Job) bool {
			inParts = inParts || c.carriesPart(job)
			return job.CarriesAny(c.receipt + ".")
		},
		identity: c.receipt, object: c.identity.Object, objects: c.connection.objects,
	}, c.connector.Spec.Limits.RequestsPerSecond)
	switch {
	case err != nil:
		return &held{progressing(v1alpha1.ReasonLookingUp, "checkBeforeSend: cannot look through the endpoint's jobs: "+err.Error())}
	case inParts:
		return refusal(v1alpha1.ReasonSubmissionUnknown, "checkBeforeSend: the endpoint took parts of this content before, and no receipt says which "+
			"rows are in them; look there, and change spec.sendToken to load all of it once more")
	case len(seen.jobs) > 0:
		receipt := o.claimed(c, nil, newToken())
		attempt := &receipt.Record.Attempts[0]
		attempt.Outcome, attempt.EndedAt, attempt.Message = v1alpha1.AttemptAccepted, new(metav1.NewMicroTime(o.now())), "found in the endpoint's list of jobs"
		adopt(receipt, seen.jobs, o.now())
		if err := o.client.Create(ctx, receipt); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		return errStale // there is a receipt to follow now
	case !seen.sure:
		return refusal(v1alpha1.ReasonSubmissionUnknown, "checkBeforeSend: the endpoint's list of jobs does not tell whether it took this load before; "+
			"look there, and set checkBeforeSend of the ConnectorInstance to false to go on")
	}
	return nil
}
