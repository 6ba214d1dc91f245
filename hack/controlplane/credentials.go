package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// validity of every certificate: the control plane lives for an afternoon, and makes new ones at its next start.
const validity = 30 * 24 * time.Hour

// credentials are the paths of the PEM files a control plane needs. tokenKey signs service account tokens.
type credentials struct {
	caCert, serverCert, serverKey, adminCert, adminKey, tokenKey string
}

// authority signs certificates; its key is never written.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// writeCredentials makes a certificate authority, a server certificate for 127.0.0.1 and localhost, a client
// certificate of a cluster administrator and a key for tokens, in dir, readable only by the user.
func writeCredentials(dir string) (credentials, error) {
	path := func(name string) string { return filepath.Join(dir, name) }
	files := credentials{
		caCert: path("ca.crt"), serverCert: path("server.crt"), serverKey: path("server.key"),
		adminCert: path("admin.crt"), adminKey: path("admin.key"), tokenKey: path("token.key"),
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return files, fmt.Errorf("cannot make the directory for certificates: %w", err)
	}
	ca, err := newAuthority(files.caCert)
	if err != nil {
		return files, err
	}
	if err := ca.issue(files.serverCert, files.serverKey, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost", "kubernetes.default.svc"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}); err != nil {
		return files, err
	}
	if err := ca.issue(files.adminCert, files.adminKey, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return files, err
	}
	_, err = newKey(files.tokenKey)
	return files, err
}

// newAuthority makes an authority and writes its certificate to path.
func newAuthority(path string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make a key: %w", err)
	}
	ca := &authority{key: key, certificate: &x509.Certificate{
		Subject: pkix.Name{CommonName: "controlplane"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}}
	return ca, ca.sign(path, ca.certificate, key)
}

// issue makes a key and a certificate for it after template, and writes both.
func (ca *authority) issue(certPath, keyPath string, template *x509.Certificate) error {
	key, err := newKey(keyPath)
	if err != nil {
		return err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	return ca.sign(certPath, template, key)
}

// sign fills in template's serial number and times, an hour of clock skew allowed, and writes the certificate.
func (ca *authority) sign(path string, template *x509.Certificate, key *ecdsa.PrivateKey) error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return fmt.Errorf("cannot make a serial number: %w", err)
	}
	now := time.Now()
	template.SerialNumber, template.NotBefore, template.NotAfter = serial, now.Add(-time.Hour), now.Add(validity)
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, key.Public(), ca.key)
	if err != nil {
		return fmt.Errorf("cannot sign a certificate: %w", err)
	}
	return writePEM(path, "CERTIFICATE", der)
}

func newKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make a key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("cannot encode a key: %w", err)
	}
	return key, writePEM(path, "EC PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		return fmt.Errorf("cannot write %s: %w", filepath.Base(path), err)
	}
	return nil
}
