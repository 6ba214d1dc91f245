package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"go.etcd.io/etcd/server/v3/embed"
)

// startEtcd starts an etcd of one member that keeps its data in dir, and returns its client URL once it leads.
// It trades durability for speed: a machine that loses power loses this data, and nobody minds.
func startEtcd(ctx context.Context, dir string) (string, error) {
	config := embed.NewConfig()
	config.Dir = dir
	config.LogLevel = "error"
	config.UnsafeNoFsync = true
	config.TickMs, config.ElectionMs = 10, 100
	anyPort := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	config.ListenClientUrls, config.AdvertiseClientUrls = anyPort, anyPort
	config.ListenPeerUrls, config.AdvertisePeerUrls = anyPort, anyPort
	config.InitialCluster = config.InitialClusterFromName(config.Name)

	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return "", fmt.Errorf("cannot start etcd: %w", err)
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return "http://" + etcd.Clients[0].Addr().String(), nil
	case <-etcd.Server.StopNotify():
		return "", errors.New("cannot start etcd: it stopped before it was ready")
	case err := <-etcd.Err():
		return "", fmt.Errorf("cannot start etcd: %w", err)
	case <-ctx.Done():
		return "", fmt.Errorf("cannot start etcd: %w", context.Cause(ctx))
	}
}
