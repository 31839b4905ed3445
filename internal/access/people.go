// SPDX-License-Identifier: Apache-2.0

package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
	"k8s.io/apiserver/pkg/authentication/token/cache"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// UserIDKey is the key under claimMappings.extra whose value is a person's user id. Without it that is the username
// without the prefix of claimMappings.username.
const UserIDKey = Group + "/user-id"

const (
	// tokenTTL is how long a token that was checked is not checked again, as in the API server: so long it may outlive
	// its own end, or its issuer.
	tokenTTL = 10 * time.Second
	// issuerTimeout bounds a request to an issuer.
	issuerTimeout = 10 * time.Second
	// discoveryPath is where an issuer says what it is.
	discoveryPath = "/.well-known/openid-configuration"
	// reserved begins the names that are Kubernetes' own, of which an issuer outside can give none.
	reserved = "system:"
)

// Person is whom a JWT of an issuer outside the cluster names.
type Person struct {
	user.Info

	// UserID is whose usage is this person's own.
	UserID string
}

// People knows the issuers of one AuthenticationConfiguration. It is safe for concurrent use.
type People struct {
	issuers map[string]*issuer
}

// issuer checks the tokens of one issuer.
type issuer struct {
	keys   *keySet
	source apiserver.Issuer
	// check is what a cache stands before.
	check authenticator.Token
	inner authenticator.Token
	// prefix is what the mapping puts before a username, and named says that it maps a user id.
	prefix string
	named  bool
}

// ParsePeople reads an AuthenticationConfiguration as the API server's own flag of that name takes it. Its errors name
// the field, the value and what is allowed. Keys of issuers that before knows already are not fetched again; before may
// be nil. The issuers need not answer: they are asked at the first token of theirs.
func ParsePeople(ctx context.Context, data []byte, before *People) (*People, error) {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	decoded, err := runtime.Decode(serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDecoder(), data)
	if err != nil {
		return nil, err
	}
	config, ok := decoded.(*apiserver.AuthenticationConfiguration)
	switch {
	case !ok:
		return nil, fmt.Errorf("kind: is %s, must be AuthenticationConfiguration",
			decoded.GetObjectKind().GroupVersionKind().Kind)
	case config.Anonymous != nil && config.Anonymous.Enabled:
		return nil, errors.New("anonymous.enabled: is true, must be false or absent: nobody is let in unnamed")
	}
	compiler := authenticationcel.NewDefaultCompiler()
	if err := validation.ValidateAuthenticationConfiguration(compiler, config, nil).ToAggregate(); err != nil {
		return nil, err
	}
	p := &People{issuers: map[string]*issuer{}}
	for n := range config.JWT {
		i, err := newIssuer(ctx, compiler, &config.JWT[n], before)
		if err != nil {
			return nil, fmt.Errorf("jwt[%d]: %w", n, err)
		}
		p.issuers[config.JWT[n].Issuer.URL] = i
	}
	return p, nil
}

func newIssuer(
	ctx context.Context, compiler authenticationcel.Compiler, config *apiserver.JWTAuthenticator, before *People,
) (*issuer, error) {
	i := &issuer{source: config.Issuer}
	if prefix := config.ClaimMappings.Username.Prefix; prefix != nil {
		i.prefix = *prefix
	}
	for _, extra := range config.ClaimMappings.Extra {
		i.named = i.named || extra.Key == UserIDKey
	}
	if i.keys = before.keysOf(config.Issuer); i.keys == nil {
		keys, err := newKeySet(config.Issuer)
		if err != nil {
			return nil, err
		}
		i.keys = keys
	}
	source := *config
	source.Issuer.DiscoveryURL, source.Issuer.CertificateAuthority = "", "" // both are the key set's
	var err error
	i.inner, err = oidc.New(ctx, oidc.Options{
		JWTAuthenticator: source, KeySet: i.keys, Compiler: compiler,
		Client: i.keys.client, SupportedSigningAlgs: oidc.AllValidSigningAlgorithms(),
	})
	if err != nil {
		return nil, err
	}
	i.check = cache.New(authenticator.TokenFunc(i.person), false, tokenTTL, 0)
	return i, nil
}

