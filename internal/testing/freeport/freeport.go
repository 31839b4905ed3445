// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

// Package freeport finds ports for servers that are started as processes of their own.
package freeport

import "net"

// Get returns a TCP port of the loopback interface that nobody listens on at this moment. Somebody else may take it
// before the caller's process does: whoever starts a server has to cope with that.
func Get() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}
