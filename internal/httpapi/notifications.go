// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"context"
	"encoding/base64"

	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/internal/access"
	"github.com/cantonesescribe/usage-operator/internal/delivery"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Notifications are where alerts are sent to; *delivery.Service is one.
type Notifications interface {
	TeamEndpoints(ctx context.Context, team string) ([]delivery.Status, error)
	Endpoint(ctx context.Context, team, name string) (delivery.Status, error)
	PutTeamEndpoint(
		ctx context.Context, e *delivery.Endpoint, by, reason string,
	) (status delivery.Status, made *delivery.Key, err error)
	DeleteTeamEndpoint(ctx context.Context, team, name, by, reason string) error
	Rotate(
		ctx context.Context, team, name, by, reason string,
	) (status delivery.Status, made *delivery.Key, err error)
	Test(ctx context.Context, team, name string) (id string, outcome delivery.Outcome, err error)
}

// Deliveries are what is sent, and what users want to be sent; *delivery.Service is one.
type Deliveries interface {
	Keys(ctx context.Context, id delivery.EndpointID) ([]delivery.Key, error)
	Deliveries(ctx context.Context, f delivery.Filter, before delivery.ID, limit int) (delivery.Page, error)
	Delivery(ctx context.Context, id delivery.ID) (delivery.Delivery, error)
	Resend(ctx context.Context, id delivery.ID, by, reason string) (delivery.Delivery, error)
	Preferences(ctx context.Context, userID string) (delivery.Preferences, error)
	PutPreferences(
		ctx context.Context, userID string, muted []quota.AlertKind, actor string,
	) (delivery.Preferences, error)
}

const cursorDeliveries = "deliveries/1/"

// ListTeamEndpoints implements GET /api/v1/teams/{name}/notification-endpoints.
func (s *server) ListTeamEndpoints(
	ctx context.Context, r ListTeamEndpointsRequestObject,
) (ListTeamEndpointsResponseObject, error) {
	if err := s.mayTeam(ctx, r.Name); err != nil {
		return nil, err
	}
	all, err := s.notifications.TeamEndpoints(ctx, r.Name)
	out := ListTeamEndpoints200JSONResponse{Endpoints: make([]NotificationEndpoint, len(all))}
	for i := range all {
		out.Endpoints[i] = endpoint(&all[i], nil)
	}
	return out, err
}

// GetTeamEndpoint implements GET /api/v1/teams/{name}/notification-endpoints/{endpoint}.
func (s *server) GetTeamEndpoint(
	ctx context.Context, r GetTeamEndpointRequestObject,
) (GetTeamEndpointResponseObject, error) {
	if err := s.mayEndpoint(ctx, r.Name, r.Endpoint); err != nil {
		return nil, err
	}
	status, err := s.notifications.Endpoint(ctx, r.Name, r.Endpoint)
	return GetTeamEndpoint200JSONResponse(endpoint(&status, nil)), err
}

// PutTeamEndpoint implements PUT /api/v1/teams/{name}/notification-endpoints/{endpoint}.
func (s *server) PutTeamEndpoint(
	ctx context.Context, r PutTeamEndpointRequestObject,
) (PutTeamEndpointResponseObject, error) {
	if err := s.mayEndpoint(ctx, r.Name, r.Endpoint); err != nil {
		return nil, err
	}
	e := &delivery.Endpoint{Team: r.Name, Name: r.Endpoint, URL: r.Body.Url, Users: r.Body.Users,
		Signing: delivery.Ed25519, Suspended: r.Body.Suspended}
	if r.Body.Signing != "" {
		e.Signing = delivery.Signing(r.Body.Signing)
	}
	for _, kind := range r.Body.Kinds {
		e.Kinds = append(e.Kinds, quota.AlertKind(kind))
	}
	status, made, err := s.notifications.PutTeamEndpoint(ctx, e, callerFrom(ctx).user.GetName(), r.Body.Reason)
	return PutTeamEndpoint200JSONResponse(endpoint(&status, made)), err
}

// DeleteTeamEndpoint implements DELETE /api/v1/teams/{name}/notification-endpoints/{endpoint}.
func (s *server) DeleteTeamEndpoint(
	ctx context.Context, r DeleteTeamEndpointRequestObject,
) (DeleteTeamEndpointResponseObject, error) {
	if err := s.mayEndpoint(ctx, r.Name, r.Endpoint); err != nil {
		return nil, err
	}
	by := why(ctx, r.Body)
	return DeleteTeamEndpoint204Response{},
		s.notifications.DeleteTeamEndpoint(ctx, r.Name, r.Endpoint, by.Actor, by.Reason)
}

