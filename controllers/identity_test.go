package controllers

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/source"
)

// contactsContent is "contact_id,email\n1,a@example.com\n".
const contactsContent = "sha256:bb2a5c9a88e9738d7bf2029c6f73039eb0dcb0a4e55b648b2d81a1e5d2257fcc"

func contactsJob() v1alpha1.BulkJobSpec {
	return v1alpha1.BulkJobSpec{
		ConnectorRef: v1alpha1.LocalReference{Name: "crm-db"}, Object: "contact",
		Source: v1alpha1.BulkJobSource{ConfigMap: &v1alpha1.KeyReference{Name: "contacts", Key: "sample.csv"}},
	}
}

// The names that algorithm 1 makes, reckoned by another program from the
// algorithm's description. They are on disk in every cluster: they never change.
func TestReceiptNameAlgorithm1(t *testing.T) {
	upsert := contactsJob()
	upsert.Action, upsert.KeyField, upsert.Source.Compression, upsert.SendToken = v1alpha1.ActionUpsert, "contact_id", v1alpha1.CompressionGzip, "2026-03"
	upsert.Parameters = map[string]v1alpha1.ParameterValue{"note": `a<b & "ü"`, "listId": "42"}
	lines := contactsJob()
	lines.Format, lines.Source.Compression = v1alpha1.FormatJSON, v1alpha1.CompressionZstd
	repaired := contactsJob()
	repaired.Source.OmitColumn = "bulkjob_error"
	defaulted := contactsJob()
	defaulted.Action, defaulted.Format, defaulted.Source.Compression = v1alpha1.ActionCreate, v1alpha1.FormatCSV, v1alpha1.CompressionNone
	defaulted.Parameters = map[string]v1alpha1.ParameterValue{}
	for _, test := range []struct {
		reason  string
		spec    v1alpha1.BulkJobSpec
		content string
		want    string
	}{
		{"the least that a job says", contactsJob(), contactsContent, "br-jt6jcpzwvusfqzcyhcdlzpifs5uwvmyemn7lgw3mfdwuhf62rf2q"},
		{"the defaults are the same, said or not", defaulted, contactsContent, "br-jt6jcpzwvusfqzcyhcdlzpifs5uwvmyemn7lgw3mfdwuhf62rf2q"},
		{"all that a job can say", upsert, contactsContent, "br-dmx42a2lnwf4ndl3bbwnfgumjflu7kmstejeaevfkkeew7p5c5aa"},
		{"a repair file, whose reasons are not sent", repaired, contactsContent, "br-6pedelv7jjrcy3e2vqlxw3hni2klsnwjr7ao2xhx4mdnwhidotea"},
		{"another format, and an object's version", lines, "s3:version-7", "br-awaehelz46hkv2uvnurxv6pu5tk3vgffxvhlz47scpbrzrrmtyna"},
	} {
		t.Run(test.reason, func(t *testing.T) {
			identity := identityOf(&test.spec, "crm-production", test.content)
			if got := receiptName(&identity); got != test.want {
				t.Errorf("receipt %s, want %s", got, test.want)
			}
			if identity.Algorithm != 1 {
				t.Errorf("algorithm %d: a new one needs vectors of its own, and must look up the names of this one", identity.Algorithm)
			}
		})
	}
}

// The hashes are in the statuses of every cluster: if one changes, its job reads its source again.
func TestBindingHashAlgorithm1(t *testing.T) {
	secret := contactsJob()
	secret.Source = v1alpha1.BulkJobSource{Secret: &v1alpha1.KeyReference{Name: "contacts", Key: "sample.csv"}, Compression: v1alpha1.CompressionGzip}
	secret.Action, secret.KeyField, secret.SendToken = v1alpha1.ActionUpsert, "contact_id", "2026-03"
	secret.Parameters = map[string]v1alpha1.ParameterValue{"note": `a<b & "ü"`, "listId": "42"}
	store := contactsJob()
	store.Format = v1alpha1.FormatJSON
	store.Source = v1alpha1.BulkJobSource{ObjectStore: &v1alpha1.ObjectStoreSource{
		URL: "s3://bucket/contacts.csv", Endpoint: "https://minio.example.com", Region: "eu-1", VersionID: "7",
	}}
	for _, test := range []struct {
		reason string
		spec   v1alpha1.BulkJobSpec
		want   string
	}{
		{"a ConfigMap", contactsJob(), "b16937117a0acff8052cbab39acb74f6ce50125fa9f713758f6be1364bbe5846"},
		{"a Secret", secret, "611cabd4da09b10e912d68985be79793c006ed5853a7df583aff35f1d255e1a4"},
		{"an object store", store, "764b64992799a0277842d089a04acdf69b7dd767a68837d6eac58e036d8a4653"},
	} {
		t.Run(test.reason, func(t *testing.T) {
			if got := bindingHash(&test.spec); got != test.want {
				t.Errorf("binding hash %s, want %s", got, test.want)
			}
		})
	}
}

