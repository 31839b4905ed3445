//go:build e2e

// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// tryKubectl runs kubectl and returns what it printed. What it wrote to standard error is in the error.
func tryKubectl(ctx context.Context, args ...string) (string, error) {
	return tryKubectlWith(ctx, "", args...)
}

// tryKubectlWith runs kubectl with the text as its standard input.
func tryKubectlWith(ctx context.Context, stdin string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, os.Getenv("KUBECTL"), args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err,
			strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// kubectl runs kubectl, which must succeed, and returns what it printed.
func kubectl(ctx context.Context, args ...string) string {
	GinkgoHelper()
	out, err := tryKubectl(ctx, args...)
	Expect(err).NotTo(HaveOccurred())
	return out
}

// picture adds what kubectl prints to the report, so that a reader sees what a user would.
func picture(ctx context.Context, args ...string) {
	GinkgoHelper()
	AddReportEntry("kubectl "+strings.Join(args, " "), "\n"+kubectl(ctx, args...))
}

// apply applies a manifest and returns the error that a user would see.
func apply(ctx context.Context, manifest string) error {
	_, err := tryKubectlWith(ctx, manifest, "apply", "--filename", "-")
	return err
}

// deploy puts the product on the cluster as a user does, by make.
func deploy(ctx context.Context) {
	GinkgoHelper()
	runMake(ctx, "deploy")
}

// undeploy takes it away.
func undeploy(ctx context.Context) {
	GinkgoHelper()
	runMake(ctx, "undeploy")
}

func runMake(ctx context.Context, target string) {
	GinkgoHelper()
	cmd := exec.CommandContext(ctx, "make", target, "OVERLAY=dev")
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "make %s:\n%s", target, out)
}

// node runs a program on a node, which is a container.
func node(ctx context.Context, name string, command ...string) string {
	GinkgoHelper()
	out, err := exec.CommandContext(ctx, "docker", append([]string{"exec", name}, command...)...).CombinedOutput()
	Expect(err).NotTo(HaveOccurred(), "on node %s: %s: %s", name, strings.Join(command, " "), out)
	return string(out)
}

// portForward opens a local port to the service until the spec ends and returns host:port.
func portForward(ctx context.Context, namespace, service string, port int) string {
	GinkgoHelper()
	forward := exec.Command(os.Getenv("KUBECTL"), "--namespace", namespace, "port-forward", "service/"+service,
		fmt.Sprintf(":%d", port))
	var out lockedBuffer
	forward.Stdout, forward.Stderr = &out, &out
	Expect(forward.Start()).To(Succeed())
	DeferCleanup(func() {
		_ = forward.Process.Kill()
		_ = forward.Wait()
	})
	listening := regexp.MustCompile(`Forwarding from (127\.0\.0\.1:\d+)`)
	Eventually(ctx, out.String).Should(MatchRegexp(listening.String()))
	return listening.FindStringSubmatch(out.String())[1]
}

// collect writes objects, events and logs into a folder of the spec's own and says where.
func collect(ctx context.Context, what string) {
	name := regexp.MustCompile(`[^A-Za-z0-9]+`).ReplaceAllString(what, "-")
	dir := filepath.Join(root, "bin", "e2e", time.Now().UTC().Format("150405-")+name[:min(60, len(name))])
	if err := os.MkdirAll(dir, 0o755); err != nil {
		AddReportEntry("cannot collect", err.Error())
		return
	}
	write := func(file string, args ...string) {
		out, err := tryKubectl(ctx, args...)
		if err != nil {
			out += "\n" + err.Error()
		}
		_ = os.WriteFile(filepath.Join(dir, file), []byte(out), 0o600)
	}
	write("objects.txt", "get", "nodes,pods,jobs,cronjobs,deployments,statefulsets,leases,usageplans,userquotas",
		"--all-namespaces", "--output", "wide")
	write("jobs.yaml", "get", "jobs,pods", "--all-namespaces", "--output", "yaml", "--selector",
		"usage.cantonesescribe.io/user")
	write("plans.yaml", "get", "usageplans,userquotas", "--output", "yaml")
	write("events.txt", "get", "events", "--all-namespaces", "--sort-by", ".lastTimestamp")
	pods, _ := tryKubectl(ctx, "--namespace", systemNamespace, "get", "pods", "--output", "name")
	for _, pod := range lines(pods) {
		file := strings.TrimPrefix(pod, "pod/")
		write(file+".log", "--namespace", systemNamespace, "logs", pod, "--all-containers", "--prefix")
		write(file+".previous.log", "--namespace", systemNamespace, "logs", pod, "--all-containers", "--prefix",
			"--previous")
	}
	AddReportEntry("objects, events and logs are in " + dir)
	fmt.Fprintf(GinkgoWriter, "objects, events and logs are in %s\n", dir)
}
