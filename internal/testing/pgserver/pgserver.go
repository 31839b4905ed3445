// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Package pgserver runs a private PostgreSQL server for tests, benchmarks and the demo: in a temporary folder, on a
// free port of the loopback interface, gone with the process that started it.
package pgserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cantonesescribe/usage-operator/internal/testing/freeport"
	"github.com/cantonesescribe/usage-operator/internal/testing/lifeline"
)

const (
	superuser = "postgres"
	// A socket's path may have 107 bytes on Linux and 103 on macOS.
	maxSocketFolder = 80
	startTimeout    = 60 * time.Second
	stopTimeout     = 10 * time.Second
)

// Options of a server; the zero value is one for tests.
type Options struct {
	// Durable keeps fsync, synchronous_commit and full_page_writes on. Figures and crash tests mean nothing without it;
	// ordinary tests are several times as fast.
	Durable bool
	// Settings are further server settings, such as shared_buffers.
	Settings map[string]string
	// Progress receives what takes long (an installation); standard error if nil.
	Progress io.Writer
}

// Server is a running PostgreSQL server.
type Server struct {
	binDir  string
	dir     string
	port    int
	secret  string
	opts    Options
	account *syscall.Credential

	cmd    *exec.Cmd
	exited chan struct{}
	// forget takes the folder off the watchdog's list, forgetProcess the process.
	forget        []func() error
	forgetProcess func() error
}

// Start creates a database cluster and a server for it, and returns once the server answers.
func Start(ctx context.Context, opts Options) (_ *Server, err error) {
	progress := opts.Progress
	if progress == nil {
		progress = os.Stderr
	}
	s := &Server{secret: rand.Text(), opts: opts}
	if s.binDir, err = FindOrInstall(ctx, progress); err != nil {
		return nil, err
	}
	if s.account, err = unprivileged(); err != nil {
		return nil, err
	}
	if err := s.makeFolder(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if err := s.initdb(ctx); err != nil {
		return nil, err
	}
	return s, s.start(ctx)
}

// start launches the server on a free port.
func (s *Server) start(ctx context.Context) error {
	// Between choosing a free port and taking it somebody else may come first.
	for attempt := 1; ; attempt++ {
		err := s.launch(ctx)
		if err == nil {
			return nil
		}
		if attempt == 5 || !strings.Contains(err.Error(), "Address already in use") {
			return fmt.Errorf("start PostgreSQL from %s: %w", s.binDir, err)
		}
	}
}

// DSN is the connection string of the superuser for the named database.
func (s *Server) DSN(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(superuser, s.secret),
		Host: s.Addr(), Path: database, RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Addr is the address that the server listens on. It may change at a Restart.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// BinDir is the folder of PostgreSQL's programs, psql and pgbench among them where they are installed.
func (s *Server) BinDir() string { return s.binDir }

// Dir is the server's folder; its log is postgres.log in it.
func (s *Server) Dir() string { return s.dir }

// PID is the number of the server's main process, for tests that kill it.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Stop ends the server and removes its folder. Calling it twice is harmless.
func (s *Server) Stop() error {
	var errs []error
	if s.cmd != nil {
		errs = append(errs, s.halt(), s.forgetProcess())
		s.cmd = nil
	}
	errs = append(errs, os.RemoveAll(s.dir))
	for _, forget := range s.forget {
		errs = append(errs, forget())
	}
	s.forget = nil
	return errors.Join(errs...)
}

// halt asks for a fast shutdown (sessions are cut, a checkpoint is made), then for an immediate one.
func (s *Server) halt() error {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL} {
		if err := s.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop PostgreSQL: %w", err)
		}
		select {
		case <-s.exited:
			return nil
		case <-time.After(stopTimeout):
		}
	}
	return fmt.Errorf("stop PostgreSQL: process %d is still there after SIGKILL", s.cmd.Process.Pid)
}

