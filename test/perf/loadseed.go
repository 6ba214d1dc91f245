package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/uuid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

const (
	seedBatch   = 60 // pairs of a job and its receipt; etcd takes 128 writes at once
	seedWorkers = 4
	seedAge     = time.Hour // of the oldest load
	maxStored   = 4 << 20   // bytes of etcd's answer
)

// A model is a job with its receipt as the operator has left them, in the form in which etcd holds them.
type model struct {
	namespace    string
	object       string // of the copies
	job, receipt map[string]any
}

// models has the operator bring one load to running and one to its end, in a namespace that has a house.
func (w *world) models(ctx context.Context, namespace string) (running, ended *model, err error) {
	manager, err := w.startManager(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = manager.Stop(stopPatience) }()
	if err := w.connected(ctx, namespace); err != nil {
		return nil, nil, err
	}
	if running, err = w.model(ctx, namespace, endlessObject, func(s *v1alpha1.BulkJobStatus) bool { return s.State == "RUNNING" }); err != nil {
		return nil, nil, err
	}
	ended, err = w.model(ctx, namespace, instantObject, func(s *v1alpha1.BulkJobStatus) bool { return s.CompletionTime != nil })
	if err == nil {
		ended.object = endedObject
	}
	return running, ended, err
}

func (w *world) model(ctx context.Context, namespace, object string, there func(*v1alpha1.BulkJobStatus) bool) (*model, error) {
	j := job(namespace, "model-"+object, object)
	j.Spec.SendToken = object // all copies have it, since they are bound by it
	if err := w.user.Create(ctx, j); err != nil {
		return nil, err
	}
	err := w.await(ctx, time.Minute, "the model for "+object+" is as it should be", func() (bool, error) {
		err := w.user.Get(ctx, client.ObjectKeyFromObject(j), j)
		return there(&j.Status), err
	})
	if err != nil {
		return nil, err
	}
	m := &model{namespace: namespace, object: object}
	if m.job, err = w.stored(ctx, registryKey("bulkjobs", namespace, j.Name)); err != nil {
		return nil, err
	}
	m.receipt, err = w.stored(ctx, registryKey("bulkreceipts", namespace, j.Status.Receipt))
	return m, err
}

func registryKey(resource, namespace, name string) string {
	return "/registry/bulkjob.dev/" + resource + "/" + namespace + "/" + name
}

