package controllers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/source"
	"bulkjob.dev/operator/internal/upload"
)

const (
	// maxPlans are made at once: each may hold preflight.DefaultKeyBytes, and half as much more for a moment.
	maxPlans = 2

	// planItem begins the names under which plans wait for requests.
	planItem = "plan of "

	// runningDelay is how often a job asks for a plan that is being made. It is woken when that is there.
	runningDelay = 2 * time.Second

	// A source is looked at again, by its pin, after a tenth of the time that the plan has stood; an object store no more often than that.
	quickLook = 5 * time.Second
	slowLook  = 5 * time.Minute
	storeLook = 10 * time.Minute
)

// fieldsLife is for how long the fields of an object are taken to be those that the endpoint told for a plan: these requests stand
// in one line with the polls of loads.
const fieldsLife = 30 * time.Second

// plans are the dry runs of this process. Losing them costs at most the work of making them again.
type plans struct {
	pool *upload.Pool
	mu   sync.Mutex
	jobs map[types.NamespacedName]*planning
}

// planning is how the dry run of a job stands.
type planning struct {
	uid        types.UID // of the job
	generation int64
	connector  string // as it was last time; another one is looked at anew

	since time.Time // it has stood so
	next  time.Time // before which it is not looked at again
	waits *verdict  // what must be there before a plan can be made; nil: nothing
	about subject
	asked time.Time      // when the endpoint told of the object's fields
	made  *v1alpha1.Plan // nil: none yet
}

// isFor is true if it is about a job as it is now.
func (p *planning) isFor(job *v1alpha1.BulkJob) bool {
	return p.uid == job.UID && p.generation == job.Generation
}

// dryRuns is true for a job that is to be planned, and not to be loaded.
func dryRuns(job *v1alpha1.BulkJob) bool {
	return job.Spec.DryRun && !job.Spec.Cancel && !job.Spec.Suspend
}

// of is how the dry run of a job stands; one of an earlier generation is cut and forgotten.
func (p *plans) of(job *v1alpha1.BulkJob, connector string, now time.Time) planning {
	key := client.ObjectKeyFromObject(job)
	p.mu.Lock()
	defer p.mu.Unlock()
	state := p.jobs[key]
	if state == nil || !state.isFor(job) {
		if state != nil {
			p.pool.Cut(key.String(), errLeft)
		}
		if p.jobs == nil {
			p.jobs = map[types.NamespacedName]*planning{}
		}
		state = &planning{uid: job.UID, generation: job.Generation, since: now, connector: connector}
		p.jobs[key] = state
	}
	if state.connector != connector {
		state.connector, state.next = connector, now
	}
	return *state
}

// note keeps what came of one look, if the job still asks for it.
func (p *plans) note(job *v1alpha1.BulkJob, seen *planning) {
	p.mu.Lock()
	defer p.mu.Unlock()
	state := p.jobs[client.ObjectKeyFromObject(job)]
	if state == nil || !state.isFor(job) {
		return
	}
	connector := state.connector
	*state = *seen
	if state.connector != connector { // it has changed meanwhile
		state.connector, state.next = connector, time.Time{}
	}
}

// forget cuts what is looked at for a job, and forgets it.
func (p *plans) forget(job types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.jobs[job] == nil {
		return
	}
	delete(p.jobs, job)
	p.pool.Cut(job.String(), errLeft)
	p.pool.Withdraw(job.String())
}

// plan shows what would become of a job's load. Nothing is claimed, and nothing is sent. What there is to look at takes as long as
// reading the whole file, so it is done in a pool of its own.
func (r *JobReconciler) plan(ctx context.Context, job *v1alpha1.BulkJob) (turn, error) {
	o, now := r.operator, r.operator.now()
	o.leave(client.ObjectKeyFromObject(job)) // a dry run stands in no line
	connector, err := o.connectorVersion(ctx, job)
	if err != nil {
		return turn{}, err
	}
	state := o.plans.of(job, connector, now)
	after := state.next.Sub(now)
	if after <= 0 {
		after = o.startPlan(job, &state)
	}
	next, quiet := turn{}, state.since.Add(quietStart).Sub(now)
	switch {
	case state.waits == nil && state.made != nil:
		next = r.planned(job, state.made)
	case quiet > 0: // most are made by then, and each thing shown is a write
		after = min(after, quiet)
	case state.waits != nil:
		next = r.heldBack(job, *state.waits)
	case !shownPlan(job): // else what an earlier process has shown stands until this one knows better
		next = r.heldBack(job, progressing(v1alpha1.ReasonWaitingForSource, "the dry run looks at the source"))
	}
	next.after, next.priority = after, priorityFollow
	return next, nil
}

