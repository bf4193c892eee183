package serve

import (
	"fmt"
	"io"
	"net"
)

// greet writes the few lines that a person needs after a start, with program as it was called, so that they can be pasted.
// Programs that start millrace read the address from the line that begins with "listening".
func greet(w io.Writer, program, version string, at net.Addr, dataDir string) {
	flag := ""
	if reach := reachable(at); reach != DefaultListen {
		flag = " --bootstrap " + reach
	}
	fmt.Fprintf(w, `millrace %s: a durable streaming log that speaks the Kafka protocol
  listening  %s
  data       %s
  try        echo 'hello' | %[5]s produce demo%[4]s
             %[5]s consume demo%[4]s
`, version, at, dataDir, flag, program)
}

// reachable returns the address by which a client on this machine gets to a listener; one on every address takes IPv4 too.
func reachable(at net.Addr) string {
	tcp, ok := at.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return at.String()
	}
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(tcp.Port))
}
