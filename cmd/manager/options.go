package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"bulkjob.dev/operator/controllers"
	"bulkjob.dev/operator/internal/dial"
	"bulkjob.dev/operator/internal/source"
)

// options are the manager's flags.
type options struct {
	metricsAddress  string
	metricsSecure   bool
	metricsCerts    string
	probeAddress    string
	leaderElect     bool
	leaderNamespace string
	namespaces      list
	selector        selector
	maxUploads      int
	workers         int
	allowHTTP       bool
	allowHosts      list
	allowPrivate    list
	proxyFromEnv    bool
	identities      list
	callbackAddress string
	callbackURL     string
	callbackCerts   string
}

func newOptions(flags *flag.FlagSet) *options {
	o := &options{}
	flags.StringVar(&o.metricsAddress, "metrics-bind-address", "0", "address of the metrics, such as :8443; 0 serves none")
	flags.BoolVar(&o.metricsSecure, "metrics-secure", true, "serve metrics over https, to those only who may get /metrics")
	flags.StringVar(&o.metricsCerts, "metrics-cert-dir", "", "directory with tls.crt and tls.key for the metrics; empty: a certificate of its own")
	flags.StringVar(&o.probeAddress, "health-probe-bind-address", ":8081", "address of /healthz and /readyz")
	flags.BoolVar(&o.leaderElect, "leader-elect", false, "let one of several replicas work")
	flags.StringVar(&o.leaderNamespace, "leader-election-namespace", "", "namespace of the lease; empty: the pod's own")
	flags.Var(&o.namespaces, "namespaces", "namespaces to watch, separated by commas; empty: all")
	flags.Var(&o.selector, "namespace-selector", "label selector of the namespaces to watch, as they are labelled at the moment, such as bulkjob.dev/shard=a")
	flags.IntVar(&o.maxUploads, "max-uploads", 16, "uploads at once, over all connectors")
	flags.IntVar(&o.workers, "workers", 20, "reconciles at once, of each kind")
	flags.BoolVar(&o.allowHTTP, "allow-http", false, "allow connectors and object stores without TLS")
	flags.Var(&o.allowHosts, "allowed-hosts",
		"hosts that connectors and object stores may name, separated by commas, exactly or as *.example.com; empty: any public one")
	flags.Var(&o.allowPrivate, "allow-private", "private addresses that may be dialled, separated by commas, each with its port: 10.1.0.0/16:443")
	flags.BoolVar(&o.proxyFromEnv, "proxy-from-environment", false, "use the proxy that HTTPS_PROXY and its kin name")
	flags.Var(&o.identities, "cloud-identity",
		"objects that jobs may read with the operator's own cloud identity, separated by commas, each as namespace=URL: crm=s3://crm-imports/2026/")
	flags.StringVar(&o.callbackAddress, "callback-bind-address", "0", "address to be called back at, such as :8444; 0: endpoints are polled only")
	flags.StringVar(&o.callbackURL, "callback-url", "", "public URL that leads to --callback-bind-address; it is told to endpoints")
	flags.StringVar(&o.callbackCerts, "callback-cert-dir", "",
		"directory with tls.crt and tls.key for --callback-bind-address, read anew when they change; empty: plain HTTP, behind a proxy that ends TLS")
	return o
}

// controllers is what the flags say about the controllers.
func (o *options) controllers() (controllers.Options, error) {
	policy := dial.Policy{AllowHTTP: o.allowHTTP, Hosts: o.allowHosts, ProxyFromEnvironment: o.proxyFromEnv}
	for _, text := range o.allowPrivate {
		allowance, err := dial.ParseAllowance(text)
		if err != nil {
			return controllers.Options{}, fmt.Errorf("cannot read --allow-private: %w", err)
		}
		policy.Private = append(policy.Private, allowance)
	}
	var identities []source.Identity
	for _, text := range o.identities {
		identity, err := source.ParseIdentity(text)
		if err != nil {
			return controllers.Options{}, fmt.Errorf("cannot read --cloud-identity: %w", err)
		}
		identities = append(identities, identity)
	}
	if o.maxUploads < 1 || o.workers < 1 {
		return controllers.Options{}, fmt.Errorf("cannot work with --max-uploads %d and --workers %d: both must be 1 or more", o.maxUploads, o.workers)
	}
	if len(o.namespaces) > 0 && o.selector.Selector != nil {
		return controllers.Options{}, errors.New("cannot follow both --namespaces and --namespace-selector")
	}
	var shard *controllers.Shard
	if o.selector.Selector != nil {
		shard = controllers.NewShard(o.selector.Selector)
	}
	called, err := o.callback()
	return controllers.Options{
		MaxUploads: o.maxUploads, Workers: o.workers, Dial: policy, CloudIdentities: identities, Shard: shard, Callback: called,
	}, err
}

// lease is the name of what managers lead by: those that work for the same namespaces share one, others have others.
func (o *options) lease() string {
	const domain = "bulkjob.dev"
	var share string
	switch {
	case o.selector.Selector != nil:
		share = "selector " + o.selector.String()
	case len(o.namespaces) > 0:
		share = "namespaces " + strings.Join(slices.Compact(slices.Sorted(slices.Values(o.namespaces))), ",")
	default:
		return "bulkjob-operator." + domain
	}
	digest := sha256.Sum256([]byte(share))
	return "bulkjob-operator-" + hex.EncodeToString(digest[:5]) + "." + domain
}

func (o *options) cache() cache.Options {
	c := controllers.CacheOptions()
	if len(o.namespaces) > 0 {
		c.DefaultNamespaces = map[string]cache.Config{}
		for _, name := range o.namespaces {
			c.DefaultNamespaces[name] = cache.Config{}
		}
	}
	return c
}

// selector is a flag that is a label selector; without a Selector it was not given.
type selector struct{ labels.Selector }

func (s *selector) String() string {
	if s.Selector == nil {
		return ""
	}
	return s.Selector.String()
}

func (s *selector) Set(text string) error {
	parsed, err := labels.Parse(text)
	if err != nil {
		return err
	}
	*s = selector{}
	if !parsed.Empty() {
		s.Selector = parsed
	}
	return nil
}

// list is a flag of values that are separated by commas.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(text string) error {
	*l = nil
	for value := range strings.SplitSeq(text, ",") {
		if value = strings.TrimSpace(value); value != "" {
			*l = append(*l, value)
		}
	}
	return nil
}
