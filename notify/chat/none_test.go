//go:build !shoutrrr

package chat_test

import (
	"testing"

	"muster/notify/chat"
)

func TestNoServiceIsBuiltInWithoutTheTag(t *testing.T) {
	if s := chat.Services(); len(s) != 0 {
		t.Errorf("%d services", len(s))
	}
}
