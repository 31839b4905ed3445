// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package localstack

import (
	"path/filepath"
	"strconv"

	"github.com/cantonesescribe/usage-operator/internal/testing/freeport"
)

// StartControllerManager starts kube-controller-manager, found in the folder assets, against the API server of
// kubeconfig, whose files are in serverDir. Its own go to dir.
func (p *Processes) StartControllerManager(assets, dir, kubeconfig, serverDir string) error {
	const name = "kube-controller-manager"
	flags, err := controllerFlags(name, dir, kubeconfig)
	if err != nil {
		return err
	}
	return p.Start(name, filepath.Join(assets, name), nil, append(flags,
		"--use-service-account-credentials=false",
		"--service-account-private-key-file="+filepath.Join(serverDir, "sa-signer.key"),
		"--root-ca-file="+filepath.Join(dir, "ca.crt"),
		"--allocate-node-cidrs=false",
		"--concurrent-job-syncs=20",
	)...)
}

// controllerFlags are what kube-controller-manager and kube-scheduler have in common.
func controllerFlags(name, dir, kubeconfig string) ([]string, error) {
	port, err := freeport.Get()
	if err != nil {
		return nil, err
	}
	return []string{
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--authentication-skip-lookup=true",
		"--bind-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(port),
		"--cert-dir=" + filepath.Join(dir, name),
		"--leader-elect=false",
		"--kube-api-qps=1000",
		"--kube-api-burst=2000",
	}, nil
}
