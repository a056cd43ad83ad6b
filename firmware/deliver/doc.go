// Package deliver sends images to devices over HTTP: at addresses that are signed for one
// device, one action and one image, whole or in ranges, by the kernel (sendfile).
//
// It owns those addresses and their keys' use, what a request for a range means, and the limits:
// downloads at a time and bytes of a device, bytes a second of all of them. The API hands it the
// requests under [Path]; the doors that speak other protocols (DDI) call [Handler.Serve] once
// they know the device. Offers get their addresses of a [Signer].
//
// It imports no store: where images lie and which actions go on it is told by functions. It never
// holds an image in memory, and never decides who is to get one.
package deliver
