package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
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
	manager, err := w.startManager(ctx, namespace)
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
	w.sayf("%d jobs that are %s, with their receipts, were put in place in %.1f s", n, m.object, time.Since(began).Seconds())
	return nil
}

// pair is one more job like the model's, with its receipt. What the two say of each other fits, so nothing is to be done for them.
func (m *model) pair() ([]etcdPut, error) {
	number := rand.Uint64() //nolint:gosec // a name, no secret
	name, uid, receipt := fmt.Sprintf("%s-%016x", m.object, number), string(uuid.NewUUID()), receiptName()
	jobID := tellerID(m.object, 1, int(number>>2)) //nolint:gosec // as above
	sent := time.Now().Add(-time.Duration(rand.Int64N(int64(seedAge)))).UTC().Format(time.RFC3339)
	job := with(m.job, map[string]map[string]any{
		"metadata": {"name": name, "uid": uid, "creationTimestamp": sent},
		"status":   {"receipt": receipt, "jobID": jobID, "startTime": sent, "submitTime": sent},
	})
	record := with(m.receipt, map[string]map[string]any{
		"metadata": {"name": receipt, "uid": string(uuid.NewUUID()), "creationTimestamp": sent},
		"record":   {"jobID": jobID, "submitTime": sent, "claimedFor": map[string]any{"name": name, "uid": uid}},
	})
	one, err := newPut(registryKey("bulkjobs", m.namespace, name), job)
	if err != nil {
		return nil, err
	}
	other, err := newPut(registryKey("bulkreceipts", m.namespace, receipt), record)
	return []etcdPut{one, other}, err
}

// with is a copy of an object with some fields changed, one level down; what isn't changed is shared.
func with(object map[string]any, changes map[string]map[string]any) map[string]any {
	copied := map[string]any{}
	for key, value := range object {
		copied[key] = value
	}
	for part, fields := range changes {
		changed := map[string]any{}
		if old, ok := object[part].(map[string]any); ok {
			for key, value := range old {
				changed[key] = value
			}
		}
		for key, value := range fields {
			changed[key] = value
		}
		copied[part] = changed
	}
	return copied
}

// etcdPut is one write, in the form of etcd's JSON gateway.
type etcdPut struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
}

func newPut(key string, object map[string]any) (etcdPut, error) {
	text, err := json.Marshal(object)
	return etcdPut{[]byte(key), text}, err
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
