package gitops_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/diff"
	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/normalize"
	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

const (
	job      = "apps/contacts/bulkjob.yaml"
	contacts = "apps/contacts/contacts.csv"
	header   = "C_EmailAddress,C_FirstName,C_LastName,C_Title,C_BusPhone,C_Company,C_Website1\n"
	newcomer = header + "ada@example.com,Ada,Newcomer,,,,\n"
)

// TestOneLoad does to each tool's namespace what happens in a year, and counts the POSTs: one for each content, whatever is done.
func TestOneLoad(t *testing.T) {
	for _, tool := range tools {
		t.Run(tool.name, func(t *testing.T) {
			h := newHouse(t, "one-"+tool.name)
			y := &year{house: h, tool: tool, apply: tool.begin(h)}
			y.firstLoad()
			y.again()
			y.meddling()
			y.renaming()
			y.pruning()
			y.newContent()
			y.allGone()
			if h.states.count("Progressing") == 0 || h.states.count("Healthy") == 0 {
				t.Errorf("the watch saw %v only", h.states.seen)
			}
		})
	}
}

// A year is what a tool does with one application.
type year struct {
	*house

	tool  tool
	apply syncer
}

func (y *year) sync(why string, objects []*unstructured.Unstructured) {
	y.t.Helper()
	if err := y.apply(objects); err != nil {
		y.t.Fatalf("%s: %v", why, err)
	}
}

func (y *year) firstLoad() {
	y.t.Helper()
	y.sync("first", y.app())
	y.awaitEnd("contacts", v1alpha1.ReasonComplete)
	y.posts("first", 1)
}

// again: applying what is there changes nothing, and neither tool sees anything to correct.
func (y *year) again() {
	y.t.Helper()
	before := y.get("contacts")
	for range 3 {
		y.sync("again", y.app())
	}
	want := v1alpha1.ReasonComplete
	if y.tool.recreates {
		want = v1alpha1.ReasonAlreadyLoaded
	}
	after := y.awaitEnd("contacts", want)
	if !y.tool.recreates && (after.UID != before.UID || after.Generation != before.Generation) {
		y.t.Errorf("applied again: generation %d of %s, was %d of %s", after.Generation, after.UID, before.Generation, before.UID)
	}
	if diff := cmp.Diff([]string(nil), y.differences()); diff != "" {
		y.t.Errorf("applied again, there are differences (-want +got):\n%s", diff)
	}
	y.posts("again", 1)
}

// meddling: somebody changes the job by hand, and the tool corrects it.
func (y *year) meddling() {
	y.t.Helper()
	y.kubectl("patch", "bulkjob", "contacts", "--type=merge", "-p", `{"spec": {"maxFailedRows": 3, "source": {"configMap": {"name": "elsewhere"}}}}`)
	y.await("contacts", "looks elsewhere", func(job *v1alpha1.BulkJob) bool {
		return job != nil && ready(job).Reason == v1alpha1.ReasonSourceNotFound
	})
	if diff := cmp.Diff([]string{"Argo CD: contacts", "Flux: contacts"}, y.differences()); diff != "" {
		y.t.Errorf("meddled with, there are other differences (-want +got):\n%s", diff)
	}
	y.sync("meddling", y.app())
	healed := y.awaitEnd("contacts", v1alpha1.ReasonComplete, v1alpha1.ReasonAlreadyLoaded)
	if healed.Spec.Source.ConfigMap.Name == "elsewhere" || healed.Spec.MaxFailedRows.String() != "1%" {
		y.t.Errorf("the tool left it as %+v", healed.Spec)
	}
	y.posts("meddling", 1)
}

// renaming: the job gets another name in Git.
func (y *year) renaming() {
	y.t.Helper()
	y.edit(job, "name: contacts\nspec:", "name: people\nspec:")
	y.sync("renaming", y.app())
	y.awaitGone("contacts")
	y.awaitEnd("people", v1alpha1.ReasonAlreadyLoaded)
	y.edit(job, "name: people\nspec:", "name: contacts\nspec:")
	y.sync("renaming back", y.app())
	y.awaitGone("people")
	y.awaitEnd("contacts", v1alpha1.ReasonAlreadyLoaded)
	y.posts("renaming", 1)
}

// pruning: the job leaves Git, and comes back.
func (y *year) pruning() {
	y.t.Helper()
	y.sync("pruning", without(y.app(), "BulkJob"))
	y.awaitGone("contacts")
	y.receipts(1)
	y.sync("restoring", y.app())
	y.awaitEnd("contacts", v1alpha1.ReasonAlreadyLoaded)
	y.posts("restoring", 1)
}

