package serve

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseProperties(t *testing.T) {
	tests := []struct {
		name, text string
		want       map[string]string
		err        string
	}{
		{"plain", "num.partitions=3\n", map[string]string{"num.partitions": "3"}, ""},
		{"blanks around", "  num.partitions =  3  \n", map[string]string{"num.partitions": "3"}, ""},
		{"colon", "a: b", map[string]string{"a": "b"}, ""},
		{"blank as separator", "a b c", map[string]string{"a": "b c"}, ""},
		{"comments and empty lines", "# x=1\n! y=2\n\n\t\na=1", map[string]string{"a": "1"}, ""},
		{"last wins", "a=1\na=2", map[string]string{"a": "2"}, ""},
		{"value with separators", "listeners=PLAINTEXT://h:1,B://h:2", map[string]string{"listeners": "PLAINTEXT://h:1,B://h:2"}, ""},
		{"continued", "a=1,\\\n   2", map[string]string{"a": "1,2"}, ""},
		{"escaped backslash does not continue", `a=1\\` + "\nb=2", map[string]string{"a": `1\`, "b": "2"}, ""},
		{"escaped separator in key", `a\=b=c`, map[string]string{"a=b": "c"}, ""},
		{"unicode", `a=\u00e9`, map[string]string{"a": "é"}, ""},
		{"CRLF", "a=1\r\nb=2\r\n", map[string]string{"a": "1", "b": "2"}, ""},
		{"empty value", "a=", map[string]string{"a": ""}, ""},
		{"log.dir is log.dirs", "log.dir=/x", map[string]string{"log.dirs": "/x"}, ""},
		{"short unicode", "\n" + `a=\u12`, nil, "line 2: "},
		{"wrong unicode", `a=\u12xx`, nil, "four hexadecimal digits"},
		{"no key", "=1", nil, "line 1: no key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := map[string]string{}
			err := parseProperties(tt.text, got)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil || !maps.Equal(got, tt.want) {
				t.Fatalf("got %v, %v; want %v", got, err, tt.want)
			}
		})
	}
}

func TestPropertiesPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "server.properties")
	if err := os.WriteFile(file, []byte("log.dirs=/from/file\nlisteners=PLAINTEXT://file:1\nnum.partitions=2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs(DefaultData)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		s    Settings
		want map[string]string
	}{
		{"defaults", Settings{}, map[string]string{"log.dirs": here, "listeners": "PLAINTEXT://127.0.0.1:9092"}},
		{"file over defaults", Settings{ConfigFile: file}, map[string]string{"log.dirs": "/from/file", "listeners": "PLAINTEXT://file:1", "num.partitions": "2"}},
		{"set over file", Settings{ConfigFile: file, Set: []string{"num.partitions=4", "log.dir=/from/set"}}, map[string]string{"log.dirs": "/from/set", "listeners": "PLAINTEXT://file:1", "num.partitions": "4"}},
		{"flags over set", Settings{ConfigFile: file, Set: []string{"log.dirs=/from/flag", "listeners=PLAINTEXT://set:2"}, Data: "/from/flag", Listen: "flag:3", Advertise: "me:4"},
			map[string]string{"log.dirs": "/from/flag", "listeners": "PLAINTEXT://flag:3", "advertised.listeners": "PLAINTEXT://me:4", "num.partitions": "2"}},
		{"one of several by its file", Settings{Join: "h:1", Set: []string{"cluster.enable=true"}}, map[string]string{"cluster.join": "h:1", "cluster.enable": "true", "log.dirs": here, "listeners": "PLAINTEXT://127.0.0.1:9092"}},
		{"set keeps what follows the first =", Settings{Set: []string{"a=b=c,d"}}, map[string]string{"a": "b=c,d", "log.dirs": here, "listeners": "PLAINTEXT://127.0.0.1:9092"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.s.Properties()
			if err != nil || !maps.Equal(got, tt.want) {
				t.Fatalf("got %v, %v\nwant %v", got, err, tt.want)
			}
		})
	}
}

func TestPropertiesErrors(t *testing.T) {
	tests := []struct {
		name string
		s    Settings
		want string
	}{
		{"set without =", Settings{Set: []string{"num.partitions"}}, "is not key=value"},
		{"set without key", Settings{Set: []string{"=1"}}, "is not key=value"},
		{"listen without port", Settings{Listen: "127.0.0.1"}, "not HOST:PORT"},
		{"port too large", Settings{Listen: "127.0.0.1:70000"}, "0 to 65535"},
		{"advertise", Settings{Advertise: "x"}, "--advertise"},
		{"http", Settings{HTTP: "x"}, "--http"},
		{"two data directories", Settings{Data: "/a", Set: []string{"log.dirs=/b"}}, "name different data directories"},
		{"two data directories, by the other name", Settings{Data: "/a", Set: []string{"log.dir=/b"}}, "name different data directories"},
		{"peers of one that is alone", Settings{PeerListen: "127.0.0.1:9192"}, "--peer-listen is for one node of several: say --cluster too"},
		{"join alone", Settings{Join: "127.0.0.1:9192", Set: []string{"cluster.enable=false"}}, "--join is for one node of several"},
		{"secret alone", Settings{PeerSecretFile: "x"}, "--peer-secret-file is for one node of several"},
		{"expect alone", Settings{BootstrapExpect: "3"}, "--bootstrap-expect is for one node of several"},
		{"advertise alone", Settings{PeerAdvertise: "h:1"}, "--peer-advertise is for one node of several"},
		{"no such file", Settings{ConfigFile: filepath.Join(t.TempDir(), "none")}, "cannot be read"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.s.Properties()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestConnectionBound(t *testing.T) {
	for _, tt := range []struct {
		limit uint64
		want  int
	}{{20, 1}, {64, 1}, {100, 36}, {128, 64}, {1024, 512}, {1 << 20, 1 << 19}, {^uint64(0), 1 << 30}} {
		if got := connectionBound(tt.limit); got != tt.want {
			t.Errorf("connectionBound(%d) = %d, want %d", tt.limit, got, tt.want)
		}
		if tt.limit >= 100 && uint64(connectionBound(tt.limit)+logFileBound(tt.limit)) > tt.limit-tt.limit/8 {
			t.Errorf("of %d files clients and logs may take %d and %d: nothing remains", tt.limit, connectionBound(tt.limit), logFileBound(tt.limit))
		}
	}
}