// role is what a field of a job's spec does to its load.
type role string

const (
	ofTheLoad  role = "of the load"     // other rows, elsewhere or otherwise: another load, and bound anew
	aReference role = "a reference"     // where to find what: bound anew, and the same load if the same is found there
	beside     role = "beside the load" // may change at any time, and nothing is sent
)

// rolesOfFields has every field of a job's spec. A field that is added to the
// spec must be given its role here: that decides whether changing it sends data again.
var rolesOfFields = map[string]role{
	"ConnectorRef.Name":                      aReference,
	"Object":                                 ofTheLoad,
	"Source.ConfigMap.Name":                  aReference,
	"Source.ConfigMap.Key":                   aReference,
	"Source.Secret.Name":                     aReference,
	"Source.Secret.Key":                      aReference,
	"Source.ObjectStore.URL":                 aReference,
	"Source.ObjectStore.Endpoint":            aReference,
	"Source.ObjectStore.Region":              aReference,
	"Source.ObjectStore.VersionID":           aReference,
	"Source.ObjectStore.CredentialsRef.Name": beside,
	"Source.SHA256":                          beside,
	"Source.Compression":                     ofTheLoad,
	"Source.OmitColumn":                      ofTheLoad,
	"Format":                                 ofTheLoad,
	"Action":                                 ofTheLoad,
	"KeyField":                               ofTheLoad,
	"Parameters":                             ofTheLoad,
	"BatchSize":                              beside,
	"Path":                                   beside,
	"MaxFailedRows":                          beside,
	"ObjectCheck":                            beside,
	"DuplicatePolicy":                        beside,
	"SendToken":                              ofTheLoad,
	"BackoffLimit":                           beside,
	"ActiveDeadlineSeconds":                  beside,
	"TTLSecondsAfterFinished":                beside,
	"Suspend":                                beside,
	"Cancel":                                 beside,
	"DeletionPolicy":                         beside,
	"OnUnknown":                              beside,
	"Split.MaxBytes":                         beside,
	"Split.MaxRows":                          beside,
	"Split.GroupBy":                          beside,
	"Split.Parallelism":                      beside,
	"Split.OnFailure":                        beside,
	"Canary.Rows":                            beside,
	"Canary.MaxFailedRows":                   beside,
	"DryRun":                                 beside,
	"Report.ConfigMap.Name":                  beside,
	"Report.ObjectStore.URL":                 beside,
	"Report.ObjectStore.Endpoint":            beside,
	"Report.ObjectStore.Region":              beside,
	"Report.ObjectStore.CredentialsRef.Name": beside,
	"Report.RepairFile":                      beside,
	"Resolve.Attempt":                        beside,
	"Resolve.Action":                         beside,
	"Resolve.JobID":                          beside,
}

// fieldsOf are the paths of the fields of a type that have a value of their own.
func fieldsOf(kind reflect.Type, path string) []string {
	if kind.Kind() == reflect.Pointer {
		kind = kind.Elem()
	}
	if kind.Kind() != reflect.Struct || kind == reflect.TypeFor[intstr.IntOrString]() {
		return []string{strings.TrimPrefix(path, ".")}
	}
	var fields []string
	for field := range kind.Fields() {
		fields = append(fields, fieldsOf(field.Type, path+"."+field.Name)...)
	}
	return fields
}

// setField gives the field at a path another value than it had.
func setField(t *testing.T, structure any, path string) {
	t.Helper()
	v := reflect.ValueOf(structure).Elem()
	for name := range strings.SplitSeq(path, ".") {
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		}
		v = v.FieldByName(name)
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	switch v.Interface().(type) {
	case intstr.IntOrString:
		v.Set(reflect.ValueOf(intstr.FromString("7%")))
		return
	case map[string]v1alpha1.ParameterValue:
		v.Set(reflect.ValueOf(map[string]v1alpha1.ParameterValue{"listId": "43"}))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int32, reflect.Int64:
		v.SetInt(v.Int() + 7)
	default:
		t.Fatalf("cannot change %s, a %s: teach this test how", path, v.Kind())
	}
}

