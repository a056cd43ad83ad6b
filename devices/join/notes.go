package join

import (
	"context"
	"encoding/hex"

	"muster"
	"muster/audit"
)

// The views of what is here in the audit log: nothing that lets anybody in.
type (
	authorityView struct {
		ID       string        `json:"id"`
		Name     string        `json:"name"`
		Subject  string        `json:"subject"`
		Profile  string        `json:"profile"`
		JIT      bool          `json:"jit"`
		Proof    Proof         `json:"proof"`
		Verified muster.Micros `json:"verified,omitempty"`
	}
	provisioningView struct {
		Profile  string   `json:"profile"`
		Strategy Strategy `json:"strategy"`
		Key      string   `json:"key"` // public: the secret is beside it
	}
	keyView struct {
		ID      string        `json:"id"`
		Name    string        `json:"name"`
		Expires muster.Micros `json:"expires,omitempty"`
	}
	claimView struct {
		Device  muster.DeviceID `json:"device"`
		Expires muster.Micros   `json:"expires"`
	}
	blockView struct {
		Label string `json:"label"`
	}
)

func (a *Authority) view() any {
	if a == nil {
		return nil
	}
	return authorityView{a.ID, a.Name, a.Cert.Subject.String(), a.Profile, a.JIT, a.Proof, a.Verified}
}

func noteAuthority(ctx context.Context, action, id string, before, after *Authority) {
	audit.Note(ctx, action, "certificate-authorities/"+id, before.view(), after.view())
}

func noteProvisioning(ctx context.Context, action, profile string, after any) {
	audit.Note(ctx, action, "profiles/"+profile+"/provisioning", nil, after)
}

func noteAdoptionKey(ctx context.Context, action, id string, before, after any) {
	audit.Note(ctx, action, "adoption-keys/"+id, before, after)
}

func noteBlock(ctx context.Context, action string, hash [32]byte, after any) {
	audit.Note(ctx, action, "inbox-blocks/"+hex.EncodeToString(hash[:8]), nil, after)
}