func newKeySet(source apiserver.Issuer) (*keySet, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, IdleConnTimeout: time.Minute,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	if source.CertificateAuthority != "" {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM([]byte(source.CertificateAuthority)) {
			return nil, errors.New("issuer.certificateAuthority: has no certificate in PEM")
		}
		transport.TLSClientConfig.RootCAs = roots
	}
	k := &keySet{
		issuer: source.URL, discovery: source.DiscoveryURL, now: time.Now,
		client: &http.Client{Transport: transport, Timeout: issuerTimeout},
	}
	if k.discovery == "" {
		k.discovery = strings.TrimSuffix(source.URL, "/") + discoveryPath
	}
	for _, a := range oidc.AllValidSigningAlgorithms() {
		k.algorithms = append(k.algorithms, jose.SignatureAlgorithm(a))
	}
	return k, nil
}

// keysOf returns the keys of an issuer that is described in the same way, if it is known.
func (p *People) keysOf(source apiserver.Issuer) *keySet {
	if p == nil {
		return nil
	}
	i := p.issuers[source.URL]
	if i == nil || i.source.DiscoveryURL != source.DiscoveryURL ||
		i.source.CertificateAuthority != source.CertificateAuthority {
		return nil
	}
	return i.keys
}

// Who returns whom a token names, nil if it is no token of a known issuer: then somebody else may know it. The error is
// ErrUnauthenticated with what is wrong with a token of such an issuer, or ErrUndecided while its keys cannot be had.
func (p *People) Who(ctx context.Context, token string) (*Person, error) {
	i := p.issuers[claimedIssuer(token)]
	if i == nil {
		return nil, nil //nolint:nilnil // nobody here knows the token, which is no error
	}
	resp, ok, err := i.check.AuthenticateToken(ctx, token)
	if err != nil {
		return nil, err
	}
	person, is := (*Person)(nil), false
	if ok {
		person, is = resp.User.(*Person)
	}
	if !is {
		return nil, ErrUnauthenticated
	}
	return person, nil
}

// person checks a token of the issuer.
func (i *issuer) person(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	if err := i.keys.have(ctx, token); err != nil {
		return nil, false, err
	}
	resp, ok, err := i.inner.AuthenticateToken(ctx, token)
	switch {
	case err != nil:
		return nil, false, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	case !ok:
		return nil, false, ErrUnauthenticated
	}
	person, err := i.name(resp.User)
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	return &authenticator.Response{User: person}, true, nil
}

// name returns the person whom the issuer's mappings have named so.
func (i *issuer) name(who user.Info) (*Person, error) {
	for _, name := range append([]string{who.GetName()}, who.GetGroups()...) {
		if strings.HasPrefix(name, reserved) {
			return nil, fmt.Errorf("it maps to %.80q: names that begin with %q are Kubernetes' own", name, reserved)
		}
	}
	id, from := strings.TrimPrefix(who.GetName(), i.prefix), "claimMappings.username"
	if i.named {
		from = "claimMappings.extra " + UserIDKey
		values := who.GetExtra()[UserIDKey]
		if len(values) != 1 {
			return nil, fmt.Errorf("%s: has %d values, must have one", from, len(values))
		}
		id = values[0]
	}
	if err := quota.UserIDs.Check(id); err != nil {
		return nil, fmt.Errorf("%s: user id %w", from, err)
	}
	extra := maps.Clone(who.GetExtra())
	delete(extra, UserIDKey)
	delete(extra, user.CredentialIDKey) // of each token another, so that no answer about its rights could be kept
	return &Person{UserID: id, Info: &user.DefaultInfo{
		Name: who.GetName(), UID: who.GetUID(), Extra: extra,
		Groups: append(append([]string(nil), who.GetGroups()...), user.AllAuthenticated),
	}}, nil
}

// claimedIssuer is the issuer that a JWT says it is of, before anything of it is checked.
func claimedIssuer(token string) string {
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	decoded, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return ""
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(decoded, &claims) != nil {
		return ""
	}
	return claims.Issuer
}
