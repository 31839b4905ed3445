// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// ErrNotFound says that this machine has no PostgreSQL and how to change that.
var ErrNotFound = errors.New("PostgreSQL's server programs (initdb, postgres) are not installed: " +
	"install them (Debian, Ubuntu: `apt-get install postgresql`; Fedora: `dnf install postgresql-server`; Alpine: " +
	"`apk add postgresql`; " +
	"macOS: `brew install postgresql`) or name their folder in PG_BINDIR")

// Find returns the folder that holds initdb and postgres: PG_BINDIR if set, else what PATH or pg_config name, else
// where distributions put them, the newest release first.
func Find() (string, error) {
	if dir := os.Getenv("PG_BINDIR"); dir != "" {
		if !holdsServer(dir) {
			return "", fmt.Errorf("PG_BINDIR=%s holds no initdb and postgres", dir)
		}
		return dir, nil
	}
	for _, dir := range candidates() {
		if holdsServer(dir) {
			return dir, nil
		}
	}
	return "", ErrNotFound
}

func candidates() []string {
	var dirs []string
	if initdb, err := exec.LookPath("initdb"); err == nil {
		// The link's target, because a folder of links need not hold all of them.
		if target, err := filepath.EvalSymlinks(initdb); err == nil {
			dirs = append(dirs, filepath.Dir(target))
		}
		dirs = append(dirs, filepath.Dir(initdb))
	}
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",          // Debian, Ubuntu
		"/usr/pgsql-*/bin",                   // PostgreSQL's own packages for Fedora and RHEL
		"/usr/lib/postgresql*/bin",           // openSUSE
		"/usr/libexec/postgresql*",           // Alpine
		"/opt/homebrew/opt/postgresql@*/bin", // Homebrew on Apple silicon
		"/usr/local/opt/postgresql@*/bin",    // Homebrew on Intel
		"/opt/homebrew/opt/postgresql/bin",   //
		"/usr/local/pgsql/bin",               // built from source
		"/Applications/Postgres.app/Contents/Versions/*/bin",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			continue
		}
		slices.SortFunc(found, func(a, b string) int { return release(b) - release(a) })
		dirs = append(dirs, found...)
	}
	return dirs
}

// release is the number in a folder's name, so that 17 comes before 9.
func release(path string) int {
	digits := strings.FieldsFunc(path, func(r rune) bool { return r < '0' || r > '9' })
	if len(digits) == 0 {
		return 0
	}
	n, err := strconv.Atoi(digits[0])
	if err != nil {
		return 0
	}
	return n
}

func holdsServer(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			return false
		}
	}
	return true
}

// FindOrInstall is Find, and where there is nothing to find and this is Debian or one of its relatives and we are root,
// installs the distribution's package. Progress is written to progress.
func FindOrInstall(ctx context.Context, progress io.Writer) (string, error) {
	dir, err := Find()
	if !errors.Is(err, ErrNotFound) || runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return dir, err
	}
	apt, lookErr := exec.LookPath("apt-get")
	if lookErr != nil {
		return "", err
	}
	// Test binaries run side by side: one of them installs, the others wait here and find the result.
	unlock, err := lock(filepath.Join(os.TempDir(), "usage-operator-install-postgresql.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if dir, err := Find(); err == nil {
		return dir, nil
	}
	if err := install(ctx, apt, progress); err != nil {
		return "", fmt.Errorf("install PostgreSQL with apt-get: %w", err)
	}
	return Find()
}

func install(ctx context.Context, apt string, progress io.Writer) error {
	// Without this the package creates and starts a server of the system's own, on the standard port.
	const conf = "/etc/postgresql-common/createcluster.d/usage-operator.conf"
	if err := os.MkdirAll(filepath.Dir(conf), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(conf, []byte("create_main_cluster = false\n"), 0o644); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"update", "-q"},
		{"install", "-q", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", "postgresql"},
	} {
		_, _ = fmt.Fprintf(progress, "postgresql: not installed, running apt-get %s (once)\n", args[0])
		cmd := exec.CommandContext(ctx, apt, args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w: %s", args[0], err, lastLines(string(out), 3))
		}
	}
	return nil
}

func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}
