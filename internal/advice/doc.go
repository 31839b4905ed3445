// SPDX-License-Identifier: Apache-2.0

// Package advice says what would have been under another plan, what would be better, and who is about to leave, by what
// has been used. It is pure: what it says follows from what it is given, and nothing else.
package advice
