// SPDX-License-Identifier: Apache-2.0

// Package telemetry sets up logs and metrics alike for every program.
package telemetry

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"k8s.io/klog/v2"
)

// NewLogger returns a logger of records of at least the level ("debug", "info", "warn", "error"), in the format "json"
// or "text". What Kubernetes' libraries have to say goes there too.
func NewLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q must be debug, info, warn or error", level)
	}
	var handler slog.Handler
	switch opts := (&slog.HandlerOptions{Level: least}); format {
	case "json":
		handler = slog.NewJSONHandler(w, opts)
	case "text":
		handler = slog.NewTextHandler(w, opts)
	default:
		return nil, fmt.Errorf("log format %q must be json or text", format)
	}
	log := slog.New(handler)
	klog.SetSlogLogger(log)
	return log, nil
}

// NewRegistry returns a registry with what every program shows: its build, its process and Go's runtime.
func NewRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewBuildInfoCollector(),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return registry
}