// newContent: the file changes, so kustomize gives its ConfigMap another name; then the commit is taken back.
func (y *year) newContent() {
	y.t.Helper()
	former, old := only(y.t, y.app(), "ConfigMap"), y.text(contacts)
	y.write(contacts, newcomer)
	latter := only(y.t, y.app(), "ConfigMap")
	if former.GetName() == latter.GetName() || !strings.HasPrefix(latter.GetName(), "contacts-") {
		y.t.Fatalf("the ConfigMap was called %s, and now %s", former.GetName(), latter.GetName())
	}
	y.sync("new content", y.app())
	loaded := y.awaitEnd("contacts", v1alpha1.ReasonComplete)
	if got := loaded.Spec.Source.ConfigMap.Name; got != latter.GetName() || *loaded.Status.Rows.Sent != 1 {
		y.t.Errorf("the job loaded %s with %d rows", got, *loaded.Status.Rows.Sent)
	}
	if err := admin.Get(y.t.Context(), client.ObjectKeyFromObject(former), &corev1.ConfigMap{}); client.IgnoreNotFound(err) != nil || err == nil {
		y.t.Errorf("the former ConfigMap: %v, want that it was pruned", err)
	}
	y.posts("new content", 2)

	y.write(contacts, old)
	y.sync("content taken back", y.app())
	y.awaitEnd("contacts", v1alpha1.ReasonAlreadyLoaded)
	y.posts("content taken back", 2)
}

// allGone: the whole application is deleted, and made anew.
func (y *year) allGone() {
	y.t.Helper()
	y.sync("all gone", nil)
	y.awaitGone("contacts")
	y.receipts(2)
	y.sync("made anew", y.app())
	y.awaitEnd("contacts", v1alpha1.ReasonAlreadyLoaded)
	y.posts("made anew", 2)
	y.receipts(2)
}

// differences are the objects that an engine would correct; if there are any after a sync, it heals for ever.
func (y *year) differences() (found []string) {
	y.t.Helper()
	objects := y.tool.marked(y.app())
	if err := normalize.UnstructuredList(objects); err != nil {
		y.t.Fatal(err)
	}
	for _, o := range objects {
		live := o.DeepCopy()
		if err := admin.Get(y.t.Context(), client.ObjectKeyFromObject(o), live); err != nil {
			y.t.Fatal(err)
		}
		result, err := diff.Diff(o, live, diff.WithLogr(logr.Discard()))
		if err != nil {
			y.t.Fatal(err)
		}
		if result.Modified {
			found = append(found, "Argo CD: "+o.GetName())
		}
	}
	manager, err := newFlux()
	if err != nil {
		y.t.Fatal(err)
	}
	for _, o := range objects {
		entry, _, _, err := manager.Diff(y.t.Context(), o, ssa.DefaultDiffOptions())
		if err != nil {
			y.t.Fatal(err)
		}
		if entry.Action != ssa.UnchangedAction {
			found = append(found, "Flux: "+o.GetName())
		}
	}
	return found
}

// TestOneToolAfterTheOther hands one application from tool to tool; each has a field manager and marks of its own.
func TestOneToolAfterTheOther(t *testing.T) {
	h := newHouse(t, "handed-on")
	for _, tool := range tools {
		if err := tool.begin(h)(h.app()); err != nil {
			t.Fatalf("%s: %v", tool.name, err)
		}
		h.awaitEnd("contacts", v1alpha1.ReasonComplete, v1alpha1.ReasonAlreadyLoaded)
		h.posts(tool.name, 1)
	}
	h.receipts(1)
}

// TestTimeToLive asserts that a job whose time to live is over goes, and stays where a tool would make it anew; nothing is
// sent a second time either way.
func TestTimeToLive(t *testing.T) {
	helm := tool{name: "helm", owner: "Helm", sync: kubectl("apply"), mark: func(o *unstructured.Unstructured) {
		o.SetAnnotations(map[string]string{"meta.helm.sh/release-name": "contacts", "meta.helm.sh/release-namespace": o.GetNamespace()})
	}}
	for _, tool := range append(slices.Clip(tools), helm) {
		if !slices.Contains([]string{"kubectl-apply", "flux", "argocd-server-side", "helm"}, tool.name) {
			continue // one of each owner
		}
		t.Run(tool.name, func(t *testing.T) {
			h := newHouse(t, "ttl-"+tool.name)
			h.edit(job, "spec:\n", "spec:\n  ttlSecondsAfterFinished: 1\n")
			apply := tool.begin(h)
			for range 2 {
				if err := apply(h.app()); err != nil {
					t.Fatal(err)
				}
				if tool.owner == "" {
					h.awaitGone("contacts")
				}
			}
			if tool.owner != "" {
				h.stays("contacts", tool.owner)
			}
			h.posts("the time to live", 1)
			h.receipts(1)
		})
	}
}

// stays wants that a finished job is there two seconds after its time to live, and says why.
func (h *house) stays(name, owner string) {
	h.t.Helper()
	ended := h.awaitEnd(name, v1alpha1.ReasonComplete)
	if want := "since " + owner + " owns the object"; !strings.Contains(ready(ended).Message, want) {
		h.t.Errorf("the condition says %q, not %q", ready(ended).Message, want)
	}
	ttl := time.Duration(*ended.Spec.TTLSecondsAfterFinished) * time.Second
	time.Sleep(time.Until(ended.Status.CompletionTime.Add(ttl + 2*time.Second)))
	if got := h.get(name); got == nil || got.UID != ended.UID {
		h.t.Errorf("the job was deleted: %v", got)
	}
}