// connectorVersion tells a connector from what it was before, as far as a plan depends on it; empty if there is none.
func (o *operator) connectorVersion(ctx context.Context, job *v1alpha1.BulkJob) (string, error) {
	ci := &v1alpha1.ConnectorInstance{}
	err := o.client.Get(ctx, types.NamespacedName{Namespace: job.Namespace, Name: job.Spec.ConnectorRef.Name}, ci)
	if err != nil {
		return "", client.IgnoreNotFound(err)
	}
	return fmt.Sprintf("%s/%d/%t", ci.UID, ci.Generation, isReady(ci)), nil
}

// startPlan begins to look at what a job names, unless that is being done, or as many are looked at as may be. It says when to
// ask again; the job is woken when its turn comes, and when it is done.
func (o *operator) startPlan(job *v1alpha1.BulkJob, state *planning) time.Duration {
	key := client.ObjectKeyFromObject(job).String()
	if !o.plans.pool.Admit(key, "", 0) {
		return lineDelay
	}
	job, seen := job.DeepCopy(), *state
	o.plans.pool.Start(key, "", 0, func(ctx context.Context) { o.makePlan(ctx, job, &seen) })
	return runningDelay
}

// planned shows a plan. It is no activity: a deadline begins when the load does.
func (r *JobReconciler) planned(job *v1alpha1.BulkJob, plan *v1alpha1.Plan) turn {
	next := r.say(job, judgePlan(job, plan))
	next.status.StartTime = nil
	next.status.Plan = plan.DeepCopy()
	return next
}

// heldBack shows what a dry run waits for. The spec holds the job back, too, as it does a suspended one.
func (r *JobReconciler) heldBack(job *v1alpha1.BulkJob, said verdict) turn {
	said.phase = phaseSuspended
	next := r.say(job, said)
	if job.Status.ObservedGeneration != job.Generation {
		next.status.Plan = nil // it was about another spec
	}
	return next
}

// shownPlan is true if a job's status shows the plan of its spec as it is.
func shownPlan(job *v1alpha1.BulkJob) bool {
	return job.Status.Plan != nil && job.Status.ObservedGeneration == job.Generation &&
		(hasReason(job.Status.Conditions, v1alpha1.ConditionReady, v1alpha1.ReasonPlanned) ||
			hasReason(job.Status.Conditions, v1alpha1.ConditionStalled, v1alpha1.ReasonPlanRejected))
}

// tooLate adds to what is said of a load that goes on, though its job asks for a dry run now.
func tooLate(job *v1alpha1.BulkJob, status *v1alpha1.BulkJobStatus, said verdict) verdict {
	const note = "; spec.dryRun came too late for this load"
	if !job.Spec.DryRun || said.finished() {
		return said
	}
	said.message = truncate(said.message, maxMessage-len(note)) + note
	setConditions(&status.Conditions, said, job.Generation)
	return said
}

// makePlan takes one look. It runs in a pool of its own, on a context that ends only if it is to be cut.
func (o *operator) makePlan(ctx context.Context, job *v1alpha1.BulkJob, state *planning) {
	state.next = o.now().Add(recheckDelay) // if it breaks off
	defer func() {
		if ctx.Err() == nil { // what was cut has found out nothing
			o.plans.note(job, state)
			wake(o.jobEvents, job)
		}
	}()
	before := state.waits
	err := o.lookOver(ctx, job, state)
	now := o.now()
	h, waits := errors.AsType[*held](err)
	switch {
	case waits:
		if before == nil {
			state.since = now
		}
		state.waits, state.next = &h.verdict, now.Add(waitFor(h.verdict, now.Sub(state.since)))
	case err != nil:
		ctrl.Log.WithName("plan").Info("Cannot make a plan yet", "job", client.ObjectKeyFromObject(job), "error", err.Error())
		state.next = now.Add(quietStart)
	default:
		state.waits, state.next = nil, now.Add(lookAgain(job, state, now))
	}
}

