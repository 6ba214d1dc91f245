package controllers

import (
	"encoding/hex"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unique"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

// Transforms of the cache. What has ended stays in it as a skeleton: enough to
// know that it has ended and of what. More is read live, when it is asked for.
// Nothing is left out of the cache by a selector, since what is not there
// cannot be told from what never was.
//
// Skeletons are most of what a long-lived operator holds, so they have a form
// of their own. Readers never meet it: the cache copies what it hands out, and
// the copy of a skeleton is an ordinary object. Only what is called with the
// cached object itself does, as indexes, predicates and handlers are: see whole.

// skeleton is what the cache keeps of the metadata of an object that has ended.
// Its words stand in one text, which takes a quarter of the room of as many strings.
type skeleton struct {
	*metav1.ObjectMeta // what a skeleton does not have, for all of them
	text               string
	ends               [8]uint16 // of the words in the text
	generation         int64
}

var hollow metav1.ObjectMeta

// The words that every skeleton begins with.
const (
	wordNamespace = iota
	wordName
	wordUID
	wordVersion
	words // what a kind's own words are counted from
)

// newSkeleton is the skeleton of an object, and its kind's own words; false if they do not go into one.
func newSkeleton(o *metav1.ObjectMeta, own ...string) (skeleton, bool) {
	all := append([]string{o.Namespace, o.Name, fold(string(o.UID)), o.ResourceVersion}, own...)
	s := skeleton{ObjectMeta: &hollow, text: strings.Join(all, ""), generation: o.Generation}
	end := 0
	for i, word := range all {
		end += len(word)
		s.ends[i] = uint16(end) //nolint:gosec // it is found out below
	}
	return s, end <= math.MaxUint16
}

func (s *skeleton) word(i int) string {
	if i == 0 {
		return s.text[:s.ends[0]]
	}
	return s.text[s.ends[i-1]:s.ends[i]]
}

// What folded words begin with.
const (
	folded        = "\x00" // a UID or a digest
	foldedReceipt = "\x01" // a receipt's name
)

// fold halves the room of a UID or a digest, and takes a third off a receipt's name. Anything else stays as it is.
func fold(word string) string {
	if name, ok := strings.CutPrefix(word, receiptPrefix); ok {
		if raw, err := receiptEncoding.DecodeString(strings.ToUpper(name)); err == nil && unfold(foldedReceipt+string(raw)) == word {
			return foldedReceipt + string(raw)
		}
		return word
	}
	digits := strings.ReplaceAll(word, "-", "")
	if raw, err := hex.DecodeString(digits); err == nil && unfold(folded+string(raw)) == word {
		return folded + string(raw)
	}
	return word
}

// unfold undoes fold.
func unfold(word string) string {
	if raw, ok := strings.CutPrefix(word, foldedReceipt); ok {
		return receiptPrefix + strings.ToLower(receiptEncoding.EncodeToString([]byte(raw)))
	}
	raw, ok := strings.CutPrefix(word, folded)
	if !ok {
		return word
	}
	digits := hex.EncodeToString([]byte(raw))
	if len(raw) != 16 {
		return digits
	}
	return digits[:8] + "-" + digits[8:12] + "-" + digits[12:16] + "-" + digits[16:20] + "-" + digits[20:]
}

// meta is the metadata that is left.
func (s *skeleton) meta() metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: s.GetNamespace(), Name: s.GetName(), UID: s.GetUID(), ResourceVersion: s.GetResourceVersion(), Generation: s.generation,
	}
}

// GetNamespace implements metav1.Object.
func (s *skeleton) GetNamespace() string { return s.word(wordNamespace) }

// GetName implements metav1.Object.
func (s *skeleton) GetName() string { return s.word(wordName) }

// GetUID implements metav1.Object.
func (s *skeleton) GetUID() types.UID { return types.UID(unfold(s.word(wordUID))) }

// GetResourceVersion implements metav1.Object.
func (s *skeleton) GetResourceVersion() string { return s.word(wordVersion) }

// GetGeneration implements metav1.Object.
func (s *skeleton) GetGeneration() int64 { return s.generation }

// GetObjectKind implements runtime.Object. Who reads a copy is told its kind by the cache.
func (s *skeleton) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// endedJob is the skeleton of a finished BulkJob.
type endedJob struct {
	skeleton
	completed int64 // seconds since 1970
	ttl       int32 // seconds; negative: none
}

const (
	wordReceipt = words + iota
	wordState
	wordMark    // by which a GitOps tool knows what it owns
	wordDeleted // since when the job is on its way out
)

// DeepCopyObject implements runtime.Object: the copy of a skeleton is a BulkJob.
func (e *endedJob) DeepCopyObject() runtime.Object {
	job := &v1alpha1.BulkJob{
		ObjectMeta: e.meta(),
		Status: v1alpha1.BulkJobStatus{
			ObservedGeneration: e.generation, Receipt: unfold(e.word(wordReceipt)), State: e.word(wordState),
			CompletionTime: new(metav1.Unix(e.completed, 0)),
		},
	}
	if e.ttl >= 0 {
		job.Spec.TTLSecondsAfterFinished = new(e.ttl)
	}
	if mark := e.word(wordMark); mark != "" {
		job.Annotations = map[string]string{mark: ""}
	}
	if since, err := time.Parse(time.RFC3339, e.word(wordDeleted)); err == nil {
		job.DeletionTimestamp = new(metav1.NewTime(since))
	}
	return job
}

