// SPDX-License-Identifier: Apache-2.0

package kubetest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const assetsVariable = "KUBEBUILDER_ASSETS"

// repositoryRoot is the folder above the test's own that holds go.mod. The source's own path would not do: -trimpath
// takes it away.
func repositoryRoot() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.mod in %s or above it: run the tests inside the repository", wd)
		}
	}
}

// findAssets returns the folder with the control plane's programs, which it builds or downloads if need be.
func findAssets(root string, programs ...string) (string, error) {
	dir, from := os.Getenv(assetsVariable), assetsVariable
	if dir == "" {
		from = filepath.Join("hack", "controlplane", "build.sh")
		build := exec.Command(filepath.Join(root, from))
		build.Stderr = os.Stderr
		out, err := build.Output()
		if err != nil {
			return "", fmt.Errorf("%s (or set %s to a folder with %s): %w", from, assetsVariable,
				strings.Join(programs, ", "), err)
		}
		dir = strings.TrimSpace(string(out))
	}
	for _, program := range programs {
		if _, err := exec.LookPath(filepath.Join(dir, program)); err != nil {
			return "", fmt.Errorf("the control plane's programs are looked for in %s (from %s): %w", dir, from, err)
		}
	}
	return dir, nil
}
