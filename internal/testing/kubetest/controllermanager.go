// SPDX-License-Identifier: Apache-2.0

package kubetest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/cantonesescribe/usage-operator/internal/testing/freeport"
	"github.com/cantonesescribe/usage-operator/internal/testing/lifeline"
)

const (
	startTimeout = 2 * time.Minute
	stopTimeout  = 20 * time.Second
	pollInterval = 50 * time.Millisecond
)

// controllerManager is a running kube-controller-manager.
type controllerManager struct {
	cmd    *exec.Cmd
	done   chan struct{}
	forget func() error
}

// startControllerManager starts kube-controller-manager against the API server of kubeconfig and waits until it serves.
func startControllerManager(program, dir, kubeconfig, signingKey, rootCA string) (*controllerManager, error) {
	port, err := freeport.Get()
	if err != nil {
		return nil, err
	}
	certs := filepath.Join(dir, "controller-manager")
	if err := os.Mkdir(certs, 0o700); err != nil {
		return nil, err
	}
	logName := filepath.Join(dir, "kube-controller-manager.log")
	log, err := os.Create(logName)
	if err != nil {
		return nil, err
	}
	defer log.Close()

	cmd := exec.Command(program,
		"--kubeconfig="+kubeconfig,
		"--authentication-kubeconfig="+kubeconfig,
		"--authorization-kubeconfig="+kubeconfig,
		"--authentication-skip-lookup=true",
		"--bind-address=127.0.0.1",
		"--secure-port="+strconv.Itoa(port),
		"--cert-dir="+certs,
		"--leader-elect=false",
		"--use-service-account-credentials=false",
		"--service-account-private-key-file="+signingKey,
		"--root-ca-file="+rootCA,
		"--allocate-node-cidrs=false",
		"--kube-api-qps=1000",
		"--kube-api-burst=2000",
		"--concurrent-job-syncs=20",
	)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	cm := &controllerManager{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(cm.done)
		_ = cmd.Wait() // How it ended does not matter, that it ended does.
	}()
	if cm.forget, err = lifeline.Process(cmd.Process.Pid, lifeline.Kill); err != nil {
		return nil, errors.Join(err, cm.stop())
	}
	if err := cm.waitHealthy(port); err != nil {
		text, _ := os.ReadFile(logName)
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		return nil, errors.Join(fmt.Errorf("%w; its last words: %s", err, lines[len(lines)-1]), cm.stop())
	}
	return cm, nil
}

func (cm *controllerManager) waitHealthy(port int) error {
	// Its certificate is one that it has just made for itself, so there is nothing to verify it by.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // loopback, see above
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	url := fmt.Sprintf("https://127.0.0.1:%d/healthz", port)
	err := wait.PollUntilContextTimeout(context.Background(), pollInterval, startTimeout, true, func(context.Context) (bool, error) {
		select {
		case <-cm.done:
			return false, errors.New("it ended")
		default:
		}
		resp, err := client.Get(url)
		if err != nil {
			return false, nil //nolint:nilerr // not up yet
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK, nil
	})
	if err != nil {
		return fmt.Errorf("wait for kube-controller-manager: %w", err)
	}
	return nil
}

func (cm *controllerManager) stop() error {
	err := cm.cmd.Process.Signal(syscall.SIGTERM)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	select {
	case <-cm.done:
	case <-time.After(stopTimeout):
		err = errors.Join(err, cm.cmd.Process.Kill())
		<-cm.done
	}
	if cm.forget != nil {
		err = errors.Join(err, cm.forget())
	}
	return err
}
