package thingsboard

import (
	"strconv"
	"strings"

	"muster"
)

// ThingsBoard's topics (MqttTopics.java of thingsboard/thingsboard): the long ones
// of the device API, the short ones of its version 2, gateways, self-registration.
const (
	deviceTopics  = "v1/devices/me/"
	gatewayTopics = "v1/gateway/"
	shortTopics   = "v2/"

	provisionRequest  = "/provision/request"
	provisionResponse = "/provision/response"

	gatewayAttributes = gatewayTopics + "attributes"
	gatewayAnswers    = gatewayTopics + "attributes/response"
	gatewayRPC        = gatewayTopics + "rpc"
)

// Is says whether topic, a topic name or a filter, belongs to ThingsBoard's API as
// this package translates it. It looks at the beginning only and allocates nothing.
func Is(topic string) bool {
	if len(topic) < 3 {
		return false
	}
	switch topic[0] {
	case 'v':
		return strings.HasPrefix(topic, deviceTopics) || strings.HasPrefix(topic, gatewayTopics) || isShort(topic)
	case '/':
		return strings.HasPrefix(topic, "/provision/")
	}
	return false
}

// isShort says whether topic is v2/t, v2/a, v2/r or v2/c, or below one of them, or below
// v2/fw or v2/sw.
func isShort(topic string) bool {
	if !strings.HasPrefix(topic, shortTopics) || len(topic) < 4 {
		return false
	}
	switch topic[3] {
	case 't', 'a', 'r', 'c':
		return len(topic) == 4 || topic[4] == '/'
	}
	return isImage(topic)
}

// verb is what a message published to one of the topics means.
type verb uint8

const (
	verbNone verb = iota
	verbTelemetry
	verbAttributes
	verbAttributesRequest
	verbResult  // the answer to a server-side RPC
	verbRequest // a client-side RPC
	verbClaim
	verbGatewayConnect
	verbGatewayDisconnect
	verbGatewayTelemetry
	verbGatewayAttributes
	verbGatewayAttributesRequest
	verbGatewayResult
	verbGatewayClaim
	verbProvision
	verbPart // for a part of an image
)

// dialect is the spelling a client uses, in which its answers go back.
type dialect uint8

const (
	long      dialect = iota // v1/devices/me/...
	short                    // v2/...
	shortJSON                // v2/.../j
	gateway                  // v1/gateway/...
)

// route is a topic name taken apart.
type route struct {
	verb    verb
	dialect dialect
	id      int64 // the client's number, for the verbs that carry one
	part    int64 // of verbPart: which, from 0
	soft    bool  // of verbPart: v2/sw
}

// fixed returns the route of a topic without a number.
func fixed(topic string) route {
	switch topic {
	case "v1/devices/me/telemetry":
		return route{verb: verbTelemetry}
	case "v1/devices/me/attributes":
		return route{verb: verbAttributes}
	case "v1/devices/me/claim":
		return route{verb: verbClaim}
	case "v2/t":
		return route{verb: verbTelemetry, dialect: short}
	case "v2/t/j":
		return route{verb: verbTelemetry, dialect: shortJSON}
	case "v2/a":
		return route{verb: verbAttributes, dialect: short}
	case "v2/a/j":
		return route{verb: verbAttributes, dialect: shortJSON}
	case "v2/c":
		return route{verb: verbClaim, dialect: short}
	case "v2/c/j":
		return route{verb: verbClaim, dialect: shortJSON}
	case "v1/gateway/connect":
		return route{verb: verbGatewayConnect, dialect: gateway}
	case "v1/gateway/disconnect":
		return route{verb: verbGatewayDisconnect, dialect: gateway}
	case "v1/gateway/telemetry":
		return route{verb: verbGatewayTelemetry, dialect: gateway}
	case "v1/gateway/attributes":
		return route{verb: verbGatewayAttributes, dialect: gateway}
	case "v1/gateway/attributes/request":
		return route{verb: verbGatewayAttributesRequest, dialect: gateway}
	case "v1/gateway/rpc":
		return route{verb: verbGatewayResult, dialect: gateway}
	case "v1/gateway/claim":
		return route{verb: verbGatewayClaim, dialect: gateway}
	case provisionRequest:
		return route{verb: verbProvision}
	}
	return route{}
}

// numberedRoutes are followed by the client's number. j/ stands before it in the
// short spelling that asks for JSON.
var numberedRoutes = [...]struct {
	prefix string
	route  route
}{
	{"v1/devices/me/attributes/request/", route{verb: verbAttributesRequest}},
	{"v1/devices/me/rpc/response/", route{verb: verbResult}},
	{"v1/devices/me/rpc/request/", route{verb: verbRequest}},
	{"v2/a/req/", route{verb: verbAttributesRequest, dialect: short}},
	{"v2/r/res/", route{verb: verbResult, dialect: short}},
	{"v2/r/req/", route{verb: verbRequest, dialect: short}},
}

// parse takes a topic name apart, without allocating.
func parse(topic string) (route, error) {
	if r := fixed(topic); r.verb != verbNone {
		return r, nil
	}
	for _, n := range numberedRoutes {
		rest, ok := strings.CutPrefix(topic, n.prefix)
		if !ok {
			continue
		}
		r := n.route
		if tail, json := strings.CutPrefix(rest, "j/"); json && r.dialect == short {
			r.dialect, rest = shortJSON, tail
		}
		if strings.HasPrefix(rest, "p/") && r.dialect == short {
			return route{}, errProtobuf()
		}
		id, err := requestID(rest)
		r.id = id
		return r, err
	}
	if isImage(topic) {
		return parsePart(topic)
	}
	if isShort(topic) && strings.HasSuffix(topic, "/p") {
		return route{}, errProtobuf()
	}
	return route{}, muster.Errorf(muster.Invalid, "ThingsBoard's API has no such topic to publish to")
}

func errProtobuf() error {
	return muster.Errorf(muster.Invalid, "payloads in Protocol Buffers are not taken: publish JSON, to the topic without /p")
}

// requestID reads the number behind a topic, or a command's id: decimal digits.
func requestID(s string) (int64, error) {
	id, err := strconv.ParseInt(s, 10, 64)
	if err != nil || s[0] < '0' {
		return 0, muster.Errorf(muster.Invalid, "the request number in the topic is not a whole number of 0 or more")
	}
	return id, nil
}

// canonical returns devices/{id}/{rest}.
func canonical(id muster.DeviceID, rest string) string {
	return "devices/" + string(id) + "/" + rest
}

// number writes a request's number, or a command's id.
func number(id int64) string { return strconv.FormatInt(id, 10) }