// RotateTeamEndpointKey implements POST /api/v1/teams/{name}/notification-endpoints/{endpoint}/keys.
func (s *server) RotateTeamEndpointKey(
	ctx context.Context, r RotateTeamEndpointKeyRequestObject,
) (RotateTeamEndpointKeyResponseObject, error) {
	if err := s.mayEndpoint(ctx, r.Name, r.Endpoint); err != nil {
		return nil, err
	}
	by := why(ctx, r.Body)
	status, made, err := s.notifications.Rotate(ctx, r.Name, r.Endpoint, by.Actor, by.Reason)
	return RotateTeamEndpointKey200JSONResponse(endpoint(&status, made)), err
}

// TestTeamEndpoint implements POST /api/v1/teams/{name}/notification-endpoints/{endpoint}/test.
func (s *server) TestTeamEndpoint(
	ctx context.Context, r TestTeamEndpointRequestObject,
) (TestTeamEndpointResponseObject, error) {
	if err := s.mayEndpoint(ctx, r.Name, r.Endpoint); err != nil {
		return nil, err
	}
	result, err := s.test(ctx, r.Name, r.Endpoint)
	return TestTeamEndpoint200JSONResponse(result), err
}

// TestEndpoint implements POST /api/v1/notification-endpoints/{endpoint}/test.
func (s *server) TestEndpoint(ctx context.Context, r TestEndpointRequestObject) (TestEndpointResponseObject, error) {
	if err := s.mayAll(ctx, access.ResourceDeliveries); err != nil {
		return nil, err
	}
	if err := checkTeam("endpoint", r.Endpoint); err != nil {
		return nil, err
	}
	result, err := s.test(ctx, "", r.Endpoint)
	return TestEndpoint200JSONResponse(result), err
}

func (s *server) test(ctx context.Context, team, name string) (NotificationTest, error) {
	id, outcome, err := s.notifications.Test(ctx, team, name)
	return NotificationTest{Id: id, Delivered: outcome.OK(), Status: outcome.Status, Error: outcome.Text(),
		TookMs: outcome.Took.Milliseconds()}, err
}

// GetNotificationKeys implements GET /api/v1/notification-keys/{id}.
func (s *server) GetNotificationKeys(
	ctx context.Context, r GetNotificationKeysRequestObject,
) (GetNotificationKeysResponseObject, error) {
	id := delivery.EndpointID(r.Id)
	if err := s.mayOn(ctx, callerFrom(ctx).operation.verbs, access.ResourceKeys, id.String()); err != nil {
		return nil, err
	}
	keys, err := s.deliveries.Keys(ctx, id)
	out := GetNotificationKeys200JSONResponse{Keys: []JSONWebKey{}}
	for i := range keys {
		if public := keys[i].Public(); public != nil {
			out.Keys = append(out.Keys, JSONWebKey{Kty: "OKP", Crv: "Ed25519", Kid: keys[i].Name, Use: "sig",
				Alg: "EdDSA", X: base64.RawURLEncoding.EncodeToString(public)})
		}
	}
	return out, err
}

// ListDeliveries implements GET /api/v1/deliveries.
func (s *server) ListDeliveries(
	ctx context.Context, r ListDeliveriesRequestObject,
) (ListDeliveriesResponseObject, error) {
	p := &r.Params
	if err := s.maySent(ctx, p.Team); err != nil {
		return nil, err
	}
	if p.Endpoint != "" {
		if err := checkTeam("endpoint", p.Endpoint); err != nil {
			return nil, err
		}
	}
	f := delivery.Filter{Team: p.Team, Endpoint: p.Endpoint, State: delivery.State(p.State)}
	switch f.State {
	case "", delivery.Waiting, delivery.Delivered, delivery.Dead:
	default:
		return nil, invalid("state: %.40q must be %s, %s or %s", p.State, delivery.Waiting, delivery.Delivered,
			delivery.Dead)
	}
	limit, err := pageLimit(p.Limit)
	if err != nil {
		return nil, err
	}
	before, err := parseAccountCursor(cursorDeliveries, p.Cursor)
	if err != nil {
		return nil, err
	}
	page, err := s.deliveries.Deliveries(ctx, f, delivery.ID(before), limit)
	out := ListDeliveries200JSONResponse{Deliveries: make([]Delivery, len(page.Deliveries)),
		NextCursor: accountCursor(cursorDeliveries, quota.AccountID(page.Next))}
	for i := range page.Deliveries {
		out.Deliveries[i] = encodeDelivery(&page.Deliveries[i])
	}
	return out, err
}

