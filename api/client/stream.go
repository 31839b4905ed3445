// SPDX-License-Identifier: Apache-2.0

package client

// eventStream is the media type of server-sent events.
const eventStream = "text/event-stream"
