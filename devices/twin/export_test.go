package twin

import (
	"testing"

	"pgregory.net/rapid"
)

// What the tests from outside, over a real store, share with those from inside.

func Patches() *rapid.Generator[string] { return values(true) }

func NaiveMerge(target, patch any) any { return mergePatch(target, patch) }

func NaiveDiverged(t testing.TB, desired, reported any) map[string]bool {
	return naiveDiverged(t, desired, reported)
}

func Decode(t testing.TB, text string) any { return decode(t, text) }
