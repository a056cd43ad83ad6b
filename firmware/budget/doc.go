// Package budget is the one account of the bytes of images that a device may be sent for an
// action, whichever door they leave by.
//
// It owns how much is left of a budget. Bytes are reserved in the store, in blocks, before they
// are sent, and spent of what is reserved in memory: a server that is killed costs a device what
// was reserved and not sent, and gives it nothing. firmware/deliver and firmware/chunk ask it
// before each piece; the control store keeps what is reserved.
//
// It never decides who may have an image, and sends nothing.
package budget
