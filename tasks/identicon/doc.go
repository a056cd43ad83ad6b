// Package identicon draws a picture that stands for a name: a symmetric pattern of 5 x 5
// blocks in one colour, as PNG. The same name always gives the same picture.
//
// The server runs it as a kind of task; oversampling makes edges smooth, and costs as
// much as one likes. It is pure: it keeps nothing and starts nothing.
package identicon
