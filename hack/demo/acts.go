package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/test/stage"
)

// load applies the samples, and shows the job's states as they pass.
func (s *show) load(ctx context.Context) error {
	if _, err := s.kubectl(ctx, "create", "namespace", namespace); err != nil {
		return err
	}
	if err := s.cluster.Use(namespace); err != nil {
		return err
	}
	sayf("Applying config/samples, with the address and the keys of this endpoint")
	if err := s.apply(ctx, ""); err != nil {
		return err
	}
	sayf("The states as they pass")
	if _, err := s.watch(ctx, job, v1alpha1.ReasonComplete); err != nil {
		return err
	}
	return s.print(ctx, "get", "bj,ci,br")
}

// once does what a GitOps tool does all day, and counts what the endpoint got of it.
func (s *show) once(ctx context.Context) error {
	sayf("Applying the same again")
	if err := s.apply(ctx, ""); err != nil {
		return err
	}
	for _, what := range []string{"Applying the same under another name", "Deleting that one, and applying it anew"} {
		sayf("%s", what)
		if _, err := s.kubectl(ctx, "delete", "bulkjob", renamed, "--ignore-not-found"); err != nil {
			return err
		}
		if err := s.apply(ctx, renamed); err != nil {
			return err
		}
		done, err := s.watch(ctx, renamed, v1alpha1.ReasonAlreadyLoaded)
		if err != nil {
			return err
		}
		fmt.Println(ready(done).Message)
	}
	posts, err := s.endpoint.Posts()
	if err != nil {
		return err
	}
	jobs, err := s.endpoint.Jobs(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("\nPOSTs at the endpoint: %d; jobs there: %d\n", posts, len(jobs))
	if posts != 1 || len(jobs) != 1 {
		return errors.New("the endpoint should have got the file exactly once")
	}
	return nil
}

// curtain shows the jobs as they stand at the end.
func (s *show) curtain(ctx context.Context) error { return s.print(ctx, "get", "bj") }

// apply applies the samples with kubectl; name is another name for the job, or empty.
func (s *show) apply(ctx context.Context, name string) error {
	samples := stage.Samples{
		Root: s.root, Namespace: namespace, Job: name,
		URL: s.endpoint.URL(), Element: s.endpoint.Element, User: s.endpoint.User,
	}
	folder, err := samples.Write(s.dir)
	if err != nil {
		return err
	}
	out, err := s.kubectl(ctx, "apply", "--server-side", "-k", folder)
	fmt.Print(out)
	return errors.Join(err, os.RemoveAll(folder)) // it holds the keys
}

func (s *show) kubectl(ctx context.Context, args ...string) (string, error) {
	return s.cluster.Kubectl(ctx, args...)
}

// print runs kubectl where everybody can see it.
func (s *show) print(ctx context.Context, args ...string) error {
	out, err := s.kubectl(ctx, args...)
	fmt.Printf("\n$ kubectl")
	for _, arg := range args {
		fmt.Print(" " + arg)
	}
	fmt.Printf("\n%s", out)
	return err
}

// watch prints a line whenever something that kubectl shows has changed, until the job has ended. It must end with that
// reason.
func (s *show) watch(ctx context.Context, name, reason string) (*v1alpha1.BulkJob, error) {
	reader, err := s.reader()
	if err != nil {
		return nil, err
	}
	found, shown := &v1alpha1.BulkJob{}, ""
	for {
		if err := reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, found); err != nil {
			return nil, fmt.Errorf("cannot read the job: %w", err)
		}
		if now := line(found); now != shown {
			fmt.Println(now)
			shown = now
		}
		switch {
		case found.Status.CompletionTime == nil:
		case ready(found).Reason != reason:
			return nil, fmt.Errorf("the job ended with %s: %s", ready(found).Reason, ready(found).Message)
		default:
			return found, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the job stands at %s: %s", orNothing(ready(found).Reason), ready(found).Message)
		case <-s.manager.Ended():
			return nil, errors.New("the manager has ended")
		case <-s.endpoint.Ended():
			return nil, errors.New("the endpoint has ended")
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (s *show) reader() (client.Reader, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	reader, err := client.New(s.cluster.Admin, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("cannot make a client: %w", err)
	}
	return reader, nil
}

// line is what kubectl get shows of a job, with words in place of the headings.
func line(j *v1alpha1.BulkJob) string {
	rows, failed := "-", "-"
	if r := j.Status.Rows; r != nil && r.Processed != nil && r.Failed != nil {
		rows, failed = strconv.FormatInt(*r.Processed, 10), strconv.FormatInt(*r.Failed, 10)
	}
	return fmt.Sprintf("%-8s   state %-8s   rows %-2s   failed %-2s   ready %-5s   %s", j.Name, orNothing(j.Status.State), rows, failed,
		orNothing(string(ready(j).Status)), ready(j).Reason)
}

func ready(j *v1alpha1.BulkJob) metav1.Condition {
	if c := meta.FindStatusCondition(j.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		return *c
	}
	return metav1.Condition{}
}

func orNothing(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
