// SPDX-License-Identifier: Apache-2.0

package console

import "embed"

// dist is the bundle, which is made of web/src and committed: building this needs no Node.
//
//go:embed web/dist
var dist embed.FS
