// SPDX-License-Identifier: Apache-2.0

// Command foreign reads manifests from standard input and checks the objects of cert-manager and of the Prometheus
// operator among them against those projects' Go types: no field is unknown or of another type. It prints what is wrong
// and how many it checked. A module of its own keeps their dependencies away from the product.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsyaml "sigs.k8s.io/yaml"
)

var kinds = map[metav1.TypeMeta]func() any{
	{APIVersion: "cert-manager.io/v1",
		Kind: "Certificate"}: func() any { return &certmanagerv1.Certificate{} },
	{APIVersion: "cert-manager.io/v1", Kind: "Issuer"}: func() any { return &certmanagerv1.Issuer{} },
	{APIVersion: "monitoring.coreos.com/v1",
		Kind: "ServiceMonitor"}: func() any { return &monitoringv1.ServiceMonitor{} },
	{APIVersion: "monitoring.coreos.com/v1",
		Kind: "PrometheusRule"}: func() any { return &monitoringv1.PrometheusRule{} },
}

func main() {
	checked, err := check(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "foreign:", err)
		os.Exit(1)
	}
	fmt.Println(checked)
}

func check(in io.Reader) (checked int, err error) {
	decoder := yaml.NewYAMLToJSONDecoder(in)
	for {
		var object metav1.PartialObjectMetadata
		var raw rawObject
		if err := decoder.Decode(&raw); errors.Is(err, io.EOF) {
			return checked, nil
		} else if err != nil {
			return checked, err
		}
		if err := sigsyaml.Unmarshal(raw, &object); err != nil {
			return checked, err
		}
		make, ok := kinds[object.TypeMeta]
		if !ok {
			continue
		}
		if err := sigsyaml.UnmarshalStrict(raw, make()); err != nil {
			return checked, fmt.Errorf("%s %s: %w", object.Kind, object.Name, err)
		}
		checked++
	}
}

// rawObject keeps the JSON of an object.
type rawObject []byte

// UnmarshalJSON implements json.Unmarshaler.
func (r *rawObject) UnmarshalJSON(data []byte) error {
	*r = append((*r)[:0], data...)
	return nil
}
