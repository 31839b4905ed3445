// SPDX-License-Identifier: Apache-2.0

package access

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/loop"
)

// PeopleInterval is how soon a changed AuthenticationConfiguration is read at the latest.
const PeopleInterval = 10 * time.Second

// PeopleFile keeps the people of a file that may change while the process runs. It is safe for concurrent use.
type PeopleFile struct {
	path    string
	current atomic.Pointer[People]
	// read is the file's content as it was last looked at. Only one goroutine reads.
	read []byte
}

// OpenPeople reads an AuthenticationConfiguration. Its errors name the file and what is wrong in it.
func OpenPeople(ctx context.Context, path string) (*PeopleFile, error) {
	f := &PeopleFile{path: path}
	return f, f.reread(ctx)
}

// Follow reads the file again whenever it has changed, until ctx ends. One that is missing or wrong is told to log, and
// what was read before it goes on.
func (f *PeopleFile) Follow(ctx context.Context, observe loop.Observer, log func(err error, message string)) {
	loop.Task{Name: "authentication-config", Period: PeopleInterval, Timeout: PeopleInterval,
		Do: func(turn context.Context) error {
			err := f.reread(ctx)
			if err != nil && turn.Err() == nil {
				log(err, "Read the changed AuthenticationConfiguration; the one before it goes on")
			}
			return err
		}}.Run(ctx, observe)
}

func (f *PeopleFile) reread(ctx context.Context) error {
	data, err := os.ReadFile(f.path)
	if err != nil {
		return err
	}
	before := f.current.Load()
	if before != nil && bytes.Equal(data, f.read) {
		return nil
	}
	people, err := ParsePeople(ctx, data, before)
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	f.current.Store(people)
	f.read = data
	return nil
}

// Who is that of the People whom the file names now.
func (f *PeopleFile) Who(ctx context.Context, token string) (*Person, error) {
	return f.current.Load().Who(ctx, token)
}

// Issuer is how one of the file's is asked.
type Issuer struct {
	// HTTP trusts it.
	HTTP *http.Client
	// Discovery is the URL below which it says what it is, without /.well-known/openid-configuration.
	Discovery string
}

// SignsIn returns how the issuer is asked that people sign in at as the client. The error says what the file lacks:
// that issuer, or the client among those whom its tokens may be for.
func (f *PeopleFile) SignsIn(issuer, client string) (Issuer, error) {
	known := f.current.Load().issuers[issuer]
	if known == nil {
		return Issuer{}, fmt.Errorf("issuer %s: %s does not name it", issuer, f.path)
	}
	if !slices.Contains(known.source.Audiences, client) {
		return Issuer{}, fmt.Errorf("client %q: %s has only %q among the audiences of issuer %s", client, f.path,
			known.source.Audiences, issuer)
	}
	return Issuer{HTTP: known.keys.client, Discovery: strings.TrimSuffix(known.keys.discovery, discoveryPath)}, nil
}

// knows reports whether the issuer is one of those whom the file names now.
func (f *PeopleFile) knows(issuer string) bool { return f.current.Load().issuers[issuer] != nil }
