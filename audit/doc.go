// Package audit keeps who changed what, from where, with the thing before and after.
//
// Rooms note their changes with Note right before they store them; the store writes
// what was noted in the same transaction, so that no change is kept without its record
// and no record without its change. It is called by the API, which says who is asking,
// by the rooms, and by the store. It never decides what may be done, and holds no
// secret: views passed to Note have none.
package audit
