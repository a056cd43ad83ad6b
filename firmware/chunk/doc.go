// Package chunk sends images to devices piece by piece, as fast as a node's bandwidth
// for it allows, in turn to all who asked.
//
// It owns the order in which pieces leave, the open files they are read from, and how much
// of an image a device may fetch. Package firmware/talk asks it for pieces; it gives them
// to whom it was told to. Nothing that it knows outlives the process: a device that hears
// nothing asks again, at any offset.
//
// It never decides who may have an image, and knows no protocol.
package chunk
