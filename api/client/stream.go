// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/tmaxmax/go-sse"
)

const (
	// maxEvent is far more than any event has, in bytes.
	maxEvent = 1 << 20
	// silence is how long nothing comes before a stream counts as lost: the service says something every 15 s.
	silence = 45 * time.Second
)

// StreamEndedError says that the service has ended a stream for good, and why.
type StreamEndedError struct{ StreamEnd }

// Error implements error.
func (e *StreamEndedError) Error() string {
	text := fmt.Sprintf("the stream has ended: %s", e.Reason)
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

// errLost says that a connection is to be made anew.
var errLost = errors.New("the stream was lost")

// Watch yields where a user or a team stands, now and whenever that changes, and its new alerts: of each UsageStream
// one member is set. Connections that are lost, and replicas that end, are replaced, and what was seen last is not told
// again. It ends with the context, or with an error behind which nothing comes: an *Error where the service has refused
// the call, a *StreamEndedError where it has ended the stream for good.
func Watch(
	ctx context.Context, api ClientInterface, params StreamUsageParams, editors ...RequestEditorFn,
) iter.Seq2[UsageStream, error] {
	return func(yield func(UsageStream, error) bool) {
		pause := firstPause
		for ctx.Err() == nil {
			told, err := watchOnce(ctx, api, &params, editors, func(e UsageStream) bool { return yield(e, nil) })
			if told {
				pause = firstPause
			}
			if errors.Is(err, errStopped) || ctx.Err() != nil {
				return
			}
			after, temporary := Temporary(err)
			if !temporary && !errors.Is(err, errLost) {
				yield(UsageStream{}, err)
				return
			}
			wait := max(pause, after)
			pause = min(time.Duration(growth*float64(pause)), longestPause)
			select {
			case <-time.After(wait + time.Duration(rand.Float64()*spread*float64(wait))):
			case <-ctx.Done():
			}
		}
	}
}

// errStopped says that whoever watches wants no more.
var errStopped = errors.New("nobody watches any more")

// watchOnce reads one connection to its end, and reports whether it told anything.
func watchOnce(
	ctx context.Context, api ClientInterface, params *StreamUsageParams, editors []RequestEditorFn,
	tell func(UsageStream) bool,
) (told bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	awake := time.AfterFunc(silence, cancel)
	defer awake.Stop()
	accept := func(_ context.Context, r *http.Request) error {
		r.Header.Set("Accept", eventStream)
		return nil
	}
	resp, err := api.StreamUsage(ctx, params, append([]RequestEditorFn{accept}, editors...)...)
	if err != nil {
		return false, lost(err)
	}
	if resp.StatusCode != http.StatusOK {
		answer, err := ParseStreamUsageResponse(resp) // which closes the body
		_, err = Answered[UsageStream](answer, err)
		return false, err
	}
	defer func() { _ = resp.Body.Close() }()
	heard := reading{resp.Body, func() { awake.Reset(silence) }}
	for e, err := range sse.Read(heard, &sse.ReadConfig{MaxEventSize: maxEvent}) {
		if err != nil {
			return told, fmt.Errorf("%w: %w", errLost, err)
		}
		event, known, err := decodeEvent(&e)
		switch {
		case err != nil:
			return told, err
		case !known: // of a later release
			continue
		case event.End != (StreamEnd{}):
			if r := event.End.Reason; r == StreamEndReasonShutdown || r == StreamEndReasonUndecided {
				return told, errLost
			}
			return told, &StreamEndedError{event.End}
		}
		if e.LastEventID != "" {
			params.LastEventID = e.LastEventID
		}
		if told = true; !tell(event) {
			return told, errStopped
		}
	}
	return told, errLost
}

// lost marks a failure of the connection, which is tried again as any other is.
func lost(err error) error {
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w: nothing came for %s", errLost, silence)
	}
	return err
}

// decodeEvent reads an event into the member of its name.
func decodeEvent(e *sse.Event) (event UsageStream, known bool, err error) {
	var into any
	switch e.Type {
	case "standing":
		into = &event.Standing
	case "team":
		into = &event.Team
	case "alert":
		into = &event.Alert
	case "end":
		into = &event.End
	default:
		return event, false, nil
	}
	if err := json.Unmarshal([]byte(e.Data), into); err != nil {
		return event, true, fmt.Errorf("event %q of the stream: %w", e.Type, err)
	}
	return event, true, nil
}

// reading tells whenever something has come.
type reading struct {
	io.Reader

	heard func()
}

// Read implements io.Reader.
func (r reading) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 {
		r.heard()
	}
	return n, err
}