// endedReceipt is the skeleton of a BulkReceipt whose load has ended for good.
type endedReceipt struct{ skeleton }

const (
	wordOutcome    = words + iota
	wordClaimer    // of a part: its number
	wordClaimerUID // of a part: the whole's name
	wordBindingHash
)

// DeepCopyObject implements runtime.Object: the copy of a skeleton is a BulkReceipt.
func (e *endedReceipt) DeepCopyObject() runtime.Object {
	if of := unfold(e.word(wordClaimerUID)); strings.HasPrefix(of, receiptPrefix) {
		number, _ := strconv.ParseInt(e.word(wordClaimer), 10, 32)
		return &v1alpha1.BulkReceipt{
			ObjectMeta: e.meta(), Spec: v1alpha1.BulkReceiptSpec{Part: &v1alpha1.PartReference{Of: of, Number: int32(number)}},
			Record: v1alpha1.BulkReceiptRecord{Outcome: v1alpha1.LoadOutcome(e.word(wordOutcome))},
		}
	}
	return &v1alpha1.BulkReceipt{
		ObjectMeta: e.meta(),
		Record: v1alpha1.BulkReceiptRecord{
			Outcome:     v1alpha1.LoadOutcome(e.word(wordOutcome)),
			ClaimedFor:  v1alpha1.JobReference{Name: e.word(wordClaimer), UID: unfold(e.word(wordClaimerUID))},
			BindingHash: unfold(e.word(wordBindingHash)),
		},
	}
}

// whole is an object as readers of the cache see it; false if it is of another kind.
func whole[T client.Object](o client.Object) (T, bool) {
	t, ok := o.(T)
	if !ok {
		t, ok = o.DeepCopyObject().(T)
	}
	return t, ok
}

func slimJob(object any) (any, error) {
	job, ok := object.(*v1alpha1.BulkJob)
	if !ok {
		return object, nil
	}
	mark := ownershipMark(job)
	if finished(job) {
		deleted := ""
		if job.DeletionTimestamp != nil {
			deleted = job.DeletionTimestamp.UTC().Format(time.RFC3339)
		}
		if bones, ok := newSkeleton(&job.ObjectMeta, fold(job.Status.Receipt), job.Status.State, mark, deleted); ok {
			ttl := int32(-1)
			if job.Spec.TTLSecondsAfterFinished != nil {
				ttl = *job.Spec.TTLSecondsAfterFinished
			}
			return &endedJob{bones, job.Status.CompletionTime.Unix(), ttl}, nil
		}
	}
	slim(&job.TypeMeta, &job.ObjectMeta)
	job.Labels, job.Annotations = nil, nil // jobs are patched, never updated: what is not here is not taken away
	if mark != "" {
		job.Annotations = map[string]string{mark: ""}
	}
	intern(&job.Namespace, &job.Spec.ConnectorRef.Name, &job.Spec.Object, (*string)(&job.Spec.Format), (*string)(&job.Spec.Action),
		(*string)(&job.Spec.ObjectCheck), (*string)(&job.Spec.DuplicatePolicy), (*string)(&job.Spec.DeletionPolicy), (*string)(&job.Spec.OnUnknown),
		&job.Status.State)
	internConditions(job.Status.Conditions)
	return job, nil
}

func slimReceipt(object any) (any, error) {
	receipt, ok := object.(*v1alpha1.BulkReceipt)
	if !ok {
		return object, nil
	}
	if frozen(receipt) {
		record := &receipt.Record
		claimer, uid := record.ClaimedFor.Name, record.ClaimedFor.UID
		if part := receipt.Spec.Part; part != nil {
			claimer, uid = strconv.Itoa(int(part.Number)), part.Of
		}
		bones, ok := newSkeleton(&receipt.ObjectMeta, string(record.Outcome), claimer, fold(uid), fold(record.BindingHash))
		if ok {
			return &endedReceipt{bones}, nil
		}
	}
	slim(&receipt.TypeMeta, &receipt.ObjectMeta)
	spec, record := &receipt.Spec, &receipt.Record
	intern(&receipt.Namespace, &spec.Target, &spec.Object, (*string)(&spec.Action), (*string)(&spec.Format), (*string)(&spec.Compression),
		&record.ConnectorRef.Name, &record.TargetFingerprint, (*string)(&record.DeletionPolicy), &record.State)
	for i := range record.Attempts {
		intern(&record.Attempts[i].Holder, (*string)(&record.Attempts[i].Outcome))
	}
	return receipt, nil
}

// slim takes away what the operator never reads.
func slim(kind *metav1.TypeMeta, o *metav1.ObjectMeta) {
	*kind = metav1.TypeMeta{}
	o.ManagedFields = nil
	delete(o.Annotations, corev1.LastAppliedConfigAnnotation)
	if len(o.Annotations) == 0 {
		o.Annotations = nil
	}
}

// intern keeps one copy of texts that are the same in thousands of objects.
func intern(texts ...*string) {
	for _, text := range texts {
		*text = unique.Make(*text).Value()
	}
}

// internConditions does the same for conditions, whose messages are the same within one object.
func internConditions(conditions []metav1.Condition) {
	for i := range conditions {
		c := &conditions[i]
		intern(&c.Type, (*string)(&c.Status), &c.Reason)
		if same := slices.IndexFunc(conditions[:i], func(other metav1.Condition) bool { return other.Message == c.Message }); same >= 0 {
			c.Message = conditions[same].Message
		}
	}
}
