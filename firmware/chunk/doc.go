// Package chunk sends images to devices piece by piece, as fast as a node's bandwidth
// for it allows, in turn to all who asked.
//
// It owns the order in which pieces leave, and the open files they are read from. Package
// firmware/talk asks it for pieces; it gives them to whom it was told to, and asks
// firmware/budget how much a device may fetch. Nothing that it knows outlives the process: a
// device that hears nothing asks again, at any offset.
//
// It never decides who may have an image, and knows no protocol.
package chunk
