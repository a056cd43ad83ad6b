package accounts

import (
	"crypto/sha256"
	"slices"
	"strings"

	"muster"
)

// MQTTClient is who an MQTT client is that is no device, and which topics it may use.
// Its lists are shared and must not be changed.
type MQTTClient struct {
	ID    string // of the service account or API key
	Name  string // unique: a service account's name, or an API key's name, a space and its id
	Admin bool   // may use every topic
	// Publish and Subscribe are the filters of topics it may use.
	Publish, Subscribe []string
	// ReadFree lets it subscribe to every filter for which muster.FreeFilter is true,
	// WriteFree publish to every topic for which muster.FreeTopic is. No list of filters
	// can say that.
	ReadFree, WriteFree bool
	// Selector is the device query of an API key, of whose devices alone the topics are
	// meant; empty for all.
	Selector string
}

// AuthenticateMQTT returns who a client is that is no device, in memory: an API key
// as user name, a service account's secret as user name (both with any password), or
// a service account's name and secret as user name and password. Who is unknown,
// disabled or expired gets one answer: Unauthorized. A key with neither the scope
// mqtt nor admin is Forbidden.
//
// What an API key with the scope mqtt may do follows from its other scopes:
//
//	admin          every topic
//	telemetry:read subscribe devices/+/telemetry/#
//	devices:read   subscribe devices/+/presence, devices/+/reported, devices/+/events/#
//	commands:send  publish   devices/+/commands/+
//	               subscribe devices/+/commands/+/result
//	topics:read    subscribe every free filter (muster.FreeFilter)
//	topics:write   publish   every free topic (muster.FreeTopic)
//
// The other scopes add nothing.
func (a *Accounts) AuthenticateMQTT(username string, password []byte) (MQTTClient, error) {
	if len(username) > maxSecret || len(password) > maxSecret {
		return MQTTClient{}, errClient()
	}
	if strings.HasPrefix(username, keyPrefix) {
		k, err := a.key(username)
		if err != nil {
			return MQTTClient{}, errClient()
		}
		return k.client()
	}
	hash, byName := sha256.Sum256(password), true
	if strings.HasPrefix(username, secretPrefix) {
		hash, byName = sha256.Sum256([]byte(username)), false
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	s, ok := a.services[a.serviceHashes[hash]]
	if !ok || byName && s.Name != username || !s.usable(muster.MicrosOf(a.now())) {
		return MQTTClient{}, errClient()
	}
	return s.client(), nil
}

// RefreshMQTT returns what the API key or service account id may do now, in memory.
// Unauthorized when it is gone, disabled or expired.
func (a *Accounts) RefreshMQTT(id string) (MQTTClient, error) {
	at := muster.MicrosOf(a.now())
	a.mu.RLock()
	defer a.mu.RUnlock()
	if s, ok := a.services[id]; ok && s.usable(at) {
		return s.client(), nil
	}
	hash, ok := a.hashes[id]
	if ok && a.keys[hash].alive(at) {
		return a.keys[hash].client()
	}
	return MQTTClient{}, errClient()
}

func (s ServiceAccount) client() MQTTClient {
	return MQTTClient{ID: s.ID, Name: s.Name, Publish: s.Publish, Subscribe: s.Subscribe}
}

// client is the table of AuthenticateMQTT.
func (k keyNow) client() (MQTTClient, error) {
	c := MQTTClient{ID: k.ID, Name: k.Name + " " + k.ID, Selector: k.Selector}
	switch {
	case slices.Contains(k.scopes, Admin):
		c.Admin = true
		return c, nil
	case !slices.Contains(k.scopes, MQTT):
		return MQTTClient{}, muster.Errorf(muster.Forbidden, "this API key lacks the scope mqtt")
	}
	for _, scope := range k.scopes {
		switch scope {
		case TelemetryRead:
			c.Subscribe = append(c.Subscribe, "devices/+/telemetry/#")
		case DevicesRead:
			c.Subscribe = append(c.Subscribe, "devices/+/presence", "devices/+/reported", "devices/+/events/#")
		case CommandsSend:
			c.Publish = append(c.Publish, "devices/+/commands/+")
			c.Subscribe = append(c.Subscribe, "devices/+/commands/+/result")
		case TopicsRead:
			c.ReadFree = true
		case TopicsWrite:
			c.WriteFree = true
		}
	}
	return c, nil
}

func errClient() error { return muster.Errorf(muster.Unauthorized, "bad user name or password") }
