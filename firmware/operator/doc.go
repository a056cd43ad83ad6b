// Package operator is what people do with rollouts: they write drafts, agree to them, start,
// pause, resume, abort, supersede and roll back, and ask why a device is where it is.
//
// It owns the rules of those verbs, which devices a rollout has when it starts, and what of it
// is told: each verb is one transaction in which the rollout's row is locked, with a record in
// the audit log and an event of the feed. Noting does the same for what happens by itself: the
// director works through it. The API calls the verbs, the live gateway asks for Progress, and a
// loop of the server calls Tick beside the director's.
//
// It never speaks to a device, offers nothing, and decides nothing that package rollout does not.
package operator
