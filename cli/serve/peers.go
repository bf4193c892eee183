package serve

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/millrace/millrace/engine/config"
)

// peerSecret is what the nodes share; nil when there is none.
func peerSecret(broker *config.Broker) ([]byte, error) {
	if broker.PeerSecretFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(broker.PeerSecretFile)
	if err != nil {
		return nil, &ConfigError{fmt.Errorf("peer.secret.file: %w", err)}
	}
	secret := []byte(strings.TrimSpace(string(text)))
	if len(secret) == 0 {
		return nil, &ConfigError{fmt.Errorf("peer.secret.file: %s is empty", broker.PeerSecretFile)}
	}
	return secret, nil
}

// peerTLS is how nodes prove to each other who they are; nil when they have no certificates.
func peerTLS(broker *config.Broker) (*tls.Config, error) {
	cert, key, ca := broker.PeerCertFile, broker.PeerKeyFile, broker.PeerCAFile
	if cert == "" && key == "" && ca == "" {
		return nil, nil
	}
	if cert == "" || key == "" || ca == "" {
		return nil, &ConfigError{errors.New("peer.tls.cert.file, peer.tls.key.file and peer.tls.ca.file belong together: all three, or none")}
	}
	if broker.PeerSecretFile == "" {
		return nil, &ConfigError{errors.New("peer.tls.cert.file needs peer.secret.file too: what nodes gossip by UDP is encrypted with that")}
	}
	own, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, &ConfigError{fmt.Errorf("peer.tls.cert.file, peer.tls.key.file: %w", err)}
	}
	text, err := os.ReadFile(ca)
	if err != nil {
		return nil, &ConfigError{fmt.Errorf("peer.tls.ca.file: %w", err)}
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(text) {
		return nil, &ConfigError{fmt.Errorf("peer.tls.ca.file: there is no certificate in %s", ca)}
	}
	return &tls.Config{
		Certificates: []tls.Certificate{own}, RootCAs: authorities, ClientCAs: authorities,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}, nil
}
