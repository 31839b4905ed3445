// SPDX-License-Identifier: Apache-2.0

// Package manifest judges manifests without an API server, by the same rules: the schema and the CEL rules of the
// CustomResourceDefinition, and what the webhook would say.
package manifest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	schemavalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/config/crd"
	"github.com/cantonesescribe/usage-operator/internal/convert"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/reset"
)

// Error says what is wrong with a manifest: each field, its value and what would do.
type Error struct {
	Problems []string
}

func (e *Error) Error() string {
	return "the manifest is not one of a UsagePlan: " + strings.Join(e.Problems, "; ")
}

func wrong(format string, args ...any) error {
	return &Error{Problems: []string{fmt.Sprintf(format, args...)}}
}

func wrongFields(errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	e := &Error{}
	for _, err := range errs {
		e.Problems = append(e.Problems, err.Error())
	}
	return e
}

// rules are those of a CustomResourceDefinition's version.
type rules struct {
	structural *schema.Structural
	schema     schemavalidation.SchemaValidator
	cel        *cel.Validator
}

// planRules are those of UsagePlan. The definition is part of the program, and a test reads it.
var planRules = sync.OnceValue(func() *rules {
	r, err := rulesOf(crd.UsagePlans)
	if err != nil {
		panic(err)
	}
	return r
})

func rulesOf(definition []byte) (*rules, error) {
	var d apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(definition, &d); err != nil {
		return nil, err
	}
	var props apiextensions.JSONSchemaProps
	given := d.Spec.Versions[0].Schema.OpenAPIV3Schema
	err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(given, &props, nil)
	if err != nil {
		return nil, err
	}
	structural, err := schema.NewStructural(&props)
	if err != nil {
		return nil, err
	}
	validator, _, err := schemavalidation.NewSchemaValidator(&props)
	return &rules{
		structural: structural, schema: validator, cel: cel.NewValidator(structural, true, celconfig.PerCallLimit),
	}, err
}

// Plan reads the manifest of a UsagePlan, in YAML or JSON, with the defaults that the API server would give it. What it
// would refuse, an unknown field among it, is an Error.
func Plan(ctx context.Context, data []byte) (*quota.Plan, error) {
	if err := checkAlone(data); err != nil {
		return nil, err
	}
	object := map[string]any{}
	if err := yaml.UnmarshalStrict(data, &object); err != nil {
		return nil, wrong("%v", err)
	}
	if len(object) == 0 {
		return nil, wrong("it is empty")
	}
	p := &v1alpha1.UsagePlan{}
	for _, name := range []string{"apiVersion", "kind"} {
		if object[name] == nil {
			return nil, wrong("%s is missing", name)
		}
	}
	if got, want := object["apiVersion"], v1alpha1.GroupVersion.String(); got != want {
		return nil, wrong("apiVersion: %.80q must be %s", fmt.Sprint(got), want)
	}
	if got := object["kind"]; got != "UsagePlan" {
		return nil, wrong("kind: %.80q must be UsagePlan", fmt.Sprint(got))
	}
	if err := checkName(object); err != nil {
		return nil, err
	}
	object, err := planRules().check(ctx, object)
	if err != nil {
		return nil, err
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object, p); err != nil {
		return nil, wrong("%v", err)
	}
	// As the webhook says it.
	if _, err := reset.Schedule(p.Spec.Reset.Schedule); err != nil {
		return nil, wrongFields(field.ErrorList{
			field.Invalid(field.NewPath("spec", "reset", "schedule"), p.Spec.Reset.Schedule, err.Error()),
		})
	}
	// Only stored objects have one, and only they need it.
	p.UID = "00000000-0000-0000-0000-000000000001"
	plan, err := convert.Plan(p)
	if err != nil {
		return nil, wrong("%v", err)
	}
	return &plan.Plan, nil
}

// checkAlone refuses what has several documents, of which all but the first would be ignored.
func checkAlone(data []byte) error {
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for n := 0; ; {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return wrong("%v", err)
		}
		var content any
		if yaml.Unmarshal(document, &content) != nil || content != nil {
			n++
		}
		if n > 1 {
			return wrong("there is more than one document, a plan is one")
		}
	}
}

// checkName judges the name, which the API server looks at first.
func checkName(object map[string]any) error {
	path := field.NewPath("metadata", "name")
	metadata, _ := object["metadata"].(map[string]any)
	name, _ := metadata["name"].(string)
	if name == "" {
		return wrongFields(field.ErrorList{field.Required(path, "a plan has a name")})
	}
	for _, problem := range validation.IsDNS1123Subdomain(name) {
		return wrongFields(field.ErrorList{field.Invalid(path, name, problem)})
	}
	return nil
}

// check gives an object its defaults and holds it against the rules, in the order of the API server.
func (r *rules) check(ctx context.Context, object map[string]any) (map[string]any, error) {
	// Numbers as the API server has them, which YAML may have read otherwise.
	data, err := json.Marshal(object)
	if err != nil {
		return nil, wrong("%v", err)
	}
	object = nil
	if err := utiljson.Unmarshal(data, &object); err != nil {
		return nil, wrong("%v", err)
	}
	unknown := pruning.PruneWithOptions(runtime.DeepCopyJSON(object), r.structural, true,
		schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	if len(unknown) > 0 {
		e := &Error{}
		for _, path := range unknown {
			e.Problems = append(e.Problems, fmt.Sprintf("%s: is no field of a UsagePlan", path))
		}
		return nil, e
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(object, r.structural)
	defaulting.Default(object, r.structural)
	if err := wrongFields(schemavalidation.ValidateCustomResource(nil, object, r.schema)); err != nil {
		return nil, err
	}
	errs, _ := r.cel.Validate(ctx, nil, r.structural, object, nil, celconfig.RuntimeCELCostBudget)
	return object, wrongFields(errs)
}
