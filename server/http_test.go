package server_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"muster/server/servertest"
)

func TestThePageAboutTheAPIIsServedWithThePolicyOfThePage(t *testing.T) {
	s := servertest.Start(t)
	for _, coding := range []string{"identity", "gzip, zstd"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL()+"/api/docs", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept-Encoding", coding)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		policy := res.Header.Get("Content-Security-Policy")
		if err != nil || res.StatusCode != http.StatusOK || strings.Contains(policy, "unsafe") || !strings.HasPrefix(policy, "default-src 'self'") {
			t.Errorf("%s: %v, %d, policy %s", coding, err, res.StatusCode, policy)
		}
		if coding == "identity" && !strings.Contains(string(text), `src="/docs.js"`) {
			t.Errorf("the page is %s", text)
		}
		if coding != "identity" && res.Header.Get("Content-Encoding") != "gzip" {
			t.Errorf("%s: the page comes as %q", coding, res.Header.Get("Content-Encoding"))
		}
	}
}
