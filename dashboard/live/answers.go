package live

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"strconv"
)

func (g *Gateway) welcome(re *int64, sid string, who Principal) []byte {
	b := appendRe([]byte(`{"t":"welcome"`), re)
	b = appendString(append(b, `,"sid":`...), sid)
	b = strconv.AppendInt(append(b, `,"proto":1,"ping":`...), pingSeconds, 10)
	b = strconv.AppendInt(append(b, `,"time":`...), g.deps.Now().UnixMilli(), 10)
	b = appendString(append(b, `,"version":`...), g.cfg.Version)
	b = strconv.AppendInt(append(b, `,"mqtt_port":`...), int64(g.cfg.MQTTPort), 10)
	b = appendString(append(b, `,"user":{"name":`...), who.Name)
	b = appendString(append(b, `,"role":`...), who.Role)
	return append(b, "}}"...)
}

func errorFrame(id *int64, ch, code, detail string, retry bool) []byte {
	b := appendRe([]byte(`{"t":"error"`), id)
	if ch != "" {
		b = appendString(append(b, `,"ch":`...), shorten(ch))
	}
	b = appendString(append(b, `,"code":`...), code)
	b = appendString(append(b, `,"detail":`...), detail)
	b = strconv.AppendBool(append(b, `,"retry":`...), retry)
	return append(b, '}')
}

func appendRe(b []byte, id *int64) []byte {
	if id == nil {
		return b
	}
	return strconv.AppendInt(append(b, `,"re":`...), *id, 10)
}

// shorten bounds what is repeated to a client of its own words.
func shorten(s string) string {
	if len(s) > 160 {
		return beginning(s, 160)
	}
	return s
}

func rateFrame(hz uint8, why string) []byte {
	b := append([]byte(`{"t":"rate","hz":`), strconv.Itoa(int(hz))...)
	b = appendString(append(b, `,"why":`...), why)
	return append(b, '}')
}

func byeFrame(code int, why string) []byte {
	retry := minRetry
	if code == codeShutdown {
		retry += rand.IntN(spreadRetry - minRetry)
	}
	b := append([]byte(`{"t":"bye","code":`), strconv.Itoa(code)...)
	if code < codeProtocol {
		b = append(append(b, `,"retry_ms":`...), strconv.Itoa(retry)...)
	}
	b = appendString(append(b, `,"why":`...), why)
	return append(b, '}')
}

// problem answers a request that is not upgraded, as RFC 9457 has it.
func problem(w http.ResponseWriter, status int, code, detail string) {
	body, err := json.Marshal(map[string]any{
		"type": "about:blank", "title": http.StatusText(status), "status": status, "code": code, "detail": detail,
	})
	if err != nil { // strings and a number always marshal
		body = []byte("{}")
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that has gone is not told
}
