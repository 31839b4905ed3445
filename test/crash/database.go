// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/cantonesescribe/usage-operator/internal/testing/cutproxy"
	"github.com/cantonesescribe/usage-operator/internal/testing/pgserver"
)

// database is a primary with a synchronous standby, and the proxies through which everybody reaches the primary.
type database struct {
	primary, standby *pgserver.Server
	// retired servers are kept until the end, for their logs.
	retired []*pgserver.Server
	// replication is the standby's way to the primary, clients are the programs'.
	replication *cutproxy.Proxy
	clients     []*cutproxy.Proxy
	standbys    int
}

func startDatabase(ctx context.Context) (_ *database, err error) {
	d := &database{}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.stop())
		}
	}()
	if d.primary, err = pgserver.Start(ctx, pgserver.Options{Durable: true}); err != nil {
		return nil, err
	}
	if d.replication, err = cutproxy.Start(d.primary.Addr()); err != nil {
		return nil, err
	}
	return d, d.replicate(ctx)
}

// replicate gives the primary a synchronous standby.
func (d *database) replicate(ctx context.Context) error {
	d.standbys++
	name := fmt.Sprintf("standby%d", d.standbys)
	standby, err := d.primary.Standby(ctx, name, d.replication.Addr())
	if err != nil {
		return fmt.Errorf("make a standby: %w", err)
	}
	d.standby = standby
	return d.primary.Synchronous(ctx, name)
}

// dsn is the primary's, without a proxy.
func (d *database) dsn() string { return d.primary.DSN("postgres") }

// proxy makes a way to the primary that can be broken without breaking those of others.
func (d *database) proxy() (p *cutproxy.Proxy, dsn string, err error) {
	if p, err = cutproxy.Start(d.primary.Addr()); err != nil {
		return nil, "", err
	}
	d.clients = append(d.clients, p)
	if dsn, err = p.DSN(d.dsn()); err != nil {
		return nil, "", err
	}
	// A server that does not answer is given up soon.
	u, err := url.Parse(dsn)
	if err != nil {
		return nil, "", err
	}
	q := u.Query()
	q.Set("connect_timeout", "5")
	u.RawQuery = q.Encode()
	return p, u.String(), nil
}

// point leads everybody to where the primary is now.
func (d *database) point() {
	for _, p := range append([]*cutproxy.Proxy{d.replication}, d.clients...) {
		p.SetTarget(d.primary.Addr())
	}
}

// promote makes the standby the primary, for the primary is gone for good, and gives it a standby of its own.
func (d *database) promote(ctx context.Context, promoted func()) error {
	if err := d.standby.Promote(ctx); err != nil {
		return err
	}
	d.retired = append(d.retired, d.primary)
	d.primary, d.standby = d.standby, nil
	d.point()
	promoted()
	return d.replicate(ctx)
}

func (d *database) accepted() (n int) {
	for _, p := range d.clients {
		n += p.Stats().Accepted
	}
	return n
}

func (d *database) servers() []*pgserver.Server {
	all := append([]*pgserver.Server{}, d.retired...)
	for _, s := range []*pgserver.Server{d.primary, d.standby} {
		if s != nil {
			all = append(all, s)
		}
	}
	return all
}

func (d *database) stop() error {
	var errs []error
	for _, p := range append([]*cutproxy.Proxy{d.replication}, d.clients...) {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	// The standby first: a primary that shuts down waits for it to have everything.
	for i := len(d.servers()) - 1; i >= 0; i-- {
		errs = append(errs, d.servers()[i].Stop())
	}
	return errors.Join(errs...)
}
