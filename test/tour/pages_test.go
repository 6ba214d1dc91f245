package tour_test

import (
	"context"
	"strings"
	"testing"
)

// plainTable has the columns that the pages speak of, but for those of the samples.
const plainTable = `create table contact (email text primary key, last_name text not null, account_id text)`

// signatureKey of the endpoints.
const signatureKey = "the key that signs callbacks"

// furnished makes a connector, and lets the operator write reports.
const furnished = `
kubectl create secret generic crm-db --from-literal=element=%[2]s --from-literal=user=%[3]s --from-literal=signatureKey='` + signatureKey + `'
kubectl label secret crm-db bulkjob.dev/use=credentials
kubectl apply -f - <<'END'
apiVersion: bulkjob.dev/v1alpha1
kind: ConnectorInstance
metadata: {name: crm-db}
spec: {baseURL: %[4]q, credentialsRef: {name: crm-db}, rowNumbers: FromOne}
END
kubectl kustomize config/report/team | sed 's/team-a/%[1]s/' | kubectl apply --server-side -f -
kubectl wait --for=condition=Ready --timeout=1m ci/crm-db
`

// Files that the pages take for granted. In the bad one 137 rows lack a last name.
const files = `
cd "$FILES"
printf 'email,last_name,account_id\nada@%s,Lovelace,1\nedith@%s,Clarke,1\n' "$PAGE.example.com" "$PAGE.example.com" >contacts.csv
printf 'email,last_name,account_id\ngrace@%s,Hopper,2\n' "$PAGE.example.com" | gzip >people.csv.gz
{ echo email,last_name; for i in $(seq 137); do echo "member$i@$PAGE.example.com,"; done; echo "joan@$PAGE.example.com,Clarke"; } >bad.csv
`

// badContacts is the job that the pages about failed rows speak of.
const badContacts = `
kubectl bulkjob send bad.csv --connector crm-db --object contact --name contacts --report failed-contacts --wait || test $? = 68
`

// pages are those, but for the tour's, whose commands are typed: the blocks that begin like that, in a namespace of their own.
var pages = []struct {
	reason, page, begins string
	blocks               int    // of a console: commands
	samples              bool   // the connector leads to the table of the samples, and the samples are loaded
	before               string // typed first; without it there is nothing in the namespace
	within               []edit
	terminal             bool // what it shows is seen in a terminal only
}{
	{reason: "what the README shows is there to be seen", page: "README.md", begins: "kubectl get bj,ci,br", blocks: 1, samples: true, before: "true\n"},
	{reason: "keys", page: "README.md", begins: "kubectl create secret", blocks: 1},
	{reason: "keys", page: "docs/connectorinstance.md", begins: "kubectl create secret", blocks: 1},
	{reason: "keys", page: "docs/sources.md", begins: "kubectl create secret", blocks: 1},
	{reason: "keys", page: "docs/callbacks.md", begins: "kubectl create secret", blocks: 1},
	{reason: "a dashboard", page: "docs/dashboards.md", begins: "kubectl apply -k", blocks: 1},
	{
		reason: "callbacks have come", page: "docs/callbacks.md", begins: "kubectl get bulkreceipts", blocks: 1,
		before: files + `
kubectl patch ci crm-db --type=merge --patch='{"spec": {"callback": {"signatureKeyRef": {"name": "crm-db", "key": "signatureKey"}}}}'
kubectl bulkjob send contacts.csv --connector crm-db --object contact --wait
`,
	},
	{reason: "ten rows, two of them with one key", page: "docs/dry-run.md", begins: "kubectl get bj", blocks: 2, before: files + planned},
	{reason: "a report", page: "docs/reports.md", begins: "kubectl get bj", blocks: 1, before: files + badContacts},
	{
		reason: "parts", page: "docs/parts.md", begins: "kubectl get bj", blocks: 1,
		before: files + "kubectl bulkjob send contacts.csv --connector crm-db --object contact --name contacts --split-rows 1 --wait\n",
	},
	{
		reason: "the plugin", page: "docs/kubectl.md", begins: "kubectl bulkjob", blocks: 5, terminal: true,
		before: files + "kubectl bulkjob send contacts.csv --connector crm-db --object contact --wait\n",
		within: []edit{
			{at: "kubectl bulkjob plan contacts\n", typed: "kubectl bulkjob send contacts.csv --connector crm-db --object contact --name contacts --wait\n"},
			{at: "kubectl bulkjob errors contacts ", typed: "kubectl delete bj contacts\n" + badContacts},
			{at: "kubectl bulkjob repair contacts --send ", typed: "sed -i.bak 's/example.com,,/example.com,Hopper,/' contacts-repair.csv\n"}, // "Correct the rows"
		},
	},
	{
		reason: "an image, and the operator", page: "README.md", begins: "make docker-build", blocks: 1,
		before: "cd \"$ROOT\"\n",
	},
}

// An edit is what is typed before a line, because the page says so in words, or takes it for granted.
type edit struct{ at, typed string }

// planned makes what docs/dry-run.md shows: after a first load the rate is known.
const planned = `
kubectl bulkjob send contacts.csv --connector crm-db --object contact --wait
{ echo email,last_name; for i in $(seq 9); do echo "member$i@example.com,Member $i"; done; echo member9@example.com,Nine; } >planned.csv
kubectl create configmap contacts --from-file=contacts.csv=planned.csv
{ printf 'apiVersion: bulkjob.dev/v1alpha1\nkind: BulkJob\nmetadata: {name: contacts}\n'; sed -n '/^spec:/,/^` + "```" + `/{/^` + "```" + `/d;p;}' "$ROOT/docs/dry-run.md"; } | kubectl apply -f -
kubectl wait --for=condition=Ready --timeout=1m bj/contacts
`

// outsiders are programs that the pages call and that reach beyond this machine. What they are asked to do is written down instead.
var outsiders = []string{"docker", "gh"}

// TestPages types what the pages tell to, in a real cluster with the operator and the endpoint, and compares what it shows.
func TestPages(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	h := open(ctx, t)
	for i, p := range pages {
		t.Run(strings.ReplaceAll(p.page+" "+p.begins, "/", " "), func(t *testing.T) {
			var all []step
			for _, s := range steps(t, p.page) {
				if !strings.HasPrefix(strings.TrimSpace(s.typed), p.begins) {
					continue
				}
				for _, e := range p.within {
					s.typed = strings.Replace(s.typed, e.at, e.typed+e.at, 1)
				}
				all = append(all, s)
			}
			if len(all) != p.blocks {
				t.Errorf("%d blocks begin with %q, and not %d", len(all), p.begins, p.blocks)
			}
			printed := typed(ctx, t, h.prepare(t, i, p.samples, p.before), all)
			for i, s := range all {
				if line := unlike(s.shown, printed[i]); line != "" && !p.terminal {
					t.Errorf("%s: this did not print %q:\n%s\nbut:\n%s", p.reason, line, s.typed, printed[i])
				}
			}
		})
	}
	h.asked(t)
}