// seed makes n pairs like the model, as if the operator had, at other times. They go straight into etcd: through the API
// server each would be three writes, and a benchmark would do little else for a quarter of an hour.
func (w *world) seed(ctx context.Context, m *model, n int) error {
	began := time.Now()
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(seedWorkers)
	for first := 0; first < n; first += seedBatch {
		group.Go(func() error {
			var puts []etcdPut
			for range min(seedBatch, n-first) {
				pair, err := m.pair()
				if err != nil {
					return err
				}
				puts = append(puts, pair...)
			}
			return w.put(inner, puts)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	wrote := time.Since(began)
	err := w.digested(ctx)
	w.sayf("%d jobs that are %s, with their receipts, were put in place in %.1f s, and digested in %.1f s", n, m.object,
		wrote.Seconds(), (time.Since(began) - wrote).Seconds())
	return err
}

// digested waits until the API server has taken into its cache what etcd was given, and is at rest.
func (w *world) digested(ctx context.Context) error {
	return w.await(ctx, 5*time.Minute, "the API server rests", func() (bool, error) {
		before := childrenUsage()
		time.Sleep(2 * time.Second)
		return childrenUsage()["kube-apiserver"]-before["kube-apiserver"] < 400*time.Millisecond, nil
	})
}

// pair is one more job like the model's, with its receipt. What the two say of each other fits, down to the words of their
// conditions, so nothing is to be done for them.
func (m *model) pair() ([]etcdPut, error) {
	number := rand.Int64() //nolint:gosec // a name, no secret
	name, receipt := fmt.Sprintf("%s-%016x", m.object, number), receiptName()
	names := strings.NewReplacer(
		text(m.job, "metadata", "name"), name,
		text(m.job, "metadata", "uid"), string(uuid.NewUUID()),
		text(m.receipt, "metadata", "name"), receipt,
		text(m.receipt, "metadata", "uid"), string(uuid.NewUUID()),
		text(m.receipt, "record", "jobID"), tellerID(m.object, 1, int(number)),
	)
	sent := time.Now().Add(-time.Duration(rand.Int64N(int64(seedAge)))).UTC().Format(time.RFC3339) //nolint:gosec // as above
	one, err := newPut(names, registryKey("bulkjobs", m.namespace, name), with(m.job, map[string]map[string]any{
		"metadata": {"creationTimestamp": sent}, "status": {"startTime": sent, "submitTime": sent},
	}))
	if err != nil {
		return nil, err
	}
	other, err := newPut(names, registryKey("bulkreceipts", m.namespace, receipt), with(m.receipt, map[string]map[string]any{
		"metadata": {"creationTimestamp": sent}, "record": {"submitTime": sent},
	}))
	return []etcdPut{one, other}, err
}

// text is a field of an object.
func text(object map[string]any, part, name string) string {
	fields, _ := object[part].(map[string]any)
	value, _ := fields[name].(string)
	return value
}

// with is a copy of an object with some fields changed, one level down; what isn't changed is shared.
func with(object map[string]any, changes map[string]map[string]any) map[string]any {
	copied := maps.Clone(object)
	for part, fields := range changes {
		old, _ := object[part].(map[string]any)
		changed := maps.Clone(old)
		maps.Copy(changed, fields)
		copied[part] = changed
	}
	return copied
}

// etcdPut is one write, in the form of etcd's JSON gateway.
type etcdPut struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
}

// newPut is for an object in which names are others.
func newPut(names *strings.Replacer, key string, object map[string]any) (etcdPut, error) {
	value, err := json.Marshal(object)
	return etcdPut{[]byte(key), []byte(names.Replace(string(value)))}, err
}

func (w *world) put(ctx context.Context, puts []etcdPut) error {
	type operation struct {
		Put etcdPut `json:"requestPut"`
	}
	operations := make([]operation, len(puts))
	for i := range puts {
		operations[i].Put = puts[i]
	}
	return w.askEtcd(ctx, "/v3/kv/txn", map[string]any{"success": operations}, &struct{}{})
}

// stored is an object as etcd holds it.
func (w *world) stored(ctx context.Context, key string) (map[string]any, error) {
	var found struct {
		Values []struct {
			Value string `json:"value"`
		} `json:"kvs"`
	}
	if err := w.askEtcd(ctx, "/v3/kv/range", map[string]any{"key": []byte(key)}, &found); err != nil {
		return nil, err
	}
	if len(found.Values) != 1 {
		return nil, fmt.Errorf("cannot find %s in etcd", key)
	}
	text, err := base64.StdEncoding.DecodeString(found.Values[0].Value)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", key, err)
	}
	numbers := json.NewDecoder(bytes.NewReader(text))
	numbers.UseNumber()
	var object map[string]any
	if err := numbers.Decode(&object); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", key, err)
	}
	return object, nil
}

func (w *world) askEtcd(ctx context.Context, path string, question, answer any) error {
	text, err := json.Marshal(question)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.Etcd()+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	got, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("cannot ask etcd: %w", err)
	}
	defer got.Body.Close()
	body, err := io.ReadAll(io.LimitReader(got.Body, maxStored))
	if err != nil {
		return fmt.Errorf("cannot read etcd's answer: %w", err)
	}
	if got.StatusCode != http.StatusOK {
		return fmt.Errorf("cannot ask etcd: %s: %s", got.Status, strconv.Quote(string(body[:min(len(body), 200)])))
	}
	return json.Unmarshal(body, answer)
}
