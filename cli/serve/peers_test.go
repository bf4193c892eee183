package serve

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/config"
)

// certify writes a certificate that signs itself, and its key.
func certify(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "node"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, bytes []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", pkcs8)
}

func TestPeerCertificates(t *testing.T) {
	dir := t.TempDir()
	cert, key := certify(t, dir)
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte(" of all \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	whole := config.Broker{PeerCertFile: cert, PeerKeyFile: key, PeerCAFile: cert, PeerSecretFile: secret}
	if c, err := peerTLS(&whole); err != nil || c == nil || len(c.Certificates) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	if s, err := peerSecret(&whole); err != nil || string(s) != "of all" {
		t.Errorf("secret %q, %v", s, err)
	}
	if c, err := peerTLS(&config.Broker{}); err != nil || c != nil {
		t.Errorf("without: %+v, %v", c, err)
	}
	for name, change := range map[string]func(*config.Broker){
		"no key":                   func(b *config.Broker) { b.PeerKeyFile = "" },
		"no authority":             func(b *config.Broker) { b.PeerCAFile = "" },
		"no secret":                func(b *config.Broker) { b.PeerSecretFile = "" },
		"no such file":             func(b *config.Broker) { b.PeerCertFile = filepath.Join(dir, "none") },
		"no authority in the file": func(b *config.Broker) { b.PeerCAFile = secret },
	} {
		b := whole
		change(&b)
		if c, err := peerTLS(&b); err == nil {
			t.Errorf("%s: %+v", name, c)
		}
	}
}
