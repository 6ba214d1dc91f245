package controllers

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"hash"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"bulkjob.dev/operator/api/v1alpha1"
)

// identityAlgorithm is the version of the way in which a load's identity
// becomes the name of its receipt. A new version must also look up the names
// that the earlier ones made, before it claims.
const identityAlgorithm = 1

// receiptPrefix is what the names of receipts begin with.
const receiptPrefix = "br-"

var receiptEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// identityOf is what makes two loads the same load: everything that decides
// which rows end up where, and nothing else. content is the source's, such as
// "sha256:…".
func identityOf(spec *v1alpha1.BulkJobSpec, target, content string) v1alpha1.BulkReceiptSpec {
	return v1alpha1.BulkReceiptSpec{
		Algorithm:   identityAlgorithm,
		Target:      target,
		Object:      spec.Object,
		Action:      orDefault(spec.Action, v1alpha1.ActionCreate),
		KeyField:    spec.KeyField,
		Format:      orDefault(spec.Format, v1alpha1.FormatCSV),
		Compression: orDefault(spec.Source.Compression, v1alpha1.CompressionNone),
		Parameters:  spec.Parameters,
		Content:     content,
		OmitColumn:  spec.Source.OmitColumn,
		SendToken:   spec.SendToken,
	}
}

// receiptName is the name of the receipt of an identity: "br-" and the base32 of a SHA-256.
func receiptName(identity *v1alpha1.BulkReceiptSpec) string {
	if part := identity.Part; part != nil {
		return partName(part.Of, part.Number)
	}
	h := sha256.New()
	writeTuple(h,
		strconv.Itoa(int(identity.Algorithm)), identity.Target, identity.Object, string(identity.Action),
		identity.KeyField, string(identity.Format), string(identity.Compression),
		canonicalParameters(identity.Parameters), identity.Content, identity.SendToken,
	)
	writeOptions(h, identity)
	return nameOfDigest(h)
}

// partName is the name of the receipt of a part. It is made of the whole's name and the number and nothing else: what a part is
// stays the same whatever is said of it later.
func partName(whole string, number int32) string {
	h := sha256.New()
	writeTuple(h, "part", whole, strconv.Itoa(int(number)))
	return nameOfDigest(h)
}

func nameOfDigest(h hash.Hash) string {
	return receiptPrefix + strings.ToLower(receiptEncoding.EncodeToString(h.Sum(nil)))
}

// wholeName is the name of the receipt that jobs are bound to: the whole load's, also for a part of it.
func wholeName(receipt *v1alpha1.BulkReceipt) string {
	if part := receipt.Spec.Part; part != nil {
		return part.Of
	}
	return receipt.Name
}

// writeOptions writes what an identity may have, and mostly has not: without it, the digest stays what it was before there was any.
func writeOptions(h hash.Hash, identity *v1alpha1.BulkReceiptSpec) {
	if identity.OmitColumn != "" {
		writeTuple(h, "omitColumn", identity.OmitColumn)
	}
}

// bindingHash is a digest of the fields of a spec that name a load, references
// instead of content. While it stays the same, a job stays with its receipt and
// its source is not read again.
func bindingHash(spec *v1alpha1.BulkJobSpec) string {
	h := sha256.New()
	identity := identityOf(spec, spec.ConnectorRef.Name, "")
	writeTuple(h,
		strconv.Itoa(identityAlgorithm), identity.Target, identity.Object, string(identity.Action),
		identity.KeyField, string(identity.Format), string(identity.Compression),
		canonicalParameters(identity.Parameters), identity.SendToken,
	)
	writeOptions(h, &identity)
	writeTuple(h, sourceReference(&spec.Source)...)
	return hex.EncodeToString(h.Sum(nil))
}

func sourceReference(source *v1alpha1.BulkJobSource) []string {
	switch {
	case source.ConfigMap != nil:
		return []string{"configMap", source.ConfigMap.Name, source.ConfigMap.Key}
	case source.Secret != nil:
		return []string{"secret", source.Secret.Name, source.Secret.Key}
	case source.ObjectStore != nil:
		store := source.ObjectStore
		return []string{"objectStore", unsigned(store.URL), store.Endpoint, store.Region, store.VersionID}
	default:
		return []string{"none"}
	}
}

// signatures are the parameters of pre-signed URLs that say who may read, and until when, not what; in lower case.
var signatures = regexp.MustCompile(`^(x-amz-.*|x-goog-.*|awsaccesskeyid|googleaccessid|signature|expires|key-pair-id|policy|` +
	`sig|se|st|sp|sv|sr|ss|srt|sip|spr|skoid|sktid|skt|ske|sks|skv)$`)

// unsigned is a pre-signed URL without its signature: one that is signed anew is the same reference.
func unsigned(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" {
		return text // in other stores' URLs everything is literal
	}
	query := u.Query()
	for name := range query {
		if signatures.MatchString(strings.ToLower(name)) {
			query.Del(name)
		}
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// canonicalParameters is JSON with sorted keys, so that one set of parameters has one form.
func canonicalParameters(parameters map[string]v1alpha1.ParameterValue) string {
	if len(parameters) == 0 {
		return "{}"
	}
	text, err := json.Marshal(parameters)
	if err != nil {
		panic(err) // a map of strings always has a JSON form
	}
	return string(text)
}

// writeTuple writes each element behind its length, so that no two tuples run together to the same bytes.
func writeTuple(h hash.Hash, elements ...string) {
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(elements)))
	h.Write(length[:])
	for _, e := range elements {
		binary.BigEndian.PutUint64(length[:], uint64(len(e)))
		h.Write(length[:])
		h.Write([]byte(e))
	}
}

func orDefault[T ~string](value, fallback T) T {
	if value == "" {
		return fallback
	}
	return value
}