// before is a spec that has the parts which a path leads through.
func before(path string) v1alpha1.BulkJobSpec {
	spec := contactsJob()
	switch {
	case strings.HasPrefix(path, "Source.Secret."):
		spec.Source = v1alpha1.BulkJobSource{Secret: &v1alpha1.KeyReference{Name: "contacts", Key: "sample.csv"}}
	case strings.HasPrefix(path, "Source.ObjectStore."):
		spec.Source = v1alpha1.BulkJobSource{ObjectStore: &v1alpha1.ObjectStoreSource{URL: "s3://bucket/contacts.csv"}}
	}
	return spec
}

func TestEachFieldHasItsRole(t *testing.T) {
	fields := fieldsOf(reflect.TypeFor[v1alpha1.BulkJobSpec](), "")
	for path := range maps.Keys(rolesOfFields) {
		if !slices.Contains(fields, path) {
			t.Errorf("%s is no field of a job's spec any more", path)
		}
	}
	for _, path := range fields {
		t.Run(path, func(t *testing.T) {
			role, ok := rolesOfFields[path]
			if !ok {
				t.Fatalf("the field %s has no role: does changing it make another load?", path)
			}
			old, changed := before(path), before(path)
			setField(t, &changed, path)
			oldIdentity, identity := identityOf(&old, "crm-production", contactsContent), identityOf(&changed, "crm-production", contactsContent)
			if another := receiptName(&identity) != receiptName(&oldIdentity); another != (role == ofTheLoad) {
				t.Errorf("%s is %s; changing it makes another load: %v", path, role, another)
			}
			if anew := bindingHash(&changed) != bindingHash(&old); anew != (role != beside) {
				t.Errorf("%s is %s; changing it binds the job anew: %v", path, role, anew)
			}
		})
	}
}

func TestEachPartOfAnIdentityMatters(t *testing.T) {
	spec := contactsJob()
	identity := identityOf(&spec, "crm-production", contactsContent)
	for _, path := range fieldsOf(reflect.TypeFor[v1alpha1.BulkReceiptSpec](), "") {
		changed := *identity.DeepCopy()
		setField(t, &changed, path)
		if receiptName(&changed) == receiptName(&identity) {
			t.Errorf("%s is part of an identity, and the receipt's name does not tell", path)
		}
	}
}

// The name of a job is not asked for anywhere: two jobs with one spec name one load.
func TestReceiptNameForm(t *testing.T) {
	spec := contactsJob()
	identity := identityOf(&spec, "crm-production", contactsContent)
	if name := receiptName(&identity); !regexp.MustCompile(`^br-[a-z2-7]{52}$`).MatchString(name) {
		t.Errorf("the API refuses the name %s", name)
	}
}

func TestNoTwoTuplesAreOne(t *testing.T) {
	sum := func(tuples ...[]string) string {
		h := sha256.New()
		for _, tuple := range tuples {
			writeTuple(h, tuple...)
		}
		return hex.EncodeToString(h.Sum(nil))
	}
	eight := string([]byte{0, 0, 0, 0, 0, 0, 0, 0})
	tuples := map[string][][]string{
		"ab c":               {{"ab", "c"}},
		"a bc":               {{"a", "bc"}},
		"abc":                {{"abc"}},
		"abc nothing":        {{"abc", ""}},
		"nothing abc":        {{"", "abc"}},
		"nothing":            {{}},
		"one empty":          {{""}},
		"two empty":          {{"", ""}},
		"zeros":              {{eight}},
		"zeros and nothing":  {{eight, ""}},
		"two tuples":         {{"a"}, {"b"}},
		"one tuple of two":   {{"a", "b"}},
		"the other way":      {{"b"}, {"a"}},
		"an empty one first": {{}, {"a", "b"}},
	}
	seen := map[string]string{}
	for reason, tuple := range tuples {
		s := sum(tuple...)
		if other, ok := seen[s]; ok {
			t.Errorf("%q and %q are one", reason, other)
		}
		seen[s] = reason
	}
	for _, test := range []struct {
		reason string
		a, b   func(*v1alpha1.BulkReceiptSpec)
	}{
		{
			"a letter that moves to the next field", func(i *v1alpha1.BulkReceiptSpec) { i.Target, i.Object = "crm", "contact" },
			func(i *v1alpha1.BulkReceiptSpec) { i.Target, i.Object = "crmc", "ontact" },
		},
		{
			"a key field that becomes a token", func(i *v1alpha1.BulkReceiptSpec) { i.KeyField = "id" },
			func(i *v1alpha1.BulkReceiptSpec) { i.SendToken = "id" },
		},
		{
			"parameters that hold each other's marks", func(i *v1alpha1.BulkReceiptSpec) {
				i.Parameters = map[string]v1alpha1.ParameterValue{"a": `1","b":"2`}
			},
			func(i *v1alpha1.BulkReceiptSpec) {
				i.Parameters = map[string]v1alpha1.ParameterValue{"a": "1", "b": "2"}
			},
		},
		{
			"a parameter without a value, and none", func(i *v1alpha1.BulkReceiptSpec) { i.Parameters = map[string]v1alpha1.ParameterValue{"a": ""} },
			func(*v1alpha1.BulkReceiptSpec) {},
		},
	} {
		a, b := v1alpha1.BulkReceiptSpec{Algorithm: 1}, v1alpha1.BulkReceiptSpec{Algorithm: 1}
		test.a(&a)
		test.b(&b)
		if receiptName(&a) == receiptName(&b) {
			t.Errorf("%s makes the same load", test.reason)
		}
	}
}

