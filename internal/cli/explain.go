package cli

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"bulkjob.dev/operator/internal/cli/render"
)

// explained says of an error of the API server's what was tried and what to do about it. What is of no such kind stays as it is.
func (s *session) explained(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cannot %s in namespace %q: %w", what, s.namespace, hint(err, s.namespace))
}

// worded is an error in other words.
type worded struct {
	words string
	err   error
}

func (w *worded) Error() string { return w.words }
func (w *worded) Unwrap() error { return w.err }

// hint is an error in words that name what to do.
func hint(err error, namespace string) error {
	wordedf := func(format string, args ...any) error { return &worded{fmt.Sprintf(format, args...), err} }
	status, answered := errors.AsType[*apierrors.StatusError](err)
	switch {
	case clientcmd.IsEmptyConfig(err):
		return wordedf("no cluster is configured: set KUBECONFIG or --kubeconfig, as for kubectl")
	case answered && notInstalled(status.Status()):
		return wordedf("this cluster does not know the kinds of bulkjob.dev: ask its administrator to install bulkjob-operator")
	case apierrors.IsForbidden(err) && refusedByRights(err):
		return wordedf("you lack the right (%s): ask an administrator of the namespace for the role edit, or view to look only; "+
			"kubectl auth can-i --list -n %s shows what you may", needed(status.Status()), namespace)
	case apierrors.IsUnauthorized(err):
		return wordedf("the cluster does not know you: log in again, as for kubectl")
	case apierrors.IsConflict(err) && managers(status.Status()) != "":
		return wordedf("it is kept by %s, with other values: change it there, or choose another --name", managers(status.Status()))
	case apierrors.IsConflict(err):
		return wordedf("it was changed meanwhile: look at it again")
	case answered:
		return wordedf("%s", render.Plain(err.Error()))
	case unreachable(err):
		return wordedf("the cluster does not answer: %v", stripped(err))
	}
	return err
}

// notInstalled is true of the answer to a request for a path that the API server does not serve.
func notInstalled(status metav1.Status) bool {
	return status.Reason == metav1.StatusReasonNotFound && status.Details != nil &&
		slices.ContainsFunc(status.Details.Causes, func(c metav1.StatusCause) bool { return c.Type == metav1.CauseTypeUnexpectedServerResponse })
}

func isNotInstalled(err error) bool {
	status, answered := errors.AsType[*apierrors.StatusError](err)
	return answered && notInstalled(status.Status())
}

// refusedByRights tells a missing right from a refusal by a policy or a quota, which has words of its own.
func refusedByRights(err error) bool { return strings.Contains(err.Error(), "cannot ") }

// needed is the right that an answer says is missing, such as "create bulkjobs.bulkjob.dev".
func needed(status metav1.Status) string {
	verb := ""
	if _, after, found := strings.Cut(status.Message, "cannot "); found {
		verb, _, _ = strings.Cut(after, " ")
	}
	what := "this"
	if d := status.Details; d != nil {
		what = strings.TrimSuffix(d.Kind+"."+d.Group, ".")
	}
	return render.Plain(strings.TrimSpace(verb + " " + what))
}

// managers are those that server-side apply says keep what was to be changed.
func managers(status metav1.Status) string {
	if status.Details == nil {
		return ""
	}
	var found []string
	for _, cause := range status.Details.Causes {
		if cause.Type != metav1.CauseTypeFieldManagerConflict {
			continue
		}
		_, name, _ := strings.Cut(cause.Message, "conflict with ")
		if name = render.Plain(name); !slices.Contains(found, name) {
			found = append(found, name)
		}
	}
	return strings.Join(found, ", ")
}

func unreachable(err error) bool {
	_, operation := errors.AsType[*net.OpError](err)
	_, request := errors.AsType[*url.Error](err)
	return operation || request
}

// stripped is an error without the URL that was asked.
func stripped(err error) error {
	if request, ok := errors.AsType[*url.Error](err); ok {
		return request.Err
	}
	return err
}

// missing says that there is nothing of that name, and which there are.
func missing(kind, name, namespace string, there []string, nearest string) error {
	text := fmt.Sprintf("there is no %s %q in namespace %q", kind, name, namespace)
	if nearest != "" {
		text += fmt.Sprintf("; did you mean %q?", nearest)
	}
	if len(there) > 0 {
		text += " There are: " + listed(there)
	} else {
		text += "; there is none at all"
	}
	return errors.New(text)
}

// maxListed are named in a sentence.
const maxListed = 20

func listed(names []string) string {
	slices.Sort(names)
	more := ""
	if extra := len(names) - maxListed; extra > 0 {
		names, more = names[:maxListed], fmt.Sprintf(" and %d more", extra)
	}
	return render.Plain(strings.Join(names, ", ")) + more
}
