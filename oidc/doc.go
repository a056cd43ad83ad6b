// Package oidc signs people in by an OpenID provider (OpenID Connect Core 1.0, the
// authorization code flow with PKCE, RFC 7636): it sends a browser there, and checks what
// comes back. It is the only importer of go-oidc and oauth2. The API calls it and makes
// the session; the package keeps no user, makes no session and decides nothing but which
// role the provider's groups mean.
package oidc
