package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"

	"bulkjob.dev/operator/controllers"
	"bulkjob.dev/operator/internal/callback"
)

// maxCallbackURL leaves room for what is added to it: endpoints keep a thousand bytes at least.
const maxCallbackURL = 512

// plainPath is one that proxies and endpoints hand on as it is.
var plainPath = regexp.MustCompile(`^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/?$`)

// callback is what the flags say about being called back; nil if nobody is to.
func (o *options) callback() (*controllers.Callback, error) {
	if o.callbackAddress == "" || o.callbackAddress == "0" {
		if o.callbackURL != "" || o.callbackCerts != "" {
			return nil, errors.New("cannot be called back without --callback-bind-address: --callback-url and --callback-cert-dir are about where it listens")
		}
		return nil, nil //nolint:nilnil // a nil Callback asks nobody to call
	}
	if _, _, err := net.SplitHostPort(o.callbackAddress); err != nil {
		return nil, fmt.Errorf("cannot use --callback-bind-address: %w", err)
	}
	public, err := url.Parse(o.callbackURL)
	switch {
	case err != nil:
		return nil, errors.New("cannot read --callback-url as a URL")
	case o.callbackURL == "":
		return nil, errors.New("cannot be called back without --callback-url: endpoints must be told where")
	case len(o.callbackURL) > maxCallbackURL:
		return nil, fmt.Errorf("cannot use a --callback-url of more than %d bytes", maxCallbackURL)
	case public.Scheme != "https" && public.Scheme != "http" || public.Hostname() == "":
		return nil, errors.New("cannot use --callback-url: it must be absolute, as https://bulk.example.com is")
	case public.Scheme == "http" && !o.allowHTTP:
		return nil, errors.New("cannot use --callback-url without TLS, unless --allow-http is set")
	case public.User != nil || public.RawQuery != "" || public.ForceQuery || public.Fragment != "" || !plainPath.MatchString(public.EscapedPath()):
		return nil, errors.New("cannot use --callback-url: it must have no user, query or fragment, and a plain path or none")
	}
	return &controllers.Callback{URL: o.callbackURL}, nil
}

// listen adds the receiver of callbacks to the manager, if there is to be one.
func (o *options) listen(mgr ctrl.Manager, told *controllers.Callback) error {
	if told == nil {
		return nil
	}
	public, err := url.Parse(told.URL)
	if err != nil {
		return err
	}
	hints, err := controllers.NewHints(mgr)
	if err != nil {
		return err
	}
	logger := ctrl.Log.WithName("callback")
	server := &callback.Server{Address: o.callbackAddress, Handler: callback.NewReceiver(hints, public.Path, logger), Log: logger}
	if o.callbackCerts != "" {
		watcher, err := certwatcher.New(filepath.Join(o.callbackCerts, "tls.crt"), filepath.Join(o.callbackCerts, "tls.key"))
		if err != nil {
			return fmt.Errorf("cannot read --callback-cert-dir: %w", err)
		}
		if err := mgr.Add(watcher); err != nil {
			return err
		}
		server.TLS = &tls.Config{GetCertificate: watcher.GetCertificate, MinVersion: tls.VersionTLS12}
	}
	return mgr.Add(server)
}
