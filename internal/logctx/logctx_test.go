package logctx

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestALineThatIsLoggedWithARequestsContextHasItsID(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(Handler(Handler(slog.NewTextHandler(&b, nil))))
	log.With("room", "x").InfoContext(With(t.Context(), "r1"), "words")
	log.Info("others")
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if strings.Count(lines[0], "request=r1") != 1 || !strings.Contains(lines[0], "room=x") || strings.Contains(lines[1], "request") {
		t.Errorf("logged %q", lines)
	}
}
