package webhook_test

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster"
	"muster/notify/webhook"
)

// The vector of the specification's own libraries (standard-webhooks/standard-webhooks,
// libraries/go/webhook_test.go, TestWebhookSign; the same in its other languages).
const (
	vectorSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	vectorID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	vectorTime      = 1614265330
	vectorBody      = `{"test": 2432232314}`
	vectorSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

func key(t testing.TB, secret string) []byte {
	t.Helper()
	k, err := webhook.ParseSecret(secret)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestTheSignatureIsTheSpecifications(t *testing.T) {
	at := time.Unix(vectorTime, 0)
	if got := webhook.Sign([][]byte{key(t, vectorSecret)}, vectorID, at, []byte(vectorBody)); got != vectorSignature {
		t.Errorf("signature is %s", got)
	}
	h := headers(vectorID, "1614265330", vectorSignature)
	if err := webhook.Verify(vectorSecret, h, []byte(vectorBody), at); err != nil {
		t.Error(err)
	}
}

func headers(id, stamp, signature string) http.Header {
	h := http.Header{}
	for name, v := range map[string]string{webhook.HeaderID: id, webhook.HeaderTimestamp: stamp, webhook.HeaderSignature: signature} {
		if v != "" {
			h.Set(name, v)
		}
	}
	return h
}

func TestVerifyTakesWhatIsSignedAndNothingElse(t *testing.T) {
	const other = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc="
	at := time.Unix(vectorTime, 0)
	tests := []struct {
		name   string
		h      http.Header
		body   string
		secret string
		now    time.Time
		kind   muster.Kind
		good   bool
	}{
		{"as it was signed", headers(vectorID, "1614265330", vectorSignature), vectorBody, vectorSecret, at, 0, true},
		{"the secret without its prefix", headers(vectorID, "1614265330", vectorSignature), vectorBody, vectorSecret[6:], at, 0, true},
		{"one of several signatures", headers(vectorID, "1614265330", other+" v1a,AAAA v2,x "+vectorSignature), vectorBody, vectorSecret, at, 0, true},
		{"five minutes late", headers(vectorID, "1614265330", vectorSignature), vectorBody, vectorSecret, at.Add(5 * time.Minute), 0, true},
		{"more than five minutes late", headers(vectorID, "1614265330", vectorSignature), vectorBody, vectorSecret, at.Add(5*time.Minute + time.Second), muster.Unauthorized, false},
		{"more than five minutes early", headers(vectorID, "1614265330", vectorSignature), vectorBody, vectorSecret, at.Add(-5*time.Minute - time.Second), muster.Unauthorized, false},
		{"another signature", headers(vectorID, "1614265330", other), vectorBody, vectorSecret, at, muster.Unauthorized, false},
		{"another body", headers(vectorID, "1614265330", vectorSignature), vectorBody + " ", vectorSecret, at, muster.Unauthorized, false},
		{"another id", headers("msg_x", "1614265330", vectorSignature), vectorBody, vectorSecret, at, muster.Unauthorized, false},
		{"another time", headers(vectorID, "1614265331", vectorSignature), vectorBody, vectorSecret, at, muster.Unauthorized, false},
		{"another spelling of the time", headers(vectorID, "+1614265330", vectorSignature), vectorBody, vectorSecret, at, muster.Unauthorized, false},
		{"no time at all", headers(vectorID, "now", vectorSignature), vectorBody, vectorSecret, at, muster.Unauthorized, false},
		{"the id missing", headers("", "1614265330", vectorSignature), vectorBody, vectorSecret, at, muster.Unauthorized, false},
		{"the time missing", headers(vectorID, "", vectorSignature), vectorBody, vectorSecret, at, muster.Unauthorized, false},
		{"the signature missing", headers(vectorID, "1614265330", ""), vectorBody, vectorSecret, at, muster.Unauthorized, false},
		{"another scheme's name before it", headers(vectorID, "1614265330", "v2"+vectorSignature[2:]), vectorBody, vectorSecret, at, muster.Unauthorized, false},
		{"a short secret", headers(vectorID, "1614265330", vectorSignature), vectorBody, "whsec_c2hvcnQ=", at, muster.Invalid, false},
		{"the right one after too many", headers(vectorID, "1614265330", strings.Repeat(other+" ", 16)+vectorSignature), vectorBody, vectorSecret, at, muster.Unauthorized, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := webhook.Verify(tt.secret, tt.h, []byte(tt.body), tt.now)
			if (err == nil) != tt.good || err != nil && muster.KindOf(err) != tt.kind {
				t.Errorf("%v", err)
			}
			if err != nil && strings.Contains(err.Error(), vectorSecret[6:]) {
				t.Errorf("the error holds the secret: %v", err)
			}
		})
	}
}

func TestEitherSecretVerifiesWhatBothSigned(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 24, 64), 1, 2).Draw(t, "keys")
		id := rapid.StringMatching(`[A-Za-z0-9_-]{1,64}`).Draw(t, "id")
		body := rapid.SliceOf(rapid.Byte()).Draw(t, "body")
		at := time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "at"), 0)
		h := headers(id, "", webhook.Sign(keys, id, at, body))
		h.Set(webhook.HeaderTimestamp, itoa(at.Unix()))
		for _, k := range keys {
			if err := webhook.Verify("whsec_"+base64.StdEncoding.EncodeToString(k), h, body, at); err != nil {
				t.Fatal(err)
			}
		}
		stranger := append([]byte{keys[0][0] + 1}, keys[0][1:]...)
		if len(keys) == 2 && bytes.Equal(stranger, keys[1]) {
			return
		}
		if webhook.Verify("whsec_"+base64.StdEncoding.EncodeToString(stranger), h, body, at) == nil {
			t.Fatal("a stranger's secret verifies")
		}
	})
}

func FuzzVerify(f *testing.F) {
	f.Add("1614265330", vectorSignature, []byte(vectorBody))
	f.Add("1614265330", "v1,", []byte{})
	f.Add("-1", "v1,AAAA v1a,x   v2", []byte("x"))
	f.Fuzz(func(t *testing.T, stamp, signature string, body []byte) {
		h := headers(vectorID, stamp, signature)
		err := webhook.Verify(vectorSecret, h, body, time.Unix(vectorTime, 0))
		want := webhook.Sign([][]byte{key(t, vectorSecret)}, vectorID, time.Unix(vectorTime, 0), body)
		if err == nil && (stamp != "1614265330" || !strings.Contains(signature, strings.TrimRight(want, "=")[:len(want)-3])) {
			t.Errorf("%q verifies %q", signature, body)
		}
	})
}
