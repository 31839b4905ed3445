// SPDX-License-Identifier: Apache-2.0

package kubetest

import (
	"fmt"
	"os"
	"sync"
	"testing"
)

var shared struct {
	declared bool
	opts     []Option
	once     sync.Once
	env      *Env
	err      error
}

// Main runs the tests of a package that share one control plane. It is all that TestMain has to call:
//
//	func TestMain(m *testing.M) { kubetest.Main(m, kubetest.WithControllerManager()) }
//
// The control plane starts when the first test calls Shared and stops after the last, so a run that selects none of
// those tests does not pay for it.
func Main(m *testing.M, opts ...Option) {
	os.Exit(run(m, opts))
}

func run(m *testing.M, opts []Option) int {
	shared.declared, shared.opts = true, opts
	code := m.Run()
	if shared.env != nil {
		if err := shared.env.stop(); err != nil {
			fmt.Fprintf(os.Stderr, "kubetest: stop the control plane: %v\n", err)
			return max(code, 1)
		}
	}
	return code
}

// Shared returns the control plane of the package's tests, which TestMain declared by Main. The test fails if it cannot
// be started.
func Shared(tb testing.TB) *Env {
	tb.Helper()
	if !shared.declared {
		tb.Fatal("kubetest: TestMain has to call kubetest.Main before a test can call kubetest.Shared")
	}
	shared.once.Do(func() { shared.env, shared.err = start(shared.opts) })
	if shared.err != nil {
		tb.Fatalf("kubetest: %v", shared.err)
	}
	return shared.env
}

// Start returns a control plane of the test's own, for tests that need it configured in another way or that break it.
func Start(tb testing.TB, opts ...Option) *Env {
	tb.Helper()
	env, err := start(opts)
	if err != nil {
		tb.Fatalf("kubetest: %v", err)
	}
	tb.Cleanup(func() {
		if err := env.stop(); err != nil {
			tb.Errorf("kubetest: stop the control plane: %v", err)
		}
	})
	return env
}