func (s *Server) makeFolder() error {
	parent, err := reachable(s.account)
	if err != nil {
		return err
	}
	if s.dir, err = os.MkdirTemp(parent, "usage-operator-pg-"); err != nil {
		return err
	}
	forget, err := lifeline.Folder(s.dir)
	if err != nil {
		return errors.Join(err, os.RemoveAll(s.dir))
	}
	s.forget = append(s.forget, forget)
	if s.account == nil {
		return nil
	}
	return os.Chown(s.dir, int(s.account.Uid), int(s.account.Gid))
}

func (s *Server) initdb(ctx context.Context) error {
	passwordFile := filepath.Join(s.dir, "password")
	if err := os.WriteFile(passwordFile, []byte(s.secret), 0o600); err != nil {
		return err
	}
	if s.account != nil {
		if err := os.Chown(passwordFile, int(s.account.Uid), int(s.account.Gid)); err != nil {
			return err
		}
	}
	locale := "C.UTF-8"
	if runtime.GOOS != "linux" {
		locale = "C"
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.binDir, "initdb"), "--no-sync", "--pgdata="+s.data(),
		"--username="+superuser, "--pwfile="+passwordFile, "--auth=scram-sha-256", "--encoding=UTF8",
		"--locale="+locale)
	s.confine(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, lastLines(string(out), 5))
	}
	return os.Remove(passwordFile)
}

func (s *Server) launch(ctx context.Context) error {
	port, err := freeport.Get()
	if err != nil {
		return err
	}
	s.port = port
	log, err := os.OpenFile(filepath.Join(s.dir, "postgres.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()

	args := []string{"-D", s.data()}
	settings := s.settings()
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	cmd := exec.Command(filepath.Join(s.binDir, "postgres"), args...)
	s.confine(cmd)
	// A group of its own: Ctrl-C in the terminal is for us, and we stop the server after its clients.
	cmd.SysProcAttr.Setpgid = true
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait()
	}()
	forget, err := lifeline.Process(cmd.Process.Pid, lifeline.Quit)
	if err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	if err := s.waitReady(ctx, exited); err != nil {
		_ = cmd.Process.Signal(syscall.SIGQUIT)
		<-exited
		return errors.Join(err, forget())
	}
	s.cmd, s.exited, s.forgetProcess = cmd, exited, forget
	return nil
}

func (s *Server) settings() map[string]string {
	sockets := s.dir
	if len(sockets) > maxSocketFolder {
		sockets = ""
	}
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(s.port),
		"unix_socket_directories": sockets,
		"max_connections":         "300",
		"timezone":                "UTC",
		"log_timezone":            "UTC",
	}
	if !s.opts.Durable {
		settings["fsync"] = "off"
		settings["synchronous_commit"] = "off"
		settings["full_page_writes"] = "off"
	}
	maps.Copy(settings, s.opts.Settings)
	return settings
}

func (s *Server) waitReady(ctx context.Context, exited <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, s.DSN("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-exited:
			return fmt.Errorf("it ended at once: %s", s.logTail())
		case <-ctx.Done():
			return fmt.Errorf("it does not answer (%w): %s", err, s.logTail())
		case <-tick.C:
		}
	}
}

func (s *Server) logTail() string {
	log, err := os.ReadFile(filepath.Join(s.dir, "postgres.log"))
	if err != nil {
		return err.Error()
	}
	return lastLines(string(log), 4)
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// confine runs cmd as the server's account, with nothing of our environment that could change what PostgreSQL's
// programs do.
func (s *Server) confine(cmd *exec.Cmd) {
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.account}
}

// unprivileged returns whom to run as: PostgreSQL refuses root. Nil means ourselves.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("user %s: uid %q: %w", name, u.Uid, err)
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("user %s: gid %q: %w", name, u.Gid, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil,
		errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor nobody to run it as")
}

// reachable returns a folder for temporary files that account can enter: TMPDIR may lie below a private home.
func reachable(account *syscall.Credential) (string, error) {
	if account == nil {
		return os.TempDir(), nil
	}
	tried := []string{os.TempDir(), "/tmp", "/var/tmp"}
	for _, dir := range tried {
		if openToAll(dir) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("none of %s can be entered by the unprivileged user that PostgreSQL runs as",
		strings.Join(tried, ", "))
}

func openToAll(dir string) bool {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || !info.IsDir() || info.Mode()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}