// waitFor is how long a dry run waits until it looks again for what it lacks.
func waitFor(what verdict, waited time.Duration) time.Duration {
	longest := time.Minute
	if what.reason == v1alpha1.ReasonWaitingForSource {
		longest = lookDelay
	}
	return min(max(waited/10, time.Second), longest)
}

// lookAgain is how long a plan stands before its source is looked at again.
func lookAgain(job *v1alpha1.BulkJob, state *planning, now time.Time) time.Duration {
	if job.Spec.Source.ObjectStore != nil && state.about.receipt != "" {
		return storeLook
	}
	return min(max(now.Sub(state.since)/10, quickLook), slowLook)
}

// lookOver finds out what a job names now, and makes a plan unless there is one about the same. The error is a *held
// if somebody or something must be waited for.
func (o *operator) lookOver(ctx context.Context, job *v1alpha1.BulkJob, state *planning) error {
	s, err := o.survey(ctx, job)
	if err != nil {
		return err
	}
	about, now := s.subject(), o.now()
	if state.made == nil && shownPlan(job) && about.isShown(job.Status.Plan) { // an earlier process made it
		state.made, state.about, state.asked = job.Status.Plan.DeepCopy(), about, now
		return nil
	}
	about.fields = state.about.fields
	same := state.made != nil && state.about == about
	if same && now.Sub(state.asked) < fieldsLife {
		return nil
	}
	if err := o.describe(ctx, s); err != nil {
		return err
	}
	told := s.told()
	same = same && (about.fields == told || about.fields == undescribed)
	about.fields, state.asked = told, now
	if same {
		state.about = about
		return nil
	}
	if err := s.read(ctx, o.patience); err != nil {
		return err
	}
	s.speed = o.ended.speeds.shown(types.NamespacedName{Namespace: job.Namespace, Name: job.Spec.ConnectorRef.Name})
	state.made, state.about, state.since = s.plan(o.now()), about, o.now()
	return nil
}

// survey finds out all that there is to know about a job's load but what the endpoint tells of its object, and what is in its file.
func (o *operator) survey(ctx context.Context, job *v1alpha1.BulkJob) (*survey, error) {
	s := &survey{job: job}
	c, err := o.identify(ctx, job)
	if h, ok := errors.AsType[*held](err); ok && h.verdict.phase == phaseStalled {
		s.refused = h.verdict
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	s.c = c
	receipt := &v1alpha1.BulkReceipt{}
	switch err := o.live.Get(ctx, c.key(), receipt); {
	case err == nil:
		s.standing = receipt
	case client.IgnoreNotFound(err) != nil:
		return nil, err
	}
	return s, nil
}

// describe asks the endpoint which fields the object has.
func (o *operator) describe(ctx context.Context, s *survey) error {
	if s.c == nil {
		return nil
	}
	done, err := o.turn(ctx, planItem+client.ObjectKeyFromObject(s.job).String(), s.c.connector, s.c.connection.host)
	if err != nil {
		return err
	}
	defer done()
	s.fields, s.unasked = s.c.connection.client.Fields(ctx, s.job.Spec.Object)
	return ctx.Err()
}

// errSlowPlan says that a file could not be read through in time.
var errSlowPlan = errors.New("the time for one file has passed")

// changedMeanwhile is for a source that was overwritten while it was read.
func changedMeanwhile(err error, when string) error {
	if errors.Is(err, source.ErrChanged) {
		return &held{progressing(v1alpha1.ReasonWaitingForSource, "the source was changed while "+when+"; it is read again")}
	}
	return err
}
