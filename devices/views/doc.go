// Package views keeps the lists of devices that users have saved: under a name, which
// devices, with which columns and in which order. A view is of one user, and ends with
// him; it holds no devices, for it is asked anew each time it is opened.
//
// The API calls it; the control store keeps what it is given. It evaluates no query, and
// knows no HTTP and no SQL.
package views