// ResendDelivery implements POST /api/v1/deliveries/{id}/resend.
func (s *server) ResendDelivery(
	ctx context.Context, r ResendDeliveryRequestObject,
) (ResendDeliveryResponseObject, error) {
	id := delivery.ID(r.Id)
	d, err := s.deliveries.Delivery(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := s.maySent(ctx, d.Team); err != nil {
		return nil, err
	}
	d, err = s.deliveries.Resend(ctx, id, callerFrom(ctx).user.GetName(), r.Body.Reason)
	return ResendDelivery200JSONResponse(encodeDelivery(&d)), err
}

// GetNotificationPreferences implements GET /api/v1/usage/notification-preferences.
func (s *server) GetNotificationPreferences(
	ctx context.Context, r GetNotificationPreferencesRequestObject,
) (GetNotificationPreferencesResponseObject, error) {
	user := r.Params.UserId
	if err := s.mayUser(ctx, user); err != nil {
		return nil, err
	}
	p, err := s.deliveries.Preferences(ctx, user)
	return GetNotificationPreferences200JSONResponse(encodePreferences(user, &p)), err
}

// PutNotificationPreferences implements PUT /api/v1/usage/notification-preferences.
func (s *server) PutNotificationPreferences(
	ctx context.Context, r PutNotificationPreferencesRequestObject,
) (PutNotificationPreferencesResponseObject, error) {
	user := r.Params.UserId
	if err := s.mayUser(ctx, user); err != nil {
		return nil, err
	}
	if r.Body.Muted == nil {
		return nil, invalid("muted: is missing, it must be a list of kinds of alerts, empty to be told of all")
	}
	muted := make([]quota.AlertKind, len(r.Body.Muted))
	for i, kind := range r.Body.Muted {
		muted[i] = quota.AlertKind(kind)
	}
	p, err := s.deliveries.PutPreferences(ctx, user, muted, callerFrom(ctx).user.GetName())
	return PutNotificationPreferences200JSONResponse(encodePreferences(user, &p)), err
}

func encodePreferences(user string, p *delivery.Preferences) NotificationPreferences {
	out := NotificationPreferences{UserId: user, Muted: make([]string, len(p.Muted)), UpdatedAt: p.UpdatedAt}
	for i, kind := range p.Muted {
		out.Muted[i] = string(kind)
	}
	return out
}

// maySent says whether the caller may see and change what is sent to a team's own endpoints, or to all if it is empty.
func (s *server) maySent(ctx context.Context, team string) error {
	if team == "" {
		return s.mayAll(ctx, access.ResourceDeliveries)
	}
	if err := checkTeam("team", team); err != nil {
		return err
	}
	return s.mayOn(ctx, manage, access.ResourceTeams, team)
}

// mayEndpoint is mayTeam, and says whether the name can be an endpoint's.
func (s *server) mayEndpoint(ctx context.Context, team, name string) error {
	if err := s.mayTeam(ctx, team); err != nil {
		return err
	}
	return checkTeam("endpoint", name)
}

// UnmarshalJSON refuses unknown fields.
func (b *NotificationPreferencesRequest) UnmarshalJSON(data []byte) error {
	type plain NotificationPreferencesRequest
	return strict(data, (*plain)(b))
}

// UnmarshalJSON refuses unknown fields.
func (b *NotificationEndpointRequest) UnmarshalJSON(data []byte) error {
	type plain NotificationEndpointRequest
	return strict(data, (*plain)(b))
}

// endpoint shows an endpoint, with the secret of the key that was just made for it, nil if none was.
func endpoint(s *delivery.Status, made *delivery.Key) NotificationEndpoint {
	state := &s.State
	out := NotificationEndpoint{
		Id: uuid.UUID(s.ID), Name: s.Name, Url: s.URL, Users: s.Users,
		Signing:    NotificationEndpointSigning(s.Signing),
		Suspended:  s.Suspended,
		Delivering: !s.Suspended && state.DisabledAt.IsZero() && state.Failures < delivery.Failing,
		DisabledAt: state.DisabledAt, DisabledReason: state.DisabledReason, LastSuccessAt: state.LastSuccess,
		LastFailureAt: state.LastFailure, LastFailure: state.Failure, Waiting: s.Waiting, Dead: s.Dead,
		Keys: make([]NotificationKey, len(s.Keys)),
	}
	for _, kind := range s.Kinds {
		out.Kinds = append(out.Kinds, string(kind))
	}
	for i := range s.Keys {
		k := &s.Keys[i]
		out.Keys[i] = NotificationKey{Name: k.Name, PublicKey: k.PublicText(), CreatedAt: k.CreatedAt, EndsAt: k.EndsAt}
	}
	if made != nil {
		out.Secret = made.SecretText()
	}
	return out
}

func encodeDelivery(d *delivery.Delivery) Delivery {
	out := Delivery{
		Id: uuid.UUID(d.ID), Endpoint: d.Endpoint, Team: d.Team, AlertId: uuid.UUID(d.Alert), Kind: string(d.Kind),
		State: DeliveryState(d.State), Attempts: int32(d.Attempts), CreatedAt: d.CreatedAt, ExpiresAt: d.ExpiresAt,
		FirstAttemptAt: d.FirstAttemptAt, LastAttemptAt: d.LastAttemptAt, FinishedAt: d.FinishedAt,
		LastStatus: int32(d.LastStatus), LastError: d.LastError, ResentBy: d.ResentBy,
	}
	if d.State == delivery.Waiting {
		out.NextAttemptAt = d.NextAttemptAt
	}
	return out
}
