// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"testing"

	"github.com/cantonesescribe/usage-operator/internal/testing/kubetest"
)

func TestMain(m *testing.M) { kubetest.Main(m, kubetest.WithControllerManager()) }
