package accounts

// RoleScopes returns the scopes of a role, nil of an unknown one. Those of Admin are the
// one that implies all.
func RoleScopes(role string) []string { return roleScopes(role) }
