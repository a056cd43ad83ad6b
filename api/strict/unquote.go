package strict

import "encoding/json"

// unquote returns what a string that was read means.
func unquote(raw []byte) string {
	if !hasEscape(raw) {
		return string(raw)
	}
	var s string
	quoted := make([]byte, 0, len(raw)+2)
	quoted = append(append(append(quoted, '"'), raw...), '"')
	if err := json.Unmarshal(quoted, &s); err != nil {
		return string(raw) // it was read without a fault: this does not happen
	}
	return s
}
