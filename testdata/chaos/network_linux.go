package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// port is one end of the network: a TUN device.
type port struct {
	file *os.File
}

const device = "/dev/net/tun"

// noNetwork says what is missing for network namespaces.
func noNetwork() string {
	if !isRoot() {
		return "it takes root to make network namespaces"
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return "ip is not here"
	}
	if _, err := os.Stat(device); err != nil {
		return device + " is not here"
	}
	probe := space(99)
	if err := tool("ip", "netns", "add", probe); err != nil {
		return "no network namespace can be made: " + err.Error()
	}
	tool("ip", "netns", "del", probe)
	return ""
}

func space(station int) string { return fmt.Sprintf("mrchaos%d", station) }

// prefix is what a command begins with to run at a station.
func (w *network) prefix(station int) []string {
	return []string{"ip", "netns", "exec", space(station)}
}

// openNetwork makes the namespaces of so many nodes, and connects them.
func openNetwork(nodes int) (*network, error) {
	w := &network{rules: map[[2]int]rule{}}
	for station := range nodes + 1 {
		if err := w.plug(station); err != nil {
			return nil, errors.Join(err, w.close())
		}
	}
	for station := range w.ports {
		go w.carry(station) // ends with close
	}
	return w, nil
}

// plug makes a station.
func (w *network) plug(station int) error {
	name := fmt.Sprintf("mrchaos%d", station)
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("%s: %w", device, err)
	}
	w.ports = append(w.ports, &port{os.NewFile(uintptr(fd), name)})
	ip := []string{"ip"}
	if station > 0 {
		if err := errors.Join(tool("ip", "netns", "add", space(station)), tool("ip", "link", "set", name, "netns", space(station))); err != nil {
			return err
		}
		ip = append(w.prefix(station), "ip")
	}
	for _, arguments := range [][]string{{"addr", "add", w.host(station) + "/24", "dev", name}, {"link", "set", name, "up"}, {"link", "set", "lo", "up"}} {
		if err := tool(append(append([]string{}, ip...), arguments...)...); err != nil {
			return err
		}
	}
	return nil
}

// close removes the namespaces. Processes in them must have ended.
func (w *network) close() error {
	var wrong []error
	for station, p := range w.ports {
		wrong = append(wrong, p.file.Close())
		if station > 0 {
			wrong = append(wrong, tool("ip", "netns", "del", space(station)))
		}
	}
	return errors.Join(wrong...)
}
