// SPDX-License-Identifier: Apache-2.0

// Package quota is the domain of metering: amounts, periods, lots, plans and the decisions over them.
//
// It is pure. Nothing here reads a clock, a database or a network: callers gather the facts, and the functions of this
// package say what follows from them. It imports the standard library only, so that the same rules serve admission, the
// pre-flight check, the Job webhook and the Job controller, and can be tested without any of them.
package quota