func TestOrderOfParametersIsNothing(t *testing.T) {
	forward, backward := contactsJob(), contactsJob()
	forward.Parameters, backward.Parameters = map[string]v1alpha1.ParameterValue{}, map[string]v1alpha1.ParameterValue{}
	for i := range 20 {
		forward.Parameters[string(rune('a'+i))] = "v"
		backward.Parameters[string(rune('a'+19-i))] = "v"
	}
	for range 20 { // maps are walked in another order each time
		a, b := identityOf(&forward, "crm", contactsContent), identityOf(&backward, "crm", contactsContent)
		if receiptName(&a) != receiptName(&b) || bindingHash(&forward) != bindingHash(&backward) {
			t.Fatal("the same parameters, and another load")
		}
	}
}

// The name of a Secret's load depends on its content, and nothing else in the receipt does.
func TestNoDigestOfASecret(t *testing.T) {
	secret := contactsJob()
	secret.Source = v1alpha1.BulkJobSource{Secret: &v1alpha1.KeyReference{Name: "contacts", Key: "sample.csv"}}
	claim := func(content string, sensitive bool) *v1alpha1.BulkReceipt {
		c := &consignment{
			job: &v1alpha1.BulkJob{Spec: secret}, connector: &v1alpha1.ConnectorInstance{}, connection: &connection{fingerprint: hereInstance},
			pinned: &source.Pinned{Content: content, SHA256: strings.TrimPrefix(content, "sha256:"), Sensitive: sensitive},
		}
		c.identity = identityOf(&secret, "crm-production", content)
		c.receipt = receiptName(&c.identity)
		s := &operator{process: newProcess(), now: func() time.Time { return noon }}
		return s.claimed(c, nil, "nonce")
	}
	receipt, other, open := claim(contactsContent, true), claim("sha256:other", true), claim(contactsContent, false)
	if receipt.Name == other.Name {
		t.Error("other content, and the same load")
	}
	if receipt.Name != open.Name {
		t.Error("the same content in a Secret and not: another load")
	}
	text, err := json.Marshal(receipt)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), strings.TrimPrefix(contactsContent, "sha256:")) {
		t.Errorf("the receipt shows the digest of a Secret: %s", text)
	}
	if open.Spec.Content != contactsContent {
		t.Errorf("the receipt of what is no secret has the content %q", open.Spec.Content)
	}
}

func TestUnsigned(t *testing.T) {
	cases := []struct{ reason, url, want string }{
		{"a signature of S3's, and a version", "https://b.s3.amazonaws.com/c.csv?X-Amz-Signature=1&X-Amz-Date=2&versionId=3", "https://b.s3.amazonaws.com/c.csv?versionId=3"},
		{"of Azure's", "https://a.blob.core.windows.net/c/d.csv?sv=1&sig=2&se=3&sp=r", "https://a.blob.core.windows.net/c/d.csv"},
		{"of Google's", "https://storage.googleapis.com/b/c.csv?X-Goog-Signature=1&generation=7", "https://storage.googleapis.com/b/c.csv?generation=7"},
		{"what else a query says is part of the reference", "https://host/export?id=1", "https://host/export?id=1"},
		{"elsewhere everything is literal", "s3://bucket/a?sig=1", "s3://bucket/a?sig=1"},
	}
	for _, tc := range cases {
		if got := unsigned(tc.url); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.reason, got, tc.want)
		}
	}
}
