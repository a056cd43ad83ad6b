package precondition

import (
	"errors"
	"testing"
)

func TestAChangeIsMadeOnlyWhenItsConditionHolds(t *testing.T) {
	if err := Check(t.Context(), 1); err != nil {
		t.Errorf("without a condition: %v", err)
	}
	stale := errors.New("stale")
	ctx := With(t.Context(), func(current any) error {
		if current != 1 {
			return stale
		}
		return nil
	})
	if Check(ctx, 1) != nil || !errors.Is(Check(ctx, 2), stale) || !errors.Is(Check(ctx, nil), stale) {
		t.Error("the condition is not asked")
	}
}
